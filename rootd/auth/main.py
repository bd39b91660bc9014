"""auth: who is logged in. Verifies logins by PAM; its own account and group shadow, no capability, sandboxed.

Rule 1: the only process that sees passwords after the api, and the only one that makes sessions and tokens; it sees no
        commands.
Rule 2: it runs no module itself (pam.py) and waits for nobody: children, peers and the supervisor have their time.
Rule 3: it wakes up when somebody asks, and each minute while somebody is logged in or has a personal token; never
        otherwise.
Rule 4: without its link to a supervisor that lives on, it ends (lifeline).

Two profiles of the sandbox. Linux-PAM before 1.6 reads the shadow file in this process: nothing may be executed. From
1.6 on it runs unix_chkpwd for that: then this one program may be. A try at the start says which it is (needs_helper).
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import time

from policy import login
from rootd import confine, ipc, memory, sandbox
from rootd.auth import pam
from rootd.auth.doors import Connection, Door
from rootd.auth.link import Link
from rootd.auth.logins import Logins
from rootd.auth.personal import Personal
from rootd.auth.recheck import Work
from rootd.auth.rounds import Rounds
from rootd.auth.table import Table
from rootd.auth.timers import Timers
from rootd.auth.tokens import Tokens
from rootd.config import settings
from rootd.config.settings import Settings
from rootd.lifeline import UNLINKED, Lifeline

ATTEMPTS, ATTEMPTS_ROOM = 8, 32  # logins under way, and waiting for that
CHECKS = 2  # re-checks under way
API_CONNECTIONS = 64
AT_API = (login.Login, login.Logout, login.MakeToken, login.ListTokens, login.RevokeToken)  # what it may ask
PEER_CONNECTIONS, PEER_EACH = 64, 4
MISCONFIGURED = 78  # EX_CONFIG
READ = (
    "/etc", "/usr", "/lib", "/lib64", "/proc", "/run/nscd", "/var/lib/sss", "/run/systemd/userdb", "/dev/null",
)  # fmt: skip
SYSCALLS = ("connect", "setitimer")
SOCKETS = (socket.AF_UNIX, socket.AF_NETLINK)  # name services and syslog; the kernel's audit
HELPER = (
    "/usr/sbin/unix_chkpwd", "/sbin/unix_chkpwd", "/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1",
)  # fmt: skip


def main(link_fd: int) -> int:
    keeper = ipc.link_from(link_fd, takes_fds=True)
    inherited = ipc.inherit(keeper)
    conf = settings.from_json(read_memfd(inherited.held.pop("settings")))
    account = conf.accounts["auth"]
    os.umask(0o077)
    confine.become(account.uid, account.gid, account.groups)
    services = (conf.auth.pam_service, conf.auth.pam_account_service)
    missing = [service for service in services if not pam.is_configured(service)]
    if missing:
        say(f"there is no /etc/pam.d/{missing[0]}: without it PAM would ask /etc/pam.d/other, so nobody can log in")
        return MISCONFIGURED
    warn_of_faillock(services)
    table, tokens = Table(f"{conf.paths.run}/auth/sessions.json", boot_id()), kept_tokens(conf)
    trouble = table.load()
    if trouble:
        say(trouble)
    library = pam.Library()
    for service in services:
        library.warm(service)
    warm_names()
    work = Work(library, *services, table.key)
    folders = (f"{conf.paths.run}/auth", os.path.dirname(tokens.path))
    wall_in(folders, helper=needs_helper(work, account.name, folders))
    auth = Auth(keeper, conf, table, tokens, work)
    auth.take_over(inherited)
    memory.trim()
    return auth.run()


def read_memfd(fd: int) -> bytes:
    """All of it, by offset: the descriptor's own position is shared with every other part. Closes fd."""
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def kept_tokens(conf: Settings) -> Tokens:
    return Tokens(f"{conf.paths.state}/auth/tokens.json", boot_id())


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as text:
        return text.read().strip()


def warm_names() -> None:
    """Name service modules are loaded at their first use: names that nobody has are asked of all of them."""
    for ask in (lambda: pwd.getpwnam("durward-nobody"), lambda: grp.getgrnam("durward-nobody")):
        try:
            ask()
        except KeyError:
            continue
    os.getgrouplist("root", 0)


def warn_of_faillock(services: tuple[str, ...]) -> None:
    for service in services:
        try:
            with open(f"/etc/pam.d/{service}", errors="replace") as lines:
                if any("pam_faillock" in line.partition("#")[0] for line in lines):
                    say(f"/etc/pam.d/{service}: pam_faillock counts nothing here unless its dir= is auth's own")
        except OSError:
            continue


