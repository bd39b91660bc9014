"""policy/lint: rules that do nothing, names that are nobody's, approvals that are none, accounts that are no people."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from policy.finding import KINDS, SEVERITIES, Finding
from policy.lint import lint
from policy.machine import Machine, Place, Service
from policy.parse import parse
from policy.rules import Policy

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()  # a Friday
SERVICES = {"site": ("web",), "db": ()}
OPS, LEADS = frozenset({"alice", "bob"}), frozenset({"carol"})
USERS = {
    "alice": frozenset({"alice", "ops"}), "bob": frozenset({"ops"}), "carol": frozenset({"leads"}),
    "www": frozenset({"www", "servers"}), "_durward-api": frozenset({"_durward-api"}),
}  # fmt: skip
GROUPS = {
    "ops": OPS, "leads": LEADS, "empty": frozenset[str](), "www": frozenset({"www"}), "servers": frozenset({"www"}),
}  # fmt: skip


def rule(kind: str, name: str, who: str, may: str = "restart", on: str | None = "site", more: str = "") -> str:
    words = ", ".join(f'"{one}"' for one in who.split())
    about = "" if on is None else f'on = ["{on}"]\n'
    acts = ", ".join(f'"{one}"' for one in may.split())
    return f'[[{kind}]]\nid = "{name}"\nwho = [{words}]\nmay = [{acts}]\n{about}{more}\n'


def grant(name: str, who: str, may: str = "restart", on: str | None = "site", more: str = "") -> str:
    return rule("grant", name, who, may, on, more)


def machine(**more: object) -> Machine:
    services = {"site": Service(("web",), "www"), "db": Service((), "www")}
    fields = {"services": services, "accounts": True, "users": USERS, "groups": GROUPS} | more
    return Machine(**fields)  # type: ignore[arg-type]


def found(text: str, **more: object) -> list[Finding]:
    policy = parse([("policy.d/10.toml", text)], SERVICES)
    assert isinstance(policy, Policy), policy
    return lint(policy, machine(**more), NOW)


def codes(text: str, **more: object) -> list[str]:
    return [one.code for one in found(text, **more)]


def test_an_ordinary_policy_has_no_finding() -> None:
    assert found(grant("a", "group:ops") + rule("deny", "b", "user:carol", "stop")) == []


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("expires = 2026-11-26", "expired"),
        ("expires = 2026-11-27T12:00:00Z", "expired"),
        ("expires = 2026-11-28", "expires-soon"),
        ("expires = 2026-12-27T12:00:00Z", "expires-soon"),
        ("expires = 2026-12-27T12:00:01Z", ""),
        ('expires = 2026-11-28\nwhen = { days = "Mon", timezone = "UTC" }', "never-again"),
        ('expires = 2026-11-30\nwhen = { days = "Mon", timezone = "UTC" }', "expires-soon"),
        ('expires = 2026-11-28\nwhen = { days = "Fri", timezone = "UTC" }', "expires-soon"),
        ('expires = 2027-11-28\nwhen = { days = "Fri", timezone = "UTC" }', ""),
    ],
)
def test_what_has_expired_or_does_soon_is_told(more: str, code: str) -> None:
    assert codes(grant("a", "user:alice", more=more)) == ([code] if code else [])
    denied = {"": [], "never-again": ["never-again"]}.get(code, [f"deny-{code}"])
    assert codes(rule("deny", "a", "user:alice", more=more)) == denied


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (grant("a", "user:dave"), ["unknown-user"]),
        (grant("a", "group:staff"), ["unknown-group"]),
        (grant("a", "group:empty"), ["empty-group"]),
        (rule("deny", "a", "user:dave"), ["deny-unknown"]),
        (rule("deny", "a", "group:staff"), ["deny-unknown"]),
        (rule("deny", "a", "group:empty"), ["deny-empty-group"]),
        (
            grant("a", "user:alice", more='approval = { by = ["user:carol", "user:eve", "group:x"], within = "5m" }'),
            ["unknown-group", "unknown-user"],
        ),
    ],
)
def test_names_that_are_nobodys_are_told_where_the_accounts_were_looked_up(text: str, expected: list[str]) -> None:
    assert codes(text) == expected
    assert codes(text, accounts=False, users={}, groups={}) == []


def test_a_grant_on_every_service_is_told_and_one_that_only_shows_is_a_note() -> None:
    assert codes(grant("a", "user:alice", "restart view", "*")) == ["every-service"]
    [one] = found(grant("a", "user:alice", "view logs", "*"))
    assert (one.severity, one.code) == ("note", "every-service-seen")
    assert codes(grant("a", "user:alice", "reload audit", None)) == []
    assert codes(rule("deny", "a", "user:alice", "restart", "*")) == []


def test_an_account_of_durwards_own_that_has_a_right_is_an_error() -> None:
    own = {"_durward-api": "api"}
    [one] = [one for one in found(grant("a", "user:_durward-api"), own=own) if one.code == "own-account"]
    assert one.severity == "error"
    assert one.text == "_durward-api, Durward's own account (api), has the rights of 'a' by its name"
    groups = GROUPS | {"ops": OPS | {"_durward-api"}}
    assert "own-account" in codes(grant("a", "group:ops"), own=own, groups=groups)


def test_the_user_of_a_service_that_has_a_right_or_approves_is_told() -> None:
    [one] = found(grant("a", "group:servers", on="db"))
    assert one.text == "www, whom site runs as, has the rights of 'a', as it is in the group servers"
    assert (one.severity, one.code, one.service) == ("warning", "service-account", "site")
    assert codes(grant("a", "user:www", on="db"), peer=True) == ["service-account-peer"]
    for by in ("user:www", "group:www"):
        more = f'approval = {{ by = ["{by}"], within = "5m" }}'
        assert codes(grant("a", "user:alice", more=more)) == ["service-account"]
    services = {"site": Service(("web",), "root", "runs as root"), "db": Service()}
    assert codes(grant("a", "user:root", "view"), services=services, users=USERS | {"root": frozenset()}) == []


APPROVED = 'approval = { by = ["group:leads"], within = "5m" }'


def test_an_approval_that_nobody_could_give_is_told() -> None:
    assert codes(grant("a", "group:ops", more=APPROVED)) == []
    [one] = found(grant("a", "user:alice user:carol", more=APPROVED))
    assert (one.code, one.text.partition(", as far")[0]) == (
        "nobody-approves", "nobody could approve what carol asks for by 'a'"
    )  # fmt: skip
    told = found(grant("a", "group:ops", more=APPROVED.replace("leads", "empty")))
    assert [one.code for one in told] == ["empty-group", "nobody-approves"]
    assert told[1].text.startswith("nobody could approve what anybody asks for")
    assert "nobody-approves" not in codes(grant("a", "user:carol", more=f"expires = 2026-11-01\n{APPROVED}"))


def test_who_may_do_it_without_the_approval_by_another_rule_is_told() -> None:
    wanted = grant("a", "group:ops", "stop restart", "site", APPROVED)
    [one] = found(wanted + grant("b", "user:alice", "restart view", "group:web"))
    assert one.code == "approval-evaded"
    assert one.text == (
        "alice needs nobody's approval for what 'a' wants it for: 'b' (10.toml:7) grants restart without one"
    )
    assert codes(wanted + grant("b", "user:alice", "view", "site")) == []
    assert codes(wanted + grant("b", "user:alice", "stop", "db")) == []
    assert codes(wanted + grant("b", "user:alice", "stop", more="expires = 2026-01-01")) == ["expired"]
    deny = rule("deny", "d", "user:alice", "stop restart")
    assert "approval-evaded" not in codes(wanted + grant("b", "user:alice", "stop") + deny)
    assert codes(wanted + grant("b", "user:alice", "stop", more=APPROVED)) == []


def test_dead_rules_are_told_by_what_comes_before_them() -> None:
    text = grant("a", "user:alice", on="group:web") + grant("b", "user:alice") + grant("c", "user:alice")
    told = {one.rule: one.text for one in found(text)}
    assert told == {
        "b": "'b' always comes after 'a' (10.toml:1)", "c": "'c' says the same as 'b' (10.toml:7)",
    }  # fmt: skip
    [one] = found(grant("a", "user:alice") + rule("deny", "d", "user:alice", on="group:web"))
    assert (one.code, one.text) == ("denied", "'a' is forbidden by 'd' (10.toml:7)")


def test_what_could_not_be_looked_at_is_a_note() -> None:
    [one] = found(grant("a", "user:alice"), unseen=(("site", "/root/x: Permission denied"),))
    assert (one.severity, one.code, one.service) == ("note", "not-looked-at", "site")


def test_what_the_configuration_does_not_tell_is_a_note_that_does_not_send_for_root() -> None:
    [one] = found(grant("a", "user:alice"), untold=(("site", "what the program of site has a shell execute"),))
    assert (one.severity, one.code, one.service) == ("note", "not-told", "site")
    assert "root" not in one.todo
    assert "without a shell" in one.todo


def test_the_gravest_comes_first_then_by_place() -> None:
    place = Place("its program", "/srv/x", "/srv/x", users=frozenset({"alice"}))
    services = {"site": Service(("web",), "www", "", (place,)), "db": Service()}
    text = grant("a", "user:dave") + grant("b", "user:carol", more="expires = 2026-12-01") + grant("c", "user:alice")
    told = found(text, services=services, unseen=(("", "x"),))
    assert [(one.severity, one.rule) for one in told] == [
        ("error", "c"), ("warning", "a"), ("warning", "b"), ("note", ""),
    ]  # fmt: skip
    assert all(one.severity in SEVERITIES and one.why == KINDS[one.code].why and one.todo for one in told)
