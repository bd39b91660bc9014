"""durward policy check, test and lint: whether a policy can be used, does what it says, and is wise.

check and lint look at files and change nothing; none of them needs root, and what only root may see is said.

Exit codes of check: 0 no mistake, 65 there are some; of test: 0 all passed, 1 some did not, 65 the policy has other
mistakes; of lint: 0 nothing as grave as --fail-on, 1 something, 65 the policy has mistakes.
--json of check: {"ok", "place", "problems": [{"file", "line", "key", "text", "source"}], "not_checked"}; of test:
{"ok", "place", "tests": [{"file", "line", "user", "groups", "may", "on", "expect", "came", "passed", "why", "rule",
"rule_file", "rule_line"}]}; of lint: {"place", "findings": [{"severity", "code", "text", "why", "todo", "rule", "file",
"line", "service", "path"}], "errors", "warnings", "notes"}.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from userapi.cli import plain, sources
from userapi.cli.failure import BAD_CONFIG, FAILED, OK, Failure
from userapi.cli.render import Screen

if TYPE_CHECKING:
    import argparse

    from policy.finding import Finding
    from policy.rules import Policy
    from policy.source import Source
    from policy.trial import Trial
    from userapi.cli.offline.ground import Section

CONFIG = "/etc/durward"
FAIL_ON = ("error", "warning", "note", "never")
DIR = "a configuration directory, policy files alone, or one such file"
COLOURS = {"error": "31;1", "warning": "33", "note": "2", "FAILED": "31;1", "passed": "32"}
NOT_CHECKED = (
    "whether the files are root's alone, and the directories that they name",
    "whether there are the users, groups, secrets and PAM services that they name",
)


def _check(parser: argparse.ArgumentParser) -> None:
    folder(parser, f"{DIR} (default: {CONFIG})")


def _test(parser: argparse.ArgumentParser) -> None:
    folder(parser, f"{DIR}; else the running policy")
    parser.add_argument("-q", "--quiet", action="store_true", help="say only what did not pass")


def _lint(parser: argparse.ArgumentParser) -> None:
    folder(parser, f"{DIR}; else the running policy")
    parser.add_argument("--fail-on", choices=FAIL_ON, default="error", help="exit 1 for what is so grave (error)")
    where = "look at the file system beneath it, of another machine, with its own /etc/passwd and /etc/group"
    parser.add_argument("--prefix", metavar="PATH", default="", help=where)


WHAT: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "check": ("every mistake at once, without root", _check),
    "test": ("run its [[test]] blocks", _test),
    "lint": ("what is no mistake, and dangerous or dead", _lint),
}


def folder(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("folder", metavar="DIR", type=sources.word, nargs="?", help=text)
    parser.add_argument("--dir", dest="place", metavar="DIR", type=sources.word, help="the same")


def check(ask: Any, screen: Screen, args: Any) -> int:
    place = args.folder or args.place or CONFIG
    problems, summary, unread = checked(place)
    not_checked = [*NOT_CHECKED, *(f"what {path} says" for path in unread)]
    if screen.as_json:
        screen.json({"ok": not problems, "place": place, "problems": problems, "not_checked": not_checked})
    else:
        screen.problems(problems)
        many = "1 mistake: mend it" if len(problems) == 1 else f"{len(problems)} mistakes: mend them"
        screen.say(f"{place}: {many}; nothing of it would be used" if problems else summary)
        screen.progress(f"not checked here: {'; '.join(not_checked)}: sudo durward-rootd --check does that")
    return BAD_CONFIG if problems else OK


def checked(place: str) -> tuple[list[dict[str, Any]], str, list[str]]:
    """Every problem, a summary for when there is none, and the files that could not be read."""
    import msgspec

    from policy import source as shape
    from rootd import zones

    if sources.is_configuration(place):
        from userapi.cli.offline import paper

        problems, summary, unread = paper.problems(place)
        return msgspec.to_builtins(problems), summary, unread
    found = sources.of_directory(place)
    made = shape.parsed(found, zones.zone)
    if isinstance(made, list):
        return msgspec.to_builtins(made), "", []
    rules = len(made.grants) + len(made.denies)
    summary = f"{place}: {rules} {'rule' if rules == 1 else 'rules'}: no mistake found"
    return [], f"{summary}, as far as this can be said without services.d: tests were not run", []


def test(ask: Any, screen: Screen, args: Any) -> int:
    from policy.trial import trial

    found = sources.source(ask, args.folder or args.place)
    policy = untested(screen, found)
    services = groups_of(found)
    trials = [trial(one, policy, services) for one in policy.tests]
    failed = [one for one in trials if not one.passed]
    if screen.as_json:
        screen.json({"ok": not failed, "place": found.place, "tests": [document(one) for one in trials]})
        return FAILED if failed else OK
    for one in failed if args.quiet else trials:
        say(screen, "", "passed" if one.passed else "FAILED", f"  {one.test.file}:{one.test.line}  {told(one)}")
        if not one.passed:
            screen.say(f"        {one.wrong}")
    if failed and not found.whole:
        screen.progress("which service is in which group is not known without services.d: tests may fail for that")
    if failed or not args.quiet:
        many = f"{len(trials)} {'test' if len(trials) == 1 else 'tests'}"
        screen.say(f"{found.place}: {many}, {len(trials) - len(failed)} passed, {len(failed)} failed")
    return FAILED if failed else OK


def untested(screen: Screen, found: Source) -> Policy:
    """The rules, whatever becomes of their tests. Raises Failure when there are other mistakes."""
    from policy.parse import parse
    from rootd import zones

    files = [(file.name, file.text) for file in found.policy]
    made = parse(files, groups_of(found), zones.zone, run_tests=False)
    if isinstance(made, list):
        raise sources.mistakes(screen, made, found.place)
    return made


def groups_of(found: Source) -> dict[str, tuple[str, ...]]:
    from policy.source import STAND_IN

    services = {name: tuple(groups) for name, groups in found.services.items()}
    return services if found.whole or not found.groups else services | {STAND_IN: tuple(found.groups)}


def told(one: Trial) -> str:
    """The question of a test, and its answer."""
    asked = one.test
    groups = f" (in {', '.join(sorted(asked.groups))})" if asked.groups else ""
    words = [f"{asked.user}{groups} {asked.may}", asked.on or "", f"from {asked.source}" if asked.source else ""]
    if asked.at is not None:
        from datetime import UTC, datetime

        words.append(f"at {datetime.fromtimestamp(asked.at, UTC).isoformat()}")
    words += ["with a reason"] if asked.reason else []
    by = f", by '{one.rule}'" if one.rule else ""
    return f"{' '.join(filter(None, words))}: {one.came or 'unclear'}{by}"


def document(one: Trial) -> dict[str, Any]:
    asked = one.test
    return {
        "file": asked.file, "line": asked.line, "user": asked.user, "groups": sorted(asked.groups),
        "may": asked.may.value, "on": asked.on, "expect": asked.expect, "came": one.came, "passed": one.passed,
        "why": one.why, "rule": one.rule, "rule_file": one.file, "rule_line": one.line,
    }  # fmt: skip


def lint(ask: Any, screen: Screen, args: Any) -> int:
    import msgspec

    from policy.finding import SEVERITIES

    place = args.folder or args.place
    policy, found = sources.load(ask, screen, place)
    place = None if place == sources.RUNNING else place
    here = bool(place or args.prefix or args.root or args.url.startswith("unix:"))
    findings = examine(policy, found, place, args.prefix, here)
    counts = {severity: sum(one.severity == severity for one in findings) for severity in SEVERITIES}
    if screen.as_json:
        many = {f"{severity}s": count for severity, count in counts.items()}
        screen.json({"place": found.place, "findings": msgspec.to_builtins(findings), **many})
    else:
        for one in findings:
            show(screen, one)
        summary = ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items())
        screen.say(f"{found.place}: {summary}")
    grave = () if args.fail_on == "never" else SEVERITIES[: SEVERITIES.index(args.fail_on) + 1]
    return FAILED if any(counts[severity] for severity in grave) else OK


def examine(policy: Policy, found: Source, place: str | None, prefix: str, here: bool) -> list[Finding]:
    """place: the directory; None: it is the running policy. here: whether it is about this machine, or prefix's."""
    from msgspec import structs

    from policy.lint import lint
    from policy.machine import Machine, Service
    from rootd import zones
    from userapi.cli.offline import ground

    config, unseen = "", list[tuple[str, str]]()
    if not found.whole:
        unseen.append(("", f"{found.place} has no services.d: which services there are, and what they run"))
    elif place is not None:
        config = installed(place, prefix)
        if not config:
            unseen.append(("", f"{place} is not root's, so it is taken for a copy: who may write the files in use"))
    if not here:
        unseen.append(("", "the daemon is reached over the network: who is who on its machine, and who may write what"))
    try:
        machine = ground.survey(policy, sections(found, place), prefix, config) if here else Machine({})
    except OSError as error:
        raise Failure("usage", f"--prefix {prefix}: {error.filename}: {error.strerror}") from None
    others = {name: Service(groups) for name, groups in groups_of(found).items() if name not in machine.services}
    machine = structs.replace(machine, services=machine.services | others, unseen=(*unseen, *machine.unseen))
    return lint(policy, machine, zones.posix())


