"""What a service says of itself, and what follows from it."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from rootd import ipc
from rootd.config.specs import Probe
from rootd.supervisor.perform import Adopt
from rootd.supervisor.sayings import ADOPT_AGAIN, ADOPT_MOST

READY = {"ready_kind": "probe", "ready_probe": Probe("tcp", "tcp:127.0.0.1:8080")}


def text(house: Any) -> str:
    found: str = house.services.info("site").processes[0].text
    return found


def test_people_see_that_a_service_reloads_until_it_is_ready_again(House: Any, spec: Any) -> None:
    house = House(spec(ready_kind="notify")).begin().deliver()
    for said, shown in [
        ({"READY": "1", "STATUS": "serving"}, "serving"),
        ({"RELOADING": "1"}, "reloading"),
        ({"READY": "1"}, ""),
        ({"RELOADING": "1", "STATUS": "reading 7 files"}, "reading 7 files"),
    ]:
        house.services.notified(1, said, house.now)
        assert text(house) == shown


def test_the_words_of_a_process_end_with_it(House: Any, spec: Any) -> None:
    house = House(spec()).begin().later(2.0)
    house.services.notified(1, {"STATUS": "12 requests"}, house.now)
    house.privileged.exit(1, 1)
    assert text(house.later(2.0)) == ""


def test_only_a_service_that_is_to_say_so_is_ready_by_its_word(House: Any, spec: Any) -> None:
    house = House(spec(**READY)).begin().deliver()
    house.services.notified(1, {"READY": "1"}, house.now)
    assert house.states() == ["STARTING"]


# -- another main process ------------------------------------------------------------------------------------------


def adoptions(house: Any) -> list[tuple[int, int]]:
    return [(r.effect.run, r.effect.pid) for r in house.privileged.asked if isinstance(r.effect, Adopt)]


def says(house: Any, pid: int, **more: str) -> None:
    house.services.notified(1, {"MAINPID": str(pid), **more}, house.now)


@pytest.fixture
def house(House: Any, spec: Any) -> Any:
    return House(spec(ready_kind="notify", restart_policy="never")).begin().deliver()


def test_another_process_is_asked_for_shown_and_found_again(house: Any) -> None:
    says(house, 4711, READY="1")
    assert house.pids() == [1001]
    house.deliver()
    assert (house.pids(), house.states()) == ([4711], ["RUNNING"])
    assert house.services.main_pid(1) == 4711
    assert house.services.main_pid(99) == 0
    house.lose().link().deliver()
    assert house.pids() == [4711]
    house.reborn().deliver()
    assert house.pids() == [4711]
    assert house.privileged.last == 1
    house.privileged.exit(1, 3)
    house.later(1.0)
    assert (house.states(), house.services.info("site").processes[0].exit) == (["EXITED"], "exit status 3")


def test_what_it_is_already_is_not_asked_and_one_at_a_time_is(house: Any) -> None:
    says(house, 1001)
    says(house, 4711)
    says(house, 4712)
    assert adoptions(house) == [(1, 4711)]
    house.deliver()
    says(house, 4712)
    assert adoptions(house) == [(1, 4711)], "each time is written down: not again at once"
    house.now += ADOPT_AGAIN
    says(house, 4712)
    house.deliver()
    assert house.pids() == [4712]


def test_one_that_changes_its_main_process_all_day_is_written_down_once_a_minute(house: Any) -> None:
    def turns(seconds: int) -> int:
        before = len(adoptions(house))
        for second in range(seconds):
            says(house, 4711 + second % 2, READY="1")
            house.later(1.0)
        return len(adoptions(house)) - before

    assert turns(60) <= 7
    assert turns(600) <= 11
    house.later(2 * ADOPT_MOST)
    assert turns(3) == 2, "after a quiet while it is as in the beginning"


def test_an_exit_that_is_told_before_the_answer_was_that_of_the_one_before(house: Any) -> None:
    """A daemon says MAINPID, and its first process ends at once."""
    house.privileged.exit(1, 0)
    says(house, 4711, READY="1")
    house.later(5.0)
    assert (house.pids(), house.states()) == ([4711], ["RUNNING"])
    assert house.privileged.last == 1


def test_the_answer_about_a_run_that_is_over_and_whose_slot_is_gone_is_about_nobody(House: Any, spec: Any) -> None:
    """It fills its notify socket with MAINPID while it is one too many: the end of all of it comes first."""
    house = House(spec(processes=1, max_processes=2)).begin().later(2.0)
    house.services.scale("site", 2, house.now, "r")
    house.later(2.0)
    house.services.scale("site", 1, house.now, "r")
    house.privileged.refusing = errno.ESRCH
    house.services.notified(2, {"MAINPID": "4711"}, house.now)
    run = house.privileged.runs[2]
    house.services.event(ipc.Message(ipc.EXITED, run=2, slot=run.slot, flags=ipc.KNOWN), house.now)
    house.services.event(ipc.Message(ipc.EMPTY, run=2, slot=run.slot), house.now)
    house.later(5.0)
    assert adoptions(house) == [(2, 4711)]
    assert (house.pids(), house.states()) == ([1001], ["RUNNING"])


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ESRCH, errno.EEXIST, errno.EIO])
def test_a_refusal_is_said_once_and_the_exit_counts_then(house: Any, number: int) -> None:
    house.privileged.refusing = number
    says(house, 4711, READY="1")
    house.deliver()
    first = text(house)
    assert first.startswith("MAINPID=4711 does not count: ")
    says(house, 4712)
    house.deliver()
    assert (text(house), house.pids()) == (first, [1001])
    house.services.notified(1, {"STATUS": "busy"}, house.now)
    assert text(house) == "busy"
    house.privileged.exit(1, 3)
    says(house, 4713)
    house.later(1.0)
    assert (house.states(), text(house)) == (["EXITED"], "")


def test_what_is_not_answered_is_asked_of_the_next_privileged(house: Any) -> None:
    says(house, 4711)
    house.privileged.runs[1].pid = 1001
    house.lose()
    house.privileged.exit(1, 0)
    house.privileged.said.clear()
    house.link().later(1.0)
    assert adoptions(house) == [(1, 4711), (1, 4711)]
    assert house.pids() == [4711]


def test_what_was_done_and_could_not_be_said_any_more_is_not_refused_when_it_is_asked_again(house: Any) -> None:
    says(house, 4711)
    house.lose()
    house.privileged.refusing = errno.EEXIST
    house.link().later(1.0)
    assert adoptions(house) == [(1, 4711), (1, 4711)]
    assert (house.pids(), text(house)) == ([4711], "")


def test_a_run_that_is_over_by_then_is_not_asked_for(house: Any) -> None:
    says(house, 4711)
    house.lose()
    house.privileged.runs.clear()
    house.link().later(1.0)
    assert adoptions(house) == [(1, 4711)]
    assert house.states() == ["EXITED"]
    says(house, 4711)
    assert adoptions(house) == [(1, 4711)]


def test_the_first_change_of_each_run_is_heard_however_soon_it_comes(House: Any, spec: Any) -> None:
    """A service that forks and crashes at once says it at every start: unheard, its end would be that of the first."""
    house = House(spec(ready_kind="notify")).begin().deliver()
    says(house, 4711, READY="1")
    house.deliver()
    house.privileged.exit(1, 1)
    house.deliver()
    house.services.notified(2, {"MAINPID": "4712", "READY": "1"}, house.now)
    assert house.deliver().pids() == [4712]
    assert adoptions(house) == [(1, 4711), (2, 4712)]
