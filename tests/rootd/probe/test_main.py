"""probe as a process of its own, after its real start-up; the keeper and the supervisor are played by the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootd import ipc, lifeline
from rootd.probe import checks, main

pytestmark = pytest.mark.root

UID = 64_322  # nobody's
WAIT = 20.0  # seconds before a test gives up
OK = b"HTTP/1.1 200 OK\r\n\r\n"


class Stage:
    """The keeper's and the supervisor's part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stderr = path / "stderr"
        ours, theirs = ipc.pair()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.dup2(os.open(self.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
                sys.stderr = os.fdopen(2, "w", closefd=False)
                link = os.dup2(theirs.fileno(), 100, inheritable=False)
                os.closerange(3, 100)
                os.closerange(101, 4096)
                status = main.main(link)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(status)
        theirs.close()
        self.pidfd = os.pidfd_open(self.pid)
        self.keeper = ipc.Link(ours)
        self.supervisor: ipc.Link | None = None
        settings = os.memfd_create("settings")
        os.write(settings, json.dumps({"accounts": {"probe": {"uid": UID, "gid": UID}}}).encode())
        self.keeper.send(ipc.Message(ipc.HELD, name="settings"), settings)
        os.close(settings)

    def begin(self) -> Stage:
        self.link()
        self.keeper.send(ipc.Message(ipc.HELD_END))
        return self

    def link(self, pid: int = 0) -> ipc.Link:
        """The keeper links a supervisor, which is this process or another."""
        ours, theirs = ipc.pair()
        pidfd = os.pidfd_open(pid or os.getpid())
        self.keeper.send(ipc.Message(ipc.LINK, name="supervisor"), theirs.fileno(), pidfd)
        theirs.close()
        os.close(pidfd)
        self.unlink()
        self.supervisor = ipc.Link(ours)
        return self.supervisor

    def unlink(self) -> None:
        if self.supervisor is not None:
            self.supervisor.close()
            self.supervisor = None

    def ask(self, key: str, target: str | None = None, seq: int = 1, timeout: int = 10_000) -> None:
        assert self.supervisor is not None
        scope = ipc.TCP if target is None else ipc.HTTP
        body = (target or "").encode()
        self.supervisor.send_now(ipc.Message(ipc.CHECK, seq=seq, scope=scope, arg=timeout, name=key, body=body))

    def answer(self) -> tuple[int, str]:
        """Number and problem of the next one."""
        assert self.supervisor is not None
        assert ipc.wait(self.supervisor, seconds=WAIT), self.stderr.read_text()
        received = self.supervisor.receive()
        assert received is not None, self.stderr.read_text()
        message = received[0]
        assert message.op == ipc.CHECKED
        assert message.arg == (1 if message.name else 0)
        return message.seq, message.name

    def checked(self, key: str, target: str | None = None, timeout: int = 10_000) -> str:
        self.ask(key, target, 77, timeout)
        seq, problem = self.answer()
        assert seq == 77
        return problem

    def ended(self) -> int:
        assert ipc.wait(self.pidfd, seconds=WAIT), "it does not end"
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.ended()
        os.close(self.pidfd)
        self.unlink()
        self.keeper.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="durward-") as folder:
        os.chmod(folder, 0o755)
        made = Stage(Path(folder))
        yield made
        made.close()


@pytest.fixture
def probe(stage: Stage) -> Stage:
    return stage.begin()


Listen = Callable[..., tuple[socket.socket, str]]


@pytest.fixture
def listen(tmp_path: Path, stage: Stage) -> Iterator[Listen]:
    """A socket that listens, and its key."""
    made = []

    def listen(family: int = socket.AF_INET, mode: int = 0o666) -> tuple[socket.socket, str]:
        sock = socket.socket(family)
        sock.settimeout(WAIT)
        made.append(sock)
        if family == socket.AF_UNIX:
            path = stage.path / f"door-{len(made)}"
            sock.bind(str(path))
            path.chmod(mode)
            key = f"unix:{path}"
        else:
            sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            host, port = sock.getsockname()[:2]
            key = f"tcp:{host}:{port}" if family == socket.AF_INET else f"tcp:[{host}]:{port}"
        sock.listen(1024)
        return sock, key

    yield listen
    for sock in made:
        sock.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX], ids=str)
