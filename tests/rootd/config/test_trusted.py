"""Files that only root can have written, on a real file system with real modes, owners, ACLs and links."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from rootd.config import trusted
from rootd.config.trusted import File

pytestmark = pytest.mark.root
NOBODY = 65534


@pytest.fixture
def config(root_directory: Path) -> Path:
    """A directory two levels down, so that there are ancestors to spoil."""
    path = root_directory / "above" / "etc"
    for folder in ("services.d", "policy.d"):
        (path / folder).mkdir(parents=True)
    (path / "durward.toml").write_text("[paths]\n")
    (path / "services.d/site.toml").write_text("[service.site]\n")
    (path / "policy.d/10-web.toml").write_text("# é\n")
    for found in (path.parent, path, *path.rglob("*")):
        found.chmod(0o755 if found.is_dir() else 0o644)
    return path


def errors(config: Path) -> dict[str, str]:
    return {file.path: file.error for file in trusted.read_tree(str(config)) if file.error}


def test_roots_own_files_are_read_in_order(config: Path) -> None:
    (config / "services.d/a.toml").write_text("x = 1\n")
    assert trusted.read_tree(str(config)) == (
        File("durward.toml", "[paths]\n"),
        File("policy.d/10-web.toml", "# é\n"),
        File("services.d/a.toml", "x = 1\n"),
        File("services.d/site.toml", "[service.site]\n"),
    )


def test_other_names_and_hidden_files_are_not_ours(config: Path) -> None:
    ends = (".dpkg-old", ".dpkg-dist", ".dpkg-new", ".bak", "~")
    for name in (
        "README",
        "README.md",
        ".site.toml.swp",
        ".hidden.toml",
        ".#site.toml",
        *(f"a.toml{end}" for end in ends),
    ):
        (config / "services.d" / name).write_text("broken [")
    assert len(trusted.read_tree(str(config))) == 3


@pytest.mark.parametrize("name", ["20-more.tml", "X.TOML", "20-more", "toml", "a.toml.new"])
def test_a_file_whose_name_keeps_it_from_being_read_is_an_error_and_not_silence(config: Path, name: str) -> None:
    """It may hold a deny that root believes to be in force."""
    (config / "policy.d" / name).write_text("[[deny]]\n")
    (config / "other.conf").write_text("what stands beside durward.toml is no business of ours")
    assert errors(config) == {f"policy.d/{name}": "is not read: its name must end in .toml"}


def test_missing_folders_are_empty_and_a_missing_main_file_is_an_error(config: Path) -> None:
    for folder in ("services.d", "policy.d"):
        for file in (config / folder).iterdir():
            file.unlink()
        (config / folder).rmdir()
    (config / "durward.toml").unlink()
    [file] = trusted.read_tree(str(config))
    assert file == File("durward.toml", "", f"{config}/durward.toml: No such file or directory", missing=True)


def test_a_missing_directory_is_said_with_its_path(root_directory: Path) -> None:
    [file] = trusted.read_tree(f"{root_directory}/none/etc")
    assert file.error == f"{root_directory}/none: No such file or directory"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777, 0o2775, 0o733], ids=oct)
@pytest.mark.parametrize("component", [".", "..", "services.d", "../.."])
def test_b1_a_directory_that_others_may_write_is_refused_by_name(config: Path, component: str, mode: int) -> None:
    spoiled = (config / component).resolve()
    spoiled.chmod(mode)
    found = errors(config)
    name = "services.d" if component == "services.d" else "durward.toml"
    who = "everybody" if mode & 2 else "its group"
    assert set(found) == {name}
    assert found[name].startswith(f"{spoiled} can be written by {who}")
    cure = "choose another place" if mode & 0o1000 else f"chmod go-w {spoiled}"
    assert found[name].endswith(f"(mode {mode:04o}): {cure}")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o4664, 0o622], ids=oct)
@pytest.mark.parametrize("name", ["durward.toml", "services.d/site.toml", "policy.d/10-web.toml"])
def test_b1_a_file_that_others_may_write_is_refused(config: Path, name: str, mode: int) -> None:
    (config / name).chmod(mode)
    assert list(errors(config)) == [name]
    assert f"(mode {mode:04o}): chmod go-w {config}/{name}" in errors(config)[name]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o600, 0o440, 0o755], ids=oct)
def test_b1_files_that_only_root_may_write_are_taken(config: Path, mode: int) -> None:
    (config / "durward.toml").chmod(mode)
    assert not errors(config)


@pytest.mark.parametrize("component", ["..", ".", "services.d", "services.d/site.toml", "durward.toml"])
def test_b1_what_belongs_to_somebody_else_is_refused(config: Path, component: str) -> None:
    spoiled = (config / component).resolve()
    os.chown(spoiled, NOBODY, 0)
    [text] = errors(config).values()
    assert text == f"{spoiled} belongs to uid {NOBODY}, not to root: chown root {spoiled}"


def test_b1_a_sticky_directory_of_everybody_is_no_place_for_configuration() -> None:
    [file] = trusted.read_tree("/tmp/durward-none")
    assert file.error == "/tmp can be written by everybody (mode 1777): choose another place"
    assert trusted.read_file("/tmp/env").error == file.error


def may_write(path: Path, uid: int) -> bool:
    """Asked of the kernel, as that user."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.close(os.open(path, os.O_WRONLY))
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("entry", [f"u:{NOBODY}:rw", f"g:{NOBODY}:rw"])
@pytest.mark.parametrize("name", ["durward.toml", "services.d/site.toml"])
def test_b2_a_file_that_an_acl_lets_others_write_is_refused(config: Path, name: str, entry: str) -> None:
    subprocess.run(["setfacl", "-m", entry, config / name], check=True)
    assert may_write(config / name, NOBODY)
    assert list(errors(config)) == [name]
    assert "or whom its ACL names" in errors(config)[name]


