"""Policy files: read whole or refused whole, with everything that is wrong (attack rows A10, B5)."""

from __future__ import annotations

import hashlib
import random
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from policy.messages import Problem
from policy.parse import SUGGESTIONS, parse
from policy.rules import Policy

SERVICES = {"site": ("frontend",), "shop": ("frontend", "money"), "worker": ()}

# The tests stand before the rules, and say of each right who has it: so a file that was cut off or damaged is refused.
PINNED = """\
[[test]]  # who may do what
user = "bob"
groups = ["webops"]
may = "restart"
on = "worker"
at = 2026-11-23T12:00:00+01:00
expect = "allow"
[[test]]
user = "bob"
groups = ["webops"]
may = "view"
on = "site"
expect = "allow"
[[test]]
user = "bob"
groups = ["webops"]
may = "restart"
on = "shop"
expect = "allow"
[[test]]
user = "bob"
groups = ["webops"]
may = "view"
on = "worker"
expect = "allow"
[[test]]
user = "alice"
may = "view"
on = "site"
expect = "allow"
[[test]]
user = "alice"
may = "reload"
expect = "allow"
[[test]]
user = "carol"
groups = ["webops", "contractors"]
may = "restart"
on = "site"
expect = "deny"
[[test]]
user = "carol"
groups = ["webops", "contractors"]
may = "restart"
on = "worker"
expect = "deny"
[[grant]]
id = "webops"  # the team
who = ["group:webops", "user:alice"]
may = ["view", "restart"]
on = ["worker", "group:frontend"]
[[grant]]
id = "alice-reloads"
who = ["user:alice"]
may = ["reload"]
[[deny]]
id = "contractors"
who = ["group:contractors"]
may = ["restart"]
on = ["*"]
"""

GRANT = '[[grant]]\nid = "g"\nwho = ["group:webops"]\nmay = ["view"]\non = ["site"]\n'


def read(text: str, services: dict[str, tuple[str, ...]] = SERVICES) -> Policy:
    policy = parse([("policy.d/10-web.toml", text)], services)
    assert isinstance(policy, Policy), policy
    return policy


def refused(*texts: str) -> list[Problem]:
    files = [(f"policy.d/{number}0.toml", text) for number, text in enumerate(texts, 1)]
    problems = parse(files, SERVICES)
    assert isinstance(problems, list), "this should have been refused"
    assert problems
    return problems


def rules(policy: Policy) -> set[tuple[object, ...]]:
    """What a policy says, without names and places of its rules."""
    return {
        (type(rule), frozenset(rule.users), frozenset(rule.groups), rule.may, frozenset(rule.on))
        for rule in (*policy.grants, *policy.denies)
    }


def test_rules_are_read_with_their_file_and_line() -> None:
    policy = read(PINNED)
    webops, reloads = policy.grants
    assert (webops.id, webops.users, webops.groups) == ("webops", ("alice",), ("webops",))
    assert (webops.may, webops.on) == ({"view", "restart"}, ("worker", "group:frontend"))
    assert (webops.file, webops.line, webops.order) == ("policy.d/10-web.toml", 47, 0)
    assert (reloads.on, reloads.line, reloads.order) == (("*",), 52, 1)
    (deny,) = policy.denies
    assert (deny.id, deny.groups, deny.may, deny.on, deny.line) == (
        "contractors",
        ("contractors",),
        {"restart"},
        ("*",),
        56,
    )
    assert len(policy.tests) == 8
    test = policy.tests[0]
    assert (test.user, test.groups, test.may, test.on, test.expect) == ("bob", {"webops"}, "restart", "worker", "allow")
    assert test.at == datetime.fromisoformat("2026-11-23T12:00:00+01:00").timestamp()
    assert (test.file, test.line, test.number) == ("policy.d/10-web.toml", 1, 0)


def test_no_files_are_a_policy_that_grants_nothing() -> None:
    policy = parse([], {})
    assert isinstance(policy, Policy)
    assert (policy.grants, policy.denies, policy.tests) == ((), (), ())
    assert policy.hash == hashlib.sha256().hexdigest()


