"""durward-rootd as the first process of a container: it reaps, ends with a service's status, and needs no api."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import templates
from house import HERE, House
from people import PAM_SERVICE, People, processes, processes_of
from space import Space

from policy import messages

pytestmark = pytest.mark.root
EXAMPLE = HERE.parents[1] / "packaging" / "examples" / "container"

SERVICES = {
    "base": (("say", "begun"), ""),
    "site": (("say", "begun"), 'after = ["base"]\nrestart = { policy = "never" }'),
    "other": ((), "autostart = false"),
    "orphans": (("daemon", "exit", "0"), 'autostart = false\nrestart = { policy = "never" }'),
}


def contained(house: House, exit_on: str = '["site"]') -> House:
    """The house's daemon is the first process of a container, without an api."""
    root = house.folder / "root"
    root.mkdir()
    house.program = [sys.executable, "-I", "-B", str(HERE / "first.py"), str(root), *house.program]
    text = templates.settings(house, PAM_SERVICE).partition("[auth]")[0]
    house.write("durward.toml", f"exit_on = {exit_on}\n{text}")
    return house


def texts(services: dict[str, tuple[tuple[str, ...], str]]) -> dict[str, str]:
    """What is left behind has a user of its own: without cgroups nobody could tell whose it is."""
    found = {f"{name}.toml": templates.plain(name, *words, more=more) for name, (words, more) in services.items()}
    return {name: text.replace("@jobs@", "@www@") if name == "orphans.toml" else text for name, text in found.items()}


@pytest.fixture(scope="module")
def box(people: People, space: Space) -> Iterator[House]:
    house = contained(House(people, space, texts(SERVICES), policy={}))
    with house.running():
        yield house


Make = Callable[..., House]


