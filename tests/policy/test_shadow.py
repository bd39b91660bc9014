"""policy/shadow: a rule that is called dead decides nothing, whoever asks for what, when and how; and which are."""

from __future__ import annotations

import itertools
from datetime import UTC

import pytest
from examples import examples
from hypothesis import given, strategies as st

from policy.conditions import Approval, Asking, Expiry, Limit, Sources
from policy.decide import Allow, decide
from policy.identity import Identity
from policy.names import Action, RuleId, UserName
from policy.rules import Deny, Grant, Policy, build
from policy.shadow import Rule, cells, dead, wider
from policy.windows import Window

SERVICES = {"site": ("web",), "db": ()}
DAY, NIGHT = (Window(frozenset(range(7)), *hours, UTC, text) for hours, text in (((480, 1080), "d"), ((0, 480), "n")))
EARLY, LATE = Expiry(86400.0, "early"), Expiry(2 * 86400.0, "late")
HOME, LOCAL = Sources(((4, 10 << 24, 255 << 24),), False, "home"), Sources((), True, "local")
LIMITED = Limit(1, 60.0, "1 in 1m")
BY_BOSS = Approval((UserName("boss"),), (), 60.0, "user:boss")
USERS, GROUPS = ("alice",), ("ops",)
ACTIONS = (Action.VIEW, Action.STOP)

# few, so that rules often meet
subjects = st.sampled_from([["alice"], ["alice"], ["ops"], ["alice", "ops"]])
rules = st.fixed_dictionaries(
    {
        "subjects": subjects,
        "may": st.sampled_from([frozenset(ACTIONS), frozenset(ACTIONS[1:])]),
        "on": st.sampled_from([["site"], ["*"], ["group:web"], ["site", "db"]]),
        "when": st.sampled_from([None, None, None, DAY, NIGHT]),
        "expires": st.sampled_from([None, None, None, EARLY, LATE]),
    }
)
demands = st.fixed_dictionaries(
    {
        "sources": st.sampled_from([None, None, None, HOME, LOCAL]),
        "reason": st.booleans(),
        "limit": st.sampled_from([None, LIMITED]),
        "approval": st.sampled_from([None, None, BY_BOSS]),
    }
)


def rule(kind: type[Rule], order: int, subjects: list[str], name: str = "", **more: object) -> Rule:
    users = tuple(UserName(one) for one in subjects if one in USERS)
    groups = tuple(UserName(one) for one in subjects if one in GROUPS)
    fields = {"may": frozenset({Action.STOP}), "on": ("site",)} | more
    fields["on"] = tuple(fields["on"])  # type: ignore[arg-type]
    named = RuleId(name or f"{kind.__name__}{order}")
    return kind(id=named, users=users, groups=groups, file="10.toml", line=order + 1, order=order, **fields)


def policy_of(grants: list[Rule], denies: list[Rule] = []) -> Policy:  # noqa: B006  # it is not changed
    return build(grants, denies)  # type: ignore[arg-type]


def every_question() -> list[tuple[Identity, Action, str, Asking]]:
    people = [
        Identity("alice", 1000),
        Identity("alice", 1000, frozenset({"ops"})),
        Identity("bob", 1, frozenset({"ops"})),
    ]
    ids = frozenset(f"Grant{number}" for number in range(9))
    askings = [
        Asking(at, source, reason, looks, wait, approved)
        for at in (None, 40000.0, 86400.0 + 3600.0, 3 * 86400.0)
        for source in ("10.0.0.1", "unix:5")
        for reason in ("", "because")
        for looks in (True, False)
        for wait in (lambda rule, limit: 0.0, lambda rule, limit: 9.0)
        for approved in (frozenset[str](), ids)
    ]
    return list(itertools.product(people, ACTIONS, SERVICES, askings))


QUESTIONS = every_question()