def test_the_hash_is_of_paths_and_texts_in_the_order_of_their_names() -> None:
    def digest(*files: tuple[str, str]) -> str:
        policy = parse(files, SERVICES)
        assert isinstance(policy, Policy)
        return policy.hash

    assert digest(("a", ""), ("b", "#")) == digest(("b", "#"), ("a", ""))
    assert digest(("a", "#")) == hashlib.sha256(b"1:a1:#").hexdigest()
    different = {digest(), digest(("a", "")), digest(("a", "#")), digest(("b", "")), digest(("a", ""), ("b", ""))}
    assert len(different) == 5


def test_files_are_read_in_the_order_of_their_names() -> None:
    other = GRANT.replace('"g"', '"h"')
    policy = parse([("20.toml", GRANT), ("10.toml", other)], SERVICES)
    assert isinstance(policy, Policy)
    assert [(rule.id, rule.file, rule.order) for rule in policy.grants] == [("h", "10.toml", 0), ("g", "20.toml", 1)]


# what is wrong, line, key, words of the sentence
WRONG = [
    (
        "[[grnat]]\n",
        1,
        "grnat",
        "there is no 'grnat' in a policy, only [[grant]], [[deny]], [[test]] and [group.NAME]; did you mean 'grant'?",
    ),
    ("zzz = 1\n", 1, "zzz", "only [[grant]], [[deny]], [[test]]"),
    ("[grant]\nid = 'x'\n", 1, "grant", "write [[grant]], with two brackets, for each grant"),
    ("\ntest = ['x']\n", 2, "test[0]", "write [[test]] with keys below it, not 'x'"),
    ("a = \n", 1, "", "this is not TOML: Invalid value (at line 1, column 5)"),
    ("a = 1\n[[", 2, "", "this is not TOML"),
    ("a = " + "[" * 10_000, 1, "", "this is not TOML"),
    ("#\na = " + "9" * 5000, 2, "", "this is not TOML"),
    (GRANT + "wen = {}\n", 6, "grant[0].wen", "there is no key 'wen' here"),
    (GRANT + "whom = []\n", 6, "grant[0].whom", "there is no key 'whom' here; did you mean 'who'?"),
    (GRANT.replace('id = "g"\n', ""), 1, "grant[0].id", "'id' is missing"),
    (GRANT.replace('"g"', "7"), 2, "grant[0].id", "this must be a text in quotes, not a number"),
    (GRANT.replace('"g"', "true"), 2, "grant[0].id", "not true or false"),
    (GRANT.replace('"g"', "[]"), 2, "grant[0].id", "not a list"),
    (GRANT.replace('"g"', "{}"), 2, "grant[0].id", "not a table"),
    (GRANT.replace('"g"', "2026-01-01"), 2, "grant[0].id", "not a date or time"),
    (GRANT.replace('"g"', '"root"'), 2, "grant[0].id", "'root' is not an id"),
    (GRANT.replace('"g"', '"a b"'), 2, "grant[0].id", "'a b' is not an id"),
    (GRANT + GRANT, 7, "grant[1].id", "the id 'g' is taken by the rule at policy.d/10.toml:1"),
    (GRANT + GRANT.replace("grant", "deny"), 7, "deny[0].id", "the id 'g' is taken by the rule at policy.d/10.toml:1"),
    (GRANT.replace('who = ["group:webops"]\n', ""), 1, "grant[0].who", "'who' is missing"),
    (
        GRANT.replace('["group:webops"]', '"group:webops"'),
        3,
        "grant[0].who",
        "'who' must be a list of texts, as in who =",
    ),
    (GRANT.replace('"group:webops"', ""), 3, "grant[0].who", "'who' is empty: this would apply to nothing"),
    (GRANT.replace('"group:webops"', "1"), 3, "grant[0].who[0]", "must be a text in quotes, not a number"),
    (GRANT.replace('"group:webops"', '"webops"'), 3, "grant[0].who[0]", "'webops' is nobody: write \"user:NAME\" or"),
    (GRANT.replace('"group:webops"', '"role:webops"'), 3, "grant[0].who[0]", "'role:webops' is nobody"),
    (GRANT.replace('"group:webops"', '"*"'), 3, "grant[0].who[0]", "'*' is nobody"),
    (GRANT.replace('"group:webops"', '"user:*"'), 3, "grant[0].who[0]", "'*' is not a user name"),
    (GRANT.replace('"group:webops"', '"user:1001"'), 3, "grant[0].who[0]", "'1001' is not a user name"),
    (GRANT.replace('"group:webops"', '"user:Alice"'), 3, "grant[0].who[0]", "'Alice' is not a user name"),
    (GRANT.replace('"group:webops"', '"user:a\\n"'), 3, "grant[0].who[0]", "'a\\n' is not a user name"),
    (GRANT.replace('"group:webops"', '"user:a",\n"user:a"'), 4, "grant[0].who[1]", "'user:a' stands here twice"),
    (GRANT.replace('may = ["view"]\n', ""), 1, "grant[0].may", "'may' is missing"),
    (GRANT.replace("view", "veiw"), 4, "grant[0].may[0]", "'veiw' is not an action: view, logs, clear, start, stop"),
    (GRANT.replace("view", "veiw"), 4, "grant[0].may[0]", "did you mean 'view'?"),
    (GRANT.replace("view", "disable"), 4, "grant[0].may[0]", "; that is the right 'enable'"),
    (GRANT.replace("view", "status"), 4, "grant[0].may[0]", "; that is the right 'view'"),
    (GRANT.replace('"site"', '"all"'), 5, "grant[0].on[0]", "called 'all'; every service is \"*\""),
    (GRANT.replace("view", "x" * 500), 4, "grant[0].may[0]", "'" + "x" * 59 + "…' is not an action"),
    (GRANT.replace('on = ["site"]\n', ""), 1, "grant[0].on", "'on' is missing"),
    (GRANT.replace('["site"]', "[]"), 5, "grant[0].on", "'on' is empty"),
    (GRANT.replace('"site"', '"sites"'), 5, "grant[0].on[0]", "no service is called 'sites'; did you mean 'site'?"),
    (GRANT.replace('"site"', '"zzz"'), 5, "grant[0].on[0]", "no service is called 'zzz'"),
    (GRANT.replace('"site"', '"frontend"'), 5, "grant[0].on[0]", "called 'frontend'; did you mean 'group:frontend'?"),
    (GRANT.replace('"site"', '"../site"'), 5, "grant[0].on[0]", "'../site' is not a service name"),
    (GRANT.replace('"site"', '"durward-api"'), 5, "grant[0].on[0]", "'durward-api' is Durward's own"),
    (
        GRANT.replace('"site"', '"group:fronted"'),
        5,
        "grant[0].on[0]",
        "in the group 'fronted'; did you mean 'frontend'?",
    ),
    (GRANT.replace('"site"', '"group:*"'), 5, "grant[0].on[0]", "'*' is not a group name"),
    (GRANT.replace("view", "reload"), 5, "grant[0].on", "'reload' cannot be limited to services"),
    (
        GRANT.replace('"view"', '"view", "audit", "policy"'),
        5,
        "grant[0].on",
        "'audit' and 'policy' cannot be limited to",
    ),
    ('[[grant]]\nid="g"\nwho=["user:a"]\nmay=["view", "reload"]\n', 1, "grant[0].on", "'on' is missing"),
]
TEST = '[[test]]\nuser = "bob"\ngroups = ["webops"]\nmay = "view"\non = "site"\nexpect = "allow"\n'
WRONG += [
    (TEST + "id = 'x'\n", 7, "test[0].id", "there is no key 'id' here"),
    (TEST.replace('user = "bob"\n', ""), 1, "test[0].user", "'user' is missing"),
    (TEST.replace('"bob"', '"user:bob"'), 2, "test[0].user", "'user:bob' is not a user name"),
    (TEST.replace('["webops"]', '"webops"'), 3, "test[0].groups", "'groups' must be a list of texts"),
    (
        TEST.replace('["webops"]', '["webops", "group:x"]'),
        3,
        "test[0].groups[1]",
        "'group:x' is not the name of a Unix group",
    ),
    (TEST.replace('may = "view"\n', ""), 1, "test[0].may", "'may' is missing"),
    (TEST.replace('"view"', '["view"]'), 4, "test[0].may", "must be a text in quotes, not a list"),
    (TEST.replace('on = "site"\n', ""), 1, "test[0].on", "'on' is missing"),
    (TEST.replace('"site"', '"group:frontend"'), 5, "test[0].on", "'group:frontend' is not a service name"),
    (TEST.replace('"site"', '"*"'), 5, "test[0].on", "'*' is not a service name"),
    (TEST.replace('"view"', '"reload"'), 5, "test[0].on", "'reload' is about the daemon as a whole: leave 'on' out"),
    (TEST.replace('expect = "allow"\n', ""), 1, "test[0].expect", "'expect' is missing"),
    (TEST.replace('"allow"', '"yes"'), 6, "test[0].expect", "not what a test can expect: allow, deny or approval"),
    (TEST + "at = 2026-01-01\n", 7, "test[0].at", "must be a date and a time with its offset"),
    (TEST + "at = 2026-01-01T10:00:00\n", 7, "test[0].at", "must be a date and a time with its offset"),
    (TEST + 'at = "2026-01-01T10:00:00Z"\n', 7, "test[0].at", "must be a date and a time with its offset"),
]


