"""Who asks: the live session of a request, or what he hears who has none.

Rule 1: a personal token that is wrong makes its source wait, as a wrong password does (rootd/throttle.py). One that is
        right never waits, whatever others send from where it is used: 256 random bits are not guessed, so what is held
        back by waiting is who knocks, and not who could be lucky.
Rule 2: wrong ones are recorded at the 1st, 10th, 100th, …: nobody fills the log by knocking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import ceil

from msgspec import structs

from policy import messages
from policy.identity import SESSION_SHOWN
from policy.scope import PREFIX
from rootd.supervisor.auditing import Audit
from rootd.supervisor.sessions import Session, Sessions
from rootd.throttle import Throttle, Ticket

NOBODY = messages.Refused("no-session", "log in first: there is no such session")
NO_TOKEN = messages.Refused("no-session", "there is no such token: it was revoked, has expired, or never was")


class Admission:
    def __init__(self, sessions: Sessions, audit: Audit, clock: Callable[[], float]) -> None:
        self._sessions, self._audit, self._clock = sessions, audit, clock
        self._throttle = Throttle()
        self._wrong = 0

    def session(self, request: messages.Request) -> Session | messages.Refused:
        now = self._clock()
        if not request.session.startswith(PREFIX):
            found = self._sessions.find(request.session, now)
            return found or structs.replace(NOBODY, trouble=bool(self._audit.trouble))
        known = hashlib.sha256(request.session.encode()).hexdigest()
        found = self._sessions.still(known, now)
        if found is not None:
            return found
        ticket = self._throttle.begin(known, request.source, now)
        if not isinstance(ticket, Ticket):
            return messages.Refused("later", f"too many wrong tokens came from there: try again in {ceil(ticket)} s")
        self._throttle.wrong(ticket, now)
        self._wrong += 1
        if str(self._wrong).strip("0") == "1" and not self._audit.is_crowded:
            why = f"no such token ({self._wrong} such so far)"
            body = {"kind": "token", "what": "wrong", "ok": False, "from": request.source, "why": why}
            self._audit.record({**body, "session": known[:SESSION_SHOWN]})
        return NO_TOKEN
