"""The impure front: real files, and a machine asked for exactly the names in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from rootd.config import compile as compiler
from rootd.config.gather import gather
from rootd.config.settings import User
from rootd.config.trusted import File

pytestmark = pytest.mark.root

SITE = """
[service.site]
command = ["/srv/site/bin/serve"]
user = "www-site"
group = "web"
environment_file = "{}/env"
"""


def test_what_the_files_name_is_gathered_once(root_directory: Path) -> None:
    (root_directory / "services.d").mkdir(mode=0o755)
    texts = {
        "durward.toml": '[auth]\npam_service = "login"\npam_account_service = "durward-none"\n[api]\n',
        "services.d/site.toml": SITE.format(root_directory),
        "env": "A=1\n",
    }
    for name, text in texts.items():
        (root_directory / name).write_text(text)
        (root_directory / name).chmod(0o644)
    asked: list[tuple[set[str], set[str]]] = []

    def resolve(users: Iterable[str], groups: Iterable[str]) -> tuple[dict[str, User | None], dict[str, int | None]]:
        asked.append((set(users), set(groups)))
        return {"www-site": User(1001, 1001, (1001,), "/", "")}, {"web": 7}

    found = gather(str(root_directory), "/opt/python3", resolve)
    assert found == compiler.Bundle(
        config=str(root_directory),
        python="/opt/python3",
        files=(
            File("durward.toml", texts["durward.toml"]),
            File("services.d/site.toml", texts["services.d/site.toml"]),
        ),
        environment_files={f"{root_directory}/env": File(f"{root_directory}/env", "A=1\n")},
        users={"www-site": User(1001, 1001, (1001,), "/", "")},
        groups={"web": 7},
        pam={"durward-none": False, "login": True},
        credentials={},
        volatile=True,
    )
    [(users, groups)] = asked
    assert {"www-site", "_durward", "_durward-api"} < users
    assert {"web", "docker", "shadow"} < groups
    assert ("auth", "pam_account_service") in [problem.path for problem in compiler.compile_bundle(found).problems]


def test_a_directory_that_is_not_roots_gives_a_bundle_that_says_so() -> None:
    found = gather("/tmp/durward-none", "/opt/python3", lambda users, groups: ({}, {}))
    assert found.files[0].error.startswith("/tmp can be written by everybody")
    compiled = compiler.compile_bundle(found)
    assert not compiled.table
    assert compiled.problems[0].text == found.files[0].error


def test_the_files_of_the_time_zones_that_are_named_are_in_the_bundle_and_no_others(root_directory: Path) -> None:
    job = '[service.{}]\ncommand = ["/bin/x"]\nuser = "u"\nschedule = "@daily"\n'
    (root_directory / "services.d").mkdir(mode=0o755)
    zoned = job.format("a") + 'timezone = "Europe/Berlin"\n' + job.format("b") + 'timezone = "Europe/Nowhere"\n'
    for name, text in {"durward.toml": "[auth]\n", "services.d/x.toml": zoned}.items():
        (root_directory / name).write_text(text)
        (root_directory / name).chmod(0o644)
    found = gather(str(root_directory), "/opt/python3", lambda users, groups: ({}, {})).zones
    assert {name: data is not None for name, data in found.items()} == {"Europe/Berlin": True, "Europe/Nowhere": False}
    (root_directory / "services.d" / "x.toml").write_text(job.format("a"))
    assert [*gather(str(root_directory), "/opt/python3", lambda users, groups: ({}, {})).zones] == [""]
