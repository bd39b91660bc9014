"""start, stop, restart, signal, scale, cancel, approve, enable, disable, reload, revoke, shutdown, upgrade.

The outcome is waited for, its steps are told on stderr, and Ctrl-C only stops the telling. --json: {"operation",
"service", "ok", "text", "seconds", "steps", "problems"}, with --no-wait {"operation", "text"}; what is done at once
is {"text"}. One plain name is one request; anything else that means services is `several`'s.
"""

from __future__ import annotations

import re
from typing import Any

from userapi.cli.failure import BAD_CONFIG, FAILED, INTERRUPTED, LATER, OK, Failure
from userapi.cli.quick import is_plain
from userapi.cli.render import Screen, step

MOST = 1024  # processes of a service
ATTEMPTS = 7  # after a shutdown, 2 s: an api that was killed is back by then, and one that has ended never
OF_ITSELF = re.compile(r"exit status [0-9]|killed by |not ready in [0-9]")  # in why something failed: it has run
SIGNALS = {"1": "HUP", "2": "INT", "3": "QUIT", "9": "KILL", "10": "USR1", "12": "USR2", "14": "ALRM", "15": "TERM"}


def start(ask: Any, screen: Screen, args: Any) -> int:
    return _to_services(ask, screen, args, "start")


def stop(ask: Any, screen: Screen, args: Any) -> int:
    return _to_services(ask, screen, args, "stop", with_dependants=args.with_dependants)


def restart(ask: Any, screen: Screen, args: Any) -> int:
    return _to_services(ask, screen, args, "restart", hard=args.hard)


def signal(ask: Any, screen: Screen, args: Any) -> int:
    from policy import names

    name = SIGNALS.get(args.signal, args.signal).upper().removeprefix("SIG")
    try:
        names.signal_name(name)
    except ValueError as error:
        raise Failure("usage", str(error)) from None
    return _to_services(ask, screen, args, "signal", signal=name)


def enable(ask: Any, screen: Screen, args: Any) -> int:
    return _to_services(ask, screen, args, "enable", "start" if args.now else "")


def disable(ask: Any, screen: Screen, args: Any) -> int:
    return _to_services(ask, screen, args, "disable", "stop" if args.now else "")


def scale(ask: Any, screen: Screen, args: Any) -> int:
    counts = _counts(args.scaled)
    if len(counts) == 1:
        ((name, processes),) = counts.items()
        return _follow(ask, screen, args, ask.command("scale", name, processes=processes, reason=args.reason))
    from userapi.cli.several import Several

    def command(name: str) -> dict[str, Any]:
        told: dict[str, Any] = ask.command("scale", name, processes=counts[name], reason=args.reason)
        return told

    return Several(ask, screen, args.no_wait, command).run(list(counts))


def _counts(words: list[str]) -> dict[str, int]:
    """How many processes of which service, from `site=2 worker=5` or `worker 5`. Raises Failure."""
    if len(words) == 2 and "=" not in "".join(words):
        words = ["=".join(words)]
    counts: dict[str, int] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        if number == "0" and name:
            raise Failure("usage", f"to have no process of it, stop it: durward stop {name}")
        if not name or not (number.isascii() and number.isdigit() and len(number) <= 4 and 0 < int(number) <= MOST):
            raise Failure("usage", f"'{word}' must be SERVICE=N, with N from 1 to {MOST}")
        if not is_plain(name):
            raise Failure("usage", f"'{name}' may mean several services: name each with its number")
        if counts.setdefault(name, int(number)) != int(number):
            raise Failure("usage", f"{name} cannot have {counts[name]} processes and {int(number)} too")
    return counts


def _to_services(ask: Any, screen: Screen, args: Any, do: str, then: str = "", **more: Any) -> int:
    """then: a second command for each, once the first is done: it has a right of its own, and is what is followed."""

    def command(name: str) -> dict[str, Any]:
        told: dict[str, Any] = ask.command(do, name, reason=args.reason, **more)
        if not then:
            return told
        try:
            begun: dict[str, Any] = ask.command(then, name, reason=args.reason)
        except Failure as failure:
            raise Failure(failure.kind, f"{told['text']}, but {failure.text}", **failure.more) from None
        if not screen.as_json:
            screen.say(told["text"])
        return begun

    if args.service is not None:
        return _follow(ask, screen, args, command(args.service))
    from userapi.cli.several import Several

    return Several(ask, screen, args.no_wait, command).run(args.targets)


def cancel(ask: Any, screen: Screen, args: Any) -> int:
    return done(screen, ask.cancel(args.operation, args.reason))


