"""userapi/cli/quick: it says what parser says, or nothing; and what it spares is not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from userapi.cli import parser, quick

QUICK = ([], ["status"], ["status", "site"], ["status", "site", "jobs"], ["status", "work*"], ["status", "group:x"])
QUICK += (["status", "all"], ["status", "status"], ["status", "site:1"])
OTHERS = (["status", "--json"], ["--json"], ["status", ""], ["whoami"], ["--root", "status"], ["status", "--", "site"])
OTHERS += (["site"], ["-h"], [""], ["status", "-x"], ["restart", "site"])


@pytest.mark.parametrize("argv", QUICK, ids=" ".join)
@pytest.mark.parametrize("url", ["", "unix:/x"])
def test_what_is_understood_here_is_what_parser_understands(
    argv: list[str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURWARD_URL", url)
    asked = quick.parse(argv)
    assert asked is not None
    assert vars(asked) == vars(parser.parse(argv))


@pytest.mark.parametrize("argv", OTHERS, ids=" ".join)
def test_everything_else_is_left_to_parser(argv: list[str]) -> None:
    assert quick.parse(argv) is None


def test_a_status_needs_no_argparse_no_typing_and_no_shutil() -> None:
    code = (
        "import sys; from userapi.cli.__main__ import main\n"
        "code = main(['status'])\n"
        "print(code, *sorted({'argparse', 'typing', 'shutil', 'importlib', 'http.client'} & set(sys.modules)))"
    )
    environment = {"DURWARD_URL": "unix:/nonexistent/api.sock", "DURWARD_SESSION": "/nonexistent/session"}
    run = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.stdout.split() == ["69"], done
