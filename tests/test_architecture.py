"""The architecture, as tests: what may import what, what may create processes, what may hold how many lines.
Read from the source with ast; only the dispatch table is imported. Raising a budget is a commit that says why.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import get_args

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rootd", "policy", "userapi")
FILE_LIMIT = 400
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
# Lines of code. DESIGN §12 wants 1,200, 600 and 5,000: what each line over it is for is in ARCHITECTURE.md, "Sizes".
PRIVILEGED_LIMIT, CONFIG_LIMIT, TRUSTED_LIMIT = 3_197, 1_765, 14_795

SOURCES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))
SCRIPTS = sorted(path.relative_to(ROOT) for path in (ROOT / "packaging").rglob("*.py"))

# who may import what of ours, and of others; the longest name that fits counts
ARROWS = {
    "policy": "policy msgspec",
    "userapi": "userapi policy msgspec flask werkzeug jinja2 markupsafe gunicorn",
    "userapi.gunicorn_conf": "userapi prctl",
    "userapi.walls": "userapi rootd.sandbox",  # it holds no privilege, and gives some away
    "userapi.audit": "userapi.audit rootd.log.chain",  # pure: the form of a record
    "userapi.cli": "userapi.cli userapi.audit userapi.tail policy",
    "userapi.cli.doctor": "userapi.cli rootd.check rootd.config rootd.accounts",  # it reads the files as --check does
    "userapi.cli.sources": "userapi.cli policy rootd.config rootd.zones",  # it reads the files as the daemon does
    "userapi.cli.offline": "userapi.cli policy msgspec rootd.check rootd.config rootd.zones",  # as sources does
    "userapi.cli.given_up": "userapi.cli rootd.config",
    "userapi.cli.version": "userapi.cli rootd.version",
    "userapi.cli.tried": "rootd.confine rootd.config.settings",
    "rootd": "",
    "rootd.__main__": "rootd prctl",
    "rootd.check": "rootd.check rootd.zones rootd.config rootd.accounts rootd.outlook rootd.privileged policy",
    "rootd.outlook": "rootd.confine rootd.landlock rootd.holder rootd.config rootd.privileged policy",
    "rootd.lifeline": "rootd.ipc",
    "rootd.memory": "",
    "rootd.accounts": "rootd.config",
    "rootd.confine": "rootd.sandbox prctl",
    "rootd.sandbox": "rootd.landlock",
    "rootd.config": "rootd.config",
    "rootd.config.schedules": "cronsim",  # in the throw-away child that compiles, and in the supervisor
    "rootd.trial": "rootd",  # all that this program would run, to see that it is there
    "rootd.keeper": "rootd.keeper rootd.closing rootd.forked rootd.ipc rootd.sealed rootd.version prctl",
    "rootd.privileged": "rootd.privileged rootd.config rootd.accounts rootd.closing rootd.forked rootd.ipc rootd.memory"
    " rootd.confine rootd.landlock rootd.sealed prctl",
    "rootd.throttle": "",
    "rootd.supervisor": "rootd.supervisor rootd.check rootd.zones rootd.config rootd.ipc rootd.memory rootd.confine"
    " rootd.sandbox rootd.closing rootd.throttle policy msgspec",
    "rootd.auth": "rootd.auth rootd.closing rootd.ipc rootd.lifeline rootd.memory rootd.confine rootd.sandbox"
    " rootd.accounts rootd.throttle rootd.config.settings"
    " policy.login policy.wire policy.names policy.scope msgspec pam",
    "rootd.probe": "rootd.probe rootd.closing rootd.ipc rootd.lifeline rootd.memory rootd.confine rootd.sandbox",
    "rootd.log": "rootd.log rootd.ipc rootd.lifeline rootd.memory rootd.confine rootd.sandbox rootd.config.settings"
    " rootd.config.logs",
}
FORBIDDEN_EVERYWHERE = ("subprocess", "multiprocessing", "pickle", "marshal", "shelve", "pty", "code", "codeop")
NOT_IN_CONFIG = ("dataclasses", "logging", "asyncio", "inspect")  # what they cost is paid by every fork (DESIGN §12)

FORKS = {"fork", "forkpty", "posix_spawn", "posix_spawnp", "popen", "system", "startfile"}
MAY_FORK = {
    "rootd/keeper/main.py",  # the parts of ours
    "rootd/keeper/again.py",  # the child that tries the new program
    "rootd/__main__.py",  # the throw-away child that checks the configuration
    "rootd/privileged/spawner.py",  # itself; services, by clone3
    "rootd/privileged/stage.py",  # the throw-away child that parses
    "rootd/supervisor/comparing.py",  # the throw-away child that compares two policies
    "rootd/pidfile.py",  # a service that forks itself, as its user: the program that it is
    "rootd/auth/pam.py",  # one child for each attempt
    "userapi/cli/tried.py",  # root's doctor: the throw-away child that becomes the api's account
}
# again.py: the keeper itself; sandbox.py tries if it is refused
MAY_EXEC = {"rootd/privileged/spawner.py", "rootd/pidfile.py", "rootd/keeper/again.py", "rootd/sandbox.py"}
DROPS = set("setuid setgid setgroups initgroups setreuid setregid setresuid setresgid seteuid".split())
MAY_DROP = {"rootd/confine.py"}
MAY_SETEGID = MAY_DROP | {"rootd/privileged/listen.py"}  # a Unix socket gets its group before it is made
OWN_TABLE = "userapi/cli/__main__.py"  # the person's own process: module and function, by names in its table

TOP_LEVEL = {
    "pyproject.toml", "rootd", "userapi", "policy", "tests", "packaging", "README.md", "ARCHITECTURE.md", "SECURITY.md",
    "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "Makefile", ".ci", ".git", ".gitignore",
}  # fmt: skip
LEFT_BY_TOOLS = set("build dist .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov".split())
LEFT_BY_TOOLS |= set("__pycache__ .github .gitlab-ci.yml .editorconfig .gitattributes".split())


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse((ROOT / path).read_text(), str(path))))  # the module first


def dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(path: Path, *, at_head: bool = False) -> set[str]:
    """The full names of all modules that a file imports, lazily or not; at_head: those at module level only."""
    found: set[str] = set()
    for node in nodes(path)[0].body if at_head else nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = node.module or ""
            inner = {f"{module}.{alias.name}" for alias in node.names}
            found.update(name if is_module(name) else module for name in inner)
    return found


def beneath(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def allowed(module: str) -> list[str]:
    return ARROWS[max((prefix for prefix in ARROWS if beneath(module, prefix)), key=len)].split()


@functools.cache
def calls(path: Path) -> list[tuple[int, str, ast.Call]]:
    """Line, dotted name and node of every call whose function is a plain name or attribute."""
    found = [n for n in nodes(path) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name | ast.Attribute)]
    return [(node.lineno, ast.unparse(node.func), node) for node in found]


def lines(paths: set[str]) -> int:
    """Lines of code: a budget must not be kept by leaving out what explains it."""
    return sum(len(code_lines(Path(path))) for path in paths)


def code_lines(path: Path) -> set[int]:
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO((ROOT / path).read_text()).readline):
        if token.type not in LAYOUT:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in nodes(path):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def beneath_folders(*folders: str) -> set[str]:
    return {str(path) for path in SOURCES if any(str(path).startswith(folder + "/") for folder in folders)}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    module = dotted(path)
    may = allowed(module)
    wrong = [
        name
        for name in imports(path)
        if name.split(".")[0] not in sys.stdlib_module_names
        and name not in PACKAGES  # `from rootd import ipc` names ipc, the package itself is empty
        and not any(beneath(name, prefix) for prefix in may)
    ]
    assert not wrong, f"{module} must not import {', '.join(wrong)}; it may import {', '.join(may) or 'nothing'}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_imports_what_runs_or_loads_code(path: Path) -> None:
    wrong = sorted(imports(path) & set(FORBIDDEN_EVERYWHERE))
    assert not wrong, f"{path} imports {', '.join(wrong)}"


@pytest.mark.parametrize("path", [path for path in SOURCES if str(path).startswith("rootd/config/")], ids=str)
def test_the_configuration_compiler_is_light_and_pure(path: Path) -> None:
    assert not imports(path) & set(NOT_IN_CONFIG)


@pytest.mark.parametrize("path", [path for path in SOURCES if str(path).startswith("userapi/cli/")], ids=str)
def test_the_command_line_starts_with_the_standard_library_alone(path: Path) -> None:
    ours = {name for name in imports(path, at_head=True) if name.split(".")[0] not in sys.stdlib_module_names}
    assert all(beneath(name, "userapi.cli") for name in ours), ours


def test_only_named_files_create_processes() -> None:
    wrong = [
        f"{path}:{line} {name}"
        for path in SOURCES
        for line, name, _ in calls(path)
        if name.startswith("os.")
        and (
            (name[3:] in FORKS and str(path) not in MAY_FORK)
            or (name[3:].startswith(("exec", "spawn")) and str(path) not in MAY_EXEC)
        )
    ]
    assert not wrong


def test_only_named_files_change_who_a_process_is() -> None:
    wrong = [
        f"{path}:{line} {name}"
        for path in SOURCES
        for line, name, _ in calls(path)
        if name.startswith("os.")
        and (
            (name[3:] in DROPS and str(path) not in MAY_DROP)
            or (name[3:] == "setegid" and str(path) not in MAY_SETEGID)
        )
    ]
    assert not wrong


def test_os_is_always_called_by_its_name() -> None:
    """So that the two tests above see every call."""
    wrong = [
        f"{path}:{node.lineno}"
        for path in SOURCES
        for node in nodes(path)
        if (isinstance(node, ast.ImportFrom) and node.module in ("os", "posix"))
        or (isinstance(node, ast.Import) and any(a.name == "os" and a.asname for a in node.names))
    ]
    assert not wrong


def test_no_code_is_made_from_text() -> None:
    wrong = [
        f"{path}:{line} {name}"
        for path in SOURCES
        if str(path) != OWN_TABLE
        for line, name, _ in calls(path)
        if name in ("eval", "exec", "compile", "__import__", "importlib.import_module", "os.system", "os.popen")
    ]
    assert not wrong


def test_c15_no_attribute_is_looked_up_by_a_name_that_is_not_written_there() -> None:
    wrong = []
    for path in SOURCES:
        if str(path) == OWN_TABLE:
            continue
        in_repr = {
            id(inner)
            for node in nodes(path)
            if isinstance(node, ast.FunctionDef) and node.name == "__repr__"
            for inner in ast.walk(node)
        }
        for line, name, node in calls(path):
            if name in ("getattr", "setattr", "delattr", "hasattr") and id(node) not in in_repr:
                asked = node.args[1] if len(node.args) > 1 else None
                if not (isinstance(asked, ast.Constant) and isinstance(asked.value, str)):
                    wrong.append(f"{path}:{line}")
    assert not wrong


def text_of(node: ast.expr) -> str | None:
    """A string literal; of an f-string its fixed beginning and end, which is what an anchor is."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def test_c3_every_pattern_that_admits_a_name_is_anchored() -> None:
    r"""msgspec searches, and "$" accepts a newline: \A and \Z, always."""
    admit = {"names.py", "messages.py", "login.py", "identity.py", "rules.py"}
    found, wrong = 0, []
    for path in SOURCES:
        patterns: list[tuple[int, ast.expr]] = []
        for line, name, call in calls(path):
            patterns += [(line, word.value) for word in call.keywords if word.arg == "pattern"]
            if name == "re.compile" and path.parts[0] == "policy" and path.name in admit:
                patterns += [(line, call.args[0])]
        for node in nodes(path)[0].body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("_PATTERN"):
                patterns.append((node.lineno, node.value))
        for line, expression in patterns:
            text = text_of(expression)
            if text is None:
                assert isinstance(expression, ast.Name), f"{path}:{line}: a pattern that cannot be read here"
                assert expression.id.endswith("_PATTERN"), f"{path}:{line}: name it …_PATTERN, so that it is checked"
                continue
            found += 1
            if not (text.startswith(r"\A") and text.endswith(r"\Z")) or r"\d" in text or r"\w" in text:
                wrong.append(f"{path}:{line} {text}")
    assert found >= 4
    assert not wrong


