"""Every row of the attack checklist has a test that bears its id, or a line in SECURITY.md that says when it comes.

The rows: A identity and sessions, B policy and configuration files, C messages between processes, D spawning and
killing, H HTTP. SECURITY.md lists them.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))

ATTACK_ROWS = [
    f"{letter}{number}"
    for letter, count in {"A": 22, "B": 11, "C": 16, "D": 17, "H": 11}.items()
    for number in range(1, count + 1)
]


@functools.cache
def rows_with_a_test() -> set[str]:
    """A test bears the ids of its rows: test_d7_d8_an_orphan_…"""
    return {
        part.upper()
        for path in TESTS
        for ids in re.findall(r"def test_((?:[abcdh][0-9]{1,2}_)+)", (ROOT / path).read_text())
        for part in ids.strip("_").split("_")
    }


@functools.cache
def rows_for_later() -> set[str]:
    section = (ROOT / "SECURITY.md").read_text().partition("## Rows of later work")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| ([A-H][0-9]{1,2}) \|", section, re.MULTILINE))


@pytest.mark.parametrize("row", ATTACK_ROWS)
def test_every_attack_row_is_tested_or_said_to_come_later(row: str) -> None:
    assert row in rows_with_a_test() | rows_for_later(), f"no test_{row.lower()}_…"


def test_no_row_is_said_to_come_later_that_has_come() -> None:
    assert not rows_with_a_test() & rows_for_later()


def test_c10_nobody_asks_a_peer_for_its_pid() -> None:
    """A pid may be another process' by now: of SO_PEERCRED, only the uid is unpacked."""
    asked = set()
    for path in (path for package in ("rootd", "policy", "userapi") for path in (ROOT / package).rglob("*.py")):
        text = path.read_text()
        assert "SO_PEERPIDFD" not in text
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assign) and "SO_PEERCRED" in ast.unparse(node.value):
                asked.add(ast.unparse(node.targets[0]))
    assert asked == {"(_, uid, _)"}
