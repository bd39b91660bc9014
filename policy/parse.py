"""From the text of policy files to a Policy, or to everything that is wrong with them.

Rule 1: all or nothing. One mistake anywhere and there is no policy, only the list of all mistakes.
Rule 2: nothing is guessed: an unknown key, an unknown name or a rule that could do nothing is a mistake. A name in
        `on` that no service or group bears is one too: a misspelt deny would forbid nothing, and a misspelt grant
        would wait for whoever names a service so.
Rule 3: pure over the texts; who may write the files was checked before (rootd/config/trusted).
Rule 4: a policy is used only when each of its own [[test]] blocks comes out as expected.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from policy.decide import Deny, decide
from policy.identity import Identity
from policy.messages import Problem
from policy.names import GLOBAL_ACTIONS, RESERVED, UID_MAX, Action, RuleId, ServiceName, UserName
from policy.names import group_name as parse_group
from policy.names import rule_id as parse_id
from policy.names import service_name as parse_service
from policy.names import unix_group as parse_unix_group
from policy.names import user_name as parse_user
from policy.positions import Path, line_of, positions, source_line, spell
from policy.rules import EVERY_SERVICE, GROUP, Grant, Policy, PolicyTest, build
from policy.rules import Deny as DenyRule

COVERED: dict[str, Action] = {  # commands that are no rights of their own
    "status": Action.VIEW, "describe": Action.VIEW, "events": Action.VIEW, "operations": Action.VIEW,
    "disable": Action.ENABLE, "reopen": Action.LOGS,
}  # fmt: skip
SUGGESTIONS = 50  # problems that get a "did you mean": comparing names is slow, and a wrong file should not be

RULE_KEYS = ("id", "who", "may", "on")
TEST_KEYS = ("user", "groups", "may", "on", "at", "expect")
TABLES = ("grant", "deny", "test")

T = TypeVar("T")
Services = Mapping[str, Collection[str]]

_TOML_LINE = re.compile(r"\(at line ([0-9]+), column [0-9]+\)")


class _File:
    """One file while it is read, and what is wrong with it."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []

    def line(self, path: Path) -> int:
        return line_of(self.lines, path)

    def wrong(self, path: Path, sentence: str) -> None:
        self.wrong_line(self.line(path), path, sentence)

    def wrong_line(self, line: int, path: Path, sentence: str) -> None:
        self.problems.append(Problem(self.path, line, spell(path), sentence, source_line(self.text, line)))


class _Table:
    """One [[grant]], [[deny]] or [[test]] while it is read. Readers answer None when they have reported a problem."""

    def __init__(self, file: _File, path: Path, values: dict[str, Any], suggest: Callable[..., str]) -> None:
        self.file = file
        self.path = path
        self.values = values
        self.suggest = suggest
        self.line = file.line(path)

    def wrong(self, key: str, sentence: str) -> None:
        self.file.wrong((*self.path, key), sentence)

    def check_keys(self, known: Sequence[str]) -> None:
        for key in self.values:
            if key not in known:
                self.wrong(key, f"there is no key {_show(key)} here{self.suggest(key, known)}")

    def one(self, key: str, parse: Callable[[str], T]) -> T | None:
        """A text that parse takes; parse raises ValueError with a sentence."""
        if key not in self.values:
            self.wrong(key, f"'{key}' is missing")
            return None
        return self._parsed((*self.path, key), self.values[key], parse)

    def many(self, key: str, parse: Callable[[str], T], may_be_empty: bool = False) -> tuple[T, ...] | None:
        """A list of texts that parse takes, none of them twice."""
        if key not in self.values:
            self.wrong(key, f"'{key}' is missing")
            return None
        values = self.values[key]
        if not isinstance(values, list):
            self.wrong(key, f"'{key}' must be a list of texts, as in {key} = [\"…\"], not {_show(values)}")
            return None
        if not values and not may_be_empty:
            self.wrong(key, f"'{key}' is empty: this would apply to nothing")
            return None
        found: list[T] = []
        good = True
        for index, value in enumerate(values):
            path = (*self.path, key, index)
            parsed = self._parsed(path, value, parse)
            if parsed is not None and parsed in found:
                self.file.wrong(path, f"{_show(value)} stands here twice")
                parsed = None
            if parsed is None:
                good = False
            else:
                found.append(parsed)
        return tuple(found) if good else None

    def _parsed(self, path: Path, value: object, parse: Callable[[str], T]) -> T | None:
        if not isinstance(value, str):
            self.file.wrong(path, f"this must be a text in quotes, not {_show(value)}")
            return None
        try:
            return parse(value)
        except ValueError as error:
            self.file.wrong(path, str(error))
            return None


