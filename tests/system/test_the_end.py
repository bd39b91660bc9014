"""The daemon is asked to end: all services at once, as far as their order lets them; asked again, it waits for nobody.
And the machine begins anew: what a boot may forget is forgotten, also where the run directory is kept.

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
OWN = 6.0  # seconds that the slowest takes to end
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


def test_a_boot_starts_clean_though_the_run_directory_was_kept(make_house: Callable[..., House]) -> None:
    """The kernel's word for its boot is a file's here, and the power fails: nothing is stopped in order."""
    one = make_house({"one.toml": plain("one"), "two.toml": plain("two", more="autostart = false")}, policy={})
    boot = one.folder / "boot"
    script = f'mount --bind {boot} /proc/sys/kernel/random/boot_id && exec "$@"'
    one.program = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", script, "sh", *one.program]
    shown = []
    for text in ("first", "first", "other"):
        boot.write_text(text + "\n")
        one.start(wait=False)
        one.until(one.answers, "root.sock answers")
        if not shown:
            assert one.operate(messages.Stop("one"))[1].ok
            assert one.operate(messages.Start("two"))[1].ok
            one.until(lambda: b'"wanted":"down"' in (one.run_dir / "supervisor/state.json").read_bytes(), "it is kept")
        shown.append({name: service.wanted for name, service in one.status().items()})
        daemon, one.daemon = one.daemon, None
        assert daemon is not None
        daemon.kill()
        daemon.wait()
        one.until(lambda: not one.strangers(), "nothing is left")
    asked = {"one": "down", "two": "up"}
    assert shown == [asked, asked, {"one": "up", "two": "down"}]
