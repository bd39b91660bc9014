"""What is under way when the supervisor is killed: it goes on to its end, whenever that is, and its end is known."""

from __future__ import annotations

import errno
from typing import Any

import msgspec
import pytest

from policy.messages import Ended, Problem
from rootd.config.specs import ServiceSpec
from rootd.supervisor import inflight, recover
from rootd.supervisor.operations import JOINED_LIMIT, Asker, Operation, Operations

GOES_ON = "the supervisor was started again: this goes on"
TURNS = 24  # messages of privileged that any of these takes at most


def ended(house: Any, number: int) -> Ended:
    found = house.services.operations.find(number)
    assert found is not None
    assert found.ended, house.said(number)
    (end,) = [event for event in found.events if isinstance(event, Ended)]
    return end


def begun(House: Any, spec: Any, kind: str) -> tuple[Any, int]:
    """A house with an operation of this kind that has just begun, and its number."""
    more: dict[str, Any] = {"processes": 3, "max_processes": 4, "ready_kind": "notify", "shared": kind != "hard"}
    house = House(spec(**more, autostart=kind != "start")).begin()
    settle(house)
    services, now = house.services, house.now
    match kind:
        case "start":
            number = services.start("site", now, "r")
        case "stop":
            number = services.stop("site", now, "r")
        case "restart" | "hard":
            number = services.restart("site", now, "r", hard=kind == "hard")
        case "up":
            number = services.scale("site", 4, now, "r")
        case "down":
            number = services.scale("site", 1, now, "r")
        case _:
            raise AssertionError(kind)
    operation = services.operations.find(number)
    services.operations.asked(operation, Asker("r", "site", "restart"))
    return house, number


def turn(house: Any) -> None:
    """One message of privileged, or, when it has said all, one that makes a new process ready."""
    if house.privileged.said:
        house.deliver(1)
        return
    for run in house.privileged.mains():
        house.services.notified(run.number, {"READY": "1"}, house.now)


def settle(house: Any) -> None:
    for _ in range(60):
        house.later(0.5)
        for run in house.privileged.mains():
            house.services.notified(run.number, {"READY": "1"}, house.now)


class Killed(Exception):
    """The supervisor, between two effects."""


class Acting:
    """A house whose supervisor acts as main does: what was asked for is written, then the effects are performed."""

    def __init__(self, House: Any, effects: int, *specs: ServiceSpec) -> None:
        """effects: it is killed after so many of them, once it is armed."""
        self.house, self.left, self.armed = House(*specs), effects, False
        self.queue: list[Any] = []
        self.take()
        self.house.begin()
        self.act()

    def take(self) -> None:
        """The supervisor that there is now."""
        self.queue.clear()
        self.written, self.kept = -1, b""
        services = self.house.services
        for seam in (services._slots, services._slots._requests):
            seam._perform = self.queue.append

    def act(self) -> None:
        services = self.house.services
        if self.written != services.asked:
            self.written, self.kept = services.asked, services.state()
        queue, self.queue[:] = list(self.queue), []
        for request in queue:
            self.house.privileged.perform(request)
            self.left -= self.armed
            if self.armed and self.left == 0:
                raise Killed

    def on(self) -> None:
        turn(self.house)
        self.act()

    def settle(self) -> None:
        for _ in range(60):
            self.house.now += 0.5
            self.house.services.wake(self.house.now)
            self.act()
            while self.house.privileged.said:
                self.on()
            self.on()

    def reborn(self) -> None:
        self.house.lose()
        self.house.services = self.house.supervisor()
        self.house.services.restore(self.kept)
        self.armed = False
        kept = self.kept
        self.take()
        self.kept = kept
        self.house.begin()
        self.act()


