"""Asking peers that behave, that die, that hang and that send nonsense."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from policy import login, messages, wire
from userapi.client import Auth, Refusal, Supervisor

STATUS = messages.Status()
STOP = messages.Stop(service="site")


@pytest.fixture
def ask(world):
    supervisor = Supervisor(str(world.run / "control.sock"), patience=1.0, answer=1.0)
    return lambda command: supervisor.ask(world.token, command, "unix")


@pytest.fixture
def descriptors():
    """No descriptor more afterwards than before."""

    def count():
        return len(list(Path("/proc/self/fd").iterdir()))

    return count


def kind(refusal) -> str:
    return refusal.value.refused.kind


def test_a_request_carries_session_command_and_source(ask, world):
    assert ask(STATUS).services == [world.site, world.worker]
    (request,) = world.supervisor.asked
    assert (request.session, request.command, request.source) == (world.token, STATUS, "unix")


def test_services_in_several_packets_come_in_one_piece(ask, world):
    world.answers[messages.Status] = [
        messages.Services(services=[world.site], more=True),
        messages.Services(services=[world.worker]),
    ]
    assert [service.name for service in ask(STATUS).services] == ["site", "worker"]


def test_operations_in_several_packets_come_in_one_piece(ask, world):
    first, last = world.answers[messages.ListOperations].operations
    world.answers[messages.ListOperations] = [messages.Listed([first], more=True), messages.Listed([last])]
    assert ask(messages.ListOperations()).operations == [first, last]


def test_approvals_in_several_packets_come_in_one_piece(ask, world):
    first, last = (messages.ApprovalInfo(n, "alice", "stop site", "", "group:leads", "", "") for n in (1, 2))
    world.answers[messages.ListApprovals] = [messages.Approvals([first], more=True), messages.Approvals([last])]
    assert ask(messages.ListApprovals()).approvals == [first, last]


def test_rights_in_several_packets_come_in_one_piece(ask, world):
    first, last = messages.Right("a", ["view"]), messages.Right("b", ["stop"])
    told = [messages.Rights("alice", 1001, [], "", [one], more=one is first) for one in (first, last)]
    world.answers[messages.WhatMayI] = told
    assert ask(messages.WhatMayI()).rights == [first, last]


def test_a_refusal_is_raised_as_the_supervisor_said_it(ask, world):
    world.answers[messages.Stop] = messages.Refused(kind="forbidden", text="no rule", would_help=["x"])
    with pytest.raises(Refusal) as refusal:
        ask(STOP)
    assert refusal.value.refused.would_help == ["x"]


def test_a_supervisor_that_is_restarted_answers_what_waited_meanwhile(ask, world):
    world.supervisor.pause()
    back = threading.Timer(0.3, world.supervisor.start)
    back.start()
    assert ask(STOP).operation == 7
    back.join()
    assert world.commands() == [STOP]


def test_a_question_is_asked_again_when_the_supervisor_dies_over_it(ask, world):
    told = world.answers[messages.Status]
    world.answers[messages.Status] = lambda _: told if len(world.supervisor.asked) > 2 else world.die
    assert ask(STATUS) == told
    assert len(world.supervisor.asked) == 3


def test_a_command_that_was_taken_is_never_sent_twice(ask, world):
    world.answers[messages.Stop] = world.die
    with pytest.raises(Refusal, match="look at the status") as refusal:
        ask(STOP)
    assert kind(refusal) == "later"
    assert refusal.value.retry_after > 0
    assert world.commands() == [STOP]


@pytest.mark.parametrize("command", [STATUS, STOP])
def test_a_supervisor_that_hangs_does_not_hang_us(ask, world, command):
    world.answers[type(command)] = world.hang
    begun = time.monotonic()
    with pytest.raises(Refusal) as refusal:
        ask(command)
    assert kind(refusal) == "later"
    assert time.monotonic() - begun < 4


def test_no_socket_at_all_is_later(tmp_path):
    supervisor = Supervisor(str(tmp_path / "none"), patience=0.1)
    with pytest.raises(Refusal, match="daemon is down"):
        supervisor.ask("", STOP, "unix")
    with pytest.raises(Refusal, match="daemon is down"):
        next(supervisor.watch("", messages.Watch(), "unix"))
    assert supervisor.health() == "away"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"{",
        b"\xff\xfe",
        b'{"id":1,"reply":{"is":"root"}}',
        b'{"id":1,"reply":{"is":"done","text":"x","extra":1}}',
        b"x" * (wire.LIMIT + 1),
        messages.Dropped(text="an event", number=1),
    ],
)
def test_c_nonsense_of_a_peer_is_an_error_and_nothing_else(ask, world, nonsense):
    world.answers[messages.Stop] = nonsense
    with pytest.raises(Refusal) as refusal:
        ask(STOP)
    assert kind(refusal) == "later"


def test_c6_descriptors_that_nobody_asked_for_are_closed(ask, world, descriptors):
    world.answers[messages.Revoke] = lambda _: (messages.Done(text="x"), os.open("/dev/null", os.O_RDONLY))
    ask(STATUS)
    before = descriptors()
    for _ in range(20):
        with pytest.raises(Refusal):
            ask(messages.Revoke(everyone=True))
    assert descriptors() < before + 10  # the peer closes its own ends a moment later


def test_c7_a_log_s_descriptor_is_not_inherited(world, tmp_path):
    (tmp_path / "log").write_bytes(b"hello")
    world.answers[messages.OpenLog] = lambda _: (
        messages.LogOpened(service="site", process="site", stream="stdout", size=5),
        os.open(tmp_path / "log", os.O_RDONLY),
    )
    supervisor = Supervisor(str(world.run / "control.sock"))
    opened, descriptor = supervisor.open_log(world.token, messages.OpenLog(service="site"), "unix")
    assert not os.get_inheritable(descriptor)
    assert os.pread(descriptor, 10, 0) == b"hello"
    assert opened.size == 5
    os.close(descriptor)


def test_a_log_without_a_descriptor_is_empty_and_the_audit_log_and_rotated_ones_are_an_error(world):
    nothing = messages.LogOpened(service="site", process="site", stream="stdout", size=0)
    world.answers[messages.OpenLog] = world.answers[messages.OpenAudit] = nothing
    supervisor = Supervisor(str(world.run / "control.sock"))
    assert supervisor.open_log(world.token, messages.OpenLog(service="site"), "") == (nothing, -1)
    with pytest.raises(Refusal, match="opened no log"):
        supervisor.open_log(world.token, messages.OpenLog(service="site", rotated=1), "")
    with pytest.raises(Refusal) as refusal:
        supervisor.open_log(world.token, messages.OpenAudit(), "")
    assert kind(refusal) == "failed"


def test_a_watch_tells_events_and_idleness_and_ends_with_its_connection(world):
    supervisor = Supervisor(str(world.run / "control.sock"))
    event = messages.Step(number=1, time=world.now, operation=7, service="site", text="starting")
    world.answers[messages.Watch] = [event, world.open]
    watch = supervisor.watch(world.token, messages.Watch(), "unix", idle=0.05)
    assert next(told for told in watch if told is not None) == event
    assert next(watch) is None
    world.supervisor.pause()
    assert [told for told in watch if told is not None] == []
    world.supervisor.start()
    told = [messages.Missed(40, "gone"), messages.Watching(41), messages.Dropped("too slow", 41)]
    world.answers[messages.Watch] = [*told, world.open]
    assert list(supervisor.watch(world.token, messages.Watch(after=9), "unix")) == told


def test_health_is_whether_it_answers_and_whether_the_audit_log_is_in_trouble(world):
    supervisor = Supervisor(str(world.run / "control.sock"), answer=0.2)
    assert supervisor.health() == "ok"
    world.supervisor.script = lambda _: messages.Refused("no-session", "log in first", trouble=True)
    assert supervisor.health() == "trouble"
    world.supervisor.script = lambda _: messages.Done("x")
    assert supervisor.health() == "ok"
    world.supervisor.script = lambda _: world.hang
    assert supervisor.health() == "away"


@pytest.fixture
def auth(world):
    return Auth(str(world.run / "auth.sock"), patience=0.5, answer=0.5)


def test_a_login_is_granted_or_denied(auth, world):
    assert auth.login("alice", "right", "unix") == login.Granted(
        token=world.token, user="alice", uid=1001, expires=world.now
    )
    assert auth.login("alice", "wrong", "unix") == login.Denied(text="login refused")
    assert [ask.source for ask in world.auth.asked] == ["unix", "unix"]


@pytest.mark.parametrize("answer", ["hang", "die", b"{", "logged out"])
def test_a8_an_auth_that_fails_is_never_a_login_and_is_asked_once(auth, world, answer):
    scripts = {"hang": world.hang, "die": world.die, "logged out": login.LoggedOut()}
    world.auth.script = lambda _: scripts.get(answer, answer)
    with pytest.raises(Refusal):
        auth.login("alice", "right", "unix")
    assert len(world.auth.asked) == 1


def test_no_auth_is_later(tmp_path):
    with pytest.raises(Refusal, match="auth does not answer"):
        Auth(str(tmp_path / "none"), patience=0.1).logout("ab" * 32)
