"""A supervisor that has been taken over: what it can do to privileged, log, auth and the keeper on its own links.

It may start, stop and signal what is configured, and is seen doing it. Everything else is refused, with an errno or by
its end, and nobody else notices.
"""

from __future__ import annotations

import errno
import signal
from typing import cast

import pytest
from hostage import Hostage, deeds, descriptors, standing
from house import House

from rootd import ipc

pytestmark = pytest.mark.root

ROLE = "supervisor"
SITE, WORKER = 0, 1024  # slots
PATIENT = 1.0  # seconds: far more than privileged takes for an answer

TOOLS = """
import os, random, socket, time
from rootd import ipc

def mine(sock):
    own = socket.socket(fileno=os.dup(sock.fileno()))
    own.settimeout(10.0)
    return own

raw = mine(part.links["privileged"].sock)
told, slowest = [], 0.0

def listen():
    packet, fds, _, _ = socket.recv_fds(raw, 4096, 4)
    for fd in fds:
        os.close(fd)
    answer = ipc.decode(packet)
    told.append([answer.op, answer.arg, answer.extra, answer.run])
    return answer

def ask(op, **fields):
    # everything that privileged says until it has answered: [op, arg, extra, run]
    global slowest
    begun = time.monotonic()
    raw.send(ipc.Message(op, seq=0xC0FFEE, **fields).encode())
    while True:
        answer = listen()
        if answer.seq == 0xC0FFEE:
            slowest = max(slowest, time.monotonic() - begun)
            return told.pop()
"""
U32, U64, I64 = (1 << 32) - 1, (1 << 64) - 1, 1 << 63


def run_of(house: House, slot: int) -> int:
    """The number of the last run of a slot."""
    records = [record for record in house.audit() if record.get("deed") == "spawn" and record["slot"] == slot]
    return cast("int", records[-1]["run"])


def test_c5_c14_no_slot_that_root_did_not_configure_can_be_spawned(hostage: Hostage) -> None:
    before = deeds(hostage.house, "spawn")
    code = """
    slots = [n * 1024 + i for n in range(64) for i in (0, 1, 2, 1023)] + [2 ** 31, limit - 1, limit]
    real = [0, 1024, 2048]  # site, worker and the api: one process each
    asked = [(g, s) for g in (0, 1, 2, 3, 7, 2 ** 31, limit) for s in slots if (g, s) not in [(1, r) for r in real]]
    answers = [ask(ipc.SPAWN, generation=g, slot=s, run=s, arg=-g, extra=g) for g, s in asked]
    result = [len(asked), sorted({tuple(a[:2]) for a in answers}), slowest]
    """
    count, answers, slowest = hostage.run(code, limit=U32)
    assert count > 1500
    assert answers == [[ipc.DONE, errno.EINVAL]]
    assert slowest < PATIENT
    assert deeds(hostage.house, "spawn") == before


def test_c5_no_process_can_be_signalled_that_is_no_run_of_ours(hostage: Hostage) -> None:
    house = hostage.house
    assert house.daemon is not None
    before = deeds(house, "signal")
    pids = [1, house.daemon.pid, house.pid_of("privileged"), house.pid_of("log")]
    real = [run_of(house, slot) for slot in (SITE, WORKER)]
    code = """
    runs = [0, 1, 2, 2 ** 32, 2 ** 63, limit, *pids, *[r + n for r in real for n in (-1, 1, 2 ** 32)]]
    numbers = [-(2 ** 63), -15, -9, -1, 0, 9, 15, 19, 65, 2 ** 32 + 9, 2 ** 63 - 1]
    answers = [
        ask(ipc.SIGNAL, run=run, arg=number, scope=scope, slot=0, generation=1)
        for run in runs for number in numbers for scope in (0, 1, 2, 255)
    ]
    result = sorted({tuple(answer[:2]) for answer in answers})
    """
    assert hostage.run(code, limit=U64, pids=pids, real=real) == [[ipc.DONE, errno.ESRCH]]
    assert deeds(house, "signal") == before


