"""Histories that were found once, and went wrong."""

from __future__ import annotations

from typing import Any

import pytest
from test_services_histories import Histories, HistoriesOfHooks


@pytest.fixture
def machine(House: Any, spec: Any) -> Histories:
    machine = HistoriesOfHooks
    machine.House, machine.spec = House, staticmethod(spec)
    return machine()


def test_two_hooks_that_a_killed_supervisor_leaves_behind_are_of_two_slots(machine: Histories) -> None:
    """Of neither is it known any more which run it is about."""
    machine.begin()
    machine.reload(most=3, name="plain", processes=2)
    machine.privileged_is_back()
    machine.ask(name="plain", what="stop")
    machine.privileged_is_back()
    machine.fail_spawns(failing=(11, "fork"))
    machine.privileged_is_back()
    machine.supervisor_is_killed(damaged=False, late=False)
    machine.teardown()
