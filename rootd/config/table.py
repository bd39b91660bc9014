"""The frozen table: all that may run and every socket that is held. It is what privileged knows of the configuration.

Rule: names of files and people have become numbers and paths here; nothing in it is looked up again.
"""

from __future__ import annotations

from typing import NamedTuple

from rootd.config import shape

INSTANCES = 1024  # slot = index of the entry * INSTANCES + instance
LEAVE = -2  # a hard limit that stays what privileged has
UNIX_PATH_LIMIT = 100  # bytes, of 108 in sockaddr_un: room to bind it under another name first


class Entry(NamedTuple):
    """One service. Numbers are what the system calls take; env, limits and sockets are pairs and triples."""

    service: str
    count: int  # type: ignore[assignment]  # processes; it hides tuple.count, which nobody wants here
    path: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int
    limits: tuple[tuple[int, int, int], ...]  # RLIMIT_…, soft, hard or LEAVE; -1 is unlimited
    sockets: tuple[tuple[str, str], ...]  # name, key of a Socket; in the order of the descriptors from 3
    signals: tuple[int, ...]  # that may be sent; its stop signal and SIGKILL among them
    notify: bool
    nnp: bool
    root: bool
    log: tuple[int, int]  # bytes of a file, rotated files kept


class Socket(NamedTuple):
    """One address. `users` are the uids of the services on it."""

    key: str
    name: str
    family: str  # inet, inet6, unix
    kind: str  # stream, dgram
    host: str
    port: int
    path: str
    backlog: int
    mode: int
    gid: int
    v6only: bool
    freebind: bool
    users: tuple[int, ...]


class Table(NamedTuple):
    entries: tuple[Entry, ...]
    sockets: tuple[Socket, ...]
    root: bool  # whether an entry runs as root


class Address(NamedTuple):
    """What one `listen` says. `key` spells it in one way only, so that equal addresses have equal keys."""

    key: str
    family: str
    kind: str
    host: str
    port: int
    path: str


def load_table(line: bytes) -> Table:
    """The table that to_json wrote. Raises ValueError when anything in it has another type."""
    table: Table = shape.from_json(Table, line)
    return table


def parse_address(text: str) -> Address:
    """IPV4:PORT, [IPV6]:PORT, udp:HOST:PORT, unix:/path or unix-dgram:/path. Raises ValueError with a sentence."""
    scheme, _, rest = text.partition(":")
    if scheme in ("unix", "unix-dgram"):
        if not rest.startswith("/") or not rest.isprintable() or {".", "..", ""} & set(rest[1:].split("/")):
            raise ValueError(f"{text!r} needs a plain absolute path, such as unix:/run/durward/sockets/site.sock")
        if len(rest.encode()) > UNIX_PATH_LIMIT:
            raise ValueError(f"the path of {text!r} is longer than {UNIX_PATH_LIMIT} bytes")
        return Address(f"unix:{rest}", "unix", "stream" if scheme == "unix" else "dgram", "", 0, rest)
    import ipaddress  # not in the process that only loads tables

    kind, host_port = ("dgram", rest) if scheme == "udp" else ("stream", text)
    host, _, digits = host_port.rpartition(":")
    if not (digits.isascii() and digits.isdigit() and digits[0] != "0" and int(digits[:6]) <= 65535):
        raise ValueError(f"{text!r} does not end in a port from 1 to 65535, as in 0.0.0.0:80 or [::]:443")
    try:
        ip = ipaddress.ip_address(host[1:-1]) if host[:1] + host[-1:] == "[]" else ipaddress.IPv4Address(host)
    except ValueError:
        ip = None
    if ip is None or "%" in host or (ip.version == 4 and host[0] == "["):
        raise ValueError(f"{text!r} does not begin with an address in numbers, such as 127.0.0.1, 0.0.0.0 or [::]")
    spelled = f"[{ip}]" if ip.version == 6 else str(ip)
    family = "inet6" if ip.version == 6 else "inet"
    return Address(f"{'udp' if kind == 'dgram' else 'tcp'}:{spelled}:{digits}", family, kind, str(ip), int(digits), "")


def is_local(address: Address) -> bool:
    """Whether only this machine can reach it."""
    import ipaddress

    return address.family == "unix" or ipaddress.ip_address(address.host).is_loopback
