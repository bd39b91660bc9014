"""What a keeper tells the next one in words: what each descriptor is called, and what is known besides.

Rule 1: pure: bytes in, values out. It is written whole, and read whole or not at all.
Rule 2: the first line says which version of this form it is. A later one than ours is refused: what it says may be
        needed. An earlier one is read as long as OLDEST says so.

The form: `durward keeper VERSION`, then one line a fact, its first word says which. What a descriptor is called may
have blanks, and comes last.
"""

from __future__ import annotations

from typing import NamedTuple

VERSION, OLDEST = 1, 1
_HEAD = "durward keeper"


class Unreadable(ValueError):
    """A sentence on why it cannot be read."""


class Manifest(NamedTuple):
    held: dict[str, int]  # the store: names and the numbers of their descriptors, the oldest first
    roles: tuple[str, ...] = ()  # the parts that had been started
    reaped: tuple[tuple[int, int], ...] = ()  # pids and last exit statuses of orphans
    asked: int = 0  # how often it was asked to end
    upgrades: int = 0  # how often it had become another before
    program: str = ""  # the version of the program that wrote it
    formats: dict[str, int] = {}  # noqa: RUF012 (never changed): the versions of what that program writes elsewhere


def write(told: Manifest) -> bytes:
    lines = [f"{_HEAD} {VERSION}", f"asked {told.asked}", f"upgrades {told.upgrades}", f"program {told.program}"]
    lines += [f"role {role}" for role in told.roles]
    lines += [f"format {number} {name}" for name, number in told.formats.items()]
    lines += [f"reaped {pid} {status}" for pid, status in told.reaped]
    lines += [f"held {fd} {name}" for name, fd in told.held.items()]
    return "\n".join([*lines, "end", ""]).encode()


def read(data: bytes) -> Manifest:
    """Raises Unreadable."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise Unreadable("what the running keeper tells is not UTF-8") from None
    head, _, number = lines[0].rpartition(" ")
    if head != _HEAD or not number.isdecimal():
        raise Unreadable("what the running keeper tells does not begin as it should")
    if not OLDEST <= int(number) <= VERSION:
        raise Unreadable(
            f"the running keeper writes version {number} of what it tells, and this one reads {_readable()}"
        )
    if lines[-2:] != ["end", ""]:
        raise Unreadable("what the running keeper tells has no end")
    program, numbers = "", dict[str, int]()
    roles, reaped, held, formats = list[str](), list[tuple[int, int]](), dict[str, int](), dict[str, int]()
    for at, line in enumerate(lines[1:-2], 2):
        word, _, rest = line.partition(" ")
        first, _, second = rest.partition(" ")
        try:
            match word:
                case "role":
                    roles.append(rest)
                case "reaped":
                    reaped.append((int(first), int(second)))
                case "held":
                    held[second] = int(first)
                case "format":
                    formats[second] = int(first)
                case "asked" | "upgrades":
                    numbers[word] = int(rest)
                case "program":
                    program = rest
                case _:
                    raise ValueError
        except ValueError:
            raise Unreadable(f"line {at} of what the running keeper tells says nothing known: {line[:80]!r}") from None
    asked, upgrades = numbers.get("asked", 0), numbers.get("upgrades", 0)
    return Manifest(held, tuple(roles), tuple(reaped), asked, upgrades, program, formats)


def _readable() -> str:
    return f"{VERSION}" if OLDEST == VERSION else f"{OLDEST} to {VERSION}"
