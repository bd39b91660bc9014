"""durward doctor, policy test and lint beside a daemon that runs: by root, and by a person who may see little."""

from __future__ import annotations

import json
import subprocess

import pytest
from house import PREFIX, House

pytestmark = pytest.mark.root


def findings(text: str) -> dict[str, list[dict[str, str]]]:
    told: dict[str, list[dict[str, str]]] = {}
    for one in json.loads(text)["findings"]:
        told.setdefault(one["group"], []).append(one)
    return told


def by_root(house: House) -> subprocess.CompletedProcess[str]:
    """In the network namespace of the daemon, as one who looks after the machine would be."""
    words = ("doctor", "--json", "--config", str(house.etc))
    argv, fds = house.space.command(str(PREFIX / "bin" / "durward"), *words)
    return subprocess.run(argv, pass_fds=fds, capture_output=True, text=True, timeout=60, check=False, cwd="/")


def test_root_sees_no_problem_in_a_house_that_is_well(house: House) -> None:
    done = by_root(house)
    told = findings(done.stdout)
    problems = [one for group in told.values() for one in group if one["level"] == "problem"]
    assert (done.returncode, problems) == (0, [])
    assert told["daemon"][0]["text"] == "it answers, with 2 services"
    assert {one["level"] for one in told["ports"]} == {"ok"}
    assert all("is held by durward-" in one["text"] for one in told["ports"])
    assert {one["level"] for one in told["login"]} == {"ok"}
    assert any("audit.initial is still" in one["text"] for one in told["directories"])


def test_a_person_is_told_what_he_cannot_see(house: House) -> None:
    done = house.cli("bob", "doctor", "--json", "--config", str(house.etc))
    told = findings(done.stdout)
    assert {one["level"] for one in told["configuration"]} == {"unknown"}
    assert done.returncode == 0
    assert house.cli("bob", "doctor", "--config", str(house.etc)).stdout.endswith("as root more can be seen\n")


def by_root_sock(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(PREFIX / "bin" / "durward"), "--root", str(house.run_dir / "root.sock"), "policy", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd="/", env={})


def test_the_running_policy_is_tested_and_linted_with_what_its_services_run(house: House) -> None:
    done = by_root_sock(house, "test")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the running daemon: ")
    done = by_root_sock(house, "lint", "--json", "--fail-on", "never")
    told = json.loads(done.stdout)
    assert (done.returncode, told["place"]) == (0, "the running daemon")
    assert not [one for one in told["findings"] if one["severity"] == "error"]
    # what the daemon does not tell is said not to have been looked at
    assert any("which the daemon does not tell" in one["text"] for one in told["findings"])
