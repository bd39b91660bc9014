"""The link to auth: what it pushes about sessions, and what it is told.

Rule 1: an auth that is away, silent or talks nonsense only makes fewer sessions live, and never more.
Rule 2: that somebody's sessions were revoked is kept before it is told, and told to each auth until one has answered.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from policy import login, wire
from policy.identity import SESSION_SHOWN
from rootd import ipc
from rootd.supervisor.auditing import Audit
from rootd.supervisor.control import Outbox
from rootd.supervisor.sessions import Sessions

WAITING = 4_096  # words for an auth that does not read
AT_ONCE = 256  # of its words in one turn
MOST_GROUPS = 200  # of one person, that a record names; the others are counted


class AuthLink:
    def __init__(
        self, loop: ipc.Loop, clock: Callable[[], float], sessions: Sessions, audit: Audit,
        note: Callable[[str], None], keep: Callable[[bytes], None],
    ) -> None:  # fmt: skip
        """keep: for the next supervisor, what of the revocations is not answered."""
        self.is_told = False  # who is logged in, by an auth since the start
        self._loop, self._clock, self._sessions, self._audit = loop, clock, sessions, audit
        self._note, self._keep = note, keep
        self._out: Outbox | None = None
        self._left_out = 0  # logins that were not recorded

    def connect(self, fd: int) -> None:
        """auth has been (re)started; owns the descriptor from now on."""
        self.disconnect()
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        self._out = Outbox(sock)
        self._sessions.linked()
        for pull in self._sessions.revoking():
            self.tell(pull)
        self.watch()

    def disconnect(self) -> None:
        if self._out is not None:
            self._loop.forget(self._out.sock.fileno())
            self._out.clear()
            self._out.sock.close()
            self._out = None

    def watch(self) -> None:
        if self._out is not None:
            events = select.EPOLLIN | (select.EPOLLOUT if self._out else 0)
            self._loop.watch(self._out.sock.fileno(), self._hear, events)

    def tell(self, pull: login.Pull) -> bool:
        """False when auth is away."""
        revokes = isinstance(pull, login.RevokeSessions)
        if revokes:
            self._keep(self._sessions.to_keep())
        with contextlib.suppress(OSError):  # it is gone: the end of its link will be heard
            if self._out is not None and (revokes or len(self._out) < WAITING):
                self._out.send(wire.PULL.encode(pull))
                return True
        return False

    def _hear(self, events: int) -> None:
        out = self._out
        if out is None:
            return
        try:
            if events & select.EPOLLOUT:
                out.flush()
            for _ in range(AT_ONCE):
                packet, _, flags, _ = ipc.after_reset(partial(out.sock.recvmsg, wire.LIMIT, 0, socket.MSG_CMSG_CLOEXEC))
                if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                    raise wire.Malformed("a packet that is cut, or has a descriptor attached")
                if not packet:
                    return self.disconnect()
                self._pushed(wire.PUSH.decode(packet))
        except BlockingIOError:
            return
        except (OSError, wire.Malformed) as problem:
            self._note(f"the link to auth is closed, its sessions end when they are not confirmed: {problem}")
            self.disconnect()

    def _pushed(self, push: login.Push) -> None:
        token = self._sessions.token_name(push.hash) if isinstance(push, login.SessionDown) else ""
        before = self._groups(push.hash) if isinstance(push, login.SessionUp) else None
        seen = self._sessions.push(push, self._clock())
        if seen is not None:
            self.tell(seen)
        match push:
            case login.SessionsEnd():
                self.is_told = True
            case login.Revoked():
                self._keep(self._sessions.to_keep())
            case login.SessionUp():
                if before is not None and self._groups(push.hash) not in (None, before):
                    self._record(push)
            case login.LoginNoted() | login.SessionDown() | login.TokenNoted():
                self._record(push, token)

    def _groups(self, session: str) -> frozenset[str] | None:
        found = self._sessions.still(session, self._clock())
        return None if found is None else found.identity.groups

    def _named(self, session: str) -> dict[str, Any]:
        """The groups of a session's person, for whom a policy is to be judged by what has been decided."""
        found = self._groups(session)
        if found is None:
            return {}
        groups = sorted(found)
        more = {"more_groups": len(groups) - MOST_GROUPS} if len(groups) > MOST_GROUPS else {}
        return {"groups": groups[:MOST_GROUPS], **more}

    def _record(
        self, push: login.LoginNoted | login.SessionDown | login.SessionUp | login.TokenNoted, token: str = ""
    ) -> None:
        """A login, other groups of who is logged in, or the end of a session: the first digits of its hash are in each
        of its decisions. token: the name of a personal one that has ended or sleeps."""
        if self._audit.is_crowded:
            self._left_out += 1
            if str(self._left_out).strip("0") == "1":
                told = f"a login or logout is not recorded ({self._left_out} so far)"
                self._note(f"the audit log cannot keep up with auth: {told}")
        elif isinstance(push, login.SessionDown):
            body = {"kind": "logout", "user": push.user, "session": push.hash[:SESSION_SHOWN], "why": push.why}
            self._audit.record(body | ({"token": token} if token else {}))
        elif isinstance(push, login.SessionUp):
            said: dict[str, Any] = {"kind": "groups", "user": push.user, "session": push.hash[:SESSION_SHOWN]}
            self._audit.record(said | self._named(push.hash))
        else:
            said = {"kind": "login", "user": push.user, "from": push.source}
            if isinstance(push, login.LoginNoted):
                said["ok"] = push.ok
            else:
                scope = {"token": push.scope.name, "for": push.scope.text} if push.scope else {}
                said |= {"kind": "token", "what": push.what, **scope, "expires": push.expires}
            named = self._named(push.session) if push.session and isinstance(push, login.LoginNoted) else {}
            self._audit.record({**said, "why": push.why, "session": (push.session or "")[:SESSION_SHOWN]} | named)
