"""Groups of a policy's own: what they stand for, and what is wrong with one that could do nothing."""

from __future__ import annotations

import itertools

import pytest

from policy.decide import Allow, decide
from policy.identity import person
from policy.messages import Problem
from policy.named import DEEPEST
from policy.parse import parse
from policy.rules import Policy

SERVICES = {"site": ("frontend",), "shop": ("frontend",), "worker": ()}
RULE = '[[grant]]\nid = "g"\nwho = ["@crew"]\nmay = ["@operate"]\non = ["@outer"]\n'
GROUPS = """\
[group.crew]
people = ["user:alice", "@leads"]
[group.leads]
people = ["group:leads", "user:bob"]
[group.operate]
actions = ["start", "@halt"]
[group.halt]
actions = ["stop", "restart"]
[group.outer]
services = ["worker", "group:frontend"]
"""


def read(*texts: str) -> Policy:
    policy = parse([(f"policy.d/{number}.toml", text) for number, text in enumerate(texts)], SERVICES)
    assert isinstance(policy, Policy), policy
    return policy


def refused(*texts: str) -> list[Problem]:
    problems = parse([(f"policy.d/{number}.toml", text) for number, text in enumerate(texts)], SERVICES)
    assert isinstance(problems, list), "this should have been refused"
    return problems


def only(*texts: str) -> tuple[str, int, str, str]:
    (problem,) = refused(*texts)
    return problem.file, problem.line, problem.key, problem.text


@pytest.mark.parametrize("texts", [(GROUPS, RULE), (RULE, GROUPS), (GROUPS + RULE,), (RULE + GROUPS,)])
def test_a_rule_holds_what_its_groups_hold_wherever_they_are_written(texts: tuple[str, ...]) -> None:
    (grant,) = read(*texts).grants
    assert (grant.users, grant.groups) == (("alice", "bob"), ("leads",))
    assert grant.may == {"start", "stop", "restart"}
    assert grant.on == ("worker", "group:frontend")


def test_what_a_group_holds_is_granted_and_nothing_else() -> None:
    policy = read(GROUPS, RULE)
    for user, unix, action, service in itertools.product(
        ("alice", "bob", "carol"), ((), ("leads",), ("crew",)), ("start", "restart", "view"), SERVICES
    ):
        expected = action != "view" and (user != "carol" or unix == ("leads",))
        decision = decide(policy, person(user, 1001, unix, ""), action, service, SERVICES[service])
        assert isinstance(decision, Allow) == expected


def test_a_deny_takes_groups_too() -> None:
    policy = read(GROUPS, RULE, '[[deny]]\nid = "d"\nwho = ["@leads"]\nmay = ["@halt", "signal"]\non = ["@outer"]\n')
    assert not isinstance(decide(policy, person("bob", 1, [], ""), "stop", "worker"), Allow)
    assert isinstance(decide(policy, person("bob", 1, [], ""), "start", "worker"), Allow)


def test_what_stands_twice_through_groups_counts_once() -> None:
    (grant,) = read(GROUPS, RULE.replace('["@crew"]', '["user:bob", "@leads", "@crew"]')).grants
    assert grant.users == ("bob", "alice")


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("[group]\nx = 1\n", 2, "group.x", "write [group.x] with a key below it, not a number"),
        ("group = 1\n", 1, "group", "write [group.NAME] with people, services or actions below it, not a number"),
        ("[[group]]\n", 1, "group", "write [group.NAME] with people, services or actions below it, not a list"),
        ("[group.a]\n", 1, "group.a", "a group has one of 'people', 'services' and 'actions'"),
        ('[group.a]\npeople = ["user:a"]\nactions = ["stop"]\n', 1, "group.a", "a group has one of"),
        ("[group.a]\npeople = []\n", 2, "group.a.people", "'people' is empty"),
        ('[group.a]\npeople = "user:a"\n', 2, "group.a.people", "'people' must be a list of texts"),
        ('[group.a]\npeople = ["alice"]\n', 2, "group.a.people[0]", "'alice' is nobody"),
        ('[group.a]\nservices = ["sites"]\n', 2, "group.a.services[0]", "called 'sites'; did you mean 'site'?"),
        ('[group.a]\nactions = ["stopp"]\n', 2, "group.a.actions[0]", "'stopp' is not an action"),
        ('[group.a]\npeople = ["user:a", "user:a"]\n', 2, "group.a.people[1]", "'user:a' stands here twice"),
        ('[group.a]\npeople = ["@b"]\n', 2, "group.a.people[0]", "there is no group '@b'"),
        ('[group.a]\npeople = ["@a"]\n', 2, "group.a.people[0]", "this group holds itself: a → a"),
        ('[group.a]\nactions = ["@b"]\n[group.b]\npeople = ["user:a"]\n', 2, "group.a.actions[0]", "of people"),
        ('[group."A b"]\npeople = ["user:a"]\n', 1, 'group."A b"', "'A b' is not a group name"),
    ],
)
def test_a_group_that_is_wrong_is_told_where_it_is_written(text: str, line: int, key: str, words: str) -> None:
    used = '[[grant]]\nid = "g"\nwho = ["@a"]\nmay = ["view"]\non = ["site"]\n'
    problems = [problem for problem in refused(text, used) if problem.file == "policy.d/0.toml"]
    assert [(problem.line, problem.key) for problem in problems] == [(line, key)]
    assert words in problems[0].text


