"""What ${NAME} stands for, and that nothing else stands for anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from rootd.config.compile import Compiled
from rootd.config.environment import Unknown, expand, read_lines
from rootd.config.table import Entry, load_table
from rootd.config.trusted import File

Compile = Callable[..., Compiled]
KNOWN = {"A": "1", "EMPTY": "", "NEST": "${A}"}


def entries(compiled: Compile, more: str, command: str = '["/srv/work"]', env: File | None = None) -> tuple[Entry, ...]:
    found = compiled(
        "[auth]",
        {"a.toml": f'[service.work]\ncommand = {command}\nuser = "worker"\n{more}'},
        environment_files={"/etc/env": env} if env else None,
    )
    assert found.problems == ()
    return load_table(found.table).entries


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ""), ("plain $A $ { }", "plain $A $ { }"), ("${A}", "1"), ("a${A}b${A}", "a1b1"),
        ("${NONE:-x y}", "x y"), ("${EMPTY:-x}", "x"), ("${A:-x}", "1"), ("${EMPTY}", ""), ("${NONE:-}", ""),
        ("$${A}", "${A}"), ("$$A", "$$A"), ("$$${A}", "$${A}"), ("${NEST}", "${A}"),
        ("${NONE:-`id`$(id)}", "`id`$(id)"),
    ],
)  # fmt: skip
def test_a_reference_is_replaced_once_and_nothing_else_is_touched(text: str, found: str) -> None:
    assert expand(text, KNOWN) == found


@pytest.mark.parametrize("text", ["${", "${}", "${1}", "${A", "${A-x}", "${A:x}", "${A b}", "${A:-x"])
def test_what_begins_like_a_reference_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(Unknown, match="begins the name of a variable"):
        expand(text, KNOWN)


def test_a_variable_that_is_not_there_is_named_with_what_to_do() -> None:
    with pytest.raises(Unknown, match=r"no variable PROT: set it, or write \$\{PROT:-default\}; did you mean 'PORT'"):
        expand("${PROT}", {"PORT": "1"})
    with pytest.raises(Unknown, match="known only when it runs"):
        expand("${DURWARD_PROCESS}", {})


@given(st.text(), st.dictionaries(st.sampled_from(["A", "B"]), st.text(max_size=5)))
def test_any_text_is_expanded_or_refused_in_words(text: str, known: dict[str, str]) -> None:
    with contextlib.suppress(Unknown):
        assert isinstance(expand(text, known), str)


def test_a_text_without_a_reference_is_itself() -> None:
    assert expand("/bin/$HOME", {"HOME": "x"}) == "/bin/$HOME"


def test_commands_hooks_and_variables_are_expanded_from_what_is_configured(compiled: Compile) -> None:
    main, hook = entries(
        compiled,
        'environment = { PORT = "8${LAST}", URL = "http://[::1]:${PORT}", PATH = "/srv/bin:${PATH}", LAST = "no" }\n'
        'environment_file = "/etc/env"\nhooks = { pre_start = ["/bin/test", "${URL}"] }\n',
        '["${ROOT}/x", "/srv/work", "--port=${PORT}", "${HOME}", "$${HOME}"]'.replace('"${ROOT}/x", ', ""),
        File("", "LAST=1\nLITERAL=${LAST}\n"),
    )
    assert main.argv == ("/srv/work", "--port=81", "/srv/worker", "${HOME}")
    assert hook.argv == ("/bin/test", "http://[::1]:81")
    env = dict(main.env)
    assert env["PATH"].startswith("/srv/bin:/usr/local/sbin:")
    assert (env["LAST"], env["LITERAL"]) == ("1", "${LAST}")  # the file wins, and is taken as it is


def test_our_own_environment_is_never_looked_at(compiled: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller of the daemon has in its environment is not configured."""
    monkeypatch.setenv("FROM_THE_CALLER", "1")
    found = compiled("[auth]", {"a.toml": '[service.a]\ncommand = ["/x", "${FROM_THE_CALLER}"]\nuser = "worker"\n'})
    [problem] = found.problems
    assert problem.path == ("service", "a", "command", 1)
    assert "there is no variable FROM_THE_CALLER" in problem.text


def test_each_unknown_variable_is_told_at_its_place(compiled: Compile) -> None:
    text = """[service.a]
command = ["/x", "${ONE}"]
user = "worker"
environment = { A = "${TWO}" }
[service.a.ready]
command = ["/y", "a", "${THREE}"]
"""
    found = {problem.path[2:]: problem.text for problem in compiled("[auth]", {"a.toml": text}).problems}
    assert set(found) == {("command", 1), ("environment", "A"), ("ready", "command", 2)}


def test_a_file_with_a_minus_before_it_may_be_missing_but_not_wrong(compiled: Compile) -> None:
    more = 'environment_file = "-/etc/env"\n'
    [entry] = entries(compiled, more, env=File("/etc/env", "", "No such file or directory", missing=True))
    assert "A" not in dict(entry.env)
    assert dict(entries(compiled, more, env=File("/etc/env", "A=1"))[0].env)["A"] == "1"
    for wrong in (File("/etc/env", "", "Permission denied", denied=True), File("/etc/env", "A")):
        text = f'[service.a]\ncommand = ["/x"]\nuser = "worker"\n{more}'
        [problem] = compiled("[auth]", {"a.toml": text}, environment_files={"/etc/env": wrong}).problems
        assert problem.path == ("service", "a", "environment_file")


def test_a_value_in_quotes_is_what_systemd_makes_of_it() -> None:
    lines = {
        "A=1\r": "1", "A= two words ": "two words", "A='$x \\'": "$x \\", 'A="a\\"b\\\\c\\$d\\`e\\n"': 'a"b\\c$d`e\\n',
        'A=""': "", "A=''": "", "A=": "", 'A={"b": "c"}': '{"b": "c"}', "A=it's": "it's", "A=C:\\x": "C:\\x",
        "A=b # c": "b # c", "\ufeffA=1": "1",
    }  # fmt: skip
    for line, value in lines.items():
        assert read_lines("/e", {"/e": File("/e", line)}) == ({"A": value}, []), line


@pytest.mark.parametrize(
    ("text", "number", "why"),
    [
        ('A="one\ntwo"', 1, "begins with a quote and does not end with it"), ("A='", 1, "it is one line"),
        ('A="x" # y', 1, "begins with a quote"), ('A="a"b"', 1, "has one between"), ('A="a\\"', 1, "with a quote"),
        ("A=--b \\\nB=c", 1, "ends with a backslash"), ("B=1\nexport A=1", 2, "begins with a shell's word, export"),
        ("B=1\n\ufeffA=1", 2, "is not NAME=value"), ("LISTEN_FDS=1", 1, "ours to set"),
    ],
)  # fmt: skip
def test_a_line_that_systemd_or_a_shell_would_read_otherwise_is_refused_with_its_number(
    text: str, number: int, why: str
) -> None:
    [(path, sentence), *_] = read_lines("/etc/env", {"/etc/env": File("/etc/env", text)})[1]
    assert path == ("environment_file",)
    assert sentence.startswith(f"line {number} of /etc/env")
    assert why in sentence


def test_the_same_files_compile_twice_to_the_same(compiled: Compile) -> None:
    """What was parsed is shared: expanding it must leave it as it was."""
    args = ("[auth]", {"a.toml": '[service.a]\ncommand = ["/x", "$${A}"]\nuser = "worker"\n'})
    assert compiled(*args).table == compiled(*args).table
