"""rootd/version: the numbers are those of who writes, and a program knows what it cannot read."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from rootd import version
from rootd.keeper import manifest

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_the_packages() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == version.VERSION


def test_the_numbers_are_those_of_who_writes() -> None:
    from rootd.supervisor import recover

    assert version.FORMATS["keeper"] == (manifest.VERSION, manifest.OLDEST)
    assert version.FORMATS["state"] == (recover.VERSION, recover.VERSION)
    assert all(oldest <= newest for newest, oldest in version.FORMATS.values())


def test_a_build_is_told_apart_from_another_of_the_same_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "BUILD", "")
    assert version.spelled() == version.VERSION
    monkeypatch.setattr(version, "BUILD", "0123abcd")
    assert version.spelled() == f"{version.VERSION}+0123abcd"
