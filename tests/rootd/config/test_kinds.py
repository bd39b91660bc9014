"""Kinds of services: what each says of itself, and what is refused with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rootd.config.compile import Compiled

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
