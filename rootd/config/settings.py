"""What durward.toml says of Durward itself, names resolved: the memfd "settings" that every part is handed."""

from __future__ import annotations

from typing import Any, NamedTuple

from rootd.config import shape


class User(NamedTuple):
    """What the machine says about a user's name (rootd/accounts.py)."""

    uid: int
    gid: int
    groups: tuple[int, ...]  # all that it is in, gid among them
    home: str
    shell: str


class Account(NamedTuple):
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary: shadow for auth, none for the others


class Paths(NamedTuple):
    run: str
    log: str
    state: str


class Auth(NamedTuple):
    pam_service: str
    pam_account_service: str
    local: str  # password, peer
    session: float  # seconds
    idle: float  # seconds
    token_longest: float = 90 * 86400.0  # seconds; 0: there are no personal tokens


class Tls(NamedTuple):
    certificate: str
    key: str


class Api(NamedTuple):
    listen: tuple[str, ...]  # keys of table.Socket
    workers: int
    threads: int
    hosts: tuple[str, ...]
    tls: Tls | None
    behind_proxy: bool
    page: bool = True


class Audit(NamedTuple):
    on_failure: str  # refuse, continue
    size: int = 100 << 20  # bytes
    anchors: str = "auto"  # auto, journald, syslog, none
    forward: str = "none"  # none, journald, syslog


class Settings(NamedTuple):
    config: str  # the directory
    paths: Paths
    accounts: dict[str, Account]  # by role: privileged, supervisor, auth, log, probe, api
    auth: Auth
    api: Api | None
    audit: Audit


def pam_services(auth: dict[str, Any]) -> dict[str, str]:
    """The files of /etc/pam.d that [auth] means."""
    login = auth["pam_service"] or "durward"
    return {"pam_service": login, "pam_account_service": auth["pam_account_service"] or f"{login}-account"}


def to_json(settings: Settings) -> bytes:
    return shape.to_json(settings)


def from_json(line: bytes) -> Settings:
    """Raises ValueError for what to_json did not write."""
    return shape.from_json(Settings, line)
