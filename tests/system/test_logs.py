"""What services write, in files that are rotated by size and compressed, through kill -9 of log again and again."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from house import House

from policy import messages

pytestmark = pytest.mark.root

PROGRAM = r"""
import os, time
n = 0
line = b"x" * 80
for n in range(@LINES@):
    while n == @LINES@ - @REST@ and not os.path.exists("@GO@"):
        time.sleep(0.01)
    os.write(1, b"%08d %s\n" % (n, line))
    if n % 7 == 0:
        os.write(2, b"%08d!\n" % n)
"""
REST = 4_000  # lines that are written when log is killed no more: a file of them is full, and compressed
LOGS = r"""
[service.writer]
command = ["@PREFIX@/bin/python3", "-I", "-c", '''PROGRAM''']
user = "@jobs@"
processes = WRITERS
restart = { policy = "never" }
log = { size = "256K", keep = 1000, compress = true, full = "wait" }

[service.merged]
command = ["@PREFIX@/bin/python3", "-I", "-c", 'import os; [os.write(1 + n % 2, b"%d\n" % n) for n in range(100)]']
user = "@jobs@"
restart = { policy = "never" }
log = { stderr = "stdout", mode = "0600" }

[service.stamped]
command = ["@PREFIX@/bin/python3", "-I", "-c", "print('hello')"]
user = "@jobs@"
restart = { policy = "never" }
log = { format = "json", readers = "@webops@" }

[service.half]
command = ["@PREFIX@/bin/python3", "-I", "-c", '''
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: None)
os.write(1, b"hal")
signal.pause()
os.write(1, b"f\n")
''']
user = "@jobs@"
signals = ["USR1"]
restart = { policy = "never" }
log = { format = "stamped" }

[service.silent]
command = ["@PREFIX@/bin/python3", "-I", "-c", "import os; os.readlink('/proc/self/fd/1') == '/dev/null' or 1 / 0"]
user = "@jobs@"
restart = { policy = "never" }
log = { target = "null" }
"""


def text(folder: Path, stream: str) -> bytes:
    """All of it, oldest first; of a file that is there twice, once. Nothing when it was renamed under our eyes."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob(f"{stream}.log*"), key=lambda path: len(path.name)):
        number = re.fullmatch(rf"{stream}\.log\.([0-9]+)(?:\.gz)?", path.name)
        if number or path.name == f"{stream}.log":
            found[int(number[1]) if number else 0] = path
    try:
        return b"".join(
            gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            for _, path in sorted(found.items(), reverse=True)
        )
    except FileNotFoundError:
        return b""


def reads(house: House, short: str, name: str) -> bool:
    """Whether that person can, outside of Durward."""
    who = house.people[short]
    words = ["setpriv", f"--reuid={who.uid}", f"--regid={who.gid}", "--init-groups", "cat", str(house.log / name)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("writers", "lines", "kills"), [(8, 30_000, 4), pytest.param(100, 20_000, 20, marks=pytest.mark.slow)]
)
def test_every_line_is_there_once_through_rotation_compression_and_kill_9(
    make_house: Callable[..., House], writers: int, lines: int, kills: int
) -> None:
    house = make_house(services={}, policy={})
    go = house.folder / "go"
    program = PROGRAM.replace("@LINES@", str(lines)).replace("@REST@", str(REST)).replace("@GO@", str(go))
    house.write("services.d/logs.toml", LOGS.replace("PROGRAM", program).replace("WRITERS", str(writers)))
    house.start(wait=False)
    house.until(house.answers, "the supervisor answers")
    begun = house.until(lambda: list((house.run_dir / "log").glob("pipe,half,1,*")), "a line has begun")[0]
    house.until(lambda: begun.read_bytes().endswith(b"hal"), "it is kept beside log")
    for _ in range(kills):
        old = house.kill9("log")
        house.wait_back("log", old)
    go.touch()
    folders = [house.log / f"writer.{number}" for number in range(writers)]
    out = b"".join(b"%08d %s\n" % (n, b"x" * 80) for n in range(lines))
    err = b"".join(b"%08d!\n" % n for n in range(0, lines, 7))
    house.until(lambda: all(text(folder, "stdout").endswith(out[-100:]) for folder in folders), "all is written", 120)
    for folder in folders:
        house.until(lambda folder=folder: text(folder, "stdout") == out, f"every line of {folder.name} once")
        house.until(lambda folder=folder: text(folder, "stderr") == err, "and of stderr")
    house.until(lambda: list(house.log.glob("writer.*/stdout.log.*.gz")), "some of it is compressed")
    house.ask(messages.Signal("half", "USR1"))
    house.until(lambda: begun.parent.exists() and not begun.exists(), "the line has ended, and its service")
    assert re.fullmatch(r"[0-9T:.-]{26}Z half\n", house.service_log("half")), "though log was killed within it"
    merged = house.log / "merged"
    assert (merged / "stdout.log").read_bytes() == b"".join(b"%d\n" % n for n in range(100)), "in their order"
    assert (merged / "stdout.log").stat().st_mode & 0o777 == 0o600
    assert not (merged / "stderr.log").exists()
    assert json.loads(house.service_log("stamped"))["line"] == "hello"
    assert [who for who in ("alice", "bob") if reads(house, who, "stamped/stdout.log")] == ["alice"]
    assert not reads(house, "alice", "merged/stdout.log")
    assert not (house.log / "silent").exists()
    assert house.ask(messages.ClearLog("writer")) == messages.Done("the logs of writer are cleared")
    assert all(not any(file.stat().st_size for file in folder.iterdir()) for folder in folders)
    assert house.ask(messages.ReopenLog("merged")) == messages.Done("the log files of merged are opened anew")
    assert [one["process"] for one in house.audit() if one.get("deed") == "clear"] == [
        folder.name for folder in folders
    ]
    house.until(lambda: house.status()["silent"].processes[0].state == "EXITED", "its output was /dev/null")
