"""The wall clock steps a year ahead, or back, under a running supervisor: only what it writes down shows that."""

from __future__ import annotations

import datetime
import mmap
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from supervisor_daemon import Daemon, reply

from policy import messages
from rootd import ipc
from rootd.supervisor import clocks

pytestmark = pytest.mark.root

YEAR = 365 * 86_400.0
EACH_WAY = pytest.mark.parametrize("seconds", [YEAR, -YEAR], ids=["ahead", "back"])
PAUSE = 1.0  # seconds: for the end, and between two tries
FILES = {
    "services.d/site.toml": f"""
[service.site]
command = ["/srv/site/bin/serve"]
user = "www-site"
ready = {{ notify = true }}
stop = {{ timeout = "{PAUSE}s" }}
restart = {{ policy = "always", backoff = "{PAUSE}s..{PAUSE}s", limit = "3 in 60s" }}
""",
    "policy.d/10.toml": """
[[grant]]
id = "ops"
who = ["group:webops"]
may = ["view", "stop"]
on = ["site"]
""",
}

Step = Callable[[float], None]
Make = Callable[..., Any]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Iterator[Step]:
    """Steps every wall clock that Python has, in this process and in those that it forks from now on."""
    shared = mmap.mmap(-1, 8)
    now, now_ns, gettime, gettime_ns = time.time, time.time_ns, time.clock_gettime, time.clock_gettime_ns

    def ahead(clock: int = time.CLOCK_REALTIME) -> float:
        return float(struct.unpack("d", shared[:])[0]) if clock == time.CLOCK_REALTIME else 0.0

    class Stepped(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=ahead())

    monkeypatch.setattr(clocks, "datetime", Stepped)
    monkeypatch.setattr(time, "time", lambda: now() + ahead())
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + int(ahead() * 1e9))
    monkeypatch.setattr(time, "clock_gettime", lambda clock: gettime(clock) + ahead(clock))
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: gettime_ns(clock) + int(ahead(clock) * 1e9))

    def to(seconds: float) -> None:
        shared[:] = struct.pack("d", seconds)

    to(0.0)
    yield to
    monkeypatch.undo()
    shared.close()


@pytest.fixture
def running(step: Step, daemon: Daemon, generation: Make) -> Daemon:
    """site runs as run 5; alice may look at it, and stop it."""
    daemon.start()
    started = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    fact = ipc.Message(ipc.FACT, run=5, generation=1, arg=4242, extra=started - 600_000_000_000)
    daemon.begin(generation(FILES), fact)
    assert daemon.record()["kind"] == "load"
    daemon.login()
    return daemon


def stop(running: Daemon) -> socket.socket:
    """alice asks for it, and the signal is sent. The operation's events come here."""
    with running.send(messages.Stop("site")) as sock:
        running.record()
        operation = reply(sock).operation
    asked = running.heard("privileged", ipc.SIGNAL)
    assert asked.arg == signal.SIGTERM
    running.tell(ipc.Message(ipc.DONE, seq=asked.seq))
    return running.send(messages.Watch(operation=operation))


def crash(running: Daemon, run: int) -> None:
    running.tell(ipc.Message(ipc.EXITED, run=run, arg=1, flags=ipc.KNOWN))
    asked = running.heard("privileged", ipc.SIGNAL)
    assert (asked.arg, asked.scope) == (signal.SIGKILL, ipc.TREE)
    running.tell(ipc.Message(ipc.DONE, seq=asked.seq))
    running.tell(ipc.Message(ipc.EMPTY, run=run))


def state(running: Daemon) -> str:
    return str(running.ask(messages.Status("site"), "", "root").services[0].state)


@EACH_WAY
def test_a_session_is_as_good_after_a_step_as_before(running: Daemon, step: Step, seconds: float) -> None:
    assert isinstance(running.ask(messages.Status("site")), messages.Services)
    step(seconds)
    assert isinstance(running.ask(messages.Status("site")), messages.Services)
    step(0.0)
    assert isinstance(running.ask(messages.Status("site")), messages.Services)


