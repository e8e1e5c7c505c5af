from __future__ import annotations

from loadtests.run import Load, percentile


def test_percentile_is_the_time_that_the_share_took_at_most() -> None:
    times = {30.0: 1, 10.0: 95, 20.0: 4}
    assert [percentile(times, share) for share in (0.5, 0.95, 0.99, 1.0)] == [10.0, 10.0, 20.0, 30.0]
    assert percentile({}, 0.5) is None


def test_a_load_says_what_it_is() -> None:
    assert str(Load(16, 15)) == "16 users without a pause, 15 s"
    assert str(Load(4, 60, "spike", 120.0)) == "4 users with 120 random requests/s, spike, 60 s"


def test_a_rate_is_that_of_all_users_together() -> None:
    assert Load(16, 15).rate_per_user is None
    assert Load(4, 60, rate_per_s=120.0).rate_per_user == 30.0
