"""Real servers that people run, each in its own way: on a socket of ours, on its own, as a daemon that slips away.

What a server takes an inherited socket by: gunicorn LISTEN_FDS, uvicorn --fd 3, nginx NGINX="3;". redis binds its own.
With -m slow, a hundred restarts of each, in about three minutes; -rP prints what the clients have seen.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import templates
from house import PREFIX, House
from people import People, end, processes_of
from space import Space

from policy import messages

pytestmark = pytest.mark.root

SHORT, LONG = 2, 100  # restarts
BUDGET = 5.0  # seconds of the test for each of them
NOTHING = "0" * 16  # of capabilities
LISTENING = "0A"  # of proc(5) net/tcp

UVICORN = """\
[socket.http]
listen = "0.0.0.0:80"

[service.site]
command = ["@PREFIX@/bin/uvicorn", "--fd", "3", "--app-dir", "@SERVICES@", "--no-access-log", "page:app"]
user = "@www@"
sockets = ["http"]
ready = { notify = true, timeout = "15s" }
stop = { signal = "TERM", timeout = "15s" }
"""

REDIS = """\
[service.redis]
command = [
    "@REDIS@", "--port", "0", "--unixsocket", "@FOLDER@/redis/sock", "--dir", "@FOLDER@/redis", "--appendonly", "yes",
    "--supervised", "systemd",
]
user = "@jobs@"
environment = { LD_LIBRARY_PATH = "@LIBRARIES@" }
ready = { notify = true, timeout = "15s" }
restart = { policy = "always", backoff = "0.05s..1s" }
stop = { signal = "TERM", timeout = "15s" }
"""

SLIPPERY = {
    "escaped": (("daemon", "daemon"), 'restart = { policy = "always", backoff = "0.05s..1s" }'),
    "classic": (("daemon", "daemon", "exit", "0"), 'restart = { policy = "never" }'),
    "stone": (("daemon", "setsid", "stone"), 'stop = { signal = "INT", timeout = "0.3s" }'),
}
OFF = 'autostart = false\nready = { after = "0.1s" }\n'

Make = Callable[..., House]


# on a socket of ours


@pytest.fixture
def site(make_house: Make, nginx: Callable[[House], str]) -> Callable[[str], House]:
    """A house whose site is that server."""

    def make(server: str) -> House:
        house = make_house(services={}, policy={})
        text = {
            "gunicorn": templates.SITE,
            "two processes of gunicorn": templates.SITE + "processes = 2\n",
            "uvicorn": UVICORN,
        }
        house.write("services.d/site.toml", nginx(house) if server == "nginx" else text[server])
        return house.start()

    return make


def restart(house: House, service: str = "site") -> None:
    """Every one of its processes is another one afterwards."""
    before = house.pids(service)
    _, ended = house.operate(messages.Restart(service))
    assert ended.ok, ended
    after = house.pids(service)
    assert len(after) == len(before)
    assert not set(after) & set(before)


def of(house: House, user: str) -> set[int]:
    return {pid for pid in processes_of({house.people[user].uid}) if house.space.holds(pid)}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def descriptors(pid: int) -> set[str]:
    return {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}


def listener(house: House) -> str:
    """The inode of the one socket that listens on port 80."""
    rows = [line.split() for line in Path(f"/proc/{house.pids('site')[0]}/net/tcp").read_text().splitlines()[1:]]
    (inode,) = (row[9] for row in rows if row[1].endswith(":0050") and row[3] == LISTENING)
    return inode


@pytest.mark.parametrize("server", ["nginx", "gunicorn", "uvicorn"])
def test_a_server_has_port_80_without_a_privilege_and_keeps_the_socket_through_a_restart(
    site: Callable[[str], House], server: str
) -> None:
    house = site(server)
    before, uid = listener(house), str(house.people["www"].uid)
    for _ in range(2):
        answer = house.http("/")
        assert (answer.status, int(answer.body.split()[0]) in of(house, "www")) == (200, True)
        for pid in of(house, "www"):
            status = status_of(pid)
            assert status["Uid"].split() == [uid] * 4
            assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {NOTHING}
        assert f"socket:[{before}]" in descriptors(house.pids("site")[0])
        restart(house)
        assert listener(house) == before
    house.stop()


@pytest.mark.parametrize("restarts", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)])
@pytest.mark.parametrize("server", ["nginx", "gunicorn", "two processes of gunicorn"])
def test_rolling_restarts_under_load_refuse_no_connection_and_fail_no_request(
    site: Callable[[str], House], server: str, restarts: int
) -> None:
    house = site(server)
    pids, begun = set(house.pids("site")), time.monotonic()
    with house.load(interval=0.002) as load:
        for _ in range(restarts):
            restart(house)
            pids.update(house.pids("site"))
    took, result = time.monotonic() - begun, load.result
    print(f"{server}: {restarts} restarts in {took:.1f} s:", {**result, "by": len(result["by"])})
    assert result["refused"] == 0, result
    assert result["failed"] == {}, result
    assert result["answered"] == result["tried"] > 50 * restarts
    assert len(pids) == (restarts + 1) * len(house.pids("site"))
    assert len(result["by"]) > restarts
    assert took < BUDGET * restarts
    house.stop()


def test_rolling_restarts_of_uvicorn_under_load_refuse_no_connection(site: Callable[[str], House]) -> None:
    """The connections on which it has not read a request when it is told to end, it resets: these are its own doing."""
    house = site("uvicorn")
    with house.load(interval=0.002) as load:
        for _ in range(SHORT):
            restart(house)
    result = load.result
    print(f"uvicorn: {SHORT} restarts:", {**result, "by": len(result["by"])})
    assert result["refused"] == 0, result
    assert set(result["failed"]) <= {"ECONNRESET", "closed without an answer"}, result
    assert len(result["by"]) == SHORT + 1
    house.stop()


# on a socket of its own


@pytest.fixture
def redis(make_house: Make) -> House:
    folder = PREFIX / "redis"
    found = shutil.which("redis-server") or shutil.which("redis-server", path=str(folder / "usr" / "bin"))
    if found is None:
        pytest.skip("redis-server is neither installed nor fetched by packaging/test")
    house = make_house(services={}, policy={})
    home, owner = house.folder / "redis", house.people["jobs"]
    home.mkdir(mode=0o700)
    os.chown(home, owner.uid, owner.gid)
    libraries = ":".join(sorted({str(path.parent) for path in folder.rglob("*.so.*")}))
    house.write("services.d/redis.toml", REDIS.replace("@REDIS@", found).replace("@LIBRARIES@", libraries))
    return house.start()


def say(house: House, *words: str) -> bytes:
    """One command to redis and its answer, in the protocol's own words."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10.0)
        sock.connect(str(house.folder / "redis" / "sock"))
        sock.sendall(" ".join(words).encode() + b"\r\n")
        return sock.recv(4096)


