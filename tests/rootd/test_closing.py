"""What others have had in their hands keeps nobody who lets go of it."""

from __future__ import annotations

import signal
import socket

import pytest
from lingering import does, lingering, rights

from rootd import closing


def test_a_socket_that_is_to_linger_keeps_nobody_who_closes_it_last() -> None:
    def act() -> None:
        with lingering() as sock:
            closing.close(sock.detach())

    assert does(act)


@pytest.mark.parametrize("read", [True, False])
def test_a_message_with_such_sockets_keeps_nobody_who_reads_it_or_closes_what_it_waits_in(read: bool) -> None:
    def act() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with lingering() as one, lingering() as two:
            theirs.sendmsg([b"READY=1"], rights(*[one] * 100, two))
            one.close()
            two.close()
            if read:
                assert closing.at_once(lambda: ours.recv(100)) == b"READY=1"
            closing.close(ours.detach())

    assert does(act)


def test_what_it_gives_and_what_it_raises_is_that_of_the_call_and_no_timer_is_left() -> None:
    assert closing.at_once(lambda: 7) == 7
    with pytest.raises(BlockingIOError):
        closing.at_once(_raise)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL, "what is forked has none of it"


def _raise() -> None:
    raise BlockingIOError