def test_c5_a_run_of_ours_gets_no_signal_that_its_entry_does_not_allow(hostage: Hostage) -> None:
    house = hostage.house
    before = deeds(house, "signal")
    allowed = {
        int(getattr(signal, f"SIG{name}")) for name in "HUP INT QUIT USR1 USR2 TERM CONT WINCH ALRM KILL".split()
    }
    code = """
    main = [n for n in [*range(-70, 70), 2 ** 32 + 9, 2 ** 32 + 15, -(2 ** 63), 2 ** 63 - 1] if n not in allowed]
    asked = [(0, n) for n in main] + [(1, n) for n in [*main, *allowed] if n != 9]
    asked += [(scope, n) for scope in (2, 3, 128, 255) for n in [*main, *allowed]]
    answers = [ask(ipc.SIGNAL, run=run, arg=n, scope=scope) for run in real for scope, n in asked]
    result = sorted({tuple(answer[:2]) for answer in answers})
    """
    real = [run_of(house, slot) for slot in (SITE, WORKER)]
    assert hostage.run(code, real=real, allowed=sorted(allowed)) == [[ipc.DONE, errno.EPERM]]
    assert deeds(house, "signal") == before


def test_c5_no_operation_is_known_but_those_of_the_table(hostage: Hostage) -> None:
    code = """
    odd = {"generation": limit, "slot": limit, "run": 2 ** 64 - 1, "arg": -(2 ** 63), "extra": 2 ** 63 - 1}
    odd |= {"digest": b"\\xff" * 32, "name": "../" * 53, "scope": 255, "flags": 255}
    answers = [ask(op, **fields) for op in range(256) if not 1 <= op <= ipc.UPGRADE for fields in ({}, odd)]
    result = sorted({tuple(answer[:2]) for answer in answers})
    """
    assert hostage.run(code, limit=U32) == [[ipc.DONE, errno.EINVAL]]


def test_c5_that_probe_is_to_be_killed_kills_probe_and_nobody_else_whatever_the_message_says(taken: Hostage) -> None:
    house = taken.house
    before, old = standing(house, ROLE, "probe"), house.pid_of("probe")
    taken.run(TOOLS)
    code = """
    odd = {"generation": 2 ** 32 - 1, "slot": 2 ** 32 - 1, "run": 2 ** 64 - 1, "arg": pid, "scope": 255, "flags": 255}
    result = [ask(ipc.RENEW, name=name, **odd)[:2] for name in ("keeper", "privileged", "log", "auth", "probe")]
    """
    assert taken.run(code, pid=house.pid_of("auth")) == [[ipc.DONE, 0]] * 5
    taken.resume()
    house.wait_back("probe", old)
    assert standing(house, ROLE, "probe") == before


def test_c5_no_process_becomes_the_main_one_of_a_run_that_it_is_not_of(hostage: Hostage) -> None:
    house = hostage.house
    assert house.daemon is not None
    before = deeds(house, "adopt")
    code = """
    odd = [-(2 ** 63), -1, 0, 1, 2 ** 22 + 1, 2 ** 32 + pids[0], 2 ** 63 - 1]
    none = [ask(ipc.ADOPT, run=run, arg=pid) for run in (0, 1, 2 ** 63, *pids) for pid in [*odd, *pids]]
    out = [ask(ipc.ADOPT, run=run, arg=pid) for run in real for pid in odd]
    others = [ask(ipc.ADOPT, run=run, arg=pid) for run in real for pid in pids]
    mains = [ask(ipc.ADOPT, run=run, arg=pid) for run in real for pid in main]
    result = [sorted({tuple(a[:2]) for a in answers}) for answers in (none, out, others, mains)]
    """
    pids = [house.daemon.pid, house.pid_of("privileged"), house.pid_of("log"), *house.api_workers()]
    real = [run_of(house, slot) for slot in (SITE, WORKER)]
    spawned = {r["run"]: r["arg"] for r in house.audit() if r.get("deed") == "spawn"}
    main = [spawned[run] for run in real]
    refused = [[[ipc.DONE, number]] for number in (errno.ESRCH, errno.EINVAL, errno.EPERM, errno.EEXIST)]
    assert hostage.run(code, pids=pids, real=real, main=main) == refused
    assert deeds(house, "adopt") == before


