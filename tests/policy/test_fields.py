"""What a single field may be, as the decoder of the contract sees it."""

from __future__ import annotations

import msgspec
import pytest

from policy import fields, names


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (fields.Service, ["site", "worker.0", "a" * 63], ["", "Site", "a b", "a" * 64, "site\n", "@durward"]),
        (fields.Process, ["", "site", "site:0", "site:12"], ["site:", "site:x", ":0", "site:0\n"]),
        (fields.Signame, ["HUP", "USR1"], ["", "hup", "SIG HUP", "9"]),
        (fields.SessionId, ["", "0a" * 32], ["0a", "0A" * 32, "0a" * 32 + "\n"]),
        (fields.Processes, [1, 1024], [0, -1, 1025, 1.5, "1"]),
        (fields.Number, [0, (1 << 53) - 1], [-1, 1 << 53, "1"]),
    ],
)
def test_a_field_is_what_it_may_be_and_nothing_else(kind: object, good: list[object], bad: list[object]) -> None:
    for value in good:
        assert msgspec.convert(value, kind) == value
    for value in bad:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, kind)


def test_the_actions_of_the_contract_are_those_of_the_policy() -> None:
    for action in names.Action:
        assert msgspec.convert(str(action), fields.ActionName) == action
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert("fly", fields.ActionName)
