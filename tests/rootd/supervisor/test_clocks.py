"""The wall clock's spelling: RFC 3339 in UTC, and a date even for what never ends."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from rootd.supervisor import clocks

RFC_3339 = re.compile(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")


def test_a_time_is_spelled_in_utc_to_the_millisecond() -> None:
    assert clocks.spell(datetime(2026, 1, 2, 3, 4, 5, 6_999, UTC)) == "2026-01-02T03:04:05.006Z"
    assert RFC_3339.match(clocks.wall())
    assert abs(datetime.fromisoformat(clocks.wall()).timestamp() - clocks.scheduled()) < 60


def test_what_is_over_expires_now_and_what_never_is_has_a_date_all_the_same() -> None:
    begun = datetime.now(UTC)
    for left, least in ((-5.0, 0), (90.0, 90), (1e300, 1_000_000_000)):
        text = clocks.expires(left)
        assert RFC_3339.match(text)
        found = datetime.fromisoformat(text) - begun
        assert timedelta(seconds=least) - timedelta(milliseconds=1) <= found < timedelta(seconds=least + 60)
