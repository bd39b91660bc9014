"""plain.py WORD…: a service that does what its words say, in order. Without a word that ends it, it stays.

say TEXT        print TEXT to standard output (err TEXT: standard error)
ready           READY=1 to NOTIFY_SOCKET
newline FD      a newline to that descriptor
wait FILE       go on when it is there
claim FILE      MAINPID= the number in FILE, and READY=1, to NOTIFY_SOCKET
become          two forks and a session of its own: the last of them says MAINPID= itself and READY=1, and stays
fork            a child that ignores SIGTERM and stays (setsid: in a session of its own)
daemon          two forks and a session of its own: nobody's child, without descriptors, deaf to all signals; it stays
deaf            ignore SIGTERM
stone           ignore every signal that can be ignored
shut            shut down the first socket that was handed over
show FILE       write pid, environment, descriptors, ids and limits to FILE as JSON
tell            print what it is for: DURWARD_HOOK, DURWARD_PID and the uid
need FILE       end with status 1 when there is no such file
signal NAME     send that signal to DURWARD_PID
state TEXT      that text to NOTIFY_SOCKET
alive COUNT     WATCHDOG=1 so often, four times in each WATCHDOG_USEC; then silence
http PORT FILE  answer HTTP on 127.0.0.1: 200 while there is such a file, else 503
serve FILE      HTTP on the sockets that were handed over: 200 and its pid; on the one named probe as above
exit CODE       end now (die SIGNAL: by that signal)
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time


def notify(text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(os.environ["NOTIFY_SOCKET"])
        sock.send(text.encode())


def stay() -> None:
    while True:
        signal.pause()


def child(session: bool) -> None:
    if os.fork() == 0:
        if session:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stay()


def stone() -> None:
    for signo in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signo, signal.SIG_IGN)


def daemon() -> None:
    between = os.fork()
    if between == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        os.closerange(0, 1024)
        stone()
        stay()
    os.waitpid(between, 0)


def become() -> None:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        notify(f"MAINPID={os.getpid()}\nREADY=1")
        os.write(writer, b"x")
        stay()
    os.read(reader, 1)


def show(path: str) -> None:
    listing = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    fds = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir(listing) if int(fd) != listing}
    os.close(listing)
    with open("/proc/self/status") as status, open("/proc/self/limits") as limits, open("/proc/self/cgroup") as group:
        seen = {
            "pid": os.getpid(), "sid": os.getsid(0), "cwd": os.getcwd(), "argv": sys.argv, "environ": dict(os.environ),
            "fds": fds, "status": status.read(), "limits": limits.read(), "cgroup": group.read(),
        }  # fmt: skip
    with open(path + ".new", "w") as file:
        json.dump(seen, file)
    os.rename(path + ".new", path)


def alive(count: int) -> None:
    for _ in range(count):
        notify("WATCHDOG=1")
        time.sleep(int(os.environ["WATCHDOG_USEC"]) / 4e6)


def wait(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.01)


def answer(server: socket.socket, good: bool) -> None:
    client, _ = server.accept()
    with client:
        client.recv(4096)
        status, body = "200 OK" if good else "503 Service Unavailable", str(os.getpid())
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        client.sendall(f"{head}{body}".encode())


def http(port: int, path: str) -> None:
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            answer(server, os.path.exists(path))


def serve(path: str) -> None:
    """One request at a time, the last one to its end."""
    names = os.environ["LISTEN_FDNAMES"].split(":")
    sockets = {socket.socket(fileno=3 + number): name for number, name in enumerate(names)}
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)
    for server in sockets:
        server.setblocking(False)
    while True:
        ready, _, _ = select.select([reader, *sockets], [], [])
        if reader in ready:
            sys.exit(0)
        for server in ready:
            with contextlib.suppress(BlockingIOError):  # another process was quicker
                answer(server, sockets[server] != "probe" or os.path.exists(path))


def main(words: list[str]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    rest = iter(words)
    for word in rest:
        match word:
            case "say":
                print(next(rest), flush=True)
            case "err":
                print(next(rest), file=sys.stderr, flush=True)
            case "ready":
                notify("READY=1")
            case "newline":
                os.write(int(next(rest)), b"\n")
            case "wait":
                wait(next(rest))
            case "claim":
                with open(next(rest)) as file:
                    notify(f"MAINPID={file.read()}\nREADY=1")
            case "become":
                become()
            case "fork" | "setsid":
                child(word == "setsid")
            case "daemon":
                daemon()
            case "stone":
                stone()
            case "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            case "shut":
                socket.socket(fileno=3).shutdown(socket.SHUT_RD)
            case "show":
                show(next(rest))
            case "tell":
                print(os.environ.get("DURWARD_HOOK"), os.environ.get("DURWARD_PID"), os.getuid(), flush=True)
            case "need":
                if not os.path.exists(next(rest)):
                    os._exit(1)
            case "signal":
                os.kill(int(os.environ["DURWARD_PID"]), signal.Signals[f"SIG{next(rest)}"])
            case "state":
                notify(next(rest))
            case "alive":
                alive(int(next(rest)))
            case "http":
                http(int(next(rest)), next(rest))
            case "serve":
                serve(next(rest))
            case "exit":
                os._exit(int(next(rest)))
            case "die":
                signal.signal(int(rest_signal := next(rest)), signal.SIG_DFL)
                os.kill(os.getpid(), int(rest_signal))
            case _:
                sys.exit(f"plain.py: what is {word}?")
    stay()


if __name__ == "__main__":
    main(sys.argv[1:])
