"""probe in a running house: what the supervisor has it check is checked, over a kill -9 of it too."""

from __future__ import annotations

import os
import signal

import pytest
from hostage import Hostage

pytestmark = pytest.mark.root

ROLE = "supervisor"
TOOLS = """
told, gone = {}, []
part.probes.told = told.__setitem__
part.probes.gone = lambda: gone.append(True)

def until(holds):
    while not holds():
        part.watch_writers()
        part._now = None
        part.loop.turn(5.0)

def check(seq, key, target, timeout=5.0):
    assert part.probes.ask(seq, key, target, timeout)
    until(lambda: seq in told)
    return told[seq]
"""


def test_a_service_that_answers_is_told_from_one_that_does_not(hostage: Hostage) -> None:
    house = hostage.house
    code = """
    asked = [("tcp:0.0.0.0:80", None), ("tcp:127.0.0.1:80", "/"), ("tcp:127.0.0.1:80", "/nothing-here"),
             ("tcp:127.0.0.1:81", "/"), ("unix:" + sock, "/healthz"), ("unix:" + sock, None), ("tcp:[::1]:80", None)]
    result = [check(seq, *one) for seq, one in enumerate(asked)]
    """
    found = hostage.run(code, sock=str(house.run_dir / "api.sock"))
    assert found == ["", "", found[2], "connection refused", found[4], "", "connection refused"]
    for said in (found[2], found[4]):
        assert said == "" or said.startswith("HTTP status ")


def test_a_probe_that_is_killed_is_missed_and_its_successor_asked(taken: Hostage) -> None:
    house = taken.house
    taken.run(TOOLS)
    taken.run('assert check(1, "tcp:127.0.0.1:80", None) == ""')
    old = house.kill9("probe")
    code = """
    until(lambda: gone)
    for seq in range(2, 100_000):
        if part.probes.ask(seq, "tcp:127.0.0.1:80", "/", 5.0):
            break
        part.loop.turn(0.01)
    until(lambda: seq in told or len(gone) > 1)
    result = told.get(seq), len(gone)
    """
    assert taken.run(code) == ["", 1]
    taken.resume()
    assert house.wait_back("probe", old) != old


def test_a_probe_that_hangs_is_killed_and_started_again(taken: Hostage) -> None:
    house = taken.house
    old = house.pid_of("probe")
    os.kill(old, signal.SIGSTOP)
    taken.run("part.probes.disconnect()")  # as monitor does, some seconds after the answer was due
    taken.resume()
    assert house.wait_back("probe", old) != old
