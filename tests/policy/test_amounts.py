"""policy/amounts: who may start a service and may write what it runs, by name, by group and by neither."""

from __future__ import annotations

import json

from examples import examples
from hypothesis import given, strategies as st

from policy.amounts import SPAWNING, amounts, subjects
from policy.conditions import Asking
from policy.decide import Allow, decide
from policy.finding import Finding
from policy.identity import Identity
from policy.machine import Machine, Place, Service
from policy.parse import parse
from policy.rules import Policy

NOW = 1_800_000_000.0
USERS = {"alice": frozenset({"alice", "ops"}), "bob": frozenset({"ops"}), "www": frozenset({"www"})}
GROUPS = {"ops": frozenset({"alice", "bob"}), "alice": frozenset({"alice"})}
SERVICES = {"site": ("web",), "db": ()}
GRANT = '[[grant]]\nid = "{}"\nwho = {}\nmay = {}\non = {}\n'


def policy_of(*texts: str) -> Policy:
    made = parse([("policy.d/10.toml", "\n".join(texts))], SERVICES)
    assert isinstance(made, Policy), made
    return made


def grant(who: str = '["user:alice"]', may: str = '["restart"]', on: str = '["site"]', name: str = "g") -> str:
    return GRANT.format(name, who, may, on)


def place(**more: object) -> Place:
    return Place("its program", "/srv/site/run", **{"at": "/srv/site/run"} | more)  # type: ignore[arg-type]


def found(policy: Policy, *places: Place, root: str = "", user: str = "www") -> list[Finding]:
    services = {"site": Service(("web",), user, root, places), "db": Service()}
    return [*amounts(policy, Machine(services, True, USERS, GROUPS), NOW)]


ALICE = frozenset({"alice"})


def test_who_may_restart_it_and_write_its_program_is_told_with_the_grant_and_the_path() -> None:
    [one] = found(policy_of(grant()), place(users=ALICE))
    assert one.text == ("alice may restart site, which runs as www, and may write /srv/site/run, which is its program")
    assert (one.severity, one.code, one.rule, one.file, one.line) == (
        "error", "amounts-to-user", "g", "policy.d/10.toml", 1
    )  # fmt: skip
    assert (one.service, one.path) == ("site", "/srv/site/run")
    assert "/srv/site/run" in one.todo


def test_of_a_service_that_is_root_the_right_and_what_makes_it_root_are_two_findings() -> None:
    told = found(policy_of(grant()), place(users=ALICE), root="runs as root")
    assert [(one.severity, one.code) for one in told] == [("warning", "runs-as-root"), ("error", "amounts-to-root")]
    assert told[0].text == "alice may restart site, which runs as root"


def test_a_directory_above_is_told_once_for_all_that_is_reached_by_it() -> None:
    whats = ["its program", "its directory", "its environment file", "a file that its program is given,"]
    places = [Place(what, f"/srv/site/{what[4:7]}", "/srv/site", groups=frozenset({"ops"})) for what in whats]
    [one] = found(policy_of(grant('["group:ops"]')), *places)
    assert one.text == (
        "the group ops may restart site, which runs as www, and may write /srv/site, by which it can replace its"
        " program /srv/site/pro, its directory /srv/site/dir, its environment file /srv/site/env and 1 more"
    )


def test_what_is_written_itself_is_named_once_and_ends_the_sentence() -> None:
    [one] = found(
        policy_of(grant()), Place("a file that its program is given,", "/srv/app.py", "/srv/app.py", users=ALICE)
    )
    assert one.text.endswith("may write /srv/app.py, which is a file that its program is given")


def test_a_person_writes_what_his_groups_may_write() -> None:
    [one] = found(policy_of(grant()), place(groups=frozenset({"ops"})))
    assert one.text.startswith("alice may")


def test_a_member_of_a_group_who_may_write_by_himself_is_named() -> None:
    [one] = found(policy_of(grant('["group:ops"]')), place(users=ALICE))
    assert one.text.startswith("alice may")
    assert not found(policy_of(grant('["group:nobody-knows"]')), place(users=ALICE))


def test_what_everybody_may_write_the_whole_group_may() -> None:
    [one] = found(policy_of(grant('["group:ops", "user:bob"]')), place(everybody=True))
    assert one.text.startswith("bob and the group ops may")


def test_who_may_write_and_not_start_and_who_may_start_and_not_write_are_no_findings() -> None:
    assert not found(policy_of(grant('["user:bob"]')), place(users=ALICE))
    assert not found(policy_of(grant(may='["stop", "view", "logs"]')), place(users=ALICE))
    assert not found(policy_of(grant(on='["db"]')), place(users=ALICE))


def test_every_action_after_which_it_runs_anew_counts() -> None:
    for action in SPAWNING:
        assert found(policy_of(grant(may=f'["{action}"]')), place(users=ALICE))


def test_a_grant_on_a_group_or_on_all_counts_once() -> None:
    assert len(found(policy_of(grant(on='["group:web", "*", "site"]')), place(users=ALICE))) == 1


def test_a_grant_that_has_expired_does_not_count_and_one_with_demands_does() -> None:
    assert not found(policy_of(grant() + "expires = 2020-01-01\n"), place(users=ALICE))
    assert found(policy_of(grant() + 'reason = true\nlimit = "1 in 1h"\nexpires = 2040-01-01\n'), place(users=ALICE))


