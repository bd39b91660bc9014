"""Load on a port of a namespace, from a process of its own (load.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from space import Space

PROGRAM = Path(__file__).with_name("load.py")


class Load:
    """A running load.py. Also a context manager: `with house.load() as load: …`, then `load.result`."""

    def __init__(self, space: Space, running: list[Load], interval: float, port: int) -> None:
        self.running = running
        self.result: dict[str, object] = {}
        words = [sys.executable, "-I", "-B", str(PROGRAM), "127.0.0.1", str(port), str(interval)]
        argv, fds = space.command(*words)
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=fds, env={"PATH": "/usr/bin:/bin"}
        )
        running.append(self)

    def begun(self) -> None:
        """Return with the first answer: what is done now is done under load."""
        assert self.process.stdout is not None
        assert os.read(self.process.stdout.fileno(), 1) == b"\n", "it has ended"

    def stop(self) -> dict[str, object]:
        """tried, answered, refused, failed (by reason), slowest (seconds), by (answers of each pid)."""
        if not self.result:
            output, _ = self.process.communicate(timeout=60)
            self.result = json.loads(output)
            self.running.remove(self)
        return self.result

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
