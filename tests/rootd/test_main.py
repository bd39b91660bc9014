"""rootd/__main__: what durward-rootd says before anything is bound, and how each role is run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rootd import __main__ as program, ipc, sealed, trial
from rootd.keeper import manifest
from rootd.keeper.manifest import Manifest
from rootd.privileged import stage


def run(*words: str) -> subprocess.CompletedProcess[str]:
    code = "from rootd.__main__ import main; raise SystemExit(main())"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=False)


def test_a_directory_that_is_not_there_is_said_with_exit_65() -> None:
    done = run("--config", "/nonexistent", "--check")
    assert done.returncode == 65
    assert "/nonexistent" in done.stderr
    assert done.stdout == ""


def test_a_bad_configuration_is_said_before_anything_else_is_tried(tmp_path: Path) -> None:
    done = run("--config", str(tmp_path))
    assert done.returncode == (65 if os.geteuid() == 0 else program.NOT_ROOT)


@pytest.mark.root
def test_who_is_not_root_and_may_not_see_the_files_is_told_so_and_nothing_that_is_not_so() -> None:
    config = Path(tempfile.mkdtemp(prefix="durward-test-check-", dir="/run"))  # of mode 0700, and root's
    (config / "policy.d").mkdir()
    words = ["--config", str(config), "--check"]
    code = f"import os; os.setuid(65534); from rootd.__main__ import main; import sys; sys.argv[1:] = {words}; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    shutil.rmtree(config)
    assert f"{config}: Permission denied" in done.stderr
    assert "sudo durward-rootd --check" in done.stderr
    assert "there is no" not in done.stderr


def test_g1_nothing_of_ours_takes_the_number_of_a_standard_descriptor_that_was_closed() -> None:
    code = (
        "import os, sys; from rootd import __main__ as p\n"
        "p.open_standard_descriptors()\n"
        "assert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)\n"
        "status = p.check('/nonexistent', True)\n"  # which has something to say, and nowhere to say it
        "os._exit(status if [os.readlink(f'/proc/self/fd/{n}') for n in range(3)] == ['/dev/null'] * 3 else 9)"
    )
    closed = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', sys.executable, "-c", code]
    assert subprocess.run(closed, timeout=60, check=False).returncode == 65


def test_g1_the_environment_is_ours_where_names_are_looked_up_and_in_every_part() -> None:
    code = (
        "import os, sys; from rootd import __main__ as p, check\n"
        "class Keeper:\n"
        "    def __init__(self, *_): pass\n"
        "    def run(self): return 0 if dict(os.environ) == p.ENVIRONMENT else 9\n"
        "p.keeper.Keeper = Keeper\n"
        "good = check.Checked([], [], '')\n"
        "check.check = lambda *_: good if dict(os.environ) == p.ENVIRONMENT else 1 / 0\n"
        "raise SystemExit(p.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False, env={**os.environ, "RES_OPTIONS": "x"})
    assert done.returncode == (0 if os.geteuid() == 0 else program.NOT_ROOT)


def test_a_signal_that_means_nothing_yet_ends_no_start() -> None:
    """SIGHUP and those that are passed on, while the configuration is checked: the keeper does not listen yet."""
    code = (
        "import os, signal, sys; from rootd import __main__ as p\n"
        "def check(*_):\n"
        "    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2): os.kill(os.getpid(), number)\n"
        "    return 7\n"
        "p.check = check\n"
        "raise SystemExit(p.main())"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 7
    asked = subprocess.run([sys.executable, "-c", code, "--check"], timeout=60, check=False)
    assert asked.returncode == -signal.SIGHUP, "who only asks is ended with his terminal"


def test_usage_is_exit_2_and_help_names_every_option() -> None:
    assert run("--nonsense").returncode == 2
    shown = run("--help")
    assert shown.returncode == 0
    assert "--config DIR" in shown.stdout
    assert "--check" in shown.stdout


def test_who_is_not_root_is_told_why_root_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    monkeypatch.setattr(sys, "argv", ["durward-rootd", "--config", "/nonexistent"])
    monkeypatch.setattr(program, "check", lambda *_: 0)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)}
    try:
        assert program.main() == program.NOT_ROOT
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "started as root" in capsys.readouterr().err  # type: ignore[attr-defined]


@pytest.mark.root
def test_a_start_without_the_capabilities_that_it_takes_says_which_and_what_to_do() -> None:
    """As a container has it that was started with --cap-drop ALL --cap-add SETUID,SETGID, and some more."""
    code = "import prctl; [prctl.capbset_drop(n) for n in (0, 10)]; from rootd import __main__ as p; exit(p.main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (program.NOT_ROOT, "")
    assert done.stderr.endswith(
        "without these capabilities: CHOWN,NET_BIND_SERVICE: in a container, --cap-add CHOWN,NET_BIND_SERVICE\n"
    )
    assert "CHOWN" not in run("--config", "/nonexistent").stderr


@pytest.mark.parametrize("how", [lambda: os._exit(3), lambda: os.kill(os.getpid(), 9), lambda: 1 / 0])
def test_a8_a_check_that_fails_in_any_way_is_never_taken_for_a_good_configuration(
    monkeypatch: pytest.MonkeyPatch, how: Callable[[], object]
) -> None:
    from rootd import check as checker

    monkeypatch.setattr(checker, "check", lambda *_: how())
    assert program.check("/nonexistent", True) != 0


def test_who_reads_the_files_ends_with_who_waits_for_it() -> None:
    """Of an upgrade that is tried it holds all that the keeper holds."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(program.in_a_child(lambda: os.write(writer, str(os.getpid()).encode()) and signal.pause()))
    pidfd = os.pidfd_open(int(os.read(reader, 20)))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert ipc.wait(pidfd, seconds=20.0)
    ipc.close_all((reader, writer, pidfd))


