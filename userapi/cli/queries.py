"""status, describe, whoami, why, operations, events: what is asked and changes nothing.

--json: status {"services": […]}, with "errors" [{"service", "error"}] for words of several that mean no service;
describe {"service", "settings", "sockets", "exits", "chosen_by", "lost"}; whoami {"user", "uid", "groups", "expires",
"rights", "token"}; why {"allowed", "text", "rule", "file", "line"}; operations {"operations": [{"number", "kind",
"service", "user", "joined", "since", "step", "ok", "text", "seconds"}]}, "ok" null while it is under way; events one
object a line, by "is": changed, step, ended, lapsed, and missed, for events that are not kept any more; the last
"number" is what --after takes.
"""

from __future__ import annotations

from userapi.cli.failure import FAILED, NOT_RUNNING, OK, Failure, no_service
from userapi.cli.render import Screen

TYPE_CHECKING = False  # as typing says it: importing that takes longer than asking
if TYPE_CHECKING:
    from typing import Any

ALIVE = frozenset({"RUNNING", "STARTING", "STOPPING"})


def status(ask: Any, screen: Screen, args: Any) -> int:
    """Exit 3 when services were named and one of them is not running."""
    if args.service is None and args.targets:
        return _status_of(ask, screen, args.targets)
    services = ask.status(args.service)
    if args.service is not None and not services:
        raise no_service(args.service)
    if screen.as_json:
        screen.json({"services": services})
    else:
        screen.services(services)
    return OK if args.service is None or services[0]["state"] in ALIVE else NOT_RUNNING


def _status_of(ask: Any, screen: Screen, words: list[str]) -> int:
    from userapi.cli import targets

    known = {service["name"]: service for service in ask.status(None)}
    names, missing = targets.meant(words, list(known.values()))
    for name in names:
        if name not in known:
            missing[name] = no_service(name)
    services = [known[name] for name in names if name in known]
    if screen.as_json:
        errors = [{"service": word, **failure.document()} for word, failure in missing.items()]
        screen.json({"services": services, **({"errors": errors} if errors else {})})
    elif services:
        screen.services(services)
    for failure in missing.values():
        screen.progress(failure.text)
    down = [NOT_RUNNING for service in services if service["state"] not in ALIVE]
    return targets.gravest([*down, *(failure.exit for failure in missing.values())])


def describe(ask: Any, screen: Screen, args: Any) -> int:
    told = ask.describe(args.service)
    if screen.as_json:
        screen.json(told)
    else:
        screen.description(told)
    return OK


def whoami(ask: Any, screen: Screen, args: Any) -> int:
    told = ask.whoami()
    if screen.as_json:
        screen.json(told)
    else:
        screen.rights(told)
    return OK


def why(ask: Any, screen: Screen, args: Any) -> int:
    """Exit 0 when it is allowed, 1 when it is not, 4 when there is no such service that the asker may view."""
    from policy import names

    if args.action not in list(names.Action):
        raise Failure("usage", f"action must be one of the policy's: {', '.join(names.Action)}")
    if args.service is None and args.action not in names.GLOBAL_ACTIONS:
        raise Failure("usage", f"{args.action} is about a service: durward why {args.action} SERVICE")
    if args.service is not None and args.action in names.GLOBAL_ACTIONS:
        raise Failure("usage", f"{args.action} is about the daemon as a whole: durward why {args.action}")
    told = ask.why(args.action, args.service)
    if screen.as_json:
        screen.json(told)
    else:
        screen.paragraph(told["text"])
        if told.get("file") and told["file"] not in told["text"]:
            screen.say(f"the rule is '{told['rule']}', {told['file']}:{told['line']}")
    return OK if told["allowed"] else FAILED


def operations(ask: Any, screen: Screen, args: Any) -> int:
    found = ask.operations(args.service, args.all)
    if screen.as_json:
        screen.json({"operations": found})
    else:
        screen.operations(found)
    return OK


def events(ask: Any, screen: Screen, args: Any) -> int:
    """Until Ctrl-C; with --operation, until that operation has ended, and its outcome is the exit code."""
    if args.operation is None:
        for event in ask.events(args.service, args.after):
            screen.event(event)
        return OK
    for event in ask.operation(args.operation, args.after):
        screen.event(event)
        if event["is"] == "ended":
            return OK if event["ok"] else FAILED
    return FAILED
