"""rootd/keeper/store: names are set once, dropped once."""

from __future__ import annotations

import os

import pytest
from lingering import does, lingering

from rootd import ipc
from rootd.keeper import store


def test_a_name_is_held_until_it_is_dropped_and_its_descriptor_is_closed_then() -> None:
    held = store.Store()
    reader, writer = os.pipe()
    assert held.put("pipe/site", reader)
    assert list(held.beneath(("",))) == [("pipe/site", reader)]
    held.drop("pipe/site")
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    held.drop("pipe/site")
    assert list(held.beneath(("",))) == []
    os.close(writer)


def test_a_taken_or_empty_name_is_refused_and_the_newcomer_closed() -> None:
    held = store.Store()
    first, second, third = os.pipe()[0], os.pipe()[0], os.pipe()[0]
    assert held.put("settings", first)
    assert not held.put("settings", second)
    assert not held.put("", third)
    os.fstat(first)
    for closed in (second, third):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(closed)
    held.drop("settings")


def test_a_name_that_no_message_could_hand_on_is_refused() -> None:
    held = store.Store()
    longest = "\u20ac" * (ipc.NAME_LIMIT // 3)
    assert held.put(longest, os.dup(0))
    assert not held.put(f"{longest}xxx", os.dup(0))
    for name, _ in [*held.beneath(("",))]:
        ipc.Message(ipc.HELD, name=name).encode()
        held.drop(name)


@pytest.mark.parametrize("name", ["two\nlines", "an\0end", "\0"])
def test_a_name_that_would_be_another_one_when_it_is_handed_on_is_refused(name: str) -> None:
    assert not store.Store().put(name, os.dup(0))


def test_a_full_store_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LIMIT", 1)
    held = store.Store()
    assert held.put("one", os.dup(0))
    assert not held.put("two", os.dup(0))
    held.drop("one")


def test_what_a_role_may_be_handed_is_told_by_prefix_or_whole_name() -> None:
    held = store.Store()
    for name in ("settings", "settings-of-others", "pipe/a", "door/control", "door/control2"):
        held.put(name, os.dup(0))
    assert [name for name, _ in held.beneath(("settings", "pipe/"))] == ["settings", "pipe/a"]
    assert [name for name, _ in held.beneath(("door/control",))] == ["door/control"]
    assert len(list(held.beneath(("",)))) == 5
    for name in list(dict(held.beneath(("",)))):
        held.drop(name)


def test_a_socket_that_a_service_has_told_to_linger_keeps_no_keeper_that_drops_it() -> None:
    def act() -> None:
        with lingering() as sock:
            held = store.Store({"socket/tcp:0.0.0.0:80": sock.detach()})
            held.drop("socket/tcp:0.0.0.0:80")

    assert does(act)
