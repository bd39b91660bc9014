"""durward doctor: what this machine gives, what the configuration gives up, and what to do about each finding.

It asks the daemon for nothing but the status of services, changes nothing, and runs as whoever starts it; what only
root may see is said to be unknown. Exit 0: no problem (with --strict: no warning either), else 1.
--json: {"findings": [{"group", "level", "text", "todo"}], "problems", "warnings", "unknown"}, "level" ok, warning,
problem or unknown.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from userapi.cli import machine
from userapi.cli.failure import FAILED, OK, Failure
from userapi.cli.given_up import given_up, values_of
from userapi.cli.machine import PROBLEM, UNKNOWN, WARNING, Finding
from userapi.cli.render import Screen

if TYPE_CHECKING:
    from rootd.config.compile import Bundle
    from rootd.config.settings import User

COLOURS = {machine.OK: "32", WARNING: "33", PROBLEM: "31;1", UNKNOWN: "2"}

MAKE = "make it, or leave it out"
NOTES = (  # what a note of the check speaks of, and what to do about it
    ("nobody but root may do anything", "a policy is a grant in policy.d/10-first.toml, say"),
    ("controller for cgroups", "have it handed on (systemd: Delegate=yes), or say cgroup = { optional = true }"),
    ("there is no CAP_", "start the daemon with it, or leave out what takes it: nice, oom_score_adj, limits …"),
    ("Landlock", "take a kernel that has it in its list of LSMs, or say files = { optional = true }"),
    ("what it writes is lost", 'start it, or have the output in files, or in our own: log = { target = "inherit" }'),
    ("cannot execute", "install it, or let that user execute it"),
    ("cannot be started now", MAKE),
    ("", "mend it, or leave it out"),
)
TOLD = re.compile(r"cannot be bound now|\.command\[0\]: .*: No such file")  # what is looked at here besides, by itself


def doctor(ask: Any, screen: Screen, args: Any) -> int:
    findings = [*examine(ask, args)]
    counts = {level: sum(one.level == level for one in findings) for level in COLOURS}
    if screen.as_json:
        told = {"problems": counts[PROBLEM], "warnings": counts[WARNING], "unknown": counts[UNKNOWN]}
        screen.json({"findings": [one._asdict() for one in findings], **told})
    else:
        show(screen, findings)
        many = ", ".join(f"{count} {level}" for level, count in counts.items())
        screen.say(f"{many}{'' if os.geteuid() == 0 else '; as root more can be seen'}")
    return FAILED if counts[PROBLEM] or (args.strict and counts[WARNING]) else OK


def show(screen: Screen, findings: list[Finding]) -> None:
    for group in dict.fromkeys(one.group for one in findings):
        screen.say(group)
        for one in [one for one in findings if one.group == group]:
            screen.say(f"  {one.level.ljust(7)}  {one.text}")
            if one.todo:
                screen.say(f"           to do: {one.todo}")


def examine(ask: Any, args: Any) -> Iterator[Finding]:
    from rootd import accounts
    from rootd.config import compile as compiler
    from rootd.config.gather import gather
    from rootd.config.settings import pam_services

    yield from machine.kernel()
    yield machine.capabilities()
    yield from machine.cgroups()
    bundle = gather(args.config, os.path.join(sys.prefix, "bin", "python3"), accounts.resolve)
    found, _ = compiler.read(bundle.files)
    services = [section.values for path, section in found.items() if path[0] == "service"]
    sockets = [section.values for path, section in found.items() if path[0] == "socket"]
    processes = sum(compiler.most(values) for values in services)
    yield from machine.limits(processes, max((values["backlog"] or 0 for values in sockets), default=0))
    zones = any("timezone" in file.text for file in bundle.files if file.path.startswith("policy.d/"))
    yield from machine.python(zones)
    told = [*configuration(args.config, bundle)]
    yield from told
    wrong = any(one.level in (PROBLEM, UNKNOWN) for one in told)
    if ("paths",) not in found:
        return
    paths = {name: path for name, path in found["paths",].values.items() if path}
    yield from directories(paths)
    if ("api",) in found:
        yield from pam(pam_services(found["auth",].values).values())
        pair, api = found["api",].values.get("tls"), bundle.users.get(values_of(found, "accounts").get("api", ""))
        if pair and api:  # that an account is unknown is said of the configuration
            yield tls(pair, api)
    given = given_up(found, bundle, compiler.ROOTLIKE)
    yield from (one for one in given if one.level != machine.OK or not wrong)  # "nothing" is said of what is understood
    for path, section in found.items():
        if path[0] == "service":
            yield from program(path[1], section.values, bundle)
    running = [*daemon(ask, args, paths.get("run", ""))]
    yield from running
    listens = [one for (kind, *_), section in found.items() if kind in ("socket", "api")
               for one in section.values["listen"] or ()]  # fmt: skip
    ports = sorted({one.port for one in listens if one.family != "unix" and one.kind == "stream"})
    yield from taken(ports, any(one.level == machine.OK for one in running))


def configuration(config: str, bundle: Bundle) -> Iterator[Finding]:
    """What durward-rootd --check says; as somebody else than root, only whether it can be read."""
    from rootd import check

    if any(file.denied for file in bundle.files):
        text = f"{config} can be read by root and Durward's group alone: it is not looked at"
        return (yield Finding("configuration", UNKNOWN, text, f"sudo durward doctor --config {config}"))
    checked = check.check(config, bundle.python, warn=True)
    for problem in checked.problems:
        todo = f"mend it; durward-rootd --check --config {config} shows the place"
        yield Finding("configuration", PROBLEM, check.headline(problem), todo)
    for note in itertools.filterfalse(TOLD.search, checked.notes):
        hidden = "only root can look" in note
        todo = "sudo durward doctor" if hidden else next(todo for words, todo in NOTES if words in note)
        yield Finding("configuration", UNKNOWN if hidden else WARNING, note, todo)
    if not checked.problems:
        yield Finding("configuration", machine.OK, checked.summary)


def directories(paths: dict[str, str]) -> Iterator[Finding]:
    """Those of [paths] that are there: nobody but root, or log in its own, may write them."""
    yield from machine.space(dict.fromkeys(paths[name] for name in ("log", "state") if name in paths))
    for name, path in paths.items():
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except FileNotFoundError:
            yield Finding("directories", machine.OK, f"{path} is made at the daemon's start")
            continue
        except OSError as error:
            yield Finding("directories", UNKNOWN, f"{path}: {error.strerror}")
            continue
        if mode & 0o022:
            todo = f"chmod go-w {path}"
            yield Finding("directories", PROBLEM, f"{path} ({name}) has mode {mode:o}: others may write it", todo)
        else:
            yield Finding("directories", machine.OK, f"{path} has mode {mode:o}")
    first = f"{paths.get('state', '')}/log/audit.initial"
    if os.path.exists(first):
        text = f"{first} is still on this machine: who takes it over can forge the audit log from its beginning"
        yield Finding("directories", WARNING, text, "move it to where this machine cannot reach it")


def program(service: str, values: dict[str, Any], bundle: Bundle) -> Iterator[Finding]:
    """Its program must be there, and its own user should not be able to put another in its place."""
    user = bundle.users.get(values["user"] or "")
    path = os.path.realpath((values["command"] or [""])[0])
    if user is None or not user.uid or not values["command"]:
        return
    for place in (path, *ancestors(path)):
        try:
            about = os.stat(place)
        except FileNotFoundError:
            told = f"{service}: there is no {place}: it cannot be started"
            return (yield Finding("services", PROBLEM, told, "install it, or mend its command"))
        except OSError as error:
            return (yield Finding("services", UNKNOWN, f"{service}: {place}: {error.strerror}"))
        mode, sticky = about.st_mode, stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX
        mine = about.st_uid == user.uid or (about.st_gid in user.groups and mode & 0o020)
        if mine or (mode & 0o002 and not sticky):
            told = f"{service} may replace its own program by {place}: who takes it over once stays"
            todo = f"chown root {place}; chmod go-w {place}"
            return (yield Finding("services", WARNING, told, todo))
    yield Finding("services", machine.OK, f"{service}: {path}, which its user cannot replace")


def ancestors(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def pam(names: Any) -> Iterator[Finding]:
    """The files of PAM that the configuration names: root's, and nobody else's to write."""
    for path in (f"/etc/pam.d/{name}" for name in names):
        try:
            found = os.stat(path)
            with open(path, errors="replace") as file:
                text = file.read()
        except OSError as error:
            if error.errno == 2:
                told = f"there is no {path}: PAM falls back to /etc/pam.d/other, which may let everybody in"
                yield Finding("login", PROBLEM, told, "install it: packaging/pam.d has it")
            else:
                yield Finding("login", UNKNOWN, f"{path}: {error.strerror}")
            continue
        if found.st_uid != 0 or found.st_mode & 0o022:
            told = f"{path} is not root's alone: who writes it says who may log in"
            yield Finding("login", PROBLEM, told, f"chown root:root {path}; chmod 644 {path}")
        elif any("pam_faillock" in line.partition("#")[0] for line in text.split("\n")):
            told = f"{path}: pam_faillock counts nothing here unless its dir= is auth's own"
            yield Finding("login", WARNING, told, "leave it out: Durward slows down guesses itself")
        else:
            yield Finding("login", machine.OK, f"{path} is root's")


def tls(pair: dict[str, str], api: User) -> Finding:
    """Whether the api can load certificate and key, tried as its account."""
    from userapi.cli.tried import as_account, load_tls

    certificate, key = pair["certificate"], pair["key"]
    if os.geteuid() != 0:
        text = f"{certificate} and {key}: only root can try whether the api may load them"
        return Finding("login", UNKNOWN, text, "sudo durward doctor")
    wrong = as_account(api, lambda: load_tls(certificate, key))
    if not wrong:
        return Finding("login", machine.OK, f"the api may read {key}, and its certificate fits")
    todo = f"name a certificate and its own key, in PEM, without a password, which its uid {api.uid} may read"
    return Finding("login", PROBLEM, f"the api cannot start, by [api] tls: {wrong}", todo)


def daemon(ask: Any, args: Any, run: str) -> Iterator[Finding]:
    """Whether it answers: root.sock for root, else the api, by the session that there is."""
    if os.geteuid() == 0 and not args.root:
        from userapi.cli.transport_root import Root

        ask = Root(f"{run}/root.sock")
    try:
        services = ask.status(None)
    except Failure as failure:
        level = WARNING if failure.kind == "unreachable" else UNKNOWN
        todo = (
            f"start it: durward-rootd --config {args.config}"
            if level == WARNING
            else "durward login, or sudo durward doctor"
        )
        return (yield Finding("daemon", level, failure.text, todo))
    yield Finding("daemon", machine.OK, f"it answers, with {len(services)} services")
    if ask.trouble:
        yield Finding("daemon", PROBLEM, ask.trouble, "make room where [paths] log is: it goes on by itself then")
    for service in services:
        if service["state"] in ("FATAL", "BACKOFF"):
            text = f"{service['name']} is {service['state']}"
            yield Finding("daemon", WARNING, text, "durward describe and durward logs say why")


def taken(ports: list[int], running: bool) -> Iterator[Finding]:
    """The TCP ports that are wanted: free, ours, or taken, and by whom. running: whether the daemon answers."""
    listening = machine.listeners()
    for port in ports:
        if port not in listening:
            yield Finding("ports", machine.OK, f"port {port} is free")
            continue
        who = machine.holders(listening[port])
        ours = [name for name in who if running and name.startswith("durward-")]
        if ours:
            yield Finding("ports", machine.OK, f"port {port} is held by {ours[0]}")
        elif who:
            todo = f"stop {who[0]}, or take another port"
            yield Finding("ports", PROBLEM, f"port {port} is taken by {', '.join(who[:3])}", todo)
        else:
            yield Finding("ports", UNKNOWN, f"port {port} is taken; by whom only root can see", "sudo durward doctor")
