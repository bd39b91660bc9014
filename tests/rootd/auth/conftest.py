"""Real accounts with real passwords for the tests of auth, and auth itself with its real uid in a forked process.

Every account begins with PREFIX, every PAM service with SERVICE; nothing else is touched, and all of it is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from policy import login, wire
from rootd import ipc
from rootd.auth import main
from rootd.config import settings
from rootd.config.settings import Account, Paths, Settings

PREFIX = "dwta-"
SERVICE = "durward-test-auth"
LOCK = "/run/durward-auth-test.lock"
PAM_D = Path("/etc/pam.d")
ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 30.0  # seconds that any answer may take


def run(*argv: str, text: str = "") -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{argv[0]} failed with {done.returncode}: {done.stderr.strip()}"
    return done.stdout


def entries(name: str) -> list[str]:
    """What the machine's files say of somebody."""
    lines = [line for file in ("passwd", "shadow", "group") for line in Path("/etc", file).read_text().splitlines()]
    return [line for line in lines if re.search(rf"[:,]{name}(,|$)|^{name}:", line)]


class Person(NamedTuple):
    name: str
    uid: int
    gid: int
    password: str


class People:
    """All accounts of one run. Only one run at a time has them: others wait for the lock."""

    service = SERVICE
    run = staticmethod(run)

    def __init__(self) -> None:
        self._lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.sweep()
        self._known: dict[str, Person] = {}
        self._lines: dict[str, list[str]] = {}
        self.auth = self._add("auth", "", "--system", "--groups", "shadow", "--shell", "/usr/sbin/nologin")
        self.api = self._add("api", "", "--system", "--shell", "/usr/sbin/nologin")
        for suffix in ("", "-account"):
            shutil.copyfile(ROOT / "packaging" / "pam.d" / f"durward{suffix}", PAM_D / f"{SERVICE}{suffix}")
            (PAM_D / f"{SERVICE}{suffix}").chmod(0o644)

    def __call__(self, short: str) -> Person:
        """Somebody as new: unlocked, not expired, with the password."""
        name = PREFIX + short
        if self._lines.get(name) == entries(name):
            return self._known[short]
        if short not in self._known:
            self._add(short, secrets.token_hex(8), "--shell", "/bin/sh")
        else:
            run("usermod", "--expiredate", "", "--inactive", "-1", "--groups", "", name)
        run("chpasswd", text=f"{name}:{self._known[short].password}\n")
        self._lines[name] = entries(name)
        return self._known[short]

    def _add(self, short: str, password: str, *words: str) -> Person:
        name = PREFIX + short
        run("useradd", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", *words, name)
        entry = pwd.getpwnam(name)
        self._known[short] = Person(name, entry.pw_uid, entry.pw_gid, password)
        return self._known[short]

    def remove(self, short: str) -> None:
        """Also of somebody who has been removed by the test."""
        if entries(PREFIX + short):
            run("userdel", PREFIX + short)
        del self._known[short], self._lines[PREFIX + short]

    @staticmethod
    def sweep() -> None:
        for entry in pwd.getpwall():
            if entry.pw_name.startswith(PREFIX):
                run("userdel", entry.pw_name)
        for file in PAM_D.glob(f"{SERVICE}*"):
            file.unlink()

    def close(self) -> None:
        self.sweep()
        os.close(self._lock)


@pytest.fixture(scope="session")
def people() -> Iterator[People]:
    made = People()
    yield made
    made.close()


@pytest.fixture
def service() -> Iterator[Callable[[str, str], str]]:
    """A PAM service of this test: a name and its text."""
    made: list[Path] = []

    def make(name: str, text: str) -> str:
        made.append(PAM_D / f"{SERVICE}-{name}")
        made[-1].write_text(text)
        return made[-1].name

    yield make
    for file in made:
        file.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def module() -> Iterator[str]:
    """A PAM module that misbehaves as its first argument says (module.c)."""
    folder = tempfile.mkdtemp(prefix="durward-auth-test-", dir="/run")
    os.chmod(folder, 0o755)
    source = str(Path(__file__).with_name("module.c"))
    run("gcc", "-shared", "-fPIC", "-o", f"{folder}/misbehave.so", source, "-l:libpam.so.0")
    yield f"{folder}/misbehave.so"
    shutil.rmtree(folder)


class Client:
    """A connection to one of the doors."""

    def __init__(self, path: str, uid: int) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(DEADLINE)
        os.seteuid(uid)  # what SO_PEERCRED says is fixed at the connection
        try:
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise
        finally:
            os.seteuid(0)

    def ask(self, ask: login.Ask) -> None:
        self.sock.send(wire.ASK.encode(ask))

    def close(self) -> None:
        self.sock.close()


class Stage:
    """auth as a process, and the parts of the keeper, the api and the supervisor as the test wants them."""

    def __init__(self, path: Path, people: People) -> None:
        self.path, self.people = path, people
        path.chmod(0o755)
        (path / "state").mkdir()
        for folder in (path / "auth", path / "state" / "auth"):
            folder.mkdir(mode=0o700)
            os.chown(folder, people.auth.uid, people.auth.gid)
        self.doors = {name: self._listen(name) for name in ("auth", "peer")}
        self.settings = os.memfd_create("settings", os.MFD_CLOEXEC)
        self.serve(SERVICE, f"{SERVICE}-account")
        self.pid = 0
        self.errors = path / "errors"
        self.keeper: ipc.Link
        self.supervisor: socket.socket | None = None
        self.pushed: list[login.Push] = []
        self.answers_seen = True
        self.clients: list[Client] = []

    def serve(
        self,
        service: str,
        account: str,
        session: float = 28_800.0,
        idle: float = 1_800.0,
        longest: float = 90 * 86400.0,
    ) -> None:
        """With these PAM services."""
        people, path = self.people, self.path
        shadow = os.stat("/etc/shadow").st_gid
        accounts = {
            "auth": Account(people.auth.name, people.auth.uid, people.auth.gid, (shadow,)),
            "api": Account(people.api.name, people.api.uid, people.api.gid, ()),
        }
        paths = Paths(str(path), str(path / "log"), str(path / "state"))
        auth = settings.Auth(service, account, "peer", session, idle, longest)
        conf = Settings("/etc/durward", paths, accounts, auth, None, settings.Audit("refuse"))
        os.truncate(self.settings, 0)
        os.pwrite(self.settings, settings.to_json(conf), 0)

    def _listen(self, name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.bind(str(self.path / f"{name}.sock"))
        os.chmod(self.path / f"{name}.sock", 0o666)
        sock.listen(128)
        return sock

    def start(self, before: Callable[[], Any] = lambda: None, *, linked: bool = True) -> None:
        """before: what the process does just before main, such as having less patience."""
        ours, theirs = ipc.pair()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                errors = os.open(self.errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(errors, 2)
                sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
                ours.close()
                for door in self.doors.values():
                    door.detach()
                before()
                status = main.main(theirs.fileno())
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        theirs.close()
        self.keeper = ipc.Link(ours)
        self.keeper.send(ipc.Message(ipc.HELD, name="settings"), self.settings)
        for name, door in self.doors.items():
            self.keeper.send(ipc.Message(ipc.HELD, name=f"door/{name}"), door.fileno())
        if linked:
            self.link()
        self.keeper.send(ipc.Message(ipc.HELD_END))

    def link(self) -> None:
        """A new supervisor."""
        if self.supervisor is not None:
            self.supervisor.close()
        self.supervisor, theirs = ipc.pair()
        pidfd = os.pidfd_open(os.getpid())
        self.keeper.send(ipc.Message(ipc.LINK, name="supervisor"), theirs.fileno(), pidfd)
        theirs.close()
        os.close(pidfd)

    def client(self, uid: int | None = None, door: str = "auth") -> Client:
        client = Client(str(self.path / f"{door}.sock"), self.people.api.uid if uid is None else uid)
        self.clients.append(client)
        return client

    def tell(self, pull: login.Pull) -> None:
        assert self.supervisor is not None
        self.supervisor.send(wire.PULL.encode(pull))

    def turn(self, client: Client | None, until: float) -> bytes | None:
        """One packet for the client, or a word of auth to the supervisor, which is heard."""
        socks = [sock for sock in (self.supervisor, client and client.sock) if sock is not None]
        ready, _, _ = select.select(socks, [], [], max(until - time.monotonic(), 0.0))
        assert ready, f"auth did not answer in time; it said: {self.errors.read_text()}"
        if self.supervisor in ready and self.supervisor is not None:
            packet = self.supervisor.recv(wire.LIMIT)
            if packet:
                push = wire.PUSH.decode(packet)
                self.pushed.append(push)
                if isinstance(push, login.SessionUp) and self.answers_seen:
                    self.tell(login.Seen(push.number))
            else:
                self.supervisor.close()
                self.supervisor = None
        if client is not None and client.sock in ready:
            try:
                return client.sock.recv(wire.LIMIT)
            except ConnectionResetError:
                return b""
        return None

    def answer(self, client: Client) -> login.Tell | None:
        """The next answer; None when the connection was closed."""
        until = time.monotonic() + DEADLINE
        while (packet := self.turn(client, until)) is None:
            pass
        return wire.TELL.decode(packet) if packet else None

    def until(self, found: Callable[[login.Push], bool]) -> login.Push:
        """The first word to the supervisor that is so; from now on they are looked for after it."""
        until = time.monotonic() + DEADLINE
        while True:
            for at, push in enumerate(self.pushed):
                if found(push):
                    del self.pushed[: at + 1]
                    return push
            self.turn(None, until)

    def login(self, user: str, password: str, source: str = "192.0.2.1") -> login.Tell | None:
        client = self.client()
        client.ask(login.Login(user, password, source))
        answer = self.answer(client)
        client.close()
        return answer

    def granted(self, person: Person, source: str = "192.0.2.1") -> login.Granted:
        answer = self.login(person.name, person.password, source)
        assert isinstance(answer, login.Granted), (answer, self.pushed, self.errors.read_text())
        return answer

    def why(self) -> str:
        """Of the last attempt, as the audit log will have it."""
        noted = self.until(lambda push: isinstance(push, login.LoginNoted))
        assert isinstance(noted, login.LoginNoted)
        return noted.why

    def down(self) -> login.SessionDown:
        push = self.until(lambda push: isinstance(push, login.SessionDown))
        assert isinstance(push, login.SessionDown)
        return push

    def kill(self) -> None:
        os.kill(self.pid, 9)
        self.gone()

    def gone(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        self.keeper.close()
        if self.supervisor is not None:
            self.supervisor.close()
            self.supervisor = None
        return status

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if self.pid:
            self.kill()
        os.close(self.settings)
        for door in self.doors.values():
            door.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, and reachable for everybody."""
    path = Path(tempfile.mkdtemp(prefix="durward-auth-test-", dir="/run"))
    yield path
    with contextlib.suppress(OSError):
        shutil.rmtree(path)


@pytest.fixture
def stage(folder: Path, people: People) -> Iterator[Stage]:
    made = Stage(folder, people)
    yield made
    made.close()


@pytest.fixture
def auth(stage: Stage) -> Stage:
    """Started and linked."""
    stage.start()
    return stage
