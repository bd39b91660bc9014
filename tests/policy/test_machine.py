"""policy/machine: facts that nobody has gathered claim nothing."""

from __future__ import annotations

from policy.machine import Machine, Place


def test_a_machine_that_nobody_looked_at_knows_no_accounts_and_a_place_nobody_may_write() -> None:
    machine, place = Machine({}), Place("its program", "/a", "/a")
    assert not machine.accounts
    assert (place.users, place.groups, place.everybody) == (frozenset(), frozenset(), False)
    assert place.grave
