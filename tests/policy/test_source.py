"""A policy with what it is about, in one shape."""

from __future__ import annotations

import hashlib
import tomllib

import pytest

from policy import source
from policy.conditions import zones_of_utc
from policy.rules import Policy
from policy.source import Section, Source, named_in, parsed, policy_file

TEXT = """
[group.fronts]
services = ["site", "group:web"]
[[grant]]
id = "g"
who = ["user:alice"]
may = ["view"]
on = ["@fronts", "shop", "group:money"]
[[deny]]
id = "d"
who = ["user:bob"]
may = ["view"]
on = ["*"]
[[test]]
user = "alice"
may = "view"
on = "worker"
expect = "allow"
"""


def test_it_is_read_as_it_was_written() -> None:
    given = Source([policy_file("policy.d/1.toml", TEXT)], {"site": ["web"]}, [Section("f", "paths", {"run": "/x"})])
    assert source.decode(source.encode(given)) == given
    assert given.policy[0].hash == hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"policy": 7}', b"\xff"])
def test_what_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        source.decode(content)


def test_files_alone_are_about_the_names_that_they_use() -> None:
    services, groups = named_in([tomllib.loads(TEXT)])
    assert (services, groups) == (["shop", "site", "worker"], ["money", "web"])


@pytest.mark.parametrize("text", ["grant = 7", "[[grant]]\non = 7", "[[grant]]\non = [7]", "[group]\nx = 7", ""])
def test_what_is_no_list_of_names_names_nothing(text: str) -> None:
    assert named_in([tomllib.loads(text)]) == ([], [])


def test_the_tests_of_files_alone_are_not_run_where_nobody_knows_which_service_is_in_which_group() -> None:
    services, groups = named_in([tomllib.loads(TEXT)])
    files = [policy_file("1.toml", TEXT)]
    alone = Source(files, {name: [] for name in services}, [], whole=False, groups=groups)
    assert isinstance(parsed(alone, zones_of_utc), Policy)
    whole = Source(files, {"site": ["web"], "shop": ["money"], "worker": []}, [])
    problems = parsed(whole, zones_of_utc)
    assert isinstance(problems, list)
    assert [problem.key for problem in problems] == ["test[0].expect"]


def test_files_alone_without_groups_of_services_need_no_stand_in() -> None:
    text = '[[grant]]\nid = "g"\nwho = ["user:alice"]\nmay = ["view"]\non = ["site"]\n'
    assert isinstance(parsed(Source([policy_file("1", text)], {"site": []}, [], whole=False), zones_of_utc), Policy)
