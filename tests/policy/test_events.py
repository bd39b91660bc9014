"""Events are told apart by their tags, and each says by which number to go on."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from policy import events, messages


def test_all_of_them_are_in_the_contract() -> None:
    kinds = {one for one in vars(events).values() if isinstance(one, type) and one.__module__ == events.__name__}
    assert {kind for kind in kinds if not kind.__name__.startswith("_")} == set(get_args(messages.Event))


@pytest.mark.parametrize("kind", get_args(messages.Event))
def test_each_has_a_number_and_takes_nothing_unknown(kind: type[msgspec.Struct]) -> None:
    fields = {field.name for field in msgspec.structs.fields(kind)}
    assert "number" in fields
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"is": "%s", "who": "alice"}' % kind.__struct_config__.tag.encode(), type=kind)


def test_an_end_is_read_as_it_was_spelled() -> None:
    problem = messages.Problem("services.d/site.toml", 3, "service.site.user", "there is no user 'www'")
    ended = events.Ended(7, "2026-01-02T03:04:05.000Z", 3, "site", False, "no", 0.5, [problem])
    assert msgspec.json.decode(msgspec.json.encode(ended), type=messages.Event) == ended
