"""The simulated replica against small traces worked out by hand. One unit of time is a second."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from loadtests.plan.replica import Replica, Setup


@dataclass(frozen=True)
class Run:
    """What a replica made of a trace: when each batch began and whose items were in it; the latencies."""

    batches: list[tuple[float, list[int]]]
    latency_s: list[float]
    replica: Replica


def run(setup: Setup, arrivals: Sequence[float | tuple[float, int]], service_s: Callable[[int], float]) -> Run:
    """Args:
    arrivals: when, or when and of how many images.
    """
    batches: list[tuple[float, list[int]]] = []
    latency_s = [math.inf] * len(arrivals)
    replica = Replica(setup, service_s, latency_s, lambda start, indices: batches.append((round(start, 9), indices)))
    for index, arrival in enumerate(arrivals):
        moment, images = arrival if isinstance(arrival, tuple) else (arrival, 1)
        replica.run_until(moment)
        replica.arrive(index, images)
    replica.run_until(math.inf)
    assert replica.outstanding == 0
    return Run(batches, latency_s, replica)


def constant(batch_size: int) -> float:
    return 10.0


def test_an_idle_instance_takes_what_is_there_at_once_and_a_busy_one_all_that_waits() -> None:
    found = run(Setup(max_batch_size=4), [0, 1, 2, 3], constant)
    assert found.batches == [(0, [0]), (10, [1, 2, 3])]
    assert found.latency_s == pytest.approx([10, 19, 18, 17])


def test_what_arrives_at_one_moment_is_taken_together() -> None:
    assert run(Setup(max_batch_size=4), [0, 0, 0], constant).batches == [(0, [0, 1, 2])]


def test_a_batch_is_never_larger_than_the_maximum_and_the_oldest_go_first() -> None:
    found = run(Setup(max_batch_size=2), [0, 1, 2, 3, 4, 5], constant)
    assert found.batches == [(0, [0]), (10, [1, 2]), (20, [3, 4]), (30, [5])]


def test_a_busy_instance_does_not_hold_back_an_idle_one() -> None:
    found = run(Setup(max_batch_size=4, instances=2), [0, 1, 2, 3], constant)
    assert found.batches == [(0, [0]), (1, [1]), (10, [2, 3])]


def test_the_time_of_a_batch_is_that_of_its_size() -> None:
    found = run(Setup(max_batch_size=8), [0, 1, 2, 3], lambda size: 5.0 * size)
    assert found.batches == [(0, [0]), (5, [1, 2, 3])]
    assert found.latency_s == pytest.approx([5, 19, 18, 17])


def test_a_delay_counts_from_the_oldest_arrival() -> None:
    found = run(Setup(max_batch_size=8, max_queue_delay_s=5), [0, 2, 4, 6], constant)
    assert found.batches == [(5, [0, 1, 2]), (15, [3])]


def test_a_delay_ends_with_a_full_batch() -> None:
    found = run(Setup(max_batch_size=3, max_queue_delay_s=100), [0, 2, 4, 6, 7, 30], constant)
    assert found.batches == [(4, [0, 1, 2]), (30, [3, 4, 5])]


def test_what_has_waited_for_the_delay_already_waits_no_more() -> None:
    found = run(Setup(max_batch_size=8, max_queue_delay_s=5), [0, 6, 14], constant)
    assert found.batches == [(5, [0]), (15, [1, 2])]


def test_one_instance_at_a_time_forms_a_batch() -> None:
    """The second begins to wait when the first has taken its batch, for the oldest of what is left."""
    found = run(Setup(max_batch_size=2, instances=2, max_queue_delay_s=5), [0, 1, 1.5], constant)
    assert found.batches == [(1, [0, 1]), (6.5, [2])]


def test_a_full_queue_refuses_at_once() -> None:
    found = run(Setup(max_batch_size=4, max_queue_size=2), [0, 1, 2, 3, 11], constant)
    assert found.batches == [(0, [0]), (10, [1, 2]), (20, [4])]
    assert found.latency_s == pytest.approx([10, 19, 18, math.inf, 19])
    assert (found.replica.rejected, found.replica.expired) == (1, 0)


def test_an_empty_queue_takes_a_tensor_of_any_size() -> None:
    found = run(Setup(max_batch_size=8, max_queue_size=4, tensors=True), [(0, 6), (1, 6), (2, 1)], constant)
    assert found.batches == [(0, [0]), (10, [1])]
    assert found.replica.rejected == 1


def test_what_is_past_its_deadline_costs_no_inference() -> None:
    found = run(Setup(max_batch_size=1, timeout_s=15), [0, 1, 2, 12], constant)
    assert found.batches == [(0, [0]), (10, [1]), (20, [3])]
    # The second is in a batch by its deadline, but not answered.
    assert found.latency_s == pytest.approx([10, math.inf, math.inf, math.inf])
    assert found.replica.expired == 3


def test_what_has_expired_makes_room_in_a_full_queue() -> None:
    found = run(Setup(max_batch_size=4, max_queue_size=2, timeout_s=12), [0, 1, 2, 9, 13.5], lambda size: 20.0)
    assert found.batches == [(0, [0]), (20, [4])]
    assert (found.replica.rejected, found.replica.expired) == (1, 4)


def test_what_has_expired_counts_towards_a_full_batch_until_it_is_found() -> None:
    """As in the batcher: the delay ends, for the queue is as long as a batch, but there is less in it."""
    setup = Setup(max_batch_size=2, max_queue_delay_s=50, timeout_s=10)
    assert run(setup, [0, 20], lambda size: 1.0).batches == [(20, [1])]


def test_tensors_are_not_split_and_none_is_skipped() -> None:
    arrivals = [(0, 1), (1, 3), (2, 2), (3, 2), (4, 1)]
    found = run(Setup(max_batch_size=4, tensors=True), arrivals, constant)
    assert found.batches == [(0, [0]), (10, [1]), (20, [2, 3]), (30, [4])]
    assert (found.replica.batches, found.replica.rows) == (4, 9)


def test_images_of_one_request_are_let_in_a_batch_at_a_time_and_split_over_batches() -> None:
    """Three of the five are let in at once; the others follow as these are answered, behind the second request."""
    found = run(Setup(max_batch_size=3), [(0, 5), (1, 2)], constant)
    assert found.batches == [(0, [0, 0, 0]), (10, [1, 1]), (20, [0, 0])]
    assert found.latency_s == pytest.approx([30, 19])


def test_a_request_that_is_refused_in_part_is_refused_and_costs_no_more_inference() -> None:
    found = run(Setup(max_batch_size=4, max_queue_size=2), [0, (1, 3), (2, 2)], constant)
    assert found.batches == [(0, [0]), (10, [2, 2])]
    assert found.latency_s == pytest.approx([10, math.inf, 18])
    assert found.replica.rejected == 1


def test_the_event_loop_takes_requests_in_one_after_the_other_and_hands_the_answers_out() -> None:
    """A request costs the loop 2 before and 1 + 2 after: half the transport, decoding, ranking, half the transport."""
    setup = Setup(max_batch_size=4, transport_s=2, decode_s=1, postprocessing_s=2)
    found = run(setup, [0, 0], constant)
    assert found.batches == [(2, [0]), (12, [1])]
    # The loop is free when each batch ends.
    assert found.latency_s == pytest.approx([15, 25])
    assert found.replica.loop_busy_s == pytest.approx(10)


def test_what_waits_for_the_event_loop_is_let_in_together() -> None:
    """The second and the third are one pass of the loop, from 1 to 3; the two idle instances share them."""
    found = run(Setup(max_batch_size=4, instances=3, transport_s=2), [0, 0, 0], constant)
    assert found.batches == [(1, [0]), (3, [1]), (3, [2])]


def test_an_instance_that_has_finished_waits_for_the_event_loop() -> None:
    """The batch is done at 12, while the loop lets the second request in, from 11 to 13."""
    found = run(Setup(max_batch_size=4, transport_s=4), [0, 11], constant)
    assert found.batches == [(2, [0]), (13, [1])]
    assert found.latency_s == pytest.approx([15, 14])


def test_decoding_threads_work_beside_the_loop() -> None:
    """Requests reach the threads at 1, 2 and 3; each thread takes 4."""
    setup = Setup(max_batch_size=4, transport_s=2, decode_s=4, decode_threads=2)
    found = run(setup, [0, 0, 0], constant)
    assert found.batches == [(5, [0]), (15, [1, 2])]
    assert found.latency_s == pytest.approx([16, 26, 27])


def test_threads_share_cores_alike() -> None:
    """The instance begins at 1. The second request comes at 5, and to let it in takes the loop 1, so until 7, in which
    the instance does 1 as well. It has 5 left, so it ends at 12. The answer shares the core with the second batch and
    is out at 14; the batch ends at 23, its answer is out at 24."""
    setup = Setup(max_batch_size=4, cores=1, transport_s=2)
    found = run(setup, [0, 5], constant)
    assert found.batches == [(1, [0]), (12, [1])]
    assert found.latency_s == pytest.approx([14, 19])
    assert found.replica.work_s == pytest.approx(24)


def test_enough_cores_are_no_limit() -> None:
    alone = run(Setup(max_batch_size=4, transport_s=2), [0, 5], constant)
    assert run(Setup(max_batch_size=4, cores=2, transport_s=2), [0, 5], constant).latency_s == alone.latency_s
