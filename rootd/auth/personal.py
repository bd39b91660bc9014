"""Personal tokens on their way: made, listed and revoked for who is logged in; checked each minute as sessions are.

Rule 1: only who has logged in makes one, and not long after that: neither a token nor a session that was stolen later
        becomes a token that lives longer.
Rule 2: a token is answered once it is on disk and the supervisor has seen it; one is revoked once it is on disk no
        more and the supervisor has heard of it.
Rule 3: an account that is locked or expired makes its tokens sleep, and they work again when it does; one with another
        uid, or that was away for GONE, takes them with it. A new password changes nothing: `durward revoke` does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, assert_never

from policy import login
from policy.scope import PREFIX
from rootd.auth import table, tokens
from rootd.auth.doors import Connection
from rootd.auth.link import Link
from rootd.auth.pam import Verdict
from rootd.auth.timers import Timer, Timers

FRESH = 900.0  # seconds after a login in which tokens are made
SEEN = 5.0  # seconds that the supervisor may take
OFTEN, WITHIN = 60, 3600.0  # tokens that one person makes in so many seconds: each is a record, and waits for the disk
GONE = 3600.0  # seconds without an account, after which it is not taken for a name service that was away
FIRST = 1 << 40  # numbers of ours to the supervisor begin here: those of logins are below
NEVER = 1e12  # seconds: a token does not end by not being used
UNKNOWN = "unknown user"  # what recheck says of who is not there

Problem = Literal["no-session", "forbidden", "unknown", "conflict", "invalid", "later", "failed"]


class Refused(Exception):
    def __init__(self, kind: Problem, text: str) -> None:
        super().__init__(text)
        self.kind: Problem = kind


class Pending(NamedTuple):
    """What is answered when the supervisor has seen it. late: when it has not."""

    seen: Callable[[], None]
    timer: Timer
    made: tokens.Token | None = None


class Personal:
    """longest: seconds that a token may live, 0: there are none. begun: called when there is something to check."""

    def __init__(
        self, known: tokens.Tokens, sessions: table.Table, longest: float, idle: float, link: Link, timers: Timers,
        clock: Callable[[], float], wall: Callable[[], float], say: Callable[[str], None], begun: Callable[[], None],
    ) -> None:  # fmt: skip
        self.tokens, self._sessions, self._longest, self._idle = known, sessions, longest, idle
        self._link, self._timers, self._clock, self._wall = link, timers, clock, wall
        self._say, self._begun = say, begun
        self._pending: dict[int, Pending] = {}
        self._number = FIRST
        self._made: dict[str, list[float]] = {}  # by user, when he has asked for a token
        self._gone: dict[str, float] = {}  # by user, since when there is no such account
        self._is_stuck = self._is_there = False  # it was said that the file cannot be written; that it is there

    def load(self) -> None:
        trouble = self.tokens.load(self._clock())
        if trouble:
            self._say(trouble)
            self._link.push(login.TokenNoted("", "", "damaged", why=trouble))

    # what is asked

    def asked(self, connection: Connection, ask: login.TokenAsk) -> None:
        try:
            session = self._session(ask.token)
            match ask:
                case login.MakeToken():
                    self._make(connection, ask, session)
                case login.ListTokens():
                    connection.answer(login.Tokens(self._listed(session.user)))
                case login.RevokeToken():
                    self._revoke(connection, ask, session)
                case _:
                    assert_never(ask)
        except Refused as no:
            connection.answer(login.TokenRefused(no.kind, str(no)))

    def _session(self, token: str) -> table.Session:
        session = self._sessions.find(table.hash_of(token))
        if session is None or not session.open or session.over(self._idle, self._clock()):
            raise Refused("no-session", "log in first: there is no such session")
        return session

    def _make(self, connection: Connection, ask: login.MakeToken, session: table.Session) -> None:
        now, wall = self._clock(), self._wall()
        if self._longest <= 0:
            raise Refused("forbidden", "there are no personal tokens here: [auth] token_longest is 0s")
        if now - session.begun >= FRESH:
            raise Refused("no-session", f"log in again: a token is made within {FRESH / 60:.0f} minutes of a login")
        if ask.seconds > self._longest:
            raise Refused("invalid", f"a token lives {words(self._longest)} at most ([auth] token_longest)")
        if wrong := ask.scope.wrong():
            raise Refused("invalid", wrong)
        old = self.tokens.named(session.user, ask.scope.name)
        if old is not None and old.over(now, wall) != "expired":
            raise Refused("conflict", f"you have a token '{ask.scope.name}': revoke it first, or name this otherwise")
        recent = [at for at in self._made.get(session.user, ()) if now - at < WITHIN]
        if len(recent) >= OFTEN:
            raise Refused("later", f"you have made {OFTEN} tokens within the hour: try again later")
        self._made[session.user] = [*recent, now]
        secret = PREFIX + table.new_token()[0]
        token = tokens.Token(
            table.hash_of(secret), session.user, session.uid, ask.scope, wall, wall + ask.seconds, now + ask.seconds
        )
        try:
            self.tokens.add(token, tokens.State(session.groups, now, "", False), now, wall)
        except OverflowError as full:
            raise Refused("conflict", str(full)) from None

        def seen() -> None:
            if self.tokens.find(token.hash) is not token:
                return connection.answer(login.TokenRefused("conflict", "revoked meanwhile"))
            if connection.closed:
                return self._end(token, "nobody waited for it")
            self.tokens.state(token).open = self.tokens.dirty = True
            if not self.save():
                self._end(token, "it cannot be kept")
                text = "the token cannot be kept: auth's messages say why"
                return connection.answer(login.TokenRefused("failed", text))
            expires = spell(token.expires)
            noted = login.TokenNoted(token.user, ask.source, "made", token.scope, expires, token.hash)
            self._link.push(noted)
            connection.answer(login.TokenMade(secret, token.scope.name, expires))
            return self._begun()

        def late() -> None:
            self._end(token, "never seen by the supervisor")
            connection.answer(login.TokenRefused("later", "the supervisor did not answer: try again"))

        self._wait(self._push(token), seen, late, token)

    def _listed(self, user: str) -> list[login.TokenInfo]:
        now, wall = self._clock(), self._wall()
        return [
            login.TokenInfo(
                token.scope, spell(token.made), spell(token.expires), spell(token.used) if token.used else "",
                token.over(now, wall) or self.tokens.state(token).why,
            )
            for token in self.tokens.of(user)
            if self.tokens.state(token).open
        ]  # fmt: skip

    def _revoke(self, connection: Connection, ask: login.RevokeToken, session: table.Session) -> None:
        token = self.tokens.named(session.user, ask.name)
        if token is None:
            raise Refused("unknown", f"you have no token '{ask.name}'")
        self.tokens.drop(token.hash)
        kept = self.forget()
        self._link.push(login.TokenNoted(token.user, ask.source, "revoked", token.scope, "", token.hash))

        def over() -> None:
            if kept:
                return connection.answer(login.TokenRevoked())
            again = "it works no more, but the file still has it: revoke it again when auth's disk can be written"
            return connection.answer(login.TokenRefused("failed", again))

        if not self._link.is_there:
            return over()
        self._number += 1
        self._link.push(login.SessionDown(token.hash, "revoked", self._number, token.user))
        return self._wait(self._number, over, over)

    def _wait(
        self, number: int, seen: Callable[[], None], late: Callable[[], None], made: tokens.Token | None = None
    ) -> None:
        def give_up() -> None:
            del self._pending[number]
            late()

        self._pending[number] = Pending(seen, self._timers.at(self._clock() + SEEN, give_up), made)

    # what the supervisor says

    def heard(self, pull: login.Pull) -> None:
        match pull:
            case login.Seen(number=number):
                pending = self._pending.pop(number, None)
                if pending is not None:
                    pending.timer.cancel()
                    pending.seen()
            case login.Touched(hash=known):
                self.tokens.touch(known, self._wall())
            case login.RevokeSessions(user=user):  # the supervisor lets none of them in until it is told otherwise
                for token in self.tokens.of(user) if user else self.tokens.all():
                    self._down(token, "revoked")
                    self.tokens.drop(token.hash)
            case _:
                assert_never(pull)

    # what the minute brings

    def users(self) -> list[str]:
        """Whose accounts are to be checked."""
        now, wall = self._clock(), self._wall()
        return list({token.user: None for token in self.tokens.all() if token.over(now, wall) != "expired"})

    def is_waiting(self) -> bool:
        """Whether there is something to do in a minute."""
        return bool(self.users()) or self.tokens.dirty

    def checked(self, user: str, verdict: Verdict) -> None:
        now = self._clock()
        if verdict.ok or not verdict.sure or verdict.why != UNKNOWN:
            self._gone.pop(user, None)
        elif now - self._gone.setdefault(user, now) >= GONE:
            verdict = Verdict(True)  # of uid -1: another account
        for token in self.tokens.of(user):
            if not verdict.ok:
                if verdict.sure:
                    self._down(token, verdict.why)
            elif verdict.uid != token.uid:
                self._end(token, "account gone")
            else:
                state = self.tokens.state(token)
                state.groups, state.checked = verdict.groups, now
                self._confirm(token)

    def linked(self, fresh: float) -> None:
        """A supervisor that knows nothing. fresh: seconds for which a check may be told to it."""
        now = self._clock()
        waiting = {pending.made.hash: number for number, pending in self._pending.items() if pending.made}
        for token in self.tokens.all():
            checked = self.tokens.state(token).checked
            if checked is not None and 0 <= now - checked < fresh and not self.tokens.state(token).why:
                self._confirm(token, waiting.get(token.hash, 0))

    def forget(self) -> bool:
        """Whether no file has what was revoked."""
        return self.save() or not self.tokens.is_stale

    def save(self) -> bool:
        """Whether the file has all that is so."""
        try:
            if self.tokens.is_due(self._clock()):
                self.tokens.save(self._clock())
        except OSError as error:
            is_there = os.path.lexists(self.tokens.path)
            if not self._is_stuck or is_there != self._is_there:
                rest = "" if is_there else "; it is not there now, so tokens end when auth does"
                self._say(f"{self.tokens.path} cannot be written, tried again each minute: {error.strerror}{rest}")
            self._is_stuck, self._is_there = True, is_there
            return False
        self._is_stuck = False
        return True

    def _confirm(self, token: tokens.Token, number: int = 0) -> None:
        why = token.over(self._clock(), self._wall())
        if why:
            return self._down(token, why)
        self.tokens.state(token).why = ""
        try:
            self._push(token, number)
        except ValueError as problem:
            self._down(token, f"cannot be told: {problem}")
        return None

    def _push(self, token: tokens.Token, number: int = 0) -> int:
        self._number += not number
        ends = max(token.until(self._clock(), self._wall()), 0.0)
        groups = list(self.tokens.state(token).groups)
        up = login.SessionUp(
            token.hash, token.user, token.uid, groups, ends, NEVER, number or self._number, token.scope
        )
        self._link.push(up)
        return up.number

    def _down(self, token: tokens.Token, why: str) -> None:
        """It does not work for now."""
        state = self.tokens.state(token)
        if not state.why:
            self._link.push(login.SessionDown(token.hash, why, user=token.user))
        state.why = why

    def _end(self, token: tokens.Token, why: str) -> None:
        if self.tokens.find(token.hash) is token:
            self._down(token, why)
            self.tokens.drop(token.hash)
            self.save()


def spell(wall: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(wall, 0.0), 2e11)))


def words(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} seconds"
