"""root.sock by hand."""

from __future__ import annotations

import os

import pytest

from policy import messages
from userapi.cli.failure import Failure
from userapi.cli.transport_root import Root


@pytest.fixture
def ask(root, world, monkeypatch):
    monkeypatch.setattr("userapi.cli.transport_root.AGAIN", 0.01)
    monkeypatch.setattr("userapi.cli.transport_root.ATTEMPTS", 3)
    monkeypatch.setattr("userapi.cli.transport_root.QUICK", 0.5)
    return Root(str(world.run / "root.sock"))


def test_every_command_is_one_that_the_contract_knows(ask, root, world):
    """The peer decodes by policy.wire, strictly."""
    assert [service["name"] for service in ask.status(None)] == ["site", "worker"]
    assert ask.describe("site")["sockets"] == ["http"]
    assert ask.whoami()["user"] == "alice"
    assert ask.command("restart", "site", hard=True)["operation"] == 7
    assert ask.command("signal", "site", signal="HUP")["operation"] == 7
    assert ask.command("revoke", user=None, everyone=True) == {"text": "2 sessions ended"}
    assert [event["is"] for event in ask.operation(7)] == ["step", "step", "ended"]
    world.answers[messages.WhatMayI] = messages.Decided(allowed=True, text="root may")
    assert ask.why("stop", "site")["allowed"]
    assert [request.command for request in root.asked] == [
        messages.Status(),
        messages.Describe(service="site"),
        messages.WhatMayI(),
        messages.Restart(service="site", hard=True),
        messages.Signal(service="site", signal="HUP"),
        messages.Revoke(everyone=True),
        messages.Watch(operation=7),
        messages.WhatMayI(action="stop", service="site"),
    ]


def test_what_cannot_be_a_name_is_refused_before_anybody_is_asked(ask, root):
    for words in (
        {"do": "stop", "service": "No Such"},
        {"do": "signal", "service": "site", "signal": "XX"},
        {"do": "revoke", "user": "al ice"},
    ):
        with pytest.raises(Failure):
            ask.command(**words)
    with pytest.raises(Failure, match="no service 'No' that you may view"):
        ask.status("No")
    assert root.asked == []


def test_rights_in_several_packets_come_in_one_piece(ask, world):
    rights = [messages.Right(name, ["view"]) for name in ("a", "b")]
    told = [messages.Rights("root", 0, [], "", [one], more=one is rights[0]) for one in rights]
    world.answers[messages.WhatMayI] = told
    found = ask.whoami()
    assert [right["service"] for right in found["rights"]] == ["a", "b"]
    assert (found["user"], found["token"], "more" in found) == ("root", "", False)


def test_services_in_several_packets_come_in_one_piece(ask, world):
    world.answers[messages.Status] = [
        messages.Services(services=[world.site], more=True),
        messages.Services(services=[world.worker]),
    ]
    assert [service["name"] for service in ask.status(None)] == ["site", "worker"]


def test_refusals_deaths_and_hangs_have_their_kinds(ask, world, tmp_path):
    for answer, kind in (
        (messages.Refused(kind="not-running", text="no"), "not-running"),
        (world.die, "later"),
        (world.hang, "later"),
    ):
        world.answers[messages.Stop] = answer
        with pytest.raises(Failure) as failure:
            ask.command("stop", "site")
        assert failure.value.kind == kind
    with pytest.raises(Failure) as failure:
        Root(str(tmp_path / "none")).status(None)
    assert failure.value.exit == 69
    for question in (ask.logout, lambda: ask.login("root", "x")):
        with pytest.raises(Failure):
            question()