def test_b2_a_directory_that_an_acl_lets_others_write_is_refused(config: Path) -> None:
    subprocess.run(["setfacl", "-m", f"u:{NOBODY}:rwx", config.parent], check=True)
    assert "or whom its ACL names" in errors(config)["durward.toml"]


def test_b2_an_acl_that_grants_no_writing_is_taken(config: Path) -> None:
    """Read access by ACL is how an auditor may be let in; what the mask takes away, the kernel does not grant."""
    subprocess.run(["setfacl", "-m", f"u:{NOBODY}:r", config / "durward.toml"], check=True)
    subprocess.run(["setfacl", "-m", f"u:{NOBODY}:rw,m::r", config / "services.d/site.toml"], check=True)
    assert not may_write(config / "services.d/site.toml", NOBODY)
    assert not errors(config)


@pytest.mark.parametrize("name", ["durward.toml", "services.d/site.toml"])
def test_b3_a_symbolic_link_is_not_followed(config: Path, name: str) -> None:
    path = config / name
    path.rename(config / "real")
    path.symlink_to(config / "real")
    assert errors(config) == {name: f"{path} {trusted.LINK}"}


@pytest.mark.parametrize("component", ["..", ".", "services.d"])
def test_b3_a_directory_that_is_a_symbolic_link_is_not_followed(config: Path, component: str) -> None:
    spoiled = (config / component).resolve()
    moved = spoiled.rename(f"{spoiled}-real")
    spoiled.symlink_to(moved)
    [text] = errors(config).values()
    assert text == f"{spoiled} {trusted.LINK}"


def test_b3_a_file_with_a_second_name_is_refused(config: Path) -> None:
    os.link(config / "durward.toml", config / "other")
    assert "has 2 hard links" in errors(config)["durward.toml"]


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "directory"])
def test_b3_what_is_no_regular_file_is_refused_without_waiting(config: Path, kind: str) -> None:
    path = config / "services.d/site.toml"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path, 0o644)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    elif kind == "device":
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
    else:
        path.mkdir(0o755)
    expected = "No such device or address" if kind == "socket" else "is not a regular file"
    assert expected in errors(config)["services.d/site.toml"]


def test_b3_a_file_where_a_directory_should_be_is_refused(config: Path) -> None:
    (config / "durward.toml").unlink()
    assert (
        f"{config}/services.d/site.toml is not a directory"
        == trusted.read_file(f"{config}/services.d/site.toml/x").error
    )


