"""rootd/privileged/main: what it is seen from outside, taking back, its heart, and what a dead part cannot break."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from privileged_house import PRIVILEGED_UID, PYTHON, House, entry

from rootd import ipc, sealed
from rootd.privileged import main, requests
from rootd.privileged.spawner import Spawner

pytestmark = pytest.mark.root
Build = Callable[..., House]
SLEEPER = "import signal; print('up', flush=True); signal.pause()"


def status_of(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def test_it_is_its_own_account_with_five_capabilities_and_nothing_that_services_would_inherit(build: Build) -> None:
    house = build(entry(SLEEPER))
    seen = status_of(house.pid)
    five = f"{sum(1 << number for number in main.CAPABILITIES):016x}"
    assert {name: seen[name] for name in ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Threads")} == {
        "Uid": [str(PRIVILEGED_UID)] * 4, "Gid": [str(PRIVILEGED_UID)] * 4, "Groups": [], "NoNewPrivs": ["0"],
        "Seccomp": ["0"], "Threads": ["1"],
    }  # fmt: skip
    assert (seen["CapPrm"], seen["CapEff"], seen["CapBnd"]) == ([five], [five], [five])
    assert (seen["CapInh"], seen["CapAmb"]) == (["0" * 16], ["0" * 16])


def test_kill_9_takes_nothing_back_but_the_same_processes(build: Build) -> None:
    house = build(entry(SLEEPER, count=3, notify=True))
    before = {house.spawn(slot=slot).run: slot for slot in range(3)}
    house.hear(ipc.CHANNEL)
    for _ in range(3):
        house.kill()
        house.start()
        told, channels = {}, set()
        while len(channels) < 3:
            message, fds = house.hear(ipc.FACT, ipc.CHANNEL)
            ipc.close_all(fds)
            if message.op == ipc.FACT:
                told[message.run] = message.slot
            else:
                channels.add(message.run)
        assert told == before
        assert channels == set(before)
    fresh = house.spawn(slot=1)
    assert fresh.run > max(before)


def test_an_adopted_process_is_signalled_and_its_exit_is_told_by_the_keeper(build: Build) -> None:
    house = build(entry(SLEEPER))
    spawned = house.spawn()
    assert os.read(house.output(spawned.run)[1], 3) == b"up\n"
    house.kill()
    house.start()
    house.hear(ipc.FACTS_END)
    house.ask(ipc.SIGNAL, run=spawned.run, arg=signal.SIGTERM)
    assert house.hear(ipc.DONE)[0].arg == 0
    assert select.select([house.store_pidfd(spawned.run)], [], [], 20)[0]
    house.reap_orphans()
    assert house.finish(spawned.run).arg == -signal.SIGTERM


def test_d7_an_exit_while_nobody_was_there_is_told_with_its_status(build: Build) -> None:
    house = build(entry("import sys; sys.stdin.read(); raise SystemExit(5)"))
    run = house.spawn().run
    house.kill()
    assert select.select([house.store_pidfd(run)], [], [], 20)[0]
    house.reap_orphans()
    house.start()
    exited = house.finish(run)
    assert (exited.arg, exited.flags) == (5, ipc.KNOWN)


def test_an_exit_that_nobody_saw_is_told_as_unknown(build: Build) -> None:
    house = build(entry("pass"))
    spawned = house.spawn()
    house.kill()
    os.waitpid(spawned.arg, 0)
    house.start()
    exited = house.finish(spawned.run)
    assert exited.flags & ipc.KNOWN == 0


def test_an_exit_that_the_keeper_tells_of_a_moment_too_late_for_the_start_is_known(build: Build) -> None:
    house = build(entry("raise SystemExit(5)"))
    spawned = house.spawn()
    house.kill()
    os.waitpid(spawned.arg, 0)
    house.start()
    house.hear(ipc.FACTS_END)
    house.keeper.send_now(ipc.Message(ipc.REAPED, arg=spawned.arg, extra=5))
    exited = house.finish(spawned.run)
    assert (exited.flags & ipc.KNOWN, exited.arg) == (ipc.KNOWN, 5)


def test_deeds_are_told_again_to_a_new_log_until_one_says_that_they_are_on_disk(build: Build) -> None:
    house = build(entry(SLEEPER))
    run = house.spawn().run
    house.hear(ipc.DEED, on="log", run=run)
    house.log.close()
    house.log = house.link("log", takes_fds=True)
    deed, _ = house.hear(ipc.DEED, on="log", run=run)
    assert deed.scope == requests.DEED_SPAWN
    ping, _ = house.hear(ipc.PING, on="log")
    while ping.seq < deed.seq:
        ping, _ = house.hear(ipc.PING, on="log")
    house.log.send(ipc.Message(ipc.PONG, seq=ping.seq))
    house.ask(ipc.ABORT)  # an answer means that what came before it was heard
    house.hear(ipc.DONE)
    house.log.close()
    house.log = house.link("log", takes_fds=True)
    house.ask(ipc.SIGNAL, run=run, arg=signal.SIGUSR1)
    again, _ = house.hear(ipc.DEED, on="log")
    assert again.scope in (requests.DEED_SIGNAL, requests.DEED_SPAWN)


def test_the_last_deed_reaches_a_log_that_is_late(build: Build) -> None:
    house = build(entry(f"import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN); {SLEEPER}"))
    run = house.spawn().run
    assert os.read(house.output(run)[1], 3) == b"up\n"
    for _ in range(1_000):  # more than a socket takes
        house.ask(ipc.SIGNAL, run=run, arg=signal.SIGUSR1)
        assert house.hear(ipc.DONE)[0].arg == 0
    house.ask(ipc.SHUTDOWN)
    deed, _ = house.hear(ipc.DEED, on="log")
    while deed.scope != requests.DEED_SHUTDOWN:
        deed, _ = house.hear(ipc.DEED, on="log")


def test_when_too_many_deeds_wait_for_the_log_nothing_more_is_done_but_killing(build: Build) -> None:
    def few() -> None:
        main.DEEDS_LIMIT = 6

    house = build(entry(SLEEPER, count=8), start=False)
    house.inside = few
    house.start()
    house.hear(ipc.FACTS_END)
    answers = [house.spawn(slot=slot) for slot in range(4)]
    runs = [answer.run for answer in answers if answer.op == ipc.SPAWNED]
    assert answers[-1].op == ipc.DONE
    assert answers[-1].arg == errno.EAGAIN
    house.ask(ipc.SIGNAL, run=runs[0], arg=signal.SIGUSR1)
    assert house.hear(ipc.DONE)[0].arg == errno.EAGAIN
    house.ask(ipc.SIGNAL, run=runs[0], arg=9, scope=ipc.TREE)
    assert house.hear(ipc.DONE)[0].arg == 0


def test_kills_without_end_do_not_push_out_what_was_done_while_there_was_no_log(build: Build) -> None:
    def few() -> None:
        main.DEEDS_LIMIT = 6

    house = build(entry(SLEEPER), start=False)
    house.inside = few
    house.start()
    house.hear(ipc.FACTS_END)
    house.log.close()
    run = house.spawn().run
    signal.pidfd_send_signal(house.pidfd, signal.SIGSTOP)  # so that none is late, and the run over
    for _ in range(main.AT_ONCE):
        house.ask(ipc.SIGNAL, run=run, arg=9, scope=ipc.TREE)
    signal.pidfd_send_signal(house.pidfd, signal.SIGCONT)
    house.finish(run)
    house.log = house.link("log", takes_fds=True)
    assert [house.hear(ipc.DEED, on="log")[0].scope for _ in range(2)] == [requests.DEED_START, requests.DEED_SPAWN]


def test_a_log_that_does_not_answer_is_ended(build: Build) -> None:
    def quick() -> None:
        main.HEARTBEAT = 0.05

    house = build(entry(SLEEPER), start=False)
    house.inside = quick
    house.start()
    assert select.select([house.stand_ins[-1]], [], [], 20)[0]


@pytest.mark.parametrize("role", ["supervisor", "log"])
def test_c5_a_part_that_closes_its_link_and_lives_on_is_ended(build: Build, role: str) -> None:
    """Without it nothing would be decided, or nothing done: the keeper links a part only when it starts."""
    house = build()
    (house.supervisor if role == "supervisor" else house.log).close()
    assert select.select([house.stand_ins[-1]], [], [], 20)[0]


def test_a_pipe_that_log_has_drained_is_forgotten_by_the_store(build: Build) -> None:
    house = build(entry("pass"))
    run = house.spawn().run
    for _ in range(2):
        message, fds = house.hear(ipc.PIPE, on="log")
        ipc.close_all(fds)
        drained = ipc.Message(ipc.DRAINED, run=run, slot=message.slot, scope=message.scope, name=message.name)
        house.log.send(drained._replace(arg=message.arg, extra=message.extra))
    house.finish(run)
    assert not [name for name in house.store if name.startswith("pipe/")]


def test_c5_a_pipe_whose_name_cannot_be_does_not_end_privileged(build: Build) -> None:
    house = build(entry("pass"))
    for name in ("x" * 160, "\u20ac" * 50):
        house.log.send(ipc.Message(ipc.DRAINED, name=name, arg=-(1 << 63), extra=1 << 62, run=(1 << 64) - 1, scope=255))
    house.finish(house.spawn().run)


def test_replace_leaves_its_wish_in_the_store_and_the_next_one_stages_as_root(build: Build) -> None:
    house = build(entry(SLEEPER))
    run = house.spawn().run
    house.ask(ipc.REPLACE, seq=4, arg=1)
    assert house.wait() == ipc.REPLACE_CODE
    assert "stage" in house.store
    house.start()
    assert house.hear(ipc.FACT)[0].run == run
    house.hear(ipc.FACTS_END)
    answer, fds = house.hear(ipc.TABLE)  # the configuration of these tests is nowhere: told, and not lost
    assert (answer.generation, answer.flags) == (2, ipc.INVALID)
    ipc.close_all(fds)
    assert "stage" not in house.store


def test_stage_answers_without_waiting_and_a_second_one_is_refused(build: Build) -> None:
    house = build(entry(SLEEPER))
    signal.pidfd_send_signal(house.pidfd, signal.SIGSTOP)  # so that the second is there when the first is begun
    house.ask(ipc.STAGE, seq=1)
    house.ask(ipc.STAGE, seq=2)
    signal.pidfd_send_signal(house.pidfd, signal.SIGCONT)
    answers = [house.hear(ipc.DONE, ipc.TABLE)[0] for _ in range(2)]
    assert {(a.op, a.seq, a.arg) for a in answers if a.seq == 2} == {(ipc.DONE, 2, errno.EBUSY)}
    assert [a.flags for a in answers if a.seq == 1] == [ipc.INVALID]


def test_what_the_keeper_sends_wrongly_is_closed_and_ignored(build: Build) -> None:
    house = build(entry(SLEEPER))
    house.keeper.send_now(ipc.Message(ipc.HELD, name="surprise"), 0, 1)
    house.keeper.send_now(ipc.Message(ipc.REAPED, arg=1, extra=0))
    assert house.spawn().op == ipc.SPAWNED


def test_d8_a_notify_socket_whose_run_is_not_in_the_store_goes(build: Build) -> None:
    """privileged was killed between the two, or while the tree of a run that had ended was still to empty."""
    house = build(entry(""), start=False)
    path = house.directory / "notify" / "77"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    house.store["notify/77"] = sock.detach()
    house.start()
    house.hear(ipc.FACTS_END)
    house.serve_keeper()
    assert "notify/77" not in house.store
    assert not path.exists()


def test_d7_a_start_that_was_killed_when_it_let_go_of_what_was_made_of_the_files_reads_them_again(build: Build) -> None:
    """And does not take what is left of it for something else."""
    house = build(start=False)
    for fd in house.store.values():
        os.close(fd)
    house.store = {name: sealed.memfd("x", b'{"/etc/secret": [0, 6]}\nsecret') for name in ipc.STAGED[1:]}
    house.start()
    assert house.wait() == main.BAD_CONFIGURATION, "of this house there are no files"
    assert house.store == {}


def test_when_the_keeper_is_gone_while_it_is_told_something_nothing_is_left_running_either(build: Build) -> None:
    house = build(entry(SLEEPER, count=2))
    runs = [house.spawn(slot=slot) for slot in range(2)]
    pidfd = os.pidfd_open(runs[1].arg)
    os.kill(runs[0].arg, signal.SIGKILL)
    house.hear(ipc.EXITED, run=runs[0].run)
    signal.pidfd_send_signal(house.pidfd, signal.SIGSTOP)
    house.ask(ipc.SIGNAL, run=runs[0].run, arg=9, scope=ipc.TREE)  # then the store is to forget it
    house.keeper.close()
    signal.pidfd_send_signal(house.pidfd, signal.SIGCONT)
    assert house.wait() == 0
    assert os.waitid(os.P_PIDFD, pidfd, os.WEXITED).si_status == signal.SIGKILL
    os.close(pidfd)


def test_c6_a_part_that_cannot_be_told_for_lack_of_descriptors_is_ended_and_what_was_for_the_log_is_kept() -> None:
    """It would wait for ever for what it never gets; the next one is given it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if in_shortage() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def in_shortage() -> bool:
    """In a process of its own, which has no descriptor left when a log that does not read is to get a pipe."""
    stand_in = os.fork()
    if stand_in == 0:
        signal.pause()
    keeper, log = ipc.pair(), ipc.pair()
    with contextlib.closing(Spawner()) as helper:
        house = main.Privileged(ipc.Link(keeper[0]), "/nonexistent", PYTHON, helper)
        house.link("log", log[0].detach(), os.pidfd_open(stand_in))
        while not house.links["log"].waiting:
            house.tell("log", ipc.Message(ipc.PING))
        name, pipe = "pipe/site/stdout/1/1048576/3/0", os.dup(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (pipe, pipe))
        requests.give_pipe(house, name, pipe)
        assert house.orphan_pipes == {name: pipe}
        assert house.links == {}
    return os.waitpid(stand_in, 0)[1] == signal.SIGKILL