def test_the_door_of_root_says_so_to_others(ask, monkeypatch):
    def closed(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("userapi.cli.transport_root.socket.socket.connect", closed)
    with pytest.raises(Failure, match="is for root alone") as failure:
        ask.status(None)
    assert failure.value.exit == 77


def test_a_log_is_read_here_through_the_descriptor(ask, world, tmp_path):
    (tmp_path / "0").write_bytes(b"a\nb\n")

    def opened(command):
        if command.rotated:
            return messages.Refused(kind="unknown", text="none")
        return (
            messages.LogOpened(service="site", process="site", stream="stdout", size=4),
            os.open(tmp_path / "0", os.O_RDONLY),
        )

    world.answers[messages.OpenLog] = opened
    assert b"".join(ask.logs("site", "stdout", "", 1, False)) == b"b\n"
    follower = ask.logs("site", "stdout", "", 1, True)
    assert next(follower) == b"b\n"
    with (tmp_path / "0").open("ab") as file:
        file.write(b"c\n")
    assert next(follower) == b"c\n"
    follower.close()


def test_a_log_to_which_nothing_was_written_yet_is_an_empty_one(ask, world):
    world.answers[messages.OpenLog] = lambda command: (
        messages.Refused(kind="unknown", text="none")
        if command.rotated
        else messages.LogOpened(service="a", process="a", stream="stderr", size=0)
    )
    assert list(ask.logs("site", "stderr", "", 1, False)) == []
    world.answers[messages.OpenAudit] = messages.LogOpened(service="", process="", stream="audit", size=4)
    with pytest.raises(Failure, match="opened no log"):
        list(ask.audit_tail(1, False))


def test_the_audit_log_is_read_here_through_descriptors(ask, world, tmp_path):
    from userapi.audit.files import Span

    lines = [b'{"n":%d,"time":"t"}\n' % n for n in range(4)]
    (tmp_path / "1").write_bytes(b"".join(lines[:2]))
    (tmp_path / "0").write_bytes(b"".join(lines[2:]))

    def opened(command):
        if command.rotated > 1:
            return messages.Refused(kind="unknown", text="none")
        fd = os.open(tmp_path / str(command.rotated), os.O_RDONLY)
        return (messages.LogOpened(service="", process="audit.jsonl", stream="audit", size=4), fd)

    world.answers[messages.OpenAudit] = opened
    assert list(ask.audit(Span())) == lines
    assert list(ask.audit(Span("3"))) == lines[3:]
    assert b"".join(ask.audit_tail(3, False)) == b"".join(lines[1:])
    follower = ask.audit_tail(1, True)
    assert next(follower) == lines[3]
    with (tmp_path / "0").open("ab") as file:
        file.write(b"more\n")
    assert next(follower) == b"more\n"
    follower.close()


def test_events_go_on_after_a_restart_of_the_supervisor(ask, root, world):
    told = [[1], [2]]

    def events(_):
        number = told.pop(0)[0] if told else 9
        return [messages.Step(number=number, time="t", operation=1, service="site", text="x"), world.die]

    world.answers[messages.Watch] = events
    watch = ask.events(None)
    assert [next(watch)["number"] for _ in range(2)] == [1, 2]
    assert [request.command.after for request in root.asked] == [0, 1]


def test_events_are_asked_for_again_after_the_last_number_and_people_hear_of_it(ask, root, world):
    said = []
    ask._say = said.append
    told = [[messages.Watching(41)], [messages.Missed(50, "gone"), messages.Watching(52)], [], []]
    world.answers[messages.Watch] = lambda _: [*(told.pop(0) if told else []), world.die]
    watch = ask.events("site", 7)
    assert next(watch) == {"is": "missed", "number": 50, "text": "gone"}
    with pytest.raises(Failure, match="stopped telling") as failure:
        next(watch)
    assert failure.value.kind == "later"
    assert [request.command.after for request in root.asked] == [7, 41, 52, 52, 52]
    assert said == ["the connection broke off; asking again"] * 2, "once until something came again"


def test_a_daemon_that_is_gone_is_waited_for_by_who_watches_and_not_by_who_may_have_ended_it(ask, root, world):
    said = []
    ask._say = said.append
    step = messages.Step(number=1, time="t", operation=7, service="site", text="x")
    world.answers[messages.Watch] = [step, world.die]
    for watch, tries in ((ask.events(None), 2), (ask.operation(7), 0)):
        assert next(watch)["number"] == 1
        said.clear()
        root.path.rename(root.path.with_suffix(".away"))
        with pytest.raises(Failure) as failure:
            list(watch)
        assert failure.value.kind == "unreachable"
        root.path.with_suffix(".away").rename(root.path)
        assert bool(said) == bool(tries)


def test_a_daemon_that_was_never_there_is_not_waited_for(ask, tmp_path):
    with pytest.raises(Failure) as failure:
        next(Root(str(tmp_path / "none"), pytest.fail).events(None))
    assert failure.value.kind == "unreachable"


def test_an_operation_is_followed_on_and_no_step_is_told_twice(ask, root, world):
    step, ready, ended = world.answers[messages.Watch]
    told = [[step], [step, ready], [ready, ended]]
    world.answers[messages.Watch] = lambda _: [*told.pop(0), world.die]
    assert [event["number"] for event in ask.operation(7)] == [1, 2, 3]
    assert [request.command.after for request in root.asked] == [0, 1, 2]


def test_what_is_wrong_with_the_daemon_is_said_with_each_status(ask, world, monkeypatch):
    world.answers[messages.Status] = messages.Services(services=[world.site], trouble="the audit log is full")
    said = []
    monkeypatch.setattr(ask, "_say", said.append)
    assert [one["name"] for one in ask.status(None)] == ["site"]
    assert said == [ask.trouble] == ["the audit log is full"]
