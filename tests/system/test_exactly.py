"""A service runs exactly as configured, and each part of ours with what it needs and nothing else: seen from outside.

What the kernel says in /proc is compared as a whole: a field that nobody thought of is a difference too.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import templates
from house import House
from people import People, Person
from space import Space

from policy import messages
from rootd.config import keys
from rootd.privileged import cgroup

pytestmark = pytest.mark.root

# of /proc/PID/status: what a process has used so far, or is doing at the moment
MEASURED = re.compile(r"(Vm|Rss|HugetlbPages|FDSize|SigQ|State|.*_ctxt_switches|CoreDumping|SigPnd|ShdPnd)")
# what is the same for every process of this machine that nobody has changed
MACHINE = re.compile(r"(Kthread|TracerPid|THP_|untag|Speculation|Cpus_|Mems_|x86_)")
NO_CAPABILITIES = {f"Cap{kind}": "0" * 16 for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
FIVE = f"{1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10:016x}"  # KILL SETGID SETUID SETPCAP NET_BIND_SERVICE
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

LIMITS = {
    "Max address space": ("as", '"1G"', 1 << 30),
    "Max core file size": ("core", "0", 0),
    "Max cpu time": ("cpu", "3600", 3600),
    "Max data size": ("data", '"256M"', 256 << 20),
    "Max file size": ("fsize", '"1G"', 1 << 30),
    "Max file locks": ("locks", "1000", 1000),
    "Max locked memory": ("memlock", '"64K"', 64 << 10),
    "Max msgqueue size": ("msgqueue", "4096", 4096),
    "Max nice priority": ("nice", "0", 0),
    "Max processes": ("nproc", "500", 500),
    "Max realtime priority": ("rtprio", "0", 0),
    "Max realtime timeout": ("rttime", "2000000", 2_000_000),
    "Max resident set": ("rss", '"1G"', 1 << 30),
    "Max pending signals": ("sigpending", "100", 100),
    "Max stack size": ("stack", '"4M"', 4 << 20),
}
FULL = f"""\
[socket.web]
listen = ["0.0.0.0:80", "[::]:80"]

[socket.local]
listen = "unix:@FOLDER@/run/sockets/full.sock"
group = "@webops@"
mode = "0640"

[service.full]
command = ["/bin/sleep", "1000000"]
user = "@jobs@"
group = "@webops@"
supplementary_groups = ["@www@"]
groups = ["everything"]
directory = "/usr/share"
umask = "027"
sockets = ["web", "local"]
environment = {{ FIRST = "a b", SECOND = "" }}
environment_file = "@FOLDER@/etc/env"
processes = 2
ready = {{ after = "0.1s" }}
restart = {{ policy = "always", backoff = "0.2s..10s", limit = "9 in 60s" }}
stop = {{ signal = "INT", timeout = "3s" }}
signals = ["HUP", "USR1"]
no_new_privileges = false
log = {{ size = "1M", keep = 2 }}
limits = {{ nofile = [2000, 3000], {", ".join(f"{key} = {text}" for key, text, _ in LIMITS.values())} }}
"""
BARE = """\
[service.bare]
command = ["/bin/sleep", "1000000"]
user = "@jobs@"
"""
TELLER = templates.plain("teller", "ready", more="ready = { notify = true }")


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    people.group("webops")
    services = {"full.toml": FULL, "bare.toml": BARE, "teller.toml": TELLER, "worker.toml": templates.WORKER}
    house = House(people, space, services, policy={})
    house.write("env", 'SECOND=from the file\nTHIRD="c = d"\n')
    with house.running():
        yield house


# what there is


def status(pid: int | str, *, measured: bool = False) -> dict[str, str]:
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: " ".join(value.split()) for name, _, value in lines if measured or not MEASURED.match(name)}


def environ(pid: int) -> dict[str, str]:
    content = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(word.split("=", 1) for word in content.rstrip("\0").split("\0"))


def limits(pid: int) -> dict[str, tuple[str, str]]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in lines}


def descriptors(pid: int) -> dict[int, tuple[str, int]]:
    """What each is, and its flags as open(2) names them (close-on-exec too)."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        info = Path(f"/proc/{pid}/fdinfo/{path.name}").read_text()
        found[int(path.name)] = (os.readlink(path), int(info.partition("flags:")[2].split()[0], 8))
    return found


