"""What a configuration gives up of what Durward would guard, why that is so, and what to do instead.

Rule: nothing is read here: what the files say and what the machine says of the names in them is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from userapi.cli.machine import OK, PROBLEM, WARNING, Finding

if TYPE_CHECKING:
    from rootd.config.compile import Bundle, Section

LONG_SESSION, LONG_TOKEN = 24 * 3600.0, 366 * 24 * 3600.0  # seconds
GROUP = "given up"

Sections = dict[tuple[str, ...], "Section"]


def given_up(found: Sections, bundle: Bundle, rootlike: tuple[str, ...]) -> list[Finding]:
    """rootlike: groups that amount to root. Nothing but an ok when nothing is given up."""
    findings = [*of_services(found, bundle, rootlike), *of_accounts(found, bundle, rootlike), *of_doors(found)]
    return findings or [Finding(GROUP, OK, "nothing: no service is root, and no key weakens what is guarded")]


def values_of(found: Sections, *path: str) -> dict[str, Any]:
    return found[path].values if path in found else {}


def of_services(found: Sections, bundle: Bundle, rootlike: tuple[str, ...]) -> Iterator[Finding]:
    numbers = {bundle.groups.get(name): name for name in rootlike}
    for path, section in found.items():
        if path[0] != "service":
            continue
        name, values = path[1], section.values
        user = bundle.users.get(values["user"] or "")
        if user is None:
            continue
        if user.uid == 0:
            text = f"{name} runs as root: who takes it over has the machine, and privileged keeps all capabilities"
            todo = "give it a user of its own: its sockets are bound for it, low ports too"
            yield Finding(GROUP, WARNING, text, todo)
            continue
        own = {bundle.groups.get(group) for group in values["supplementary_groups"] or ()}
        groups = sorted(numbers[gid] for gid in {*user.groups, user.gid, *own} if gid in numbers and gid is not None)
        if groups:
            text = f"{name} is in {', '.join(groups)}, which is as good as root"
            yield Finding(GROUP, WARNING, text, f"take {values['user']} out of that group, or give it another user")
        if values["no_new_privileges"] is False:
            text = f"{name} may gain privileges by setuid programs (no_new_privileges = false)"
            yield Finding(GROUP, WARNING, text, "leave the key out, unless it needs sudo or the like")
        yield from of_extras(name, values)


def of_extras(name: str, values: dict[str, Any]) -> Iterator[Finding]:
    """What its own keys give it of root's, or let go where the machine does not have it."""
    from rootd.config.extras import CAPABILITIES

    if kept := values.get("capabilities"):
        names = ", ".join(CAPABILITIES[number] for number in kept)
        text = f"{name} keeps {names}: who takes it over has that too, and so has the process that forks services"
        yield Finding(GROUP, WARNING, text, "leave out of capabilities what it can do without; low ports take none")
    if (values.get("oom_score_adj") or 0) < 0:
        text = f"{name} is spared when memory is short (oom_score_adj = {values['oom_score_adj']}): others die for it"
        yield Finding(GROUP, WARNING, text, "leave the key out, or limit it by cgroup.memory")
    for key, lack in (("files", "Landlock"), ("cgroup", "a controller")):
        if (values.get(key) or {}).get("optional"):
            text = f"{name} runs without its limits of {key} where there is no {lack.removeprefix('a ')}"
            yield Finding(GROUP, WARNING, text, f"leave {key}.optional out where this machine has {lack}")


def of_accounts(found: Sections, bundle: Bundle, rootlike: tuple[str, ...]) -> Iterator[Finding]:
    numbers = {bundle.groups.get(name): name for name in rootlike}
    for role, name in values_of(found, "accounts").items():
        user = bundle.users.get(name or "")
        if user is None:
            continue
        groups = sorted(numbers[gid] for gid in user.groups if gid in numbers and gid is not None)
        groups = [group for group in groups if (role, group) != ("auth", "shadow")]
        if groups:
            text = f"{name}, which {role} runs as, is in {', '.join(groups)}: its sandbox is worth nothing"
            yield Finding(GROUP, PROBLEM, text, f"gpasswd -d {name} {groups[0]}")
        if user.shell and not user.shell.endswith(("/nologin", "/false")):
            text = f"{name}, which {role} runs as, has a shell to log in with: {user.shell}"
            yield Finding(GROUP, WARNING, text, f"usermod -s /usr/sbin/nologin {name}")


def of_doors(found: Sections) -> Iterator[Finding]:
    auth, api = values_of(found, "auth"), values_of(found, "api")
    if auth.get("local") == "peer":
        text = 'auth.local = "peer": any process of a person may act for him here, without his password'
        yield Finding(GROUP, WARNING, text, 'local = "password", unless all who run code here are trusted')
    if (auth.get("session") or 0.0) > LONG_SESSION:
        text = "auth.session is longer than a day: a session that was taken lives as long"
        yield Finding(GROUP, WARNING, text, 'session = "8h"')
    if (auth.get("token_longest") or 0.0) > LONG_TOKEN:
        text = "auth.token_longest is longer than a year: scripts keep tokens that everybody has forgotten"
        yield Finding(GROUP, WARNING, text, 'token_longest = "90d"')
    for address in api.get("listen") or ():
        near = address.family == "unix" or address.host == "::1" or address.host.startswith("127.")
        if not near and not api.get("tls"):
            text = f"the API on {address.key} speaks without TLS: passwords pass in the clear, but for behind_proxy"
            yield Finding(GROUP, WARNING, text, "set [api] tls, or let it listen where the proxy alone reaches it")
    if values_of(found, "audit").get("on_failure") == "continue":
        text = 'audit.on_failure = "continue": what cannot be recorded is done all the same'
        yield Finding(GROUP, WARNING, text, 'on_failure = "refuse", and room on the disk of the log')
