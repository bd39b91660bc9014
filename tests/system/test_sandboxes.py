"""The walls around supervisor, log, auth and probe: tried from inside, and missed when they are not there."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest
import templates
from hostage import Hostage
from house import House
from people import People
from space import Space

pytestmark = pytest.mark.root

ENDED = "durward-keeper: {} ended (exit status {}) and is started again"

ROLES = ("supervisor", "log", "auth", "probe")

TRY = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def call(function, *arguments):
    ctypes.set_errno(0)
    return 0 if function(*arguments) >= 0 else ctypes.get_errno()

def attempt(work):
    try:
        work()
    except OSError as error:
        return error.errno
    return 0

def opens(path, flags=os.O_RDONLY):
    return attempt(lambda: os.close(os.open(path, flags, 0o600)))

def speaks(family, kind):
    return attempt(lambda: socket.socket(family, kind).close())
"""


@pytest.fixture(scope="module")
def hostages(people: People) -> Iterator[dict[str, Hostage]]:
    """One house for each part: each of them can be made to run what a test says."""
    made: dict[str, Hostage] = {}
    spaces: list[Space] = []
    try:
        for role in ROLES:
            spaces.append(Space())
            house = House(people, spaces[-1], {"worker.toml": templates.WORKER}, {})
            made[role] = Hostage(house, role)
            house.start(wait=False)
        for role, hostage in made.items():
            hostage.house.until(hostage.house.answers, f"the house of {role} answers")
        yield made
        for hostage in made.values():
            hostage.house.stop()
    finally:
        for hostage in made.values():
            hostage.house.remove()
            hostage.close()
        for space in spaces:
            space.close()


@pytest.fixture(params=ROLES)
def inside(request: pytest.FixtureRequest, hostages: dict[str, Hostage]) -> Iterator[Hostage]:
    hostage = hostages[request.param]
    hostage.run(TRY)
    yield hostage
    hostage.resume()
    assert hostage.house.until(hostage.house.answers, "the house answers as before")


def test_no_program_can_be_executed(inside: Hostage) -> None:
    code = """
    result = [attempt(lambda: os.execv("/bin/true", ["true"])), call(libc.syscall, 322, 0, b"/bin/true", 0, 0, 0)]
    """
    answers = inside.run(code)
    assert answers == [errno.EPERM] * 2 or (inside.role == "auth" and set(answers) == {errno.EACCES})


def test_no_socket_to_the_network_can_be_made(inside: Hostage) -> None:
    """But by probe, whose work they are; auth has netlink, by which PAM tells the kernel's audit."""
    families = ["AF_PACKET", "AF_VSOCK", "AF_ALG", "AF_KEY"]
    families += [] if inside.role == "auth" else ["AF_NETLINK"]
    families += [] if inside.role == "probe" else ["AF_INET", "AF_INET6"]
    families += ["AF_UNIX"] if inside.role == "log" else []
    code = """
    kinds = [(name, kind) for name in families for kind in (1, 2, 3)]
    result = [one for one in kinds if speaks(getattr(socket, one[0], 15), one[1]) != 1]
    """
    assert inside.run(code, families=families) == []


def test_nobody_can_be_traced_or_looked_into(inside: Hostage) -> None:
    code = """
    buffer = ctypes.create_string_buffer(8)
    result = [
        call(libc.ptrace, 16, pid, 0, 0), call(libc.ptrace, 0, 0, 0, 0),
        call(libc.process_vm_readv, pid, buffer, 1, buffer, 1, 0), call(libc.syscall, 438, 0, 0, 0),
        attempt(lambda: os.kill(pid, 0)),
    ]
    """
    keeper = inside.house.daemon
    assert keeper is not None
    assert inside.run(code, pid=keeper.pid) == [errno.EPERM] * 5


def test_no_unlisted_path_can_be_opened(inside: Hostage) -> None:
    code = "result = {path: opens(path) for path in paths}"
    house = inside.house
    paths = ["/", "/etc/passwd", "/etc/hostname", "/bin/true", "/tmp", str(house.etc), str(house.state), "/root"]
    if inside.role != "supervisor":
        paths += [str(house.run_dir / "supervisor"), "/proc/1/status"]
    if inside.role == "auth":
        paths = ["/root", "/tmp", "/home", str(house.log), str(house.state), str(house.run_dir / "supervisor")]
    assert set(inside.run(code, paths=paths).values()) == {errno.EACCES}


