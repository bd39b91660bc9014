"""An api that has been taken over: it can use what comes by while it is, and nothing and nobody else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import pytest
import templates
from hostage import Hostage, descriptors, prompt, standing
from house import House

from policy import messages

pytestmark = pytest.mark.root

ROLE = "api"
PATIENT = 1.0  # seconds: far more than a status takes
TOOLS = """
import contextlib, os, random, socket
from policy import login, messages, wire

RUN = os.environ["DURWARD_RUN"]
EVERYTHING = [
    messages.Status(), messages.Status("site"), messages.Describe("site"), messages.Watch(), messages.OpenLog("site"),
    messages.OpenAudit(), messages.OpenAudit(1), messages.ReadPolicy(),
    messages.WhatMayI(), messages.WhatMayI("restart", "site"), messages.Start("site"), messages.Stop("site"),
    messages.Restart("site"), messages.Restart("site", hard=True), messages.Signal("site", "TERM"), messages.Reload(),
    messages.Scale("site", 2), messages.Cancel(9999), messages.Revoke(everyone=True), messages.Revoke(user="root"),
    messages.Shutdown(),
]

def door(name="control.sock"):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(f"{RUN}/{name}")  # before the time limit: with one, a full queue is an error and not a wait
    sock.settimeout(10.0)
    return sock

def told(packet, name="control.sock", fds=()):
    # what is answered to one packet; b"" when the connection is closed
    with door(name) as sock:
        try:
            socket.send_fds(sock, [packet], fds) if fds else sock.send(packet)
            return sock.recv(65537)
        except (BrokenPipeError, ConnectionResetError, PermissionError):  # the kernel itself refuses, from 6.16 on
            return b""

def ask(session, command, source="127.0.0.1"):
    packet = told(wire.REQUEST.encode(messages.Request(1, command, session, source)))
    return wire.ANSWER.decode(packet).reply if packet else None

def kind(reply):
    return getattr(reply, "kind", type(reply).__name__)
"""


@pytest.fixture
def hostage(taken: Hostage) -> Iterator[Hostage]:
    """While a test goes on root.sock answers as always; afterwards nobody is another process."""
    before = standing(taken.house, "www")
    taken.run(TOOLS)
    with prompt(taken.house, PATIENT):
        yield taken
    assert standing(taken.house, "www") == before
    assert taken.house.http("/").status == 200


def acted(house: House) -> list[object]:
    """What has been decided in somebody's favour that changes something, and what was done."""
    changing = {"start", "stop", "restart", "signal", "reload", "revoke", "shutdown"}
    return [
        (record["kind"], record.get("user"), record.get("action"), record.get("deed"))
        for record in house.audit()
        if (record["kind"] == "decision" and record["allowed"] and record["action"] in changing)
        or (record["kind"] == "deed" and record["deed"] in ("spawn", "signal", "commit", "shutdown"))
    ]


def test_a1_c9_without_a_session_of_hers_nothing_can_be_asked_in_alices_name(hostage: Hostage) -> None:
    """She is logged in, by way of the other worker. Her name, uid, the session's hash: nothing of that is a session."""
    house = hostage.house
    alice = house.token("alice")
    before = acted(house)
    known = hashlib.sha256(alice.encode()).hexdigest()
    guesses = ["", "0" * 64, known, alice[::-1], alice[:12] + known[12:], *(f"{n:064x}" for n in range(50))]
    code = "result = sorted({kind(ask(session, command)) for session in guesses for command in EVERYTHING})"
    assert hostage.run(code, guesses=guesses) == ["no-session"]
    assert acted(house) == before
    assert house.api("GET", "/services", alice).status == 200


def test_a1_a2_an_altered_session_is_none(hostage: Hostage) -> None:
    house = hostage.house
    bob = house.token("bob")
    code = """
    flipped = [bob[:i] + f"{int(bob[i], 16) ^ bit:x}" + bob[i + 1:] for i in range(64) for bit in (1, 2, 4, 8)]
    spelled = [bob.upper(), bob[:-1], bob + "0", bob + "\\n", " " + bob, bob + "\\0"]
    spelled += [bob.replace("a", "\\uff41") + "\\u200b"]
    raw = b'{"id":1,"command":{"do":"status"},"session":%s}'
    import json
    result = [
        sorted({kind(ask(session, messages.Status())) for session in flipped}),
        [told(raw % json.dumps(session).encode()).decode() for session in spelled if session != bob],
        kind(ask(bob, messages.Status())),
    ]
    """
    flipped, spelled, real = hostage.run(code, bob=bob)
    assert flipped == ["no-session"]
    assert set(spelled) <= {""}
    assert real == "Services"


