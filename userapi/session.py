"""The session id that a request carries, or a personal token: `Authorization: Bearer TOKEN`, and nothing else.

No cookie counts in /api/v1, so a foreign page has nothing to ride on; the page's own is read in userapi/web alone. The
api keeps no token: it hands it on and forgets it.
"""

from __future__ import annotations

import re

_BEARER = re.compile(r"\A[Bb]earer ((?:durward_)?[0-9a-f]{64})\Z")


def bearer(header: str | None) -> str:
    """The token of an Authorization header, or "" when there is none that could be one."""
    match = _BEARER.match(header or "")
    return match.group(1) if match else ""
