"""What is due, in its order, and that nothing else wakes anybody up."""

from __future__ import annotations

from hypothesis import given, strategies as st

from rootd.auth.timers import Timer, Timers

TIMES = st.lists(st.floats(0, 100), max_size=30)


def test_without_timers_there_is_no_reason_to_wake_up() -> None:
    timers = Timers()
    assert timers.next() is None
    timers.run(1e9)


@given(TIMES, st.floats(0, 100))
def test_what_is_due_runs_once_in_the_order_of_time_and_the_rest_stays(times: list[float], now: float) -> None:
    timers, ran = Timers(), []
    for when in times:
        timers.at(when, lambda when=when: ran.append(when))
    assert timers.next() == min(times, default=None)
    timers.run(now)
    assert ran == sorted(when for when in times if when <= now)
    assert timers.next() == min((when for when in times if when > now), default=None)
    timers.run(now)
    assert len(ran) == len([when for when in times if when <= now])


@given(TIMES, st.sets(st.integers(0, 29)))
def test_a_cancelled_timer_neither_runs_nor_wakes(times: list[float], cancelled: set[int]) -> None:
    timers, ran = Timers(), []
    made = [timers.at(when, lambda at=at: ran.append(at)) for at, when in enumerate(times)]
    for at in cancelled:
        if at < len(made):
            made[at].cancel()
    left = [at for at in range(len(times)) if at not in cancelled]
    assert timers.next() == min((times[at] for at in left), default=None)
    timers.run(100.0)
    assert sorted(ran) == left
    assert timers.next() is None


def test_a_timer_may_cancel_another_that_is_due_as_well_and_add_one_for_the_next_turn() -> None:
    timers, ran = Timers(), []
    later: list[Timer] = []

    def first() -> None:
        ran.append("first")
        later[0].cancel()
        timers.at(1.0, lambda: ran.append("third"))

    timers.at(1.0, first)
    later.append(timers.at(1.0, lambda: ran.append("second")))
    timers.run(2.0)
    assert ran == ["first"]
    assert timers.next() == 1.0
    timers.run(2.0)
    assert ran == ["first", "third"]