def first(house: House) -> int:
    """The pid, out here, of the daemon."""
    assert house.daemon is not None
    children = Path(f"/proc/{house.daemon.pid}/task/{house.daemon.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def inside(house: House) -> dict[int, tuple[str, str]]:
    """Every process in there by its pid out here: its name and its state, as /proc/PID/stat has them."""
    namespace = os.stat(f"/proc/{first(house)}/ns/pid").st_ino
    found = {}
    for path in processes():
        try:
            if os.stat(path / "ns" / "pid").st_ino == namespace:
                name, _, rest = (path / "stat").read_text().partition("(")[2].rpartition(")")
                found[int(path.name)] = name, rest.split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def status_of(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{key}:"))


def ended(house: House) -> int:
    """The exit status of a daemon that ends by itself."""
    assert house.daemon is not None
    house_status = house.daemon.wait(timeout=60)
    house.stop(expect=house_status)
    return house_status


def test_it_is_the_first_process_and_has_no_cgroup_and_few_capabilities(box: House) -> None:
    assert status_of(first(box), "NSpid").split()[-1] == "1"
    assert "/durward" not in Path(f"/proc/{first(box)}/cgroup").read_text()
    assert int(status_of(first(box), "CapBnd"), 16) == 0xA80425FB, "what container engines leave"
    assert {name: one.state for name, one in box.status().items()} == {
        "base": "RUNNING", "site": "RUNNING", "other": "STOPPED", "orphans": "STOPPED",
    }  # fmt: skip


def test_without_an_api_there_is_neither_api_nor_auth(box: House) -> None:
    names = {name for name, _ in inside(box).values()}
    assert {"durward-log", "durward-supervi", "durward-probe", "durward-privile"} <= names
    assert "durward-auth" not in names
    assert processes_of({box.people["api"].uid, box.people["auth"].uid}) == {}


def test_no_zombie_stays(box: House) -> None:
    """Each start leaves an orphan, whose parents have ended before it."""
    for _ in range(3):
        box.operate(messages.Start("orphans"))
        box.wait_for(lambda seen: seen["orphans"].state == "EXITED", "it has ended")
    box.until(lambda: "Z" not in {state for _, state in inside(box).values()}, "nothing is left unreaped")
    assert processes_of({box.people["www"].uid}) == {}
    assert len(processes_of({box.people["jobs"].uid})) == 2, "base and site alone are left"


def test_a_signal_that_means_nothing_to_it_goes_to_the_service_of_exit_on(make_house: Make) -> None:
    """And is recorded as what root has asked for. This service ends by it."""
    house = contained(make_house(texts(SERVICES), policy={})).start()
    os.kill(first(house), signal.SIGUSR2)
    assert ended(house) == 128 + signal.SIGUSR2
    (decision,) = [one for one in house.audit() if one["kind"] == "decision" and one["action"] == "signal"]
    assert (decision["user"], decision["from"], decision["asked"]) == ("root", "a signal", {"signal": "USR2"})


@pytest.mark.parametrize(("words", "status"), [(("exit", "7"), 7), (("die", "11"), 139), (("exit", "0"), 0)])
def test_the_end_of_the_service_ends_all_in_order_with_its_status(
    make_house: Make, words: tuple[str, str], status: int
) -> None:
    house = make_house({}, policy={})
    go = house.folder / "go"
    services = SERVICES | {"site": (("wait", str(go), *words), SERVICES["site"][1])}
    for name, text in texts(services).items():
        house.write(f"services.d/{name}", text)
    contained(house).start()
    go.touch()
    assert ended(house) == status
    assert f"exit_on says that all ends then: exit status {status}" in house.stderr()


def test_asked_to_end_it_stops_in_order_and_ends_with_0(make_house: Make) -> None:
    house = contained(make_house(texts(SERVICES), policy={})).start()
    house.stop()
    assert [one["process"] for one in house.audit() if one.get("deed") == "exited"] == ["site", "base"]


def test_the_example_serves_and_its_site_takes_the_container_with_it(make_house: Make) -> None:
    """packaging/examples/container, with the tests' accounts, directories and prefix in place of its own."""
    house = contained(make_house({}, policy={}))
    settings = (EXAMPLE / "durward.toml").read_text().replace("/var/lib/durward", str(house.state))
    settings = settings.replace("/run/durward", str(house.run_dir)).replace("/var/log/durward", str(house.log))
    accounts = templates.settings(house, PAM_SERVICE).partition("[accounts]")[2].partition("[auth]")[0]
    house.write("durward.toml", f"{settings}\n[accounts]{accounts}")
    service = (EXAMPLE / "services.d" / "site.toml").read_text()
    (house.folder / "gunicorn.conf.py").write_text((EXAMPLE / "gunicorn.conf.py").read_text())
    service = service.replace("/srv/site/", f"{house.folder}/")
    house.write("services.d/site.toml", service.replace("/opt/durward", "@PREFIX@").replace("www-site", "@www@"))
    house.start()
    assert house.http("/").status == 200
    assert house.cli("www", "status").returncode == 69, "there is no api"
    mine = processes_of({house.people["www"].uid})
    (arbiter,) = [pid for pid in mine if int(status_of(pid, "PPid")) not in mine]
    os.kill(arbiter, signal.SIGTERM)
    assert ended(house) == 0
    lines = [line.partition(" | ")[2] for line in house.stderr().splitlines() if line.startswith("site | ")]
    assert any("Listening at" in line for line in lines), "its first and its last words are in the container's output"
    assert any("Shutting down" in line for line in lines)
    assert not [line for line in lines if "ERROR" in line]
    assert not (house.log / "site").exists()


def test_it_can_be_ended_before_it_listens(make_house: Make) -> None:
    """The kernel ignores what the first process has no handler for."""
    house = contained(make_house(texts(SERVICES), policy={})).start(wait=False)

    def listens() -> bool:
        return bool(first(house)) and bool(int(status_of(first(house), "SigCgt"), 16) >> (signal.SIGTERM - 1) & 1)

    house.until(listens, "it would hear SIGTERM")
    os.kill(first(house), signal.SIGTERM)
    assert ended(house) == 128 + signal.SIGTERM


def test_the_next_start_is_a_boot_though_the_run_directory_is_the_same(make_house: Make) -> None:
    once = {"once": (("exit", "1"), 'restart = { policy = "never" }'), "base": ((), "")}
    house = contained(make_house(texts(once), policy={}), "[]").start()
    house.wait_for(lambda seen: seen["once"].state in ("EXITED", "FATAL"), "it has ended")
    os.kill(first(house), signal.SIGKILL)
    assert ended(house) == 137
    before = house.audit()
    house.start()

    def spawned() -> set[object]:
        return {one["process"] for one in house.audit()[len(before) :] if one.get("deed") == "spawn"}

    house.until(lambda: spawned() == {"once", "base"}, "both are started again")
