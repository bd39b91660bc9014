"""Keys of supervisord.conf and of systemd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rootd.config import elsewhere, keys

SITE = '[service.site]\ncommand = ["/srv/site"]\nuser = "worker"\n'


@pytest.mark.parametrize("theirs", elsewhere.KEYS)
def test_a_key_of_supervisor_or_systemd_is_none_and_ours_is_named(compiled: Callable[..., Any], theirs: str) -> None:
    [problem] = compiled("[auth]", {"a.toml": f'{SITE}{theirs} = "x"'}).problems
    assert problem.path == ("service", "site", theirs)
    assert problem.text == f"no such key; here it is {elsewhere.KEYS[theirs]}"
    first, _, second = elsewhere.KEYS[theirs].split(" ")[0].partition(".")
    assert first in keys.SECTIONS["service"]
    assert not second or second in keys.SECTIONS[first]


@pytest.mark.parametrize("theirs", elsewhere.SECTIONS)
def test_a_section_of_theirs_is_none_and_ours_is_named(compiled: Callable[..., Any], theirs: str) -> None:
    [problem] = compiled("[auth]", {"a.toml": f"[{theirs}]\n"}).problems
    assert problem.text == "no such section; here it is [service.NAME]"
