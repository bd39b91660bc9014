"""The policy in the supervisor's own process, behind its walls. privileged, log and auth are played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from supervisor_daemon import Daemon, reply

from policy import messages

pytestmark = pytest.mark.root

Make = Callable[..., Any]
SITE = """
[service.site]
command = ["/srv/site/bin/serve"]
user = "www-site"
autostart = false
"""
GRANT = """
[[grant]]
id = "ops"
who = ["group:webops"]
may = ["view", "restart"]
on = ["site"]
"""
ALWAYS = GRANT + 'when = { days = "Mon-Sun", timezone = "Pacific/Chatham" }\n'


def files(policy: str) -> dict[str, str]:
    return {"services.d/site.toml": SITE, "policy.d/10-web.toml": policy}


@pytest.fixture
def running(daemon: Daemon, generation: Make) -> Callable[[str], Daemon]:
    def run(policy: str) -> Daemon:
        daemon.start()
        daemon.begin(generation(files(policy)))
        assert daemon.record()["problems"] == 0, daemon.stderr.read_text()
        daemon.login()
        return daemon

    return run


def test_a_zone_that_a_policy_names_is_read_behind_the_walls(running: Callable[[str], Daemon]) -> None:
    daemon = running(ALWAYS)
    with daemon.send(messages.Restart("site")) as sock:
        assert daemon.record()["allowed"]
        assert isinstance(reply(sock), messages.Accepted)


def test_a_rule_whose_time_is_over_grants_nothing(running: Callable[[str], Daemon]) -> None:
    daemon = running(ALWAYS + "expires = 2026-01-01\n")
    with daemon.send(messages.Restart("site")) as sock:
        assert not daemon.record()["allowed"]
        assert reply(sock).kind == "unknown", "nor may it be viewed"


def test_a_limit_goes_on_counting_through_a_kill_9(running: Callable[[str], Daemon], generation: Make) -> None:
    daemon = running(GRANT + 'limit = "1 in 1h"\n')
    with daemon.send(messages.Restart("site")) as sock:
        assert daemon.record()["allowed"]
        assert isinstance(reply(sock), messages.Accepted)
    daemon.kill()
    daemon.start()
    daemon.begin(generation(files(GRANT + 'limit = "1 in 1h"\n')))
    daemon.login()
    with daemon.send(messages.Restart("site")) as sock:
        told = reply(sock)
        assert told.kind == "forbidden"
        assert "1 in 1h, which is used up: again in 3" in told.text


TWO = GRANT + 'approval = { by = ["user:root", "group:leads"], within = "10m" }\n'


def test_what_waits_for_a_second_person_is_approved_after_a_kill_9(
    running: Callable[[str], Daemon], generation: Make
) -> None:
    daemon = running(TWO)
    with daemon.send(messages.Restart("site", hard=True)) as sock:
        asked = daemon.record()
        told = reply(sock)
        assert isinstance(told, messages.Waits)
    daemon.kill()
    daemon.start()
    daemon.begin(generation(files(TWO)))
    assert daemon.record()["kind"] == "load"
    daemon.login()
    with daemon.send(messages.Approve(told.approval), "", "root") as sock:
        assert daemon.record()["action"] == "approve"
        records = [daemon.record(), daemon.record()]
        running_ = next(record for record in records if record["kind"] == "decision")
        assert (running_["id"], running_["user"], running_["approved_by"]) == (asked["id"], "alice", "root")
        assert running_["asked"] == {"hard": True}
        assert reply(sock).text.startswith("approved: alice's restart site, hard True has begun")
    daemon.spawned(5)
