"""The command as people run it: a process of its own, isolated, against the real application on a Unix socket."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

import userapi

ROOT = Path(userapi.__path__[0]).parent  # what is installed; a checkout is left as it is
CODE = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from userapi.cli.__main__ import main; sys.exit(main())"


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


class Durward:
    """Runs `durward …`; `environ` is all that it sees."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.session = run / "home" / "session"
        self.environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(run / "home"),
            "DURWARD_URL": f"unix:{run}/api.sock",
            "DURWARD_ROOT_SOCKET": str(run / "root.sock"),
            "DURWARD_SESSION": str(self.session),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        environ = {**self.environ, **options.pop("env", {})}
        command = [sys.executable, "-I", "-c", CODE, *words]
        return subprocess.Popen(
            command, env=environ, stdin=-1, stdout=-1, stderr=-1, text=True, encoding="utf-8", cwd="/", **options
        )

    def __call__(self, *words: str, stdin: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, **options)
        out, err = process.communicate(stdin, timeout=30)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def raw(self, *words: str) -> bytes:
        command = [sys.executable, "-I", "-c", CODE, *words]
        return subprocess.run(command, env=self.environ, capture_output=True, timeout=30, check=True).stdout


@pytest.fixture
def served(world: Any, app: Any) -> Iterator[None]:
    server = make_server(f"unix://{world.run}/api.sock", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def durward(world: Any, served: None) -> Durward:
    """Not logged in."""
    (world.run / "home").mkdir()
    return Durward(world.run)


@pytest.fixture
def alice(durward: Durward, world: Any) -> Durward:
    """Logged in."""
    durward.session.touch(0o600)
    durward.session.write_text(f"{durward.environ['DURWARD_URL']} {world.token}\n")
    return durward


@pytest.fixture
def root(world: Any, durward: Durward) -> Iterator[Any]:
    """The peer behind root.sock: answers without a session."""
    from policy import wire

    peer = type(world.supervisor)(world.run / "root.sock", wire.REQUEST.decode, world._encode)

    def answer(asked: Any) -> Any:
        assert asked.session == ""
        found = world.answers[type(asked.command)]
        return found(asked.command) if callable(found) else found

    peer.script = answer
    yield peer
    peer.close()


@pytest.fixture
def terminal() -> Callable[..., tuple[int, str]]:
    """Run with a terminal for stdout and stderr; exit code and all that was shown."""

    def run(durward: Durward, *words: str, **environ: str) -> tuple[int, str]:
        ours, theirs = os.openpty()
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", CODE, *words],
            env={**durward.environ, "TERM": "xterm", **environ},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:
                break
            if not data:
                break
            shown += data
        os.close(ours)
        return process.wait(30), shown.decode()

    return run
