"""The shape of what may be asked: no identity in it, and free text only for the audit log (attack rows A6, C3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from policy import login, messages

EVERYTHING = (messages.Request, messages.Answer, login.Ask, login.Tell, login.Push, login.Pull)
FROM_PEOPLE = (messages.Request, login.Ask)
ABOUT_THE_ASKER = {"user", "uid", "gid", "groups", "who", "as", "asker", "identity", "root", "name"}


def parts(kind: Any) -> Iterator[inspect.Type]:
    """Every type that a message of this kind is made of."""
    waiting = [inspect.type_info(kind)]
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, inspect.StructType):
            waiting += [field.type for field in part.fields]
        elif isinstance(part, inspect.UnionType):
            waiting += part.types
        elif isinstance(part, inspect.ListType):
            waiting.append(part.item_type)
        elif isinstance(part, inspect.DictType):
            waiting += [part.key_type, part.value_type]


def test_a6_no_command_says_who_asks() -> None:
    assert set(messages.Request.__struct_fields__) == {"id", "command", "session", "source", "reason"}
    for command in get_args(messages.Command):
        named = set(command.__struct_fields__) & ABOUT_THE_ASKER
        assert named == ({"user"} if command is messages.Revoke else set()), command  # whose sessions end, not who asks
    assert login.PeerLogin.__struct_fields__ == ()


@pytest.mark.parametrize("kind", EVERYTHING)
def test_c2_unknown_fields_are_forbidden_in_every_struct(kind: Any) -> None:
    structs = [part for part in parts(kind) if isinstance(part, inspect.StructType)]
    assert structs
    for struct in structs:
        assert struct.forbid_unknown_fields, struct.cls
        assert struct.cls.__struct_config__.frozen, struct.cls


@pytest.mark.parametrize("kind", EVERYTHING)
def test_c3_every_pattern_is_anchored_at_both_ends(kind: Any) -> None:
    for part in parts(kind):
        if isinstance(part, inspect.StrType) and part.pattern is not None:
            assert re.match(r"\\A.*\\Z\Z", part.pattern), part.pattern


@pytest.mark.parametrize("kind", FROM_PEOPLE)
def test_c3_every_text_and_number_of_a_request_is_bounded(kind: Any) -> None:
    for part in parts(kind):
        if isinstance(part, inspect.StrType):
            assert part.pattern is not None or part.max_length is not None
        if isinstance(part, inspect.IntType):
            assert part.ge is not None
            assert part.lt is not None or part.le is not None
        assert not isinstance(part, (inspect.AnyType, inspect.DictType, inspect.RawType, inspect.ListType))


def test_messages_of_one_direction_are_told_apart_by_their_tag() -> None:
    for union in (messages.Command, login.Ask, login.Tell, login.Push, login.Pull, messages.Reply | messages.Event):
        tags = [struct.__struct_config__.tag for struct in get_args(union)]
        assert all(tags)
        assert len(set(tags)) == len(tags)


def test_a_message_cannot_be_changed() -> None:
    command = messages.Restart("site")
    with pytest.raises(AttributeError):
        command.service = "other"  # type: ignore[misc]
    assert command == messages.Restart("site")
    assert msgspec.structs.asdict(command) == {"service": "site", "hard": False}