def inode(link: str) -> str:
    return link.partition("[")[2].rstrip("]")


def listening(pid: int) -> dict[str, str]:
    """Inode of each listening socket in the namespace: tcp PORT, tcp6 PORT, or the path."""
    found = {}
    for table in ("tcp", "tcp6"):
        for row in (line.split() for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]):
            if row[3] == "0A":
                found[row[9]] = f"{table} {int(row[1].rpartition(':')[2], 16)}"
    for row in (line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]):
        if len(row) == 8 and row[3] == "00010000":  # __SO_ACCEPTCON
            found[row[6]] = row[7].removesuffix(".new")  # bound aside, then renamed
    return found


# what there must be


def expected_status(house: House, pid: int, name: str, who: Person, groups: set[int], **more: str) -> dict[str, str]:
    """For a process that leads its session, with no signal ignored, blocked or caught."""
    machine = {key: value for key, value in status("self").items() if MACHINE.match(key)}
    return {
        **machine,
        "Name": name, "Umask": "0022", "Tgid": str(pid), "Ngid": "0", "Pid": str(pid), "Threads": "1",
        "PPid": str(house.pid_of("privileged")),
        "Uid": " ".join([str(who.uid)] * 4), "Gid": " ".join([str(who.gid)] * 4),
        "Groups": " ".join(str(gid) for gid in sorted(groups)),
        **dict.fromkeys(("NStgid", "NSpid", "NSpgid", "NSsid"), str(pid)),
        **dict.fromkeys(("SigBlk", "SigIgn", "SigCgt"), "0" * 16), **NO_CAPABILITIES,
        "NoNewPrivs": "1", "Seccomp": "0", "Seccomp_filters": "0", **more,
    }  # fmt: skip


def built(house: House, service: str, process: str, **more: str) -> dict[str, str]:
    user = house.people["jobs"].name
    return {
        "PATH": SEARCH, "HOME": "/nonexistent", "USER": user, "LOGNAME": user, "SHELL": "/usr/sbin/nologin",
        "DURWARD_SERVICE": service, "DURWARD_PROCESS": process, **more,
    }  # fmt: skip


def gid_of(house: House, short: str) -> int:
    import grp

    return grp.getgrnam(house.people.name(short)).gr_gid


@pytest.mark.parametrize("instance", [0, 1])
def test_a_service_with_everything_set_has_exactly_that(house: House, instance: int) -> None:
    pid, jobs = house.pids("full")[instance], house.people["jobs"]
    webops = gid_of(house, "webops")
    assert status(pid) == expected_status(
        house, pid, "sleep", jobs, {webops, gid_of(house, "www")},
        Gid=" ".join([str(webops)] * 4), Umask="0027", NoNewPrivs="0",
    )  # fmt: skip
    assert environ(pid) == built(
        house, "full", f"full.{instance}", FIRST="a b", SECOND="from the file", THIRD="c = d",
        LISTEN_FDS="3", LISTEN_FDNAMES="web:web:local", LISTEN_PID=str(pid),
    )  # fmt: skip
    given = {name: (str(value), str(value)) for name, (_, _, value) in LIMITS.items()}
    assert limits(pid) == {**limits(house.daemon.pid), **given, "Max open files": ("2000", "3000")}
    assert os.readlink(f"/proc/{pid}/cwd") == "/usr/share"


def test_a_service_with_nothing_set_has_exactly_the_defaults(house: House) -> None:
    (pid,), jobs = house.pids("bare"), house.people["jobs"]
    assert status(pid) == expected_status(house, pid, "sleep", jobs, set(jobs.groups))
    assert environ(pid) == built(house, "bare", "bare")
    daemon = limits(house.daemon.pid)
    assert limits(pid) == {**daemon, "Max open files": ("1024", daemon["Max open files"][1])}
    assert os.readlink(f"/proc/{pid}/cwd") == "/"


