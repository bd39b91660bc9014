"""log as a process of its own, with its real account, and the ends of its links that its peers have."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import traceback
from pathlib import Path

from rootd import ipc
from rootd.config import settings
from rootd.config.settings import Account, Paths, Settings
from rootd.log import chain, main
from userapi.audit import verify

UID = 64_321  # nobody's
DEADLINE = 20.0  # seconds that any answer may take


class Stage:
    """The keeper's and the other peers' part in a test: it starts log, holds the pipes and links it again."""

    def __init__(self, path: Path, disk: str = "") -> None:
        self.path = path
        self.held: dict[str, int] = {}
        for name in ("log", "log/audit", "state", "state/log", "state/choices", "run", "run/log"):
            (path / name).mkdir(mode=0o750)
            if name == "log" and disk:
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk}", "durward-test", path / name], check=True)
            if name not in ("state", "run"):
                os.chown(path / name, UID, UID)
        (path / "state").chmod(0o755)
        (path / "run").chmod(0o755)
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

    def losses(self) -> dict[str, tuple[int, int]]:
        """What a log that was just started says is lost, bytes and lines by process."""
        self.supervisor.send(ipc.Message(ipc.RECORD, seq=7, body=b'{"kind":"outcome"}'))
        found = {}
        poll = select.poll()
        poll.register(self.supervisor, select.POLLIN)
        while poll.poll(DEADLINE * 1000):
            received = self.supervisor.receive()
            assert received is not None
            if received[0].op == ipc.RECORDED:
                return found
            found[received[0].name] = received[0].arg, received[0].extra
        raise AssertionError("no answer in time")

    def pipe(self, run: int, size: int, name: str = "site", keep: int = 1_000) -> int:
        reader, writer = os.pipe()
        self.held[f"pipe/{name}/stdout/{run}/{size}/{keep}/7"] = reader
        message = ipc.Message(ipc.PIPE, scope=1, run=run, slot=7, name=name, arg=size, extra=keep)
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