def wall_in(folders: tuple[str, ...], *, helper: bool) -> None:
    """The sandbox. helper: unix_chkpwd may be executed, and nothing else."""
    sandbox.enter(
        read=READ, write=folders, allow=SYSCALLS, sockets=SOCKETS, fork=True, execute=HELPER if helper else ()
    )


def needs_helper(work: Work, own: str, folders: tuple[str, ...]) -> bool:
    """Whether PAM says something else of our own account when it may not execute anything."""

    def within() -> pam.Verdict:
        wall_in(folders, helper=False)
        return work.phase(own)

    if pam.once(lambda: work.phase(own)) == pam.once(within):
        return False
    say("this PAM runs unix_chkpwd: it may be executed, and nothing else")
    return True


def clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall() -> float:
    return time.clock_gettime(time.CLOCK_REALTIME)


def say(text: str) -> None:
    ipc.note("auth", text)


class Auth:
    """The loop. Owns the keeper's link."""

    def __init__(self, keeper: ipc.Link, conf: Settings, table: Table, tokens: Tokens, work: Work) -> None:
        self.keeper = keeper
        self.loop = ipc.Loop()
        self.timers = Timers()
        self.link = Link(self.loop, self.heard, say, self.lost)
        children = pam.Children(self.loop, self.timers, clock, ATTEMPTS, ATTEMPTS_ROOM)
        checks = pam.Children(self.loop, self.timers, clock, CHECKS, 0)
        self.logins = Logins(
            table, conf.auth.session, conf.auth.idle, work, children, self.link, self.timers, clock, wall, say,
            lambda: self.rounds.begun(),
        )  # fmt: skip
        self.personal = Personal(
            tokens, table, conf.auth.token_longest, conf.auth.idle, self.link, self.timers, clock, wall, say,
            lambda: self.rounds.begun(),
        )  # fmt: skip
        self.logins.forget_tokens = self.personal.forget
        self.rounds = Rounds(self.logins, self.personal, checks, self.link, self.timers, clock)
        self.api = frozenset({conf.accounts["api"].uid, 0})
        self.ours = frozenset(account.uid for account in conf.accounts.values())  # no part of ours is a person
        self.doors: list[Door] = []
        self.status: int | None = None
        self.lifeline = Lifeline("auth", say)

    def heard(self, pull: login.Pull) -> None:
        self.personal.heard(pull)
        self.logins.heard(pull)

    def asked(self, connection: Connection, ask: login.Ask) -> None:
        if isinstance(ask, login.TokenAsk):
            self.personal.asked(connection, ask)
        else:
            self.logins.asked(connection, ask)

    def take_over(self, inherited: ipc.Inherited) -> None:
        self.personal.load()
        for name, fd in inherited.held.items():
            if name == "door/auth":
                self.door(name, fd, self.api, AT_API, API_CONNECTIONS, API_CONNECTIONS)
            elif name == "door/peer":
                self.door(name, fd, None, (login.PeerLogin, login.Logout), PEER_CONNECTIONS, PEER_EACH)
            else:
                say(f"the keeper handed over what auth does not take: {name!r}")
                os.close(fd)
        for role, (sock, pidfd) in inherited.links.items():
            self.connect(role, sock, pidfd)

    def door(
        self, name: str, fd: int, uids: frozenset[int] | None, kinds: tuple[type[login.Ask], ...], limit: int, each: int
    ) -> None:
        asked, but = self.asked, self.ours if uids is None else frozenset[int]()
        self.doors.append(Door(name, fd, uids, kinds, limit, each, self.loop, self.timers, clock, asked, say, but))

    def connect(self, role: str, sock: int, pidfd: int) -> None:
        if role != "supervisor":
            return ipc.close_all((sock, pidfd))
        self.link.lose()
        self.lifeline.linked(pidfd)
        self.link.connect(sock)
        return self.rounds.linked()

    def lost(self) -> None:
        """The link has been closed, by either side, or by the supervisor's death: then its successor is linked."""
        self.lifeline.lost(clock())

    def run(self) -> int:
        """Until the keeper is gone or wants an end (0), or there is no way back to the supervisor."""
        self.loop.watch(self.keeper.fileno(), self.from_keeper)
        self.rounds.start()
        for door in self.doors:
            door.open()
        while self.status is None:
            due = [at for at in (self.timers.next(), self.lifeline.wake_at()) if at is not None]
            self.loop.turn(min(due) - clock() if due else None)
            self.timers.run(clock())
            if self.status is None and self.lifeline.is_cut(clock()):
                self.status = UNLINKED
        return self.status

    def from_keeper(self, _events: int) -> None:
        if self.lifeline.is_over(self.keeper, self.connect):
            self.status = 0
