"""What holds for every request before a view sees it, and for every answer before it leaves.

Here and in all of /api/v1 no cookie is ever read or set, so a foreign page cannot borrow a session; Host, Origin,
Sec-Fetch-Site and the content type are checked all the same (DNS rebinding, and programs that put the token where they
should not). Pages have a cookie, and userapi/web/guard looks at what they are asked besides.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from flask import Flask, Response, current_app, request

from policy import names
from policy.names import SIGNALS
from policy.scope import PREFIX
from userapi.client import Auth, Supervisor
from userapi.config import Config
from userapi.http.problems import Problem
from userapi.http.streams import Permits, Shares
from userapi.session import bearer

if TYPE_CHECKING:
    from userapi.http.health import Health

BODY = 16 * 1024  # bytes; a login is the largest
LOOPBACK = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HOST = re.compile(r"\A(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::[0-9]{1,5})?\Z")

T = TypeVar("T")

PAGES = "web"  # the blueprint of all pages: they take forms, and may be followed to from elsewhere

# the query parameters of each view; what is not here is refused, so that nobody believes that it was heeded
_WAIT = frozenset({"wait"})
PARAMETERS = {
    "services.status": frozenset({"service"}),
    "services.start": _WAIT,
    "services.stop": _WAIT,
    "services.restart": _WAIT,
    "services.signal": _WAIT,
    "services.scale": _WAIT,
    "services.reload": _WAIT,
    "services.revoke": _WAIT,
    "operations.follow": frozenset({"wait", "after"}),
    "operations.listed": frozenset({"service", "all"}),
    "logs.logs": frozenset({"n", "stream", "process", "follow", "after"}),
    "audit.audit": frozenset({"from", "to", "n", "follow", "after"}),
    "whoami.why": frozenset({"action", "service"}),
    "events.events": frozenset({"service", "after"}),
    "web.session.form_of": frozenset({"next"}),
    "web.session.begun": frozenset({"next"}),
    "web.services.one": frozenset({"process", "stream"}),
    "web.commands.ask": frozenset({"reason"}),
    "web.reload.asks": frozenset({"reason"}),
    "web.operations.one": frozenset({"reason"}),
    "web.approvals.one": frozenset({"reason"}),
    "web.live.states": frozenset({"service"}),
}


class Parts(NamedTuple):
    """What views need; in app.extensions["durward"]."""

    config: Config
    supervisor: Supervisor
    auth: Auth
    streams: Shares
    waits: Shares
    logins: Permits
    hosts: frozenset[str]
    health: Health


def parts() -> Parts:
    found: Parts = current_app.extensions["durward"]
    return found


def own_names(config: Config) -> frozenset[str]:
    """The names under which this machine may be asked; IP addresses are always good: they cannot be rebound."""
    return LOOPBACK | {socket.gethostname().lower()} | {name.lower() for name in config.api.hosts}


def host_is_ours(host: str, names: frozenset[str]) -> bool:
    match = _HOST.match(host)
    if not match:
        return False
    if match.group(1) is not None or re.match(r"\A[0-9.]+\Z", match.group(2)):
        try:
            ipaddress.ip_address(match.group(1) or match.group(2))
        except ValueError:
            return False
        return True
    name = match.group(2).lower().rstrip(".")
    return name in names or name.endswith(".localhost")


_LOCAL = re.compile(r"\Aunix:[0-9]{1,10}\Z")  # what the worker says of a Unix socket's peer


def source(environ: dict[str, Any], behind_proxy: bool) -> str:
    """From where: the peer's address, or "unix:UID". A header is believed only of a proxy that is configured."""
    remote = environ.get("REMOTE_ADDR") or ""
    peer = _plain_address(remote)
    if behind_proxy and (not peer or ipaddress.ip_address(peer).is_loopback):
        told = _plain_address(str(environ.get("HTTP_X_FORWARDED_FOR", "")).rpartition(",")[2].strip())
        if told:
            return told
    return peer or (remote if _LOCAL.match(remote) else "unix")


def _plain_address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def asker() -> tuple[str, str]:
    """Session and source of this request. Raises Problem when it carries no session."""
    token = bearer(request.headers.get("Authorization"))
    if not token:
        raise Problem("no-session", "log in first: POST /api/v1/session gives a token for Authorization: Bearer")
    return token, source(request.environ, parts().config.api.behind_proxy)


