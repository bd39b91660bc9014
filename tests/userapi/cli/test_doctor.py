"""durward doctor, whole, over directories of root's and ports of its own; and what it cannot see as somebody else."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from userapi.cli import doctor
from userapi.cli.machine import OK, PROBLEM, UNKNOWN, WARNING

pytestmark = pytest.mark.root
NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="durward-test-doctor-", dir="/run"))
    path.chmod(0o755)
    for name in ("etc", "etc/services.d", "run", "log", "state"):
        (path / name).mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


def write(folder: Path, name: str, text: str) -> None:
    (folder / "etc" / name).write_text(text)
    (folder / "etc" / name).chmod(0o644)


def settings(folder: Path) -> str:
    return "[paths]\n" + "".join(f'{name} = "{folder}/{name}"\n' for name in ("run", "log", "state"))


def run(folder: Path, *words: str, user: int = 0) -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-B", "-m", "userapi.cli", "doctor", "--config", str(folder / "etc"), *words]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, user=user, cwd=Path(__file__).parents[3]
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout) if "--json" in words else {"text": done.stdout}


def of(told: dict[str, Any], group: str) -> list[tuple[str, str]]:
    return [(one["level"], one["text"]) for one in told["findings"] if one["group"] == group]


def test_every_problem_of_the_files_is_told_and_ends_it_with_1(folder: Path) -> None:
    write(folder, "durward.toml", settings(folder) + "[accounts]\nlog = 5\n")
    status, told = run(folder, "--json")
    assert status == 1
    assert told["problems"] == sum(one["level"] == PROBLEM for one in told["findings"]) > 0
    assert of(told, "given up") == [], "nothing is said to be well of what was not understood"
    assert any("accounts.log" in text for level, text in of(told, "configuration") if level == PROBLEM)
    assert all(one["todo"] for one in told["findings"] if one["level"] in (WARNING, PROBLEM))


def test_people_see_groups_levels_and_what_to_do(folder: Path) -> None:
    write(folder, "durward.toml", settings(folder))
    _, told = run(folder)
    assert "\nkernel\n" in f"\n{told['text']}"
    assert "  ok       Linux " in told["text"]
    assert told["text"].splitlines()[-1].endswith(" unknown")


def test_as_somebody_else_it_says_what_it_could_not_look_at(folder: Path) -> None:
    write(folder, "durward.toml", settings(folder))
    (folder / "etc" / "durward.toml").chmod(0o600)
    _, told = run(folder, "--json", user=NOBODY)
    [(level, text)] = of(told, "configuration")
    assert level == UNKNOWN
    assert "is not looked at" in text
    assert told["unknown"] >= 1


def test_a_port_that_is_taken_is_a_problem_that_names_who_has_it(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        write(folder, "durward.toml", settings(folder))
        write(folder, "services.d/a.toml", f'[socket.a]\nlisten = "127.0.0.1:{port}"\n')
        status, told = run(folder, "--json")
        [(level, text)] = of(told, "ports")
        assert (status, level) == (1, PROBLEM)
        assert f"(pid {os.getpid()})" in text
        _, told = run(folder, "--json", user=NOBODY)
        assert [level for level, _ in of(told, "ports")] == [UNKNOWN]
    _, told = run(folder, "--json")
    assert of(told, "ports") == [(OK, f"port {port} is free")]


def test_a_directory_that_others_may_write_is_a_problem_and_a_first_key_that_is_left_a_warning(folder: Path) -> None:
    write(folder, "durward.toml", settings(folder))
    (folder / "state" / "log").mkdir()
    (folder / "state" / "log" / "audit.initial").touch()
    (folder / "log").chmod(0o777)
    _, told = run(folder, "--json")
    found = of(told, "directories")
    assert (PROBLEM, f"{folder}/log (log) has mode 777: others may write it") in found
    assert (OK, f"{folder}/run has mode 755") in found
    assert any(level == WARNING and "audit.initial is still" in text for level, text in found)


def test_d14_a_program_that_its_own_user_may_replace_is_told(folder: Path) -> None:
    place = folder / "program"
    place.mkdir(mode=0o755)
    shutil.copy("/bin/true", place / "serve")
    write(folder, "durward.toml", settings(folder))
    service = f'[service.site]\ncommand = ["{place}/serve"]\nuser = "nobody"\n'
    write(folder, "services.d/a.toml", service)
    [(level, _)] = of(run(folder, "--json")[1], "services")
    assert level == OK
    for path in (place / "serve", place):
        os.chown(path, NOBODY, 0)
        [(level, text)] = of(run(folder, "--json")[1], "services")
        assert level == WARNING
        assert text.startswith(f"site may replace its own program by {path}: ")
        os.chown(path, 0, 0)
    (place / "serve").unlink()
    [(level, text)] = of(run(folder, "--json")[1], "services")
    assert (level, text) == (PROBLEM, f"site: there is no {place}/serve: it cannot be started")


def test_a_file_of_pam_that_is_not_there_or_not_roots_is_a_problem(tmp_path: Path) -> None:
    [finding] = doctor.pam(["durward-none"])
    assert (finding.level, finding.group) == (PROBLEM, "login")
    path = Path("/etc/pam.d/durward-test-doctor")
    try:
        path.write_text("auth required pam_deny.so\n")
        path.chmod(0o666)
        assert [one.level for one in doctor.pam([path.name])] == [PROBLEM]
        path.chmod(0o644)
        assert [one.level for one in doctor.pam([path.name])] == [OK]
        path.write_text("auth required pam_faillock.so\n")
        assert [one.level for one in doctor.pam([path.name])] == [WARNING]
    finally:
        path.unlink()


def test_a_daemon_that_is_not_there_is_a_warning_and_strict_fails_for_it(folder: Path) -> None:
    write(folder, "durward.toml", settings(folder))
    status, told = run(folder, "--json")
    [(level, _)] = of(told, "daemon")
    assert level == WARNING
    assert status == (1 if told["problems"] else 0)
    assert run(folder, "--json", "--strict")[0] == 1
    assert run(folder, "--json")[1]["warnings"] >= 1


def test_words_that_it_does_not_know_end_it_with_2(folder: Path) -> None:
    argv = [sys.executable, "-m", "userapi.cli", "doctor", "--nonsense"]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ('capabilities = ["NET_RAW", "SYS_TIME"]', "site keeps NET_RAW, SYS_TIME: "),
        ("oom_score_adj = -500", "site is spared when memory is short (oom_score_adj = -500)"),
        ('files = { read = ["/usr"], optional = true }', "site runs without its limits of files"),
        ("cgroup = { tasks = 9, optional = true }", "site runs without its limits of cgroup"),
    ],
)
def test_what_a_service_is_given_of_roots_and_limits_that_may_be_missing_are_told(
    folder: Path, key: str, words: str
) -> None:
    write(folder, "durward.toml", settings(folder))
    write(folder, "services.d/a.toml", f'[service.site]\ncommand = ["/bin/true"]\nuser = "nobody"\n{key}\n')
    [(level, text)] = of(run(folder, "--json")[1], "given up")
    assert level == WARNING
    assert text.startswith(words)


def test_a_service_that_takes_less_gives_up_nothing(folder: Path) -> None:
    write(folder, "durward.toml", settings(folder))
    keys = 'oom_score_adj = 500\nnice = 5\nfiles = { read = ["/usr"] }\n'
    write(folder, "services.d/a.toml", f'[service.site]\ncommand = ["/bin/true"]\nuser = "nobody"\n{keys}')
    assert WARNING not in [level for level, _ in of(run(folder, "--json")[1], "given up")]


def test_what_a_service_needs_and_is_not_here_is_told_once_with_what_to_do(folder: Path) -> None:
    """What --check notes: a message about a missing path sends people here."""
    write(folder, "durward.toml", settings(folder))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        keys = f'directory = "{folder}/away"\nfiles = {{ read = ["/usr", "{folder}/gone"] }}\nsockets = ["a"]\n'
        text = f'[socket.a]\nlisten = "127.0.0.1:{port}"\n[service.site]\nuser = "nobody"\n{keys}'
        text += f'command = ["{folder}/no"]\nhooks = {{ pre_start = ["{folder}/hook"] }}\n'
        write(folder, "services.d/a.toml", text)
        _, told = run(folder, "--json")
    place = "services.d/a.toml:{}: service.site.{}".format
    assert {one["text"]: one["todo"] for one in told["findings"] if "service.site" in one["text"]} == {
        f"{place(5, 'directory')}: it cannot be started now: {folder}/away: No such file or directory": doctor.MAKE,
        f"{place(6, 'files.read[1]')}: it cannot be started now: {folder}/gone: No such file or directory": doctor.MAKE,
        f"{place(9, 'hooks.pre_start')}: nobody cannot execute {folder}/hook now: No such file or directory": (
            "install it, or let that user execute it"
        ),
    }
    assert len([one for one in told["findings"] if str(port) in one["text"]]) == 1
    assert len([one for one in told["findings"] if f"{folder}/no" in one["text"]]) == 1


def test_only_a_missing_policy_is_mended_by_a_grant(folder: Path) -> None:
    write(folder, "durward.toml", settings(folder))
    (folder / "etc" / "policy.d").mkdir(mode=0o755)
    limits = 'cgroup = { cpu = "50%", memory = "1G", tasks = 9 }\nfiles = { read = ["/usr"] }\noom_score_adj = -1000\n'
    write(folder, "services.d/a.toml", f'[service.site]\ncommand = ["/bin/true"]\nuser = "nobody"\n{limits}')
    told = run(folder, "--json")[1]
    assert not [one for one in told["findings"] if one["group"] == "configuration" and "grant" in one["todo"]]
    (folder / "etc" / "policy.d").rmdir()
    told = run(folder, "--json")[1]
    assert [one["text"] for one in told["findings"] if "is a grant" in one["todo"]] == [
        f"there is no {folder}/etc/policy.d: nobody but root may do anything"
    ]


def test_a_certificate_that_the_apis_account_cannot_load_is_a_problem_that_says_why(
    folder: Path, tls: dict[str, str]
) -> None:
    for name, path in tls.items():
        shutil.copy(path, folder / name)
        os.chown(folder / name, 0, NOBODY)
    (folder / "key").chmod(0o600)
    pair = f'tls = {{ certificate = "{folder}/certificate", key = "{folder}/key" }}'
    write(folder, "durward.toml", f'{settings(folder)}[accounts]\napi = "nobody"\n[api]\n{pair}\n')

    def told(user: int = 0) -> tuple[str, str]:
        [found] = [one for one in of(run(folder, "--json", user=user)[1], "login") if f"{folder}/key" in one[1]]
        return found

    assert told() == (PROBLEM, f"the api cannot start, by [api] tls: {folder}/key: Permission denied")
    (folder / "key").chmod(0o640)
    assert told() == (OK, f"the api may read {folder}/key, and its certificate fits")
    assert told(NOBODY)[0] == UNKNOWN
    write(folder, "durward.toml", f'{settings(folder)}[accounts]\napi = "dwt-nobody-at-all"\n[api]\n{pair}\n')
    found = run(folder, "--json")[1]
    assert any("dwt-nobody-at-all" in text for level, text in of(found, "configuration") if level == PROBLEM)
    assert not [text for _, text in of(found, "login") if f"{folder}/key" in text], "nobody can be tried"
    write(folder, "durward.toml", f'{settings(folder)}[accounts]\napi = "nobody"\n[api]\n{pair}\n')
    shutil.copy(folder / "certificate", folder / "key")
    found = run(folder, "--json")[1]["findings"]
    [wrong] = [one for one in found if "by [api] tls" in one["text"]]
    assert wrong["level"] == PROBLEM
    assert "its own key" in wrong["todo"]
