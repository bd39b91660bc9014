"""durward policy schema: JSON Schemas of durward.toml, services.d and policy.d, for editors and for programs.

Rule 1: made of the tables by which the files are read (rootd/config/keys.py, policy/parse.py and what it reads by): a
        key that is in one of them and not here is an error when this is made, and a test makes it.
Rule 2: whatever the daemon takes is valid; what is valid may still be refused: that names exist, that keys go together.
        A key that a service must have may come from [defaults] or a template, in another file.

Source: JSON Schema, draft 7, as TOML's language servers take it. A date or time of TOML is a string in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from userapi.cli.failure import OK
from userapi.cli.render import Screen

if TYPE_CHECKING:
    import argparse

DRAFT = "http://json-schema.org/draft-07/schema#"
FILES = {"durward": "durward.toml", "services": "services.d/*.toml", "policy": "policy.d/*.toml"}
STRING: dict[str, Any] = {"type": "string"}
WIDTH = 110  # characters of a line

Schema = dict[str, Any]


def _of(parser: argparse.ArgumentParser) -> None:
    files = ", ".join(f"{name}: {file}" for name, file in FILES.items()) + "; keys: all of them, for people"
    parser.add_argument("of", metavar="WHAT", choices=(*FILES, "keys"), nargs="?", default="policy", help=files)


WHAT: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "schema": ("JSON Schemas of the files, for editors", _of)
}


def schema(ask: Any, screen: Screen, args: Any) -> int:
    from userapi.cli.offline.manual import manual

    sys.stdout.write(manual() if args.of == "keys" else spelled(args.of))
    return OK


def spelled(what: str) -> str:
    """As it is in packaging/schema."""
    return _lines(MADE[what](), "") + "\n"


def _lines(value: Any, margin: str) -> str:
    """JSON, with what is short on one line."""
    line = json.dumps(value)
    if len(margin) + len(line) <= WIDTH or not isinstance(value, (dict, list)):
        return line
    inner = margin + " "
    if isinstance(value, list):
        rows, marks = [_lines(one, inner) for one in value], "[]"
    else:
        rows, marks = [f"{json.dumps(key)}: {_lines(one, inner)}" for key, one in value.items()], "{}"
    return f"{marks[0]}\n{inner}" + f",\n{inner}".join(rows) + f"\n{margin}{marks[1]}"


def whole(what: str, properties: Schema, definitions: Schema) -> Schema:
    head = {"$schema": DRAFT, "title": f"Durward: {FILES[what]}"}
    return head | table(properties) | {"definitions": definitions}


def table(properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    more = {"required": [*required]} if required else {}
    return {"type": "object", "additionalProperties": False, **more, "properties": properties}


def named(pattern: str, of: Schema) -> Schema:
    """A table of tables, by name."""
    return {"type": "object", "additionalProperties": False, "patternProperties": {pattern: of}}


def matching(pattern: str) -> Schema:
    return {"type": "string", "pattern": portable(pattern)}


def portable(pattern: str) -> str:
    r"""One of Python's patterns that match as a whole, as ECMA 262 has it, and Rust: neither knows \A and \Z."""
    inner = pattern.removeprefix(r"\A").removesuffix(r"\Z")
    return "^(?:" + inner.replace(r"\Z", "$").replace(r"\0", r"\x00") + ")$"


def listed(of: Schema, least: int = 0) -> Schema:
    more = {"minItems": least} if least else {}
    return {"type": "array", "items": of, "uniqueItems": True, **more}


def one_of(*schemas: Schema) -> Schema:
    return {"anyOf": [*schemas]}


# the configuration


def durward() -> Schema:
    from rootd.config import keys

    properties = section(keys.TOP)["properties"] | {name: ref(name) for name in keys.MAIN}
    return whole("durward", properties, reachable(keys.MAIN))


def services() -> Schema:
    from rootd.config import keys

    name = rf"(?!durward-|audit\Z){keys.NAME.pattern}"
    found = reachable(("socket", "service"))
    loose = {f"template.{kind}": instanced(made) for kind, made in reachable(("service", "template")).items()}
    properties = {
        "socket": named(portable(name), ref("socket")),
        "defaults": ref("defaults"),
        "template": named(portable(name), ref("template.template")),
        "service": named(portable(name), ref("service")),
    }
    own = {key: of for key, of in loose["template.service"]["properties"].items() if key not in NOT_DEFAULTS}
    return whole("services", properties, found | {"defaults": table(own)} | loose)


