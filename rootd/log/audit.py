"""The audit log on disk: <log>/audit/audit.jsonl, and the key that goes with it in <state>/log.

Rule 1: the only writer. Records are appended by one write a batch, made durable, and only then is anybody told so.
Rule 2: the order is: lines, fdatasync, key of the next record over the old key. Killed anywhere in between, the next
        start finds the truth: lines that follow the record the key file names, and whose macs fit, were written
        before the kill; whatever comes after them is torn, was acknowledged to nobody, and is named by `start`.
Rule 3: a batch that cannot be written whole is taken back to the last record's end; nothing of it happened.
Rule 4: the first key is written once to <state>/log/audit.initial, for the auditor to take away from the machine.
        While it lies there, who takes over log can make the whole log again.
Rule 5: a file that is full is renamed and never touched again; the chain goes on in the next one. Killed in between, a
        start finds the last record at the end of the newest full one.
Rule 6: no lock is ever taken: whoever may read the log could hold it (security.md E6).

The key file is one block of 104 bytes, overwritten in place: the number of the next record (8, big-endian), its key,
the hash of the last record, the SHA-256 of those. Sources: open(2), write(2), fdatasync(2), ext4(5).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rootd.log import chain

AUDIT, KEY, INITIAL = "audit.jsonl", "audit.key", "audit.initial"
FULL = re.compile(r"audit-[0-9]{16}\.jsonl\Z")  # by the number of its first record
NOTED_LIMIT = 8_192  # deeds kept while they cannot be written; what is beyond is counted in a `lost` record
BATCH_LIMIT = 256 * 1024  # bytes of noted deeds that go into one write
TAIL_FIRST, TAIL_LIMIT = 64 * 1024, 64 * 1024 * 1024  # bytes of the end in which a start looks for the last record
RETRY = 1.0  # seconds between attempts while deeds wait for the disk

_COMMON = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class State(NamedTuple):
    """Where the chain stands: the next record's number and key, and the last record's hash."""

    n: int
    key: bytes
    head: bytes

    def packed(self) -> bytes:
        block = self.n.to_bytes(8, "big") + self.key + self.head
        return block + chain.digest(block)

    @classmethod
    def unpacked(cls, block: bytes) -> State | None:
        """None when this is no key file's content."""
        if len(block) != 104 or chain.digest(block[:72]) != block[72:]:
            return None
        return cls(int.from_bytes(block[:8], "big"), block[8:40], block[40:72])

    def after(self, line: bytes) -> State:
        return State(self.n + 1, chain.next_key(self.key), chain.digest(line))


class Found(NamedTuple):
    """What a start found at the end of the log, and what its `start` record has to say about it."""

    state: State
    reason: str
    debris: list[bytes]  # lines after the last record that are none


