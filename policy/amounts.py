"""Rights that amount to more than they say: somebody may start a service, and may write what it then runs.

Whoever may do both is the service's user whenever he likes; where that is root, he is root.

Rule 1: a deny counts only when it always does, and a grant until it has expired: what is allowed at some time, from
        somewhere, with a reason or with somebody's approval, is allowed.
Rule 2: a right to a service is one to what is started with it, as far as another rule does not say so already.
Rule 3: a group is told as a whole where all of it may write; else its members who may are named, as far as known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from policy.finding import Finding, finding
from policy.machine import Machine, Place, Service
from policy.names import Action
from policy.rules import EVERY_SERVICE, GROUP, Deny, Grant, Policy

# after each of these the service runs what is there then: a signal ends it, and it is started again, or reads anew
SPAWNING = frozenset({Action.START, Action.RESTART, Action.SCALE, Action.SIGNAL, Action.ENABLE})
BRINGING = SPAWNING - {Action.SIGNAL}  # after each of these, so do those that it requires, and that restart with it
SHOWN = 3  # things that one place leads to

Subject = tuple[str, str]  # "user" or "group", and the name


def amounts(policy: Policy, machine: Machine, now: float) -> Iterator[Finding]:
    """now: seconds since 1970."""
    by_target: dict[str, list[Grant]] = {}
    for grant in policy.grants:
        if grant.may & SPAWNING and not (grant.expires and grant.expires.at <= now):
            for target in grant.on:
                by_target.setdefault(target, []).append(grant)
    for name, service in machine.services.items():
        targets = (name, *(GROUP + group for group in service.groups), EVERY_SERVICE)
        grants = {grant.order: grant for target in targets for grant in by_target.get(target, ())}
        for order in sorted(grants):
            yield from _by(policy, machine, grants[order], name, targets)
            for other in brought(machine, name):
                own = (other, *(GROUP + group for group in machine.services[other].groups), EVERY_SERVICE)
                if not {*own} & {*grants[order].on}:
                    yield from _by(policy, machine, grants[order], other, targets, name)


def brought(machine: Machine, name: str) -> list[str]:
    """All that is started with it, in the end."""
    found, at = [name], 0
    while at < len(found):
        found += [one for one in machine.services[found[at]].brings if one in machine.services and one not in found]
        at += 1
    return found[1:]


def _by(
    policy: Policy, machine: Machine, grant: Grant, name: str, targets: tuple[str, ...], by: str = ""
) -> Iterator[Finding]:
    """targets: of the service that the right is to: by, and name is started with that; else it is name."""
    service, wanted = machine.services[name], grant.may & (BRINGING if by else SPAWNING)
    named: list[Subject] = [*(("user", user) for user in grant.users), *(("group", group) for group in grant.groups)]
    may: dict[Subject, frozenset[Action]] = {}
    if service.root and not by:
        may = {one: wanted - forbidden(policy, subjects(machine, one), targets) for one in named}
    if any(may.values()):
        people = " and ".join(spelled(one) for one in named if may[one])
        told = _acts(frozenset().union(*may.values()))
        yield finding("runs-as-root", f"{people} may {told} {name}, which {service.root}", grant, service=name)
    whom: dict[str, tuple[list[Subject], frozenset[Action], list[Place]]] = {}
    for place in service.places:
        for who, acts in _writers(policy, machine, place, named, wanted, targets):
            if acts and (service.root or who != ("user", service.user)):
                writers, before, places = whom.setdefault(place.at, ([], frozenset(), []))
                writers += [who] if who not in writers else []
                places += [place] if place not in places else []
                whom[place.at] = writers, before | acts, places
    for at, (writers, all_acts, places) in whom.items():
        yield _found(grant, name, service, at, writers, all_acts, places, by)


def _writers(
    policy: Policy,
    machine: Machine,
    place: Place,
    named: list[Subject],
    wanted: frozenset[Action],
    targets: tuple[str, ...],
) -> Iterator[tuple[Subject, frozenset[Action]]]:
    """Those of the named who may write it, groups before their members, and what they may do."""
    for kind, name in named:
        if place.everybody or (kind == "group" and name in place.groups):
            yield (kind, name), wanted - forbidden(policy, subjects(machine, (kind, name)), targets)
            continue
        for user in sorted(machine.groups.get(name, ())) if kind == "group" else [name]:
            if user in place.users or not place.groups.isdisjoint(machine.users.get(user, ())):
                yield ("user", user), wanted - forbidden(policy, subjects(machine, ("user", user)), targets)


def subjects(machine: Machine, one: Subject) -> list[Subject]:
    """By which rules name him; of a group, what is true of every member."""
    kind, name = one
    return [one, *(("group", group) for group in sorted(machine.users.get(name, ())))] if kind == "user" else [one]


def forbidden(policy: Policy, named: list[Subject], targets: Collection[str]) -> frozenset[Action]:
    """What a rule forbids to one of these, whenever it is."""
    rules: list[Deny] = [
        rule for one in named for target in targets for rule in policy.denied.named(*one).get(target, ())
    ]
    return frozenset().union(*(rule.may for rule in rules if not rule.timed))


def _found(
    grant: Grant,
    name: str,
    service: Service,
    at: str,
    people: list[Subject],
    acts: frozenset[Action],
    places: list[Place],
    by: str,
) -> Finding:
    grave = any(place.grave for place in places)
    code = "writable" if not grave else "amounts-to-root" if service.root else "amounts-to-user"
    told = (one.what.removesuffix(",") if one.path == at else f"{one.what} {one.path}" for one in places)
    whats = list(dict.fromkeys(told))
    more = f" and {len(whats) - SHOWN} more" if len(whats) > SHOWN else ""
    through = "which is" if any(place.path == at for place in places) else "by which it can replace"
    as_whom = f", which {service.root}," if service.root else f", which runs as {service.user}," if service.user else ""
    whole = f"{by} and by that {name}" if by else name
    text = (
        f"{' and '.join(map(spelled, people))} may {_acts(acts)} {whole}{as_whom} and may write {at}, {through}"
        f" {', '.join(whats[:SHOWN])}{more}"
    )
    todo = (
        f"let root alone write {at} (chown, chmod go-w, setfacl), or take {_acts(acts)} on {by or name} out of the rule"
    )
    return finding(code, text, grant, service=name, path=at, todo=todo)


def spelled(one: Subject) -> str:
    return one[1] if one[0] == "user" else f"the group {one[1]}"


def _acts(acts: frozenset[Action]) -> str:
    return ", ".join(sorted(acts))
