"""What is recorded of a configuration that counts from now on, and what of that the next supervisor is to know."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from policy import source
from policy.rules import build
from rootd import ipc
from rootd.config.trusted import File
from rootd.supervisor import comparing, loading
from rootd.supervisor.auditing import Audit
from rootd.supervisor.comparing import Answer
from rootd.supervisor.loading import SAME, UNKNOWN, Due, Loads
from rootd.supervisor.reload import NOBODY, Loaded

POLICY = '[[grant]]\nid = "ops"\nwho = ["group:NAME"]\nmay = ["restart"]\non = ["site"]\n'


def loaded(**files: str) -> Loaded:
    return Loaded(3, b"\1" * 32, (), NOBODY, [], files=files)


def allowing(group: str, number: int = 3, digest: bytes = b"\1" * 32) -> Loaded:
    """Where the members of a group may restart site."""
    text = POLICY.replace("NAME", group)
    shown = source.Source([source.policy_file("policy.d/1.toml", text)], {"site": []}, [])
    files = {"policy.d/1.toml": hashlib.sha256(text.encode()).hexdigest()}
    return Loaded(
        number,
        digest,
        (),
        build((), (), (), files["policy.d/1.toml"]),
        [],
        files=files,
        shown=zlib.compress(source.encode(shown)),
    )


class House:
    """A supervisor after the other, with log played; the clock is the test's."""

    def __init__(self) -> None:
        self.loop = ipc.Loop()
        self.now = 1000.0
        self.kept = b""
        self.life = 0  # what an earlier one says or writes is nothing
        self.records: list[dict[str, Any]] = []
        self.waiting: list[ipc.Message] = []
        self.again()

    def again(self) -> Loads:
        """kill -9, and the next one."""
        self.waiting.clear()
        self.life += 1
        self.audit = Audit(partial(self.send, self.life), lambda: self.now, lambda text: None)
        self.loads = Loads(self.loop, self.audit, lambda: self.now, partial(self.keep, self.life))
        assert self.loads.restore(self.kept) == ""
        return self.loads

    def send(self, life: int, message: ipc.Message) -> bool:
        if life == self.life:
            self.waiting.append(message)
        return True

    def keep(self, life: int, data: bytes) -> None:
        self.kept = data if life == self.life else self.kept

    def log(self, number: int = 0) -> None:
        """It has written all, or its disk refuses."""
        for message in [*self.waiting]:
            self.waiting.remove(message)
            if not number:
                self.records.append(json.loads(message.body))
            self.audit.recorded(ipc.Message(ipc.RECORDED, seq=message.seq, arg=number))

    def settle(self) -> list[dict[str, Any]]:
        """What is in the log by the time that nothing is at work."""
        while self.loads._work is not None or self.waiting:
            self.log()
            self.loop.turn(30.0 if self.loads._work is not None else 0.0)
        found, self.records = self.records, []
        return found

    def count(self, one: Loaded, request: str = "", user: str = "", what: str = "what") -> None:
        self.loads.count(one, request, user, what)


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.settle()
    made.loop.close()


def test_each_file_has_its_hash_and_one_that_cannot_be_read_has_none() -> None:
    found = loading.hashes([File("durward.toml", "a"), File("policy.d/1.toml", "", error="denied")])
    assert found == {"durward.toml": hashlib.sha256(b"a").hexdigest(), "policy.d/1.toml": ""}


def test_a_record_has_no_hash_that_what_environment_files_say_goes_into() -> None:
    """Who may read the audit log, and knows all the rest of the table, could try short passwords."""
    two = [allowing("ops", digest=hashlib.sha256(word).digest()) for word in (b"hunter2", b"hunter3")]
    one, other = ([*loading.records(each, {}, "what", id="")] for each in two)
    assert one == other


def test_what_is_new_changed_or_gone_is_named_and_nothing_else() -> None:
    before = {"same": "1", "changed": "2", "gone": "3"}
    (record,) = loading.records(loaded(same="1", changed="x", new="4"), before, "changed: site", id="abcd", user="eve")
    assert (record["kind"], record["id"], record["user"]) == ("load", "abcd", "eve")
    assert record["changed"] == "changed: site"
    assert record["files"] == {"changed": "x", "new": "4", "gone": ""}


def test_many_files_are_in_several_records_each_of_which_fits_into_a_packet() -> None:
    names = [f"services.d/{n:03}-{'x' * 200}.toml" for n in range(250)]
    found = list(loading.records(loaded(**dict.fromkeys(names, "f" * 64)), {}, "", id="abcd"))
    assert [record["kind"] for record in found] == ["load", "files", "files"]
    assert {record["id"] for record in found} == {"abcd"}
    assert [name for record in found for name in record["files"]] == names
    assert all(len(json.dumps(record)) < ipc.BODY_LIMIT for record in found)


