"""What test_torture does to a house, and what it looks at afterwards: killers, people at work, and the claims.

Rule 1: one seed says what is killed and asked for, in which order; the machine says what that meets.
Rule 2: who works follows each thing that he has begun to its end by its number, whoever is killed meanwhile.
Rule 3: a claim is about what is there: /proc, cgroups, files and the answers to people, each against the others.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from house import House
from people import processes_of

from policy import messages
from rootd.privileged import cgroup

PARTS = ("privileged", "spawner", "supervisor", "log", "auth", "probe", "api", "service")
PAUSES = 0.01, 0.25  # seconds between two kills
Uncertain = (OSError, EOFError, TimeoutError)


class Killer(threading.Thread):
    """SIGKILL to one after the other, until `over`. killed: how often each."""

    def __init__(self, house: House, seed: int, over: threading.Event, spared: frozenset[str] = frozenset()) -> None:
        super().__init__(name="killer")
        self.house, self.dice, self.over, self.spared = house, random.Random(seed), over, spared
        self.killed: Counter[str] = Counter()

    def run(self) -> None:
        while not self.over.wait(self.dice.uniform(*PAUSES)):
            part, chance = self.dice.choice(PARTS), self.dice.random()
            pids = self.victims(part)
            if pids and self.kill(sorted(pids)[int(chance * len(pids))]):
                self.killed[part] += 1

    def victims(self, part: str) -> list[int]:
        house = self.house
        with contextlib.suppress(OSError, StopIteration, ValueError):
            match part:
                case "spawner":
                    parent = house.pid_of("privileged")
                    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
                    return [int(pid) for pid in children if comm(int(pid)).startswith("durward-spawne")]
                case "api":
                    return house.api_workers()
                case "service":
                    jobs = processes_of({house.people["jobs"].uid})
                    return [pid for pid in jobs if house.space.holds(pid) and not self.is_spared(pid)]
                case _:
                    return [pid for pid in [house.pid_of(part)] if pid]
        return []

    def is_spared(self, pid: int) -> bool:
        """A child that is not its service yet is privileged's business."""
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return not words[0].endswith(b"python3") or any(word.decode() in self.spared for word in words)

    @staticmethod
    def kill(pid: int) -> bool:
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True


class Worker(threading.Thread):
    """Somebody who has services of his own, and asks for one thing after the other, each to its end."""

    def __init__(self, house: House, seed: int, over: threading.Event, services: list[str]) -> None:
        super().__init__(name=f"worker-{seed}")
        self.house, self.dice, self.over, self.services = house, random.Random(seed), over, services
        self.wanted = dict.fromkeys(services, "up")  # what must be so afterwards; "": nobody was told
        self.ends: dict[int, messages.Ended] = {}
        self.unanswered = 0
        self.lost: list[int] = []  # accepted, and nobody knows how it ended
        self.trouble: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self.work()
        except BaseException as error:
            self.trouble = error

    def work(self) -> None:
        name, what = (
            self.dice.choice(self.services),
            self.dice.choice("restart restart restart stop start scale".split()),
        )
        command: messages.Command = messages.Restart(name, hard=self.dice.random() < 0.2)
        if what == "scale":
            command = messages.Scale(name, self.dice.randint(1, 3))
        elif what in ("start", "stop"):
            command = messages.Start(name) if what == "start" else messages.Stop(name)
        answer = self.ask(command)
        if answer is None:
            self.unanswered += 1
            if what in ("start", "stop") or self.wanted[name] == "down":
                self.wanted[name] = ""
            return
        if isinstance(answer, messages.Refused):
            return
        if what != "scale":
            self.wanted[name] = "down" if what == "stop" else "up"
        if isinstance(answer, messages.Accepted):
            self.follow(answer.operation)

    def ask(self, command: messages.Command) -> messages.Reply | messages.Event | None:
        """None when nobody knows whether it was begun."""
        try:
            with self.house.root() as root:
                return root.ask(command)
        except Uncertain:
            return None

    def follow(self, number: int) -> None:
        """As the command does it: asked again after the last step that was seen, until somebody tells its end."""
        after, deadline = 0, time.monotonic() + 60.0
        while time.monotonic() < deadline:
            try:
                with self.house.root() as root:
                    root.send(messages.Watch(operation=number, after=after))
                    while True:
                        event = root.receive()
                        if isinstance(event, messages.Ended):
                            self.ends[number] = event
                            return
                        if isinstance(event, messages.Refused) and event.kind == "unknown":
                            return self.lost.append(number)
                        after = max(after, getattr(event, "number", 0))
            except Uncertain:
                time.sleep(0.05)
        self.lost.append(number)


