"""A reload from its beginning to each of its ends; privileged is played."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest
from reloads import JOBS, House, new
from whole import whole

from policy import messages
from rootd import ipc
from rootd.supervisor import reload
from rootd.supervisor.operations import Operation, Refusal
from rootd.supervisor.reload import TIME_LIMIT, Reloads, fitting, read_generation, staged_generation


@pytest.fixture
def house(generation: Callable[..., Any]) -> House:
    return House(generation)


def test_the_first_configuration_is_not_read_again_where_it_is_the_very_same_and_is_where_it_is_not(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(reload, "read_generation", lambda number, digest, fd: asked.append(fd) or "read")
    first, loaded = house.first, house.reloads.current

    def reads(number: int, fd: int) -> object:
        made = loaded, os.dup(first.fd)
        return Reloads(house.operations, house.send, house.adopt, made).read(number, first.digest, fd)

    other = house.make()  # of the same files, and another memfd
    assert (reads(1, first.fd), asked) == (loaded, [])
    assert (reads(1, other.fd), asked) == ("read", [other.fd])
    assert (reads(2, first.fd), asked) == ("read", [other.fd, first.fd])


def test_what_is_read_early_is_what_is_read_of_the_same_memfd_later(house: House) -> None:
    early, fd = staged_generation(house.first.fd)
    later = read_generation(1, house.first.digest, fd)
    assert early._replace(policy=later.policy) == later
    assert early.policy.hash == later.policy.hash


def test_a_good_configuration_is_committed_and_then_counts(house: House) -> None:
    house.begin()
    found = new(house)
    house.staged(found)
    commit = house.sent[-1]
    assert (commit.op, commit.generation, commit.digest) == (ipc.COMMIT, 2, found.digest)
    assert house.adopted == [], "not before privileged says so"
    house.done()
    assert [spec.name for spec in house.adopted[0].specs or ()] == ["jobs"]
    told = "reloaded: added: jobs; removed: site; sockets removed: http (tcp:0.0.0.0:80); policy: changed"
    assert (house.end.ok, house.end.text) == (True, told)
    assert house.reloads.current.generation == 2


def following(house: House, *services: str) -> list[Operation]:
    """A reload whose configuration counts, and that has begun a restart of each of these."""
    begun = [house.operations.begin("restart", service, "", 1.0) for service in services]
    house.begun = {one.service: one.number for one in begun}
    house.begin()
    house.staged(new(house))
    house.done()
    return begun


def finish(house: House, operation: Operation, ok: bool, text: str) -> None:
    house.operations.end(operation, ok, text, 5.0)
    house.reloads.ended(house.events[-1], 5.0)


def test_a_reload_ends_with_what_it_has_begun_and_fails_with_the_names_of_what_failed(house: House) -> None:
    site, jobs = following(house, "site", "jobs")
    reload = house.operations.all()[-1]
    assert whole(reload.events[-1]).text.endswith("policy: changed; waits for what it has begun: site, jobs")
    finish(house, house.operations.begin("stop", "other", "", 3.0), False, "other was not stopped: why")
    finish(house, jobs, False, "jobs was not restarted: exit status 1; it is tried again")
    assert not reload.ended
    finish(house, site, True, "site restarted")
    assert (house.end.operation, house.end.ok) == (reload.number, False)
    assert house.end.text.startswith("reloaded: added: jobs; removed: site")
    assert house.end.text.endswith("policy: changed; jobs was not restarted: exit status 1; it is tried again")


def test_a_reload_whose_restarts_go_well_is_done_then_and_one_that_ended_before_counts(house: House) -> None:
    (site,) = following(house, "site")
    finish(house, site, True, "site restarted")
    assert house.end.ok
    assert house.end.text.endswith("policy: changed")
    gone = house.operations.begin("restart", "site", "", 1.0)
    house.operations.end(gone, False, "site was not restarted: why", 1.0)
    house.begun = {"site": gone.number}
    house.begin()
    house.staged(house.make(number=3))
    house.done()
    assert (house.end.ok, house.end.text[-27:]) == (False, "site was not restarted: why")


def test_another_reload_may_begin_while_one_waits_for_what_it_has_begun(house: House) -> None:
    (site,) = following(house, "site")
    first = house.operations.all()[-1]
    with pytest.raises(Refusal, match="counts already: cancel what it has begun"):
        house.reloads.cancel(first, "cancelled by alice", 3.0)
    house.begun = {}
    house.begin()
    house.staged(house.make(number=3))
    house.done()
    assert house.end.ok
    assert not first.ended
    finish(house, site, True, "site restarted")
    assert (house.end.operation, house.end.ok) == (first.number, True)


def test_b6_a_bad_configuration_changes_nothing_and_is_told_with_every_line(house: House) -> None:
    house.begin()
    bad = '[service.site]\ncommand = "serve"\nuser = "nobody-here"\nsokets = []\nenvironment = { P = "hush", 1 = 2 }\n'
    found = house.make({"services.d/site.toml": bad, "policy.d/10-web.toml": '[[grant]]\nid = "x"\n'}, 2)
    house.staged(found, flags=ipc.INVALID)
    assert house.ops() == [ipc.STAGE, ipc.ABORT]
    assert house.adopted == []
    assert not house.end.ok
    problems = {(problem.file, problem.line, problem.key) for problem in house.end.problems}
    assert ("services.d/site.toml", 2, "service.site.command") in problems
    assert ("services.d/site.toml", 3, "service.site.user") in problems
    assert ("services.d/site.toml", 4, "service.site.sokets") in problems
    assert ("policy.d/10-web.toml", 1, "grant[0].who") in problems
    assert {one.source for one in house.end.problems} == {'user = "nobody-here"', ""}, "a rule is for the right policy"


def test_b6_a_policy_whose_test_fails_refuses_the_whole_reload(house: House) -> None:
    house.begin()
    policy = '[[test]]\nuser = "bob"\nmay = "restart"\non = "jobs"\nexpect = "allow"\n'
    house.staged(house.make({"services.d/jobs.toml": JOBS, "policy.d/1.toml": policy}, 2))
    assert house.ops() == [ipc.STAGE, ipc.ABORT]
    assert "this test expects allow" in house.end.problems[0].text


def test_a_services_file_that_cannot_be_read_says_nothing_about_the_policy(house: House) -> None:
    house.begin()
    house.staged(house.make({"services.d/a.toml": "[", "policy.d/1.toml": "[[grant]]\n"}, 2), flags=ipc.INVALID)
    assert [problem.file for problem in house.end.problems] == ["services.d/a.toml"]


def test_a_port_that_cannot_be_had_refuses_the_reload_with_its_reason(house: House) -> None:
    house.begin()
    house.staged(new(house), extra=errno.EADDRINUSE, name="socket web: tcp:0.0.0.0:80: nginx (pid 5) has it")
    assert house.ops() == [ipc.STAGE, ipc.ABORT]
    assert house.end.problems[0].text == "socket web: tcp:0.0.0.0:80: nginx (pid 5) has it"


def test_a_socket_that_cannot_be_had_is_told_with_its_line(house: House) -> None:
    house.begin()
    found = new(house, '[socket.web]\nlisten = "0.0.0.0:80"\n')
    house.staged(found, extra=errno.EADDRINUSE, name="socket web: tcp:0.0.0.0:80: Address already in use")
    [problem] = house.end.problems
    assert (problem.file, problem.line, problem.key) == ("services.d/jobs.toml", 5, "socket.web.listen")
    assert (problem.text, problem.source) == ("tcp:0.0.0.0:80: Address already in use", 'listen = "0.0.0.0:80"')


def test_privileged_is_not_believed_about_what_the_files_say(house: House) -> None:
    for lie in ("digest", "table", "unsealed"):
        house.begin()
        found = house.make(None, 2, sealed=lie != "unsealed")
        found.digest = bytes(32) if lie == "digest" else found.digest
        if lie == "table":
            other = new(house)
            found.digest, found.fd = other.digest, found.fd
        house.staged(found)
        assert house.sent[-1].op == ipc.ABORT
        assert "sealed" in house.end.problems[0].text or "do not make the same" in house.end.problems[0].text
    assert house.adopted == []


def test_a_dry_run_says_what_would_change_and_changes_nothing(house: House) -> None:
    house.begin(dry_run=True)
    house.staged(new(house))
    assert house.ops() == [ipc.STAGE, ipc.ABORT]
    told = "would change: added: jobs; removed: site; sockets removed: http (tcp:0.0.0.0:80); policy: changed"
    assert (house.end.ok, house.end.text) == (True, told)
    assert house.adopted == []
    house.begin(dry_run=True)
    house.staged(house.make(None, 3))
    assert house.end.text == "no change"


def test_one_reload_at_a_time(house: House) -> None:
    house.begin()
    with pytest.raises(Refusal, match="a reload is under way: operation 1"):
        house.reloads.begin("id", False, 0.0)


def test_without_privileged_there_is_no_reload(house: House) -> None:
    house.there = False
    with pytest.raises(Refusal, match="try again"):
        house.reloads.begin("id", False, 0.0)
    assert house.events == []


def test_a_failure_to_stage_or_to_commit_is_told_and_changes_nothing(house: House) -> None:
    house.begin()
    house.done(arg=errno.ETIMEDOUT)
    assert house.end.text == "nothing was changed: Connection timed out"
    house.begin()
    house.staged(new(house))
    house.done(arg=errno.EINVAL)
    assert not house.end.ok
    assert house.adopted == []


def test_what_needs_root_replaces_privileged_and_then_goes_on(house: House) -> None:
    house.begin()
    found = new(house)
    house.staged(found, flags=ipc.NEEDS_ROOT, extra=1, name="root jobs")
    replace = house.sent[-1]
    assert (replace.op, replace.arg) == (ipc.REPLACE, 1)
    house.done()
    house.reloads.facts(house.reloads.current, 3.0)
    found = new(house)
    house.reloads.staged(found.table(), found.fd, 4.0)
    assert house.sent[-1].op == ipc.COMMIT
    house.done()
    assert house.end.ok
    assert len(house.adopted) == 1


def test_a_privileged_that_dies_meanwhile_has_changed_nothing(house: House) -> None:
    house.begin()
    house.reloads.facts(house.reloads.current, 1.0)
    assert "privileged was started again meanwhile" in house.end.text
    assert house.adopted == []


@pytest.mark.parametrize("committed", [True, False])
def test_a_privileged_that_dies_while_it_commits_has_or_has_not(house: House, committed: bool) -> None:
    house.begin()
    found = new(house)
    house.staged(found)
    running = read_generation(2, found.digest, found.fd) if committed else house.reloads.current
    house.reloads.facts(running, 2.0)
    assert house.end.ok is committed
    assert len(house.adopted) == committed


def test_a_reload_that_takes_too_long_is_given_up(house: House) -> None:
    assert house.reloads.wake_at() is None
    house.begin()
    assert house.reloads.wake_at() == TIME_LIMIT
    house.reloads.wake(TIME_LIMIT - 0.1)
    house.reloads.wake(TIME_LIMIT)
    assert house.ops() == [ipc.STAGE, ipc.ABORT]
    assert house.end.text == "it took more than 60 s"
    house.reloads.wake(TIME_LIMIT + 1)


def test_c14_answers_that_nobody_waits_for_change_nothing(house: House) -> None:
    found = new(house)
    house.reloads.staged(found.table(seq=5), found.fd, 1.0)
    assert house.ops() == [ipc.ABORT], "and privileged may forget what it staged"
    house.done()
    house.begin()
    house.reloads.done(ipc.Message(ipc.DONE, seq=5), 1.0)
    house.reloads.staged(found.table(seq=5), found.fd, 1.0)
    assert house.ops() == [ipc.ABORT, ipc.STAGE]
    assert house.adopted == []
    house.staged(found)
    house.done()
    assert len(house.adopted) == 1, "what is waited for still counts"


def test_very_many_problems_fit_into_a_packet() -> None:
    many = [messages.Problem("services.d/a.toml", n, "k" * 50, "t" * 400, "s" * 200) for n in range(1000)]
    shown = fitting(many)
    assert len(shown) < 100
    assert shown[-1].text == f"and {1000 - len(shown) + 1} more"
    assert fitting(many[:3]) == many[:3]


def settings_of(house: House, **sections: str) -> Any:
    """The first configuration, with this durward.toml."""
    text = "".join(f"[{name}]\n{lines}\n" for name, lines in sections.items())
    return house.make(None, 2, main=text)


@pytest.mark.parametrize(
    ("section", "lines", "key"),
    [
        ("paths", 'run = "/run/other"', "paths.run"),
        ("paths", 'log = "/var/log/other"', "paths.log"),
        ("accounts", 'log = "_durward-probe"\nprobe = "_durward-log"', "accounts.log"),
        ("auth", 'local = "peer"', "auth.local"),
    ],
)
def test_what_a_daemon_has_made_its_own_at_its_start_is_not_changed_by_a_reload(
    house: House, section: str, lines: str, key: str
) -> None:
    house.begin()
    house.staged(settings_of(house, **{section: lines}))
    assert house.sent[-1].op == ipc.ABORT
    assert house.end.ok is False
    problem = next(problem for problem in house.end.problems if problem.key == key)
    assert (problem.file, problem.line) == ("durward.toml", 2)
    assert problem.text == "cannot change while the daemon runs: stop it, and start it again"


def test_what_counts_from_the_next_start_on_is_said(house: House) -> None:
    house.begin()
    house.staged(settings_of(house, auth='session = "1h"', audit='on_failure = "continue"'))
    house.done()
    assert house.end.text == "reloaded: counts from the daemon's next start on: [audit], [auth]"


def test_one_that_is_cancelled_changes_nothing_and_privileged_forgets_it_whenever_it_answers(house: House) -> None:
    house.begin()
    seq = house.sent[-1].seq
    house.reloads.cancel(house.operations.all()[-1], "cancelled by alice", 1.0)
    assert (house.end.ok, house.end.text) == (False, "nothing was changed: cancelled by alice")
    assert house.reloads.wake_at() is None
    late = new(house)
    house.reloads.staged(late.table(seq=seq), late.fd, 2.0)
    assert house.ops() == [ipc.STAGE, ipc.ABORT, ipc.ABORT]
    assert house.sent[-1].generation == 2
    assert house.adopted == []
    house.begin()
    house.staged(new(house, number=3))
    with pytest.raises(Refusal, match="the new configuration is being taken already: it goes on to its end"):
        house.reloads.cancel(house.operations.all()[-1], "cancelled by alice", 3.0)
    house.done()
    assert house.end.ok


def test_an_api_is_not_added_to_a_daemon_that_was_started_without_one(generation: Callable[..., Any]) -> None:
    """It has no auth: nobody could log in."""
    house = House(lambda *words, **more: generation(*words, **{"main": "[auth]\n"} | more))
    house.begin()
    house.staged(house.make(None, 2, main="[auth]\n[api]\n"))
    assert house.sent[-1].op == ipc.ABORT
    assert [problem.key for problem in house.end.problems] == ["api"]