GAINED = {"who": "group:new", "may": "restart", "on": "site", "if": "always"}
LOST = {**GAINED, "who": "group:ops"}


def test_the_first_one_of_all_says_that_what_was_before_is_not_known(house: House) -> None:
    house.count(allowing("ops"), what="added: site")
    (load,) = house.settle()
    assert (load["kind"], load["id"], load["changed"], load["rights"]) == ("load", "", "added: site", UNKNOWN)
    assert "user" not in load


def test_a_reload_says_who_and_then_what_changed_in_rights_with_the_same_id(house: House) -> None:
    house.count(allowing("ops"))
    house.settle()
    house.count(allowing("new", 4), "abcd", "carol", "policy: changed")
    house.log()
    assert [one["kind"] for one in house.records] == ["load"], "it is told before the rest is known"
    load, rights = house.settle()
    assert (load["kind"], load["id"], load["user"], load["changed"]) == ("load", "abcd", "carol", "policy: changed")
    assert (rights["kind"], rights["id"], rights["user"], rights["generation"]) == ("rights", "abcd", "carol", 4)
    assert (rights["before"], rights["policy"]) == tuple(allowing(group).policy.hash[:12] for group in ("ops", "new"))
    assert (rights["text"], rights["gained"], rights["lost"]) == ("1 gained, 1 lost", [GAINED], [LOST])


def test_a_reload_that_changes_no_right_says_so_without_a_child(house: House) -> None:
    house.count(allowing("ops"))
    house.count(allowing("ops", 4), "abcd", "carol")
    assert house.loads._work is None
    *_, rights = house.settle()
    assert (rights["id"], rights["text"]) == ("abcd", SAME)
    assert rights.keys().isdisjoint(("gained", "lost", "more", "all"))


def test_a_new_supervisor_tells_what_has_changed_since_and_not_that_all_is_new(house: House) -> None:
    house.count(allowing("ops"))
    house.settle()
    house.again().count(allowing("ops"), "", "", "added: site")
    (load,) = house.settle()
    assert (load["changed"], load["files"], load["rights"]) == ("no change", {}, SAME)
    house.again().count(allowing("ops", digest=b"\2" * 32), "", "", "added: site")
    assert house.settle()[0]["changed"] == "no file: what they name, or this program, is another"
    house.again().count(allowing("new"), "", "", "added: site")
    load, rights = house.settle()
    assert (load["changed"], [*load["files"]]) == ("files changed: policy.d/1.toml", ["policy.d/1.toml"])
    assert (rights["id"], rights["text"], rights["gained"]) == ("", "1 gained, 1 lost", [GAINED])


def test_of_a_reload_that_is_told_already_nothing_is_told_again_where_only_its_end_was_lost(house: House) -> None:
    house.count(allowing("ops"))
    house.count(allowing("more", 4), "abcd", "carol")
    assert [one["text"] for one in house.settle() if one["kind"] == "rights"] == ["1 gained, 1 lost"]
    house.again()
    house.count(allowing("more", 4), "abcd", "carol")  # its operation goes on, as far as the state file knows
    (load,) = house.settle()
    assert (load["kind"], load["id"], load["rights"]) == ("load", "abcd", SAME)


def test_files_that_come_and_go_between_two_supervisors_are_named(house: House) -> None:
    house.count(loaded(a="1", b="2", c="3"))
    house.settle()
    house.again().count(loaded(b="2", c="4", d="5"), "", "", "")
    assert house.settle()[0]["changed"] == "files added: d; files removed: a; files changed: c"


def test_what_a_killed_supervisor_had_not_told_the_next_one_tells_once(house: House) -> None:
    house.count(allowing("ops"))
    house.settle()
    house.count(allowing("new", 4), "abcd", "carol")
    house.log()  # of the load; what changed in rights is not told yet
    assert [one["kind"] for one in house.records] == ["load"]
    house.records.clear()
    house.again().count(allowing("new", 4), "", "", "")
    load, rights = house.settle()
    assert (load["kind"], load["changed"], load["rights"]) == ("load", "no change", SAME)
    assert (rights["id"], rights["user"], rights["gained"]) == ("abcd", "carol", [GAINED])
    house.again().count(allowing("new", 4), "", "", "")
    assert [one["kind"] for one in house.settle()] == ["load"]


def test_a_load_that_is_not_in_the_log_is_told_by_the_next_supervisor(house: House) -> None:
    house.count(allowing("ops"))
    house.settle()
    house.count(allowing("new", 4), "abcd", "carol")
    house.again().count(allowing("new", 4), "abcd", "carol", "")  # the operation goes on: recover, reload
    load, rights = house.settle()
    assert (load["id"], load["changed"]) == ("abcd", "files changed: policy.d/1.toml")
    assert (rights["id"], rights["lost"]) == ("abcd", [LOST])


