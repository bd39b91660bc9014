"""What a page sends: a form of this session, from a page of ours, with the fields that it has and no others.

The api keeps nothing, so what proves that a form is ours is made of the session id itself, which the page of another
site does not know. It is not told by it either: who reads a form learns no session.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, TypeVar
from urllib.parse import parse_qsl

import msgspec
from flask import Request

from policy import messages
from userapi.http.guard import sentence
from userapi.http.problems import Problem

KIND = "application/x-www-form-urlencoded"
FIELDS = 8  # that a form of ours has at most
_LABEL = b"durward: a form of this session"


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What each form has. `proof` is checked by `proven`, not by who parses."""

    proof: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Asking(Form, frozen=True, forbid_unknown_fields=True, kw_only=True):
    reason: messages.Reason = ""


T = TypeVar("T", bound=msgspec.Struct)


def proof(session: str) -> str:
    """64 hex digits for the hidden field of this session's forms."""
    return hmac.new(session.encode(), _LABEL, hashlib.sha256).hexdigest()


def proven(session: str, form: Form) -> None:
    """Raises Problem."""
    if not hmac.compare_digest(form.proof.encode(), proof(session).encode()):
        raise Problem("forbidden", "this form is of another login than yours: send it again")


def from_a_page_of_ours(request: Request) -> None:
    """A browser says from where a form is sent, by Sec-Fetch-Site, Origin or both. Raises Problem.

    That an Origin is ours is checked for every request (http/guard); here one of the two must be there at all.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site not in (None, "same-origin") or (site is None and origin is None):
        raise Problem("forbidden", "a form is sent from a page of ours, by a browser that says so")
    if origin is not None and not origin.startswith(("http://", "https://")):
        raise Problem("forbidden", "a page of another site may not ask")


def fields(request: Request) -> dict[str, str]:
    """Name and text of each field. Raises Problem."""
    data, keep_blank = request.get_data(cache=True), True
    try:
        text = data.decode("ascii")
        pairs = parse_qsl(text, keep_blank, bool(text), errors="strict", max_num_fields=FIELDS)
    except ValueError:  # UnicodeDecodeError too
        raise Problem("invalid", "this is no form that a page of ours sends") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Problem("invalid", "a field may be there once")
    return found


def form(request: Request, kind: type[T]) -> T:
    """The fields as that struct. Raises Problem."""
    try:
        return msgspec.convert(fields(request), kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem("invalid", sentence(error)) from None
