"""NamedTuples to JSON and back, exactly: what does not have the declared shape is not read.

Rule: no conversions. A bool is no int, a missing or further field is an error, lists become tuples.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


def plain(value: Any) -> Any:
    """A value as json has it: NamedTuples as objects by field, tuples as arrays."""
    if isinstance(value, tuple):
        fields = getattr(value, "_asdict", None)
        return plain(fields()) if fields else [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def to_json(value: Any) -> bytes:
    """Canonical JSON, ASCII, one line without its end: equal values have equal bytes."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":")).encode()


def from_json(shape: Any, line: bytes) -> Any:
    """The value of a NamedTuple class that to_json wrote. Raises ValueError for anything else."""
    return reader(shape)(json.loads(line))


@cache
def reader(shape: Any) -> Callable[[Any], Any]:
    """What turns json's value into one of this annotation, or raises ValueError."""
    origin, args = get_origin(shape), get_args(shape)
    if hasattr(shape, "_fields"):
        fields = {name: reader(hint) for name, hint in get_type_hints(shape).items()}
        return lambda value: shape._make(
            one(item) for one, item in zip(fields.values(), _object(shape, value), strict=True)
        )
    if origin is dict:
        one = reader(args[1])
        return lambda value: {key: one(item) for key, item in _exactly(dict, value).items()}
    if origin is UnionType:
        one = reader(args[0])
        return lambda value: None if value is None else one(value)
    if origin is tuple and args[-1] is ...:
        one = reader(args[0])
        return lambda value: tuple(map(one, _exactly(list, value)))
    if origin is tuple:
        each = [reader(arg) for arg in args]
        return lambda value: tuple(one(item) for one, item in zip(each, _exactly(list, value), strict=True))
    return lambda value: _exactly(shape, value)


def _object(shape: Any, value: Any) -> list[Any]:
    if _exactly(dict, value).keys() != set(shape._fields):
        raise ValueError(f"not the fields of {shape.__name__}")
    return [value[name] for name in shape._fields]


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{kind.__name__} expected, not {value!r:.60}")
    return value
