"""A real browser, driven by the DevTools protocol through two pipes: JSON, a NUL after each message.

Rule 1: the standard library alone, and no port: nobody but who has started it can drive it.
Rule 2: each visitor is a browser context of his own, as somebody else's browser would be.
Source: https://chromedevtools.github.io/devtools-protocol/ and Chromium's --remote-debugging-pipe (reads 3, writes 4).
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import templates
from space import Space

PROGRAM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
PATIENCE = 30.0  # seconds
TICK = 0.02
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
KEYS = {"Tab": 9, "Enter": 13, " ": 32}


class Chromium:
    """Ended by `close`, with all of its processes: they are a process group, and its profile is thrown away."""

    def __init__(self, space: Space) -> None:
        self._folder = tempfile.mkdtemp(prefix="durward-chromium-")
        argv, fds = space.command(PROGRAM, *OPTIONS, f"--user-data-dir={self._folder}")
        theirs, self._to = os.pipe()
        self._from, told = os.pipe()
        high = [os.dup2(fd, 200 + at) for at, fd in enumerate((theirs, told))]  # 3 and 4 may be anything's just now
        ended = f'exec 3<&{high[0]} 4>&{high[1]} {high[0]}<&- {high[1]}>&-; exec "$@"'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", ended, "chromium", *argv], pass_fds=(*fds, *high), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "HOME": self._folder, "LANG": "C.UTF-8"},
        )  # fmt: skip
        for fd in (theirs, told, *high):
            os.close(fd)
        self._numbers, self._data = itertools.count(1), b""
        self._tabs: dict[str, Tab] = {}

    def call(self, method: str, session: str = "", **values: object) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": values} | ({"sessionId": session} if session else {})
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            if tab := self._tabs.get(answer.get("sessionId", "")):
                tab.told(answer["method"], answer["params"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._data:
            assert select.select([self._from], [], [], PATIENCE)[0], "the browser says nothing"
            piece = os.read(self._from, 1 << 16)
            assert piece, "the browser has ended"
            self._data += piece
        line, _, self._data = self._data.partition(b"\0")
        return dict(json.loads(line))

    def tab(self, width: int = 1280, height: int = 900, script: bool = True) -> Tab:
        """Somebody else's window."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self._tabs[session] = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            tab.call(f"{domain}.enable")
        tab.size(width, height)
        tab.call("Emulation.setScriptExecutionDisabled", value=not script)
        return tab

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._folder, ignore_errors=True)


class Tab:
    """complaints: what the browser has to say of the page: errors, warnings, what a policy of the page forbids.
    events: the names of the server-sent ones that have come.
    """

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session
        self.complaints: list[str] = []
        self.events: list[str] = []

    def call(self, method: str, **values: object) -> dict[str, Any]:
        return self._browser.call(method, self._session, **values)

    def told(self, method: str, values: dict[str, Any]) -> None:
        if method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Audits.issueAdded"):
            self.complaints.append(json.dumps(values))
        elif method == "Network.eventSourceMessageReceived":
            self.events.append(values["eventName"])

    def size(self, width: int, height: int, scale: float = 1) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def js(self, expression: str) -> Any:
        """Its value; of a page that goes away meanwhile, None."""
        try:
            told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        except RuntimeError:
            return None
        assert "exceptionDetails" not in told, (expression, told["exceptionDetails"])
        return told["result"].get("value")

    def until(self, expression: str) -> None:
        """Until that is true."""
        end = time.monotonic() + PATIENCE
        while not self.js(f"Boolean({expression})"):
            assert time.monotonic() < end, (expression, self.js("location.href + document.body.innerText"))
            select.select([], [], [], TICK)

    def until_told(self, event: str) -> None:
        """Until the page has had such an event: so it is connected."""
        end = time.monotonic() + PATIENCE
        while event not in self.events:
            assert time.monotonic() < end, (event, self.events)
            self.js("1")
            select.select([], [], [], TICK)

    def go(self, path: str) -> None:
        """To that page of the house; of what is typed into the address line, nothing else."""
        self.js("window.old = true")
        self.call("Page.navigate", url=f"http://durward.localhost:{templates.API_PORT}{path}")
        self.until("!window.old && document.readyState === 'complete'")

    def type(self, words: str) -> None:
        self.call("Input.insertText", text=words)

    def press(self, *keys: str) -> None:
        for key in keys:
            text = {"Enter": "\r", "Tab": ""}.get(key, key)
            values = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS.get(key, 0)}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **values)
            self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def click(self, selector: str) -> None:
        """As a person does, so that where it leads is a navigation of his."""
        x, y = self.js(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.scrollIntoView();"
            " const at = one.getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def follow(self, selector: str) -> None:
        """Click on what leads to another page, and see it."""
        self.js("window.old = true")
        self.click(selector)
        self.until("!window.old && document.readyState === 'complete'")

    def leads(self, key: str) -> None:
        """Press what leads to another page, and see it."""
        self.js("window.old = true")
        self.press(key)
        self.until("!window.old && document.readyState === 'complete'")

    def log_in(self, user: str, password: str) -> None:
        self.go("/login")
        self.js("document.getElementById('user').focus()")
        self.type(user)
        self.press("Tab")
        self.type(password)
        self.leads("Enter")

    def picture(self, path: Path, whole: bool = True) -> None:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
