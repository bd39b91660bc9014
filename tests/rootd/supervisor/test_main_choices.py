"""The supervisor as a process of its own and what people have chosen to start; log is played, and so is its disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest
from supervisor_daemon import Daemon, reply

from policy import messages
from rootd import ipc

pytestmark = pytest.mark.root

Make = Callable[..., Any]
OFF = b'{"version":1,"choices":{"site":[false,"alice"]}}'
SITE = """
[service.site]
command = ["/srv/site/bin/serve"]
user = "www-site"
ready = { notify = true }
"""
ENABLES = """
[[grant]]
id = "ops"
who = ["group:webops"]
may = ["view", "enable"]
on = ["site"]
"""


def put(daemon: Daemon, data: bytes) -> None:
    path = daemon.path / "state/choices/choices.json"
    path.write_bytes(data)
    path.chmod(0o644)


@pytest.fixture
def configured(generation: Make) -> Make:
    """A generation of site alone, which alice may enable."""
    return lambda number=1, more="": generation(
        {"services.d/site.toml": SITE + more, "policy.d/10.toml": ENABLES}, number
    )


def begun(daemon: Daemon, generation: Any) -> Daemon:
    daemon.start()
    daemon.begin(generation)
    assert daemon.record()["kind"] == "load"
    daemon.login()
    return daemon


def keep(daemon: Daemon, number: int = 0) -> bytes:
    """KEEP comes, and is answered."""
    asked = daemon.heard("log", ipc.KEEP)
    if number == 0:
        put(daemon, asked.body)
    daemon.links["log"].send_now(ipc.Message(ipc.KEPT, seq=asked.seq, arg=number))
    return asked.body


def info(daemon: Daemon) -> messages.ServiceInfo:
    found: messages.ServiceInfo = daemon.ask(messages.Status(), "", "root").services[0]
    return found


def test_what_was_disabled_is_not_started_and_what_is_enabled_later_is_not_either(
    daemon: Daemon, configured: Make
) -> None:
    put(daemon, OFF)
    begun(daemon, configured())
    assert daemon.silent("privileged")
    daemon.heard("log", ipc.RECORD)
    assert (info(daemon).state, info(daemon).enabled) == ("STOPPED", False)
    for _ in range(2):
        daemon.record()
    with daemon.send(messages.Enable("site")) as sock:
        daemon.record()
        assert keep(daemon) == OFF.replace(b"false", b"true")
        assert reply(sock) == messages.Done("site is enabled")
    assert daemon.record()["result"] == "site is enabled"
    assert daemon.silent("privileged")
    assert info(daemon).enabled


def test_what_its_disk_refuses_changes_nothing(daemon: Daemon, configured: Make) -> None:
    put(daemon, OFF)
    begun(daemon, configured())
    with daemon.send(messages.Enable("site")) as sock:
        daemon.record()
        keep(daemon, errno.ENOSPC)
        assert reply(sock).kind == "failed"
    assert not daemon.record()["ok"]
    assert not info(daemon).enabled


def test_a_log_that_is_started_again_is_asked_again(daemon: Daemon, configured: Make) -> None:
    begun(daemon, configured())
    daemon.heard("privileged", ipc.SPAWN)
    with daemon.send(messages.Disable("site")) as sock:
        daemon.record()
        asked = daemon.heard("log", ipc.KEEP)
        daemon.link("log")
        assert keep(daemon) == asked.body == OFF
        assert reply(sock) == messages.Done("site is disabled")


def test_a_supervisor_killed_in_between_puts_back_what_it_has_read(daemon: Daemon, configured: Make) -> None:
    begun(daemon, configured())
    daemon.heard("privileged", ipc.SPAWN)
    daemon.send(messages.Disable("site")).close()
    daemon.record()
    assert daemon.heard("log", ipc.KEEP).body == OFF
    daemon.kill()
    daemon.start()
    asked = daemon.heard("log", ipc.KEEP)
    assert asked.body == b"", "it has read that there is nothing; log may be late"
    daemon.links["log"].send_now(ipc.Message(ipc.KEPT, seq=asked.seq))
    daemon.begin(configured())
    assert info(daemon).enabled
    assert (daemon.path / "run/supervisor/choosing").read_bytes() == b""


def test_a_reload_loses_no_choice_and_starts_nothing_that_is_disabled(daemon: Daemon, configured: Make) -> None:
    put(daemon, OFF)
    begun(daemon, configured())
    with daemon.send(messages.Reload(), "", "root") as sock:
        daemon.record()
        assert isinstance(reply(sock), messages.Accepted)
    staged = configured(2, "restart = { backoff = '1s..2s' }\n")
    daemon.tell(staged.table(seq=daemon.heard("privileged", ipc.STAGE).seq), staged.fd)
    commit = daemon.heard("privileged", ipc.COMMIT)
    daemon.tell(ipc.Message(ipc.DONE, seq=commit.seq))
    assert [daemon.record()["kind"] for _ in range(2)] == ["load", "rights"]
    assert daemon.record()["ok"]
    assert daemon.silent("privileged")
    daemon.heard("log", ipc.RECORD)
    assert not info(daemon).enabled


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("damaged", "it is damaged"), ("another version", "it is of version 2"), ("too large", "more than 49152 bytes"),
        ("a FIFO", "it is not a plain file"), ("a directory", "it is not a plain file"),
        ("a link", "Too many levels of symbolic links"), ("closed", "Permission denied"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_said_loudly_and_autostart_counts(
    daemon: Daemon, configured: Make, what: str, said: str
) -> None:
    path = daemon.path / "state/choices/choices.json"
    if what == "a FIFO":
        os.mkfifo(path)
        path.chmod(0o644)
    elif what == "a directory":
        path.mkdir()
    elif what == "a link":
        (daemon.path / "elsewhere").write_bytes(OFF)
        path.symlink_to(daemon.path / "elsewhere")
    else:
        changed = {"damaged": OFF[:-1], "another version": OFF.replace(b":1", b":2"), "closed": OFF}
        put(daemon, changed.get(what, OFF + b" " * 50_000))
        path.chmod(0o600 if what == "closed" else 0o644)
    daemon.start()
    daemon.begin(configured())
    daemon.heard("privileged", ipc.SPAWN)
    assert "choices.json is not used, autostart alone counts" in daemon.stderr.read_text()
    assert said in daemon.stderr.read_text()
    assert daemon.silent("privileged"), "and nothing is written over it"