@pytest.mark.parametrize(("text", "line", "key", "words"), WRONG)
def test_one_mistake_is_reported_with_its_file_line_key_and_source_line(
    text: str, line: int, key: str, words: str
) -> None:
    (problem,) = refused(text)
    assert (problem.file, problem.line, problem.key) == ("policy.d/10.toml", line, key)
    assert words in problem.text
    source = text.split("\n")[line - 1].rstrip()
    assert problem.source == (source if len(source) <= 200 else source[:199] + "…")


def test_every_mistake_of_every_file_is_reported_at_once_by_file_and_line() -> None:
    problems = refused(
        GRANT.replace("view", "veiw").replace('"site"', '"sit"') + "extra = 1\n" + TEST.replace('"view"', '"fly"'),
        "not toml",
        "[[deny]]\n[[test]]\nmay = 'vew'\non = 'sitee'\n[x]\n",
        GRANT,
    )
    assert [(problem.file[-7:], problem.line, problem.key) for problem in problems] == [
        ("10.toml", 4, "grant[0].may[0]"),
        ("10.toml", 5, "grant[0].on[0]"),
        ("10.toml", 6, "grant[0].extra"),
        ("10.toml", 10, "test[0].may"),
        ("20.toml", 1, ""),
        ("30.toml", 1, "deny[0].id"),
        ("30.toml", 1, "deny[0].who"),
        ("30.toml", 1, "deny[0].may"),
        ("30.toml", 1, "deny[0].on"),
        ("30.toml", 2, "test[0].user"),
        ("30.toml", 2, "test[0].expect"),
        ("30.toml", 3, "test[0].may"),
        ("30.toml", 4, "test[0].on"),
        ("30.toml", 5, "x"),
        ("40.toml", 2, "grant[0].id"),
    ]
    assert problems[-1].text == "the id 'g' is taken by the rule at policy.d/10.toml:1"


