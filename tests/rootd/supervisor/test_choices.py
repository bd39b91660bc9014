"""Choices: what counts is what is on disk, whatever log, its disk and the supervisor do meanwhile."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

import pytest
from choices_log import OFF, Log

from policy.names import USER_PATTERN
from rootd import ipc
from rootd.supervisor import choices
from rootd.supervisor.choices import AGAIN, ASKED_LIMIT, LIMIT, PATIENCE, Choice, read, write
from rootd.supervisor.operations import Already, Refusal


class Spec(NamedTuple):
    name: str
    autostart: bool
    digest: str = "d"


# -- the file ------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read() -> None:
    held = {"site": Choice(False, "alice"), "a.b-c_d": Choice(True, "root")}
    assert read(write(held)) == (held, "")
    assert read(b"") == ({}, "")
    assert read(OFF) == ({"site": Choice(False, "alice")}, "")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"{", "it is damaged"), (b"\0" * 100, "it is damaged"), (b"[]", "it is damaged"), (OFF[:-1], "it is damaged"),
        (b'{"version":2,"choices":[]}', "it is of version 2"), (b'{"version":1}', "it is damaged"),
        (b'{"version":1,"choices":{},"more":1}', "it is damaged"),
        (b'{"version":1,"choices":{"Site":[true,"alice"]}}', "it is damaged"),
        (b'{"version":1,"choices":{"site":[1,"alice"]}}', "it is damaged"),
        (b'{"version":1,"choices":{"site":[true,"../x"]}}', "it is damaged"),
        (b'{"version":1,"choices":{"site":[true,"alice",1]}}', "it is damaged"),
        (b'{"version":1,"choices":{"site":[true,"\xff"]}}', "it is damaged"),
        (b'{"more":' + b"[" * 40_000, "it is damaged"),
        (b'{"version":1,"choices":{"durward-api":[false,"alice"]}}', "it is damaged: durward-api is nobody's choice"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_understood_counts_for_nothing_and_is_said_loudly(data: bytes, problem: str) -> None:
    log = Log(data)
    assert log.held() == {}
    [note] = log.notes
    assert problem in note
    assert "autostart alone counts" in note
    log.choices.linked()
    log.choices.wake(1e6)
    assert log.sent == [], "nor is it overwritten"
    log.choose("site", False)
    log.answers()
    assert log.disk == OFF, "until somebody chooses"


def test_a_file_that_cannot_be_read_counts_for_nothing() -> None:
    log = Log(None)
    log.notes.clear()
    log.start("it is not a plain file")
    assert log.held() == {}
    assert "it is not a plain file" in log.notes[0]
    log.choose("site", False)
    log.answers()
    assert log.disk == OFF


# -- what counts -----------------------------------------------------------------------------------------------------


def test_a_choice_is_laid_over_autostart_and_nothing_else_of_a_service_changes() -> None:
    log = Log(write({"site": Choice(False, "alice"), "job": Choice(True, "bob"), "gone": Choice(True, "bob")}))
    specs: Any = [Spec("site", True), Spec("job", False), Spec("other", True), Spec("off", False)]
    assert log.choices.over(specs) == [Spec("site", False), Spec("job", True), Spec("other", True), Spec("off", False)]
    assert [log.choices.by(name) for name in ("site", "job", "gone", "other")] == ["alice", "bob", "bob", ""]


def test_it_counts_when_it_is_on_disk_and_is_told_then_and_not_before() -> None:
    log = Log()
    log.choose("site", False)
    assert (log.held(), log.told, log.loads) == ({}, [], [])
    assert log.mark
    log.answers(now=7.0)
    assert (log.held(), log.told, log.loads) == ({"site": False}, [("site", False, None, "")], [7.0])
    assert log.disk == OFF
    assert not log.mark
    assert log.choices.wake_at() is None


def test_what_the_disk_refuses_has_changed_nothing() -> None:
    log = Log(OFF)
    log.choose("site", True)
    log.choose("job", True)
    log.answers(errno.ENOSPC)
    assert log.told == [("site", True, "failed", "it cannot be kept: No space left on device")]
    assert (log.held(), log.loads) == ({"site": False}, [])
    log.answers()
    assert (log.held(), log.told[1:]) == ({"site": False, "job": True}, [("job", True, None, "")])
    assert read(log.disk or b"")[0] == log.choices._held


def test_two_at_once_are_kept_one_after_the_other_and_the_later_has_the_earlier_in_it() -> None:
    log = Log()
    log.choose("site", False)
    log.choose("job", True)
    log.choose("site", True, by="bob")
    assert len(log.sent) == 1
    log.answers()
    assert log.told == [("site", False, None, "")]
    log.answers()
    assert [(name, enabled, kind) for name, enabled, kind, _ in log.told[1:]] == [
        ("job", True, None), ("site", True, None),
    ]  # fmt: skip
    assert log.held() == {"site": True, "job": True}
    assert log.choices.by("site") == "bob"


def test_what_is_so_already_is_not_written_again_unless_it_is_about_to_change() -> None:
    log = Log(OFF)
    with pytest.raises(Already, match="site is already disabled"):
        log.choose("site", False)
    log.choose("site", True)
    log.choose("site", False)
    log.answers()
    log.answers()
    assert log.held() == {"site": False}


def test_a_choice_that_agrees_with_the_configuration_is_kept_too() -> None:
    log = Log()
    log.choose("site", True)
    log.answers()
    assert log.choices.by("site") == "alice"


def test_our_own_services_are_nobodys_choice() -> None:
    with pytest.raises(Refusal, match="durward-api is a part of durward"):
        Log().choose("durward-api", False)


def test_as_many_as_fit_into_one_message_are_kept_and_one_more_is_refused_with_words() -> None:
    names = [f"service-{number:05d}" for number in range(2_000)]
    sizes = (len(write(dict.fromkeys(names[:count], Choice(False, "alice")))) for count in range(2_000))
    fit = sum(size <= LIMIT for size in sizes) - 1
    assert fit > 1_000
    log = Log(write(dict.fromkeys(names[: fit - 1], Choice(False, "alice"))))
    log.choose(names[fit - 1], False)
    with pytest.raises(Refusal, match=f"{fit - 1} choices are kept, .* into {ipc.BODY_LIMIT} bytes"):
        log.choose(names[fit], False)
    log.answers()
    assert len(log.told) == 1
    assert len(log.disk or b"") <= ipc.BODY_LIMIT
    log.choose("service-00000", True)
    log.answers()
    assert log.held()["service-00000"], "what has its place already can be changed"


# -- log away, or silent -----------------------------------------------------------------------------------------------


def test_a_log_that_was_started_again_is_told_again() -> None:
    log = Log()
    log.choose("site", False)
    lost = log.sent.pop()
    log.choices.linked()
    assert log.sent[0].body == lost.body
    log.answers()
    assert log.told == [("site", False, None, "")]


def test_what_a_log_wrote_before_it_died_is_put_back_when_the_next_ones_disk_refuses_it() -> None:
    log = Log(OFF)
    log.choose("site", True)
    log.disk = log.sent.pop().body
    log.choices.linked()
    log.answers(errno.ENOSPC, now=1.0)
    assert [kind for *_, kind, _ in log.told] == ["failed"]
    assert log.disk != OFF
    log.choices.wake(1.0 + AGAIN)
    log.answers()
    assert log.disk == OFF


def test_what_was_asked_while_log_is_away_is_told_to_the_next_one() -> None:
    log = Log()
    log.is_there = False
    log.choose("site", False)
    assert log.sent == []
    log.is_there = True
    log.choices.linked()
    log.answers()
    assert log.told == [("site", False, None, "")]


def test_a_log_that_does_not_answer_is_waited_for_so_long_and_no_longer_and_then_it_is_taken_back() -> None:
    log = Log(OFF)
    log.choose("site", True, now=10.0)
    log.choose("job", True, now=11.0)
    assert log.choices.wake_at() == 10.0 + PATIENCE
    log.choices.wake(10.0 + PATIENCE - 0.1)
    assert log.told == []
    log.choices.wake(10.0 + PATIENCE)
    assert log.told == [("site", True, "later", "log, or its disk, does not answer")]
    log.choices.wake(11.0 + PATIENCE)
    assert [kind for *_, kind, _ in log.told] == ["later"] * 2
    assert log.held() == {"site": False}
    log.answers()
    assert log.disk != OFF, "it was written after all"
    assert log.held() == {"site": False}, "which means nothing any more"
    while log.sent:
        log.answers()
    assert log.disk == OFF, "and it was put back"
    assert not log.mark
    assert log.choices.wake_at() is None


def test_what_was_refused_and_is_there_all_the_same_is_put_back_as_soon_as_the_disk_takes_it() -> None:
    log = Log(OFF)
    log.choose("site", True)
    log.answers(errno.EIO, now=1.0, replaced=True)
    assert log.told == [("site", True, "failed", "it cannot be kept: Input/output error")]
    assert log.disk != OFF
    assert log.sent == []
    assert log.choices.wake_at() == 1.0 + AGAIN
    log.choices.wake(1.0 + AGAIN)
    for now in (7.0, 13.0):
        log.answers(errno.EIO, now=now)
        assert ["cannot be put back yet" in note for note in log.notes] == [True], "which is said once"
        log.choices.wake(now + AGAIN)
    log.answers()
    assert log.disk == OFF
    assert not log.mark


def test_a_supervisor_that_was_killed_in_between_leaves_no_choice_that_nobody_sees() -> None:
    """log writes what the dead one had asked for after the next one has read the file."""
    log = Log(OFF)
    log.choose("site", True)
    asked = log.sent.pop()
    log.start()
    assert log.held() == {"site": False}
    log.disk = asked.body
    log.choices.linked()
    log.answers()
    assert log.disk == OFF
    assert not log.mark


def test_answers_that_nobody_asked_for_mean_nothing() -> None:
    log = Log(OFF)
    for seq in (0, 1, 99):
        log.choices.kept(ipc.Message(ipc.KEPT, seq=seq), 1.0)
    assert (log.held(), log.told, log.sent) == ({"site": False}, [], [])
    log.choose("site", True)
    log.choices.kept(ipc.Message(ipc.KEPT, seq=log.sent[0].seq, arg=-7), 1.0)
    assert log.told == [("site", True, "failed", "it cannot be kept: Input/output error")]


def test_the_numbers_of_requests_begin_again_after_the_last_one() -> None:
    log = Log()
    log.choices._seq = 0xFFFF_FFFE
    for expected in (0xFFFF_FFFF, 1):
        log.choose("site", bool(expected == 1))
        assert log.sent[0].seq == expected
        log.answers()


def test_users_who_may_choose_can_be_written() -> None:
    assert choices.User.__metadata__[0].pattern == USER_PATTERN  # type: ignore[attr-defined]


def test_c8_only_so_many_choices_wait_for_a_disk_that_does_not_answer() -> None:
    """Who has hung up is not forgotten by the disk: connections that come and go are no limit."""
    log = Log()
    for number in range(ASKED_LIMIT):
        log.choose(f"s{number % 7}", bool(number % 2))
    with pytest.raises(Refusal, match="site was not disabled: 256 choices wait for the disk") as refused:
        log.choose("site", False)
    assert refused.value.kind == "later"
    log.answers()
    log.answers()
    log.choose("site", False)
