"""NamedTuples to JSON and back, exactly: a bool is no int, a further field is an error, and so is one that is missing,
but for one with a default: an older version of this program may not have known it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from operator import is_
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

PLAIN = frozenset((str, int, bool, float, type(None)))
T = TypeVar("T")


def plain(value: Any) -> Any:
    """As json has it: NamedTuples as objects by field, tuples as arrays."""
    if type(value) in PLAIN:  # most are
        return value
    if isinstance(value, tuple):
        return plain(value._asdict()) if hasattr(value, "_asdict") else [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def to_json(value: Any) -> bytes:
    """One line of canonical ASCII: equal values have equal bytes."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":")).encode()


def from_json(shape: type[T], line: bytes) -> T:
    """The value of this NamedTuple class that to_json wrote. Raises ValueError for anything else."""
    texts, tuples = dict[str, str](), dict[str, Any]()

    def shared(value: Any) -> Any:
        """Lists become tuples, and equal ones, or equal texts, one: most of what 1,000 services have is the same."""
        if type(value) is list and any(type(item) is dict for item in value):
            return tuple(value)
        if type(value) is list:
            value = tuple(map(shared, value))
            return tuples.setdefault(repr(value), value)  # not by itself: (1,) and (True,) are equal
        return texts.setdefault(value, value) if type(value) is str else value

    # as each object ends, so that what is not kept makes room for the next one
    found = json.loads(line, object_pairs_hook=lambda pairs: {key: shared(value) for key, value in pairs})
    value: T = reader(shape)(found)  # type: ignore[arg-type]  # a class is hashable
    return value


@cache
def reader(shape: Any) -> Callable[[Any], Any]:
    """What turns json's value into one of this annotation, or raises ValueError."""
    origin, args = get_origin(shape), get_args(shape)
    if hasattr(shape, "_fields"):
        fields = {name: reader(hint) for name, hint in get_type_hints(shape).items()}
        return lambda value: shape._make(fields[name](item) for name, item in _fields(shape, value))
    if origin is None:
        return lambda value: _exactly(shape, value)
    each = [reader(arg) for arg in args if arg not in (..., type(None))]
    if origin is dict:
        return lambda value: {key: each[1](item) for key, item in _exactly(dict, value).items()}
    if origin is UnionType:
        return lambda value: None if value is None else each[0](value)
    if args[-1] is ...:
        return lambda value: _same(value, tuple(map(each[0], _exactly(tuple, value))))
    return lambda value: _same(value, tuple(one(item) for one, item in zip(each, _exactly(tuple, value), strict=True)))


def _same(value: Any, read: tuple[Any, ...]) -> tuple[Any, ...]:
    """The one that others share, where it is as it was."""
    return value if all(map(is_, value, read)) else read


def _fields(shape: Any, value: Any) -> list[tuple[str, Any]]:
    if _exactly(dict, value).keys() != set(shape._fields):
        if not {*shape._fields} - {*shape._field_defaults} <= value.keys() <= {*shape._fields}:
            raise ValueError(f"not the fields of {shape.__name__}")
        value = shape._field_defaults | value
    return [(name, value[name]) for name in shape._fields]


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{kind.__name__} expected, not {value!r:.60}")
    return value