@pytest.mark.parametrize("kind", ["start", "stop", "restart", "hard", "up", "down"])
def test_it_is_finished_when_the_supervisor_is_killed_after_any_effect(House: Any, spec: Any, kind: str) -> None:
    for effects in range(1, 40):
        more: dict[str, Any] = {"processes": 3, "max_processes": 4, "ready_kind": "notify", "shared": kind != "hard"}
        acting = Acting(House, effects, spec(**more, autostart=kind != "start"))
        acting.settle()
        services, now = acting.house.services, acting.house.now
        acting.armed = True
        ask = {"up": ("scale", 4), "down": ("scale", 1), "hard": ("restart",)}.get(kind, (kind,))
        number = getattr(services, ask[0])("site", *ask[1:], now, "r", **({"hard": True} if kind == "hard" else {}))
        try:
            acting.act()
            acting.settle()
        except Killed:
            acting.reborn()
            acting.settle()
        assert ended(acting.house, number).ok, (effects, acting.house.said(number))
        runs = {run.number for run in acting.house.privileged.mains()}
        assert len(runs) == {"stop": 0, "up": 4, "down": 1}.get(kind, 3)
        assert kind not in ("restart", "hard") or not runs & {1, 2, 3}
        assert kind != "up" or runs >= {1, 2, 3}
        if acting.armed:  # it has ended before so many
            break
    else:
        raise AssertionError("it never ended by itself")
    assert effects > {"up": 1, "start": 3}.get(kind, 2)


@pytest.mark.parametrize("written", ["late", "at once"])
@pytest.mark.parametrize("kind", ["start", "stop", "restart", "hard", "up", "down"])
def test_it_is_finished_whenever_the_supervisor_is_killed(House: Any, spec: Any, kind: str, written: str) -> None:
    """late: the state file is from when the operation began, which is the least that is ever there."""
    for turns in range(TURNS):
        house, number = begun(House, spec, kind)
        before = set() if kind == "start" else {1, 2, 3}
        early = house.services.state()
        for _ in range(turns):
            turn(house)
        if house.services.operations.find(number).ended:
            break
        house.reborn(early if written == "late" else None)
        settle(house)
        end = ended(house, number)
        assert end.ok, (turns, house.said(number))
        assert house.said(number)[0] == GOES_ON
        assert house.services.operations.find(number).askers == [("r", "site", "restart")]
        runs = [run.number for run in house.privileged.mains()]
        assert len(runs) == {"stop": 0, "up": 4, "down": 1}.get(kind, 3)
        if kind in ("restart", "hard"):
            assert not before & set(runs), "each has been replaced"
        if kind in ("up", "down"):
            assert before <= set(runs) or before >= set(runs), "none has been"
    else:
        raise AssertionError("it never ended by itself")
    assert turns >= 2


def test_a_restart_that_cannot_be_is_rolled_back_by_the_next_supervisor_too(House: Any, spec: Any) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    house.privileged.failing = errno.ENOENT, "exec"
    number = house.services.restart("site", house.now, "r")
    house.reborn().later(20.0)
    end = ended(house, number)
    why = "the new process: cannot execute /srv/x: No such file or directory; the old one keeps serving"
    assert (end.ok, end.text) == (False, f"site was not restarted: {why}")
    assert house.pids() == [1001]


def test_one_that_waits_for_another_begins_after_that(House: Any, spec: Any) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    first = house.services.restart("site", house.now, "r1")
    house.deliver()
    second = house.services.restart("site", house.now, "r2")
    assert second != first
    house.reborn().later(20.0)
    assert [ended(house, number).ok for number in (first, second)] == [True, True]
    assert house.pids() == [1003]


def test_one_whose_forerunner_is_known_to_have_ended_begins_at_once(House: Any, spec: Any) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    first = house.services.restart("site", house.now, "r1")
    house.deliver()
    second = house.services.restart("site", house.now, "r2")
    state = house.services.state()
    house.later(1.5)
    ends = inflight.save_ends(house.services.operations.over())
    assert first in {one.number for one in inflight.read_ends(ends)[0]}
    house.lose()
    house.services = house.supervisor()
    house.services.restore(state)
    house.services.operations.resume(inflight.read_ends(ends)[0])
    house.begin().later(20.0)
    assert house.said(first) == ["ok: site restarted"], "and is not done again"
    assert ended(house, second).ok