def test_c13_no_socket_has_an_abstract_address() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str | bytes)
        and len(node.value) > 1
        and node.value[:1] in ("\0", b"\0")
        and (node.value.strip("\0") if isinstance(node.value, str) else node.value.strip(b"\0"))
    ]
    assert not wrong


def test_a5_secrets_are_not_compared_by_equality() -> None:
    """Sessions are looked up by the hash of their id; a MAC or token is compared by hmac.compare_digest."""
    secret = re.compile(r"\b(token|mac|password|secret)\b", re.IGNORECASE)
    wrong = [
        f"{path}:{node.lineno} {ast.unparse(node)}"
        for path in SOURCES
        if path.parts[0] == "rootd"
        for node in nodes(path)
        if isinstance(node, ast.Compare)
        and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)
        and any(
            secret.fullmatch(part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", ""))
            for part in (node.left, *node.comparators)
        )
        and not any(isinstance(part, ast.Constant) for part in node.comparators)
    ]
    assert not wrong


def imported_by(*folders: str) -> set[str]:
    """These, and all of ours that they import, rootd/config apart."""
    todo = [Path(path) for path in beneath_folders(*folders)]
    seen: set[str] = set()
    while todo:
        path = todo.pop()
        if str(path) in seen or str(path).startswith("rootd/config/"):
            continue
        seen.add(str(path))
        for name in imports(path):
            for candidate in (name.replace(".", "/") + ".py", name.replace(".", "/") + "/__init__.py"):
                if name.split(".")[0] in PACKAGES and (ROOT / candidate).is_file():
                    todo.append(Path(candidate))
    return seen


