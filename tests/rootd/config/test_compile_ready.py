"""How a service tells that it is ready, from the file to the table."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rootd.config.compile import Compiled
from rootd.config.table import load_table

Compile = Callable[..., Compiled]
SERVICE = """
[service.a]
command = ["/srv/a"]
user = "worker"
"""


@pytest.mark.parametrize(
    ("ready", "sockets", "text"),
    [
        ("fd = 3", "", ""),
        ("fd = 255", "", ""),
        ("fd = 2", "", "must be a whole number from 3 to 255"),
        ("fd = 256", "", "must be a whole number from 3 to 255"),
        ("fd = 5", '"two"', ""),
        ("fd = 4", '"two"', "fd must be 5 or more: its sockets have the descriptors before it"),
        (
            'fd = 5 }\nlive = { over = "probe", http = "/"',
            '"two"',
            "fd must be 6 or more: its sockets have the descriptors before it",
        ),
        ("fd = 5, notify = false", "", ""),
        ("fd = 5, notify = true", "", "notify and fd exclude each other"),
        ('fd = 5, after = "0s"', "", "after and fd exclude each other"),
        ('fd = 5, notify = true, after = "1s"', "", "after and notify and fd exclude each other"),
    ],
)
def test_the_descriptor_for_a_newline_is_its_own(compiled: Compile, ready: str, sockets: str, text: str) -> None:
    more = f"ready = {{ {ready} }}\nsockets = [{sockets}]\n[socket.two]\nlisten = ['127.0.0.1:80', '[::1]:80']"
    found = compiled("[auth]", {"a.toml": SERVICE + more})
    assert [problem.text for problem in found.problems] == ([text] if text else [])
    if not text:
        assert load_table(found.table).entries[0].ready_fd == int(ready[5:8].rstrip(", "))
        assert (found.specs[0].ready_kind, found.specs[0].ready_timeout) == ("fd", 30.0)


@pytest.mark.parametrize(("over", "probe"), [("", False), ('http = "/", over = "probe"', True)])
def test_a_socket_for_checks_alone_is_made_where_it_is_asked_for(compiled: Compile, over: str, probe: bool) -> None:
    found = compiled("[auth]", {"a.toml": f"{SERVICE}ready = {{ {over} }}\n"})
    assert load_table(found.table).entries[0].probe is probe


def test_its_name_is_not_another_sockets_name(compiled: Compile) -> None:
    more = 'sockets = ["probe"]\nready = { http = "/", over = "probe" }\n[socket.probe]\nlisten = "127.0.0.1:80"\n'
    [problem] = compiled("[auth]", {"a.toml": SERVICE + more}).problems
    assert problem.path == ("service", "a", "sockets")
    assert "name the other one otherwise" in problem.text
