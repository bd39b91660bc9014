"""Dropping privileges, in real processes that are really root before it."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import prctl
import pytest

from rootd import confine

UID, GID, OTHER = 61_001, 61_002, 61_003  # of nobody's
SOME = (prctl.CAP_NET_BIND_SERVICE, prctl.CAP_KILL)
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NOTHING = dict.fromkeys(CAPABILITIES, 0)

pytestmark = pytest.mark.root


def in_a_process(act: Callable[[], Any]) -> Any:
    """What act returns, in a forked process; what it raises, as text, raises here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            try:
                answer = [True, act()]
            except BaseException as error:
                answer = [False, f"{type(error).__name__}: {error}"]
            os.write(writer, json.dumps(answer).encode())
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    fine, answer = json.loads(said)
    if not fine:
        raise RuntimeError(answer)
    return answer


def status() -> dict[str, Any]:
    with open("/proc/self/status") as lines:
        found = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
    known: dict[str, Any] = {name: int(found[name], 16) for name in CAPABILITIES}
    return known | {name: [int(word) for word in found[name].split()] for name in ("Uid", "Gid", "Groups")}


def mask(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


def become(*groups: int, keep: tuple[int, ...] = (), bounding: bool = False) -> dict[str, Any]:
    confine.become(UID, GID, groups, keep, keep_bounding=bounding)
    return status()


def test_nothing_of_root_is_left_after_becoming_an_account() -> None:
    assert in_a_process(lambda: become(OTHER)) == {
        "Uid": [UID] * 4, "Gid": [GID] * 4, "Groups": [OTHER], **NOTHING,
    }  # fmt: skip


def test_exactly_the_capabilities_that_are_asked_for_are_kept_and_none_is_handed_on() -> None:
    found = in_a_process(lambda: become(keep=SOME))
    assert {name: found[name] for name in CAPABILITIES} == {
        "CapInh": 0, "CapPrm": mask(*SOME), "CapEff": mask(*SOME), "CapBnd": mask(*SOME), "CapAmb": 0,
    }  # fmt: skip


def test_the_bounding_set_stays_only_when_that_is_asked_for() -> None:
    before = status()["CapBnd"]
    found = in_a_process(lambda: become(bounding=True))
    assert {name: found[name] for name in CAPABILITIES} == {**NOTHING, "CapBnd": before}


def test_capabilities_that_the_starter_made_ambient_are_gone() -> None:
    """As under AmbientCapabilities= of systemd: they would go on to every service."""

    def act() -> dict[str, Any]:
        prctl.set_caps((list(SOME), prctl.CAP_INHERITABLE, True))
        for number in SOME:
            assert ctypes.CDLL(None).prctl(47, 2, number, 0, 0) == 0  # PR_CAP_AMBIENT_RAISE
        assert status()["CapAmb"] == mask(*SOME)
        return become(keep=SOME)

    found = in_a_process(act)
    assert (found["CapAmb"], found["CapInh"]) == (0, 0)


@pytest.mark.parametrize(
    "back",
    [
        lambda: os.setresuid(0, 0, 0),
        lambda: os.setresgid(0, 0, 0),
        lambda: os.setgroups([0]),
        lambda: os.close(os.open("/etc/shadow", os.O_RDONLY)),
        lambda: prctl.set_caps(([prctl.CAP_SETUID], prctl.CAP_EFFECTIVE, True)),
        lambda: prctl.set_caps(([prctl.CAP_SETUID], prctl.CAP_PERMITTED, True)),
    ],
    ids=["uid", "gid", "groups", "shadow", "effective", "permitted"],
)
def test_there_is_no_way_back(back: Callable[[], None]) -> None:
    def act() -> None:
        confine.become(UID, GID, (), SOME)
        back()

    with pytest.raises(RuntimeError, match="PermissionError"):
        in_a_process(act)


def test_nobody_of_the_same_uid_may_look_into_it() -> None:
    def act() -> int:
        confine.become(UID, GID, ())
        return int(prctl.get_dumpable())

    assert in_a_process(act) == 0


@pytest.mark.parametrize("call", ["setgroups", "setresgid", "setresuid"])
def test_a_step_that_did_nothing_is_noticed(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, call, lambda *_: None)
    with pytest.raises(RuntimeError, match=r"PermissionError.*did not take"):
        in_a_process(lambda: become(OTHER))


def test_capabilities_that_stayed_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "_capset", lambda *_: 0)
    with pytest.raises(RuntimeError, match=r"PermissionError.*did not take"):
        in_a_process(lambda: become(keep=SOME))


def test_a_capability_that_is_not_there_cannot_be_kept() -> None:
    def act() -> None:
        confine.become(UID, GID, (), SOME)
        confine.become(UID, GID, (), (prctl.CAP_SETUID,))

    with pytest.raises(RuntimeError, match="PermissionError"):
        in_a_process(act)


def test_a_service_that_is_root_on_purpose_is_root_with_the_groups_it_was_given() -> None:
    def act() -> list[Any]:
        return [go(confine.ids(0, 0, (OTHER,))), status()]

    before, (step, found) = status(), in_a_process(act)
    assert (step, found["Uid"], found["Groups"]) == ("", [0] * 4, [OTHER])
    assert (found["CapBnd"], found["CapPrm"]) == (before["CapBnd"], before["CapPrm"])


def test_what_a_process_holds_is_what_is_in_any_of_its_sets() -> None:
    def act() -> tuple[int, ...]:
        confine.become(UID, GID, (), SOME)
        return confine.held()

    assert in_a_process(act) == sorted(SOME)
    assert prctl.CAP_SYS_ADMIN in confine.held()


def go(way: list[confine.Call]) -> str:
    """The step that did not take, or nothing."""
    for step, function, arguments, answer in way:
        if function(*arguments) != answer:
            return step
    return ""


def test_the_way_of_a_child_leads_to_no_capability_at_all_and_to_exactly_its_account() -> None:
    def act() -> list[Any]:
        confine.become(OTHER, OTHER, (), (*SOME, prctl.CAP_SETPCAP, prctl.CAP_SETUID, prctl.CAP_SETGID))
        way = [*confine.way_to(UID, GID, (OTHER, GID), confine.held()), confine.no_new_privileges()]
        return [go(way), status(), prctl.get_no_new_privs(), prctl.get_dumpable()]

    wanted = NOTHING | {"Uid": [UID] * 4, "Gid": [GID] * 4, "Groups": [GID, OTHER]}
    assert in_a_process(act) == ["", wanted, 1, 0]


@pytest.mark.parametrize("call", ["setgroups", "setresgid", "setresuid"])
def test_a_step_of_the_way_that_did_nothing_is_noticed(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, call, lambda *_: None)
    assert in_a_process(lambda: go(confine.way_to(UID, GID, (OTHER,), confine.held()))) == "verify"


def test_capabilities_that_stayed_on_the_way_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "_capset", lambda *_: 0)
    monkeypatch.setattr(os, "setresuid", lambda *_: None)  # it would take them from root
    assert in_a_process(lambda: go(confine.way_to(0, GID, (), confine.held()))) == "verify"


@pytest.mark.parametrize("call", ["setgroups", "setresgid"])
def test_a_step_to_root_that_did_nothing_is_noticed(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, call, lambda *_: None)
    assert in_a_process(lambda: go(confine.ids(0, GID, (OTHER,)))) == "verify"
