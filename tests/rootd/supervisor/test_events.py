"""What can happen, and what is done about it: data that states gives on under its own name."""

from __future__ import annotations

from typing import get_args

from rootd.supervisor import events, states


def test_states_gives_on_every_event_and_every_effect() -> None:
    known = vars(states)
    for one in (*get_args(events.Event), *get_args(events.Effect)):
        assert known[one.__name__] is one


def test_events_and_effects_are_values() -> None:
    assert events.Died(1, None) == events.Died(1, None)  # type: ignore[arg-type]
    assert len({events.Signal(1, 15), events.Signal(1, 15), events.Signal(1, 9, tree=True)}) == 2
