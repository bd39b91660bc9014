"""The form of an audit record. Pure: bytes in, bytes out. How a changed log is found is userapi/audit/verify.py's.

Rule 1: a record is one line of canonical ASCII JSON and a newline:
        {"n":N,"time":"…",<the body, keys sorted>,"prev":"<64 hex>","mac":"<64 hex>"}
        n counts without a gap from 0; prev is the SHA-256 of the record before (its line without the newline; 64
        zeros for the first); mac is HMAC-SHA256 over the line as it is without its mac.
Rule 2: each record has a key of its own, k(n + 1) = SHA-256(label + k(n)), and only the next one is kept: who takes
        over log, or the machine, cannot make an older record again. The first key leaves the machine once (audit.py).
Rule 3: a body cannot name a field of the chain, nor say that it is one of log's own records.
Rule 4: what is not a record is allowed in one place: directly before a `start` record that names its length and hash.
        That is what a crash left of the lines that it was writing. Nothing of it was ever acknowledged.
        (The newline that log put after it is not part of it.)

Without the first key, a verifier finds what was changed only up to the last record but one: who can write the file can
make a whole chain without macs that count. Records cut off at the end are found by anchors outside, never by a chain.

Sources: FIPS 180-4, RFC 2104, RFC 8259; Schneier and Kelsey, "Secure audit logs to support computer forensics".
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

RESERVED = frozenset({"n", "time", "prev", "mac"})
OWN_KINDS = frozenset({"start", "stop", "deed", "lost"})  # only log itself writes these
NO_HEAD = bytes(32)
KEY_SIZE = 32
JUMP_LIMIT = 10_000_000  # a number further ahead than this is not followed: each step costs a hash
_MAC_SIZE = len(',"mac":""}') + 64


class Record(NamedTuple):
    """One parsed line. `signed` is what its mac is over."""

    n: int
    time: str
    body: dict[str, Any]
    prev: bytes
    mac: bytes
    signed: bytes


def next_key(key: bytes) -> bytes:
    return hashlib.sha256(b"durward audit key\0" + key).digest()


def digest(line: bytes) -> bytes:
    """What the next record's prev is, for a line without its newline."""
    return hashlib.sha256(line).digest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field comes twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _load(text: str) -> dict[str, Any]:
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def canonical(body: Mapping[str, Any]) -> str:
    """The members of a body as they stand in a record, without the braces. Raises ValueError."""
    if forged := RESERVED & body.keys():
        raise ValueError(f"the field {min(forged)!r} belongs to the chain")
    if not isinstance(body.get("kind"), str):
        raise ValueError("no kind")
    try:
        return _ENCODER.encode(body)[1:-1]
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_body(raw: bytes) -> str:
    """A body that another process sent, in canonical form. Raises ValueError when it may not be recorded."""
    try:
        body = _load(raw.decode())
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    members = canonical(body)  # which knows that it has a kind, and that this is a text
    if body["kind"] in OWN_KINDS:
        raise ValueError(f"the kind {body['kind']!r} is log's own")
    return members


def _signed(n: int, time: str, members: str, prev: bytes) -> bytes:
    """The line without its mac: what the mac is of."""
    return f'{{"n":{n},"time":{json.dumps(time)},{members},"prev":"{prev.hex()}"}}'.encode("ascii")


def make(n: int, time: str, members: str, prev: bytes, key: bytes) -> bytes:
    """The line, without its newline. members is what canonical gave; key is the key of record n."""
    signed = _signed(n, time, members, prev)
    return signed[:-1] + b',"mac":"' + hmac.digest(key, signed, "sha256").hex().encode() + b'"}'


def parse(line: bytes) -> Record:
    """A record from its line, exactly as make would write it, but for the mac. Raises ValueError."""
    fields = _load(line.decode("ascii"))
    n, time, prev, mac = (fields.pop(name, None) for name in ("n", "time", "prev", "mac"))
    if not isinstance(n, int) or isinstance(n, bool) or n < 0 or not isinstance(time, str):
        raise ValueError("no number or no time")
    if not isinstance(prev, str) or not isinstance(mac, str):
        raise ValueError("no prev or no mac")
    record = Record(n, time, fields, bytes.fromhex(prev), bytes.fromhex(mac), line[:-_MAC_SIZE] + b"}")
    remade = _signed(n, time, canonical(fields), record.prev)
    if remade[:-1] + b',"mac":"' + record.mac.hex().encode() + b'"}' != line or len(record.prev) != 32:
        raise ValueError("not in canonical form")
    return record


def is_authentic(record: Record, key: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(key, record.signed, "sha256"), record.mac)


def torn(debris: Sequence[bytes]) -> list[Any] | None:
    """How a `start` record names the lines before it that are no records; None when there are none."""
    blob = b"\n".join(debris)
    return [len(blob), digest(blob).hex()] if debris else None


def answers_for(record: Record, debris: Sequence[bytes]) -> bool:
    """Whether a record may follow these lines, which are no records (mostly: none)."""
    said = record.body.get("torn") if record.body["kind"] == "start" else None
    return bool(said == torn(debris))


def parse_keys(exported: bytes) -> dict[int, bytes]:
    """The exported first keys: a line "N HEX" for each time that log had to begin with a new one.

    A line that is none (a crash while it was written) is left out: no record was made with it.
    """
    keys = {}
    for line in exported.decode("ascii", "replace").splitlines():
        number, _, key = line.partition(" ")
        try:
            n, value = int(number), bytes.fromhex(key)
        except ValueError:
            continue
        if len(value) == KEY_SIZE:
            keys[n] = value
    return keys
