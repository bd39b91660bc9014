"""What is listed, as it is spelled in packets: each thing once, and a service anew when something of it has changed.

Rule 1: how a thing is spelled depends on what it is made of (Services.made_of) and on nothing else, so that what was
        spelled before is never old.
Rule 2: who may see it has been asked before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from policy import messages

if TYPE_CHECKING:
    from rootd.supervisor.services import Services

PACKET = 60_000  # bytes of what is listed in one packet

T = TypeVar("T")

spell = msgspec.json.Encoder().encode


class Spelled:
    """Services as they are spelled, each for as long as it is made of the same."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: dict[str, tuple[list[object], msgspec.Raw]] = {}

    def service(self, name: str) -> msgspec.Raw:
        """Its ServiceInfo, cut so that it fits into a packet. Raises KeyError."""
        made_of = self._services.made_of(name)
        known = self._known.get(name)
        if known is None or known[0] != made_of:
            info = self._services.info(name)
            text = spell(info)
            known = self._known[name] = made_of, msgspec.Raw(text if len(text) < PACKET else spell(cut(info, PACKET)))
        return known[1]

    def forget(self) -> None:
        """Another configuration counts, without some of the services perhaps."""
        self._known.clear()


def in_packets(things: Iterable[msgspec.Raw], most: int = PACKET) -> Iterator[list[msgspec.Raw]]:
    """In pieces that fit into a packet each; one empty piece when there is none."""
    room, piece = most, list[msgspec.Raw]()
    for thing in things:
        size = len(memoryview(thing)) + 1
        if size > room:
            yield piece
            room, piece = most, []
        room -= size
        piece.append(thing)
    yield piece


def cut(info: messages.ServiceInfo, room: int) -> messages.ServiceInfo:
    """With as many of its processes as fit into so many bytes, and how many that are."""
    if len(spell(info)) < room:
        return info
    count = len(info.processes)
    bare = replace(info, processes=[], text=f"{count} processes, of which {count} are shown. {info.text}")
    processes = fitting(info.processes, room - len(spell(bare)) - 1)
    text = f"{count} processes, of which {len(processes)} are shown. {info.text}"
    return replace(info, processes=processes, text=text)


def fitting(items: list[T], room: int) -> list[T]:
    """The first ones, as many as fit into so many bytes."""
    for at, item in enumerate(items):
        room -= len(spell(item)) + 1
        if room < 0:
            return items[:at]
    return items
