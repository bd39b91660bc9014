"""A probe that has been taken over: it can say of a check that was asked whether it succeeded, and nothing else."""

from __future__ import annotations

import errno

import pytest
from hostage import Hostage, deeds, descriptors, prompt_status, standing

pytestmark = pytest.mark.root

ROLE = "probe"
PATIENT = 1.0  # seconds: far more than a status takes
TOOLS = """
import os, random, socket
from rootd import ipc

mine = socket.socket(fileno=os.dup(part.link.fileno()))
mine.settimeout(10.0)
stuck, _other_end = os.pipe()  # to read from it is to hang

def attempt(work):
    try:
        work()
    except OSError as error:
        return error.errno
    return 0

def reach(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as sock:
        sock.settimeout(5.0)
        sock.connect(address)
"""


def test_no_door_of_ours_but_the_apis_is_open_to_it(hostage: Hostage) -> None:
    """A local account without a right: what is open to everybody, such as the api, is open to it."""
    house = hostage.house
    code = "result = {door: attempt(lambda: reach(socket.AF_UNIX, door)) for door in doors}"
    doors = [str(house.run_dir / f"{name}.sock") for name in ("control", "root", "auth")]
    assert set(hostage.run(code, doors=doors).values()) == {errno.EACCES}


def test_it_speaks_by_streams_alone(hostage: Hostage) -> None:
    """So it asks no name server, writes no line to the machine's logs, and speaks to none of our doors' kind."""
    code = """
    kinds = (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW)
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    result = sorted({attempt(lambda: socket.socket(family, kind)) for family in families for kind in kinds})
    """
    assert hostage.run(code) == [errno.EPERM]


def test_it_takes_no_port_and_no_path(hostage: Hostage) -> None:
    code = """
    def bind(family, address):
        with socket.socket(family) as sock:
            sock.bind(address)

    result = [attempt(lambda: bind(*one)) for one in (
        (socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0)), (socket.AF_UNIX, folder + "/hostile.sock"))]
    """
    assert hostage.run(code, folder=str(hostage.house.run_dir)) == [errno.EPERM] * 3


def test_it_forks_nothing_and_opens_no_file(hostage: Hostage) -> None:
    code = """
    result = {path: attempt(lambda: os.close(os.open(path, os.O_RDONLY))) for path in paths}
    result["fork"] = attempt(os.fork)
    """
    house = hostage.house
    paths = ["/etc/passwd", "/etc/resolv.conf", "/proc/self/status", "/dev/null", str(house.etc / "durward.toml")]
    answers = hostage.run(code, paths=paths)
    assert answers.pop("fork") == errno.EPERM
    assert set(answers.values()) == {errno.EACCES}


def test_c5_c14_nothing_that_it_says_is_heard_by_the_supervisor(taken: Hostage) -> None:
    """The first word that nobody asked for ends the link; a probe that works is back and linked after that."""
    house = taken.house
    house.until(lambda: len(standing(house)["www"]) == 3, "gunicorn and its two workers stand")
    before, open_before = standing(house, ROLE), descriptors(house.pid_of("supervisor"))
    deeds_before = deeds(house, "spawn", "signal", "commit")
    for said in (
        "ipc.Message(ipc.CHECKED, seq=1)", "ipc.Message(ipc.EXITED, run=1)", "ipc.Message(ipc.RECORDED, seq=1)",
        "ipc.Message(ipc.CHECKED, seq=2**32 - 1, arg=-1, extra=-1, name='x' * 160, digest=b'\\xff' * 32)",
    ):  # fmt: skip
        taken.run(TOOLS)
        taken.dies(f"mine.send({said}.encode())\ntry:\n    mine.recv(1)\nfinally:\n    os._exit(9)")
        assert prompt_status(house) < PATIENT
    for nonsense in ("mine.send(b'x')", "mine.send(bytes(200_000))", "socket.send_fds(mine, [bytes(300)], [0, 1, 2])"):
        taken.run(TOOLS)
        taken.dies(f"{nonsense}\nos._exit(9)")
        assert prompt_status(house) < PATIENT
    assert standing(house, ROLE) == before
    assert deeds(house, "spawn", "signal", "commit") == deeds_before
    house.until(lambda: descriptors(house.pid_of("supervisor")) <= open_before, "nothing of it is kept")
    assert "the link to probe is closed" in house.stderr()


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
