"""Hooks, stop commands and probes in the files: entries of their own in the table, and what is refused."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from rootd.config.compile import Compiled
from rootd.config.specs import PARTS, Probe
from rootd.config.table import load_table

Compile = Callable[..., Compiled]
SOCKET = '[socket.http]\nlisten = "127.0.0.1:80"\n'
WORK = '[service.work]\ncommand = ["/srv/work"]\nuser = "worker"\n'
FULL = f"""{SOCKET}{WORK}
sockets = ["http"]
environment = {{ A = "1" }}
stop = {{ command = ["/srv/work", "quit"] }}
ready = {{ command = ["/srv/check", "ready"], interval = "2s", timeout = "9s" }}
[service.work.live]
command = ["/srv/check", "live"]
interval = "20s"
timeout = "4s"
failures = 2
action = "report"
watchdog = "30s"
[service.work.hooks]
pre_start = ["/srv/pre"]
post_start = ["/srv/post", "start"]
post_stop = ["/srv/post", "stop"]
timeout = "1m"
"""
OTHER = '[service.aaa]\ncommand = ["/srv/a"]\nuser = "www-site"\nhooks = { pre_start = ["/srv/a", "-t"] }\n'


def work(compile_: Compile, more: str, top: str = "") -> Compiled:
    return compile_("[auth]", {"a.toml": f"{top}{WORK}{more}"})


def test_every_part_is_an_entry_behind_the_services_with_its_command_and_little_else(compiled: Compile) -> None:
    found = compiled("[auth]", {"a.toml": OTHER, "b.toml": FULL})
    entries = load_table(found.table).entries
    aaa, spec = found.specs
    assert (aaa.entry, aaa.parts) == (0, (("pre-start", 2),))
    assert [name for name, _ in spec.parts] == list(PARTS)
    assert [spec.part(name) for name in PARTS] == [3, 4, 5, 6, 7, 8]
    assert (spec.part("nothing"), spec.has("stop"), aaa.has("stop")) == (None, True, False)
    main = entries[spec.entry]
    commands = {name: entries[at].argv for name, at in spec.parts}
    assert commands == {
        "pre-start": ("/srv/pre",), "post-start": ("/srv/post", "start"), "post-stop": ("/srv/post", "stop"),
        "stop": ("/srv/work", "quit"), "ready": ("/srv/check", "ready"), "live": ("/srv/check", "live"),
    }  # fmt: skip
    for name, at in spec.parts:
        part = entries[at]
        assert part.path == part.argv[0]
        assert {key: value for key, value in part.env if key != "DURWARD_HOOK"} == {
            key: value for key, value in main.env if key != "WATCHDOG_USEC"
        }
        assert ("DURWARD_HOOK", name) in part.env
        assert (part.sockets, part.signals, part.notify) == ((), (signal.SIGKILL,), False)
        assert (part.ready_fd, part.probe) == (0, False)
        alike = ("service", "count", "cwd", "uid", "gid", "groups", "umask", "limits", "nnp", "root", "log")
        assert [getattr(part, field) for field in alike] == [getattr(main, field) for field in alike]


def test_what_the_supervisor_knows_of_probes_and_hooks(compiled: Compile) -> None:
    [spec] = compiled("[auth]", {"a.toml": FULL}).specs
    assert (spec.ready_kind, spec.ready_probe, spec.ready_interval, spec.ready_timeout) == (
        "probe", Probe("command"), 2.0, 9.0
    )  # fmt: skip
    assert (spec.live_probe, spec.live_interval, spec.live_timeout) == (Probe("command"), 20.0, 4.0)
    assert (spec.live_failures, spec.live_restart, spec.watchdog, spec.hook_timeout) == (2, False, 30.0, 60.0)


def test_a_watchdog_gives_a_notify_socket_its_time_and_the_right_to_abort(compiled: Compile) -> None:
    entry = load_table(work(compiled, 'live = { watchdog = "0.5s" }\n').table).entries[0]
    assert entry.notify
    assert ("WATCHDOG_USEC", "500000") in entry.env
    assert signal.SIGABRT in entry.signals
    plain = load_table(work(compiled, "").table).entries[0]
    assert not plain.notify
    assert signal.SIGABRT not in plain.signals


@pytest.mark.parametrize(
    ("more", "probe"),
    [
        ('ready = { http = "http://127.0.0.1:8080/healthz" }', Probe("http", "tcp:127.0.0.1:8080", "/healthz")),
        ('ready = { http = "http://[0::1]:8080" }', Probe("http", "tcp:[::1]:8080", "/")),
        ('ready = { tcp = "127.0.0.1:5432" }', Probe("tcp", "tcp:127.0.0.1:5432")),
        ('ready = { tcp = "unix:/run/db/db.sock" }', Probe("tcp", "unix:/run/db/db.sock")),
    ],
)
def test_where_a_probe_looks(compiled: Compile, more: str, probe: Probe) -> None:
    [spec] = work(compiled, more).specs
    assert (spec.ready_kind, spec.ready_probe) == ("probe", probe)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ('ready = { notify = true, tcp = "127.0.0.1:1" }', "notify and tcp exclude each other"),
        ('ready = { after = "0s", command = ["/x"] }', "after and command exclude each other"),
        ('live = { http = "http://127.0.0.1:1/", command = ["/x"] }', "command and http exclude each other"),
        ('ready = { tcp = "udp:127.0.0.1:1" }', "tcp: udp:127.0.0.1:1 is not for connections"),
        ('live = { tcp = "unix-dgram:/run/x" }', "tcp: unix:/run/x is not for connections"),
        ('ready = { http = "/healthz" }', 'http: say where, as in "http://127.0.0.1:8080/healthz", or over = "probe"'),
        ('live = { over = "probe", http = "http://127.0.0.1:1/" }', 'over = "probe" takes a path alone'),
        ('ready = { over = "probe", tcp = "127.0.0.1:1" }', 'over = "probe" is for http'),
        ('live = { over = "probe" }', 'over = "probe" is for http'),
        ('ready = { fd = 5, http = "http://127.0.0.1:1/" }', "fd and http exclude each other"),
        (
            'ready = { http = "http://localhost:80/" }',
            'must be like "http://127.0.0.1:8080/healthz", with a number for',
        ),
        ('ready = { http = "http://127.0.0.1:99999/" }', 'must be like "http://127.0.0.1:8080/healthz"'),
        ('ready = { http = "" }', 'must be like "http://127.0.0.1:8080/healthz"'),
        ('hooks = { pre_start = ["check"] }', "must be a list of strings, the first of them an absolute path"),
        ("stop = { command = [] }", "must be a list of strings, the first of them an absolute path"),
        ("live = { failures = 0 }", "must be a whole number from 1 to 100"),
        ('live = { action = "ignore" }', "must be one of restart, report"),
        ('environment = { WATCHDOG_USEC = "1" }', "WATCHDOG_*, DURWARD_* are not yours to set"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(compiled: Compile, more: str, text: str) -> None:
    [problem] = work(compiled, more).problems
    assert text in problem.text


@pytest.mark.parametrize("kind", ['http = "http://127.0.0.1:80/"', 'tcp = "127.0.0.1:80"'])
def test_a_probe_that_another_process_might_answer_is_refused(compiled: Compile, kind: str) -> None:
    shared = 'sockets = ["http"]\n'
    [problem] = work(compiled, f"{shared}ready = {{ {kind} }}", SOCKET).problems
    assert problem.text.startswith("another process on the same sockets might answer")
    [problem] = work(compiled, f"{shared}processes = 2\nlive = {{ {kind} }}", SOCKET).problems
    assert problem.path == ("service", "work", "live")
    assert not work(compiled, f"{shared}live = {{ {kind} }}", SOCKET).problems


@pytest.mark.parametrize("key", ["ready", "live"])
def test_a_probe_over_a_socket_of_each_process_is_for_services_with_shared_sockets(compiled: Compile, key: str) -> None:
    more = f'sockets = ["http"]\nprocesses = 2\n{key} = {{ over = "probe", http = "/healthz" }}'
    found = work(compiled, more, SOCKET)
    [spec] = found.specs
    assert getattr(spec, f"{key}_probe") == Probe("http", "", "/healthz")
    assert load_table(found.table).entries[0].probe


def test_a_hook_that_changes_changes_the_service_and_no_other(compiled: Compile) -> None:
    before = compiled("[auth]", {"a.toml": OTHER, "b.toml": FULL}).specs
    after = compiled("[auth]", {"a.toml": OTHER.replace("-t", "-T"), "b.toml": FULL}).specs
    fewer = compiled("[auth]", {"a.toml": OTHER.replace("hooks", "#"), "b.toml": FULL}).specs
    assert before[0].digest != after[0].digest
    assert before[1].digest == after[1].digest == fewer[1].digest
    assert before[1].parts != fewer[1].parts


def test_exit_on_stands_before_the_sections_and_names_services_that_there_are(compiled: Compile) -> None:
    [spec] = compiled('exit_on = ["site"]\n[auth]\n').specs
    assert (spec.name, spec.exit_on) == ("site", True)
    assert [spec.exit_on for spec in compiled("[auth]\n[api]\n").specs] == [False, False]
    [problem] = compiled('exit_on = ["sites", "durward-api"]\n[auth]\n').problems[1:]
    assert (problem.file, problem.path) == ("durward.toml", ("exit_on",))
    assert problem.text == "there is no [service.sites]; did you mean 'site'?"
    [problem] = compiled("exit_on = 5\n[auth]\n").problems
    assert problem.text == "must be a list"


def test_what_ends_the_daemon_changes_without_a_restart_of_the_service(compiled: Compile) -> None:
    [one], [other] = compiled('exit_on = ["site"]\n[auth]\n').specs, compiled("[auth]\n").specs
    assert one.digest == other.digest


def test_without_an_api_nobody_logs_in_and_no_pam_service_is_needed(compiled: Compile) -> None:
    assert compiled("[auth]\n", pam=False).settings is not None
    assert compiled("[auth]\n[api]\n", pam=False).settings is None
