"""One login from the question to the answer, and the end of sessions.

Rule 1: every refusal has the same words, and comes at the same time after the question: a multiple of FLOOR.
Rule 2: a login is answered once the supervisor has seen the session; if it does not in time, there is no session.
Rule 3: every attempt is noted for the audit log with the real reason, which nobody outside is told. Attempts that
        were not even made are noted at the 1st, 10th, 100th, …: nobody fills the log by knocking.
Rule 4: what ends a session is in the file first, then told to the supervisor, then answered.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple, assert_never

from policy import login
from rootd.auth import recheck, table
from rootd.auth.doors import Connection
from rootd.auth.link import Link
from rootd.auth.pam import Children, Verdict
from rootd.auth.recheck import Work
from rootd.auth.timers import Timer, Timers
from rootd.throttle import PAIR, PEER, Patience, Throttle, Ticket

FLOOR = 0.25  # seconds: more than PAM takes for a password, whatever the account
SEEN = 5.0  # seconds that the supervisor may take
CROWDED = 1.0  # seconds after which somebody may try again for whom there was no room
REFUSED = "the user or the password is wrong, or this account may not log in"
LATER = "try again later"
NAMELESS = "?"  # the user "" to the throttle: a pair without a user is its source, which would be counted twice


class Attempt(NamedTuple):
    connection: Connection
    user: str  # as asked; "#1001" for a uid, "" for what cannot be a name
    source: str
    begun: float
    ticket: Ticket


class Pending(NamedTuple):
    """A session that the supervisor has not seen yet."""

    attempt: Attempt
    token: str
    session: table.Session
    timer: Timer


class Logins:
    """length, idle: of a session, in seconds. wall: the time for people. begun: called when there is a session."""

    def __init__(
        self, sessions: table.Table, length: float, idle: float, work: Work, children: Children, link: Link,
        timers: Timers, clock: Callable[[], float], wall: Callable[[], float], say: Callable[[str], None],
        begun: Callable[[], None],
    ) -> None:  # fmt: skip
        self.table, self.idle, self.work = sessions, idle, work
        self._length, self._children, self._link = length, children, link
        self._timers, self._clock, self._wall, self._say, self._begun = timers, clock, wall, say, begun
        self._throttle = Throttle()
        self._pending: dict[int, Pending] = {}
        self._number = 0
        self._counts: dict[str, int] = {}
        self._revoked: list[int] = []  # numbers of revocations that are not answered
        self.forget_tokens: Callable[[], bool] = lambda: True  # False when their file has what is revoked

    def asked(self, connection: Connection, ask: login.LoginAsk) -> None:
        match ask:
            case login.Logout(token=token):
                self._log_out(connection, token)
            case login.PeerLogin():
                uid = connection.uid
                attempt = self._begin(connection, f"#{uid}", f"peer #{uid}", PEER)
                if attempt is not None:
                    self._try(attempt, lambda: self.work.peer(uid))
            case login.Login(user=user, password=password, source=source):
                named = recheck.is_name(user)
                attempt = self._begin(connection, user if named else "", source, PAIR)
                if attempt is None:
                    return
                if named and recheck.is_password(password):
                    self._try(attempt, lambda: self.work.password(user, password, source))
                else:
                    self._wrong(attempt, "a password that nobody has" if named else "a name that nobody has")
            case _:
                assert_never(ask)

    def heard(self, pull: login.Pull) -> None:
        """What the supervisor says."""
        match pull:
            case login.Seen(number=number):
                self._seen(number)
            case login.Touched(hash=known):
                self.table.touch(known, self._clock())
            case login.RevokeSessions(user=user, number=number):
                self._revoked.append(number)
                self._end_for_good(self.table.of(user) if user else self.table.all(), "revoked")
            case _:
                assert_never(pull)

    # an attempt

    def _begin(self, connection: Connection, user: str, source: str, patience: Patience) -> Attempt | None:
        now = self._clock()
        ticket = self._throttle.begin(user or NAMELESS, source, now, patience)
        if isinstance(ticket, Ticket):
            return Attempt(connection, user, source, now, ticket)
        self._turn_away(connection, user, source, ticket)
        return None

    def _turn_away(self, connection: Connection, user: str, source: str, after: float) -> None:
        count = self._is_round("turned away")
        if count:
            self._note(user, source, False, f"not tried: too soon, or too many ({count} such so far)")
        connection.answer(login.Denied(LATER, max(after, 0.1)))

    def _try(self, attempt: Attempt, work: Callable[[], Verdict]) -> None:
        if not self._children.run(work, lambda verdict: self._found(attempt, verdict)):
            self._throttle.untried(attempt.ticket)
            self._turn_away(attempt.connection, attempt.user, attempt.source, CROWDED)

    def _found(self, attempt: Attempt, verdict: Verdict) -> None:
        if not verdict.ok:
            if not verdict.sure and (count := self._is_round("unsure")):
                self._say(f"a login could not be checked: {verdict.why} ({count} such so far)")
            return self._wrong(attempt, verdict.why)
        now = self._clock()
        if attempt.user == verdict.user:
            self._throttle.right(attempt.ticket)
        else:
            self._throttle.wrong(attempt.ticket, now)  # by uid: what costs nothing to ask is counted
        token, known = table.new_token()
        session = table.Session(
            known, verdict.user, verdict.uid, verdict.groups, now + self._length, now, verdict.mark, now, False, now
        )
        try:
            for old in self.table.add(session):
                self.end(old, "too many sessions")
            number = self.push(session)
        except (ValueError, OverflowError) as problem:
            self.table.drop(known)
            return self._refuse(attempt, verdict.user, str(problem))
        timer = self._timers.at(now + SEEN, lambda: self._unseen(number))
        self._pending[number] = Pending(attempt, token, session, timer)
        return None

    def _wrong(self, attempt: Attempt, why: str) -> None:
        self._throttle.wrong(attempt.ticket, self._clock())
        self._refuse(attempt, attempt.user, why)

    def _refuse(self, attempt: Attempt, user: str, why: str) -> None:
        """At the same time after the question for everybody, by the loop's timer."""
        self._note(user, attempt.source, False, why)
        steps = max(math.ceil((self._clock() - attempt.begun) / FLOOR), 1)
        self._timers.at(attempt.begun + steps * FLOOR, lambda: attempt.connection.answer(login.Denied(REFUSED)))

    def _seen(self, number: int) -> None:
        pending = self._pending.pop(number, None)
        if pending is None:
            return  # it was a confirmation
        pending.timer.cancel()
        attempt, token, session, _ = pending
        if self.table.find(session.hash) is not session:
            return self._refuse(attempt, session.user, "revoked")
        if attempt.connection.closed:
            self.end(session, "nobody waited for it")
            return self._note(session.user, attempt.source, False, "nobody waited for the answer")
        session.open = True
        self.save()
        self._note(session.user, attempt.source, True, "", session.hash)
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall() + session.ends - self._clock()))
        attempt.connection.answer(login.Granted(token, session.user, session.uid, expires))
        return self._begun()

    def _unseen(self, number: int) -> None:
        attempt, _, session, _ = self._pending.pop(number)
        self.end(session, "never seen by the supervisor")
        self._note(session.user, attempt.source, False, "the supervisor did not answer")
        attempt.connection.answer(login.Denied(LATER, CROWDED))

    def _log_out(self, connection: Connection, token: str) -> None:
        session = self.table.find(table.hash_of(token))
        if session is None:
            return connection.answer(login.Denied("there is no such session"))
        self._end_for_good([session], "logout")
        return connection.answer(login.LoggedOut())

    # sessions

    def push(self, session: table.Session, number: int = 0) -> int:
        """Tell the supervisor, under this or a new number: that is returned. Raises ValueError for one too long."""
        if not number:
            self._number += 1
            number = self._number
        groups = list(session.groups)
        up = login.SessionUp(session.hash, session.user, session.uid, groups, session.ends, self.idle, number)
        self._link.push(up)
        return number

    def confirm(self, session: table.Session) -> None:
        """Tell the supervisor that it is still so."""
        try:
            self.push(session)
        except ValueError as problem:
            self.end(session, f"cannot be told: {problem}")

    def push_pending(self) -> None:
        """To a supervisor that has just been started: the logins that still wait for one."""
        for number, pending in self._pending.items():
            self.push(pending.session, number)

    def end(self, session: table.Session, why: str) -> None:
        if self.table.drop(session.hash) is not None:
            self._link.push(login.SessionDown(session.hash, why, user=session.user))

    def _end_for_good(self, sessions: list[table.Session], why: str) -> None:
        """First in the file: an auth that is started again just now must not take them back."""
        for session in sessions:
            self.table.drop(session.hash)
        self.save()
        for session in sessions:
            self._link.push(login.SessionDown(session.hash, why, user=session.user))

    def save(self) -> None:
        """What was revoked is answered when no file has it: now, or with the next save."""
        forgotten = self.forget_tokens()  # in any case: sessions end with the boot, and tokens do not
        try:
            self.table.save()
        except OSError as error:
            return self._say(f"sessions cannot be saved, they end when auth does: {error.strerror}")
        if not forgotten:
            return None
        revoked, self._revoked = self._revoked, []
        for number in revoked:
            self._link.push(login.Revoked(number))
        return None

    def _note(self, user: str, source: str, ok: bool, why: str, session: str | None = None) -> None:
        self._link.push(login.LoginNoted(user, source, ok, why, session))

    def _is_round(self, what: str) -> int:
        """Counts; the count when it is 1, 10, 100, …, else 0."""
        count = self._counts[what] = self._counts.get(what, 0) + 1
        return count if str(count).strip("0") == "1" else 0
