"""An upgrade ends once, whichever supervisor tells it, and says what has become of it."""

from __future__ import annotations

from typing import Any

import pytest
from whole import whole

from policy import messages
from rootd import ipc
from rootd.supervisor.operations import Asker, Operations, Refusal
from rootd.supervisor.upgrading import BAD_FILES, TIME_LIMIT, Upgrades, of_api


class House:
    """One supervisor after another: what is kept is there for the next."""

    def __init__(self, kept: bytes = b"", program: str = "0.1", upgrades: int = 0, last: int = 0) -> None:
        self.sent: list[int] = []
        self.there = True
        self.told: list[Asker] = []  # who is to get its outcome
        self.restarted: list[str] = []
        self.restart: int | Refusal | None = 9
        self.ended: list[messages.Ended] = []
        self.operations = Operations(self.publish, lambda: "now")
        self.operations.last = last
        inherited = ipc.Inherited()
        inherited.program, inherited.upgrades = program, upgrades
        self.kept = kept
        self.upgrades = Upgrades(self.operations, inherited, self.send, self.keep, self.begin_api)
        self.wrong = self.upgrades.restore(kept)

    def publish(self, event: Any) -> None:
        if isinstance(event, messages.Ended):
            self.ended.append(whole(event))
            operation = self.operations.find(event.operation)
            self.told += operation.askers if operation else []

    def send(self, message: ipc.Message) -> bool:
        assert message.op == ipc.UPGRADE
        if self.there:
            self.sent.append(message.seq)
        return self.there

    def keep(self, data: bytes) -> None:
        self.kept = data

    def begin_api(self, now: float, request: str) -> int | None:
        self.restarted.append(request)
        if isinstance(self.restart, Refusal):
            raise self.restart
        return self.restart

    def steps(self) -> list[str]:
        return [event.text for one in self.operations.all() for event in one.events]


def end(number: int, ok: bool = True, text: str = "durward-api restarted") -> messages.Ended:
    return messages.Ended(1, "now", number, "durward-api", ok, text, 1.0)


def test_what_is_refused_ends_it_with_what_was_said() -> None:
    house = House()
    number = house.upgrades.begin("ab", 100.0)
    assert (house.sent, house.steps()) == ([number], ["0.1 runs; the program that is installed now is tried"])
    assert house.kept
    house.upgrades.refused(ipc.Message(ipc.UPGRADE, seq=number + 1, arg=65), b"of another", 101.0)
    assert not house.ended
    house.upgrades.refused(ipc.Message(ipc.UPGRADE, seq=number, arg=76), b"a no\n    a = 1\n    ^\nb no\n", 101.0)
    assert [(one.ok, one.text, one.problems) for one in house.ended] == [(False, "nothing was changed: a no; b no", [])]
    assert (house.kept, house.told) == (b"", []), "the desk knows who has asked"
    house.upgrades.refused(ipc.Message(ipc.UPGRADE, seq=number, arg=65), b"again", 101.0)
    assert len(house.ended) == 1


def test_files_that_are_refused_are_told_as_a_reload_tells_them_each_mistake_at_its_place() -> None:
    house = House()
    number = house.upgrades.begin("ab", 100.0)
    said = b"services.d/a.toml:2: service.a.user: no\n    user = 1\n    ^\n/etc/x is not root's\n"
    house.upgrades.refused(ipc.Message(ipc.UPGRADE, seq=number, arg=BAD_FILES), said, 101.0)
    (ended,) = house.ended
    assert (ended.ok, ended.text) == (False, "the new program refuses the files: nothing was changed")
    assert ended.problems == [
        messages.Problem("services.d/a.toml", 2, "", "service.a.user: no"),
        messages.Problem("", 0, "", "/etc/x is not root's"),
    ]


def test_as_many_mistakes_are_told_as_fit_into_a_packet() -> None:
    house = House()
    number = house.upgrades.begin("ab", 100.0)
    house.upgrades.refused(ipc.Message(ipc.UPGRADE, seq=number, arg=BAD_FILES), b"x\n" * 8000, 101.0)
    assert len(house.ended[0].problems) < 8000
    assert house.ended[0].problems[-1].text.endswith(" more")


@pytest.mark.parametrize(("status", "how"), [(1, "exit status 1"), (-14, "signal 14")])
def test_a_trial_that_says_nothing_is_told_by_how_it_ended(status: int, how: str) -> None:
    house = House()
    number = house.upgrades.begin("ab", 100.0)
    house.upgrades.refused(ipc.Message(ipc.UPGRADE, seq=number, arg=status), b"", 101.0)
    assert house.ended[0].text == f"nothing was changed: the new program ended when it was tried ({how})"


def test_one_is_under_way_at_a_time() -> None:
    house = House()
    number = house.upgrades.begin("ab", 100.0)
    with pytest.raises(Refusal, match=f"under way: operation {number}"):
        house.upgrades.begin("cd", 101.0)


