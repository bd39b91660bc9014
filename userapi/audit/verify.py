"""Whether an audit log is as log wrote it. Pure: lines, keys and anchors in, a report out; on any machine, by anybody.

Rule 1: what is found has a name: the first record that is wrong, and what was done to it (DAMAGE). What follows from
        one damage alone is not told again.
Rule 2: with the first key each record's mac is checked, so nothing that log wrote can be changed unnoticed. Without it
        the chain alone is: whoever can write the file can make a whole new one.
Rule 3: records that were cut off at the end are found by anchors: "number hash" that left the machine before.
Rule 4: the good way through a record is short and looks at its bytes alone: what has the right number, hash and mac
        is what log wrote. Everything else goes the slow way.

The form of a record is rootd/log/chain.py's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from rootd.log import chain

DAMAGE = {
    "changed": "a record, or a line, is not as it was written",
    "removed": "records are missing in between",
    "reordered": "a record is not at its place",
    "doubled": "a record is there twice",
    "inserted": "a line that is no record, and no start record answers for it",
    "truncated": "the end is missing",
    "replaced": "not the record that was anchored",
    "key": "no key was given that reaches it",
}
TOLD = 1_000  # problems that are kept; more are counted
STEP = 4_096  # records between two keys that are kept, for those that are out of order
_LABEL = b"durward audit key\0"
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_INNER_PAD, _OUTER_PAD = b"\x36" * 32, b"\x5c" * 32  # a key is half a block
_HEX = re.compile(rb"[0-9a-f]{64}\Z")
_ANCHOR = re.compile(r'"?number"?[=:]\s*"?([0-9]{1,16})\b.*?"?head"?[=:]\s*"?([0-9a-f]{64})\b', re.ASCII)
_TIME = re.compile(r'"?(?<![a-z])time"?[=:]\s*"?([0-9T:.Z-]{20,32})', re.ASCII)


parse_keys = chain.parse_keys
BEGIN: tuple[int, bytes | None] = (0, chain.NO_HEAD)  # of a whole log


class Problem(NamedTuple):
    file: str
    line: int  # from 1; 0: about what is not there
    record: int
    damage: str  # a key of DAMAGE
    text: str


class Anchor(NamedTuple):
    """The number and the hash of a record, as they left the machine, and when."""

    number: int
    head: bytes
    time: str = ""


class Report(NamedTuple):
    """next_n and head are where the log ends; macs: whether those were checked; anchors: those that were compared."""

    records: int
    starts: int
    torn: int  # bytes that crashes left and a start record answers for
    next_n: int
    head: bytes
    macs: bool
    problems: tuple[Problem, ...]
    more: int = 0  # problems beyond TOLD
    first: int = -1  # the number of the first record that was looked at; -1: none
    anchors: int = 0


def parse_anchors(text: str) -> list[Anchor]:
    """From lines of a journal, of syslog or of JSON: number=N … head=HASH, in this order. Other lines are left out.

    Raises ValueError when there is none: a verification by nothing would say that all is well.
    """
    found = []
    for line in text.splitlines():
        if match := _ANCHOR.search(line):
            time = _TIME.search(line)
            found.append(Anchor(int(match[1]), bytes.fromhex(match[2]), time[1] if time else ""))
    if not found:
        raise ValueError("there is no anchor in it: lines with number=N head=HASH, as the journal has them")
    return found


class Keys:
    """The key of any record, from the exported ones; those of every STEPth record are kept."""

    def __init__(self, exported: Mapping[int, bytes]) -> None:
        self._known = dict(exported)
        self._first = min(exported, default=0)
        self._exported = frozenset(exported)
        self._n, self._key = -1, b""

    def at(self, n: int) -> bytes | None:
        """None when no exported key reaches n."""
        if n == self._n + 1 and n % STEP and n not in self._exported:
            self._n, self._key = n, sha256(_LABEL + self._key).digest()  # as chain.next_key does it
            return self._key
        if n < self._first:
            return None
        base = max(known for known in self._exported if known <= n)
        if not base <= self._n <= n:
            self._n = max(known for known in self._known if known <= n)
            self._key = self._known[self._n]
        while self._n < n:
            self._n, self._key = self._n + 1, chain.next_key(self._key)
            if self._n % STEP == 0:
                self._known[self._n] = self._key
        return self._key


class Verifier:
    """One pass over a log, file after file."""

    def __init__(
        self,
        keys: Mapping[int, bytes] | None = None,
        previous: tuple[int, bytes | None] = BEGIN,
        anchors: Iterable[Anchor] = (),
    ) -> None:
        """previous: the number that is due first, and the hash that it has to name; None: whatever it names."""
        self.keys = Keys(keys) if keys else None
        self.next_n, self.head = previous
        self.records = self.starts = self.torn = self.compared = self.more = 0
        self.problems: list[Problem] = []
        self.first = -1
        self._anchors: dict[int, list[Anchor]] = {}
        for anchor in anchors:
            self._anchors.setdefault(anchor.number, []).append(anchor)
        self._file, self._line = "", 0
        self._debris: list[tuple[str, int, bytes]] = []  # lines that are no record, until a start answers for them
        self._gaps: dict[int, int] = {}  # numbers that were passed over, and which problem told it
        self._doubt: tuple[str, int, int] | None = None  # without keys: it does not follow the one before
        self._last = b""

    def feed(self, lines: Iterable[bytes], file: str = "", skipped: int = 0) -> None:
        """The lines of one file, each with its newline, as a file opened in binary gives them, after so many others."""
        self._file, self._line = file, skipped
        whole = True
        for raw in lines:
            self._line += 1
            whole = raw[-1:] == b"\n"
            line = raw[:-1] if whole else raw
            if not self._is_next(line):
                self._unusual(line)
        if not whole:
            self._truncated()

    def _is_next(self, line: bytes) -> bool:
        """The good way. A start record goes the other one, and so does what follows lines that are no records."""
        n, head = self.next_n, self.head
        if (
            head is None
            or self._debris
            or self._doubt
            or not line.startswith(b'{"n":%d,"time":"' % n)
            or line[-148:-139] != b',"prev":"'
            or line[-139:-75].decode("latin-1") != head.hex()
            or line[-75:-66] != b'","mac":"'
            or line[-2:] != b'"}'
            or b'"kind":"start"' in line
        ):
            return False
        if self.keys is not None:
            key = self.keys.at(n)
            if key is None:
                return False
            inner = sha256(key.translate(_INNER) + _INNER_PAD + line[:-74] + b"}").digest()  # RFC 2104
            mac = sha256(key.translate(_OUTER) + _OUTER_PAD + inner).hexdigest()
            if mac != line[-66:-2].decode("latin-1"):
                return False
        elif not _HEX.match(line[-66:-2]):
            return False
        self._take(n, line)
        return True

    def _take(self, n: int, line: bytes) -> None:
        """It is the highest one so far."""
        if self.first < 0:
            self.first = n
        self.records += 1
        self.next_n, self.head, self._last = n + 1, sha256(line).digest(), line
        for anchor in self._anchors.pop(n, ()) if self._anchors else ():
            self.compared += 1
            if anchor.head != self.head:
                at = f" at {anchor.time}" if anchor.time else ""
                self._problem(n, "replaced", f"record {n} is not the one that was anchored{at}")

    def _unusual(self, line: bytes) -> None:
        try:
            record = chain.parse(line)
        except ValueError:
            self._debris.append((self._file, self._line, line))
            return
        n, due = record.n, self.next_n
        follows = self.head is None or record.prev == self.head
        jump = abs(n - due) > chain.JUMP_LIMIT
        key = self.keys.at(n) if self.keys is not None and not jump else None
        authentic = chain.is_authentic(record, key) if key is not None else None  # None: not known
        stood = self._settle(record, authentic)
        if self.keys is not None and key is None and not jump:
            self._problem(n, "key", f"no key was given that reaches record {n}")
        elif self.keys is not None and not authentic:
            if n != due and follows and self.head is not None:
                return self._changed(due, line, f"record {due} was changed: it says that it is record {n}")
            if n <= due or jump:
                return self._changed(max(due, 0), line, f"record {due} was changed: its mac is not the one of log's")
            return self._changed(n, line, f"record {n} was changed: its mac is not the one that log gave it")
        elif self.keys is None and n != due and follows and self.head is not None:
            return self._changed(due, line, f"record {due} was changed: it says that it is record {n}")
        self._settle_doubt(follows)
        if n < due:
            return self._again(n)
        if n > due and not stood:
            self._gap(due, n, jump)
        elif n == due and not follows and not stood:
            if authentic:
                self._problem(n, "changed", f"record {n} does not follow the record before it: that was changed")
            elif not self._was_doubted(n):
                self._doubt = (self._file, self._line, n)
        self.starts += record.body["kind"] == "start"
        return self._take(n, line)

    def _changed(self, place: int, line: bytes, text: str) -> None:
        """It stands where record `place` was; what its hash was cannot be known."""
        self._doubt = None
        self._problem(place, "changed", text)
        self._take(place, line)
        self.head = None

    def _again(self, n: int) -> None:
        """A number that is behind: it was passed over, or is there already."""
        told = self._gaps.pop(n, None)
        if told is None:
            self._problem(n, "doubled", f"record {n} is there twice, or stands before the first one that was due")
        elif told < len(self.problems):
            self.problems[told] = self.problems[told]._replace(
                damage="reordered",
                text=f"record {n} was moved: it is on line {self._line}{f' of {self._file}' if self._file else ''}",
            )

    def _gap(self, due: int, n: int, jump: bool) -> None:
        text = f"record {due} was" if n == due + 1 else f"records {due} to {n - 1} were"
        for number in range(due, due + 1 if jump else min(n, due + 100_000)):
            self._gaps[number] = len(self.problems)
        self._problem(due, "removed", f"{text} removed: record {n} follows")

    def _settle(self, record: chain.Record, authentic: bool | None) -> bool:
        """Lines before this one that are no records. True when they stand where records were due."""
        debris, self._debris = self._debris, []
        lines = [line for _, _, line in debris]
        if authentic is not False and chain.answers_for(record, lines):
            self.torn += len(b"\n".join(lines))
            return False
        said = record.body.get("torn") if record.body["kind"] == "start" else None
        missing = record.n - self.next_n > 0
        for index, (file, number, _) in enumerate(debris):
            n = min(self.next_n + index, max(record.n - 1, self.next_n)) if missing else self.next_n
            if missing:
                self._problem(n, "changed", f"record {n} was changed: it is no record any more", file, number)
            elif said:
                self._problem(n, "changed", f"what a crash left before record {record.n} was changed", file, number)
            else:
                self._problem(n, "inserted", "not a record, and no start record answers for it", file, number)
        if not debris and authentic is not False:
            self._problem(record.n, "removed", f"the torn line that record {record.n} answers for was removed")
        return missing and bool(debris)

    def _was_doubted(self, n: int) -> bool:
        return self._doubt is not None and self._doubt[2] == n - 1

    def _settle_doubt(self, follows: bool) -> None:
        """Without keys: of two records that do not fit, the one whose successor vouches for it is good."""
        if self._doubt is not None:
            file, line, n = self._doubt
            self._doubt = None
            if follows and n:
                self._problem(n - 1, "changed", f"record {n - 1} was changed: record {n} names another", file, line - 1)
            else:
                self._problem(n, "changed", f"record {n} was changed: neither it nor its successor fits", file, line)
                self.head = None

    def _truncated(self) -> None:
        file, line = self._file, self._line
        if self._debris and self._debris[-1][:2] == (file, line):
            self._debris.pop()
        text = "the last line has no end: log was killed and has not started again, or it was cut"
        self._problem(self.next_n, "truncated", text)

    def _problem(self, record: int, damage: str, text: str, file: str | None = None, line: int | None = None) -> None:
        if len(self.problems) >= TOLD:
            self.more += 1
            return
        where = (self._file if file is None else file, self._line if line is None else line)
        self.problems.append(Problem(*where, record, damage, text))

    def end(self, to: int | None = None) -> Report:
        """to: the record with which it has to end at the earliest."""
        if self._doubt is not None:
            file, line, n = self._doubt
            self._problem(n - 1, "changed", f"record {n - 1} or record {n} was changed", file, line - 1)
        for file, number, _ in self._debris:
            text = "not a record, and nothing follows: changed, or log was killed and has not started again"
            self._problem(self.next_n, "changed", text, file, number)
        if self._last and self.keys is None and self.head is not None:
            self._check_last()
        if to is not None and to >= self.next_n:
            self._problem(self.next_n, "truncated", f"the log ends before record {to}", "", 0)
        if beyond := [number for number in self._anchors if number >= self.next_n]:
            anchor = self._anchors[max(beyond)][0]
            at = f", anchored at {anchor.time}" if anchor.time else ""
            missing = anchor.number - self.next_n + 1
            text = f"the log ends before record {anchor.number}{at}: at least {missing} are cut off"
            self._problem(self.next_n, "truncated", text, "", 0)
        return Report(
            self.records, self.starts, self.torn, self.next_n, self.head or chain.NO_HEAD, self.keys is not None,
            tuple(self.problems), self.more, self.first, self.compared,
        )  # fmt: skip

    def _check_last(self) -> None:
        """No successor vouches for it; that it has its form is all that can be seen."""
        try:
            chain.parse(self._last)
        except ValueError as error:
            self._problem(self.next_n - 1, "changed", f"record {self.next_n - 1} was changed: {error}")


def verify(
    lines: Iterable[bytes],
    keys: Mapping[int, bytes] | None = None,
    previous: tuple[int, bytes | None] = BEGIN,
    anchors: Iterable[Anchor] = (),
) -> Report:
    """One file; no problems means unchanged."""
    verifier = Verifier(keys, previous, anchors)
    verifier.feed(lines)
    return verifier.end()


def number_of(line: bytes) -> int | None:
    """The number that a line says it has, without a look at the rest."""
    match = re.match(rb'\{"n":(0|[1-9][0-9]{0,15}),', line)
    return int(match[1]) if match else None


def as_json(report: Report) -> str:
    """One object, for programs."""
    told = report._asdict() | {
        "ok": not report.problems,
        "head": report.head.hex(),
        "problems": [problem._asdict() for problem in report.problems],
    }
    return json.dumps(told)
