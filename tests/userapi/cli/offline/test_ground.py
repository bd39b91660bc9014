"""userapi/cli/offline/ground: what a service runs and reads, found beneath a folder that is another machine's "/"."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policy.machine import Machine, Place
from policy.parse import parse
from policy.rules import Policy
from userapi.cli.offline.ground import Account, Accounts, Section, of_files, of_machine, survey
from userapi.cli.offline.writers import Ground, Look

pytestmark = pytest.mark.root
ALICE, OPS = 61001, 61003
RULES = '[[grant]]\nid = "a"\nwho = ["user:alice", "group:ops"]\nmay = ["restart"]\non = ["site"]\n'


@pytest.fixture
def top() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="durward-test-ground-", dir="/run"))
    path.chmod(0o755)
    write(
        path, "etc/passwd", f"root:x:0:0::/root:/bin/sh\nalice:x:{ALICE}:{OPS}::/:/bin/sh\nwww:x:33:33::/:\nbad:x::\n"
    )
    write(path, "etc/group", f"root:x:0:\nops:x:{OPS}:www,ghost\nwww:x:33:\ndocker:x:99:\nshort:x:5\n")
    yield path
    shutil.rmtree(path)


def write(top: Path, path: str, text: str = "", owner: int = 0) -> None:
    """Its directories too, all of them root's."""
    made = top / path
    for folder in reversed(made.relative_to(top).parents):
        (top / folder).mkdir(exist_ok=True)
        (top / folder).chmod(0o755)
    made.write_text(text)
    made.chmod(0o755)
    os.chown(made, owner, 0)


def policy() -> Policy:
    made = parse([("p.toml", RULES)], {"site": ()})
    assert isinstance(made, Policy)
    return made


def machine(top: Path, *more: Section, config: str = "", **values: Any) -> Machine:
    site = Section("services.d/site.toml", "service.site", {"command": ["/srv/run"], "user": "www"} | values)
    return survey(policy(), [site, *more], str(top), config)


def places(top: Path, *more: Section, config: str = "", **values: Any) -> list[Place]:
    return [one for one in machine(top, *more, config=config, **values).services["site"].places if one.users]


def whats(found: list[Place]) -> list[tuple[str, str]]:
    return [(one.what, one.at) for one in found]


def test_what_is_started_with_it_is_what_it_requires_and_what_restarts_with_it(top: Path) -> None:
    others = [
        Section("services.d/a.toml", "service.shop", {"restart_with": ["site"]}),
        Section("services.d/b.toml", "service.db", {"restart_with": "site"}),
    ]
    services = machine(top, *others, requires=["db"]).services
    assert {name: one.brings for name, one in services.items()} == {"site": ("db", "shop"), "shop": (), "db": ()}


def test_its_program_and_the_interpreter_of_that_are_looked_at(top: Path) -> None:
    write(top, "srv/run", "#!/opt/lang/bin/lang -x\n", ALICE)
    write(top, "opt/lang/bin/lang", "\x7fELF", ALICE)
    assert places(top) == [
        Place("its program", "/srv/run", "/srv/run", users=frozenset({"alice"})),
        Place("the interpreter of its program", "/opt/lang/bin/lang", "/opt/lang/bin/lang", users=frozenset({"alice"})),
    ]


def test_what_a_virtual_environment_imports_is_looked_at(top: Path) -> None:
    write(top, "srv/venv/pyvenv.cfg")
    write(top, "srv/venv/bin/gunicorn", "#!/srv/venv/bin/python3\n")
    write(top, "srv/venv/lib/python3.11/site-packages/flask.py")
    write(top, "srv/venv/lib/other")
    os.chown(top / "srv/venv/lib/python3.11/site-packages", ALICE, 0)
    [one] = {*places(top, command=["/srv/venv/bin/gunicorn"])}
    assert (one.what, one.at) == (
        "the virtual environment of its program,", "/srv/venv/lib/python3.11/site-packages"
    )  # fmt: skip
    shutil.rmtree(top / "srv/venv/lib")
    assert places(top, command=["/srv/venv/bin/gunicorn"]) == []


def test_an_interpreter_that_env_finds_is_looked_at_by_the_path_of_the_service_and_what_comes_before_it(
    top: Path,
) -> None:
    write(top, "srv/run", "#!/usr/bin/env -S A=1 lang -x\n")
    write(top, "usr/bin/env")
    write(top, "own/bin/.keep")
    os.chown(top / "own/bin", ALICE, 0)
    write(top, "usr/bin/lang", "#! /usr/bin/core\n", ALICE)
    write(top, "usr/bin/core", "", ALICE)
    told = places(top, environment={"PATH": "/own/bin:/usr/bin:/bin"})
    what = "the interpreter of its program"
    assert whats(told)[:4] == [
        (what, "/own/bin"), (what, "/usr/bin/lang"), (what, "/usr/bin/core"), ("a place of its PATH", "/own/bin"),
    ]  # fmt: skip