class Audit:
    """Owns the audit log. `directory` is <log>/audit and `secrets` is <state>/log: descriptors, kept open.

    `place` is the path of the second, for people. `wall` gives the time that records bear; `say` tells the operator,
    who sees each trouble once. `size`: bytes after which the next file is begun; 0: never.
    """

    def __init__(
        self, directory: int, secrets: int, place: str, wall: Callable[[], str], say: Callable[[str], None],
        size: int = 0,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._limit = size
        self._place = place
        self._secrets = secrets
        self._wall = wall
        self._say = say
        self._log = -1
        self._key = -1
        self._size = 0
        self._state = State(0, b"", chain.NO_HEAD)
        self._noted: deque[str] = deque()
        self._lost = 0
        self.trouble = 0  # the errno of the last attempt
        self._again = ""  # why the file is opened again in the life of this process
        self.written: Callable[[list[bytes]], None] = lambda lines: None  # told what is on disk, each with its newline

    @property
    def waiting(self) -> bool:
        """Whether something noted is not on disk yet: call settle again in RETRY seconds."""
        return bool(self._noted or self._lost)

    @property
    def next_n(self) -> int:
        return self._state.n

    @property
    def head(self) -> bytes:
        """The hash of the last record."""
        return self._state.head

    def note(self, body: Mapping[str, Any]) -> None:
        """A record that nobody waits for. It is written by the next settle, or by a later one when that fails."""
        if len(self._noted) >= NOTED_LIMIT:
            self._lost += 1
        else:
            self._noted.append(chain.canonical(body))

    def settle(self, records: Sequence[str] = ()) -> int:
        """Write what was noted, then records (canonical bodies), all or nothing of each. 0 when they are on disk.

        Otherwise the errno; then none of `records` was written, and what was noted stays noted.
        """
        try:
            self._ready()
            while self._noted:
                batch = self._first_noted()
                self._append(batch)
                for _ in batch:
                    self._noted.popleft()
            if self._lost:
                self._append([chain.canonical({"kind": "lost", "deeds": self._lost})])
                self._lost = 0
            if records:
                self._append(records)
        except OSError as error:
            return self._failed(error)
        if self.trouble:
            self.trouble = 0
            self._say("the audit log is being written again")
        return 0

    def close(self, reason: str) -> None:
        """Write what is left and the `stop` record, as far as the disk lets us."""
        self.settle([chain.canonical({"kind": "stop", "reason": reason})])
        self._release()

    def _first_noted(self) -> list[str]:
        batch: list[str] = []
        size = 0
        for members in self._noted:
            size += len(members)
            if batch and size > BATCH_LIMIT:
                break
            batch.append(members)
        return batch

    def _failed(self, error: OSError) -> int:
        number = error.errno or errno.EIO
        if number != self.trouble:
            self.trouble = number
            self._say(
                f"the audit log cannot be written: {error.strerror}; what changes something is refused until it can"
            )
        return number

    def _append(self, bodies: Sequence[str], before: bytes = b"") -> None:
        """One batch. Raises OSError, and then the file ends where it ended before."""
        state, lines, time = self._state, [before], self._wall()
        for members in bodies:
            line = chain.make(state.n, time, members, state.head, state.key)
            lines.append(line + b"\n")
            state = state.after(line)
        data = memoryview(b"".join(lines))
        size = self._size + len(data)
        try:
            while data:
                data = data[os.write(self._log, data) :]
            os.fdatasync(self._log)
            os.pwrite(self._key, state.packed(), 0)
        except OSError:
            self._take_back()
            raise
        self._state, self._size = state, size
        self.written(lines[1:])

    def _take_back(self) -> None:
        """Cut the file where it ended before the batch; where that cannot be done, begin again from what is there."""
        try:
            os.ftruncate(self._log, self._size)
            os.pwrite(self._key, self._state.packed(), 0)
        except OSError:
            self._again = "trouble: a record could not be taken back"
            self._release()

    def _release(self) -> None:
        for fd in (self._log, self._key):
            if fd >= 0:
                os.close(fd)
        self._log = self._key = -1

    def _ready(self) -> None:
        """Open, find the end and write `start`, unless the file is open and still as we left it."""
        if self._log >= 0:
            now = os.fstat(self._log)
            if now.st_nlink == 1 and now.st_size == self._size:
                return self._begin_next() if self._limit and self._size >= self._limit else None
            self._again = "damaged: the file was changed by somebody else"
            self._release()
        try:
            self._start()
        except OSError:
            self._release()
            raise

    def _begin_next(self) -> None:
        """The file is full: it gets its name for good, and the chain goes on in a new one. Raises OSError."""
        first = os.pread(self._log, 40, 0).removeprefix(b'{"n":').partition(b",")[0]
        name = f"audit-{first.decode('ascii', 'replace'):0>16}.jsonl"
        if not FULL.match(name) or name in os.listdir(self._directory):
            return None  # somebody else has been here: what is there stays, and this one grows on
        os.rename(AUDIT, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._again = "trouble: a new file could not be begun"
        try:
            fd = self._open(self._directory, AUDIT, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
            os.close(self._log)
            self._log, self._size = fd, 0
            os.fsync(self._directory)
        except OSError:
            self._release()
            raise
        self._again = ""
        return None

    def _carried(self) -> bytes:
        """The last line of the newest full file; empty when there is none."""
        full = sorted(filter(FULL.match, os.listdir(self._directory)))
        if not full:
            return b""
        current, size = self._log, self._size
        self._log = self._open(self._directory, full[-1], os.O_RDONLY, 0)
        try:
            self._size = os.fstat(self._log).st_size
            return self._last(lambda line: _record(line) is not None)[0]
        finally:
            os.close(self._log)
            self._log, self._size = current, size

    def _start(self) -> None:
        self._log = self._open(self._directory, AUDIT, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        os.fsync(self._directory)
        self._size = os.fstat(self._log).st_size
        self._key = self._open(self._secrets, KEY, os.O_RDWR | os.O_CREAT, 0o600)
        known = State.unpacked(os.pread(self._key, 105, 0))
        found = self._find_end(known) if known else self._begin()
        self._state = found.state
        body: dict[str, Any] = {"kind": "start", "reason": self._again or found.reason}
        if found.debris:
            body["torn"] = chain.torn(found.debris)
        self._append([chain.canonical(body)], b"" if self._tail(1) in (b"", b"\n") else b"\n")
        if body["reason"].startswith("damaged"):
            self._say(f"the audit log is {body['reason']}; see record {found.state.n}")
        self._again = ""

    def _open(self, directory: int, name: str, flags: int, mode: int) -> int:
        fd = os.open(name, flags | _COMMON, mode, dir_fd=directory)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(fd)
            raise OSError(errno.EPERM, f"{name} is not a plain file of log's own")
        return fd

    def _find_end(self, known: State) -> Found:
        """Look for the record that the key file names as the last one, and go on from there as far as macs fit."""
        last, rest = self._last(lambda line: chain.digest(line) == known.head)
        if not last and len(rest) == self._size and chain.digest(carried := self._carried()) == known.head:
            last = carried
        if not last and known.head != chain.NO_HEAD:
            return Found(known, "damaged: the last record that was written is not there", [])
        state, kind = known, chain.parse(last).body["kind"] if last else "nothing"
        debris: list[bytes] = []
        for line in _lines(rest):
            record = _record(line)
            if (
                record is not None
                and (record.n, record.prev) == (state.n, state.head)
                and chain.is_authentic(record, state.key)
                and chain.answers_for(record, debris)
            ):
                state, kind, debris = state.after(line), record.body["kind"], []
            else:
                debris.append(line)
        reason = {"stop": "clean", "nothing": "first"}.get(kind, "crash") if not debris else "crash"
        return Found(state, reason, debris)

    def _begin(self) -> Found:
        """The first start, or the key is lost: a new first key, from the next number on."""
        last, rest = self._last(lambda line: _record(line) is not None)
        last = last or self._carried()
        n = chain.parse(last).n + 1 if last else 0
        state = State(n, self._first_key(n), chain.digest(last) if last else chain.NO_HEAD)
        os.pwrite(self._key, state.packed(), 0)
        os.fsync(self._key)
        os.fsync(self._secrets)
        self._say(f"a first key of the audit log is in {self._place}/{INITIAL}: move it off this machine")
        reason = "damaged: its key is lost, a new one begins here" if self._size or last else "first"
        return Found(state, reason, _lines(rest))

    def _first_key(self, n: int) -> bytes:
        """A new key, exported; or the one that was exported for n when a start was killed before it used it."""
        fd = self._open(self._secrets, INITIAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            there = os.pread(fd, TAIL_FIRST, 0)
            key = chain.parse_keys(there).get(n)
            if key is None:
                key = os.urandom(chain.KEY_SIZE)
                os.write(fd, (b"" if there[-1:] in (b"", b"\n") else b"\n") + f"{n} {key.hex()}\n".encode())
                os.fsync(fd)
            return key
        finally:
            os.close(fd)

    def _last(self, wanted: Callable[[bytes], bool]) -> tuple[bytes, bytes]:
        """The last whole line that is wanted, and what follows it; looked for in a window at the end that grows.

        Without one: an empty line and, when the window reaches the file's beginning, all that is there.
        """
        window = TAIL_FIRST
        while True:
            data = self._tail(window)
            end = data.rfind(b"\n")
            while end >= 0:
                before = data.rfind(b"\n", 0, end)
                if (before >= 0 or len(data) == self._size) and wanted(data[before + 1 : end]):
                    return data[before + 1 : end], data[end + 1 :]
                end = before
            if len(data) == self._size:
                return b"", data
            if window >= TAIL_LIMIT:
                return b"", b""
            window *= 4

    def _tail(self, size: int) -> bytes:
        size = min(size, self._size)
        data = b""
        while len(data) < size:
            more = os.pread(self._log, size - len(data), self._size - size + len(data))
            if not more:
                break
            data += more
        return data


def _record(line: bytes) -> chain.Record | None:
    try:
        return chain.parse(line)
    except ValueError:
        return None


def _lines(data: bytes) -> list[bytes]:
    """Without their newlines; the last one need not have one."""
    return data.removesuffix(b"\n").split(b"\n") if data else []
