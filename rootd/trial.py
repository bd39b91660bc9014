"""Whether this program could take over from the one that runs: asked before anything is given up for it.

Rule 1: it only reads, with all that it would be handed, and says everything that is in the way.
Rule 2: what it finds readable is read by the very code that will have to read it.
Rule 3: it runs in a child of the running keeper, executed as the new keeper would be (rootd/keeper/again).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping

from rootd import sealed, version
from rootd.keeper import manifest
from rootd.keeper.manifest import Manifest, Unreadable

REFUSED = 76  # EX_PROTOCOL: of what the running program has made; 65 is of root's files
KINDS = (
    "lock", "settings", "door", "generation", "secrets", "socket", "process", "pipe", "notify", "stage", "staged",
    "backup",
)  # fmt: skip


def main(text: bytes, check: Callable[[], int]) -> int:
    """The exit status: 0 when nothing is in the way; else it is said. check: of the configuration, as for --check."""
    try:
        told = manifest.read(text)
        wrong = [*unreadable(told.formats, told.program)] or [*unusable(told)]
    except Unreadable as problem:
        wrong = [str(problem)]
    for line in wrong:
        print(line, file=sys.stderr)
    return REFUSED if wrong else check()


def unreadable(others: Mapping[str, int], program: str) -> list[str]:
    """Why this program cannot take over from one that writes these: a sentence for each form; none when it can."""
    wrong = []
    for name, number in others.items():
        newest, oldest = version.FORMATS.get(name, (0, 0))
        if not oldest <= number <= newest:
            reads = f"reads {oldest} to {newest}" if newest else "does not know it"
            wrong.append(
                f"{program or 'the running program'} writes version {number} of '{name}', and this one {reads}"
            )
    return wrong


def unusable(told: Manifest) -> Iterator[str]:
    """What of the store this program does not understand, each with why."""
    import_parts()
    from rootd.config import compile as compiler, settings, table

    yield from (f"it does not know what '{name}' is" for name in told.held if name.partition("/")[0] not in KINDS)
    try:
        settings.from_json(sealed.content(told.held["settings"]))
    except (KeyError, OSError, ValueError) as error:
        yield f"it cannot read the settings that are in use: {error}"
    newest = max((int(name.partition("/")[2]) for name in told.held if name.startswith("generation/")), default=0)
    for name, fd in told.held.items():
        kind, _, number = name.partition("/")
        if kind == "generation":
            try:
                line, bundle = compiler.split_generation(sealed.content(fd))
                table.load_table(line)
                if int(number) == newest:
                    yield from (f"it refuses the configuration that is in use: {one}" for one in problems(line, bundle))
            except (OSError, ValueError) as error:
                yield f"it cannot read configuration {number}, which is in use: {error}"


def problems(line: bytes, bundle: bytes) -> Iterator[str]:
    """Of the configuration in use: what it would refuse, or understand as something else."""
    from rootd.config import compile as compiler
    from rootd.supervisor import reload

    compiled = compiler.compile_bundle(compiler.bundle_from(bundle))
    yield from (f"{one.file}: {'.'.join(map(str, one.path))}: {one.text}" for one in compiled.problems)
    if not compiled.problems and not reload.alike(compiled.table, line):
        yield "it would number its services or sockets otherwise: stop the daemon, and start the new one"


def import_parts() -> None:
    """All that it would run: a program that was not installed whole ends here, with the name of what is missing."""
    import rootd.auth.main
    import rootd.log.main
    import rootd.privileged.main
    import rootd.probe.main
    import rootd.supervisor.main  # noqa: F401
