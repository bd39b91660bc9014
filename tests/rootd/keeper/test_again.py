"""rootd/keeper/again: a real keeper executes a program that is another keeper, with all that it holds."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from theatre import WAIT, Theatre, opened

from rootd import ipc
from rootd.keeper import main as keeper

PROGRAM = """#!{python}
import os, signal, sys
sys.dont_write_bytecode = True
sys.path.append({folder!r})
import theatre
from rootd.keeper import main as keeper, manifest
fd = int(sys.argv[sys.argv.index("--resume") + 1])
told = manifest.read(os.pread(fd, 1 << 20, 0))
os.close(fd)
if "--try" in sys.argv:
    {trial}
    sys.exit(0)
for one in told.held.values():
    os.set_inheritable(one, False)
{late}
os._exit(keeper.Keeper(theatre.roles({address!r}), None, (sys.argv[0],), told).run())
"""
PARTS = ("privileged", "log", "supervisor", "auth", "probe")

Stage = Callable[..., Theatre]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A theatre whose keeper was started by a program of these lines."""
    made: list[Theatre] = []

    def make(trial: str = "pass", late: str = "") -> Theatre:
        program = tmp_path / "program"
        address = str(tmp_path / "strings")
        folder = str(Path(__file__).parent)
        text = PROGRAM.format(python=sys.executable, folder=folder, trial=trial, late=late, address=address)
        program.write_text(text)
        program.chmod(0o755)
        made.append(Theatre(tmp_path, command=(str(program),)))
        return made[-1]

    yield make
    for one in made:
        for _ in opened(one):
            pass


def ask(theatre: Theatre, seq: int = 7) -> None:
    theatre.order("privileged", do="send", op=ipc.UPGRADE, seq=seq)


def refused(theatre: Theatre, seq: int = 7) -> tuple[int, str]:
    while (word := theatre.hear("privileged")).get("op") != ipc.UPGRADE:
        continue
    assert word["seq"] == seq
    return word["arg"], word["said"]


def test_the_program_is_executed_anew_with_all_that_is_held_and_every_part_is_another_process(stage: Stage) -> None:
    theatre = stage()
    before = theatre.begin()
    for name in ("settings", "generation/1", "pipe/site/stdout", "process/0/1"):
        theatre.order("privileged", do="send", op=ipc.STORE, name=name, fd=1)
    theatre.order("privileged", do="orphan", status=3)
    orphan = theatre.hear("privileged")["orphan"]
    theatre.hear_op("privileged", ipc.REAPED)
    ask(theatre)
    after = theatre.enter(*PARTS)
    assert not {hello["hello"] for hello in before.values()} & {hello["hello"] for hello in after.values()}
    assert after["privileged"]["held"] == ["generation/1", "pipe/site/stdout", "process/0/1", "settings"]
    assert after["privileged"]["reaped"] == {str(orphan): 3}
    assert after["log"]["held"] == ["pipe/site/stdout", "settings"]
    assert "--resume" in Path(f"/proc/{theatre.pid}/cmdline").read_text(), "the same process runs it"
    theatre.order("log", do="exit", status=0)
    assert theatre.enter("log")["log"]["held"] == ["pipe/site/stdout", "settings"], "it goes on as any keeper"
    theatre.order("privileged", do="send", op=ipc.END, arg=4)
    assert theatre.wait() == 4


def test_no_descriptor_of_the_store_is_one_that_a_child_would_inherit_by_execve(stage: Stage) -> None:
    theatre = stage()
    theatre.begin()
    theatre.order("privileged", do="send", op=ipc.STORE, name="settings", fd=1)
    ask(theatre)
    theatre.enter(*PARTS)
    held = [path for path in Path(f"/proc/{theatre.pid}/fd").iterdir() if "memfd:" in os.readlink(path)]
    assert [os.readlink(path) for path in held] == ["/memfd:x (deleted)"]
    flags = Path(f"/proc/{theatre.pid}/fdinfo/{held[0].name}").read_text().partition("flags:")[2].split()[0]
    assert int(flags, 8) & os.O_CLOEXEC


def test_who_ends_while_no_keeper_listens_is_reaped_and_reported_by_the_next_one(stage: Stage) -> None:
    theatre = stage(late="pid = os.fork() or os._exit(9)\nos.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)")
    theatre.begin()
    ask(theatre)
    assert 9 in theatre.enter(*PARTS)["privileged"]["reaped"].values()


TRIALS = [
    ("sys.exit('no, it cannot')", 1, "no, it cannot"),
    ("import no_such_module", 1, "No module named 'no_such_module'"),
    ("os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
    ("signal.setitimer(signal.ITIMER_REAL, 0.05); signal.pause()", -14, ""),
]


def test_a_program_that_would_not_do_changes_nothing_and_its_words_are_handed_on(stage: Stage, tmp_path: Path) -> None:
    trial = tmp_path / "trial"
    theatre = stage(f"exec(open({str(trial)!r}).read())")
    theatre.begin()
    for seq, (text, status, said) in enumerate([*TRIALS, TRIALS[0]]):  # it may be asked for again
        trial.write_text(text)
        ask(theatre, seq)
        found, words = refused(theatre, seq)
        assert found == status
        assert said in words
    theatre.order("log", do="exit", status=0)
    theatre.enter("log")
    assert "--resume" not in Path(f"/proc/{theatre.pid}/cmdline").read_text()


SPOILT: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.chmod(0o644), "Permission denied"),
    (lambda path: path.write_text("#!/nowhere\n") and path.chmod(0o755), "No such file or directory"),
    (lambda path: path.write_bytes(b""), "Exec format error"),
    (lambda path: path.unlink(), "No such file or directory"),
]