NOT_DEFAULTS = ("extends", "allow_root", "schedule")  # as rootd/config/sections.py has it


def ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def reachable(kinds: tuple[str, ...]) -> Schema:
    """These sections, and those that are tables within them."""
    from rootd.config import keys

    found: Schema = {}
    todo = [*kinds]
    while todo:
        kind = todo.pop(0)
        if kind not in found:
            found[kind] = section(kind)
            todo += [key.type for key in keys.SECTIONS[kind].values() if key.type in keys.SECTIONS]
    return found


def section(kind: str) -> Schema:
    from rootd.config import keys

    properties, required = {}, []
    for name, key in keys.SECTIONS[kind].items():
        properties[name] = of_type(key.type) | {"description": key.doc}
        if key.type in keys.SECTIONS:
            properties[name] = {"allOf": [of_type(key.type)], "description": key.doc}  # beside $ref nothing counts
        elif key.default is keys.REQUIRED:
            required += [name] if kind not in ("service", "template") else []
        elif key.default is not None:
            properties[name]["default"] = key.default
    return table(properties, tuple(required))


def of_type(kind: str) -> Schema:
    """A type of the table of keys."""
    from rootd.config import keys

    if kind.startswith("["):
        return listed(of_type(kind[1:-1]))
    if kind in keys.SECTIONS:
        return ref(kind)
    low, dots, high = kind.partition("..")
    if dots:
        return {"type": "integer", "minimum": int(low), "maximum": int(high)}
    if kind not in keys.TYPES:
        return {"type": "string", "enum": kind.split("|")}
    parser = keys.TYPES[kind][1]
    return matching(parser.pattern.pattern) if isinstance(parser, keys.Text) else OTHER[kind]()


def _command() -> Schema:
    return {"type": "array", "minItems": 1, "items": [matching("/.*")], "additionalItems": STRING}


def _addresses() -> Schema:
    return one_of(of_type("address"), listed(of_type("address"), 1))


def _size() -> Schema:
    from rootd.config import keys

    return matching(keys.size.pattern.pattern)


def _limit() -> Schema:
    end = one_of({"type": "integer", "minimum": 0}, _size(), {"type": "string", "enum": ["unlimited"]})
    return one_of(end, {"type": "array", "items": end, "minItems": 2, "maxItems": 2})


def _variables() -> Schema:
    from rootd.config import keys

    names = {"pattern": portable(keys.VARIABLE.pattern)}
    return {"type": "object", "propertyNames": names, "additionalProperties": STRING}


def _capability() -> Schema:
    from rootd.config import extras

    upper = "(?:CAP_)?(?:" + "|".join(extras.CAPABILITIES) + ")"
    return matching(f"{upper}|{upper.lower()}")


OTHER: dict[str, Callable[[], Schema]] = {  # types whose parsers are no patterns
    "flag": lambda: {"type": "boolean"},
    "size": _size,
    "addresses": _addresses,
    "command": _command,
    "variables": _variables,
    "limit": _limit,
    "io_priority": lambda: matching("idle|(?:best-effort|realtime) [0-7]"),
    "cpus": lambda: matching("[0-9]{1,4}(?:-[0-9]{1,4})?(?:,[0-9]{1,4}(?:-[0-9]{1,4})?)*"),
    "capability": _capability,
    "percent": lambda: matching("[1-9][0-9]{0,6}%"),
    "credentials": lambda: {"type": "object", "additionalProperties": matching("/.+")},
}


def instanced(made: Any) -> Any:
    """As it is in a template, where a text may be "{instance}" in part, and sections are those of templates."""
    if isinstance(made, list):
        return [instanced(one) for one in made]
    if not isinstance(made, dict):
        return made
    if "$ref" in made:
        return {"$ref": made["$ref"].replace("definitions/", "definitions/template.")}
    if made.get("type") == "string" and ("pattern" in made or "enum" in made):
        about = {key: value for key, value in made.items() if key in ("description", "default")}
        exact = {key: value for key, value in made.items() if key not in about}
        return one_of(exact, {"type": "string", "pattern": r"\{instance\}"}) | about
    return {key: value if key == "default" else instanced(value) for key, value in made.items()}


