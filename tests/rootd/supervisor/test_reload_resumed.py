"""A reload that the last supervisor had under way: it goes on, or nothing was changed, and that is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from whole import whole

from policy import messages
from rootd import ipc
from rootd.supervisor import inflight
from rootd.supervisor.operations import Operations
from rootd.supervisor.reload import Reloads, read_generation


class House:
    """Two supervisors, one after the other, and a configuration of which each is told."""

    def __init__(self, generation: Callable[..., Any]) -> None:
        self.make = generation
        self.sent: list[ipc.Message] = []
        self.begun: dict[str, int] = {}
        self.first = generation()
        self.start(self.first, 1)

    def start(self, running: Any, number: int, going: Any = ()) -> None:
        self.events: list[Any] = []
        self.operations = Operations(self.happened, lambda: "now")
        self.reloads = Reloads(self.operations, self.send, lambda loaded, now: {})
        self.reloads.facts(read_generation(number, running.digest, running.fd), 0.0, going)

    def happened(self, event: Any) -> None:
        self.events.append(event)
        if isinstance(event, messages.Ended):
            self.reloads.ended(event, 3.0)

    def send(self, message: ipc.Message) -> bool:
        self.sent.append(message)
        return True

    def reborn(self, running: Any, number: int) -> None:
        going = [inflight.save(one) for one in self.operations.live()]
        ended = inflight.save_ends(self.operations.over())
        self.start(running, number)
        self.operations.resume(inflight.read_ends(ended)[0])
        self.operations.resume(map(inflight.restored, going))
        self.reloads.resume(lambda now: self.begun, 2.0)

    @property
    def end(self) -> messages.Ended:
        (found,) = [whole(one) for one in self.events if isinstance(one, messages.Ended) and one.operation == 1]
        return found


@pytest.fixture
def house(generation: Callable[..., Any]) -> House:
    house = House(generation)
    house.reloads.begin("id", False, 0.0)
    return house


def test_one_that_was_not_taken_has_changed_nothing(house: House) -> None:
    house.reborn(house.first, 1)
    again = "nothing was changed: the supervisor was started again meanwhile: try again"
    assert (house.end.ok, house.end.text) == (False, again)
    assert house.operations.find(1).requests == ["id"]  # type: ignore[union-attr]
    assert house.reloads.wake_at() is None
    house.reloads.begin("next", False, 3.0)


def test_one_that_was_taken_goes_on_with_what_it_has_to_restart(house: House) -> None:
    changed = house.make({"services.d/a.toml": '[service.a]\ncommand = ["/a"]\nuser = "www-site"\n'}, 2)
    begun: list[Any] = []

    def begin(now: float) -> dict[str, int]:
        begun.append(house.operations.begin("restart", "a", "", now))
        return {"a": begun[0].number}

    going = [inflight.save(one) for one in house.operations.live()]
    house.start(changed, 2)
    house.operations.resume(map(inflight.restored, going))
    house.reloads.resume(begin, 2.0)
    house.reloads.resume(begin, 2.0)  # a privileged that is linked again
    assert len(begun) == 1
    assert begun[0].requests == ["id"], "its steps belong to the same story"
    house.operations.end(begun[0], False, "a was not restarted: no", 3.0)
    assert (house.end.ok, house.end.text) == (False, "reloaded; a was not restarted: no")


def test_what_the_last_supervisor_had_privileged_take_is_told_as_of_who_asked_it(house: House) -> None:
    (operation,) = house.operations.live()
    operation.user = "carol"
    going = [inflight.save(operation)]
    house.start(house.first, 1, going)
    assert house.reloads.asked[:2] == ("", ""), "it was not taken"
    house.start(house.make(number=2), 2, going)
    assert house.reloads.asked[:2] == ("id", "carol")
    later = house.make(number=3)
    house.reloads.facts(read_generation(3, later.digest, later.fd), 1.0, going)
    assert house.reloads.asked[:2] == ("", ""), "that was another one"


@pytest.mark.parametrize("when", ["before", "after"])
def test_one_that_waits_for_what_it_has_begun_waits_on(house: House, when: str) -> None:
    """One of the two has ended before the supervisor is killed, or after."""
    (going,) = house.operations.live()
    two = [house.operations.begin("restart", name, "id", 1.0) for name in ("a", "b")]
    going.result, going.active = "reloaded: restarts a, b", {one.number for one in two}
    if when == "before":
        house.operations.end(two[0], False, "a was not restarted: no", 1.5)
    house.reborn(house.first, 1)
    if when == "after":
        house.operations.end(house.operations.find(two[0].number), False, "a was not restarted: no", 1.5)  # type: ignore[arg-type]
    assert [one.kind for one in house.operations.live()] == ["reload", "restart"]
    house.operations.end(house.operations.find(two[1].number), True, "b restarted", 4.0)  # type: ignore[arg-type]
    assert (house.end.ok, house.end.text) == (False, "reloaded: restarts a, b; a was not restarted: no")
