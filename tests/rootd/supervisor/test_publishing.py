"""What an auditor is handed of the configuration that counts."""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from policy import messages, source
from rootd.supervisor.publishing import SEALS, opened, policy_alone
from rootd.supervisor.reload import NOTHING, read_generation

SITE = """
[service.site]
command = ["/srv/site/bin/serve"]
user = "www-site"
groups = ["front"]
"""
GRANT = """
[[grant]]
id = "ops"
who = ["group:webops"]
may = ["view", "restart"]
on = ["site"]
"""
SECRET = "hunter2-stands-nowhere-else"
MORE = f'\nenvironment = {{ PASSWORD = "{SECRET}" }}\n'


def test_what_goes_out_is_the_policy_the_services_and_the_configuration_without_secrets(
    generation: Callable[..., Any],
) -> None:
    made = generation({"services.d/site.toml": SITE + MORE, "policy.d/10-web.toml": GRANT})
    loaded = read_generation(1, made.digest, made.fd)
    assert not loaded.problems
    fd = opened(loaded.shown)
    try:
        content = os.pread(fd, 1 << 20, 0)
        assert SECRET.encode() not in content
        found = source.decode(content)
        assert [(file.name, file.text) for file in found.policy] == [("policy.d/10-web.toml", GRANT)]
        assert (found.services, found.whole) == ({"site": ["front"]}, True)
        values = {section.name: section.values for section in found.configuration}
        assert values["service.site"]["user"] == "www-site"
        assert values["service.site"]["environment"] == {"PASSWORD": "(hidden)"}
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == SEALS
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_configuration_with_mistakes_is_not_shown(generation: Callable[..., Any]) -> None:
    made = generation({"policy.d/10-web.toml": "[[grant]]\n"})
    loaded = read_generation(1, made.digest, made.fd)
    assert loaded.problems
    assert loaded.shown == b""


def test_each_who_asks_has_a_descriptor_of_his_own(generation: Callable[..., Any]) -> None:
    made = generation()
    shown = read_generation(1, made.digest, made.fd).shown
    one, other = opened(shown), opened(shown)
    try:
        assert not os.path.sameopenfile(one, other)
    finally:
        os.close(one)
        os.close(other)


def test_who_may_read_the_policy_is_handed_it_and_nobody_else(
    room: Any, tokens: Any, generation: Callable[..., Any]
) -> None:
    made = generation()
    room.reloads.current = read_generation(1, made.digest, made.fd)
    client = room.client()
    refused = client.ask(messages.ReadPolicy(), tokens[0])
    assert (refused.kind, client.fds) == ("forbidden", [])
    reply = client.ask(messages.ReadPolicy(), tokens[1])
    content = os.pread(client.fds[0], 1 << 20, 0)
    assert reply == messages.LogOpened("", "policy.json", "policy", len(content))
    assert source.decode(content).services == {"site": ["front"]}
    assert [(one["action"], one["allowed"]) for one in room.decisions()] == [("policy", False), ("policy", True)]


def test_where_no_configuration_counts_that_is_said(room: Any) -> None:
    room.reloads.current = NOTHING
    reply = room.client("root").ask(messages.ReadPolicy(), "")
    assert reply.kind == "failed"
    assert "durward-rootd --check" in reply.text


def test_what_rights_are_made_of_has_no_configuration_and_changes_with_nothing_else(
    generation: Callable[..., Any],
) -> None:
    told = []
    for more in ("", MORE, 'restart = { backoff = "1s..2s" }\n'):
        made = generation({"services.d/site.toml": SITE + more, "policy.d/10-web.toml": GRANT})
        told.append(policy_alone(read_generation(1, made.digest, made.fd).shown))
    assert told[0] == told[1] == told[2]
    found = source.decode(zlib.decompress(told[0]))
    assert ([file.text for file in found.policy], found.services, found.configuration) == (
        [GRANT],
        {"site": ["front"]},
        [],
    )
    assert source.decode(zlib.decompress(policy_alone(b""))) == source.Source([], {}, [])