def test_what_holds_privilege_stays_small_enough_to_read() -> None:
    sources = imported_by("rootd/keeper", "rootd/privileged")
    assert (count := lines(sources)) <= PRIVILEGED_LIMIT, f"{count} lines in {sorted(sources)}"


def test_the_parser_of_roots_files_stays_small_enough_to_read() -> None:
    assert (count := lines(beneath_folders("rootd/config"))) <= CONFIG_LIMIT, f"{count} lines"


def test_what_decides_stays_small_enough_to_read() -> None:
    policy = beneath_folders("policy") & imported_by("rootd/supervisor")  # the rest is tools that it never loads
    parts = beneath_folders("rootd/config", "rootd/supervisor") | imported_by("rootd/keeper", "rootd/privileged")
    assert (count := lines(policy | parts)) <= TRUSTED_LIMIT, f"{count} lines"


@pytest.mark.parametrize("path", SOURCES + TESTS + SCRIPTS, ids=str)
def test_no_file_is_longer_than_a_reader_can_hold(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= FILE_LIMIT


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name != "__init__.py"], ids=str)
def test_every_source_file_has_its_test_file(path: Path) -> None:
    expected = Path("tests", *path.parts[:-1], f"test_{path.stem.strip('_')}.py")
    assert (ROOT / expected).is_file(), f"{expected} is missing"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_file_says_first_what_it_is_and_a_package_has_no_code_of_its_own(path: Path) -> None:
    if path.name == "__init__.py":
        assert not code_lines(path)
    else:
        assert ast.get_docstring(nodes(path)[0])


def test_tests_are_not_packages() -> None:
    assert not [str(path) for path in TESTS if path.name == "__init__.py"]


def test_every_command_has_a_row_and_an_action() -> None:
    from policy.messages import Cancel, Command, WhatMayI, Withdraw
    from policy.names import Action
    from rootd.supervisor.dispatch import DISPATCH

    assert set(DISPATCH) == set(get_args(Command))
    for command, row in DISPATCH.items():
        # WhatMayI is about the asker; who takes back needs the right to that (test_desk_cancel, test_seconds)
        own = command in (WhatMayI, Cancel, Withdraw) and row.action is None
        assert isinstance(row.action, Action) or own, command


def test_the_top_level_holds_what_the_design_says_and_nothing_else() -> None:
    found = {path.name for path in ROOT.iterdir() if not path.name.endswith(".egg-info")}
    assert found - LEFT_BY_TOOLS - {name for name in found if name.startswith(".coverage")} <= TOP_LEVEL
    assert TOP_LEVEL - {".git"} <= found