class Reloader(Worker):
    """Somebody who changes a service of his own in its file, and asks for a reload, again and again.

    text: the file, with {n}, which is in the environment of the service as N.
    """

    def __init__(self, house: House, over: threading.Event, service: str, text: str) -> None:
        super().__init__(house, 0, over, [service])
        self.text, self.number, self.sure = text, 0, 0

    def work(self) -> None:
        self.number += 1
        self.house.write(f"services.d/{self.services[0]}.toml", self.text.format(n=self.number))
        answer = self.ask(messages.Reload())
        if isinstance(answer, messages.Accepted):
            self.follow(answer.operation)
            if answer.operation in self.ends and self.ends[answer.operation].ok:
                self.sure = self.number
        self.over.wait(0.5)

    def runs_with(self) -> int:
        """The number that its process has."""
        (pid,) = self.house.pids(self.services[0])
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return next(int(word[2:]) for word in words if word.startswith(b"N="))


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def children(pid: int) -> dict[int, str]:
    """Of that process: their state letters."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = path.read_text().rpartition(")")[2].split()
            if int(words[1]) == pid:
                found[int(path.parent.name)] = words[0]
    return found


def descriptors(pid: int) -> Counter[str]:
    """How many there are of each kind, but for configurations: those live as long as a run of theirs."""
    kinds: Counter[str] = Counter()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            kinds[os.readlink(path).partition(":[")[0]] += 1
    del kinds["/memfd:durward-generation (deleted)"]
    return kinds


def runs(house: House) -> dict[str, set[int]]:
    """The cgroups of runs, and who is in each."""
    top = Path(cgroup.mount(), cgroup.name_of(str(house.run_dir)))
    return {
        path.name: {int(pid) for procs in path.rglob("cgroup.procs") for pid in procs.read_text().split()}
        for path in top.glob("run-*")
    }


def left_in(house: House) -> dict[str, set[str]]:
    """What the run directory has for runs, by kind, without the ends of names."""
    return {
        kind: {path.name.split(".")[0] for path in (house.run_dir / kind).glob("*")}
        for kind in ("notify", "probe", "credentials")
    }


# -- claims ------------------------------------------------------------------------------------------------------------


def status_proc_and_cgroups_agree(house: House) -> None:
    """Each process of status is alone with its children in a cgroup, and there is no other."""
    seen = house.status()
    mains = {process.pid for service in seen.values() for process in service.processes if process.pid}
    groups = runs(house)
    assert len(groups) == len(mains) + 1, (sorted(groups), mains)  # and the api, which nobody is told of
    uids = {house.people[short].uid for short in ("www", "jobs", "api")}
    there = {pid for pid in processes_of(uids) if house.space.holds(pid)}
    assert {pid for pids in groups.values() for pid in pids} == there
    for name, pids in groups.items():
        assert len(pids & mains) == 1 or house.people["api"].uid in {os.stat(f"/proc/{pid}").st_uid for pid in pids}, (
            name
        )


def nothing_is_left_of_what_is_over(house: House) -> None:
    assert house.daemon is not None
    alive = {name.removeprefix("run-") for name in runs(house)}
    for kind, names in left_in(house).items():
        assert names <= alive, (kind, names - alive)
    for parent in (house.daemon.pid, house.pid_of("privileged")):
        dead = [pid for pid, state in children(parent).items() if state == "Z"]
        assert not dead, dead


def is_quiet(house: House) -> bool:
    """Nothing is on its way: operations, starts, stops."""
    with house.root() as root:
        listed = root.ask(messages.ListOperations())
    states = {process.state for service in house.status().values() for process in service.processes}
    return (
        isinstance(listed, messages.Listed)
        and not listed.operations
        and not states & {"STARTING", "STOPPING", "BACKOFF"}
    )


def log_of(folder: Path) -> list[str]:
    """All lines, the oldest first, rotated files too."""
    rotated = sorted(folder.glob("stdout.log.*"), key=lambda path: -int(path.suffix[1:]))
    text = b"".join(path.read_bytes() for path in (*rotated, folder / "stdout.log") if path.exists())
    assert not text or text.endswith(b"\n")
    return text.decode().splitlines()


def no_line_is_lost_or_doubled(house: House, services: list[str], counts: Path) -> int:
    """How many lines there were. Every run is there with all that it has written, in its order."""
    written = {path.name: int.from_bytes(path.read_bytes(), "little") for path in counts.iterdir()}
    of: dict[str, list[str]] = {}
    for service in services:
        for folder in sorted(house.log.glob(f"{service}.*")) or [house.log / service]:
            for line in log_of(folder):
                run, _, rest = line.partition(" ")
                of.setdefault(run, []).append(rest)
    assert of.keys() <= written.keys(), "a line of nobody"
    for run, count in written.items():
        lines = of.get(run, [])
        assert [line.partition(" ")[0] for line in lines] == [str(number) for number in range(len(lines))], run
        for number, line in enumerate(lines):
            assert line in (f"{number} {'x' * (number % 97)}", f"{number} end"), (run, line)
        assert len(lines) in (count, count + 1), f"{run}: {count} were written, {len(lines)} are there"
    return sum(map(len, of.values()))


def every_outcome_is_recorded(house: House, workers: list[Worker]) -> None:
    """Of each operation that somebody was told the number of: how it ended, in the audit log as to him."""
    recorded: dict[object, list[dict[str, object]]] = {}
    for record in house.audit():
        if record.get("kind") == "outcome" and record.get("operation"):
            recorded.setdefault(record["operation"], []).append(record)
    for worker in workers:
        assert worker.lost == [], [(number, recorded.get(number)) for number in worker.lost]
        for number, end in worker.ends.items():
            found = recorded.get(number, [])
            assert found, f"operation {number} has no outcome: {end}"
            assert {(one["ok"], one["result"]) for one in found} == {(end.ok, end.text[:256])}, (end, found)


def wanted_is_so(house: House, workers: list[Worker]) -> None:
    seen = house.status()
    for worker in workers:
        for name, wanted in worker.wanted.items():
            info = seen[name]
            assert not wanted or info.wanted == wanted, (name, wanted, info)
            if info.wanted == "up":
                assert {process.state for process in info.processes} == {"RUNNING"}, info
            else:
                assert {process.state for process in info.processes} <= {"STOPPED", "EXITED"}, info


def retried(house: House, claim: Callable[[], None]) -> None:
    """A claim about a moment: a process may just be ending. It must hold within a few seconds, and then it does."""
    said: list[AssertionError] = []

    def holds() -> bool:
        try:
            claim()
        except (AssertionError, FileNotFoundError, ProcessLookupError) as error:
            said[:] = [AssertionError(error)]
            return False
        return True

    try:
        house.until(holds, "it is so", timeout=15.0)
    except AssertionError as late:
        raise AssertionError(f"{said}\n{late}") from None
