"""B5: whatever is in the files, there is the table of whole files or a refusal; never an exception."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings, strategies as st

from rootd.config import compile as compiler, keys
from rootd.config.compile import Bundle, Compiled, Problem
from rootd.config.table import load_table
from rootd.config.trusted import File

Compile = Callable[..., Compiled]
BundleOf = Callable[..., Bundle]

FULL = """
[socket.http]
listen = ["0.0.0.0:80", "[::]:80"]
group = "mail"
mode = "0666"
[service.site]
command = ["/srv/site/bin/serve", "--fd", "3"]
user = "www-site"
group = "mail"
supplementary_groups = ["certs"]
sockets = ["http"]
environment = { APP_ENV = "production", HOME = "/tmp" }
environment_file = "/etc/site/env"
stop = { signal = "QUIT" }
ready = { notify = true }
limits = { core = 0, nofile = [100, 200], memlock = "unlimited" }
log = { size = "1M", keep = 3 }
[service.work]
command = ["/srv/work"]
user = "worker"
sockets = ["http"]
"""
ENV = "A = 2\n"
MUTANT = '[auth]\nsession = "8h"\n[accounts]\nlog = "_durward-log"\n[api]\nlisten = "127.0.0.1:9001"\nworkers = 2\n'
SCRAPS = [
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    "=",
    "\n",
    ".",
    ",",
    "#",
    "0",
    "-1",
    "true",
    "[[x]]",
    "[service.site]",
    "user",
    "\0",
    "\\",
]


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_b5_a_mutated_configuration_gives_the_same_table_or_is_refused(bundle: BundleOf, data: st.DataObject) -> None:
    """Never an exception, and never a service that runs as somebody else than a whole file said."""
    texts = {"main": MUTANT, "site": FULL}
    which = data.draw(st.sampled_from(sorted(texts)))
    text = texts[which]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20, 10_000]))
        text = text[:at] + data.draw(st.sampled_from([*SCRAPS, ""])) + text[at + cut :]
    texts[which] = text
    environment_files = {"/etc/site/env": File("", ENV)}
    found = compiler.compile_bundle(
        bundle(texts["main"], {"a.toml": texts["site"]}, environment_files=environment_files)
    )
    if found.problems:
        assert not found.table
        assert found.settings is None
        assert all(problem.text for problem in found.problems)
        return
    for entry in load_table(found.table).entries:
        assert entry.uid in (1001, 1002, 905)
        assert entry.path.startswith("/")
        assert not entry.root


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab/.", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([*keys.SECTIONS["service"], "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(section=st.sampled_from(sorted(keys.SECTIONS)), raw=JSONISH)
def test_b5_a_section_of_any_shape_gives_values_or_problems(section: str, raw: Any) -> None:
    problems: list[Problem] = []
    read = compiler.read_section(section, raw, "a.toml", (section,), problems)
    assert read.values.keys() == keys.SECTIONS[section].keys()
    assert all(problem.text and problem.path[0] == section for problem in problems)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(["service", "socket"]), raw=JSONISH)
def test_b5_services_of_any_shape_never_raise(bundle: BundleOf, name: str, raw: Any) -> None:
    for text in (f"{name} = {toml(raw)}", f"{name} = {{ a = {toml(raw)} }}"):
        compiler.compile_bundle(bundle(services={"a.toml": text}))
        compiler.compile_bundle(bundle(main=f"{text}\napi = {toml(raw)}\naccounts = {toml(raw)}\npaths = {toml(raw)}"))


def toml(value: Any) -> str:
    """An inline value; None becomes a string."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {toml(item)}' for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps("none" if value is None else value)


def test_a_deeply_nested_file_is_refused(compiled: Compile) -> None:
    [problem] = compiled(services={"a.toml": "x = " + "[" * 5000}).problems
    assert problem.path == ()
    assert problem.text
