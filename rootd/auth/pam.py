"""PAM, in a forked child for each attempt: a module that crashes, leaks, sleeps or hangs harms one attempt only.

Rule 1: modules run in children; the process that knows who is logged in never calls one.
Rule 2: a child that says nothing sensible in time has said no.
Rule 3: the password answers the first hidden prompt and no other: a prompt for a one-time code does not get it.
Rule 4: nothing sleeps: what a module wants to delay is not delayed here; throttle does that.
Rule 5: a service that is not configured is refused: PAM would take /etc/pam.d/other for it.

Sources: pam(3), pam_start(3), pam_conv(3), pam_get_item(3), pam_fail_delay(3), pidfd_open(2), pipe(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import pam

from rootd import ipc
from rootd.auth.timers import Timer, Timers

PATIENCE = 10.0  # seconds that a child may take
ANSWER_LIMIT = 65_536  # bytes: a pipe takes that much without a reader
SERVICES = ("/etc/pam.d", "/usr/lib/pam.d")
FLAGS = 0x8000 | pam.PAM_DISALLOW_NULL_AUTHTOK  # PAM_SILENT
PAM_FAIL_DELAY = 10  # python-pam does not name it
# what PAM says for sure; every other failure means that it could not find out
VERDICTS = {
    pam.PAM_AUTH_ERR: "wrong password, or locked",
    pam.PAM_MAXTRIES: "too many tries",
    pam.PAM_USER_UNKNOWN: "account gone",
    pam.PAM_PERM_DENIED: "not permitted by PAM",
    pam.PAM_ACCT_EXPIRED: "expired",
    pam.PAM_NEW_AUTHTOK_REQD: "password must be changed",
    pam.PAM_AUTHTOK_EXPIRED: "inactive since the password expired",
}


class Unsure(Exception):
    """PAM or the machine could not find out: the answer is no, but it says nothing about the account."""


class Refused(Exception):
    """The answer is no, for the reason in the text."""


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


_Messages = ctypes.POINTER(ctypes.POINTER(_Message))
_Responses = ctypes.POINTER(ctypes.POINTER(_Response))
_Conversation = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, _Messages, _Responses, ctypes.c_void_p)
_Delay = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


class _Conv(ctypes.Structure):
    _fields_ = (("converse", _Conversation), ("data", ctypes.c_void_p))


class Library:
    """libpam, found by python-pam. Made once, before the sandbox: finding a library may start programs."""

    def __init__(self) -> None:
        pam.pam()
        lib = ctypes.CDLL("libpam.so.0", use_errno=True)  # the one that python-pam has loaded
        word, handle, number = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int
        self.start = _typed(lib.pam_start, word, word, ctypes.POINTER(_Conv), ctypes.POINTER(handle))
        self.end = _typed(lib.pam_end, handle, number)
        self.authenticate = _typed(lib.pam_authenticate, handle, number)
        self.account = _typed(lib.pam_acct_mgmt, handle, number)
        self.set_item = _typed(lib.pam_set_item, handle, number, ctypes.c_void_p)
        self.get_item = _typed(lib.pam_get_item, handle, number, ctypes.POINTER(ctypes.c_void_p))
        libc = ctypes.CDLL(None)
        self.calloc, self.free = libc.calloc, libc.free
        self.calloc.restype, self.calloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t, ctypes.c_size_t)
        self.free.restype, self.free.argtypes = None, (ctypes.c_void_p,)
        self._kept: list[Transaction] = []

    def warm(self, service: str) -> None:
        """Load the modules of a service and keep them loaded, so that the children find them. Calls none."""
        self._kept.append(Transaction(self, service, "nobody", b"", ""))


def _typed(function: Any, *arguments: Any) -> Callable[..., int]:
    function.restype, function.argtypes = ctypes.c_int, arguments
    called: Callable[..., int] = function
    return called


class Transaction:
    """One pam_start … pam_end. Raises Unsure when it cannot begin."""

    def __init__(self, library: Library, service: str, user: str, password: bytes, source: str) -> None:
        if not is_configured(service):
            raise Unsure(f"there is no PAM service {service!r}")
        self._library = library
        self._user = user
        self._password: bytes | None = password
        self._conv = _Conv(_Conversation(self._converse), None)  # kept here: PAM holds pointers to all of these
        self._delay = _Delay(lambda *_: None)
        self._handle = ctypes.c_void_p()
        code = library.start(service.encode(), user.encode(), ctypes.byref(self._conv), ctypes.byref(self._handle))
        if code:
            raise Unsure(f"PAM cannot begin: code {code}")
        self._items = {pam.PAM_TTY: b"durward", pam.PAM_RUSER: b"", pam.PAM_RHOST: source.encode()}
        for item, text in self._items.items():
            if text and library.set_item(self._handle, item, text):
                raise Unsure("PAM does not take where the attempt comes from")
        if library.set_item(self._handle, PAM_FAIL_DELAY, ctypes.cast(self._delay, ctypes.c_void_p)):
            raise Unsure("PAM insists on sleeping")

    def authenticate(self) -> None:
        """Raises Refused or Unsure."""
        self._check(self._library.authenticate(self._handle, FLAGS))

    def account(self) -> None:
        """Raises Refused or Unsure."""
        self._check(self._library.account(self._handle, FLAGS))

    def end(self) -> None:
        self._library.end(self._handle, 0)

    def _check(self, code: int) -> None:
        if code in VERDICTS:
            raise Refused(VERDICTS[code])
        if code != pam.PAM_SUCCESS:
            raise Unsure(f"PAM failed with code {code}")
        found = ctypes.c_void_p()
        if self._library.get_item(self._handle, pam.PAM_USER, ctypes.byref(found)) or not found.value:
            raise Unsure("PAM does not say whom it has authenticated")
        if ctypes.string_at(found.value) != self._user.encode():
            raise Refused("PAM has authenticated somebody else")

    def _converse(self, count: int, messages: Any, responses: Any, _data: Any) -> int:
        """pam_conv(3). What is returned is freed by the module, so it comes from calloc."""
        array = self._library.calloc(max(count, 1), ctypes.sizeof(_Response))
        if not array:
            return int(pam.PAM_BUF_ERR)
        answers = ctypes.cast(array, ctypes.POINTER(_Response))
        for index in range(count):
            style = messages[index].contents.style
            if style in (pam.PAM_TEXT_INFO, pam.PAM_ERROR_MSG):
                continue
            password, self._password = self._password, None
            text = None
            if style == pam.PAM_PROMPT_ECHO_OFF and password is not None:
                text = self._library.calloc(len(password) + 1, 1)
            if not text or password is None:
                for done in range(index):
                    self._library.free(answers[done].text)
                self._library.free(array)
                return int(pam.PAM_CONV_ERR)
            ctypes.memmove(text, password, len(password))
            answers[index].text = text
        responses[0] = answers
        return int(pam.PAM_SUCCESS)


def is_configured(service: str) -> bool:
    return "/" not in service and any(os.path.isfile(f"{folder}/{service}") for folder in SERVICES)


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a child found out. `sure` is False when that says nothing about the account."""

    ok: bool
    why: str = ""
    sure: bool = True
    user: str = ""
    uid: int = -1
    groups: tuple[str, ...] = ()
    mark: str = ""  # keyed hash of the shadow field


