"""The five peers, each configured as its manual does it, with nothing in its way: no shell, no rotation, no TCP.

And the floor: what a log can be moved with at most, with nothing that manages anything.
"""

from __future__ import annotations

import ctypes
import os
import sys
from abc import abstractmethod
from pathlib import Path

from figures import FLOOR
from managers import Foreign

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


class Supervisord(Foreign):
    name = "supervisord"

    def prepare(self) -> None:
        log = self.folder / "log"
        log.mkdir()
        text = f"""\
[unix_http_server]
file = {self.folder}/sock
[supervisord]
nodaemon = true
user = root
logfile = {self.folder}/supervisord.log
pidfile = {self.folder}/pid
childlogdir = {log}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl = unix://{self.folder}/sock
"""
        for index in range(self.count):
            text += f"""\
[program:s{index:04}]
command = {" ".join(self.command(index))}
user = {self.user.name}
redirect_stderr = true
stdout_logfile = {log}/s{index:04}.log
stdout_logfile_maxbytes = 0
"""
        (self.folder / "conf").write_text(text)

    def argv(self) -> list[str]:
        return [self.ground.peers.bin("supervisord"), "-c", str(self.folder / "conf")]

    def status_command(self, *names: str) -> list[str]:
        return [self.ground.peers.bin("supervisorctl"), "-c", str(self.folder / "conf"), "status", *names]


class Circus(Foreign):
    name = "circus"

    def prepare(self) -> None:
        log = self.folder / "log"
        log.mkdir()
        text = f"[circus]\nendpoint = ipc://{self.folder}/control\npubsub_endpoint = ipc://{self.folder}/events\n"
        for index in range(self.count):
            command, *args = self.command(index)
            text += f"""\
[watcher:s{index:04}]
cmd = {command}
args = {" ".join(args)}
uid = {self.user.uid}
gid = {self.user.gid}
stdout_stream.class = FileStream
stdout_stream.filename = {log}/s{index:04}.log
"""
        (self.folder / "conf").write_text(text)

    def argv(self) -> list[str]:
        return [self.ground.peers.bin("circusd"), str(self.folder / "conf")]


class Directories(Foreign):
    """A directory a service, and one beneath it for the process that captures its output."""

    @abstractmethod
    def as_user(self) -> list[str]:
        """The words before a service's own."""

    @abstractmethod
    def logger(self, to: Path) -> list[str]: ...

    def prepare(self) -> None:
        scanned, log = self.folder / "scan", self.folder / "log"
        scanned.mkdir()
        log.mkdir()
        for index in range(self.count):
            name = f"s{index:04}"
            (scanned / name / "log").mkdir(parents=True)
            (log / name).mkdir()
            self.write(scanned / name, [*self.as_user(), *self.command(index)])
            self.write(scanned / name / "log", self.logger(log / name))
        os.utime(scanned, (1, 1))  # runsvdir waits for a second where something has just changed

    def write(self, folder: Path, words: list[str]) -> None:
        (folder / "words").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        (folder / "run").symlink_to(self.ground.run)

    def bin(self, program: str) -> str:
        return self.ground.peers.bin(program)


class Runit(Directories):
    name = "runit"

    def argv(self) -> list[str]:
        return [self.bin("runsvdir"), str(self.folder / "scan")]

    def as_user(self) -> list[str]:
        return [self.bin("chpst"), "-u", self.user.name]

    def logger(self, to: Path) -> list[str]:
        (to / "config").write_text("s0\n")  # never rotate
        return [self.bin("svlogd"), str(to)]

    def logged(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / "log").rglob("current"))


class S6(Directories):
    name = "s6"

    def argv(self) -> list[str]:
        return [self.bin("s6-svscan"), "-c", str(2 * self.count + 2), str(self.folder / "scan")]

    def before_exec(self) -> None:
        """It looks for s6-supervise in /usr/bin and nowhere else: in its own view of the files, it finds it there."""
        super().before_exec()
        for what in (
            _libc.unshare(CLONE_NEWNS),
            _libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
            _libc.mount(os.fsencode(self.ground.peers.programs), b"/usr/bin", None, MS_BIND, None),
        ):
            if what != 0:
                raise OSError(ctypes.get_errno(), "s6 cannot be given its own /usr/bin")

    def as_user(self) -> list[str]:
        return [self.bin("s6-setuidgid"), self.user.name]

    def logger(self, to: Path) -> list[str]:
        return [self.bin("s6-log"), "n100", "s268435455", str(to)]


class Daemontools(Directories):
    name = "daemontools"

    def argv(self) -> list[str]:
        return [self.bin("svscan"), str(self.folder / "scan")]

    def as_user(self) -> list[str]:
        return [self.bin("setuidgid"), self.user.name]

    def logger(self, to: Path) -> list[str]:
        return [self.bin("multilog"), "n100", "s16777215", str(to)]


PEERS: tuple[type[Foreign], ...] = (Supervisord, Circus, Runit, S6, Daemontools)


class SpliceLoop(Foreign):
    name = FLOOR

    def prepare(self) -> None:
        assert self.count == 1
        (self.folder / "log").mkdir()

    def argv(self) -> list[str]:
        program, log = Path(__file__).with_name("splice.py"), self.folder / "log" / "log"
        words = [str(program), str(self.user.uid), str(self.user.gid), str(log), *self.command(0)]
        return [sys.executable, "-I", "-B", *words]
