"""rootd/keeper/main: a real keeper forks puppets, which do and tell what the test says over a socket of their own."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prctl
import pytest

from rootd import ipc
from rootd.keeper import main as keeper

WAIT = 20.0  # seconds before a test gives up


def puppet(role: str, address: str, link_fd: int) -> int:
    """Runs as a role: says hello with what it inherited, then obeys."""
    link = ipc.link_from(link_fd, takes_fds=True)
    inherited = ipc.inherit(link)
    strings = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    strings.connect(address)

    def tell(**words: Any) -> None:
        strings.send(json.dumps({"role": role, **words}).encode())

    reaped = {str(pid): status for pid, status in inherited.reaped.items()}
    tell(hello=os.getpid(), held=sorted(inherited.held), links=sorted(inherited.links), reaped=reaped)
    while True:
        ready, _, _ = select.select([link, strings], [], [])
        if link in ready:
            received = link.receive()
            if received is None:
                tell(keeper_gone=True)
                return 0
            tell(op=received[0].op, name=received[0].name, arg=received[0].arg, extra=received[0].extra)
            ipc.close_all(received[1])
        if strings in ready:
            words = strings.recv(65536)
            if not words:
                return 1
            order = json.loads(words)
            match order["do"]:
                case "send":
                    fds = [os.memfd_create("x") for _ in range(order.get("fd", 0))]
                    more = {"name": order.get("name", ""), "arg": order.get("arg", 0), "scope": order.get("scope", 0)}
                    link.send_now(ipc.Message(order["op"], **more, body=order.get("body", "").encode()), *fds)
                    ipc.close_all(fds)
                case "raw":
                    link.sock.send(b"nonsense")
                case "orphan":
                    reader, writer = os.pipe()
                    child = os.fork()
                    if child == 0:
                        grandchild = os.fork()
                        if grandchild == 0:
                            os.close(reader)
                            os.close(writer)
                            strings.close()
                            os._exit(order["status"])
                        os.write(writer, str(grandchild).encode())
                        os._exit(0)
                    os.waitpid(child, 0)
                    tell(orphan=int(os.read(reader, 20)))
                    ipc.close_all((reader, writer))
                case "fds":
                    tell(fds=sorted(os.listdir("/proc/self/fd")), comm=Path("/proc/self/comm").read_text().strip())
                case "raise":
                    raise RuntimeError("on purpose")
                case "exit":
                    return int(order["status"])


class Theatre:
    """The test's side: a keeper in a process of its own, and the strings of its puppets."""

    def __init__(self, tmp: Path, *staged: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.address = str(tmp / "strings")
        self.listener.bind(self.address)
        self.listener.listen(16)
        self.listener.settimeout(WAIT)
        self.strings: dict[str, socket.socket] = {}
        self.heard: dict[str, list[dict[str, Any]]] = {}
        self.pid = os.fork()
        if self.pid == 0:
            prctl.set_child_subreaper(1)
            os.dup2(os.open(tmp / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            roles = {
                role: (lambda fd, role=role: puppet(role, self.address, fd))
                for role in ("privileged", "log", "supervisor", "auth", "probe")
            }
            os._exit(keeper.Keeper(roles, {name: os.memfd_create(name) for name in staged}).run())
        self.stderr = tmp / "stderr"

    def enter(self, *roles: str) -> dict[str, dict[str, Any]]:
        """Wait until these roles have come on stage; their hellos."""
        hellos: dict[str, dict[str, Any]] = {}
        while set(hellos) != set(roles):
            string, _ = self.listener.accept()
            string.settimeout(WAIT)
            hello = json.loads(string.recv(65536))
            hellos[hello["role"]] = hello
            if hello["role"] in self.strings:
                self.strings[hello["role"]].close()
            self.strings[hello["role"]] = string
        return hellos

    def order(self, role: str, **words: Any) -> None:
        self.strings[role].send(json.dumps(words).encode())

    def hear(self, role: str) -> dict[str, Any]:
        return json.loads(self.strings[role].recv(65536))  # type: ignore[no-any-return]

    def hear_op(self, role: str, op: int) -> None:
        """Wait for this message, passing over links to parts that are being started."""
        while self.hear(role).get("op") != op:
            continue

    def begin(self) -> dict[str, dict[str, Any]]:
        hellos = self.enter("privileged")
        self.order("privileged", do="send", op=ipc.BEGIN)
        hellos |= self.enter("log", "supervisor", "auth", "probe")
        for _ in range(2):
            assert self.hear("privileged")["op"] == ipc.LINK
        return hellos

    def wait(self) -> int:
        pidfd = os.pidfd_open(self.pid)
        ready, _, _ = select.select([pidfd], [], [], WAIT)
        os.close(pidfd)
        assert ready, "the keeper did not end"
        _, raw = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(raw)


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    yield from opened(Theatre(tmp_path))


def opened(stage: Theatre) -> Iterator[Theatre]:
    yield stage
    if stage.pid:
        os.kill(stage.pid, signal.SIGKILL)
        os.waitpid(stage.pid, 0)
    stage.listener.close()
    for string in stage.strings.values():
        string.close()


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
