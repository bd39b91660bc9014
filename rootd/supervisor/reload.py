"""New configuration: privileged reads and freezes it, we make the same of the same bytes; then it counts, or nothing.

STAGE → TABLE (NEEDS_ROOT: as root then, REPLACE) → compile, compare, policy → COMMIT → DONE; or ABORT: nothing changed.
Then the starts, stops and restarts that it has begun are waited for, and another reload may begin meanwhile.

Rule 1: one at a time, and each ends: by an answer, by the end of privileged, or when its time is up.
Rule 2: a configuration is taken whole, or refused whole with everything that is wrong with it.
Rule 3: privileged is not believed about what the files say: the digest must be that of our own compilation. What runs
        since before an upgrade was compiled by another version: there, slots must mean what they mean to us (alike).

Source: DESIGN §14.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from policy.messages import Ended, Problem, Step
from policy.rules import Policy, build
from rootd import check, ipc
from rootd.config import compile as compiler
from rootd.config.settings import Paths, Settings
from rootd.config.table import Socket, load_table
from rootd.config.trusted import MAIN, File
from rootd.supervisor import mentions, root_again
from rootd.supervisor.difference import NO_CHANGE, difference, fingerprint, users, whose
from rootd.supervisor.ending import FAILED
from rootd.supervisor.loading import hashes
from rootd.supervisor.looks import Looks, Would
from rootd.supervisor.operations import Operation, Operations, Refusal
from rootd.supervisor.perform import OTHERS
from rootd.supervisor.publishing import packed
from rootd.supervisor.tables import stamped

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec
    from rootd.supervisor.inflight import SavedOperation

TIME_LIMIT = 60.0  # seconds for all of it, a directory service that hangs included
FIRST = 1  # the number of the configuration that a daemon starts with
SHOWN = 40_000  # bytes of problems that are told; the others are counted
SHOWN_EACH = 1_000  # characters of how each operation failed that it has begun
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
OTHER = "nothing was changed: since it was shown the configuration, or the supervisor, has become another one. Now"
NOBODY = build((), ())  # the policy that lets nobody do anything


class Loaded(NamedTuple):
    """A generation as the supervisor sees it. specs is None when it is not to be used at all; with any problem its
    policy is NOBODY."""

    generation: int
    digest: bytes
    specs: tuple[ServiceSpec, ...] | None
    policy: Policy
    problems: list[Problem]
    settings: Settings | None = None
    sockets: tuple[Socket, ...] = ()
    files: dict[str, str] = {}  # their hashes, by path  # noqa: RUF012 (never changed)
    shown: bytes = b""  # what publishing.packed makes of it


Made = tuple[Loaded, int]  # and the memfd that it was made of
NOTHING = Loaded(0, b"", (), NOBODY, [])


def read_generation(number: int, digest: bytes, fd: int, running: Settings | None = None) -> Loaded:
    """Make of a generation's memfd what privileged should have made; the descriptor stays the caller's.

    running: the settings of a daemon that is asked to take it; None: it is in use.
    """
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS:
        return Loaded(number, digest, None, NOBODY, [Problem("", 0, "", "the configuration is not sealed")])
    table, line = compiler.split_generation(os.pread(fd, os.fstat(fd).st_size, 0))
    bundle = compiler.bundle_from(line)
    compiled, marks = compiler.compile_bundle(bundle), hashes(bundle.files)
    compiled = compiled._replace(problems=(*compiled.problems, *fixed(running, compiled.settings)))
    problems = check.problems_of(bundle, compiled, quoted=False)  # everybody who may reload is told them
    services = check.services_of(bundle)
    policy = [] if services is None else check.policy_of(compiled, services)
    shown = packed(bundle) if isinstance(policy, Policy) and not problems else b""
    compiler.read.cache_clear()  # the files as they were parsed: nobody asks for them again, and they are large
    same = compiled.table == table or (running is None and alike(compiled.table, table))
    same = same and hashlib.sha256(table).digest() == digest
    if not compiled.problems and not same:
        both = "privileged and supervisor do not make the same of the same files: this is a fault of Durward's"
        return Loaded(number, digest, None, NOBODY, [Problem("", 0, "", both)])
    specs = None if compiled.problems else tuple(stamped(spec, number) for spec in compiled.specs)
    if isinstance(policy, Policy) and not problems:
        sockets = load_table(compiled.table).sockets
        return Loaded(number, digest, specs, policy, [], compiled.settings, sockets, marks, shown)
    if not isinstance(policy, Policy):  # whose lines name people: they are for those who have the right `policy`
        problems = problems + [msgspec.structs.replace(one, source="") for one in policy]
    return Loaded(number, digest, specs, NOBODY, problems, files=marks)


def alike(one: bytes, other: bytes) -> bool:
    """Whether slots and sockets mean the same in two tables, which two versions of us made of the same files."""
    try:
        tables = [load_table(line) for line in (one, other)]
    except ValueError:
        return False
    slots = [[(e.service, e.count, dict(e.env).get("DURWARD_HOOK")) for e in table.entries] for table in tables]
    sockets = [[spec.key for spec in table.sockets] for table in tables]
    return slots[0] == slots[1] and sockets[0] == sockets[1]


def staged_generation(fd: int) -> Made:
    """The first configuration, read before privileged has said that it counts."""
    table, _ = compiler.split_generation(os.pread(fd, os.fstat(fd).st_size, 0))
    return read_generation(FIRST, hashlib.sha256(table).digest(), fd), fd


def bundle_of(fd: int) -> compiler.Bundle:
    """What a generation was made of."""
    return compiler.bundle_from(compiler.split_generation(os.pread(fd, os.fstat(fd).st_size, 0))[1])


def fixed(running: Settings | None, new: Settings | None) -> Iterator[compiler.Problem]:
    """What a daemon has made its own at its start: directories, accounts, doors."""
    if running is None or new is None:
        return
    same: dict[tuple[str, ...], bool] = {("auth", "local"): running.auth.local == new.auth.local}
    same["api",] = running.api is not None or new.api is None  # else there is no auth, and nobody could log in
    for name, before, after in zip(Paths._fields, running.paths, new.paths, strict=True):
        same["paths", name] = before == after
    for role, account in running.accounts.items():
        same["accounts", role] = account[:2] == new.accounts[role][:2]
    for path in (path for path, is_same in same.items() if not is_same):
        yield compiler.Problem(MAIN, path, "cannot change while the daemon runs: stop it, and start it again")


def fitting(problems: list[Problem]) -> list[Problem]:
    """As many as fit into one packet, and how many more there are."""
    room, shown = SHOWN, list[Problem]()
    for problem in problems:
        room -= len(msgspec.json.encode(problem))
        if room < 0:
            return [*shown, Problem("", 0, "", f"and {len(problems) - len(shown)} more")]
        shown.append(problem)
    return shown


class Reloads:
    """`send` gives a message to privileged, False when it is away; `adopt` makes a generation count, and returns the
    operations that it has begun, by service."""

    def __init__(
        self,
        operations: Operations,
        send: Callable[[ipc.Message], bool],
        adopt: Callable[[Loaded, float], dict[str, int]],
        made: Made | None = None,
    ) -> None:
        """made: the first configuration, with the descriptor that it was read from, which is owned from now on."""
        self._made = made
        self.current = NOTHING
        self._operations, self._send, self._adopt = operations, send, adopt
        self._operation: Operation | None = None
        self._taken: list[tuple[Operation, str]] = []  # whose operations are waited for, and what they have changed
        self._dry_run, self._shown, self._key = False, "", os.urandom(32)
        self._found: Loaded | None = None  # COMMIT was asked for it
        self._replacing = False
        self._until = 0.0
        self._seq = OTHERS
        self.looks = Looks(self._begin_look)
        self.asked = "", "", ""  # for what counts now: the id of the request, whose it was, and what it has changed

    def begin(self, request: str, dry_run: bool, now: float, shown: str = "") -> int:
        """The number of the operation. shown: the mark of what alone may change; "": anything. Raises Refusal."""
        if self._operation is not None:
            raise Refusal("conflict", f"a reload is under way: operation {self._operation.number}")
        if self.looks.until is not None:
            self._ask(ipc.Message(ipc.ABORT))
        if not self._ask(ipc.Message(ipc.STAGE)):
            raise Refusal("later", "privileged is being started again: try again")
        self._operation = self._operations.begin("reload", "", request, now)
        self._dry_run, self._found, self._replacing, self._until = dry_run, None, False, now + TIME_LIMIT
        self._shown, self._operation.generation = shown, self.current.generation
        self._operations.step(self._operation, "reading and checking the files")
        self.looks.told("a reload has begun meanwhile", now)
        return self._operation.number

    def _begin_look(self) -> str:
        if self._operation is not None:
            return "a reload is under way"
        return "" if self._ask(ipc.Message(ipc.STAGE)) else "privileged is being started again"

    def cancel(self, operation: Operation, why: str, now: float) -> None:
        """One that is under way. Raises Refusal when the new configuration is being taken, or counts, already."""
        if operation is not self._operation:
            raise Refusal("conflict", "the new configuration counts already: cancel what it has begun, each by itself")
        if self._found is not None or self._replacing:
            raise Refusal("conflict", "the new configuration is being taken already: it goes on to its end")
        self._ask(ipc.Message(ipc.ABORT))
        self._end(False, f"nothing was changed: {why}", now)

    def staged(self, message: ipc.Message, fd: int, now: float) -> None:
        """TABLE: what would be. The descriptor stays the caller's."""
        if self._operation is None:  # a look, or one that was given up: privileged may forget it
            is_look = self.looks.until is not None and message.seq == self._seq
            self._ask(ipc.Message(ipc.ABORT, generation=message.generation))
            return self.looks.told(self._would(message, fd).seen(), now) if is_look else None
        if self._found is not None or (message.seq != self._seq and not self._replacing):
            return None
        if message.flags & ipc.NEEDS_ROOT and message.flags & ipc.INVALID and not self._dry_run:
            return self._as_root()
        would = self._would(message, fd)
        other = self._shown not in ("", would.mark)
        if would.problems or would.unread or self._dry_run or other:
            self._ask(ipc.Message(ipc.ABORT, generation=message.generation))
            self._tell(would, other, now)
        elif message.flags & ipc.NEEDS_ROOT:
            self._as_root()
        else:
            self._found = would.found
            self._ask(ipc.Message(ipc.COMMIT, generation=would.found.generation, digest=would.found.digest))
        return None

    def _would(self, message: ipc.Message, fd: int) -> Would:
        found = read_generation(message.generation, message.digest, fd, self.current.settings)
        bundle, problems, again = bundle_of(fd), list(found.problems), ""
        if message.flags & ipc.NEEDS_ROOT and message.flags & ipc.INVALID:
            files = (*bundle.files, *bundle.environment_files.values(), *bundle.credentials.values())
            return Would(found, "", [], "", root_again.unread(files, problems))
        if message.flags & ipc.NEEDS_ROOT:
            again = root_again.named(message, found.specs or ())
        elif message.extra:
            problems.append(check.located(bundle.files, message.name or os.strerror(message.extra)))
        owners = _owners(self.current.specs or (), bundle.files) if problems else {}
        problems = [mentions.problem(one, owners) for one in problems]
        what = "" if problems else difference(self.current, found)
        return Would(
            found, fingerprint(self.current, found, self._key), problems, "; ".join(filter(None, (what, again)))
        )

    def _as_root(self) -> None:
        if self._operation is not None:
            self._operations.step(self._operation, "privileged is started again as root, to read or bind what is new")
        self._replacing = self._ask(ipc.Message(ipc.REPLACE, arg=1))

    def _tell(self, would: Would, other: bool, now: float) -> None:
        """What would be, and why it is not. other: than what was shown."""
        if would.problems:
            self._end(False, "the files cannot be used: nothing was changed", now, would.problems)
            return
        if would.unread:
            self._end(False, f"{OTHER}: {would.unread}" if other else would.unread, now)
            return
        what, mark = (would.what, "") if would.what == NO_CHANGE else (f"would change: {would.what}", would.mark)
        self._end(not other, f"{OTHER}: {what}" if other else what, now, (), mark)

    def done(self, message: ipc.Message, now: float) -> None:
        """DONE with a number of ours."""
        if self._operation is None and message.seq == self._seq and message.arg:
            self.looks.told(os.strerror(message.arg), now)
        if self._operation is None or message.seq != self._seq:
            return
        if self._found is not None and message.arg == 0:
            self._take(self._found, now)
        elif message.arg:
            self._end(False, f"nothing was changed: {os.strerror(message.arg)}", now)

    def read(self, number: int, digest: bytes, fd: int) -> Loaded:
        """As read_generation; what was made of the very same memfd is not made again: that cannot have changed."""
        made, self._made = self._made, None
        if made is None:
            return read_generation(number, digest, fd)
        same = made[0][:2] == (number, digest) and os.path.sameopenfile(made[1], fd)
        os.close(made[1])
        return made[0] if same else read_generation(number, digest, fd)

    def facts(self, running: Loaded, now: float, going: Iterable[SavedOperation] = ()) -> None:
        """A privileged that was started again, or told a new supervisor, runs this generation. going: what the last one
        had under way."""
        self.looks.told("privileged was started again meanwhile", now)
        found = self._found
        begun: dict[str, int] = {}
        if running.generation != self.current.generation or running.digest != self.current.digest:
            taken = filter(partial(_is_taken, running), going if self.current is NOTHING else ())
            begun = self._count(running, difference(self.current, running), now, next(taken, None))
        if found is not None and found.generation == running.generation:
            self._follow("reloaded", begun, now)
        elif self._operation is not None and not self._replacing:
            self._end(False, "privileged was started again meanwhile: nothing was changed, try again", now)

    def resume(self, begin: Callable[[float], dict[str, int]], now: float) -> None:
        """Facts are known, and what the last supervisor had under way goes on. begin: restarts what runs with an older
        configuration, and returns the operations that it has begun, by service.
        """
        mine = [self._operation, *(operation for operation, _ in self._taken)]
        for operation in [one for one in self._operations.live() if one.kind == "reload" and one not in mine]:
            if operation.result:
                ends = [known for number in operation.active if (known := self._operations.find(number)) is not None]
                operation.active = {one.number for one in ends if not one.ended}
                operation.failures += [text for one in ends if one.ended for text in _failed(one.events[-1])]
                self._taken.append((operation, operation.result))
            elif operation.generation != self.current.generation:
                self._operation = operation
                self._follow("reloaded", begin(now), now)
            else:
                again = "the supervisor was started again meanwhile: try again"
                self._operations.end(operation, False, f"nothing was changed: {again}", now)
        self._look(now)

    def wake_at(self) -> float | None:
        return self.looks.until if self._operation is None else self._until

    def wake(self, now: float) -> None:
        if self._operation is not None and now >= self._until:
            self._ask(ipc.Message(ipc.ABORT))
            self._end(False, f"it took more than {TIME_LIMIT:g} s", now)
        if self.looks.until is not None and now >= self.looks.until:
            self._ask(ipc.Message(ipc.ABORT))
            self.looks.told("it takes too long to read the files", now)

    def _take(self, found: Loaded, now: float) -> None:
        what = difference(self.current, found)
        self._follow(f"reloaded: {what}", self._count(found, what, now), now)

    def _count(self, loaded: Loaded, what: str, now: float, taken: SavedOperation | None = None) -> dict[str, int]:
        one = self._operation or taken
        self.asked = (one.requests[0], one.user, what) if one is not None else ("", "", what)
        self.current = loaded
        self.looks.forget()
        return self._adopt(loaded, now)

    def _follow(self, text: str, begun: dict[str, int], now: float) -> None:
        """It counts. Its end is that of all that it has begun, well or not."""
        operation, self._operation, self._found, self._replacing = self._operation, None, None, False
        if operation is None:
            return
        known = {number: self._operations.find(number) for number in begun.values()}
        for one in known.values():
            if one is not None and not one.requests[0]:
                one.requests[0] = operation.requests[0]  # its steps belong to the same story
        operation.active = {number for number, one in known.items() if one is not None and not one.ended}
        if operation.active:
            self._operations.step(operation, f"{text}; waits for what it has begun: {mentions.names(begun)}")
        operation.result = text
        self._taken.append((operation, text))
        for one in known.values():
            operation.failures += _failed(one.events[-1]) if one is not None and one.ended else []
        self._look(now)

    def ended(self, event: Ended, now: float) -> None:
        """An operation has ended: one that a reload has begun, or any other."""
        for operation, _ in self._taken:
            if event.operation in operation.active:
                operation.active.discard(event.operation)
                operation.failures += _failed(event)
        self._look(now)

    def _look(self, now: float) -> None:
        over = [taken for taken in self._taken if not taken[0].active]
        self._taken = [taken for taken in self._taken if taken[0].active]
        for operation, text in over:
            failed = operation.failures
            self._operations.end(operation, not failed, "; ".join([text, *failed]), now)

    def _end(self, ok: bool, text: str, now: float, problems: Iterable[Problem] = (), mark: str = "") -> None:
        operation, self._operation, self._found, self._replacing = self._operation, None, None, False
        if operation is not None:
            self._operations.end(operation, ok, text, now, fitting(list(problems)), mark)

    def _ask(self, message: ipc.Message) -> bool:
        self._seq = OTHERS + (self._seq + 1 - OTHERS) % OTHERS
        return self._send(message._replace(seq=self._seq))


def _owners(specs: Iterable[ServiceSpec], files: tuple[File, ...]) -> dict[str, str]:
    """Whose the names are that a mistake may be about, or mention: services that there are or would be, and sockets."""
    found = {path[1]: path[1] for path in compiler.read(files)[0] if path[0] == "service"}
    compiler.read.cache_clear()
    for spec in specs:
        found |= {name: users(specs, name) for name in spec.sockets}
    return found | {spec.name: whose(spec) for spec in specs}


def _is_taken(loaded: Loaded, operation: SavedOperation) -> bool:
    """Whether it is a reload of the last supervisor's, which has died when privileged had taken this."""
    return operation.kind == "reload" and not operation.result and operation.generation != loaded.generation


def _failed(event: Step | Ended) -> list[str]:
    if not isinstance(event, Ended) or event.ok:
        return []
    text, _ = mentions.short(event.text, SHOWN_EACH)
    return [mentions.mark(event.service, text, FAILED)]
