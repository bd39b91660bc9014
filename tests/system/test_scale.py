"""Processes of a running site come and go by a user without root, as far as root's file allows, and nobody notices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from house import House
from people import PREFIX
from templates import POLICY, SITE

from policy import messages

pytestmark = pytest.mark.root

SCALED = {"site.toml": f"{SITE}processes = 1\nmax_processes = 3\n"}
MAY = {"10-web.toml": POLICY["10-web.toml"].replace('"restart"]', '"restart", "scale"]')}


def names(house: House) -> list[str]:
    return [process.name for process in house.status()["site"].processes]


def test_a_site_is_scaled_up_and_down_under_load_and_no_request_fails(make_house: Callable[..., House]) -> None:
    house = make_house(services=SCALED, policy=MAY).start()
    house.login("alice")
    house.login("bob")
    assert names(house) == ["site:0"], "the one there is has its number already"
    [first] = house.pids("site")

    with house.load(interval=0.003) as load:
        for number, said in ((3, "site: 3 processes in "), (1, "site: 1 process in "), (2, "site: 2 processes in ")):
            done = house.cli("alice", "scale", f"site={number}")
            assert (done.returncode, done.stdout[: len(said)]) == (0, said), done.stderr
            assert len(house.pids("site")) == number
            assert house.pids("site")[0] == first
    result = load.result
    assert (result["refused"], result["failed"]) == (0, {})
    assert result["answered"] == result["tried"]
    assert (house.log / "site.2" / "stderr.log").exists()

    assert house.status()["site"].text == "2 processes, configured 1"
    already = house.cli("alice", "scale", "site", "2")
    assert (already.returncode, already.stdout) == (0, "site has 2 processes already\n")
    many = house.cli("alice", "scale", "site=4")
    assert (many.returncode, many.stderr) == (
        2, "site may have 3 processes at most: more takes a greater max_processes in its configuration\n",
    )  # fmt: skip
    denied = house.cli("bob", "scale", "site=1")
    assert denied.returncode == 77
    assert "scale site" in denied.stderr
    assert len(house.pids("site")) == 2

    pids = house.pids("site")
    house.wait_back("supervisor", house.kill9("supervisor"))
    house.wait_for(lambda seen: seen["site"].state == "RUNNING", "the site is known again")
    assert house.pids("site") == pids
    assert house.operate(messages.Restart("site"))[1].ok
    assert len(set(house.pids("site")) - set(pids)) == 2

    house.stop()
    house.start()
    assert names(house) == ["site:0"], "another daemon begins with what is configured"
    asked = [one for one in house.audit() if one["kind"] == "decision" and one["action"] == "scale"]
    assert [(one["user"], one["target"], one["allowed"], one["asked"]) for one in asked[:1]] == [
        (f"{PREFIX}alice", "site", True, {"processes": 3})
    ]
