"""What a desk asks of services, noted and answered as the test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from policy import messages
from rootd.supervisor.operations import Operation, Operations, Refusal


class FakeServices:
    """The seam of services, by which the test sees what was asked and says what happens."""

    def __init__(self, publish: Callable[[Any], None]) -> None:
        self.groups: dict[str, tuple[str, ...]] = {"site": ("front",), "jobs": ("back",), "vault": ()}
        self.processes = {"site": ["site:0", "site:1"], "jobs": ["jobs"], "vault": ["vault"]}
        self.operations = Operations(publish, lambda: "2026-11-23T12:00:00Z")
        self.asked: list[tuple[Any, ...]] = []
        self.refusal: Refusal | None = None
        self.ends_at_once = False
        self.text = ""
        self.settings = dict[str, str]()  # of all of them
        self.above: dict[str, list[str]] = {}  # what requires it
        self.ending: set[str] = set()

    def names(self) -> tuple[str, ...]:
        return tuple(self.groups)

    def groups_of(self, name: str) -> tuple[str, ...]:
        return () if name == "durward-api" else self.groups[name]

    def info(self, name: str) -> messages.ServiceInfo:
        names = self.processes.get(name, [name])
        found = [messages.ProcessInfo(one, "RUNNING", 7, "2026-11-23T12:00:00Z", text=self.text) for one in names]
        return messages.ServiceInfo(name, "RUNNING", "up", found, list(self.groups_of(name)))

    def made_of(self, name: str) -> list[object]:
        return [self.info(name)]

    def description(self, name: str) -> messages.Description:
        return messages.Description(self.info(name), {"user": "www" + self.text, **self.settings}, ["http"], [])

    def _begin(self, kind: Any, service: str, *rest: Any, request: str = "") -> int:
        self.asked.append((kind, service, *rest))
        if self.refusal:
            raise self.refusal
        operation: Operation = self.operations.begin(kind, service, request, 0.0)
        if self.ends_at_once:
            self.operations.end(operation, True, "done", 1.0)
        return operation.number

    def start(self, name: str, now: float, request: str) -> int:
        return self._begin("start", name, request=request)

    def stop(self, name: str, now: float, request: str, before: Sequence[str] = ()) -> int:
        return self._begin("stop", name, *([tuple(before)] if before else []), request=request)

    @property
    def order(self) -> FakeServices:
        return self

    def dependants(self, name: str) -> list[str]:
        return self.above.get(name, [])

    def wanted(self, name: str) -> bool:
        return name not in self.ending

    def restart(self, name: str, now: float, request: str, hard: bool = False) -> int:
        return self._begin("restart", name, hard, request=request)

    def signal(self, name: str, signame: str, now: float, request: str) -> int:
        return self._begin("signal", name, signame, request=request)

    def scale(self, name: str, processes: int, now: float, request: str) -> int:
        return self._begin("scale", name, processes, request=request)

    def cancel(self, operation: Operation, why: str, now: float) -> None:
        self.asked.append(("cancel", operation.number, why))
        if self.refusal:
            raise self.refusal
        operation.cancelled = why
        if self.ends_at_once:
            self.operations.end(operation, False, f"it was not done: {why}", 1.0)

    def stop_all(self, now: float, request: str) -> int:
        return self._begin("shutdown", "", request=request)

    def changed(self, name: str, process: str = "") -> None:
        self.operations.changed(name, process or name, "RUNNING", 7, "")

    def end(self, number: int, ok: bool = True) -> None:
        operation = self.operations.find(number)
        assert operation is not None
        self.operations.end(operation, ok, "restarted", 2.0)
