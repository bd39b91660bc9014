"""Real accounts for the tests: people with real passwords, the users of services, the accounts of our processes.

Rule 1: every name begins with PREFIX, and nothing that does not is ever touched.
Rule 2: all of it is removed at the end, at exit, and at the next start when a run was killed.
Rule 3: where several processes share the tests (pytest-xdist), each has accounts of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import grp
import os
import pwd
import secrets
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rootd.privileged import cgroup

NUMBER = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
PREFIX = f"dwt{NUMBER}-"
ROLES = ("priv", "sup", "auth", "log", "probe", "api")
PAM_SERVICE = f"durward-{PREFIX}test"
PAM_FILES = {PAM_SERVICE: "durward", f"{PAM_SERVICE}-account": "durward-account"}
FOLDERS = "/run"
FOLDER_PREFIX = f"durward-{PREFIX}"
LOCKS = "/run/durward-{}test.lock"  # by PREFIX
ROOT = Path(__file__).resolve().parents[2]


class Person(NamedTuple):
    name: str
    uid: int
    gid: int
    password: str

    @property
    def groups(self) -> list[int]:
        """As they are now, from the group database."""
        return os.getgrouplist(self.name, self.gid)


class People:
    """All accounts of one run of the tests. Only one run at a time has them: the others wait for the lock."""

    def __init__(self) -> None:
        self._lock = os.open(LOCKS.format(PREFIX), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        sweep()
        sweep_others()
        self.known: dict[str, Person] = {}
        for role in ROLES:
            self.system(role, groups=("shadow",) if role == "auth" else ())
        folder = ROOT / "packaging" / "pam.d"
        for name, source in PAM_FILES.items():
            shutil.copyfile(folder / source, f"/etc/pam.d/{name}")
            os.chmod(f"/etc/pam.d/{name}", 0o644)

    def __getitem__(self, short: str) -> Person:
        return self.known[short]

    def name(self, short: str) -> str:
        return PREFIX + short

    def group(self, short: str) -> str:
        with contextlib.suppress(KeyError):
            return grp.getgrnam(PREFIX + short).gr_name
        run("groupadd", PREFIX + short)
        return PREFIX + short

    def system(self, short: str, groups: tuple[str, ...] = ()) -> Person:
        """An account that nobody logs in to: of a service, or of a process of ours."""
        words = ["--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
        return self._add(short, "", groups, words)

    def person(self, short: str, groups: tuple[str, ...] = (), password: str = "") -> Person:
        """Somebody with a password (a random one by default) and a shell; `groups` are full names."""
        words = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh"]
        person = self._add(short, password or secrets.token_hex(8), groups, words)
        run("chpasswd", text=f"{person.name}:{person.password}\n")
        return person

    def _add(self, short: str, password: str, groups: tuple[str, ...], words: list[str]) -> Person:
        if short in self.known:
            return self.known[short]
        for group in groups:
            if group.startswith(PREFIX):
                self.group(group.removeprefix(PREFIX))
        more = ["--groups", ",".join(groups)] if groups else []
        run("useradd", "--user-group", "--comment", "durward test", *words, *more, PREFIX + short)
        entry = pwd.getpwnam(PREFIX + short)
        self.known[short] = Person(entry.pw_name, entry.pw_uid, entry.pw_gid, password)
        return self.known[short]

    # what an administrator does to accounts; each is undone by `restore`

    def lock(self, short: str) -> None:
        run("usermod", "--lock", PREFIX + short)

    def unlock(self, short: str) -> None:
        run("usermod", "--unlock", PREFIX + short)

    def expire(self, short: str) -> None:
        run("chage", "--expiredate", "0", PREFIX + short)

    def must_change(self, short: str) -> None:
        run("chage", "--lastday", "0", PREFIX + short)

    def empty_password(self, short: str) -> None:
        run("passwd", "--delete", PREFIX + short)

    def leave_group(self, short: str, group: str) -> None:
        run("gpasswd", "--delete", PREFIX + short, group)

    def join_group(self, short: str, group: str) -> None:
        run("gpasswd", "--add", PREFIX + short, group)

    def set_password(self, short: str, password: str) -> Person:
        run("chpasswd", text=f"{PREFIX + short}:{password}\n")
        self.known[short] = self.known[short]._replace(password=password)
        return self.known[short]

    def restore(self, short: str) -> None:
        """The account as it was made: unlocked, not expired, with its password."""
        run("chage", "--expiredate", "-1", PREFIX + short)
        run("chpasswd", text=f"{PREFIX + short}:{self.known[short].password}\n")

    def remove(self, short: str) -> None:
        run("userdel", PREFIX + short)
        self.known.pop(short, None)

    def uids(self) -> set[int]:
        return {person.uid for person in self.known.values()}

    def close(self) -> None:
        """Remove everything; twice is harmless."""
        if self._lock >= 0:
            sweep()
            os.close(self._lock)
            self._lock = -1


def run(*argv: str, text: str = "") -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} failed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def processes() -> Iterator[Path]:
    """The folder in /proc of every process but this machine's first: it is never ours, and may hide from root."""
    return (folder for folder in Path("/proc").glob("[0-9]*") if folder.name != "1")


