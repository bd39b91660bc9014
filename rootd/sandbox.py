"""The walls around what decides: Landlock and a seccomp allow-list, and a test from inside that they stand.

Rule 1: never on keeper or privileged: what they start would inherit it (DESIGN §1).
Rule 2: what is not allowed fails with EPERM; a process of another architecture's calls is killed.
Rule 3: a process whose walls do not stand does not go on: enter() raises.
Rule 4: no library but ctypes: the filter is a list of numbers that can be read here.

Sources: seccomp(2), bpf(2), landlock(7), prctl(2), asm/unistd.h.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial

# name:x86_64:aarch64; -1 where there is none
NUMBERS = {
    name: (int(x86_64), int(aarch64))
    for name, x86_64, aarch64 in (
        row.split(":")
        for row in """
    accept:43:202 accept4:288:242 access:21:-1 alarm:37:-1 arch_prctl:158:-1 bind:49:200 brk:12:214 clock_getres:229:114
    clock_gettime:228:113 clock_nanosleep:230:115 clone:56:220 clone3:435:435 close:3:57 close_range:436:436
    connect:42:203 dup:32:23 dup2:33:-1 dup3:292:24 epoll_create1:291:20 epoll_ctl:233:21 epoll_pwait:281:22
    epoll_pwait2:441:441 epoll_wait:232:-1 eventfd2:290:19 execve:59:221 exit:60:93 exit_group:231:94 faccessat:269:48
    faccessat2:439:439 fallocate:285:47 fchmod:91:52 fcntl:72:25 fdatasync:75:83 fgetxattr:193:10 fsetxattr:190:7
    fstat:5:80 fstatfs:138:44 fsync:74:82 ftruncate:77:46 futex:202:98 getcwd:79:17 getdents64:217:61 getegid:108:177
    geteuid:107:175 getgid:104:176 getgroups:115:158 getpeername:52:205 getpid:39:172 getppid:110:173 getrandom:318:278
    getresgid:120:150 getresuid:118:148 getrlimit:97:163 getrusage:98:165 getsockname:51:204 getsockopt:55:209
    gettid:186:178 gettimeofday:96:169 getuid:102:174 ioctl:16:29 kill:62:129 listen:50:201 lseek:8:62 lstat:6:-1
    madvise:28:233 membarrier:324:283 memfd_create:319:279 mkdir:83:-1 mkdirat:258:34 mmap:9:222 mprotect:10:226
    mremap:25:216 munmap:11:215 nanosleep:35:101 newfstatat:262:79 open:2:-1 openat:257:56 openat2:437:437
    pidfd_open:434:434 pidfd_send_signal:424:424 pipe2:293:59 poll:7:-1 ppoll:271:73 prctl:157:167 pread64:17:67
    prlimit64:302:261 pselect6:270:72 ptrace:101:117 pwrite64:18:68 read:0:63 readlink:89:-1 readlinkat:267:78
    readv:19:65 recvfrom:45:207 recvmsg:47:212 rename:82:-1 renameat:264:38 renameat2:316:276 restart_syscall:219:128
    rseq:334:293 rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigtimedwait:128:137
    sched_getaffinity:204:123 sched_yield:24:124 select:23:-1 sendmsg:46:211 sendto:44:206 set_robust_list:273:99
    set_tid_address:218:96 setgid:106:144 setgroups:116:159 setitimer:38:103 setpgid:109:154 setpriority:141:140
    setregid:114:143 setresgid:119:149 setresuid:117:147 setreuid:113:145 setsid:112:157 setuid:105:146
    setsockopt:54:208 shutdown:48:210 sigaltstack:131:132 socket:41:198 socketpair:53:199 splice:275:76 stat:4:-1
    statfs:137:43 statx:332:291 sysinfo:99:179 tee:276:77 tgkill:234:131 umask:95:166 uname:63:160 unlink:87:-1
    unlinkat:263:35 utimensat:280:88 wait4:61:260 waitid:247:95 write:1:64 writev:20:66
    """.split()
    )
}
ALWAYS = """
    read write readv writev pread64 close fstat newfstatat statx lseek mmap mprotect munmap brk mremap madvise
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack fcntl dup dup2 dup3 pipe2 poll ppoll select pselect6
    epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd2 socketpair sendmsg recvmsg sendto recvfrom
    accept accept4 getsockopt setsockopt getsockname getpeername open openat openat2 readlink readlinkat
    access faccessat faccessat2 stat lstat getcwd getdents64 futex set_robust_list rseq clock_gettime clock_getres
    clock_nanosleep nanosleep gettimeofday getrandom getpid gettid getppid getuid geteuid getgid getegid getgroups
    getresuid getresgid exit exit_group sched_yield sched_getaffinity umask close_range memfd_create getrlimit
    sysinfo uname restart_syscall membarrier wait4 waitid tgkill pidfd_open statfs fstatfs getrusage
""".split()
WRITING = """
    pwrite64 ftruncate rename renameat renameat2 unlink unlinkat mkdir mkdirat fsync fdatasync fallocate fchmod
    splice tee