def test_checks_are_made_from_inside_the_walls(probe: Stage, listen: Listen, family: int) -> None:
    server, key = listen(family)
    assert probe.checked(key) == ""
    server.accept()[0].close()
    for said, problem in ((OK, ""), (b"HTTP/1.1 503 busy\r\n\r\n", "HTTP status 503"), (b"220 smtp\r\n", "not HTTP")):
        probe.ask(key, "/healthz", 5)
        conn, _ = server.accept()
        conn.settimeout(WAIT)
        assert conn.recv(4_096).startswith(b"GET /healthz HTTP/1.1\r\n")
        conn.sendall(said)
        assert probe.answer() == (5, problem)
        conn.close()
    server.close()
    assert probe.checked(key) == "connection refused"


def test_a_socket_whose_mode_shuts_it_out_is_said(probe: Stage, listen: Listen) -> None:
    _, key = listen(socket.AF_UNIX, mode=0o660)
    assert probe.checked(key) == "permission denied"


def test_a_deadline_passes_by_the_monotonic_clock(probe: Stage, listen: Listen) -> None:
    _, key = listen()
    assert probe.checked(key, "/", timeout=20) == "no answer in 0.02 s"


def test_hundreds_at_once_are_each_answered_and_leave_nothing_open(probe: Stage, listen: Listen) -> None:
    server, key = listen()
    assert probe.checked(key) == ""
    server.accept()[0].close()
    before = probe.descriptors()
    for seq in range(500):
        probe.ask(key, "/", seq)
    conns = [server.accept()[0] for _ in range(500)]
    for conn in conns:
        conn.sendall(OK)
    assert sorted(probe.answer() for _ in range(500)) == [(seq, "") for seq in range(500)]
    assert probe.descriptors() == before
    for conn in conns:
        conn.close()


def test_more_than_the_limit_are_answered_with_the_reason(probe: Stage, listen: Listen) -> None:
    _, key = listen()
    for seq in range(checks.CHECKS_LIMIT + 5):
        probe.ask(key, "/", seq, 5_000)
    found = [probe.answer() for _ in range(5)]
    allowed = {f"{checks.CHECKS_LIMIT} checks are under way already", "too many open files"}
    assert {problem for _, problem in found} <= allowed


def test_a_supervisor_that_does_not_read_gets_every_answer_later(probe: Stage) -> None:
    """It fills its own queue too: nothing more is heard from it while an answer waits."""
    assert probe.supervisor is not None
    check = ipc.Message(ipc.CHECK, scope=ipc.TCP, arg=1_000, name="unix:/nonexistent/door")
    while probe.supervisor.waiting < 100:
        check = check._replace(seq=check.seq + 1)
        probe.supervisor.send(check)
    for seq in range(1, check.seq + 1):
        assert probe.answer() == (seq, "no such file or directory")
        probe.supervisor.flush()


@pytest.mark.parametrize(
    "message",
    [ipc.Message(ipc.CHECK, seq=1, scope=9, arg=1, name="tcp:127.0.0.1:80"),
     ipc.Message(ipc.CHECK, seq=1, scope=ipc.TCP, arg=0, name="tcp:127.0.0.1:80"),
     ipc.Message(ipc.CHECK, seq=1, scope=ipc.TCP, arg=1, name="tcp:example.org:80"),
     ipc.Message(ipc.CHECK, seq=1, scope=ipc.HTTP, arg=1, name="tcp:127.0.0.1:80", body=b"/ HTTP/1.1\r\nX: y"),
     ipc.Message(ipc.RECORD, seq=1)],
    ids=repr,
)  # fmt: skip
def test_c5_a_check_that_is_none_ends_it(probe: Stage, message: ipc.Message) -> None:
    assert probe.supervisor is not None
    probe.supervisor.send(message)
    assert probe.ended() == main.NONSENSE
    assert probe.supervisor.receive() is None
    assert "probe ends, to be started again" in probe.stderr.read_text()


@pytest.mark.parametrize("packet", [b"x", b"x" * 300, b"\1" * ipc.SIZE, bytes(ipc.SIZE + ipc.BODY_LIMIT + 1)], ids=len)
def test_c1_what_is_no_message_ends_it(probe: Stage, packet: bytes) -> None:
    assert probe.supervisor is not None
    probe.supervisor.sock.send(packet)
    assert probe.ended() == main.NONSENSE


