"""What a reload changes in rights, in the real process: its child is stopped and killed, and so is the supervisor."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from supervisor_daemon import PATIENCE, Daemon, reply

from policy import messages
from rootd import ipc
from rootd.supervisor import comparing

pytestmark = pytest.mark.root

Make = Callable[..., Any]
SITE = "[service.site]\ncommand = ['/x']\nuser = 'www-site'\n"
MANY = 80  # rules: some tenths of a second for the child, which is stopped in the middle of it


def policy(who: str, rules: int = 1) -> dict[str, str]:
    rule = '[[grant]]\nid = "r{}"\nwho = ["{}"]\nmay = ["restart", "stop", "start"]\non = ["*"]\n'
    more = "".join(rule.format(n, f"group:{who}{n}") for n in range(1, rules))
    return {"services.d/site.toml": SITE, "policy.d/1.toml": rule.format(0, f"group:{who}") + more}


def begin(daemon: Daemon, made: Any) -> dict[str, Any]:
    daemon.start()
    daemon.begin(made)
    daemon.login()
    load = heard(daemon)
    assert load["kind"] == "load"
    return load


def reload(daemon: Daemon, made: Any) -> dict[str, Any]:
    """Root does; the record of its load."""
    with daemon.send(messages.Reload(), "", "root") as sock:
        asked = daemon.record()
        assert isinstance(reply(sock), messages.Accepted)
    daemon.tell(made.table(seq=daemon.heard("privileged", ipc.STAGE).seq), made.fd)
    daemon.tell(ipc.Message(ipc.DONE, seq=daemon.heard("privileged", ipc.COMMIT).seq))
    load = daemon.record()
    assert (load["kind"], load["id"], load["user"]) == ("load", asked["id"], "root")
    return load


def heard(daemon: Daemon) -> dict[str, Any]:
    """The next record but outcomes, which are told again when log may not have heard them before a kill."""
    while (found := daemon.record())["kind"] == "outcome":
        continue
    return found


def child_of(daemon: Daemon) -> int:
    """The process that compares, stopped when it has begun with that: bounded, and with little open."""
    until = time.monotonic() + PATIENCE
    while True:
        with open(f"/proc/{daemon.pid}/task/{daemon.pid}/children") as file:
            found = file.read().split()
        if found and os.getpriority(os.PRIO_PROCESS, int(found[0])) == comparing.NICE:
            pidfd = os.pidfd_open(int(found[0]))
            assert len(os.listdir(f"/proc/{found[0]}/fd")) <= 4
            limits = " ".join(Path(f"/proc/{found[0]}/limits").read_text().split())
            assert f"Max cpu time {comparing.CPU} {comparing.CPU + 1} seconds" in limits
            assert f"Max address space {comparing.MEMORY} {comparing.MEMORY} bytes" in limits
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            return pidfd
        assert time.monotonic() < until, "it compares nothing"


def ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(PATIENCE * 1000))


def kept(daemon: Daemon, load: dict[str, Any], due: int = 0) -> None:
    """Until the next supervisor would know of this load, and of so many comparisons that are not told."""
    until = time.monotonic() + PATIENCE
    path = daemon.path / "run" / "supervisor" / "loaded.json"
    found: dict[str, Any] = {}
    while (found.get("policy"), len(found.get("due", ()))) != (load["policy"], due):
        assert time.monotonic() < until, f"it is not kept: {found}"
        found = json.loads(path.read_bytes()) if path.exists() else {}
    assert path.stat().st_mode & 0o777 == 0o600, "nobody else reads it"


def test_commands_are_answered_while_rights_are_compared_and_a_child_that_dies_is_said(
    daemon: Daemon, generation: Make
) -> None:
    begin(daemon, generation(policy("old", MANY)))
    daemon.spawned(7)
    load = reload(daemon, generation(policy("new", MANY), 2))
    child = child_of(daemon)
    assert daemon.record()["kind"] == "outcome", "the reload is over"
    assert isinstance(daemon.ask(messages.Status(), "", "root"), messages.Services)
    with daemon.send(messages.Stop("site"), "", "root") as sock:
        assert [daemon.record()["action"] for _ in range(2)] == ["view", "stop"]
        assert isinstance(reply(sock), messages.Accepted)
    assert daemon.heard("privileged", ipc.SIGNAL).run == 7
    signal.pidfd_send_signal(child, signal.SIGKILL)
    rights = heard(daemon)
    assert (rights["kind"], rights["id"], rights["user"]) == ("rights", load["id"], "root")
    assert rights["text"] == "not known: the process that compares was killed"
    assert rights["all"].startswith("durward policy diff OLD NEW")
    os.close(child)


def test_a_supervisor_that_is_killed_takes_its_child_along_and_the_next_one_tells_once_what_it_would_have(
    daemon: Daemon, generation: Make
) -> None:
    first = begin(daemon, generation(policy("old", MANY)))
    daemon.spawned(7)
    newer = generation(policy("new", MANY), 2)
    load = reload(daemon, newer)
    child = child_of(daemon)
    assert daemon.record()["kind"] == "outcome"
    kept(daemon, load, 1)
    daemon.kill()
    assert ended(child)
    os.close(child)
    again = begin(daemon, newer)
    assert (again["changed"], again["files"], again["rights"]) == ("no change", {}, "no right changed")
    rights = heard(daemon)
    assert (rights["kind"], rights["id"], rights["user"]) == ("rights", load["id"], "root")
    assert (rights["before"], rights["policy"]) == (first["policy"], load["policy"])
    assert {line["who"] for line in rights["lost"]} <= {f"group:old{n or ''}" for n in range(MANY)}
    assert rights["more"] == 2 * MANY - len(rights["gained"]) - len(rights["lost"])
    kept(daemon, load)
    daemon.kill()
    begin(daemon, newer)
    daemon.ask(messages.WhatMayI(), "", "root")
    assert heard(daemon)["kind"] == "decision"


def test_a_policy_that_was_edited_while_nobody_was_there_is_compared_with_the_last_one(
    daemon: Daemon, generation: Make
) -> None:
    first = begin(daemon, generation(policy("old")))
    assert first["rights"].startswith("not known")
    daemon.spawned(7)
    kept(daemon, first)
    daemon.kill()
    load = begin(daemon, generation(policy("new")))
    assert (load["changed"], load["id"]) == ("files changed: policy.d/1.toml", "")
    rights = heard(daemon)
    assert (rights["before"], rights["policy"], rights["text"]) == (first["policy"], load["policy"], "1 gained, 1 lost")
    told = {"may": "start, stop, restart", "on": "every service", "if": "always"}
    assert (rights["gained"], rights["lost"]) == ([{"who": "group:new", **told}], [{"who": "group:old", **told}])


def test_a_reload_whose_supervisor_is_killed_before_it_counts_is_told_by_the_next_one_as_of_who_asked(
    daemon: Daemon, generation: Make
) -> None:
    first = begin(daemon, generation(policy("old")))
    daemon.spawned(7)
    kept(daemon, first)
    newer = generation(policy("new"), 2)
    with daemon.send(messages.Reload(), "", "root") as sock:
        asked = daemon.record()
        assert isinstance(reply(sock), messages.Accepted)
    daemon.tell(newer.table(seq=daemon.heard("privileged", ipc.STAGE).seq), newer.fd)
    daemon.heard("privileged", ipc.COMMIT)
    daemon.kill()
    load = begin(daemon, newer)
    assert (load["id"], load["user"]) == (asked["id"], "root")
    found = [daemon.record(), daemon.record()]
    rights = next(one for one in found if one["kind"] == "rights")
    assert (rights["id"], rights["text"], rights["before"]) == (asked["id"], "1 gained, 1 lost", first["policy"])
    assert next(one for one in found if one["kind"] == "outcome")["id"] == asked["id"]
