"""rootd/keeper/main: a real keeper forks puppets, which do and tell what the test says over a socket of their own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from theatre import WAIT, Theatre, opened

from rootd import ipc
from rootd.keeper import main as keeper


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    yield from opened(Theatre(tmp_path))


def test_nobody_is_forked_before_privileged_has_begun_and_each_is_linked_as_the_table_says(theatre: Theatre) -> None:
    theatre.enter("privileged")
    theatre.order("privileged", do="send", op=ipc.STORE, name="settings", fd=True)
    theatre.order("privileged", do="send", op=ipc.STORE, name="door/control", fd=True)
    theatre.order("privileged", do="send", op=ipc.STORE, name="pipe/site/stdout", fd=True)
    theatre.order("privileged", do="send", op=ipc.STORE, name="generation/1", fd=True)
    theatre.order("privileged", do="send", op=ipc.BEGIN)
    hellos = theatre.enter("log", "supervisor", "auth", "probe")
    assert {role: hello["held"] for role, hello in hellos.items()} == {
        "log": ["pipe/site/stdout", "settings"],
        "supervisor": ["door/control", "settings"],
        "auth": ["settings"],
        "probe": ["settings"],
    }
    links = {(role, peer) for role, hello in hellos.items() for peer in hello["links"]}
    for role in ("log", "supervisor", "auth", "probe", "privileged"):
        expected = {b if a == role else a for a, b in keeper.WIRES if role in (a, b)}
        got = {peer for mine, peer in links if mine == role}
        while got != expected:
            word = theatre.hear(role)
            assert word["op"] == ipc.LINK
            got.add(word["name"])


@pytest.fixture
def checked(tmp_path: Path) -> Iterator[Theatre]:
    yield from opened(Theatre(tmp_path, "staged/generation", "staged/settings", "staged/secrets"))


def test_the_supervisor_may_look_at_what_was_made_of_the_files_but_at_no_secret(checked: Theatre) -> None:
    names = [f"staged/{name}" for name in ("generation", "secrets", "settings")]
    assert checked.enter("privileged")["privileged"]["held"] == names
    for name in names:
        checked.order("privileged", do="send", op=ipc.DROP, name=name)
    checked.order("privileged", do="send", op=ipc.STORE, name="settings", fd=True)
    checked.order("privileged", do="send", op=ipc.BEGIN)
    hellos = checked.enter("log", "supervisor", "auth", "probe")
    assert hellos["supervisor"]["held"] == ["settings", "staged/generation", "staged/settings"]
    checked.order("supervisor", do="exit", status=1)
    assert checked.enter("supervisor")["supervisor"]["held"] == ["settings"], "it is there once"


def test_c7_d3_a_role_has_the_standard_descriptors_and_its_link_and_nothing_else(theatre: Theatre) -> None:
    theatre.begin()
    theatre.order("auth", do="fds")
    word = theatre.hear("auth")
    # 0-2, the link, the puppet's own string, the links it inherited (socket and pidfd each), the listing itself
    assert len(word["fds"]) <= 4 + 1 + 2 + 1
    assert word["comm"] == "durward-auth"


def test_a_part_that_dies_is_started_again_and_linked_again(theatre: Theatre) -> None:
    theatre.begin()
    for _ in range(3):
        theatre.order("log", do="exit", status=0)
        hello = theatre.enter("log")["log"]
        assert hello["links"] == ["privileged", "supervisor"]
        assert theatre.hear("privileged")["name"] == "log"


def test_a_probe_is_linked_to_the_supervisor_alone_and_to_each_new_one(theatre: Theatre) -> None:
    theatre.begin()
    theatre.order("probe", do="exit", status=1)
    assert theatre.enter("probe")["probe"]["links"] == ["supervisor"]
    theatre.order("supervisor", do="exit", status=1)
    assert theatre.enter("supervisor")["supervisor"]["links"] == ["auth", "log", "privileged", "probe"]
    assert theatre.hear("probe")["name"] == "supervisor"


def test_d7_what_was_stored_before_privileged_was_killed_is_given_back_to_the_next(theatre: Theatre) -> None:
    hello = theatre.begin()["privileged"]
    for number in range(20):
        theatre.order("privileged", do="send", op=ipc.STORE, name=f"process/{number}", fd=True)
    theatre.order("privileged", do="send", op=ipc.DROP, name="process/3")
    theatre.order("privileged", do="fds")
    theatre.hear("privileged")
    os.kill(hello["hello"], signal.SIGKILL)
    again = theatre.enter("privileged")["privileged"]
    assert again["held"] == sorted(f"process/{number}" for number in range(20) if number != 3)
    assert again["links"] == ["log", "supervisor"]


def test_several_descriptors_come_in_one_packet_and_fewer_than_their_names_are_none(theatre: Theatre) -> None:
    theatre.begin()
    theatre.order("privileged", do="send", op=ipc.STORE, body="notify/1\nprocess/1", fd=2)
    theatre.order("privileged", do="send", op=ipc.STORE, body="notify/2\nprocess/2", fd=1)
    theatre.order("privileged", do="exit", status=3)
    assert theatre.enter("privileged")["privileged"]["held"] == ["notify/1", "process/1"]


def test_a_name_that_is_taken_is_not_replaced_and_it_is_said(theatre: Theatre) -> None:
    theatre.begin()
    theatre.order("privileged", do="send", op=ipc.STORE, name="settings", fd=True)
    theatre.order("privileged", do="send", op=ipc.STORE, name="settings", fd=True)
    theatre.order("privileged", do="raw")
    theatre.order("privileged", do="exit", status=3)
    assert theatre.enter("privileged")["privileged"]["held"] == ["settings"]
    assert "'settings' cannot be stored" in theatre.stderr.read_text()


def test_an_orphan_is_reaped_and_its_status_told_to_this_privileged_and_to_the_next(theatre: Theatre) -> None:
    theatre.begin()
    theatre.order("privileged", do="orphan", status=7)
    words = [theatre.hear("privileged"), theatre.hear("privileged")]
    pid = next(word["orphan"] for word in words if "orphan" in word)
    assert any(word.get("op") == ipc.REAPED and (word["arg"], word["extra"]) == (pid, 7) for word in words)
    theatre.order("privileged", do="exit", status=1)
    assert theatre.enter("privileged")["privileged"]["reaped"] == {str(pid): 7}


def test_privileged_that_cannot_start_ends_the_whole_with_its_own_exit_status(theatre: Theatre) -> None:
    theatre.enter("privileged")
    theatre.order("privileged", do="exit", status=65)
    assert theatre.wait() == 65


def test_privileged_killed_before_it_had_begun_is_started_again(theatre: Theatre) -> None:
    hello = theatre.enter("privileged")["privileged"]
    os.kill(hello["hello"], signal.SIGKILL)
    theatre.enter("privileged")


def test_a_role_that_raises_is_said_and_started_again(theatre: Theatre) -> None:
    theatre.begin()
    theatre.order("auth", do="raise")
    theatre.enter("auth")
    assert "on purpose" in theatre.stderr.read_text()


def test_a_probe_that_hangs_is_killed_when_privileged_says_so_and_another_is_started(theatre: Theatre) -> None:
    hello = theatre.begin()["probe"]
    os.kill(hello["hello"], signal.SIGSTOP)
    theatre.order("privileged", do="send", op=ipc.RENEW, name="supervisor")
    assert theatre.enter("probe")["probe"]["hello"] != hello["hello"]
    assert "probe ended (signal 9) and is started again" in theatre.stderr.read_text()


def test_replace_is_started_again_at_once_however_often(theatre: Theatre) -> None:
    theatre.begin()
    for _ in range(8):
        theatre.order("privileged", do="exit", status=ipc.REPLACE_CODE)
        theatre.enter("privileged")
    assert "ended" not in theatre.stderr.read_text()


def test_sigterm_asks_the_supervisor_and_privileged_ends_it(theatre: Theatre) -> None:
    theatre.begin()
    os.kill(theatre.pid, signal.SIGTERM)
    theatre.hear_op("supervisor", ipc.END)
    theatre.order("privileged", do="send", op=ipc.END)
    for role in ("log", "supervisor", "auth", "probe", "privileged"):
        while not theatre.hear(role).get("keeper_gone"):
            continue
    assert theatre.wait() == 0


def test_a_supervisor_that_dies_while_it_stops_everything_is_asked_again(theatre: Theatre) -> None:
    theatre.begin()
    os.kill(theatre.pid, signal.SIGTERM)
    theatre.hear_op("supervisor", ipc.END)
    theatre.order("supervisor", do="exit", status=1)
    theatre.enter("supervisor")
    theatre.hear_op("supervisor", ipc.END)


def test_a_supervisor_that_dies_each_time_does_not_keep_the_daemon_from_ending(theatre: Theatre) -> None:
    theatre.begin()
    os.kill(theatre.pid, signal.SIGTERM)
    for _ in range(2):
        theatre.hear_op("supervisor", ipc.END)
        theatre.order("supervisor", do="exit", status=1)
        theatre.enter("supervisor")
    theatre.hear_op("privileged", ipc.END)


def test_a_second_sigterm_hurries_to_privileged(theatre: Theatre) -> None:
    theatre.begin()
    os.kill(theatre.pid, signal.SIGTERM)
    theatre.hear_op("supervisor", ipc.END)
    os.kill(theatre.pid, signal.SIGTERM)
    theatre.hear_op("privileged", ipc.END)


def test_sighup_asks_the_supervisor_to_reload(theatre: Theatre) -> None:
    theatre.begin()
    os.kill(theatre.pid, signal.SIGHUP)
    theatre.hear_op("supervisor", ipc.STAGE)


@pytest.mark.parametrize("signo", [signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_mean_nothing_to_it_are_passed_on(theatre: Theatre, signo: int) -> None:
    theatre.begin()
    os.kill(theatre.pid, signo)
    while (word := theatre.hear("supervisor")).get("op") != ipc.SIGNAL:
        continue
    assert word["arg"] == signo


def test_d11_a_storm_of_signals_ends_nothing_and_the_one_that_asks_for_an_end_is_heard(theatre: Theatre) -> None:
    theatre.begin()
    for number in range(10_000):
        os.kill(theatre.pid, (signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1)[number % 3])
    os.kill(theatre.pid, signal.SIGTERM)
    theatre.hear_op("supervisor", ipc.END)
    assert "is started again" not in theatre.stderr.read_text()


def test_sigquit_ends_it_in_order_as_sigterm_does(theatre: Theatre) -> None:
    theatre.begin()
    os.kill(theatre.pid, signal.SIGQUIT)
    theatre.hear_op("supervisor", ipc.END)


def test_where_nobody_logs_in_there_is_no_auth(theatre: Theatre) -> None:
    theatre.enter("privileged")
    theatre.order("privileged", do="send", op=ipc.BEGIN, scope=ipc.NO_LOGINS)
    assert theatre.enter("log", "supervisor", "probe")["probe"]["links"] == ["supervisor"]
    theatre.order("supervisor", do="exit", status=1)
    assert theatre.enter("supervisor")["supervisor"]["links"] == ["log", "privileged", "probe"]


def test_sigterm_before_anything_has_begun_ends_it(theatre: Theatre) -> None:
    theatre.enter("privileged")
    os.kill(theatre.pid, signal.SIGTERM)
    assert theatre.wait() == 0


def test_a_signal_that_comes_while_it_begins_to_listen_for_signals_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = signal.signal

    def listen_and_be_told(number: signal.Signals, handler: Any) -> Any:
        before = listen(number, handler)
        if number == signal.SIGTERM and callable(handler):
            os.kill(os.getpid(), number)
        return before

    monkeypatch.setattr(signal, "signal", listen_and_be_told)
    for theatre in opened(Theatre(tmp_path)):
        assert theatre.wait() == 0


def test_the_exit_status_of_the_whole_is_what_privileged_said(theatre: Theatre) -> None:
    theatre.begin()
    theatre.order("privileged", do="send", op=ipc.END, arg=9)
    assert theatre.wait() == 9


def test_sigterm_while_the_supervisor_is_being_started_again_waits_for_it(theatre: Theatre) -> None:
    """It ends everything in order: privileged, which would kill, is not asked in its place."""
    theatre.begin()
    for death in range(1, 5):
        theatre.order("supervisor", do="exit", status=1)
        until = time.monotonic() + WAIT
        while theatre.stderr.read_text().count("supervisor ended") < death:
            assert time.monotonic() < until
        if death < 4:
            theatre.enter("supervisor")
            assert theatre.hear("privileged")["op"] == ipc.LINK
    os.kill(theatre.pid, signal.SIGTERM)
    theatre.enter("supervisor")
    theatre.hear_op("supervisor", ipc.END)
    assert theatre.hear("privileged")["op"] == ipc.LINK