def test_redis_says_that_it_is_ready_and_keeps_its_data_through_a_restart_and_a_crash(redis: House) -> None:
    (pid,) = redis.pids("redis")
    assert say(redis, "SET", "door", "ward") == b"+OK\r\n"
    restart(redis, "redis")
    assert say(redis, "GET", "door") == b"$4\r\nward\r\n"
    (pid,) = redis.pids("redis")
    end(pid)
    seen = redis.wait_for(
        lambda s: s["redis"].state == "RUNNING" and s["redis"].processes[0].pid != pid, "it is started again"
    )
    assert seen["redis"].processes[0].exit == "killed by SIGKILL"
    assert say(redis, "GET", "door") == b"$4\r\nward\r\n"
    redis.until(lambda: "ready to accept connections" in redis.service_log("redis"), "it has said so")
    redis.stop()


# what slips away


@pytest.fixture(scope="module")
def slippery(people: People, space: Space) -> Iterator[House]:
    services = {
        f"{name}.toml": templates.plain(name, *words, more=OFF + more) for name, (words, more) in SLIPPERY.items()
    }
    with House(people, space, services, policy={}).running() as house:
        yield house


def begin(house: House, service: str) -> tuple[int, set[int]]:
    """Started: its first process, and the two others, which are in other sessions."""
    assert of(house, "jobs") == set()
    _, ended = house.operate(messages.Start(service))
    assert ended.ok, ended
    (first,) = house.pids(service)
    house.until(lambda: len(of(house, "jobs")) == 3, "the others are there")
    others = of(house, "jobs") - {first}
    assert all(os.getsid(pid) not in (first, os.getsid(first)) for pid in others)
    return first, others


def parent(pid: int) -> int:
    return int(status_of(pid)["PPid"])


def test_nothing_of_a_double_forked_daemon_is_left_after_a_stop(slippery: House) -> None:
    first, others = begin(slippery, "escaped")
    assert not {parent(pid) for pid in others} & {first, *others}, "nobody's children"
    _, ended = slippery.operate(messages.Stop("escaped"))
    assert ended.ok, ended
    assert of(slippery, "jobs") == set()


def test_nothing_of_a_double_forked_daemon_is_left_after_a_crash_of_its_first_process(slippery: House) -> None:
    first, others = begin(slippery, "escaped")
    end(first)
    slippery.wait_for(
        lambda s: s["escaped"].state == "RUNNING" and s["escaped"].processes[0].pid != first, "it is started again"
    )
    assert not of(slippery, "jobs") & {first, *others}
    slippery.until(lambda: len(of(slippery, "jobs")) == 3, "the new ones are there")
    _, ended = slippery.operate(messages.Stop("escaped"))
    assert ended.ok, ended
    assert of(slippery, "jobs") == set()


def test_nothing_is_left_when_the_first_process_of_a_daemon_ends_as_daemons_do(slippery: House) -> None:
    slippery.operate(messages.Start("classic"))
    seen = slippery.wait_for(lambda s: s["classic"].state == "EXITED", "it has ended")
    assert seen["classic"].processes[0].exit == "exit status 0"
    slippery.until(lambda: of(slippery, "jobs") == set(), "nothing of it is left")


def test_one_that_ignores_every_signal_is_gone_with_all_its_tree_when_its_time_is_up(slippery: House) -> None:
    first, others = begin(slippery, "stone")
    ignored = int(status_of(first)["SigIgn"], 16)
    can_be = {signo for signo in range(1, 32) if signo not in (signal.SIGKILL, signal.SIGSTOP)}
    assert {signo for signo in can_be if not ignored & 1 << (signo - 1)} == set()
    begun = time.monotonic()
    steps, ended = slippery.operate(messages.Stop("stone"))
    assert 0.3 <= time.monotonic() - begun < 5.0
    assert ended.ok, ended
    assert steps[:2] == ["stopping", "did not end in time, killed"]
    assert of(slippery, "jobs") == set(), (first, others)
