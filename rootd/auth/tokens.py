"""Personal tokens: the hash of each, whose it is, what it is for, and until when. And their file.

Rule 1: a token is not kept, only its SHA-256; nothing is compared but by looking that up.
Rule 2: the file outlives a boot, so a token ends by two clocks: at a time of the wall clock, and when it has been alive
        for its whole length by CLOCK_BOOTTIME, of all boots together. A wall clock that is set back makes none live
        longer than that, and one that is set ahead ends none for good: it works again when the clock is right.
Rule 3: the file is replaced whole and is on disk before it is answered; readable by auth alone. One that is not what
        we wrote is put aside: no token works then, and nothing else is concerned. One that has what was revoked, and
        cannot be replaced, is removed: that works on a disk that is full.

Times are seconds: `now` of CLOCK_BOOTTIME, `wall` since 1970.
"""

from __future__ import annotations

import contextlib
import os
from typing import Annotated

import msgspec

from policy.login import Hash, Seconds, Uid, User
from policy.scope import Scope

LIMIT = 1_000  # tokens, with table.LIMIT sessions all that the supervisor takes
PER_USER = 20
FILE_LIMIT = 16 << 20  # bytes
SAVE_EVERY = 6 * 3600.0  # seconds after which it is saved when they were used, if nothing else has changed
SLACK = 300.0  # seconds by which the wall clock may be before the time at which a token was made
MINUTE = 60.0


class Token(msgspec.Struct, forbid_unknown_fields=True):
    hash: Hash
    user: User
    uid: Uid
    scope: Scope
    made: float  # wall
    expires: float  # wall
    ends: Seconds  # by CLOCK_BOOTTIME of this boot; in the file, of the boot that it names
    used: float = 0.0  # wall, to the minute; 0 is never

    def until(self, now: float, wall: float) -> float:
        """By CLOCK_BOOTTIME, as both clocks have it now."""
        return min(self.ends, now + self.expires - wall)

    def over(self, now: float, wall: float) -> str:
        """Why it does not work, by the clocks; "" when it does."""
        if now >= self.ends or wall >= self.expires:
            return "expired"
        return "the clock has a time before it was made" if wall < self.made - SLACK else ""


class State(msgspec.Struct):
    """What this process has found out about a token; it is not kept."""

    groups: tuple[str, ...] = ()
    checked: float | None = None  # when its account was last found to be good
    why: str = "not checked yet"  # why it does not work, "" when the supervisor was told that it does
    open: bool = True  # the supervisor knows it and it was answered


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    boot: str
    at: Annotated[float, msgspec.Meta(ge=0)]  # CLOCK_BOOTTIME
    tokens: list[Token]


_decode = msgspec.json.Decoder(_File, strict=True).decode
_encode = msgspec.json.Encoder().encode


class Tokens:
    def __init__(self, path: str, boot: str) -> None:
        self.path, self._boot = path, boot
        self.dirty = False  # the file does not have what is so
        self._filed = frozenset[str]()  # the hashes that it has
        self._saved = 0.0
        self._known: dict[str, Token] = {}
        self._states: dict[str, State] = {}

    def load(self, now: float) -> str:
        """Take back those that the file has, all unchecked. What was wrong with it, or ""."""
        self._saved = now
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                text = file.read(FILE_LIMIT + 1)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{self.path}: {error.strerror}: no personal token works"
        try:
            found = _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
            return f"{self.path} is not what was written there, no personal token works; {self._aside()}: {error}"
        self._filed = frozenset(token.hash for token in found.tokens)
        for token in found.tokens[:LIMIT]:
            if found.boot != self._boot:
                token.ends = max(now + token.ends - found.at, 0.0)
            self._put(token, State())
        return ""

    def _aside(self) -> str:
        aside = f"{self.path}.damaged"
        try:
            os.replace(self.path, aside)
        except OSError as error:
            return f"it cannot be put aside ({error.strerror})"
        return f"it is kept as {os.path.basename(aside)}"

    def save(self, now: float) -> None:
        """Waits for the disk. Raises OSError; then it is tried again with the next."""
        self.dirty = True
        try:
            self._replace(now)
        except OSError:
            if self.is_stale:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
                self._sync()
                self._filed = frozenset()
            raise
        self.dirty, self._saved = False, now

    @property
    def is_stale(self) -> bool:
        """Whether the file has a token that was ended before its time: it must work for no later auth."""
        return not self._filed <= self._known.keys()

    def _replace(self, now: float) -> None:
        new = f"{self.path}.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        kept = [token for token in self._known.values() if self._states[token.hash].open]
        with open(fd, "wb") as file:
            file.write(_encode(_File(self._boot, now, kept)))
            file.flush()
            os.fsync(fd)
        os.replace(new, self.path)
        self._sync()
        self._filed = frozenset(token.hash for token in kept)

    def _sync(self) -> None:
        folder = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def is_due(self, now: float) -> bool:
        """Whether to save it although nothing was made or revoked."""
        return self.dirty or (bool(self._known) and now - self._saved >= SAVE_EVERY)

    def __len__(self) -> int:
        return len(self._known)

    def all(self) -> list[Token]:
        """Oldest first."""
        return list(self._known.values())

    def of(self, user: str) -> list[Token]:
        return [token for token in self._known.values() if token.user == user]

    def state(self, token: Token) -> State:
        return self._states[token.hash]

    def find(self, known: str) -> Token | None:
        return self._known.get(known)

    def named(self, user: str, name: str) -> Token | None:
        return next((token for token in self.of(user) if token.scope.name == name), None)

    def add(self, token: Token, state: State, now: float, wall: float) -> None:
        """Raises OverflowError when there is no room. What has expired makes room, and does not keep its name."""
        mine = self.of(token.user)
        for old in self.all() if len(self._known) >= LIMIT else mine:
            if old.over(now, wall) == "expired":
                self.drop(old.hash)
                self._filed -= {old.hash}
        if len(self.of(token.user)) >= PER_USER:
            raise OverflowError(f"you have {PER_USER} tokens, which is the limit: revoke one")
        if len(self._known) >= LIMIT:
            raise OverflowError(f"there are {LIMIT} tokens, which is the limit")
        self._put(token, state)
        self.dirty = True

    def _put(self, token: Token, state: State) -> None:
        self._known[token.hash], self._states[token.hash] = token, state

    def drop(self, known: str) -> Token | None:
        self._states.pop(known, None)
        token = self._known.pop(known, None)
        self.dirty = self.dirty or token is not None
        return token

    def touch(self, known: str, wall: float) -> None:
        token = self._known.get(known)
        if token is not None:
            token.used = wall // MINUTE * MINUTE