def test_c6_a_descriptor_from_the_supervisor_ends_it(probe: Stage) -> None:
    assert probe.supervisor is not None
    probe.supervisor.send(ipc.Message(ipc.CHECK), 0)
    assert probe.ended() == main.NONSENSE


def test_without_a_link_to_a_supervisor_that_lives_it_ends(probe: Stage) -> None:
    probe.unlink()
    assert probe.ended() == main.UNLINKED
    assert "is not linked" in probe.stderr.read_text()


def test_a_supervisor_that_died_is_waited_for_and_its_checks_are_dropped(probe: Stage, listen: Listen) -> None:
    server, key = listen()
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    probe.link(pid)
    probe.ask(key, "/", 3)
    conn, _ = server.accept()
    conn.settimeout(WAIT)
    assert conn.recv(4_096)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    probe.unlink()
    assert conn.recv(1) == b"", "nobody waits for that answer"
    conn.close()
    assert not ipc.wait(probe.pidfd, seconds=lifeline.ALIVE * 1.5), "it goes on"
    probe.link()
    assert probe.checked(key) == ""


def test_a_new_link_replaces_the_old_one(probe: Stage, listen: Listen) -> None:
    _, key = listen()
    for _ in range(3):
        probe.ask(key, "/", 3)
        probe.link()
        assert probe.checked(key) == ""
    assert probe.descriptors() == 3 + 1 + 1 + 2, "the keeper's link, the loop, the supervisor's link and pidfd"


def test_it_waits_without_a_supervisor_until_there_is_one(stage: Stage, listen: Listen) -> None:
    _, key = listen()
    stage.keeper.send(ipc.Message(ipc.HELD_END))
    stage.link()
    assert stage.checked(key) == ""


def test_what_the_keeper_hands_that_it_does_not_take_is_said_and_closed(stage: Stage, listen: Listen) -> None:
    _, key = listen()
    stage.keeper.send(ipc.Message(ipc.HELD, name="door/root"), 0)
    ours, theirs = ipc.pair()
    stage.keeper.send(ipc.Message(ipc.LINK, name="log"), theirs.fileno(), stage.pidfd)
    theirs.close()
    stage.begin()
    assert ours.recv(1) == b""
    ours.close()
    stage.keeper.send(ipc.Message(ipc.HELD, name="more"), 0)
    assert stage.checked(key) == ""
    assert "'door/root'" in stage.stderr.read_text()
    assert "which probe does not know" in stage.stderr.read_text()
    assert stage.descriptors() == 3 + 1 + 1 + 2


def test_it_ends_with_the_keeper_and_when_it_is_told(probe: Stage) -> None:
    probe.keeper.send(ipc.Message(ipc.END))
    assert probe.ended() == 0


def test_it_ends_when_the_keeper_is_gone(probe: Stage) -> None:
    probe.keeper.close()
    assert probe.ended() == 0


def test_it_is_its_account_without_capabilities_and_in_walls(probe: Stage, listen: Listen) -> None:
    _, key = listen()
    assert probe.checked(key) == ""
    fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{probe.pid}/status").read_text().splitlines())
    assert fields["Uid"].split() == fields["Gid"].split() == [str(UID)] * 4
    assert fields["Groups"].strip() == ""
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (fields["Seccomp"], fields["NoNewPrivs"], fields["Threads"]) == ("2", "1", "1")


def test_it_sleeps_while_nothing_is_checked(probe: Stage, listen: Listen) -> None:
    def switches() -> str:
        status = Path(f"/proc/{probe.pid}/status").read_text()
        return next(line for line in status.splitlines() if line.startswith("voluntary"))

    _, key = listen()
    assert probe.checked(key) == ""
    deadline = time.monotonic() + WAIT
    while Path(f"/proc/{probe.pid}/syscall").read_text().split()[0] == "running":  # until it waits again
        assert time.monotonic() < deadline
    before = switches()
    assert not ipc.wait(probe.pidfd, seconds=0.5)
    assert switches() == before


def test_settings_without_its_account_end_it() -> None:
    fd = os.memfd_create("settings")
    os.write(fd, b'{"accounts":{}}')
    with pytest.raises(KeyError, match="probe"):
        main.account(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