class _Reader:
    """All files of one policy while they are read."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._groups = {group for groups in services.values() for group in groups}
        self._ids: dict[RuleId, str] = {}  # and where each was first
        self._suggestions = 0
        self.grants: list[Grant] = []
        self.denies: list[DenyRule] = []
        self.tests: list[tuple[_File, PolicyTest]] = []

    def read(self, file: _File) -> None:
        try:
            content = tomllib.loads(file.text)
        except (ValueError, RecursionError) as error:  # TOMLDecodeError; an absurdly long number; [[[[[[…
            at = _TOML_LINE.search(str(error))
            line = int(at[1]) if at else file.text.count("\n") + 1
            file.wrong_line(line, (), f"this is not TOML: {error}")
            return
        file.lines = positions(file.text)
        for name, tables in content.items():
            if name not in TABLES:
                known = ", ".join(f"[[{table}]]" for table in TABLES)
                file.wrong((name,), f"there is no {_show(name)} in a policy, only {known}{self._suggest(name, TABLES)}")
            elif not isinstance(tables, list):
                file.wrong((name,), f"write [[{name}]], with two brackets, for each {name}")
            else:
                for number, values in enumerate(tables):
                    self._table(file, name, number, values)

    def _table(self, file: _File, name: str, number: int, values: object) -> None:
        if not isinstance(values, dict):
            file.wrong((name, number), f"write [[{name}]] with keys below it, not {_show(values)}")
            return
        table = _Table(file, (name, number), values, self._suggest)
        if name == "grant":
            fields = self._rule(table)
            if fields:
                self.grants.append(Grant(**fields, order=len(self.grants)))
        elif name == "deny":
            fields = self._rule(table)
            if fields:
                self.denies.append(DenyRule(**fields, order=len(self.denies)))
        else:
            self._test(table, number)

    def _rule(self, table: _Table) -> dict[str, Any] | None:
        table.check_keys(RULE_KEYS)
        name = table.one("id", parse_id)
        if name is not None:
            if name in self._ids:
                table.wrong("id", f"the id '{name}' is taken by the rule at {self._ids[name]}")
            self._ids.setdefault(name, f"{table.file.path}:{table.line}")
        who = table.many("who", self._who)
        may = table.many("may", self._action)
        on = self._on(table, may)
        if table.file.problems or name is None or who is None or may is None or on is None:
            return None
        return {
            "id": name,
            "users": tuple(UserName(name) for kind, name in who if kind == "user"),
            "groups": tuple(UserName(name) for kind, name in who if kind == "group"),
            "may": frozenset(may),
            "on": on,
            "file": table.file.path,
            "line": table.line,
        }

    def _on(self, table: _Table, may: tuple[Action, ...] | None) -> tuple[str, ...] | None:
        whole = [action for action in may or () if action in GLOBAL_ACTIONS]
        if "on" not in table.values and may is not None and len(whole) == len(may):
            return (EVERY_SERVICE,)
        on = table.many("on", self._target)
        if on is not None and whole and on != (EVERY_SERVICE,):
            names = " and ".join(f"'{action}'" for action in whole)
            table.wrong(
                "on",
                f"{names} cannot be limited to services: it is about the daemon as a whole. Leave 'on' out or write"
                ' on = ["*"], in a rule of its own if need be',
            )
            return None
        return on

    def _who(self, text: str) -> tuple[str, UserName]:
        kind, colon, name = text.partition(":")
        if not colon or kind not in {"user", "group"}:
            raise ValueError(f'{_show(text)} is nobody: write "user:NAME" or "group:NAME"')
        return kind, parse_user(name) if kind == "user" else parse_unix_group(name)

    def _action(self, text: str) -> Action:
        try:
            return Action(text)
        except ValueError:
            actions = [action.value for action in Action]
            hint = f"; that is the right '{COVERED[text]}'" if text in COVERED else self._suggest(text, actions)
            raise ValueError(f"{_show(text)} is not an action: {', '.join(actions)}{hint}") from None

    def _target(self, text: str) -> str:
        if text == EVERY_SERVICE:
            return text
        if text.startswith(GROUP):
            name: str = parse_group(text.removeprefix(GROUP))
            if name not in self._groups:
                raise ValueError(f"no service is in the group '{name}'{self._suggest(name, self._groups)}")
            return text
        return self._service(text)

    def _service(self, text: str) -> ServiceName:
        name = parse_service(text)
        if name not in self._services:
            if name.startswith(RESERVED):
                raise ValueError(f"'{name}' is Durward's own: a policy is about the configured services")
            if name in self._groups:
                raise ValueError(f"no service is called '{name}'; did you mean '{GROUP}{name}'?")
            every = f'; every service is "{EVERY_SERVICE}"' if name == "all" else self._suggest(name, self._services)
            raise ValueError(f"no service is called '{name}'{every}")
        return name

    def _test(self, table: _Table, number: int) -> None:
        table.check_keys(TEST_KEYS)
        user = table.one("user", parse_user)
        groups: tuple[UserName, ...] | None = ()
        if "groups" in table.values:
            groups = table.many("groups", parse_unix_group, may_be_empty=True)
        may = table.one("may", self._action)
        expect = table.one("expect", _expectation)
        on: ServiceName | None = None
        if may is not None and may in GLOBAL_ACTIONS:
            if "on" in table.values:
                table.wrong("on", f"'{may}' is about the daemon as a whole: leave 'on' out")
        elif may is not None or "on" in table.values:
            on = table.one("on", self._service)
        at = table.values.get("at")
        if at is not None and not (isinstance(at, datetime) and at.tzinfo):
            table.wrong("at", "'at' must be a date and a time with its offset, as 2026-11-23T12:00:00+01:00")
        if table.file.problems or user is None or groups is None or may is None or expect is None:
            return
        test = PolicyTest(
            user=user,
            groups=frozenset(groups),
            may=may,
            on=on,
            expect=expect,
            at=at,
            file=table.file.path,
            line=table.line,
            number=number,
        )
        self.tests.append((table.file, test))

    def _suggest(self, word: str, known: Collection[str]) -> str:
        self._suggestions += 1
        if self._suggestions > SUGGESTIONS:
            return ""
        close = get_close_matches(word[:100], sorted(known), n=1)
        return f"; did you mean '{close[0]}'?" if close else ""


def _show(value: object) -> str:
    """A value from a file, in a sentence."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:59] + "…")
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    return "a date or time"


