"""A machine whose first process is the real systemd: systemd-nspawn over a small Debian, made once by mmdebstrap.

Rule 1: the small Debian stays as it was made, in DURWARD_SYSTEMD_ROOT or FOLDER; a machine has a layer above it.
Rule 2: it has no network but its own loopback, and is not known to anything of the real machine's.
Rule 3: what runs in it is the installed Durward under test, with its accounts and its unit by packaging/install.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from house import HERE, PREFIX, TICK
from loading import Load
from space import Space

FOLDER = Path("/var/tmp/durward-systemd")
CHECKOUT = HERE.parents[1]
PATIENCE = 60.0
INCLUDE = "systemd,systemd-sysv,systemd-container,dbus,procps,iproute2"
UNIT = "durward.service"
LOOK = """\
import os, sys, json
found = {}
for name in os.listdir("/proc"):
    if name.isdigit():
        try:
            with open(f"/proc/{name}/stat") as stat, open(f"/proc/{name}/status") as status:
                words = stat.read().rpartition(")")[2].split()
                uid = next(line.split()[1] for line in status if line.startswith("Uid:"))
            with open(f"/proc/{name}/comm") as comm:
                found[name] = [comm.read().strip(), words[0], int(words[1]), int(uid)]
        except OSError:
            pass
print(json.dumps(found))
"""

T = TypeVar("T")


def rootfs() -> Path:
    """The small Debian, of this machine's own release; a minute when there is none yet. Raises CalledProcessError."""
    with open("/etc/os-release") as file:
        release = dict(line.strip().split("=", 1) for line in file if "=" in line)["VERSION_CODENAME"].strip('"')
    folder = Path(os.environ.get("DURWARD_SYSTEMD_ROOT") or FOLDER / release)
    if not (folder / "etc" / "debian_version").exists():
        packages = subprocess.run(
            ["/bin/sh", "-c", '. "$0"; printf %s "$PACKAGES"', CHECKOUT / "packaging" / "common.sh"],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = folder.with_name(f"{folder.name}.{os.getpid()}")
        words = [f"--include={','.join([INCLUDE, *packages])}", "--variant=apt", release]
        subprocess.run(["mmdebstrap", *words, made], check=True, timeout=900, stdin=subprocess.DEVNULL)
        made.rename(folder)
    return folder


class Machine:
    """Installed, not yet booted. `merged` is its root as root sees it here while nothing runs in it."""

    def __init__(self, work: Path) -> None:
        self.work, self.root = work, rootfs()
        self.upper = work / "upper"
        self.process: subprocess.Popen[bytes] | None = None
        self.first = 0  # its pid 1, by our number
        self.loads: list[Load] = []
        extra = (PREFIX / ".durward" / "dependencies").read_text().split()
        other = shutil.ignore_patterns("nginx", "redis", "php", "node-exporter")  # servers that are here for the tests
        shutil.copytree(PREFIX, self.upper / PREFIX.relative_to("/"), symlinks=True, ignore=other)
        shutil.copytree(HERE / "services", self.upper / "srv" / "programs")
        made = self.upper / PREFIX.relative_to("/") / ".durward" / "made"
        made.unlink(missing_ok=True)  # outside of the prefix nothing is made yet
        options = f"--extra {extra[1]}" if len(extra) == 3 else ""
        self.inside(
            "/bin/sh", "-euc", f"""
            for user in www jobs; do useradd --system --user-group --no-create-home $user; done
            /src/packaging/install --config /etc/durward --links --systemd {options} {PREFIX}
            systemctl enable {UNIT}""",
        )  # fmt: skip

    def _nspawn(self, *words: str) -> list[str]:
        return [
            "unshare", "--mount", "--propagation", "private", str(HERE / "boot.sh"), str(self.root),
            str(self.work / "merged"), str(self.work), f"--machine=durward-test-{os.getpid()}",
            f"--bind-ro={CHECKOUT}:/src", *words,
        ]  # fmt: skip

    def inside(self, *argv: str) -> str:
        """Run it in there while nothing else does."""
        done = subprocess.run(
            self._nspawn(*argv), capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def write(self, path: str, text: str, group: str) -> None:
        """A file of root's that this group reads; only while nothing runs in it."""
        file = self.upper / path.lstrip("/")
        file.write_text(text.replace("@PREFIX@", str(PREFIX)).replace("@SERVICES@", "/srv/programs"))
        words = [line.split(":") for line in (self.upper / "etc" / "group").read_text().splitlines()]
        os.chown(file, 0, next(int(number) for name, _, number, _ in words if name == group))
        file.chmod(0o640)

    # life

    def boot(self) -> None:
        with (self.work / "console").open("ab") as console:
            self.process = subprocess.Popen(
                self._nspawn("--private-network", "--boot"), stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        self.first = self.until(self._find, "it has a first process")
        self.until(lambda: self.run("systemctl", "is-system-running", check=False).strip() == "running", "it is up")

    def _find(self) -> int:
        assert self.process is not None
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, IndexError):
                comm, _, rest = path.read_text().partition("(")[2].rpartition(")")
                if comm == "systemd" and int(rest.split()[1]) == self.process.pid:
                    return int(path.parent.name)
        return 0

    def power_off(self) -> None:
        self.run("systemctl", "poweroff", check=False)
        assert self.process is not None
        self.process.wait(timeout=PATIENCE)
        self.process = None

    def remove(self) -> None:
        for load in list(self.loads):
            load.process.kill()
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            if self.first:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.first, signal.SIGKILL)
            self.process.wait()
        for tree in [
            path for at in (".", "unified") for path in Path("/sys/fs/cgroup", at).glob(f"{self.work.name}-*")
        ]:
            for folder, _, _ in os.walk(tree, topdown=False):
                with contextlib.suppress(OSError):  # what was killed last may not be gone yet
                    os.rmdir(folder)
        shutil.rmtree(self.work, ignore_errors=True)

    # looking and doing

    def run(self, *argv: str, check: bool = True) -> str:
        """In the booted machine, as root: standard output."""
        words = ["nsenter", "-t", str(self.first), "-m", "-p", "-n", "-u", "-i", "-r", "-w", "--", *argv]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, env={"PATH": PATH})
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        answer = json.loads(self.run(f"{PREFIX}/bin/durward", "--root", "status", "--json"))
        return {service["name"]: service for service in answer["services"]}

    def pids(self) -> dict[str, list[int]]:
        return {name: [p["pid"] for p in service["processes"] if p["pid"]] for name, service in self.status().items()}

    def processes(self) -> dict[int, tuple[str, int, str]]:
        """By its pid in there: name, parent and user."""
        found = json.loads(self.run("/usr/bin/python3", "-I", "-c", LOOK))
        users = {int(line.split(":")[2]): line.split(":")[0] for line in self.run("getent", "passwd").splitlines()}
        return {
            int(p): (n, parent, users.get(uid, "?")) for p, (n, state, parent, uid) in found.items() if state != "Z"
        }

    def of(self, *users: str) -> set[int]:
        return {pid for pid, (_, _, user) in self.processes().items() if user in users}

    def part(self, name: str) -> int:
        """Our own part of that name, 0 when it is not there."""
        return next((pid for pid, (comm, _, _) in self.processes().items() if comm == f"durward-{name}"[:15]), 0)

    def show(self, key: str) -> str:
        return self.run("systemctl", "show", "--value", "-p", key, UNIT).strip()

    def keeper(self) -> int:
        return int(self.show("MainPID"))

    def hand_on(self, controller: str) -> bool:
        """Have the unit's cgroup hand this one on, its processes moved out of the way. False: it is not to be had."""
        top = Path("/sys/fs/cgroup" if Path("/sys/fs/cgroup/cgroup.procs").exists() else "/sys/fs/cgroup/unified")
        assert self.process is not None
        payload = top / f"{self.work.name}-{self.process.pid}" / "payload"
        unit = payload / "system.slice" / UNIT
        try:
            for group in (top, payload.parent, payload, unit.parent):
                (group / "cgroup.subtree_control").write_text(f"+{controller}")
            (own,) = unit.glob("durward*/self")
            for pid in (unit / "cgroup.procs").read_text().split():
                (own / "cgroup.procs").write_text(pid)
            (unit / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            return False
        return True

    def journal(self) -> str:
        return self.run("journalctl", "--no-pager", "-u", UNIT, check=False)

    def until(self, condition: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            assert self.process is not None
            said = (self.work / "console").read_text(errors="replace")
            assert self.process.poll() is None, f"it ended before {what}\n{said}"
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}\n{self.first and self.journal()}"
            time.sleep(TICK)
        return value

    def load(self, interval: float = 0.005) -> Load:
        """One connection each `interval` seconds to port 80."""
        return Load(Inner(self.first), self.loads, interval, 80)


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Inner(Space):
    """The network that a process is in."""

    def __init__(self, pid: int) -> None:
        self.fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