@pytest.mark.parametrize("service", ["full", "bare"])
def test_what_it_executes_is_the_command_in_the_daemons_own_view_of_the_machine(house: House, service: str) -> None:
    pid, daemon = house.pids(service)[0], house.daemon.pid
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"/bin/sleep\x001000000\x00"
    assert os.readlink(f"/proc/{pid}/exe") == os.path.realpath("/bin/sleep")
    for entry in ("root", *(f"ns/{name}" for name in os.listdir(f"/proc/{pid}/ns"))):
        assert os.readlink(f"/proc/{pid}/{entry}") == os.readlink(f"/proc/{daemon}/{entry}")
    for entry in ("oom_score_adj", "timerslack_ns", "personality", "coredump_filter", "loginuid"):
        paths = [Path(f"/proc/{one}/{entry}") for one in (pid, daemon)]
        if paths[0].exists():
            assert paths[0].read_text() == paths[1].read_text(), entry
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, daemon)
    assert os.sched_getscheduler(pid) == os.sched_getscheduler(daemon)


@pytest.mark.parametrize("service", ["full", "bare"])
def test_its_descriptors_are_null_two_pipes_into_log_and_its_sockets(house: House, service: str) -> None:
    pid = house.pids(service)[0]
    found = descriptors(pid)
    flags = {fd: flags & ~0o100000 for fd, (_, flags) in found.items()}  # O_LARGEFILE
    assert {fd: flags[fd] for fd in (0, 1, 2)} == {0: os.O_RDWR, 1: os.O_WRONLY, 2: os.O_WRONLY}
    assert found[0][0] == "/dev/null"
    assert found[1][0] != found[2][0]
    readers = {link for link, _ in descriptors(house.pid_of("log")).values()}
    assert {found[1][0], found[2][0]} <= {link for link in readers if link.startswith("pipe:")}
    names = listening(pid)
    sockets = {fd: names[inode(link)] for fd, (link, _) in found.items() if fd > 2}
    path = f"{house.run_dir}/sockets/full.sock"
    assert sockets == ({3: "tcp 80", 4: "tcp6 80", 5: path} if service == "full" else {})
    assert all(flags[fd] == os.O_RDWR for fd in sockets)


def test_a_unix_socket_has_the_group_and_mode_that_are_configured(house: House) -> None:
    found = os.stat(f"{house.run_dir}/sockets/full.sock")
    assert (found.st_uid, found.st_gid, stat.filemode(found.st_mode)) == (0, gid_of(house, "webops"), "srw-r-----")


@pytest.mark.parametrize("service", ["full", "bare", "teller"])
def test_each_process_is_alone_in_its_cgroup(house: House, service: str) -> None:
    pid = house.pids(service)[0]
    groups = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    daemons = dict(line.split(":", 1) for line in Path(f"/proc/{house.daemon.pid}/cgroup").read_text().splitlines())
    own = groups.pop("0")
    parent = daemons.pop("0").removeprefix(":").rstrip("/")
    assert groups == daemons
    name = cgroup.name_of(str(house.run_dir))
    assert re.fullmatch(rf":{re.escape(parent)}/{re.escape(name)}/run-[0-9]+", own)
    mount = next(
        line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line
    )
    assert Path(mount + own.removeprefix(":"), "cgroup.procs").read_text().split() == [str(pid)]


def test_a_service_that_notifies_has_a_socket_of_its_own_for_it(house: House) -> None:
    (pid,), jobs = house.pids("teller"), house.people["jobs"]
    path = environ(pid)["NOTIFY_SOCKET"]
    assert environ(pid) == built(house, "teller", "teller", NOTIFY_SOCKET=path)
    assert Path(path).parent == house.run_dir / "notify"
    found = os.stat(path)
    assert (found.st_uid, found.st_gid) == (house.people["priv"].uid, jobs.gid)
    assert stat.filemode(found.st_mode) == "srw-rw----"


# the parts of ours


