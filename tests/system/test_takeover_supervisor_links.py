"""A supervisor that has been taken over, on its links to the keeper, log and auth, and one that hangs up."""

from __future__ import annotations

import pytest
from hostage import Hostage, nothing_stays, prompt_status, standing
from house import House

pytestmark = pytest.mark.root

ROLE = "supervisor"
PATIENT = 1.0  # seconds
TOOLS = """
import os, random, socket
from rootd import ipc

def mine(sock):
    own = socket.socket(fileno=os.dup(sock.fileno()))
    own.settimeout(10.0)
    return own

raw = mine(part.links["privileged"].sock)
"""


def test_c4_an_empty_packet_ends_it_and_nobody_else(hostage: Hostage) -> None:
    """To privileged it is the end of the link: a part that has hung up is ended, and the next one linked again."""
    house, old = hostage.house, hostage.house.pid_of("supervisor")
    hostage.dies("raw.send(b'')\nwhile raw.recv(4096): pass\nos.read(os.pipe()[0], 1)")
    assert house.pid_of("supervisor") not in (0, old)


def test_the_keeper_hears_nothing_of_it(taken: Hostage) -> None:
    """It cannot store, drop, begin or end anything, nor hold up the keeper by filling its link."""
    house = taken.house
    before = standing(house, "privileged", "supervisor")
    taken.run(TOOLS)
    sent = taken.run("""
    sent = 0
    words = [ipc.Message(op, name=name, arg=9).encode() for op in range(256)
             for name in ("settings", "generation/1", "lock", "")]
    try:
        while sent < 10_000:
            part.keeper.sock.send(words[sent % len(words)] if sent % 7 else b"nonsense")
            sent += 1
    except BlockingIOError:
        pass
    result = sent
    """)
    assert sent > 0
    old = house.kill9("privileged")
    house.until(lambda: house.pid_of("privileged") not in (0, old), "privileged is back")
    taken.resume()
    house.until(house.answers, "the house answers")
    assert house.http("/").status == 200
    assert standing(house, "privileged", "supervisor") == before
    assert prompt_status(house) < PATIENT


@pytest.mark.parametrize("arg", [0, 1, -1, 2**62])
def test_privileged_that_is_replaced_at_its_word_leaves_the_services_alone(taken: Hostage, arg: int) -> None:
    house = taken.house
    before, old = standing(house, "privileged", "supervisor"), house.pid_of("privileged")
    taken.run(TOOLS)
    taken.run("raw.send(ipc.Message(ipc.REPLACE, arg=number).encode())\nwhile raw.recv(4096): pass", number=arg)
    house.until(lambda: house.pid_of("privileged") not in (0, old), "privileged is started again")
    taken.resume()
    house.until(house.answers, "the house answers")
    assert standing(house, "privileged", "supervisor") == before


FORGED = {
    "a deed": '{"kind": "deed", "deed": "spawn", "run": 1}',
    "a number of the chain": '{"kind": "decision", "n": 0, "mac": "00"}',
    "no JSON": '{"kind": "decision"',
    "a field twice": '{"kind": "start", "kind": "decision"}',
}


def deeds_of(house: House) -> set[tuple[object, ...]]:
    """What was done, however often a log that was started again has been told of it."""
    fields = ("deed", "run", "slot", "generation", "arg")
    return {tuple(record[field] for field in fields) for record in house.audit() if record["kind"] == "deed"}


@pytest.mark.parametrize("what", list(FORGED))
def test_e3_a_forged_record_loses_it_its_link_to_log_and_is_not_written(hostage: Hostage, what: str) -> None:
    house = hostage.house
    before = deeds_of(house)
    code = """
    books = mine(part.links["log"].sock)
    books.send(ipc.Message(ipc.RECORD, seq=77, body=body.encode()).encode())
    try:
        while packet := books.recv(4096):
            assert ipc.decode(packet, body=True).seq != 77, "it was acknowledged"
    except ConnectionResetError:
        pass
    """
    hostage.run(code, body=FORGED[what])
    written = deeds_of(house)
    house.wait_back("supervisor", house.kill9("supervisor"))
    assert written == before


def test_what_is_pulled_from_auth_out_of_range_loses_it_that_link_and_auth_begins_again(taken: Hostage) -> None:
    house, old = taken.house, taken.house.pid_of("auth")
    before = standing(house, "supervisor", "auth")
    taken.run(TOOLS)
    code = """
    from policy import login, wire
    out = mine(part.auth._out.sock)
    for number in (0, 1, 2 ** 53 - 1, *range(500)):
        out.send(wire.PULL.encode(login.Seen(number)))
        out.send(wire.PULL.encode(login.Touched(f"{number:064x}")))
    out.send(wire.PULL.encode(login.RevokeSessions("nobody-is-called-so")))
    dice = random.Random(7)
    try:
        for _ in range(50):
            out.send(dice.randbytes(dice.choice((1, 100, 60_000))))
        while out.recv(65536):
            pass
        result = "closed"
    except (BrokenPipeError, ConnectionResetError):
        result = "closed"
    """
    assert taken.run(code) == "closed"
    house.until(lambda: house.pid_of("auth") not in (0, old), "auth has ended and is back: the keeper links it anew")
    taken.resume()
    house.until(house.answers, "the house answers")
    assert house.login("alice").returncode == 0
    assert standing(house, "supervisor", "auth") == before


def test_c5_nothing_that_it_has_forked_outlives_it(hostage: Hostage) -> None:
    """It would have the links, the doors that the next one answers at, and the state of that one to write."""
    nothing_stays(hostage, "sup")
