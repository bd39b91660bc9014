"""What people are told of a new configuration: every change, by its keys, and no value."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from policy import wire
from rootd.supervisor import mentions
from rootd.supervisor.difference import difference as marked
from rootd.supervisor.reload import NOBODY, NOTHING, Loaded, read_generation

SITE = """
[socket.http]
listen = "127.0.0.1:8080"
[service.site]
command = ["/srv/site"]
user = "www-site"
sockets = ["http"]
environment = { TOKEN = "secret" }
"""
JOBS = '[service.jobs]\ncommand = ["/srv/jobs"]\nuser = "www-site"\n'

Load = Callable[..., Loaded]


def difference(old: Loaded, new: Loaded) -> str:
    """As root is told it."""
    return mentions.plain(marked(old, new))


@pytest.fixture
def load(generation: Callable[..., Any]) -> Load:
    numbers = count(2)

    def read(services: str, main: str = "") -> Loaded:
        number = next(numbers)
        made = generation({"services.d/a.toml": services}, number, main=main)
        found = read_generation(number, made.digest, made.fd)
        assert not found.problems, found.problems
        return found

    return read


def test_what_is_the_same_is_no_change(load: Load) -> None:
    assert difference(load(SITE), load(SITE + "# a remark\n")) == "no change"
    assert difference(NOTHING, Loaded(3, b"", None, NOBODY, [])) == "no change"


def test_a_service_is_named_with_the_keys_that_have_changed(load: Load) -> None:
    more = 'max_processes = 3\nhooks = { pre_start = ["/srv/check"] }\nlive = { tcp = "127.0.0.1:8080" }\n'
    told = difference(load(SITE), load(SITE + more))
    assert told == "changed: site (hooks.pre_start, live.tcp, max_processes)"
    assert difference(load(SITE + more), load(SITE)) == told


def test_a_value_of_the_environment_is_a_change_and_is_not_told(load: Load) -> None:
    assert difference(load(SITE), load(SITE.replace("secret", "other"))) == "changed: site"


def test_what_ends_the_daemon_is_told_as_it_will_be(load: Load) -> None:
    none, site, both = (load(SITE + JOBS, f"exit_on = {names}\n[auth]\n") for names in ([], ["site"], ["jobs", "site"]))
    assert difference(none, site) == "exit_on: site"
    assert difference(site, both) == "exit_on: site, jobs"
    assert difference(both, none) == "exit_on: nothing"
    assert difference(site, site) == "no change"


def test_what_changes_no_process_is_told_as_that(load: Load) -> None:
    placed = SITE + 'requires = ["jobs"]\npriority = 5\ngroups = ["front"]\nautostart = false\n' + JOBS
    told = difference(load(SITE + JOBS), load(placed))
    assert told == "changed without a restart: site (autostart, groups, priority, requires)"


def test_sockets_that_come_and_go_are_told_with_their_address(load: Load) -> None:
    moved = SITE.replace("8080", "8081")
    assert difference(load(SITE), load(moved)) == (
        "changed: site; sockets added: http (tcp:127.0.0.1:8081); sockets removed: http (tcp:127.0.0.1:8080)"
    )
    unused = SITE + '[socket.new]\nlisten = "127.0.0.1:8099"\n'
    assert difference(load(SITE), load(unused)) == "sockets added: new (tcp:127.0.0.1:8099)"


def test_a_socket_that_stays_is_not_bound_anew_and_people_are_told_since_when_its_keys_count(load: Load) -> None:
    changed = SITE.replace('8080"', '8080"\nbacklog = 5')
    assert difference(load(SITE), load(changed)) == "counts from the daemon's next start on: socket http (backlog)"


def test_a_longer_session_counts_from_the_next_start_on(load: Load) -> None:
    found = difference(load(SITE), load(SITE, main='[auth]\nsession = "9h"\n'))
    assert found == "counts from the daemon's next start on: [auth]"


def test_a_difference_of_very_many_services_fits_into_a_packet_and_counts_the_rest(load: Load) -> None:
    many = "".join(JOBS.replace("jobs", f"jobs-with-a-long-name-{number}") for number in range(400))
    told = difference(load(SITE), load(SITE + many))
    assert told.startswith("added: jobs-with-a-long-name-0, jobs-with-a-long-name-1, ")
    assert told.endswith(" more")
    assert len(told) < wire.LIMIT / 8
