"""Scheduled services as real processes, by the machine's own clock: each time has its run, or is told to have none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

import pytest
from house import House
from templates import plain

from policy import messages

pytestmark = pytest.mark.root

TICK = """
[service.tick]
command = ["/bin/date", "+%s.%N"]
user = "@jobs@"
schedule = "* * * * * *"
timezone = "Europe/Berlin"
missed = "once"
"""
SLOW = 'kind = "scheduled"\nschedule = "* * * * * *"\nautostart = false\nready = {}'
YEARLY = 'schedule = "@yearly"\nready = {}'


@pytest.fixture(scope="module")
def clockwork(people: object, space: object, tmp_path_factory: object) -> Iterator[House]:
    services = {
        "tick.toml": TICK,
        "slow.toml": plain("slow", "say", "begun", "wait", "@FOLDER@/finish", "exit", "3", more=SLOW),
        "yearly.toml": plain("yearly", "say", "once more", "exit", "0", more=YEARLY),
    }
    house = House(people, space, services, {})  # type: ignore[arg-type]
    try:
        house.start(wait=False)
        house.until(house.answers, "root.sock answers")
        yield house
        house.stop()
    finally:
        house.remove()


def of(house: House, name: str) -> messages.ProcessInfo:
    return house.status()[name].processes[0]


def due(info: messages.ServiceInfo) -> int:
    return int(datetime.fromisoformat(info.next).timestamp())


def without_run(info: messages.ServiceInfo) -> int:
    """How many times have passed without one."""
    return sum(int(number) for number in re.findall(r"([0-9]+) (?:left out|missed)", info.text))


def stamps(house: House) -> list[float]:
    return [float(line) for line in house.service_log("tick").split()]


def accounted(house: House, begin: messages.ServiceInfo, ended: int = 0) -> None:
    """Of all seconds between the next run then and the next run now, each has had its run or is counted.

    ended: runs that may have been ended before they said anything.
    """
    end = house.status()["tick"]
    house.wait_for(lambda found: due(found["tick"]) > due(end), "the run after those has come")
    owed = due(end) - due(begin) - (without_run(end) - without_run(begin))

    def unsaid() -> int:
        return owed - len([at for at in stamps(house) if due(begin) <= at < due(end)])

    house.until(lambda: unsaid() <= ended, f"the log has every run: {begin}, {end}, {stamps(house)}")
    assert unsaid() >= 0, (begin, end, stamps(house))


def test_each_second_has_its_run_by_the_user_that_root_has_said(clockwork: House) -> None:
    begin = clockwork.status()["tick"]
    clockwork.wait_for(lambda found: due(found["tick"]) > due(begin), "it has run")
    accounted(clockwork, begin)
    shown = clockwork.status()["tick"].processes[0]
    assert shown.exit == "exit status 0"
    assert re.search(r"next at 20[0-9-]{8}T[0-9:]{8}\+0[12]:00", shown.text), "by the clock of its zone"


def test_what_runs_once_a_year_waits_and_who_starts_it_runs_it_now(clockwork: House) -> None:
    assert (of(clockwork, "yearly").state, of(clockwork, "yearly").exit) == ("STOPPED", "")
    assert datetime.fromisoformat(clockwork.status()["yearly"].next).astimezone().strftime("%m-%d") == "01-01"
    assert clockwork.operate(messages.Start("yearly"))[1].ok
    clockwork.until(lambda: clockwork.service_log("yearly").count("once more") == 1, "it has done its work")
    assert of(clockwork, "yearly").state == "EXITED"


def test_who_enables_it_begins_the_schedule_what_is_late_is_left_out_and_a_stop_ends_one_run(clockwork: House) -> None:
    assert of(clockwork, "slow").text == "disabled: no run is due"
    assert isinstance(clockwork.ask(messages.Enable("slow")), messages.Done)
    clockwork.wait_for(lambda found: "1 left out" in found["slow"].text, "one goes on, the next is left out")
    clockwork.until(lambda: clockwork.service_log("slow").count("begun") == 1, "it has said so once")
    assert clockwork.operate(messages.Stop("slow"))[1].ok
    clockwork.until(lambda: clockwork.service_log("slow").count("begun") == 2, "the schedule goes on")
    assert isinstance(clockwork.ask(messages.Disable("slow")), messages.Done)
    (clockwork.folder / "finish").touch()
    clockwork.wait_for(lambda found: found["slow"].state == "EXITED", "what was going on has come to its end")
    assert (of(clockwork, "slow").exit, of(clockwork, "slow").text) == ("exit status 3", "disabled: no run is due")


def test_kill_9_of_what_decides_and_of_what_spawns_doubles_and_loses_no_run(clockwork: House) -> None:
    begin = clockwork.status()["tick"]
    for part in ("supervisor", "privileged", "supervisor"):
        before = due(clockwork.status()["tick"])
        old = clockwork.kill9(part)
        clockwork.wait_back(part, old)
        clockwork.wait_for(lambda found, before=before: due(found["tick"]) > before, "it goes on")
    accounted(clockwork, begin)


def test_after_a_start_of_the_machine_what_was_missed_is_known(clockwork: House) -> None:
    begin = clockwork.status()["tick"]
    clockwork.stop()
    (clockwork.run_dir / "supervisor" / "state.json").unlink()  # on tmpfs: a boot forgets it
    clockwork.start(wait=False)
    clockwork.until(clockwork.answers, "root.sock answers")
    clockwork.wait_for(lambda found: due(found["tick"]) > due(begin) + 1, "it runs again")
    accounted(clockwork, begin, ended=1)


def test_the_check_says_when_each_of_them_runs(clockwork: House) -> None:
    said = clockwork.check().stderr
    zoned = r"20[0-9-]{8}T[0-9:]{8}\+0[12]:00"
    assert re.search(rf"services.d/tick.toml: service.tick runs at {zoned}, {zoned}, {zoned}\n", said)
    assert "service.yearly runs at" in said
