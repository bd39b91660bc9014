"""What the supervisor may ask: one function for each message of DESIGN §14, and the table that names them.

Rule 1: every field that is used is checked against root's own table here, in case the supervisor is taken over.
Rule 2: every request is answered exactly once, by what it is about or by DONE with an errno.
Rule 3: what is done is told to log before it is answered.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from rootd import closing, ipc, sealed
from rootd.config.table import Entry
from rootd.privileged import adopt, cgroup, orphans, signals, spawn
from rootd.privileged.spawn import Run

if TYPE_CHECKING:
    from rootd.privileged.main import Privileged

SWEEPS = 64  # looks for what a run has left, for each time that the supervisor asks
RUNS_A_SLOT = 2  # the old one and the new one of a rolling restart
PIPE_STREAMS = {"stdout": 1, "stderr": 2}
DEED_SPAWN, DEED_SIGNAL, DEED_EXITED, DEED_COMMIT, DEED_START, DEED_SHUTDOWN, DEED_ADOPT = range(1, 8)


def answer_spawn(house: Privileged, asked: ipc.Message) -> None:
    entry = house.generations.entry(asked.generation, asked.slot)
    if entry is None or any(key not in house.generations.sockets for key in entry.held()):
        return house.done(asked, errno.EINVAL)  # no such slot, or of a generation whose sockets were let go
    about = house.runs.get(asked.run)
    if asked.run and not is_of(house, about, entry):
        return house.done(asked, errno.ESRCH)
    beside = sum((run.slot, run.generation) == (asked.slot, asked.generation) for run in house.runs.values())
    if beside >= RUNS_A_SLOT or len(house.runs) >= house.generations.room():
        return house.done(asked, errno.EBUSY)
    if house.unrecorded():
        return house.done(asked, errno.EAGAIN)
    if house.kept.full(spawn.process_name(entry, asked.slot), asked.slot):
        return house.done(asked, errno.EMFILE, ipc.STEPS.index("pipe"))
    number = house.next_run()
    try:
        run, pipes = spawn.spawn(
            entry,
            slot=asked.slot,
            run=number,
            generation=asked.generation,
            sockets=house.generations.sockets,
            secrets=house.generations.held[asked.generation].secrets,
            paths=(house.settings.paths.run, house.tree),
            about=about.pid if about else 0,
            probe_gid=house.settings.accounts["probe"].gid,
            store=house.store_all,
            helper=house.helper,
        )
    except spawn.SpawnFailed as failure:
        return house.done(asked, failure.errno, failure.step)
    house.runs[number] = run
    house.deed(DEED_SPAWN, run, run.pid)
    spawn.open_gate(run)
    for name, fd in pipes.items():
        give_pipe(house, name, fd)
    house.loop.watch(run.pidfd, lambda _: exited(house, run))
    house.loop.watch(run.gate, lambda _: gate_closed(house, run))
    house.tell("supervisor", told_of(run, ipc.SPAWNED, seq=asked.seq))
    tell_channel(house, run)


def told_of(run: Run, op: int, *, seq: int = 0, flags: int = 0) -> ipc.Message:
    """What the supervisor has to know of a run: a new one, or one that there is."""
    return ipc.Message(
        op, seq=seq, flags=flags, run=run.run, slot=run.slot, generation=run.generation, arg=run.pid, extra=run.started
    )


def is_of(house: Privileged, run: Run | None, entry: Entry) -> bool:
    """Whether a hook or a probe of this entry may be about this run: it lives, and is of the same service."""
    other = house.generations.entry(run.generation, run.slot) if run and not run.acknowledged else None
    return other is not None and other.service == entry.service


def answer_signal(house: Privileged, asked: ipc.Message) -> None:
    run = house.runs.get(asked.run)
    entry = house.generations.entry(run.generation, run.slot) if run else None
    if run is None or entry is None:
        return house.done(asked, errno.ESRCH)
    tree = asked.scope == ipc.TREE
    allowed = asked.arg == signal.SIGKILL if tree else asked.arg in entry.signals
    if asked.scope not in (ipc.MAIN, ipc.TREE) or not allowed:
        return house.done(asked, errno.EPERM)
    if run.acknowledged:
        house.done(asked, signals.send(run, signal.SIGKILL, True, house.tree) if tree else errno.ESRCH)
        return sweep(house, run) if tree and run.events < 0 else None
    if house.unrecorded() and not tree:
        return house.done(asked, errno.EAGAIN)
    house.deed(DEED_SIGNAL, run, asked.arg)
    house.done(asked, kill_tree(house, run, others(house, run)) if tree else signals.send(run, asked.arg, False, ""))
    if tree and run.exited is not None:
        acknowledge(house, run)


def answer_adopt(house: Privileged, asked: ipc.Message) -> None:
    refused = adopt.check(house, asked)
    if refused:
        return house.done(asked, refused)
    run = house.runs[asked.run]
    try:
        adopt.take(house, run, asked.arg)
    except OSError as error:
        return house.done(asked, error.errno or errno.EIO)
    house.deed(DEED_ADOPT, run, run.pid)
    return house.done(asked, 0)


def answer_stage(house: Privileged, asked: ipc.Message) -> None:
    if house.staging is not None:
        return house.done(asked, errno.EBUSY)
    house.abort()
    try:
        house.begin_staging(asked.seq)
    except OSError as error:
        house.done(asked, error.errno or errno.EIO)


def answer_commit(house: Privileged, asked: ipc.Message) -> None:
    """From now on this is the configuration: its sockets and its table go into the store, the table last."""
    if not house.generations.commit(asked.generation, asked.digest):
        return house.done(asked, errno.EINVAL)
    house.deed(DEED_COMMIT)
    house.retire()
    house.done(asked, 0)


def answer_abort(house: Privileged, asked: ipc.Message) -> None:
    house.abort()
    house.done(asked, 0)


def answer_replace(house: Privileged, asked: ipc.Message) -> None:
    """Exit to be started again as root; with arg 1, the configuration is staged then."""
    if not may_be_replaced(house):
        return house.done(asked, errno.EAGAIN)
    if asked.arg == 1:
        marker = sealed.memfd("stage", b"")
        house.store("stage", marker)
        os.close(marker)
    house.done(asked, 0)
    house.status = ipc.REPLACE_CODE


def may_be_replaced(house: Privileged) -> bool:
    """Not while log has not been told a deed: it never would be."""
    log = house.links.get("log")
    return not house.deeds or (log is not None and not log.waiting and not log.broken)


def answer_renew(house: Privileged, asked: ipc.Message) -> None:
    """A probe hangs that the supervisor may not kill: the keeper does, and starts another."""
    house.keeper.send_now(ipc.Message(ipc.RENEW))
    house.done(asked, 0)


def answer_upgrade(house: Privileged, asked: ipc.Message) -> None:
    """The keeper tries what is installed now. It answers only when it stays what it is: else nobody is left to hear."""
    house.keeper.send_now(ipc.Message(ipc.UPGRADE, seq=asked.seq))


def answer_shutdown(house: Privileged, asked: ipc.Message) -> None:
    house.done(asked, 0)
    house.shutdown(asked.arg)


HANDLERS: dict[int, Callable[[Privileged, ipc.Message], None]] = {
    ipc.SPAWN: answer_spawn,
    ipc.SIGNAL: answer_signal,
    ipc.ADOPT: answer_adopt,
    ipc.STAGE: answer_stage,
    ipc.COMMIT: answer_commit,
    ipc.ABORT: answer_abort,
    ipc.REPLACE: answer_replace,
    ipc.SHUTDOWN: answer_shutdown,
    ipc.RENEW: answer_renew,
    ipc.UPGRADE: answer_upgrade,
}


def gate_closed(house: Privileged, run: Run) -> None:
    """The child has become its service, or has said why it could not."""
    house.loop.forget(run.gate)
    spawn.read_failure(run)


def exited(house: Privileged, run: Run) -> None:
    """The main process of a run of ours has ended; it stays unreaped until the supervisor has acknowledged.

    How, the kernel does not say while somebody traces it (ptrace(2)), who may belong to another service of its user.
    """
    gate_closed(house, run)
    ended(house, run, *(signals.peek(run) or (0, 0)))


def ended(house: Privileged, run: Run, status: int, flags: int) -> None:
    """Tell an exit, and mend the sockets that the service may have left unusable."""
    run.exited = (status, flags)
    house.loop.forget(run.pidfd)
    house.deed(DEED_EXITED, run, status)
    tell_exit(house, run)
    mend(house, run)


def mend(house: Privileged, run: Run) -> None:
    """The sockets that it may have left unusable; where only root can make another, we are started again as root."""
    if not house.generations.mend(run, house.runs.values()) and may_be_replaced(house):
        house.status = ipc.REPLACE_CODE


def end_unseen(house: Privileged) -> None:
    """Runs of which nobody will say how they ended."""
    for run in adopt.unseen(house):
        ended(house, house.adopted.pop(run.pid), 0, 0)


def report(house: Privileged) -> None:
    """All that a supervisor has to know that has just been started, or that has found us started again."""
    if house.staged_as_root is None:
        house.abort()
    for number, generation in sorted(house.generations.held.items()):
        flags = ipc.RUNNING if number == house.generations.current else 0
        house.tell("supervisor", generation.told(flags=flags), generation.fd)
    for run in house.runs.values():
        house.tell("supervisor", told_of(run, ipc.FACT, flags=ipc.LEFT if run.acknowledged else 0))
    house.tell("supervisor", ipc.Message(ipc.FACTS_END))
    for run in house.runs.values():
        tell_channel(house, run)
        tell_exit(house, run)
    if house.staged_as_root is not None:
        answer, house.staged_as_root = house.staged_as_root, None
        house.show(*answer)


def give_pipe(house: Privileged, name: str, fd: int) -> None:
    """To log, and out of this process; kept for the next log when there is none now."""
    _, process, stream, run, size, keep, slot = name.split("/")
    message = ipc.Message(
        ipc.PIPE, scope=PIPE_STREAMS[stream], run=int(run), slot=int(slot), name=process, arg=int(size),
        extra=int(keep) & ipc.LOW, generation=int(keep) >> ipc.LOW.bit_length(),
    )  # fmt: skip
    if house.tell("log", message, fd):
        os.close(fd)
    else:
        house.orphan_pipes[name] = fd


def drained(house: Privileged, message: ipc.Message) -> None:
    """log has every byte of a pipe whose other end is closed: the store may forget it."""
    stream = "stdout" if message.scope == 1 else "stderr"
    keep = message.extra | message.generation << ipc.LOW.bit_length()
    name = f"pipe/{message.name}/{stream}/{message.run}/{message.arg}/{keep}/{message.slot}"
    if len(name.encode()) <= ipc.NAME_LIMIT:
        house.drop(name)


def tell_exit(house: Privileged, run: Run) -> None:
    if run.exited is not None:
        status, flags = run.exited
        message = ipc.Message(ipc.EXITED, run=run.run, slot=run.slot, flags=flags, arg=status, extra=run.failure)
        house.tell("supervisor", message)


def tell_channel(house: Privileged, run: Run) -> None:
    entry = house.generations.entry(run.generation, run.slot)
    if run.notify >= 0 and entry is not None:
        scope = ipc.READY if entry.ready_fd else ipc.NOTIFY
        house.tell("supervisor", ipc.Message(ipc.CHANNEL, scope=scope, run=run.run), run.notify)


def acknowledge(house: Privileged, run: Run) -> None:
    """The supervisor knows of the exit: its tree is awaited. The store has the run until then: see over."""
    group = f"{house.tree}/run-{run.run}"
    try:
        run.events = cgroup.open_events(group) if house.tree else -1
    except FileNotFoundError:
        return over(house, run)
    except OSError:  # no descriptor is left: where it is not empty, the supervisor asks again in its time
        return over(house, run) if cgroup.remove(group) else None
    run.acknowledged = True
    if not house.tree:
        return sweep(house, run)
    house.loop.watch(run.events, lambda _: emptied(house, run), select.EPOLLPRI)
    return emptied(house, run)


def emptied(house: Privileged, run: Run) -> None:
    if not cgroup.populated(run.events):
        house.loop.forget(run.events)
        over(house, run)


def others(house: Privileged, run: Run) -> list[tuple[Run, int]]:
    """Where there are cgroups nobody looks at them, and a thousand that end would each look at a thousand."""
    beside = [] if house.tree else [other for other in house.runs.values() if other is not run]
    return [(other, house.generations.uid(other)) for other in beside]


def kill_tree(house: Privileged, run: Run, beside: list[tuple[Run, int]]) -> int:
    """SIGKILL to all of a run, as far as it is there now. Returns an errno, 0 when it was sent.

    beside: the other runs, whose processes it may not be taken for.
    """
    if not house.tree:
        pidfd, _ = orphans.kill(run, house.generations.uid(run), beside, house.parent)
        ipc.close_all([pidfd] if pidfd >= 0 else [])
    return signals.send(run, signal.SIGKILL, True, house.tree)


def sweep(house: Privileged, run: Run, rounds: int = SWEEPS) -> None:
    """Without cgroups: what is left is killed until nothing is, each time when one of the last has ended."""
    run.events, doubtful = orphans.kill(run, house.generations.uid(run), others(house, run), house.parent)
    if run.events >= 0:
        return house.loop.watch(run.events, lambda _: swept(house, run, rounds - 1))
    if doubtful:
        entry = house.generations.entry(run.generation, run.slot)
        who = spawn.process_name(entry, run.slot) if entry else f"run {run.run}"
        ipc.note("privileged", f"{doubtful} processes are left that {who} or another service of its user has started")
    return over(house, run)


def swept(house: Privileged, run: Run, rounds: int) -> None:
    house.loop.forget(run.events)
    os.close(run.events)
    run.events = -1
    if rounds:  # else the supervisor asks again in its time
        sweep(house, run, rounds)


def over(house: Privileged, run: Run) -> None:
    """Nothing of the run is left, and nothing that it left can hold a port any more.

    Now the store forgets the process, and it is reaped: killed before, the next privileged begins with the run again.
    """
    house.drop(run.name)
    if run.ours:
        signals.reap(run)
    mend(house, run)
    if run.notify >= 0:
        house.drop(f"notify/{run.run}")
    closing.close(*(fd for fd in (run.pidfd, run.events, run.notify) if fd >= 0))
    spawn.forget(house.settings.paths.run, house.tree, run.run)
    del house.runs[run.run]
    house.tell("supervisor", ipc.Message(ipc.EMPTY, run=run.run, slot=run.slot))
    house.retire(run.generation)
