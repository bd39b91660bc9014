"""userapi/cli/offline/paper: every mistake of a configuration, found on a machine that has none of what it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from userapi.cli.offline import paper

SITE = '[service.site]\ncommand = ["/bin/x", "${KEY}"]\nuser = "nobody-has-this"\nenvironment = { KEY = "1" }\n'
GRANT = '[[grant]]\nid = "a"\nwho = ["group:webops"]\nmay = ["restart"]\non = ["site"]\n'
EMPTY = '[api]\n[accounts]\napi = "web-door"\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, text in {"durward.toml": EMPTY, "services.d/site.toml": SITE, "policy.d/10.toml": GRANT}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def told(place: Path) -> list[tuple[str, int, str]]:
    problems, summary, _ = paper.problems(str(place))
    assert bool(problems) != bool(summary)
    return [(problem.file, problem.line, problem.text) for problem in problems]


def test_a_good_one_has_no_mistake_though_the_machine_has_nothing_that_it_names(place: Path) -> None:
    assert told(place) == []
    _, summary, unread = paper.problems(str(place))
    assert summary == f"{place}: 1 service, 0 sockets, 1 rule: no mistake found"
    assert unread == []


def test_mistakes_of_all_files_come_at_once_each_with_its_line(place: Path) -> None:
    (place / "durward.toml").write_text("[paths]\nrun = 5\n")
    (place / "services.d/site.toml").write_text(SITE + 'requires = ["site"]\nsockets = ["http"]\ncolour = 1\n')
    (place / "policy.d/10.toml").write_text(GRANT + GRANT.replace('"site"', '"sight"'))
    (place / "policy.d/20.toml").write_text("[[grant]\n")
    found = told(place)
    assert [(file, line) for file, line, _ in found] == [
        ("durward.toml", 2), ("policy.d/10.toml", 7), ("policy.d/10.toml", 10), ("policy.d/20.toml", 1),
        ("services.d/site.toml", 5), ("services.d/site.toml", 6), ("services.d/site.toml", 7),
    ]  # fmt: skip
    assert "did you mean 'site'" in found[2][2]


def test_what_would_amount_to_root_is_refused_on_paper_too(place: Path) -> None:
    (place / "services.d/site.toml").write_text(SITE.replace("nobody-has-this", "root"))
    [(_, _, text)] = told(place)
    assert text == "it would run as root: that takes allow_root = true"
    (place / "services.d/site.toml").write_text(SITE.replace("nobody-has-this", "_durward"))
    [(_, _, text)] = told(place)
    assert "Durward's own account" in text
    (place / "services.d/site.toml").write_text(SITE + 'supplementary_groups = ["docker"]')
    [(_, _, text)] = told(place)
    assert "as good as root" in text


def test_files_that_are_not_read_or_are_no_text_are_mistakes(place: Path) -> None:
    (place / "policy.d/20.tml").write_text("")
    (place / "policy.d/30.toml").write_bytes(b"\xff")
    (place / "policy.d/40.toml").write_text("#" * (1 << 20) + "\n")
    (place / "policy.d/README").write_text("")
    (place / "policy.d/.hidden.toml").write_text("")
    found = [(file, text.replace(str(place), "")) for file, _, text in told(place)]
    assert found == [
        ("policy.d/20.tml", "is not read: its name must end in .toml"),
        ("policy.d/30.toml", "/policy.d/30.toml is not UTF-8 from byte 0 on"),
        ("policy.d/40.toml", "/policy.d/40.toml is larger than 1048576 bytes"),
    ]


def test_a_folder_that_cannot_be_listed_is_one_too_and_a_missing_one_is_not(place: Path) -> None:
    (place / "policy.d/10.toml").unlink()
    (place / "policy.d").rmdir()
    assert told(place) == []
    (place / "policy.d").write_text("")
    [(file, _, text)] = told(place)
    assert (file, text) == ("policy.d", f"{place}/policy.d: Not a directory")


def test_services_that_cannot_be_known_say_nothing_of_the_rules(place: Path) -> None:
    (place / "services.d/site.toml").write_text("[service")
    [(file, line, _)] = told(place)
    assert (file, line) == ("services.d/site.toml", 1)


def test_a_variable_that_an_environment_file_may_set_is_no_mistake_unless_the_file_is_there(place: Path) -> None:
    file = place / "env"
    text = SITE.replace('environment = { KEY = "1" }', f'environment_file = "{file}"')
    (place / "services.d/site.toml").write_text(text)
    problems, _, unread = paper.problems(str(place))
    assert (problems, unread) == ([], [str(file)])
    file.write_text("OTHER=1\n")
    [(_, line, text)] = told(place)
    assert line == 2
    assert text.startswith("there is no variable KEY")
    file.write_text("KEY=1\n")
    assert told(place) == []


def test_secrets_and_time_zones_are_looked_up_as_far_as_they_can_be(place: Path) -> None:
    more = 'credentials = { key = "/etc/site/key" }\nschedule = "@daily"\ntimezone = "Europe/Nowhere"\n'
    (place / "services.d/site.toml").write_text(SITE + more)
    [(_, line, text)] = told(place)
    assert line == 7
    assert "Europe/Nowhere" in text
