"""From root's files to the frozen table. Pure, so that privileged and supervisor make the same of the same bytes.

Rule 1: no file, no name service, no clock: what has to be known of the machine is in the Bundle.
Rule 2: every problem is told at once, and where there is one there is no table and there are no settings.
"""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from rootd.config import environment, extras, keys, kinds, logs, schedules, shape
from rootd.config.keys import meant

# isort: off
from rootd.config.inherit import Path as Path, Problem as Problem
from rootd.config.sections import Section as Section, placed, read as read, read_section

# isort: on
from rootd.config.settings import Account, Api, Audit, Auth, Paths, Settings, Tls, User, pam_services
from rootd.config.specs import PARTS, ServiceSpec, parts_of, spec_of
from rootd.config.table import LEAVE, Entry, Socket, Table
from rootd.config.trusted import MAIN, File

API = "durward-api"  # our own service
ROOTLIKE = ("root", "shadow", "disk", "kmem", "docker", "lxd", "sudo", "wheel")  # groups that amount to root
PRIVATE = ("", "/auth", "/credentials", "/notify", "/probe", "/supervisor")  # directories of ours beneath run
SERVE = ("-I", "-m", "userapi.serve")  # gunicorn by its own command would put its directory first on sys.path
NEVER = {"policy": "always", "limit": "9999 in 1s"}  # is it given up: it is everybody's way in but root's
OWN = {"sockets": [API], "ready": {"notify": True}, "restart": NEVER, "stop": {"timeout": "15s"}}
OPEN = "can be reached by others, and passwords would pass in the clear: set tls, or say behind_proxy = true"

NOBODY = User(0, 0, (), "/", "")
SHARED = "another process on the same sockets might answer: let it say READY=1 (notify), or probe it by a command"


class Bundle(NamedTuple):
    """All that is looked at: root's files and the facts about the names in them."""

    config: str  # the directory
    python: str  # the interpreter that runs our own API
    files: tuple[File, ...]
    environment_files: dict[str, File]
    users: dict[str, User | None]
    groups: dict[str, int | None]
    pam: dict[str, bool]  # whether /etc/pam.d has it
    credentials: dict[str, File]  # their marks, never what they say (rootd/config/secrets)
    volatile: bool  # whether the run directory is in memory alone; of no interest where there are no credentials
    zones: dict[str, str | None] = {}  # noqa: RUF012  # files of time zones in base64; "" is the machine's own


class Compiled(NamedTuple):
    settings: Settings | None
    table: bytes  # one line
    digest: bytes  # SHA-256 of the table
    specs: tuple[ServiceSpec, ...]  # in the order of the entries, unless the table alone was wanted
    policy: tuple[File, ...]
    problems: tuple[Problem, ...]  # when there is one, all but policy is empty


def names_needed(files: tuple[File, ...]) -> tuple[set[str], set[str], set[str], set[str]]:
    """The users, groups, environment files and PAM services that a Bundle of these files must know about."""
    found, _ = read(files)
    users, groups, paths = set[Any](), set[Any](ROOTLIKE), set[Any]()
    for path, section in found.items():
        values = section.values
        users |= set(values.values()) if path == ("accounts",) else {values.get("user")}
        groups |= {values.get("group"), *(values.get("supplementary_groups") or ())}
        groups |= {values["log"]["readers"]} if isinstance(values.get("log"), dict) else set()
        paths.add((values.get("environment_file") or "").removeprefix("-") or None)
    pam = set(pam_services(found["auth",].values).values()) if ("auth",) in found else set()
    return users - {None}, groups - {None}, paths - {None}, pam


def credentials_needed(files: tuple[File, ...]) -> tuple[set[str], str]:
    """The files of secrets that a Bundle of these files must know about, and the run directory ("": none)."""
    found, _ = read(files)
    each = [section.values["credentials"] or () for path, section in found.items() if path[0] == "service"]
    run = found["paths",].values["run"] if ("paths",) in found else None
    return {path for pairs in each for _, path in pairs}, run or ""