""".split()
FORKING = "clone set_tid_address pidfd_send_signal".split()  # not setsid, setpgid: keeper/reap.py relies on it
# what a program needs to begin, and one that has no privilege to change who it is may ask in vain
EXECUTING = "execve arch_prctl setuid setgid setgroups setreuid setregid setresuid setresgid".split()

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of NUMBERS, AUDIT_ARCH_…
X32 = 0x40000000  # __X32_SYSCALL_BIT: the same numbers with this bit are another table
IOCTLS = (0x5401, 0x5421, 0x5450, 0x5451)  # TCGETS (isatty), FIONBIO, FIONCLEX, FIOCLEX
PDEATHSIG = 1  # of prctl(2): a child may ask to die with its parent
# which argument says whose: 0 is its own, and no pid of another; PRIO_USER with 0 is still all of its own account
OWN = {"prlimit64": 0, "setpriority": 1}
PROCESSES = 256  # of the account of who may fork, wherever on the machine they are
NO_STREAM = 0xE  # bits of SOCK_TYPE_MASK that no other type than SOCK_STREAM (1) is without
NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW… flag that clone(2) takes
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
AT_NUMBER, AT_ARCHITECTURE, AT_ARGUMENT = 0, 4, (16, 24)  # offsets in struct seccomp_data; low words, little-endian
AT_NEW_LIMIT = 32  # the third argument, a pointer: both words

BIND_TCP, CONNECT_TCP, SCOPED = 1 << 0, 1 << 1, 3  # of landlock(7): abstract Unix sockets, and signals to others

# families that anybody could make a socket of; the kernel refuses others to who has no capability, walls or not
INTERNET = (socket.AF_INET, socket.AF_INET6)
FAMILIES = (*INTERNET, socket.AF_UNIX, socket.AF_NETLINK)

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def enter(
    *,
    read: Sequence[str] = (),
    write: Sequence[str] = (),
    allow: Sequence[str] = (),
    sockets: Sequence[int] = (),
    streams: bool = False,
    fork: bool = False,
    execute: Sequence[str] = (),
) -> None:
    """From now on this process may do what an event loop does, and nothing else. Raises OSError or RuntimeError.

    read, write: paths beneath which files may be read, or also written and made. allow: further system calls of
    NUMBERS by name. sockets: address families that socket(2) may be asked for; with one of the internet, connect(2)
    reaches it where it is allowed, and no TCP port can be bound. streams: of those, SOCK_STREAM alone.
    fork: whether clone(2) is allowed: PROCESSES at most, and none leaves this one's process group.
    execute: files that may be executed, programs and their loader; where the kernel has no Landlock, all may then be.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if fork:
        most = min(limit for limit in (PROCESSES, resource.getrlimit(resource.RLIMIT_NPROC)[1]) if limit >= 0)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    prctl(4, 0)  # PR_SET_DUMPABLE: nobody of the same uid may look into it
    walled = restrict_files(read, write, execute, sockets)
    names = {*ALWAYS, *(WRITING if write else ()), *(FORKING if fork else ()), *(EXECUTING if execute else ()), *allow}
    install(program(names, sockets, streams=streams))
    self_test(walled, sockets, streams=streams, executes=bool(execute))


