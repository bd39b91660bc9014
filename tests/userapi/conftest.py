"""The peers of the api: a scripted supervisor and auth on real SEQPACKET sockets, and a real gunicorn.

The scripts are the peers, never the thing under test. Each packet is decoded by policy.wire, as the real ones do.
"""

from __future__ import annotations

import array
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import userapi
from policy import login, messages, wire
from userapi.app import create_app

ROOT = Path(userapi.__path__[0]).parent  # what is installed; a checkout is left as it is
TOKEN = "ab" * 32
PERSONAL = "durward_" + "c0ffee00" * 8
NOW = "2026-11-23T12:00:00Z"

SITE = messages.ServiceInfo(
    name="site",
    state="RUNNING",
    wanted="up",
    processes=[
        messages.ProcessInfo(name="site:0", state="RUNNING", pid=41, since=NOW),
        messages.ProcessInfo(name="site:1", state="RUNNING", pid=42, since=NOW),
    ],
    groups=["frontend"],
)
WORKER = messages.ServiceInfo(
    name="worker",
    state="FATAL",
    wanted="up",
    processes=[
        messages.ProcessInfo(name="worker", state="FATAL", pid=0, since=NOW, exit="exit status 1", text="5 in 60s")
    ],
)
Script = Callable[[Any], Any]


HANG = object()  # the script does not answer, and keeps the connection
DIE = object()  # it closes the connection without an answer
OPEN = object()  # after other answers: it keeps the connection, as a watch does


class Peer:
    """Listens on a path; answers each packet with what `script` returns: a message, (message, fd), bytes or a list."""

    def __init__(self, path: Path, decode: Callable[[bytes], Any], encode: Callable[[Any, Any], bytes]) -> None:
        self.path = path
        self.script: Script = lambda asked: DIE
        self.asked: list[Any] = []
        self._decode = decode
        self._encode = encode
        self._stop = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._held: list[socket.socket] = []
        self.listen()
        self.start()

    def listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._listener.listen(128)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """As when it dies: connections are closed, the listening socket stays with its keeper."""
        if self._thread is not None:
            os.write(self._stop[1], b"!")
            self._thread.join(5)
            assert not self._thread.is_alive()
            self._thread = None

    def close(self) -> None:
        self.pause()
        assert self._listener is not None
        self._listener.close()
        for descriptor in self._stop:
            os.close(descriptor)
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _run(self) -> None:
        assert self._listener is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop[0], selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            lines: set[socket.socket] = set()
            while True:
                for key, _ in selector.select():
                    if key.fileobj == self._stop[0]:
                        os.read(self._stop[0], 100)
                        for line in [*lines, *self._held]:
                            line.close()
                        self._held.clear()
                        return
                    if key.fileobj is self._listener:
                        line, _ = self._listener.accept()
                        lines.add(line)
                        selector.register(line, selectors.EVENT_READ)
                        continue
                    line = key.fileobj
                    if not self._serve(line):
                        selector.unregister(line)
                        lines.discard(line)
                        if line not in self._held:
                            line.close()

    def _serve(self, line: socket.socket) -> bool:
        try:
            packet = line.recv(wire.LIMIT + 1)
        except OSError:
            return False
        if not packet:
            return False
        asked = self._decode(packet)
        self.asked.append(asked)
        answer = self.script(asked)
        for one in answer if isinstance(answer, list) else [answer]:
            if one is DIE:
                return False
            if one is HANG or one is OPEN:
                self._held.append(line)
                return False
            message, descriptor = one if isinstance(one, tuple) else (one, -1)
            data = message if isinstance(message, bytes) else self._encode(asked, message)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))] if descriptor >= 0 else []
            with suppress(OSError):
                line.sendmsg([data], rights)
            if descriptor >= 0:
                os.close(descriptor)
        return True


def no_session() -> messages.Refused:
    return messages.Refused(kind="no-session", text="log in first")