def approve(ask: Any, screen: Screen, args: Any) -> int:
    """Agree to what waits under that number; without one, what waits."""
    if args.withdraw:
        if args.approval is None:
            raise Failure("usage", "say which: durward approve --withdraw N; durward approve lists yours too")
        return done(screen, ask.withdraw(args.approval, args.reason))
    if args.approval is not None:
        return done(screen, ask.approve(args.approval, args.reason))
    found = ask.approvals()
    if screen.as_json:
        screen.json({"approvals": found})
    for one in [] if screen.as_json else found:
        why = f" ({one['reason']})" if one.get("reason") else ""
        whose = "yours, for" if one.get("yours") else "by"
        screen.say(f"{one['number']}  {one['user']}: {one['text']}{why}; {whose} {one['by']}, until {one['until']}")
        for more in (one.get("changes"), one.get("stale")):  # of a reload
            screen.say(f"   {more}") if more else None
    if not found:
        screen.progress("nothing waits that you may approve or have asked for")
    return OK


def reload(ask: Any, screen: Screen, args: Any) -> int:
    return _follow(ask, screen, args, ask.command("reload", dry_run=args.dry_run, reason=args.reason))


def revoke(ask: Any, screen: Screen, args: Any) -> int:
    if (args.user is None) != args.all:
        raise Failure("usage", "name one user, or say --all")
    return _follow(ask, screen, args, ask.command("revoke", user=args.user, everyone=args.all, reason=args.reason))


def shutdown(ask: Any, screen: Screen, args: Any) -> int:
    begun = ask.command("shutdown", reason=args.reason)
    ask.attempts = ATTEMPTS
    if "operation" not in begun or args.no_wait:
        return _follow(ask, screen, args, begun)
    try:
        return _follow(ask, screen, args, begun)
    except Failure as failure:
        if failure.kind not in ("later", "unreachable"):
            raise
        told = "the daemon has ended" if args.root else "the daemon is ending: what answers over HTTP has ended already"
        return done(screen, {"text": told})  # it cannot say so itself


def upgrade(ask: Any, screen: Screen, args: Any) -> int:
    """Told to the end by the supervisor that comes after the one that was asked."""
    return _follow(ask, screen, args, ask.command("upgrade", reason=args.reason))


def done(screen: Screen, told: dict[str, Any]) -> int:
    """75 for what somebody else must approve first: nothing is done yet."""
    if screen.as_json:
        screen.json(told)
    else:
        screen.say(told.get("text") or "begun")
    return LATER if "approval" in told else OK


def _follow(ask: Any, screen: Screen, args: Any, begun: dict[str, Any]) -> int:
    if "operation" not in begun or args.no_wait:
        if "operation" in begun and not screen.as_json:
            begun = {"text": f"{begun.get('text') or 'begun'} (operation {begun['operation']})"}
        return done(screen, begun)
    number = begun["operation"]
    try:
        event, steps = followed(ask, screen, number)
    except KeyboardInterrupt:
        screen.progress(
            f"it goes on without you; to follow it: durward events --operation {number}; or: durward cancel {number}"
        )
        return INTERRUPTED
    return _ended(screen, event, steps)


def followed(ask: Any, screen: Screen, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The end of an operation, and its steps, which are told as they come. Raises Failure when nobody knows its end."""
    steps = []
    try:
        for event in ask.operation(number):
            if event["is"] == "step":
                steps.append({key: event[key] for key in ("time", "service", "text")})
                screen.progress(step(event["service"], event["text"]))
            elif event["is"] == "ended":
                return event, steps
    except Failure as failure:
        if failure.kind != "unknown":
            raise
        # it was begun, so who does not know it is another supervisor than the one that began it
    raise Failure("later", f"nobody says how operation {number} ended; look at: durward status")


def document(event: dict[str, Any], steps: list[dict[str, Any]]) -> dict[str, Any]:
    """What --json prints of an operation that has ended."""
    told = {key: event[key] for key in ("operation", "service", "ok", "text", "seconds")}
    return {**told, "steps": steps, "problems": event.get("problems", [])}


def _ended(screen: Screen, event: dict[str, Any], steps: list[dict[str, Any]]) -> int:
    problems = event.get("problems", [])
    if screen.as_json:
        screen.json(document(event, steps))
    screen.problems(problems)
    if not event["ok"]:
        screen.progress(event["text"])
        if event["service"] and OF_ITSELF.search(event["text"]):
            screen.progress(f"its log may say why: durward logs --stream both {event['service']}")
        return BAD_CONFIG if problems else FAILED
    if not screen.as_json:
        screen.say(f"{event['text']} in {event['seconds']:.2f} s")
    return OK
