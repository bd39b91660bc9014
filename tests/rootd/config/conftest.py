"""A machine that exists on paper: the compiler is pure, so its tests need no real users."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootd.config import compile as compiler
from rootd.config.settings import User
from rootd.config.trusted import File

MAIN = """
[auth]
[api]
"""
SITE = """
[socket.http]
listen = "0.0.0.0:80"
[service.site]
command = ["/srv/site/bin/serve", "--fd", "3"]
user = "www-site"
sockets = ["http"]
"""

USERS: dict[str, User | None] = {
    name: User(900 + number, 900 + number, (900 + number,), "/nonexistent", "/usr/sbin/nologin")
    for number, name in enumerate(
        ("_durward", "_durward-sup", "_durward-auth", "_durward-log", "_durward-probe", "_durward-api")
    )
} | {
    "root": User(0, 0, (0,), "/root", "/bin/bash"),
    "toor": User(0, 0, (0,), "/root", ""),
    "www-site": User(1001, 1001, (1001, 2001), "/srv/site", "/bin/sh"),
    "worker": User(1002, 1002, (1002,), "/srv/worker", ""),
    "captain": User(1003, 1003, (999, 1003), "/home/captain", "/bin/bash"),
    "friend": User(1004, 1004, (902, 1004), "/home/friend", "/bin/bash"),
    "twin": User(904, 1005, (1005,), "/", ""),
    "wheelman": User(1006, 0, (0,), "/", ""),
}
GROUPS: dict[str, int | None] = {"root": 0, "shadow": 42, "docker": 999, "www-site": 1001, "certs": 2001, "mail": 8}

Compile = Callable[..., compiler.Compiled]


def paper_bundle(
    main: str = MAIN,
    services: dict[str, str] | None = None,
    files: tuple[File, ...] = (),
    environment_files: dict[str, File] | None = None,
    pam: bool = True,
    config: str = "/etc/durward",
    credentials: dict[str, File] | None = None,
    volatile: bool = True,
) -> compiler.Bundle:
    """What gather would have found for these texts on the paper machine."""
    given = {"site.toml": SITE} if services is None else services
    everything = (
        File("durward.toml", main),
        *(File(f"services.d/{name}", text) for name, text in given.items()),
        *files,
    )
    users, groups, paths, services_of_pam = compiler.names_needed(everything)
    return compiler.Bundle(
        config=config,
        python="/opt/durward/bin/python3",
        files=everything,
        environment_files={path: (environment_files or {}).get(path, File(path, "", "missing")) for path in paths},
        users={name: USERS.get(name) for name in sorted(users)},
        groups={name: GROUPS.get(name) for name in sorted(groups)},
        pam=dict.fromkeys(services_of_pam, pam),
        credentials=credentials or {},
        volatile=volatile,
    )


@pytest.fixture(scope="session")
def bundle() -> Callable[..., compiler.Bundle]:
    return paper_bundle


@pytest.fixture
def compiled() -> Compile:
    """Compiles texts on the paper machine."""
    return lambda *args, **kwargs: compiler.compile_bundle(paper_bundle(*args, **kwargs))


@pytest.fixture
def root_directory() -> Iterator[Path]:
    """An empty directory whose every ancestor is root's alone, as /etc is; /tmp is not. Its own mode is 0755."""
    path = Path(tempfile.mkdtemp(prefix="durward-test-", dir="/var/lib"))
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)
