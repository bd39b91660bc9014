"""What may be asked of auth, what it answers, and what it tells the supervisor about sessions.

A token is 32 random bytes as 64 hex digits. auth and the supervisor keep only its SHA-256 (hex). A personal token is
one after scope.PREFIX; its hash is of the whole.
A name or uid that cannot exist (uid -1, a name of digits) cannot be said to the supervisor at all.
Times that end something are seconds of CLOCK_BOOTTIME; `expires` for people is RFC 3339 in UTC.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from policy.names import SOURCE_PATTERN, UID_MAX, USER_PATTERN
from policy.scope import Name, Scope

PASSWORD_LIMIT = 512  # bytes; pam_unix refuses longer ones

Token = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
PersonalToken = Annotated[str, msgspec.Meta(pattern=r"\Adurward_[0-9a-f]{64}\Z")]
Hash = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Source = Annotated[str, msgspec.Meta(pattern=SOURCE_PATTERN)]
User = Annotated[str, msgspec.Meta(pattern=USER_PATTERN)]
Uid = Annotated[int, msgspec.Meta(ge=0, le=UID_MAX)]
Group = Annotated[str, msgspec.Meta(max_length=256)]  # auth tells those alone that a rule can name
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class _Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do"):
    pass


class Login(_Ask, frozen=True, tag="login"):
    """User and password as typed. Names that cannot exist are refused like wrong passwords."""

    user: Annotated[str, msgspec.Meta(max_length=256)]
    password: Annotated[str, msgspec.Meta(max_length=4096)]
    source: Source = ""


class PeerLogin(_Ask, frozen=True, tag="peer-login"):
    """On the second socket only, with [auth] local = "peer": the identity is SO_PEERCRED's uid."""


class Logout(_Ask, frozen=True, tag="logout"):
    token: Token


class MakeToken(_Ask, frozen=True, tag="make-token"):
    """A personal token of whoever has this session, which must have begun not long ago. Answered by `TokenMade`."""

    token: Token
    scope: Scope
    seconds: Annotated[float, msgspec.Meta(gt=0, le=1e10)]  # that it is to live
    source: Source = ""


class ListTokens(_Ask, frozen=True, tag="list-tokens"):
    """Those of the same person. Answered by `Tokens`."""

    token: Token


class RevokeToken(_Ask, frozen=True, tag="revoke-token"):
    """One of the same person's, by its name. Answered by `TokenRevoked`."""

    token: Token
    name: Name
    source: Source = ""


LoginAsk = Login | PeerLogin | Logout
TokenAsk = MakeToken | ListTokens | RevokeToken
Ask = LoginAsk | TokenAsk


class _Tell(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is"):
    pass


class Granted(_Tell, frozen=True, tag="granted"):
    token: Token
    user: User
    uid: Uid
    expires: str


class Denied(_Tell, frozen=True, tag="denied"):
    """Always the same text for unknown user, wrong password and locked account."""

    text: str
    retry_after: float = 0.0  # seconds; more than 0 means the attempt was not even tried


class LoggedOut(_Tell, frozen=True, tag="logged-out"):
    pass


class TokenInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scope: Scope
    made: str
    expires: str
    used: str  # when last, to the minute; "" never
    trouble: str  # why it does not work at the moment, such as "expired" or "locked"; "" when it does


class TokenMade(_Tell, frozen=True, tag="token-made"):
    """The only time that the token itself is told."""

    token: PersonalToken
    name: Name
    expires: str


class Tokens(_Tell, frozen=True, tag="tokens"):
    tokens: list[TokenInfo]


class TokenRevoked(_Tell, frozen=True, tag="token-revoked"):
    pass


class TokenRefused(_Tell, frozen=True, tag="token-refused"):
    kind: Literal["no-session", "forbidden", "unknown", "conflict", "invalid", "later", "failed"]  # as in messages
    text: str


Tell = Granted | Denied | LoggedOut | TokenMade | Tokens | TokenRevoked | TokenRefused


# auth -> supervisor, on their own socketpair (SEQPACKET, msgspec JSON)


class _Push(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="push"):
    pass


class SessionUp(_Push, frozen=True, tag="up"):
    """This hash is this person from now on; sent again every minute as confirmation. Answered by `Seen`."""

    hash: Hash
    user: User
    uid: Uid
    groups: list[Group]
    ends: Seconds  # CLOCK_BOOTTIME seconds: the absolute end
    idle: Seconds  # seconds without a command after which the session ends
    number: Number
    token: Scope | None = None  # it is a personal token, and for that alone


class SessionDown(_Push, frozen=True, tag="down"):
    hash: Hash
    why: str  # logout, locked, expired, password changed, groups changed, revoked, idle, account gone
    number: Number = 0  # not 0: answered by `Seen`
    user: str = ""  # whose it was, for the audit log: after a revocation the supervisor does not know any more


class LoginNoted(_Push, frozen=True, tag="login"):
    """For the audit log: a login that succeeded or was refused, with the real reason (never shown outside)."""

    user: str
    source: str
    ok: bool
    why: str
    session: Hash | None = None  # of a login that succeeded


class TokenNoted(_Push, frozen=True, tag="token"):
    """For the audit log: a personal token was made or revoked, or none of them works any more."""

    user: str
    source: str
    what: Literal["made", "revoked", "damaged"]
    scope: Scope | None = None
    expires: str = ""
    session: Hash | None = None  # the token's own hash
    why: str = ""


class SessionsEnd(_Push, frozen=True, tag="sessions-end"):
    """After a (re)start of either side: every live session has been sent; forget all others."""


class Revoked(_Push, frozen=True, tag="revoked"):
    """The answer to RevokeSessions: those sessions are no more, in the file neither."""

    number: Number


Push = SessionUp | SessionDown | LoginNoted | TokenNoted | SessionsEnd | Revoked


# supervisor -> auth


class _Pull(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="pull"):
    pass


class Seen(_Pull, frozen=True, tag="seen"):
    """The supervisor has the session, or has it no more: auth may answer now."""

    number: Number


class RevokeSessions(_Pull, frozen=True, tag="revoke"):
    """Said to each auth until one has answered it by `Revoked`."""

    user: str = ""  # "" is everyone
    number: Number = 0


class Touched(_Pull, frozen=True, tag="touched"):
    """A command came with this session: its idle time begins again."""

    hash: Hash


Pull = Seen | RevokeSessions | Touched
