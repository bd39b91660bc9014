"""The page in a real browser: what its program does, the keyboard, narrow windows, and nothing that its policy forbids.

Run by -m browser, where there is a Chromium. The pages are tested without one too (test_page, tests/userapi/web).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import templates
from chromium import PROGRAM, Chromium, Tab
from house import House
from people import People
from space import Space

from policy import messages

pytestmark = [
    pytest.mark.root, pytest.mark.browser,
    pytest.mark.skipif(not PROGRAM, reason="needs a browser: apt-get install chromium"),
]  # fmt: skip

POLICY = """\
[[grant]]
id = "sight"
who = ["group:@webops@", "user:@bob@"]
may = ["view", "logs"]
on = ["*"]

[[grant]]
id = "why"
who = ["group:@webops@"]
may = ["restart"]
on = ["shop"]
reason = true

[[grant]]
id = "hands"
who = ["group:@webops@"]
may = ["signal", "scale", "enable", "reload"]
on = ["*"]

[[grant]]
id = "two"
who = ["group:@webops@"]
may = ["restart"]
on = ["worker"]
approval = { by = ["user:@bob@"], within = "10m" }
"""
OFFLINE = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
ROW = "document.querySelector('[data-process={}]')"


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    services = {f"{name}.toml": templates.plain(name, "say", "<b>hello") for name in ("shop", "worker")}
    with House(people, space, services, {"10-web.toml": POLICY}).running() as house:
        house.until(lambda: len(house.api_workers()) == 2, "the api has its workers")
        yield house


@pytest.fixture(scope="module")
def chromium(space: Space) -> Iterator[Chromium]:
    chromium = Chromium(space)
    yield chromium
    chromium.close()


def visit(house: House, chromium: Chromium, short: str, script: bool = True) -> Tab:
    tab = chromium.tab(script=script)
    tab.log_in(house.people[short].name, house.people[short].password)
    return tab


def test_a_restart_by_keyboard_is_seen_to_its_end_and_by_others_without_loading_again(
    house: House, chromium: Chromium
) -> None:
    bob, alice = visit(house, chromium, "bob"), visit(house, chromium, "alice")
    before = house.pids("shop")
    bob.until_told("rows")
    bob.js("window.mark = true")

    while alice.js("document.activeElement.getAttribute('href')") != "/services/shop/restart":
        alice.press("Tab")
    alice.leads("Enter")
    alice.js("document.getElementById('reason').focus()")
    alice.type("new libraries")
    alice.leads("Enter")
    alice.until("document.querySelector('.outcome[data-ok=true]')")
    assert "Done: shop restarted" in alice.js("document.body.innerText")
    (after,) = house.pids("shop")
    assert [after] != before
    bob.until(f"{ROW.format('shop')}.innerText.includes('{after}')")
    assert bob.js("window.mark"), "nothing was loaded again"
    alice.go("/services/shop")
    assert "<b>hello" in alice.js("document.querySelector('pre').textContent")
    assert alice.complaints + bob.complaints == []


def test_what_is_not_told_is_said_and_told_again_after_kill_9(house: House, chromium: Chromium) -> None:
    bob = visit(house, chromium, "bob")
    bob.until_told("rows")
    bob.js("window.mark = true")
    bob.call("Network.emulateNetworkConditions", offline=True, **OFFLINE)
    house.wait_back("supervisor", house.kill9("supervisor"))
    bob.until("document.getElementById('said').innerText.startsWith('Not told just now')")
    ended = house.operate(messages.Stop(service="shop"))[1]
    assert ended.ok
    bob.call("Network.emulateNetworkConditions", offline=False, **OFFLINE)
    bob.until(f"{ROW.format('shop')}.dataset.state === 'STOPPED'")
    assert not bob.js("document.getElementById('said').innerText.startsWith('Not told')")
    assert bob.js("window.mark"), "nothing was loaded again"
    assert house.operate(messages.Start(service="shop"))[1].ok


def test_who_waits_for_an_approval_sees_that_it_was_given_and_what_has_begun(house: House, chromium: Chromium) -> None:
    alice, bob = visit(house, chromium, "alice"), visit(house, chromium, "bob")
    alice.go("/services/worker/restart")
    alice.follow("button.first")
    assert f"Tell who may approve it (user:{house.people['bob'].name})" in alice.js("document.body.innerText")
    bob.go("/approvals")
    bob.follow(".cards .button")
    bob.follow("button.first")
    assert bob.js("location.pathname").startswith("/operations/"), "that it is over does not hinder what he has sent"
    alice.until("document.body.innerText.includes('It waits no more')")
    assert "restart worker" in alice.js("document.querySelector('table').innerText")
    alice.follow("tbody a")
    alice.until("document.querySelector('.outcome[data-ok=true]')")
    assert alice.complaints + bob.complaints == []


def test_an_error_has_the_focus_and_the_title_says_so(house: House, chromium: Chromium) -> None:
    alice = visit(house, chromium, "alice")
    alice.go("/services/shop/restart")
    alice.js("document.getElementById('reason').required = false")
    alice.follow("button.first")
    alice.until("document.activeElement.getAttribute('role') === 'alert'")
    assert "Say why" in alice.js("document.activeElement.innerText")
    assert alice.js("document.title").startswith("Error: ")
    alice.press("Tab")
    assert alice.js("document.activeElement.id") == "reason"


def test_a_narrow_window_keeps_the_table_and_needs_no_scrolling_sideways(house: House, chromium: Chromium) -> None:
    alice = visit(house, chromium, "alice")
    alice.size(320, 640)
    pages = ("", "/restart", "/signal", "/scale", "/disable")
    for path in ("/", "/approvals", "/operations", "/reload", *(f"/services/shop{page}" for page in pages)):
        alice.go(path)
        assert alice.js("document.documentElement.scrollWidth") <= 320, path
    alice.go("/")
    nodes = alice.call("Accessibility.getFullAXTree")["nodes"]
    roles = Counter(node["role"]["value"] for node in nodes if not node["ignored"])
    assert (roles["row"], roles["rowheader"], roles["columnheader"], roles["cell"]) == (3, 2, 6, 10)


def test_a_signal_that_ends_it_is_chosen_and_asked_once_more_by_keyboard(house: House, chromium: Chromium) -> None:
    alice = visit(house, chromium, "alice")
    alice.go("/services/shop/signal")
    alice.js("document.getElementById('signal').focus()")
    alice.press("T")
    assert alice.js("document.activeElement.value") == "TERM"
    alice.press("Tab", "Tab")
    alice.leads("Enter")
    assert "Send TERM to shop?" in alice.js("document.querySelector('h1').innerText")
    alice.js("document.querySelector('button.first').focus()")
    alice.leads("Enter")
    alice.until("document.querySelector('.outcome[data-ok=true]')")
    assert alice.complaints == []


def test_without_javascript_a_reload_is_seen_and_taken_in_a_narrow_window(house: House, chromium: Chromium) -> None:
    alice = visit(house, chromium, "alice", script=False)
    alice.size(320, 640)
    house.write("services.d/extra.toml", templates.plain("extra", "say", "hello", more="autostart = false"))
    alice.go("/reload")
    alice.follow("button.first")
    alice.until("document.querySelector('ul[aria-labelledby=changes]')")
    assert "added: extra" in alice.js("document.querySelector('ul[aria-labelledby=changes]').innerText")
    assert alice.js("document.documentElement.scrollWidth") <= 320
    alice.follow("button.first")
    alice.until("document.querySelector('.outcome[data-ok=true]')")
    assert "Done: reloaded: added: extra" in alice.js("document.body.innerText")
    assert alice.complaints == []


def test_without_javascript_a_restart_goes_as_far(house: House, chromium: Chromium) -> None:
    alice = visit(house, chromium, "alice", script=False)
    alice.go("/services/shop/restart")
    alice.click("#reason")
    alice.type("no program")
    alice.follow("button.first")
    alice.until("document.querySelector('.outcome[data-ok=true]')")
