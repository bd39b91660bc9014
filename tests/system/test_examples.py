"""packaging/examples: each file as it is shipped, with the real server, in one house.

Replaced in them, word by word, is only what a machine of the tests cannot have: directories, accounts, and where a
program is. What packaging/test has fetched runs with its own libraries.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from house import HERE, PREFIX, House
from people import People
from space import Space

from policy import messages

pytestmark = pytest.mark.root

EXAMPLES = HERE.parents[1] / "packaging" / "examples"
FILES = {path.stem for path in (EXAMPLES / "services.d").iterdir()}
DEMO = {"site", "worker", "report"}  # of packaging/run; site is on port 80 like nginx
PORTS = {"nginx": 80, "gunicorn": 8001, "uvicorn": 8002, "node": 8003, "go": 9100}
PROGRAMS = {  # where an example has it: which folder of packaging/test's, and its name, which may have a version
    "/usr/sbin/nginx": ("nginx", "nginx"),
    "/usr/sbin/php-fpm8.2": ("php", "php-fpm[0-9]*"),
    "/usr/bin/php": ("php", "php[0-9]*"),
    "/usr/bin/redis-server": ("redis", "redis-server"),
    "/usr/bin/node": ("", "node"),
    "/usr/bin/prometheus-node-exporter": ("node-exporter", "prometheus-node-exporter"),
}
ACCOUNTS = {"www-data": "@www@", "www-demo": "@www@", "redis": "@jobs@", "prometheus": "@jobs@", "jobs-demo": "@jobs@"}


class Shop(House):
    """A house of all examples that this machine has the programs for."""

    def __init__(self, people: People, space: Space) -> None:
        super().__init__(people, space, services={}, policy={})
        self.missing: dict[str, str] = {}  # example: which program of it is neither installed nor fetched
        shutil.copytree(EXAMPLES / "programs", self.folder / "srv")
        folders = ("srv/nginx/var", "srv/laravel/jobs/mail", "srv/laravel/jobs/default", "srv/redis-data")
        for folder in folders:
            (self.folder / folder).mkdir(parents=True)
        for path in (self.folder / "srv", *(self.folder / "srv").rglob("*")):  # whatever the umask of a checkout was
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        for folder in folders:
            owner = self.people["jobs" if "redis" in folder else "www"]
            os.chown(self.folder / folder, owner.uid, owner.gid)
        for name in sorted(FILES):
            text = self.filled((EXAMPLES / "services.d" / f"{name}.toml").read_text(), name)
            if name not in self.missing:
                self.write(
                    f"services.d/{name}.toml", text.replace("0.0.0.0:80", "0.0.0.0:8080") if name in DEMO else text
                )
        for path in (self.folder / "srv").rglob("*.conf"):
            path.write_text(self.filled(path.read_text()))
        text = (EXAMPLES / "policy.d" / "20-examples.toml").read_text()
        self.write("policy.d/20-examples.toml", text.replace("webops", self.people.name("webops")))

    def start(self, wait: bool = True) -> House:
        super().start(wait=False)
        self.until(self.answers, "root.sock answers")
        self.wait_for(
            lambda found: all(one.state in ("RUNNING", "EXITED") for name, one in found.items() if name != "cron"),
            "all run, or are done: but what has its time",
        )
        return self

    def filled(self, text: str, name: str = "") -> str:
        for program, (folder, file) in PROGRAMS.items():
            if f'"{program}"' in text:
                found = self.program_of(program, folder, file)
                text = text.replace(f'"{program}"', f'"{found}"')
                if not found:
                    self.missing[name] = program
        for account, ours in ACCOUNTS.items():
            text = text.replace(f'user = "{account}"', f'user = "{ours}"')
        text = re.sub(r"/srv/\w+/venv/", f"{PREFIX}/", text).replace("/opt/durward/share/durward/demo", "/srv")
        text = text.replace("/srv", f"{self.folder}/srv").replace("/opt/durward/", f"{PREFIX}/")
        return text.replace("/run/durward/", f"{self.run_dir}/").replace(
            "/var/lib/redis", f"{self.folder}/srv/redis-data"
        )

    def program_of(self, program: str, folder: str, file: str) -> str:
        """Where it is: installed, or a script that runs what was fetched with the libraries that came with it."""
        if installed := sorted(Path(program).parent.glob(file)):
            return str(installed[-1])
        place = PREFIX / folder
        fetched = sorted((place / program.lstrip("/")).parent.glob(file))
        if not fetched:
            return ""
        script = self.folder / Path(program).name
        libraries = ":".join(sorted({str(path.parent) for path in place.rglob("*.so.*")}))
        script.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {fetched[-1]} "$@"\n')
        script.chmod(0o755)
        return str(script)

    def has(self, name: str) -> None:
        if name in self.missing:
            pytest.skip(f"{self.missing[name]} is neither installed nor fetched by packaging/test")

    def page(self, name: str) -> str:
        """What the server answers, which begins with who it is."""
        path = "/php/" if name == "php-fpm" else "/metrics" if name == "go" else "/"
        answer = self.http(path, port=PORTS.get(name, 80))
        assert answer.status == 200, answer
        return answer.body.decode()

    def restart(self, name: str) -> None:
        before = self.pids(name)
        _, ended = self.operate(messages.Restart(name))
        assert ended.ok, ended
        assert not set(self.pids(name)) & set(before)


@pytest.fixture(scope="module")
def shop(people: People, space: Space) -> Iterator[Shop]:
    house = Shop(people, space)
    with house.running():
        yield house


def test_the_readme_shows_each_in_ten_lines_and_names_files_that_are_there() -> None:
    text = (EXAMPLES / "README.md").read_text()
    sections = {part.partition("\n")[0]: part for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]}
    assert {name for part in sections.values() for name in re.findall(r"services\.d/([\w-]+)\.toml", part)} == FILES
    for title, part in sections.items():
        shown = part.partition("One of your own")[0].splitlines()[1:]
        assert len([line for line in shown if line and not line.startswith("```")]) <= 10, title
        named = re.findall(r"`((?:services\.d|programs|policy\.d|container)/[^`]*)`", part)
        assert all((EXAMPLES / name).exists() for name in named), title


@pytest.mark.parametrize("name", ["nginx", "gunicorn", "node", "uvicorn", "go"])
def test_a_web_server_answers_through_a_rolling_restart(shop: Shop, name: str) -> None:
    """uvicorn resets what it has accepted and not read, and the Go server what it is answering: refused is none."""
    shop.has(name)
    before = shop.page(name)
    with shop.load(interval=0.002, port=PORTS[name]) as load:
        load.begun()
        shop.restart(name)
    assert load.result["refused"] == 0, load.result
    assert name in ("uvicorn", "go") or load.result["failed"] == {}, load.result
    if name == "go":
        assert "node_load1 " in before
    else:
        assert before.startswith(f"{name}, process ")
        assert shop.page(name) != before
    if name == "node":
        shop.until(lambda: "ended in order\n" in shop.service_log("node"), "the old process has said so")


def test_php_fpm_answers_nginx_through_a_rolling_restart(shop: Shop) -> None:
    shop.has("nginx")
    shop.has("php-fpm")
    before, over = shop.page("php-fpm"), threading.Event()

    def ask() -> list[str]:
        answers = [before]
        while not over.is_set():
            answers.append(shop.page("php-fpm"))
        return answers

    with ThreadPoolExecutor() as pool:
        asking = pool.submit(ask)
        try:
            shop.restart("php-fpm")
        finally:
            over.set()
        answers = asking.result()
    assert all(answer.startswith("php-fpm, process ") for answer in answers)
    assert shop.page("php-fpm") not in answers[:1]


def test_redis_answers_and_has_its_data_after_a_restart(shop: Shop) -> None:
    shop.has("redis")

    def say(words: str) -> bytes:
        with shop.space.connect("127.0.0.1", 6379) as sock:
            sock.sendall(words.encode() + b"\r\n")
            return sock.recv(4096)

    assert say("PING") == b"+PONG\r\n"
    assert say("SET door ward") == b"+OK\r\n"
    shop.restart("redis")
    assert say("GET door") == b"$4\r\nward\r\n"


def test_a_worker_of_a_queue_ends_its_job_before_it_is_stopped_and_the_other_queue_works_on(shop: Shop) -> None:
    shop.has("laravel")
    assert {name: len(shop.pids(name)) for name in ("queue-default", "queue-mail")} == {
        "queue-default": 2,
        "queue-mail": 2,
    }

    def log(queue: str) -> str:
        return shop.service_log(f"queue-{queue}.0") + shop.service_log(f"queue-{queue}.1")

    def add(queue: str, name: str, milliseconds: int) -> None:
        folder = shop.folder / "srv" / "laravel" / "jobs" / queue
        (folder / name).write_text(str(milliseconds))
        (folder / name).rename(folder / f"{name}.new")

    add("mail", "long", 500)
    shop.until(lambda: "long: processing" in log("mail"), "it is being worked on")
    _, ended = shop.operate(messages.Stop("queue-mail"))
    assert ended.ok, ended
    shop.until(lambda: "long: done" in log("mail"), "it was not stopped before its job was done")
    assert [one.exit for one in shop.status()["queue-mail"].processes] == ["exit status 0"] * 2
    add("default", "short", 0)
    shop.until(lambda: "short: done" in log("default"), "the other one works on")


def test_a_job_by_the_clock_has_its_next_time_and_can_be_run_at_once(shop: Shop) -> None:
    assert datetime.fromisoformat(shop.status()["cron"].next).minute % 5 == 0
    _, ended = shop.operate(messages.Start("cron"))
    assert ended.ok, ended
    shop.until(lambda: "Mounted on" in shop.service_log("cron"), "it has done its work")


def test_its_policy_lets_a_group_restart_the_web_and_nothing_else(shop: Shop) -> None:
    alice = shop.token("alice")
    assert shop.api("POST", "/services/gunicorn/restart?wait=true", alice, {}).status == 200
    assert shop.api("POST", "/services/gunicorn/stop", alice, {}).status == 403
    assert shop.api("POST", "/services/redis/restart", alice, {}).status == 404, "which she may not even view"


LOGGED = {
    "nginx": ("stdout", r'"GET / HTTP/1\.1" 200\n'),
    "gunicorn": ("stdout", r'"GET / HTTP/1\.1" 200 '),
    "uvicorn": ("stdout", r'"GET / HTTP/1\.1" 200 OK\n'),
    "node": ("stdout", r"GET /\n"),
    "go": ("stderr", r"Listening on systemd activated listeners"),
    "php-fpm": ("stderr", r"NOTICE: using inherited socket fd=3(?s:.*)php: asked"),
    "redis": ("stdout", r"[Rr]eady to accept connections"),
    "worker": ("stdout", r"^worker: ready\n"),
    "report": ("stdout", r"^report: \d+ % of the disk is in use\n"),
    "site.0": ("stderr", r"Booting worker"),
}


@pytest.mark.parametrize("name", LOGGED)
def test_what_it_says_is_in_its_log(shop: Shop, name: str) -> None:
    shop.has(name)
    stream, expected = LOGGED[name]
    if name in PORTS or name == "php-fpm":
        shop.page(name)
    shop.until(lambda: re.search(expected, shop.service_log(name, stream)), f"{name} has said {expected}")
