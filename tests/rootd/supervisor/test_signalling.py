"""Signals that people ask for, above a simulated privileged."""

from __future__ import annotations

from typing import Any

import pytest

from rootd.supervisor.perform import WAITING_LIMIT
from rootd.supervisor.services import Refusal


def test_a_signal_goes_to_every_main_process_and_ends_when_it_was_sent(House: Any, spec: Any) -> None:
    house = House(spec(processes=2)).begin().later(2.0)
    operation = house.services.signal("site", "HUP", house.now, "r")
    assert house.said(operation) == []
    assert house.deliver().said(operation)[-1] == "ok: HUP sent to site"
    sent = [request.effect for request in house.privileged.asked[-2:]]
    assert [(signal.run, signal.signo, signal.tree) for signal in sent] == [(1, 1, False), (2, 1, False)]


def test_a_signal_that_is_not_allowed_or_has_nobody_to_go_to_is_refused(House: Any, spec: Any) -> None:
    house = House(spec(autostart=False), spec(name="mute", entry=1, signals=())).begin()
    for service, signal, kind, words in [
        ("site", "QUIT", "invalid", "site may not be sent QUIT: its configuration allows HUP, USR1"),
        ("mute", "HUP", "invalid", "mute may not be sent HUP: its configuration allows no signal"),
        ("site", "HUP", "not-running", "site is not running"),
    ]:
        with pytest.raises(Refusal, match=words) as refused:
            house.services.signal(service, signal, house.now, "r")
        assert refused.value.kind == kind


def test_a_signal_to_a_process_that_ended_meanwhile_says_so(House: Any) -> None:
    house = House().begin().later(2.0)
    house.privileged.exit(1, 1)
    operation = house.services.signal("site", "HUP", house.now, "r")
    house.deliver()
    assert house.said(operation)[-1] == "failed: HUP was not sent: site: No such process"


def test_signals_that_pile_up_are_refused(House: Any) -> None:
    house = House().begin().later(2.0)
    for _ in range(WAITING_LIMIT + 1):
        house.services.signal("site", "HUP", house.now, "r")
    with pytest.raises(Refusal, match="too much waits") as refused:
        house.services.signal("site", "HUP", house.now, "r")
    assert refused.value.kind == "later"
