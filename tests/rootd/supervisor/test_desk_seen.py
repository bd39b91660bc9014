"""Nobody is told the name of a service that he may not view: every command, answer and event of somebody who may do
much with one service and with the daemon, and may not view what that one requires, and what requires, follows or
shares a socket with it. The names of those have one word in them that nothing else has.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from policy import messages, wire
from policy.parse import parse
from policy.rules import Policy
from rootd import ipc
from rootd.supervisor.control import NoConnection
from rootd.supervisor.desk import Call, Desk, spoken, target
from rootd.supervisor.dispatch import DISPATCH
from rootd.supervisor.reload import Reloads, read_generation

WORD = "zqhush"
COMMON = 'command = ["/srv/x"]\nuser = "www-site"\nready = { notify = true, timeout = "30s" }\nautostart = false\n'
NEVER = 'restart = { policy = "never" }\n'
SERVICES = f"""
[socket.http]
listen = "127.0.0.1:8080"
[socket.{WORD}]
listen = "127.0.0.1:8081"
[service.site]
{COMMON}requires = ["{WORD}-db"]
after = ["{WORD}-first", "jobs"]
restart_with = ["{WORD}-db"]
sockets = ["http"]
groups = ["front"]
[service.jobs]
{COMMON}extends = "{WORD}-base"
groups = ["new"]
[service.{WORD}-base]
{COMMON}
[service.{WORD}-db]
{COMMON}{NEVER}groups = ["front"]
[service.{WORD}-first]
{COMMON}
[service.{WORD}-above]
{COMMON}requires = ["site"]
sockets = ["http", "{WORD}"]
[service.{WORD}-with]
{COMMON}restart_with = ["site"]
"""
POLICY = """
[[grant]]
id = "ops"
who = ["user:alice"]
may = ["view", "logs", "clear", "start", "restart", "signal", "scale", "enable"]
on = ["site", "jobs", "group:new"]
[[grant]]
id = "daemon"
who = ["user:alice"]
may = ["reload", "revoke", "shutdown"]
[[grant]]
id = "stop"
who = ["user:alice"]
may = ["stop"]
on = ["site", "jobs"]
approval = { by = ["user:bob"], within = "10m" }
"""
EACH: list[messages.Command] = [
    messages.Status("site"), messages.Describe("site"), messages.Watch(service="site"), messages.ListOperations("site"),
    messages.OpenLog("site"), messages.ClearLog("site"), messages.ReopenLog("site"), messages.Start("site"),
    messages.Stop("site"), messages.Restart("site"), messages.Signal("site", "HUP"), messages.Enable("site"),
    messages.Disable("site"), messages.Scale("site", 3), messages.WhatMayI("stop", "site"),
]  # fmt: skip
OTHERS: list[messages.Command] = [
    messages.Status(), messages.Describe("jobs"), messages.ListOperations(ended=True), messages.ListApprovals(),
    messages.WhatMayI(), messages.OpenAudit(), messages.ReadPolicy(), messages.Approve(1), messages.Withdraw(99),
    messages.Cancel(99), messages.Revoke(user="nobody"), messages.Upgrade(), messages.OpenLog("site", process="x"),
]  # fmt: skip
LATER: list[messages.Command] = [messages.Reload(), messages.Shutdown()]  # with what follows from them


class Daemon:
    """The desk of a room above real services, whose privileged is simulated, and reloads that the test answers."""

    def __init__(self, room: Any, House: Any, generation: Callable[..., Any], tokens: tuple[str, str, str]) -> None:
        self.room, self.house, self.make = room, House(), generation
        self.alice, self.bob, _ = tokens
        self.house.now = room.now
        self.services = room.services = self.house.services
        self.services.operations._publish = self.publish
        self.reloads = Reloads(self.services.operations, room.to_privileged, self.adopt)
        before = room.desk
        room.reloads = self.reloads
        room.desk = self.desk = Desk(
            self.services, room.sessions, room.audit, self.reloads, room.choices, room.clearing, clock=room.clock,
            expires=before.expires, tell_auth=room.to_auth, log=before.log, goes_on=False, windows=before.windows,
            limits=room.limits, approvals=room.approvals,
        )  # fmt: skip
        self.desk.upgrades = before.upgrades
        self.heard: dict[str, list[bytes]] = {"alice": [], "bob": [], "root": []}
        made = self.files()
        self.reloads.facts(read_generation(1, made.digest, made.fd), room.now)
        assert not self.reloads.current.problems, self.reloads.current.problems
        self.house.link()
        self.watching = {"alice": self.begin("alice", messages.Watch()), "root": self.begin("root", messages.Watch())}

    def files(self, services: str = SERVICES, number: int = 1) -> Any:
        return self.make({f"services.d/{WORD}.toml": services, "policy.d/1.toml": POLICY}, number)

    def adopt(self, loaded: Any, now: float) -> dict[str, int]:
        self.desk.policy = loaded.policy
        self.desk.spelled.forget()
        begun: dict[str, int] = self.services.load(loaded.specs or (), loaded.generation, now).operations
        return begun

    def publish(self, event: Any) -> None:
        self.desk.publish(event)
        if isinstance(event, messages.Ended):
            self.reloads.ended(event, self.room.now)

    # -- who asks

    def begin(self, who: str, command: messages.Command) -> Any:
        client = self.room.client("root" if who == "root" else "control")
        client.send(command, {"alice": self.alice, "bob": self.bob, "root": ""}[who])
        self.room.until(client.readable)
        return client

    def hear(self, who: str, client: Any) -> list[Any]:
        """All that has come, and is kept as it came."""
        found = []
        while client.readable():
            packet, control, _, _ = client.sock.recvmsg(wire.LIMIT, 64)
            if not packet:
                break
            for _, _, data in control:
                os.close(int.from_bytes(data[:4], "little"))
            self.heard[who].append(packet)
            found.append(wire.ANSWER.decode(packet).reply)
        return found

    def ask(self, command: messages.Command, who: str = "alice") -> Any:
        """The last answer: of a watch, what came at once. Those who watch hear what follows."""
        client = self.begin(who, command)
        found = self.hear(who, client)
        client.sock.close()
        self.later(0.0)
        return found[-1]

    def later(self, seconds: float) -> None:
        self.house.later(seconds)
        self.room.pass_time(self.house.now - self.room.now)
        self.room.login(self.alice, "alice", 1001, ["webops"])
        self.room.login(self.bob, "bob", 1002, [])
        for who, client in self.watching.items():
            self.hear(who, client)

    def look(self) -> None:
        """All that can be asked now, without changing much."""
        for command in (*EACH[:5], *OTHERS[:4], messages.Watch(after=1)):
            self.ask(command)

    def ready(self, name: str) -> None:
        [pid] = self.house.pids(name)
        self.services.notified(pid - 1000, {"READY": "1"}, self.house.now)
        self.later(0.0)

    def up(self, name: str) -> None:
        self.ask(messages.Start(name), "root")
        self.ready(name)

    def reload(self, services: str, number: int, dry_run: bool = False, **words: Any) -> None:
        assert isinstance(self.ask(messages.Reload(dry_run=dry_run)), messages.Accepted)
        made = self.files(services, number)
        self.reloads.staged(made.table(seq=self.room.sent[-1].seq, **words), made.fd, self.room.now)
        if self.room.sent[-1].op == ipc.COMMIT:
            self.reloads.done(ipc.Message(ipc.DONE, seq=self.room.sent[-1].seq), self.room.now)
        self.later(0.0)

    def tells(self, who: str) -> int:
        return sum(WORD.encode() in packet for packet in self.heard[who])


@pytest.fixture
def daemon(room: Any, House: Any, generation: Callable[..., Any], tokens: tuple[str, str, str]) -> Any:
    made = Daemon(room, House, generation, tokens)
    yield made
    assert made.tells("alice") == 0, [packet for packet in made.heard["alice"] if WORD.encode() in packet]
    assert made.tells("root"), "who may view all of it is told all of it, so that this test tests something"


def test_every_command_is_here() -> None:
    assert {type(one) for one in EACH + OTHERS + LATER} == set(DISPATCH)


def test_no_command_tells_of_what_is_there_and_may_not_be_viewed(daemon: Daemon) -> None:
    daemon.up(f"{WORD}-db")
    daemon.up("site")
    daemon.up(f"{WORD}-above")
    for command in (*OTHERS, *EACH):
        daemon.ask(command)
    assert f"required by {WORD}-above" in daemon.ask(messages.Stop("site"), "root").text
    shown = daemon.ask(messages.Describe("site"))
    assert shown.settings["requires"] == '["1 service that you may not view"]'
    assert shown.settings["after"] == '["jobs", "1 service that you may not view"]'
    assert shown.settings["sockets"] == '["http"]'


@pytest.mark.parametrize("command", EACH, ids=spoken)
def test_what_may_not_be_viewed_is_as_what_is_not_there(daemon: Daemon, command: messages.Command) -> None:
    daemon.up(f"{WORD}-db")
    told = []
    for name in (f"{WORD}-db", "not-there"):
        asked = type(command)(
            **{field: getattr(command, field) for field in command.__struct_fields__} | {"service": name}
        )
        assert target(asked) in (name, None)
        packets = len(daemon.heard["alice"])
        answer = daemon.ask(asked)
        told.append(str(answer).replace(name, "NAME"))
        del daemon.heard["alice"][packets:]  # it has the name that was asked about
    assert told[0] == told[1]


def test_a_start_that_waits_for_it_and_fails_with_it(daemon: Daemon) -> None:
    daemon.ask(messages.Start("site"))
    daemon.look()
    (site,) = daemon.ask(messages.Status("site")).services
    assert site.processes[0].text == "waits for 1 service that you may not view"
    [pid] = daemon.house.pids(f"{WORD}-db")
    daemon.house.privileged.exit(pid - 1000, 3)
    daemon.later(0.0)
    daemon.look()
    (site,) = daemon.ask(messages.Status("site")).services
    assert (site.state, site.processes[0].text) == ("FATAL", "a service that it requires failed")
    ended = daemon.ask(messages.ListOperations(ended=True)).operations
    assert ended[0].text == "site was not started: a service that it requires failed"
    assert daemon.ask(messages.Cancel(ended[0].number)).text.endswith(ended[0].text)
    (site,) = daemon.ask(messages.Status("site"), "root").services
    assert site.processes[0].text.startswith(f"it requires {WORD}-db: ")
    assert any(WORD in str(record) for record in daemon.room.records), "the audit log has all names"
    assert "\\u000e" not in str(daemon.room.records)
    assert "\x0e" not in str(daemon.room.records)


def test_a_stop_that_waits_for_a_second_person(daemon: Daemon) -> None:
    daemon.up(f"{WORD}-db")
    daemon.up("site")
    daemon.up(f"{WORD}-above")
    no = daemon.ask(messages.Stop("site", with_dependants=True))
    assert no.text == "denied: it would stop another service too, and no rule lets alice stop that"
    narrow = daemon.desk.policy
    wider = POLICY.replace('["site", "jobs"]', f'["site", "{WORD}-above"]')
    wide = parse([("1.toml", wider)], daemon.desk.all_groups())
    assert isinstance(wide, Policy)
    daemon.desk.policy = wide  # she may ask to stop what she may not view
    waits = daemon.ask(messages.Stop("site", with_dependants=True))
    assert waits.text.startswith("stop site and 1 service that you may not view waits for approval 1 by user:bob")
    daemon.look()
    (waiting,) = daemon.ask(messages.ListApprovals(), "bob").approvals
    assert waiting.text == f"stop site, {WORD}-above", "who is to approve it has to know what"
    daemon.ask(messages.Withdraw(waits.approval))
    waits = daemon.ask(messages.Stop("site", with_dependants=True))
    daemon.desk.policy = narrow
    no = daemon.ask(messages.Approve(waits.approval), "bob")
    assert "approved, and alice's" in no.text
    assert no.text.endswith("it would stop another service too, and no rule lets alice stop that")
    daemon.desk.policy = wide
    assert isinstance(daemon.ask(messages.Stop("site", with_dependants=True)), messages.Waits)
    daemon.later(601.0)
    daemon.look()


def test_a_restart_that_spreads(daemon: Daemon) -> None:
    for name in (f"{WORD}-db", "site", f"{WORD}-with"):
        daemon.up(name)
    daemon.ask(messages.Restart("site"))
    daemon.later(40.0)
    daemon.ask(messages.Restart(f"{WORD}-db"), "root")
    daemon.later(60.0)
    daemon.look()


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_reload_and_what_it_begins(daemon: Daemon, dry_run: bool) -> None:
    for name in (f"{WORD}-db", "site", f"{WORD}-with"):
        daemon.up(name)
    new = SERVICES.replace(f"{WORD}-first", f"{WORD}-last").replace("8081", "8082").replace("/srv/x", "/srv/y")
    new += f'[service.{WORD}-new]\n{COMMON}groups = ["old"]\n[service.other]\n{COMMON}groups = ["new"]\n'
    daemon.reload(new, 2, dry_run)
    daemon.look()
    daemon.later(100.0)  # none of them becomes ready
    daemon.look()
    told = daemon.ask(messages.ListOperations(ended=True)).operations
    text = next(one.text for one in told if one.kind == "reload")
    assert ("would change: added: other and 2 services that you may not view; removed: 1 service" in text) is dry_run
    assert dry_run or "reloaded: added: other and 2 services that you may not view; removed: 1 service" in text
    assert dry_run or "2 services that you may not view failed" in text
    assert "sockets added: of 1 service that you may not view" in text


def test_a_reload_of_bad_files(daemon: Daemon) -> None:
    bad = SERVICES.replace(f'{COMMON}{NEVER}groups = ["front"]', f'command = "x"\nuser = "{WORD}"\n')
    daemon.reload(bad.replace('requires = ["site"]', 'requires = ["site", "no-such"]'), 2, flags=ipc.INVALID)
    daemon.reload(SERVICES.replace(f"[service.{WORD}-db]", f"[service.{WORD}-db"), 3, flags=ipc.INVALID)
    daemon.reload(SERVICES, 4, extra=98, name=f"socket {WORD}: tcp:127.0.0.1:8081: {WORD} (pid 5) has it")
    mine = SERVICES.replace('groups = ["front"]\n[service.jobs]', "sokets = []\n[service.jobs]")
    daemon.reload(mine, 5, flags=ipc.INVALID)
    daemon.look()


def test_a_shutdown_that_one_does_not_end_in(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (f"{WORD}-db", "site", f"{WORD}-above"):
        daemon.up(name)
    [pid] = daemon.house.pids(f"{WORD}-above")
    exit_ = daemon.house.privileged.exit
    monkeypatch.setattr(daemon.house.privileged, "exit", lambda run, *end: run == pid - 1000 or exit_(run, *end))
    number = daemon.ask(messages.Shutdown()).operation
    daemon.look()
    daemon.later(100.0)
    daemon.look()
    assert daemon.ask(messages.Watch(number)).text == "1 service that you may not view failed"
    assert f"{WORD}-above: process" in daemon.ask(messages.Watch(number), "root").text


@pytest.mark.parametrize(
    ("denies", "whose", "told"),
    [
        (True, "jobs", False),
        (True, "site", True),
        (True, "new front", True),
        (True, "new front back", False),
        (True, "gone", False),  # it may have been in the group
        (False, "gone", True),
        (True, "/", False),
        (False, "/", False),
    ],
)
def test_what_is_not_configured_is_told_to_who_would_view_it(
    room: Any, tokens: tuple[str, str, str], denies: bool, whose: str, told: bool
) -> None:
    rule = '[[{}]]\nid = "{}"\nwho = ["user:alice"]\nmay = ["view"]\non = ["{}"]\n'
    text = rule.format("grant", "all", "*") + (rule.format("deny", "not", "group:back") if denies else "")
    policy = parse([("policy.d/1.toml", text)], room.services.groups)
    assert isinstance(policy, Policy)
    room.desk.policy = policy
    session = room.sessions.find(tokens[0], room.now)
    assert room.desk.sight(Call(NoConnection(print), messages.Status(), session, ""))(whose) is told
    assert room.desk.sight(Call(NoConnection(print), messages.Status(), None, ""))(whose)