# the policy

DATE: Schema = {"type": "string", "format": "date"}
MOMENT: Schema = {"type": "string", "format": "date-time"}


def policy() -> Schema:
    from policy import named as groups, names, parse

    group = {key: rule_key(stands) for key, stands in groups.KEYS.items()}
    kinds = {key: {"required": [key]} for key in group}
    made = table(group) | {"oneOf": [*kinds.values()], "description": "people, services or actions under one name"}
    properties = {
        "group": named(portable(names.SERVICE_PATTERN), made),
        "grant": rules(parse.GRANT_KEYS, ("id", "who", "may"), "lets somebody do something"),
        "deny": rules(parse.RULE_KEYS, ("id", "who", "may"), "forbids it, whatever any grant says"),
        "test": tests(),
    }
    return whole("policy", {name: properties[name] for name in (*parse.RULES, "group")}, {})


def rules(keys: tuple[str, ...], required: tuple[str, ...], doc: str) -> Schema:
    return {"type": "array", "description": doc, "items": table({key: rule_key(key) for key in keys}, required)}


def bare(pattern: str) -> str:
    return pattern.removeprefix(r"\A").removesuffix(r"\Z")


def rule_key(key: str) -> Schema:
    """A key of [[grant]] and [[deny]]. Raises KeyError for one that is not known here."""
    from policy import conditions, names, reading, windows

    service, user = bare(names.SERVICE_PATTERN), bare(names.USER_PATTERN)
    group = f"{reading.GROUP_MARK}{service}"
    people = listed(matching(f"(?:user|group):{user}|{group}"), 1)
    actions = one_of({"enum": [action.value for action in names.Action]}, matching(group))
    day = "(?:" + "|".join(windows.DAYS) + ")"
    days = rf" *{day}(?: *- *{day})? *(?:, *{day}(?: *- *{day})? *)*"
    found: Schema = {
        "id": matching(names.RULE_PATTERN) | {"description": "its name, in records and refusals; unique"},
        "who": people | {"description": "user:NAME, group:NAME (of Unix), @NAME of a [group.NAME]"},
        "may": listed(actions, 1) | {"description": "actions, or @NAME of a [group.NAME]"},
        "on": listed(matching(rf"\*|(?:group:)?{service}|{group}"), 1)
        | {"description": 'services, group:NAME of services, @NAME, or "*"; left out for the daemon as a whole'},
        "when": table(
            {"days": matching(days), "hours": matching(windows.HOURS.pattern), "timezone": STRING}, ("timezone",)
        )
        | {"anyOf": [{"required": ["days"]}, {"required": ["hours"]}], "description": "when it counts"},
        "expires": one_of(DATE, MOMENT) | {"description": "a date, to its end, or a time with its offset"},
        "from": listed(STRING, 1) | {"description": 'networks from which it counts, or "local"'},
        "reason": {"type": "boolean", "description": "whether the asker must say why"},
        "limit": matching(conditions.LIMIT.pattern) | {"description": "of each person and service: 6 in 10m"},
        "approval": table({"by": people, "within": matching(conditions.DURATION.pattern)}, ("by", "within"))
        | {"description": "who else must agree, and how soon"},
    }
    made: Schema = found[key]
    return made


def tests() -> Schema:
    from policy import names, parse

    whole_daemon = sorted(action.value for action in names.GLOBAL_ACTIONS)
    keys: Schema = {
        "user": matching(names.USER_PATTERN),
        "groups": listed(matching(names.USER_PATTERN)),
        "may": {"enum": [action.value for action in names.Action]},
        "on": matching(names.SERVICE_PATTERN),
        "at": MOMENT,
        "from": STRING,
        "reason": {"type": "boolean", "description": "whether a reason is given"},
        "expect": {"enum": ["allow", "deny", "approval"]},
    }
    one = table({key: keys[key] for key in parse.TEST_KEYS}, ("user", "may", "expect"))
    of_whole = {"properties": {"may": {"enum": whole_daemon}}}
    one |= {"if": of_whole, "then": {"not": {"required": ["on"]}}, "else": {"required": ["on"]}}
    return {"type": "array", "description": "what must be decided, or the policy is not used", "items": one}


MADE: dict[str, Callable[[], Schema]] = {"durward": durward, "services": services, "policy": policy}
