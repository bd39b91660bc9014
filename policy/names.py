r"""The names that people and files may use, parsed once into types that cannot be wrong.

Every pattern is anchored with \A and \Z and is ASCII only: "$" accepts a newline, and "\d" accepts ٣.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NewType

ServiceName = NewType("ServiceName", str)
GroupName = NewType("GroupName", str)  # a group of services
UserName = NewType("UserName", str)  # a person, or a Unix group of people
RuleId = NewType("RuleId", str)  # a rule of the policy
SignalName = NewType("SignalName", str)  # without SIG: "HUP"

SERVICE_PATTERN = r"\A[a-z0-9][a-z0-9_.-]{0,62}\Z"
USER_PATTERN = r"\A[a-z_][a-z0-9_-]{0,31}\Z"
SIGNALS = "HUP|INT|QUIT|USR1|USR2|TERM|CONT|STOP|WINCH|KILL|ALRM|TTIN|TTOU|PIPE|ABRT"
SIGNAL_PATTERN = rf"\A({SIGNALS})\Z"
RULE_PATTERN = r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z"
PROCESS_PATTERN = r"\A(?:[a-z0-9][a-z0-9_.-]{0,62}(?::[0-9]{1,4})?)?\Z"  # "site", "site:0"; "" is the first
SOURCE_PATTERN = r"\A[ -~]{0,100}\Z"  # where a client came from, in its own words: no control characters
# why somebody asks for something, in his own words: one line that can be read, and nothing in it that could
# reorder or hide what is shown
_UNSHOWN = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
_BLANK = (  # what may be between words and says nothing alone: spaces, what joins or breaks, fillers, selectors
    r" \xa0\xad\u034f\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200d\u202f\u205f-\u2065\u206a-\u206f\u2800"
    r"\u3000\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff"
)
REASON_PATTERN = rf"\A(?:(?=[{_BLANK}]*[^{_BLANK}])[^{_UNSHOWN}]{{1,200}})?\Z"
UID_MAX = 2**32 - 2  # 4294967295 is (uid_t) -1, which setresuid(2) takes for "leave it as it is"
RESERVED = "durward-"  # services of our own, such as durward-api, begin so

_SERVICE = re.compile(SERVICE_PATTERN)
_USER = re.compile(USER_PATTERN)
_RULE = re.compile(RULE_PATTERN)
_REASON = re.compile(REASON_PATTERN)
_SIGNAL = re.compile(SIGNAL_PATTERN)


class Action(StrEnum):
    """What somebody may do: the nouns of the policy (DESIGN §2)."""

    VIEW = "view"
    LOGS = "logs"
    CLEAR = "clear"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    SIGNAL = "signal"
    SCALE = "scale"
    ENABLE = "enable"
    RELOAD = "reload"
    POLICY = "policy"
    AUDIT = "audit"
    APPROVE = "approve"
    REVOKE = "revoke"
    SHUTDOWN = "shutdown"


# Actions that are about the daemon as a whole; `on` must be ["*"] or absent for them and no service is named.
GLOBAL_ACTIONS = frozenset({Action.RELOAD, Action.POLICY, Action.AUDIT, Action.APPROVE, Action.REVOKE, Action.SHUTDOWN})

# Actions that change something: what a rule demands besides (a reason) it demands for these alone.
CHANGING = frozenset(Action) - {Action.VIEW, Action.LOGS, Action.POLICY, Action.AUDIT, Action.APPROVE}


def service_name(text: str) -> ServiceName:
    """Raises ValueError with a sentence that says what a service name is."""
    if not _SERVICE.match(text):
        raise ValueError(
            f"{text!r} is not a service name: 1 to 63 of a-z, 0-9, '_', '.' and '-', beginning with a letter or digit"
        )
    return ServiceName(text)


def group_name(text: str) -> GroupName:
    """A group of services; the same alphabet as a service name."""
    if not _SERVICE.match(text):
        raise ValueError(
            f"{text!r} is not a group name: 1 to 63 of a-z, 0-9, '_', '.' and '-', beginning with a letter or digit"
        )
    return GroupName(text)


def unix_group(text: str) -> UserName:
    """The name of a Unix group; the same alphabet as a user's."""
    if not _USER.match(text):
        raise ValueError(
            f"{text!r} is not the name of a Unix group: 1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter"
            " or '_'"
        )
    return UserName(text)


def user_name(text: str) -> UserName:
    """The name of a Unix user, as useradd(8) takes them."""
    if not _USER.match(text):
        raise ValueError(
            f"{text!r} is not a user name: 1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter or '_'"
        )
    return UserName(text)


def rule_id(text: str) -> RuleId:
    """The name of a rule. "root" is the one that is no rule (DESIGN §1) and cannot be taken."""
    if not _RULE.match(text) or text == "root":
        raise ValueError(
            f"{text!r} is not an id: 1 to 63 letters, digits, '_', '.' and '-', beginning with a letter or digit,"
            " and not 'root'"
        )
    return RuleId(text)


def signal_name(text: str) -> SignalName:
    """A signal by its name without SIG, as signal(7) spells it."""
    if not _SIGNAL.match(text):
        raise ValueError(f"{text!r} is not a signal that can be sent: {SIGNALS.replace('|', ', ')}")
    return SignalName(text)


def reason(text: str) -> str:
    """Why somebody asks for something. Raises ValueError."""
    if not _REASON.match(text):
        raise ValueError("a reason is one line of at most 200 characters, not only blanks, without control characters")
    return text
