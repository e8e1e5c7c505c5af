from __future__ import annotations

from loadtests.report.markdown import to_markdown
from loadtests.report.result import Load
from loadtests.targets.readings import Efficiency
from tests.loadtests.made_up import EFFICIENCY, READINGS, made_up_result, made_up_run


def row(text: str, title: str) -> list[str]:
    """The cells of the first row of the table of this title."""
    lines = text.split(f"## {title}\n")[1].strip().splitlines()
    return [cell.strip() for cell in lines[2].strip("|").split("|")]


def test_rows_have_medians_and_ranges() -> None:
    runs = [
        made_up_run(number=number, images_per_s=rate, latency_ms={50.0: 1.0, 95.0: 2.0, 99.0: p99, 99.9: 40, 100.0: 50})
        for number, rate, p99 in ((1, 90.0, 30.0), (2, 1234.5, 3.456), (3, 100.0, 20.0))
    ]
    text = to_markdown(made_up_result(*runs))
    found = row(text, "Latency and throughput")
    assert found[:6] == ["HTTP", "4 in flight", "3,000", "0", "100", "90.0 – 1,234"]
    assert found[6:12] == ["1.00", "2.00", "20.0", "3.46 – 30.0", "40.0", "50.0"]
    assert found[12:] == ["25.0 %", "–"]
    assert row(text, "Where the time went, mean ms of a request")[:4] == ["HTTP", "4 in flight", "0.400", "1.00"]
    assert row(text, "Batch sizes, share of the batches") == ["HTTP", "4 in flight", "30.0 %", "20.0 %", "50.0 %"]
    assert "## Energy" not in text
    assert "## Failures" not in text
    assert "- Settings: FOVEA_MAX_QUEUE_SIZE=64" in text


def test_energy_is_for_each_answered_image() -> None:
    run = made_up_run(readings=READINGS, efficiency=EFFICIENCY, failures=200, errors={"503: full": 200})
    text = to_markdown(made_up_result(run))
    found = row(text, "Energy and processor time")
    assert found[:6] == ["HTTP", "4 in flight", "50.0", "50.0 – 50.0", "0.625", "0.625 – 0.625"]
    assert found[6:] == ["2.00", "2,000", "2,000 – 2,000"]
    assert "- Power and energy: counted by the GPU" in text


def test_the_target_is_among_the_facts() -> None:
    text = to_markdown(made_up_result(made_up_run(readings=READINGS)))
    assert "- Target: device Example T1, driver 999.1, power limit 70 W" in text
    text = to_markdown(made_up_result(made_up_run(readings={"hardware": {"machine": "2 cores; load average 1.0"}})))
    assert "- Target:" not in text
    assert "nvidia-smi found no GPU" in text


def test_processor_time_alone_makes_a_row() -> None:
    efficiency = Efficiency(100.0, None, None, 2000.0, "the energy is not known")
    text = to_markdown(made_up_result(made_up_run(efficiency=efficiency)))
    assert row(text, "Energy and processor time")[2:] == [*["–"] * 5, "2,000", "2,000 – 2,000"]


def test_failures_are_listed() -> None:
    run = made_up_run(load=Load("open", 20.0), failures=1000, errors={"a | b\nc": 1000}, latency_ms={}, mean_ms=None)
    text = to_markdown(made_up_result(run))
    assert row(text, "Failures") == ["HTTP", "20/s", "1", "1,000", "a / b c"]
    assert row(text, "Latency and throughput")[3:12] == ["1,000", "100", "100 – 100", *["–"] * 6]


def test_one_round_is_said_to_be_one() -> None:
    assert "nothing shows how much the figures vary" in to_markdown(made_up_result(made_up_run()))
