"""log as a process of its own, with its real account: killed, started again, idle. DESIGN §6, §7, §11 no. 8."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootd import ipc
from rootd.config import settings
from rootd.config.settings import Account, Paths, Settings
from rootd.log import chain, main
from userapi.audit import verify

pytestmark = pytest.mark.root

UID = 64_321  # nobody's
DEADLINE = 20.0  # seconds that any answer may take


class Stage:
    """The keeper's and the other peers' part in a test: it starts log, holds the pipes and links it again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: dict[str, int] = {}
        for name in ("log", "log/audit", "state", "state/log", "state/choices"):
            (path / name).mkdir(mode=0o750)
            if name != "state":
                os.chown(path / name, UID, UID)
        (path / "state").chmod(0o755)
        account = Account("log", UID, UID, ())
        paths = Paths(str(path / "run"), str(path / "log"), str(path / "state"))
        auth = settings.Auth("durward", "durward-account", "password", 28_800.0, 1_800.0)
        conf = Settings("/etc/durward", paths, {"log": account}, auth, None, settings.Audit("refuse"))
        self.settings = os.memfd_create("settings", os.MFD_CLOEXEC)
        os.write(self.settings, settings.to_json(conf))
        self.pid = 0

    def start(self) -> None:
        ours, theirs = ipc.pair()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                ours.close()
                status = main.main(theirs.fileno())
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        theirs.close()
        self.keeper = ipc.Link(ours)
        self.keeper.send(ipc.Message(ipc.HELD, name="settings"), self.settings)
        for name, fd in self.held.items():
            self.keeper.send(ipc.Message(ipc.HELD, name=name), fd)
        self.privileged = self.link("privileged")
        self.supervisor = self.link("supervisor", body=True)
        self.keeper.send(ipc.Message(ipc.HELD_END))

    def link(self, role: str, *, body: bool = False) -> ipc.Link:
        ours, theirs = ipc.pair()
        pidfd = os.pidfd_open(os.getpid())
        self.keeper.send(ipc.Message(ipc.LINK, name=role), theirs.fileno(), pidfd)
        theirs.close()
        os.close(pidfd)
        return ipc.Link(ours, body=body)

    def wait(self, link: ipc.Link, op: int) -> ipc.Message:
        poll = select.poll()
        poll.register(link, select.POLLIN)
        while poll.poll(DEADLINE * 1000):
            received = link.receive()
            assert received is not None, "log has closed the link"
            if received[0].op == op:
                return received[0]
        raise AssertionError("no answer in time")

    def ping(self) -> None:
        self.privileged.send(ipc.Message(ipc.PING, seq=1))
        assert self.wait(self.privileged, ipc.PONG).arg == 0

    def pipe(self, run: int, size: int) -> int:
        reader, writer = os.pipe()
        self.held[f"pipe/site/stdout/{run}/{size}/1000/7"] = reader
        message = ipc.Message(ipc.PIPE, scope=1, run=run, slot=7, name="site", arg=size, extra=1_000)
        self.privileged.send(message, reader)
        return writer

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.gone()

    def gone(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        for link in (self.keeper, self.privileged, self.supervisor):
            link.close()
        return status

    def end(self) -> int:
        self.keeper.send(ipc.Message(ipc.END))
        return self.gone()

    def close(self) -> None:
        if self.pid:
            self.kill()
        ipc.close_all((self.settings, *self.held.values()))

    def audit(self) -> list[dict[str, object]]:
        data = (self.path / "log/audit/audit.jsonl").read_bytes()
        keys = chain.parse_keys((self.path / "state/log/audit.initial").read_bytes())
        report = verify.verify(data.splitlines(keepends=True), keys)
        assert report.problems == ()
        return [chain.parse(line).body for line in data.splitlines() if line.startswith(b'{"n":') and whole(line)]

    def text(self) -> bytes:
        files = list((self.path / "log/site").glob("stdout.log*"))
        files.sort(key=lambda file: -int(file.suffix[1:]) if file.suffix != ".log" else 0)
        return b"".join(file.read_bytes() for file in files)


def whole(line: bytes) -> bool:
    try:
        chain.parse(line)
    except ValueError:
        return False
    return True


@pytest.fixture
def stage() -> Iterator[Stage]:
    path = Path(tempfile.mkdtemp(prefix="durward-log-"))  # pytest's own directories are closed to other users
    path.chmod(0o755)
    stage = Stage(path)
    stage.start()
    yield stage
    stage.close()
    shutil.rmtree(path)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_log_runs_as_its_own_account_without_any_capability_behind_its_walls(stage: Stage) -> None:
    stage.ping()
    status = status_of(stage.pid)
    assert status["Uid"].split() == [str(UID)] * 4
    assert status["Gid"].split() == [str(UID)] * 4
    assert status["Groups"] == ""
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"], status["Threads"]) == ("1", "2", "1")


def test_what_it_writes_belongs_to_it_and_others_cannot_read_it(stage: Stage) -> None:
    writer = stage.pipe(1, 10_000)
    os.write(writer, b"hello\n")
    os.close(writer)
    stage.wait(stage.privileged, ipc.DRAINED)
    for name, mode in (("log/site", 0o750), ("log/site/stdout.log", 0o640), ("log/audit/audit.jsonl", 0o640)):
        found = (stage.path / name).stat()
        assert (found.st_uid, found.st_mode & 0o777) == (UID, mode)
    assert (stage.path / "state/log/audit.key").stat().st_mode & 0o777 == 0o600


def test_kill_9_under_load_costs_no_line_of_a_service_and_no_acknowledged_record(stage: Stage) -> None:
    text = b"".join(b"line %07d\n" % n for n in range(400_000))
    writer = stage.pipe(1, 200_000)
    if (child := os.fork()) == 0:
        view = memoryview(text)
        while view:
            view = view[os.write(writer, view[:9_000]) :]
        os._exit(0)
    os.close(writer)
    acknowledged = []
    for n in range(15):
        stage.supervisor.send(ipc.Message(ipc.RECORD, seq=n, body=b'{"kind":"decision","number":%d}' % n))
        stage.privileged.send(ipc.Message(ipc.DEED, scope=1, run=n))
        if stage.wait(stage.supervisor, ipc.RECORDED).arg == 0:
            acknowledged.append(n)
        stage.supervisor.send(ipc.Message(ipc.RECORD, seq=99, body=b'{"kind":"outcome","number":%d}' % n))
        stage.kill()
        stage.start()
    stage.wait(stage.privileged, ipc.DRAINED)
    assert os.waitpid(child, 0)[1] == 0
    assert stage.text() == text
    stage.ping()
    assert [body["number"] for body in stage.audit() if body["kind"] == "decision"] == acknowledged == list(range(15))


def test_kill_9_costs_no_choice_that_was_acknowledged(stage: Stage) -> None:
    path = stage.path / "state/choices/choices.json"
    for n in range(10):
        stage.supervisor.send(ipc.Message(ipc.KEEP, seq=n, body=b"%d" % n))
        assert stage.wait(stage.supervisor, ipc.KEPT).arg == 0
        stage.supervisor.send(ipc.Message(ipc.KEEP, seq=n, body=b"%d, not acknowledged" % n))
        stage.kill()
        assert path.read_bytes().split(b",")[0] == b"%d" % n
        stage.start()
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (UID, 0o640)


def test_an_idle_log_does_not_wake_up(stage: Stage) -> None:
    os.write(stage.pipe(1, 10_000), b"hello\n")
    stage.ping()
    poll = select.poll()
    poll.register(stage.privileged, select.POLLIN)
    assert any(status_of(stage.pid)["State"][0] == "S" for _ in range(100_000))
    before = status_of(stage.pid)
    assert not poll.poll(1_500), "nothing is said meanwhile"
    after = status_of(stage.pid)
    for kind in ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"):
        assert before[kind] == after[kind]


@pytest.mark.parametrize("how", ["end", "keeper gone"])
def test_it_ends_in_order_and_says_so_in_the_audit_log(stage: Stage, how: str) -> None:
    writer = stage.pipe(1, 10_000)
    os.write(writer, b"last words\n")
    if how == "end":
        assert stage.end() == 0
    else:
        stage.keeper.sock.shutdown(2)
        assert stage.gone() == 0
    assert stage.text() == b"last words\n"
    stage.start()
    stage.ping()
    assert [(body["kind"], body["reason"]) for body in stage.audit()] == [
        ("start", "first"), ("stop", "end"), ("start", "clean"),
    ]  # fmt: skip
    os.close(writer)
