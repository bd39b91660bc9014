"""The facts that lint judges by: what each service runs and reads, who may write that, and who is in which group.

Rule 1: nothing is judged here (policy/lint.py does), nothing is changed, and nothing is started.
Rule 2: it takes values as they stand in the files; what it does not understand is said to have not been looked at.
Rule 3: with a prefix, another machine's file system is looked at, and its own /etc says who is who.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from userapi.cli.offline.writers import Ground, Names

if TYPE_CHECKING:
    from policy.machine import Machine, Place
    from policy.rules import Policy

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MOST = 1024  # processes of a service
SCRIPTS = 4  # that have each other for an interpreter: as many as the kernel follows
SEARCHED = {  # variables that say where a program finds what it executes
    "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PERL5LIB", "RUBYLIB",
    "GEM_HOME", "GEM_PATH", "NODE_PATH", "PHPRC", "PHP_INI_SCAN_DIR", "CLASSPATH", "LUA_PATH", "BASH_ENV", "ENV",
}  # fmt: skip
COMMANDS = {  # of a service besides its own: section and key, and what it is called
    ("hooks", "pre_start"): "pre-start command", ("hooks", "post_start"): "post-start command",
    ("hooks", "post_stop"): "post-stop command", ("stop", "command"): "stop command",
    ("ready", "command"): "readiness probe", ("live", "command"): "liveness probe",
}  # fmt: skip
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "ash"}
MODULE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)(?::[A-Za-z0-9_.()]+)?")  # site.wsgi:app
MODULES = (".py", "/__init__.py", "/__main__.py")  # of Python, found from its directory
HIDDEN = "(hidden)"  # a word that the daemon does not tell
ROLES = ("privileged", "supervisor", "auth", "log", "probe", "api")


class Account(NamedTuple):
    uid: int
    gid: int


class Accounts(NamedTuple):
    """Of one machine. members: of each group by its own line alone."""

    users: dict[str, Account]
    groups: dict[str, int]
    members: dict[str, list[str]]

    def names(self) -> Names:
        users, groups = dict[int, frozenset[str]](), dict[int, frozenset[str]]()
        for name, account in self.users.items():
            users[account.uid] = users.get(account.uid, frozenset()) | {name}
        for name, gid in self.groups.items():
            groups[gid] = groups.get(gid, frozenset()) | {name}
        return Names(users, groups)

    def belonging(self) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
        """Of each user his groups, and of each group who is in it."""
        by_gid = {gid: name for name, gid in reversed(self.groups.items())}
        pairs = [(user, by_gid[one.gid]) for user, one in self.users.items() if one.gid in by_gid]
        pairs += [(user, group) for group, users in self.members.items() for user in users]
        of_user: dict[str, set[str]] = {user: set() for user in self.users}
        of_group: dict[str, set[str]] = {group: set() for group in self.groups}
        for user, group in pairs:
            of_group[group].add(user)
            of_user.setdefault(user, set()).add(group)
        frozen = ({name: frozenset(others) for name, others in one.items()} for one in (of_user, of_group))
        return next(frozen), next(frozen)


def of_machine(users: Iterable[str], groups: Iterable[str]) -> Accounts:
    """This machine's: all that it lists, and these, which a directory service may know without listing them."""
    import grp
    import pwd

    people, teams = {one.pw_name: one for one in pwd.getpwall()}, {one.gr_name: one for one in grp.getgrall()}
    for name in groups:
        try:
            teams.setdefault(name, grp.getgrnam(name))
        except KeyError:
            continue
    for name in (*users, *(user for group in groups if group in teams for user in teams[group].gr_mem)):
        try:
            people.setdefault(name, pwd.getpwnam(name))
        except KeyError:
            continue
    members = {name: list(one.gr_mem) for name, one in teams.items()}
    by_gid = {one.gr_gid: name for name, one in teams.items()}
    for name in users:
        for gid in os.getgrouplist(name, people[name].pw_gid) if name in people else ():
            if gid in by_gid and name not in members[by_gid[gid]]:
                members[by_gid[gid]].append(name)
    found = {name: Account(one.pw_uid, one.pw_gid) for name, one in people.items()}
    return Accounts(found, {name: one.gr_gid for name, one in teams.items()}, members)


def of_files(prefix: str) -> Accounts:
    """Those of another machine's /etc/passwd and /etc/group. Raises OSError."""
    users, groups, members = dict[str, Account](), dict[str, int](), dict[str, list[str]]()
    for fields in lines(f"{prefix}/etc/passwd", 4):
        users[fields[0]] = Account(int(fields[2]), int(fields[3]))
    for fields in lines(f"{prefix}/etc/group", 3):
        groups[fields[0]] = int(fields[2])
        members[fields[0]] = [name for name in (fields[3] if len(fields) > 3 else "").split(",") if name in users]
    return Accounts(users, groups, members)