def test_a16_an_ended_session_is_none(hostage: Hostage) -> None:
    house = hostage.house
    alice = house.token("alice")
    assert house.api("DELETE", "/session", alice).status in (200, 204)
    before = acted(house)
    code = "result = sorted({kind(ask(alice, command)) for command in EVERYTHING})"
    assert hostage.run(code, alice=alice) == ["no-session"]
    assert acted(house) == before


def test_a3_a_session_of_another_instance_is_none(hostage: Hostage, make_house: Callable[..., House]) -> None:
    other = make_house({}, {})
    other.start()
    alice = other.token("alice")
    assert other.api("GET", "/whoami", alice).status == 200
    code = "result = sorted({kind(ask(alice, command)) for command in EVERYTHING})"
    assert hostage.run(code, alice=alice) == ["no-session"]
    other.stop()


def test_a6_a_session_that_came_by_gives_its_owners_rights_and_no_more_and_is_seen(hostage: Hostage) -> None:
    """bob may look. Saying that he is somebody else, or comes from root's terminal, changes nothing."""
    house = hostage.house
    bob = house.token("bob")
    before = acted(house)
    code = """
    answers = {type(command).__name__: kind(ask(bob, command, "203.0.113.9")) for command in EVERYTHING[-12:]}
    names = [b'"user":"root"', b'"uid":0', b'"identity":{"user":"root"}', b'"groups":["root"]', b'"root":true']
    raw = b'{"id":1,"command":{"do":"stop","service":"site"%s},"session":"' + bob.encode() + b'"%s}'
    claims = [told(raw % (b"," + name, b"")) for name in names] + [told(raw % (b"", b"," + name)) for name in names]
    result = [answers, sorted({claim.decode() for claim in claims}), kind(ask(bob, EVERYTHING[0]))]
    """
    answers, claims, looks = hostage.run(code, bob=bob)
    assert answers.pop("WhatMayI") == "Decided"
    assert answers.pop("Cancel") == "unknown", "there is no such operation"
    assert set(answers.values()) == {"forbidden"}, answers
    assert claims == [""]
    assert looks == "Services"
    assert acted(house) == before
    refused = house.until(
        lambda: (
            [r for r in house.audit() if r.get("from") == "203.0.113.9" and r["action"] == "shutdown"]
            and [r for r in house.audit() if r.get("from") == "203.0.113.9" and not r["allowed"]]
        ),
        "it is written down",
    )
    assert {str(record["action"]) for record in refused} >= {
        "start",
        "stop",
        "restart",
        "signal",
        "scale",
        "reload",
        "shutdown",
    }
    assert {record["user"] for record in refused} == {templates.names("@bob@")}


def test_revoke_all_ends_what_it_has_seen(hostage: Hostage) -> None:
    house = hostage.house
    bob = house.token("bob")
    assert hostage.run("result = kind(ask(bob, messages.Status()))", bob=bob) == "Services"
    assert isinstance(house.ask(messages.Revoke(everyone=True)), messages.Done)
    assert hostage.run("result = kind(ask(bob, messages.Status()))", bob=bob) == "no-session"


def test_c1_c4_c5_ten_thousand_messages_that_are_none_close_their_connection_and_nothing_else(hostage: Hostage) -> None:
    house = hostage.house
    files = descriptors(house.pid_of("supervisor"))
    bob = house.token("bob")
    before = acted(house)
    code = """
    dice = random.Random(20260103)
    good = wire.REQUEST.encode(messages.Request(1, messages.Stop("site"), bob))
    def bad():
        choice = dice.randrange(6)
        if choice == 0:
            return b""
        if choice == 1:
            return dice.randbytes(dice.choice((1, 10, 1000, 65536)))
        if choice == 2:
            return good[: dice.randrange(len(good))]
        if choice == 3:
            return good[:-1] + b" " * (65537 - len(good)) + b"}"
        if choice == 4:
            return b"[" * dice.choice((1, 1000, 60_000))
        at = dice.randrange(len(good) - 70)
        return good[:at] + bytes([good[at] ^ 0x80]) + good[at + 1:]
    answers = set()
    for number in range(10_000):
        answers.add(told(bad()))
        if number % 500 == 0:
            part.notify()
    result = sorted(answer.decode() for answer in answers)
    """
    assert hostage.run(code, timeout=60, bob=bob) == [""]
    assert acted(house) == before
    house.until(lambda: descriptors(house.pid_of("supervisor")) <= files + 2, "no more than a status that is asked")
    assert house.api("GET", "/services", bob).status == 200


