"""rootd/privileged/requests: what the supervisor may ask, against real processes, and what it may not."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from privileged_house import PYTHON, House, entry, read_json, tcp_socket

from rootd import ipc
from rootd.privileged import cgroup, generations, requests

pytestmark = pytest.mark.root
Build = Callable[..., House]

SLEEPER = "import signal; print('up', flush=True); signal.pause()"


def wait_up(pipes: dict[int, int]) -> None:
    assert os.read(pipes[1], 3) == b"up\n"


def test_a_spawn_is_stored_told_to_log_and_answered_with_its_pid(build: Build) -> None:
    house = build(entry(SLEEPER))
    spawned = house.spawn()
    deed, _ = house.hear(ipc.DEED, on="log", run=spawned.run)
    assert (deed.scope, deed.arg) == (requests.DEED_SPAWN, spawned.arg)
    pipes = house.output(spawned.run)
    wait_up(pipes)
    names = {name.split("/")[0] for name in house.store if f"/{spawned.run}" in name}
    assert names == {"process", "pipe"}
    assert os.readlink(f"/proc/{spawned.arg}/fd/1") == os.readlink(f"/proc/self/fd/{pipes[1]}")
    house.ask(ipc.SIGNAL, run=spawned.run, arg=signal.SIGTERM, scope=ipc.MAIN)
    assert house.hear(ipc.DONE)[0].arg == 0
    exited = house.finish(spawned.run)
    assert (exited.arg, exited.flags) == (-signal.SIGTERM, ipc.KNOWN)
    assert not [name for name in house.store if name.startswith("process/")]


def test_the_exit_status_is_told_again_until_it_is_acknowledged(build: Build) -> None:
    house = build(entry("raise SystemExit(7)"))
    run = house.spawn().run
    assert house.hear(ipc.EXITED)[0].arg == 7
    for _ in range(2):
        house.supervisor.close()
        house.supervisor = house.link("supervisor", takes_fds=True)
        assert house.hear(ipc.EXITED)[0].arg == 7
    house.ask(ipc.SIGNAL, run=run, arg=9, scope=ipc.TREE)
    house.hear(ipc.EMPTY)
    house.ask(ipc.SIGNAL, seq=5, run=run, arg=9, scope=ipc.TREE)
    assert house.hear(ipc.DONE)[0].arg == errno.ESRCH


def test_a_run_of_which_something_is_left_is_told_to_the_next_supervisor_as_one_that_has_ended(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "populated", lambda _: True)  # a process in an uninterruptible sleep, for one
    house = build(entry("raise SystemExit(7)"))
    run = house.spawn().run
    for flags in (0, ipc.LEFT):
        house.supervisor.close()
        house.supervisor = house.link("supervisor", takes_fds=True)
        fact, _ = house.hear(ipc.FACT, run=run)
        assert (fact.run, fact.flags) == (run, flags)
        house.hear(ipc.EXITED, run=run)
        house.ask(ipc.SIGNAL, run=run, arg=9, scope=ipc.TREE)
        assert house.hear(ipc.DONE)[0].arg == 0


def test_d6_what_escaped_by_double_fork_and_setsid_is_killed_with_the_tree(build: Build) -> None:
    program = """
import os, signal
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writer, str(os.getpid()).encode())
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pause()
    os._exit(0)
