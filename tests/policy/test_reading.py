"""A file and its tables while they are read: what is wrong is told once, with its place."""

from __future__ import annotations

from policy.reading import File, Table, show


def table(text: str) -> Table:
    file = File("a.toml", text)
    file.read()
    assert file.content is not None
    return Table(file, ("t",), file.content["t"], lambda word, known: "")


def test_what_is_not_toml_has_no_content_and_the_line_of_what_is_wrong() -> None:
    file = File("a.toml", "a = 1\nb = \n")
    file.read()
    assert file.content is None
    assert [(problem.file, problem.line, problem.source) for problem in file.problems] == [("a.toml", 2, "b =")]


def test_members_stand_for_a_text_with_the_mark_alone() -> None:
    read = table('[t]\nkey = ["x", "@ab", "b"]\n')
    assert read.many("key", str.upper, members=lambda text: text[1:].upper()) == ("X", "A", "B")
    assert read.many("key", str.upper) == ("X", "@AB", "B")
    assert not read.file.problems


def test_every_wrong_element_is_told_and_the_list_is_not_used() -> None:
    read = table('[t]\nkey = ["x", 1, "x", "@"]\n')

    def members(text: str) -> list[str]:
        raise ValueError(f"no {text}")

    assert read.many("key", str, members=members) is None
    assert [(problem.key, problem.text) for problem in read.file.problems] == [
        ("t.key[1]", "this must be a text in quotes, not a number"),
        ("t.key[2]", "'x' stands here twice"),
        ("t.key[3]", "no @"),
    ]


def test_a_value_is_shown_short_and_of_its_kind() -> None:
    values: list[object] = ["x", True, 1, 1.0, {}, []]
    assert [show(value) for value in values] == [
        "'x'", "true or false", "a number", "a number", "a table", "a list",
    ]  # fmt: skip
    assert show("x" * 61) == "'" + "x" * 59 + "…'"


def test_a_header_that_is_spelled_otherwise_has_its_line_all_the_same() -> None:
    for text in ("[[t]]\n[[t]]\n", "[[ t ]]\n[[t]]\n", '[["t"]]\n[[t]]\n', "t = [{},\n {}]\n"):
        file = File("a.toml", text)
        file.read()
        assert [file.line(("t", number)) for number in (0, 1)] == [1, 2]
