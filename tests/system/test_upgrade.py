"""`durward upgrade`: every process of ours becomes another one, of another version, and no service notices.

Two installations, of this code with another version each, and a link to the one that counts. It goes to and fro.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import templates
from asker import PATIENCE
from house import PREFIX, House
from people import People, processes_of
from prefixes import PACKAGES, Prefixes
from space import Space
from test_kill9 import COUNTER, complete, lines, service_processes, services

from policy import messages
from rootd import version

pytestmark = pytest.mark.root

PARTS = ("privileged", "supervisor", "auth", "log", "probe")


@pytest.fixture(scope="module")
def prefixes(house: House) -> Prefixes:
    return house.prefixes


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    house = House(people, space, {**templates.SERVICES, "counter.toml": COUNTER})
    try:
        house.prefixes = Prefixes(house.folder / "prefixes")
        for name in ("one", "two"):
            house.prefixes.make(name)
        house.prefixes.use("one")
        house.program = house.prefixes.program
        house.start()
        yield house
        house.stop()
    finally:
        house.remove()


@pytest.fixture
def unnoticed(house: House) -> Iterator[None]:
    """Under load, and whatever the test does, no service notices it, and the log loses no line."""
    house.until(lambda: len(processes_of({house.people["www"].uid})) >= 3, "the site has its two workers")
    before, copies, keeper = services(house), service_processes(house), house.daemon  # of worker neither
    with house.load(interval=0.01) as load:
        load.begun()
        yield
        assert house.http("/").status == 200
    assert load.result["refused"] == 0, load.result
    assert load.result["failed"] == {}, load.result
    assert load.result["answered"] == load.result["tried"] > 0
    assert services(house) == before
    assert service_processes(house) == copies
    assert house.daemon is keeper
    assert keeper is not None
    assert keeper.poll() is None


def spelled(name: str) -> str:
    return f"{version.VERSION}+{name}"


def runs(house: House) -> str:
    """The version that answers on root.sock."""
    reply = house.ask(messages.Status())
    assert isinstance(reply, messages.Services)
    assert reply.trouble == ""
    return reply.version


def other(house: House, prefixes: Prefixes) -> str:
    """The link says the version that does not run; its name."""
    name = "two" if runs(house) == spelled("one") else "one"
    prefixes.use(name)
    return name


def parts(house: House) -> dict[str, int]:
    return {part: house.until(lambda part=part: house.pid_of(part), f"there is a {part}") for part in PARTS}


def durward(house: House, *words: str) -> tuple[int, str, str]:
    """The command, asked by root: its exit code and what it said."""
    argv = [str(PREFIX / "bin" / "durward"), "--root", str(house.run_dir / "root.sock"), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    return done.returncode, done.stdout, done.stderr


def followed(house: House, number: int) -> messages.Ended:
    """The end of an operation, whichever supervisor tells it."""
    until = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < until, f"operation {number} does not end: {house.stderr()}"
        with contextlib.suppress(EOFError, OSError), house.root(timeout=5.0) as events:
            events.send(messages.Watch(operation=number))
            while True:
                event = events.receive()
                if isinstance(event, messages.Ended):
                    return event


def begun(house: House) -> int:
    accepted = house.ask(messages.Upgrade())
    assert isinstance(accepted, messages.Accepted), accepted
    return accepted.operation


def stays(house: House, why: str, status: int = 1) -> str:
    """An upgrade that is refused, for this reason: nothing is another process, and nothing was interrupted. In full."""
    before, was = parts(house), runs(house)
    code, _, told = durward(house, "upgrade")
    assert code == status, told
    assert "nothing was changed" in told
    assert why in told
    assert parts(house) == before
    assert runs(house) == was
    return told


def test_an_upgrade_under_load_replaces_every_part_and_no_service_notices(
    house: House, prefixes: Prefixes, unnoticed: None
) -> None:
    before, workers, was = parts(house), house.api_workers(), runs(house)
    name = other(house, prefixes)
    code, said, told = durward(house, "upgrade", "--reason", "a new version")
    assert code == 0, told
    assert said.startswith(f"upgraded: {was} → {spelled(name)}; durward-api restarted in "), said
    assert f"keeper, privileged, supervisor, log, auth, probe: {was} → {spelled(name)}" in told
    assert runs(house) == spelled(name)
    assert not {*before.values()} & {*parts(house).values()}
    assert not {*house.api_workers()} & {*workers}, "our api was restarted, in the rolling way"
    answer = house.api("GET", "/services", house.token("alice"))
    assert (answer.status, answer.json["version"]) == (200, spelled(name))
    assert durward(house, "version")[1].splitlines()[1] == f"daemon {spelled(name)}"
    asked = next(one["id"] for one in house.audit() if one.get("command") == "upgrade")
    records = [one for one in house.audit() if one.get("id") == asked and one["kind"] != "step"]
    assert [one["kind"] for one in records] == ["decision", "outcome"]
    assert (records[0]["reason"], records[1]["ok"]) == ("a new version", True)


PRIVILEGED = pytest.param("privileged", marks=pytest.mark.slow)


@pytest.mark.parametrize("part", [PRIVILEGED, "supervisor"])
def test_kill_9_while_the_new_program_is_tried_costs_nothing_and_what_people_have_asked_for_stays(
    house: House, prefixes: Prefixes, unnoticed: None, part: str
) -> None:
    token = house.token("alice")
    _, ended = house.operate(messages.Stop("worker"))
    assert ended.ok, ended
    name = other(house, prefixes)
    number = begun(house)
    house.kill9(part)
    ended = followed(house, number)
    assert ended.ok, ended
    assert runs(house) == spelled(name)
    assert house.api("GET", "/services", token).status == 200, "she is logged in"
    assert house.status()["worker"].state == "STOPPED"
    _, ended = house.operate(messages.Start("worker"))
    assert ended.ok, ended


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_kill_9_of_each_part_as_soon_as_it_is_of_the_new_version(
    house: House, prefixes: Prefixes, unnoticed: None, part: str
) -> None:
    name, old = other(house, prefixes), house.pid_of(part)
    number = begun(house)
    house.until(lambda: house.pid_of(part) not in (0, old), f"there is a new {part}")
    house.kill9(part)
    ended = followed(house, number)
    assert ended.ok, ended
    assert runs(house) == spelled(name)


@pytest.mark.slow
def test_from_the_version_of_the_previous_commit_to_this_one(
    house: House, prefixes: Prefixes, unnoticed: None, tmp_path: Path
) -> None:
    git = ["git", "-c", "safe.directory=*", "-C", str(Path(__file__).resolve().parents[2])]
    archive = subprocess.run([*git, "archive", "HEAD~1", *PACKAGES], capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"there is no previous commit here: {archive.stderr.decode()}")
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=archive.stdout, check=True)
    if not (tmp_path / "rootd" / "keeper" / "again.py").exists():
        pytest.skip("the previous commit knows of no upgrade")
    prefixes.make("previous", tmp_path)
    for name in ("previous", "one"):
        prefixes.use(name)
        ended = followed(house, begun(house))
        assert ended.ok, ended
        assert runs(house).endswith(f"+{name}")


def test_a_program_that_would_not_do_is_refused_and_nothing_has_changed(
    house: House, prefixes: Prefixes, unnoticed: None
) -> None:
    prefixes.make("broken", first="import no_such_module")
    prefixes.use("broken")
    stays(house, "No module named 'no_such_module'")
    prefixes.make("early", version=('"state": (1, 1)', '"state": (2, 2)'))
    prefixes.use("early")
    stays(house, f"{runs(house)} writes version 1 of 'state', and this one reads 2 to 2")
    (prefixes.folder / "broken" / "bin" / "durward-rootd").unlink()
    prefixes.use("broken")
    stays(house, "durward-rootd: No such file or directory")


def test_files_that_the_new_program_could_not_start_with_refuse_an_upgrade(
    house: House, prefixes: Prefixes, unnoticed: None
) -> None:
    other(house, prefixes)
    bad = '[service.bad]\nnonsense = 1\nenvironment = { TOKEN = "hunter2", KEY = 1 }\n'
    path = house.write("services.d/bad.toml", bad)
    told = stays(house, "services.d/bad.toml:2", 65)
    assert "services.d/bad.toml:3: service.bad.environment.KEY: must be a text in quotes" in told
    assert "hunter2" not in told, "no upgrade quotes lines"
    path.unlink()


def test_where_the_program_is_gone_at_the_last_moment_the_old_one_goes_on_and_says_so(
    house: House, prefixes: Prefixes, unnoticed: None
) -> None:
    """It removes itself when it is tried. Every part has ended by then."""
    was, before = runs(house), parts(house)
    place = prefixes.make("fleeting", first="import os; '--try' in sys.argv and os.unlink(sys.argv[0])")
    prefixes.use("fleeting")
    ended = followed(house, begun(house))
    assert not ended.ok
    assert "nothing was changed: " in ended.text
    assert f"{prefixes.program[0]}: No such file or directory" in ended.text
    assert "the old one goes on: No such file or directory" in house.stderr()
    assert not (place / "bin" / "durward-rootd").exists()
    assert runs(house) == was
    assert not {*before.values()} & {*parts(house).values()}


def test_an_upgrade_is_root_s_and_not_over_http(house: House) -> None:
    assert house.cli("alice", "upgrade").returncode == 2
    assert house.api("POST", "/upgrade", house.token("alice"), {}).status == 404


def test_a_state_file_of_a_later_version_is_said_and_what_runs_is_taken_over(house: House, unnoticed: None) -> None:
    """The keeper stands still, so that no supervisor writes it."""
    old, path = house.pid_of("supervisor"), house.run_dir / "supervisor" / "state.json"
    assert house.daemon is not None
    house.daemon.send_signal(signal.SIGSTOP)
    try:
        fd = os.pidfd_open(old)
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        assert select.select([fd], [], [], 10.0)[0]
        os.close(fd)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99, "of later": [1]}))
    finally:
        house.daemon.send_signal(signal.SIGCONT)
    house.wait_back("supervisor", old)
    assert "the state file is of version 99 and not used, only what runs counts" in house.stderr()


def test_no_line_of_a_plain_log_is_lost_by_all_of_this(house: House) -> None:
    """Runs last, and stops the service that has counted all along."""
    _, ended = house.operate(messages.Stop("counter"))
    assert ended.ok, ended
    house.until(lambda: complete(lines(house.log / "counter")), "its last line is written")
    numbers = lines(house.log / "counter")
    assert numbers[:-1] == [str(number) for number in range(len(numbers) - 1)]
    assert numbers[-1] == f"end {len(numbers) - 1}"