def _expectation(text: str) -> Literal["allow", "deny"]:
    if text == "allow":
        return "allow"
    if text == "deny":
        return "deny"
    raise ValueError(f"{_show(text)} is not what a test can expect: allow or deny")


def _digest(files: Sequence[tuple[str, str]]) -> str:
    """Lengths are hashed too, so that no other cut between paths and texts gives the same bytes."""
    digest = hashlib.sha256()
    for part in (part for file in files for part in file):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def _run(test: PolicyTest, rules: Policy, services: Services) -> str | None:
    """What came, when it is not what was expected."""
    person = Identity(test.user, UID_MAX, test.groups)  # no rule is about uids
    decision = decide(rules, person, test.may, test.on, services[test.on] if test.on else ())
    if isinstance(decision, Deny):
        return None if test.expect == "deny" else f"this test expects allow, and came to: {decision.text}"
    if test.expect == "allow":
        return None
    return (
        f"this test expects deny, and came to: allowed by the rule '{decision.rule}' ({decision.file}:{decision.line})"
    )


def parse(files: Sequence[tuple[str, str]], services: Services) -> Policy | list[Problem]:
    """files: (path, text) each, in any order; services: each configured service and its groups.

    The policy, or everything that is wrong, by file and line; never an empty list.
    """
    ordered = sorted(files)
    reader = _Reader(services)
    read = [_File(path, text) for path, text in ordered]
    for file in read:
        reader.read(file)
    rules = build(reader.grants, reader.denies, [test for _, test in reader.tests], _digest(ordered))
    if not any(file.problems for file in read):
        for file, test in reader.tests:
            came = _run(test, rules, services)
            if came:
                file.wrong(("test", test.number, "expect"), came)
    problems = [problem for file in read for problem in sorted(file.problems, key=lambda problem: problem.line)]
    return problems or rules
