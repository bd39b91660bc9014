"""People who watch, while the supervisor is killed: their command goes on by itself, and loses and doubles nothing."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import templates
from asker import PATIENCE
from house import PREFIX, House
from people import People
from space import Space

from policy import messages

pytestmark = pytest.mark.root

WHO: list[tuple[str, tuple[str, ...]]] = [("root", ()), ("alice", ("worker",))]  # and what they may view; () is all
READY = 'ready = { after = "0.1s" }'
POLICY = '[[grant]]\nid = "w"\nwho = ["group:@webops@"]\nmay = ["view"]\non = ["worker"]\n'


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    services = {f"{name}.toml": templates.plain(name, more=READY) for name in ("worker", "vault")}
    with House(people, space, services, {"10.toml": POLICY}).running() as house:
        yield house


class Follower:
    """`durward --json events`, which runs until it is told to end."""

    def __init__(self, house: House, who: str, *words: str) -> None:
        self.house, self.events, self._data = house, list[dict[str, Any]](), b""
        argv = [str(PREFIX / "bin" / "durward"), "--json", "events", *words]
        more: dict[str, Any] = {}
        env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        if who == "root":
            argv[1:1] = ["--root", str(house.run_dir / "root.sock")]
        else:
            assert house.login(who).returncode == 0
            person = house.people[who]
            home = house.folder / "people" / person.name
            env |= {"DURWARD_URL": f"unix:{house.run_dir}/api.sock", "DURWARD_SESSION": str(home / "session")}
            more = {"user": person.uid, "group": person.gid, "extra_groups": person.groups}
        before = self.watches()
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, cwd="/", env=env, bufsize=0, **more
        )
        house.until(lambda: self.watches() > before, "it watches")

    def watches(self) -> int:
        return sum(record.get("command") == "watch" for record in self.house.audit())

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event of that kind among all that have come or come."""
        assert self.process.stdout is not None
        while not (found := [event for event in self.events if wanted(event)]):
            assert select.select([self.process.stdout], [], [], PATIENCE)[0], (self.events, self.house.stderr())
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"it ended: {self.process.communicate()[1].decode()}"
            *lines, self._data = (self._data + data).split(b"\n")
            self.events += map(json.loads, lines)
        return found[0]

    def end(self) -> str:
        """Ctrl-C; its standard error."""
        self.process.send_signal(signal.SIGINT)
        rest, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 130
        self.events += map(json.loads, (self._data + rest).splitlines())
        return errors.decode()


@contextmanager
def following(house: House, who: str, *words: str) -> Iterator[Follower]:
    follower = Follower(house, who, *words)
    try:
        yield follower
    finally:
        if follower.process.poll() is None:
            follower.process.kill()
            follower.process.communicate()


def restart(house: House) -> int:
    """Of both services; the number of the last event of the second."""
    for name in ("vault", "worker"):
        _, ended = house.operate(messages.Restart(name))
        assert ended.ok, ended
    return ended.number


def happened(house: House, after: int, until: int, services: tuple[str, ...] = ()) -> list[int]:
    """The numbers of what the supervisor has kept, as it tells root; () is all services."""
    numbers: list[int] = []
    with house.root() as root:
        root.send(messages.Watch(after=after))
        while not isinstance(event := root.receive(), messages.Watching):
            assert isinstance(event, messages.Changed | messages.Step | messages.Ended), event
            if event.number <= until and (not services or event.service in services):
                numbers.append(event.number)
    return numbers


@pytest.mark.parametrize(("who", "services"), WHO, ids=["root.sock", "api"])
def test_who_watches_is_told_everything_once_across_deaths_of_the_supervisor(
    house: House, who: str, services: tuple[str, ...]
) -> None:
    with following(house, who) as follower:
        last = restart(house)
        follower.until(lambda event: event["number"] == last)
        begun = follower.events[0]["number"]
        told = [event["number"] for event in follower.events if event["number"] <= last]
        assert told == happened(house, begun - 1, last, services)
        for _ in range(2):
            house.wait_back("supervisor", house.kill9("supervisor"))
            missed = follower.until(lambda event, last=last: event["is"] == "missed" and event["number"] > last)
            assert "is too old" in missed["text"]
            last = restart(house)
            follower.until(lambda event, last=last: event["number"] == last)
            numbers = [event["number"] for event in follower.events if missed["number"] < event["number"] <= last]
            assert numbers == happened(house, missed["number"], last, services)
        errors = follower.end()
    assert [event["number"] for event in follower.events] == sorted({event["number"] for event in follower.events})
    seen = {event["service"] for event in follower.events if "service" in event}
    assert seen == set(services) if services else seen >= {"worker", "vault"}
    if who == "root":
        assert errors == "the connection broke off; asking again\n" * 2


def test_who_comes_back_after_a_while_is_told_what_has_happened_meanwhile(house: House) -> None:
    first = restart(house)
    last = restart(house)
    for who, services in WHO:
        with following(house, who, "--after", str(first)) as follower:
            follower.until(lambda event: event["number"] == last)
            follower.end()
        assert [event["number"] for event in follower.events] == happened(house, first, last, services)


def test_kill_9_of_an_api_worker_loses_no_event_of_who_watches(house: House) -> None:
    with following(house, "alice") as follower:
        first = restart(house)
        follower.until(lambda event: event["number"] == first)
        for pid in house.until(house.api_workers, "the api has workers"):
            os.kill(pid, signal.SIGKILL)
        last = restart(house)
        follower.until(lambda event: event["number"] == last)
        errors = follower.end()
    numbers = [event["number"] for event in follower.events]
    assert numbers == happened(house, numbers[0] - 1, last, ("worker",))
    assert "missed" not in {event["is"] for event in follower.events}
    assert "asking again" in errors