def test_b4_a_file_that_is_swapped_while_it_is_read_is_the_old_or_the_new_or_refused(config: Path) -> None:
    """What was checked is what was read: never the text of a file that failed the check."""
    path = config / "durward.toml"
    evil = config / "evil"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for text, mode in (("good", 0o644), ("evil", 0o666)):
                evil.write_text(text)
                evil.chmod(mode)
                evil.rename(path)
            evil.symlink_to("/etc/shadow")
            evil.rename(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = [trusted.read_tree(str(config))[0] for _ in range(1500)]
    finally:
        stop.set()
        thread.join()
    assert {file.text for file in seen} <= {"good", "", "[paths]\n"}
    assert {file.text for file in seen if not file.error} <= {"good", "[paths]\n"}


def test_b4_a_file_that_grows_while_it_is_read_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstat
    path = config / "durward.toml"

    def fstat(fd: int) -> os.stat_result:
        found = real(fd)
        if os.readlink(f"/proc/self/fd/{fd}") == str(path):
            with open(path, "a") as file:
                file.write("# more\n")
        return found

    monkeypatch.setattr(trusted.os, "fstat", fstat)
    assert trusted.read_tree(str(config))[0].error == f"{path} was changed while it was read: try again"


def test_a_file_of_more_than_a_megabyte_is_refused(config: Path) -> None:
    (config / "durward.toml").write_bytes(b"#" * (1 << 20))
    assert not errors(config)
    (config / "durward.toml").write_bytes(b"#" * ((1 << 20) + 1))
    assert "is larger than" in errors(config)["durward.toml"]


def test_a_file_that_is_not_utf8_is_refused(config: Path) -> None:
    (config / "durward.toml").write_bytes(b"abc\xff")
    assert errors(config) == {"durward.toml": f"{config}/durward.toml is not UTF-8 from byte 3 on"}


def test_names_that_cannot_be_printed_are_spelled(config: Path) -> None:
    with open(os.fsencode(config) + b"/services.d/\xff\n.toml", "w") as file:
        file.write("x")
    labels = [file.path for file in trusted.read_tree(str(config))]
    assert r"services.d/'\udcff\n.toml'" in labels


def test_what_this_user_may_not_read_is_told_from_what_is_wrong(config: Path) -> None:
    """denied: root may, so that privileged asks to be started again as root."""
    (config / "durward.toml").chmod(0o600)
    (config / "services.d").chmod(0o700)
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresuid(NOBODY, NOBODY, NOBODY)
        told = [(file.path, file.denied, file.error) for file in trusted.read_tree(str(config))]
        hidden = trusted.read_file(f"{config}/services.d/env")
        os.write(writable, repr((told, hidden.denied)).encode())
        os._exit(0)
    os.close(writable)
    os.waitpid(pid, 0)
    with open(readable) as answer:
        told = answer.read()
    assert told == repr(
        (
            [
                ("durward.toml", True, f"{config}/durward.toml: Permission denied"),
                ("policy.d/10-web.toml", False, ""),
                ("services.d", True, f"{config}/services.d: Permission denied"),
            ],
            True,
        )
    )


def test_an_error_while_reading_is_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = open

    def broken(fd: int, mode: str) -> object:
        os.close(fd)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.open", broken)
    file = trusted.read_tree(str(config))[0]
    monkeypatch.setattr("builtins.open", real)
    assert file.error == "Input/output error"
    assert not file.denied


@pytest.mark.parametrize("path", ["etc/env", "", "/var/../etc/env", "/etc/./env", "env"])
def test_a_path_must_be_absolute_and_plain(path: str) -> None:
    assert "is not an absolute path without" in trusted.read_file(path).error


def test_a_file_is_read_by_its_path_under_the_same_rules(config: Path) -> None:
    env = config / "env"
    env.write_text("A=1\n")
    assert trusted.read_file(str(env)) == File(str(env), "A=1\n")
    env.chmod(0o666)
    assert "can be written by everybody" in trusted.read_file(str(env)).error
    assert trusted.read_file("/").error == "/: No such file or directory"


def test_no_descriptor_is_left_open(config: Path) -> None:
    (config / "services.d/bad.toml").mkdir()
    (config / "policy.d").chmod(0o777)
    before = os.listdir("/proc/self/fd")
    trusted.read_tree(str(config))
    trusted.read_file(str(config / "none" / "env"))
    trusted.read_file(str(config / "env"))
    assert os.listdir("/proc/self/fd") == before
