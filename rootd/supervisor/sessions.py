"""Who is logged in, as auth told it: the hash of a session's id, and the person behind it.

A personal token is a session that is for less than its person may do, and does not end by not being used.

Rule 1: a session is found by the SHA-256 of its id; no id is kept, and none is compared.
Rule 2: every doubt denies: unknown, ended, idle, revoked, or not confirmed by auth for CONFIRMED seconds.
Rule 3: a revocation counts until auth has answered it, whoever of the two dies meanwhile: it is kept in a file, and
        said to each auth. What auth says of such a session before its answer, it has said before it knew.
Rule 4: bookkeeping only. Times are arguments, in seconds of CLOCK_BOOTTIME; what auth must be told is returned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import assert_never

import msgspec

from policy import identity, login
from rootd.supervisor.files import UNREADABLE

LIMIT = 10_000  # sessions; a login beyond them is never answered
CONFIRMED = 180.0  # seconds that a session lives without auth saying again that it does
TOUCH = 30.0  # seconds between two words to auth that a session is in use
REVOKING_LIMIT = 1_000  # users whose revocation auth has not answered

_decode = msgspec.json.Decoder(dict[str, login.Number]).decode


class Session:
    """Mutable: a confirmation renews it, a command uses it."""

    __slots__ = ("confirmed", "ends", "hash", "identity", "idle", "touched", "used")

    def __init__(self, up: login.SessionUp, now: float) -> None:
        self.hash = up.hash
        self.used = now
        self.touched = now if up.token is None else float("-inf")  # of a token, the first use is told
        self.renew(up, now)

    def renew(self, up: login.SessionUp, now: float) -> None:
        """Raises ValueError when nobody can be so."""
        self.identity = identity.person(up.user, up.uid, up.groups, up.hash, up.token)
        self.ends = up.ends
        self.idle = up.idle
        self.confirmed = now

    def is_live(self, now: float) -> bool:
        return now < self.ends and now - self.used < self.idle and now - self.confirmed < CONFIRMED

    def touch(self, now: float) -> login.Touched | None:
        """A command came with it: its idle time begins again. What auth is told of it, now and then."""
        self.used = now
        if now - self.touched < min(TOUCH, self.idle / 4):
            return None
        self.touched = now
        return login.Touched(self.hash)


class Sessions:
    def __init__(self) -> None:
        self._live: dict[str, Session] = {}
        self._revoking: dict[str, int] = {}  # user, "" for everyone -> number of the revocation
        self._number = 0
        self._told: set[str] = set()  # since this auth was linked
        self.ended: Callable[[], None] = lambda: None  # called when some have ended before their time

    def linked(self) -> None:
        """auth, or its successor, will now tell every live session and then SessionsEnd."""
        self._told.clear()

    def push(self, push: login.Push, now: float) -> login.Seen | None:
        """What auth is answered. Nothing, for a session that is not taken: the login then fails."""
        match push:
            case login.SessionUp():
                return self._up(push, now)
            case login.SessionDown(hash=ended, number=number):
                self._live.pop(ended, None)
                self.ended()
                return login.Seen(number) if number else None
            case login.Revoked(number=number):
                self._revoking = {user: known for user, known in self._revoking.items() if known != number}
            case login.SessionsEnd():
                self._live = {known: session for known, session in self._live.items() if known in self._told}
                self.ended()
            case login.LoginNoted() | login.TokenNoted():
                pass  # for the audit log alone
            case _:
                assert_never(push)
        return None

    def _up(self, up: login.SessionUp, now: float) -> login.Seen | None:
        known = self._live.get(up.hash)
        if self._revoking.keys() & {up.user, ""} or (known is None and len(self._live) >= LIMIT):
            return None
        try:
            if known is None:
                self._live[up.hash] = Session(up, now)
            elif (known.identity.user, known.identity.uid, known.identity.token) == (up.user, up.uid, up.token):
                known.renew(up, now)
            else:
                raise ValueError("a session never becomes another person's, and none for more than it was")
        except ValueError:
            self._live.pop(up.hash, None)
            self.ended()
            return None
        self._told.add(up.hash)
        return login.Seen(up.number)

    def find(self, token: str, now: float) -> Session | None:
        """The live session of this id."""
        return self.still(hashlib.sha256(token.encode()).hexdigest(), now)

    def still(self, known: str, now: float) -> Session | None:
        """The session of this hash, if it is live. One that is not is kept until auth says that it is over."""
        session = self._live.get(known)
        return session if session is not None and session.is_live(now) else None

    # -- revocations

    def revoke(self, user: str) -> int:
        """End the sessions and tokens of this user, or of everybody (""), whatever auth still says. How many.

        Raises OverflowError when auth has left too many users' unanswered; everybody's is always possible.
        """
        if user and len(self._revoking) >= REVOKING_LIMIT:
            raise OverflowError(f"{REVOKING_LIMIT} revocations wait for auth: try again later, or revoke everybody's")
        ended = [session for session in self._live.values() if user in ("", session.identity.user)]
        for session in ended:
            del self._live[session.hash]
        self._number += 1
        others = {known: number for known, number in self._revoking.items() if user not in ("", known)}
        self._revoking = others | {user: self._number}
        self.ended()
        return len(ended)

    def tokens(self, user: str) -> int:
        """How many personal tokens of this user, or of everybody (""), are known."""
        return sum(one.identity.token is not None and user in ("", one.identity.user) for one in self._live.values())

    def token_name(self, known: str) -> str:
        """Of a personal token's hash; "" for what is none."""
        session = self._live.get(known)
        token = session.identity.token if session else None
        return token.name if token else ""

    def revoking(self) -> list[login.RevokeSessions]:
        """What auth has not answered, the latest last."""
        return [login.RevokeSessions(user, number) for user, number in self._revoking.items()]

    def to_keep(self) -> bytes:
        """The same, for the next supervisor."""
        return msgspec.json.encode(self._revoking)

    def restore(self, kept: bytes) -> str:
        """What the last supervisor kept. What is wrong with it, or "": then everybody's sessions end."""
        try:
            self._revoking, problem = _decode(kept or b"{}"), ""
        except UNREADABLE as error:
            self._revoking, problem = {"": 1}, f"what was revoked is damaged, everybody is logged out: {error}"
        self._number = max(self._revoking.values(), default=0)
        return problem
