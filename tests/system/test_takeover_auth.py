"""An auth that has been taken over: it decides who is who, and that is all that it decides."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hostage import STAY, Hostage, deeds, descriptors, nothing_stays, prompt, standing
from house import PREFIX, House
from people import processes_of

pytestmark = pytest.mark.root

ROLE = "auth"
PATIENT = 1.0  # seconds: far more than a status takes
TOOLS = """
import os, random, socket, time
from policy import login, wire
from rootd import ipc
from rootd.auth.main import clock
out = socket.socket(fileno=os.dup(part.link._sock.fileno()))
out.settimeout(5.0)

def seen(push):
    # whether the supervisor takes a session
    out.send(wire.PUSH.encode(push))
    probe = login.SessionUp("f" * 64, "dwt-nobody", 4321, [], clock() + 60, 60, 999_999)
    out.send(wire.PUSH.encode(probe))
    taken = []
    while True:
        pull = wire.PULL.decode(out.recv(65536))
        if isinstance(pull, login.Seen) and pull.number == 999_999:
            return bool(taken)
        taken += [pull] if isinstance(pull, login.Seen) and pull.number == push.number else []
"""

# as the api's uid, which is all that control.sock looks at
AS_API = """
import json, socket, sys
from policy import messages, wire
path, token, *commands = sys.argv[1:]
answers = []
for command in commands:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(20.0)
        sock.connect(path)
        sock.send(b'{"id":1,"session":"%s","command":%s}' % (token.encode(), command.encode()))
        packet = sock.recv(65537)
        answers.append(json.loads(packet)["reply"] if packet else {})
print(json.dumps(answers))
"""


@pytest.fixture
def hostage(taken: Hostage) -> Iterator[Hostage]:
    """While a test goes on root.sock answers as always; afterwards nobody else is another process."""
    before = standing(taken.house, ROLE)
    spawned = deeds(taken.house, "spawn", "signal", "commit")
    taken.run(TOOLS)
    with prompt(taken.house, PATIENT):
        yield taken
    taken.resume()
    assert standing(taken.house, ROLE) == before
    assert deeds(taken.house, "spawn", "signal", "commit") == spawned
    assert taken.house.http("/").status == 200


def asked(house: House, token: str, *commands: dict[str, object]) -> list[dict[str, object]]:
    words = [json.dumps(command) for command in commands]
    argv = [str(PREFIX / "bin" / "python3"), "-I", "-c", AS_API, str(house.run_dir / "control.sock"), token, *words]
    done = house.run_as("api", *argv)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, object]] = json.loads(done.stdout)
    return answers


def test_a9_a10_nobody_can_be_made_up_who_cannot_be(hostage: Hostage) -> None:
    """uids and names that no account has: the packet is no message, or the session is not taken."""
    code = """
    number, result = 5_000, []
    for uid in (-1, -2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 63, 4294967295, 1.5, True, "0", None):
        raw = b'{"push":"up","hash":"%064x","user":"dwt-alice","uid":%s,"groups":[],"ends":9e9,"idle":60,"number":1}'
        import json
        try:
            wire.PUSH.decode(raw % (number, json.dumps(uid).encode()))
            result.append(uid)
        except wire.Malformed:
            pass
    for name in ("1001", "Alice", "alice\\n", "alice\\0", "../x", "a" * 33, "", "\\uff41lice", "root "):
        try:
            wire.PUSH.decode(wire.PUSH.encode(login.SessionUp("a" * 64, name, 1, [], 9e9, 60, 1)))
            result.append(name)
        except wire.Malformed:
            pass
    """
    assert hostage.run(code) == []


def test_it_cannot_make_root_of_anybody(hostage: Hostage) -> None:
    """A session of "root" with uid 0 is a person's like others: the policy gives it nothing, and it is written down."""
    house = hostage.house
    token = "ab" * 32
    code = """
    import hashlib
    up = login.SessionUp(hashlib.sha256(token.encode()).hexdigest(), "root", 0, ["root", "sudo"], clock() + 60, 60, 77)
    result = seen(up)
    """
    assert hostage.run(code, token=token) is True
    commands: list[dict[str, object]] = [
        {"do": "stop", "service": "site"}, {"do": "shutdown"}, {"do": "reload"}, {"do": "revoke", "everyone": True},
        {"do": "signal", "service": "site", "signal": "KILL"},
    ]  # fmt: skip
    answers = asked(house, token, *commands)
    kinds = [(answer["is"], answer["kind"]) for answer in answers]
    assert kinds == [("refused", kind) for kind in ("unknown", "forbidden", "forbidden", "forbidden", "unknown")]
    refused = [r for r in house.audit() if r["kind"] == "decision" and r["user"] == "root" and not r["allowed"]]
    assert [record["action"] for record in refused] == ["stop", "shutdown", "reload", "revoke", "signal"]
    assert {service.state for service in house.status().values()} == {"RUNNING"}


def test_it_can_say_who_somebody_is_and_his_rights_are_all_that_it_gets(hostage: Hostage) -> None:
    """As SECURITY.md says. bob may look; what he is refused is in the audit log with his name."""
    house = hostage.house
    token, bob = "cd" * 32, house.people["bob"]
    code = """
    import hashlib
    result = seen(login.SessionUp(hashlib.sha256(token.encode()).hexdigest(), *who, [], clock() + 60, 60, 78))
    """
    assert hostage.run(code, token=token, who=(bob.name, bob.uid)) is True
    looks, stops = asked(house, token, {"do": "status"}, {"do": "stop", "service": "site"})
    assert looks["is"] == "services"
    assert (stops["is"], stops["kind"]) == ("refused", "forbidden")
    refused = house.until(
        lambda: [r for r in house.audit() if r["kind"] == "decision" and r["user"] == bob.name and not r["allowed"]],
        "it is written down",
    )
    assert refused[-1]["action"] == "stop"