def test_scripts_that_name_each_other_and_env_without_a_name_come_to_an_end(top: Path) -> None:
    write(top, "srv/run", "#!/srv/run\n", ALICE)
    assert ("the interpreter of its program", "/srv/run") in whats(places(top))
    write(top, "srv/run", "#!/usr/bin/env\n", ALICE)
    write(top, "usr/bin/env")
    assert whats(places(top)) == [("its program", "/srv/run")]


def test_files_among_its_arguments_are_looked_at_by_their_path_or_from_its_directory(top: Path) -> None:
    write(top, "bin/python3")
    write(top, "srv/site/app.py", "", ALICE)
    write(top, "srv/site/conf.py", "", ALICE)
    write(top, "srv/www/index.html")
    os.chown(top / "srv/www", ALICE, 0)
    command = ["/bin/python3", "-O", "app.py", "--config=/srv/site/conf.py", "/srv/www", "site:app", "", "no\0"]
    told = places(top, command=command, directory="/srv/site")
    assert [(one.what, one.path, one.grave) for one in told] == [
        ("a file that its program is given,", "/srv/site/app.py", True),
        ("a file that its program is given,", "/srv/site/conf.py", True),
        ("a directory that its program is given,", "/srv/www", False),
    ]


def test_a_module_that_is_found_from_its_directory_is_looked_at(top: Path) -> None:
    write(top, "bin/gunicorn")
    for name in ("wsgi.py", "site/__init__.py", "site/app.py"):
        write(top, f"srv/site/{name}", "", ALICE)
    for word, path in {"wsgi:app": "wsgi.py", "site": "site/__init__.py", "site.app:make()": "site/app.py"}.items():
        told = places(top, command=["/bin/gunicorn", word], directory="/srv/site")
        assert [(one.path, one.grave) for one in told] == [(f"/srv/site/{path}", True)]


def test_what_a_shell_is_told_to_execute_is_said_not_to_have_been_looked_at(top: Path) -> None:
    write(top, "bin/sh")
    for words in (["-c", "x" * 300], ["-ec", "/srv/run"]):
        made = machine(top, command=["/bin/sh", *words])
        [(_, text)] = made.untold
        assert text == "what the program of site has a shell execute"
        assert made.unseen == (), "root would see no more"
    assert machine(top, command=["/bin/sh", "-e", "/srv/run"]).untold == ()
    assert machine(top, directory="no\0path", pid_file="x" * 300).unseen == ()


def test_an_argument_that_is_not_there_yet_may_be_made_by_who_may_write_its_directory(top: Path) -> None:
    write(top, "srv/run")
    write(top, "tmp/.keep")
    os.chown(top / "tmp", ALICE, 0)
    [one] = places(top, command=["/srv/run", "/tmp/later", "relative"])
    assert (one.what, one.at, one.grave) == ("what its program may find at", "/tmp", False)


def test_all_of_its_commands_files_and_places_are_looked_at(top: Path) -> None:
    for name in ("run", "pre", "stop", "live", "env", "key", "pid", "lib/x", "sock", "logs/site"):
        write(top, f"srv/{name}", "", ALICE)
    os.chown(top / "srv/lib", ALICE, 0)
    sections = [
        Section("services.d/site.toml", "socket.http", {"listen": ["0.0.0.0:80", "unix:/srv/sock"]}),
        Section("services.d/site.toml", "socket.fast", {"listen": "unix-dgram:/srv/sock"}),
        Section("durward.toml", "paths", {"log": "/srv/logs"}),
    ]
    told = places(
        top, *sections, hooks={"pre_start": ["/srv/pre"], "timeout": "3s"}, stop={"command": ["/srv/stop"]},
        live={"command": ["/srv/live"]}, environment_file="-/srv/env", credentials={"key": "/srv/key", "odd": 5},
        pid_file="/srv/pid", sockets=["http", "none"], fastcgi="fast", directory="/srv/lib",
        environment={"PYTHONPATH": "/srv/lib::relative", "HOME": "/srv/lib"},
    )  # fmt: skip
    assert [one.what for one in told] == [
        "its program", "its pre-start command", "its stop command", "its liveness probe", "its directory",
        "its environment file", "a place of its PYTHONPATH", "its secret key", "its pid file", "its log", "its socket",
    ]  # fmt: skip
    assert [one.what for one in told if not one.grave] == ["its pid file", "its log", "its socket"]


def test_the_log_of_each_process_is_looked_at_and_none_where_there_is_none(top: Path) -> None:
    write(top, "srv/run")
    write(top, "var/log/durward/site.1/stdout.log")
    os.chown(top / "var/log/durward/site.1", ALICE, 0)
    assert whats(places(top, processes=2)) == [("its log", "/var/log/durward/site.1")]
    assert whats(places(top, processes=2, log={"target": "null"})) == []
    assert whats(places(top, processes="many")) == []


