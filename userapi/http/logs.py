"""GET /api/v1/services/NAME/logs?n=100&stream=stdout&process=&follow=false: the bytes of a log, as they are.

text/plain; whoever shows them makes terminal escapes harmless. Durward-Log-Position says where the first byte
is: INODE:OFFSET. A follower whose stream ended asks again with ?after=INODE:OFFSET, with the bytes that it got
added to the offset, and misses nothing, rotation or not. The descriptor comes from the supervisor, opened for
this request; it is asked for again while following, so an ended session ends the stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec
from flask import Blueprint, Response, request

from policy import messages
from userapi.client import Refusal, Supervisor
from userapi.http.guard import asker, flag, named, parts, sentence
from userapi.http.problems import Problem
from userapi.http.streams import Span, streamed
from userapi.tail import Opener, Tail, cursor

LINES = 100
MOST_LINES = 100_000
POLL = 0.25  # seconds between two looks at a followed log
CHECK = 10.0  # seconds between two questions whether this may still be read

blueprint = Blueprint("logs", __name__)


@blueprint.get("/services/<name>/logs")
def logs(name: str) -> Response:
    token, source = asker()
    here = parts()
    lines = lines_of(request.args.get("n", str(LINES)))
    follow = flag("follow")
    after = request.args.get("after")
    asked = {
        "do": "open-log",
        "service": named(name),
        "stream": request.args.get("stream", "stdout"),
        "process": request.args.get("process", ""),
    }
    try:
        command = msgspec.convert(asked, messages.OpenLog)
        place = cursor(after) if after is not None else None
    except (msgspec.ValidationError, ValueError) as error:
        raise Problem("invalid", sentence(error)) from None

    tail = Tail(opener(here.supervisor, token, command, source))
    try:
        span = Span(request.environ)
        _, give = here.streams.after(token, lambda: tail.begin(lines) if place is None else tail.resume(place))
    except BaseException:
        tail.close()
        raise
    data = followed(tail, span.over) if follow else tail.more(False)
    headers = {"Durward-Log-Position": str(tail.start), "X-Accel-Buffering": "no"}
    response = streamed(data, give, "text/plain; charset=utf-8", headers)
    response.call_on_close(tail.close)
    return response


def opener(supervisor: Supervisor, token: str, command: messages.OpenLog, source: str) -> Opener:
    """Asks the supervisor for each file of a log, which decides each time. What it returns raises Refusal."""

    def opened(rotated: int) -> int | None:
        try:
            descriptor = supervisor.open_log(token, msgspec.structs.replace(command, rotated=rotated), source)[1]
        except Refusal as error:
            if rotated and error.refused.kind == "unknown":
                return None
            raise
        return descriptor if descriptor >= 0 else None

    return opened


def followed(tail: Tail, over: Callable[[], bool], often: float | None = None) -> Iterator[bytes]:
    """What there is and what comes, until `over` or until the supervisor says no, who is asked so often (CHECK)."""
    checked = time.monotonic()
    yield from tail.more(False)
    while not over():
        time.sleep(POLL)
        check = time.monotonic() - checked >= (CHECK if often is None else often)
        if check:
            checked = time.monotonic()
        try:
            yield from tail.more(check)
        except Refusal:
            return


def lines_of(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise Problem("invalid", "n must be a number of lines")
    return min(int(text), MOST_LINES)