def test_a12_a_session_never_becomes_another_persons(hostage: Hostage) -> None:
    people = hostage.house.people
    token, who = "ef" * 32, [(people[short].name, people[short].uid) for short in ("bob", "alice")]
    code = """
    import hashlib
    known = hashlib.sha256(token.encode()).hexdigest()
    result = [seen(login.SessionUp(known, *one, [], clock() + 60, 60, 80 + n)) for n, one in enumerate(who)]
    """
    assert hostage.run(code, token=token, who=who) == [True, False]
    (answer,) = asked(hostage.house, token, {"do": "status"})
    assert (answer["is"], answer["kind"]) == ("refused", "no-session")


def test_a4_times_that_cannot_be_end_nothing_but_the_session(hostage: Hostage) -> None:
    """The end of days, the beginning of time, no idle time at all."""
    house = hostage.house
    people = house.people["bob"]
    ends = [0.0, 1e-300, 1e12, 1e18, 1.7e308]
    code = """
    import hashlib
    for n, (end, idle) in enumerate((end, idle) for end in ends for idle in (0.0, 1e-300, 60.0, 1.7e308)):
        token = f"{n:064x}"
        seen(login.SessionUp(hashlib.sha256(token.encode()).hexdigest(), *who, [], end, idle, 200 + n))
    """
    hostage.run(code, who=(people.name, people.uid), ends=ends)
    for n in range(4 * len(ends)):
        (answer,) = asked(house, f"{n:064x}", {"do": "what-may-i"})
        assert answer["is"] in ("rights", "refused"), answer


def test_more_sessions_than_there_may_be_are_not_taken(hostage: Hostage) -> None:
    code = """
    taken = 0
    for n in range(10_500):
        up = login.SessionUp(f"{n + 2 ** 200:064x}", "dwt-bob", 4321, [], clock() + 9, 9, 1_000 + n)
        out.send(wire.PUSH.encode(up))
        out.setblocking(False)
        try:
            while True:
                taken += isinstance(wire.PULL.decode(out.recv(65536)), login.Seen)
        except BlockingIOError:
            out.settimeout(5.0)
    out.settimeout(1.0)
    try:
        while True:
            taken += isinstance(wire.PULL.decode(out.recv(65536)), login.Seen)
    except TimeoutError:
        pass
    for n in range(10_500):
        out.send(wire.PUSH.encode(login.SessionDown(f"{n + 2 ** 200:064x}", "over")))
    result = taken
    """
    assert 9_900 < hostage.run(code, timeout=60) <= 10_000


def test_ten_thousand_logins_that_it_claims_hold_up_nobody(hostage: Hostage) -> None:
    code = """
    for n in range(10_000):
        out.send(wire.PUSH.encode(login.LoginNoted("x" * (n % 20_000), "\\u202e" * 100, n % 2 == 0, "claimed")))
    """
    hostage.run(code, timeout=60)
    house = hostage.house
    house.until(lambda: [r for r in house.audit() if r.get("why") == "claimed"], "they are written as they were told")


@pytest.mark.parametrize("what", ["b'x'", "b''", "b'{}' * 20_000", "bytes(150_000)", "fds", "random"])
def test_c1_c4_c5_c6_nonsense_costs_it_its_link(taken: Hostage, what: str) -> None:
    house = taken.house
    before, files = standing(house, ROLE), descriptors(house.pid_of("supervisor"))
    taken.run(TOOLS)
    code = """
    dice = random.Random(20260105)
    try:
        if what == "fds":
            socket.send_fds(out, [wire.PUSH.encode(login.SessionsEnd())], [0, 1, 2])
        else:
            out.send(dice.randbytes(20_000) if what == "random" else eval(what))
        while out.recv(65536):
            pass
    except (ConnectionResetError, BrokenPipeError):
        pass
    result = "closed"
    """
    with prompt(house, PATIENT):
        assert taken.run(code, what=what) == "closed"
    house.wait_back(ROLE, house.kill9(ROLE))
    assert standing(house, ROLE) == before
    house.until(lambda: descriptors(house.pid_of("supervisor")) <= files, "what it had opened for this is closed")


def test_the_keeper_hears_nothing_of_it(hostage: Hostage) -> None:
    hostage.run("""
    try:
        for number in range(5_000):
            part.keeper.sock.send(ipc.Message(number % 256, name="settings").encode())
    except BlockingIOError:
        pass
    """)


def test_nothing_that_it_has_forked_outlives_it(taken: Hostage) -> None:
    """It would be sent the passwords of people who log in at the next one, whose doors it holds too."""
    before = standing(taken.house, ROLE)
    nothing_stays(taken, "auth")
    assert standing(taken.house, ROLE) == before
    assert taken.house.login("alice").returncode == 0


def test_nothing_of_it_outlives_a_killed_keeper_and_the_next_start(taken: Hostage) -> None:
    """No service manager keeps anything here. It is the last test of this house."""
    house, uid = taken.house, taken.house.people["auth"].uid
    taken.run(STAY)
    assert house.daemon is not None
    house.daemon.kill()
    house.daemon.wait()
    left = set(processes_of({uid}))
    assert len(left) > 1, "it and its forks have stayed"
    house.start()
    assert set(processes_of({uid})) == {house.pid_of(ROLE)}
    assert not set(processes_of({uid})) & left
    assert "ended what parts of another keeper, which was killed, had left" in house.stderr()
