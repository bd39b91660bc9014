"""log's loop over real links: what each peer may send, what it is answered, and what nonsense costs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from log_room import CONF, Room

from rootd import ipc, lifeline
from rootd.log import main
from rootd.log.rotate import RETRY
from rootd.log.source import Source


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    for role in ("privileged", "supervisor"):
        room.connect(role)
    room.turn()
    yield room
    room.close()
    for link in (room.keeper, room.log.keeper, *room.links.values(), *room.log.links.values()):
        link.close()


def test_a_pipe_that_privileged_hands_over_ends_in_its_file_and_its_end_is_told(room: Room) -> None:
    writer = room.pipe(run=9)
    os.write(writer, b"hello\n")
    room.turn()
    assert room.text() == b"hello\n"
    os.close(writer)
    room.turn()
    (drained,) = room.heard("privileged")
    assert (drained.op, drained.run, drained.slot, drained.scope, drained.name) == (ipc.DRAINED, 9, 7, 1, "site")
    assert (drained.arg, drained.extra) == (100_000, 3), "what the store's name is made of"


def test_what_was_drained_while_privileged_was_away_is_told_to_the_next_one(room: Room) -> None:
    writer = room.pipe(run=9)
    room.turn()
    room.links["privileged"].close()
    os.close(writer)
    room.turn()
    room.connect("privileged")
    room.turn()
    assert [(m.op, m.run) for m in room.heard("privileged")] == [(ipc.DRAINED, 9)]


def test_pipes_that_the_keeper_held_go_on_and_one_that_comes_twice_is_read_once(room: Room) -> None:
    reader, writer = os.pipe()
    bad = os.dup(reader)
    inherited = ipc.Inherited()
    inherited.held = {"pipe/site/stdout/9/100000/3/7": reader, "pipe/../stdout/1/2/3/4": bad}
    again = os.dup(reader)
    room.log.take_over(inherited)
    room.links["privileged"].send(
        ipc.Message(ipc.PIPE, scope=1, run=9, slot=7, name="site", arg=100_000, extra=3), again
    )
    os.close(again)
    os.write(writer, b"once\n")
    os.close(writer)
    room.turn()
    assert room.text() == b"once\n"
    assert len(room.heard("privileged")) == 1


def test_a_record_is_answered_when_it_is_on_disk(room: Room) -> None:
    room.record(seq=41, user="alice")
    room.record(seq=42, user="bob")
    room.turn()
    assert [(m.op, m.seq, m.arg) for m in room.heard("supervisor")] == [(ipc.RECORDED, 41, 0), (ipc.RECORDED, 42, 0)]
    assert [body.get("user") for body in room.audit()] == [None, "alice", "bob"]


def test_logs_are_cleared_and_log_itself_records_that_they_were(room: Room) -> None:
    os.write(room.pipe(), b"hello\n")
    room.turn()
    room.links["supervisor"].send(ipc.Message(ipc.CLEAR, seq=7, name="site"))
    room.links["supervisor"].send(ipc.Message(ipc.CLEAR, seq=8, name="site", scope=ipc.REOPEN))
    room.turn()
    assert [(m.op, m.seq, m.arg) for m in room.heard("supervisor")] == [(ipc.CLEARED, 7, 0), (ipc.CLEARED, 8, 0)]
    assert room.text() == b""
    deeds = [(body["deed"], body["process"]) for body in room.audit() if body["kind"] == "deed"]
    assert deeds == [("clear", "site")]


@pytest.mark.parametrize(("name", "scope"), [("../audit", 0), ("", 0), (".", 0), ("site", 2)])
def test_what_names_no_logs_is_nonsense(room: Room, name: str, scope: int) -> None:
    room.links["supervisor"].send(ipc.Message(ipc.CLEAR, seq=7, name=name, scope=scope))
    room.turn()
    assert room.is_closed("supervisor")


def test_choices_are_answered_when_they_are_on_disk_and_of_several_at_once_the_last_one_counts(room: Room) -> None:
    for seq, body in ((7, b"first"), (8, b"\0not understood\xff")):
        room.links["supervisor"].send(ipc.Message(ipc.KEEP, seq=seq, body=body))
    room.turn()
    kept = [(m.op, m.seq, m.arg, m.scope) for m in room.heard("supervisor")]
    assert kept == [(ipc.KEPT, 7, 0, ipc.REPLACED), (ipc.KEPT, 8, 0, ipc.REPLACED)]
    assert (room.path / "state" / "choices" / "choices.json").read_bytes() == b"\0not understood\xff"
    assert room.log.timeout(0.0) is None


def test_when_scheduled_services_ran_is_a_file_of_its_own_and_there_is_no_third(room: Room) -> None:
    for scope, body in ((0, b"choices"), (ipc.RUNS, b"runs")):
        room.links["supervisor"].send(ipc.Message(ipc.KEEP, seq=7 + scope, scope=scope, body=body))
    room.turn()
    assert {(m.op, m.seq, m.arg, m.extra) for m in room.heard("supervisor")} == {
        (ipc.KEPT, 7, 0, 0), (ipc.KEPT, 8, 0, ipc.RUNS),
    }  # fmt: skip
    kept = room.path / "state" / "choices"
    assert [(kept / name).read_bytes() for name in ("choices.json", "schedules.json")] == [b"choices", b"runs"]
    room.links["supervisor"].send(ipc.Message(ipc.KEEP, seq=9, scope=2, body=b"x"))
    room.turn()
    assert "supervisor" not in room.log.links
    assert len([*kept.iterdir()]) == 2


def test_choices_that_the_disk_does_not_take_are_answered_with_its_errno_and_nothing_else_stops(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    room.links["supervisor"].send(ipc.Message(ipc.KEEP, seq=7, body=b"x"))
    room.record(seq=8, user="alice")
    room.turn()
    answers = [(m.op, m.seq, m.arg, m.scope) for m in room.heard("supervisor")]
    assert answers == [(ipc.RECORDED, 8, 0, 0), (ipc.KEPT, 7, errno.ENOSPC, 0)]


def test_choices_of_a_supervisor_that_is_gone_are_kept_and_the_next_one_is_not_told(room: Room) -> None:
    room.links["supervisor"].send(ipc.Message(ipc.KEEP, seq=7, body=b"x"))
    room.connect("supervisor")
    room.turn()
    assert room.heard("supervisor") == []
    assert (room.path / "state" / "choices" / "choices.json").read_bytes() == b"x"


def test_deeds_are_recorded_and_ping_is_answered_after_them(room: Room) -> None:
    link = room.links["privileged"]
    link.send(ipc.Message(ipc.DEED, scope=1, run=5, slot=7, generation=2, arg=4711, name="site.1"))
    link.send(ipc.Message(ipc.DEED, scope=3, run=5, slot=7, generation=2, arg=-15))
    link.send(ipc.Message(ipc.PING, seq=3))
    room.turn()
    assert [(m.op, m.seq, m.arg) for m in room.heard("privileged")] == [(ipc.PONG, 3, 0)]
    assert room.audit()[1:] == [
        {"kind": "deed", "deed": "spawn", "process": "site.1", "run": 5, "slot": 7, "generation": 2, "arg": 4711},
        {"kind": "deed", "deed": "exited", "process": "", "run": 5, "slot": 7, "generation": 2, "arg": -15},
    ]


def test_E4_disk_trouble_is_answered_with_its_errno_deeds_wait_and_a_timer_runs_only_meanwhile(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert room.log.timeout(0.0) is None
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        room.record(seq=1, user="alice")
        room.links["privileged"].send(ipc.Message(ipc.DEED, scope=2, run=5, arg=15))
        room.links["privileged"].send(ipc.Message(ipc.PING, seq=2))
        room.turn(10.0)
        assert room.log.timeout(10.0) == RETRY
        assert [m.arg for m in room.heard("supervisor")] == [errno.ENOSPC]
        assert [m.arg for m in room.heard("privileged")] == [errno.ENOSPC], "alive, but the deed is not on disk"
        room.log.settle(10.5)
        assert room.log.timeout(10.5) == RETRY / 2
        room.log.settle(11.0)
        assert room.log.timeout(11.0) == RETRY
    room.log.settle(12.0)
    assert room.log.timeout(12.0) is None
    assert [body["kind"] for body in room.audit()] == ["start", "deed"]


def test_nothing_to_do_means_no_timer_at_all(room: Room) -> None:
    writer = room.pipe()
    os.write(writer, b"x\n")
    room.record(user="alice")
    room.turn()
    assert room.log.timeout(0.0) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../x"}, {"name": ""}, {"scope": 0}, {"scope": 3}, {"arg": 0}, {"arg": -1}, {"extra": -1},
        {"extra": 1 << 60}, {"name": "a/b"},
    ],
)  # fmt: skip
def test_E1_a_pipe_with_a_field_out_of_range_costs_privileged_its_link_and_log_goes_on(
    room: Room, fields: dict[str, Any]
) -> None:
    writer = room.pipe(**fields)
    room.turn()
    assert room.is_closed("privileged")
    with pytest.raises(BrokenPipeError):  # the descriptor that came is closed
        os.write(writer, b"x")
    os.close(writer)
    room.connect("privileged").send(ipc.Message(ipc.PING, seq=1))
    room.turn()
    assert [m.op for m in room.heard("privileged")] == [ipc.PONG]


def test_a_pipe_without_its_descriptor_or_with_two_is_nonsense(room: Room) -> None:
    for count in (0, 2):
        reader, writer = os.pipe()
        message = ipc.Message(ipc.PIPE, scope=1, run=1, slot=7, name="site", arg=1000, extra=3)
        room.links["privileged"].send(message, *[reader] * count)
        room.turn()
        assert room.is_closed("privileged")
        ipc.close_all((reader, writer))
        room.connect("privileged")


@pytest.mark.parametrize(
    ("role", "may"), [("supervisor", {ipc.RECORD, ipc.KEEP, ipc.CLEAR}), ("privileged", {ipc.PIPE, ipc.DEED, ipc.PING})]
)
def test_each_peer_may_send_its_own_messages_and_no_other(room: Room, role: str, may: set[int]) -> None:
    body = b'{"kind":"decision"}' if role == "supervisor" else b""
    for op in set(range(256)) - may:
        room.connect(role).send(ipc.Message(op, scope=1, name="site", body=body))
        room.turn()
        assert room.is_closed(role), op
    assert len(room.audit()) == 1
    assert not any(room.is_closed(other) for other in room.links if other != role)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"nonsense", b'{"kind":"deed","deed":"spawn"}', b'{"kind":"start"}', b'{"kind":"x","prev":""}',
        b'{"kind":"x","mac":"0"}', b'{"kind":"x","n":1}', b'{"kind":"x","time":"1970"}', b'{"kind":"x","a":\xff}',
    ],
)  # fmt: skip
def test_E3_a_record_that_would_forge_the_chain_or_logs_own_records_costs_the_supervisor_its_link(
    room: Room, body: bytes
) -> None:
    room.links["supervisor"].send(ipc.Message(ipc.RECORD, seq=1, body=body))
    room.turn()
    assert room.is_closed("supervisor")
    assert len(room.audit()) == 1
    room.connect("supervisor")
    room.record(seq=2, user="alice")
    room.turn()
    assert [(m.seq, m.arg) for m in room.heard("supervisor")] == [(2, 0)]


def test_bytes_that_are_no_message_and_unknown_deeds_cost_a_link(room: Room) -> None:
    room.links["privileged"].sock.send(b"x" * 17)
    room.links["supervisor"].sock.send(b"x" * 5)
    room.turn()
    assert room.is_closed("privileged")
    assert room.is_closed("supervisor")
    room.connect("privileged").send(ipc.Message(ipc.DEED, scope=99))
    room.turn()
    assert room.is_closed("privileged")


def test_what_a_dead_peer_had_sent_is_written_before_its_successor_is_heard(room: Room) -> None:
    link = room.links["privileged"]
    for run in range(100):
        link.send(ipc.Message(ipc.DEED, scope=1, run=run))
    room.connect("privileged").send(ipc.Message(ipc.DEED, scope=1, run=100))
    room.turn()
    assert [body["run"] for body in room.audit()[1:]] == list(range(101))


def test_an_answer_to_a_supervisor_that_is_gone_is_not_given_to_the_next_one(room: Room) -> None:
    room.record(seq=1, user="alice")
    room.connect("supervisor")
    room.turn()
    assert room.heard("supervisor") == []
    assert [body.get("user") for body in room.audit()] == [None, "alice"]


def test_a_supervisor_that_does_not_read_is_waited_for_and_the_others_go_on(room: Room) -> None:
    link = room.links["supervisor"]
    for seq in range(1_000):
        room.record(seq=seq, user="alice")
        if seq % 50 == 0:
            room.turn()
    room.turn()
    assert room.log.links["supervisor"].waiting, "its socket is full"
    room.links["privileged"].send(ipc.Message(ipc.PING, seq=1))
    room.turn()
    assert [m.op for m in room.heard("privileged")] == [ipc.PONG]
    answered = 0
    while found := room.heard("supervisor"):
        answered += len(found)
        room.turn()
    assert answered == 1_000
    assert link is room.links["supervisor"]


def test_where_a_supervisor_that_lives_has_closed_its_link_log_ends_to_be_linked_anew(room: Room) -> None:
    for _ in range(2):  # that it was started again is no reason to end
        room.connect("supervisor")
        room.turn()
    assert room.log.lifeline.wake_at() is None
    room.links["supervisor"].close()
    assert room.log.run() == lifeline.UNLINKED


def test_a_link_to_somebody_unknown_is_closed(room: Room) -> None:
    room.connect("api")
    room.turn()
    assert room.is_closed("api")


@pytest.mark.parametrize("how", ["keeper gone", "end"])
def test_at_the_end_all_that_came_is_written_and_the_next_start_calls_it_clean(room: Room, how: str) -> None:
    writer = room.pipe()
    os.write(writer, b"last words\n")
    room.links["privileged"].send(ipc.Message(ipc.DEED, scope=6))
    room.record(seq=1, user="alice")
    if how == "end":
        room.keeper.send(ipc.Message(ipc.END))
    else:
        room.keeper.close()
    assert room.log.run() == 0
    assert room.text() == b"last words\n"
    assert room.audit()[0]["kind"] == "start"
    assert sorted(body["kind"] for body in room.audit()[1:-1]) == ["decision", "deed"]
    assert room.audit()[-1]["kind"] == "stop"
    directories = main.open_directories(*(str(room.path / name) for name in ("log", "state", "run")))
    again = main.Log(room.log.keeper, *directories, f"{room.path}/state/log", CONF)
    again.begin()
    again.mover.close()
    again.outside.close()
    assert room.audit()[-1] == {"kind": "start", "reason": "clean"}


def test_the_time_of_a_record_is_utc_to_the_microsecond() -> None:
    text = main.wall()
    assert len(text) == len("2026-11-23T12:00:00.000000Z")
    assert text.endswith("Z")


def test_every_deed_has_a_name() -> None:
    assert sorted(main.DEEDS) == [1, 2, 3, 4, 5, 6, 7]
    assert len(set(main.DEEDS.values())) == 7


def test_what_is_lost_is_told_to_each_supervisor(room: Room) -> None:
    whose = Source("site", 2, 1, 7, 1, 1)
    room.log.lost(whose, 30, 2, True)
    peer = room.connect("supervisor")
    room.turn()
    for so_far, over in ((5, False), (7, False), (8, True)):
        room.log.lost(whose, so_far, 1, over)
    for size, lines in ((30, 2), (35, 3), (37, 3), (38, 3)):
        assert f"op={ipc.LOST} scope=2 arg={size} extra={lines} name='site'" in str(peer.receive())
