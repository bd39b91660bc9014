"""A log that has been taken over: it may lose what comes by. privileged, supervisor and the keeper do not mind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hostage import Hostage, deeds, descriptors, prompt_status, standing

from rootd.log import chain
from userapi.audit import verify

pytestmark = pytest.mark.root

ROLE = "log"
PATIENT = 1.0  # seconds: far more than a status takes
TOOLS = """
import os, random, socket
from rootd import ipc

def mine(role):
    own = socket.socket(fileno=os.dup(part.links[role].fileno()))
    own.settimeout(10.0)
    return own

def say(role, op, **fields):
    part_link[role].send(ipc.Message(op, **fields).encode())

stuck, _other_end = os.pipe()  # to read from it is to hang
part_link = {role: mine(role) for role in part.links}
LIMITS = {"seq": 2 ** 32 - 1, "generation": 2 ** 32 - 1, "slot": 2 ** 32 - 1, "run": 2 ** 64 - 1, "scope": 255}
NUMBERS = [-(2 ** 63), -(2 ** 31), -1, 0, 1, 9, 4095, 2 ** 31, 2 ** 32, 2 ** 63 - 1]
"""


@pytest.fixture(autouse=True)
def nobody_waits(taken: Hostage) -> Iterator[None]:
    yield
    assert prompt_status(taken.house) < PATIENT


@pytest.mark.parametrize("op", ["DRAINED", "PONG", "others"])
def test_c5_privileged_takes_every_field_out_of_range(hostage: Hostage, op: str) -> None:
    code = """
    names = ["", "x" * 160, "../../x", "a/b/c/d/e/f/g", "x\\n", "\\x7f", "\\u20ac" * 50, "site"]
    ops = [getattr(ipc, op)] if hasattr(ipc, op) else [n for n in range(256) if n not in (ipc.DRAINED, ipc.PONG)]
    for number in ops:
        for name in names if len(ops) == 1 else names[1:3]:
            for arg in NUMBERS if len(ops) == 1 else NUMBERS[:2]:
                for limits in ({}, LIMITS):
                    say("privileged", number, name=name, arg=arg, extra=-arg - 1, **limits)
    """
    hostage.run(code, op=op)
    assert prompt_status(hostage.house) < PATIENT


@pytest.mark.parametrize("op", ["RECORDED", "KEPT", "others"])
def test_c5_the_supervisor_takes_every_field_out_of_range(hostage: Hostage, op: str) -> None:
    code = """
    for number in range(256) if op == "others" else [getattr(ipc, op)]:
        for seq in (0, 1) if op == "others" else (0, 1, 2, 3, 2 ** 31, 2 ** 32 - 1):
            for arg in NUMBERS:
                say("supervisor", number, seq=seq, arg=arg, name="x" * 160, digest=b"\\xff" * 32, extra=arg)
    say("supervisor", ipc.RECORDED, body=b"x" * 1000)
    """
    hostage.run(code, op=op)
    assert prompt_status(hostage.house) < PATIENT


@pytest.mark.parametrize("peer", ["privileged", "supervisor"])
def test_c5_c14_ten_thousand_random_messages_are_nothing_to(hostage: Hostage, peer: str) -> None:
    house = hostage.house
    before, open_before = deeds(house, "spawn", "signal", "commit"), descriptors(house.pid_of(peer))
    code = """
    dice = random.Random(20260102)
    for _ in range(10_000):
        name = "".join(dice.choice("abc/.\\n-\\u20ac") for _ in range(dice.randrange(50)))
        op = dice.choice((ipc.DRAINED, ipc.PONG, ipc.RECORDED, dice.randrange(256)))
        sizes = {"scope": 8, "flags": 8, "seq": 32, "generation": 32, "slot": 32, "run": 64, "arg": 63, "extra": 63}
        say(peer, op, name=name, **{field: dice.getrandbits(dice.choice((1, size))) for field, size in sizes.items()})
    """
    hostage.run(code, peer=peer)
    assert prompt_status(house) < PATIENT
    assert deeds(house, "spawn", "signal", "commit") == before
    house.until(lambda: descriptors(house.pid_of(peer)) <= open_before, f"{peer} has no more open than before")


def test_c1_c6_what_is_no_message_ends_log_and_nobody_else(taken: Hostage) -> None:
    """privileged ends a log that sends nonsense, or a descriptor; the supervisor closes the link only."""
    house = taken.house
    before, files = standing(house, ROLE), descriptors(house.pid_of("privileged"))
    for nonsense in (
        "part_link['privileged'].send(b'x')",
        "part_link['privileged'].send(bytes(200_000))",
        "for _ in range(20): socket.send_fds(part_link['privileged'], [bytes(300)], [0, 1, 2])",
    ):
        taken.run(TOOLS)
        taken.dies(f"part_link['supervisor'].send(b'x')\n{nonsense}\nos.read(stuck, 1)")
        assert prompt_status(house) < PATIENT
    assert standing(house, ROLE) == before
    house.until(lambda: descriptors(house.pid_of("privileged")) == files, "nothing of it is kept")
    assert "log sent " in house.stderr()


def test_the_keeper_hears_nothing_of_it(taken: Hostage) -> None:
    house = taken.house
    before = standing(house)
    taken.run(TOOLS)
    taken.run("""
    try:
        for number in range(5_000):
            part.keeper.sock.send(ipc.Message(number % 256, name="settings").encode())
    except BlockingIOError:
        pass
    """)
    taken.resume()
    assert standing(house) == before


def test_e5_it_cannot_change_unnoticed_what_was_recorded_before(taken: Hostage) -> None:
    """It writes the file, so it can damage it; the chain with the first key says from which record on."""
    house = taken.house
    path = house.log / "audit" / "audit.jsonl"
    keys = chain.parse_keys((house.state / "log" / "audit.initial").read_bytes())
    assert verify.verify(path.read_bytes().splitlines(keepends=True), keys).problems == ()
    taken.run(TOOLS)
    changed = taken.run(
        """
    fd = os.open(path, os.O_RDWR)
    text = os.pread(fd, 1 << 20, 0)
    old = text.index(b'"deed":"spawn"')
    os.pwrite(fd, b'"deed":"spewn"', old)
    os.close(fd)
    result = text[:old].count(b"\\n")
    """,
        path=str(path),
    )
    report = verify.verify(path.read_bytes().splitlines(keepends=True), keys)
    assert [problem.line for problem in report.problems][:1] == [changed + 1]
    taken.resume()
