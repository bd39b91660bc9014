"""A whole Durward of the tests' own: its accounts, configuration, network namespace, and everything to look at it with.

Rule 1: the code under test is the installed one (DURWARD_PREFIX, or the prefix of the running interpreter).
Rule 2: nothing here waits for luck: each wait is on a descriptor, an event or a condition, and has an end.
Rule 3: after stop() nothing is left, and that is asserted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import templates
from asker import PATIENCE, Asker
from loading import Load
from people import FOLDER_PREFIX, FOLDERS, PAM_SERVICE, People, Person, processes_of, remove_cgroups
from space import Space

from policy import messages

HERE = Path(__file__).resolve().parent
PREFIX = Path(os.environ.get("DURWARD_PREFIX") or sys.prefix)
TICK = 0.02  # seconds between two looks at a condition that no descriptor tells of

T = TypeVar("T")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)


class House:
    """A daemon with its tree in /run; `services` and `policy` are file names and texts, by default of templates."""

    def __init__(
        self,
        people: People,
        space: Space,
        services: dict[str, str] | None = None,
        policy: dict[str, str] | None = None,
        folders: str | Path = FOLDERS,
        **settings: str,
    ) -> None:
        self.people, self.space = people, space
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=folders))
        self.folder.chmod(0o755)
        self.etc, self.run_dir = self.folder / "etc", self.folder / "run"
        self.log, self.state = self.folder / "log", self.folder / "state"
        self.programs = self.folder / "services"
        self.messages_file = self.folder / "stderr.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.program = [str(PREFIX / "bin" / "durward-rootd")]
        self.stdin = subprocess.DEVNULL  # of the keeper and all that it forks
        self.given: tuple[int, ...] = ()  # descriptors that its command hands over
        self.loads: list[Load] = []
        shutil.copytree(HERE / "services", self.programs, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (self.programs, *self.programs.iterdir()):
            path.chmod(0o755)
        for path in (self.etc, self.etc / "services.d", self.etc / "policy.d"):
            path.mkdir()
            os.chown(path, 0, people["priv"].gid)
            path.chmod(0o750)
        self.write("durward.toml", templates.settings(self, PAM_SERVICE, **settings))
        for name, text in (templates.SERVICES if services is None else services).items():
            self.write(f"services.d/{name}", text)
        for name, text in (templates.POLICY if policy is None else policy).items():
            self.write(f"policy.d/{name}", text)

    # configuration

    def fill(self, text: str) -> str:
        """@PREFIX@, @SERVICES@ (the programs of the tests), @FOLDER@, and @NAME@ for the account or group dwt-name."""
        words = {"PREFIX": str(PREFIX), "SERVICES": str(self.programs), "FOLDER": str(self.folder)}
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        return templates.names(text)

    def write(self, name: str, text: str) -> Path:
        path = self.etc / name
        path.write_text(self.fill(text))
        os.chown(path, 0, self.people["priv"].gid)
        path.chmod(0o640)
        return path

    # life

    def start(self, wait: bool = True) -> House:
        argv, fds = self.space.command(*self.program, "--config", str(self.etc))
        with self.messages_file.open("ab") as errors:
            self.daemon = subprocess.Popen(
                argv,
                stdin=self.stdin,
                stdout=errors,
                stderr=errors,
                pass_fds=(*fds, *self.given),
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        if wait:
            self.until(self.answers, "root.sock answers")
            self.wait_for(_all_up, "everything is up")
        return self

    def check(self) -> subprocess.CompletedProcess[str]:
        """durward-rootd --check."""
        argv, fds = self.space.command(str(PREFIX / "bin" / "durward-rootd"), "--check", "--config", str(self.etc))
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd="/", pass_fds=fds)

    @contextlib.contextmanager
    def running(self) -> Iterator[House]:
        """Started, and after it stopped, looked after and removed."""
        try:
            self.start()
            yield self
            self.stop()
        finally:
            self.remove()

    def stop(self, expect: int | None = 0) -> None:
        """End the daemon in order, and see that nothing is left. Twice is harmless."""
        for load in list(self.loads):
            load.stop()
        if self.daemon is None:
            return
        daemon, self.daemon = self.daemon, None
        if daemon.poll() is None:
            daemon.send_signal(signal.SIGTERM)
        try:
            status = daemon.wait(timeout=60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            raise AssertionError(f"the daemon did not end\n{self.stderr()}") from None
        left = self.strangers()
        assert not left, f"still there after the end: {left}\n{self.stderr()}"
        assert expect is None or status == expect, f"ended with {status}\n{self.stderr()}"

    def remove(self) -> None:
        try:
            self.stop(expect=None)
        finally:
            remove_cgroups(str(self.folder))
            shutil.rmtree(self.folder, ignore_errors=True)

    def stderr(self) -> str:
        return self.messages_file.read_text() if self.messages_file.exists() else ""

    def strangers(self) -> dict[int, str]:
        """Processes of our parts and of the services, in this house's namespace; people's own are no concern."""
        uids = {person.uid for person in self.people.known.values() if not person.password}
        return {pid: name for pid, name in processes_of(uids).items() if self.space.holds(pid)}

    # waiting

    def until(self, condition: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
        """The condition's first true value. The daemon's end ends the wait at once."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            if self.daemon is not None and self.daemon.poll() is not None:
                raise AssertionError(f"the daemon ended ({self.daemon.returncode}) before {what}\n{self.stderr()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout} s: {what}\n{self.stderr()}")
            select.select([], [], [], TICK)

    def wait_for(
        self, predicate: Callable[[dict[str, messages.ServiceInfo]], bool], what: str, timeout: float = PATIENCE
    ) -> dict[str, messages.ServiceInfo]:
        """The status in which the predicate holds: looked at after every event."""
        deadline = time.monotonic() + timeout
        with self.watching() as events:
            while not predicate(seen := self.status()):
                if time.monotonic() > deadline:
                    raise AssertionError(f"not within {timeout} s: {what}; {seen}\n{self.stderr()}")
                select.select([events.sock], [], [], 0.25)
                with contextlib.suppress(TimeoutError):
                    events.sock.settimeout(0.001)
                    events.receive()
            return seen

    @contextlib.contextmanager
    def watching(self) -> Iterator[Asker]:
        with self.root() as events:
            events.send(messages.Watch())
            yield events

    # asking as root

    def answers(self) -> bool:
        try:
            with self.root(timeout=2.0) as root:
                return isinstance(root.ask(messages.Status()), messages.Services)
        except (OSError, EOFError):
            return False

    def root(self, timeout: float = PATIENCE) -> Asker:
        return Asker(self.run_dir / "root.sock", timeout)

    def ask(self, command: messages.Command) -> messages.Reply | messages.Event:
        with self.root() as root:
            return root.ask(command)

    def status(self) -> dict[str, messages.ServiceInfo]:
        reply = self.ask(messages.Status())
        assert isinstance(reply, messages.Services), reply
        return {service.name: service for service in reply.services}

    def operate(self, command: messages.Command) -> tuple[list[str], messages.Ended]:
        """A long command to its end: the texts of its steps, and how it ended."""
        accepted = self.ask(command)
        assert isinstance(accepted, messages.Accepted), accepted
        steps: list[str] = []
        with self.root() as events:
            events.send(messages.Watch(operation=accepted.operation))
            while True:
                event = events.receive()
                if isinstance(event, messages.Step):
                    steps.append(event.text)
                elif isinstance(event, messages.Ended):
                    return steps, event

    def pids(self, service: str) -> list[int]:
        return [process.pid for process in self.status()[service].processes if process.pid]

    def audit(self) -> list[dict[str, object]]:
        """The records. What was sent to log before is among them, though nobody waits for a refusal's."""
        self.until_log_rests()
        path = self.log / "audit" / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def service_log(self, process: str, stream: str = "stdout") -> str:
        """What it has written before, or some of it: a process may answer somebody before it writes."""
        self.until_log_rests()
        path = self.log / process / f"{stream}.log"
        return path.read_text() if path.exists() else ""

    # the parts of ours

    def until_log_rests(self) -> None:
        """What makes log wake up makes it run at once: while it sleeps, it has done all that was sent to it."""
        if self.daemon is None or self.daemon.poll() is not None or not (pid := self.pid_of("log")):
            return
        stat = Path(f"/proc/{pid}/stat")
        with contextlib.suppress(OSError):  # it has ended
            self.until(lambda: stat.read_text().rpartition(")")[2].split()[0] in "STZ", "log sleeps, or is stopped")

    def pid_of(self, role: str) -> int:
        """The pid of the keeper's child of that name, 0 when there is none at the moment."""
        assert self.daemon is not None
        name = f"durward-{role}"[:15]
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                stat = (path / "stat").read_text()
                comm, _, rest = stat.partition("(")[2].rpartition(")")
                state, parent = rest.split()[:2]
                if comm == name and int(parent) == self.daemon.pid and state != "Z":
                    return int(path.name)
        return 0

    def api_workers(self) -> list[int]:
        """The processes of the api's uid whose parent is one of them: the workers, not their arbiter."""
        ours = [pid for pid in processes_of({self.people["api"].uid}) if self.space.holds(pid)]
        parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in ours}
        return [pid for pid, parent in parents.items() if parent in ours]

    def kill9(self, role: str) -> int:
        """SIGKILL one part and wait until it is gone; its pid."""
        pid = self.until(lambda: self.pid_of(role), f"there is a {role}")
        fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            assert select.select([fd], [], [], PATIENCE)[0]
        finally:
            os.close(fd)
        return pid

    def wait_back(self, role: str, old: int) -> int:
        """Another process plays the role, and the house answers."""
        pid = self.until(lambda: (now := self.pid_of(role)) != old and now, f"{role} is back")
        self.until(self.answers, "the house answers")
        return pid

    # people

    def run_as(
        self, person: Person | str, *argv: str, text: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        if isinstance(person, str):
            person = self.people[person]
        home = self.folder / "people" / person.name
        if not home.exists():
            home.mkdir(parents=True)
            os.chown(home, person.uid, person.gid)
            home.chmod(0o700)
        built = {
            "PATH": f"{PREFIX}/bin:/usr/bin:/bin", "HOME": str(home), "USER": person.name, "LOGNAME": person.name,
            "LANG": "C.UTF-8", "DURWARD_URL": f"unix:{self.run_dir}/api.sock", "DURWARD_SESSION": str(home / "session"),
            **(env or {}),
        }  # fmt: skip
        return subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=120, check=False, cwd="/", env=built,
            user=person.uid, group=person.gid, extra_groups=person.groups, umask=0o077,
        )  # fmt: skip

    def cli(self, person: Person | str, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """`durward WORD…` as that person, with a session file of his own."""
        return self.run_as(person, str(PREFIX / "bin" / "durward"), *words, text=text)

    def login(self, short: str, password: str | None = None) -> subprocess.CompletedProcess[str]:
        person = self.people[short]
        return self.cli(
            person, "login", "--password-stdin", text=f"{person.password if password is None else password}\n"
        )

    # the network

    def http(
        self,
        path: str = "/",
        method: str = "GET",
        port: int = 80,
        host: str = "127.0.0.1",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Answer:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        connection.sock = self.space.connect(host, port, timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def api(self, method: str, path: str, token: str = "", body: object = None) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        return self.http(f"/api/v1{path}", method, templates.API_PORT, body=data, headers=headers)

    def token(self, short: str) -> str:
        """A session of that person's, by HTTP."""
        person = self.people[short]
        answer = self.api("POST", "/session", body={"user": person.name, "password": person.password})
        assert answer.status == 201, answer
        return str(answer.json["token"])

    def load(self, interval: float = 0.001, port: int = 80) -> Load:
        """One connection each `interval` seconds to that port, from now until its stop()."""
        return Load(self.space, self.loads, interval, port)


def _all_up(services: dict[str, messages.ServiceInfo]) -> bool:
    """Whatever is wanted has become what it can be: a service that failed is the test's business, not the start's."""
    waiting = ("STARTING", "BACKOFF", "STOPPING")
    return not any(
        service.state in waiting or (service.wanted == "up" and service.state == "STOPPED")
        for service in services.values()
    )
