"""New configuration in a running house: taken whole where it is good, and then felt only by whom it concerns."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest
import templates
from hostage import standing
from house import House
from people import processes_of

from policy import messages

pytestmark = pytest.mark.root

OF = {"www": ("site",), "jobs": ("worker", "extra")}
BASE = {f"services.d/{name}": text for name, text in templates.SERVICES.items()}
BASE |= {f"policy.d/{name}": text for name, text in templates.POLICY.items()}


@pytest.fixture(autouse=True)
def restored(house: House) -> Iterator[None]:
    """The configuration as it was, and taken, after each test."""
    house.until(lambda: len(house.api_workers()) == 2, "the api has its workers")
    settled(house)
    yield
    for folder in ("services.d", "policy.d"):
        for path in (house.etc / folder).iterdir():
            if f"{folder}/{path.name}" not in BASE:
                path.unlink()
    for name, text in BASE.items():
        house.write(name, text)
    assert reload(house).ok
    settled(house)


def reload(house: House, dry_run: bool = False) -> messages.Ended:
    _, ended = house.operate(messages.Reload(dry_run=dry_run))
    return ended


def settled(house: House) -> None:
    """Every service runs, and no older process of it is still on its way out."""
    house.wait_for(
        lambda services: all((service.state, service.text) == ("RUNNING", "") for service in services.values()),
        "everything is up, with its configuration of now",
    )
    for user in ("www", "jobs"):
        count = sum(service.name in OF[user] for service in house.status().values())
        house.until(lambda user=user, count=count: len(tops(house, user)) == count, "the older ones are gone")  # type: ignore[misc]


def tops(house: House, user: str) -> list[int]:
    """The processes of a user that are no child of another of his."""
    pids = [pid for pid in processes_of({house.people[user].uid}) if house.space.holds(pid)]
    parents = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat") as stat:
            parents[pid] = int(stat.read().rpartition(")")[2].split()[1])
    return [pid for pid, parent in parents.items() if parent not in pids]


def inode_of(house: House, port: int) -> str:
    """The one listening socket of that port."""
    assert house.daemon is not None
    with open(f"/proc/{house.daemon.pid}/net/tcp") as table:
        rows = [line.split() for line in table]
    (inode,) = [row[9] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")]
    return inode


def refused(house: House, port: int) -> bool:
    try:
        house.space.connect("127.0.0.1", port, 2.0).close()
    except ConnectionRefusedError:
        return True
    return False


EXTRA = """\
[socket.extra]
listen = ["127.0.0.1:8080", "unix:@FOLDER@/run/sockets/extra.sock"]
""" + templates.plain("extra", more='sockets = ["extra"]\nready = { after = "0.1s" }')


def test_nothing_new_is_no_change_for_anybody(house: House) -> None:
    before = standing(house)
    ended = reload(house)
    assert (ended.ok, ended.text) == (True, "reloaded: no change")
    assert standing(house) == before


def test_a_service_and_its_sockets_come_and_go_and_nobody_else_notices(house: House) -> None:
    before = standing(house, "jobs")
    worker = house.pids("worker")
    house.write("services.d/extra.toml", EXTRA)
    ended = reload(house)
    doors = f"extra (tcp:127.0.0.1:8080), extra (unix:{house.folder}/run/sockets/extra.sock)"
    assert (ended.ok, ended.text) == (True, f"reloaded: added: extra; sockets added: {doors}")
    settled(house)
    assert house.pids("extra")
    assert not refused(house, 8080)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(house.run_dir / "sockets" / "extra.sock"))
    assert (standing(house, "jobs"), house.pids("worker")) == (before, worker)
    pid = house.pids("extra")[0]
    (house.etc / "services.d" / "extra.toml").unlink()
    assert reload(house).text == f"reloaded: removed: extra; sockets removed: {doors}"
    house.until(lambda: not os.path.exists(f"/proc/{pid}"), "its process is gone")
    house.until(lambda: refused(house, 8080), "its port is free")
    assert set(house.status()) == {"site", "worker"}
    assert (standing(house, "jobs"), house.pids("worker")) == (before, worker)


def test_only_the_changed_service_is_started_again_and_its_socket_is_the_same(house: House) -> None:
    before = standing(house, "www")
    old, inode = house.pids("site")[0], inode_of(house, 80)
    house.write("services.d/site.toml", templates.SITE + 'environment = { COLOUR = "green" }\n')
    ended = reload(house)
    assert (ended.ok, ended.text) == (True, "reloaded: changed: site (environment)")
    house.wait_for(
        lambda services: [p.pid for p in services["site"].processes] != [old] and services["site"].state == "RUNNING",
        "the site is another process",
    )
    new = house.pids("site")[0]
    with open(f"/proc/{new}/environ") as environ:
        assert "COLOUR=green" in environ.read().split("\0")
    assert inode_of(house, 80) == inode
    assert standing(house, "www") == before
    assert house.http("/").status == 200


def test_a_reload_ends_with_its_restarts_and_fails_with_the_name_of_what_failed(house: House) -> None:
    old = house.pids("site")
    house.write("services.d/site.toml", templates.SITE + 'environment = { COLOUR = "grey" }\n')
    assert reload(house).ok
    new = house.pids("site")
    assert new != old, "it is another process already"
    house.write("services.d/site.toml", templates.SITE + '[service.site.hooks]\npre_start = ["/bin/false"]\n')
    ended = reload(house)
    why = "site was not restarted: the new process: its pre-start hook: exit status 1; the old one keeps serving"
    assert (ended.ok, ended.text.partition("; ")[2]) == (False, why)
    assert house.pids("site") == new


def test_a_changed_site_refuses_no_connection_on_its_way(house: House) -> None:
    seen = {house.pids("site")[0]}
    with house.load(interval=0.005) as load:
        for colour in ("red", "blue"):
            house.write("services.d/site.toml", templates.SITE + f'environment = {{ COLOUR = "{colour}" }}\n')
            assert reload(house).ok
            house.wait_for(
                lambda services: all(process.pid not in (0, *seen) for process in services["site"].processes),
                "the site is another process",
            )
            settled(house)
            seen.add(house.pids("site")[0])
    assert (load.result["refused"], load.result["failed"]) == (0, {})
    assert len(seen) == 3


def test_an_address_that_is_kept_is_not_bound_again_when_another_is_added(house: House) -> None:
    inode = inode_of(house, 80)
    more = templates.SITE.replace('"0.0.0.0:80"', '["0.0.0.0:80", "127.0.0.1:8081"]')
    house.write("services.d/site.toml", more)
    assert reload(house).text == "reloaded: changed: site; sockets added: http (tcp:127.0.0.1:8081)"
    settled(house)
    house.until(lambda: not refused(house, 8081), "the new address listens")
    assert inode_of(house, 80) == inode


def test_a_file_that_only_root_can_read_is_read_by_a_new_privileged_and_no_service_notices(house: House) -> None:
    secret = house.folder / "secret.env"
    secret.write_text("SECRET=of root's\n")
    secret.chmod(0o600)
    before, old = standing(house, "privileged", "jobs"), house.pid_of("privileged")
    house.write("services.d/worker.toml", templates.WORKER + 'environment_file = "@FOLDER@/secret.env"\n')
    assert f"{AGAIN}: environment_file of worker; a dry run cannot read that" in reload(house, dry_run=True).text
    steps, ended = house.operate(messages.Reload())
    assert (ended.ok, ended.text) == (True, "reloaded: changed: worker")
    assert any("as root" in step for step in steps)
    settled(house)

    def told() -> bool:
        pids = house.pids("worker")
        with open(f"/proc/{pids[0]}/environ") as environ:
            return "SECRET=of root's" in environ.read().split("\0")

    house.until(told, "the worker has what only root could read")
    assert house.pid_of("privileged") not in (0, old)
    assert standing(house, "privileged", "jobs") == before
    with open(f"/proc/{house.pid_of('privileged')}/status") as status:
        assert f"\nUid:\t{house.people['priv'].uid}\t" in status.read()


def test_a_unix_socket_in_a_directory_of_roots_is_bound_by_a_new_privileged(house: House) -> None:
    folder = house.folder / "roots"
    folder.mkdir(mode=0o755)
    before = standing(house, "privileged", "jobs")
    house.write("services.d/extra.toml", EXTRA.replace("/run/sockets/", "/roots/"))
    would = reload(house, dry_run=True)
    assert (would.ok, bool(would.mark)) == (True, True)
    assert would.text.endswith(f"; {AGAIN}: socket extra (unix:{folder}/extra.sock)")
    steps, ended = house.operate(messages.Reload())
    assert ended.ok, ended
    assert any("as root" in step for step in steps)
    settled(house)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "extra.sock"))
    found = os.stat(folder / "extra.sock")
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o660)
    assert standing(house, "privileged", "jobs") == before


def test_a_dry_run_says_what_would_change_and_changes_nothing(house: House) -> None:
    before = standing(house)
    house.write("services.d/extra.toml", EXTRA)
    house.write("policy.d/20-more.toml", '[[grant]]\nid = "more"\nwho = ["user:@carol@"]\nmay = ["view"]\non = ["*"]\n')
    ended = reload(house, dry_run=True)
    doors = f"extra (tcp:127.0.0.1:8080), extra (unix:{house.folder}/run/sockets/extra.sock)"
    told = f"would change: added: extra; sockets added: {doors}; policy: changed"
    assert (ended.ok, ended.text) == (True, told)
    assert set(house.status()) == {"site", "worker"}
    assert standing(house) == before


def test_directories_and_accounts_stay_what_they_are_while_the_daemon_runs(house: House) -> None:
    main = house.etc / "durward.toml"
    text, before = main.read_text(), standing(house)
    try:
        house.write("durward.toml", text.replace('/run"', '/elsewhere"').replace('idle = "30m"', 'idle = "20m"'))
        ended = reload(house)
        (problem,) = ended.problems
        assert (ended.ok, problem.file, problem.line, problem.key) == (False, "durward.toml", 2, "paths.run")
        assert problem.text == "cannot change while the daemon runs: stop it, and start it again"
        house.write("durward.toml", text.replace('idle = "30m"', 'idle = "20m"'))
        ended = reload(house)
        assert (ended.ok, ended.text) == (True, "reloaded: counts from the daemon's next start on: [auth]")
        assert standing(house) == before
    finally:
        house.write("durward.toml", text)


AGAIN = "needs root again (privileged is replaced, no service notices)"
SAID = "durward-supervisor: asked for by a signal: "
MORE = '[[grant]]\nid = "bob-restarts"\nwho = ["user:@bob@"]\nmay = ["restart"]\non = ["site"]\n'


def test_sighup_takes_a_changed_policy_and_it_counts_for_those_who_are_logged_in(house: House) -> None:
    token = house.token("bob")
    before = standing(house, "www")
    assert house.api("POST", "/services/site/restart?wait=true", token).status == 403
    hashes = [record["policy"] for record in house.audit() if record["kind"] == "load"]
    house.write("policy.d/20-more.toml", MORE)
    assert house.daemon is not None
    house.daemon.send_signal(signal.SIGHUP)
    house.until(
        lambda: [record["policy"] for record in house.audit() if record["kind"] == "load"][-1] != hashes[-1],
        "the new policy is loaded",
    )
    assert house.api("POST", "/services/site/restart?wait=true", token).status == 200
    house.until(lambda: SAID + "reloaded: policy: changed\n" in house.stderr(), "its outcome is on standard error")
    (house.etc / "policy.d" / "20-more.toml").unlink()
    assert reload(house).text == "reloaded: policy: changed"
    assert house.api("POST", "/services/site/restart?wait=true", token).status == 403
    assert standing(house, "www") == before


def test_b6_sighup_with_a_broken_file_leaves_everything_as_it_is(house: House) -> None:
    before, loads = standing(house), [record for record in house.audit() if record["kind"] == "load"]
    earlier = {record["id"] for record in house.audit() if record["kind"] == "outcome"}
    house.write("services.d/worker.toml", "[service.worker]\n")
    assert house.daemon is not None
    with house.watching() as events:
        house.daemon.send_signal(signal.SIGHUP)
        while not isinstance(event := events.receive(), messages.Ended):
            pass
    assert not event.ok
    assert {(problem.file, problem.line) for problem in event.problems} == {("services.d/worker.toml", 1)}
    said = house.stderr().split(SAID)[-1].splitlines()
    assert said[0] == "the files cannot be used: nothing was changed"
    assert all("services.d/worker.toml:1: service.worker" in line for line in said[1:])
    assert len(said) > len(event.problems)
    (outcome,) = house.until(
        lambda: [one for one in house.audit() if one.get("result") == said[0] and one["id"] not in earlier], "a record"
    )
    asked = next(one for one in house.audit() if one.get("id") == outcome["id"])
    assert (asked["user"], asked["from"], outcome["ok"]) == ("root", "a signal", False)
    assert [record for record in house.audit() if record["kind"] == "load"] == loads
    assert standing(house) == before
    assert house.http("/").status == 200


def test_b4_a_file_that_is_swapped_all_the_time_is_taken_as_one_of_the_two(house: House) -> None:
    """What was checked is what is read and what counts: each policy that is loaded is one of them, whole."""

    def loaded(since: int = 0) -> list[str]:
        return [str(record["policy"]) for record in house.audit()[since:] if record["kind"] == "load"]

    texts = [house.fill(MORE.replace("bob-restarts", word)) + f"# {word}\n" * 20_000 for word in ("one", "two")]
    known = set[str]()
    for text in texts:
        path = house.write("policy.d/20-more.toml", text)
        assert reload(house).ok
        records = (
            house.audit()
        )  # in the order in which they were told: what was loaded before is not after this decision
        kinds = [(record["kind"], record.get("action")) for record in records]
        begun = max(number for number, kind in enumerate(kinds) if kind == ("decision", "reload"))
        known |= {house.until(lambda begun=begun: loaded(begun), "the load is written")[-1]}  # type: ignore[misc]
    assert len(known) == 2
    over = threading.Event()

    def swap() -> None:
        number = 0
        while not over.is_set():
            aside = house.write("policy.d/.aside", texts[number % 2])
            aside.replace(path)
            number += 1

    before = len(house.audit())
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        ended = [reload(house) for _ in range(12)]
    finally:
        over.set()
        swapping.join()
    assert any(one.ok for one in ended)
    for one in ended:
        assert one.ok or {problem.file for problem in one.problems} == {"policy.d/20-more.toml"}, one
    count = sum(one.ok for one in ended)
    house.until(lambda: len(loaded(before)) == count, "every load is written")
    assert set(loaded(before)) <= known