Work = Callable[[], Verdict]
Done = Callable[[Verdict], None]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Verdict, strict=True).decode


class Children:
    """At most `limit` children at once; `room` more wait. The loop brings their ends, the timers their time."""

    def __init__(self, loop: ipc.Loop, timers: Timers, clock: Callable[[], float], limit: int, room: int) -> None:
        self._loop, self._timers, self._clock, self._limit, self._room = loop, timers, clock, limit, room
        self._waiting: deque[tuple[Work, Done]] = deque()
        self.running = 0

    def run(self, work: Work, done: Done) -> bool:
        """False when there is no room. `done` is called later, and always."""
        if self.running >= self._limit and len(self._waiting) >= self._room:
            return False
        self._waiting.append((work, done))
        self._start()
        return True

    def _start(self) -> None:
        while self._waiting and self.running < self._limit:
            work, done = self._waiting.popleft()
            self.running += 1
            try:
                _Child(self, work, done)
            except OSError as error:
                self.running -= 1
                failed = Verdict(False, f"no process for it: {error.strerror}", sure=False)
                self._timers.at(self._clock(), lambda done=done, failed=failed: done(failed))  # type: ignore[misc]

    def watch(self, pidfd: int, ended: Callable[[], None], late: Callable[[], None]) -> Timer:
        self._loop.watch(pidfd, lambda _: ended())
        return self._timers.at(self._clock() + PATIENCE, late)

    def left(self, pidfd: int) -> None:
        self._loop.forget(pidfd)
        self.running -= 1
        self._start()


class _Child:
    def __init__(self, children: Children, work: Work, done: Done) -> None:
        self._children, self._done = children, done
        reader, writer = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                attempt(work, writer)
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._reader = reader
        self._late = False
        self._timer = children.watch(self._pidfd, self._ended, self._kill)

    def _kill(self) -> None:
        self._late = True
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _ended(self) -> None:
        self._timer.cancel()
        self._children.left(self._pidfd)
        self._done(_read(self._pidfd, self._reader, late=self._late))


def _read(pidfd: int, reader: int, *, late: bool) -> Verdict:
    """Reap a child that has ended, and take its word. Closes both."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.set_blocking(reader, False)  # a helper of a module may still hold the other end
    answer = b""
    with contextlib.suppress(BlockingIOError):
        answer = os.read(reader, ANSWER_LIMIT)
    ipc.close_all((pidfd, reader))
    clean = result is not None and (result.si_code, result.si_status) == (os.CLD_EXITED, 0)
    return understand(answer, clean, late)


def understand(answer: bytes, clean: bool, late: bool) -> Verdict:
    """What a child has said; no, unless it said yes in full and ended in order."""
    if late:
        return Verdict(False, f"PAM did not answer within {PATIENCE:.0f} s", sure=False)
    if not clean:
        return Verdict(False, "PAM crashed", sure=False)
    try:
        return _decode(answer)
    except (msgspec.DecodeError, ValueError):
        return Verdict(False, "PAM's child said nothing sensible", sure=False)


def attempt(work: Work, writer: int) -> None:
    """In the child: nothing of ours is left open but the answer's pipe. Never returns."""
    status = 1
    try:
        if writer != 3:
            os.dup2(writer, 3, inheritable=False)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        try:
            verdict = work()
        except Refused as refused:
            verdict = Verdict(False, str(refused))
        except (Unsure, OSError) as problem:
            verdict = Verdict(False, str(problem), sure=False)
        os.write(3, _encode(verdict))
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(status)


def once(work: Work) -> Verdict:
    """The same, waiting for the child: for the start, before there is a loop."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        attempt(work, writer)
    os.close(writer)
    pidfd = os.pidfd_open(pid)
    ended, _, _ = select.select([pidfd], [], [], PATIENCE)
    if not ended:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return _read(pidfd, reader, late=not ended)
