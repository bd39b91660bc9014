"""The groups that a policy makes for itself: [group.NAME] of people, of services or of actions, used as "@NAME".

Rule 1: a group is of one kind, and stands only where things of that kind stand; it may hold groups of its kind.
Rule 2: what could do nothing or go round in a circle is a mistake: a name that is unknown, taken or used nowhere.
Rule 3: when everything is read nothing of them is left: a rule holds people, services and actions.

The model is sudoers(5): User_Alias, Cmnd_Alias. "@" keeps them apart from "group:NAME", which is a group of Unix in
`who` and a group of the services' own files in `on`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from policy.names import group_name
from policy.reading import GROUP_MARK, Table, show

DEEPEST = 20  # groups inside each other
KEYS = {"people": "who", "services": "on", "actions": "may"}  # and where such a group can stand


class _Group:
    def __init__(self, table: Table, name: str, kind: str) -> None:
        self.table, self.name, self.kind = table, name, kind
        self.found: tuple[Any, ...] | None = None  # None: not resolved yet, or not good
        self.used = False
        self.depth = 1

    @property
    def place(self) -> str:
        return f"{self.table.file.path}:{self.table.line}"


class Named:
    """parse: by kind, what makes a member of a text, or raises ValueError; suggest: for a word, one of those."""

    def __init__(self, parse: Mapping[str, Callable[[str], Any]], suggest: Callable[..., str]) -> None:
        self._parse, self._suggest = parse, suggest
        self._groups: dict[str, _Group] = {}
        self._way: list[str] = []  # groups that are being resolved, each inside the one before

    def declare(self, table: Table, name: str) -> None:
        try:
            group_name(name)
        except ValueError as error:
            table.file.wrong(table.path, str(error))
            return
        table.check_keys(tuple(KEYS))
        kinds = [key for key in KEYS if key in table.values]
        if name in self._groups:
            table.file.wrong(table.path, f"the name '{name}' is taken by the group at {self._groups[name].place}")
        elif len(kinds) != 1:
            table.file.wrong(table.path, "a group has one of 'people', 'services' and 'actions'")
        self._groups.setdefault(name, _Group(table, name, kinds[0] if len(kinds) == 1 else ""))

    def resolve(self) -> None:
        for group in self._groups.values():
            self._resolve(group)

    def _resolve(self, group: _Group) -> None:
        if group.kind and group.found is None and group.name not in self._way:
            self._way.append(group.name)
            members = group.table.many(group.kind, self._parse[group.kind], members=self._inside)
            self._way.pop()
            group.found = members or ()
            group.kind = group.kind if members else ""  # told once, and not again where it is used

    def _inside(self, text: str) -> Iterable[Any]:
        """The members of a group in a group."""
        name = text.removeprefix(GROUP_MARK)
        outer, group = self._groups[self._way[-1]], self._groups.get(name)
        if group is not None:
            group.used = True
            if name in self._way:
                raise ValueError(f"this group holds itself: {' → '.join([*self._way[self._way.index(name) :], name])}")
            if len(self._way) < DEEPEST:
                self._resolve(group)
            outer.depth = max(outer.depth, group.depth + 1)
            if outer.depth > DEEPEST or len(self._way) >= DEEPEST:
                raise ValueError(f"more than {DEEPEST} groups are inside each other here")
        return self.members(outer.kind, text)

    def members(self, kind: str, text: str) -> Iterable[Any]:
        """What stands for this text, which begins with GROUP_MARK, among things of this kind. Raises ValueError."""
        group = self._groups.get(text.removeprefix(GROUP_MARK))
        if group is None:
            hint = self._suggest(text.removeprefix(GROUP_MARK), self._groups)
            raise ValueError(f"there is no group {show(text)}: a policy makes one by [group.NAME]{hint}")
        group.used = True
        if group.kind not in ("", kind):
            raise ValueError(f"{show(text)} is a group of {group.kind}: it can stand in '{KEYS[group.kind]}'")
        return group.found or ()

    def unused(self) -> None:
        for group in self._groups.values():
            if not group.used:
                text = f"nothing uses {GROUP_MARK}{group.name}: take it out, or name it in a rule"
                group.table.file.wrong(group.table.path, text)
