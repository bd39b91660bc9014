"""What will not work on this machine as it is now: of a configuration without a mistake, for `durward-rootd --check`.

Rule 1: it only looks, and refuses nothing: a program may be installed later, a port be free by then.
Rule 2: what cannot be told (access control lists, what only root may see) is not guessed: nothing is said of it.
Rule 3: it runs in the throw-away child of --check, and for durward doctor.

Sources: path_resolution(7), execve(2), bind(2); a bind tells more than a list of who listens.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from policy.positions import Path
from rootd import confine, holder, landlock
from rootd.config import compile as compiler, extras
from rootd.config.compile import Bundle, Problem
from rootd.config.settings import User
from rootd.config.specs import PARTS
from rootd.config.table import Socket, Table
from rootd.privileged import cgroup, extras as given, listen

ONLINE = "/sys/devices/system/cpu/online"
ACL = "system.posix_acl_access"
RECEIVERS = {"journald": "/run/systemd/journal/socket", "syslog": "/dev/log"}  # rootd/log/forward.py sends to these
UNKNOWN = (errno.EACCES, errno.EPERM)  # for who looks: it may be otherwise for root, or for the service


def warnings(bundle: Bundle, addresses: Iterable[tuple[str, Path, Socket]]) -> Iterator[Problem]:
    """addresses: every one, with its file, its key there, and the name of its socket."""
    found, _ = compiler.read(bundle.files)
    for path, section in found.items():
        user = bundle.users.get(section.values.get("user") or "")
        if path[0] == "service" and len(path) == 2 and user is not None:
            for key, program in programs(section.values):
                if why := trouble(program, user):
                    who = section.values["user"]
                    yield Problem(section.file, (*path, *key), f"{who} cannot execute {program} now: {why}")
            for key, why in not_here(section.values):
                yield Problem(section.file, (*path, *key), f"it cannot be started now: {why}")
            target = (section.values.get("log") or {}).get("target")
            if target in RECEIVERS and not os.path.exists(RECEIVERS[target]):
                text = f"what it writes is lost while there is no {RECEIVERS[target]}"
                yield Problem(section.file, (*path, "log", "target"), text)
    run = found["paths",].values["run"] if ("paths",) in found else None
    if run and not is_running(run):
        for file, where, address in addresses:
            if address.family != "unix" and (why := taken(address)):
                yield Problem(file, where, why)


def lacking(table: Table) -> list[str]:
    """What services ask for that this machine has not: capabilities, controllers of cgroups, Landlock."""
    missing = given.missing(given.needed([table]), confine.sets()["CapBnd"], cgroup.controllers(cgroup.mount()))
    kept = [entry.service for entry in table.entries if entry.extra and (entry.extra.read or entry.extra.write)]
    if kept and landlock.version() < 1:
        who = ", ".join(dict.fromkeys(kept))
        return [*missing, f"this kernel has no Landlock, without which these start only if optional: {who}"]
    return [*missing]


def programs(values: dict[str, object]) -> Iterator[tuple[Path, str]]:
    """The first word of every command of a service, and its key."""
    for key in [("command",), *PARTS.values()]:
        inner: object = values
        for name in key:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, tuple) and inner:
            yield (key if key != ("command",) else (*key, 0)), str(inner[0])


def not_here(values: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Where a service works, and files and processors that it is limited to, which this machine does not have: the key,
    and what it is."""
    files = values.get("files") or {}
    paths = [(("files", key, at), path) for key in ("read", "write") for at, path in enumerate(files.get(key) or ())]
    for key, path in [(("directory",), values.get("directory") or "/"), *paths]:
        try:
            os.stat(path if key != ("directory",) else f"{path}/")
        except (FileNotFoundError, NotADirectoryError) as error:
            yield key, f"{path}: {error.strerror}"
        except OSError:
            pass  # only the service can tell
    try:
        with open(ONLINE) as file:
            missing = sorted({*(values.get("cpu_affinity") or ())} - {*(extras.cpus(file.read().strip()) or ())})
    except OSError:
        return
    if missing:
        yield ("cpu_affinity",), f"there is no processor {missing[0]} here"


def trouble(program: str, user: User) -> str:
    """Why this user cannot execute it; "" when he can, or when nobody can tell."""
    real = os.path.realpath(program)
    folders = [real[:at] or "/" for at, letter in enumerate(real) if letter == "/"]
    try:
        for folder in folders:
            if not may_enter(folder, user):
                return f"{folder} is closed to that user"
        mode = os.stat(real).st_mode
        if not stat.S_ISREG(mode):
            return "it is not a file"
        allowed = bool(mode & 0o111) if user.uid == 0 else may_enter(real, user)
        return "" if allowed else "it is not executable by that user"
    except OSError as error:
        return "" if error.errno in UNKNOWN else f"{error.strerror}"


def may_enter(path: str, user: User) -> bool:
    """Whether the bits of its mode, or a list that is not looked into, let this user execute or search it."""
    found = os.stat(path)
    if found.st_uid == user.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    groups: Collection[int] = {user.gid, *user.groups}
    bit = stat.S_IXGRP if found.st_gid in groups else stat.S_IXOTH
    return user.uid == 0 or bool(found.st_mode & bit) or has_list(path)


def has_list(path: str) -> bool:
    try:
        return bool(os.getxattr(path, ACL))
    except OSError:
        return False


def is_running(run: str) -> bool:
    """Whether a daemon of this directory holds its sockets itself."""
    try:
        fd = os.open(f"{run}/lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return error.errno in UNKNOWN
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def taken(address: Socket) -> str:
    """Why it could not be bound now; "" when it could. Nobody can connect to it meanwhile."""
    family = socket.AF_INET6 if address.family == "inet6" else socket.AF_INET
    kind = socket.SOCK_STREAM if address.kind == "stream" else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as sock:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address.v6only))
            if address.freebind:
                sock.setsockopt(socket.SOL_IP, listen.IP_FREEBIND, 1)
            sock.bind((address.host, address.port))
    except OSError as error:
        if error.errno not in UNKNOWN:
            return f"cannot be bound now: {holder.named(listen.failure(address, error)).partition(': ')[2]}"
    return ""
