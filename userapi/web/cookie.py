"""The session id that a browser carries: in one cookie, and nowhere else; and what was typed while a login ended.

Rule: read and set by userapi/web alone. /api/v1 takes Authorization: Bearer and no cookie, so that whoever sends the
browser there sends it without its session; pages take no Bearer. No personal token is ever one of these.
What was typed is in no address, and so in no history and no log of a proxy: it comes back to its own page alone, once,
within some minutes.
Source: RFC 6265bis, 4.1.3 (__Host-: Secure, of this host alone, for all of its paths) and 5.4.1 (SameSite=Strict).
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from flask import Request, Response

from policy.names import REASON_PATTERN

NAME = "__Host-durward"
TYPED = "__Secure-durward-typed"
KEPT = 600  # seconds that a browser keeps what was typed
_SESSION = re.compile(r"\A[0-9a-f]{64}\Z")


def session_of(request: Request) -> str:
    """The session id, or "" when there is none, more than one, or something that is no id.

    Parsed as browsers write it, each pair by itself, without quotes and escapes (RFC 6265bis, 5.8.3 and 5.6): with
    them another cookie's lone quotation mark would hide this one, and another spelling would be an id too.
    """
    found = _only(request, NAME)
    return found if _SESSION.match(found) else ""


def _only(request: Request, wanted: str) -> str:
    pairs = [pair.strip(" \t").partition("=") for pair in request.headers.get("Cookie", "").split(";")]
    found = [value for name, _, value in pairs if name == wanted]
    return found[0] if len(found) == 1 else ""


def give(response: Response, session: str) -> None:
    """Until the browser ends: when the session itself ends is auth's to say."""
    response.set_cookie(NAME, session, path="/", secure=True, httponly=True, samesite="Strict")


def take_back(response: Response) -> None:
    response.delete_cookie(NAME, path="/", secure=True, httponly=True, samesite="Strict")


def typed_of(request: Request) -> str:
    """The reason that was typed on this page, or "": anybody may have put it there, so it is no more than shown."""
    text = unquote(_only(request, TYPED), errors="replace")
    return text if re.match(REASON_PATTERN, text) else ""


def keep_typed(response: Response, path: str, text: str) -> None:
    """For the page at this path, which shows it when it is asked for next."""
    response.set_cookie(
        TYPED, quote(text, safe=""), max_age=KEPT, path=path, secure=True, httponly=True, samesite="Strict"
    )


def drop_typed(response: Response, path: str) -> None:
    response.delete_cookie(TYPED, path=path, secure=True, httponly=True, samesite="Strict")