def test_two_rules_of_one_line_cannot_share_an_id() -> None:
    rule = '{ id = "g", who = ["user:a"], may = ["view"], on = ["*"] }'
    (problem,) = refused(f"grant = [{rule}, {rule}]\n")
    assert problem.key == "grant[1].id"


def test_a_file_full_of_mistakes_is_answered_soon_and_whole() -> None:
    services = {f"service-{number}": () for number in range(500)}
    text = "".join(GRANT.replace('"g"', f'"g{number}"').replace("site", "servcie-1") for number in range(300))
    problems = parse([("a.toml", text)], services)
    assert isinstance(problems, list)
    assert len(problems) == 300
    assert sum("did you mean" in problem.text for problem in problems) == SUGGESTIONS


def test_global_actions_are_granted_without_services_or_on_all() -> None:
    for on in ("", 'on = ["*"]\n'):
        policy = read('[[grant]]\nid = "g"\nwho = ["user:a"]\nmay = ["reload", "shutdown"]\n' + on)
        assert policy.grants[0].on == ("*",)
    policy = read('[[deny]]\nid = "g"\nwho = ["user:a"]\nmay = ["stop", "shutdown"]\non = ["*"]\n')
    assert policy.denies[0].may == {"stop", "shutdown"}


def test_a_service_of_our_own_can_be_named_when_the_caller_says_that_it_may() -> None:
    assert read(GRANT.replace("site", "durward-api"), {"durward-api": ()}).grants[0].on == ("durward-api",)


