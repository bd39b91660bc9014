"""When a line of a crontab is due, and what is refused before it could never be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from rootd import check
from rootd.config import schedules
from rootd.config.compile import Compiled, bundle_from, compile_bundle, generation_bytes, split_generation
from rootd.config.schedules import Schedule

Compile = Callable[..., Compiled]
JOB = '[service.job]\ncommand = ["/srv/job"]\nuser = "worker"\n'
BERLIN = schedules.read_zone("Europe/Berlin") or ""
LORD_HOWE = schedules.read_zone("Australia/Lord_Howe") or ""


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def schedule(line: str, timezone: str = "", zone: str = "", missed: str = "skip", delay: float = 0.0) -> Schedule:
    return Schedule(line, timezone, zone, missed, delay)


def times(one: Schedule, after: str, count: int) -> list[str]:
    return [one.spelled(found) for found in islice(one.times(at(after)), count)]


def test_a_schedule_alone_makes_a_service_scheduled_and_it_is_not_tried_again(compiled: Compile) -> None:
    text = JOB + 'schedule = "*/5 * * * *"\nmissed = "once"\nrandom_delay = "2m"\ntimeout = "1m"'
    [job] = compiled("[auth]", {"a.toml": text}).specs
    assert (job.ready_kind, job.ready_timeout, job.restart_policy) == ("exit", 60.0, "never")
    assert job.schedule == Schedule("*/5 * * * *", "", "", "once", 120.0)
    assert {("kind", "scheduled"), ("schedule", "*/5 * * * *")} <= {*job.settings}


def test_another_time_changes_no_process_and_nothing_that_privileged_knows(compiled: Compile) -> None:
    one, two = (compiled("[auth]", {"a.toml": f'{JOB}schedule = "{line}"'}) for line in ("@daily", "* * * * *"))
    assert (one.table, one.specs[0].digest) == (two.table, two.specs[0].digest)
    assert b"* * *" not in two.table


def test_time_zones_are_in_what_is_compiled_so_that_who_decides_reads_no_file(bundle: Callable[..., Any]) -> None:
    given = bundle("[auth]", {"a.toml": JOB + 'schedule = "@daily"\ntimezone = "Europe/Berlin"'})
    given = given._replace(zones={"Europe/Berlin": BERLIN})
    line = split_generation(generation_bytes(compile_bundle(given), given))[1]
    [job] = compile_bundle(bundle_from(line)).specs
    assert job.schedule.spelled(at("2026-06-30T22:00:00+00:00")) == "2026-07-01T00:00:00+02:00"


@pytest.mark.parametrize(
    ("more", "key", "part"),
    [
        (
            'schedule = "0 0 30 2 *"',
            "schedule",
            "bad day-of-month '30': it is 1 to 31, and a day of these months; see crontab(5)",
        ),
        ('schedule = "0 0 31 4,6,9,11 *"', "schedule", "a day of these months"),
        ('schedule = "* * */20 * 1L"', "schedule", "no such day comes in fifty years"),
        ('schedule = "61 * * * *"', "schedule", "bad minute '61': it is 0 to 59; see crontab(5)"),
        ('schedule = "* 24 * * *"', "schedule", "bad hour '24': it is 0 to 23"),
        ('schedule = "70 * 24 * * *"', "schedule", "bad second '70': it is 0 to 59"),
        ('schedule = "0 0 * * 8"', "schedule", "bad day-of-week '8': it is 0 to 7"),
        ('schedule = "0 0 * 13 *"', "schedule", "bad month '13': it is 1 to 12 or jan to dec"),
        ('schedule = "0 0 0 * *"', "schedule", "bad day-of-month '0': it is 1 to 31"),
        ('schedule = "*/0 * * * *"', "schedule", "bad minute"),
        ('schedule = "0 0 * * 1L/2"', "schedule", "bad day-of-week"),
        (
            'schedule = "* * * *"',
            "schedule",
            'must be a line such as "*/5 * * * *": five fields, or six, the first of them seconds',
        ),
        ('schedule = "* * * * * * *"', "schedule", "five fields, or six"),
        ('schedule = ""', "schedule", "must be a line such as"),
        ('schedule = "@fortnightly"', "schedule", "must be one of @hourly"),
        ('schedule = "@reboot"', "schedule", 'kind = "oneshot"'),
        ('kind = "scheduled"', "schedule", "takes a schedule"),
        ('schedule = "@daily"\nkind = "simple"', "schedule", 'kind = "scheduled"'),
        ('timezone = "Europe/Berlin"', "timezone", 'kind = "scheduled"'),
        ('missed = "once"', "missed", 'kind = "scheduled"'),
        ('schedule = "@daily"\ntimezone = "Europe/Nowhere"', "timezone", "there is no time zone 'Europe/Nowhere'"),
        ('schedule = "@daily"\ntimezone = "../../etc/shadow"', "timezone", "must be a time zone"),
        ('schedule = "@daily"\nmissed = "twice"', "missed", "one of skip, once"),
        ('schedule = "@daily"\nprocesses = 2', "processes", "one process"),
        ('schedule = "@daily"\nready = { notify = true }', "ready", "a scheduled service is ready when it"),
        ('schedule = "@daily"\nrestart = { policy = "always" }', "restart", '"never" or "on-failure"'),
    ],
)
def test_what_makes_no_sense_is_a_problem_at_its_key(compiled: Compile, more: str, key: str, part: str) -> None:
    [problem] = compiled("[auth]", {"a.toml": JOB + more}).problems
    assert problem.path == ("service", "job", key)
    assert part in problem.text


def test_others_neither_require_it_nor_restart_it_nor_end_with_it(compiled: Compile) -> None:
    other = '[service.site]\ncommand = ["/srv/site"]\nuser = "worker"\nrequires = ["job"]\n'
    job = JOB + 'schedule = "@daily"\nrestart_with = ["site"]\n'
    found = compiled('exit_on = ["job"]\n[auth]', {"a.toml": job + other}).problems
    paths = {problem.path for problem in found}
    assert {("service", "site", "requires"), ("service", "job", "restart_with"), ("daemon", "exit_on")} <= {
        *paths, *((("daemon", *path)) for path in paths)
    }  # fmt: skip


def test_a_template_gives_its_schedule_and_defaults_may_not(compiled: Compile) -> None:
    text = '[template.t]\ncommand = ["/srv/job", "{instance}"]\nuser = "worker"\nschedule = "@daily"\n'
    specs = compiled("[auth]", {"a.toml": text + 'instances = ["a", "b"]'}).specs
    assert [spec.schedule.line for spec in specs if spec.schedule] == ["@daily", "@daily"]
    [problem] = compiled("[auth]", {"a.toml": '[defaults]\nschedule = "@daily"\n' + JOB}).problems
    assert problem.path == ("defaults", "schedule")


def test_what_defaults_say_of_servers_is_not_for_it(compiled: Compile) -> None:
    text = '[defaults]\nprocesses = 3\nready = { notify = true }\nrestart = { policy = "always" }\n'
    [job] = compiled("[auth]", {"a.toml": text + JOB + 'schedule = "@daily"'}).specs
    assert (job.processes, job.ready_kind, job.restart_policy) == (1, "exit", "never")


@pytest.mark.parametrize("alias", schedules.ALIASES)
def test_an_alias_of_cron_is_the_line_that_it_stands_for(alias: str) -> None:
    start = "2026-01-01T00:30:00+00:00"
    assert not schedules.problem(alias)
    assert times(schedule(alias), start, 3) == times(schedule(schedules.ALIASES[alias]), start, 3)


def test_a_sixth_field_before_the_others_is_seconds() -> None:
    found = times(schedule("*/20 * * * * *"), "2026-01-01T00:00:10+00:00", 3)
    assert [one[17:19] for one in found] == ["20", "40", "00"]


def test_the_29th_of_february_comes_in_leap_years() -> None:
    assert times(schedule("0 0 29 2 *"), "2026-01-01T00:00:00+00:00", 2) == [
        "2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00",
    ]  # fmt: skip


def test_a_time_that_the_spring_leaves_out_comes_when_the_clock_goes_on_and_one_of_the_autumn_comes_once() -> None:
    nightly = schedule("30 2 * * *", "Europe/Berlin", BERLIN)
    assert times(nightly, "2026-03-28T12:00:00+01:00", 2) == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    assert times(nightly, "2026-10-24T12:00:00+02:00", 2) == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    between = "2026-10-25T02:10:00+01:00"  # the second time that it is ten past two
    assert times(nightly, between, 1) == ["2026-10-26T02:30:00+01:00"]


def test_what_runs_each_half_hour_does_so_through_both_nights() -> None:
    often = schedule("*/30 * * * *", "Europe/Berlin", BERLIN)
    for start in ("2026-03-29T00:00:00+01:00", "2026-10-25T00:00:00+02:00"):
        found = list(islice(often.times(at(start)), 10))
        assert [two - one for one, two in pairwise(found)] == [1800.0] * 9


@pytest.mark.parametrize("zone", [BERLIN, LORD_HOWE, ""])
@pytest.mark.parametrize("line", ["30 2 * * *", "0-59 2 * * *", "*/7 * * * *", "0 */3 * * 1-5", "0 0 1 * *"])
def test_times_only_ever_grow_wherever_one_begins(line: str, zone: str) -> None:
    one = schedule(line, "x", zone)
    for start in range(int(at("2026-04-04T10:00:00+00:00")), int(at("2026-04-05T20:00:00+00:00")), 1117):
        found = list(islice(one.times(start), 3))
        assert found == sorted({*found})
        assert found[0] > start


def test_no_clock_is_too_far_ahead_or_behind() -> None:
    for line in ("* * * * *", "0 0 29 2 *"):
        for moment in (-1e9, 0.0, 1e9, 9_223_372_036.0, 253_402_300_799.0):
            found = schedule(line, "x", BERLIN).after(moment)
            assert found is None or found > moment


def test_a_delay_is_always_the_same_for_a_machine_and_below_its_limit() -> None:
    one = schedule("@daily", delay=600.0)
    found = {one.delay(f"host{number}") for number in range(50)}
    assert one.delay("host1") == one.delay("host1")
    assert len(found) > 40
    assert all(0 <= delay <= 600 for delay in found)
    assert schedule("@daily").delay("host1") == 0


def test_utc_and_the_machines_own_time_need_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(schedules, "ZONES", str(tmp_path))
    monkeypatch.setattr(schedules, "LOCAL", str(tmp_path / "localtime"))
    assert (schedules.read_zone("UTC"), schedules.read_zone("")) == ("", "")
    assert schedules.read_zone("Europe/Berlin") is None
    (tmp_path / "Bad").write_bytes(b"TZif, not really")
    assert schedules.read_zone("Bad") is None
    assert schedules.zone_of("") is UTC


FIELDS = st.text("0123456789*,/-#LWAMONJSU", min_size=1, max_size=6) | st.sampled_from(["*", "*/5", "L", "MON"])


@given(st.lists(FIELDS, min_size=5, max_size=6).map(" ".join))
def test_every_line_is_either_good_or_told_what_is_wrong(line: str) -> None:
    assert schedules.problem(line) or schedule(line).after(schedules.START.timestamp()) is not None


def test_what_holds_privilege_and_every_part_but_the_supervisor_is_without_cron_and_zones() -> None:
    parts = "rootd.keeper.main rootd.privileged.main rootd.privileged.spawner rootd.log.main rootd.auth.main"
    code = "import sys; print({*sys.modules} & {'cronsim', 'zoneinfo', 'rootd.config.schedules'})"
    for part in (*parts.split(), "rootd.probe.main"):
        done = subprocess.run(
            [sys.executable, "-c", f"import {part}; {code}"], capture_output=True, text=True, check=True
        )
        assert done.stdout == "set()\n", part


def test_the_check_says_when_it_runs_next(bundle: Callable[..., Any]) -> None:
    job = f'{JOB}schedule = "30 2 * * *"\ntimezone = "UTC"\nrandom_delay = "5m"'
    given = bundle("[auth]", {"a.toml": job})._replace(zones={"UTC": ""})
    days = ", ".join(f"2026-06-0{day}T02:30:00+00:00" for day in (2, 3, 4))
    said = list(check.times(given, at("2026-06-01T12:00:00+00:00")))
    assert said == [f"services.d/a.toml: service.job runs at {days}, or up to 5m later"]
    given = bundle("[auth]", {"a.toml": job + "\nautostart = false"})._replace(zones={"UTC": ""})
    [said] = check.times(given, at("2026-06-01T12:00:00+00:00"))
    assert said.startswith("services.d/a.toml: service.job runs, once it is enabled, at 2026-06-02T02:30:00+00:00")
    for delay, notes in (("24h", 1), ("25h", 2)):
        given = bundle("[auth]", {"a.toml": job.replace("5m", delay)})._replace(zones={"UTC": ""})
        said = list(check.times(given, at("2026-06-01T12:00:00+00:00")))
        assert len(said) == notes
    assert "service.job: its random_delay is longer than the time from one run to the next" in said[0]
