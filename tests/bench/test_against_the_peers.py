"""Durward and its peers on the same work, in turn. What is asserted is that the work was done right: once, and wholly.

Run by: sudo ./packaging/test tests/bench -m bench -s
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import budgets
import proc
import pytest
from figures import ALL
from managers import SECOND, Ground, Manager, Stamp
from ours import Durward
from peers import PEERS, SpliceLoop, Supervisord
from people import People

from rootd.log import lines as spelled

if TYPE_CHECKING:
    from conftest import Sizes
    from figures import Figures

pytestmark = [pytest.mark.bench, pytest.mark.root]

MS = 1_000_000
NOW, WHOSE = "2026-01-02T03:04:05.000006Z", spelled.Whose("s0000", "s0000", 1, 0)
AGE = 2.5  # seconds that a service has run before it is killed: some managers make a younger one wait
SETTLED = 1.5  # seconds after the last start
ASKED = 20  # times in each round for the status over root.sock


def managers(ground: Ground, people: People, count: int, flood: int = 0) -> Iterator[Manager]:
    """One of each, one by one."""
    yield Durward(ground, people, count, flood)
    for peer in PEERS:
        yield peer(ground, count, flood)


def said(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def test_every_service_is_started_once_and_kill_9_of_privileged_doubles_and_loses_none(
    sizes: Sizes, ground: Ground, people: People, figures: Figures, parts: Figures
) -> None:
    for number in range(sizes.rounds):
        for manager in managers(ground, people, sizes.services):
            with ExitStack() as stack:
                stack.callback(manager.stop)
                stamps = manager.start().all_started()
                took = (max(stamp.at for stamp in stamps) - manager.launched) / SECOND
                said(f"round {number + 1}: {manager.name} has started {sizes.services} in {took:.2f} s")
                figures.add(budgets.START, budgets.SECONDS, manager.name, took)
                manager.until_old(SETTLED, stamps)
                memory(manager, figures, parts)
                if isinstance(manager, Durward):
                    status(manager, figures)
                    stamps = crashes_while_asked(manager, stamps, sizes, figures)
                    control = manager.control_again(stamps)
                    figures.add(budgets.CONTROL, budgets.MILLISECONDS, manager.name, control / MS)
                elif isinstance(manager, Supervisord):
                    status_of_supervisorctl(manager, figures)


def memory(manager: Manager, figures: Figures, parts: Figures) -> None:
    own = manager.own()
    figures.add(budgets.MEMORY, budgets.MEBIBYTES, manager.name, sum(map(proc.pss, own)) / 1024)
    figures.add(budgets.PROCESSES, budgets.NUMBER, manager.name, len(own))
    if isinstance(manager, Durward):
        for part, pids in manager.parts().items():
            parts.add(budgets.MEMORY, budgets.MEBIBYTES, part, sum(map(proc.pss, pids)) / 1024)


def status(manager: Durward, figures: Figures) -> None:
    manager.all_running()
    for _ in range(ASKED):
        figures.add(budgets.STATUS, budgets.MILLISECONDS, manager.name, manager.status_time() / MS)
    assert manager.house.login("alice").returncode == 0
    commands(manager, lambda *names: manager.house.cli("alice", "status", *names), figures)


def status_of_supervisorctl(manager: Supervisord, figures: Figures) -> None:
    def ask(*names: str) -> subprocess.CompletedProcess[str]:
        argv = manager.status_command(*names)
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd="/")

    commands(manager, ask, figures)


def commands(manager: Manager, ask: Callable[..., subprocess.CompletedProcess[str]], figures: Figures) -> None:
    """The status of all and of one, each as one whole command."""
    for figure, names, lines in ((budgets.STATUS_ALL, (), manager.count), (budgets.STATUS_ONE, ("s0000",), 1)):
        then = time.monotonic_ns()
        answer = ask(*names)
        took = time.monotonic_ns() - then
        assert sum(" RUNNING " in line and line[0] == "s" for line in answer.stdout.splitlines()) == lines, answer
        figures.add(figure, budgets.MILLISECONDS, manager.name, took / MS)


def crashes_while_asked(manager: Durward, stamps: list[Stamp], sizes: Sizes, figures: Figures) -> list[Stamp]:
    """Some services are killed, one by one, while somebody asks for the status of all over and over. Who lives now."""
    manager.until_old(AGE, stamps)
    living = {stamp.index: stamp for stamp in stamps}
    enough, asked = threading.Event(), threading.Event()

    def ask() -> None:
        while not enough.is_set():
            manager.status_time()
            asked.set()

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        assert asked.wait(10.0)
        for index in range(1, 1 + sizes.crashes):
            took, living[index] = manager.replaced(living[index])
            figures.add(budgets.CRASH_ASKED, budgets.MILLISECONDS, manager.name, took / MS)
    finally:
        enough.set()
        asker.join()
    return [living[index] for index in sorted(living)]


def test_what_is_killed_is_replaced_once_and_then_nothing_happens(
    sizes: Sizes, ground: Ground, people: People, figures: Figures, parts: Figures
) -> None:
    """All managers stand beside each other, so that they are idle in the same seconds."""
    with ExitStack() as stack:
        standing: list[tuple[Manager, list[Stamp]]] = []
        for manager in managers(ground, people, sizes.few):
            stack.callback(manager.stop)
            standing.append((manager, manager.start().all_started()))
        said(f"{sizes.few} services stand under each")
        for manager, stamps in standing:
            manager.until_old(AGE, stamps)
        for index in range(sizes.crashes):
            for manager, stamps in standing:
                took, _ = manager.replaced(stamps[index])
                figures.add(budgets.CRASH, budgets.MILLISECONDS, manager.name, took / MS)
        said(f"idle for {sizes.idle} s")
        idle(standing, sizes, figures, parts)
        for manager, _ in standing:
            assert len(manager.stamps()) == sizes.few + sizes.crashes, manager.name


def idle(standing: list[tuple[Manager, list[Stamp]]], sizes: Sizes, figures: Figures, parts: Figures) -> None:
    for manager, _ in standing:
        manager.until_old(AGE, manager.stamps())
    watched: dict[str, set[int]] = {}
    for manager, _ in standing:
        watched[manager.name] = manager.own()
        if isinstance(manager, Durward):
            watched.update(manager.parts())
    before = {name: proc.usage(pids) for name, pids in watched.items()}
    until = time.monotonic() + sizes.idle
    standing[0][0].until(lambda: time.monotonic() >= until, "the time of idleness is over", sizes.idle + 10.0)
    for name, pids in watched.items():
        used = proc.usage(pids).since(before[name])
        found = figures if name in ALL else parts
        found.add(budgets.IDLE_CPU, budgets.MILLISECONDS, name, used.cpu / MS)
        found.add(budgets.IDLE_SWITCHES, budgets.NUMBER, name, used.switches)


def test_no_byte_of_a_log_is_lost_or_doubled(sizes: Sizes, ground: Ground, people: People, figures: Figures) -> None:
    size = sizes.flood << 20
    size -= size % 100  # whole lines
    more = {"plain": 0, "stamped": len(spelled.stamped(b"", NOW)), "json": len(spelled.as_json(b"", NOW, WHOSE))}
    ours = {"plain": budgets.LOG, "stamped": budgets.LOG_STAMPED, "json": budgets.LOG_JSON}

    def wanted() -> Iterator[tuple[Manager, str]]:
        yield SpliceLoop(ground, 1, sizes.flood), "plain"
        for manager in managers(ground, people, 1, sizes.flood):
            yield manager, "plain"
        for form in ("stamped", "json"):
            yield Durward(ground, people, 1, sizes.flood, form), form

    for _ in range(sizes.rounds):
        for manager, form in wanted():
            with ExitStack() as stack:
                stack.callback(manager.stop)
                (service,) = manager.start().all_started()
                manager.until_old(AGE, [service])
                whole = size + size // 100 * max(more[form] - 1, 0)  # but for the newline
                before = proc.usage(manager.own())
                os.kill(service.pid, signal.SIGUSR1)
                _, begun, ended = manager.until_stamped(3)
                manager.until(lambda m=manager, all_of_it=whole: m.logged() >= all_of_it, "all of it is in the log")
                cpu = proc.usage(manager.own()).since(before).cpu / MS / (size / 1e8)
                assert manager.logged() == whole, manager.name
                rate = size * 1000 / (ended.at - begun.at)
                figures.add(ours[form], budgets.RATE, manager.name, rate)
                if form == "plain":
                    figures.add(budgets.LOG_CPU, budgets.MILLISECONDS, manager.name, cpu)
                said(f"{manager.name} ({form}): {rate:.0f} MB/s, {cpu:.0f} ms of CPU for 100 MB")
