"""Who is logged in: the hash of a session's token, the person behind it, and until when. And its file.

Rule 1: a token is not kept, only its SHA-256; nothing is compared but by looking that up.
Rule 2: ends are seconds of CLOCK_BOOTTIME: sessions of another boot are nobody's.
Rule 3: the file is replaced whole, readable by auth alone; one that is not what we wrote holds no sessions.
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Annotated

import msgspec

from policy.login import Hash, Seconds, Uid, User

LIMIT = 9_000  # sessions; the supervisor takes 10,000
PER_USER = 100  # a further login ends the oldest of the same person
FILE_LIMIT = 64 << 20  # bytes
LAG = 30.0  # seconds by which the supervisor's word that a session is in use may be late


class Session(msgspec.Struct, forbid_unknown_fields=True):
    hash: Hash
    user: User
    uid: Uid
    groups: tuple[str, ...]
    ends: Seconds
    used: Seconds
    mark: str
    checked: float | None = None  # when its account was last found to be good, by this process; None is never
    open: bool = True  # the supervisor knows it and the login was answered
    begun: Seconds = 0.0

    def over(self, idle: float, now: float) -> str:
        """Why it has ended by itself; "" when it has not."""
        if now >= self.ends:
            return "expired"
        return "idle" if now - self.used >= idle + LAG else ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    boot: str
    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    sessions: list[Session]


_decode = msgspec.json.Decoder(_File, strict=True).decode
_encode = msgspec.json.Encoder().encode


def new_token() -> tuple[str, str]:
    """256 random bits as 64 hex digits, and the hash that is kept of them."""
    token = os.urandom(32).hex()
    return token, hash_of(token)


def hash_of(token: str) -> str:
    return sha256(token.encode()).hexdigest()


class Table:
    """`key` makes the marks of shadow fields; it lives as long as the sessions that bear such marks."""

    def __init__(self, path: str, boot: str) -> None:
        self._path, self._boot = path, boot
        self.key = os.urandom(32)
        self._sessions: dict[str, Session] = {}
        self._of: dict[str, dict[str, Session]] = {}  # by user

    def load(self) -> str:
        """Take back the sessions that the file has, all unchecked. What was wrong with it, or ""."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{self._path}: {error.strerror}"
        with open(fd, "rb") as file:
            text = file.read(FILE_LIMIT)
        try:
            found = _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
            return f"{self._path} is not what was written there, nobody is logged in: {error}"
        if found.boot != self._boot:
            return ""
        self.key = found.key
        for session in found.sessions[:LIMIT]:
            session.checked, session.open = None, True
            self._put(session)
        return ""

    def save(self) -> None:
        """Raises OSError."""
        new = f"{self._path}.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        kept = [session for session in self._sessions.values() if session.open]
        with open(fd, "wb") as file:
            file.write(_encode(_File(self._boot, self.key, kept)))
        os.replace(new, self._path)

    def __len__(self) -> int:
        return len(self._sessions)

    def all(self) -> list[Session]:
        """Oldest first."""
        return list(self._sessions.values())

    def of(self, user: str) -> list[Session]:
        return list(self._of.get(user, {}).values())

    def users(self) -> list[str]:
        return list(self._of)

    def find(self, known: str) -> Session | None:
        return self._sessions.get(known)

    def add(self, session: Session) -> list[Session]:
        """Those that must end for it: the person's oldest. Raises OverflowError when the table is full of others'."""
        too_many = self.of(session.user)[: 1 - PER_USER]
        if len(self._sessions) - len(too_many) >= LIMIT:
            raise OverflowError(f"{LIMIT} sessions")
        self._put(session)
        return too_many

    def _put(self, session: Session) -> None:
        self._sessions[session.hash] = session
        self._of.setdefault(session.user, {})[session.hash] = session

    def drop(self, known: str) -> Session | None:
        session = self._sessions.pop(known, None)
        if session is not None:
            theirs = self._of[session.user]
            del theirs[known]
            if not theirs:
                del self._of[session.user]
        return session

    def touch(self, known: str, now: float) -> None:
        session = self._sessions.get(known)
        if session is not None:
            session.used = now
