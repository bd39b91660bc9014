"""The scripts of packaging/: what they refuse before they do anything, and that uninstall ends whatever is gone.

Rule: nothing is installed here; every PREFIX is a folder in /run that only looks like one, without accounts.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootd.config.keys import SECTIONS

pytestmark = pytest.mark.root

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
NOBODY = 65534


def run(*command: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=20, check=False, **more)


def sourced(script: str, *arguments: str | Path, cwd: str | Path = "/") -> subprocess.CompletedProcess[str]:
    """The script, with the functions of common.sh and its arguments from $1 on."""
    return run("/bin/sh", "-euc", f'. "$0"; {script}', PACKAGING / "common.sh", *arguments, cwd=cwd)


@pytest.fixture
def place() -> Iterator[Path]:
    """Where root may install: all above it is root's, which /tmp is not."""
    folder = Path(tempfile.mkdtemp(prefix="durward-packaging-", dir="/run"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def prefix(place: Path) -> Path:
    """As an interrupted install leaves it, with an interpreter that tells when it is run."""
    prefix = place / "prefix"
    (prefix / ".durward").mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3").write_text(f"#!/bin/sh\n: >{place}/ran\n")
    (prefix / "bin" / "python3").chmod(0o755)
    return prefix


@pytest.mark.parametrize("config", ["my conf", "tab\tbed", "two\nlines", "star*", 'quo"te', "a/../../../..", "/"])
def test_install_refuses_a_configuration_that_a_list_would_take_apart(place: Path, config: str) -> None:
    done = run(PACKAGING / "install", "--files-only", "--config", config, place / "prefix", cwd=place)
    assert done.returncode == 1
    assert "--config must be a plain absolute path" in done.stderr
    assert not list(place.iterdir())


def test_install_refuses_a_configuration_in_the_prefix(place: Path) -> None:
    for config in ("prefix", "prefix/etc", "x/../prefix/etc"):
        done = run(PACKAGING / "install", "--files-only", "--config", place / config, place / "prefix")
        assert done.returncode == 1
        assert "--config must not be in PREFIX" in done.stderr
        assert not list(place.iterdir())


@pytest.mark.parametrize("option", ["--accounts-prefix", "--pam-service"])
@pytest.mark.parametrize("name", ["a b", "../x", "a/b", "a*", "A", ".a", "-a"])
def test_install_refuses_names_that_a_list_would_take_apart(place: Path, option: str, name: str) -> None:
    done = run(PACKAGING / "install", "--files-only", option, name, place / "prefix")
    assert done.returncode == 1
    assert f"{option} must be" in done.stderr
    assert not list(place.iterdir())


def test_a_relative_path_is_made_absolute(place: Path) -> None:
    assert sourced('plain_path --config "$1"', "conf", cwd=place).stdout == f"{place}/conf"


@pytest.mark.parametrize("path", ["", ".", "conf", "a/b", "-x", "/", "//", "//a//b/"])
def test_the_check_of_what_is_above_ends_for_every_path(path: str) -> None:
    done = sourced('check_parents "$1"', path)
    assert done.returncode == (0 if path.startswith("/") else 1), done.stderr


def test_uninstall_refuses_a_list_that_it_would_take_apart(place: Path, prefix: Path) -> None:
    (place / "my").mkdir()
    (prefix / ".durward" / "made").write_text(f"config {place}/my conf\n")
    done = run(PACKAGING / "uninstall", "--purge", prefix)
    assert done.returncode == 1
    assert "lines that packaging/install does not write" in done.stderr
    assert (place / "my").is_dir()


@pytest.mark.parametrize("purge", [(), ("--purge",)])
def test_uninstall_ends_when_the_configuration_is_gone_already(place: Path, prefix: Path, purge: tuple[str]) -> None:
    (prefix / ".durward" / "made").write_text(f"config {place}/gone\naccount durward-packaging-gone\n")
    done = run(PACKAGING / "uninstall", *purge, prefix)
    assert (done.returncode, done.stderr) == (0, "")
    assert not prefix.exists()


@pytest.mark.parametrize("purge", [(), ("--purge",)])
def test_uninstall_leaves_folders_of_others_as_they_are(place: Path, prefix: Path, purge: tuple[str]) -> None:
    config, log = place / "config", place / "log"
    config.mkdir()
    log.mkdir(mode=0o755)
    (config / "durward.toml").write_text(f'[paths]\nlog = "{log}"\nstate = "{place}/state"\nrun = "{place}/run"\n')
    (prefix / ".durward" / "made").write_text(f"config {config}\naccount durward-packaging-gone\n")
    done = run(PACKAGING / "uninstall", *purge, prefix)
    assert (done.returncode, done.stderr) == (0, "")
    assert (log.stat().st_mode & 0o777, list(log.iterdir())) == (0o755, [])
    assert config.exists() is not bool(purge)


@pytest.mark.parametrize("purge", [(), ("--purge",)])
def test_nothing_stays_that_a_later_account_could_inherit(place: Path, prefix: Path, purge: tuple[str]) -> None:
    """Every folder that the daemon makes for its accounts and that outlives it."""
    config, account = place / "config", "durward-packaging-auth"
    config.mkdir()
    (config / "durward.toml").write_text(
        f'[paths]\nlog = "{place}/log"\nstate = "{place}/state"\nrun = "{place}/run"\n'
    )
    assert run("useradd", "--system", "--user-group", "--no-create-home", account).returncode == 0
    folders = [place / "log", *(place / "state" / name for name in ("log", "choices", "auth"))]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "file").write_text("secret")
        shutil.chown(folder, account, account)
        shutil.chown(folder / "file", account, account)
    (prefix / ".durward" / "made").write_text(f"config {config}\naccount {account}\n")
    done = run(PACKAGING / "uninstall", *purge, prefix)
    assert (done.returncode, done.stderr) == (0, "")
    assert run("getent", "passwd", account).returncode != 0
    for folder in folders:
        assert folder.exists() is not bool(purge)
        for path in (folder, *folder.iterdir()) if not purge else ():
            assert (path.stat().st_uid, path.stat().st_gid) == (0, 0)
    assert (place / "state").exists() is not bool(purge)


@pytest.mark.parametrize("key", ["run", "log", "state"])
def test_a_path_that_the_configuration_does_not_name_is_the_default(place: Path, key: str) -> None:
    default = SECTIONS["paths"][key].default

    def path() -> str:
        return sourced('path_of "$1" "$2"', place, key).stdout.removesuffix("\n")

    assert path() == default
    for text in ("", "[paths]\n", f'# {key} = "/x"\n', f'{key} = "/"\n', f'{key} = "name"\n', f'x{key} = "/x"\n'):
        (place / "durward.toml").write_text(text)
        assert path() == default, text
    for text in (f'{key} = "/srv/x"\n', f"\t{key}\t= '/srv/x' # why\n", f'{key}="/srv/x/"\n{key} = "/y"\n'):
        (place / "durward.toml").write_text(text)
        assert path() == "/srv/x", text


@pytest.mark.parametrize("options", [("--systemd",), ("--links",), ("--links", "--systemd")])
def test_install_refuses_what_would_be_outside_of_the_prefix_beside_files_only(
    place: Path, options: tuple[str, ...]
) -> None:
    done = run(PACKAGING / "install", "--files-only", *options, place / "prefix")
    assert done.returncode == 1
    assert all(option in done.stderr for option in options)
    assert not (place / "prefix").exists()


@pytest.mark.parametrize("script", ["install", "uninstall"])
@pytest.mark.parametrize("part", ["", ".durward"])
@pytest.mark.parametrize("spoil", ["owner", "group", "other"])
def test_a_prefix_that_others_can_write_is_not_believed(prefix: Path, script: str, part: str, spoil: str) -> None:
    (prefix / ".durward" / "made").write_text(f"folder {prefix.parent}/precious\n")
    (prefix.parent / "precious").mkdir()
    if spoil == "owner":
        os.chown(prefix / part, NOBODY, NOBODY)
    else:
        (prefix / part).chmod(0o775 if spoil == "group" else 0o757)
    done = run(PACKAGING / script, *(("--files-only",) if script == "install" else ()), prefix)
    assert done.returncode == 1
    assert f"{prefix / part} " in done.stderr
    assert {file.name for file in prefix.parent.iterdir()} == {"prefix", "precious"}


DAEMON = "#!/bin/sh\nread -r _\n"
ASKER = """#!/bin/sh
echo "$*" >>{place}/asked
exit {status}
"""


@pytest.mark.parametrize("status", [0, 69])
@pytest.mark.parametrize("runs", [True, False])
def test_a_daemon_that_runs_from_the_prefix_is_asked_on_root_sock_to_become_what_is_installed(
    place: Path, prefix: Path, runs: bool, status: int
) -> None:
    config, run_dir = place / "config", place / "run"
    for folder in (config, run_dir):
        folder.mkdir()
    (config / "durward.toml").write_text(f'[paths]\nrun = "{run_dir}"\n')
    for name, text in {"durward-rootd": DAEMON, "durward": ASKER.format(place=place, status=status)}.items():
        (prefix / "bin" / name).write_text(text)
        (prefix / "bin" / name).chmod(0o755)
    script = 'PREFIX=$2; upgrade_running "$1"'
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as root:
        assert sourced(script, config, prefix).stdout == "", "there is no root.sock"
        root.bind(str(run_dir / "root.sock"))
        daemon = subprocess.Popen([prefix / "bin" / "durward-rootd"], stdin=subprocess.PIPE) if runs else None
        try:
            done = sourced(script, config, prefix)
        finally:
            if daemon is not None:
                daemon.communicate()
    assert done.returncode == 0
    asked = (place / "asked").read_text() if (place / "asked").exists() else ""
    assert asked == (f"--root {run_dir}/root.sock upgrade\n" if runs else "")
    assert ("its services go on" in done.stdout) is runs
    assert ("was not replaced" in done.stderr) is (runs and status != 0)
