"""An upgrade: the keeper becomes the program that is installed now, and everything else is started from that.

UPGRADE → the keeper tries the new program → UPGRADE comes back with why not, or this supervisor ends, and the next one
finds out what became of it, and tells whoever waits.

Rule 1: what is under way is in a file before the keeper is asked: the operation has the same number for every
        supervisor until it has ended, once: by a refusal, by a keeper that was upgraded since, or when its time is up.
Rule 2: the keeper counts how often it was upgraded, and tells each part that it starts; no file is believed about that.
Rule 3: our own api is restarted after it, in a rolling restart like any; no other service is touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec

from policy.messages import Ended, Problem
from rootd import ipc
from rootd.config.compile import API
from rootd.supervisor import mentions
from rootd.supervisor.files import UNREADABLE
from rootd.supervisor.operations import Asker, Operation, Operations, Refusal
from rootd.supervisor.reload import fitting

TIME_LIMIT = 90.0  # seconds for the keeper's answer; its trial has 60
RIGHT = "shutdown"  # as dispatch has it, for the audit log
BAD_FILES = 65  # EX_DATAERR: a trial that found mistakes in root's files, and said each in a line
_PLACED = re.compile(r"(\S+?):([0-9]{1,9}): (.*)")


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the next supervisor is to know of one that is under way."""

    operation: int
    request: str
    began: float  # seconds of CLOCK_BOOTTIME
    since: str  # the same for people
    upgrades: int  # of the keeper, before it
    version: str  # of it, before


class Upgrades:
    """send: to privileged, False when it is away. keep: for the next supervisor. restart: our own api, the number of
    the operation; None where there is none that runs."""

    def __init__(
        self, operations: Operations, inherited: ipc.Inherited, send: Callable[[ipc.Message], bool],
        keep: Callable[[bytes], None], restart: Callable[[float, str], int | None],
    ) -> None:  # fmt: skip
        self.keeper, self.count = inherited.program, inherited.upgrades  # its version, and how often it was upgraded
        self._operations, self._send, self._keep, self._restart = operations, send, keep, restart
        self._kept: Kept | None = None
        self._operation: Operation | None = None
        self._awaited = 0  # the operation that restarts our api
        self._text = ""

    def begin(self, request: str, now: float) -> int:
        """The number of the operation. Raises Refusal."""
        if self._operation is not None:
            raise Refusal("conflict", f"an upgrade is under way: operation {self._operation.number}")
        operation = self._operation = self._operations.begin("upgrade", "", request, now)
        self._kept = Kept(operation.number, request, now, operation.since, self.count, self.keeper)
        self._keep(msgspec.json.encode(self._kept))
        self._operations.step(operation, f"{self.keeper} runs; the program that is installed now is tried")
        self._send(ipc.Message(ipc.UPGRADE, seq=operation.number))  # or when privileged is back
        return operation.number

    def restore(self, data: bytes) -> str:
        """What the last supervisor has left. Returns what is wrong with it ("" when nothing is)."""
        if not data:
            return ""
        try:
            self._kept = msgspec.json.decode(data, type=Kept)
        except UNREADABLE as error:
            return f"what is known of an upgrade is damaged and not used: {error}"
        return ""

    def facts(self, now: float) -> None:
        """privileged has told all."""
        kept = self._kept
        if kept is None or self._awaited:
            return None
        operation = self._operation = self._operations.find(kept.operation) or self._begun(kept)
        if operation.ended:  # and the file was not emptied any more
            return self._forget()
        if self.count == kept.upgrades:
            self._send(ipc.Message(ipc.UPGRADE, seq=kept.operation))  # the keeper knows which it has been asked already
            return None
        parts = "keeper, privileged, supervisor, log, auth, probe"
        self._operations.step(operation, f"{parts}: {kept.version} → {self.keeper}")
        self._text = f"upgraded: {kept.version} → {self.keeper}"
        try:
            self._awaited = self._restart(now, kept.request) or 0
        except Refusal as no:
            return self._end(False, f"{self._text}; but the api could not be restarted: {no.text}", now)
        return None if self._awaited else self._end(True, self._text, now)

    def refused(self, message: ipc.Message, said: bytes, now: float) -> None:
        """UPGRADE has come back: nothing was changed, and why."""
        if self._operation is None or message.seq != self._operation.number:
            return None
        lines = [line for line in mentions.plain(said.decode(errors="replace")).splitlines() if line[:1].strip()]
        if message.arg == BAD_FILES and lines:
            return self._end(
                False, "the new program refuses the files: nothing was changed", now, map(problem_of, lines)
            )
        text = "; ".join(lines) and mentions.mark(mentions.ROOT, "; ".join(lines), "root is told why")
        how = f"exit status {message.arg}" if message.arg >= 0 else f"signal {-message.arg}"
        return self._end(
            False, f"nothing was changed: {text or f'the new program ended when it was tried ({how})'}", now
        )

    def ended(self, event: Ended, now: float) -> None:
        """An operation has ended: the restart of our api, or any other."""
        if self._awaited and event.operation == self._awaited:
            why = mentions.mark(API, event.text, "who may view it is told why")
            rest = event.text if event.ok else f"but of the api only the old version runs: {why}"
            self._end(event.ok, f"{self._text}; {rest}", now)

    def wake_at(self) -> float | None:
        return None if self._operation is None or self._awaited else self._operation.began + TIME_LIMIT

    def wake(self, now: float) -> None:
        at = self.wake_at()
        if at is not None and now >= at:
            self._end(False, f"the keeper did not answer within {TIME_LIMIT:g} s: look at its messages", now)

    def _begun(self, kept: Kept) -> Operation:
        """One that the last supervisor's state file has not told of."""
        operation = Operation(kept.operation, "upgrade", "", kept.request, kept.began)
        operation.since, operation.askers = kept.since, [Asker(kept.request, None, RIGHT)]
        self._operations.resume([operation])
        return operation

    def _end(self, ok: bool, text: str, now: float, problems: Iterable[Problem] = ()) -> None:
        operation = self._operation
        self._forget()
        if operation is not None:
            self._operations.end(operation, ok, text, now, fitting(list(problems)))

    def _forget(self) -> None:
        self._operation, self._kept, self._awaited = None, None, 0
        self._keep(b"")


def problem_of(line: str) -> Problem:
    """As it was said by rootd/check.headline: with its place, where it has one. For root, who alone may ask for it."""
    found = _PLACED.fullmatch(line)
    said = Problem(found[1], int(found[2]), "", found[3]) if found else Problem("", 0, "", line)
    return mentions.of_problem(said, mentions.ROOT, "root is told what is wrong")


def of_api(
    restart: Callable[[str, float, str], int], runs: Callable[[str], bool]
) -> Callable[[float, str], int | None]:
    """Restarts our own api, where it runs."""
    return lambda now, request: restart(API, now, request) if runs(API) else None
