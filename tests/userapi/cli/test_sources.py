"""Where a policy comes from: a directory, files alone, or the daemon; in one shape."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from policy import source as shape
from policy.rules import Policy
from userapi.cli import sources
from userapi.cli.failure import Failure
from userapi.cli.render import Screen

RULES = '[[grant]]\nid = "g"\nwho = ["group:webops"]\nmay = ["view", "restart"]\non = ["site", "group:web"]\n'
SITE = '[service.site]\ncommand = ["/srv/site"]\nuser = "www"\ngroups = ["web"]\nenvironment = { KEY = "hunter2" }\n'
SCREEN = Screen()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Anybody's: a checkout, say."""
    for name, text in {"durward.toml": "", "services.d/site.toml": SITE, "policy.d/10-web.toml": RULES}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_configuration_directory_of_anybodys_is_read_whole(directory: Path) -> None:
    found = sources.of_directory(str(directory))
    assert [(file.name, file.text) for file in found.policy] == [("policy.d/10-web.toml", RULES)]
    assert (found.services, found.whole, found.place) == ({"site": ["web"]}, True, str(directory))
    assert [section.name for section in found.configuration] == ["service.site"]
    assert "hunter2" not in shape.encode(found).decode()
    assert isinstance(sources.policy(SCREEN, found), Policy)


def test_services_of_templates_are_there_with_their_groups(directory: Path) -> None:
    (directory / "services.d/jobs.toml").write_text(
        '[template.job]\ninstances = ["a"]\ncommand = ["/srv/job"]\nuser = "www"\n'
    )
    assert sources.of_directory(str(directory)).services == {"site": ["web"], "job-a": ["job"]}


@pytest.mark.parametrize("which", ["directory", "file"])
def test_policy_files_alone_know_no_services_but_by_name(tmp_path: Path, which: str) -> None:
    (tmp_path / "10-web.toml").write_text(RULES)
    (tmp_path / "notes.txt").write_text("x")
    found = sources.of_directory(str(tmp_path if which == "directory" else tmp_path / "10-web.toml"))
    assert (found.services, found.groups, found.whole) == ({"site": []}, ["web"], False)
    assert [file.name for file in found.policy] == ["10-web.toml"]
    assert isinstance(sources.policy(SCREEN, found), Policy)


def test_a_file_that_is_no_toml_is_a_mistake_of_the_policy_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "10.toml").write_text("[[grant]\n")
    with pytest.raises(Failure, match="1 mistake in ") as failed:
        sources.policy(SCREEN, sources.of_directory(str(tmp_path)))
    assert failed.value.exit == 65
    assert "10.toml:1: this is not TOML" in capsys.readouterr().err


def test_mistakes_are_in_the_json(tmp_path: Path) -> None:
    (tmp_path / "10.toml").write_text(RULES.replace("view", "vew"))
    with pytest.raises(Failure) as failed:
        sources.policy(Screen(as_json=True), sources.of_directory(str(tmp_path)))
    [problem] = failed.value.document()["error"]["problems"]
    assert (problem["file"], problem["line"], problem["key"]) == ("10.toml", 4, "grant[0].may[0]")


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda path: None, "usage", "has no policy"),
        (lambda path: (path / "10.toml").write_bytes(b"\xff"), "bad-configuration", "is not UTF-8 from byte 0 on"),
        (lambda path: (path / "10.toml").write_text("#" * (sources.MOST + 1)), "usage", "is larger than"),
        (lambda path: (path / "10.toml").mkdir(), "usage", "cannot be read: it is no plain file"),
        (lambda path: (path / "policy.d").write_text(""), "usage", "cannot be read: Not a directory"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, make: Any, kind: str, words: str) -> None:
    make(tmp_path)
    with pytest.raises(Failure, match=words) as failed:
        sources.of_directory(str(tmp_path))
    assert failed.value.kind == kind


def test_a_directory_that_is_not_there_is_said() -> None:
    with pytest.raises(Failure, match="/nonexistent cannot be read: No such file or directory"):
        sources.of_directory("/nonexistent")


def test_services_that_cannot_be_known_are_no_reason_to_guess(directory: Path) -> None:
    (directory / "services.d/more.toml").write_text("[service\n")
    with pytest.raises(Failure, match=r"are not known: services.d/more.toml: ") as failed:
        sources.of_directory(str(directory))
    assert failed.value.exit == 65


@pytest.mark.root
def test_what_one_may_not_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "10.toml").write_text(RULES)
    (tmp_path / "10.toml").chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(Failure, match="may not be read by you"):
            sources._read(str(tmp_path / "10.toml"), "10.toml")
    finally:
        os.seteuid(0)


class Daemon:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def policy(self) -> bytes:
        return self.content


@pytest.mark.parametrize("place", [None, "-"])
def test_the_running_policy_comes_in_the_same_shape(directory: Path, place: str | None) -> None:
    found = sources.of_directory(str(directory))
    policy, told = sources.load(Daemon(shape.encode(found)), SCREEN, place)
    assert told == found
    assert len(policy.grants) == 1


def test_what_is_no_policy_is_said() -> None:
    with pytest.raises(Failure, match="is no policy of Durward's") as failed:
        sources.source(Daemon(b"<html>"), None)
    assert failed.value.exit == 69