def program(names: Iterable[str], sockets: Sequence[int], *, streams: bool = False) -> list[Instruction]:
    """The filter for this machine: numbers that are allowed, and calls whose arguments matter.

    shutdown(2) may only end what is sent: on a Unix socket that listens, which others hold too, the rest is for good.
    """
    column, architecture = MACHINES[os.uname().machine]
    refuse = ERRNO | errno.EPERM
    filters: list[Instruction] = [
        (LOAD, 0, 0, AT_ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, AT_NUMBER),
        (JUMP_AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, refuse),
    ]
    checked = {"clone", "clone3", "socket", "ioctl", "shutdown", *OWN}
    for number in sorted(NUMBERS[name][column] for name in set(names) - checked):
        if number >= 0:
            filters += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    # fork: clone without namespaces; clone3 hides its flags behind a pointer, glibc falls back when it is not there
    filters += [(JUMP_EQUAL, 0, 1, NUMBERS["clone3"][column]), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    if "clone" in names:
        filters += [
            (JUMP_EQUAL, 0, 4, NUMBERS["clone"][column]),
            (LOAD, 0, 0, AT_ARGUMENT[0]),
            (JUMP_BITS, 0, 1, NEW_NAMESPACES),
            (RETURN, 0, 0, refuse),
            (RETURN, 0, 0, ALLOW),
        ]
    # a limit may be read (sysconf does, and would otherwise say that there are only 256 descriptors), and not set
    if "prlimit64" not in names:
        filters += [
            (JUMP_EQUAL, 0, 6, NUMBERS["prlimit64"][column]),
            (LOAD, 0, 0, AT_NEW_LIMIT),
            (JUMP_EQUAL, 0, 3, 0),
            (LOAD, 0, 0, AT_NEW_LIMIT + 4),
            (JUMP_EQUAL, 0, 1, 0),
            (RETURN, 0, 0, ALLOW),
            (RETURN, 0, 0, refuse),
        ]
    if streams:
        filters += [
            (JUMP_EQUAL, 0, 4, NUMBERS["socket"][column]),
            (LOAD, 0, 0, AT_ARGUMENT[1]),
            (JUMP_BITS, 0, 1, NO_STREAM),
            (RETURN, 0, 0, refuse),
            (LOAD, 0, 0, AT_NUMBER),
        ]
    calls: list[tuple[str, int, Sequence[int]]] = [("socket", 0, sockets), ("ioctl", 1, IOCTLS)]
    calls += [("shutdown", 1, (socket.SHUT_WR,)), ("prctl", 0, (PDEATHSIG,) if "clone" in names else ())]
    for name, argument, values in (*calls, *((name, OWN[name], (0,)) for name in OWN if name in names)):
        filters += [(JUMP_EQUAL, 0, 2 * len(values) + 2, NUMBERS[name][column]), (LOAD, 0, 0, AT_ARGUMENT[argument])]
        for value in values:
            filters += [(JUMP_EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
        filters.append((RETURN, 0, 0, refuse))
    return [*filters, (RETURN, 0, 0, refuse)]


def install(filters: list[Instruction]) -> None:
    """Put the filter on this thread, which is the only one. Raises OSError."""
    import ctypes

    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *one) for one in filters))
    header = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", len(filters), ctypes.addressof(code)))
    prctl(22, 2, ctypes.addressof(header))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def prctl(option: int, *arguments: int) -> None:
    """prctl(2) where python-prctl has no word for it. Raises OSError."""
    import ctypes

    words = (*arguments, 0, 0, 0, 0)[:4]
    if ctypes.CDLL(None, use_errno=True).prctl(option, *(ctypes.c_ulong(word) for word in words)):
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def restrict_files(
    read: Sequence[str], write: Sequence[str], execute: Sequence[str] = (), sockets: Sequence[int] = ()
) -> bool:
    """Landlock with the best ABI that the kernel has. False, and said, where it has none.

    To connect to a Unix socket by its path is no right of it: who may is said by the socket's mode.
    """
    from rootd import landlock

    abi = landlock.version()
    if abi < 1:
        sys.stderr.write("durward: this kernel has no Landlock: files are guarded by their modes only\n")
        return False
    to_read, to_run = landlock.READ_FILE | landlock.READ_DIR, landlock.READ_FILE | landlock.EXECUTE
    to_write = landlock.rights(abi) & ~(landlock.EXECUTE | landlock.DEVICES)
    wanted = (
        (path, grant) for paths, grant in ((read, to_read), (write, to_write), (execute, to_run)) for path in paths
    )
    there = [(path, grant) for path, grant in wanted if os.path.exists(path)]
    landlock.restrict(abi, there, BIND_TCP if {*INTERNET} & {*sockets} else BIND_TCP | CONNECT_TCP, SCOPED)
    return True


def self_test(walled: bool, sockets: Sequence[int] = (), *, streams: bool = False, executes: bool = False) -> None:
    """Each of these must fail from inside, as must each family of FAMILIES that is not listed, and what is no stream.

    RuntimeError names those that did not.
    """
    import ctypes

    def speak(family: int, kind: int = socket.SOCK_STREAM if streams else socket.SOCK_DGRAM) -> None:
        socket.socket(family, kind).close()

    def trace() -> None:
        if ctypes.CDLL(None, use_errno=True).syscall(NUMBERS["ptrace"][MACHINES[os.uname().machine][0]], 0, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "ptrace")

    attempts: dict[str, tuple[Callable[[], object], int]] = {
        "execve": (lambda: os.execve("/nonexistent/program", ["program"], {}), errno.EPERM),
        **{
            f"socket({family.name})": (partial(speak, family), errno.EPERM)
            for family in FAMILIES
            if family not in sockets
        },
        **{
            f"a datagram's socket({family.name})": (partial(speak, family, socket.SOCK_DGRAM), errno.EPERM)
            for family in FAMILIES
            if streams and family in sockets
        },
        "ptrace": (trace, errno.EPERM),
        "open of a path that is not listed": (lambda: os.close(os.open("/", os.O_RDONLY)), errno.EACCES),
    }
    if executes:  # were this possible, the process would be `false` from here on: it would not go on either
        attempts["execve"] = (lambda: os.execve("/usr/bin/false", ["false"], {}), errno.EACCES)
    if not walled:
        attempts.pop("execve" if executes else "", None)
        del attempts["open of a path that is not listed"]
    failed = []
    for name, (attempt, expected) in attempts.items():
        try:
            attempt()
        except OSError as error:
            if error.errno == expected:
                continue
        failed.append(name)
    if failed:
        raise RuntimeError(f"the sandbox does not hold: {', '.join(failed)} is possible")
