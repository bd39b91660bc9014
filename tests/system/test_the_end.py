"""The daemon is asked to end: all services at once, as far as their order lets them; asked again, it waits for nobody.

With -m slow, a thousand of them, and how long that takes beside the slowest of them alone (-rP prints it).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from house import House
from people import processes_of
from templates import plain

from policy import messages

pytestmark = pytest.mark.root

FEW, MANY = 100, 1_000
OWN = 3.0  # seconds that the slowest takes to end
ONE = """
[service.s{number:04}]
command = ["/bin/sleep", "100000"]
user = "@www@"
ready = {{ after = "0s" }}
"""
SLOW = f"""
[service.slow]
command = ["@PREFIX@/bin/python3", "-I", "-c", '''
import signal, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep({OWN}), exit(0)))
print("ready", flush=True)
while True: signal.pause()
''']
user = "@jobs@"
restart = {{ policy = "never" }}
"""


def many(count: int) -> str:
    return "".join(ONE.format(number=number) for number in range(count))


def test_all_end_at_once_and_a_second_signal_waits_for_nobody(make_house: Callable[..., House]) -> None:
    deaf = plain("deaf", "deaf", "say", "begun", more='stop = { timeout = "10m" }')
    house = make_house({"many.toml": many(FEW), "deaf.toml": deaf}, policy={}).start()
    house.until(lambda: house.service_log("deaf") == "begun\n", "it is deaf")
    www = house.people["www"].uid
    assert len(processes_of({www})) == FEW
    assert house.daemon is not None
    house.daemon.send_signal(signal.SIGTERM)
    house.until(lambda: not processes_of({www}), "the others do not wait for who is deaf")
    assert house.status()["deaf"].state == "STOPPING"
    assert "again" not in house.stderr()
    house.daemon.send_signal(signal.SIGTERM)
    house.stop()
    assert house.stderr().endswith("durward-keeper: SIGTERM again: what has not ended yet is killed now\n")
    asked = [record for record in house.audit() if record.get("deed") == "shutdown"]
    assert len(asked) == 1


@pytest.mark.slow
def test_a_thousand_end_in_the_time_of_the_slowest_and_a_half(make_house: Callable[..., House]) -> None:
    house = make_house({"many.toml": many(MANY), "slow.toml": SLOW}, policy={}).start(wait=False)
    house.until(house.answers, "root.sock answers")
    house.until(lambda: {one.state for one in house.status().values()} == {"RUNNING"}, "all run", 60)
    house.until(lambda: house.service_log("slow"), "it is slow from now on")
    alone = house.operate(messages.Stop("slow"))[1]
    assert alone.ok
    assert house.operate(messages.Start("slow"))[1].ok
    house.until(lambda: house.service_log("slow").count("ready") == 2, "and again")
    assert house.daemon is not None
    begun = time.monotonic()
    house.daemon.send_signal(signal.SIGTERM)
    house.stop()
    took = time.monotonic() - begun
    print(f"{MANY} services end in {took:.2f} s, the slowest of them alone in {alone.seconds:.2f} s")
    assert took <= 1.5 * alone.seconds
