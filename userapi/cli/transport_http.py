"""Asking over HTTP: each method is one address of the API. Everything that is not a success raises Failure."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator

from userapi.cli import http1, session_file
from userapi.cli.failure import Failure
from userapi.cli.spelled import spelled

TYPE_CHECKING = False  # as typing says it: importing that takes longer than asking
if TYPE_CHECKING:
    from typing import Any

QUICK = 40.0  # seconds: longer than the api waits for anybody
QUIET = 340.0  # seconds of silence in a stream
AGAIN = 0.3  # seconds before a stream that ended is asked for again
NDJSON = "application/x-ndjson"
ATTEMPTS = 40  # that many times, when nothing comes in between


class Http:
    def __init__(
        self, url: str, cacert: str = "", say: Callable[[str], None] = lambda text: None, token_file: str = ""
    ) -> None:
        """say: for people, that what was being told has broken off and is asked for again."""
        self._say, self._token_file = say, token_file
        self.attempts = ATTEMPTS  # of a stream that breaks, in a row
        self.trouble = self.version = ""  # of the daemon, as the last status told
        self._where = http1.where(url)
        scheme, host, port = self._where
        self.url = f"unix:{host}" if scheme == "unix" else f"{scheme}://{host}:{port}"  # one spelling, for the token
        self._cacert = cacert

    def _open(self, method: str, path: str, body: Any = None, accept: str = "", seconds: float = QUICK) -> http1.Reply:
        headers = {"Accept": accept or "application/json", "User-Agent": "durward"}
        own = path.partition("/")[0] in ("session", "tokens")  # these take a login, whatever token is at hand
        token = "" if own else session_file.given(self._token_file)
        token = token or session_file.load(self.url)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = b"" if body is None else json.dumps(body).encode()
        reply = http1.ask(self._where, method, f"/api/v1/{path}", headers, data, seconds, self._cacert)
        if reply.status >= 300:
            with contextlib.closing(reply):
                failure = _failure(reply)
                if failure.kind == "no-session" and not token and path != "session":
                    raise Failure("no-session", "log in first: durward login")
                raise failure
        return reply

    def _json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        with contextlib.closing(self._open(method, path, body)) as reply:
            data = reply.body()
        if not data:
            return {}
        try:
            told = json.loads(data)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise Failure("unreachable", "what answers there is not Durward's api")
        return told

    def login(self, user: str, password: str) -> dict[str, Any]:
        return self._json("POST", "session", {"user": user, "password": password})

    def logout(self) -> None:
        self._json("DELETE", "session")

    def make_token(self, name: str, may: list[str], on: list[str], expires: str) -> dict[str, Any]:
        return self._json("POST", "tokens", {"name": name, "may": may, "on": on, "expires": expires})

    def tokens(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._json("GET", "tokens")["tokens"]
        return found

    def revoke_token(self, name: str) -> None:
        self._json("DELETE", f"tokens/{http1.quoted(name)}")

    def status(self, service: str | None) -> list[dict[str, Any]]:
        spelled(service)
        told = self._json("GET", "services" + _query(service=service))
        found: list[dict[str, Any]] = told["services"]
        self.trouble, self.version = str(told.get("trouble", "")), str(told.get("version", ""))
        if self.trouble:
            self._say(self.trouble)
        return found

    def describe(self, service: str) -> dict[str, Any]:
        spelled(service)
        return self._json("GET", f"services/{http1.quoted(service)}")

    def whoami(self) -> dict[str, Any]:
        return self._json("GET", "whoami")

    def why(self, action: str, service: str | None) -> dict[str, Any]:
        spelled(service)
        return self._json("GET", "why" + _query(action=action, service=service))

    def command(self, do: str, service: str | None = None, **more: Any) -> dict[str, Any]:
        """{"operation", "text"}, or {"text"} when it is done already."""
        if do == "upgrade":
            raise Failure("usage", f"{do} is root's, and not over HTTP: durward --root {do}")
        spelled(service, more.get("user"), more.get("signal"), more.get("reason"))
        path = do if service is None else f"services/{http1.quoted(service)}/{do}"
        return self._json("POST", path, {key: value for key, value in more.items() if value})

    def cancel(self, number: int, reason: str = "") -> dict[str, Any]:
        spelled(reason=reason)
        return self._json("POST", f"operations/{number}/cancel", {"reason": reason} if reason else None)

    def approvals(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._json("GET", "approvals")["approvals"]
        return found

    def approve(self, number: int, reason: str = "") -> dict[str, Any]:
        spelled(reason=reason)
        return self._json("POST", f"approvals/{number}", {"reason": reason} if reason else None)

    def withdraw(self, number: int, reason: str = "") -> dict[str, Any]:
        spelled(reason=reason)
        return self._json("DELETE", f"approvals/{number}", {"reason": reason} if reason else None)

    def operation(self, number: int, after: int = 0) -> Iterator[dict[str, Any]]:
        """Its events from its beginning until it ended, and the answer with it: the next may be asked for at once."""
        over: dict[str, Any] | None = None
        for event in self._events(f"operations/{number}", after, last="ended"):
            if event["is"] == "ended":
                over = event
            else:
                yield event
        if over is not None:
            yield over

    def operations(self, service: str | None, ended: bool) -> list[dict[str, Any]]:
        spelled(service)
        query = _query(service=service, all="true" if ended else None)
        found: list[dict[str, Any]] = self._json("GET", "operations" + query)["operations"]
        return found

    def events(self, service: str | None, after: int = 0) -> Iterator[dict[str, Any]]:
        spelled(service)
        return self._events("events", after, service=service)

    def _events(self, path: str, after: int, last: str = "", **asked: str | None) -> Iterator[dict[str, Any]]:
        """Server-sent events after that number; asked for again, after the last one, when the stream ends, as every
        stream does, unless `last` was told. That it broke is said once until something comes again.
        """
        from userapi.cli.resumed import Resumed

        resumed, over = Resumed(after, self._say, self.attempts, last != ""), False
        while resumed.may_try():
            query = _query(**asked, after=str(resumed.after) if resumed.after else None)
            try:
                reply = self._open("GET", path + query, accept="text/event-stream", seconds=QUIET)
                with contextlib.closing(reply):
                    for event in _parsed(reply.pieces()):
                        over = over or event["is"] == last
                        if resumed.is_news(event):
                            yield event
            except (Failure, ConnectionError) as why:
                if not resumed.begun and not last and getattr(why, "kind", "") == "unreachable":
                    raise  # nobody was ever there
                if not over:
                    resumed.broke(why)
            if over:
                return
            time.sleep(AGAIN)
        raise resumed.given_up()

    def logs(self, service: str, stream: str, process: str, lines: int, follow: bool) -> Iterator[bytes]:
        spelled(service)
        path = f"services/{http1.quoted(service)}/logs"
        return self._tailed(path, "text/plain", lines, follow, stream=stream, process=process)

    def policy(self) -> bytes:
        """JSON of policy.source.Source."""
        with contextlib.closing(self._open("GET", "policy")) as reply:
            return reply.body()

    def audit(self, span: Any) -> Iterator[bytes]:
        """The audit log in pieces; span: userapi.audit.files.Span."""
        query = _query(**{"from": span.since or None, "to": span.until or None})
        with contextlib.closing(self._open("GET", "audit" + query, accept=NDJSON, seconds=QUIET)) as reply:
            try:
                yield from reply.pieces()
            except ConnectionError as error:
                raise Failure("later", f"the log is not complete: {error}") from None

    def audit_tail(self, lines: int, follow: bool) -> Iterator[bytes]:
        return self._tailed("audit", NDJSON, lines, follow)

    def _tailed(self, path: str, accept: str, lines: int, follow: bool, **more: str) -> Iterator[bytes]:
        """The last lines, and with follow what comes: asked for again from where it broke off."""
        asked = {**more, "follow": "true" if follow else None}
        place = ""
        left = ATTEMPTS
        while left:
            left -= 1
            start = {"after": place} if place else {"n": str(lines)}
            try:
                reply = self._open("GET", path + _query(**asked, **start), accept=accept, seconds=QUIET)
            except Failure as failure:
                if not place or failure.kind not in ("later", "unreachable") or not left:
                    raise
                time.sleep(AGAIN)
                continue
            inode, _, offset = reply.headers.get("durward-log-position", "0:0").partition(":")
            got = int(offset)
            with contextlib.closing(reply):
                try:
                    for piece in reply.pieces():
                        left = ATTEMPTS
                        got += len(piece)
                        yield piece
                except ConnectionError as error:
                    if not follow:
                        raise Failure("later", f"the log is not complete: {error}") from None
            if not follow:
                return
            place = f"{inode}:{got}"
            time.sleep(AGAIN)


def _parsed(pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    data = b""
    for piece in pieces:
        data += piece
        *whole, data = data.split(b"\n\n")
        for block in whole:
            lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"data" not in lines:
                if b"id" in lines:
                    yield {"is": "watching", "number": int(lines[b"id"])}
                continue
            event = json.loads(lines[b"data"])
            if lines.get(b"event") == b"refused":
                raise _problem(event, {})
            yield event


def _query(**values: str | None) -> str:
    pairs = [f"{key}={http1.quoted(value)}" for key, value in values.items() if value]
    return "?" + "&".join(pairs) if pairs else ""


def _failure(reply: http1.Reply) -> Failure:
    try:
        told = json.loads(reply.body())
    except ValueError:
        told = {}
    if not isinstance(told, dict) or "kind" not in told:
        return Failure("unreachable", f"what answers there is not Durward's api (status {reply.status})")
    return _problem(told, reply.headers)


def _problem(told: dict[str, Any], headers: dict[str, str]) -> Failure:
    more = {key: told[key] for key in ("rule", "file", "line", "would_help") if key in told}
    text = str(told.get("detail", ""))
    if headers.get("retry-after") and told.get("status") == 429:
        text = f"{'' if text == 'try again later' else text + '; '}try again in {headers['retry-after']} s"
    return Failure(str(told["kind"]), text, **more)
