"""The session id that a browser carries: in one cookie, and nowhere else.

Rule: read and set by userapi/web alone. /api/v1 takes Authorization: Bearer and no cookie, so that whoever sends the
browser there sends it without its session; pages take no Bearer. No personal token is ever one of these.
Source: RFC 6265bis, 4.1.3 (__Host-: Secure, of this host alone, for all of its paths) and 5.4.1 (SameSite=Strict).
"""

from __future__ import annotations

import re

from flask import Request, Response

NAME = "__Host-durward"
_SESSION = re.compile(r"\A[0-9a-f]{64}\Z")


def session_of(request: Request) -> str:
    """The session id, or "" when there is none, more than one, or something that is no id.

    Parsed as browsers write it, each pair by itself, without quotes and escapes (RFC 6265bis, 5.8.3 and 5.6): with
    them another cookie's lone quotation mark would hide this one, and another spelling would be an id too.
    """
    pairs = [pair.strip(" \t").partition("=") for pair in request.headers.get("Cookie", "").split(";")]
    found = [value for name, _, value in pairs if name == NAME]
    return found[0] if len(found) == 1 and _SESSION.match(found[0]) else ""


def give(response: Response, session: str) -> None:
    """Until the browser ends: when the session itself ends is auth's to say."""
    response.set_cookie(NAME, session, path="/", secure=True, httponly=True, samesite="Strict")


def take_back(response: Response) -> None:
    response.delete_cookie(NAME, path="/", secure=True, httponly=True, samesite="Strict")
