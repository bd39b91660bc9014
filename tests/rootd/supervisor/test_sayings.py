"""What a service says of itself, and what follows from it."""

from __future__ import annotations

import errno
from typing import Any

from rootd import ipc
from rootd.config.specs import Probe
from rootd.supervisor.perform import Adopt
from rootd.supervisor.sayings import ADOPT_AGAIN

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


def adoption(house: Any, pid: int) -> int:
    """The number of the request that MAINPID= has led to; 0 for none."""
    asked = [one for one in house.privileged.asked if one.effect == Adopt(1, pid)]
    house.privileged.asked.clear()
    return asked[-1].seq if asked else 0


def answer(house: Any, seq: int, number: int = 0) -> Any:
    house.services.event(ipc.Message(ipc.DONE, seq=seq, arg=number), house.now)
    return house


def say(house: Any, pid: int) -> int:
    house.services.notified(1, {"MAINPID": str(pid)}, house.now)
    return adoption(house, pid)


def test_another_process_is_the_main_one_when_privileged_has_proven_it(House: Any) -> None:
    house = House().begin().later(2.0)
    seq = say(house, 4711)
    assert house.pids() == [1001]
    assert answer(house, seq).pids() == [4711]
    assert house.services.main_pid(1) == 4711
    assert say(house, 4711) == 0


def test_what_is_refused_is_shown_once_and_changes_nothing(House: Any) -> None:
    house = House().begin().later(2.0)
    answer(house, say(house, 4711), errno.EPERM)
    assert house.pids() == [1001]
    assert text(house).startswith("MAINPID=4711 does not count: ")
    shown = text(house)
    answer(house, say(house, 4712), errno.ESRCH)
    assert text(house) == shown


def test_an_exit_that_is_told_while_it_is_asked_is_that_of_the_process_before(House: Any) -> None:
    house = House().begin().later(2.0)
    seq = say(house, 4711)
    house.privileged.exit(1, 0)
    assert house.deliver().states() == ["RUNNING"]
    assert answer(house, seq).pids() == [4711]
    house = House().begin().later(2.0)
    seq = say(house, 4711)
    house.privileged.exit(1, 1)
    house.deliver()
    assert answer(house, seq, errno.ESRCH).deliver().pids() == [1002]


def test_it_is_asked_for_one_after_the_other_and_not_too_often(House: Any) -> None:
    house = House().begin().later(2.0)
    seq = say(house, 4711)
    assert say(house, 4712) == 0
    answer(house, seq)
    assert say(house, 4712) == 0
    assert say(house.later(ADOPT_AGAIN), 4712) > 0
