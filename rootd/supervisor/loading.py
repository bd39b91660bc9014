"""How a configuration that counts from now on is recorded: who, the hash of each file that is new, what it changes, and
what changes in rights, which a throw-away child finds out (comparing.py).

Rule 1: of environment files and credentials there is no hash, nor of the table, which has what they say: what is short
        in them could be guessed by it.
Rule 2: what is told is what has changed since the last configuration that is in the audit log, whoever loaded that: it
        is kept, with the text of its policy, in a file for the next supervisor, written when log has the record.
Rule 3: of each load it is told what has changed in rights: at once, by a record `rights` that follows, or that it is
        not known, and why. What is not in the audit log yet is in that file, and the next supervisor finds it out:
        better twice than never. A comparison has the two texts that it is of: who loads meanwhile does not matter.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from rootd import ipc
from rootd.supervisor.auditing import Audit
from rootd.supervisor.comparing import TIME, Answer, Comparison
from rootd.supervisor.difference import NO_CHANGE
from rootd.supervisor.files import UNREADABLE
from rootd.supervisor.publishing import policy_alone

if TYPE_CHECKING:
    from rootd.config.trusted import File
    from rootd.supervisor.reload import Loaded

EACH = 100  # files that one record names: it has to fit into a packet
VERSION = 1  # of the file
TEXT_LIMIT = 1 << 20  # bytes of a policy, compressed, that is kept
DUE_LIMIT = 4  # comparisons whose texts are kept at once: with all of them the file has less than 16 MiB
AGAIN = 1.0  # seconds until it is looked again whether all is on disk
SAME = "no right changed"
UNKNOWN = "not known: what counted before is not kept"
COMMAND = "durward policy diff OLD NEW"


class Due(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a load: what changed in rights, which is not in the audit log yet. before, policy: the hashes of the policies;
    old, new: what they allow (publishing.policy_alone); None: too large to be kept, or too many."""

    id: str
    user: str
    generation: int
    before: str
    policy: str
    old: bytes | None
    new: bytes | None


