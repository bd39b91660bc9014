"""auth as a process: what it is, what it cannot do, how it begins and ends."""

from __future__ import annotations

import os
import socket

import pytest

from policy import login, wire
from rootd import confine, ipc, lifeline, sandbox
from rootd.auth import logins, main, pam
from rootd.auth.pam import Verdict

pytestmark = pytest.mark.root


def status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status") as lines:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_it_is_its_account_with_group_shadow_and_nothing_else(auth, people) -> None:
    auth.granted(people("alice"))
    found = status(auth.pid)
    ours, shadow = people.auth, os.stat("/etc/shadow").st_gid
    assert found["Uid"].split() == [str(ours.uid)] * 4
    assert found["Gid"].split() == [str(ours.gid)] * 4
    assert found["Groups"].split() == [str(shadow)]
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"], found["Threads"]) == ("1", "2", "1")
    assert os.stat(f"/proc/{auth.pid}/environ").st_uid == 0  # not dumpable


def test_what_it_writes_is_for_itself_alone(auth, people) -> None:
    auth.granted(people("alice"))
    file = os.stat(auth.path / "auth" / "sessions.json")
    assert (file.st_uid, file.st_mode & 0o7777) == (people.auth.uid, 0o600)
    assert os.listdir(auth.path / "auth") == ["sessions.json"]


def in_the_walls(people, auth, act) -> Verdict:
    """act's answer from a process that has become what auth is."""

    def work() -> Verdict:
        confine.become(people.auth.uid, people.auth.gid, (os.stat("/etc/shadow").st_gid,))
        main.wall_in((str(auth.path / "auth"), str(auth.path / "state" / "auth")), helper=False)
        return act()

    return pam.once(work)


def test_from_inside_nothing_can_be_written_started_connected_to_or_looked_into(auth, people) -> None:
    parent = os.getpid()
    home = os.path.expanduser("~root")

    def act() -> Verdict:
        possible = []
        for name, attempt in {
            "execve": lambda: os.execv("/bin/true", ["true"]),
            "inet": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
            "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
            "kill": lambda: os.kill(parent, 0),
            "setuid": lambda: os.setuid(0),
            "write shadow": lambda: os.open("/etc/shadow", os.O_WRONLY),
            "write passwd": lambda: os.open("/etc/passwd", os.O_WRONLY),
            "make a file": lambda: os.open("/tmp/durward-test-auth", os.O_WRONLY | os.O_CREAT),
            "home": lambda: os.listdir(home),
            "logs": lambda: os.listdir("/var/log"),
            "run": lambda: os.listdir("/run"),
            "memory": lambda: os.open(f"/proc/{parent}/mem", os.O_RDONLY),
        }.items():
            try:
                attempt()
            except OSError:
                continue
            possible.append(name)
        return Verdict(True, ",".join(possible))

    assert in_the_walls(people, auth, act) == Verdict(True, "")


def test_a_start_without_the_walls_is_none(stage, people, monkeypatch) -> None:
    monkeypatch.setattr(sandbox, "install", lambda _filters: None)
    stage.start()
    assert os.waitstatus_to_exitcode(stage.gone()) == 70
    assert "the sandbox does not hold" in stage.errors.read_text()


@pytest.mark.parametrize("which", [0, 1])
def test_a_start_without_its_pam_services_is_none_and_says_which(stage, people, which: int) -> None:
    names = [people.service, f"{people.service}-account"]
    names[which] = "durward-no-such-service"
    stage.serve(*names)
    stage.start()
    assert os.waitstatus_to_exitcode(stage.gone()) == main.MISCONFIGURED
    assert "durward-auth: there is no /etc/pam.d/durward-no-such-service" in stage.errors.read_text()


def test_a22_faillock_in_the_service_is_said_to_count_nothing(stage, people, service) -> None:
    name = service(
        "tally", "auth required pam_faillock.so preauth\nauth required pam_unix.so\naccount required pam_unix.so\n"
    )
    stage.serve(name, f"{people.service}-account")
    stage.start()
    stage.until(lambda push: push == login.SessionsEnd())
    assert f"/etc/pam.d/{name}: pam_faillock counts nothing here" in stage.errors.read_text()


def test_it_ends_with_the_keeper(auth) -> None:
    auth.until(lambda push: push == login.SessionsEnd())
    auth.keeper.close()
    assert auth.gone() == 0


@pytest.mark.parametrize("packet", [b"", b"{}"], ids=["closed", "nonsense"])
def test_without_its_link_to_a_supervisor_that_lives_on_it_ends_to_be_linked_anew(auth, packet: bytes) -> None:
    """The keeper links two parts when one of them is started, and never else."""
    auth.until(lambda push: push == login.SessionsEnd())
    auth.supervisor.send(packet)
    assert os.waitstatus_to_exitcode(auth.gone()) == main.UNLINKED
    assert "auth ends, to be started again and linked anew" in auth.errors.read_text()


