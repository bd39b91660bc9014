"""The words for every end of a process."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from rootd import ipc
from rootd.supervisor import exits
from rootd.supervisor.exits import Exit


def failure(step: int | str, number: int) -> Exit:
    index = ipc.STEPS.index(step) if isinstance(step, str) else step
    return Exit(127, failure=number << 8 | index)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (Exit(0), "exit status 0"),
        (Exit(3), "exit status 3"),
        (Exit(-9), "killed by SIGKILL"),
        (Exit(-11, core=True), "killed by SIGSEGV, core dumped"),
        (Exit(-45), "killed by signal 45"),
        (Exit(None), "ended, nobody saw how"),
        (failure("exec", errno.ENOENT), "cannot execute /srv/x: No such file or directory"),
        (failure("exec", errno.EACCES), "cannot execute /srv/x: Permission denied"),
        (failure("directory", errno.ENOENT), "cannot enter /srv: No such file or directory"),
        (failure("uid", errno.EPERM), "cannot become www: Operation not permitted"),
        (
            failure("limits", errno.EPERM),
            "cannot set its limits: Operation not permitted; the daemon lacks the capability that it takes:"
            " durward doctor names it",
        ),
        (
            failure("files", errno.ENOENT),
            "cannot be kept to its files (Landlock): No such file or directory; durward doctor names the path",
        ),
        (
            failure("fork", errno.EAGAIN),
            "cannot start a process: Resource temporarily unavailable; processes are short:"
            " raise pids.max of its control group (TasksMax=), or kernel.pid_max",
        ),
        (
            failure("pipe", errno.EMFILE),
            "cannot make its output pipes: Too many open files; descriptors are short:"
            " raise the daemon's limit of open files (LimitNOFILE=)",
        ),
        (
            failure("/dev/null", errno.EACCES),
            "cannot open /dev/null (which must be the device, and anybody's to read and write): Permission denied",
        ),
        (failure("nothing", errno.EBUSY), "cannot be started: Device or resource busy"),
        (failure("verify", 0), "cannot start (verify)"),
        (failure(200, errno.EIO), "cannot start (step 200): Input/output error"),
    ],
)
def test_an_end_in_words(spec: Any, end: Exit, words: str) -> None:
    assert exits.words(end, spec()) == words


def test_a_program_with_spaces_and_a_command_that_is_not_known(spec: Any) -> None:
    end = failure("exec", errno.ENOENT)
    assert exits.words(end, spec(settings=(("command", '["/srv/my app", "x"]'),))).startswith(
        "cannot execute /srv/my app:"
    )
    assert exits.words(end, spec(settings=())).startswith("cannot execute its command:")
    assert exits.words(failure("directory", errno.ENOENT), spec(settings=())).startswith("cannot enter its directory:")


def test_what_trying_again_cannot_mend() -> None:
    assert exits.lasting(failure("exec", errno.ENOENT))
    assert exits.lasting(failure("uid", errno.EPERM))
    assert not exits.lasting(failure("exec", errno.ENOMEM))
    assert not exits.lasting(failure("fork", errno.EAGAIN))
    assert not exits.lasting(failure(200, errno.ENOENT))
    assert not exits.lasting(Exit(1))


def test_an_exit_message_says_how_it_ended() -> None:
    assert exits.exit_of(ipc.Message(ipc.EXITED, arg=3, flags=ipc.KNOWN)) == Exit(3)
    assert exits.exit_of(ipc.Message(ipc.EXITED, arg=-11, flags=ipc.KNOWN | ipc.CORE)) == Exit(-11, core=True)
    assert exits.exit_of(ipc.Message(ipc.EXITED)) == Exit(None)
    assert exits.exit_of(ipc.Message(ipc.EXITED, arg=127, extra=515)) == Exit(127, failure=515)


def test_a_spawn_that_failed_is_never_an_ordinary_end() -> None:
    fork = ipc.STEPS.index("fork")
    assert exits.failure_of(ipc.Message(ipc.DONE, arg=11, extra=fork)) == Exit(None, failure=11 << 8 | fork)
    assert exits.failure_of(ipc.Message(ipc.DONE)).failure != 0


def test_why_a_process_cannot_be_the_main_one_has_words() -> None:
    assert exits.not_adopted(errno.EPERM) == "it is none of this process's own"
    assert exits.not_adopted(errno.EIO) == "Input/output error"


@pytest.mark.parametrize(
    ("end", "failed", "status"),
    [
        (Exit(0), False, 0),
        (Exit(0), True, 1),
        (Exit(3), True, 3),
        (Exit(-9), False, 137),
        (Exit(None), False, 1),
        (None, True, 1),
        (failure("exec", errno.ENOENT), True, 127),
        (failure("exec", errno.EACCES), True, 126),
        (failure("limits", errno.EPERM), True, 126),
    ],
)
def test_an_end_as_the_exit_status_that_a_shell_would_have(end: Exit | None, failed: bool, status: int) -> None:
    assert exits.status_of(end, failed) == status


@pytest.mark.parametrize(
    ("changed", "found", "words"),
    [
        ({"ready_kind": "notify"}, "", ": no READY=1 came on its $NOTIFY_SOCKET (see ready.notify and ready.timeout)"),
        (
            {"ready_kind": "notify", "settings": (("pid_file", "/run/x.pid"),)}, "",
            ": its pid file named no process of its own (see pid_file and ready.timeout)",
        ),
        (
            {"ready_kind": "fd", "settings": (("ready.fd", "5"),)}, "",
            ": no newline came on its descriptor 5 (see ready.fd and ready.timeout)",
        ),
        ({"ready_kind": "probe"}, "HTTP status 503", ", its last probe: HTTP status 503"),
        ({"ready_kind": "probe"}, "", ": no probe has been answered (see ready)"),
    ],
)  # fmt: skip
def test_what_was_waited_for_in_vain(spec: Any, changed: dict[str, Any], found: str, words: str) -> None:
    assert exits.unready(spec(ready_timeout=2.0, **changed), found) == f"not ready in 2 s{words}"
