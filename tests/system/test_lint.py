"""durward policy lint on real files of real users: who may restart the site, and can write what it runs."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from house import PREFIX
from people import FOLDER_PREFIX, FOLDERS, People

from userapi.cli.__main__ import main

pytestmark = pytest.mark.root

POLICY = """\
[[grant]]
id = "alice-runs-the-site"
who = ["user:@alice@"]
may = ["view", "restart"]
on = ["site"]

[[grant]]
id = "webops-look"
who = ["group:@webops@"]
may = ["view", "logs"]
on = ["site"]
"""
SITE = '[service.site]\ncommand = ["@folder@/bin/site", "app.py"]\ndirectory = "@folder@/current"\nuser = "@www@"\n'


class Machine:
    def __init__(self, folder: Path, people: People) -> None:
        self.folder, self.people = folder, people
        folder.chmod(0o755)
        for name in ("etc/services.d", "etc/policy.d", "bin", "releases/1"):
            (folder / name).mkdir(parents=True)
        for path in folder.rglob("*"):
            path.chmod(0o755)
        (folder / "current").symlink_to("releases/1")
        names = {
            "folder": folder,
            "alice": people.name("alice"),
            "webops": people.name("webops"),
            "www": people.name("www"),
        }
        self.write("bin/site", "#!/bin/sh\nexec sleep 60\n")
        self.write("releases/1/app.py", "")
        for path, text in {"durward.toml": "", "policy.d/10.toml": POLICY, "services.d/site.toml": SITE}.items():
            for name, value in names.items():
                text = text.replace(f"@{name}@", str(value))
            self.write(f"etc/{path}", text)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def lint(self, user: str = "") -> tuple[int, list[dict[str, Any]]]:
        """As root, here; or as somebody, in a process of his."""
        words = ["policy", "lint", str(self.folder / "etc"), "--json"]
        if not user:
            with redirect_stdout(io.StringIO()) as said:
                status = main(words)
            return status, json.loads(said.getvalue())["findings"]
        who = {"user": self.people[user].uid, "group": self.people[user].gid, "extra_groups": []}
        argv = [str(PREFIX / "bin" / "durward"), *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd="/", env={}, **who)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)["findings"]

    def told(self) -> list[tuple[str, str, str, str]]:
        status, found = self.lint()
        errors = [one for one in found if one["severity"] == "error"]
        assert status == bool(errors)
        return [
            (one["code"], one["rule"], one["path"].removeprefix(str(self.folder)), one["text"].partition(" may ")[0])
            for one in errors
        ]


@pytest.fixture
def machine(people: People) -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}lint-", dir=FOLDERS))
    yield Machine(folder, people)
    shutil.rmtree(folder)


def expected(machine: Machine, path: str) -> list[tuple[str, str, str, str]]:
    return [("amounts-to-user", "alice-runs-the-site", path, machine.people.name("alice"))]


def test_what_is_roots_alone_amounts_to_nothing(machine: Machine) -> None:
    assert machine.told() == []


def test_who_may_restart_it_and_owns_its_script_is_an_error_with_the_grant_and_the_path(machine: Machine) -> None:
    os.chown(machine.folder / "releases/1/app.py", machine.people["alice"].uid, 0)
    assert machine.told() == expected(machine, "/releases/1/app.py")
    [one] = [one for one in machine.lint()[1] if one["severity"] == "error"]
    assert (one["file"], one["line"], one["service"]) == ("policy.d/10.toml", 1, "site")
    os.chown(machine.folder / "releases/1/app.py", machine.people["bob"].uid, 0)
    assert machine.told() == []


def test_what_a_list_grants_to_a_person_or_to_his_group_is_found(machine: Machine) -> None:
    program = machine.folder / "bin/site"
    subprocess.run(["setfacl", "-m", f"u:{machine.people.name('alice')}:rw", str(program)], check=True)
    assert machine.told() == expected(machine, "/bin/site")
    subprocess.run(["setfacl", "-b", "-m", f"g:{machine.people.group('webops')}:rw", str(program)], check=True)
    assert machine.told() == expected(machine, "/bin/site")
    subprocess.run(["setfacl", "-b", str(program)], check=True)
    assert machine.told() == []


def test_a_directory_above_that_her_group_may_write_is_found_and_links_are_followed(machine: Machine) -> None:
    shutil.chown(machine.folder / "releases", 0, machine.people.group("webops"))
    (machine.folder / "releases").chmod(0o775)
    assert machine.told() == expected(machine, "/releases")
    (machine.folder / "releases").chmod(0o755)
    os.chown(machine.folder, machine.people["alice"].uid, 0)  # by it the link itself can be replaced
    assert machine.told() == expected(machine, "")


def test_somebody_who_is_not_root_is_told_what_he_cannot_see(machine: Machine) -> None:
    (machine.folder / "releases/1").chmod(0o700)
    status, found = machine.lint("bob")
    unseen = [one["text"] for one in found if one["code"] == "not-looked-at"]
    assert status == 0
    assert any("Permission denied" in text and "app.py" in text for text in unseen)
