"""What a service is given, in a running house: secrets that nobody else sees, and priorities that take a capability."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import templates
from hostage import standing
from house import House
from people import FOLDERS, People, processes
from space import Space

from policy import messages
from rootd.privileged import cgroup

pytestmark = pytest.mark.root
VALUE = "s3cret-value-that-stands-nowhere-else"
KEEPER = templates.plain("keeper", "say", "begun", more='credentials = { db = "@FOLDER@/db-password" }')
PLAIN = templates.plain("plain", "say", "begun")
PARTS = ("supervisor", "auth", "log", "probe")
EVERYTHING = """\
[[grant]]
id = "all-of-it"
who = ["user:@alice@"]
may = ["view", "logs", "start", "stop", "restart"]
on = ["*"]
"""
ANSWERS = (
    "/services", "/services/keeper", "/services/keeper/logs", "/operations", "/whoami",
    "/why?action=restart&service=keeper",
)  # fmt: skip


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A tmpfs of root's: a run directory on a disk gets no secrets."""
    place = Path(tempfile.mkdtemp(prefix="dwt-memory-", dir=FOLDERS))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)
    place.rmdir()


@pytest.fixture(scope="module")
def house(people: People, space: Space, memory: Path) -> Iterator[House]:
    house = House(
        people, space, {"keeper.toml": KEEPER, "plain.toml": PLAIN}, policy={"10-all.toml": EVERYTHING}, folders=memory
    )
    secret = house.folder / "db-password"
    secret.write_text(VALUE)
    secret.chmod(0o600)
    with house.running():
        yield house


def pid_of(house: House, service: str) -> int:
    house.wait_for(lambda services: services[service].state == "RUNNING", f"{service} runs")
    return house.pids(service)[0]


def directory(house: House) -> Path:
    words = Path(f"/proc/{pid_of(house, 'keeper')}/environ").read_bytes().decode().split("\0")
    return Path(next(word for word in words if word.startswith("CREDENTIALS_DIRECTORY=")).partition("=")[2])


def memfds(pid: int) -> Iterator[bytes]:
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(path).startswith("/memfd:"):
                yield path.read_bytes()


