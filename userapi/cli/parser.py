"""The command line: one row a command, with the module and function that carries it out, imported only then."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from userapi.cli.quick import is_plain, url

ROOT = "/run/durward/root.sock"
CONFIG = "/etc/durward"
EXITS = (
    "exit codes: 0 done or allowed, 1 failed or denied by why, 2 usage, 3 not running, 4 no such service that you may"
    " view, 65 bad configuration, 69 daemon unreachable, 75 try again later, 77 permission denied; of several services"
    " the gravest: 77, 4, 3, 75, 69, 2, 1"
)
TARGET = "a service, group:NAME, a glob such as 'worker-*', or all; of globs and groups, what you may view"


def _name(word: str) -> str:
    if not word:
        raise argparse.ArgumentTypeError("an empty word names nothing")
    return word


def _number(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 16 and int(word) < 1 << 53):
        raise argparse.ArgumentTypeError(f"'{word}' is no number of an operation or an event: 0, 1, 2, …")
    return int(word)


def _begun(word: str) -> int:
    if not (number := _number(word)):
        raise argparse.ArgumentTypeError("operations are numbered from 1 on: durward operations")
    return number


def _approval(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 16 and (number := int(word))):
        raise argparse.ArgumentTypeError(f"'{word}' is no number of what waits: durward approve lists it")
    return number


def _none(parser: argparse.ArgumentParser) -> None:
    pass


def _service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", metavar="SERVICE", type=_name, help="its name")


def _maybe_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", metavar="SERVICE", type=_name, nargs="?", help="only what is about this one")


def _targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", metavar="TARGET", type=_name, nargs="+", help=TARGET)


def _maybe_targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", metavar="TARGET", type=_name, nargs="*", help=TARGET)


def _wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the outcome")
    _reason(parser)


def _reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="TEXT", default="", help="why: for the audit log; some rules want one")


def _operation(parser: argparse.ArgumentParser) -> None:
    _targets(parser)
    _wait(parser)


def _stop(parser: argparse.ArgumentParser) -> None:
    _operation(parser)
    parser.add_argument("--with-dependants", action="store_true", help="stop what requires it too, and first")


def _restart(parser: argparse.ArgumentParser) -> None:
    _operation(parser)
    parser.add_argument(
        "--hard", action="store_true", help="stop, then start; else the new one is ready before the old one ends"
    )


def _enable(parser: argparse.ArgumentParser) -> None:
    _operation(parser)
    parser.add_argument("--now", action="store_true", help="also now: enable starts it too, disable stops it")


def _signal(parser: argparse.ArgumentParser) -> None:
    _targets(parser)
    parser.add_argument("signal", metavar="SIGNAL", help="its name: HUP, USR1, …; a service may allow only some")
    _wait(parser)


def _scale(parser: argparse.ArgumentParser) -> None:
    more = "a service and how many processes it is to have; also: SERVICE N"
    parser.add_argument("scaled", metavar="SERVICE=N", type=_name, nargs="+", help=more)
    _wait(parser)


def _logs(parser: argparse.ArgumentParser) -> None:
    more = f"{TARGET}; or one process: site:1"
    parser.add_argument("service", metavar="TARGET", type=_name, nargs="+", help=more)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument(
        "-n", "--lines", type=int, metavar="N", help="the last N lines of each (100), or of those to search"
    )
    parser.add_argument("--stream", choices=("stdout", "stderr", "both"), default="stdout", help="default: stdout")
    parser.add_argument("--since", metavar="TIME", help="lines with times, from this one or for so long: 10m, 2h")
    parser.add_argument("--grep", metavar="REGEX", help="lines in which this is found")
    parser.add_argument("--process", default="", help=argparse.SUPPRESS)
    parser.add_argument("--raw", action="store_true", help="bytes as they are, terminal escapes too")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--clear", action="store_true", help="remove all that they wrote, rotated files too")
    what.add_argument("--reopen", action="store_true", help="begin files anew that were renamed, as logrotate does")
    _reason(parser)


def _events(parser: argparse.ArgumentParser) -> None:
    _maybe_service(parser)
    parser.add_argument("--operation", type=_begun, metavar="N", help="only this operation, until it has ended")
    past = "also what has happened since the event of this number, as --json tells it; 1: all that is kept"
    parser.add_argument("--after", type=_number, default=0, metavar="N", help=past)


def _cancel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("operation", metavar="N", type=_begun, help="the number of an operation")
    _reason(parser)


def _approve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("approval", metavar="N", type=_approval, nargs="?", help="its number; without one, what waits")
    parser.add_argument("--withdraw", action="store_true", help="take back what you have asked for yourself")
    _reason(parser)


def _operations(parser: argparse.ArgumentParser) -> None:
    _maybe_service(parser)
    parser.add_argument("--all", action="store_true", help="also the last ones that have ended")


def _login(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-u", "--user", metavar="USER", type=_name, help="who you are; else the user of this process")
    parser.add_argument("--password-stdin", action="store_true", help="the password is the first line of stdin")


def _reload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would change, or what is wrong; change nothing"
    )
    _wait(parser)


def _why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", help="view, logs, start, stop, restart, signal, reload, …")
    on = "on which; left out where it is about the daemon, as reload is"
    parser.add_argument("service", metavar="SERVICE", type=_name, nargs="?", help=on)


def _revoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", metavar="USER", type=_name, nargs="?", help="whose; or say --all")
    parser.add_argument("--all", action="store_true", help="the sessions and tokens of everybody")
    _reason(parser)
    parser.set_defaults(no_wait=False)


def _audit(parser: argparse.ArgumentParser) -> None:
    from userapi.cli import audit

    audit.options(parser, lambda one: _common(one, argparse.SUPPRESS))


def _token(parser: argparse.ArgumentParser) -> None:
    from userapi.cli import token

    token.options(parser, lambda one: _common(one, argparse.SUPPRESS))


def _policy(parser: argparse.ArgumentParser) -> None:
    from userapi.cli import policy

    policy.options(parser, lambda one: _common(one, argparse.SUPPRESS))


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="DIR", default=CONFIG, help="default: %(default)s")
    parser.add_argument("--strict", action="store_true", help="exit 1 for warnings too")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell", choices=("bash", "zsh", "fish"), help='for which, as eval "$(durward completion bash)"'
    )


def _names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("services", "targets"))
    parser.add_argument("action", metavar="ACTION")


COMMANDS: dict[str, tuple[str, str, str, Callable[[argparse.ArgumentParser], None]]] = {
    "login": ("login", "login", "log in with your Linux account", _login),
    "logout": ("login", "logout", "end the session", _none),
    "whoami": ("queries", "whoami", "who you are and what you may do", _none),
    "status": ("queries", "status", "the services that you may view, or some of them", _maybe_targets),
    "start": ("operations", "start", "start services", _operation),
    "stop": ("operations", "stop", "stop services", _stop),
    "restart": ("operations", "restart", "restart services", _restart),
    "signal": ("operations", "signal", "send a signal to services", _signal),
    "enable": ("operations", "enable", "start services when the daemon starts", _enable),
    "disable": ("operations", "disable", "do not start services when the daemon starts", _enable),
    "scale": ("operations", "scale", "change how many processes services have", _scale),
    "logs": ("logs", "logs", "what services wrote", _logs),
    "events": ("queries", "events", "what happens, as it happens", _events),
    "operations": ("queries", "operations", "what is under way", _operations),
    "cancel": ("operations", "cancel", "take back what is under way", _cancel),
    "approve": ("operations", "approve", "agree to what somebody else has asked for, or see what waits", _approve),
    "describe": ("queries", "describe", "a service and how it is configured", _service),
    "reload": ("operations", "reload", "read the configuration again", _reload),
    "why": ("queries", "why", "would that be allowed, and by which rule", _why),
    "revoke": ("operations", "revoke", "end somebody's sessions and personal tokens", _revoke),
    "shutdown": ("operations", "shutdown", "end the daemon and all services", _wait),
    "upgrade": ("operations", "upgrade", "replace the daemon by what is installed now (with --root)", _wait),
    "version": ("version", "version", "the version of this command, and of the daemon", _none),
    "audit": ("audit", "audit", "read the audit log, or verify that it was not changed", _audit),
    "policy": ("policy", "policy", "what a policy allows, to whom and why; offline too", _policy),
    "doctor": ("doctor", "doctor", "what this machine gives and the configuration gives up, and what to do", _doctor),
    "token": ("token", "token", "tokens by which scripts do a part of what you may", _token),
    "completion": ("completion", "completion", "completion for a shell", _completion),
    "__complete": ("completion", "names", "", _names),
}


def _common(parser: argparse.ArgumentParser, unset: Any) -> None:
    def default(value: Any) -> Any:
        return unset or value

    parser.add_argument(
        "--url", default=default(url()), help="where to ask: unix:/path or https://host; else DURWARD_URL"
    )
    parser.add_argument("--cacert", default=default(""), metavar="FILE", help="trust these CAs, not the system's")
    more = "ask by the personal token in it; else DURWARD_TOKEN has one"
    parser.add_argument("--token-file", default=default(""), metavar="FILE", help=more)
    parser.add_argument(
        "--root", default=default(""), metavar="PATH", help="ask as root on root.sock; PATH may be left out"
    )
    parser.add_argument(
        "--json", action="store_true", default=default(False), help="for programs: one JSON object, or one a line"
    )
    parser.add_argument("--color", choices=("auto", "always", "never"), default=default("auto"), help="default: auto")


def parse(argv: list[str]) -> argparse.Namespace:
    """Exits with 2 for what cannot be understood."""
    words = _rooted(argv)
    parser = argparse.ArgumentParser(prog="durward", epilog=EXITS, allow_abbrev=False)
    _common(parser, None)
    if "--version" in words:
        from userapi.cli.version import command as own

        parser.add_argument("--version", action="version", version=own())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    named = _named(words)
    for name, (_, _, text, options) in COMMANDS.items():
        if name == named or (named is None and text):
            command = commands.add_parser(name, help=text, description=text, epilog=EXITS, allow_abbrev=False)
            options(command)
            _common(command, argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.command is None:
        args.command = "status"
        args.targets = []
    if "targets" in args:  # one plain name is one service, and is asked for without asking which there are
        args.service = args.targets[0] if len(args.targets) == 1 and is_plain(args.targets[0]) else None
    return args


def _named(words: list[str]) -> str | None:
    """The command, when it is one: the other commands' options need not be made then."""
    skip = False
    for word in words:
        if not skip and not word.startswith("-"):
            return word if word in COMMANDS else None
        skip = not skip and word in ("--url", "--cacert", "--color", "--token-file")
    return None


def _rooted(argv: list[str]) -> list[str]:
    """--root takes a path or nothing: `--root status` is root asking for the status."""
    words: list[str] = []
    taken = False
    for index, word in enumerate(argv):
        if taken:
            taken = False
        elif word == "--":
            return words + argv[index:]
        elif word == "--root":
            taken = index + 1 < len(argv) and "/" in argv[index + 1]
            default = os.environ.get("DURWARD_ROOT_SOCKET") or ROOT
            words.append("--root=" + (argv[index + 1] if taken else default))
        else:
            words.append(word)
    return words