def test_an_unknown_group_is_told_with_one_that_is_meant() -> None:
    used = RULE.replace("@crew", "@crw")
    problems = refused(GROUPS, used)
    assert [(problem.file, problem.line, problem.key) for problem in problems] == [
        ("policy.d/0.toml", 1, "group.crew"),  # nothing uses it now
        ("policy.d/1.toml", 3, "grant[0].who[0]"),
    ]
    assert problems[1].text == ("there is no group '@crw': a policy makes one by [group.NAME]; did you mean 'crew'?")


def test_a_group_of_another_kind_is_told_where_it_could_stand() -> None:
    place = only(GROUPS, RULE, '[[grant]]\nid = "h"\nwho = ["@halt"]\nmay = ["view"]\non = ["site"]\n')
    assert place == ("policy.d/2.toml", 3, "grant[0].who[0]", "'@halt' is a group of actions: it can stand in 'may'")


def test_a_circle_is_told_once_with_all_that_are_in_it() -> None:
    text = '[group.a]\npeople = ["@b"]\n[group.b]\npeople = ["user:x", "@c"]\n[group.c]\npeople = ["@a"]\n'
    used = RULE.replace("@crew", "@b").replace("@operate", "stop").replace("@outer", "site")
    assert only(text, used) == ("policy.d/0.toml", 6, "group.c.people[0]", "this group holds itself: a → b → c → a")


def test_a_group_that_nothing_uses_is_a_mistake() -> None:
    assert only(GROUPS, RULE, '[group.rest]\npeople = ["user:x"]\n') == (
        "policy.d/2.toml", 1, "group.rest", "nothing uses @rest: take it out, or name it in a rule",
    )  # fmt: skip


def test_what_may_be_used_by_a_file_that_cannot_be_read_is_not_called_unused() -> None:
    assert [problem.file for problem in refused(GROUPS, "[[grant\n")] == ["policy.d/1.toml"]


def test_a_name_is_given_to_one_group_of_all_files() -> None:
    problem = only(GROUPS, RULE, '[group.crew]\npeople = ["user:x"]\n')
    assert problem == ("policy.d/2.toml", 1, "group.crew", "the name 'crew' is taken by the group at policy.d/0.toml:1")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("length", [DEEPEST, DEEPEST + 1, 300])
def test_groups_inside_each_other_are_followed_so_deep_and_no_deeper_whatever_their_order(
    length: int, turned: bool
) -> None:
    chain = [f'[group.g{n}]\npeople = ["@g{n + 1}"]\n' for n in range(length - 1)]
    chain.append(f'[group.g{length - 1}]\npeople = ["user:alice"]\n')
    used = RULE.replace("@crew", "@g0").replace("@operate", "stop").replace("@outer", "site")
    outcome = parse([("0", "".join(reversed(chain) if turned else chain)), ("1", used)], SERVICES)
    assert isinstance(outcome, Policy) == (length <= DEEPEST)
    if isinstance(outcome, list):
        assert all("more than 20 groups are inside each other" in problem.text for problem in outcome)


def test_a_test_names_people_actions_and_services_and_no_groups() -> None:
    text = '[[test]]\nuser = "bob"\nmay = "@operate"\non = "@outer"\nexpect = "allow"\n'
    problems = refused(GROUPS, RULE, text)
    assert [problem.key for problem in problems] == ["test[0].may", "test[0].on"]
