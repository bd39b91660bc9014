"""Services that misbehave and a machine that is not as the configuration thinks: what a person sees, word by word."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import templates
from house import PREFIX, House
from people import People, processes_of
from space import Space

from policy import messages

pytestmark = pytest.mark.root

OFF = 'autostart = false\nready = { after = "0.1s" }\n'
MORE = {
    "deaf": (("fork", "setsid", "deaf"), 'stop = { timeout = "0.3s" }'),
    "quick": (("exit", "7"), 'restart = { policy = "always", backoff = "0.05s..0.1s", limit = "4 in 60s" }'),
    "crash": (("die", "11"), 'restart = { limit = "2 in 60s", backoff = "0.05s..0.1s" }'),
    "once": (("say", "worked", "exit", "0"), ""),
    "orphans": (("fork", "setsid", "exit", "3"), 'restart = { policy = "never" }'),
    "parents": (("fork", "setsid"), ""),
    "greedy": ((), "limits = { nofile = 1000000000000 }"),
    "silent": ((), 'restart = { limit = "1 in 60s" }'),
    "shut": (("shut",), 'sockets = ["other"]\nrestart = { policy = "never" }'),
}
PROGRAMS = """\
[service.missing]
command = ["/nonexistent/program", "x"]
user = "@jobs@"
autostart = false

[service.closed]
command = ["/bin/sleep", "1000"]
user = "@jobs@"
autostart = false
directory = "/root"

[service.nowhere]
command = ["/bin/sleep", "1000"]
user = "@jobs@"
autostart = false
directory = "/nonexistent/place"