@pytest.mark.parametrize("killed", [False, True])
def test_each_of_several_loads_in_a_row_is_compared_with_the_one_before_it(house: House, killed: bool) -> None:
    groups = ("a", "b", "c", "b")
    for number, group in enumerate(groups, 1):
        house.count(allowing(group, number), f"id{number}" if number > 1 else "", "carol")
        house.log()
    if killed:
        house.again().count(allowing("b", 4), "", "", "")
    told = [one for one in house.settle() if one["kind"] == "rights"]
    assert [one["id"] for one in told] == ["id2", "id3", "id4"]
    for one, (old, new) in zip(told, itertools.pairwise(groups), strict=True):
        assert (one["before"], one["policy"]) == tuple(allowing(group).policy.hash[:12] for group in (old, new))
        assert [line["who"] for line in one["gained"]] == [f"group:{new}"]
        assert [line["who"] for line in one["lost"]] == [f"group:{old}"]


def test_loads_that_follow_too_fast_are_told_as_not_compared_and_what_is_kept_stays_small(house: House) -> None:
    for number in range(1, 9):
        house.count(allowing(f"g{number}", number), f"id{number}", "carol")
    told = {one["id"]: one for one in house.settle() if one["kind"] == "rights"}
    assert [*sorted(told)] == [f"id{number}" for number in range(2, 9)]
    assert [told[f"id{number}"]["text"] for number in range(2, 6)] == ["1 gained, 1 lost"] * 4
    for number in range(6, 9):
        assert told[f"id{number}"]["text"].startswith("not known: ")
        assert told[f"id{number}"]["all"].startswith("durward policy diff OLD NEW")


def test_a_policy_that_is_too_large_to_be_kept_is_said_to_be(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.count(allowing("ops"))
    monkeypatch.setattr(loading, "TEXT_LIMIT", 10)
    house.count(allowing("new", 4), "abcd", "carol")
    *_, rights = house.settle()
    assert rights["text"].startswith("not known: the policies are too large to be kept")
    assert len(house.kept) < 1000


def test_what_the_disk_has_refused_is_kept_until_it_is_there(house: House) -> None:
    house.count(allowing("ops"))
    house.settle()
    house.count(allowing("ops", 4), "abcd", "carol")
    kept = house.kept
    house.log(errno.ENOSPC)
    assert (house.kept, house.records) == (kept, []), "the next supervisor would tell it again"
    for _ in range(3):
        house.now += 1.0
        house.audit.wake(house.now)
        house.loads.wake(house.now)
        house.log(errno.ENOSPC)
    assert house.kept == kept
    house.now += 1.0
    house.audit.wake(house.now)
    assert [one["kind"] for one in house.settle()] == ["load", "rights"]
    assert house.loads.wake_at() is not None
    house.now += 1.0
    house.loads.wake(house.now)
    assert house.loads.wake_at() is None, "nobody wakes up for it any more"
    house.again().count(allowing("ops", 4), "", "", "")
    assert [one["kind"] for one in house.settle()] == ["load"]


def test_a_comparison_whose_time_is_up_is_ended_and_the_next_one_begins(house: House) -> None:
    for number, group in enumerate(("a", "b", "c"), 1):
        house.count(allowing(group, number), f"id{number}", "carol")
    assert house.loads.wake_at() == 1000.0 + comparing.TIME
    house.now += comparing.TIME
    house.loads.wake(house.now)
    told = [one["text"] for one in house.settle() if one["kind"] == "rights"]
    assert told == [f"not known: it took more than {comparing.TIME:g} s", "1 gained, 1 lost"]
    assert house.loads.wake_at() is None


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"version": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_said_and_nothing_is_invented(data: bytes, house: House) -> None:
    loads = house.again()
    assert loads.restore(data).startswith("what counted before is not known")
    house.count(allowing("ops"))
    assert house.settle()[0]["rights"] == UNKNOWN


def test_the_file_of_another_version_is_not_read(house: House) -> None:
    house.count(allowing("ops"))
    house.settle()
    assert "it is of version 2" in house.loads.restore(house.kept.replace(b'"version":1', b'"version":2'))


def test_the_largest_record_of_rights_fits_into_a_packet_and_into_what_syslog_takes() -> None:
    cells = [(kind, *["\u00fc" * 900] * 6) for kind in ("gained", "lost") for _ in range(100)]
    due = Due("a" * 16, "u" * 32, 1, "a" * 12, "b" * 12, b"", b"")
    for answer in (comparing.fitting(cells), comparing.fitting([(kind, *"abcdef") for kind, *_ in cells])):
        record = loading.record(due, answer)
        assert answer.more
        assert len(json.dumps(record)) < ipc.BODY_LIMIT
        assert record["text"].endswith(f", and {answer.more} more")
    assert loading.record(due, Answer(why="x"))["text"] == "not known: x"