def test_a_stop_that_waits_for_others_waits_on(House: Any, spec: Any) -> None:
    front = spec(name="front", entry=1, requires=("site",), digest="f")
    for turns in range(8):
        house = House(spec(), front).begin().later(5.0)
        above = house.services.order.dependants("site")
        number = house.services.stop("site", house.now, "r", above)
        house.deliver(turns)
        house.reborn().later(30.0)
        assert ended(house, number).ok, house.said(number)
        assert not house.privileged.mains()


def test_who_joined_is_remembered_and_a_cancelled_one_stays_cancelled(House: Any, spec: Any) -> None:
    house = House(spec(processes=2, shared=True, ready_kind="notify")).begin()
    settle(house)
    number = house.services.restart("site", house.now, "r1")
    house.services.operations.find(number).join("r2")
    operation = house.services.operations.find(number)
    operation.user = "alice"
    house.deliver()
    house.services.cancel(operation, "cancelled by bob", house.now)
    house.reborn()
    known = house.services.operations.find(number)
    assert (known.requests, known.user, known.since) == (["r1", "r2"], "alice", operation.since)
    settle(house)
    assert ended(house, number).text.startswith("site was not restarted: cancelled by bob")
    assert house.pids() == [1001, 1002]


def test_nobody_knows_of_a_signal_whether_it_was_sent_so_it_is_not_sent_again(House: Any) -> None:
    house = House().begin().later(2.0)
    number = house.services.signal("site", "HUP", house.now, "r")
    house.reborn().later(1.0)
    assert not ended(house, number).ok
    assert "look at the deeds in the audit log" in ended(house, number).text
    assert [one.effect.signo for one in house.privileged.asked if hasattr(one.effect, "signo")] == [1]


def test_a_shutdown_keeps_its_number(House: Any) -> None:
    house = House().begin().later(2.0)
    number = house.services.stop_all(house.now, "r")
    house.reborn().later(20.0)
    assert ended(house, number).ok
    assert [one.kind for one in house.services.operations.all()] == ["shutdown"]
    assert house.privileged.shut_down


def test_a_one_shot_is_never_run_a_second_time_by_another_supervisor(House: Any, spec: Any) -> None:
    """Whatever was the last thing that was written: its end is, before privileged is told to forget it."""
    for turns in range(6):
        house = House(spec(ready_kind="exit", ready_timeout=0.0, restart_policy="never", autostart=False)).begin()
        number = house.services.start("site", house.now, "r")
        written, kept = house.services.asked, house.services.state()
        for _ in range(turns):
            house.deliver(1)
            if not house.privileged.said and house.privileged.mains():
                house.privileged.exit(1, 0)
            if written != house.services.asked:
                written, kept = house.services.asked, house.services.state()
        if house.services.operations.find(number).ended:
            break
        house.reborn(kept)
        if house.privileged.mains():
            house.privileged.exit(1, 0)
        house.later(5.0)
        assert house.privileged.last == 1, turns
        assert ended(house, number).ok
    assert turns >= 3


def test_what_is_no_longer_configured_is_told_so(House: Any, spec: Any) -> None:
    house = House(spec(shared=True), spec(name="other", entry=1)).begin().later(2.0)
    number = house.services.restart("site", house.now, "r")
    state, old = house.services.state(), house.specs
    house.specs, house.generation = (spec(name="other"),), 2
    house.lose()
    house.services = house.supervisor()
    house.services.restore(state)
    house.services.known(1, old)
    house.begin().later(20.0)
    assert ended(house, number).text == "site was not restarted: it is no longer configured"


def test_of_another_daemon_nothing_goes_on_and_that_is_said(House: Any) -> None:
    house = House().begin().later(2.0)
    number = house.services.restart("site", house.now, "r")
    house.life += 1
    house.privileged.runs.clear()
    house.reborn().later(5.0)
    assert ended(house, number).text == "the daemon was started anew meanwhile: see the status"
    assert house.states() == ["RUNNING"]