class Standing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts: the hashes of its files, of its table and of its policy, and what that allows."""

    version: int
    files: dict[str, str]
    digest: str
    policy: str
    text: bytes | None
    due: tuple[Due, ...] = ()


def hashes(files: Iterable[File]) -> dict[str, str]:
    """SHA-256 of durward.toml, services.d/*.toml and policy.d/*.toml, by path; "" for what could not be read."""
    return {one.path: "" if one.error else hashlib.sha256(one.text.encode()).hexdigest() for one in files}


def records(loaded: Loaded, before: Mapping[str, str], what: str, **more: str) -> Iterator[dict[str, Any]]:
    """before: the hashes of the files that counted until now; more: id, of the request whose reload it was, "" for a
    start, and whatever else is to be told.

    A file that is gone has no hash.
    """
    new = {path: mark for path, mark in loaded.files.items() if before.get(path) != mark}
    new |= dict.fromkeys(sorted(before.keys() - loaded.files.keys()), "")
    pairs = iter(new.items())
    yield {
        "kind": "load", **more, "generation": loaded.generation,
        "policy": loaded.policy.hash[:12], "services": len(loaded.specs or ()), "problems": len(loaded.problems),
        "changed": what, "files": dict(itertools.islice(pairs, EACH)),
    }  # fmt: skip
    while files := dict(itertools.islice(pairs, EACH)):
        yield {"kind": "files", "id": more.get("id", ""), "generation": loaded.generation, "files": files}


def since(before: Standing, loaded: Loaded) -> str:
    """What a start finds other than it was, as far as hashes say."""
    old, new = before.files, loaded.files
    found = {
        "files added": new.keys() - old.keys(),
        "files removed": old.keys() - new.keys(),
        "files changed": {path for path in new.keys() & old.keys() if new[path] != old[path]},
    }
    told = "; ".join(f"{word}: {', '.join(sorted(paths))}" for word, paths in found.items() if paths)
    same = NO_CHANGE if before.digest == loaded.digest.hex() else "no file: what they name, or this program, is another"
    return told or same


def record(due: Due, answer: Answer) -> dict[str, Any]:
    """What changed in rights, for the audit log."""
    counts = [f"{len(lines)} {word}" for word, lines in (("gained", answer.gained), ("lost", answer.lost)) if lines]
    text = f"not known: {answer.why}" if answer.why else ", ".join(counts) or SAME
    text += f", and {answer.more} more" if answer.more else ""
    told = {
        "kind": "rights", "id": due.id, "user": due.user, "generation": due.generation, "before": due.before,
        "policy": due.policy, "text": text, "gained": answer.gained, "lost": answer.lost, "more": answer.more,
        "all": f"{COMMAND}, of copies whose files have the hashes of the loads" if answer.more or answer.why else "",
    }  # fmt: skip
    return {name: value for name, value in told.items() if value or name in ("id", "before")}


class Loads:
    """What is told of each, in order; `write` keeps the file for the next supervisor, whole or not at all."""

    def __init__(
        self, loop: ipc.Loop, audit: Audit, clock: Callable[[], float], write: Callable[[bytes], None]
    ) -> None:
        self._loop, self._audit, self._clock, self._write = loop, audit, clock, write
        self._standing: Standing | None = None  # None: nothing is known of what counted before
        self._begun = False  # something counts since this supervisor has begun
        self._generation = 0
        self._is_told = False  # its load is in the audit log
        self._due: list[Due] = []  # not in the audit log yet
        self._queue: deque[Due] = deque()  # those of them that are not compared yet
        self._said: list[Due] = []  # those that were handed to log, which may not have them on disk
        self._work: Comparison | None = None
        self._until = 0.0  # for that one
        self._again: float | None = None

    def restore(self, data: bytes) -> str:
        """What is wrong with it, "" when nothing is."""
        try:
            found = msgspec.json.decode(data, type=Standing) if data else None
            if found is not None and found.version != VERSION:
                raise ValueError(f"it is of version {found.version}")
        except UNREADABLE as error:
            return f"what counted before is not known, to be compared with what counts now: {error}"
        self._standing = found
        self._due = [*found.due] if found is not None else []
        self._queue.extend(self._due)
        return ""

    def count(self, loaded: Loaded, request: str, user: str, what: str) -> None:
        """This counts from now on. request, user: of the reload, "" for a start; what: it changes."""
        before, first = self._standing, not self._begun
        text: bytes | None = policy_alone(loaded.shown)
        text = text if text is not None and len(text) <= TEXT_LIMIT else None
        policy = loaded.policy.hash[:12]
        more = {"id": request, "user": user} if user else {"id": request}
        if first and before is not None:
            what = since(before, loaded)
        if before is None:
            more["rights"] = UNKNOWN
        elif first and text is not None and text == before.text and (not request or before.files == loaded.files):
            more["rights"] = SAME
        else:
            due = Due(request, user, loaded.generation, before.policy, policy, before.text, text)
            room = sum(one.new is not None for one in self._due) < DUE_LIMIT
            due = due if room else replace(due, old=None, new=None)
            self._due.append(due)
            self._queue.append(due)
        self._begun, self._generation, self._is_told = True, loaded.generation, False
        self._standing = Standing(VERSION, loaded.files, loaded.digest.hex(), policy, text)
        *others, last = records(loaded, before.files if before is not None else {}, what, **more)
        for one in others:
            self._audit.record(one)
        self._audit.record(last, partial(self._load_told, loaded.generation))
        self._compare()

    def _load_told(self, generation: int, why: str) -> None:
        if why:
            self._again = self._clock() + AGAIN
        elif generation == self._generation:
            self._is_told = True
            self._keep()

    def _keep(self) -> None:
        if self._is_told and self._standing is not None:
            self._write(msgspec.json.encode(replace(self._standing, due=tuple(self._due))))

    def _compare(self) -> None:
        """The next ones, as far as none is at work."""
        while self._queue and self._work is None:
            due = self._queue.popleft()
            if due.old is None or due.new is None:
                self._answer(due, Answer(why="the policies are too large to be kept, or loads follow too fast"))
            elif due.old == due.new:
                self._answer(due, Answer())
            else:
                try:
                    self._work = Comparison(self._loop, due.old, due.new, partial(self._over, due))
                    self._until = self._clock() + TIME
                except OSError as error:
                    self._answer(due, Answer(why=f"no process for it: {error.strerror}"))

    def _over(self, due: Due, answer: Answer) -> None:
        self._work = None
        self._answer(due, answer)
        self._compare()

    def _answer(self, due: Due, answer: Answer) -> None:
        self._said.append(due)
        self._audit.record(record(due, answer), partial(self._rights_told, due))

    def _rights_told(self, due: Due, why: str) -> None:
        if why:
            self._again = self._clock() + AGAIN
        else:
            self._forget([due])

    def _forget(self, told: list[Due]) -> None:
        for due in told:
            self._said.remove(due)
            self._due.remove(due)
        self._keep()

    def wake_at(self) -> float | None:
        return min((at for at in (self._again, self._until if self._work else None) if at is not None), default=None)

    def wake(self, now: float) -> None:
        """A comparison whose time is up ends; what log did not take at once may be on disk by now."""
        if self._work is not None and now >= self._until:
            self._until = now + TIME
            self._work.kill()
        if self._again is not None and now >= self._again:
            self._again = None if self._audit.is_settled else now + AGAIN
            if self._again is None:
                self._is_told = self._begun
                self._forget([*self._said])