@examples(50)
@given(
    st.lists(st.tuples(rules, demands), min_size=1, max_size=3),
    st.lists(rules, max_size=1),
    st.randoms(use_true_random=False),
)
def test_a_rule_that_is_called_dead_decides_nothing_and_its_loss_changes_nothing(
    granted: list[tuple[dict[str, object], dict[str, object]]], denied: list[dict[str, object]], chance: object
) -> None:
    names = [f"Grant{number}" for number in range(len(granted))]
    chance.shuffle(names)  # type: ignore[attr-defined]  # of rules that demand as much the ids say which comes first
    grants = [rule(Grant, at, name=names[at], **one, **more) for at, (one, more) in enumerate(granted)]  # type: ignore[arg-type]
    denies = [rule(Deny, at, **one) for at, one in enumerate(denied)]  # type: ignore[arg-type]
    whole = policy_of(grants, denies)
    gone = {one.rule.id for one in dead(whole, SERVICES) if one.why != "duplicate"}
    if not gone:
        return
    rest = policy_of([one for one in grants if one.id not in gone], [one for one in denies if one.id not in gone])
    for identity, action, service, asking in QUESTIONS:
        came = decide(whole, identity, action, service, SERVICES[service], asking)
        assert came.rule not in gone
        without = decide(rest, identity, action, service, SERVICES[service], asking)
        assert (type(came), came.rule) == (type(without), without.rule)


def found(grants: list[Rule], denies: list[Rule] = []) -> list[tuple[str, str, list[str]]]:  # noqa: B006
    return [(one.rule.id, one.why, [by.id for by in one.by]) for one in dead(policy_of(grants, denies), SERVICES)]


@pytest.mark.parametrize(
    ("first", "second", "is_dead"),
    [
        ({"on": ["*"]}, {"on": ["site"]}, True),
        ({"on": ["group:web"]}, {"on": ["site"]}, True),
        ({"on": ["group:web"]}, {"on": ["site", "db"]}, False),  # db is not in it
        ({"on": ["site"]}, {"on": ["*"]}, False),
        ({"on": ["site"]}, {"on": ["group:web"]}, False),  # somebody else may join the group
        ({"may": frozenset(ACTIONS)}, {}, True),
        ({}, {"may": frozenset(ACTIONS)}, False),
        ({"when": DAY}, {}, False),
        ({}, {"when": DAY}, True),
        ({"on": ["*"], "when": DAY}, {"when": DAY}, True),
        ({"on": ["*"], "when": NIGHT}, {"when": DAY}, False),
        ({"on": ["*"], "expires": EARLY}, {"expires": LATE}, False),
        ({"on": ["*"], "expires": EARLY}, {}, False),
        ({"on": ["*"], "expires": LATE}, {"expires": EARLY}, True),
        ({"on": ["*"], "sources": HOME}, {}, False),
        ({"on": ["*"], "sources": HOME}, {"sources": HOME}, True),
        ({"on": ["*"], "sources": HOME}, {"sources": LOCAL}, False),
        ({"on": ["*"]}, {"sources": LOCAL}, True),
        ({"on": ["*"], "reason": True}, {}, False),
        ({"on": ["*"]}, {"reason": True, "limit": LIMITED, "approval": BY_BOSS}, True),
        ({"on": ["*"], "reason": True}, {"reason": True}, True),
        ({"on": ["*"], "reason": True}, {"reason": True, "limit": LIMITED}, True),
        ({"on": ["*"], "reason": True}, {"limit": LIMITED}, False),  # which needs no reason
        ({"on": ["*"], "limit": LIMITED}, {"limit": LIMITED}, False),  # it may be used up
        ({"on": ["*"], "approval": BY_BOSS}, {"approval": BY_BOSS}, False),  # an approval is for one rule
    ],
)
def test_a_grant_is_shadowed_by_one_that_always_comes_first(
    first: dict[str, object], second: dict[str, object], is_dead: bool
) -> None:
    told = found([rule(Grant, 0, ["alice"], **first), rule(Grant, 1, ["alice"], **second)])
    assert told == ([("Grant1", "shadowed", ["Grant0"])] if is_dead else [])


def test_of_two_grants_that_demand_as_much_the_later_one_is_shadowed_only_if_its_id_is_later_too() -> None:
    wide = {"on": ["*"], "reason": True}
    names = found([rule(Grant, 0, ["alice"], "z", **wide), rule(Grant, 1, ["alice"], "a", reason=True)])  # type: ignore[arg-type]
    assert names == []


