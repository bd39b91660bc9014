"""The wall clock is for records, people, schedules, policy windows and the expiry of personal tokens: a step of it
decides nothing else.

Read from the source.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for package in ("rootd", "policy", "userapi") for path in (ROOT / package).rglob("*.py"))

# who reads it, and what for
RECORDS = {
    "rootd/log/main.py:wall_ns",  # the time of an audit record, and of a stamped line
    "rootd/__main__.py:check.act",  # when scheduled services would run next, for people
    "rootd/supervisor/clocks.py:scheduled",  # what is due by it: that alone is decided by a wall clock (timetable)
    "rootd/supervisor/clocks.py:wall",  # the time of an event, since when a process runs
    "rootd/zones.py:posix",  # whether a rule's window holds (DESIGN §11.10)
    "rootd/supervisor/clocks.py:expires",  # until when an approval or session is good, for people
    # until when a session is good, for people; whether a personal token, which outlives boots, has expired: by this
    # clock or by CLOCK_BOOTTIME, whichever says so first (rootd/auth/tokens)
    "rootd/auth/main.py:wall",
    "userapi/cli/policy_why.py:moment",  # now, where no other time is asked about
    "userapi/cli/sifting.py:since_of",  # when "10m ago" was, by the times that lines have
    "userapi/cli/render.py:Screen.services",  # how long ago "since" is, on a terminal
    "userapi/cli/render.py:Screen.operations",  # the same, of an operation
    "userapi/web/services.py:rows_of",  # the same, on a page
    "userapi/web/operations.py:lines_of",
}
READS = {"time", "time_ns", "now", "utcnow", "today"}
MODULES = {"time", "datetime", "date", "datetime.datetime", "datetime.date"}
CLOCKS = {"CLOCK_REALTIME", "CLOCK_REALTIME_COARSE", "CLOCK_TAI"}
WITHOUT_ARGUMENT = {"localtime": 1, "gmtime": 1, "ctime": 1, "asctime": 1, "strftime": 2}  # of the module time
BY_OTHERS = {"email.utils", "http.cookiejar", "wsgiref.handlers"}  # their helpers read it when they are given no time

Place = tuple[str, ast.AST]


@functools.cache
def nodes(path: Path) -> tuple[Place, ...]:
    """Every node, with FILE:CLASS.FUNCTION around it."""

    found = list[Place]()

    def walk(node: ast.AST, place: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = place
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inner += f"{'' if place.endswith(':') else '.'}{child.name}"
            found.append((inner, child))
            walk(child, inner)

    walk(ast.parse(path.read_text(), str(path)), f"{path.relative_to(ROOT)}:")
    return tuple(found)


def reads_the_wall_clock(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in CLOCKS or (node.attr in READS and ast.unparse(node.value) in MODULES)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WITHOUT_ARGUMENT:
        return ast.unparse(node.func.value) == "time" and len(node.args) < WITHOUT_ARGUMENT[node.func.attr]
    return False


def test_only_named_functions_for_records_read_the_wall_clock() -> None:
    assert {place for path in SOURCES for place, node in nodes(path) if reads_the_wall_clock(node)} == RECORDS


def test_clocks_are_always_called_by_their_names() -> None:
    """So that the test above sees every reading."""
    wrong = []
    for path in SOURCES:
        for place, node in nodes(path):
            if isinstance(node, ast.ImportFrom):
                names = {alias.name for alias in node.names}
                renamed = node.module == "datetime" and any(alias.asname for alias in node.names)
                bad = node.module == "time" or renamed or node.module in BY_OTHERS or names & CLOCKS
            elif isinstance(node, ast.Import):
                bad = any(alias.name in BY_OTHERS for alias in node.names) or any(
                    alias.name in ("time", "datetime") and alias.asname for alias in node.names
                )
            else:
                bad = isinstance(node, ast.Assign) and ast.unparse(node.value) in MODULES | {"time.clock_gettime"}
            if bad:
                wrong.append(f"{place} {ast.unparse(node)}")
    assert not wrong


def test_what_the_wall_clock_says_is_never_compared() -> None:
    asked = []
    for path in SOURCES:
        for place, node in nodes(path):
            conditions = [node] if isinstance(node, ast.Compare) else []
            if isinstance(node, ast.If | ast.While | ast.IfExp):
                conditions.append(node.test)
            asked += [
                f"{place} {ast.unparse(condition)}"
                for condition in conditions
                for inner in ast.walk(condition)
                if isinstance(inner, ast.Call) and ast.unparse(inner.func).rpartition(".")[2] in ("wall", "_wall")
            ]
    assert not asked
