"""The supervisor as a process of its own, from its start-up to its end. privileged, log and auth are played."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from supervisor_daemon import ALICE, SUPERVISOR_UID, Daemon, reply

from policy import login, messages, wire
from rootd import ipc
from rootd.supervisor import operations, watching

pytestmark = pytest.mark.root

Make = Callable[..., Any]


def fact(run: int, slot: int = 0, generation: int = 1, pid: int = 4242) -> ipc.Message:
    started = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 60_000_000_000
    return ipc.Message(ipc.FACT, run=run, slot=slot, generation=generation, arg=pid, extra=started)


@pytest.fixture
def running(daemon: Daemon, generation: Make) -> Daemon:
    """One service, site, runs as run 5 and is ready; alice may restart it."""
    daemon.start()
    daemon.begin(generation(), fact(5))
    assert daemon.record()["kind"] == "load"
    daemon.login()
    return daemon


def wait_for_reply(sock: socket.socket, kind: type[Any]) -> Any:
    """The next one of this kind."""
    while True:
        found = reply(sock)
        assert found is not None
        if isinstance(found, kind):
            return found


def test_what_is_wanted_is_started_once_the_facts_are_known(daemon: Daemon, generation: Make) -> None:
    daemon.start()
    asker = daemon.send(messages.Status(), "", "root")
    daemon.begin(generation())
    daemon.spawned(9)
    with asker:
        assert wait_for_reply(asker, messages.Services).services[0].name == "site", "the request has waited"
    assert daemon.ask(messages.Status(), "", "root").services[0].processes[0].pid == 4242


def test_what_runs_is_not_started_again(running: Daemon) -> None:
    assert running.silent("privileged")
    assert running.ask(messages.Status(), "", "root").services[0].state == "RUNNING"


def test_one_commands_way_from_the_session_to_the_record_to_privileged(running: Daemon) -> None:
    with running.send(messages.Restart("site")) as sock:
        message = running.heard("log", ipc.RECORD)
        assert running.silent("privileged"), "nothing happens before the record is on disk"
        running.heard("log", ipc.RECORD)  # of the question just asked
        running.links["log"].send_now(ipc.Message(ipc.RECORDED, seq=message.seq))
        operation = reply(sock).operation
    running.spawned(6, pid=4343)
    with running.send(messages.Watch(operation=operation)) as sock:
        assert wait_for_reply(sock, messages.Step).text == "starting the new process"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        running.tell(ipc.Message(ipc.CHANNEL, scope=ipc.NOTIFY, run=6), ours.fileno())
        ours.close()
        theirs.send(b"READY=1")  # by a process that is none of the run's
        assert running.silent("privileged")
        theirs.close()


def test_a_service_that_says_it_is_ready_is_heard(daemon: Daemon, generation: Make) -> None:
    daemon.start()
    daemon.begin(generation())
    daemon.spawned(9, pid=os.getpid())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    daemon.tell(ipc.Message(ipc.CHANNEL, scope=ipc.NOTIFY, run=9), ours.fileno())
    with daemon.send(messages.Watch(), "", "root") as sock:
        daemon.ask(messages.WhatMayI(), "", "root")
        theirs.send(b"READY=1")
        assert wait_for_reply(sock, messages.Changed).state == "RUNNING"
    ours.close()
    theirs.close()


def test_killed_and_started_again_it_takes_over_what_runs_and_what_was_wanted(
    running: Daemon, generation: Make
) -> None:
    running.login()
    with running.send(messages.Stop("site"), "", "root") as sock:
        running.record()
        assert isinstance(reply(sock), messages.Accepted)
    assert running.heard("privileged", ipc.SIGNAL).arg == signal.SIGTERM
    running.kill()
    running.start()
    running.begin(generation(), fact(5))
    assert running.heard("privileged", ipc.SIGNAL).arg == signal.SIGTERM, "stopped is what was wanted"
    state = running.path / "run/supervisor/state.json"
    assert state.stat().st_mode & 0o777 == 0o600
    assert state.stat().st_uid == SUPERVISOR_UID


def test_one_that_has_not_said_that_it_is_ready_has_to_say_it_to_the_next_supervisor(
    daemon: Daemon, generation: Make
) -> None:
    daemon.start()
    daemon.begin(generation())
    daemon.spawned(9, pid=os.getpid())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    channel = ipc.Message(ipc.CHANNEL, scope=ipc.NOTIFY, run=9)
    told = fact(9, pid=os.getpid())._replace(extra=time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    written = daemon.path / "run/supervisor/state.json"

    def again(kept: bytes) -> str:
        daemon.kill()
        if kept:
            written.write_bytes(kept)
        daemon.start()
        daemon.begin(generation(), told)
        daemon.tell(channel, ours.fileno())
        state: str = daemon.ask(messages.Status(), "", "root").services[0].state
        return state

    daemon.tell(channel, ours.fileno())
    daemon.ask(messages.WhatMayI(), "", "root")
    assert again(b"") == "STARTING"
    early = written.read_bytes()
    with daemon.send(messages.Watch(), "", "root") as sock:
        daemon.ask(messages.WhatMayI(), "", "root")
        theirs.send(b"READY=1")
        assert wait_for_reply(sock, messages.Changed).state == "RUNNING"
    assert json.loads((daemon.path / "run/supervisor/ready.json").read_bytes()) == [9], "said, and at once written down"
    assert again(early) == "RUNNING", "it says it once"
    assert daemon.silent("privileged"), "and nothing is done to it"
    ours.close()
    theirs.close()


@pytest.mark.parametrize("kept", ["as it is", "as it was before", "damaged"])
def test_no_operation_has_the_number_of_one_that_somebody_was_told_of(
    running: Daemon, generation: Make, kept: str
) -> None:
    state, told = running.path / "run/supervisor/state.json", []
    for run in (6, 7):
        before = state.read_bytes()
        with running.send(messages.Restart("site"), "", "root") as sock:
            while running.record()["kind"] != "decision":
                pass
            accepted = reply(sock)
            assert isinstance(accepted, messages.Accepted)
            told.append(accepted.operation)
        running.kill()
        if kept != "as it is":  # killed before it could write that down
            state.write_bytes(before if kept == "as it was before" else b"{")
        running.start()
        running.begin(generation(), fact(run))
    assert told[0] < told[1] < told[0] + 2 * operations.AHEAD


@pytest.mark.parametrize("kept", ["as it is", "as it was before", "none", "damaged"])
def test_who_has_seen_events_that_the_state_file_has_not_is_told_what_is_missing(
    running: Daemon, generation: Make, kept: str
) -> None:
    state = running.path / "run/supervisor/state.json"
    with running.send(messages.Watch(), "", "root") as sock:
        begun = wait_for_reply(sock, messages.Watching).number
        before = state.read_bytes()
        running.tell(ipc.Message(ipc.EXITED, run=5, flags=ipc.KNOWN))
        seen = wait_for_reply(sock, messages.Changed).number
        assert seen > begun >= watching.AHEAD
    running.kill()
    if kept in ("as it was before", "damaged"):
        state.write_bytes(before if kept == "as it was before" else b"{")
    elif kept == "none":
        state.unlink()
    for _ in range(2):  # the second is killed before it has written more than where it begins
        running.start()
        running.begin(generation(), fact(6))
        with running.send(messages.Watch(after=seen), "", "root") as sock:
            missed = reply(sock)
            assert isinstance(missed, messages.Missed), "never silently"
            assert missed.number != seen
            assert kept == "none" or kept == "damaged" or missed.number > seen
            last = wait_for_reply(sock, messages.Watching).number
        with running.send(messages.Watch(after=missed.number), "", "root") as sock:
            assert wait_for_reply(sock, messages.Watching).number == last, "and then all is whole again"
        seen = last
        running.kill()
    running.start()


def test_a_revocation_that_auth_never_read_survives_the_deaths_of_both(running: Daemon, generation: Make) -> None:
    with running.send(messages.Revoke("alice"), "", "root") as sock:
        running.record()
        assert reply(sock) == messages.Done("1 session of alice ended")
    running.kill()
    running.start()
    running.begin(generation(), fact(5))
    assert running.auth is not None
    assert wire.PULL.decode(running.auth.recv(wire.LIMIT)) == login.RevokeSessions("alice", 1)
    up = login.SessionUp(hashlib.sha256(ALICE.encode()).hexdigest(), "alice", 1001, ["webops"], 1e12, 1800.0, 7)
    running.auth.send(wire.PUSH.encode(up))
    running.auth.send(wire.PUSH.encode(login.SessionsEnd()))
    assert running.ask(messages.Status()).kind == "no-session"
    running.auth.send(wire.PUSH.encode(login.Revoked(1)))
    running.auth.send(wire.PUSH.encode(up))
    assert wire.PULL.decode(running.auth.recv(wire.LIMIT)) == login.Seen(7)
    assert (running.path / "run/supervisor/revoked.json").read_bytes() == b"{}"


def test_a_damaged_state_file_is_said_loudly_and_does_no_harm(daemon: Daemon, generation: Make) -> None:
    (daemon.path / "run/supervisor/state.json").write_bytes(b"{\0")
    os.chown(daemon.path / "run/supervisor/state.json", SUPERVISOR_UID, SUPERVISOR_UID)
    daemon.start()
    daemon.begin(generation(), fact(5))
    assert daemon.silent("privileged")
    assert "the state file is damaged" in daemon.stderr.read_text()


def test_a_privileged_that_is_started_again_is_taken_up_where_it_was(running: Daemon, generation: Make) -> None:
    running.unlink("privileged")
    with running.send(messages.Restart("site")) as sock:
        running.record()
        assert isinstance(reply(sock), messages.Accepted), "it is done when privileged is back"
    running.link("privileged")
    running.begin(generation(), fact(5))
    assert running.heard("privileged", ipc.SPAWN).generation == 1


def test_a_log_that_is_started_again_gets_what_it_had_not_acknowledged(running: Daemon) -> None:
    with running.send(messages.Restart("site")) as sock:
        running.heard("log", ipc.RECORD)
        running.unlink("log")
        refused = reply(sock)
    assert refused.kind == "later"
    assert "the audit log cannot be written" in refused.text
    running.link("log")
    assert running.record()["action"] == "restart"
    assert running.record()["result"].startswith("not begun")
    assert running.silent("privileged")


def test_sighup_reloads_and_sigterm_ends_everything_in_order(running: Daemon, generation: Make) -> None:
    running.keeper.send_now(ipc.Message(ipc.STAGE))
    reload = running.record()
    assert (reload["from"], reload["user"], reload["action"], len(reload["id"])) == ("a signal", "root", "reload", 16)
    staged = generation({"services.d/site.toml": "[service.other]\ncommand = ['/x']\nuser = 'www-site'\n"}, 2)
    running.tell(staged.table(seq=running.heard("privileged", ipc.STAGE).seq), staged.fd)
    commit = running.heard("privileged", ipc.COMMIT)
    assert (commit.generation, commit.digest) == (2, staged.digest)
    running.tell(ipc.Message(ipc.DONE, seq=commit.seq))
    assert {running.heard("privileged", op).op for op in (ipc.SIGNAL, ipc.SPAWN)} == {ipc.SIGNAL, ipc.SPAWN}
    load, rights = running.record(), running.record()
    assert (load["kind"], load["id"], load["user"]) == ("load", reload["id"], "root")
    assert (rights["kind"], rights["id"], rights["text"]) == ("rights", reload["id"], "1 lost")
    running.keeper.send_now(ipc.Message(ipc.END))
    assert running.record()["action"] == "shutdown"
    outcome = running.record()
    assert (outcome["id"], outcome["ok"], outcome["action"]) == (reload["id"], False, "reload"), "it had begun a start"
    assert "other was not started: the daemon is being shut down" in outcome["result"]


def test_the_end_comes_when_everything_has_stopped(running: Daemon) -> None:
    running.keeper.send_now(ipc.Message(ipc.END))
    decision = running.record()
    assert (decision["kind"], decision["action"]) == ("decision", "shutdown")
    asked = running.heard("privileged", ipc.SIGNAL)
    assert (asked.arg, asked.scope) == (signal.SIGTERM, ipc.MAIN)
    running.tell(ipc.Message(ipc.DONE, seq=asked.seq))
    running.tell(ipc.Message(ipc.EXITED, run=5, flags=ipc.KNOWN))
    asked = running.heard("privileged", ipc.SIGNAL)
    assert (asked.arg, asked.scope) == (signal.SIGKILL, ipc.TREE)
    running.tell(ipc.Message(ipc.DONE, seq=asked.seq))
    running.tell(ipc.Message(ipc.EMPTY, run=5))
    running.heard("privileged", ipc.SHUTDOWN)
    outcome = running.record()
    assert (outcome["id"], outcome["ok"], outcome["result"]) == (decision["id"], True, "all services stopped")
    running.keeper.close()
    assert running.wait() == 0


def test_a_bad_reload_is_refused_with_its_lines_from_inside_the_sandbox(running: Daemon, generation: Make) -> None:
    with running.send(messages.Reload(), "", "root") as sock:
        running.record()
        operation = reply(sock).operation
    bad = {
        "services.d/a.toml": "[service.site]\ncommand = 5\nuser = 'who'\nsokets = ['x']\nstop = { signal = 'NO' }\n",
        "services.d/b.toml": "[",
        "services.d/c.toml": "[socket.x]\nlisten = ['300.1.1.1:99999', '[::g]:1', 'udp:x:1', 'unix:x']\n",
        "policy.d/p.toml": "[[grant]]\nid = 'x y'\nwho = ['grop:x']\nmay = ['veiw']\n",
    }
    staged = generation(bad, 2)
    running.tell(staged.table(seq=running.heard("privileged", ipc.STAGE).seq, flags=ipc.INVALID), staged.fd)
    running.heard("privileged", ipc.ABORT)
    with running.send(messages.Watch(operation=operation), "", "root") as sock:
        ended = wait_for_reply(sock, messages.Ended)
    assert not ended.ok
    assert {problem.file for problem in ended.problems} >= {"services.d/a.toml", "services.d/b.toml"}
    assert all(problem.line for problem in ended.problems if problem.file == "services.d/a.toml")
    assert running.ask(messages.Status(), "", "root").services[0].state == "RUNNING"


def test_a_policy_that_cannot_be_used_lets_in_nobody_but_root(daemon: Daemon, generation: Make) -> None:
    files = {
        "services.d/site.toml": "[service.site]\ncommand = ['/x']\nuser = 'www-site'\n",
        "policy.d/10.toml": "[[grant]]\nid = 'a'\nwho = ['group:webops']\nmay = ['view']\non = ['siet']\n",
    }
    daemon.start()
    daemon.begin(generation(files), fact(5))
    daemon.login()
    assert daemon.ask(messages.Status("site")).kind == "unknown"
    assert daemon.ask(messages.Status(), "", "root").services[0].name == "site"
    assert "only root is let in: policy.d/10.toml:5" in daemon.stderr.read_text()


def test_a_configuration_that_cannot_be_understood_ends_it_and_stops_nothing(daemon: Daemon, generation: Make) -> None:
    daemon.start()
    wrong = generation()
    wrong.digest = bytes(32)
    daemon.begin(wrong, fact(5))
    assert daemon.wait() != 0
    assert "cannot be understood" in daemon.stderr.read_text()
    received = daemon.links["privileged"].receive()
    assert received is None


def test_it_ends_with_the_keeper(running: Daemon) -> None:
    running.keeper.close()
    assert running.wait() == 0


def test_without_auth_the_apis_door_opens_after_a_while_and_lets_nobody_in(daemon: Daemon, generation: Make) -> None:
    daemon.start("privileged", "log")
    daemon.begin(generation(), fact(5))
    begun = time.monotonic()
    assert daemon.ask(messages.Status()).kind == "no-session"
    assert time.monotonic() - begun > 1.0


def test_it_is_what_the_design_says_it_is(running: Daemon) -> None:
    status = Path(f"/proc/{running.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(SUPERVISOR_UID)] * 4
    assert fields["Gid"].split() == [str(SUPERVISOR_UID)] * 4
    assert fields["Groups"].split() == []
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"], fields["Threads"]) == ("1", "2", "1")


def test_idle_it_sleeps(running: Daemon) -> None:
    running.ask(messages.Status(), "", "root")

    def switches() -> list[str]:
        status = Path(f"/proc/{running.pid}/status").read_text()
        return [line for line in status.splitlines() if "ctxt_switches" in line]

    poll = select.poll()
    poll.register(running.links["privileged"].sock, select.POLLIN)
    poll.poll(200)
    before = switches()
    poll.poll(1000)
    assert switches() == before
