"""The keeper becomes the program that is installed now: tried first in a child, then by execve, with all that it holds.

Rule 1: what is tried is what is executed: the same file, words and descriptors. Nothing is given up for a trial.
Rule 2: the program is the file by which the running one was started, found anew: nobody can name another.
Rule 3: every part ends before execve, by the program that it is of, so that no two versions ever talk to each other.
Rule 4: signals wait in the kernel from before execve until the next keeper listens: none is lost, and none ends it.

Sources: execve(2), memfd_create(2); setitimer(2), prctl(2) PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG: all kept by
execve.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import prctl

from rootd import forked, ipc, sealed, version
from rootd.keeper import manifest
from rootd.keeper.manifest import Manifest

if TYPE_CHECKING:
    from rootd.keeper.main import Keeper

TIME_LIMIT = 60.0  # seconds for a trial, the reading of the configuration included
SAID_LIMIT = 16_384  # bytes of what a trial has said that are handed on
TRIED = "--try"  # the word that it is executed with when it is only to try
NO_PROGRAM = 127  # exit status: it could not be executed
LAST = ("privileged", "supervisor")  # whose links the others must hear to the end: these two end first


class Renewal:
    """Of this keeper. command: the program and its words. signals: those that the keeper handles."""

    def __init__(self, keeper: Keeper, command: Sequence[str], signals: Iterable[signal.Signals]) -> None:
        self.under_way = False  # the parts end, none is started, and what follows is execve
        self._keeper, self._command, self._signals = keeper, command, tuple(signals)
        self._trial = 0  # the pid of a child, 0 when there is none
        self._said = -1  # what it has written
        self._seq = 0  # of who has asked

    def told(self) -> Manifest:
        """What the next keeper is to know."""
        house = self._keeper
        held, asked, upgrades = house.store.everything(), house.asked_to_end, house.upgrades
        return Manifest(held, house.parts, tuple(house.reaped), asked, upgrades, version.spelled(), version.written())

    def ask(self, seq: int) -> None:
        """Whether the program that is installed now could take over from us: a child of ours finds out."""
        if self._trial and seq == self._seq:
            return None  # by who does not know that he has asked already
        if self._trial or self.under_way:
            return self._refuse(seq, errno.EBUSY, b"an upgrade is under way already")
        if not self._command:
            return self._refuse(seq, errno.ENOENT, b"it is not known by which file this program was started")
        self._seq, said, parent = seq, -1, os.getpid()
        try:
            told, said = manifest.write(self.told()), os.memfd_create("durward-said", os.MFD_CLOEXEC)
            self._trial = os.fork()
        except OSError as error:
            ipc.close_all([said] if said >= 0 else [])
            return self._refuse(seq, error.errno or errno.EIO, f"it cannot be tried now: {error.strerror}".encode())
        self._said = said
        if self._trial == 0:
            attempt(parent, self._command, told, self._keeper.store.everything().values(), said, self._signals)
        return None

    def is_tried(self, pid: int, status: int) -> bool:
        """A process has ended; whether it was the trial. If that went well the parts end, else nothing has changed."""
        if pid != self._trial:
            return False
        words, fd = os.pread(self._said, SAID_LIMIT, 0), self._said
        self._trial, self._said = 0, -1
        os.close(fd)
        house = self._keeper
        if house.ended_at is not None:
            return True
        if status or house.asked_to_end:
            self._refuse(self._seq, status or errno.EBUSY, words if status else b"all of it is to end")
            return True
        self.under_way = True
        house.due.clear()
        for role in LAST:
            if role in house.children:
                signal.pidfd_send_signal(house.children[role].pidfd, signal.SIGKILL)
        self.end_rest()
        return True

    def end_rest(self) -> None:
        """When nobody sends anything to log any more: it and the rest may hear what there is, and go."""
        if not self._keeper.children.keys() & {*LAST}:
            self._keeper.finish(0)

    def execute(self) -> None:
        """No part is left: become the new program. Where that fails, we stay what we are, and start them again."""
        house = self._keeper
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        with contextlib.suppress(BlockingIOError):
            while True:
                house.woken()  # by what came before that
        try:
            execute(self._command, manifest.write(self.told()), house.store.everything().values())
        except OSError as error:
            ipc.note("keeper", f"the new program cannot be executed, the old one goes on: {error.strerror}")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
        self.under_way, house.ended_at = False, None
        house.due = dict.fromkeys(("privileged", *house.parts), 0.0)

    def give_up(self) -> None:
        """What is tried holds all that we hold, and so do its children."""
        if self._trial:
            with contextlib.suppress(ProcessLookupError):  # it is no session yet, and has none
                os.killpg(self._trial, signal.SIGKILL)
            os.kill(self._trial, signal.SIGKILL)  # a child that was not waited for: the number is its own

    def _refuse(self, seq: int, status: int, words: bytes) -> None:
        """privileged is told, for whoever has asked, with what was said."""
        if not self._keeper.hears("privileged"):
            return
        try:
            said = sealed.memfd("said", words)
            self._keeper.tell("privileged", ipc.Message(ipc.UPGRADE, seq=seq, arg=status), said)
            os.close(said)
        except OSError as error:  # for want of descriptors, perhaps; who has asked does not wait for ever
            text = words.decode(errors="replace")
            ipc.note("keeper", f"nothing was changed: {text}; it cannot be told: {error.strerror}")


def clean(signals: Iterable[signal.Signals]) -> None:
    """In a fork: signals mean what they mean to any program, and it is a session of its own."""
    signal.set_wakeup_fd(-1)
    for number in signals:
        signal.signal(number, signal.SIG_DFL)
    os.setsid()


def end_with(parent: int) -> None:
    """In a fork: it is killed when its parent ends, and has ended when that one has already."""
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(forked.FAILED)


def attempt(
    parent: int, command: Sequence[str], told: bytes, held: Iterable[int], said: int, signals: Iterable[signal.Signals]
) -> None:
    """In the fork: the program is executed only to try. Never returns. It holds all that the keeper holds, the lock
    and every port, so it does not outlive it."""
    with forked.ending():
        end_with(parent)
        clean((*signals, signal.SIGALRM))
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
        for number in (1, 2):
            os.dup2(said, number)
        try:
            execute([*command, TRIED], told, held)
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
            sys.exit(NO_PROGRAM)


def execute(command: Sequence[str], told: bytes, held: Iterable[int]) -> None:
    """Become the program, with these descriptors and a memfd of what it is told. Returns only by raising OSError."""
    fds = [*held, sealed.memfd("told", told)]
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
        os.execv(command[0], [*command, "--resume", str(fds[-1])])
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)
        os.close(fds[-1])
