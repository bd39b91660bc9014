"""PAM in children, with real services, a module that misbehaves, and children that do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import given, strategies as st

from rootd import ipc
from rootd.auth import pam
from rootd.auth.pam import Children, Library, Refused, Transaction, Unsure, Verdict, understand
from rootd.auth.timers import Timers

FINE = Verdict(True, "", True, "alice", 1001, ("alice",), "mark")


class House:
    """A loop with its timers, for a moment."""

    def __init__(self, limit: int = 2, room: int = 2) -> None:
        self.loop, self.timers = ipc.Loop(), Timers()
        self.children = Children(self.loop, self.timers, time.monotonic, limit, room)
        self.done: list[Verdict] = []

    def run(self, work: Callable[[], Verdict]) -> bool:
        return self.children.run(work, self.done.append)

    def wait(self, count: int) -> list[Verdict]:
        until = time.monotonic() + 20.0
        while len(self.done) < count:
            assert time.monotonic() < until
            due = self.timers.next()
            self.loop.turn(max(0.0, min(until, due if due is not None else until) - time.monotonic()))
            self.timers.run(time.monotonic())
        return self.done


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    before = len(os.listdir("/proc/self/fd"))
    yield made
    assert made.children.running == 0
    assert len(os.listdir("/proc/self/fd")) == before
    assert made.timers.next() is None
    made.loop.close()


def test_what_a_child_has_found_out_is_what_it_says(house: House) -> None:
    assert house.run(lambda: FINE)
    assert house.wait(1) == [FINE]


def test_a8_whatever_a_child_raises_is_a_no(house: House) -> None:
    def refuse() -> Verdict:
        raise Refused("expired")

    def doubt() -> Verdict:
        raise Unsure("no idea")

    def fail() -> Verdict:
        raise ZeroDivisionError

    assert house.run(refuse)
    assert house.wait(1)[-1] == Verdict(False, "expired")
    assert house.run(doubt)
    assert house.wait(2)[-1] == Verdict(False, "no idea", sure=False)
    assert house.run(fail)
    assert house.wait(3)[-1] == Verdict(False, "PAM crashed", sure=False)


@pytest.mark.parametrize(
    "end",
    [lambda: os._exit(0), lambda: os._exit(1), os.abort, lambda: os.kill(os.getpid(), signal.SIGKILL),
     lambda: os.write(3, msgspec.json.encode(FINE)) and os._exit(1), lambda: os.write(3, b"{}") and os._exit(0),
     lambda: os.write(3, b"{" * 60_000) and os._exit(0), lambda: os.close(3)],
)  # fmt: skip
def test_a8_a_child_that_dies_or_says_nonsense_has_said_no(house: House, end: Callable[[], object]) -> None:
    def work() -> Verdict:
        end()
        return FINE

    assert house.run(work)
    verdict = house.wait(1)[0]
    assert (verdict.ok, verdict.sure) == (False, False)


def test_a8_a_child_that_hangs_is_killed_when_its_time_is_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pam, "PATIENCE", 0.1)

    def hang() -> Verdict:
        while True:
            signal.pause()

    assert house.run(hang)
    assert house.wait(1) == [Verdict(False, "PAM did not answer within 0 s", sure=False)]
    assert pam.once(hang) == Verdict(False, "PAM did not answer within 0 s", sure=False)


def test_a8_a_helper_that_outlives_its_child_is_not_waited_for(house: House) -> None:
    def work() -> Verdict:
        if os.fork() == 0:
            signal.alarm(5)  # it ends by that
            signal.pause()
        return FINE

    assert house.run(work)
    begun = time.monotonic()
    assert house.wait(1) == [FINE]
    assert time.monotonic() - begun < 4.0


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_a8_nothing_but_a_whole_answer_of_a_child_that_ended_in_order_is_a_yes(
    answer: bytes, clean: bool, late: bool
) -> None:
    whole = msgspec.json.encode(FINE)
    assert not understand(answer, clean, late).ok
    assert understand(whole, clean, late).ok is (clean and not late)
    assert not understand(whole + answer, clean, late).ok or not answer.strip()
    assert not understand(whole[: len(answer)], True, False).ok or len(answer) >= len(whole)


def test_so_many_at_once_so_many_waiting_and_no_more(house: House) -> None:
    assert [house.run(lambda: FINE) for _ in range(5)] == [True] * 4 + [False]
    assert house.children.running == 2
    assert house.wait(4) == [FINE] * 4
    assert house.run(lambda: FINE)
    assert house.wait(5) == [FINE] * 5


def test_nothing_of_ours_is_open_in_a_child(house: House) -> None:
    def work() -> Verdict:
        return Verdict(True, ",".join(sorted(os.listdir("/proc/self/fd"))))

    assert house.run(work)
    listing = "4"  # of /proc/self/fd itself
    assert house.wait(1)[0].why == f"0,1,2,3,{listing}"


def test_without_a_process_to_be_had_the_answer_is_no_and_later_ones_go_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", none_left)
        assert house.run(lambda: FINE)
        assert house.done == []
        assert house.wait(1)[0].why == "no process for it: Resource temporarily unavailable"
    assert house.run(lambda: FINE)
    assert house.wait(2)[1] == FINE


# the conversation


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


@pytest.fixture
def misbehaving(service, module, library) -> Callable[..., Verdict]:
    """What a login says by a service whose only module does this."""

    def ask(how: str, user: str = "daemon", password: str = "secret", source: str = "192.0.2.1") -> Verdict:
        name = service("how", f"auth required {module} {how}\naccount required {module} {how}\n")

        def work() -> Verdict:
            transaction = Transaction(library, name, user, password.encode(), source)
            transaction.authenticate()
            transaction.account()
            transaction.end()
            return FINE

        return pam.once(work)

    return ask


@pytest.mark.root
@pytest.mark.parametrize(
    "how", ["once secret", "told secret", "flags", "rhost 192.0.2.1", "tty durward", "become daemon", "code 0"]
)
def test_what_a_module_may_ask_and_is_told(misbehaving, how: str) -> None:
    assert misbehaving(how) == FINE


@pytest.mark.root
@pytest.mark.parametrize("how", ["twice secret", "together secret", "echo secret"])
def test_the_password_answers_the_first_hidden_prompt_and_no_other(misbehaving, how: str) -> None:
    assert not misbehaving(how).ok


@pytest.mark.root
@pytest.mark.parametrize("other", ["root", "bin", "Daemon", "daemonx", "daemo"])
def test_a7_a_module_that_makes_somebody_else_of_the_user_logs_nobody_in(misbehaving, other: str) -> None:
    assert misbehaving(f"become {other}") == Verdict(False, "PAM has authenticated somebody else")


@pytest.mark.root
def test_a8_a_module_that_crashes_or_ends_the_process_logs_nobody_in(misbehaving) -> None:
    for how in ("crash", "leave"):
        verdict = misbehaving(how)
        assert (verdict.ok, verdict.sure) == (False, False)


@pytest.mark.root
@pytest.mark.parametrize("code", range(1, 33))
def test_a8_every_code_of_pam_but_success_is_a_no(misbehaving, code: int) -> None:
    verdict = misbehaving(f"code {code}")
    assert not verdict.ok
    assert verdict.sure is (code in pam.VERDICTS or code in (25, 32))  # "ignore" of all modules is a no of PAM's own


@pytest.mark.root
def test_a20_a_module_that_wants_to_delay_does_not(misbehaving) -> None:
    begun = time.monotonic()
    assert misbehaving("delay") == Verdict(False, "wrong password, or locked")
    assert time.monotonic() - begun < 4.0


@pytest.mark.root
@pytest.mark.parametrize("name", ["durward-no-such-service", "../pam.d/login", "", "."])
def test_a_service_that_is_not_configured_is_refused_and_other_is_not_asked(library: Library, name: str) -> None:
    assert os.path.exists("/etc/pam.d/other")
    with pytest.raises(Unsure, match="no PAM service"):
        Transaction(library, name, "daemon", b"", "")


@pytest.mark.root
def test_the_modules_of_a_service_stay_loaded(service, module) -> None:
    name = service("warm", f"auth required {module}\n")

    def work() -> Verdict:
        Library().warm(name)
        with open("/proc/self/maps") as maps:
            return Verdict(module in maps.read())

    assert pam.once(work).ok
