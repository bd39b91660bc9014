"""How a service's output is kept, as one number: it travels in the names of pipes, where nobody but log reads it.

Rule: a field that is 0 is what a file had before there was such a field, so that a name of an older version is good.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

TARGETS = ("file", "journald", "syslog", "inherit")  # null has no pipe at all
FORMATS = ("plain", "stamped", "json")
BITS = {
    "keep": 10, "age": 28, "mode": 9, "compress": 1, "drop": 1, "target": 3, "form": 2, "merged": 1, "alone": 1,
    "readers": 32,
}  # fmt: skip


class How(NamedTuple):
    keep: int  # rotated files
    age: int = 0  # seconds after which a file is rotated; 0: never
    mode: int = 0  # of its files; 0: 0640
    compress: int = 0  # rotated files are compressed
    drop: int = 0  # what cannot be written is dropped and counted; else the service waits
    target: int = 0  # index of TARGETS
    form: int = 0  # index of FORMATS
    merged: int = 0  # stderr is in it too
    alone: int = 0  # the process is called like its service, though that looks as if it had a number
    readers: int = 0  # the gid of who may read them too; 0: nobody


def pack(how: How) -> int:
    """Below 2 ** 88. Raises ValueError when a field does not fit."""
    word = shift = 0
    for value, bits in zip(how, BITS.values(), strict=True):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"a field of {how} is out of range")
        word, shift = word | value << shift, shift + bits
    return word


@lru_cache(maxsize=64)  # most pipes are kept alike
def unpack(word: int) -> How:
    """Raises ValueError for what pack did not make."""
    fields = []
    for bits in BITS.values():
        fields.append(word & (1 << bits) - 1)
        word >>= bits
    how = How(*fields)
    if word or how.keep > 1000 or how.target >= len(TARGETS) or how.form >= len(FORMATS):
        raise ValueError("how a log is kept is out of range")
    return how


def problems(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What makes no sense in the section log of a service, with its key."""
    if values["readers"] is not None and values["target"] != "file":
        yield "log.readers", f"there are no files to read: target is {values['target']}"
    elif values["readers"] is not None and not values["mode"] & 0o040:
        yield "log.mode", "must let the group read, as 0640 does: no reader has more than the mode gives the group"


def how_of(values: dict[str, Any], alone: str = "", readers: int = 0) -> tuple[tuple[int, int], tuple[str, ...]]:
    """From the section log of a service: what its entry says, and the streams that have a pipe. alone: the service's
    name where it has one process. readers: a gid."""
    target, merged = values["target"], values["stderr"] == "stdout"
    streams = () if target == "null" else ("stdout",) if merged else ("stdout", "stderr")
    how = How(
        values["keep"], max(1, int(values["age"])) if values["age"] else 0, values["mode"], values["compress"],
        values["full"] == "drop", TARGETS.index(target) if streams else 0, FORMATS.index(values["format"]), merged,
        alone.rpartition(".")[2].isdecimal(), readers,
    )  # fmt: skip
    return (values["size"], pack(how)), streams
