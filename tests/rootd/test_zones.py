"""Time zones of the machine: by names of areas and cities, and from nowhere else."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rootd.zones import FOLDER, posix, zone


def test_a_zone_knows_its_changes_of_the_clock() -> None:
    zurich = zone("Europe/Zurich")
    assert zurich is not None
    hours = [datetime(2026, month, 1, tzinfo=zurich).utcoffset() for month in (1, 7)]
    assert [str(offset) for offset in hours] == ["1:00:00", "2:00:00"]
    assert zone("America/Argentina/Buenos_Aires") is not None


def test_utc_needs_no_file() -> None:
    assert zone("UTC", "/nowhere") is UTC
    assert zone("Europe/Zurich", "/nowhere") is None


@pytest.mark.parametrize(
    "name",
    ["", "Europe", "Europe/", "Europe/Nowhere", "/etc/passwd", "Europe/../../../etc/passwd", "Europe/./Zurich",
     "localtime", "posixrules", "right/Europe/Zurich", "Europe/Zurich\n", "Europe/Zurich/x", "europe/zurich", "Utc",
     "America/Argentina"],
)  # fmt: skip
def test_b8_a_name_that_is_none_leads_nowhere(name: str) -> None:
    assert zone(name) is None


def test_a_damaged_file_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "Europe").mkdir()
    for damaged in (b"", b"TZif", b"nonsense" * 10, Path(f"{FOLDER}/Europe/Zurich").read_bytes()[:200]):
        (tmp_path / "Europe/Zurich").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"Europe/Zurich cannot be used"):
            zone("Europe/Zurich", str(tmp_path))


def test_the_time_is_that_of_the_wall_clock() -> None:
    read = time.clock_gettime
    before, now, after = read(time.CLOCK_REALTIME), posix(), read(time.CLOCK_REALTIME)
    assert before - 0.001 <= now <= after + 0.001
