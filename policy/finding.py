"""What lint can find, in ONE table: how grave it is, why it matters and what to do. Its codes are for programs."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from policy.rules import Deny, Grant

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")  # the gravest first


class Kind(NamedTuple):
    severity: Severity
    why: str
    todo: str


# fmt: off
KINDS: dict[str, Kind] = {
    "amounts-to-root": Kind("error", "who can do both runs what he likes as root", ""),
    "amounts-to-user": Kind("error", "who can do both runs what he likes as the service's user, with its files, secrets"
                            " and ports", ""),
    "writable": Kind("warning", "what others believe of the service, or send to it, can be made up there", ""),
    "runs-as-root": Kind("warning", "a mistake in the service, or in what it is given, is root's",
                         "run it as a user of its own, or let fewer people do this"),
    "every-service": Kind("warning", "it counts for every service that is configured later, too",
                          "name services or groups of services"),
    "every-service-seen": Kind("note", "it counts for every service that is configured later, too",
                               "name services or groups of services, unless all may be seen"),
    "own-account": Kind("error", "who takes over that part of Durward would have this right",
                        "take it out: no part of Durward needs a right"),
    "service-account": Kind("warning", "who takes over the service could log in with this right, if its user may",
                            "give rights to people alone"),
    "service-account-peer": Kind("error", "local users log in without a password here ([auth] local): who takes over"
                                 " the service has this right", "give rights to people alone"),
    "unknown-user": Kind("warning", "whoever gets this name later gets the right",
                         "mend the name, or take it out"),
    "unknown-group": Kind("warning", "whoever is in a group of this name later gets the right",
                          "mend the name, or take it out"),
    "deny-unknown": Kind("error", "it forbids nothing to anybody: the name may be misspelt",
                         "mend the name, or take it out"),
    "empty-group": Kind("warning", "nobody has this right, until somebody is in the group",
                        "put people into the group, or take it out"),
    "deny-empty-group": Kind("note", "it forbids nothing to anybody, until somebody is in the group",
                             "put people into the group, or take it out"),
    "nobody-approves": Kind("warning", "what waits for an approval that nobody can give is never done",
                            "name more people in 'by'"),
    "approval-evaded": Kind("warning", "the second person is not needed",
                            "take one of the two rights away, if that was not meant"),
    "expired": Kind("warning", "it does nothing any more, and reads as if it did",
                    "take it out, or give it a later date"),
    "deny-expired": Kind("warning", "it forbids nothing any more, and reads as if it did",
                         "take it out, or give it a later date"),
    "never-again": Kind("warning", "it expires before its hours come again, so it does nothing any more",
                        "take it out, or give it a later date"),
    "expires-soon": Kind("warning", "what it lets people do ends then", "give it a later date, if it is to go on"),
    "deny-expires-soon": Kind("warning", "what it forbids is allowed then, if another rule does",
                              "give it a later date, if it is to go on"),
    "denied": Kind("warning", "it lets nobody do anything: a deny wins over every grant",
                   "take one of the two out, or change whom or what the deny is for"),
    "shadowed": Kind("warning", "it never decides: another rule always comes before it", "take it out"),
    "duplicate": Kind("warning", "it says again what is said already; a limit that both have counts twice",
                      "take one of the two out"),
    "not-looked-at": Kind("note", "what cannot be looked at is not judged",
                          "run it as root, on the machine itself, over the whole configuration"),
    "not-told": Kind("note", "what is not told cannot be judged", "judge it, or do without a shell or the variable"),
}
# fmt: on


class Finding(msgspec.Struct, frozen=True):
    """text: what, in one sentence. file, line: of the rule; "" and 0 when it is about none. service, path: where it is
    about one."""

    severity: Severity
    code: str
    text: str
    why: str
    todo: str
    rule: str = ""
    file: str = ""
    line: int = 0
    service: str = ""
    path: str = ""


def finding(
    code: str, text: str, rule: Grant | Deny | None = None, service: str = "", path: str = "", todo: str = ""
) -> Finding:
    """Raises KeyError for a code that the table does not have."""
    kind = KINDS[code]
    where = (rule.id, rule.file, rule.line) if rule else ("", "", 0)
    return Finding(kind.severity, code, text, kind.why, todo or kind.todo, *where, service, path)
