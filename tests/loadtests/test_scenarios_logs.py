from __future__ import annotations

import pytest

from loadtests.scenarios.logs import count_correct, parse_detail, parse_summary

# As LoadGen 6.0.17 wrote them.
SINGLE_STREAM = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : SingleStream
Mode     : PerformanceOnly
90.0th percentile latency (ns) : 10626840
Result is : VALID
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: Yes
Early Stopping Result:
 * Processed at least 64 queries (78).
 * Would discard 0 highest latency queries.
 * Early stopping 90.0th percentile estimate: 46046689
 * Not enough queries processed for 99.0th percentile
 early stopping estimate (would need to process at
 least 662 total queries).

================================================
Additional Stats
================================================
QPS w/ loadgen overhead         : 254.95
QPS w/o loadgen overhead        : 257.01

Min latency (ns)                : 2077362
Max latency (ns)                : 46046689
Mean latency (ns)               : 3890848
50.00 percentile latency (ns)   : 2147187
90.00 percentile latency (ns)   : 10626840
95.00 percentile latency (ns)   : 12929597
97.00 percentile latency (ns)   : 13496318
99.00 percentile latency (ns)   : 46046689
99.90 percentile latency (ns)   : 46046689

================================================
Test Parameters Used
================================================
samples_per_query : 1
target_qps : 1000
target_latency (ns): 0
max_async_queries : 1
min_duration (ms): 300
max_duration (ms): 0
min_query_count : 20
max_query_count : 0
"""
SERVER = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 17.81
Result is : INVALID
  Performance constraints satisfied : NO
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
 * Reduce target QPS to improve latency.
Early Stopping Result:
 * Run unsuccessful.
 * Processed 21 queries.
 * Would need to run at least 3408 more queries,
 with the run being successful if every additional
 query were under latency.

================================================
Additional Stats
================================================
Scheduled samples per second : 39.87
Min latency (ns)                : 317827866
Max latency (ns)                : 721432634
"""
MULTI_STREAM = """\
Result is : INVALID
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
Early Stopping Result:
 * Only processed 20 queries.
 * Need to process at least 662 queries for early stopping.

================================================
Additional Stats
================================================
Per-query latency:
Min latency (ns)                : 94935346
"""
OFFLINE = """\
Samples per second: 2999.48
Result is : INVALID
  Min duration satisfied : NO
  Min queries satisfied : Yes
  Early stopping satisfied: Yes
Recommendations:
 * Increase expected QPS so the loadgen pre-generates a larger (coalesced) query.

================================================
Additional Stats
================================================
Min latency (ns)                : 11001906
"""
IN_ACCURACY_MODE = """\

No warnings encountered during test.

No errors encountered during test.
"""
DETAIL = """\
:::MLLOG {"key": "requested_min_query_count", "value": 20, "time_ms": 0.010236, "namespace": "mlperf::logging", \
"event_type": "POINT_IN_TIME", "metadata": {"is_error": false, "is_warning": false, "file": \
"test_settings_internal.cc", "line_no": 439, "pid": 5006, "tid": 5006}}
:::MLLOG {"key": "result_query_count", "value": 31, "time_ms": 321.627840, "namespace": "mlperf::logging", \
"event_type": "POINT_IN_TIME", "metadata": {"is_error": false, "is_warning": false, "file": "results.cc", \
"line_no": 712, "pid": 5006, "tid": 5006}}
"""
ACCURACY = """\
[
{ "seq_id" : 0, "qsl_idx" : 2, "data" : "626C7565" },
{ "seq_id" : 1, "qsl_idx" : 0, "data" : "677265656E" },
{ "seq_id" : 2, "qsl_idx" : 1, "data" : "" },
{ "seq_id" : 3, "qsl_idx" : 2, "data" : "626C7565" }
]
"""


def test_a_valid_run_has_its_values_and_no_reasons() -> None:
    verdict = parse_summary(SINGLE_STREAM)
    assert verdict.valid
    assert verdict.reasons == ()
    assert verdict.values["90.0th percentile latency (ns)"] == "10626840"
    assert verdict.values["99.00 percentile latency (ns)"] == "46046689"
    assert verdict.values["min_duration (ms)"] == "300"
    assert verdict.values["Scenario"] == "SingleStream"


def test_an_invalid_run_has_the_recommendations_and_what_early_stopping_lacks() -> None:
    verdict = parse_summary(SERVER)
    assert not verdict.valid
    assert verdict.reasons == (
        "Reduce target QPS to improve latency.",
        "Run unsuccessful. Processed 21 queries. Would need to run at least 3408 more queries, with the run being "
        "successful if every additional query were under latency.",
    )
    assert verdict.values["Scheduled samples per second"] == "39.87"


def test_early_stopping_alone_is_a_reason() -> None:
    assert parse_summary(MULTI_STREAM).reasons == (
        "Only processed 20 queries. Need to process at least 662 queries for early stopping.",
    )


def test_a_run_without_early_stopping_has_its_recommendation() -> None:
    verdict = parse_summary(OFFLINE)
    assert verdict.reasons == ("Increase expected QPS so the loadgen pre-generates a larger (coalesced) query.",)
    assert verdict.values["Samples per second"] == "2999.48"


def test_a_summary_without_a_verdict_is_an_error() -> None:
    with pytest.raises(ValueError, match="no verdict"):
        parse_summary(IN_ACCURACY_MODE)


def test_detail() -> None:
    assert parse_detail(DETAIL) == {"requested_min_query_count": 20, "result_query_count": 31}


def test_each_image_counts_once() -> None:
    assert count_correct(ACCURACY, ["green", "red", "blue"]) == 2
    assert count_correct(ACCURACY, ["red", "green", "blue"]) == 1


def test_an_image_without_an_answer_in_the_log_is_an_error() -> None:
    with pytest.raises(ValueError, match="lacks 1 of 4 images"):
        count_correct(ACCURACY, ["green", "red", "blue", "blue"])
