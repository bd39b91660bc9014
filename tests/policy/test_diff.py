"""What changes between two policies: all of it, and nothing else; for people in several groups at once, too."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import naive
from examples import examples
from hypothesis import given, strategies as st
from naive import Point, Rule, policy_of

from policy.diff import Change, diff, remaining
from policy.rights import DAEMON, OTHER, Atom, Book, Formula, covered, groups_named, minimal, places, possible
from policy.rules import Policy


def changes(before: Policy, after: Policy, services: Any = naive.SERVICES, more: Any = None) -> list[Change]:
    groups = groups_named(before) | groups_named(after)
    return diff(Book(before), places(services, groups), Book(after), places(services if more is None else more, groups))


def covers(change: Change, point: Point) -> bool:
    row, held = change.row, point.atoms()
    inside = {Atom("in", group) for group in row.inside} if point.service == OTHER else set()
    return (
        point.action in row.actions
        and point.service in row.services
        and (not row.inside or point.service == OTHER)
        and {*row.who, *row.conditions, *inside} <= held
    )


TWO = st.tuples(naive.RULES, naive.RULES, st.lists(st.booleans(), min_size=6, max_size=6)).map(
    lambda drawn: (drawn[0], naive.named([*itertools.compress(drawn[0], drawn[2]), *drawn[1][:2]]))
)


@examples(15)
@given(two=TWO, circumstances=naive.CIRCUMSTANCES)
def test_every_change_of_a_decision_is_in_the_diff(
    two: tuple[list[Rule], list[Rule]], circumstances: tuple[Any, ...]
) -> None:
    old, new = two
    told = changes(policy_of(old), policy_of(new))
    for point in naive.points(circumstances):
        was, will = naive.allowed(old, point), naive.allowed(new, point)
        if was != will:
            kind = "gained" if will else "lost"
            assert any(change.kind == kind and covers(change, point) for change in told), (point, told)


def point_of(change: Change) -> frozenset[Atom]:
    row = change.row
    return frozenset((*row.who, *row.conditions, *(Atom("in", group) for group in row.inside)))


Told = tuple[str, str, str, frozenset[Atom], frozenset[Any], frozenset[Any], frozenset[Any]]


def by_whole_formulas(kind: str, one: Formula, other: Formula, action: str, service: str) -> Iterator[Told]:
    """What `other` allows and `one` does not, as policy/diff.py defines it, without regard to whom a part is about."""
    points = [grant for grant in other.grants if not covered(grant, one.grants)]
    points += [grant | deny for grant, deny in itertools.product(other.grants, one.denies)]
    points = [point for point in points if possible(point) and not covered(point, other.denies)]
    for point in minimal(dict.fromkeys(points)):
        unless, but = ({deny - point for deny in some.denies if possible(deny | point)} for some in (other, one))
        still = remaining(one, point)
        but = but - {*unless, frozenset()} if still else set()
        yield kind, action, service, point, frozenset(unless), frozenset(still), frozenset(but)


@examples(40)
@given(two=TWO, renamed=st.sampled_from([{}, {"shop": "store"}, {"site": "store", "worker": "site"}]))
def test_it_is_what_whole_formulas_say_place_by_place(
    two: tuple[list[Rule], list[Rule]], renamed: dict[str, str]
) -> None:
    """The rest are further counters, which no formula has."""
    policies = [policy_of(rules) for rules in two]
    groups = groups_named(policies[0]) | groups_named(policies[1])
    services = naive.SERVICES, {renamed.get(name, name): own for name, own in naive.SERVICES.items()}
    known = [places(some, groups) for some in services]
    want = set[Told]()
    for name in ("", *known[0], *known[1]):
        for action in ("view", "restart", "reload"):
            was, will = (
                Book(policy).formula(action, some.get(name) if name else DAEMON)
                for policy, some in zip(policies, known, strict=True)
            )
            want |= {*by_whole_formulas("lost", will, was, action, name)}
            want |= {*by_whole_formulas("gained", was, will, action, name)}
    found = diff(Book(policies[0]), known[0], Book(policies[1]), known[1])
    assert all(one.row.services for one in found)
    told = [
        (one.kind, action, service, point_of(one), frozenset(one.row.unless), frozenset(one.still), frozenset(one.but))
        for one in found
        for action in one.row.actions
        for service in one.row.services
    ]
    assert want <= {*told}
    assert all(any(atom.nth > 1 for atom in point) for *_, point, _, _, _ in {*told} - want)
    assert len(told) == len({*told})


def holds(rules: list[Rule], row: Any, action: str, service: str) -> bool:
    """Whether it is allowed where exactly what the row says is so: symbols, not times."""
    user = next((atom.text for atom in row.who if atom.kind == "user"), "anyone")
    groups = frozenset(atom.text for atom in row.who if atom.kind == "group")
    inside = row.inside if service == OTHER else naive.SERVICES.get(service, ())
    said = {(atom.kind, atom.text) for atom in row.conditions}
    mine = set()
    for rule in rules:
        point = Point(user, groups, action, service, inside, 0.0, "", False, frozenset(), False)
        needs = {("when", naive.WINDOWS[rule["when"]][1])} if rule.get("when") else set()
        needs |= {("until", naive.UNTIL)} if rule.get("expires") else set()
        needs |= {("from", naive.FROM)} if rule.get("from") else set()
        if action in naive.CHANGING:
            needs |= {("reason", "")} if rule.get("reason") else set()
            needs |= {("limit", rule["limit"])} if rule.get("limit") else set()
            needs |= {("approval", naive.APPROVED)} if rule.get("approval") else set()
        if naive.is_about(rule, point) and needs <= said:
            mine.add(rule["kind"])
    return mine == {"grant"}


@examples(40)
@given(two=TWO)
def test_whatever_the_diff_says_is_so_for_whom_it_names(two: tuple[list[Rule], list[Rule]]) -> None:
    old, new = two
    for change in changes(policy_of(old), policy_of(new)):
        if any(atom.nth > 1 for atom in change.row.conditions):
            continue  # further counters, which the naive evaluator has none of
        for action in change.row.actions:
            for service in change.row.services:
                was, will = (holds(rules, change.row, action, service) for rules in (old, new))
                lost = any(atom.kind == "limit" for atom in change.row.conditions)  # by fewer counters
                assert (was, will) == ((False, True) if change.kind == "gained" else (True, False)) or lost, change


@examples(15)
@given(rules=naive.RULES, seed=st.randoms(use_true_random=False))
def test_neither_the_order_of_files_nor_that_of_rules_is_a_change(rules: list[Rule], seed: Any) -> None:
    other = seed.sample(rules, len(rules))
    half = len(rules) // 2
    assert changes(policy_of(rules), policy_of(other[half:], other[:half])) == []


@examples(15)
@given(rules=naive.RULES, more=naive.RULE)
def test_a_further_grant_takes_no_right_and_a_further_deny_gives_none(rules: list[Rule], more: Rule) -> None:
    added = naive.named([*rules, {key: value for key, value in more.items() if key not in ("approval", "limit")}])
    rules = naive.named(added[:-1])
    told = {change.kind for change in changes(policy_of(rules), policy_of(added))}
    assert told <= {"gained" if more["kind"] == "grant" else "lost"}
    back = {change.kind for change in changes(policy_of(added), policy_of(rules))}
    assert back <= {"lost" if more["kind"] == "grant" else "gained"}


def rule(kind: str, who: str, name: str = "r", on: str = "site", **more: Any) -> Rule:
    return {"kind": kind, "id": name, "who": [who], "may": ["restart"], "on": [on], **more}


WEBOPS, LEADS = Atom("group", "webops"), Atom("group", "leads")


def test_a_change_that_only_people_in_two_groups_at_once_see_is_told_as_theirs() -> None:
    grant, deny = rule("grant", "group:webops"), rule("deny", "group:leads", "d")
    [lost] = changes(policy_of([grant]), policy_of([grant, deny]))
    assert (lost.kind, lost.row.who, lost.row.services, lost.still) == ("lost", (LEADS, WEBOPS), ("site",), ())
    [gained] = changes(policy_of([grant, deny]), policy_of([grant]))
    assert (gained.kind, gained.row.who) == ("gained", (LEADS, WEBOPS))


def test_a_new_condition_is_the_loss_of_the_right_without_it_and_what_is_left_is_told() -> None:
    [lost] = changes(
        policy_of([rule("grant", "group:webops")]), policy_of([rule("grant", "group:webops", reason=True)])
    )
    assert (lost.kind, lost.row.who, lost.row.conditions) == ("lost", (WEBOPS,), ())
    assert (lost.still, lost.but) == ((frozenset({Atom("reason", "")}),), ())


def test_whom_the_other_policy_excepts_from_what_is_left_is_told_with_it() -> None:
    deny = rule("deny", "group:leads", "d")
    before, after = ([rule("grant", "group:webops", **more)] for more in ({}, {"reason": True}))
    [lost] = changes(policy_of(before), policy_of([*after, deny]))
    assert (lost.row.unless, lost.but) == ((), (frozenset({LEADS}),))
    [lost] = changes(policy_of([*before, deny]), policy_of([*after, deny]))
    assert (lost.row.unless, lost.but) == ((frozenset({LEADS}),), ())


def test_whom_the_new_policy_excepts_is_said() -> None:
    after = policy_of([rule("grant", "group:webops"), rule("deny", "group:leads", "d", "*")])
    [gained] = changes(policy_of([]), after)
    assert (gained.row.who, gained.row.unless) == ((WEBOPS,), (frozenset({LEADS}),))


def test_a_service_that_only_one_policy_knows_has_rights_there_alone() -> None:
    every = policy_of([rule("grant", "group:webops", on="*")])
    told = changes(every, every, {"site": ()}, {"site": (), "shop": ()})
    assert [(change.kind, change.row.services) for change in told] == [("gained", ("shop",))]


def test_a_service_that_is_not_configured_yet_is_told_with_the_groups_that_make_the_difference() -> None:
    [known, other] = changes(policy_of([]), policy_of([rule("grant", "group:webops", on="group:money")]))
    assert (other.row.services, other.row.inside) == ((OTHER,), ("money",)) or known.row.inside == ("money",)


def test_fewer_counters_are_a_loss() -> None:
    one = [rule("grant", "group:webops", limit="1 in 10m")]
    two = [*one, rule("grant", "group:webops", "again", limit="1 in 10m")]
    [lost] = changes(policy_of(two), policy_of(one))
    assert (lost.kind, [atom.nth for atom in lost.row.conditions]) == ("lost", [2])


ONE_FOR_BOTH = {"kind": "grant", "id": "r", "who": ["group:webops", "group:leads"], "may": ["restart"], "on": ["site"]}


def one_each(**more: Any) -> list[Rule]:
    return [rule("grant", "group:webops", "a", **more), rule("grant", "group:leads", "b", **more)]


def test_a_limit_of_two_groups_that_counts_apart_from_now_on_is_a_gain_for_who_is_in_both() -> None:
    more = {"limit": "1 in 10m", "reason": True}
    together, apart = policy_of([{**ONE_FOR_BOTH, **more}]), policy_of(one_each(**more))
    [gained] = changes(together, apart)
    conditions = (Atom("reason", ""), Atom("limit", "1 in 10m", 2))
    assert (gained.kind, gained.row.who, gained.row.actions) == ("gained", (LEADS, WEBOPS), ("restart",))
    assert (gained.row.services, gained.row.conditions, gained.still) == (("site",), conditions, ())
    [lost] = changes(apart, together)
    assert (lost.kind, lost.row) == ("lost", gained.row)
    assert changes(together, policy_of([{**ONE_FOR_BOTH, **more, "id": "other"}])) == []


def test_how_often_is_not_told_where_nobody_can_be_both_or_a_deny_stops_who_is_or_each_alone_may_it_otherwise() -> None:
    limit = {"limit": "1 in 10m"}
    users = ["user:alice", "user:bob"]
    two = [rule("grant", who, name, **limit) for who, name in zip(users, "ab", strict=True)]
    assert changes(policy_of([{**ONE_FOR_BOTH, **limit, "who": users}]), policy_of(two)) == []
    deny = {**rule("deny", "group:webops", "d"), "who": ["group:webops"]}
    assert changes(policy_of([{**ONE_FOR_BOTH, **limit}, deny]), policy_of([*one_each(**limit), deny])) == []
    other = [rule("grant", "group:webops", "a", limit="2 in 10m"), rule("grant", "group:leads", "b", **limit)]
    told = changes(policy_of([{**ONE_FOR_BOTH, **limit}]), policy_of(other))
    assert {change.row.who for change in told} == {(WEBOPS,)}


def test_an_exception_from_a_further_counter_is_told_with_it() -> None:
    night = rule("deny", "group:webops", "d", when="weekend")
    limit = {"limit": "1 in 10m"}
    [gained] = changes(policy_of([{**ONE_FOR_BOTH, **limit}, night]), policy_of([*one_each(**limit), night]))
    assert gained.row.unless == (frozenset({Atom("when", "Sat-Sun 00:00-24:00 UTC")}),)


def counters(rules: list[Rule], who: set[str], action: str, service: str, limit: str) -> int:
    """How many rules with this limit alone let who is all of this do it."""
    on = {service, "*", *(f"group:{group}" for group in naive.SERVICES[service])}
    about = [
        one for one in rules if not who.isdisjoint(one["who"]) and action in one["may"] and not on.isdisjoint(one["on"])
    ]
    return sum(one.get("limit") == limit for one in about)


LIMITED = st.lists(
    st.fixed_dictionaries(
        {
            "who": st.lists(st.sampled_from(["user:alice", "group:webops", "group:leads"]), min_size=1, unique=True),
            "on": st.lists(st.sampled_from(["site", "group:web", "*"]), min_size=1, unique=True),
            "limit": st.sampled_from(naive.LIMITS[:2]),
        }
    ),
    max_size=4,
)


@examples(40)
@given(old=LIMITED, new=LIMITED)
def test_who_is_two_at_once_and_may_do_it_more_or_less_often_is_in_the_diff(old: list[Rule], new: list[Rule]) -> None:
    rules = [
        [{"kind": "grant", "id": f"r{n}", "may": ["restart"], **one} for n, one in enumerate(some)]
        for some in (old, new)
    ]
    told = changes(policy_of(rules[0]), policy_of(rules[1]))
    for who in itertools.combinations(("user:alice", "group:webops", "group:leads"), 2):
        for service, limit in itertools.product(naive.SERVICES, naive.LIMITS[:2]):
            had, has = (counters(some, {*who}, "restart", service, limit) for some in rules)
            atoms = {Atom(*one.split(":")) for one in who}
            mine = [one for one in told if {*one.row.who} <= atoms and service in one.row.services]
            assert had == has or any(("gained" if has > had else "lost") == one.kind for one in mine), (
                who,
                service,
                told,
            )


def test_whom_a_deny_still_stops_has_nothing_left_of_it() -> None:
    night = rule("deny", "group:webops", "d", when="weekend")
    [lost] = changes(policy_of([rule("grant", "group:webops")]), policy_of([rule("grant", "group:webops"), night]))
    assert lost.row.conditions == (Atom("when", "Sat-Sun 00:00-24:00 UTC"),)
    assert lost.still == (frozenset(),)


def test_where_another_deny_takes_the_place_of_one_nothing_is_gained() -> None:
    grant = rule("grant", "group:webops")
    before, after = (rule("deny", who, "d", when="weekend") for who in ("group:leads", "group:webops"))
    told = changes(policy_of([grant, before]), policy_of([grant, after]))
    assert [(change.kind, change.row.who) for change in told] == [("lost", (WEBOPS,))]
