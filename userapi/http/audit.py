"""GET /api/v1/audit: records of the audit log, as they are, one JSON object a line; for who has the right `audit`.

?from=&to=: from which record or time (UTC) to which; all without. ?n=100: the last ones; with ?follow=true those that
come too, and ?after=INODE:OFFSET goes on at a place, as for logs. Each opening of a file is a decision, and recorded.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

from flask import Blueprint, Response, request

from policy import messages
from userapi.audit import files, reading
from userapi.client import Refusal
from userapi.http.guard import asker, flag, parts
from userapi.http.logs import followed, lines_of
from userapi.http.problems import Problem
from userapi.http.streams import Span, streamed
from userapi.tail import Tail, cursor

CHECK = 60.0  # seconds between two questions whether this may still be read: each is a record of the log that is read
KIND = "application/x-ndjson"

blueprint = Blueprint("audit", __name__)


@blueprint.get("/audit")
def audit() -> Response:
    token, source = asker()
    here = parts()
    follow, after, last = flag("follow"), request.args.get("after"), request.args.get("n")
    try:
        span = files.Span(*(files.bound(word) if (word := request.args.get(name)) else "" for name in ("from", "to")))
        span.check()
        place = cursor(after) if after is not None else None
    except ValueError as error:
        raise Problem("invalid", str(error)) from None
    tails = follow or last is not None or place is not None
    if tails and (span.since or span.until):
        raise Problem("invalid", "from and to are for the whole log: not with n, follow and after")

    held = list[Callable[[], None]]()  # a permit, with the first file: who may read none has cost nobody a place

    def opener(rotated: int) -> int | None:
        try:
            opened = here.supervisor.open_log(token, messages.OpenAudit(rotated), source)[1]
        except Refusal as error:
            if rotated and error.refused.kind == "unknown":
                return None
            raise
        try:
            held.extend([] if held else [here.streams.take(token)])
        except Problem:
            os.close(opened)
            raise
        return opened

    def give() -> None:
        while held:
            held.pop()()

    if not tails:
        try:
            found = reading.lines(opener, span)
            first = list(itertools.islice(found, 1))  # what is refused is refused before anything is sent
        except reading.TooMany as error:
            give()
            raise Problem("invalid", str(error)) from None
        except BaseException:
            give()
            raise
        return streamed(itertools.chain(first, _pieces(found)), give, KIND, {"X-Accel-Buffering": "no"})
    tail = Tail(opener)
    try:
        if place is None:
            tail.begin(lines_of(last or "10"))
        else:
            tail.resume(place)
        over = Span(request.environ).over
    except BaseException:
        tail.close()
        give()
        raise
    headers = {"Durward-Log-Position": str(tail.start), "X-Accel-Buffering": "no"}
    response = streamed(followed(tail, over, CHECK) if follow else tail.more(False), give, KIND, headers)
    response.call_on_close(tail.close)
    return response


def _pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Many records at once."""
    while piece := b"".join(itertools.islice(lines, 256)):
        yield piece
