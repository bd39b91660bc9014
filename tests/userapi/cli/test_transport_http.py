"""The API as the command sees it."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from policy import messages
from userapi.cli import operations
from userapi.cli.failure import Failure
from userapi.cli.render import Screen
from userapi.cli.transport_http import Http


@pytest.fixture
def ask(alice, monkeypatch):
    monkeypatch.setenv("DURWARD_SESSION", alice.environ["DURWARD_SESSION"])
    monkeypatch.setattr("userapi.cli.transport_http.AGAIN", 0.01)
    monkeypatch.setattr("userapi.cli.transport_http.ATTEMPTS", 3)
    return Http(alice.environ["DURWARD_URL"])


def test_an_operation_whose_stream_breaks_is_followed_on_and_no_step_is_told_twice(ask, world):
    step, ready, ended = world.answers[messages.Watch]
    told = [[step], [step, ready], [step, ready, ended]]
    world.answers[messages.Watch] = lambda _: [*told.pop(0), world.die]
    assert [event["number"] for event in ask.operation(7)] == [1, 2, 3]
    assert [command.after for command in world.commands()] == [0, 1, 2]


def test_events_are_asked_for_again_after_the_last_number_whatever_it_was_of(ask, world):
    change = messages.Changed(number=43, time=world.now, service="site", process="site:0", state="RUNNING", pid=4)
    told = [
        [messages.Watching(41)],  # nothing happened in this stream: the next one begins there all the same
        [messages.Watching(42)],
        [change, messages.Watching(45)],
        [change, messages.Dropped("too slow", 45)],
        [messages.Missed(7, "of another daemon"), messages.Watching(8)],
    ]
    world.answers[messages.Watch] = lambda _: [*(told.pop(0) if told else []), world.die]
    watch = ask.events("site")
    assert [next(watch)["is"] for _ in range(3)] == ["changed", "dropped", "missed"]
    with pytest.raises(Failure, match="stopped telling"):
        next(watch)
    assert [command.after for command in world.commands()][:6] == [0, 41, 42, 45, 45, 8]
    assert {command.service for command in world.commands()} == {"site"}


def test_that_the_api_went_away_is_said_and_events_go_on_when_it_is_back(ask, world, monkeypatch):
    said = []
    ask._say = said.append
    world.answers[messages.Watch] = [messages.Watching(41), world.die]
    opened = ask._open

    def broken(*asked, **more):
        if len(world.commands()) == 1 and len(said) < 1:
            raise Failure("unreachable", "no daemon answers")
        if len(world.commands()) == 2:
            world.answers[messages.Watch] = messages.Missed(60, "gone")
        return opened(*asked, **more)

    monkeypatch.setattr(ask, "_open", broken)
    assert next(ask.events(None))["number"] == 60
    assert said == ["no daemon answers; asking again"]


def test_a_daemon_that_was_never_there_is_not_waited_for(tmp_path):
    with pytest.raises(Failure) as failure:
        next(Http(f"unix:{tmp_path}/none").events(None))
    assert failure.value.kind == "unreachable"


def test_a_supervisor_that_never_comes_back_ends_in_later(ask, world):
    world.answers[messages.Watch] = world.die
    with pytest.raises(Failure) as failure:
        list(ask.operation(7))
    assert failure.value.kind == "later"


def test_a_refusal_is_not_asked_again(ask, world):
    world.answers[messages.Watch] = messages.Refused(kind="forbidden", text="no", would_help=["x"])
    with pytest.raises(Failure) as failure:
        list(ask.events("site"))
    assert failure.value.more["would_help"] == ["x"]
    assert len(world.commands()) == 1


def test_a_followed_log_goes_on_where_its_stream_ended(ask, world, tmp_path, monkeypatch):
    monkeypatch.setattr("userapi.http.logs.Span", lambda _: type("Now", (), {"over": lambda self: True})())
    log = tmp_path / "0"
    log.write_bytes(b"a\nb\n")

    def opened(command):
        if command.rotated:
            return messages.Refused(kind="unknown", text="none")
        return (messages.LogOpened(service="site", process="site", stream="stdout", size=1), os.open(log, os.O_RDONLY))

    world.answers[messages.OpenLog] = opened
    pieces = ask.logs("site", "stdout", "", 1, True)
    assert next(pieces) == b"b\n"
    with log.open("ab") as file:
        file.write(b"c\n")
    assert next(pieces) == b"c\n"
    pieces.close()


def test_something_else_that_answers_is_not_durward(world, tmp_path):
    import threading
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_):
            pass

    def other(environ, start_response):
        start_response("418 Teapot" if environ["PATH_INFO"].endswith("whoami") else "200 OK", [])
        return [b"<html>"]

    with make_server("127.0.0.1", 0, other, handler_class=Quiet) as server:
        thread = threading.Thread(target=lambda: [server.handle_request() for _ in range(2)])
        thread.start()
        ask = Http(f"http://127.0.0.1:{server.server_port}")
        for question in (ask.whoami, lambda: ask.status(None)):
            with pytest.raises(Failure) as failure:
                question()
            assert failure.value.exit == 69
        thread.join()


def test_a_token_goes_only_to_the_address_that_gave_it(alice, world, app):
    environ = {"DURWARD_URL": f"unix://{world.run}/./api.sock"}
    assert alice("status", env=environ).returncode == 77
    assert world.supervisor.asked == []


def test_one_address_has_one_spelling():
    assert Http("https://ops.example/").url == Http("https://ops.example:443").url


def test_after_a_shutdown_an_api_that_has_ended_is_not_asked_for_long(ask, world, capsys):
    world.answers[messages.Watch] = [world.die]
    args = SimpleNamespace(reason="", no_wait=False, root=None)
    ask.attempts = 1000
    assert operations.shutdown(ask, Screen(), args) == 0
    assert [type(command) for command in world.commands()] == [messages.Shutdown] + [messages.Watch] * 7
    assert capsys.readouterr().out == "the daemon is ending: what answers over HTTP has ended already\n"
