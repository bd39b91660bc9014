"""Sections: each key by its row, each problem at its place. test_compile has what becomes of them."""

from __future__ import annotations

from rootd.config.sections import Problem, read, read_section
from rootd.config.trusted import File


def test_every_key_of_a_section_has_a_value_and_every_mistake_its_place() -> None:
    problems: list[Problem] = []
    raw = {"command": ["/bin/x"], "user": "Root!", "ready": {"after": "soon", "wen": 1}, "colour": "red"}
    found = read_section("service", raw, "services.d/a.toml", ("service", "x"), problems)
    assert found.values["command"] == ("/bin/x",)
    assert found.values["user"] is None
    assert found.values["ready"]["timeout"] == 30.0
    assert {problem.path for problem in problems} == {
        ("service", "x", "colour"), ("service", "x", "user"), ("service", "x", "ready", "after"),
        ("service", "x", "ready", "wen"),
    }  # fmt: skip


def test_what_is_no_table_has_no_values() -> None:
    problems: list[Problem] = []
    found = read_section("service", [], "services.d/a.toml", ("service", "x"), problems)
    assert set(found.values.values()) == {None}
    assert [problem.text for problem in problems] == ["must be a table"]


def test_the_policy_is_not_read_here() -> None:
    found, problems = read((File("policy.d/10.toml", "not toml at all ["),))
    assert (found, problems) == ({}, ())


def test_a_name_that_is_there_twice_is_told_with_the_other_file() -> None:
    text = '[service.x]\ncommand = ["/bin/x"]\nuser = "worker"\n'
    _, problems = read((File("services.d/a.toml", text), File("services.d/b.toml", text)))
    assert problems == (Problem("services.d/b.toml", ("service", "x"), "is in services.d/a.toml already"),)
