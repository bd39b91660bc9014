"""One-shots, daemons that fork themselves, and templates, as real processes in one house."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
from house import House
from templates import plain

from policy import messages

pytestmark = pytest.mark.root

FORKER = """
[service.forker]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/forker.py", "@FOLDER@/pids/forker"]
kind = "forking"
pid_file = "@FOLDER@/pids/forker"
user = "@jobs@"
restart = { backoff = "0.1s..1s" }
"""
LINKER = """
[service.linker]
command = ["/bin/true"]
kind = "forking"
pid_file = "@FOLDER@/pids/linker"
user = "@jobs@"
autostart = false
"""
WORKERS = """
[defaults]
user = "@jobs@"
ready = { after = "0s" }

[template.worker]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/plain.py", "say", "{instance}", "@FOLDER@"]
instances = ["mail", "pdf"]
"""
FASTCGI = """
[socket.fcgi]
listen = "unix:@FOLDER@/run/sockets/fcgi.sock"

[template.fcgi]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/responder.py"]
fastcgi = "fcgi"
processes = 2
instances = ["a", "b"]
"""


@pytest.fixture(scope="module")
def kinds(people: object, space: object, tmp_path_factory: object) -> Iterator[House]:
    services = {
        "forker.toml": FORKER + LINKER,
        "workers.toml": WORKERS.replace(', "@FOLDER@"]', "]"),
        "fastcgi.toml": FASTCGI,
        "job.toml": plain("job", "say", "done", "exit", "0", more='kind = "oneshot"\nready = {}'),
        "long.toml": plain("long", "wait", "@FOLDER@/finish", "exit", "0", more='kind = "oneshot"\nready = {}'),
        "last.toml": plain("last", "say", "begun", more='requires = ["long"]'),
        "broken.toml": plain("broken", "exit", "3", more='kind = "oneshot"\nready = {}'),
        "site.toml": plain("site", "say", "begun", more='requires = ["job"]'),
        "never.toml": plain("never", "say", "begun", more='requires = ["broken"]'),
    }
    house = House(people, space, services, {})  # type: ignore[arg-type]
    (house.folder / "pids").mkdir()
    os.chown(house.folder / "pids", house.people["jobs"].uid, house.people["jobs"].gid)
    try:
        house.start(wait=False)
        house.until(house.answers, "root.sock answers")
        yield house
        house.stop()
    finally:
        house.remove()


def of(house: House, name: str) -> messages.ProcessInfo:
    return house.status()[name].processes[0]


def when(house: House, name: str, state: str) -> None:
    house.wait_for(lambda found: found[name].state == state, f"{name} is {state}")


def test_a_one_shot_is_done_before_what_requires_it_begins(kinds: House) -> None:
    when(kinds, "site", "RUNNING")
    assert (of(kinds, "job").state, of(kinds, "job").text, of(kinds, "job").exit) == ("EXITED", "done", "exit status 0")
    when(kinds, "never", "FATAL")
    assert of(kinds, "never").text == "it requires broken: it ended by itself: exit status 3"


def test_a_start_of_a_one_shot_waits_for_its_end_and_a_stop_makes_it_undone(kinds: House) -> None:
    before = kinds.until(lambda: kinds.service_log("job").count("done"), "what it did at the start is in the log")
    assert kinds.operate(messages.Start("job"))[1].ok
    kinds.until(lambda: kinds.service_log("job").count("done") == before + 1, "it did its work once more")
    failed = kinds.operate(messages.Start("broken"))[1]
    assert (failed.ok, failed.text) == (False, "broken failed: exit status 3")
    kinds.ask(messages.Stop("broken", with_dependants=True))
    when(kinds, "broken", "STOPPED")


def test_the_process_that_the_pid_file_names_is_the_one_that_is_seen_and_watched(kinds: House) -> None:
    when(kinds, "forker", "RUNNING")
    named = int((kinds.folder / "pids" / "forker").read_text())
    kinds.until(lambda: of(kinds, "forker").pid == named, "it is the main process")
    with open(f"/proc/{named}/status") as status:
        uid = next(line.split()[1] for line in status if line.startswith("Uid:"))
    assert int(uid) == kinds.people["jobs"].uid
    os.kill(named, 9)
    kinds.until(lambda: of(kinds, "forker").pid not in (0, named), "another one has come")
    path = kinds.folder / "pids" / "forker"
    kinds.until(
        lambda: str(of(kinds, "forker").pid) == path.read_text().strip() != str(named), "the second one is found"
    )
    assert of(kinds, "forker").state == "RUNNING"


def test_it_is_stopped_and_started_like_any_other(kinds: House) -> None:
    assert kinds.operate(messages.Restart("forker"))[1].ok
    named = int((kinds.folder / "pids" / "forker").read_text())
    kinds.until(lambda: of(kinds, "forker").pid == named, "it is the main process")
    assert kinds.operate(messages.Stop("forker"))[1].ok
    assert not os.path.exists(f"/proc/{named}")


def test_a_link_in_place_of_a_pid_file_is_followed_by_nobody_who_may_read_more_than_the_service(kinds: House) -> None:
    (kinds.folder / "pids" / "linker").symlink_to("/etc/shadow")
    kinds.ask(messages.Start("linker"))
    refused = f"waits for its pid file: {kinds.folder}/pids/linker: Permission denied"
    kinds.until(lambda: of(kinds, "linker").text == refused, "it says why it is not ready")
    assert kinds.operate(messages.Stop("linker"))[1].ok


def test_a_pid_file_that_names_anothers_process_makes_nobody_watch_or_end_that(kinds: House) -> None:
    when(kinds, "site", "RUNNING")
    [other] = kinds.pids("site")
    (kinds.folder / "pids" / "linker").unlink()
    (kinds.folder / "pids" / "linker").write_text(str(other))
    kinds.ask(messages.Start("linker"))
    kinds.until(
        lambda: f"names {other}, which is no process of this" in of(kinds, "linker").text, "it says what is wrong"
    )
    assert kinds.operate(messages.Stop("linker"))[1].ok
    assert kinds.pids("site") == [other]


def test_instances_of_a_template_are_services_with_their_own_words(kinds: House) -> None:
    for instance in ("mail", "pdf"):
        when(kinds, f"worker-{instance}", "RUNNING")
        kinds.until(lambda name=instance: name in kinds.service_log(f"worker-{name}"), "it has said its name")
        assert kinds.status()[f"worker-{instance}"].groups == ["worker"]


def asked(house: House) -> str:
    """What one request to the FastCGI socket is answered."""

    def record(kind: int, content: bytes) -> bytes:
        return struct.pack("!BBHHBx", 1, kind, 1, len(content), 0) + content

    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20.0)
        sock.connect(str(house.run_dir / "sockets" / "fcgi.sock"))
        begin = struct.pack("!HB5x", 1, 0)
        sock.sendall(record(1, begin) + record(4, b"\x0e\x03REQUEST_METHODGET") + record(4, b"") + record(5, b""))
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    length = struct.unpack("!H", answer[4:6])[0]
    return answer[8 : 8 + length].partition(b"\r\n\r\n")[2].decode()


def test_fastcgi_responders_of_several_services_share_one_socket_that_outlives_them(kinds: House) -> None:
    when(kinds, "fcgi-a", "RUNNING")
    when(kinds, "fcgi-b", "RUNNING")
    before = {str(pid) for name in ("fcgi-a", "fcgi-b") for pid in kinds.pids(name)}
    assert len(before) == 4
    assert {asked(kinds).split()[1] for _ in range(20)} <= before
    assert kinds.operate(messages.Restart("fcgi-a"))[1].ok
    assert kinds.operate(messages.Stop("fcgi-b"))[1].ok
    name, pid = asked(kinds).split()
    assert name in ("fcgi-a.0", "fcgi-a.1")
    assert int(pid) in kinds.pids("fcgi-a")
    assert pid not in before


def test_kill_9_of_what_decides_and_of_what_spawns_costs_no_work_and_no_daemon(kinds: House) -> None:
    assert kinds.operate(messages.Start("forker"))[1].ok
    kinds.until(
        lambda: str(of(kinds, "forker").pid) == (kinds.folder / "pids" / "forker").read_text().strip(), "it runs"
    )
    before = of(kinds, "long").pid, of(kinds, "forker").pid
    for part in ("supervisor", "privileged"):
        kinds.kill9(part)
        kinds.until(kinds.answers, "root.sock answers")
        kinds.until(lambda: (of(kinds, "long").pid, of(kinds, "forker").pid) == before, "both are as they were")
        assert (of(kinds, "long").state, of(kinds, "long").text) == ("RUNNING", "at work")
        assert (of(kinds, "last").state, of(kinds, "last").text) == ("STARTING", "waits for long")
    (kinds.folder / "finish").touch()
    when(kinds, "last", "RUNNING")
    assert (of(kinds, "long").state, of(kinds, "long").text) == ("EXITED", "done")


def test_a_one_shot_that_is_done_is_still_done_for_the_next_supervisor(kinds: House) -> None:
    when(kinds, "job", "EXITED")
    kinds.kill9("supervisor")
    kinds.until(kinds.answers, "root.sock answers")
    assert (of(kinds, "job").state, of(kinds, "job").text) == ("EXITED", "done")
    assert kinds.operate(messages.Restart("site"))[1].ok
    assert of(kinds, "job").state == "EXITED"
