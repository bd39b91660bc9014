"""Secrets as files: for one user, for one run, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from privileged_house import SERVICE_GROUP, SERVICE_UID, House, entry

from rootd import ipc, sealed
from rootd.config import secrets
from rootd.config.extras import NOTHING
from rootd.privileged import credentials

pytestmark = pytest.mark.root
Build = Callable[..., House]
VALUE = b"s3cret-\0\xff-value"
WANTED = (("db", "/etc/db", "mark"), ("empty", "/etc/empty", "mark"))
READER = """
import os, signal
folder = os.environ["CREDENTIALS_DIRECTORY"]
with open(folder + "/db", "rb") as file: print(file.read())
print(sorted(os.listdir(folder)))
for attempt in (lambda: os.unlink(folder + "/db"), lambda: open(folder + "/new", "w")):
    try: attempt(); print("done")
    except OSError as error: print(error.strerror, flush=True)
signal.pause()
"""


def packed() -> int:
    return sealed.memfd("secrets", secrets.pack({"/etc/db": VALUE, "/etc/empty": b"", "/etc/other": b"other"}))


def reader(**words: object) -> House:
    return entry(READER, extra=NOTHING._replace(credentials=WANTED), **words)


def held(build: Build, **words: object) -> House:
    house = build(reader(**words), start=False)
    house.store["secrets/1"] = packed()
    house.start()
    house.hear(ipc.FACTS_END)
    return house


def as_user(uid: int, gid: int, act: Callable[[], object]) -> bool:
    """Whether this user could do it."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([SERVICE_GROUP])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            act()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def lines(pipe: int, count: int) -> list[str]:
    text = ""
    while text.count("\n") < count:
        text += os.read(pipe, 4096).decode()
    return text.splitlines()


def test_the_service_reads_them_and_changes_nothing_and_its_run_takes_them_along(build: Build) -> None:
    house = held(build)
    spawned = house.spawn()
    refused = "Permission denied"
    assert lines(house.output(spawned.run)[1], 4) == [repr(VALUE), "['db', 'empty']", refused, refused]
    folder = Path(credentials.directory(str(house.directory), spawned.run))
    for name in ("db", "empty"):
        found = (folder / name).stat()
        assert (found.st_uid, found.st_gid, stat.filemode(found.st_mode)) == (SERVICE_UID, SERVICE_UID, "-r--------")
    house.ask(ipc.SIGNAL, run=spawned.run, arg=15, scope=ipc.MAIN)
    house.finish(spawned.run)
    assert not folder.exists()


def test_nobody_else_reads_them_not_even_who_is_in_all_its_groups(build: Build) -> None:
    house = held(build)
    spawned = house.spawn()
    lines(house.output(spawned.run)[1], 4)
    folder = credentials.directory(str(house.directory), spawned.run)
    assert as_user(SERVICE_UID, SERVICE_UID, lambda: open(f"{folder}/db").close())
    assert not as_user(SERVICE_UID + 50, SERVICE_UID, lambda: open(f"{folder}/db").close())
    assert not as_user(SERVICE_UID + 50, SERVICE_UID, lambda: os.listdir(folder))
    assert not as_user(SERVICE_UID, SERVICE_UID, lambda: os.listdir(os.path.dirname(folder)))


def test_neither_its_environment_nor_its_command_nor_the_table_has_the_value(build: Build) -> None:
    house = held(build)
    spawned = house.spawn()
    lines(house.output(spawned.run)[1], 4)
    for file in ("environ", "cmdline"):
        assert VALUE not in Path(f"/proc/{spawned.arg}/{file}").read_bytes()
    assert VALUE not in os.pread(house.store["generation/1"], 1 << 20, 0)
    assert f"CREDENTIALS_DIRECTORY={house.directory}/credentials/{spawned.run}".encode() in Path(
        f"/proc/{spawned.arg}/environ"
    ).read_bytes().split(b"\0")


def test_killed_with_a_run_that_was_not_stored_yet_the_next_one_leaves_nothing_of_it(build: Build) -> None:
    house = held(build)
    spawned = house.spawn()
    lines(house.output(spawned.run)[1], 4)
    unknown = credentials.directory(str(house.directory), spawned.run + 1)
    house.kill()
    fd = packed()
    credentials.place(unknown, WANTED, fd, SERVICE_UID, SERVICE_UID)
    os.close(fd)
    house.start()
    house.hear(ipc.FACTS_END)
    assert os.listdir(f"{house.directory}/credentials") == [str(spawned.run)]
    assert Path(credentials.directory(str(house.directory), spawned.run), "db").read_bytes() == VALUE


def test_at_the_end_nothing_is_left(build: Build) -> None:
    house = held(build)
    lines(house.output(house.spawn().run)[1], 4)
    house.ask(ipc.SHUTDOWN)
    assert house.wait() == 0
    assert os.listdir(f"{house.directory}/credentials") == []


