"""Each minute, and at the start: is everybody who is logged in, or has a personal token, still somebody who may?

Rule 1: no session and no token, no timer.
Rule 2: what was found out is pushed at once: the session again, with the groups of now, or its end.
Rule 3: who could not be checked is neither confirmed nor ended; the supervisor refuses what nobody confirms.
Rule 4: a supervisor that has just been linked is told what was checked not long ago, then SessionsEnd; after a start
        of auth itself, nothing before the first round is through.
"""

from __future__ import annotations

from collections.abc import Callable

from policy.login import SessionsEnd
from rootd.auth import recheck
from rootd.auth.link import Link
from rootd.auth.logins import Logins
from rootd.auth.pam import Children, Verdict
from rootd.auth.personal import Personal
from rootd.auth.timers import Timers

EVERY = 60.0  # seconds
FRESH = 90.0  # seconds for which a check may be told to a new supervisor


class Rounds:
    def __init__(
        self, logins: Logins, personal: Personal, children: Children, link: Link, timers: Timers,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._personal = personal
        self._logins, self._children, self._link, self._timers, self._clock = logins, children, link, timers, clock
        self._waiting: list[str] = []  # users of this round
        self._asked = 0  # children of this round
        self._next = 0.0
        self._is_set = False
        self._is_first = True

    def start(self) -> None:
        """The first round, over what the file had."""
        self._round()

    def begun(self) -> None:
        """There is a session: within a minute it is checked."""
        if not self._is_set:
            self._is_set = True
            self._timers.at(self._clock() + EVERY, self._round)

    def linked(self) -> None:
        """A supervisor has been linked, and knows nothing."""
        now = self._clock()
        for session in self._logins.table.all():
            if session.open and session.checked is not None and 0 <= now - session.checked < FRESH:
                self._logins.confirm(session)
        self._personal.linked(FRESH)
        self._logins.push_pending()
        if not self._is_first:
            self._link.push(SessionsEnd())

    def _round(self) -> None:
        self._is_set = True
        now = self._clock()
        self._next = now + EVERY
        for session in self._logins.table.all():
            why = session.over(self._logins.idle, now)
            if why:
                self._logins.end(session, why)
        self._waiting = list({*self._logins.table.users(), *self._personal.users()})
        self._ask()

    def _ask(self) -> None:
        """As many as there are children for; the others when those have ended."""
        while self._waiting:
            user = self._waiting[-1]
            if not self._children.run(lambda user=user: self._logins.work.again(user), self._found_of(user)):  # type: ignore[misc]
                return
            self._waiting.pop()
            self._asked += 1
        if not self._asked:
            self._done()

    def _found_of(self, user: str) -> Callable[[Verdict], None]:
        return lambda verdict: self._found(user, verdict)

    def _found(self, user: str, verdict: Verdict) -> None:
        now = self._clock()
        for session in self._logins.table.of(user):
            why = recheck.ended(session.uid, session.mark, verdict)
            if why:
                self._logins.end(session, why)
            elif verdict.ok:
                session.groups, session.checked = verdict.groups, now
                if session.open:
                    self._logins.confirm(session)
        self._personal.checked(user, verdict)
        self._asked -= 1
        self._ask()

    def _done(self) -> None:
        self._logins.save()
        if self._is_first:
            self._is_first = False
            self._link.push(SessionsEnd())
        self._is_set = len(self._logins.table) > 0 or self._personal.is_waiting()
        if self._is_set:
            self._timers.at(max(self._next, self._clock()), self._round)
