"""Asking the supervisor and auth over their Unix sockets, with a deadline on everything.

Rule 1: one connection a request. The listening sockets outlive a restart of the peer, so a request that comes
        while it is away waits in the queue and is answered by the next one.
Rule 2: a question is asked again until PATIENCE is over. A command that may have been accepted is never sent
        twice: it ends in `later`, and the person looks.
Rule 3: every failure is a Refusal. Nothing here hangs, and a descriptor that nobody asked for is closed.
"""

from __future__ import annotations

import array
import os
import socket
import time
from collections.abc import Generator
from typing import Literal

import msgspec

from policy import messages, wire
from policy.login import (
    Ask,
    Denied,
    Granted,
    ListTokens,
    LoggedOut,
    Login,
    Logout,
    MakeToken,
    RevokeToken,
    Tell,
    TokenMade,
    TokenRefused,
    TokenRevoked,
    Tokens,
)
from policy.scope import Scope

PATIENCE = 5.0  # seconds that a restart of the peer may take
ANSWER = 10.0  # seconds for the answer to a command: it waits for the audit log's disk
LOGIN = 30.0  # seconds for PAM, delays of ours included
FIRST = 0.2  # seconds in which a watch that is refused is usually told so
PAUSE = 0.05  # seconds between two attempts to connect
DOES_NOTHING = (
    messages.Status, messages.Describe, messages.Watch, messages.ListOperations, messages.OpenLog, messages.OpenAudit,
    messages.ReadPolicy, messages.WhatMayI, messages.ListApprovals,
)  # fmt: skip


class Refusal(Exception):
    """An answer that is a no, whoever said it."""

    def __init__(self, refused: messages.Refused, retry_after: int = 0) -> None:
        super().__init__(refused.text)
        self.refused = refused
        self.retry_after = retry_after or (2 if refused.kind == "later" else 0)


class Away(Exception):
    """Nobody has the request: it may be sent again."""


class Lost(Exception):
    """The request was taken, and no answer came: nobody knows."""


def later(text: str) -> Refusal:
    return Refusal(messages.Refused(kind="later", text=text))


class Line:
    """One connection of SEQPACKET. Everything raises Away or Lost, by whether a request could have been taken."""

    def __init__(self, path: str, until: float) -> None:
        self._asked = False
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                self._socket.setblocking(False)
                self._socket.connect(path)
                return
            except OSError as error:
                self._socket.close()
                if time.monotonic() + PAUSE > until:
                    raise Away(f"{path}: {error.strerror}") from None
            time.sleep(PAUSE)  # its queue is full, or the daemon is being started

    def send(self, packet: bytes) -> None:
        try:
            self._socket.send(packet)
        except OSError as error:
            raise Away(f"not sent: {error.strerror}") from None
        self._asked = True

    def receive(self, until: float) -> tuple[bytes, int]:
        """A packet, and the one descriptor that came with it or -1. Raises TimeoutError when nothing came."""
        left = until - time.monotonic()
        self._socket.settimeout(max(left, 0.001))
        try:
            packet, control, flags, _ = self._socket.recvmsg(
                wire.LIMIT + 1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
            )
        except TimeoutError:
            raise
        except OSError as error:
            raise Lost(f"connection lost: {error.strerror}") from None
        handed = _descriptors(control)
        if not packet or len(handed) > 1 or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for descriptor in handed:
                os.close(descriptor)
            raise Lost("connection closed" if not packet else "a packet that is not one of ours")
        return packet, handed[0] if handed else -1

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


class Supervisor:
    """control.sock. `patience` and `answer` are seconds."""

    def __init__(self, path: str, patience: float = PATIENCE, answer: float = ANSWER) -> None:
        self._path = path
        self._patience = patience
        self._answer = answer

    def ask(self, session: str, command: messages.Command, source: str, reason: str = "") -> messages.Reply:
        """The final reply, never Refused. Raises Refusal. Services come in one piece."""
        return self._ask(session, command, source, False, reason)[0]

    def open_log(
        self, session: str, command: messages.OpenLog | messages.OpenAudit | messages.ReadPolicy, source: str
    ) -> tuple[messages.LogOpened, int]:
        """What was opened, and its descriptor, which is the caller's to close; -1: nothing was written to it yet.

        Raises Refusal.
        """
        reply, descriptor = self._ask(session, command, source, True)
        empty = isinstance(command, messages.OpenLog) and not command.rotated
        if not isinstance(reply, messages.LogOpened) or (descriptor < 0 and not empty):
            if descriptor >= 0:
                os.close(descriptor)
            raise Refusal(messages.Refused(kind="failed", text="the supervisor opened no log"))
        return reply, descriptor

    def health(self) -> Literal["ok", "trouble", "away"]:
        """Does it answer at all: a request without a session is refused by a supervisor that works, and so it says
        whether its audit log is in trouble."""
        request = messages.Request(id=1, command=messages.WhatMayI())
        until = time.monotonic() + min(2.0, self._answer)
        try:
            with Line(self._path, until) as line:
                line.send(wire.REQUEST.encode(request))
                _reply(line, until, False)
        except Refusal as error:
            return "trouble" if error.refused.trouble else "ok"
        except (Away, Lost, TimeoutError):
            return "away"
        return "ok"

    def watch(
        self, session: str, command: messages.Watch, source: str, idle: float = 1.0
    ) -> Generator[messages.Event | None, None, None]:
        """Events as they come; None after `idle` seconds without one. Ends with the connection. Raises Refusal.

        The first None comes sooner, so that a caller learns quickly that nothing was refused.
        """
        request = messages.Request(id=1, command=command, session=session, source=source[:100])
        try:
            line = Line(self._path, time.monotonic() + self._patience)
        except Away:
            raise _away() from None
        with line:
            try:
                line.send(wire.REQUEST.encode(request))
            except Away:
                raise _away() from None
            patience = min(FIRST, idle)
            while True:
                try:
                    event, _ = _reply(line, time.monotonic() + patience, False)
                    patience = idle
                except TimeoutError:
                    patience = idle
                    yield None
                    continue
                except Lost:
                    return
                if isinstance(event, messages.Event):
                    yield event
                if isinstance(event, messages.Dropped):
                    return

    def _ask(
        self, session: str, command: messages.Command, source: str, wants: bool, reason: str = ""
    ) -> tuple[messages.Reply, int]:
        packet = wire.REQUEST.encode(messages.Request(1, command, session, source[:100], reason))
        begun = time.monotonic()
        again = begun + self._patience
        until = begun + max(self._patience, self._answer)
        while True:
            try:
                with Line(self._path, again) as line:
                    line.send(packet)
                    return _final(line, until, wants)
            except Away:
                if time.monotonic() + PAUSE > again:
                    raise _away() from None
            except (Lost, TimeoutError):
                if not isinstance(command, DOES_NOTHING):
                    raise later(
                        "the supervisor took the request and was restarted before it answered: look at the status"
                        " whether it was done, before you ask again"
                    ) from None
                if time.monotonic() + PAUSE > again:
                    raise _away() from None
            time.sleep(PAUSE)


