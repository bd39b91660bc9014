"""What takes root again is named by a dry run, and done by a reload; privileged is played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from reloads import JOBS, House, new

from rootd import ipc
from rootd.supervisor import mentions


@pytest.fixture
def house(generation: Callable[..., Any]) -> House:
    return House(generation)


def test_a_dry_run_replaces_nobody_and_names_what_takes_root_again(house: House) -> None:
    house.begin(dry_run=True)
    house.staged(new(house), flags=ipc.NEEDS_ROOT, extra=4, name="root jobs\n23 jobs\nmemory jobs,gone")
    assert house.ops() == [ipc.STAGE, ipc.ABORT]
    assert house.end.ok
    assert house.end.text == (
        "would change: added: jobs; removed: site; sockets removed: http (tcp:0.0.0.0:80); policy: changed; needs root"
        " again (privileged is replaced, no service notices): running as root for jobs, CAP_SYS_NICE for jobs, cgroup"
        " limits of memory for jobs, 1 more"
    )
    assert house.end.mark, "and a reload may take exactly that"


def test_what_was_shown_and_is_another_one_by_now_replaces_nobody(house: House) -> None:
    house.reloads.begin("id", False, 0.0, "0" * 32)
    house.staged(new(house), flags=ipc.NEEDS_ROOT, extra=1, name="root jobs")
    assert house.ops() == [ipc.STAGE, ipc.ABORT]
    assert "since it was shown" in house.end.text
    assert house.end.text.endswith("running as root for jobs")


def test_a_socket_that_takes_root_is_named_with_its_address_to_who_may_view_its_service(house: House) -> None:
    house.begin(dry_run=True)
    site = house.make(number=2)
    house.staged(site, flags=ipc.NEEDS_ROOT, extra=1, name="socket http: tcp:0.0.0.0:80")
    said = house.events[-1].text
    assert mentions.plain(said).endswith("no service notices): socket http (tcp:0.0.0.0:80)")
    assert "80" not in mentions.resolved(said, lambda whose: False)


def unread(house: House) -> Any:
    """privileged may not read what root alone can."""
    more = 'credentials = { db = "/etc/jobs/secret" }\nenvironment_file = "/etc/jobs/env"\n'
    return house.make({"services.d/jobs.toml": JOBS + more}, 2, denied=True)


def test_what_only_root_may_read_is_named_by_a_dry_run_and_read_by_a_new_privileged(house: House) -> None:
    house.begin(dry_run=True)
    found = unread(house)
    house.staged(found, flags=ipc.NEEDS_ROOT | ipc.INVALID)
    assert not house.end.ok
    named = "no service notices): credential db of jobs, environment_file of jobs; a dry run cannot read that"
    assert named in house.end.text
    assert "db" not in mentions.resolved(house.events[-1].text, lambda whose: False)
    house.begin()
    house.staged(found, flags=ipc.NEEDS_ROOT | ipc.INVALID)
    assert house.sent[-1].op == ipc.REPLACE
