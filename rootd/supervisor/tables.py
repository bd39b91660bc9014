"""The configurations of which processes may run: which service, instance and part each slot of them is.

Rule: a run is known by the table of its generation; where that is known no more, by what the last supervisor wrote.
"""

from __future__ import annotations

from collections.abc import Iterable

from rootd import ipc
from rootd.config.specs import ServiceSpec
from rootd.supervisor.instances import SLOTS, Key
from rootd.supervisor.recover import Saved

LIMIT = 64  # configurations that are remembered for the runs of older ones

Whose = tuple[Key, ServiceSpec, str]  # the slot, the configuration, and what of it (specs.PARTS; "": its own process)


def stamped(spec: ServiceSpec, generation: int) -> ServiceSpec:
    """As of that generation; itself where it is so already, which is in memory once then."""
    return spec if spec.generation == generation else spec._replace(generation=generation)


class Tables:
    def __init__(self) -> None:
        self._tables: dict[int, dict[int, tuple[ServiceSpec, str]]] = {}  # generation -> entry -> spec, part

    def add(self, generation: int, specs: Iterable[ServiceSpec]) -> None:
        table = self._tables[generation] = {}
        for spec in specs:
            own = stamped(spec, generation)
            table |= {spec.entry: (own, "")} | {entry: (own, part) for part, entry in spec.parts}
        while len(self._tables) > LIMIT:
            del self._tables[min(self._tables)]

    def whose(self, fact: ipc.Message, saved: Saved, generation: int) -> Whose | None:
        """What this FACT is about, when it can be told. generation: the one that counts now."""
        entry, index = divmod(fact.slot, SLOTS)
        spec, part = self._tables.get(fact.generation, {}).get(entry, (None, ""))
        if spec is not None:
            return (spec.name, index), spec, part
        current = {spec.name: spec for spec, _ in self._tables.get(generation, {}).values()}
        for label, slot in saved.slots.items():
            name, _, number = label.rpartition(":")
            for run in slot.runs:
                if run.run == fact.run and name in current:
                    return (name, int(number)), current[name]._replace(digest=run.digest), ""
        return None
