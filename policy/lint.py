"""What is no mistake in a policy, and still dangerous, dead or not what was meant.

Rule 1: pure: the rules, the facts of a machine (Machine) and the time are arguments.
Rule 2: what is not known is not guessed: of a machine whose accounts nobody has looked up no name is called unknown,
        and what could not be looked at is a finding of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from policy.amounts import amounts, forbidden, subjects
from policy.decide import place
from policy.finding import SEVERITIES, Finding, finding
from policy.machine import Machine
from policy.names import CHANGING, GLOBAL_ACTIONS, Action
from policy.rules import EVERY_SERVICE, Deny, Grant, Policy
from policy.shadow import Dead, dead, wider

SOON = 30 * 86400  # seconds

Rule = Grant | Deny
Services = Mapping[str, Collection[str]]  # each with its groups


def lint(policy: Policy, machine: Machine, now: float) -> list[Finding]:
    """Everything, the gravest first, then by file and line. now: seconds since 1970."""
    found = [*amounts(policy, machine, now)]
    services = {name: one.groups for name, one in machine.services.items()}
    rules: list[Rule] = [*policy.grants, *policy.denies]
    for rule in rules:
        found += [*_times(rule, now)]
        found += [*_names(rule, machine)] if machine.accounts else []
    for grant in policy.grants:
        found += [*_everything(grant), *_accounts(grant, machine), *_approval(policy, grant, machine, services, now)]
    found += [_dead(one) for one in dead(policy, services)]
    found += [finding("not-looked-at", text, service=service) for service, text in machine.unseen]
    found += [finding("not-told", text, service=service) for service, text in machine.untold]
    return sorted(found, key=lambda one: (SEVERITIES.index(one.severity), one.file, one.line, one.code))


def _times(rule: Rule, now: float) -> Iterator[Finding]:
    expires, deny = rule.expires, "deny-" if isinstance(rule, Deny) else ""
    if expires is None:
        return
    if expires.at <= now:
        yield finding(f"{deny}expired", f"'{rule.id}' has expired: {expires.text}", rule)
        return
    opens = None if rule.when is None or rule.when.holds(now) else rule.when.opens(now)
    if opens is not None and opens >= expires.at:
        yield finding("never-again", f"'{rule.id}' expires {expires.text}, before its hours come again", rule)
    elif expires.at - now <= SOON:
        yield finding(f"{deny}expires-soon", f"'{rule.id}' expires soon: {expires.text}", rule)


def _names(rule: Rule, machine: Machine) -> Iterator[Finding]:
    deny = isinstance(rule, Deny)
    approval = rule.approval if isinstance(rule, Grant) else None
    users = dict.fromkeys((*rule.users, *(approval.users if approval else ())))
    for user in users:
        if user not in machine.users:
            yield finding("deny-unknown" if deny else "unknown-user", f"there is no user {user} here", rule)
    for group in dict.fromkeys((*rule.groups, *(approval.groups if approval else ()))):
        if group not in machine.groups:
            yield finding("deny-unknown" if deny else "unknown-group", f"there is no group {group} here", rule)
        elif not machine.groups[group]:
            text = f"nobody is in the group {group}, as far as this machine can tell"
            yield finding("deny-empty-group" if deny else "empty-group", text, rule)


def _everything(grant: Grant) -> Iterator[Finding]:
    of_services = grant.may - GLOBAL_ACTIONS
    if EVERY_SERVICE in grant.on and of_services:
        code = "every-service" if of_services & CHANGING else "every-service-seen"
        yield finding(code, f"'{grant.id}' grants {', '.join(sorted(of_services))} on every service", grant)


def _accounts(grant: Grant, machine: Machine) -> Iterator[Finding]:
    """Accounts that are no people and may do something, or approve it: Durward's own, and those of services."""
    of_services: dict[str, str] = {}
    for name, service in machine.services.items():
        of_services.setdefault(service.user, name)
    for account in (*machine.own, *of_services):
        through = _named(grant, account, machine)
        if through and account in machine.own:
            text = f"{account}, Durward's own account ({machine.own[account]}), has the rights of '{grant.id}'{through}"
            yield finding("own-account", text, grant)
        elif through and account != "root":
            name = of_services[account]
            text = f"{account}, whom {name} runs as, has the rights of '{grant.id}'{through}"
            code = "service-account-peer" if machine.peer else "service-account"
            yield finding(code, text, grant, service=name)


def _named(grant: Grant, account: str, machine: Machine) -> str:
    """How the rule reaches an account; "" when it does not."""
    approval = grant.approval
    if account in grant.users:
        return " by its name"
    groups = [group for group in grant.groups if _in(account, group, machine)]
    if groups:
        return f", as it is in the group {groups[0]}"
    if approval and (account in approval.users or any(_in(account, group, machine) for group in approval.groups)):
        return ": it may approve"
    return ""


def _in(account: str, group: str, machine: Machine) -> bool:
    return group in machine.users.get(account, ()) or account in machine.groups.get(group, ())


def _approval(policy: Policy, grant: Grant, machine: Machine, services: Services, now: float) -> Iterator[Finding]:
    approval = grant.approval
    if approval is None or not machine.accounts or (grant.expires and grant.expires.at <= now):
        return
    members = (user for group in grant.groups for user in sorted(machine.groups.get(group, ())))
    askers: list[str] = list(dict.fromkeys((*grant.users, *members)))
    able: set[str] = {user for user in approval.users if user in machine.users}
    able |= {user for group in approval.groups for user in machine.groups.get(group, ())}
    alone = [user for user in askers if not able - {user}]
    if alone:
        whose = " or ".join(alone) if able else "anybody"
        text = f"nobody could approve what {whose} asks for by '{grant.id}', as far as this machine can tell"
        yield finding("nobody-approves", text, grant)
    for user in askers:
        for other, acts in _without(policy, grant, user, machine, services, now):
            text = f"{user} needs nobody's approval for what '{grant.id}' wants it for: '{other.id}' ({place(other)})"
            yield finding("approval-evaded", f"{text} grants {', '.join(sorted(acts))} without one", grant)
            break  # one is enough to be told


def _without(
    policy: Policy, grant: Grant, user: str, machine: Machine, services: Services, now: float
) -> Iterator[tuple[Grant, frozenset[Action]]]:
    """The rules that give this person something of the grant without anybody's approval, and what."""
    named = subjects(machine, ("user", user))
    for target in grant.on:
        entries = tuple(wider(target, services))
        wanted = (grant.may & CHANGING) - forbidden(policy, named, entries)
        for rows in (policy.granted.named(*one) for one in named):
            for other in (other for entry in entries for other in rows.get(entry, ())):
                over = other.expires and other.expires.at <= now
                if wanted & other.may and not other.approval and not over:
                    yield other, wanted & other.may


def _dead(one: Dead) -> Finding:
    by = " and ".join(f"'{rule.id}' ({place(rule)})" for rule in one.by)
    verb = {"denied": "is forbidden by", "shadowed": "always comes after", "duplicate": "says the same as"}[one.why]
    return finding(one.why, f"'{one.rule.id}' {verb} {by}", one.rule)
