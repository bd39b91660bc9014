"""durward policy: its words, and what show shows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from policy import messages, source
from userapi.cli import completion, policy
from userapi.cli.__main__ import main

RULES = '# the rules\n[[grant]]\nid = "g"\nwho = ["group:webops"]\nmay = ["view"]\non = ["site"]\n'
SITE = """
[service.site]
command = ["/srv/site", "--key=hunter2"]
user = "www"
ready = { after = "1s" }
processes = 2
autostart = false
hooks = {}
"""


@pytest.fixture
def directory(tmp_path: Path) -> str:
    for name, text in {"services.d/site.toml": SITE, "policy.d/10-web.toml": RULES}.items():
        (tmp_path / "etc" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "etc" / name).write_text(text)
    return str(tmp_path / "etc")


def test_every_word_of_it_can_be_completed_and_is_carried_out() -> None:
    assert completion.POLICY.split() == list(policy.WHAT)


def test_show_tells_the_files_and_the_configuration_without_secrets(
    directory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "show", "--dir", directory]) == 0
    told = capsys.readouterr().out
    assert told.startswith("# policy.d/10-web.toml, SHA-256 ")
    assert RULES in told
    assert '[service.site]\ncommand = ["/srv/site", "--key=(hidden)"]\nuser = "www"\nready = { after = "1s" }\n' in told
    assert "processes = 2\nautostart = false\nhooks = {}\n" in told
    assert "hunter2" not in told


def test_show_as_json_is_what_the_api_answers(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "show", "--dir", directory, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) >= {"policy", "services", "configuration"}
    assert told["services"] == {"site": []}


def test_a_file_cannot_move_the_cursor_of_who_reads_it(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(directory) / "policy.d/10-web.toml").write_text(RULES + "# \x1b[2J\x9b\n")
    main(["policy", "show", "--dir", directory])
    assert not {"\x1b", "\x9b"} & set(capsys.readouterr().out)


def served(content: bytes) -> Any:
    def opened(command: messages.ReadPolicy) -> Any:
        descriptor = os.memfd_create("policy")
        os.write(descriptor, content)
        return (messages.LogOpened("", "policy.json", "policy", len(content)), descriptor)

    return opened


SOURCE = source.Source([source.policy_file("policy.d/10-web.toml", RULES)], {"site": []}, [], "the running daemon")


def test_the_running_policy_is_asked_for_by_the_api_and_on_roots_socket(alice: Any, world: Any, root: Any) -> None:
    world.answers[messages.ReadPolicy] = served(source.encode(SOURCE))
    for words in ((), ("--root",)):
        ended = alice(*words, "policy", "who-can", "view", "site")
        assert (ended.returncode, "group:webops" in ended.stdout) == (0, True), ended


def test_who_may_not_read_it_is_77(alice: Any, world: Any) -> None:
    world.answers[messages.ReadPolicy] = messages.Refused("forbidden", "denied: no rule lets alice read the policy")
    ended = alice("policy", "matrix")
    assert ended.returncode == 77
    assert "no rule lets alice read the policy" in ended.stderr


def test_with_a_directory_nobody_is_asked(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURWARD_URL", "unix:/nonexistent/api.sock")
    assert main(["policy", "matrix", "--dir", directory]) == 0


@pytest.mark.parametrize("words", [[], ["bogus"], ["who-can"], ["why", "alice"], ["diff", "a"], ["simulate", "a"]])
def test_what_cannot_be_understood_is_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["policy", *words])
    assert ended.value.code == 2
