"""What changed in rights, found out by a real child: what policy/diff says, within bounds, or why it is not known."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator

import naive
import pytest
from examples import examples
from hypothesis import given, strategies as st
from naive import Rule

from policy import source, wording
from policy.diff import diff
from policy.rights import Book, groups_named, places
from rootd import ipc
from rootd.supervisor import comparing
from rootd.supervisor.comparing import COLUMNS, Answer, Comparison, compared, fitting

PATIENCE = 30.0  # seconds before a test gives up
SERVICES = {name: [*groups] for name, groups in naive.SERVICES.items()}


def text_of(policy: str, services: dict[str, list[str]] | None = None) -> bytes:
    """As publishing.policy_alone has it."""
    files = [source.policy_file("policy.d/10.toml", policy)] if policy else []
    return zlib.compress(source.encode(source.Source(files, SERVICES if services is None else services, [])))


def grant(name: str, who: str, may: str = '"restart"', on: str = '"site"', more: str = "") -> str:
    return f'[[grant]]\nid = "{name}"\nwho = ["{who}"]\nmay = [{may}]\non = [{on}]\n{more}'


def many(rules: int, seed: int) -> str:
    some = random.Random(seed)
    return "".join(
        grant(f"r{n}", f"group:g{some.randrange(200)}", on=f'"s{some.randrange(1000)}"') for n in range(rules)
    )


LARGE = {f"s{n}": list[str]() for n in range(1000)}


@examples(8)
@given(old=naive.RULES, new=naive.RULES)
def test_it_says_what_the_diff_of_the_two_policies_says(old: list[Rule], new: list[Rule]) -> None:
    texts = [naive.text_of(rules) for rules in (old, new)]
    policies = [naive.policy_of(rules) for rules in (old, new)]
    groups = groups_named(policies[0]) | groups_named(policies[1])
    known = places(naive.SERVICES, groups)
    changes = diff(Book(policies[0]), known, Book(policies[1]), known)
    answer = compared(*map(text_of, texts))
    assert answer == fitting(wording.change_cells(changes, naive.SERVICES))
    assert (not answer.gained and not answer.lost) == (not changes)
    assert compared(text_of(texts[0]), text_of(texts[0])) == Answer()


CELLS = st.lists(st.tuples(st.sampled_from(["gained", "lost"]), *[st.text(max_size=900)] * len(COLUMNS)), max_size=120)


@examples(10)
@given(cells=CELLS)
def test_a_record_has_as_many_lines_as_fit_and_counts_the_others(cells: list[tuple[str, ...]]) -> None:
    answer = fitting(cells)
    assert len(answer.gained) + len(answer.lost) + answer.more == len(cells)
    for kind, lines in (("gained", answer.gained), ("lost", answer.lost)):
        assert len(lines) <= comparing.SHOWN
        mine = [texts for word, *texts in cells if word == kind]
        for line, texts in zip(lines, mine, strict=False):
            whole = {name: text for name, text in zip(COLUMNS, texts, strict=True) if text}
            assert line.keys() == whole.keys()
            assert all(text in (whole[name], f"{whole[name][: comparing.CELL]} …") for name, text in line.items())


def test_rights_on_a_service_that_comes_or_goes_are_gained_or_lost() -> None:
    rules = grant("ops", "group:ops", on='"*"')
    answer = compared(text_of(rules, {"site": []}), text_of(rules, {"site": [], "shop": []}))
    assert answer.gained == [{"who": "group:ops", "may": "restart", "on": "shop", "if": "always"}]
    assert not answer.lost


def test_where_nobody_may_anything_all_is_lost_and_gained_again() -> None:
    nothing, rules = text_of("", {}), text_of(grant("ops", "group:ops"))
    assert compared(rules, nothing).lost == compared(nothing, rules).gained
    assert compared(nothing, rules).gained == [{"who": "group:ops", "may": "restart", "on": "site", "if": "always"}]


def test_a_policy_that_this_version_cannot_read_is_named() -> None:
    answer = compared(text_of("[[grant]]\nid = 7\n"), text_of(grant("ops", "group:ops")))
    assert answer.why.startswith("the policy of before cannot be read by this version: policy.d/10.toml:")


def test_tests_of_a_policy_are_not_made_again() -> None:
    failing = grant("ops", "group:ops") + '[[test]]\nuser = "eve"\nmay = "restart"\non = "site"\nexpect = "allow"\n'
    assert compared(text_of(failing), text_of(failing)) == Answer()


@pytest.fixture
def loop() -> Iterator[ipc.Loop]:
    made = ipc.Loop()
    yield made
    made.close()


def end_of(loop: ipc.Loop, told: list[Answer]) -> Answer:
    until = time.monotonic() + PATIENCE
    while not told:
        assert time.monotonic() < until, "it does not end"
        loop.turn(PATIENCE)
    (answer,) = told
    return answer


def children() -> set[str]:
    """Of this process: other tests may have left some."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return {*file.read().split()}