def sections(found: Source, place: str | None) -> Iterator[Section]:
    """Those of a directory as they are; of the running daemon as far as it tells."""
    from rootd.config.sections import read
    from userapi.cli.offline.ground import Section

    if place is None or not found.whole:
        for one in found.configuration:
            yield Section(one.file, one.name, one.values)
        return
    for path, section in read(tuple(sources.files_of(place)))[0].items():
        yield Section(section.file, ".".join(path), section.raw)


def installed(place: str, prefix: str) -> str:
    """The path of a configuration that is root's, on its own machine; "" for a copy of one."""
    path = os.path.realpath(place)
    root = os.path.realpath(prefix) if prefix else ""
    if os.stat(path).st_uid != 0 or not path.startswith(root.rstrip("/") + "/"):
        return ""
    return path.removeprefix(root.rstrip("/"))


def show(screen: Screen, one: Finding) -> None:
    where = f"{one.file}:{one.line}: " if one.file else ""
    say(screen, where, one.severity, f": {one.text} [{one.code}]")
    screen.say(f"    why: {one.why}")
    screen.say(f"    to do: {one.todo}")


def say(screen: Screen, before: str, word: str, after: str) -> None:
    """A line with a word in its colour."""
    shown = f"\x1b[{COLOURS[word]}m{word}\x1b[0m" if screen.colour else word
    sys.stdout.write(f"{plain.line(before)}{shown}{plain.line(after)}\n")