def test_privileged_is_its_own_account_with_five_capabilities_and_nothing_that_is_inherited(house: House) -> None:
    pid, account = house.pid_of("privileged"), house.people["priv"]
    ignored = int(status(house.daemon.pid)["SigIgn"], 16)  # what it ignored, its services would ignore too
    assert status(pid) == expected_status(
        house, pid, "durward-privile", account, set(account.groups) - {account.gid},
        PPid=str(house.daemon.pid), NoNewPrivs="0", CapPrm=FIVE, CapEff=FIVE, CapBnd=FIVE,
        SigIgn="0" * 16, SigCgt=f"{ignored | 1 << signal.SIGCHLD - 1:016x}",
    )  # fmt: skip
    assert Path(f"/proc/{pid}/environ").stat().st_uid == 0  # not dumpable: nobody of its uid may look into it


def test_privileged_holds_its_sockets_its_runs_its_links_and_no_other_descriptor(house: House) -> None:
    pid = house.pid_of("privileged")
    names, kinds = listening(pid), Counter[str]()
    for fd, (link, flags) in descriptors(pid).items():
        assert fd <= 2 or flags & os.O_CLOEXEC, (fd, link)
        number = inode(link)
        kinds[names.get(number, re.sub(r"^(socket|pipe):.*", r"\1", link))] += 1
    runs = 5  # full, full, bare, teller, worker; and the api
    assert kinds == {
        "/dev/null": 1, str(house.messages_file): 2, "anon_inode:[eventpoll]": 1,
        "anon_inode:[pidfd]": runs + 1 + 2,  # of supervisor and log too
        "socket": 4 + 2,  # keeper, spawner, supervisor, log; the notify sockets of teller and the api
        "pipe": 2,  # by which it is woken when a child has ended
        "/memfd:durward-generation (deleted)": 1,
        "tcp 80": 1, "tcp6 80": 1, f"tcp {templates.API_PORT}": 1,
        f"{house.run_dir}/sockets/full.sock": 1, f"{house.run_dir}/api.sock": 1,
    }  # fmt: skip


@pytest.mark.parametrize("part", ["supervisor", "auth", "log", "probe"])
def test_what_decides_has_no_capability_and_a_filter(house: House, part: str) -> None:
    short = {"supervisor": "sup"}.get(part, part)
    pid, account = house.pid_of(part), house.people[short]
    found = status(pid)
    assert found == expected_status(
        house, pid, f"durward-{part}"[:15], account, set(account.groups) - {account.gid}, PPid=str(house.daemon.pid),
        Seccomp="2", Seccomp_filters="1", SigIgn=status(house.daemon.pid)["SigIgn"], Umask=found["Umask"],
    )  # fmt: skip
    assert int(found["Umask"], 8) & 0o022 == 0o022
    assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
    assert limits(pid)["Max core file size"] == ("0", "0")


def test_the_apis_workers_have_no_capability_and_walls_around_them(house: House) -> None:
    account = house.people["api"]
    for pid in house.until(house.api_workers, "the api has workers"):
        found = status(pid)
        assert found["Uid"].split() == [str(account.uid)] * 4
        assert found["Gid"].split() == [str(account.gid)] * 4
        assert {key: found[key] for key in NO_CAPABILITIES} == NO_CAPABILITIES
        assert found["NoNewPrivs"] == "1"
        house.until(lambda pid=pid: status(pid)["Seccomp"] == "2", "its walls stand")


def test_the_keeper_is_alone_with_root(house: House) -> None:
    keeper = status(house.daemon.pid)
    assert keeper["Uid"] == "0 0 0 0"
    assert (keeper["Threads"], keeper["NoNewPrivs"], keeper["Seccomp"]) == ("1", "0", "0")
    parts = {part: status(house.pid_of(part))["Uid"] for part in ("privileged", "supervisor", "auth", "log", "probe")}
    assert not [part for part, uids in parts.items() if "0" in uids.split()]


def test_limits_of_this_machine_were_enough_for_these_claims() -> None:
    """The full service lowers each limit: where the daemon had less, the test above would have said nothing."""
    for key, _, value in LIMITS.values():
        hard = resource.getrlimit(keys.LIMITS[key])[1]
        assert hard == -1 or hard >= value, key


def test_a_service_is_told_by_status_as_it_is(house: House) -> None:
    full = house.status()["full"]
    assert isinstance(full, messages.ServiceInfo)
    assert [process.name for process in full.processes] == ["full:0", "full:1"]
    assert full.groups == ["everything"]