def test_where_the_state_file_is_damaged_no_operation_is_invented(House: Any, spec: Any) -> None:
    house, number = begun(House, spec, "restart")
    house.reborn(b"{")
    assert house.services.operations.find(number) is None
    settle(house)
    assert len(house.privileged.mains()) == 3


def test_an_operation_is_read_as_it_was_written(spec: Any) -> None:
    assert isinstance(spec(), ServiceSpec)
    full = Operation(7, "restart", "site", "r", 12.5)
    full.requests, full.since, full.born, full.user = ["r", "s"], "T", 41, "alice"
    full.askers, full.down, full.processes, full.hard = [Asker("r", None, "restart")], True, 3, True
    full.spawned, full.active, full.pending, full.before = True, {2, 0}, [1, 3], {"b", "a"}
    full.idle, full.taken_back, full.well, full.rolled_back = {0}, {2}, 1, {0: "why"}
    full.failures, full.cancelled, full.former = ["no"], "by bob", {0: (5, 6)}
    full.generation, full.result = 3, "reloaded"
    written = recover.write(recover.Saved(operations=(inflight.save(full),)))
    saved, problem = recover.read(written)
    assert problem == ""
    assert vars(inflight.restored(saved.operations[0])) == vars(full)


def test_the_ends_that_are_kept_have_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Operations(lambda _: None, lambda: "T")
    problems = [Problem("a.toml", number, "key", "x" * 100) for number in range(300)]
    for number in range(inflight.ENDS + 10):
        one = known.begin("reload" if number % 2 else "stop", "" if number % 2 else "site", "r", 1.0)
        known.end(one, False, "why", 2.0, problems if number % 40 == 1 else ())
    data = inflight.save_ends(known.over())
    assert len(data) < inflight.ROOM + 1_000
    found, problem = inflight.read_ends(data)
    assert problem == ""
    numbers = [one.number for one in found]
    assert numbers == list(range(numbers[0], known.last + 1)), "the newest ones, without a gap"
    assert numbers[0] > 10
    for one in found:
        assert one.events == [known.find(one.number).events[-1]]  # type: ignore[union-attr]
    monkeypatch.setattr(inflight, "ENDS", 2)
    assert len(inflight.read_ends(inflight.save_ends(known.over()))[0]) == 2


def test_a_damaged_file_of_ends_is_said_and_an_empty_one_is_none() -> None:
    assert inflight.read_ends(b"") == ([], "")
    for damaged in (b"{", b"[{}]", b'[{"kind":"x"}]', b"\xff", b'[{"since":"\xff"}]'):
        found, problem = inflight.read_ends(damaged)
        assert found == []
        assert "damaged" in problem


@pytest.mark.parametrize("joined", [-1, 1 << 31, 10**30])
def test_a_damaged_number_of_who_has_joined_takes_no_memory(joined: int) -> None:
    end = Ended(9, "t", 3, "site", True, "done", 1.0, [])
    data = msgspec.json.encode([inflight.SavedEnd("start", "t", 1, end, "alice", 123456789)])
    (found,), problem = inflight.read_ends(data.replace(b"123456789", b"%d" % joined))
    assert problem == ""
    assert len(found.requests) <= 1 + JOINED_LIMIT


def test_the_file_is_written_when_something_has_ended_and_not_else() -> None:
    known, written = Operations(lambda _: None, lambda: "T"), list[bytes]()
    ends = inflight.Ends(known, written.append)
    assert ends.restore(b"") == ""
    ends.keep()
    one = known.begin("stop", "site", "r", 1.0)
    ends.keep()
    assert written == []
    known.end(one, True, "site stopped", 2.0)
    ends.keep()
    ends.keep()
    assert len(written) == 1
    other = Operations(lambda _: None, lambda: "T")
    assert inflight.Ends(other, written.append).restore(written[0]) == ""
    assert other.find(1).info().text == "site stopped"  # type: ignore[union-attr]
    assert other.live() == []
