"""Sockets: bound once, held for good, listened on again after a service shut one down.

Rule 1: every address comes from root's table; nothing that a person or the network wrote gets here.
Rule 2: a Unix socket gets its group by setegid and its mode by umask before it is made: nothing is chowned or chmodded.
Rule 3: a path is only unlinked where a socket of ours stood, in a directory that the services on it cannot write.

Sources: socket(7) SO_ACCEPTCONN, ip(7) IP_FREEBIND, ipv6(7) IPV6_V6ONLY, unix(7).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
from collections.abc import Sequence

from rootd import ipc
from rootd.config.table import Socket

IP_FREEBIND = 15  # linux/in.h; not in the socket module of Python 3.11
SO_DETACH_FILTER = 27  # asm-generic/socket.h


def bind(spec: Socket) -> socket.socket:
    """A new listening (or, for datagrams, bound) socket for this entry of the table. Raises OSError with its reason."""
    family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}[spec.family]
    kind = socket.SOCK_STREAM if spec.kind == "stream" else socket.SOCK_DGRAM
    if spec.family == "unix":
        check_directory(spec)
        sock = bind_unix(spec.path, kind, spec.gid, spec.mode)
    else:
        sock = socket.socket(family, kind)
        try:
            if kind == socket.SOCK_STREAM:  # of datagrams, whoever binds there too would get what comes
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(spec.v6only))
            if spec.freebind:
                sock.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
            sock.bind((spec.host, spec.port))
        except OSError:
            sock.close()
            raise
    if kind == socket.SOCK_STREAM:
        sock.listen(spec.backlog)
    return sock


def bind_unix(path: str, kind: int, gid: int, mode: int) -> socket.socket:
    """A Unix socket that is never visible with another group or mode: bound aside, then renamed into place."""
    aside = f"{path}.new"
    sock = socket.socket(socket.AF_UNIX, kind)
    old_gid, old_mask = os.getegid(), os.umask(0o777 & ~mode)
    try:
        os.setegid(gid)
        for stale in (aside, path):
            unlink_socket(stale)
        sock.bind(aside)
        os.rename(aside, path)
    except OSError:
        sock.close()
        raise
    finally:
        os.setegid(old_gid)
        os.umask(old_mask)
    return sock


def unlink_socket(path: str) -> None:
    """Remove a socket that an earlier instance left. Anything else that stands there is refused."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "something that is not a socket stands there")
        os.unlink(path)


def check_directory(spec: Socket) -> None:
    """Whether it is there, and no service on this Unix socket may put another in its place. Raises OSError if not."""
    directory = os.path.dirname(spec.path)
    try:
        who = writer_of(directory, spec.users)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, f"its directory {directory} is missing: make it first") from None
    if who:  # EINVAL: being root again would not help
        raise OSError(errno.EINVAL, f"its directory can be written by {who}: choose one that is root's alone")


def writer_of(directory: str, uids: Sequence[int]) -> str:
    """Who of these users, or everybody, may put another in its place (it is no link itself); empty when nobody may."""
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{directory} is not a directory")
    if found.st_mode & 0o022:
        return "its group or everybody"
    for path in {directory, os.path.realpath(directory)}:  # whoever may rename a folder above may put a link there
        while path != "/":
            found = os.lstat(path)
            if found.st_uid in uids and found.st_uid != 0:
                return f"uid {found.st_uid}, whose {path} is"
            open_to = found.st_mode & (0o022 if found.st_gid else 0o002)
            if not stat.S_ISLNK(found.st_mode) and open_to and not found.st_mode & stat.S_ISVTX:
                return f"{'everybody' if open_to & 0o002 else 'its group'}, as {path} is"
            path = os.path.dirname(path)
    return ""


def mend(fd: int, backlog: int, *, block: bool = True) -> bool:
    """After an exit: listen again if the service had shut it down (then True), and block again when that is asked: then
    nobody else is on it, and a filter that drops what comes (SO_ATTACH_FILTER takes no privilege) is taken away too.

    Raises OSError when it will never listen again: a service may have connected it, locked a filter on it, or shut a
    Unix socket down.
    """
    sock = socket.socket(fileno=fd)  # no other number: want of descriptors is no fault of the socket
    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if block and flags & os.O_NONBLOCK:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~(os.O_NONBLOCK | os.O_ASYNC))
        if block:
            with contextlib.suppress(FileNotFoundError):  # there is none
                sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        if sock.type != socket.SOCK_STREAM:
            return False
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            if is_shut(sock):
                raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN))
            return False
        sock.listen(backlog)
        return True
    finally:
        sock.detach()


def is_shut(sock: socket.socket) -> bool:
    """Whether a Unix socket that listens refuses everybody: listen(2) does not undo its shutdown."""
    return sock.family == socket.AF_UNIX and ipc.wait(sock, select.POLLRDHUP, 0)


def renew(fd: int, spec: Socket) -> socket.socket:
    """Another socket in place of one that a service has spoilt, which is out of the way first. Raises OSError."""
    old = socket.socket(fileno=fd)
    try:
        old.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            old.shutdown(socket.SHUT_RDWR)
        return bind(spec)
    finally:
        old.detach()


def failure(spec: Socket, error: OSError) -> str:
    """The sentence for a socket that could not be had. Who has it, where that can be told, is rootd.holder's to say."""
    return f"socket {spec.name}: {spec.key}: {error.strerror}"
