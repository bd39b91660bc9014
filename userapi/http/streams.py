"""Answers that last: how many at once, how long, how they end, and how events are spelled.

A stream holds a thread, and so does a wait. Some threads are kept for commands, and waits have threads that streams
never take; of both one session may hold only so many. What is beyond is refused with `later`: 429 when it is the
session's own number, 503 when it is everybody's. Each ends by itself after LIFE; whoever reads it asks again.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from flask import Response

from policy import messages
from userapi.client import Refusal
from userapi.http.problems import STATUS, Problem, document

LIFE = 300.0  # seconds that a stream or a wait may last
COMMENT = 15.0  # seconds without an event after which a comment is sent


T = TypeVar("T")


class Permits:
    """A number of things at once; the next one is refused, never queued."""

    def __init__(self, number: int, what: str) -> None:
        self._free = threading.BoundedSemaphore(number)
        self._what = what

    def take(self) -> None:
        """Raises Problem."""
        if not self._free.acquire(blocking=False):
            raise Problem("later", f"too many {self._what} at once: try again in a moment", retry_after=5)

    def give(self) -> None:
        self._free.release()

    @contextmanager
    def one(self) -> Iterator[None]:
        self.take()
        try:
            yield
        finally:
            self.give()


class Shares:
    """Permits of which one session holds only so many, and never more than half, so that others find some."""

    def __init__(self, number: int, each: int, what: str) -> None:
        self._permits = Permits(number, what)
        self._each = min(each, (number + 1) // 2)
        self._what = what
        self._held: Counter[bytes] = Counter()  # by the hash of the session's id: no id is kept
        self._lock = threading.Lock()

    def take(self, token: str) -> Callable[[], None]:
        """What gives it back, however often it is called. Raises Problem."""
        session = hashlib.sha256(token.encode()).digest()
        with self._lock:
            if self._held[session] >= self._each:
                raise self._many()
            self._permits.take()
            self._held[session] += 1
        held = [session]
        return lambda: self._give(held)

    def after(
        self, token: str, first: Callable[[], T], undo: Callable[[], object] = lambda: None
    ) -> tuple[T, Callable[[], None]]:
        """What first makes, and what gives the permit back, which is taken after it: made-up ids are refused by the
        supervisor before they have cost anybody a place. undo: of what first has made, where there is none left. Raises
        Problem, and what first raises."""
        with self._lock:
            if self._held[hashlib.sha256(token.encode()).digest()] >= self._each:
                raise self._many()
        made = first()
        try:
            return made, self.take(token)
        except BaseException:
            undo()
            raise

    def _many(self) -> Problem:
        text = f"a session may have {self._each} {self._what} at once: end one, or try again in a moment"
        return Problem("later", text, 429, retry_after=5)

    def _give(self, held: list[bytes]) -> None:
        with self._lock:
            if not held:
                return
            session = held.pop()
            self._permits.give()
            self._held[session] -= 1
            if not self._held[session]:
                del self._held[session]

    @contextmanager
    def one(self, token: str) -> Iterator[None]:
        give = self.take(token)
        try:
            yield
        finally:
            give()


class Span:
    """One answer's time. The server tells by environ["durward.gone"] that nobody reads any more, and lets a stream
    take as long to be read; what is told at the end has no more time for that than any other answer.
    """

    def __init__(self, environ: dict[str, Any], seconds: float = LIFE, stream: bool = True) -> None:
        self._until = time.monotonic() + seconds
        self._gone = environ.get("durward.gone", lambda: False)
        extend = environ.get("durward.extend")
        if stream and extend is not None:
            extend(seconds + 30)

    def over(self) -> bool:
        return time.monotonic() >= self._until or bool(self._gone())


def streamed(data: Iterable[bytes], give: Callable[[], None], content_type: str, headers: dict[str, str]) -> Response:
    """A response that gives its permit back before its end is sent: who has read all of it may ask again at once."""

    def until_given() -> Iterator[bytes]:
        yield from data
        give()

    response = Response(until_given(), content_type=content_type, headers=headers)
    response.call_on_close(give)  # when the peer is gone before the end, or the first byte
    return response


def spelled(event: messages.Event) -> bytes:
    """One event as a server-sent event: its name, its number as id, and itself as JSON.

    That a watch has begun is an id alone: who reads by the book (WHATWG HTML, 9.2.6) remembers it, and hears nothing.
    """
    if isinstance(event, messages.Watching):
        return f"id: {event.number}\n\n".encode()
    number = getattr(event, "number", None)
    identity = f"id: {number}\n" if number is not None else ""
    name = event.__struct_config__.tag
    return f"event: {name}\n{identity}data: ".encode() + msgspec.json.encode(event) + b"\n\n"


Events = Iterator[messages.Event | None]


def begun(events: Events) -> Events:
    """The same events, after the first one was waited for: what is refused at once is raised here."""
    return itertools.chain([next(events, None)], events)


def watched(
    shares: Shares, token: str, watch: Generator[messages.Event | None, None, None]
) -> tuple[Events, Callable[[], None]]:
    """A watch that was not refused, with a permit for it. Raises Refusal, Problem."""
    return shares.after(token, lambda: begun(watch), watch.close)


def as_events(
    events: Iterable[messages.Event | None],
    span: Span,
    until_ended: bool = True,
    spell: Callable[[messages.Event], bytes] = spelled,
) -> Iterator[bytes]:
    """Server-sent events until the span is over; a comment when nothing happened for long, so that dead readers show.

    A refusal that comes after the first bytes is an event too: `refused`, with the problem document.
    """
    yield b": durward\n\n"
    told = time.monotonic()
    try:
        for event in events:
            if event is not None or time.monotonic() - told >= COMMENT:
                yield b": still here\n\n" if event is None else spell(event)
                told = time.monotonic()
            if span.over() or (until_ended and isinstance(event, messages.Ended)):
                return
    except Refusal as error:
        refused = error.refused
        text = document(STATUS[refused.kind], refused.kind, refused.text, refused)
        yield b"event: refused\ndata: " + text + b"\n\n"