print(os.read(reader, 20).decode(), flush=True)
signal.pause()
"""
    house = build(entry(program))
    if not os.path.isdir(house.tree):
        pytest.fail("this machine has no cgroup2 tree that can be written")
    run = house.spawn().run
    pipes = house.output(run)
    escaped = os.pidfd_open(int(os.read(pipes[1], 20)))
    house.ask(ipc.SIGNAL, run=run, arg=9, scope=ipc.TREE)
    house.finish(run)
    assert os.waitid(os.P_PIDFD, escaped, os.WEXITED) is not None
    os.close(escaped)


@pytest.mark.parametrize(
    ("step", "words", "number"),
    [
        ("exec", {"path": "/nonexistent/server"}, errno.ENOENT),
        ("exec", {"path": "/etc/passwd"}, errno.EACCES),
        ("limits", {"limits": ((resource.RLIMIT_NOFILE, 1 << 40, 1 << 40),)}, errno.EPERM),
        ("directory", {"cwd": "/nonexistent"}, errno.ENOENT),
        ("directory", {"cwd": "/root"}, errno.EACCES),
    ],
)
def test_what_keeps_a_child_from_its_exec_is_told_with_its_exit(
    build: Build, step: str, words: dict[str, Any], number: int
) -> None:
    house = build(entry("", **words))
    run = house.spawn().run
    exited = house.finish(run)
    assert exited.extra == number << 8 | ipc.STEPS.index(step)
    assert exited.arg == 127


def test_a_signal_that_the_table_does_not_allow_is_refused_and_the_process_lives(build: Build) -> None:
    house = build(entry(SLEEPER))
    spawned = house.spawn()
    wait_up(house.output(spawned.run))
    for number, scope in ((signal.SIGHUP, ipc.MAIN), (signal.SIGTERM, ipc.TREE), (9, 7), (0, ipc.MAIN), (-1, ipc.MAIN)):
        house.ask(ipc.SIGNAL, run=spawned.run, arg=number, scope=scope)
        assert house.hear(ipc.DONE)[0].arg == errno.EPERM
    os.kill(spawned.arg, 0)


def test_c14_requests_about_what_does_not_exist_change_nothing(build: Build) -> None:
    house = build(entry(SLEEPER, count=2))
    for op, words in (
        (ipc.SPAWN, {"generation": 1, "slot": 2}),
        (ipc.SPAWN, {"generation": 1, "slot": 1024}),
        (ipc.SPAWN, {"generation": 2, "slot": 0}),
        (ipc.SPAWN, {"generation": 0, "slot": 0}),
        (ipc.SIGNAL, {"run": 1, "arg": 9}),
        (ipc.COMMIT, {"generation": 2}),
        (ipc.COMMIT, {"generation": 1, "digest": bytes(32)}),
        (ipc.ADOPT, {"run": 1, "arg": 1}),
        (ipc.TABLE, {}),
        (ipc.STORE, {"name": "settings"}),
        (255, {}),
    ):
        house.ask(op, seq=9, **words)
        answer, _ = house.hear(ipc.DONE, ipc.SPAWNED)
        assert (answer.op, answer.seq) == (ipc.DONE, 9)
        assert answer.arg != 0
    assert not [name for name in house.store if name.startswith(("process/", "pipe/"))]


def test_c14_a_slot_whose_socket_was_let_go_is_refused_and_privileged_stays(build: Build) -> None:
    """The last generation but one is kept, and of its sockets only those that the current one has too."""
    house = build(entry(SLEEPER, sockets=(("http", "tcp:127.0.0.1:1"),)))
    answer = house.spawn()
    assert (answer.op, answer.arg) == (ipc.DONE, errno.EINVAL)
    assert house.spawn(slot=7).op == ipc.DONE


def test_a_supervisor_cannot_replace_away_what_log_has_not_been_told(build: Build) -> None:
    house = build(entry(SLEEPER))
    house.log.close()
    assert house.spawn().op == ipc.SPAWNED
    house.ask(ipc.REPLACE, seq=9)
    assert house.hear(ipc.DONE)[0].arg == errno.EAGAIN
    house.log = house.link("log", takes_fds=True)
    house.hear(ipc.DEED, on="log")
    house.ask(ipc.REPLACE, seq=9)
    assert house.hear(ipc.DONE)[0].arg == 0


def test_a_slot_has_at_most_an_old_and_a_new_process(build: Build) -> None:
    house = build(entry(SLEEPER))
    assert [house.spawn().op for _ in range(3)] == [ipc.SPAWNED, ipc.SPAWNED, ipc.DONE]


def test_c14_many_generations_make_no_more_runs(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that was taken over can commit the same files again and again: the whole has a limit too."""
    monkeypatch.setattr(requests, "RUNS_A_SLOT", 100)
    house = build(entry(SLEEPER))
    for _ in range(generations.RUNS_AN_INSTANCE):
        assert house.spawn().op == ipc.SPAWNED
    assert house.spawn().arg == errno.EBUSY


