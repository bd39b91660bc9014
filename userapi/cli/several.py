"""One command for several services: each is asked for on its own, then each is told in its turn, in the order of names.

Rule 1: each member is one ordinary command, decided by policy and recorded on its own; one that fails stops no other.
Rule 2: all are asked for before the first is followed, so that the daemon may do them at the same time. They are
        followed one after the other, because a session may wait for few things at once.
--json: {"results": [{"service", and what the command for it alone would print, "error" in place of its outcome}]}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from userapi.cli import targets
from userapi.cli.failure import FAILED, INTERRUPTED, OK, Failure
from userapi.cli.operations import document, followed
from userapi.cli.render import Screen

AHEAD = 200  # asked for before the first is followed: the daemon remembers the end of 512 operations of everybody's
GONE = ("no-session", "unreachable")  # kinds that are about the asker or the way, so that the next one need not try
Answer = dict[str, Any] | Failure


class Several:
    def __init__(self, ask: Any, screen: Screen, no_wait: bool, command: Callable[[str], dict[str, Any]]) -> None:
        """command asks for one service, and raises Failure."""
        self._ask, self._screen, self._no_wait, self._command = ask, screen, no_wait, command
        self._left: list[str] = []  # not asked for yet
        self._asking = ""
        self._answers: dict[str, Answer] = {}  # asked for, and not told yet
        self._gone: Failure | None = None
        self._results: list[dict[str, Any]] = []
        self._codes: list[int] = []
        self._failed: dict[str, list[str]] = {called: [] for called in targets.GRAVITY.values()}
        self._hints: dict[str, None] = {}

    def run(self, words: list[str]) -> int:
        """The exit code. Raises Failure when the words mean no service."""
        self._left, missing = targets.meant(words, self._ask.status(None))
        for word, failure in missing.items():
            self._no(word, failure, failure.text)
        try:
            while self._left:
                self._ask_ahead()
                self._gone = None  # what has begun is worth another try
                for name in list(self._answers):
                    self._tell(name, self._answers[name])
                    del self._answers[name]
        except KeyboardInterrupt:
            self._interrupted()
            return INTERRUPTED
        self._over()
        return targets.gravest(self._codes)

    def _ask_ahead(self) -> None:
        for name in self._left[:AHEAD]:
            self._asking = name
            self._answers[name] = self._asked(name)
            self._asking = ""
            del self._left[0]

    def _asked(self, name: str) -> Answer:
        if self._gone is not None:
            return Failure(self._gone.kind, f"not asked for: {self._gone.text}")
        try:
            return self._command(name)
        except Failure as failure:
            self._gone = failure if failure.kind in GONE else None
            return failure

    def _tell(self, name: str, answer: Answer) -> None:
        if isinstance(answer, Failure):
            self._no(name, answer, targets.line(name, answer.text))
        elif "approval" in answer:
            waits = Failure("later", answer["text"])
            self._no(name, waits, targets.line(name, waits.text), called="not approved yet")
        elif "operation" not in answer:
            self._yes(name, answer, answer.get("text") or "done")
        elif self._no_wait:
            self._yes(name, answer, f"{answer.get('text') or 'begun'} (operation {answer['operation']})")
        else:
            self._follow(name, answer["operation"])

    def _follow(self, name: str, number: int) -> None:
        try:
            if self._gone is not None:
                raise self._gone
            event, steps = followed(self._ask, self._screen, number)
        except Failure as failure:
            self._gone = failure if failure.kind in GONE else None
            text = f"begun as operation {number}, but nobody tells how it goes on: {failure.text}"
            unknown = Failure(failure.kind, text)
            return self._no(name, unknown, targets.line(name, text), called="not followed", operation=number)
        told = document(event, steps)
        if event["ok"]:
            return self._yes(name, told, f"{event['text']} in {event['seconds']:.2f} s")
        return self._no(name, told, targets.line(name, event["text"]))

    def _yes(self, name: str, told: dict[str, Any], text: str) -> None:
        self._results.append({"service": name, **told})
        self._codes.append(OK)
        if not self._screen.as_json:
            self._screen.say(targets.line(name, text))

    def _no(self, name: str, why: Answer, line: str, called: str = "", **more: Any) -> None:
        """why: the failure, or the object of an operation that failed."""
        code = FAILED
        if isinstance(why, Failure):
            code = why.exit
            self._hints.update(dict.fromkeys(why.hints()))
            why = why.document()
        self._results.append({"service": name, **more, **why})
        self._codes.append(code)
        self._failed.setdefault(called or targets.GRAVITY[code], []).append(name)
        self._screen.progress(line)

    def _over(self) -> None:
        if self._screen.as_json:
            self._screen.json({"results": self._results})
        for hint in self._hints:
            self._screen.progress(hint)
        failed = {called: names for called, names in self._failed.items() if names}
        if failed:
            self._screen.progress(targets.summary(self._codes.count(OK), failed))

    def _interrupted(self) -> None:
        """What is known already is told, then what goes on, and what was not asked for."""
        going = {}
        for name, answer in self._answers.items():
            if isinstance(answer, Failure) or "operation" not in answer:
                self._tell(name, answer)
            else:
                going[name] = answer["operation"]
                self._results.append({"service": name, **answer})
        if self._screen.as_json:
            self._screen.json({"results": self._results})
        if going:
            told = ", ".join(f"{name} (operation {number})" for name, number in going.items())
            first = next(iter(going.values()))
            self._screen.progress(f"without you go on: {told}; to follow one: durward events --operation {first}")
        if self._asking and self._asking not in self._answers:
            self._screen.progress(f"{self._asking} was just being asked for: see durward status")
        left = [name for name in self._left if name != self._asking and name not in self._answers]
        if left:
            self._screen.progress(f"not asked for: {', '.join(left)}")
