"""The policy as a library: the example of ARCHITECTURE.md does what is written below it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_of_the_architecture_prints_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section = (ROOT / "ARCHITECTURE.md").read_text().partition("## The policy as a library\n")[2].partition("\n## ")[0]
    code = section.partition("```python\n")[2].partition("```")[0]
    expected = section.rpartition("It prints\n\n```\n")[2].partition("```")[0]
    assert "diff(" in code
    (tmp_path / "example.py").write_text(code)
    runpy.run_path(str(tmp_path / "example.py"))
    assert capsys.readouterr().out == expected
