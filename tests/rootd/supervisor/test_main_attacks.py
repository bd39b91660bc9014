"""What a hostile api, auth, log or privileged sends to the real process, and what comes of it: nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from supervisor_daemon import ALICE, Daemon, reply

from policy import login, messages, wire
from rootd import ipc
from rootd.supervisor.auditing import SINGLY

pytestmark = pytest.mark.root

USUAL = 1.0  # seconds; an answer takes a few milliseconds on an idle machine


@pytest.fixture
def running(daemon: Daemon, generation: Callable[..., Any]) -> Daemon:
    daemon.start()
    fact = ipc.Message(ipc.FACT, run=5, generation=1, arg=4242, extra=1)
    daemon.begin(generation(), fact)
    daemon.record()
    daemon.login()
    return daemon


def assert_well(daemon: Daemon) -> None:
    """The same process, which answers root and alice within its usual time, and has done nothing."""
    drain(daemon)
    begun = time.monotonic()
    assert isinstance(daemon.ask(messages.Status(), "", "root"), messages.Services)
    assert isinstance(daemon.ask(messages.Status()), messages.Services)
    assert time.monotonic() - begun < USUAL
    drain(daemon)
    assert daemon.silent("privileged")
    assert os.waitpid(daemon.pid, os.WNOHANG) == (0, 0)


def drain(daemon: Daemon) -> None:
    """Acknowledge what came for the audit log."""
    while True:
        try:
            received = daemon.links["log"].receive()
        except BlockingIOError:
            return
        assert received is not None
        daemon.links["log"].send_now(ipc.Message(ipc.RECORDED, seq=received[0].seq))


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


@pytest.mark.parametrize(
    "token",
    ["", "2" * 64, ALICE[:-1] + "2", ALICE[::-1].replace("1", "0")],
    ids=["none", "other", "altered", "foreign"],
)
def test_a1_a3_a_session_that_was_not_handed_out_here_is_nobodys(running: Daemon, token: str) -> None:
    assert running.ask(messages.Restart("site"), token).kind == "no-session"
    assert_well(running)


def test_a2_a_request_that_is_played_back_is_decided_anew(running: Daemon) -> None:
    packet = wire.REQUEST.encode(messages.Request(1, messages.WhatMayI("restart", "site"), ALICE))
    with running.call() as sock:
        sock.send(packet)
        assert reply(sock).allowed
    assert running.auth is not None
    end = login.SessionDown(hashlib.sha256(ALICE.encode()).hexdigest(), "logout")
    running.auth.send(wire.PUSH.encode(end))
    running.ask(messages.WhatMayI(), "", "root")
    with running.call() as sock:
        sock.send(packet)
        assert reply(sock).kind == "no-session"


def test_a8_an_auth_that_dies_while_a_request_is_under_way_lets_nobody_in(running: Daemon) -> None:
    sock = running.send(messages.Restart("site"), "3" * 64)
    running.unlink("auth")
    with sock:
        assert reply(sock).kind == "no-session"
    assert_well(running)


def test_c1_c4_c5_ten_thousand_packets_of_nonsense_change_nothing(running: Daemon) -> None:
    dice = random.Random(7)
    before = descriptors(running)
    good = wire.REQUEST.encode(messages.Request(1, messages.Restart("site"), "9" * 64))
    sock = running.call()
    for number in range(10_000):
        match number % 5:
            case 0:
                packet = b""
            case 1:
                packet = dice.randbytes(dice.randrange(1, 500))
            case 2:
                packet = good[: dice.randrange(len(good))]
            case 3:
                packet = good + b" " * 70_000
            case _:
                changed = bytearray(good)
                changed[dice.randrange(len(changed))] = dice.randrange(256)
                packet = bytes(changed)
        try:
            sock.send(packet)
        except OSError:
            sock.close()
            sock = running.call()
    sock.close()
    assert_well(running)
    assert descriptors(running) <= before + 3
    assert len(running.stderr.read_text().splitlines()) < 20


def test_c6_descriptors_that_are_attached_are_not_kept(running: Daemon) -> None:
    before = descriptors(running)
    packet = wire.REQUEST.encode(messages.Request(1, messages.Status(), ALICE))
    for count in range(1, 200):
        with running.call() as sock, open("/dev/null", "rb") as null:
            try:
                socket.send_fds(sock, [packet], [null.fileno()] * count)
            except PermissionError:
                continue  # the kernel refuses it for the supervisor
            assert reply(sock) is None
    assert_well(running)
    assert descriptors(running) <= before + 1


def test_c8_a_thousand_connections_close_no_door_of_root(running: Daemon) -> None:
    socks = []
    for _ in range(1000):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            sock.connect(str(running.path / "control"))
        except BlockingIOError:
            sock.close()
            continue
        socks.append(sock)
    begun = time.monotonic()
    assert isinstance(running.ask(messages.Status(), "", "root"), messages.Services)
    assert time.monotonic() - begun < USUAL
    assert len(socks) < 600
    for sock in socks:
        sock.close()
    assert_well(running)


def test_after_nonsense_log_is_not_heard_again_and_nothing_is_done_unrecorded(running: Daemon) -> None:
    running.links["log"].sock.send(b"x" * 17)
    deadline = time.monotonic() + 10
    while "the link to log is closed" not in running.stderr.read_text():
        assert time.monotonic() < deadline
        assert isinstance(running.ask(messages.WhatMayI(), "", "root"), messages.Rights)
    assert running.ask(messages.Restart("site")).kind == "later"
    assert isinstance(running.ask(messages.Stop("site"), "", "root"), messages.Accepted)


def test_nonsense_of_privileged_ends_the_process_which_is_started_again_and_stops_nothing(running: Daemon) -> None:
    running.links["privileged"].sock.send(b"x" * 17)
    assert running.wait() != 0
    assert "privileged sent a packet of 17 bytes" in running.stderr.read_text()
    assert running.links["privileged"].receive() is None


def test_a_link_to_a_part_that_is_none_of_its_own_is_closed(running: Daemon) -> None:
    running.link("api")
    running.ask(messages.WhatMayI(), "", "root")
    assert running.links["api"].receive() is None
    assert_well(running)


def test_c5_a_probe_that_answers_what_nobody_asked_is_not_heard_again(running: Daemon) -> None:
    for packet in (ipc.Message(ipc.CHECKED, seq=1).encode(), ipc.Message(ipc.EXITED, run=1).encode(), b"x" * 17):
        running.link("probe")
        running.links["probe"].sock.send(packet)
        assert ipc.wait(running.links["probe"], seconds=20)
        assert running.links["probe"].receive() is None
        assert_well(running)
    assert running.stderr.read_text().count("the link to probe is closed") == 3


def test_c14_messages_that_nobody_asked_for_change_nothing(running: Daemon) -> None:
    before = descriptors(running)
    for op in (ipc.SPAWNED, ipc.EXITED, ipc.EMPTY, ipc.DONE, ipc.CHANNEL, ipc.TABLE, ipc.PIPE, ipc.STORE, ipc.RECORDED):
        for number in (0, 2**30, 2**31 + 7, 2**32 - 1):
            with open("/dev/null", "rb") as null:
                message = ipc.Message(op, seq=number, run=number, slot=number, generation=number, arg=-number, scope=9)
                running.tell(message, null.fileno())
                running.tell(message)
    running.links["log"].send_now(ipc.Message(ipc.RECORDED, seq=99))
    assert running.ask(messages.Status(), "", "root").services[0].state == "RUNNING"
    assert descriptors(running) <= before + 1
    assert os.waitpid(running.pid, os.WNOHANG) == (0, 0)


def test_a_log_is_not_flooded_by_the_reads_of_one_user(running: Daemon) -> None:
    """log is silent: they are answered all the same, and few of them wait for it."""
    drain(running)
    with running.call() as sock:
        for number in range(2100):
            sock.send(wire.REQUEST.encode(messages.Request(number, messages.WhatMayI(), ALICE)))
            assert isinstance(reply(sock), messages.Rights)
    waiting = 0
    with contextlib.suppress(BlockingIOError):
        while received := running.links["log"].receive():
            waiting += 1
            running.links["log"].send_now(ipc.Message(ipc.RECORDED, seq=received[0].seq))
    assert waiting == SINGLY
    drain(running)
    running.ask(messages.Status())
    assert_well(running)


def test_e6_a_log_is_handed_out_from_inside_the_sandbox(running: Daemon) -> None:
    (running.path / "log/site/stdout.log").write_bytes(b"hello\n")
    (running.path / "log/site/stderr.log").symlink_to("/etc/passwd")
    with running.send(messages.OpenLog("site"), "", "root") as sock:
        packet, fds, _, _ = socket.recv_fds(sock, wire.LIMIT, 2)
        assert wire.ANSWER.decode(packet).reply == messages.LogOpened("site", "site", "stdout", 6)
        assert os.read(fds[0], 99) == b"hello\n"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fds[0], b"x")
        os.close(fds[0])
    assert running.ask(messages.OpenLog("site", "stderr"), "", "root").kind == "unknown"


def test_the_status_of_a_thousand_services_takes_no_longer_than_that_of_one_two_hundred_times(
    daemon: Daemon, generation: Callable[..., Any]
) -> None:
    one = '[service.site-{}]\ncommand = ["/srv/site"]\nuser = "www-site"\nautostart = false\n'
    daemon.start()
    daemon.begin(generation({"services.d/site.toml": "".join(one.format(number) for number in range(1000))}))

    def took(command: messages.Status, expected: int) -> float:
        begun = time.perf_counter()
        with daemon.send(command, "", "root") as sock:
            found = 0
            while True:
                answer = reply(sock)
                found += len(answer.services)
                if not answer.more:
                    break
        assert found == expected
        return time.perf_counter() - begun

    pairs = [(took(messages.Status(), 1000), took(messages.Status("site-7"), 1)) for _ in range(9)]
    assert min(all_ for all_, _ in pairs) < 200 * min(one for _, one in pairs), pairs