def zones_needed(files: tuple[File, ...]) -> set[str]:
    """The time zones that a Bundle of these files must know about; "": the machine's own."""
    services = [section.values for path, section in read(files)[0].items() if path[0] == "service"]
    return {values["timezone"] or "" for values in services if values["schedule"]}


def compile_bundle(bundle: Bundle, *, table_alone: bool = False) -> Compiled:
    return _Compiler(bundle).run(table_alone)


class _Compiler:
    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        found, problems = read(bundle.files)
        self.main = {path[0]: section for path, section in found.items() if len(path) == 1}
        self.sockets = {path[1]: section for path, section in found.items() if path[0] == "socket"}
        self.services = {path[1]: section for path, section in found.items() if path[0] == "service"}
        self.problems = list(problems)
        self.accounts: dict[str, Account] = {}
        self.run_as: dict[str, tuple[User, int, tuple[int, ...], tuple[tuple[str, str], ...]]] = {}

    def run(self, table_alone: bool) -> Compiled:
        policy = tuple(file for file in self.bundle.files if file.path.startswith("policy.d/"))
        settings = self.settings() if self.main else None
        for name, service in self.services.items():
            self.identify(name, service)
        sockets = self.bind()
        self.order()
        if self.problems or settings is None:
            return Compiled(None, b"", b"", (), policy, tuple(self.problems))
        entries = [self.entry(name, service, sockets) for name, service in self.services.items()]
        specs = []
        for index, (entry, service) in enumerate(zip(tuple(entries), self.services.values(), strict=True)):
            parts = parts_of(entry, service.values)
            if not table_alone:
                spec = spec_of(entry, parts, service.raw, service.values, index, len(entries))
                ends = entry.service in self.main[keys.TOP].values["exit_on"]
                when = schedules.of(service.values, self.bundle.zones)
                specs.append(spec._replace(exit_on=ends, schedule=when))
            entries += [part for _, part in parts]
        table = shape.to_json(Table(tuple(entries), sockets, any(entry.root for entry in entries)))
        return Compiled(settings, table, hashlib.sha256(table).digest(), tuple(specs), policy, ())

    def say(self, section: Section, key: str, text: str) -> None:
        """key: with a point for one of a table within the section's."""
        told = placed(section, Problem(section.file, (*section.path, *key.split(".")), text))
        self.problems += [] if section.origins and told in self.problems else [told]

    def known(self, section: Section, key: str, name: str | None, facts: dict[str, Any], what: str = "user") -> Any:
        """The fact about a name, or a problem."""
        if name is not None and facts.get(name) is None:
            others = [other for other, fact in facts.items() if fact is not None]
            self.say(section, key, f"there is no {what} {name!r} on this machine{meant(name, others)}")
        return facts.get(name) if name is not None else None

    def settings(self) -> Settings:
        values = {kind: section.values for kind, section in self.main.items()}
        for role, name in values["accounts"].items():
            user = self.known(self.main["accounts"], role, name, self.bundle.users)
            if user is not None:
                others = [other for other, account in self.accounts.items() if account.uid == user.uid]
                if 0 in (user.uid, user.gid):
                    self.say(self.main["accounts"], role, "must be an account that is not root, nor in its group")
                elif others:
                    self.say(self.main["accounts"], role, f"must be an account of its own: {others[0]} has {name}")
                groups = (self.bundle.groups.get("shadow"),) if role == "auth" else ()
                self.accounts[role] = Account(name, user.uid, user.gid, tuple(g for g in groups if g is not None))
        for name in sorted(set(values[keys.TOP]["exit_on"] or ()) - self.services.keys()):
            self.say(self.main[keys.TOP], "exit_on", f"there is no [service.{name}]{meant(name, self.services)}")
        for name in [one for one in values[keys.TOP]["exit_on"] or () if one in self.scheduled()]:
            self.say(self.main[keys.TOP], "exit_on", f"{name} is scheduled: it ends each time, and all would with it")
        pam = pam_services(values["auth"])
        for key, name in pam.items():
            if "api" in self.main and (name == "other" or not self.bundle.pam.get(name)):
                self.say(self.main["auth"], key, f'there is no /etc/pam.d/{name}: "other" may let everybody in')
        paths, auth = Paths(**values["paths"]), Auth(**values["auth"] | pam)
        if None not in paths and len({*paths} - {"/"}) < len(paths):
            self.say(self.main["paths"], "run", "run, log and state must be three directories, and none of them /")
        if len((paths.run or "").encode()) > keys.RUN_LIMIT:
            self.say(self.main["paths"], "run", f"must have {keys.RUN_LIMIT} bytes at most: it has sockets beneath it")
        api = self.api(paths.run, self.main["api"]) if "api" in self.main else None
        return Settings(self.bundle.config, paths, self.accounts, auth, api, Audit(**values["audit"]))

    def api(self, run: str, section: Section) -> Api:
        """Our own API is a service like the others, on a socket of its own."""
        raw: dict[str, Any] = {"listen": section.raw.get("listen", f"unix:{run}/api.sock"), "mode": "0666"}
        self.sockets[API] = read_section("socket", raw, MAIN, ("api",), [])  # its problems are told already
        listen = self.sockets[API].values["listen"] or ()
        values = section.values | {"listen": tuple(address.key for address in listen)}
        values["tls"] = Tls(**values["tls"]) if values["tls"] else None
        for address in listen:
            local = address.family == "unix" or address.host == "::1" or address.host.startswith("127.")
            if address.kind != "stream" or not (local or values["tls"] or values["behind_proxy"]):
                self.say(section, "listen", f"{address.key} {OPEN if address.kind == 'stream' else 'is not for HTTP'}")
        raw = OWN | {"command": [self.bundle.python, *SERVE], "user": self.main["accounts"].values["api"]}
        self.services[API] = read_section("service", raw, MAIN, ("api",), [])
        about = shape.plain(values) | {"local": self.main["auth"].values["local"]}
        del about["listen"]  # it is handed open sockets
        environment = (("DURWARD_RUN", run), ("DURWARD_API", json.dumps(about, sort_keys=True)))
        self.services[API].values["environment"] = environment
        return Api(**values)

    def identify(self, name: str, service: Section) -> None:
        """Who it runs as; refused where that would give it what is ours, or what is root's unasked."""
        values, (other, _, instance) = service.values, name.rpartition(".")
        count = most(self.services[other].values) if other in self.services else 1
        if count > 1 and instance in map(str, range(count)):
            self.problems.append(Problem(service.file, service.path, f"a process of {other} has this name already"))
        if values["processes"] and most(values) < values["processes"]:
            self.say(service, "max_processes", f"must be processes, which is {values['processes']}, or more")
        user: User | None = self.known(service, "user", values["user"], self.bundle.users)
        gid = self.known(service, "group", values["group"], self.bundle.groups, "group")
        more = values["supplementary_groups"] or ()
        also = {self.known(service, "supplementary_groups", group, self.bundle.groups, "group") for group in more}
        for socket in [socket for socket in values["sockets"] or () if socket not in self.sockets]:
            self.say(service, "sockets", f"there is no [socket.{socket}]{meant(socket, self.sockets)}")
        if (fastcgi := values["fastcgi"]) is not None:
            listen: tuple[Socket, ...] = self.sockets[fastcgi].values["listen"] or () if fastcgi in self.sockets else ()
            if fastcgi not in self.sockets:
                self.say(service, "fastcgi", f"there is no [socket.{fastcgi}]{meant(fastcgi, self.sockets)}")
            elif len(listen) != 1 or listen[0].kind != "stream":
                self.say(service, "fastcgi", f"socket {fastcgi} must have one address, for connections")
        self.probes(service)
        if values["schedule"] and values["timezone"]:
            self.known(service, "timezone", values["timezone"], self.bundle.zones, "time zone")
        self.known(service, "log.readers", values["log"]["readers"], self.bundle.groups, "group")
        for key, text in (*kinds.problems(values, service.raw), *logs.problems(values["log"])):
            self.say(service, key, text)
        facts, run = self.bundle, self.main["paths"].values["run"] if self.main else ""
        built, wrong = environment.build(values, user or NOBODY, facts.environment_files, literal=name == API)
        new, more = environment.commands(values, PARTS, built)
        self.services[name] = service._replace(values=new)
        wrong += more + list(extras.problems(values, facts.credentials, "" if facts.volatile else run))
        self.problems += [placed(service, Problem(service.file, (*service.path, *at), text)) for at, text in wrong]
        if user is None or None in also or (values["group"] and gid is None):
            return
        groups = also | set(user.groups) | {user.gid} if gid is None else also | set(user.groups) - {user.gid} | {gid}
        self.run_as[name] = user, user.gid if gid is None else gid, tuple(sorted(groups)), tuple(sorted(built.items()))
        names = {self.bundle.groups.get(group): group for group in ROOTLIKE} | {0: "root"}
        amounting = (
            ["run as root"]
            if user.uid == 0
            else [f"be in group {names[g]}, as good as root" for g in sorted(groups & names.keys())]
        )
        ours = [a.name for a in self.accounts.values() if (a.uid == user.uid or a.gid in groups) and name != API]
        if ours:
            self.say(service, "user", f"{values['user']} is Durward's own account {ours[0]}, or in its group")
        elif amounting and not values["allow_root"]:
            self.say(service, "user", f"it would {amounting[0]}: that takes allow_root = true")

    def probes(self, service: Section) -> None:
        """One way to become ready, at most one probe that it is alive, and each proves what it is to prove."""
        names = service.values["sockets"] or ()
        held = names or service.values["fastcgi"]
        for key, ways in {"ready": kinds.WAYS, "live": kinds.PROBES}.items():
            values = service.values[key]
            chosen = [way for way in ways if values[way] is not None and values[way] is not False]
            if len(chosen) > 1:
                self.say(service, key, f"{' and '.join(chosen)} exclude each other")
            if values["tcp"] and values["tcp"].kind != "stream":
                self.say(service, key, f"tcp: {values['tcp'].key} is not for connections")
            if values["http"] and (own := not values["http"][0]) != bool(values["over"]):
                where = f'"http://127.0.0.1:8080{values["http"][1]}"'
                private = 'over = "probe" takes a path alone, such as "/healthz"'
                self.say(service, key, f'http: say where, as in {where}, or over = "probe"' if own else private)
            elif values["over"] and not values["http"]:
                self.say(service, key, 'over = "probe" is for http')
            many = key == "ready" or (service.values["processes"] or 1) > 1
            if held and many and (values["tcp"] or (values["http"] and not values["over"])):
                self.say(service, key, SHARED)
        ready, over = service.values["ready"], any(service.values[key]["over"] for key in ("ready", "live"))
        if over and "probe" in names:
            self.say(service, "sockets", 'probe is what over = "probe" calls its own: name the other one otherwise')
        sockets = [self.sockets[name].values["listen"] or () for name in names if name in self.sockets]
        if ready["fd"] and ready["fd"] < (first := 3 + sum(map(len, sockets)) + over):
            self.say(service, "ready", f"fd must be {first} or more: its sockets have the descriptors before it")

    def bind(self) -> tuple[Socket, ...]:
        """Every address once, with the ids of the services on it."""
        bound: dict[str, Socket] = {}
        run = self.main["paths"].values["run"] if self.main else None
        for name, section in self.sockets.items():
            values = section.values
            services = [n for n, s in self.services.items() if name in on(s.values) and n in self.run_as]
            group = self.known(section, "group", values["group"], self.bundle.groups, "group")
            gid = group if group is not None else self.run_as[services[0]][1] if services else 0
            about = {key: values[key] for key in ("mode", "backlog", "v6only", "freebind")}
            users = tuple(sorted({self.run_as[service][0].uid for service in services}))
            for address in values["listen"] or ():
                folder, _, last = address.path.rpartition("/")
                if address.key in bound:
                    self.say(section, "listen", f"socket {bound[address.key].name} has {address.key} already")
                if folder in [f"{run}{own}" for own in PRIVATE] and (name != API or last != "api.sock"):
                    self.say(section, "listen", f"{folder} is Durward's own: make it {run}/sockets/{last}")
                bound[address.key] = address._replace(name=name, gid=gid, users=users, **about)
        return tuple(bound.values())

    def scheduled(self) -> set[str]:
        return {name for name, service in self.services.items() if service.values["kind"] == "scheduled"}

    def order(self) -> None:
        """Names that services give of each other: there must be such services, and no way in a circle."""
        scheduled = self.scheduled()
        for service in self.services.values():
            for other in [other for other in service.values["requires"] or () if other in scheduled]:
                self.say(service, "requires", f"{other} is scheduled: it runs at its times, and not for others")
        for keys_of in (("requires", "after"), ("restart_with",)):
            graph = {}
            for name, service in self.services.items():
                named = [(key, other) for key in keys_of for other in service.values[key] or ()]
                for key, other in [pair for pair in named if pair[1] not in self.services or pair[1] == API]:
                    self.say(service, key, f"there is no [service.{other}]{meant(other, self.services)}")
                graph[name] = [other for _, other in named if other in self.services]
            try:
                TopologicalSorter(graph).prepare()
            except CycleError as error:
                circle = error.args[1][::-1]
                key = next(key for key in keys_of if circle[1] in (self.services[circle[0]].values[key] or ()))
                self.say(self.services[circle[0]], key, f"goes in a circle: {' -> '.join(circle)}")

    def entry(self, name: str, service: Section, sockets: Iterable[Socket]) -> Entry:
        values, (user, gid, groups, environment) = service.values, self.run_as[name]
        command = kinds.command_of(values, self.bundle.python)
        names = (*values["signals"], values["stop"]["signal"], *dict(values["stop"]["then"]), "KILL")
        readers = self.bundle.groups.get(values["log"]["readers"]) or 0
        log, streams = logs.how_of(values["log"], name if most(values) == 1 else "", readers)
        watchdog = values["live"]["watchdog"]
        names = (*names, "ABRT") if watchdog else names
        extra = extras.extra_of(values, self.bundle.credentials)
        limits = {"nofile": (1024, LEAVE)} | {kind: ends for kind, ends in values["limits"].items() if ends}
        return Entry(
            service=name, count=most(values), path=command[0], argv=command,
            env=environment, cwd=values["directory"], uid=user.uid, gid=gid, groups=groups,
            umask=values["umask"], limits=tuple((keys.LIMITS[kind], *ends) for kind, ends in sorted(limits.items())),
            sockets=tuple((wanted, s.key) for wanted in values["sockets"] for s in sockets if s.name == wanted),
            signals=tuple(sorted({signal.Signals[f"SIG{name}"].value for name in names})),
            notify=values["ready"]["notify"] or bool(watchdog) or values["kind"] == "forking",
            ready_fd=values["ready"]["fd"] or 0,
            probe="probe" in (values["ready"]["over"], values["live"]["over"]),
            nnp=values["no_new_privileges"] and (user.uid != 0 or bool(extra and (extra.read or extra.write))),
            root=user.uid == 0, log=log, streams=streams, extra=extra,
            stdin=next((s.key for s in sockets if s.name == values["fastcgi"]), ""),
        )  # fmt: skip


def on(values: dict[str, Any]) -> tuple[str, ...]:
    """The names of all sockets that a service gets."""
    return (*(values["sockets"] or ()), *([values["fastcgi"]] if values["fastcgi"] else []))


def most(values: dict[str, Any]) -> int:
    """How many processes a service may have: so many slots it has in the table."""
    found: int = values["max_processes"] or values["processes"] or 1
    return found


def generation_bytes(compiled: Compiled, bundle: Bundle) -> bytes:
    """What the memfd of a generation holds: the table's line, empty when there is none, and the bundle's."""
    return compiled.table + b"\n" + shape.to_json(bundle)


def split_generation(content: bytes) -> tuple[bytes, bytes]:
    table, _, bundle = content.partition(b"\n")
    return table, bundle


def bundle_from(line: bytes) -> Bundle:
    """Raises ValueError for what generation_bytes did not write."""
    return shape.from_json(Bundle, line)