def test_the_file_that_configures_it_is_looked_at_where_it_is_installed(top: Path) -> None:
    write(top, "srv/run")
    write(top, "etc/durward/services.d/site.toml", "", ALICE)
    assert whats(places(top, config="/etc/durward")) == [("its configuration", "/etc/durward/services.d/site.toml")]
    assert whats(places(top)) == []


def test_what_may_not_be_looked_at_is_named_once(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(ground: Ground, path: str) -> Look:
        return Look((), "", f"{'/srv' if path == '/srv/run' else path}: Permission denied", 0)

    monkeypatch.setattr(Ground, "look", closed)
    texts = [text for _, text in machine(top).unseen]
    assert "its program of site, /srv/run: /srv: Permission denied" in texts
    assert "its log of site, /var/log/durward/site: Permission denied" in texts


def test_words_with_variables_are_expanded_and_what_is_not_known_is_said(top: Path) -> None:
    write(top, "srv/run")
    write(top, "srv/www.conf", "", ALICE)
    values = {"command": ["/srv/run", "${BASE}/${USER}.conf", "${FILE}"], "environment": {"BASE": "/srv", "B": "${X}"}}
    found = machine(top, **values)
    assert [one.path for one in found.services["site"].places if one.users] == ["/srv/www.conf"]
    [(service, text)] = found.untold
    assert (service, text) == ("site", "${FILE}, a word of a command of site: its variables are not known here")


def test_words_that_the_daemon_hides_are_said(top: Path) -> None:
    write(top, "srv/run")
    [(_, text)] = machine(top, command=["/srv/run", "(hidden)"]).unseen
    assert text == "words of a command of site, which the daemon does not tell: lint its directory"
    assert machine(top, command=["(hidden)"]).services["site"].places == ()


@pytest.mark.parametrize(
    ("values", "root"),
    [
        ({}, ""),
        ({"user": "root"}, "runs as root"),
        ({"supplementary_groups": ["docker"]}, "is in the group docker, which is as good as root"),
        ({"group": "shadow"}, "is in the group shadow, which is as good as root"),
        ({"capabilities": ["cap_sys_admin", "NET_RAW"]}, "has CAP_SYS_ADMIN, which is as good as root"),
        ({"capabilities": ["NET_RAW"]}, ""),
        ({"user": 5, "command": "/srv/run", "capabilities": "x", "groups": [1], "hooks": []}, ""),
    ],
)
def test_what_makes_it_as_good_as_root_is_told(top: Path, values: dict[str, Any], root: str) -> None:
    assert machine(top, **values).services["site"].root == root


def test_durwards_own_accounts_and_whether_passwords_are_needed(top: Path) -> None:
    sections = [
        Section("durward.toml", "accounts", {"api": "web-door"}), Section("durward.toml", "auth", {"local": "peer"}),
    ]  # fmt: skip
    found = machine(top, *sections)
    assert found.own["web-door"] == "api"
    assert found.own["_durward-sup"] == "supervisor"
    assert (found.peer, machine(top).peer) == (True, False)


def test_the_accounts_are_those_of_the_other_machine(top: Path) -> None:
    found = machine(top, groups=["web", 5])
    assert found.accounts
    assert found.users == {
        "root": frozenset({"root"}), "alice": frozenset({"ops"}), "www": frozenset({"www", "ops"}),
    }  # fmt: skip
    assert found.groups["ops"] == frozenset({"alice", "www"})
    assert found.groups["docker"] == found.groups["short"] == frozenset()
    assert found.services["site"].groups == ("web",)
    with pytest.raises(OSError, match="etc/passwd"):
        of_files(str(top / "none"))


def test_this_machines_accounts_are_all_that_it_lists_and_those_asked_for() -> None:
    found = of_machine(["root", "nobody-is-called-so"], ["root", "no-such-group"])
    assert found.users["root"] == Account(0, 0)
    assert found.groups["root"] == 0
    assert "nobody-is-called-so" not in found.users
    of_user, of_group = found.belonging()
    assert "root" in of_user["root"]
    assert "root" in of_group["root"]


def test_all_names_of_a_number_count() -> None:
    found = Accounts({"a": Account(5, 7), "b": Account(5, 7)}, {"g": 7, "h": 7}, {"g": [], "h": ["a"]})
    assert found.names() == ({5: frozenset({"a", "b"})}, {7: frozenset({"g", "h"})})
    of_user, of_group = found.belonging()
    assert of_user == {"a": frozenset({"g", "h"}), "b": frozenset({"g"})}
    assert of_group == {"g": frozenset({"a", "b"}), "h": frozenset({"a"})}


def test_without_a_prefix_it_is_this_machine_and_the_names_of_the_rules_are_asked_for() -> None:
    text = RULES.replace('["restart"]', '["restart"]\napproval = { by = ["user:root", "group:root"], within = "5m" }')
    made = parse([("p.toml", text)], {"site": ()})
    assert isinstance(made, Policy)
    found = survey(made, [Section("s.toml", "service.site", {"command": ["/bin/sh"], "user": "root"})])
    assert "root" in found.users
    assert found.services["site"].root == "runs as root"