def test_c5_fuzzed_messages_of_the_right_size_are_answered_or_ignored_and_it_stays_up(build: Build) -> None:
    house = build(entry(SLEEPER))
    dice = random.Random(20261123)
    quiet = (ipc.REPLACE, ipc.SHUTDOWN, ipc.STAGE, ipc.SPAWN, ipc.RENEW, ipc.UPGRADE)
    for _ in range(3000):
        op = dice.choice([n for n in range(256) if n not in quiet])
        fields = {
            "scope": dice.randrange(256),
            "flags": dice.randrange(256),
            "generation": dice.choice((0, 1, 2, 2**32 - 1)),
            "slot": dice.choice((0, 1, 1023, 1024, 2**32 - 1)),
            "run": dice.choice((0, 1, 2**64 - 1)),
            "arg": dice.choice((0, 9, 15, -1, 2**63 - 1)),
            "name": dice.choice(("", "settings", "../../etc/passwd")),
        }
        house.ask(op, seq=1, **fields)
        assert house.hear(ipc.DONE)[0].arg != 0 or op == ipc.ABORT
    assert house.spawn().op == ipc.SPAWNED


def test_that_probe_does_not_answer_is_told_to_the_keeper_and_answered(build: Build) -> None:
    house = build(entry(SLEEPER))
    house.ask(ipc.RENEW, seq=7, name="supervisor", arg=1)
    assert (house.hear(ipc.DONE)[0].seq, house.renewed) == (7, [("", 0)]), "whatever else the message says"


def test_an_upgrade_goes_on_to_the_keeper_and_its_refusal_comes_back_with_why(build: Build) -> None:
    house = build(entry(SLEEPER))
    house.ask(ipc.UPGRADE, seq=7, name="/bin/sh", arg=1, run=5)
    while not house.upgrades:
        ipc.wait(house.keeper)
        house.serve_keeper()
    assert house.upgrades == [(7, "", 0, 0)], "whatever else the message says"
    said = os.memfd_create("said")
    os.write(said, b"no")
    house.keeper.send_now(ipc.Message(ipc.UPGRADE, seq=7, arg=65), said)
    message, fds = house.hear(ipc.UPGRADE)
    assert (message.seq, message.arg, os.pread(fds[0], 9, 0)) == (7, 65, b"no")
    ipc.close_all([said, *fds])
    assert house.spawn().op == ipc.SPAWNED


@pytest.mark.parametrize("packet", [b"", b"x", bytes(ipc.SIZE), bytes(ipc.SIZE + 1), bytes(100_000)])
def test_c5_what_is_no_message_ends_that_supervisor_only(build: Build, packet: bytes) -> None:
    house = build(entry(SLEEPER))
    run = house.spawn().run
    victim = os.fork()
    if victim == 0:
        signal.pause()
    ours, theirs = ipc.pair()
    pidfd = os.pidfd_open(victim)
    house.keeper.send_now(ipc.Message(ipc.LINK, name="supervisor"), theirs.fileno(), pidfd)
    theirs.close()
    ours.send(packet)
    while ours.recv(4096):
        continue
    if packet:
        assert os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]) == -9
    else:
        os.kill(victim, 9)
        os.waitpid(victim, 0)
    ours.close()
    os.close(pidfd)
    house.supervisor.close()
    house.supervisor = house.link("supervisor", takes_fds=True)
    assert house.hear(ipc.FACT)[0].run == run


def test_the_notify_socket_of_a_run_goes_to_the_supervisor_and_away_with_the_run(build: Build) -> None:
    program = """
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
s.send(b"READY=1")
"""
    house = build(entry(program, notify=True))
    run = house.spawn().run
    channel, fds = house.hear(ipc.CHANNEL)
    assert (channel.run, channel.scope) == (run, ipc.NOTIFY)
    sock = socket.socket(fileno=fds[0])
    sock.settimeout(20)
    data, control, _, _ = sock.recvmsg(100, 100)
    assert data == b"READY=1"
    assert control[0][1] == socket.SCM_CREDENTIALS
    path = house.directory / "notify" / str(run)
    found = path.lstat()
    assert (found.st_mode & 0o777, found.st_gid) == (0o660, 61002)
    house.finish(run)
    assert not path.exists()
    assert not [name for name in house.store if name.startswith("notify/")]
    sock.close()


def test_a_socket_that_a_service_shut_down_listens_again_after_its_exit(build: Build) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = "import socket; s = socket.socket(fileno=3); s.setblocking(False); s.shutdown(socket.SHUT_RDWR)"
    spec = tcp_socket("http", port)
    house = build(entry(program, sockets=(("http", spec.key),)), sockets=(spec,))
    house.finish(house.spawn().run)
    socket.create_connection(("127.0.0.1", port), 5).close()