def test_c8_ten_thousand_requests_that_are_good_hold_up_nobody(hostage: Hostage) -> None:
    """Each is decided and recorded, or put off while the audit log has much to do; root is always answered."""
    house = hostage.house
    code = """
    packet = wire.REQUEST.encode(messages.Request(1, messages.Restart("site"), bob))
    held = [door() for _ in range(100)]
    kinds = set()
    for _ in range(100):
        for sock in held:
            sock.send(packet)
        kinds |= {kind(wire.ANSWER.decode(sock.recv(65537)).reply) for sock in held}
        part.notify()
    for sock in held:
        sock.close()
    result = sorted(kinds)
    """
    kinds = hostage.run(code, timeout=60, bob=house.token("bob"))
    assert "forbidden" in kinds
    assert set(kinds) <= {"forbidden", "later"}


def test_c8_a_thousand_connections_hold_up_nobody_but_the_api(hostage: Hostage) -> None:
    house = hostage.house
    code = """
    held, full = [], 0
    for number in range(1_000):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            sock.connect(f"{RUN}/{name}")
            held.append(sock)
        except BlockingIOError:
            full += 1
            sock.close()
    result = [len(held), full]
    """
    for name in ("control.sock", "auth.sock"):
        held, full = hostage.run(code, name=name)
        assert held > 60
        assert held + full == 1_000
    assert house.status()
    hostage.run("[sock.close() for sock in held]\nheld.clear()")
    assert house.api("GET", "/services", house.token("bob")).status == 200


def test_c6_descriptors_that_are_attached_are_not_kept(hostage: Hostage) -> None:
    house = hostage.house
    before = {role: descriptors(house.pid_of(role)) for role in ("supervisor", "auth")}
    code = """
    good = {"control.sock": wire.REQUEST.encode(messages.Request(1, messages.Status(), bob)),
            "auth.sock": wire.ASK.encode(login.Logout("0" * 64))}
    result = sorted({bool(told(good[name], name, [0, 1, 2] * 20)) for name in good for _ in range(500)})
    """
    answered = hostage.run(code, bob=house.token("bob"))
    assert answered == [False]
    for role, count in before.items():
        house.until(lambda role=role, count=count: descriptors(house.pid_of(role)) <= count, f"{role} has closed all")  # type: ignore[misc]


def test_c16_watchers_that_read_nothing_are_dropped(hostage: Hostage) -> None:
    house = hostage.house
    code = """
    deaf = []
    for _ in range(200):
        sock = door()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.send(wire.REQUEST.encode(messages.Request(1, messages.Watch(), bob)))
        deaf.append(sock)
    """
    hostage.run(code, bob=house.token("bob"))
    house.login("alice")
    assert house.cli("alice", "restart", "site").returncode == 0
    hostage.run("[sock.close() for sock in deaf]\ndeaf.clear()")


def test_c5_auth_takes_what_is_no_request_and_people_log_in_meanwhile(hostage: Hostage) -> None:
    house = hostage.house
    code = """
    dice = random.Random(20260104)
    good = wire.ASK.encode(login.Logout("0" * 64))
    peer = wire.ASK.encode(login.PeerLogin())
    bad = [b"", peer, good[:-1], good + b" " * 65537, b"{}", b"[" * 60_000, b'{"do":"login","user":"root"}',
           b'{"do":"login","user":"root","password":"x","uid":0}', *(dice.randbytes(n) for n in (1, 100, 60_000))]
    result = sorted({told(packet, "auth.sock").decode() for _ in range(200) for packet in bad})
    """
    assert hostage.run(code) == [""]
    assert house.token("alice")


def test_nothing_of_the_machine_is_open_to_it(hostage: Hostage) -> None:
    house = hostage.house
    code = """
    import ctypes
    def failure(work):
        try:
            work()
        except OSError as error:
            return error.errno
        return 0
    def reads(path):
        return failure(lambda: os.close(os.open(path, os.O_RDONLY)))
    result = [
        {path: reads(path) for path in paths},
        {pid: failure(lambda: os.kill(pid, 0)) for pid in pids},
        failure(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(f"{RUN}/root.sock")),
        failure(lambda: os.setuid(0)), failure(lambda: os.open(f"{RUN}/x", os.O_CREAT | os.O_WRONLY)),
    ]
    """
    inside = ("audit/audit.jsonl", "site/stdout.log")
    paths = [str(house.log / name) for name in inside] + ["/etc/shadow", str(house.etc / "durward.toml")]
    paths += [str(house.run_dir / "supervisor"), str(house.run_dir / "auth"), str(house.state / "log")]
    pids = [house.pid_of(role) for role in ("privileged", "supervisor", "log", "auth", "probe")] + house.pids("site")
    files, processes, *others = hostage.run(code, paths=paths, pids=pids)
    assert set(files.values()) == {13}, files
    assert set(processes.values()) == {1}
    assert set(others) <= {1, 13}
