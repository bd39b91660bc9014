"""How many examples the properties of policy/ are looked at with: a few each time, and DURWARD_EXAMPLES times as many
when it is set (test_more_examples, which is slow, does)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("DURWARD_EXAMPLES", "1"))


def examples(count: int) -> settings:
    """A decorator, as settings is."""
    return settings(max_examples=count * TIMES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