def test_the_secret_is_in_the_file_of_its_service_and_nowhere_else(house: House) -> None:
    folder, value = directory(house), VALUE.encode()
    assert (folder / "db").read_bytes() == value
    assert (folder / "db").stat().st_uid == house.people["jobs"].uid
    assert (folder / "db").stat().st_mode & 0o7777 == 0o400
    assert folder.is_relative_to(house.run_dir / "credentials")
    seen = 0
    for process in processes():
        for name in ("environ", "cmdline"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                assert value not in (process / name).read_bytes(), process
                seen += 1
    assert seen > 10
    for part in PARTS:
        house.until(lambda part=part: house.pid_of(part), f"there is a {part}")
        assert not [True for content in memfds(house.pid_of(part)) if value in content], part
    assert [True for content in memfds(house.daemon.pid) if value in content]  # so that this would have been seen
    allowed = {folder / "db", house.folder / "db-password"}
    for path in house.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path not in allowed:
            assert value not in path.read_bytes(), path
    told = house.ask(messages.Describe("keeper"))
    assert VALUE not in repr(told)
    assert "db-password" not in repr(told)
    assert VALUE not in repr(house.status()) + house.stderr()


def test_no_answer_of_the_api_has_the_secret(house: House) -> None:
    token = house.token("alice")
    for path in ANSWERS:
        answer = house.api("GET", path, token)
        assert answer.status == 200, (path, answer)
        assert VALUE.encode() not in answer.body, path
    answer = house.api("POST", "/services/keeper/restart?wait=true", token)
    assert answer.status == 200, answer
    assert VALUE.encode() not in answer.body


def memory_of(pid: int) -> Iterator[bytes]:
    """Every page that a core file of it could hold: all that is private and may be read."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as pages:
        for line in maps:
            span, rights = line.split()[:2]
            begin, end = (int(word, 16) for word in span.split("-"))
            if rights.startswith("r") and "[v" not in line:
                pages.seek(begin)
                yield pages.read(end - begin)


def test_a_core_file_would_not_have_the_secret_whosever_it_is(house: House) -> None:
    """The service has not read it. privileged writes the file, and can make no core file: see below."""
    house.token("alice")
    assert house.daemon is not None
    ours = {part: house.pid_of(part) for part in PARTS} | {"the keeper": house.daemon.pid}
    ours |= {f"worker {pid}": pid for pid in house.api_workers()}
    for who, pid in {**ours, "the service": pid_of(house, "keeper"), "another": pid_of(house, "plain")}.items():
        assert not [True for piece in memory_of(pid) if VALUE.encode() in piece], who
    assert [True for piece in memory_of(os.getpid()) if VALUE.encode() in piece]  # so that this would have been seen


def test_no_core_file_of_ours_is_made_where_secrets_are_read(house: House) -> None:
    """None of the parts can dump core, and nobody of their uid may look into them."""
    for part in ("privileged", *PARTS):
        assert Path(f"/proc/{house.pid_of(part)}/environ").stat().st_uid == 0, part


def test_the_secret_goes_with_the_run_and_comes_with_the_next(house: House) -> None:
    before, pid = directory(house), pid_of(house, "keeper")
    os.kill(pid, signal.SIGKILL)
    house.until(lambda: not before.exists(), "the directory of the old run is gone")
    house.until(lambda: house.pids("keeper") not in ([], [pid]), "another runs")
    assert directory(house) != before
    assert (directory(house) / "db").read_text() == VALUE


def test_killed_at_once_privileged_leaves_no_directory_without_a_run(house: House) -> None:
    folder, old = directory(house), house.pid_of("privileged")
    stray = house.run_dir / "credentials" / "12345"
    stray.mkdir()
    (stray / "db").write_text("left")
    os.kill(old, signal.SIGKILL)
    house.until(lambda: house.pid_of("privileged") not in (0, old), "privileged is started again")
    house.until(lambda: not stray.exists(), "what nobody knows is gone")
    assert (folder / "db").read_text() == VALUE
    _, ended = house.operate(messages.Restart("plain"))
    assert ended.ok, ended  # the supervisor has the next one's table: a reload before that would be refused


def test_a_reload_that_takes_sys_nice_replaces_privileged_and_no_service_notices(house: House) -> None:
    house.until(lambda: len(house.api_workers()) == 2, "the api has its workers")
    secret = house.folder / "db-password"  # which privileged may read now: it is not what takes root
    os.chown(secret, 0, house.people["priv"].gid)
    secret.chmod(0o640)
    _, ended = house.operate(messages.Reload())
    assert ended.ok, ended
    house.wait_for(lambda services: services["keeper"].text == "", "the secret's new mark is taken")
    before, old, folder = standing(house, "privileged", "jobs"), house.pid_of("privileged"), directory(house)
    house.write(
        "services.d/quick.toml", templates.plain("quick", "say", "begun", more='nice = -3\nio_priority = "idle"')
    )
    steps, ended = house.operate(messages.Reload())
    assert ended.ok, ended
    assert any("as root" in step for step in steps)
    pid = pid_of(house, "quick")
    assert house.pid_of("privileged") not in (0, old)
    assert os.getpriority(os.PRIO_PROCESS, pid) == -3
    assert ctypes.CDLL(None).syscall(252 if os.uname().machine == "x86_64" else 31, 1, pid) == 3 << 13
    status = Path(f"/proc/{pid}/status").read_text()
    assert [line.split()[1] for line in status.splitlines() if line.startswith("Cap")] == ["0" * 16] * 5
    assert standing(house, "privileged", "jobs") == before
    assert (folder / "db").read_text() == VALUE


def test_the_first_service_that_runs_as_root_has_what_root_has(house: House) -> None:
    text = templates.plain("rooted", "say", "begun", more="allow_root = true").replace("@jobs@", "root")
    house.write("services.d/rooted.toml", text)
    steps, ended = house.operate(messages.Reload())
    assert ended.ok, ended
    assert any("as root" in step for step in steps)
    found = Path(f"/proc/{pid_of(house, 'rooted')}/status").read_text().splitlines()
    ours = Path(f"/proc/{house.daemon.pid}/status").read_text().splitlines()
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert [line for line in found if line.startswith(name)] == [line for line in ours if line.startswith(name)]
    (house.etc / "services.d" / "rooted.toml").unlink()
    _, ended = house.operate(messages.Reload())
    assert ended.ok, ended


def test_a_capability_is_kept_and_variables_are_replaced(house: House) -> None:
    more = """capabilities = ["NET_RAW"]
environment = { NAME = "x", WHOLE = "${NAME}-${NONE:-y}" }"""
    text = templates.plain("raw", "say", "${WHOLE}", more=more)
    house.write("services.d/raw.toml", text)
    _, ended = house.operate(messages.Reload())
    assert ended.ok, ended
    pid = pid_of(house, "raw")
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [line.split()[1] for line in status.splitlines() if line.startswith("Cap")]
    assert masks == [f"{1 << 13:016x}"] * 5
    assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").endswith(b"\0x-y")


def test_a_limit_that_this_machine_does_not_have_is_noted_and_told_as_the_reason(house: House) -> None:
    there_is = "memory" in cgroup.controllers(cgroup.mount())
    house.write("services.d/small.toml", templates.plain("small", "say", "begun", more='cgroup = { memory = "64M" }'))
    found = house.check()
    assert found.returncode == 0
    said = "note: there is no memory controller for cgroups here, without which these start only if optional: small"
    noted = said in found.stderr
    assert noted is not there_is
    _, ended = house.operate(messages.Reload())
    assert ended.ok is there_is
    if there_is:
        return
    assert "small" in ended.text
    told = house.wait_for(lambda services: services["small"].state == "FATAL", "it is given up at once")["small"]
    assert "cannot limit its control group (there must be a controller for it): Operation not supported" in repr(told)
    assert "there is no memory controller for cgroups here" in house.stderr()


def test_another_secret_is_another_configuration_of_its_service_alone(house: House) -> None:
    pid, plain = pid_of(house, "keeper"), pid_of(house, "plain")
    (house.folder / "db-password").write_text(VALUE[::-1])
    _, ended = house.operate(messages.Reload())
    assert ended.ok, ended
    house.until(lambda: house.pids("keeper") not in ([], [pid]), "it has been restarted")
    house.until(lambda: (directory(house) / "db").read_text() == VALUE[::-1], "with the new one")
    assert pid_of(house, "plain") == plain


def test_a_secret_that_everybody_may_read_is_a_mistake(house: House) -> None:
    path = house.folder / "db-password"
    path.chmod(0o644)
    try:
        found = house.check()
        assert found.returncode == 65
        assert "service.keeper.credentials.db" in found.stderr
        assert "can be read by everybody (mode 0644): chmod o-rwx" in found.stderr
    finally:
        path.chmod(0o600)