def test_a_child_finds_it_out_and_leaves_nothing_behind(loop: ipc.Loop) -> None:
    before, told = (len(os.listdir("/proc/self/fd")), children()), list[Answer]()
    old, new = text_of(grant("ops", "group:ops")), text_of(grant("ops", "group:new"))
    Comparison(loop, old, new, told.append)
    assert not told, "nobody waits for it"
    assert end_of(loop, told) == compared(old, new)
    assert (len(os.listdir("/proc/self/fd")), children()) == before


def test_a_comparison_that_takes_too_long_ends_and_says_so(loop: ipc.Loop) -> None:
    before, told = children(), list[Answer]()
    Comparison(loop, text_of(many(20_000, 1), LARGE), text_of(many(20_000, 2), LARGE), told.append, cpu=1)
    assert end_of(loop, told) == Answer(why="it took more than 1 s of processor time")
    assert children() == before


FRESH = """
import resource, sys
from rootd import ipc
from rootd.supervisor.comparing import Comparison
with open("/proc/self/statm") as file:
    memory = int(file.read().split()[0]) * resource.getpagesize() + (8 << 20)
loop, told = ipc.Loop(), []
Comparison(loop, *(bytes.fromhex(text) for text in sys.argv[1:]), told.append, memory=memory)
while not told:
    loop.turn(None)
print(told[0].why, f"it took more than {memory >> 20} MiB", sep="\\n", end="")
"""


def test_a_comparison_that_needs_too_much_memory_ends_and_says_so() -> None:
    """Of a process that has little free in its heap, as a supervisor has."""
    large = text_of("#" + "x" * (40 << 20))
    words = [sys.executable, "-c", FRESH, large.hex(), text_of("").hex()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=True)
    said, expected = done.stdout.split("\n")
    assert said == expected


def test_one_whose_time_is_up_is_killed(loop: ipc.Loop) -> None:
    told = list[Answer]()
    Comparison(loop, text_of(many(500, 1), LARGE), text_of(many(500, 2), LARGE), told.append).kill()
    assert end_of(loop, told) == Answer(why=f"it took more than {comparing.TIME:g} s")


@pytest.mark.parametrize("said", [b"", b"{", b'{"gained": 7}', b'{"unknown": 1}'])
def test_what_a_child_says_is_not_believed_unless_it_is_an_answer(said: bytes, loop: ipc.Loop) -> None:
    told = list[Answer]()
    one = Comparison(loop, text_of(""), text_of(""), told.append)
    assert one._understood(0, said) == Answer(why="the process that compares failed (0)")
    assert one._understood(70, b"{}") == Answer(why="the process that compares failed (70)")
    assert one._understood(-11, b"") == Answer(why="it took more than 1024 MiB, or failed")
    assert one._understood(-9, b"{}") == Answer(why="the process that compares was killed")
    assert end_of(loop, told) == Answer()