def test_a_directory_service_that_hangs_ends_the_check_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from rootd import check as checker

    monkeypatch.setattr(checker, "check", lambda *_: sum(range(1 << 60)))  # Python hears nothing meanwhile
    monkeypatch.setattr(stage, "TIME_LIMIT", 0.05)
    assert program.check("/etc/x", False) == program.OVERDUE
    assert "does a directory service answer?" in capfd.readouterr().err


def test_a_file_that_would_take_all_memory_ends_the_check_and_not_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from rootd import check as checker
    from rootd.privileged import stage

    monkeypatch.setattr(checker, "check", lambda *_: len(bytearray(stage.CHILD_MEMORY)))
    assert program.check("/etc/x", True) == 70


@pytest.mark.parametrize("asked", [True, False])
def test_notes_and_what_is_good_are_told_only_to_who_asks(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], asked: bool
) -> None:
    from rootd import check as checker

    found = checker.Checked([], ["one", "two"], "/etc/x: no mistake found")
    monkeypatch.setattr(checker, "check", lambda *_: found)
    assert program.check("/etc/x", asked) == 0
    assert capfd.readouterr() == (("/etc/x: no mistake found\n", "note: one\nnote: two\n") if asked else ("", ""))


def test_what_is_made_of_good_files_is_handed_on_sealed_and_only_to_who_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rootd import check as checker
    from rootd.config import compile as compiler

    def check(_dir: str, _python: str, _asked: bool, made: checker.Made | None, _now: float) -> checker.Checked:
        if made:
            bundle = compiler.Bundle("/etc/x", "/p", (), {}, {}, {}, {}, {}, True)
            made(bundle, compiler.Compiled(None, b"{}", bytes(32), (), (), ()), {})
        return checker.Checked([], [], "")

    monkeypatch.setattr(checker, "check", check)
    staged = dict[str, int]()
    assert program.check("/etc/x", True, staged) == program.check("/etc/x", False) == 0
    assert staged == {}
    assert program.check("/etc/x", False, staged) == 0
    assert list(staged) == ["staged/generation"]
    assert sealed.content(staged["staged/generation"]).startswith(b"{}\n")
    os.close(staged["staged/generation"])


REASONS = ["socket a: tcp:[::]:1: x", "another"]
TOLD = "".join(f"durward-privileged: {reason}\n" for reason in REASONS)


def test_a_reason_that_has_no_place_in_the_files_is_told_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    program.explain("/nonexistent", REASONS)
    assert capfd.readouterr().err == TOLD


def test_reasons_are_told_even_when_their_places_cannot_be_looked_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from rootd.config import trusted

    monkeypatch.setattr(trusted, "read_tree", lambda _: 1 / 0)
    program.explain("/nonexistent", REASONS)
    assert capfd.readouterr().err.endswith(TOLD)


def test_who_holds_the_privilege_parses_nothing_to_explain_itself() -> None:
    code = (
        "import sys; from rootd import __main__ as program; program.explain('/nonexistent', ['x']);"
        " print(*sorted({'rootd.check', 'tomllib', 'msgspec'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("\n", "durward-privileged: x\n")


def test_each_role_imports_only_its_own_program() -> None:
    for role in program.roles("/etc/durward"):
        code = (
            "import os, sys; from rootd import __main__ as p\n"
            "run = p.roles('/nonexistent')[sys.argv[1]]\n"
            "r, w = os.pipe()\n"
            "try: run(w)\n"
            "except BaseException: pass\n"
            "print(' '.join(sorted(m for m in sys.modules if m.split('.')[0] in ('rootd', 'policy', 'userapi'))))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, role], capture_output=True, text=True, timeout=60, check=True
        )
        loaded = set(done.stdout.split())
        others = {"privileged", "supervisor", "auth", "log", "probe"} - {role}
        assert not {m for m in loaded if m.split(".")[1:2] and m.split(".")[1] in others}, role
        assert f"rootd.{role}.main" in loaded
        assert not {m for m in loaded if m.startswith("userapi")}
        if role in ("privileged", "log", "probe"):
            assert not {m for m in loaded if m.startswith("policy")}
        if role == "probe":
            assert not {m for m in loaded if m.startswith("rootd.config")}, "nor typing, which comes with it"


def test_what_is_tried_reads_what_it_is_told_and_then_the_files_and_says_what_is_in_the_way() -> None:
    told = Manifest({}, formats={"state": 99}, program="0.9")
    later, empty = (sealed.memfd("told", manifest.write(one)) for one in (told, told._replace(formats={})))
    code = "from rootd.__main__ import main; raise SystemExit(main())"
    done = []
    for fd in (later, empty):
        words = [sys.executable, "-c", code, "--config", "/nonexistent", "--try", "--resume", str(fd)]
        done.append(subprocess.run(words, pass_fds=[fd], capture_output=True, text=True, timeout=60, check=False))
        os.close(fd)
    assert [one.returncode for one in done] == [trial.REFUSED] * 2
    assert done[0].stderr == "0.9 writes version 99 of 'state', and this one reads 1 to 1\n"
    assert "it cannot read the settings that are in use" in done[1].stderr
    assert "--resume" not in run("--help").stdout, "for keepers alone"
