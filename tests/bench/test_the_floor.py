"""Where the time of a launch goes, and what it costs to start as many programs with nothing that manages them.

Beside ours and runit's, in the same run: a bare loop of the same interpreter with posix_spawn, one with os.fork, and
our own spawner with nothing behind it. Who is slower than these by little has little to gain.

Run by: sudo ./packaging/test tests/bench/test_the_floor.py -m bench -s
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import proc
import pytest
from figures import Figure, Figures
from managers import SECOND, Foreign, Ground, Manager, Stamp
from ours import Durward
from peers import Runit
from people import People, remove_cgroups

from rootd.privileged import cgroup

if TYPE_CHECKING:
    from conftest import Sizes

pytestmark = [pytest.mark.bench, pytest.mark.root]

FLOORS = {"spawn": "posix_spawn loop", "fork": "os.fork loop", "born": "our spawner alone"}
FIRST, ALL = "launch to the first started", "launch to all started"
OWN, CHILDREN = "CPU of the managers", "CPU of the services"
SECONDS = Figure("s", 2)


class Floor(Foreign):
    """floor.py: its programs run as the user of the peers, or as root where that cannot be changed."""

    def __init__(self, ground: Ground, count: int, how: str) -> None:
        self.name, self.how = FLOORS[how], how
        super().__init__(ground, count)

    def prepare(self) -> None:
        self.tree = "-"
        if self.how == "born" and (point := cgroup.mount()):
            self.tree = f"{point}/{cgroup.name_of(str(self.folder))}"
            os.mkdir(self.tree)

    def argv(self) -> list[str]:
        ids = [str(self.user.uid), str(self.user.gid)]
        program, *words = self.command(0)[:-1]
        floor = str(Path(__file__).with_name("floor.py"))
        return [sys.executable, "-I", "-B", floor, self.how, *ids, str(self.count), self.tree, program, *words]

    def stop(self) -> None:
        super().stop()
        remove_cgroups(str(self.folder))


def test_what_a_launch_is_made_of(sizes: Sizes, ground: Ground, people: People) -> None:
    figures = Figures()
    for _ in range(sizes.rounds):
        managers: list[Manager] = [Durward(ground, people, sizes.services), Runit(ground, sizes.services)]
        for manager in (*managers, *(Floor(ground, sizes.services, how) for how in FLOORS)):
            with ExitStack() as stack:
                stack.callback(manager.stop)
                stamps = manager.start().until_stamped(sizes.services)
                assert sorted(stamp.index for stamp in stamps) == list(range(sizes.services)), manager.name
                record(manager, stamps, figures)
    print(f"\n{figures.table((*(manager.name for manager in managers), *FLOORS.values()))}")
    parts = [kind for kind in figures.kinds if kind not in (FIRST, ALL, OWN, CHILDREN)]
    print("\n".join(f"{kind}: {figures.of(kind)}" for kind in parts))


def record(manager: Manager, stamps: list[Stamp], figures: Figures) -> None:
    for figure, at in ((FIRST, min(stamp.at for stamp in stamps)), (ALL, max(stamp.at for stamp in stamps))):
        figures.add(figure, SECONDS, manager.name, (at - manager.launched) / SECOND)
    manager.until_old(1.0, stamps)  # what is still to be done for the last
    own = {"": manager.own()} if not isinstance(manager, Durward) else manager.parts()
    used = {part: proc.usage(pids).cpu / SECOND for part, pids in own.items()}
    figures.add(OWN, SECONDS, manager.name, sum(seconds for part, seconds in used.items() if part != "api"))
    services = proc.usage(stamp.pid for stamp in stamps).cpu / SECOND
    figures.add(CHILDREN, SECONDS, manager.name, services)
    for part, seconds in used.items() if len(used) > 1 else ():
        figures.add(f"CPU of {part}", SECONDS, manager.name, seconds)
