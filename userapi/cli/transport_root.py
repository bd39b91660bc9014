"""Asking as root on root.sock: policy.messages' JSON by hand, one packet each way, without the api and without PAM.

The same methods as transport_http.Http. Root is the identity `root`: there is no session.
"""

from __future__ import annotations

import array
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from userapi.cli.failure import Failure
from userapi.cli.spelled import spelled

LIMIT = 64 * 1024  # bytes of a packet
QUICK = 15.0  # seconds for an answer
ATTEMPTS = 50
AGAIN = 0.2
POLL = 0.25


class Root:
    url = "root"

    def __init__(self, path: str, say: Callable[[str], None] = lambda text: None) -> None:
        """say: for people, that what was being told has broken off and is asked for again."""
        self._path, self._say = path, say
        self.trouble = self.version = ""  # of the daemon, as the last status told

    def _line(self, command: dict[str, Any], reason: str = "") -> socket.socket:
        spelled(
            command.get("service"), command.get("user"), command.get("signal"), reason
        )  # or the supervisor hangs up
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            line.settimeout(QUICK)
            line.connect(self._path)
            line.send(json.dumps({"id": 1, "command": command, "reason": reason}).encode())
        except PermissionError:
            line.close()
            raise Failure("forbidden", f"{self._path} is for root alone: use sudo, or go without --root") from None
        except OSError as error:
            line.close()
            raise Failure(
                "unreachable", f"no daemon answers at {self._path}: {error.strerror}; is it running?"
            ) from None
        return line

    def _receive(self, line: socket.socket) -> tuple[dict[str, Any], int]:
        """A reply and the descriptor with it or -1. Raises Failure, and ConnectionError at the connection's end."""
        try:
            packet, control, flags, _ = line.recvmsg(LIMIT + 1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            raise Failure("later", "the supervisor does not answer: it is being restarted; try again") from None
        descriptor = -1
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptor = array.array("i", data[:4])[0]
        if not packet or flags & socket.MSG_TRUNC:
            if descriptor >= 0:
                os.close(descriptor)
            raise ConnectionError("the supervisor closed the connection")
        reply: dict[str, Any] = json.loads(packet)["reply"]
        if reply["is"] == "refused":
            more = {key: reply[key] for key in ("rule", "file", "line", "would_help") if key in reply}
            raise Failure(reply["kind"], reply["text"], **more)
        return reply, descriptor

    def _ask(self, do: str, reason: str = "", **more: Any) -> list[dict[str, Any]]:
        command = {"do": do, **{key: value for key, value in more.items() if value}}
        replies = []
        with self._line(command, reason) as line:
            try:
                while True:
                    reply, descriptor = self._receive(line)
                    if descriptor >= 0:
                        os.close(descriptor)
                    replies.append(reply)
                    if not reply.get("more"):
                        return replies
            except OSError:
                raise Failure(
                    "later", "the supervisor was restarted before it answered: look, then try again"
                ) from None

    def login(self, user: str, password: str) -> dict[str, Any]:
        raise Failure("usage", "root needs no session on root.sock")

    def logout(self) -> None:
        raise Failure("usage", "root needs no session on root.sock")

    def make_token(self, name: str, may: list[str], on: list[str], expires: str) -> dict[str, Any]:
        raise Failure("usage", "root has no tokens: log in as a person")

    def tokens(self) -> list[dict[str, Any]]:
        raise Failure("usage", "root has no tokens: durward --root revoke USER ends somebody's, with his sessions")

    def revoke_token(self, name: str) -> None:
        self.tokens()

    def status(self, service: str | None) -> list[dict[str, Any]]:
        replies = self._ask("status", service=service)
        self.trouble, self.version = str(replies[-1].get("trouble", "")), str(replies[-1].get("version", ""))
        if self.trouble:
            self._say(self.trouble)
        return [found for reply in replies for found in reply["services"]]

    def describe(self, service: str) -> dict[str, Any]:
        return _without_tag(self._ask("describe", service=service)[-1])

    def whoami(self) -> dict[str, Any]:
        replies = self._ask("what-may-i")
        rights = [found for reply in replies for found in reply["rights"]]
        return {"token": "", **_without_tag(replies[-1]), "rights": rights}

    def why(self, action: str, service: str | None) -> dict[str, Any]:
        return _without_tag(self._ask("what-may-i", action=action, service=service)[-1])

    def command(self, do: str, service: str | None = None, **more: Any) -> dict[str, Any]:
        return _without_tag(self._ask(do, service=service, **more)[-1])

    def cancel(self, number: int, reason: str = "") -> dict[str, Any]:
        return _without_tag(self._ask("cancel", reason, operation=number)[-1])

    def approvals(self) -> list[dict[str, Any]]:
        return [found for reply in self._ask("approvals", changes=True) for found in reply["approvals"]]

    def approve(self, number: int, reason: str = "") -> dict[str, Any]:
        return _without_tag(self._ask("approve", reason, approval=number)[-1])

    def withdraw(self, number: int, reason: str = "") -> dict[str, Any]:
        return _without_tag(self._ask("withdraw", reason, approval=number)[-1])

    def operation(self, number: int, after: int = 0) -> Iterator[dict[str, Any]]:
        """A daemon that is gone is not waited for: it may be what was asked for."""
        for event in self._watch(after, operation=number):
            yield event
            if event["is"] == "ended":
                return

    def operations(self, service: str | None, ended: bool) -> list[dict[str, Any]]:
        replies = self._ask("operations", service=service, ended=ended)
        return [found for reply in replies for found in reply["operations"]]

    def events(self, service: str | None, after: int = 0) -> Iterator[dict[str, Any]]:
        return self._watch(after, self._say, service=service)

    def _watch(self, after: int, say: Callable[[str], None] | None = None, **asked: Any) -> Iterator[dict[str, Any]]:
        """Events after that number; asked for again, after the last one, when the connection ends."""
        from userapi.cli.resumed import Resumed

        resumed = Resumed(after, say or (lambda text: None), ATTEMPTS, "operation" in asked)
        while resumed.may_try():
            more = {key: value for key, value in {**asked, "after": resumed.after}.items() if value}
            try:
                with self._line({"do": "watch", **more}) as line:
                    line.settimeout(None)
                    while True:
                        event, descriptor = self._receive(line)
                        if descriptor >= 0:
                            os.close(descriptor)
                        if resumed.is_news(event):
                            yield event
            except Failure as failure:
                if say is None or not resumed.begun:
                    raise
                resumed.broke(failure)
            except OSError as error:
                resumed.broke(error)
            time.sleep(AGAIN)
        raise resumed.given_up()

    def logs(self, service: str, stream: str, process: str, lines: int, follow: bool) -> Iterator[bytes]:
        opener = self._opener({"do": "open-log", "service": service, "stream": stream, "process": process})
        return self._tailed(opener, lines, follow, 40)

    def policy(self) -> bytes:
        """JSON of policy.source.Source."""
        descriptor = self._opener({"do": "read-policy"})(0)
        assert descriptor is not None
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            return file.read()

    def audit(self, span: Any) -> Iterator[bytes]:
        """Lines of the audit log; span: userapi.audit.files.Span."""
        from userapi.audit import reading

        try:
            yield from reading.lines(self._opener({"do": "open-audit"}), span)
        except reading.TooMany as error:
            raise Failure("usage", str(error)) from None

    def audit_tail(self, lines: int, follow: bool) -> Iterator[bytes]:
        return self._tailed(self._opener({"do": "open-audit"}), lines, follow, 240)  # each question is a record of it

    def _opener(self, command: dict[str, Any]) -> Callable[[int], int | None]:
        def opener(rotated: int) -> int | None:
            with self._line({**command, **({"rotated": rotated} if rotated else {})}) as line:
                try:
                    descriptor = self._receive(line)[1]
                except Failure as failure:
                    if rotated and failure.kind == "unknown":
                        return None
                    raise
                except OSError as error:
                    raise Failure("later", f"{error}: try again") from None
            if descriptor < 0 and (rotated or command["do"] != "open-log"):
                raise Failure("failed", "the supervisor opened no log")
            return descriptor if descriptor >= 0 else None

        return opener

    @staticmethod
    def _tailed(opener: Callable[[int], int | None], lines: int, follow: bool, often: int) -> Iterator[bytes]:
        """often: so many POLLs between two questions whether it may still be read."""
        from userapi.tail import Tail

        tail = Tail(opener)
        try:
            tail.begin(lines)
            yield from tail.more(False)
            idle = 0
            while follow:
                time.sleep(POLL)
                idle += 1
                yield from tail.more(idle % often == 0)
        finally:
            tail.close()


def _without_tag(reply: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in reply.items() if key != "is"}