def test_a_grant_that_demands_nothing_shadows_an_earlier_one_that_demands_something() -> None:
    assert found([rule(Grant, 0, ["alice"], reason=True), rule(Grant, 1, ["alice"], on=["*"])]) == [
        ("Grant0", "shadowed", ["Grant1"])
    ]


def test_several_rules_may_shadow_one_together() -> None:
    wide = [rule(Grant, 0, ["alice"], on=["*"]), rule(Grant, 1, ["ops"], on=["*"]), rule(Grant, 2, ["alice", "ops"])]
    assert found(wide) == [("Grant2", "shadowed", ["Grant0", "Grant1"])]


def test_a_group_shadows_nothing_of_a_person_who_may_leave_it() -> None:
    assert found([rule(Grant, 0, ["ops"], on=["*"]), rule(Grant, 1, ["alice"])]) == []


def test_a_grant_that_denies_forbid_in_every_part_is_denied_and_one_that_they_forbid_in_part_is_not() -> None:
    denies = [rule(Deny, 0, ["alice"], on=["*"]), rule(Deny, 1, ["ops"], on=["group:web"])]
    assert found([rule(Grant, 0, ["alice", "ops"])], denies) == [("Grant0", "denied", ["Deny0", "Deny1"])]
    assert found([rule(Grant, 0, ["alice", "ops"], on=["site", "db"])], denies) == []
    assert found([rule(Grant, 0, ["alice"], may=frozenset(ACTIONS))], denies) == []
    assert found([rule(Grant, 0, ["alice"])], [rule(Deny, 0, ["alice"], when=DAY)]) == []
    assert found([rule(Grant, 0, ["alice"], when=DAY)], [rule(Deny, 0, ["alice"], when=DAY)]) != []


def test_what_is_said_twice_is_a_duplicate_also_where_it_may_decide() -> None:
    same = {"limit": LIMITED, "sources": HOME, "approval": BY_BOSS, "when": DAY, "expires": LATE}
    assert found([rule(Grant, at, ["alice", "ops"][:: 1 - 2 * at], **same) for at in (0, 1)]) == [  # type: ignore[arg-type]
        ("Grant1", "duplicate", ["Grant0"])
    ]
    assert found([], [rule(Deny, 0, ["alice"]), rule(Deny, 1, ["alice"])]) == [("Deny1", "duplicate", ["Deny0"])]


def test_a_deny_is_shadowed_by_an_earlier_wider_one_and_not_by_a_later_one() -> None:
    narrow, wide = {}, {"on": ["*"]}
    assert found([], [rule(Deny, 0, ["alice"], **wide), rule(Deny, 1, ["alice"], **narrow)]) == [  # type: ignore[arg-type]
        ("Deny1", "shadowed", ["Deny0"])
    ]
    assert found([], [rule(Deny, 0, ["alice"], **narrow), rule(Deny, 1, ["alice"], **wide)]) == []  # type: ignore[arg-type]


def test_a_rule_has_a_cell_for_each_person_action_and_entry() -> None:
    one = rule(Grant, 0, ["alice", "ops"], may=frozenset(ACTIONS), on=["site", "*"])
    assert len({*cells(one)}) == 8
    assert ("group", "ops", "stop", "*") in cells(one)


def test_wider_entries_are_the_services_groups_and_everything() -> None:
    assert [*wider("site", SERVICES)] == ["site", "group:web", "*"]
    assert [*wider("group:web", SERVICES)] == ["group:web", "*"]
    assert [*wider("*", SERVICES)] == ["*"]


def test_the_questions_reach_both_answers() -> None:
    policy = policy_of([rule(Grant, 0, ["alice"], on=["*"], when=DAY, sources=HOME, reason=True, limit=LIMITED)])
    came = {type(decide(policy, *question[:3], SERVICES[question[2]], question[3])) for question in QUESTIONS}
    assert Allow in came
    assert len(came) == 2