@EACH_WAY
def test_the_time_to_end_is_as_long_as_configured_and_the_events_bear_the_new_time(
    running: Daemon, step: Step, seconds: float
) -> None:
    begun = time.monotonic()
    with stop(running) as events:
        step(seconds)
        assert state(running) == "STOPPING"
        asked = running.heard("privileged", ipc.SIGNAL)
        assert (asked.arg, PAUSE <= time.monotonic() - begun < 10.0) == (signal.SIGKILL, True)
        texts = {}
        while "did not end in time, killed" not in texts:
            event = reply(events)
            texts[getattr(event, "text", "")] = getattr(event, "time", "")
    told = datetime.datetime.fromisoformat(texts["did not end in time, killed"])
    assert abs((told - datetime.datetime.now(datetime.UTC)).total_seconds() - seconds) < 60.0


@EACH_WAY
def test_a_pause_between_two_tries_is_as_long_as_configured(running: Daemon, step: Step, seconds: float) -> None:
    crash(running, 5)
    running.spawned(6)
    begun = time.monotonic()
    crash(running, 6)
    step(seconds)
    assert state(running) == "BACKOFF"
    running.spawned(7)
    assert PAUSE / 2 <= time.monotonic() - begun < 10.0, "a part of it is chance"


@EACH_WAY
def test_the_crashes_before_a_step_still_count_after_it(running: Daemon, step: Step, seconds: float) -> None:
    for run in (5, 6):
        crash(running, run)
        running.spawned(run + 1)
    step(seconds)
    crash(running, 7)
    assert state(running) == "FATAL"
    assert running.silent("privileged")


JOB = {
    "services.d/job.toml": """
[service.job]
command = ["/srv/job"]
user = "www-site"
schedule = "LINE"
timezone = "Europe/Berlin"
missed = "MISSED"
""",
    "policy.d/10.toml": "",
}


def scheduled(daemon: Daemon, generation: Make, line: str, missed: str = "skip") -> Daemon:
    texts = {name: text.replace("LINE", line).replace("MISSED", missed) for name, text in JOB.items()}
    daemon.start()
    daemon.begin(generation(texts))
    assert daemon.record()["kind"] == "load"
    return daemon


def ended(daemon: Daemon, run: int) -> None:
    """Its run ends well, and nothing of it is left."""
    daemon.tell(ipc.Message(ipc.EXITED, run=run, arg=0, flags=ipc.KNOWN))
    asked = daemon.heard("privileged", ipc.SIGNAL)
    daemon.tell(ipc.Message(ipc.DONE, seq=asked.seq))
    daemon.tell(ipc.Message(ipc.EMPTY, run=run))


def shown(daemon: Daemon) -> messages.ServiceInfo:
    found: messages.ServiceInfo = daemon.ask(messages.Status("job"), "", "root").services[0]
    return found


@EACH_WAY
def test_a_schedule_goes_on_by_the_new_time_without_a_flood_and_without_a_wait(
    step: Step, daemon: Daemon, generation: Make, seconds: float
) -> None:
    scheduled(daemon, generation, "* * * * * *")
    for run in (1, 2):
        daemon.spawned(run)
        ended(daemon, run)
    step(seconds)
    for run in (3, 4):
        daemon.spawned(run)
        before = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        ended(daemon, run)
        due = datetime.datetime.fromisoformat(shown(daemon).next)
        assert abs((due - before).total_seconds()) < 10.0


def test_what_a_step_ahead_has_skipped_is_made_up_for_by_one_run_or_counted(
    step: Step, daemon: Daemon, generation: Make
) -> None:
    """The clock is looked at again by the next supervisor; the one that runs looks once a minute."""
    noon = time.gmtime(time.clock_gettime(time.CLOCK_REALTIME) - 2 * 3600)
    scheduled(daemon, generation, f"{noon.tm_min} {noon.tm_hour} * * *", "once")
    kept = daemon.heard("log", ipc.KEEP)
    daemon.links["log"].send_now(ipc.Message(ipc.KEPT, seq=kept.seq, extra=ipc.RUNS))
    assert daemon.silent("privileged"), "and it has written down that it knows the job"
    step(YEAR)
    daemon.kill()
    texts = {name: text.replace("LINE", f"{noon.tm_min} {noon.tm_hour} * * *") for name, text in JOB.items()}
    daemon.start()
    daemon.begin(generation({name: text.replace("MISSED", "once") for name, text in texts.items()}))
    assert daemon.record()["kind"] == "load"
    daemon.spawned(1)
    assert shown(daemon).text == "99 or more missed"
    ended(daemon, 1)
