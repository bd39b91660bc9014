"""Configurations: the one that counts, those that runs still use, the one that is staged; and their sockets.

Rule 1: a configuration counts from the moment that its sealed table is in the keeper's store, and not before.
Rule 2: what is staged is bound but belongs to nobody: aborting closes it, and nothing has changed.
Rule 3: a socket is bound once and kept while a table in use names it; a kept one is never bound again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from rootd import closing, ipc, memory, sealed
from rootd.config.table import INSTANCES, Entry, Socket, Table, load_table
from rootd.privileged import extras, listen
from rootd.privileged.spawn import Run, process_name

RUNS_AN_INSTANCE = 4
HOOK_FOLLOWS = 60.0  # seconds for which a configuration is kept when its last run is over: its post-stop hook follows


class Generation:
    """A configuration, frozen: its table, the sealed memfd that holds it, and its digest."""

    def __init__(self, number: int, fd: int, secrets: int = -1) -> None:
        """secrets: the memfd of its services' credentials, -1 where there are none."""
        line = sealed.content(fd).partition(b"\n")[0]
        self.number = number
        self.fd, self.secrets = fd, secrets
        self.digest = hashlib.sha256(line).digest()
        self.table: Table = load_table(line)
        self.instances = sum(entry.count for entry in self.table.entries)

    @property
    def fds(self) -> tuple[int, ...]:
        return (self.fd, self.secrets) if self.secrets >= 0 else (self.fd,)

    def told(self, *, seq: int = 0, flags: int = 0) -> ipc.Message:
        """TABLE, as the supervisor gets it with the memfd."""
        count = len(self.table.entries)
        return ipc.Message(ipc.TABLE, seq=seq, generation=self.number, flags=flags, arg=count, digest=self.digest)


