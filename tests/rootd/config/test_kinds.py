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


@pytest.mark.parametrize("key", ["processes", "max_processes"])
def test_a_forking_service_has_one_process_as_its_pid_file_names_one(compiled: Compile, key: str) -> None:
    text = FORKING + f'pid_file = "/run/d/d.pid"\n{key} = '
    assert not compiled("[auth]", {"a.toml": f"{text}1\n"}).problems
    [problem] = compiled("[auth]", {"a.toml": f"{text}2\n"}).problems
    assert problem.path == ("service", "d", key)


FASTCGI = """
[socket.fcgi]
listen = "unix:/run/durward/sockets/fcgi.sock"
[service.php]
command = ["/usr/bin/php-cgi"]
user = "www-site"
fastcgi = "fcgi"
hooks = { pre_start = ["/bin/true"] }
[service.more]
command = ["/usr/bin/php-cgi"]
user = "worker"
fastcgi = "fcgi"
"""


def test_a_fastcgi_service_gets_its_socket_as_descriptor_0_and_may_share_it(compiled: Compile) -> None:
    found = compiled("[auth]", {"a.toml": FASTCGI})
    php, more, hook = load_table(found.table).entries
    assert (php.stdin, more.stdin, hook.stdin) == (*["unix:/run/durward/sockets/fcgi.sock"] * 2, "")
    assert php.held() == (php.stdin,)
    assert php.sockets == hook.held() == ()
    assert load_table(found.table).sockets[0].users == (1001, 1002)
    assert [spec.shared for spec in found.specs] == [True, True]


def test_a_probe_over_a_socket_that_others_answer_proves_nothing_there_either(compiled: Compile) -> None:
    text = FASTCGI.replace("hooks = {", 'ready = { tcp = "127.0.0.1:80" }\nhooks = {')
    [problem] = compiled("[auth]", {"a.toml": text}).problems
    assert problem.path == ("service", "php", "ready")


@pytest.mark.parametrize(
    ("listen", "part"),
    [('["127.0.0.1:1", "127.0.0.1:2"]', "must have one address"), ('"udp:127.0.0.1:1"', "for connections")],
)
def test_the_socket_of_fastcgi_has_one_address_for_connections(compiled: Compile, listen: str, part: str) -> None:
    text = FASTCGI.replace('"unix:/run/durward/sockets/fcgi.sock"', listen)
    found = compiled("[auth]", {"a.toml": text}).problems
    assert {one.path for one in found} == {("service", "php", "fastcgi"), ("service", "more", "fastcgi")}
    assert all(part in one.text for one in found)


def test_a_socket_that_is_not_there_is_told(compiled: Compile) -> None:
    found = compiled("[auth]", {"a.toml": FASTCGI.replace('fastcgi = "fcgi"', 'fastcgi = "fgci"')}).problems
    assert found[0].text == "there is no [socket.fgci]; did you mean 'fcgi'?"