def lines(path: str, least: int) -> Iterator[list[str]]:
    """Of a file of colons, the lines whose numbers are numbers."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.rstrip("\n").split(":")
            if len(fields) >= least and all(word.isascii() and word.isdigit() for word in fields[2:least]):
                yield fields


class Section(NamedTuple):
    """One table of the configuration. values: by key, as in the file."""

    file: str
    name: str
    values: dict[str, Any]


class Surveyor:
    """Looks at what the sections of a configuration name. config: the installed directory of it; "": there is none."""

    def __init__(self, sections: Iterable[Section], accounts: Accounts, prefix: str = "", config: str = "") -> None:
        self._sections = {one.name: one for one in sections}
        self._accounts, self._config = accounts, config
        self._ground = Ground(accounts.names(), prefix)
        self._unseen: dict[tuple[str, str], None] = {}
        self._untold: dict[tuple[str, str], None] = {}

    def machine(self) -> Machine:
        from policy.machine import Machine, Service

        services = {}
        of_user, of_group = self._accounts.belonging()
        restarted = dict[str, list[str]]()  # by service, those that restart with it
        for name, section in self._sections.items():
            for other in texts(section.values.get("restart_with")):
                restarted.setdefault(other, []).append(name.partition(".")[2])
        for name, section in self._sections.items():
            kind, _, service = name.partition(".")
            if kind == "service":
                values = section.values
                places = tuple(dict.fromkeys(self._places(service, section)))
                user, groups = text(values.get("user")), tuple(texts(values.get("groups")))
                brings = (*texts(values.get("requires")), *restarted.get(service, ()))
                services[service] = Service(groups, user, self._root(values, of_user), places, brings)
        accounts = table(self._values("accounts"))
        own = {text(accounts.get(role)) or default: role for role, default in zip(ROLES, defaults(), strict=True)}
        peer = self._values("auth").get("local") == "peer"
        return Machine(services, True, of_user, of_group, own, peer, tuple(self._unseen), tuple(self._untold))

    def _values(self, name: str) -> dict[str, Any]:
        return self._sections[name].values if name in self._sections else {}

    def _root(self, values: dict[str, Any], of_user: dict[str, frozenset[str]]) -> str:
        from rootd.config.compile import ROOTLIKE
        from rootd.config.extras import HARMLESS

        user = text(values.get("user"))
        account = self._accounts.users.get(user)
        if user == "root" or (account and account.uid == 0):
            return "runs as root"
        groups = {*of_user.get(user, ()), *texts(values.get("supplementary_groups")), text(values.get("group"))}
        if rootlike := sorted(groups & {*ROOTLIKE}):
            return f"is in the group {rootlike[0]}, which is as good as root"
        words = [word.upper().removeprefix("CAP_") for word in texts(values.get("capabilities"))]
        if grave := sorted({*words} - HARMLESS):
            return f"has CAP_{grave[0]}, which is as good as root"
        return ""

    def _places(self, service: str, section: Section) -> Iterator[Place]:
        for what, path, grave in self._things(service, section):
            yield from self._place(service, what, path, grave)

    def _place(self, service: str, what: str, path: str, grave: bool) -> Iterator[Place]:
        from policy.machine import Place

        found = self._ground.look(path)
        if found.unseen:
            where = "" if found.unseen.startswith(f"{path}: ") else f"{path}: "
            self._hide(service, f"{what} of {service}, {where}{found.unseen}")
        for hand in found.hands:
            yield Place(what, path, hand.at, grave, hand.users, hand.groups, hand.everybody)

    def _hide(self, service: str, why: str) -> None:
        self._unseen[service, why] = None

    def _things(self, service: str, section: Section) -> Iterator[tuple[str, str, bool]]:
        """All that a service runs, reads and serves: what it is, its path, and whether it decides what is done."""
        values, folder = section.values, text(section.values.get("directory")) or "/"
        known = self._variables(service, values)
        commands = {"program": values.get("command")}
        commands |= {what: table(values.get(key)).get(name) for (key, name), what in COMMANDS.items()}
        for what, words in commands.items():
            yield from self._command(service, what, self._expanded(service, texts(words), known), folder, known)
        if folder != "/":
            yield "its directory", folder, True
        if path := text(values.get("environment_file")).removeprefix("-"):
            yield "its environment file", path, True
        for name in sorted(SEARCHED & table(values.get("environment")).keys()):
            for path in known.get(name, "").replace(" ", ":").split(":"):
                if path.startswith("/"):
                    yield f"a place of its {name}", path, True
        for name, path in sorted(table(values.get("credentials")).items()):
            if text(path).startswith("/"):
                yield f"its secret {name}", path, True
        if path := text(values.get("pid_file")):
            yield "its pid file", path, False
        log = text(self._values("paths").get("log")) or "/var/log/durward"
        if table(values.get("log")).get("target", "file") == "file":
            most = values.get("max_processes") or values.get("processes") or 1
            many = range(most) if type(most) is int and 1 < most <= MOST else [None]
            for index in many:
                yield "its log", f"{log}/{service}{'' if index is None else f'.{index}'}", False
        for path in self._sockets(values):
            yield "its socket", path, False
        if self._config and section.file:
            yield "its configuration", f"{self._config}/{section.file}", True

    def _sockets(self, values: dict[str, Any]) -> Iterator[str]:
        for name in (*texts(values.get("sockets")), text(values.get("fastcgi"))):
            listen = self._values(f"socket.{name}").get("listen")
            for address in [listen] if isinstance(listen, str) else texts(listen):
                if address.startswith(("unix:", "unix-dgram:")):
                    yield address.partition(":")[2]

    def _variables(self, service: str, values: dict[str, Any]) -> dict[str, str]:
        """Those that a word of its commands may name, as far as its configuration says."""
        from rootd.config import environment

        user = text(values.get("user"))
        known = {"PATH": SEARCH, "USER": user, "LOGNAME": user}
        for name, value in table(values.get("environment")).items():
            try:
                known[name] = environment.expand(text(value), known)
            except environment.Unknown:
                continue
        return known

    def _expanded(self, service: str, words: list[str], known: dict[str, str]) -> list[str]:
        from rootd.config import environment

        found = []
        for word in words:
            try:
                found.append(environment.expand(word, known))
            except environment.Unknown:
                why = f"{word}, a word of a command of {service}: its variables are not known here"
                self._untold[service, why] = None
        if HIDDEN in words:
            text = f"words of a command of {service}, which the daemon does not tell: lint its directory"
            self._hide(service, text)
        return found

    def _command(
        self, service: str, what: str, words: list[str], folder: str, known: dict[str, str]
    ) -> Iterator[tuple[str, str, bool]]:
        if not words or not words[0].startswith("/"):
            return
        yield f"its {what}", words[0], True
        yield from self._interpreters(service, words[0], what, known)
        if os.path.basename(words[0]) in SHELLS and any(word.startswith("-") and "c" in word for word in words[1:2]):
            self._untold[service, f"what the {what} of {service} has a shell execute"] = None
        for word in words[1:]:
            path = word.partition("=")[2] if word.startswith("-") else word
            module = MODULE.fullmatch(word)
            tried = [path, *(f"{module[1].replace('.', '/')}{end}" for end in MODULES if module)]
            for whole in [os.path.join(folder, one) for one in tried if one]:
                found = self._ground.look(whole)
                if found.unseen:
                    self._hide(service, f"what {word} is, a word of a command of {service}: {found.unseen}")
                    break
                if stat.S_ISREG(found.mode):
                    yield f"a file that its {what} is given,", whole, True
                elif stat.S_ISDIR(found.mode) and found.real != "/" and path.startswith("/"):
                    yield f"a directory that its {what} is given,", path, False
                elif not found.mode and path.startswith("/"):
                    yield f"what its {what} may find at", path, False

    def _interpreters(
        self, service: str, program: str, what: str, known: dict[str, str]
    ) -> Iterator[tuple[str, str, bool]]:
        """What the first line of a script names, and of that in turn; and a virtual environment of Python's."""
        for _ in range(SCRIPTS):
            for path in self._ground.packages(program):
                yield f"the virtual environment of its {what},", path, True
            found = self._ground.look(program)
            if not stat.S_ISREG(found.mode):
                return
            try:
                line = self._ground.first_line(found.real)
            except OSError as error:
                self._hide(service, f"the first line of {program}, which {service} executes: {error.strerror}")
                return
            words = line[2:].decode("utf-8", "replace").split() if line.startswith(b"#!") else []
            if not words:
                return
            program = words[0]
            yield f"the interpreter of its {what}", program, True
            if os.path.basename(program) == "env":
                named = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
                program = ""
                for place in known["PATH"].split(":") if named else ():
                    program = os.path.join(place, named[0])
                    yield f"the interpreter of its {what}", program, True  # or what would be found before it
                    if self._ground.look(program).mode:
                        break


def defaults() -> list[str]:
    """The names of Durward's own accounts where nothing else is said."""
    from rootd.config import keys

    return [keys.SECTIONS["accounts"][role].default for role in ROLES]


def survey(policy: Policy, sections: Iterable[Section], prefix: str = "", config: str = "") -> Machine:
    """All facts about the machine that these rules and sections are about. Raises OSError for a prefix without /etc."""
    sections = [*sections]
    if prefix:
        accounts = of_files(prefix.rstrip("/"))
    else:
        users, groups = {text(one.values.get("user")) for one in sections} - {""}, set[str]()
        for rule in (*policy.grants, *policy.denies):
            users |= {*rule.users}
            groups |= {*rule.groups}
        for approval in (grant.approval for grant in policy.grants if grant.approval):
            users |= {*approval.users}
            groups |= {*approval.groups}
        accounts = of_machine(sorted(users), sorted(groups))
    return Surveyor(sections, accounts, prefix, config).machine()


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def texts(value: object) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