def test_when_the_supervisor_dies_it_waits_for_the_next_one(stage, people, monkeypatch) -> None:
    monkeypatch.setattr(lifeline, "ALIVE", 0.1)
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    stage.start(linked=False)
    stage.supervisor, theirs = ipc.pair()
    pidfd = os.pidfd_open(dead)
    stage.keeper.send(ipc.Message(ipc.LINK, name="supervisor"), theirs.fileno(), pidfd)
    theirs.close()
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    stage.until(lambda push: push == login.SessionsEnd())
    stage.supervisor.close()
    stage.supervisor = None
    assert stage.login("dwta-nobody", "x") == login.Denied(logins.REFUSED), "which takes longer than ALIVE"
    stage.link()
    stage.granted(people("alice"))


def test_it_ends_when_the_keeper_says_so(auth) -> None:
    auth.keeper.send(ipc.Message(ipc.END))
    assert auth.gone() == 0


def test_what_the_keeper_should_not_send_is_said_and_closed(auth, people) -> None:
    auth.keeper.send(ipc.Message(ipc.HELD, name="door/control"), 0)
    auth.keeper.send(ipc.Message(ipc.LINK, name="log"), 0, 0)
    auth.granted(people("alice"))
    assert "which auth does not know" in auth.errors.read_text()


def test_a8_killed_in_the_middle_of_a_login_it_has_said_nothing_and_the_next_one_takes_over(auth, people) -> None:
    alice = people("alice")
    client = auth.client()
    auth.answers_seen = False
    client.ask(login.Login(alice.name, alice.password, "192.0.2.1"))
    auth.until(lambda push: isinstance(push, login.SessionUp))
    auth.kill()
    assert client.sock.recv(10) == b""
    waiting = auth.client()
    waiting.ask(login.Login(alice.name, alice.password, "192.0.2.1"))
    auth.answers_seen = True
    auth.start()
    assert isinstance(auth.answer(waiting), login.Granted)


@pytest.mark.parametrize(("door", "who"), [("auth", "alice"), ("auth", "auth")])
def test_at_the_door_of_the_api_nobody_else_is_heard(auth, people, door: str, who: str) -> None:
    uid = people.auth.uid if who == "auth" else people(who).uid
    client = auth.client(uid, door)
    try:
        client.ask(login.Login(people("alice").name, people("alice").password))
        assert auth.answer(client) is None
    except BrokenPipeError:
        pass


@pytest.mark.parametrize(
    ("door", "ask"), [("auth", login.PeerLogin()), ("peer", login.Login("alice", "secret", "192.0.2.1"))]
)
def test_each_door_takes_what_it_is_for(auth, people, door: str, ask: login.Ask) -> None:
    client = auth.client(people.api.uid, door)
    client.ask(ask)
    assert auth.answer(client) is None
    assert len([push for push in auth.pushed if isinstance(push, login.LoginNoted)]) == 0


def test_a_supervisor_that_talks_nonsense_loses_its_link_and_the_next_one_is_told_everything(auth, people) -> None:
    granted = auth.granted(people("alice"))
    auth.supervisor.send(b"nonsense")
    while auth.supervisor is not None:
        auth.turn(None, 1e9)
    auth.link()
    assert wire.PUSH.decode(wire.PUSH.encode(auth.until(lambda push: isinstance(push, login.SessionUp))))
    auth.until(lambda push: push == login.SessionsEnd())
    assert isinstance(granted, login.Granted)
    assert "the link to the supervisor is closed" in auth.errors.read_text()


# the profile for a PAM that runs a program (Linux-PAM 1.6 and later)


def test_whether_pam_needs_a_program_is_found_out_by_trying(people, folder, service) -> None:
    def found(name: str) -> Verdict:
        work = main.Work(pam.Library(), name, name, b"k" * 32)
        return Verdict(main.needs_helper(work, people.auth.name, (str(folder),)))

    def asked(name: str) -> bool:
        def work() -> Verdict:
            confine.become(people.auth.uid, people.auth.gid, (os.stat("/etc/shadow").st_gid,))
            return found(name)

        return pam.once(work).ok

    runs = service("runs", "account required pam_exec.so quiet /bin/true\n")
    old = service("reads", "account required pam_permit.so\n")
    assert asked(runs)
    assert not asked(old)


@pytest.mark.parametrize("password", ["right", "wrong"])
def test_in_that_profile_unix_chkpwd_verifies_and_nothing_else_can_be_run(people, folder, password: str) -> None:
    alice = people("alice")
    said = alice.password if password == "right" else "wrong"

    def run(*argv: str) -> int:
        reader, writer = os.pipe()
        os.write(writer, said.encode() + b"\0")
        os.close(writer)
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(reader, 0)
                os.execv(argv[0], argv)
            except OSError as error:
                os._exit(100 + (error.errno or 0))
        os.close(reader)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def work() -> Verdict:
        confine.become(people.auth.uid, people.auth.gid, (os.stat("/etc/shadow").st_gid,))
        main.wall_in((str(folder),), helper=True)
        codes = [run("/usr/sbin/unix_chkpwd", alice.name, "nullok"), run("/bin/true"), run("/bin/sh", "-c", "exit 0")]
        return Verdict(True, repr(codes))

    expected = 0 if password == "right" else 7  # PAM_AUTH_ERR
    assert pam.once(work).why == repr([expected, 113, 113])
