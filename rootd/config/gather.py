"""The impure front of the compiler: reads root's files and asks the machine about the names in them, once each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from rootd.config import compile as compiler, schedules, secrets, trusted
from rootd.config.settings import User

Resolve = Callable[[Iterable[str], Iterable[str]], tuple[dict[str, User | None], dict[str, int | None]]]


def gather(config_dir: str, python: str, resolve: Resolve, contents: dict[str, bytes] | None = None) -> compiler.Bundle:
    """Everything that compile_bundle needs. resolve is accounts.resolve, and may wait for a directory service.

    contents: is given what the services' secrets say, by path, which is in no Bundle.
    """
    files = trusted.read_tree(config_dir)
    users, groups, paths, pam = compiler.names_needed(files)
    environment_files = {path: trusted.read_file(path) for path in sorted(paths)}
    services = {name: os.path.isfile(f"/etc/pam.d/{name}") for name in sorted(pam)}
    named, run = compiler.credentials_needed(files)
    credentials = {}
    for path in sorted(named):
        credentials[path], content = secrets.read_secret(path)
        if contents is not None:
            contents[path] = content
    volatile = not run or not named or secrets.is_in_memory(run)
    zones = {name: schedules.read_zone(name) for name in sorted(compiler.zones_needed(files))}
    return compiler.Bundle(
        config_dir, python, files, environment_files, *resolve(users, groups), services, credentials, volatile, zones
    )