[service.text]
command = ["/etc/passwd"]
user = "@jobs@"
autostart = false
"""
OTHER = 8080
SERVICES = {
    "other.toml": f'[socket.other]\nlisten = "0.0.0.0:{OTHER}"\n',
    "programs.toml": PROGRAMS,
    **{f"{name}.toml": templates.plain(name, *words, more=OFF + more) for name, (words, more) in MORE.items()},
}
for ends_first in ("quick", "crash", "once", "orphans"):  # however slow the machine is
    SERVICES[f"{ends_first}.toml"] = SERVICES[f"{ends_first}.toml"].replace('after = "0.1s"', 'after = "1m"')
SERVICES["silent.toml"] = SERVICES["silent.toml"].replace('after = "0.1s"', 'notify = true, timeout = "0.3s"')


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    with House(people, space, SERVICES, policy={}).running() as house:
        yield house


def cli(house: House, *words: str) -> tuple[int, str, str]:
    """`durward --root PATH WORD…`: exit code, standard output, standard error; times made equal."""
    argv = [str(PREFIX / "bin" / "durward"), "--root", str(house.run_dir / "root.sock"), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    output, errors = (re.sub(r"[0-9]+\.[0-9]{2} s", "N s", text) for text in (done.stdout, done.stderr))
    return done.returncode, output, errors


def row(house: House, service: str) -> list[str]:
    """What `durward status SERVICE` says below its title: name, state, pid, and the words behind the age."""
    _, output, _ = cli(house, "status", service)
    name, state, pid, _, *words = output.splitlines()[1].split(None, 4)
    return [name, state, pid, *words]


def steps(service: str, *texts: str) -> str:
    return "".join(f"{service}: {text}\n" for text in texts)


def hint(service: str) -> str:
    return f"its log may say why: durward logs --stream both {service}\n"


def jobs(house: House) -> set[int]:
    return {pid for pid in processes_of({house.people["jobs"].uid}) if house.space.holds(pid)}


def connects(house: House, port: int = OTHER) -> bool:
    try:
        house.space.connect("127.0.0.1", port).close()
    except ConnectionRefusedError:
        return False
    return True


# services


def test_one_that_ignores_sigterm_is_killed_with_its_children_when_its_time_is_up(house: House) -> None:
    before = jobs(house)
    assert cli(house, "start", "deaf") == (
        0,
        "deaf started in N s\n",
        steps("deaf", "starting", "ready", "done in N s"),
    )
    (pid,) = house.pids("deaf")
    house.until(lambda: len(jobs(house) - before) == 3, "it has two children")
    begun = time.monotonic()
    code, output, errors = cli(house, "stop", "deaf")
    assert time.monotonic() - begun >= 0.3
    assert (code, output) == (0, "deaf stopped in N s\n")
    assert errors == steps("deaf", "stopping", "did not end in time, killed", "done in N s")
    assert jobs(house) == before
    assert not Path(f"/proc/{pid}").exists()
    assert row(house, "deaf") == ["deaf", "STOPPED", "-", "killed by SIGKILL"]


def test_one_that_exits_at_once_is_tried_again_with_pauses_and_given_up_with_the_reason(house: House) -> None:
    code, output, errors = cli(house, "start", "quick")
    reason = "failed 4 times in 60 s, the last time: exit status 7"
    assert (code, output) == (1, "")
    tries = ("starting", "exit status 7") * 4
    assert errors == steps("quick", *tries) + f"quick was not started: {reason}\n" + hint("quick")
    assert row(house, "quick") == ["quick", "FATAL", "-", reason]
    assert cli(house, "status", "quick")[0] == 3
    ends = [line for line in cli(house, "describe", "quick")[1].splitlines() if line.startswith("exit ")]
    assert len(ends) == 4
    assert cli(house, "stop", "quick")[:2] == (0, "quick stopped in N s\n")
    assert row(house, "quick") == ["quick", "STOPPED", "-", "exit status 7"]


def test_the_pauses_between_the_tries_are_seen_as_backoff(house: House) -> None:
    with house.watching() as events:
        assert cli(house, "start", "quick")[0] == 1
        states: list[str] = []
        while "FATAL" not in states:
            event = events.receive()
            if isinstance(event, messages.Changed) and event.service == "quick" and event.state not in states[-1:]:
                states.append(event.state)
    assert states[:1] == ["STARTING"]
    assert set(states) == {"STARTING", "BACKOFF", "FATAL"}
    assert states.count("BACKOFF") >= 2


def test_one_that_crashes_says_by_which_signal(house: House) -> None:
    code, _, errors = cli(house, "start", "crash")
    assert code == 1
    reason = "failed 2 times in 60 s, the last time: killed by SIGSEGV"
    assert errors.endswith(f"crash was not started: {reason}\n{hint('crash')}")


def test_one_whose_work_is_done_has_exited_and_is_left_in_peace(house: House) -> None:
    code, _, errors = cli(house, "start", "once")
    assert (code, errors) == (0, steps("once", "starting", "exit status 0", "done in N s"))
    assert row(house, "once") == ["once", "EXITED", "-", "exit status 0"]
    house.until(lambda: house.service_log("once") == "worked\n", "what it said is in its log")


def test_children_do_not_outlive_a_service_that_ends_by_itself(house: House) -> None:
    before = jobs(house)
    code, _, errors = cli(house, "start", "orphans")
    assert code == 1
    assert errors == steps("orphans", "starting", "exit status 3") + (
        "orphans was not started: it ended by itself: exit status 3\n" + hint("orphans")
    )
    house.until(lambda: jobs(house) == before, "nothing of it is left")
    assert row(house, "orphans") == ["orphans", "EXITED", "-", "exit status 3"]


def test_children_that_ignore_sigterm_do_not_outlive_a_stop(house: House) -> None:
    before = jobs(house)
    assert cli(house, "start", "parents")[0] == 0
    house.until(lambda: len(jobs(house) - before) == 3, "it has two children")
    assert cli(house, "stop", "parents") == (0, "parents stopped in N s\n", steps("parents", "stopping", "done in N s"))
    assert jobs(house) == before


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        ("missing", "cannot execute /nonexistent/program: No such file or directory"),
        ("text", "cannot execute /etc/passwd: Permission denied"),
        ("nowhere", "cannot enter /nonexistent/place: No such file or directory"),
        ("closed", "cannot enter /root: Permission denied"),
        (
            "greedy",
            "cannot set its limits: Operation not permitted; the daemon lacks the capability that it takes:"
            " durward doctor names it",
        ),
    ],
)
def test_what_cannot_become_its_service_says_why_and_is_given_up_soon(house: House, service: str, reason: str) -> None:
    for command, done in (("start", "started"), ("restart", "restarted")):
        code, output, errors = cli(house, command, service)
        assert (code, output) == (1, "")
        assert errors == steps(service, *(("starting", reason) * 3)) + f"{service} was not {done}: {reason}\n"
    assert row(house, service) == [service, "FATAL", "-", reason]


def test_one_that_never_says_that_it_is_ready_is_stopped_and_given_up(house: House) -> None:
    before = jobs(house)
    code, _, errors = cli(house, "start", "silent")
    assert code == 1
    why = "not ready in 0.3 s: no READY=1 came on its $NOTIFY_SOCKET (see ready.notify and ready.timeout)"
    assert errors == steps("silent", "starting", why, "stopping") + (
        f"silent was not started: failed once in 60 s, the last time: {why}\n" + hint("silent")
    )
    house.until(lambda: jobs(house) == before, "nothing of it is left")


def test_a_socket_that_a_service_shuts_down_listens_again_when_it_has_ended(house: House) -> None:
    assert connects(house)
    assert cli(house, "start", "shut")[0] == 0
    house.until(lambda: not connects(house), "it has shut it down")
    assert cli(house, "stop", "shut")[0] == 0
    assert connects(house)


def test_a_socket_that_was_shut_down_listens_again_also_when_the_end_was_seen_by_the_keeper_only(house: House) -> None:
    """privileged is dead when the service dies, and the keeper reaps them both before there is a new one."""
    assert cli(house, "start", "shut")[0] == 0
    house.until(lambda: not connects(house), "it has shut it down")
    (victim,), old = house.pids("shut"), house.pid_of("privileged")
    assert house.daemon is not None
    house.daemon.send_signal(signal.SIGSTOP)
    try:
        for pid in (old, victim):
            os.kill(pid, signal.SIGKILL)
    finally:
        house.daemon.send_signal(signal.SIGCONT)
    house.wait_back("privileged", old)
    house.wait_for(lambda seen: seen["shut"].state == "EXITED", "its end is known")
    assert row(house, "shut") == ["shut", "EXITED", "-", "killed by SIGKILL"]
    assert connects(house)


def test_asking_for_what_is_so_already_is_no_failure(house: House) -> None:
    assert cli(house, "start", "parents")[0] == 0
    assert cli(house, "start", "parents") == (0, "parents is already running\n", "")
    assert cli(house, "stop", "parents")[0] == 0
    assert cli(house, "stop", "parents") == (0, "parents is not running\n", "")
    assert cli(house, "signal", "parents", "HUP") == (3, "", "parents is not running\n")


@pytest.mark.parametrize("command", ["status", "start", "stop", "restart", "describe", "logs"])
def test_a_service_that_there_is_not(house: House, command: str) -> None:
    assert cli(house, command, "nobody") == (4, "", "no service 'nobody' that you may view\n")


def test_what_cannot_be_a_name_is_told_at_once(house: House) -> None:
    assert cli(house, "restart", "No Such") == (4, "", "no service 'No Such' that you may view\n")
    code, output, errors = cli(house, "signal", "parents", "XX")
    assert (code, output) == (2, "")
    assert errors.startswith("'XX' is not a signal that can be sent: HUP, INT, QUIT, ")


def test_nothing_of_all_this_was_an_accident_of_ours(house: House) -> None:
    """Runs last: but for what was killed on purpose, no part has ended, and none has said anything of itself."""
    known = ("audit.initial", "there is no CAP_SYS_RESOURCE here")  # the second: what this machine does not let root do
    said = [line for line in house.stderr().splitlines() if not any(words in line for words in known)]
    assert said in ([], ["durward-keeper: privileged ended (signal 9) and is started again"])


# at the start


def starts_and_ends(house: House) -> tuple[int, str]:
    house.start(wait=False)
    assert house.daemon is not None
    status = house.daemon.wait(timeout=30)
    assert house.strangers() == {}
    return status, house.stderr()


MakeHouse = Callable[..., House]


def test_a_user_that_does_not_exist_is_65_with_file_line_and_key_and_what_may_have_been_meant(
    make_house: MakeHouse,
) -> None:
    text = templates.plain("worker").replace("@jobs@", "@jobz@")
    house = make_house(services={"worker.toml": text}, policy={})
    line = text.splitlines().index('user = "@jobz@"') + 1
    user, right = templates.names("@jobz@"), templates.names("@jobs@")
    known = f"services.d/worker.toml:{line}: service.worker.user: there is no user {user!r} on this machine"
    expected = f"{known}; did you mean {right!r}?"
    checked = house.check()
    assert (checked.returncode, checked.stderr.splitlines()[0]) == (65, expected)
    status, said = starts_and_ends(house)
    assert (status, said) == (65, checked.stderr)
    assert not house.run_dir.exists()


def test_a_path_that_somebody_else_controls_is_65_with_its_line_and_nothing_is_made(make_house: MakeHouse) -> None:
    house = make_house(services={}, policy={})
    text = (house.etc / "durward.toml").read_text()
    house.write("durward.toml", text.replace(f'log = "{house.log}"', 'log = "/tmp/durward-test-log/log"'))
    status, said = starts_and_ends(house)
    assert status == 65
    assert said.splitlines()[0].startswith("durward.toml:3: paths.log: /tmp can be written by everybody (mode 1777)")
    assert not house.run_dir.exists()
    assert not Path("/tmp/durward-test-log").exists()


def test_a_port_that_is_taken_is_71_and_says_by_whom(make_house: MakeHouse) -> None:
    house = make_house()
    with house.space.listen("0.0.0.0", 80):
        status, said = starts_and_ends(house)
    comm = Path("/proc/self/comm").read_text().strip()
    assert (status, said) == (
        71,
        "durward-privileged: services.d/site.toml:2: socket.http.listen: tcp:0.0.0.0:80: Address already in use;"
        f" {comm} (pid {os.getpid()}) has it\n",
    )  # fmt: skip
    house.start()
    assert house.http("/").status == 200
    house.stop()


def test_a_port_that_is_taken_at_a_reload_changes_nothing(make_house: MakeHouse) -> None:
    """By whom cannot be told any more: privileged is not root, and sees no other user's descriptors."""
    house = make_house(services={"worker.toml": templates.WORKER}, policy={}).start()
    pids = house.pids("worker")
    with house.space.listen("0.0.0.0", 80):
        house.write("services.d/site.toml", templates.SITE)
        code, _, errors = cli(house, "reload")
        assert code == 65
        assert errors == (
            "reading and checking the files\n"
            "services.d/site.toml:2: socket.http.listen: tcp:0.0.0.0:80: Address already in use\n"
            '    listen = "0.0.0.0:80"\n'
            "the files cannot be used: nothing was changed\n"
        )
        assert set(house.status()) == {"worker"}
    code, _, errors = cli(house, "reload")
    assert code == 0, errors
    house.wait_for(lambda seen: "site" in seen and seen["site"].state == "RUNNING", "the site is up")
    assert house.pids("worker") == pids
    house.stop()


def test_a_second_daemon_for_the_same_directory_is_refused(make_house: MakeHouse) -> None:
    house = make_house(services={}, policy={}).start()
    argv, fds = house.space.command(str(PREFIX / "bin" / "durward-rootd"), "--config", str(house.etc))
    done = subprocess.run(argv, pass_fds=fds, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (
        71,
        f"durward-privileged: another durward-rootd runs in {house.run_dir}\n",
    )
    assert house.status() == {}
    house.stop()


def test_without_a_daemon_the_person_is_told_where_it_was_looked_for(make_house: MakeHouse) -> None:
    house = make_house(services={}, policy={})
    code, output, errors = cli(house, "status")
    assert (code, output) == (69, "")
    path = house.run_dir / "root.sock"
    assert errors == f"no daemon answers at {path}: No such file or directory; is it running?\n"
    house.start()
    house.stop()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(str(path))
    assert cli(house, "status") == (69, "", f"no daemon answers at {path}: Connection refused; is it running?\n")