def test_a_program_that_cannot_be_executed_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    theatre = stage()
    theatre.begin()
    for seq, (spoil, said) in enumerate(SPOILT):
        spoil(tmp_path / "program")
        ask(theatre, seq)
        status, words = refused(theatre, seq)
        assert status == 127
        assert words == f"{tmp_path / 'program'}: {said}\n"


def test_a_keeper_that_does_not_know_its_program_says_so(tmp_path: Path) -> None:
    for theatre in opened(Theatre(tmp_path)):
        theatre.begin()
        ask(theatre)
        assert "by which file this program was started" in refused(theatre)[1]


def test_where_execve_fails_after_all_the_old_keeper_starts_every_part_again(stage: Stage) -> None:
    theatre = stage("os.unlink(sys.argv[0])")
    theatre.begin()
    theatre.order("privileged", do="send", op=ipc.STORE, name="settings", fd=1)
    ask(theatre)
    after = theatre.enter(*PARTS)
    assert after["privileged"]["held"] == ["settings"]
    assert "the old one goes on: No such file or directory" in theatre.stderr.read_text()
    assert "--resume" not in Path(f"/proc/{theatre.pid}/cmdline").read_text()
    theatre.order("privileged", do="send", op=ipc.END, arg=0)
    assert theatre.wait() == 0


def test_only_one_is_tried_at_a_time_and_none_while_the_daemon_ends(stage: Stage, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    theatre = stage(f"open({str(fifo)!r}).read()")
    theatre.begin()
    ask(theatre)
    ask(theatre)  # by a supervisor that does not know that the one before has asked: answered once
    ask(theatre, 8)
    assert "under way already" in refused(theatre, 8)[1]
    os.kill(theatre.pid, signal.SIGTERM)
    theatre.hear_op("supervisor", ipc.END)
    fifo.write_text("go on")
    assert refused(theatre)[1] == "all of it is to end"


def test_an_end_that_privileged_asks_for_wins_over_a_trial_that_has_gone_well(stage: Stage, tmp_path: Path) -> None:
    """Both wait for the keeper, which stands still until they do."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    theatre = stage(f"open({str(fifo)!r}).read()")
    theatre.begin()
    ask(theatre)
    with fifo.open("w"):  # the trial has come to it
        os.kill(theatre.pid, signal.SIGSTOP)
    theatre.order("privileged", do="send", op=ipc.END, arg=5)
    theatre.order("privileged", do="fds")
    while "fds" not in theatre.hear("privileged"):
        continue
    os.kill(theatre.pid, signal.SIGCONT)
    assert theatre.wait() == 5


def test_the_end_of_the_daemon_ends_what_is_tried_too(stage: Stage, tmp_path: Path) -> None:
    """It holds all that the keeper holds: a port would stay bound."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    theatre = stage(f"f = open({str(fifo)!r}, 'w', 1); os.fork() or f.write('here\\n'); signal.pause()")
    theatre.begin()
    ask(theatre)
    with fifo.open() as file:
        assert file.readline() == "here\n", "a child of its own, as the one that reads the configuration"
        theatre.order("privileged", do="send", op=ipc.END, arg=0)
        assert theatre.wait() == 0
        assert select.select([file], [], [], 10.0)[0], "that has ended too"
        assert file.read() == ""
    children = Path("/proc").glob("[0-9]*/cmdline")
    assert not [path for path in children if str(tmp_path / "program") in text_of(path)]


def test_what_is_tried_does_not_outlive_a_keeper_that_is_killed(stage: Stage, tmp_path: Path) -> None:
    """It holds the lock, too: nothing could be started anew."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    theatre = stage(f"open({str(fifo)!r}, 'w').write(str(os.getpid())); signal.pause()")
    theatre.begin()
    ask(theatre)
    with fifo.open() as file:
        pidfd = os.pidfd_open(int(file.read()))
    os.kill(theatre.pid, signal.SIGKILL)
    assert ipc.wait(pidfd, seconds=WAIT)
    os.close(pidfd)


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("ends", [False, True])
def test_signals_that_come_while_no_keeper_listens_end_nothing_and_none_that_asks_for_an_end_is_lost(
    stage: Stage, ends: bool
) -> None:
    numbers = [int(one) for one in (keeper.ENDING[:1] if ends else {*keeper.HANDLED} - {*keeper.ENDING})]
    theatre = stage(late=f"for number in {numbers}: os.kill(os.getpid(), number)")
    theatre.begin()
    ask(theatre)
    theatre.enter(*PARTS)
    if ends:
        theatre.hear_op("supervisor", ipc.END)
    theatre.order("privileged", do="send", op=ipc.END, arg=6)
    assert theatre.wait() == 6


def test_an_end_that_was_asked_for_before_is_told_again(stage: Stage) -> None:
    """Between the death of the old supervisor and execve."""
    theatre = stage(late="told = told._replace(asked=1)")
    theatre.begin()
    ask(theatre)
    theatre.enter(*PARTS)
    theatre.hear_op("supervisor", ipc.END)