class Generations:
    """Owns the tables' memfds and the sockets. `store` and `drop` reach the keeper and return when it has them."""

    def __init__(self, store: Callable[[str, int], None], drop: Callable[[str], None]) -> None:
        self.store, self.drop = store, drop
        self.held: dict[int, Generation] = {}
        self.sockets: dict[str, int] = {}
        self.current = 0
        self.staged: Generation | None = None
        self.secrets: dict[int, int] = {}  # by generation: taken back, until it is
        self.staged_sockets: dict[str, int] = {}
        self.granted: set[int | str] = set()  # what root was asked for (extras.needed)
        self.left: dict[int, float] = {}  # generation -> when a run of it was over

    @property
    def runs_root(self) -> bool:
        """Whether a service of any table in use, or staged, runs as root."""
        return any(table.root for table in self.tables())

    def grant(self, tree: str) -> set[int]:
        """As root: what these tables need; the capabilities are for the spawner."""
        wanted = extras.needed(self.tables())
        self.granted = set(wanted)
        return extras.grant(wanted, tree, lambda text: ipc.note("privileged", text))

    def tables(self) -> list[Table]:
        """Those that something may be spawned from, now or when what is staged counts."""
        return [found.table for found in (*self.held.values(), *([self.staged] if self.staged else []))]

    def take_back(self, name: str, fd: int) -> None:
        """One generation/…, secrets/… or socket/… of the store."""
        kind, _, rest = name.partition("/")
        if kind == "socket":
            self.sockets[rest] = fd
        elif kind == "secrets":
            self.secrets[int(rest)] = fd
        else:
            self.held[int(rest)] = Generation(int(rest), fd)
            self.current = max(self.held)

    def entry(self, generation: int, slot: int) -> Entry | None:
        """The entry of the frozen table that a slot is an instance of; None when there is no such slot."""
        found = self.held.get(generation)
        index, instance = divmod(slot, INSTANCES)
        if found is None or index >= len(found.table.entries):
            return None
        entry = found.table.entries[index]
        return entry if instance < entry.count else None

    def uid(self, run: Run) -> int:
        """Whom a run runs as; root when that is not known, of whom nothing is taken for an orphan."""
        entry = self.entry(run.generation, run.slot)
        return entry.uid if entry else 0

    def room(self) -> int:
        """Runs that there may be at all, however many generations they are of: the old and new ones of two reloads."""
        return RUNS_AN_INSTANCE * max(generation.instances for generation in self.held.values())

    def bind(self, table: Table) -> tuple[dict[str, int], list[tuple[int, str]]]:
        """The table's sockets that are not held yet; or, when one cannot be had, none and every errno and reason."""
        bound: dict[str, int] = {}
        problems = []
        for spec in table.sockets:
            if spec.key not in self.sockets:
                try:
                    bound[spec.key] = listen.bind(spec).detach()
                except OSError as error:
                    problems.append((error.errno or errno.EIO, listen.failure(spec, error)))
        if problems:
            closing.close(*bound.values())
            return {}, problems
        return bound, []

    def adopt(self, generation: Generation, sockets: dict[str, int]) -> None:
        """It counts from now on."""
        for key, fd in sockets.items():
            self.adopt_socket(key, fd)
        if generation.secrets >= 0:
            self.store(f"secrets/{generation.number}", generation.secrets)
        self.store(f"generation/{generation.number}", generation.fd)
        self.held[generation.number] = generation
        self.current = generation.number

    def stage(self, seq: int, word: ipc.Message, fds: list[int]) -> tuple[ipc.Message, int]:
        """What a throw-away child has compiled: the answer for the supervisor, and the memfd for it (-1: none).

        The memfd is the caller's to close, unless the generation is staged now. NEEDS_ROOT: it is not, for this process
        may not; extra says for how many things, and name which, a line each, as far as they fit.
        """
        ipc.close_all(fds[1:2])
        is_root = os.geteuid() == 0
        if word.op != ipc.TABLE or not fds:
            ipc.close_all(fds[2:])
            return ipc.Message(ipc.DONE, seq=seq, arg=errno.ETIMEDOUT), -1
        number = max(self.held) + 1
        flags = word.flags & (ipc.INVALID if is_root else ipc.INVALID | ipc.NEEDS_ROOT)
        if flags:
            ipc.close_all(fds[2:])
            return ipc.Message(ipc.TABLE, seq=seq, generation=number, flags=flags, digest=word.digest), fds[0]
        staged = Generation(number, fds[0], *fds[2:])
        sockets, problems = self.bind(staged.table)
        answer = staged.told(seq=seq)
        if not is_root and (wanted := self.beyond(staged.table, problems)):
            closing.close(*sockets.values(), *staged.fds[1:])
            count = len(wanted)
            while wanted and len("\n".join(wanted).encode()) > ipc.NAME_LIMIT:
                wanted.pop()
            answer = answer._replace(flags=ipc.NEEDS_ROOT, extra=count, name="\n".join(wanted))
        elif problems:
            ipc.close_all(staged.fds[1:])
            number, reason = problems[0]
            name = reason.encode()[: ipc.NAME_LIMIT].decode(errors="ignore")
            answer = answer._replace(extra=number, name=name)
        else:
            self.staged, self.staged_sockets = staged, sockets
        return answer, staged.fd

    def beyond(self, table: Table, problems: Iterable[tuple[int, str]]) -> list[str]:
        """What of it takes root: "socket NAME: KEY", "root SERVICE", and "WHAT SERVICE,…" by extras.needed."""
        denied = [told.rpartition(": ")[0] for number, told in problems if number in (errno.EACCES, errno.EPERM)]
        root = [] if self.runs_root else [f"root {entry.service}" for entry in table.entries if entry.root]
        more = {what: who for what, who in extras.needed([table]).items() if what not in self.granted}
        return [*denied, *dict.fromkeys(root), *(f"{what} {','.join(who)}" for what, who in more.items())]

    def commit(self, number: int, digest: bytes) -> bool:
        """Make what is staged count, if it is this one."""
        staged = self.staged
        if staged is None or number != staged.number or digest != staged.digest:
            return False
        self.staged = None
        self.adopt(staged, self.staged_sockets)
        self.staged_sockets = {}
        memory.trim()
        return True

    def abort(self) -> None:
        if self.staged is not None:
            closing.close(*self.staged.fds, *self.staged_sockets.values())
            self.staged, self.staged_sockets = None, {}

    def retire(self, used: set[int], left: int = 0) -> None:
        """Forget generations that no run uses (the last two stay), and sockets that no table in use names.

        left: a run of that one is over now.
        """
        now = time.monotonic()
        self.left = {number: at for number, at in (self.left | {left: now}).items() if now - at < HOOK_FOLLOWS}
        for number in set(self.held) - used - self.left.keys() - set(sorted(self.held)[-2:]):
            self.drop(f"generation/{number}")
            if self.held[number].secrets >= 0:
                self.drop(f"secrets/{number}")
            ipc.close_all(self.held.pop(number).fds)
        self.let_go(used)

    def let_go(self, used: set[int]) -> None:
        """Close the sockets that no table in use names."""
        tables = [self.held[number].table for number in {self.current, *used} & self.held.keys()]
        for key in set(self.sockets) - {spec.key for table in tables for spec in table.sockets}:
            self.drop(f"socket/{key}")
            closing.close(self.sockets.pop(key))

    def repair(self, used: set[int]) -> None:
        """As root, started again: each socket that a crash has lost or a service has spoilt is made anew.

        Secrets and sockets whose generation never counted, or counts no more, are let go. used: as for retire.
        """
        self.let_go(used)
        for number, fd in self.secrets.items():
            if number in self.held:
                self.held[number].secrets = fd
            else:
                self.drop(f"secrets/{number}")
                os.close(fd)
        for spec in self.held[self.current].table.sockets:
            try:
                if spec.key in self.sockets:
                    listen.mend(self.sockets[spec.key], spec.backlog, block=False)
                    continue
            except OSError:
                self.renew(spec)
                continue
            try:
                self.adopt_socket(spec.key, listen.bind(spec).detach())
            except OSError as error:
                ipc.note("privileged", listen.failure(spec, error))

    def mend(self, ended: Run, runs: Iterable[Run]) -> bool:
        """After an exit: the sockets of this slot listen, whatever the service did to them. False: only root can.

        They also block again when its exit is known to count, unless another process is on them: it shares the flag,
        and may count on it. (Before that, one that it has forked may become its main process.)
        """
        mended = True
        specs = {spec.key: spec for spec in self.held[ended.generation].table.sockets}
        mine = {key for key in self.keys(ended) if key in self.sockets}
        living = [run for run in runs if run.exited is None] if mine else []
        shared = {key for run in living for key in self.keys(run)}
        for key in mine:
            try:
                listen.mend(self.sockets[key], specs[key].backlog, block=ended.acknowledged and key not in shared)
            except OSError:
                mended &= self.renew(specs[key])
        return mended

    def renew(self, spec: Socket) -> bool:
        """A service has spoilt this socket for good. Where there can be no other now, the next exit tries again.

        False where root could make one, and this process may not.
        """
        try:
            fresh = listen.renew(self.sockets[spec.key], spec).detach()
        except OSError as error:
            ipc.note("privileged", f"a service has spoilt {listen.failure(spec, error)}")
            return error.errno != errno.EACCES or os.geteuid() == 0
        self.drop(f"socket/{spec.key}")
        closing.close(self.sockets[spec.key])
        self.adopt_socket(spec.key, fresh)
        return True

    def adopt_socket(self, key: str, fd: int) -> None:
        self.sockets[key] = fd
        self.store(f"socket/{key}", fd)

    def keys(self, run: Run) -> list[str]:
        """The sockets that a run was handed."""
        entry = self.entry(run.generation, run.slot)
        return list(entry.held()) if entry else []

    def about(self, run: Run | None) -> dict[str, Any]:
        """What a deed tells of its run, by names that people know: "site.1", or "site pre-start" for a hook of it."""
        if run is None:
            return {"generation": self.current}
        entry = self.entry(run.generation, run.slot)
        words = (process_name(entry, run.slot), dict(entry.env).get("DURWARD_HOOK", "")) if entry else ()
        name = " ".join(filter(None, words))
        return {"run": run.run, "slot": run.slot, "generation": run.generation, "name": name}
