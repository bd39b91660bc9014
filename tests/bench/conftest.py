"""The fixtures of the benchmark: how large it is, the ground for all managers, and the table at its end."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).resolve().parent
FOLDERS, FOLDER_PREFIX = Path("/run"), "durward-bench-"

TABLE = pytest.StashKey[str]()


class Sizes(NamedTuple):
    services: int
    few: int  # services, where it is not the number that counts
    rounds: int
    crashes: int  # of each manager
    idle: float  # seconds
    flood: int  # MiB of one log


def _sizes() -> Sizes:
    def size(name: str, default: int) -> int:
        return int(os.environ.get(f"DURWARD_BENCH_{name}", default))

    services = size("SERVICES", 1000)
    return Sizes(
        services, min(services, 100), size("ROUNDS", 3), size("CRASHES", 7), size("IDLE", 30), size("LOG_MIB", 256)
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only who asks for it by -m bench waits for minutes."""
    if "bench" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("bench")])
        items[:] = [item for item in items if not item.get_closest_marker("bench")]


@pytest.fixture(scope="session")
def sizes() -> Sizes:
    return _sizes()


@pytest.fixture(scope="session")
def people() -> Iterator:
    from people import People

    people = People()
    try:
        for service_user in ("jobs", "peers"):
            people.system(service_user)
        people.person("alice")
        yield people
    finally:
        people.close()


@pytest.fixture(scope="session")
def ground(people) -> Iterator:
    """The peers are there, the programs are built, and nothing of an earlier run is left.

    All of it is in memory, as /run is on most machines: no disk is measured, nobody's.
    """
    from fetch import build, fetch
    from house import PREFIX
    from managers import Ground, Here
    from people import run

    for left in FOLDERS.glob(FOLDER_PREFIX + "*"):
        remove(left)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    peers = fetch(PREFIX / "peers")
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=FOLDERS))
    try:
        run("mount", "-t", "tmpfs", "-o", "mode=755,nosuid", FOLDER_PREFIX + "tmpfs", str(folder))
        program, runner = (build(HERE / f"{name}.c", folder / name) for name in ("stamp", "run"))
        with Here() as space:
            yield Ground(folder, peers, program, runner, space, people["peers"])
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """A ground, with all that was started from it."""
    import proc
    from people import remove_cgroups

    proc.end_all(os.fsencode(folder) + b"/")
    remove_cgroups(str(folder))
    for mount in Path("/proc/self/mounts").read_text().splitlines():
        if mount.split()[1] == str(folder):
            subprocess.run(["umount", str(folder)], check=True)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def parts() -> object:
    """The figures of each part of ours."""
    from figures import Figures

    return Figures()


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest, sizes: Sizes, ground, parts) -> Iterator:
    from budgets import BUDGETS, SIZED
    from figures import ALL, Figures
    from ours import PARTS

    figures = Figures()
    yield figures
    versions = ", ".join(f"{name} {version}" for name, version in sorted(ground.peers.versions.items()))
    head = f"{sizes}\n{versions}\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    if sizes.services != SIZED:
        head += f"\nThe budgets are for {SIZED:,} services: of {sizes.services:,} they say little."
    tables = f"{figures.table(ALL, BUDGETS)}\n\n{parts.table((*PARTS, 'api'))}"
    request.config.stash[TABLE] = f"{head}\n\n{tables}\n"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if TABLE in config.stash:
        terminalreporter.section("against the peers: medians")
        terminalreporter.write(config.stash[TABLE])
