"""HTTP/1.1 for one request: over a Unix socket, TCP, or TLS with the system's CAs. Small because it must be quick.

http.client costs more than the whole of `durward status`. Only what our own server sends is understood: a
Content-Length, chunks, or the end of the connection.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections import namedtuple
from collections.abc import Iterator

from userapi.cli.failure import Failure

HEAD = 64 * 1024
CONNECT = 10.0  # seconds


# unix, http or https; the host, or the path of the socket; the port. With types it would take typing, which is slow
Where = namedtuple("Where", ("scheme", "host", "port"))

_LOOPBACK = r"\A127(?:\.(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}\Z"  # 127.x.example is a name
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quoted(text: str) -> str:
    """Percent-encoded: everything but RFC 3986's unreserved characters."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in data)


def where(url: str) -> Where:
    """unix:/path, http://host[:port] (loopback only), https://host[:port]. Raises Failure."""
    scheme, _, rest = url.partition(":")
    if scheme == "unix" and rest.startswith("/"):
        return Where("unix", rest.removeprefix("//") if rest.startswith("///") else rest, 0)
    rest = rest.removeprefix("//").rstrip("/")
    host, colon, port = rest.rpartition(":") if not rest.endswith("]") and ":" in rest else (rest, "", "")
    host = host.strip("[]")
    wrong = colon and not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536)
    if scheme not in ("http", "https") or not host or "/" in rest or "@" in rest or wrong:
        raise Failure(
            "usage", f"{url} is no address: unix:/path, https://host[:port], or to this machine http://127.0.0.1[:port]"
        )
    if scheme == "http" and host not in ("localhost", "::1") and not re.match(_LOOPBACK, host):
        raise Failure("usage", f"{url} would send the password and the session in clear: use https://{rest}")
    return Where(scheme, host, int(port) if port else 443 if scheme == "https" else 80)


class Reply:
    """A status, headers by lower-case name, and a body that is read once."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock = sock
        self._data = b""
        sock.settimeout(seconds)
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            if not self._more() or len(self._data) > HEAD:
                raise Failure("unreachable", "the daemon's api closed the connection without an answer")
        head, self._data = self._data[:end].decode("latin-1"), self._data[end + 4 :]
        first, *lines = head.split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise Failure("unreachable", "what answers there is no HTTP server")
        self.status = int(words[1])
        self.headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def _more(self) -> bool:
        try:
            data = self._sock.recv(65536)
        except TimeoutError:
            raise Failure("later", "the daemon's api did not answer in time") from None
        except OSError:
            data = b""
        self._data += data
        return bool(data)

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes. Raises ConnectionError when it ends before its end."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
            return
        left = int(self.headers.get("content-length", "-1"))
        while left != 0:
            if not self._data and not self._more():
                if left > 0:
                    raise ConnectionError("the answer ended early")
                return
            piece, self._data = (self._data, b"") if left < 0 else (self._data[:left], self._data[left:])
            left = left - len(piece) if left > 0 else left
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            while b"\r\n" not in self._data:
                if not self._more():
                    raise ConnectionError("the answer ended early")
            size, _, self._data = self._data.partition(b"\r\n")
            left = int(size.partition(b";")[0], 16)
            if left == 0:
                return
            while left:
                if not self._data and not self._more():
                    raise ConnectionError("the answer ended early")
                piece, self._data = self._data[:left], self._data[left:]
                left -= len(piece)
                yield piece
            while len(self._data) < 2:
                if not self._more():
                    raise ConnectionError("the answer ended early")
            self._data = self._data[2:]

    def body(self) -> bytes:
        try:
            return b"".join(self.pieces())
        except ConnectionError as error:
            raise Failure("later", f"the daemon's api: {error}") from None

    def close(self) -> None:
        self._sock.close()


def ask(
    place: Where, method: str, path: str, headers: dict[str, str], body: bytes, seconds: float, cacert: str = ""
) -> Reply:
    """One request on one connection; `seconds` is the longest silence. Raises Failure."""
    sock = connect(place, cacert)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {_host(place)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    with contextlib.suppress(OSError):  # it may have answered and closed; if it has not, Reply says so
        sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    try:
        return Reply(sock, seconds)
    except BaseException:
        sock.close()
        raise


def _host(place: Where) -> str:
    if place.scheme == "unix":
        return "localhost"
    return f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"


def connect(place: Where, cacert: str = "") -> socket.socket:
    try:
        if place.scheme == "unix":
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.settimeout(CONNECT)
                sock.connect(place.host)
            except BaseException:
                sock.close()
                raise
            return sock
        sock = socket.create_connection((place.host, place.port), CONNECT)
    except OSError as error:
        at = place.host if place.scheme == "unix" else f"{place.host}:{place.port}"
        root = " As root, durward --root asks it without the api" if place.scheme == "unix" and not os.geteuid() else ""
        text = f"no daemon answers at {at}: {error.strerror or error}; is it running?{root}"
        raise Failure("unreachable", text) from None
    if place.scheme == "https":
        return _secure(sock, place, cacert)
    return sock


def _secure(sock: socket.socket, place: Where, cacert: str) -> socket.socket:
    import ssl

    at = f"{place.host}:{place.port}"
    try:
        context = ssl.create_default_context(cafile=cacert or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    except OSError as error:
        sock.close()
        raise Failure("usage", f"--cacert {cacert}: no certificates can be read there: {_reason(error)}") from None
    try:
        return context.wrap_socket(sock, server_hostname=place.host)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise Failure("unreachable", f"{at} is not to be trusted: {error.verify_message or error.reason}") from None
    except (OSError, ValueError) as error:
        sock.close()
        raise Failure("unreachable", f"{at} does not speak TLS, 1.2 at least: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", "") or getattr(error, "reason", "") or str(error)
