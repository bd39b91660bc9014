"""Where a policy to be judged comes from: a directory, by whoever may read it, or the running daemon.

Rule 1: a directory is a configuration (durward.toml, services.d, policy.d), or one of policy files alone; then no
        service is known but by the names that the rules use, and policy.source.Source.whole says so.
Rule 2: who owns the files does not matter here: nothing is started from them. What the daemon would refuse for that is
        told by durward-rootd --check.
Rule 3: it reads the files as the daemon does (rootd/config), and redacts them in the same way.
"""

from __future__ import annotations

import errno
import os
import stat
import tomllib
from typing import IO, TYPE_CHECKING, Any

from userapi.cli.failure import Failure
from userapi.cli.render import Screen

if TYPE_CHECKING:
    from policy.rules import Policy
    from policy.shown import Problem
    from policy.source import Source
    from rootd.config.trusted import File

RUNNING = "-"  # in place of a directory
FOLDERS = ("policy.d", "services.d")
MOST = 1 << 20  # bytes of a file, as rootd/config/trusted.py has it


def word(text: str) -> str:
    """Of a command line, one that names something: an empty one is a variable of a script that was not set."""
    if not text:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError("an empty word names nothing")
    return text


def source(ask: Any, place: str | None) -> Source:
    """place: a directory or a policy file; None and RUNNING: the policy that counts. Raises Failure."""
    from policy import source as shape

    if place is not None and place != RUNNING:
        return of_directory(place)
    try:
        return shape.decode(ask.policy())
    except ValueError as error:
        raise Failure("unreachable", f"what answers there is no policy of Durward's: {error}") from None


def policy(screen: Screen, found: Source) -> Policy:
    """The rules of a source. Raises Failure, with every mistake told, when there are mistakes."""
    from policy import source as shape
    from rootd import zones

    made = shape.parsed(found, zones.zone)
    if isinstance(made, list):
        raise mistakes(screen, made, found.place)
    return made


def load(ask: Any, screen: Screen, place: str | None) -> tuple[Policy, Source]:
    found = source(ask, place)
    return policy(screen, found), found


def mistakes(screen: Screen, problems: list[Problem], place: str) -> Failure:
    """What ends a command that needs a policy without mistakes; each is told before it."""
    told = [
        {"file": one.file, "line": one.line, "key": one.key, "text": one.text, "source": one.source} for one in problems
    ]
    if not screen.as_json:
        screen.problems(told)
    many = f"{len(problems)} {'mistake' if len(problems) == 1 else 'mistakes'}"
    return Failure("bad-configuration", f"{many} in {place}: nothing can be said of a policy with one", problems=told)


def of_directory(place: str) -> Source:
    """Of a configuration directory, a directory of policy files, or one policy file. Raises Failure."""
    if is_configuration(place):
        return _configuration(place)
    from policy import source as shape

    if os.path.isdir(place):
        files = _folder(place, "")
        if not files:
            raise Failure("usage", f"{place} has no policy: it holds neither policy.d, services.d nor files in .toml")
    else:
        files = [_read(place, os.path.basename(place), pipes=True)]  # as of <(…)
    services, groups = shape.named_in(_tables(file.text) for file in files)
    policies = [shape.policy_file(file.path, file.text) for file in files]
    return shape.Source(policies, {name: [] for name in services}, [], place, False, groups)


def is_configuration(place: str) -> bool:
    """Else policy files alone."""
    return any(os.path.exists(os.path.join(place, name)) for name in ("durward.toml", *FOLDERS))


def _tables(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}  # the parser of policies tells of it


def files_of(place: str) -> list[File]:
    """All files of a configuration directory, as rootd.config.trusted.read_tree names them. Raises Failure."""
    main = os.path.join(place, "durward.toml")
    files = [_read(main, "durward.toml")] if os.path.exists(main) else []
    for name in FOLDERS:
        folder = os.path.join(place, name)
        files += _folder(folder, f"{name}/") if os.path.exists(folder) else []
    return files


def _configuration(place: str) -> Source:
    from policy import source as shape
    from rootd.config.redact import redacted
    from rootd.config.sections import read

    files = files_of(place)
    found, problems = read(tuple(files))
    lost = [one for one in problems if not one.path and one.file.startswith("services.d")]
    if lost:
        told = "; ".join(f"{one.file}: {one.text}" for one in lost)
        raise Failure("bad-configuration", f"the services of {place} are not known: {told}")
    services = {path[1]: list(one.values["groups"] or ()) for path, one in found.items() if path[0] == "service"}
    policies = [shape.policy_file(one.path, one.text) for one in files if one.path.startswith("policy.d/")]
    return shape.Source(policies, services, [shape.Section(*told) for told in redacted(found)], place)


def _folder(folder: str, label: str) -> list[File]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".toml") and name[0] != ".")
    except OSError as error:
        raise _unreadable(folder, error) from None
    return [_read(os.path.join(folder, name), label + name) for name in names]


def opened(path: str, pipes: bool = False) -> IO[bytes]:
    """A plain file: no FIFO in somebody's directory holds who looks at it. pipes: or one of those. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | (0 if pipes else os.O_NONBLOCK))
    if not pipes and not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no plain file", path)
    return os.fdopen(fd, "rb")


def _read(path: str, label: str, pipes: bool = False) -> File:
    from rootd.config.trusted import File

    try:
        with opened(path, pipes) as file:
            content = file.read(MOST + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > MOST:
        raise Failure("usage", f"{path} is larger than {MOST} bytes")
    try:
        return File(label, content.decode())
    except UnicodeDecodeError as error:
        raise Failure("bad-configuration", f"{path} is not UTF-8 from byte {error.start} on") from None


def _unreadable(path: str, error: OSError) -> Failure:
    if isinstance(error, PermissionError):
        return Failure("forbidden", f"{path} may not be read by you: read a copy, or ask the daemon for its own")
    return Failure("usage", f"{path} cannot be read: {error.strerror or error}")
