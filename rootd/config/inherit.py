"""What services take from elsewhere: [defaults], templates with their instances, and what they extend. Pure.

Rule 1: the nearest word counts: the service's own, then what it extends, and so on, then its kind's, then [defaults].
Rule 2: tables within it (environment, restart, …) are taken key by key, lists as a whole; of the ways to be ready, or
        to be probed, the nearest count alone.
Rule 3: each key is remembered with the place where it was written: that is where a problem is told.
Rule 4: what comes out is a service as if all of it had been written there, so that nothing is restarted by moving keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from rootd.config import keys, kinds

Path = tuple[str, ...]  # of keys; () is the file as a whole


class Problem(NamedTuple):
    file: str
    path: tuple[str | int, ...]  # with the places in lists
    text: str


class Layer(NamedTuple):
    """What one table of a file says."""

    file: str
    path: Path
    raw: dict[str, Any]


Origins = dict[tuple[str | int, ...], Layer]  # by key, or key and key beneath
Found = tuple[str, Origins, Layer, dict[str, Any]]  # name, where the keys are, its own table, all of its keys
OURS = ("extends", "instances")  # keys that say what is taken, and are not taken
INSTANCE = "{instance}"


def services(layers: dict[Path, Layer], problems: list[Problem]) -> Iterator[Found]:
    """Each service of the files, and each instance of a template, with all of its keys."""
    for path, layer in layers.items():
        if path[0] == "defaults" or (path[0] == "template" and not layer.raw.get("instances")):
            continue
        defaults, found = layers.get(("defaults",)), chain(layer, layers, problems)
        if path[0] == "service" and defaults is None and found == [layer]:
            yield path[1], {}, layer, layer.raw  # most are so
            continue
        origins, raw, templated = merged(found, defaults)
        if path[0] == "template":
            yield from instances(layer, origins, raw, layers, problems)
        elif templated and expanded(raw, "") != raw:
            problems.append(Problem(layer.file, path, f"{INSTANCE} has a value in the instances of a template alone"))
        else:
            yield path[1], origins, layer, raw


def instances(
    layer: Layer, origins: Origins, raw: dict[str, Any], layers: dict[Path, Layer], problems: list[Problem]
) -> Iterator[Found]:
    """The services of a template: one for each instance, all in a group of the template's name."""
    try:
        names = keys.parse("[name]", layer.raw["instances"])
    except keys.Wrong as wrong:
        problems += [Problem(layer.file, (*layer.path, "instances", *inner), text) for inner, text in wrong.each]
        return
    for index, instance in enumerate(names):
        name = f"{layer.path[1]}-{instance}"
        at: tuple[str | int, ...] = (*layer.path, "instances", index)
        if ("service", name) in layers:
            problems.append(Problem(layer.file, at, f"{name} is in {layers['service', name].file} already"))
        elif not keys.NAME.fullmatch(name) or name.startswith("durward-"):  # which are ours, and run as ours
            text = f"{name}: a service's name has {keys.NAME_WORDS}, but not durward-…"
            problems.append(Problem(layer.file, at, text))
        else:
            layers = layers | {("service", name): layer}
            groups = raw.get("groups", [])
            more = (
                {"groups": [*groups, layer.path[1]]} if isinstance(groups, list) and layer.path[1] not in groups else {}
            )
            yield name, origins, layer, expanded(raw, instance) | more


def chain(layer: Layer, layers: dict[Path, Layer], problems: list[Problem]) -> list[Layer]:
    """The table and what it extends, directly or not, the nearest first."""
    found = [layer]
    while (name := found[-1].raw.get("extends")) is not None:
        last, at = found[-1], (*found[-1].path, "extends")
        known = {path[1]: other for path, other in layers.items() if path[0] in ("service", "template")}
        other = layers.get(("template", str(name))) or layers.get(("service", str(name)))
        if not isinstance(name, str) or other is None:
            near = keys.meant(str(name), known)
            _tell(problems, Problem(last.file, at, f"there is no [template.{name}] and no [service.{name}]{near}"))
            break
        if other in found:
            circle = found[found.index(other) :]  # told once, whoever has come upon it
            first = circle.index(min(circle, key=lambda one: one.path))
            circle = [*circle[first:], *circle[: first + 1]]
            names = " -> ".join(one.path[1] for one in circle)
            _tell(problems, Problem(circle[0].file, (*circle[0].path, "extends"), f"goes in a circle: {names}"))
            break
        found.append(other)
    return found


def merged(found: list[Layer], defaults: Layer | None) -> tuple[Origins, dict[str, Any], bool]:
    """All keys of these tables, the nearest first, and where each is; and whether one of them is a template."""
    said = [layer.raw for layer in [*found, *([defaults] if defaults else [])]]
    kind = next((kinds.with_defaults(raw)["kind"] for raw in said if {"kind", "schedule"} & raw.keys()), "")
    below = []
    if defaults is not None:
        dropped = kinds.NOT_FOR.get(str(kind or "simple"), ())
        below = [defaults._replace(raw={key: value for key, value in defaults.raw.items() if key not in dropped})]
        below = [Layer("", (), kinds.OWN.get(str(kind), {})), *below]
    raw: dict[str, Any] = {}
    origins: Origins = {}
    for layer in [*below[::-1], *found[::-1]]:
        for key, value in layer.raw.items():
            if key in OURS and (key == "extends" or layer.path[0] == "template"):
                continue
            inner = value if isinstance(value, dict) else {}
            before = raw[key] if key in raw and isinstance(value, dict) and isinstance(raw[key], dict) else {}
            if key in ("ready", "live") and any(way in inner for way in kinds.WAYS):
                before = {name: one for name, one in before.items() if name not in (*kinds.WAYS, "over")}
            raw[key] = before | inner if isinstance(value, dict) else value
            if layer.file:
                origins |= {(key,): layer} | {(key, name): layer for name in inner}
    return origins, raw, any(layer.path[0] == "template" for layer in found)


def expanded(value: Any, instance: str) -> Any:
    """With the name of the instance in every text, but not in names of keys."""
    if isinstance(value, str):
        return value.replace(INSTANCE, instance)
    if isinstance(value, list):
        return [expanded(item, instance) for item in value]
    return {key: expanded(item, instance) for key, item in value.items()} if isinstance(value, dict) else value


def _tell(problems: list[Problem], problem: Problem) -> None:
    if problem not in problems:
        problems.append(problem)