def processes_of(uids: set[int]) -> dict[int, str]:
    """pid -> "name (user)" of every live process whose uid is among these."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                if folder.stat().st_uid not in uids:
                    # a process that is not dumpable belongs to root in /proc: its status tells
                    status = (folder / "status").read_text()
                    real = int(status.partition("\nUid:\t")[2].split("\t", 1)[0])
                    if real not in uids:
                        continue
                    uid = real
                else:
                    uid = folder.stat().st_uid
                if "\nState:\tZ" not in (folder / "status").read_text():
                    found[int(folder.name)] = f"{(folder / 'comm').read_text().strip()} (uid {uid})"
    return found


def keepers(prefix: str) -> list[int]:
    """The daemons of houses whose tests were killed: root's, with a configuration in a folder of the tests."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if b"--config" in words and any(f"{FOLDERS}/durward-{prefix}".encode() in word for word in words):
                    found.append(int(folder.name))
    return found


def remove_cgroups(folder: str) -> None:
    """The empty cgroups that houses in this folder (a pattern) have left: the last process in one cannot remove it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            for above, names, _ in os.walk(left.split()[4]):  # which others may change meanwhile
                for top in fnmatch.filter(names, cgroup.name_of(folder) + "*"):
                    for path, _, _ in os.walk(f"{above}/{top}", topdown=False):
                        with contextlib.suppress(OSError):
                            os.rmdir(path)


def end(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            select.select([fd], [], [], 5.0)
        finally:
            os.close(fd)


def sweep(prefix: str = PREFIX) -> None:
    """Take back what an earlier run has left: processes and accounts with our prefix, folders, PAM services."""
    for pid in keepers(prefix):
        end(pid)
    ours = [entry for entry in pwd.getpwall() if entry.pw_name.startswith(prefix)]
    deadline = time.monotonic() + 10.0
    while (left := processes_of({entry.pw_uid for entry in ours} - {0})) and time.monotonic() < deadline:
        for pid in left:
            end(pid)
    for entry in ours:
        run("userdel", entry.pw_name)
    for group in grp.getgrall():
        if group.gr_name.startswith(prefix):
            run("groupdel", group.gr_name)
    for file in Path("/etc/pam.d").glob(f"durward-{prefix}*"):
        file.unlink(missing_ok=True)
    remove_cgroups(f"{FOLDERS}/durward-{prefix}")
    for folder in Path(FOLDERS).glob(f"durward-{prefix}*"):
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def sweep_others() -> None:
    """What a run with another number of processes has left when it was killed: theirs whose lock nobody has."""
    for path in Path("/run").glob(LOCKS.rpartition("/")[2].format("dwt*-")):
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sweep(path.name.removeprefix("durward-").removesuffix("test.lock"))
        os.close(lock)