def test_nothing_can_be_written_outside_of_its_own_folder(inside: Hostage) -> None:
    house = inside.house
    code = "result = {path: opens(path, os.O_WRONLY | os.O_CREAT) for path in paths}"
    folders = ["/tmp", "/var/tmp", "/dev/shm", "/run", str(house.run_dir), str(house.etc), "/etc/pam.d"]
    paths = [f"{folder}/hostile" for folder in folders] + ["/etc/shadow", str(house.etc / "durward.toml")]
    if inside.role != "log":
        paths += [str(house.log / "audit" / "audit.jsonl"), str(house.log / "hostile")]
        paths += [str(house.state / "choices" / "hostile"), str(house.state / "hostile")]
    answers = inside.run(code, paths=paths)
    assert set(answers.values()) <= {errno.EACCES, errno.EPERM, errno.EROFS}, answers


def test_no_account_namespace_or_filter_can_be_changed(inside: Hostage) -> None:
    code = """
    result = [
        attempt(lambda: os.setuid(0)), attempt(lambda: os.setgid(0)), attempt(lambda: os.setgroups([0])),
        call(libc.unshare, 0x10000000), call(libc.prctl, 4, 1, 0, 0, 0), call(libc.mount, b"/", b"/", 0, 4096, 0),
        attempt(lambda: os.chroot("/")), call(libc.bpf if hasattr(libc, "bpf") else libc.acct, b"/x"),
    ]
    """
    assert set(inside.run(code)) <= {errno.EPERM, errno.EACCES}


def test_the_kernel_says_that_it_is_walled_in(inside: Hostage) -> None:
    pid = inside.house.pid_of(inside.role)
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "1")
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert set(fields["Uid"].split()) == {str(inside.house.people[SHORT[inside.role]].uid)}


SHORT = {"supervisor": "sup", "log": "log", "auth": "auth", "probe": "probe"}
FAMILIES = "socket(AF_INET), socket(AF_INET6), socket(AF_UNIX), socket(AF_NETLINK)"
DATAGRAMS = ", ".join(f"a datagram's socket({family})" for family in ("AF_INET", "AF_INET6", "AF_UNIX"))
HOLES = {
    ("supervisor", "no-filter"): f"execve, {FAMILIES}, ptrace",
    ("supervisor", "no-walls"): "open of a path that is not listed",
    ("log", "no-filter"): f"execve, {FAMILIES}, ptrace",
    ("log", "no-walls"): "open of a path that is not listed",
    # its programs are Landlock's business, where it needs one
    ("auth", "no-filter"): "socket(AF_INET), socket(AF_INET6), ptrace",
    ("probe", "no-filter"): f"execve, socket(AF_NETLINK), {DATAGRAMS}, ptrace",
    ("probe", "no-walls"): "open of a path that is not listed",
}


@pytest.mark.parametrize(("role", "how"), list(HOLES))
def test_a_part_without_its_walls_refuses_to_go_on(make_house: Callable[..., House], role: str, how: str) -> None:
    house = make_house({}, {})
    hostage = Hostage(house, role, how)
    try:
        house.start(wait=False)
        house.until(lambda: ENDED.format(role, 70) in house.stderr(), f"the keeper says that {role} ended")
        said = next(line for line in house.stderr().splitlines() if line.startswith("RuntimeError"))
        assert (
            said.replace("execve, " if role == "auth" else "", "")
            == f"RuntimeError: the sandbox does not hold: {HOLES[role, how]} is possible"
        )
        house.stop()
    finally:
        hostage.close()


def test_an_auth_without_walls_becomes_false_and_goes_on_no_more_than_that(make_house: Callable[..., House]) -> None:
    """It is let execute unix_chkpwd where PAM needs that: whether nothing else can be is tried with `false`."""
    house = make_house({}, {})
    hostage = Hostage(house, "auth", "no-walls")
    try:
        house.start(wait=False)
        seen = house.until(
            lambda: [status for status in (1, 70) if ENDED.format("auth", status) in house.stderr()],
            "the keeper says that auth ended",
        )
        assert seen == [1] or "open of a path that is not listed is possible" in house.stderr()
        house.stop()
    finally:
        hostage.close()