def test_shutdown_kills_what_is_left_and_ends_the_house(build: Build) -> None:
    house = build(entry(SLEEPER))
    spawned = house.spawn()
    pidfd = os.pidfd_open(spawned.arg)
    house.ask(ipc.SHUTDOWN, seq=3)
    assert house.wait() == 0
    assert house.ended
    assert os.waitid(os.P_PIDFD, pidfd, os.WEXITED).si_status == signal.SIGKILL
    os.close(pidfd)


def test_who_reads_the_configuration_at_that_moment_does_not_outlive_a_shutdown(build: Build) -> None:
    """It was forked by privileged, and has its rights."""
    house = build(entry(SLEEPER))
    children = Path(f"/proc/{house.pid}/task/{house.pid}/children")
    before = children.read_text().split()
    house.ask(ipc.STAGE, seq=2)
    while not (new := [pid for pid in children.read_text().split() if pid not in before]):
        continue
    pidfd = os.pidfd_open(int(new[0]))
    signal.pidfd_send_signal(pidfd, signal.SIGSTOP)  # a directory service hangs
    house.ask(ipc.SHUTDOWN, seq=3)
    assert house.wait() == 0
    try:
        assert ipc.wait(pidfd, seconds=0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def test_when_the_keeper_is_gone_nothing_is_left_running(build: Build) -> None:
    house = build(entry(SLEEPER))
    spawned = house.spawn()
    pidfd = os.pidfd_open(spawned.arg)
    house.keeper.close()
    assert house.wait() == 0
    assert os.waitid(os.P_PIDFD, pidfd, os.WEXITED).si_status == signal.SIGKILL
    os.close(pidfd)


def test_d1_d2_d3_d4_d15_a_process_gets_exactly_what_its_entry_says(build: Build) -> None:
    program = """
import json, os, signal, resource
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
fds = {}
for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
    try:
        fds[fd] = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        pass
print(json.dumps({
    "env": dict(os.environ), "cwd": os.getcwd(), "umask": os.umask(0), "sid": os.getsid(0) == os.getpid(),
    "fds": fds, "pid": os.getpid(), "cgroup": open("/proc/self/cgroup").read(),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
    "status": {key: status[key].split() for key in (
        "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
        "SigBlk", "SigIgn", "SigCgt")},
}))
"""
    with socket.create_server(("127.0.0.1", 0)) as free:
        spec = tcp_socket("http", free.getsockname()[1])
    os.environ["LD_PRELOAD_CANARY"] = "leaked"
    house = build(
        entry(
            "",
            argv=(PYTHON, "-I", "-S", "-c", program),
            count=2,
            env=(("PATH", "/bin"), ("HOME", "/")),
            umask=0o027,
            sockets=(("http", spec.key),),
            notify=True,
            limits=((7, 256, 512), (4, 0, 0)),
        ),
        sockets=(spec,),
    )
    del os.environ["LD_PRELOAD_CANARY"]
    spawned = house.spawn(slot=1)
    pipes = house.output(spawned.run)
    seen = read_json(pipes[1])
    assert seen["env"] == {
        "PATH": "/bin", "HOME": "/", "DURWARD_SERVICE": "site", "DURWARD_PROCESS": "site.1", "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "http", "LISTEN_PID": str(spawned.arg), "LC_CTYPE": "C.UTF-8",
        "NOTIFY_SOCKET": f"{house.directory}/notify/{spawned.run}",
    } or seen["env"].pop("LC_CTYPE")  # fmt: skip
    assert seen["status"] == {
        "Uid": ["61002"] * 4, "Gid": ["61002"] * 4, "Groups": ["61003"], "NoNewPrivs": ["1"], "Seccomp": ["0"],
        **{name: ["0000000000000000"] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "SigBlk")},
        "SigIgn": ["0000000001001000"],  # Python's own: SIGPIPE and SIGXFSZ
        "SigCgt": ["0000000000000002"],  # Python's own: SIGINT
    }  # fmt: skip
    assert seen["fds"]["0"] == "/dev/null"
    assert seen["fds"]["1"].startswith("pipe:")
    assert seen["fds"]["3"].startswith("socket:")
    assert set(seen["fds"]) == {"0", "1", "2", "3"}
    assert (seen["cwd"], seen["umask"], seen["sid"], seen["pid"]) == ("/", 0o027, True, spawned.arg)
    assert (seen["nofile"], seen["core"]) == ([256, 512], [0, 0])
    assert any(line.endswith(f"/run-{spawned.run}") for line in seen["cgroup"].splitlines())
    os.close(pipes[2])