def test_c14_nothing_is_committed_that_is_not_what_was_staged(hostage: Hostage) -> None:
    before = deeds(hostage.house, "commit")
    code = """
    early = [ask(ipc.COMMIT, generation=g, digest=d) for g in (0, 1, 2, 3, 2 ** 32 - 1) for d in (b"", b"x" * 32)]
    raw.send(ipc.Message(ipc.STAGE, seq=1).encode())
    busy = ask(ipc.STAGE)
    unready = ask(ipc.COMMIT, generation=2)
    packet, fds, _, _ = socket.recv_fds(raw, 4096, 4)
    table = ipc.decode(packet)
    sealed = []
    for fd in fds:
        try:
            os.pwrite(fd, b"x", 0)
        except OSError as error:
            sealed.append(error.errno)
        os.close(fd)
    wrong = [ask(ipc.COMMIT, generation=g, digest=d) for g, d in
             ((table.generation, b"x" * 32), (table.generation + 1, table.digest), (1, table.digest))]
    spawned = ask(ipc.SPAWN, generation=table.generation, slot=0)
    gone = [ask(ipc.ABORT), ask(ipc.ABORT), ask(ipc.COMMIT, generation=table.generation, digest=table.digest)]
    result = [[a[:2] for a in part] for part in (early, [busy, unready], wrong, [spawned], gone)] + [table.op, sealed]
    """
    early, between, wrong, spawned, gone, table, sealed = hostage.run(code)
    no = [ipc.DONE, errno.EINVAL]
    assert early == [no] * 10
    assert between == [[ipc.DONE, errno.EBUSY], no]
    assert (table, sealed) == (ipc.TABLE, [errno.EPERM])
    assert wrong == [no] * 3
    assert spawned == [no]
    assert gone == [[ipc.DONE, 0], [ipc.DONE, 0], no]
    assert deeds(hostage.house, "commit") == before


def test_c5_c14_ten_thousand_random_messages_change_nothing(hostage: Hostage) -> None:
    """Every field at random, within its size; what the table allows (a slot of ours, a run of ours) is left out."""
    house = hostage.house
    privileged = house.pid_of("privileged")
    before, files = deeds(house, "spawn", "signal", "commit", "shutdown"), descriptors(privileged)
    code = """
    dice = random.Random(20260101)
    sizes = {"scope": 8, "flags": 8, "generation": 32, "slot": 32, "run": 64, "arg": 63, "extra": 63}
    kinds = set()
    for _ in range(10_000):
        fields = {name: dice.getrandbits(dice.choice((1, 2, size))) for name, size in sizes.items()}
        fields |= {"digest": dice.randbytes(32), "name": "".join(chr(dice.randrange(1, 0x7FF)) for _ in range(60))}
        fields["arg"] *= dice.choice((-1, 1))
        unknown = dice.randrange(ipc.UPGRADE + 1, 256)
        op = dice.choice((ipc.SPAWN, ipc.SIGNAL, ipc.ADOPT, ipc.COMMIT, ipc.ABORT, unknown))
        if op == ipc.SPAWN and fields["generation"] == 1:
            fields["slot"] |= 1
        answer = ask(op, **fields)
        kinds.add((answer[0], answer[1]))
    result = [sorted(kinds), slowest]
    """
    kinds, slowest = hostage.run(code, timeout=60)
    assert kinds == [[ipc.DONE, 0], [ipc.DONE, errno.ESRCH], [ipc.DONE, errno.EINVAL]]  # 0: ABORT of nothing
    assert slowest < PATIENT
    assert deeds(house, "spawn", "signal", "commit", "shutdown") == before
    house.until(lambda: descriptors(privileged) == files, "nothing of it is kept")


def test_what_it_may_do_is_written_down_by_privileged_itself(hostage: Hostage) -> None:
    """A second copy of a configured process, no third one; its end and its kill: each deed in the audit log."""
    house = hostage.house
    first, second = hostage.run("result = [ask(ipc.SPAWN, generation=1, slot=1024) for _ in range(2)]")
    op, pid, _, run = first
    assert (op, second[:2]) == (ipc.SPAWNED, [ipc.DONE, errno.EBUSY])
    jobs = house.people["jobs"].uid
    house.until(lambda: f"\nUid:\t{jobs}\t{jobs}\t{jobs}\t" in status_of(pid), "it has become its service's user")
    code = """
    ended = [ask(ipc.SIGNAL, run=run, arg=15)]
    while not any(one[0] == ipc.EXITED and one[3] == run for one in told):
        listen()
    ended.append(ask(ipc.SIGNAL, run=run, arg=9, scope=1))
    while [ipc.EMPTY, 0, 0, run] not in told:
        listen()
    result = [one[:2] for one in ended]
    """
    assert hostage.run(code, run=run) == [[ipc.DONE, 0]] * 2
    wanted = [("spawn", pid), ("signal", 15), ("signal", 9)]
    house.until(
        lambda: [(d, a) for d, r, a in deeds(house, "spawn", "signal") if r == run] == wanted, "its deeds are written"
    )


def status_of(pid: int) -> str:
    with open(f"/proc/{pid}/status") as status:
        return status.read()