def logged_in() -> tuple[str, str]:
    """The same of who has logged in; auth takes nothing else. Raises Problem for a personal token."""
    token, where = asker()
    if token.startswith(PREFIX):
        raise Problem("forbidden", "a personal token does not do that: log in, as durward login does")
    return token, where


def body(kind: type[T]) -> T:
    """The JSON body as that struct; an empty body is {}. Raises Problem."""
    data = request.get_data(cache=False)
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("invalid", sentence(error)) from None


# what msgspec says of these would be a pattern
_MUST = {
    "process": "process must be like site:0",
    "stream": "stream must be stdout or stderr",
    "signal": f"signal must be one of {SIGNALS.replace('|', ', ')}",
    "reason": "reason must be one line of at most 200 characters, not only blanks",
    "user": "user must be the name of a user",
    "processes": "processes must be a whole number from 1 to 1024; to have none, stop the service",
}
_FIELD = re.compile(r" - at `\$\.([a-z_]+)`\Z")


def sentence(error: Exception) -> str:
    """What is wrong with a question or a body, for the person who wrote it."""
    field = _FIELD.search(str(error))
    return _MUST.get(field.group(1) if field else "", f"the question is not as it must be: {error}")


def named(text: str) -> str:
    """A name that can exist. Raises Problem, in the words used for one that does not."""
    try:
        return names.service_name(text)
    except ValueError:
        raise Problem("unknown", "there is no such service that you may view") from None


def json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers=headers, content_type="application/json")


def flag(name: str) -> bool:
    """A query parameter that is true or false. Raises Problem."""
    text = request.args.get(name, "false")
    if text not in ("true", "false", "1", "0"):
        raise Problem("invalid", f"{name} must be true or false")
    return text in ("true", "1")


def after() -> int:
    """The number of the last event that the asker has seen; 0: none. Raises Problem.

    Last-Event-ID, which is what a program that reconnects by itself sends, is newer than ?after= in the address.
    """
    text, what = request.headers.get("Last-Event-ID", ""), "Last-Event-ID"
    if not text:
        text, what = request.args.get("after", "0"), "after"
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) < 1 << 53):
        of = 'the number of the last event that you have seen, as it is in its id: line and in its "number"'
        raise Problem("invalid", f"{what} must be {of}; without it you are told what happens from now on")
    return int(text)


def _parameters() -> None:
    if request.endpoint is None:
        return  # 404
    known = PARAMETERS.get(request.endpoint, frozenset())
    unknown = sorted(set(request.args) - known)
    if unknown:
        text = f"there is no parameter {', '.join(map(ascii, unknown))} here"
        raise Problem("invalid", f"{text}: {', '.join(sorted(known))}" if known else text)


def is_page() -> bool:
    return PAGES in request.blueprints


def _is_followed() -> bool:
    """Somebody follows a link to one of our pages, to see it whole: that changes nothing."""
    asked = (request.method, request.headers.get("Sec-Fetch-Mode"), request.headers.get("Sec-Fetch-Dest"))
    return is_page() and asked == ("GET", "navigate", "document")


def _is_own(origin: str) -> bool:
    """Of this very address; whoever is asked by TLS has no pages without it. A proxy in front may speak TLS for us."""
    scheme, _, host = origin.partition("://")
    return host == request.headers.get("Host") and scheme in ("https", request.scheme)


def _before() -> None:
    if not host_is_ours(request.headers.get("Host", ""), parts().hosts):
        raise Problem("invalid", "Host must be localhost, an address or a name of ours: [api] hosts lists more", 400)
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not _is_followed():
        raise Problem("forbidden", "a page of another site may not ask")
    _parameters()
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    origin = request.headers.get("Origin")
    if origin is not None and not _is_own(origin):
        raise Problem("forbidden", "a page of another site may not ask")
    if "Transfer-Encoding" in request.headers:
        raise Problem("invalid", "a body needs a Content-Length", 411)
    if (request.content_length or 0) > BODY:
        raise Problem("invalid", f"a body may have {BODY} bytes", 413)
    kind = "application/x-www-form-urlencoded" if is_page() else "application/json"
    if (request.content_type or request.content_length) and request.mimetype != kind:
        raise Problem("invalid", f"a body must be {kind}", 415)


def _after(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def register(app: Flask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = BODY
    app.before_request(_before)
    app.after_request(_after)
