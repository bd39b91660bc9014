"""From the text of policy files to a Policy, or to everything that is wrong with them.

Rule 1: all or nothing. One mistake anywhere and there is no policy, only the list of all mistakes.
Rule 2: nothing is guessed: an unknown key, an unknown name or a rule that could do nothing is a mistake. A name in
        `on` that no service or group bears is one too: a misspelt deny would forbid nothing, and a misspelt grant
        would wait for whoever names a service so.
Rule 3: pure over the texts; who may write the files was checked before (rootd/config/trusted).
Rule 4: a policy is used only when each of its own [[test]] blocks comes out as expected.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from policy.approval import alone
from policy.conditions import (
    LOCAL,
    Person,
    moment_of,
    packed,
    read_approval,
    read_expires,
    read_flag,
    read_from,
    read_limit,
    read_when,
    zones_of_utc,
)
from policy.messages import Problem
from policy.named import Named
from policy.names import (
    CHANGING,
    GLOBAL_ACTIONS,
    RESERVED,
    Action,
    RuleId,
    ServiceName,
    UserName,
    group_name as parse_group,
    rule_id as parse_id,
    service_name as parse_service,
    unix_group as parse_unix_group,
    user_name as parse_user,
)
from policy.reading import File, Table, show
from policy.rules import EVERY_SERVICE, GROUP, Deny as DenyRule, Grant, Policy, PolicyTest, build
from policy.trial import AT, trial
from policy.windows import Zones

COVERED: dict[str, Action] = {  # commands that are no rights of their own
    "status": Action.VIEW, "describe": Action.VIEW, "events": Action.VIEW, "operations": Action.VIEW,
    "disable": Action.ENABLE, "reopen": Action.LOGS,
}  # fmt: skip
SUGGESTIONS = 50  # problems that get a "did you mean": comparing names is slow, and a wrong file should not be

RULE_KEYS = ("id", "who", "may", "on", "when", "expires")
DEMANDS = ("reason", "limit", "approval")
GRANT_KEYS = (*RULE_KEYS, "from", *DEMANDS)
TEST_KEYS = ("user", "groups", "may", "on", "at", "from", "reason", "expect")
RULES = ("grant", "deny", "test")

T = TypeVar("T")
Services = Mapping[str, Collection[str]]


class _Reader:
    """All files of one policy while they are read."""

    def __init__(self, services: Services, zones: Zones) -> None:
        self._services = services
        self._groups = {group for groups in services.values() for group in groups}
        self._zones = functools.cache(zones)  # each is read once; and names of people, actions and services
        self._person: Callable[[str], Person] = functools.cache(self._who)
        self._act: Callable[[str], Action] = functools.cache(self._action)
        self._aim: Callable[[str], str] = functools.cache(self._target)
        self._named = Named({"people": self._person, "services": self._aim, "actions": self._act}, self._suggest)
        kinds = ("people", "services", "actions")
        self._people, self._aims, self._acts = (functools.partial(self._named.members, kind) for kind in kinds)
        self._ids: dict[RuleId, str] = {}  # and where each was first
        self._suggestions = 0
        self.grants: list[Grant] = []
        self.denies: list[DenyRule] = []
        self.approvals: list[tuple[Table, Grant]] = []  # grants that want one
        self.tests: list[tuple[File, PolicyTest]] = []

    def read(self, files: Sequence[File]) -> None:
        """The groups of all files, then their rules: a rule may stand before what it names."""
        for file in files:
            file.read()
        for file in files:
            self._file(file)
        self._named.resolve()
        for file in files:
            for name in RULES:
                for number, values in enumerate(self._tables(file, name)):
                    self._table(file, name, number, values)
        if all(file.content is not None for file in files):  # else who uses it may be in what could not be read
            self._named.unused()

    def _file(self, file: File) -> None:
        for name, tables in (file.content or {}).items():
            if name == "group":
                self._groups_of(file, tables)
            elif name not in RULES:
                known = ", ".join(f"[[{table}]]" for table in RULES)
                hint = self._suggest(name, (*RULES, "group"))
                file.wrong((name,), f"there is no {show(name)} in a policy, only {known} and [group.NAME]{hint}")
            elif not isinstance(tables, list):
                file.wrong((name,), f"write [[{name}]], with two brackets, for each {name}")

    @staticmethod
    def _tables(file: File, name: str) -> list[Any]:
        tables = (file.content or {}).get(name)
        return tables if isinstance(tables, list) else []

    def _groups_of(self, file: File, tables: object) -> None:
        if not isinstance(tables, dict):
            file.wrong(("group",), f"write [group.NAME] with people, services or actions below it, not {show(tables)}")
            return
        for name, values in tables.items():
            if isinstance(values, dict):
                self._named.declare(Table(file, ("group", name), values, self._suggest), name)
            else:
                file.wrong(("group", name), f"write [group.{name}] with a key below it, not {show(values)}")

    def _table(self, file: File, name: str, number: int, values: object) -> None:
        if not isinstance(values, dict):
            file.wrong((name, number), f"write [[{name}]] with keys below it, not {show(values)}")
            return
        table = Table(file, (name, number), values, self._suggest)
        if name == "grant":
            fields = self._rule(table, GRANT_KEYS)
            more: dict[str, Any] = {"sources": read_from(table), "reason": read_flag(table, "reason")}
            more["limit"] = read_limit(table)
            more["approval"] = read_approval(table, self._person, self._people)
            self._demands(table, fields)
            if fields and not file.problems:
                self.grants.append(Grant(**fields, **more, order=len(self.grants)))
                self.approvals += [(table, self.grants[-1])] if more["approval"] else []
        elif name == "deny":
            fields = self._rule(table, RULE_KEYS)
            if fields:
                self.denies.append(DenyRule(**fields, order=len(self.denies)))
        else:
            self._test(table, number)

    def _demands(self, table: Table, fields: dict[str, Any] | None) -> None:
        for key in DEMANDS if fields and not fields["may"] & CHANGING else ():
            if key in table.values:
                table.wrong(key, f"'{key}' is for what changes something, and this rule lets nobody do that")

    def _rule(self, table: Table, keys: tuple[str, ...]) -> dict[str, Any] | None:
        table.check_keys(keys)
        name = table.one("id", parse_id)
        if name is not None:
            if name in self._ids:
                table.wrong("id", f"the id '{name}' is taken by the rule at {self._ids[name]}")
            self._ids.setdefault(name, f"{table.file.path}:{table.line}")
        who = table.many("who", self._person, members=self._people)
        may = table.many("may", self._act, members=self._acts)
        on = self._on(table, may)
        when = read_when(table, self._zones)
        expires = read_expires(table, when)
        if table.file.problems or name is None or who is None or may is None or on is None:
            return None
        return {
            "id": name,
            "users": tuple(UserName(name) for kind, name in who if kind == "user"),
            "groups": tuple(UserName(name) for kind, name in who if kind == "group"),
            "may": frozenset(may),
            "on": on,
            "when": when,
            "expires": expires,
            "file": table.file.path,
            "line": table.line,
        }

    def _on(self, table: Table, may: tuple[Action, ...] | None) -> tuple[str, ...] | None:
        whole = [action for action in may or () if action in GLOBAL_ACTIONS]
        if "on" not in table.values and may is not None and len(whole) == len(may):
            return (EVERY_SERVICE,)
        on = table.many("on", self._aim, members=self._aims)
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
            raise ValueError(f'{show(text)} is nobody: write "user:NAME" or "group:NAME"')
        return kind, parse_user(name) if kind == "user" else parse_unix_group(name)

    def _action(self, text: str) -> Action:
        try:
            return Action(text)
        except ValueError:
            actions = [action.value for action in Action]
            hint = f"; that is the right '{COVERED[text]}'" if text in COVERED else self._suggest(text, actions)
            raise ValueError(f"{show(text)} is not an action: {', '.join(actions)}{hint}") from None

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

    def _test(self, table: Table, number: int) -> None:
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
        if at is not None and moment_of(at) is None:
            table.wrong("at", f"'at' must be a date and a time with its offset, as {AT}")
        source: str | None = ""
        if "from" in table.values:
            source = table.one("from", _address)
        reason = "…" if read_flag(table, "reason") else ""
        if table.file.problems or source is None or user is None or groups is None or may is None or expect is None:
            return
        test = PolicyTest(
            user=user,
            groups=frozenset(groups),
            may=may,
            on=on,
            expect=expect,
            at=moment_of(at),
            source=source,
            reason=reason,
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


def _address(text: str) -> str:
    if text == "local":
        return LOCAL
    if packed(text) is None:
        raise ValueError(f"{show(text)} is no address: 192.0.2.7, 2001:db8::7 or local")
    return text


def _expectation(text: str) -> Literal["allow", "deny", "approval"]:
    match text:
        case "allow" | "deny" | "approval":
            return text
    raise ValueError(f"{show(text)} is not what a test can expect: allow, deny or approval")


def _digest(files: Sequence[tuple[str, str]]) -> str:
    """Lengths are hashed too, so that no other cut between paths and texts gives the same bytes."""
    digest = hashlib.sha256()
    for part in (part for file in files for part in file):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def parse(
    files: Sequence[tuple[str, str]], services: Services, zones: Zones = zones_of_utc, *, run_tests: bool = True
) -> Policy | list[Problem]:
    """files: (path, text) each, in any order; services: each configured service and its groups; zones: of time.
    run_tests: whether its own [[test]] blocks must come out as they expect.

    The policy, or everything that is wrong, by file and line; never an empty list.
    """
    ordered = sorted(files)
    reader = _Reader(services, zones)
    read = [File(path, text) for path, text in ordered]
    reader.read(read)
    rules = build(reader.grants, reader.denies, [test for _, test in reader.tests], _digest(ordered))
    if not any(file.problems for file in read):
        for table, grant in reader.approvals:
            for why in alone(rules, grant):
                table.wrong("approval", why)
        for file, test in reader.tests if run_tests else ():
            came = trial(test, rules, services)
            if not came.passed:
                file.wrong(("test", test.number, "expect"), came.wrong)
    problems = [problem for file in read for problem in sorted(file.problems, key=lambda problem: problem.line)]
    return problems or rules
