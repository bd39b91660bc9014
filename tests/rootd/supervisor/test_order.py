"""Order above a simulated privileged: who waits, who is started for whom, who stops first, where a restart spreads."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from rootd import ipc
from rootd.supervisor import mentions, states
from rootd.supervisor.exits import Exit
from rootd.supervisor.instances import Instance
from rootd.supervisor.operations import Already
from rootd.supervisor.order import Standing, standing

MISSING = errno.ENOENT << 8 | ipc.STEPS.index("exec")


@pytest.fixture
def chain(House: Any, spec: Any) -> Any:
    """front requires app, app requires db; log is what front comes after. front stands first in the files."""

    def build(**changes: dict[str, Any]) -> Any:
        places: dict[str, dict[str, Any]] = {
            "front": {"requires": ("app",), "after": ("log",)},
            "app": {"requires": ("db",)},
            "db": {"ready_kind": "notify"},
            "log": {},
        }
        specs = [
            spec(**{"name": name, "entry": at, "digest": name, **place, **changes.get(name, {})})
            for at, (name, place) in enumerate(places.items())
        ]
        return House(*specs)

    return build


def spawned(house: Any) -> list[str]:
    names = [one.name for one in house.specs]
    return [names[request.slot // 1024] for request in house.privileged.asked if request.generation]


def text(house: Any, name: str) -> str:
    return mentions.plain(house.services.info(name).processes[0].text)


def ready(house: Any, name: str) -> None:
    [pid] = house.pids(name)
    house.services.notified(pid - 1000, {"READY": "1"}, house.now)
    house.deliver()


def test_each_starts_when_what_it_requires_is_ready_and_the_others_at_once(chain: Any) -> None:
    house = chain().begin()
    house.deliver()
    assert spawned(house) == ["db", "log"]
    assert house.states("front") == house.states("app") == ["STARTING"]
    assert text(house, "front") == "waits for app, log"
    assert text(house, "app") == "waits for db"
    house.later(20.0)
    assert spawned(house) == ["db", "log"]
    assert text(house, "front") == "waits for app"
    ready(house, "db")
    assert spawned(house) == ["db", "log", "app"]
    house.later(1.0)
    assert spawned(house) == ["db", "log", "app", "front"]
    assert house.later(1.0).states("front") == ["RUNNING"]


def test_a_start_starts_what_it_requires_and_not_what_it_only_comes_after(chain: Any) -> None:
    off = {"autostart": False}
    house = chain(front=off, app=off, db=off | {"ready_kind": "after"}, log=off).begin()
    operation = house.services.start("front", house.now, "r")
    house.later(5.0)
    assert spawned(house) == ["db", "app", "front"]
    assert house.states("log") == ["STOPPED"]
    assert house.said(operation) == ["waits for app", "starting", "ready", "done in 3.00 s", "ok: front started"]


def test_what_goes_fatal_fails_those_that_wait_for_it_by_name(chain: Any) -> None:
    house = chain(db={"restart_policy": "never"}).begin()
    house.deliver()
    [run] = [one for one in house.privileged.mains() if one.slot // 1024 == 2]
    house.privileged.exit(run.number, 127, MISSING)
    house.deliver()
    why = "cannot execute /srv/x: No such file or directory"
    assert text(house, "app") == f"it requires db: {why}"
    assert text(house, "front") == f"it requires app: it requires db: {why}"
    assert house.states("app") == house.states("front") == ["FATAL"]
    assert house.later(2.0).states("log") == ["RUNNING"]


def test_a_start_of_what_waits_for_something_fatal_tries_that_again(chain: Any) -> None:
    house = chain(db={"restart_policy": "never"}).begin()
    house.deliver()
    [run] = [one for one in house.privileged.mains() if one.slot // 1024 == 2]
    house.privileged.exit(run.number, 127, MISSING)
    house.deliver()
    operation = house.services.start("front", house.now, "r")
    house.deliver()
    assert house.states("db") == ["STARTING"]
    ready(house, "db")
    house.later(3.0)
    assert house.said(operation)[-1] == "ok: front started"


def test_a_dependency_that_dies_leaves_those_on_it_up_and_they_wait_for_it_when_they_die_too(chain: Any) -> None:
    house = chain().begin()
    house.deliver()
    ready(house, "db")
    house.later(20.0)
    [db, app] = [house.pids(name)[0] - 1000 for name in ("db", "app")]
    house.privileged.exit(db, 1)
    house.deliver()
    assert house.states("app") == ["RUNNING"]
    assert house.states("db") == ["STARTING"]
    house.privileged.exit(app, 1)
    house.deliver()
    assert text(house, "app") == "waits for db"
    ready(house, "db")
    assert house.later(1.0).states("app") == ["RUNNING"]


def up(chain: Any) -> Any:
    house = chain(db={"ready_kind": "after"}).begin().later(10.0)
    assert [house.states(name) for name in ("db", "app", "front", "log")] == [["RUNNING"]] * 4
    return house


def test_those_that_would_be_left_without_it_are_named_those_on_top_first(chain: Any) -> None:
    house = up(chain)
    assert house.services.order.dependants("db") == ["front", "app"]
    assert house.services.order.dependants("log") == []
    assert all(house.services.wanted(name) for name in ("front", "app", "db", "log"))
    house.services.stop("front", house.now, "r")
    house.deliver()
    assert house.services.order.dependants("db") == ["app"]
    assert not house.services.wanted("front")


def test_a_stop_with_its_dependants_ends_them_first_one_after_the_other(chain: Any) -> None:
    house = up(chain)
    house.privileged.stubborn = True
    operation = house.services.stop("db", house.now, "r", house.services.order.dependants("db"))
    for name, others in (("front", ("app", "db")), ("app", ("db",)), ("db", ())):
        assert house.states(name) == ["STOPPING"]
        assert [house.states(other) for other in others] == [["RUNNING"]] * len(others)
        house.privileged.exit(house.pids(name)[0] - 1000, 0)
        house.deliver()
        assert house.states(name) == ["STOPPED"]
    assert house.said(operation)[0] == "waits until the 2 services that require it have stopped"
    assert house.said(operation)[-1] == "ok: db stopped"
    assert house.states("log") == ["RUNNING"]
    with pytest.raises(Already):
        house.services.stop("db", house.now, "r", [])


def test_a_dependant_that_does_not_end_keeps_what_it_requires_up(chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house = up(chain)
    monkeypatch.setattr(house.privileged, "exit", lambda *_: None)
    operation = house.services.stop("db", house.now, "r", house.services.order.dependants("db"))
    house.later(40.0)
    assert house.said(operation)[-1] == "failed: db was not stopped: a service that requires it was not stopped"
    assert house.states("db") == ["RUNNING"]


def test_a_start_meanwhile_ends_a_stop_that_waits(chain: Any) -> None:
    house = up(chain)
    house.privileged.stubborn = True
    operation = house.services.stop("db", house.now, "r", house.services.order.dependants("db"))
    house.services.start("app", house.now, "r")
    house.deliver()
    assert house.said(operation)[-1] == "failed: db was not stopped: a service that requires it was not stopped"
    assert house.states("db") == house.states("app") == ["RUNNING"]


def test_what_is_required_and_is_being_stopped_is_waited_for_and_started_again(chain: Any) -> None:
    house = up(chain)
    house.privileged.stubborn = True
    for name in ("front", "app", "db"):
        house.services.stop(name, house.now, "r")
        house.deliver()
    house.privileged.exit(house.pids("app")[0] - 1000, 0)
    house.deliver()
    stop = next(one.number for one in house.services.operations.all() if (one.kind, one.service) == ("stop", "db"))
    operation = house.services.start("app", house.now, "r")
    assert house.said(operation) == ["waits for db"]
    assert house.said(stop)[-1] == "failed: db was not stopped: start was asked for meanwhile"
    assert house.states("db") == ["STOPPING"]
    house.later(10.0)
    assert house.states("db") == house.states("app") == ["STARTING"]
    ready(house, "db")
    house.later(2.0)
    assert house.said(operation)[-1] == "ok: app started"
    assert house.states("db") == house.states("app") == ["RUNNING"]


def test_a_restart_spreads_to_those_that_say_so_and_run(House: Any, spec: Any) -> None:
    house = House(
        spec(name="db"), spec(name="web", entry=1, restart_with=("db",)), spec(name="other", entry=2),
        spec(name="off", entry=3, restart_with=("db",), autostart=False),
    )  # fmt: skip
    house.begin().later(5.0)
    web, other = house.pids("web"), house.pids("other")
    house.services.restart("db", house.now, "r")
    house.later(5.0)
    assert house.pids("web") != web
    assert house.pids("other") == other
    assert house.states("off") == ["STOPPED"]


def test_a_crash_is_no_restart_and_does_not_spread(House: Any, spec: Any) -> None:
    house = House(spec(name="db"), spec(name="web", entry=1, restart_with=("db",)))
    house.begin().later(5.0)
    web = house.pids("web")
    house.privileged.exit(house.pids("db")[0] - 1000, 1)
    house.later(5.0)
    assert house.states("db") == ["RUNNING"]
    assert house.pids("web") == web


def test_where_order_is_free_priority_says_who_is_first(House: Any, spec: Any) -> None:
    house = House(spec(name="b", priority=20), spec(name="a", entry=1, priority=10), spec(name="c", entry=2))
    assert spawned(house.begin()) == ["a", "b", "c"]


def test_a_reload_that_takes_the_requirement_away_ends_the_waiting(chain: Any) -> None:
    house = chain().begin()
    house.deliver()
    house.reload(*(one._replace(requires=()) if one.name == "app" else one for one in house.specs))
    assert house.later(1.0).states("app") == ["RUNNING"]


def test_a_long_chain_starts_and_fails_without_end_of_stack(House: Any, spec: Any) -> None:
    many = 1500
    specs = [
        spec(name=f"s{n}", entry=n, digest=str(n), requires=(f"s{n - 1}",) if n else (), restart_policy="never")
        for n in range(many)
    ]
    house = House(*reversed(specs))
    house.begin().deliver()
    assert house.states(f"s{many - 1}") == ["STARTING"]
    house.privileged.exit(1, 1)
    house.deliver()
    assert house.states("s1") == house.states(f"s{many - 1}") == ["FATAL"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (states.Stopped(), Standing("down")),
        (states.Backoff(1.0, "why"), Standing("coming")),
        (states.Waiting(), Standing("coming")),
        (states.Exited(Exit(0), clean=True), Standing("ready")),
        (states.Exited(Exit(3), clean=False), Standing("failed", "it ended by itself: exit status 3")),
        (states.Fatal("why"), Standing("failed", "why")),
    ],
)
def test_how_something_stands_is_what_those_after_it_need_to_know(spec: Any, state: Any, expected: Standing) -> None:
    process = states.Process(1, 2, 3.0, spec())
    at_rest = Instance(spec(), 0, states.Slot(state=state), "")
    assert standing([at_rest]) == expected
    assert standing([at_rest, Instance(spec(), 1, states.Slot(state=states.Running(process, 1.0)), "")]) == expected
    for end in (states.Stopping, states.Emptying):
        ending = Instance(spec(), 0, states.Slot(state=end(process, 1.0, 0, state)), "")
        assert standing([ending]) == (Standing("ending") if expected.word == "down" else expected)


def test_what_is_being_replaced_is_ready_while_one_of_the_two_runs(spec: Any) -> None:
    process, down = states.Process(1, 2, 3.0, spec()), states.Backoff(1.0, "why")
    runs, gone = states.Running(process, 1.0), states.Emptying(process, 1.0, 0, down)
    new, ending = states.Starting(process, 1.0), states.Stopping(process, 1.0, 0, states.Stopped())
    for old, other, expected in (
        (runs, new, "ready"), (gone, runs, "ready"), (gone, new, "coming"),
        (ending, ending, "ending"),
    ):  # fmt: skip
        both = Instance(spec(), 0, states.Slot(state=states.Replacing(old, other)), "")
        assert standing([both]).word == expected


def test_what_requires_a_one_shot_waits_until_it_has_ended_well_and_needs_it_once(House: Any, spec: Any) -> None:
    job = spec(name="job", digest="j", ready_kind="exit", ready_timeout=0.0, restart_policy="never")
    house = House(job, spec(name="site", entry=1, digest="s", requires=("job",))).begin()
    house.deliver()
    house.later(500.0)
    assert spawned(house) == ["job"]
    assert (house.states("job"), house.states("site")) == (["RUNNING"], ["STARTING"])
    assert [text(house, name) for name in ("job", "site")] == ["at work", "waits for job"]
    [run] = house.privileged.mains()
    house.privileged.exit(run.number, 0)
    house.deliver()
    assert house.later(1.0).states("site") == ["RUNNING"]
    assert (house.states("job"), text(house, "job")) == (["EXITED"], "done")
    house.services.restart("site", house.now, "r")
    house.deliver()
    assert spawned(house) == ["job", "site", "site"]


def test_a_one_shot_that_fails_fails_what_waits_for_it(House: Any, spec: Any) -> None:
    job = spec(name="job", digest="j", ready_kind="exit", ready_timeout=0.0, restart_policy="never")
    house = House(job, spec(name="site", entry=1, digest="s", requires=("job",))).begin()
    house.deliver()
    house.privileged.exit(house.privileged.mains()[0].number, 3)
    house.deliver()
    assert house.states("site") == ["FATAL"]
    assert text(house, "site") == "it requires job: it ended by itself: exit status 3"
