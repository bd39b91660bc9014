"""rootd/probe/checks beside a service that sends descriptors whose end takes an hour."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from lingering import does, lingering, rights

from rootd import ipc
from rootd.probe import checks


@pytest.mark.parametrize("heard", [True, False])
def test_a_descriptor_whose_end_takes_an_hour_holds_up_no_check(tmp_path: Path, heard: bool) -> None:
    def act() -> None:
        answers: list[str] = []
        loop = ipc.Loop()
        made = checks.Checks(loop, lambda _, problem: answers.append(problem))
        with socket.socket(socket.AF_UNIX) as server, lingering() as sock:
            server.bind(str(tmp_path / "door"))
            server.listen()
            message = ipc.Message(ipc.CHECK, scope=ipc.HTTP, arg=20_000, name=f"unix:{tmp_path}/door", body=b"/")
            made.begin(checks.asked(message), 0.0)
            conn, _ = server.accept()
            conn.sendmsg([b"HTTP/1.1 200 OK\r\n"], rights(sock))
            sock.close()
            if heard:
                while not answers:
                    loop.turn(1.0)
                assert answers == [""]
            else:
                made.clear()

    assert does(act)