def test_what_is_not_among_the_secrets_is_refused_and_nothing_is_left(build: Build) -> None:
    house = build(entry(extra=NOTHING._replace(credentials=(("x", "/etc/none", ""),))), start=False)
    house.store["secrets/1"] = packed()
    house.start()
    house.hear(ipc.FACTS_END)
    answer = house.spawn()
    assert (answer.op, ipc.STEPS[answer.extra]) == (ipc.DONE, "credentials")
    assert os.listdir(f"{house.directory}/credentials") == []


def test_secrets_whose_generation_never_counted_are_let_go(build: Build) -> None:
    house = build(reader(), start=False)
    house.store |= {"secrets/1": packed(), "secrets/2": packed()}
    house.start()
    house.hear(ipc.FACTS_END)
    house.serve_keeper()
    assert "secrets/1" in house.store
    assert "secrets/2" not in house.store


def test_a_name_that_is_there_already_is_not_followed(tmp_path: Path) -> None:
    fd = packed()
    for made in ("run.new", "run2"):
        (tmp_path / made / "there").mkdir(parents=True)
        with pytest.raises(OSError, match=r"File exists|Directory not empty"):
            credentials.place(str(tmp_path / made.removesuffix(".new")), WANTED, fd, SERVICE_UID, SERVICE_UID)
    os.close(fd)


def test_another_process_of_the_user_makes_nothing_there_while_the_files_are_made() -> None:
    """What it had made, a folder with something in it, nobody could have removed: a place in the daemon's tmpfs."""
    many = tuple((f"secret-{number}", "/etc/db", "mark") for number in range(2_000))
    with tempfile.TemporaryDirectory(prefix="durward-privileged-", dir="/run") as folder:
        os.chmod(folder, 0o711)
        fd, path, (reader, writer) = packed(), f"{folder}/1", os.pipe()
        intruder = os.fork()
        if intruder == 0:
            os.close(writer)
            os.setgroups([])
            os.setresgid(SERVICE_UID, SERVICE_UID, SERVICE_UID)
            os.setresuid(SERVICE_UID, SERVICE_UID, SERVICE_UID)
            while not select.select([reader], [], [], 0)[0]:
                for place in (path, f"{path}.new", f"{path}.new/files"):
                    with contextlib.suppress(OSError):
                        os.mkdir(f"{place}/mine")
            os._exit(0)
        credentials.place(path, many, fd, SERVICE_UID, SERVICE_UID)
        os.close(writer)
        os.waitpid(intruder, 0)
        assert set(os.listdir(path)) == {name for name, _, _ in many}
        assert os.listdir(folder) == ["1"]
        os.close(reader)
        os.close(fd)


def test_what_others_have_put_there_keeps_no_secret_and_a_link_is_not_followed(tmp_path: Path) -> None:
    """Nobody but root could."""
    run, full, elsewhere = tmp_path / "credentials" / "1", tmp_path / "credentials" / "2", tmp_path / "elsewhere"
    for path in (run / "folder", full / "folder" / "more", elsewhere):
        path.mkdir(parents=True)
    for path in (run / "db", full / "db", full / "zz", elsewhere / "file"):
        path.touch()
    (run / "link").symlink_to(elsewhere)
    (tmp_path / "credentials" / "3").symlink_to(elsewhere)
    credentials.sweep(str(tmp_path), set())
    assert not run.exists()
    assert os.listdir(full) == ["folder"]
    assert os.listdir(elsewhere) == ["file"]


def test_what_is_made_afterwards_is_ours_again(tmp_path: Path) -> None:
    with credentials.files_of(SERVICE_UID, SERVICE_GROUP):
        pass
    (tmp_path / "file").touch()
    assert (tmp_path / "file").stat().st_uid == os.geteuid()


def dying(calls: int) -> Callable[[], None]:
    """Run in privileged before its main: it dies after this many calls of the os module through credentials."""

    def inside() -> None:
        class Dying:
            left = calls

            def __getattr__(self, name: str) -> object:
                found = getattr(os, name)
                if not callable(found):
                    return found

                def call(*args: object, **words: object) -> object:
                    answer = found(*args, **words)
                    Dying.left -= 1
                    if Dying.left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return answer

                return call

        def place(*args: object) -> None:
            credentials.os = Dying()  # type: ignore[attr-defined]
            real(*args)

        real, credentials.place = credentials.place, place  # type: ignore[assignment]

    return inside


@pytest.mark.parametrize("calls", range(1, 14))
def test_killed_at_any_call_it_leaves_no_file_of_a_run_that_there_is_not(build: Build, calls: int) -> None:
    """Two mkdir, two ACLs, the directory, the ids, and of each file open, sendfile and close."""
    house = build(reader(), start=False)
    house.store["secrets/1"] = packed()
    house.inside = dying(calls)
    house.start()
    house.hear(ipc.FACTS_END)
    house.ask(ipc.SPAWN, seq=1, generation=1, slot=0)
    assert house.wait() == -signal.SIGKILL
    folder = f"{house.directory}/credentials"
    assert len(os.listdir(folder)) == 1
    house.inside = lambda: None
    house.start()
    house.hear(ipc.FACTS_END)
    assert os.listdir(folder) == []
