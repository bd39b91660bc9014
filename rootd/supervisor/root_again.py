"""What of a new configuration takes root again, in words for people: a dry run tells it, a reload then does it.

privileged names what it may not do (Generations.beyond), or has not read at all; the marks are put on here (mentions).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rootd import ipc
from rootd.config.extras import CAPABILITIES
from rootd.supervisor.difference import SOCKET, users, whose
from rootd.supervisor.mentions import COUNT, mark

if TYPE_CHECKING:
    from policy.messages import Problem
    from rootd.config.specs import ServiceSpec
    from rootd.config.trusted import File

AGAIN = "needs root again (privileged is replaced, no service notices)"
UNREAD = (
    "a dry run cannot read that, so what would change is not known; durward-rootd --check tells root of every mistake"
)


def named(told: ipc.Message, specs: Iterable[ServiceSpec]) -> str:
    """Of a TABLE with NEEDS_ROOT whose configuration could be compiled."""
    known = {spec.name: spec for spec in specs}
    found, lines = list[str](), told.name.split("\n") if told.name else []
    for line in lines:
        what, _, rest = line.partition(" ")
        if what == "socket":
            name, _, key = rest.partition(": ")
            found.append(f"socket {mark(users(known.values(), name) or '/', f'{name} ({key})', SOCKET)}")
            continue
        who = ", ".join(mark(whose(known[name]), name) for name in rest.split(",") if name in known)
        found.append(f"{_thing(what)} for {who}")
    more = max(told.extra - len(lines), 0)
    return f"{AGAIN}: {', '.join([*found, *([f'{more} more'] if more else [])])}"


def _thing(what: str) -> str:
    """As Generations.beyond spells it."""
    if what == "root":
        return "running as root"
    if what.isdecimal() and int(what) < len(CAPABILITIES):
        return f"CAP_{CAPABILITIES[int(what)]}"
    return f"cgroup limits of {what}"


def unread(files: Iterable[File], problems: Iterable[Problem]) -> str:
    """Of files that only root may read. problems: what was made of the rest, which are about them for the most part."""
    denied, found = {file.error for file in files if file.denied}, dict[str, None]()
    for problem in problems:
        if problem.text in denied:
            found[_file(problem)] = None
    return f"{AGAIN}: {', '.join(found) or 'a file that only root may read'}; {UNREAD}"


def _file(problem: Problem) -> str:
    """services.d/site.toml, or what a service is given: "credential db of site", "environment_file of site"."""
    kind, _, path = problem.key.partition(".")
    service, is_secret, name = path.rpartition(".credentials.")
    what = f"credential {name}" if is_secret else "environment_file"
    service = service if is_secret else path.removesuffix(".environment_file")
    if kind != "service" or service == problem.key or (not is_secret and service == path):
        return problem.file or "the directory of the configuration"
    return mark(service, f"{what} of {service}", f"a file of {COUNT}")
