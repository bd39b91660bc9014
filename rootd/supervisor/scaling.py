"""How many processes each service is to have: as configured, until somebody says another number.

Rule 1: root's file has the last word: what was said holds until the configured number is another one, and is never more
        than max_processes allows.
Rule 2: it outlives a supervisor, by the state file or else by the processes that there are, but not the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec
    from rootd.supervisor.recover import Saved


class Scaling:
    def __init__(self) -> None:
        self.revision = 0  # grows with every change
        self._said: dict[str, tuple[int, int]] = {}  # service -> what was said, and what was configured then

    def count(self, spec: ServiceSpec) -> int:
        return self._said.get(spec.name, (spec.processes, 0))[0]

    def say(self, spec: ServiceSpec, number: int) -> None:
        """From now on so many; the caller has looked that so many are allowed."""
        self.revision += 1
        self._said[spec.name] = number, spec.processes
        if number == spec.processes:
            del self._said[spec.name]

    def load(self, specs: Mapping[str, ServiceSpec]) -> None:
        """What is configured now."""
        for name, (number, configured) in list(self._said.items()):
            del self._said[name]
            if name in specs and specs[name].processes == configured:
                self.say(specs[name], min(number, specs[name].max_processes))

    def save(self) -> dict[str, tuple[int, int]]:
        return dict(self._said)

    def recovered(self, specs: Mapping[str, ServiceSpec], saved: Saved, highest: Mapping[str, int]) -> None:
        """What the last supervisor wrote. highest: how many slots the processes take that there are."""
        known = {label.rpartition(":")[0] for label in saved.slots}
        for name, spec in specs.items():
            if name not in known and highest.get(name, 0) > spec.processes:
                self._said[name] = highest[name], spec.processes  # what it wrote is lost, or is not of this service
        self._said |= saved.scaled
        self.load(specs)