def _away() -> Refusal:
    return later("the supervisor does not answer: it is being restarted, or the daemon is down; try again")


def _reply(line: Line, until: float, wants: bool) -> tuple[messages.Reply | messages.Event, int]:
    packet, descriptor = line.receive(until)
    if descriptor >= 0 and not wants:
        os.close(descriptor)
        raise Lost("a descriptor that nobody asked for")
    try:
        answer = wire.ANSWER.decode(packet)
    except wire.Malformed as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise Lost(str(error)) from None
    if isinstance(answer.reply, messages.Refused):
        if descriptor >= 0:
            os.close(descriptor)
        raise Refusal(answer.reply)
    return answer.reply, descriptor


def _final(line: Line, until: float, wants: bool) -> tuple[messages.Reply, int]:
    services: list[messages.ServiceInfo] = []
    operations: list[messages.OperationInfo] = []
    approvals: list[messages.ApprovalInfo] = []
    rights: list[messages.Right] = []
    while True:
        reply, descriptor = _reply(line, until, wants)
        if isinstance(reply, messages.Event):
            raise Lost("an event that nobody asked for")
        if isinstance(reply, messages.Services):
            services += reply.services
            reply = msgspec.structs.replace(reply, services=services)  # the last one's trouble is that of all
        elif isinstance(reply, messages.Listed):
            operations += reply.operations
            reply = msgspec.structs.replace(reply, operations=operations)
        elif isinstance(reply, messages.Approvals):
            approvals += reply.approvals
            reply = msgspec.structs.replace(reply, approvals=approvals)
        elif isinstance(reply, messages.Rights):
            rights += reply.rights
            reply = msgspec.structs.replace(reply, rights=rights)
        else:
            return reply, descriptor
        if not reply.more:
            return reply, -1


def _else() -> Refusal:
    return Refusal(messages.Refused(kind="failed", text="auth answered something else"))


class Auth:
    """auth.sock. A login is never tried twice: an attempt counts."""

    def __init__(self, path: str, patience: float = PATIENCE, answer: float = LOGIN) -> None:
        self._path = path
        self._patience = patience
        self._answer = answer

    def login(self, user: str, password: str, source: str) -> Granted | Denied:
        tell = self._ask(Login(user=user, password=password, source=source[:100]))
        if not isinstance(tell, Granted | Denied):
            raise _else()
        return tell

    def logout(self, token: str) -> bool:
        """True when there was such a session."""
        return isinstance(self._ask(Logout(token=token)), LoggedOut)

    def make_token(self, session: str, scope: Scope, seconds: float, source: str) -> TokenMade:
        """Raises Refusal, as the two below."""
        tell = self._token(MakeToken(session, scope, seconds, source[:100]))
        if not isinstance(tell, TokenMade):
            raise _else()
        return tell

    def tokens(self, session: str) -> Tokens:
        tell = self._token(ListTokens(session))
        if not isinstance(tell, Tokens):
            raise _else()
        return tell

    def revoke_token(self, session: str, name: str, source: str) -> None:
        if not isinstance(self._token(RevokeToken(session, name, source[:100])), TokenRevoked):
            raise _else()

    def _token(self, ask: Ask) -> Tell:
        tell = self._ask(ask)
        if isinstance(tell, TokenRefused):
            raise Refusal(messages.Refused(kind=tell.kind, text=tell.text))
        return tell

    def _ask(self, ask: Ask) -> Tell:
        packet = wire.ASK.encode(ask)
        begun = time.monotonic()
        again = begun + self._patience
        while True:
            try:
                with Line(self._path, again) as line:
                    line.send(packet)
                    answer, descriptor = line.receive(begun + self._answer)
                if descriptor >= 0:
                    os.close(descriptor)
                return wire.TELL.decode(answer)
            except Away:
                if time.monotonic() + PAUSE > again:
                    raise later("auth does not answer: it is being restarted, or the daemon is down") from None
            except (Lost, TimeoutError, wire.Malformed):
                raise later("auth did not answer in time: try again") from None
            time.sleep(PAUSE)
