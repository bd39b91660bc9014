"""What went wrong, for the person and for scripts: a kind, a sentence, and the exit code that the kind has."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing says it: importing that takes longer than asking
if TYPE_CHECKING:
    from typing import Any

OK = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
UNKNOWN = 4
BAD_CONFIG = 65
UNREACHABLE = 69
LATER = 75
DENIED = 77
INTERRUPTED = 130

EXIT = {
    "no-session": DENIED,
    "forbidden": DENIED,
    "unknown": UNKNOWN,
    "not-running": NOT_RUNNING,
    "conflict": FAILED,
    "invalid": USAGE,
    "later": LATER,
    "failed": FAILED,
    "usage": USAGE,
    "unreachable": UNREACHABLE,
    "bad-configuration": BAD_CONFIG,
}


class Failure(Exception):
    """Ends the command. `more` is what the daemon told besides: rule, file, line, would_help."""

    def __init__(self, kind: str, text: str, **more: Any) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.more = more

    @property
    def exit(self) -> int:
        return EXIT.get(self.kind, FAILED)

    def hints(self) -> list[str]:
        """Lines that follow the sentence: where the rule is, and whom to ask."""
        told = []
        rule, file = self.more.get("rule", ""), self.more.get("file", "")
        if rule and rule not in self.text:
            told.append(f"the rule is '{rule}'" + (f", {file}:{self.more.get('line', 0)}" if file else ""))
        for other in self.more.get("would_help", []):
            if str(other) not in self.text and str(other).partition(" ")[0].strip("',") not in self.text:
                told.append(f"this would allow it: {other}")
        if "token" in self.text:  # neither another rule nor a login changes what that is for
            return told
        if self.kind == "forbidden" and ("rule" in self.text or rule):  # else no policy is in the way
            told.append("ask root or the people who keep the policy")
        if self.kind == "no-session" and "log in" not in self.text and "login" not in self.text:
            told.append("log in first: durward login")
        return told

    def document(self) -> dict[str, Any]:
        """What --json prints: {"error": {"kind", "text", "exit", …}}."""
        more = {key: value for key, value in self.more.items() if value}
        return {"error": {"kind": self.kind, "text": self.text, "exit": self.exit, **more}}


def no_service(name: str) -> Failure:
    """In the daemon's own words."""
    return Failure("unknown", f"no service '{name}' that you may view")
