"""The two variables."""

from __future__ import annotations

import pytest

from userapi.config import Tls, from_environment


def test_nothing_set_is_the_defaults():
    config = from_environment({})
    assert (config.run, config.api.workers, config.api.tls, config.api.behind_proxy) == ("/run/durward", 2, None, False)


def test_streams_leave_threads_for_commands():
    config = from_environment({"DURWARD_API": '{"threads": 64}'})
    assert (config.streams, config.waits, config.logins) == (36, 12, 8)
    least = from_environment({"DURWARD_API": '{"threads": 4}'})
    assert (least.streams, least.waits) == (1, 1)


def test_everything_that_can_be_set():
    text = (
        '{"workers": 3, "threads": 20, "tls": {"certificate": "/c", "key": "/k"}, "behind_proxy": true, "hosts": ["a"]}'
    )
    config = from_environment({"DURWARD_RUN": "/x", "DURWARD_API": text})
    assert config.api.tls == Tls("/c", "/k")
    assert config.api.hosts == ["a"]


@pytest.mark.parametrize(
    "environ",
    [
        {"DURWARD_RUN": "run"},
        {"DURWARD_API": "{"},
        {"DURWARD_API": '{"worker": 1}'},
        {"DURWARD_API": '{"workers": 0}'},
        {"DURWARD_API": '{"workers": "2"}'},
        {"DURWARD_API": '{"threads": 2}'},
        {"DURWARD_API": '{"tls": {"certificate": "/c"}}'},
    ],
)
def test_what_is_wrong_names_its_variable(environ):
    with pytest.raises(ValueError, match=next(iter(environ))):
        from_environment(environ)
