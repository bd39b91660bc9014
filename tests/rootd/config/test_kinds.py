"""Kinds of services: what each says of itself, and what is refused with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rootd.config.compile import Compiled
from rootd.config.table import load_table

Compile = Callable[..., Compiled]
JOB = '[service.job]\ncommand = ["/srv/job"]\nuser = "worker"\nkind = "oneshot"\n'


def test_a_one_shot_is_ready_when_it_has_ended_and_is_not_tried_again(compiled: Compile) -> None:
    [job] = compiled("[auth]", {"a.toml": JOB}).specs
    assert (job.ready_kind, job.ready_timeout, job.restart_policy) == ("exit", 0.0, "never")
    assert ("restart.policy", "never") in job.settings
    assert ("kind", "oneshot") in job.settings


def test_it_has_its_time_and_may_be_tried_again(compiled: Compile) -> None:
    text = JOB + 'timeout = "10m"\nrestart = { policy = "on-failure", limit = "3 in 10m" }\n'
    [job] = compiled("[auth]", {"a.toml": text}).specs
    assert (job.ready_timeout, job.restart_policy, job.limit_count) == (600.0, "on-failure", 3)


@pytest.mark.parametrize(
    ("more", "key", "part"),
    [
        ("ready = { notify = true }", "ready", "when it has ended well"),
        ('ready = { after = "0s" }', "ready", "when it has ended well"),
        ('live = { watchdog = "3s" }', "live", "its time is timeout"),
        ('live = { tcp = "127.0.0.1:80" }', "live", "its time is timeout"),
        ('hooks = { post_start = ["/bin/true"] }', "hooks", "post_stop"),
        ('restart = { policy = "always" }', "restart", '"never" or "on-failure"'),
    ],
)
def test_what_makes_no_sense_with_a_one_shot_is_a_problem_at_its_key(
    compiled: Compile, more: str, key: str, part: str
) -> None:
    [problem] = compiled("[auth]", {"a.toml": JOB + more}).problems
    assert problem.path == ("service", "job", key)
    assert part in problem.text


def test_a_time_is_refused_for_what_does_not_end(compiled: Compile) -> None:
    text = '[service.job]\ncommand = ["/srv/job"]\nuser = "worker"\ntimeout = "3s"\n'
    [problem] = compiled("[auth]", {"a.toml": text}).problems
    assert problem.path == ("service", "job", "timeout")


def test_what_is_no_table_is_told_as_such(compiled: Compile) -> None:
    [problem] = compiled("[auth]", {"a.toml": JOB + 'restart = "never"'}).problems
    assert (problem.path, problem.text) == (("service", "job", "restart"), "must be a table")


FORKING = '[service.d]\ncommand = ["/usr/sbin/d", "-d"]\nuser = "worker"\nkind = "forking"\n'


def test_a_forking_service_is_run_by_what_reads_its_pid_file_as_its_user(compiled: Compile) -> None:
    found = compiled("[auth]", {"a.toml": FORKING + 'pid_file = "/run/d/d.pid"\n'})
    [entry], [spec] = load_table(found.table).entries, found.specs
    python = "/opt/durward/bin/python3"
    assert entry.argv == (python, "-I", "-m", "rootd.pidfile", "/run/d/d.pid", "/usr/sbin/d", "-d")
    assert (entry.path, entry.notify, spec.ready_kind) == (python, True, "notify")
    assert ("command", '["/usr/sbin/d", "-d"]') in spec.settings


def test_it_may_be_probed_and_takes_nothing_else_that_says_it_is_ready(compiled: Compile) -> None:
    text = FORKING + 'pid_file = "/run/d/d.pid"\nready = { tcp = "127.0.0.1:80" }\n'
    assert compiled("[auth]", {"a.toml": text}).specs[0].ready_kind == "probe"
    [problem] = compiled("[auth]", {"a.toml": text.replace('tcp = "127.0.0.1:80"', "notify = true")}).problems
    assert problem.path == ("service", "d", "ready")


def test_a_pid_file_and_forking_go_together(compiled: Compile) -> None:
    for text in (FORKING, FORKING.replace('"forking"', '"simple"') + 'pid_file = "/run/d/d.pid"\n'):
        [problem] = compiled("[auth]", {"a.toml": text}).problems
        assert problem.path == ("service", "d", "pid_file")
