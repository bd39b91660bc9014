"""The fixtures of the real thing: accounts once a run, a house a module, more houses for who needs his own."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostage import ApiHostage, Hostage, standing
from house import PREFIX, House
from people import People
from space import Space


def _why_not() -> str:
    """Why the installed Durward cannot be used, or nothing."""
    if not (PREFIX / "bin" / "durward-rootd").exists():
        return f"Durward is not installed in {PREFIX}: run the tests by packaging/test"
    for part in (PREFIX, *PREFIX.parents):
        if not stat.S_IMODE(part.stat().st_mode) & stat.S_IXOTH:
            return f"{part} is closed to the users of services"
    return ""


@pytest.fixture(scope="session")
def people() -> Iterator[People]:
    """alice is in webops and may restart the site, bob may only look, carol may nothing; www and jobs run services."""
    assert os.geteuid() == 0
    assert not (why := _why_not()), why
    people = People()
    atexit.register(people.close)
    try:
        for service_user in ("www", "jobs"):
            people.system(service_user)
        people.person("alice", groups=(people.name("webops"),))
        people.person("bob")
        people.person("carol")
        yield people
    finally:
        people.close()
        atexit.unregister(people.close)


@pytest.fixture(scope="module")
def space() -> Iterator[Space]:
    """A network namespace of this module's own."""
    try:
        space = Space()
    except PermissionError as error:
        pytest.skip(f"needs a network namespace: {error}")
    yield space
    space.close()


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    """The usual one: a site on port 80, a worker, and the policy of templates. Shared by the tests of a module."""
    with House(people, space).running() as house:
        yield house


@pytest.fixture
def make_house(people: People) -> Iterator[Callable[..., House]]:
    """Houses of a test's own, each in a namespace of its own; started by the test, ended and looked after here."""
    made: list[House] = []

    def make(*args: object, **settings: object) -> House:
        try:
            space = Space()
        except PermissionError as error:
            pytest.skip(f"needs a network namespace: {error}")
        made.append(House(people, space, *args, **settings))
        return made[-1]

    yield make
    for house in made:
        house.remove()
        house.space.close()


@pytest.fixture
def nginx(people: People) -> Callable[[House], str]:
    """Prepares nginx in a house's folder; the text of a service file for it."""
    found = (
        shutil.which("nginx")
        or shutil.which("nginx", path="/usr/sbin")
        or shutil.which("nginx", path=str(PREFIX / "nginx" / "usr" / "sbin"))
    )
    if found is None:
        pytest.skip("nginx is neither installed nor fetched by packaging/test")

    def prepare(house: House) -> str:
        from templates import NGINX

        folder = house.folder / "nginx"
        folder.mkdir()
        www = people["www"]
        os.chown(folder, www.uid, www.gid)
        config = folder / "nginx.conf"
        config.write_text((house.programs / "nginx.conf").read_text().replace("FOLDER", str(folder)))
        config.chmod(0o644)
        return NGINX.replace("@NGINX@", str(Path(found).resolve()))

    return prepare


@pytest.fixture(scope="module")
def taken(request: pytest.FixtureRequest, people: People, space: Space) -> Iterator[Hostage]:
    """The usual house; the module's ROLE is a part of it that runs the tests' code when it is asked to."""
    house = House(people, space)
    hostage = ApiHostage(house) if request.module.ROLE == "api" else Hostage(house, request.module.ROLE)
    try:
        house.start()
        house.until(lambda: len(house.api_workers()) == 2, "the api has its workers")
        yield hostage
        hostage.resume()
        house.stop()
    finally:
        house.remove()
        hostage.close()


@pytest.fixture
def hostage(request: pytest.FixtureRequest, taken: Hostage) -> Iterator[Hostage]:
    """`taken`, with the module's TOOLS run in it. Before and after, all works, and no other process is another one."""
    house, role = taken.house, request.module.ROLE
    house.until(house.answers, "the house answers")
    house.until(lambda: len(standing(house, role)["www"]) == 3, "gunicorn and its two workers stand")
    before = standing(house, role)
    taken.run(request.module.TOOLS)
    yield taken
    taken.resume()
    house.until(house.answers, "the house answers as before")
    assert standing(house, role) == before
    assert house.http("/").status == 200