class World:
    """A run directory with both peers, and sessions as the real ones keep them."""

    token, site, worker, now, personal = TOKEN, SITE, WORKER, NOW, PERSONAL
    hang, die, open = HANG, DIE, OPEN

    def __init__(self, run: Path) -> None:
        self.run = run
        self.live = {TOKEN}
        self.tokens: dict[str, login.TokenInfo] = {}
        self.answers: dict[type, Any] = {
            messages.Status: messages.Services(services=[SITE, WORKER]),
            messages.ListOperations: messages.Listed(
                [
                    messages.OperationInfo(6, "start", "db", "", 0, NOW, "", False, "db was not started: no", 1.0),
                    messages.OperationInfo(7, "restart", "site", "alice", 2, NOW, "starting the new process"),
                ]
            ),
            messages.Describe: messages.Description(service=SITE, settings={"user": "www"}, sockets=["http"], exits=[]),
            messages.WhatMayI: messages.Rights(
                user="alice",
                uid=1001,
                groups=["webops"],
                expires=NOW,
                rights=[messages.Right("site", ["view", "restart"])],
            ),
            messages.Restart: messages.Accepted(operation=7, text="restarting site"),
            messages.Start: messages.Accepted(operation=7),
            messages.Stop: messages.Accepted(operation=7),
            messages.Signal: messages.Accepted(operation=7),
            messages.Enable: lambda command: messages.Done(text=f"{command.service} is enabled"),
            messages.Disable: lambda command: messages.Done(text=f"{command.service} is disabled"),
            messages.Scale: messages.Accepted(operation=7),
            messages.ClearLog: lambda command: messages.Done(text=f"the logs of {command.service} are cleared"),
            messages.ReopenLog: lambda command: messages.Done(text=f"the log files of {command.service} are new"),
            messages.Cancel: messages.Done(text="operation 7 is cancelled"),
            messages.Reload: messages.Accepted(operation=7),
            messages.Shutdown: messages.Accepted(operation=7),
            messages.Upgrade: messages.Accepted(operation=7),
            messages.Revoke: messages.Done(text="2 sessions ended"),
            messages.Watch: [
                messages.Step(number=1, time=NOW, operation=7, service="site", text="starting"),
                messages.Step(number=2, time=NOW, operation=7, service="site", text="ready"),
                messages.Ended(
                    number=3, time=NOW, operation=7, service="site", ok=True, text="site restarted", seconds=0.42
                ),
            ],
        }
        self.supervisor = Peer(run / "control.sock", wire.REQUEST.decode, self._encode)
        self.supervisor.script = self.supervise
        self.auth = Peer(run / "auth.sock", wire.ASK.decode, lambda asked, tell: wire.TELL.encode(tell))
        self.auth.script = self.vouch

    @staticmethod
    def _encode(asked: messages.Request, reply: Any) -> bytes:
        return wire.ANSWER.encode(messages.Answer(id=asked.id, reply=reply))

    def supervise(self, asked: messages.Request) -> Any:
        if asked.session not in self.live:
            return no_session()
        answer = self.answers[type(asked.command)]
        return answer(asked.command) if callable(answer) else answer

    def vouch(self, ask: login.Ask) -> Any:
        if isinstance(ask, login.Logout):
            known = ask.token in self.live
            self.live.discard(ask.token)
            return login.LoggedOut() if known else login.Denied(text="no such session")
        if isinstance(ask, login.Login) and ask.password == "right":
            self.live.add(TOKEN)
            return login.Granted(token=TOKEN, user=ask.user, uid=1001, expires=NOW)
        if isinstance(ask, login.TokenAsk):
            return self.vouch_for_tokens(ask)
        return login.Denied(text="login refused")

    def vouch_for_tokens(self, ask: login.TokenAsk) -> Any:
        if ask.token not in self.live:
            return login.TokenRefused("no-session", "log in first")
        if isinstance(ask, login.MakeToken):
            self.tokens[ask.scope.name] = login.TokenInfo(ask.scope, NOW, NOW, "", "")
            self.live.add(PERSONAL)
            return login.TokenMade(PERSONAL, ask.scope.name, NOW)
        if isinstance(ask, login.ListTokens):
            return login.Tokens(list(self.tokens.values()))
        if self.tokens.pop(ask.name, None) is None:
            return login.TokenRefused("unknown", f"you have no token '{ask.name}'")
        self.live.discard(PERSONAL)
        return login.TokenRevoked()

    def commands(self) -> list[Any]:
        return [request.command for request in self.supervisor.asked]

    def close(self) -> None:
        self.supervisor.close()
        self.auth.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def app(world: World) -> Any:
    return create_app({"DURWARD_RUN": str(world.run), "DURWARD_API": '{"threads": 20}'})


@pytest.fixture
def http(app: Any) -> Any:
    """A client that is logged in."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


LAUNCH = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
count = int(sys.argv.pop(1))
moved = [os.dup(int(sys.argv.pop(1))) for _ in range(count)]
for number, descriptor in enumerate(moved):
    os.dup2(descriptor, 3 + number, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(count)
from userapi.serve import main
main()
"""


class Gunicorn:
    """The real thing: gunicorn with userapi.gunicorn_conf on sockets that were bound by somebody else."""

    def __init__(self, run: Path, cwd: Path, tcp: bool = True, **api: Any) -> None:
        self.unix = run / "api.sock"
        listeners = [socket.socket(socket.AF_UNIX)]
        listeners[0].bind(str(self.unix))
        self.port = 0
        if tcp:
            listeners.append(socket.socket())
            listeners[1].bind(("127.0.0.1", 0))
            self.port = listeners[1].getsockname()[1]
        for listener in listeners:
            listener.listen(512)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(run / "notify.sock"))
        self.notify.settimeout(20)
        environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/",
            "DURWARD_RUN": str(run),
            "DURWARD_API": json.dumps({"workers": 1, "threads": 20, **api}),
            "NOTIFY_SOCKET": str(run / "notify.sock"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        numbers = [str(listener.fileno()) for listener in listeners]
        self.log = run / "gunicorn.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", LAUNCH, str(ROOT), str(len(numbers)), *numbers],
                pass_fds=[listener.fileno() for listener in listeners],
                env=environ,
                cwd=cwd,
                stderr=log,
                stdout=log,
            )
        for listener in listeners:
            listener.close()

    def ready(self) -> Gunicorn:
        assert b"READY=1" in self.notify.recv(4096), self.log.read_text()
        return self

    def workers(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def connect(self) -> socket.socket:
        if self.port:
            return socket.create_connection(("127.0.0.1", self.port), timeout=20)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(str(self.unix))
        return sock

    def raw(self, data: bytes) -> bytes:
        """Everything that comes back until the other end closes."""
        with self.connect() as sock:
            sock.sendall(data)
            got = b""
            with suppress(ConnectionResetError):
                while piece := sock.recv(65536):
                    got += piece
            return got

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.notify.close()


@pytest.fixture
def gunicorn(world: World, tmp_path: Path) -> Iterator[Callable[..., Gunicorn]]:
    """Start it with more keys of DURWARD_API; wait for ready() unless it should not become so."""
    started: list[Gunicorn] = []

    def start(cwd: Path = tmp_path, tcp: bool = True, **api: Any) -> Gunicorn:
        started.append(Gunicorn(world.run, cwd, tcp, **api))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def token() -> str:
    return TOKEN


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, str]:
    """A certificate of localhost, which vouches for itself, and its key."""
    names = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost", "-keyout", names["key"], "-out", names["certificate"]]
    subprocess.run(make, check=True, capture_output=True)
    return names
