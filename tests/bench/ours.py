"""Durward as it is measured: a house of tests/system with so many services, and alice, who may look at all of them."""

from __future__ import annotations

import os
import signal
import time

import proc
import templates
from house import House
from managers import Ground, Manager, Stamp
from people import PAM_SERVICE, People, Person

from policy import messages

PARTS = ("keeper", "privileged", "supervisor", "auth", "log", "probe")
POLICY = """\
[[grant]]
id = "alice-looks"
who = ["user:@alice@"]
may = ["view"]
on = ["*"]
"""


class Durward(Manager):
    name = "durward"

    def __init__(self, ground: Ground, people: People, count: int, flood: int = 0, form: str = "plain") -> None:
        self.people = people
        super().__init__(ground, count, flood)
        log = f'\nlog = {{ size = "100G", format = "{form}" }}' if flood else ""
        services = "".join(
            f"[service.s{index:04}]\ncommand = {self.command(index)!r}\nuser = '@jobs@'{log}\n"
            for index in range(count)
        )
        self.house = House(people, ground.space, {"bench.toml": services}, {"bench.toml": POLICY}, ground.folder)
        listen = f'["unix:{self.house.run_dir}/api.sock"]'
        self.house.write("durward.toml", templates.settings(self.house, PAM_SERVICE, listen=listen))

    @property
    def user(self) -> Person:
        return self.people["jobs"]

    def prepare(self) -> None:
        pass

    def launch(self) -> None:
        self.house.start(wait=False)

    def pid(self) -> int:
        assert self.house.daemon is not None
        return self.house.daemon.pid

    def ended(self) -> str:
        daemon = self.house.daemon
        return "" if daemon is None or daemon.poll() is None else f"{daemon.returncode}\n{self.house.stderr()}"

    def logged(self) -> int:
        return sum(path.stat().st_size for path in (self.house.log / "s0000").iterdir())

    def stop(self) -> None:
        self.house.remove()

    def own(self) -> set[int]:
        """The api apart: the peers have none, or not one with people in it."""
        return super().own() - self.api()

    def api(self) -> set[int]:
        return {pid for pid in super().own() if proc.uid(pid) == self.people["api"].uid}

    def parts(self) -> dict[str, set[int]]:
        """Each part of ours, and its pids."""
        names = {f"durward-{part}"[:15]: part for part in PARTS}
        found: dict[str, set[int]] = {part: set() for part in PARTS}
        for pid in self.own():
            part = "keeper" if pid == self.pid() else names.get(proc.name(pid), proc.name(pid))
            found.setdefault(part, set()).add(pid)
        return {**found, "api": self.api()}

    def all_running(self) -> None:
        """The supervisor says so, of every service."""
        self.house.wait_for(
            lambda seen: len(seen) >= self.count and all(info.state == "RUNNING" for info in seen.values()),
            "every service is RUNNING",
        )

    def status_time(self) -> int:
        """ns from the question on root.sock to the last packet, decoded."""
        with self.house.root() as root:
            then = time.monotonic_ns()
            reply = root.ask(messages.Status())
            took = time.monotonic_ns() - then
        assert isinstance(reply, messages.Services)
        assert sum(service.name[0] == "s" for service in reply.services) == self.count
        return took

    def control_again(self, stamps: list[Stamp]) -> int:
        """kill -9 privileged and a service at once: ns until the service is back. Nothing is doubled or lost."""
        before = len(self.stamps())
        pid = self.house.pid_of("privileged")
        assert pid
        took, new = self.replaced(stamps[0], lambda: os.kill(pid, signal.SIGKILL))
        expected = {stamp.pid for stamp in stamps[1:]} | {new.pid}
        assert self.services() == expected, "doubled or lost"
        self.until_old(1.0, [new])
        self.all_running()
        told = {process.pid for info in self.house.status().values() for process in info.processes}
        assert told - self.api() == expected, "the supervisor knows of others"
        assert self.services() == expected, "doubled or lost"
        assert len(self.stamps()) == before + 1
        assert self.house.pid_of("privileged") not in (0, pid)
        return took
