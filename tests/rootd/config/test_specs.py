"""What the supervisor is told of a service."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

from rootd.config import redact
from rootd.config.compile import Compiled
from rootd.config.sections import read
from rootd.config.specs import ServiceSpec
from rootd.config.trusted import File

Compile = Callable[..., Compiled]

PLAIN = """
[service.work]
command = ["/srv/work"]
user = "worker"
"""
FULL = """
[socket.http]
listen = ["0.0.0.0:80", "[::]:80"]
[service.work]
command = ["/srv/work", "--quiet"]
user = "worker"
groups = ["front", "all"]
sockets = ["http"]
autostart = false
processes = 3
environment = { SECRET = "hidden" }
environment_file = "/etc/work/env"
signals = ["HUP", "USR1"]
ready = { notify = true, timeout = "5s" }
restart = { policy = "always", expected = [0, 3], backoff = "1s..1m", limit = "9 in 10m" }
stop = { signal = "INT", timeout = "2m", then = ["QUIT 5s", "ABRT 1s"] }
max_unavailable = 2
limits = { nofile = [10, 20] }
"""


def spec(compiled: Compiled) -> ServiceSpec:
    assert not compiled.problems
    return compiled.specs[0]


def test_what_is_not_said_has_its_default(compiled: Compile) -> None:
    found = spec(compiled("[auth]", {"a.toml": PLAIN}))
    assert found._replace(settings=(), digest="") == ServiceSpec(
        name="work", entry=0, processes=1, max_processes=1, groups=(), autostart=True, ready_kind="after",
        ready_after=1.0,
        ready_timeout=30.0, restart_policy="on-failure", expected=(0,), backoff_first=0.1, backoff_cap=30.0,
        limit_count=5, limit_window=60.0, stop_signal=signal.SIGTERM, stop_timeout=10.0, stop_then=(),
        max_unavailable=1,
        signals=("HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "WINCH", "ALRM"), sockets=(), shared=False,
        user="worker", requires=(), after=(), priority=999, restart_with=(), settings=(), digest="",
    )  # fmt: skip


def full(compiled: Compile, text: str = FULL, value: str = "hidden") -> ServiceSpec:
    path = "/etc/work/env"
    return spec(compiled("[auth]", {"a.toml": text}, environment_files={path: File(path, f"MORE={value}\n")}))


def test_what_is_said_is_told(compiled: Compile) -> None:
    found = full(compiled)
    assert found._replace(settings=(), digest="") == ServiceSpec(
        name="work", entry=0, processes=3, max_processes=3, groups=("front", "all"), autostart=False,
        ready_kind="notify",
        ready_after=1.0, ready_timeout=5.0, restart_policy="always", expected=(0, 3), backoff_first=1.0,
        backoff_cap=60.0, limit_count=9, limit_window=600.0, stop_signal=signal.SIGINT, stop_timeout=120.0,
        stop_then=((signal.SIGQUIT, 5.0), (signal.SIGABRT, 1.0)), max_unavailable=2,
        signals=("HUP", "USR1"), sockets=("http",), shared=True, user="worker", requires=(), after=(), priority=999,
        restart_with=(), settings=(), digest="",
    )  # fmt: skip


def test_settings_are_as_in_the_file_and_show_no_value_of_the_environment(compiled: Compile) -> None:
    shown = dict(full(compiled).settings)
    assert shown["command"] == '["/srv/work", "--quiet"]'
    assert shown["restart.limit"] == "9 in 10m"
    assert shown["limits.nofile"] == "[10, 20]"
    assert shown["stop.timeout"] == "2m"
    assert shown["umask"] == "022"
    assert shown["environment"] == '["SECRET"]'
    assert "environment_file" not in shown
    assert "hidden" not in str(shown)


SECRETS = """
command = ["/srv/work", "--token=hidden", "hidden"]
stop = { command = ["/srv/stop", "hidden"] }
hooks = { pre_start = ["/srv/migrate", "postgres://work:hidden@db/work"] }
live = { http = "http://127.0.0.1:80/health?key=hidden" }
ready = { command = ["/srv/ready", "-phidden"] }
"""


def test_settings_show_what_an_auditor_is_shown_and_the_digest_is_of_what_is_hidden_too(compiled: Compile) -> None:
    text = PLAIN.replace('command = ["/srv/work"]\n', SECRETS)
    found = spec(compiled("[auth]", {"a.toml": text}))
    assert "hidden" not in str(found.settings).replace(redact.HIDDEN, "")
    (shown,) = (values for *_, values in redact.redacted(read((File("services.d/a.toml", text),))[0]))
    assert dict(found.settings)["hooks.pre_start"] == json.dumps(shown["hooks"]["pre_start"])
    assert dict(found.settings)["live.http"] == shown["live"]["http"] == f"http://127.0.0.1:80/health?{redact.HIDDEN}"
    for old in ("--token=hidden", "key=hidden", ":hidden@", "-phidden", '"/srv/stop", "hidden"'):
        other = spec(compiled("[auth]", {"a.toml": text.replace(old, old.replace("hidden", "other"))}))
        assert (other.settings, other.digest == found.digest) == (found.settings, False), old


def test_its_place_among_the_others_is_told_and_makes_no_other_process(compiled: Compile) -> None:
    others = "".join(PLAIN.replace("work]", f"{name}]") for name in ("db", "cache"))
    alone = spec(compiled("[auth]", {"a.toml": PLAIN, "b.toml": others}))
    placed = PLAIN + 'requires = ["db"]\nafter = ["cache", "db"]\npriority = 5\nrestart_with = ["db"]\n'
    found = spec(compiled("[auth]", {"a.toml": placed, "b.toml": others}))
    assert (found.requires, found.after, found.priority, found.restart_with) == (("db",), ("cache",), 5, ("db",))
    assert dict(found.settings)["requires"] == '["db"]'
    assert found.digest == alone.digest


def test_what_policy_and_the_next_start_read_makes_no_other_process(compiled: Compile) -> None:
    base = full(compiled)
    for old, new in (
        ('"front", "all"', '"front"'),
        ("autostart = false", "autostart = true"),
        ("able = 2", "able = 3"),
    ):
        found = full(compiled, FULL.replace(old, new))
        assert found.settings != base.settings, old
        assert found.digest == base.digest, old


def test_the_digest_changes_with_the_service_and_with_nothing_else(compiled: Compile) -> None:
    base = full(compiled)
    assert full(compiled, FULL + PLAIN.replace("work]", "another]")).digest == base.digest
    behind = compiled("[auth]", {"0.toml": PLAIN.replace("work]", "first]"), "a.toml": PLAIN})
    assert [found.entry for found in behind.specs] == [0, 1]
    assert behind.specs[1].digest == spec(compiled("[auth]", {"a.toml": PLAIN})).digest
    assert full(compiled, value="other").digest != base.digest
    for old, new in (('"/srv/work"', '"/srv/other"'), ("2m", "3m"), ("0.0.0.0:80", "0.0.0.0:81"), ("20]", "21]")):
        assert full(compiled, FULL.replace(old, new)).digest != base.digest
