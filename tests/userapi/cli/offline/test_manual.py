"""userapi/cli/offline/manual: every key is there, with what it is called elsewhere; the page that is shipped is it."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from rootd.config import elsewhere, keys
from userapi.cli.__main__ import main
from userapi.cli.offline.manual import CALLED, OURS, manual

PAGE = Path(__file__).resolve().parents[4] / "packaging/schema/keys.md"
ROWS = [line for line in manual().splitlines() if line.startswith("| `")]


def test_the_page_that_is_shipped_is_what_the_table_says_now() -> None:
    assert PAGE.read_text() == manual(), "durward policy schema keys > packaging/schema/keys.md"


def test_every_key_has_one_row_and_no_row_is_of_a_key_that_there_is_not() -> None:
    told = [key for key in keys.KEYS if key.type not in keys.SECTIONS]
    assert [f"`{key.name}`" for key in told if f"| `{key.name}` |" not in manual()] == []
    assert len(ROWS) == len(told)
    there = {f"{key.section}.{key.name}" for key in told if key.section not in (*OURS, keys.TOP, "limits")}
    assert set(CALLED) == there


@pytest.mark.parametrize(("theirs", "ours"), elsewhere.KEYS.items())
def test_what_a_mistake_says_of_their_key_is_what_the_page_says(theirs: str, ours: str) -> None:
    if theirs in ("env", "Wants"):  # a slip, and what After= is mostly written with
        return
    name = ours.split(" = {")[0].split(" =")[0].split(".")[-1]
    name = "after" if theirs == "startsecs" else name
    assert any(row.startswith(f"| `{name}` ") and theirs in row for row in ROWS), (theirs, name)


def test_durward_policy_schema_keys_prints_it() -> None:
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(["policy", "schema", "keys"]) == 0
    assert said.getvalue() == manual()