def test_a_failing_test_refuses_the_load_with_what_was_expected_and_what_came() -> None:
    (problem,) = refused(GRANT + TEST.replace("view", "restart"))
    assert (problem.file, problem.line, problem.key) == ("policy.d/10.toml", 11, "test[0].expect")
    assert problem.text == "this test expects allow, and came to: denied: no rule lets bob restart site"
    assert problem.source == 'expect = "allow"'
    (problem,) = refused("", GRANT + TEST + TEST.replace("allow", "deny"))
    assert (problem.file, problem.line, problem.key) == ("policy.d/20.toml", 17, "test[1].expect")
    assert problem.text == "this test expects deny, and came to: allowed by the rule 'g' (policy.d/20.toml:1)"


def test_a_test_counts_for_rules_of_other_files_and_before_them() -> None:
    assert isinstance(parse([("10.toml", TEST), ("20.toml", GRANT)], SERVICES), Policy)
    assert isinstance(parse([("10.toml", TEST)], SERVICES), list)


def test_a_test_that_expects_a_denial_passes_when_it_comes() -> None:
    assert read(GRANT + TEST.replace("allow", "deny").replace('["webops"]', "[]")).tests[0].expect == "deny"
    assert (
        read(GRANT + TEST.replace("allow", "deny").replace('groups = ["webops"]\n', "")).tests[0].groups == frozenset()
    )
    reload = '[[test]]\nuser = "root"\nmay = "reload"\nexpect = "deny"\n'
    assert read(GRANT + reload).tests[0].on is None


def survives(text: str) -> bool:
    """Whether a damaged PINNED gives the same rules or none at all."""
    outcome = parse([("policy.d/10-web.toml", text)], SERVICES)
    return isinstance(outcome, list) or rules(outcome) == rules(read(PINNED))


@pytest.mark.parametrize("part", range(8))
def test_b5_a_policy_cut_off_anywhere_is_the_same_or_refused(part: int) -> None:
    for end in range(part + 1, len(PINNED), 8):
        assert survives(PINNED[:end]), PINNED[:end]


@pytest.mark.parametrize("seed", range(8))
def test_b5_a_policy_with_one_damaged_place_is_the_same_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(150):
        at = chance.randrange(len(PINNED))
        put = chance.choice(["", "", "x", "*", '"', "#", "\n", "[", "]", ",", ".", ":", "=", " ", "\\", "\0", "é", "-"])
        damaged = PINNED[:at] + put + PINNED[at + chance.randrange(2) :]
        assert survives(damaged), (at, put, damaged)


@pytest.mark.parametrize("number", range(PINNED.count("\n")))
def test_b5_a_policy_with_a_line_lost_or_doubled_is_the_same_or_refused(number: int) -> None:
    lines = PINNED.splitlines(keepends=True)
    assert survives("".join(lines[:number] + lines[number + 1 :]))
    assert survives("".join(lines[: number + 1] + lines[number:]))


@pytest.mark.parametrize(
    "value", ["0", "true", "1e9", "nan", "[]", "[[]]", "{}", "[1]", "2026-01-01", '""', '[""]', "'*'"]
)
@pytest.mark.parametrize("key", ["id", "who", "may", "on", "user", "groups", "at", "expect"])
def test_b5_a_value_of_another_type_is_the_same_or_refused(key: str, value: str) -> None:
    lines = PINNED.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f"{key} ="):
            assert survives("\n".join([*lines[:number], f"{key} = {value}", *lines[number + 1 :]])), number


@given(
    text=st.one_of(st.text(), st.text("[]grantdey{}=\"'\\.,#\n "), st.binary().map(lambda data: data.decode("latin-1")))
)
def test_b5_no_text_raises_and_none_grants_by_chance(text: str) -> None:
    outcome = parse([("a.toml", text)], SERVICES)
    assert outcome if isinstance(outcome, list) else not outcome.grants


def test_what_the_readme_shows_is_a_policy() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    block = readme[readme.index("[group.crew]") :].partition("```")[0]
    zones = {"Europe/Zurich": ZoneInfo("Europe/Zurich")}
    policy = parse([("policy.d/10-shop.toml", block)], {"shop": ("frontend",), "site": ()}, zones.get)
    assert isinstance(policy, Policy), policy
