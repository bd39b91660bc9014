"""The page in a running house: real people log in by a form, one asks, another approves, both are in the audit log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
import templates
from browsing import Read
from house import Answer, House
from people import People
from space import Space

pytestmark = pytest.mark.root

POLICY = """\
[[grant]]
id = "sight"
who = ["group:@webops@", "user:@bob@"]
may = ["view", "logs"]
on = ["worker"]

[[grant]]
id = "two"
who = ["group:@webops@"]
may = ["restart"]
on = ["worker"]
reason = true
approval = { by = ["user:@bob@"], within = "10m" }

[[grant]]
id = "again"
who = ["group:@webops@"]
may = ["view", "reload", "signal"]
on = ["*"]
"""
HOST = f"durward.localhost:{templates.API_PORT}"


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    services = {"worker.toml": templates.plain("worker", "say", "<script>alert(1)</script>")}
    with House(people, space, services, {"10-web.toml": POLICY}).running() as house:
        house.until(lambda: len(house.api_workers()) == 2, "the api has its workers")
        yield house


class Visitor:
    """Somebody's browser, without JavaScript."""

    def __init__(self, house: House, short: str) -> None:
        self.house, self.person, self.cookie, self.at = house, house.people[short], "", ""

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        headers = {"Host": HOST} | ({"Cookie": self.cookie} if self.cookie else {})
        if body is not None:
            headers |= {
                "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin",
                "Content-Type": "application/x-www-form-urlencoded",
            }  # fmt: skip
        answer = self.house.http(path, method, templates.API_PORT, body=body, headers=headers)
        if told := answer.headers.get("Set-Cookie"):
            name, _, value = told.partition(";")[0].partition("=")
            self.cookie = f"{name}={value}" if value else ""
        if answer.status == 303:
            return self._ask("GET", answer.headers["Location"])
        self.at = path
        return answer

    def see(self, path: str) -> Read:
        answer = self._ask("GET", path)
        assert answer.status == 200, (path, answer)
        return Read(answer.body.decode())

    def send(self, page: Read, **typed: str) -> Read:
        """The form of the page's main part, with what is hidden in it."""
        action = [str(one["action"]) for one in page.of("form", method="post") if one["action"] != "/logout"][-1]
        fields = {name: value for name, value in page.fields.items() if name in ("proof", "next", "shown")}
        answer = self._ask("POST", action, urlencode({**fields, **typed}).encode())
        return Read(answer.body.decode())

    def log_in(self) -> Read:
        return self.send(self.see("/"), user=self.person.name, password=self.person.password)


def test_one_asks_on_the_page_another_approves_there_and_both_are_in_the_audit_log(house: House) -> None:
    alice, bob = Visitor(house, "alice"), Visitor(house, "bob")
    before = house.pids("worker")
    read = alice.log_in()
    assert (alice.at, "worker RUNNING" in read.text) == ("/", True)
    assert "/services/worker/stop" not in read.links

    shown = alice.see("/services/worker")
    assert "<script>alert(1)</script>" in shown.text, "its log, as text"
    assert all(str(one["src"]).startswith("/static/") for one in shown.of("script"))
    asks = alice.see("/services/worker/restart")
    assert f"once user:{bob.person.name} approves" in asks.text
    waits = alice.send(asks, reason="new libraries")
    number = re.fullmatch(r"/approvals/([0-9]+)", alice.at)
    assert number, waits.text
    assert house.pids("worker") == before

    assert "1 asks for approval" in bob.log_in().text
    looks = bob.see(f"/approvals/{number[1]}")
    for words in (alice.person.name, "restart worker", "new libraries", "By which rule two"):
        assert words in looks.text
    bob.send(looks, reason="seen")
    assert bob.at.startswith("/operations/")
    house.until(lambda: "Done: worker restarted" in bob.see(bob.at).text, "the restart is over")
    assert house.pids("worker") != before
    assert "done: worker restarted" in alice.see("/approvals").text

    decided = [one for one in house.audit() if one.get("kind") == "decision" and one.get("approved_by")]
    assert [(one["user"], one["approved_by"], one["reason"], one["allowed"]) for one in decided] == [
        (alice.person.name, bob.person.name, "new libraries", True)
    ]
    gone = alice.cookie
    assert alice._ask("POST", "/logout", urlencode({"proof": waits.fields["proof"]}).encode()).status == 200
    assert (alice.at, alice.cookie) == ("/login", "")
    alice.cookie = gone
    alice.see("/")
    assert alice.at.startswith("/login?next="), "the session is over, whoever kept its cookie"


def test_a_reload_takes_what_it_has_shown_and_where_that_is_other_by_now_shows_it_anew(house: House) -> None:
    def over() -> Read:
        """The page of the operation that one was led to, at its end."""
        house.until(lambda: "Under way" not in alice.see(alice.at).text, "it is over")
        return alice.see(alice.at)

    alice = Visitor(house, "alice")
    assert "/reload" in alice.log_in().links
    house.write("services.d/extra.toml", templates.plain("extra", "say", "red"))
    alice.send(alice.see("/reload"))
    shown = over()
    assert "What a reload would change added: extra Services" in shown.text
    house.write("services.d/extra.toml", templates.plain("extra", "say", "blue"))  # in one line it is the same
    alice.send(shown)
    anew = over()
    assert "Nothing was changed: since it was shown the configuration, or" in anew.text
    assert "What a reload would change" in anew.text
    assert "extra" not in house.status()
    alice.send(anew)
    assert "Done: reloaded: added: extra" in over().text
    assert "extra" in house.status()

    sure = alice.send(alice.see("/services/extra/signal"), signal="TERM")
    assert "Send TERM to extra?" in sure.text
    alice.send(sure, signal="TERM", sure="true")
    assert "Done: TERM sent to extra" in over().text


def test_h4_a_session_of_the_page_is_none_for_the_api(house: House) -> None:
    bob = Visitor(house, "bob")
    bob.log_in()
    name, _, value = bob.cookie.partition("=")
    assert (name, len(value)) == ("__Host-durward", 64)
    assert house.http("/api/v1/services", port=templates.API_PORT, headers={"Cookie": bob.cookie}).status == 401
    carried = house.http("/", port=templates.API_PORT, headers={"Authorization": f"Bearer {value}"})
    assert (carried.status, carried.headers["Location"]) == (303, "/login?next=%2F")
