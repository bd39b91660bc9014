"""How what is listed is spelled: what is the same is spelled once, and everything fits into packets."""

from __future__ import annotations

from typing import Any

import msgspec

from policy import messages, wire
from rootd.supervisor.spelled import PACKET, Spelled, cut, in_packets, spell


class Counted:
    """Services of which one says how often it was asked."""

    def __init__(self) -> None:
        self.state, self.asked = "RUNNING", 0
        self.processes = 1

    def made_of(self, name: str) -> list[object]:
        return [name, self.state, self.processes]

    def info(self, name: str) -> messages.ServiceInfo:
        self.asked += 1
        told = [
            messages.ProcessInfo(f"{name}:{n}", self.state, n, "2026", text="x" * 99) for n in range(self.processes)
        ]
        return messages.ServiceInfo(name, self.state, "up", told, text="so be it")


def test_a_service_is_spelled_once_until_something_of_it_is_another() -> None:
    services: Any = Counted()
    spelled = Spelled(services)
    first = bytes(spelled.service("site"))
    assert bytes(spelled.service("site")) == first == spell(services.info("site"))
    assert services.asked == 2
    services.state = "STOPPING"
    assert b"STOPPING" in bytes(spelled.service("site"))
    assert b"jobs" in bytes(spelled.service("jobs"))
    assert services.asked == 4
    spelled.forget()
    spelled.service("site")
    assert services.asked == 5


def test_a_service_of_very_many_processes_still_fits_into_a_packet() -> None:
    services: Any = Counted()
    services.processes = 1024
    [piece] = in_packets([Spelled(services).service("site")])
    answer: Any = messages.Services(piece)  # type: ignore[arg-type]
    packet = wire.ANSWER.encode(messages.Answer(1, answer))
    assert 50_000 < len(packet) < wire.LIMIT
    reply = wire.ANSWER.decode(packet).reply
    assert isinstance(reply, messages.Services)
    [shown] = reply.services
    assert shown.processes == services.info("site").processes[: len(shown.processes)]
    assert shown.text == f"1024 processes, of which {len(shown.processes)} are shown. so be it"


def test_what_fits_is_not_cut_and_nothing_is_one_empty_packet() -> None:
    info = messages.ServiceInfo("site", "RUNNING", "up", [messages.ProcessInfo("site", "RUNNING", 7, "2026")])
    assert cut(info, PACKET) is info
    assert list(in_packets([])) == [[]]


def test_no_piece_is_larger_than_a_packet_and_none_is_lost() -> None:
    things = [msgspec.Raw(spell("x" * size)) for size in range(0, 30_000, 111)]
    pieces = list(in_packets(things))
    assert [bytes(thing) for piece in pieces for thing in piece] == [bytes(thing) for thing in things]
    assert all(sum(len(bytes(thing)) + 1 for thing in piece) <= PACKET for piece in pieces)
    assert len(pieces) > 60
