"""start, stop, restart, signal, reload, revoke, shutdown: what changes something.

The outcome is waited for, its steps are told on stderr, and Ctrl-C only stops the telling. --json: {"operation",
"service", "ok", "text", "seconds", "steps", "problems"}, with --no-wait {"operation", "text"}; what is done at once
is {"text"}.
"""

from __future__ import annotations

from typing import Any

from userapi.cli.failure import BAD_CONFIG, FAILED, INTERRUPTED, OK, Failure
from userapi.cli.render import Screen

SIGNALS = {"1": "HUP", "2": "INT", "3": "QUIT", "9": "KILL", "10": "USR1", "12": "USR2", "14": "ALRM", "15": "TERM"}


def start(ask: Any, screen: Screen, args: Any) -> int:
    return _follow(ask, screen, args, ask.command("start", args.service))


def stop(ask: Any, screen: Screen, args: Any) -> int:
    return _follow(ask, screen, args, ask.command("stop", args.service))


def restart(ask: Any, screen: Screen, args: Any) -> int:
    return _follow(ask, screen, args, ask.command("restart", args.service, hard=args.hard))


def signal(ask: Any, screen: Screen, args: Any) -> int:
    from policy import names

    name = SIGNALS.get(args.signal, args.signal).upper().removeprefix("SIG")
    try:
        names.signal_name(name)
    except ValueError as error:
        raise Failure("usage", str(error)) from None
    return _follow(ask, screen, args, ask.command("signal", args.service, signal=name))


def reload(ask: Any, screen: Screen, args: Any) -> int:
    return _follow(ask, screen, args, ask.command("reload", dry_run=args.dry_run))


def revoke(ask: Any, screen: Screen, args: Any) -> int:
    if (args.user is None) != args.all:
        raise Failure("usage", "name one user, or say --all")
    return _follow(ask, screen, args, ask.command("revoke", user=args.user, everyone=args.all))


def shutdown(ask: Any, screen: Screen, args: Any) -> int:
    begun = ask.command("shutdown")
    if "operation" not in begun or args.no_wait:
        return _follow(ask, screen, args, begun)
    try:
        return _follow(ask, screen, args, begun)
    except Failure as failure:
        if failure.kind not in ("later", "unreachable"):
            raise
        return _done(screen, {"text": "the daemon has ended"})  # it cannot say so itself


def _done(screen: Screen, told: dict[str, Any]) -> int:
    if screen.as_json:
        screen.json(told)
    else:
        screen.say(told.get("text") or "begun")
    return OK


def _follow(ask: Any, screen: Screen, args: Any, begun: dict[str, Any]) -> int:
    if "operation" not in begun or args.no_wait:
        if "operation" in begun and not screen.as_json:
            begun = {"text": f"{begun.get('text') or 'begun'} (operation {begun['operation']})"}
        return _done(screen, begun)
    number = begun["operation"]
    steps = []
    try:
        for event in ask.operation(number):
            if event["is"] == "step":
                steps.append({key: event[key] for key in ("time", "service", "text")})
                screen.progress(_step(event["service"], event["text"]))
            elif event["is"] == "ended":
                return _ended(screen, event, steps)
    except KeyboardInterrupt:
        screen.progress(f"it goes on without you; to follow it: durward events --operation {number}")
        return INTERRUPTED
    except Failure as failure:
        if failure.kind != "unknown":
            raise
        # it was begun, so who does not know it is another supervisor than the one that began it
    raise Failure("later", f"nobody says how operation {number} ended; look at: durward status")


def _step(service: str, text: str) -> str:
    """With the service's name before it, unless it begins with the name of one of its processes."""
    return text if not service or text.startswith(f"{service}:") else f"{service}: {text}"


def _ended(screen: Screen, event: dict[str, Any], steps: list[dict[str, Any]]) -> int:
    problems = event.get("problems", [])
    if screen.as_json:
        told = {key: event[key] for key in ("operation", "service", "ok", "text", "seconds")}
        screen.json({**told, "steps": steps, "problems": problems})
    screen.problems(problems)
    if not event["ok"]:
        screen.progress(event["text"])
        return BAD_CONFIG if problems else FAILED
    if not screen.as_json:
        screen.say(f"{event['text']} in {event['seconds']:.2f} s")
    return OK