DENY = '[[deny]]\nid = "d"\nwho = ["group:ops"]\nmay = ["restart"]\non = ["*"]\n'


def test_who_is_always_forbidden_it_has_no_finding_but_for_some_hours_is_not_always() -> None:
    assert not found(policy_of(grant(), DENY), place(users=ALICE))
    assert not found(policy_of(grant(), DENY), place(users=ALICE), root="runs as root")
    assert found(policy_of(grant(), DENY + 'when = { days = "Mon", timezone = "UTC" }\n'), place(users=ALICE))
    [one] = found(policy_of(grant(may='["restart", "start"]'), DENY), place(users=ALICE))
    assert one.text.startswith("alice may start site")


def test_what_others_only_read_or_talk_to_is_a_warning() -> None:
    [one] = found(policy_of(grant()), place(users=ALICE, grave=False))
    assert (one.severity, one.code) == ("warning", "writable")


def test_the_services_own_user_gains_nothing_by_writing_its_program() -> None:
    assert not found(policy_of(grant('["user:www"]')), place(users=frozenset({"www"})))
    told = found(policy_of(grant('["user:www"]')), place(users=frozenset({"www"})), root="is in docker")
    assert [one.code for one in told] == ["runs-as-root", "amounts-to-root"]
    [one] = found(policy_of(grant()), place(users=ALICE), user="")
    assert "runs as" not in one.text


def test_two_who_write_the_same_place_are_one_finding() -> None:
    both = place(users=frozenset({"alice", "bob"}))
    [one] = found(policy_of(grant('["user:alice", "user:bob"]', '["start", "restart"]')), both, both)
    assert one.text.startswith("alice and bob may restart, start site")


def test_a_person_is_named_by_rules_for_himself_and_for_his_groups() -> None:
    machine = Machine({}, True, USERS, GROUPS)
    assert subjects(machine, ("user", "alice")) == [("user", "alice"), ("group", "alice"), ("group", "ops")]
    assert subjects(machine, ("group", "ops")) == [("group", "ops")]


WHO = st.lists(
    st.sampled_from(["user:alice", "user:bob", "group:ops", "group:alice"]), min_size=1, max_size=2, unique=True
)
MAY = st.lists(st.sampled_from(["restart", "start", "stop", "view"]), min_size=1, max_size=3, unique=True)
ON = st.sampled_from([["site"], ["*"], ["group:web"], ["db"]])
ROWS = st.lists(st.tuples(st.sampled_from(["grant", "grant", "deny"]), WHO, MAY, ON), max_size=4)
WRITERS = st.tuples(
    st.frozensets(st.sampled_from(["alice", "bob", "www"])), st.frozensets(st.sampled_from(["ops", "alice", "www"]))
)


@examples(40)
@given(ROWS, WRITERS)
def test_it_agrees_with_decide_on_every_person_that_is_known(
    rows: list[tuple[str, list[str], list[str], list[str]]], writers: tuple[frozenset[str], frozenset[str]]
) -> None:
    text = "".join(
        f'[[{kind}]]\nid = "r{at}"\nwho = {json.dumps(who)}\nmay = {json.dumps(may)}\non = {json.dumps(on)}\n'
        for at, (kind, who, may, on) in enumerate(rows)
    )
    policy, (users, groups) = policy_of(text), writers
    able = {
        user
        for user in ("alice", "bob")
        for action in SPAWNING
        if (user in users or USERS[user] & groups)
        and isinstance(decide(policy, Identity(user, 1, USERS[user]), action, "site", ("web",), Asking()), Allow)
    }
    told = found(policy, place(users=users, groups=groups))
    assert bool(told) >= bool(able)
    if not groups:  # else a whole group is told of, some of whose members may be forbidden it
        named = {user for user in ("alice", "bob") for one in told if user in one.text.partition(" may ")[0]}
        assert named == able


def brought_by(policy: Policy, **more: object) -> list[Finding]:
    """site requires queue, which requires db, which is root and alice's to write."""
    services = {
        "site": Service(("web",), "www", brings=("queue", "gone")), "queue": Service(brings=("db", "site")),
        "db": Service((), "", "runs as root", (place(at="/srv/db", users=ALICE),)),
    }  # fmt: skip
    return [*amounts(policy, Machine(services, True, USERS, GROUPS), NOW)]


def test_a_right_to_a_service_is_one_to_what_is_started_with_it() -> None:
    [one] = brought_by(policy_of(grant(may='["restart", "signal"]')))
    assert one.text == (
        "alice may restart site and by that db, which runs as root, and may write /srv/db, by which it can replace its"
        " program /srv/site/run"
    )
    assert (one.severity, one.code, one.service) == ("error", "amounts-to-root", "db")
    assert one.todo.endswith("or take restart on site out of the rule")
    assert brought_by(policy_of(grant(may='["signal"]'))) == [], "a signal starts nothing else"
    deny = '[[deny]]\nid = "no"\nwho = ["user:alice"]\nmay = ["restart"]\non = ["site"]\n'
    assert brought_by(policy_of(grant(), deny)) == []


def test_what_is_started_with_it_is_told_once_where_the_rule_is_about_that_too() -> None:
    told = brought_by(policy_of(grant(on='["site", "db"]')))
    assert [one.code for one in told] == ["runs-as-root", "amounts-to-root"]
    assert told[1].text.startswith("alice may restart db, which runs as root")