def test_the_next_supervisor_tells_the_outcome_when_the_api_is_of_the_new_version_too() -> None:
    before = House()
    number = before.upgrades.begin("ab", 100.0)
    after = House(before.kept, "0.2", 1, last=200)
    assert after.wrong == ""
    after.upgrades.facts(102.0)
    assert after.sent == []
    assert after.restarted == ["ab"]
    assert after.steps() == ["keeper, privileged, supervisor, log, auth, probe: 0.1 → 0.2"]
    after.upgrades.ended(end(8), 103.0)
    assert not after.ended
    after.upgrades.facts(103.0)  # privileged was started again
    assert len(after.restarted) == 1
    after.upgrades.ended(end(9), 104.0)
    assert [(one.operation, one.ok, one.text, one.seconds) for one in after.ended] == [
        (number, True, "upgraded: 0.1 → 0.2; durward-api restarted", 4.0)
    ]
    assert after.kept == b""
    assert after.told == [Asker("ab", None, "shutdown")]


def test_an_api_that_does_not_come_up_is_said_and_the_rest_is_upgraded() -> None:
    before = House()
    before.upgrades.begin("ab", 100.0)
    after = House(before.kept, "0.2", 1)
    after.upgrades.facts(102.0)
    after.upgrades.ended(end(9, False, "it did not become ready"), 104.0)
    said = "upgraded: 0.1 → 0.2; but of the api only the old version runs: it did not become ready"
    assert [(one.ok, one.text) for one in after.ended] == [(False, said)]


@pytest.mark.parametrize("restart", [None, Refusal("later", "too many")])
def test_without_an_api_it_ends_at_once(restart: Any) -> None:
    before = House()
    before.upgrades.begin("ab", 100.0)
    after = House(before.kept, "0.2", 1)
    after.restart = restart
    after.upgrades.facts(102.0)
    assert [one.ok for one in after.ended] == [restart is None]
    rest = "; but the api could not be restarted: too many" if restart else ""
    assert after.ended[0].text == f"upgraded: 0.1 → 0.2{rest}"


def test_a_supervisor_that_was_killed_meanwhile_asks_again_under_the_same_number() -> None:
    before = House()
    number = before.upgrades.begin("ab", 100.0)
    after = House(before.kept, "0.1", 0)
    after.upgrades.facts(102.0)
    assert after.sent == [number]
    assert not after.ended
    after.upgrades.refused(ipc.Message(ipc.UPGRADE, seq=number, arg=76), b"no", 103.0)
    assert (after.ended[0].operation, after.ended[0].text) == (number, "nothing was changed: no")
    assert after.told == [Asker("ab", None, "shutdown")]


def test_a_privileged_that_was_killed_meanwhile_is_asked_again() -> None:
    house = House()
    house.there = False
    number = house.upgrades.begin("ab", 100.0)
    house.there = True
    house.upgrades.facts(101.0)
    assert house.sent == [number]


def test_where_nothing_is_under_way_facts_and_ends_mean_nothing() -> None:
    house = House()
    house.upgrades.facts(1.0)
    house.upgrades.ended(end(0), 1.0)
    house.upgrades.wake(1e9)
    assert (house.sent, house.ended, house.upgrades.wake_at()) == ([], [], None)


def test_a_keeper_that_does_not_answer_is_given_up() -> None:
    house = House()
    house.upgrades.begin("ab", 100.0)
    assert house.upgrades.wake_at() == 100.0 + TIME_LIMIT
    house.upgrades.wake(100.0 + TIME_LIMIT - 1)
    assert not house.ended
    house.upgrades.wake(100.0 + TIME_LIMIT)
    assert "the keeper did not answer" in house.ended[0].text


@pytest.mark.parametrize("kept", [b'{"operation": "x"}', b'{"operation": 1, "request": "\xff"}'])
def test_a_file_that_is_damaged_counts_for_nothing(kept: bytes) -> None:
    house = House(kept)
    assert "damaged" in house.wrong
    house.upgrades.facts(1.0)
    assert (house.sent, house.ended) == ([], [])


def test_our_api_is_restarted_where_it_is_wanted() -> None:
    asked: list[tuple[str, float, str]] = []

    def restart(name: str, now: float, request: str) -> int:
        asked.append((name, now, request))
        return 5

    assert of_api(restart, lambda name: False)(1.0, "ab") is None
    assert of_api(restart, lambda name: True)(1.0, "ab") == 5
    assert asked == [("durward-api", 1.0, "ab")]


def test_an_upgrade_is_root_s_whatever_the_policy_lets_others_do(room: Any, tokens: Any) -> None:
    refused = room.client().ask(messages.Upgrade(), tokens[1])
    assert (refused.kind, refused.text) == ("forbidden", "an upgrade is for root alone: sudo durward --root upgrade")
    assert room.sent == []
    room.client("root").send(messages.Upgrade(), "")
    room.settle()
    assert [message.op for message in room.sent] == [ipc.UPGRADE]


def test_one_that_the_state_file_tells_of_goes_on_as_that_operation_and_a_second_end_is_none() -> None:
    before = House()
    number = before.upgrades.begin("ab", 100.0)
    operation = before.operations.find(number)
    assert operation is not None
    after = House(before.kept, "0.2", 1)
    after.restart = None
    after.operations.resume([operation])
    after.upgrades.facts(102.0)
    assert after.operations.find(number) is operation
    assert operation.ended
    again = House(before.kept, "0.2", 1)  # killed before the file was emptied
    again.operations.resume([operation])
    again.upgrades.facts(103.0)
    assert (again.ended, again.kept) == ([], b"")
