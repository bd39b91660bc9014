"""From texts to the table, on a machine that exists on paper (conftest.py)."""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Callable

import pytest

from rootd.config import compile as compiler
from rootd.config.compile import Bundle, Compiled, Problem
from rootd.config.keys import RUN_LIMIT
from rootd.config.logs import How, pack
from rootd.config.settings import Account, Api, Audit, Auth, Paths, Settings, Tls
from rootd.config.table import LEAVE, Entry, Socket, Table, load_table
from rootd.config.trusted import File

Compile = Callable[..., Compiled]
BundleOf = Callable[..., Bundle]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FULL = """
[socket.http]
listen = ["0.0.0.0:80", "[::]:80"]
backlog = 100
v6only = false
freebind = true
[socket.app]
listen = "unix:/run/durward/sockets/app.sock"
group = "mail"
mode = "0666"
[service.site]
command = ["/srv/site/bin/serve", "--fd", "3"]
user = "www-site"
group = "mail"
supplementary_groups = ["certs"]
directory = "/srv/site/"
umask = "077"
sockets = ["app", "http"]
environment = { APP_ENV = "production", HOME = "/tmp", A = "1" }
environment_file = "/etc/site/env"
processes = 2
signals = ["HUP"]
stop = { signal = "QUIT", then = ["INT 5s"] }
no_new_privileges = false
ready = { notify = true }
limits = { core = 0, nofile = [100, 200], memlock = "unlimited" }
log = { size = "1M", keep = 3 }
[service.work]
command = ["/srv/work"]
user = "worker"
sockets = ["http"]
"""
ENV = """
# a comment
; another
A = 2
QUOTED="x y"
SINGLE='it is'
EMPTY=
EQUALS=a=b
"""


def table(compiled: Compiled) -> Table:
    assert compiled.problems == ()
    assert compiled.digest == hashlib.sha256(compiled.table).digest()
    return load_table(compiled.table)


def full(compiled: Compile) -> Table:
    return table(compiled("[auth]", {"a.toml": FULL}, environment_files={"/etc/site/env": File("", ENV)}))


def test_an_entry_has_exactly_what_is_configured(compiled: Compile) -> None:
    assert full(compiled).entries[0] == Entry(
        service="site", count=2, path="/srv/site/bin/serve", argv=("/srv/site/bin/serve", "--fd", "3"),
        env=(
            ("A", "2"), ("APP_ENV", "production"), ("EMPTY", ""), ("EQUALS", "a=b"), ("HOME", "/tmp"),
            ("LOGNAME", "www-site"), ("PATH", PATH), ("QUOTED", "x y"), ("SHELL", "/bin/sh"), ("SINGLE", "it is"),
            ("USER", "www-site"),
        ),
        cwd="/srv/site", uid=1001, gid=8, groups=(8, 2001), umask=0o77,
        limits=((resource.RLIMIT_CORE, 0, 0), (resource.RLIMIT_MEMLOCK, -1, -1), (resource.RLIMIT_NOFILE, 100, 200)),
        sockets=(("app", "unix:/run/durward/sockets/app.sock"), ("http", "tcp:0.0.0.0:80"), ("http", "tcp:[::]:80")),
        signals=(1, 2, 3, 9), notify=True, ready_fd=0, probe=False, nnp=False, root=False,
        log=(1 << 20, pack(How(3, mode=0o640, drop=1))),
    )  # fmt: skip


def test_what_is_not_configured_is_little(compiled: Compile) -> None:
    assert full(compiled).entries[1] == Entry(
        service="work", count=1, path="/srv/work", argv=("/srv/work",),
        env=(
            ("HOME", "/srv/worker"), ("LOGNAME", "worker"), ("PATH", PATH), ("SHELL", "/bin/sh"), ("USER", "worker"),
        ),
        cwd="/", uid=1002, gid=1002, groups=(1002,), umask=0o22, limits=((resource.RLIMIT_NOFILE, 1024, LEAVE),),
        sockets=(("http", "tcp:0.0.0.0:80"), ("http", "tcp:[::]:80")), signals=(1, 2, 3, 9, 10, 12, 14, 15, 18, 28),
        notify=False, ready_fd=0, probe=False, nnp=True, root=False,
        log=(50 << 20, pack(How(10, mode=0o640, drop=1))),
    )  # fmt: skip


def test_sockets_know_the_users_of_the_services_on_them(compiled: Compile) -> None:
    both = (1001, 1002)
    assert full(compiled).sockets == (
        Socket("tcp:0.0.0.0:80", "inet", "stream", "0.0.0.0", 80, "", "http", 100, 0o660, 8, False, True, both),
        Socket("tcp:[::]:80", "inet6", "stream", "::", 80, "", "http", 100, 0o660, 8, False, True, both),
        Socket(
            "unix:/run/durward/sockets/app.sock", "unix", "stream", "", 0, "/run/durward/sockets/app.sock", "app",
            4096, 0o666, 8, True, False, (1001,),
        ),
    )  # fmt: skip


def test_a_socket_that_nobody_uses_is_bound_for_root(compiled: Compile) -> None:
    [socket] = table(compiled("[auth]", {"a.toml": '[socket.a]\nlisten = "udp:[::1]:53"\n'})).sockets
    assert (socket.kind, socket.users, socket.gid) == ("dgram", (), 0)


def test_the_users_own_group_and_all_that_it_is_in_come_along(compiled: Compile) -> None:
    [entry] = table(compiled("[auth]")).entries
    assert (entry.uid, entry.gid, entry.groups) == (1001, 1001, (1001, 2001))


def test_settings_have_their_defaults(compiled: Compile) -> None:
    roles = ("privileged", "supervisor", "auth", "log", "probe", "api")
    names = ("_durward", "_durward-sup", "_durward-auth", "_durward-log", "_durward-probe", "_durward-api")
    assert compiled("").settings == Settings(
        config="/etc/durward",
        paths=Paths("/run/durward", "/var/log/durward", "/var/lib/durward"),
        accounts={
            role: Account(name, 900 + number, 900 + number, (42,) if role == "auth" else ())
            for number, (role, name) in enumerate(zip(roles, names, strict=True))
        },
        auth=Auth("durward", "durward-account", "password", 28800.0, 1800.0),
        api=None,
        audit=Audit("refuse"),
    )


def test_without_a_group_shadow_auth_has_none(bundle: BundleOf) -> None:
    found = bundle("")
    compiled = compiler.compile_bundle(found._replace(groups=found.groups | {"shadow": None}))
    assert compiled.settings is not None
    assert compiled.settings.accounts["auth"].groups == ()


MAIN = """
[paths]
run = "/run/two"
[auth]
pam_service = "two"
local = "peer"
[api]
listen = ["unix:/run/two/api.sock", "127.0.0.1:9001", "[::1]:9001", "10.0.0.1:443"]
workers = 3
hosts = ["durward.example"]
tls = { certificate = "/etc/tls/cert", key = "/etc/tls/key" }
[audit]
on_failure = "continue"
"""


def test_our_own_api_is_the_last_service_on_its_own_sockets(compiled: Compile) -> None:
    found = compiled(MAIN)
    assert found.settings is not None
    keys_ = ("unix:/run/two/api.sock", "tcp:127.0.0.1:9001", "tcp:[::1]:9001", "tcp:10.0.0.1:443")
    assert found.settings.api == Api(keys_, 3, 64, ("durward.example",), Tls("/etc/tls/cert", "/etc/tls/key"), False)
    assert found.settings.auth.pam_account_service == "two-account"
    entry = table(found).entries[-1]
    python = "/opt/durward/bin/python3"
    serve = ("-I", "-m", "userapi.serve")
    assert (entry.service, entry.path, entry.argv) == ("durward-api", python, (python, *serve))
    assert (entry.uid, entry.gid, entry.groups, entry.cwd) == (905, 905, (905,), "/")
    assert entry.notify
    assert entry.sockets == tuple(("durward-api", key) for key in keys_)
    environment = dict(entry.env)
    assert environment["DURWARD_RUN"] == "/run/two"
    assert json.loads(environment["DURWARD_API"]) == {
        "workers": 3, "threads": 64, "hosts": ["durward.example"], "behind_proxy": False, "page": True, "local": "peer",
        "tls": {"certificate": "/etc/tls/cert", "key": "/etc/tls/key"},
    }  # fmt: skip
    unix = table(found).sockets[1]
    assert (unix.mode, unix.gid, unix.users) == (0o666, 905, (905,))
    spec = found.specs[-1]
    assert (spec.name, spec.entry, spec.restart_policy, spec.ready_kind) == ("durward-api", 1, "always", "notify")
    assert spec.limit_count * spec.backoff_first > 60 * spec.limit_window, "it is never given up"


def test_the_api_listens_in_the_run_directory_unless_told_otherwise(compiled: Compile) -> None:
    found = compiled('[paths]\nrun = "/run/two"\n[api]')
    assert found.settings is not None
    assert found.settings.api == Api(("unix:/run/two/api.sock",), 2, 64, (), None, False)


def test_the_api_reads_what_it_is_handed(compiled: Compile) -> None:
    from userapi import config

    for main in ("[api]", MAIN):
        handed = config.from_environment(dict(table(compiled(main)).entries[-1].env))
        assert handed.api.workers in (2, 3)


@pytest.mark.parametrize("extra", ["behind_proxy = true", 'tls = { certificate = "/c", key = "/k" }'])
def test_the_api_may_be_reached_by_others_only_behind_tls(compiled: Compile, extra: str) -> None:
    listen = '[api]\nlisten = ["127.0.0.1:1", "0.0.0.0:443"]\n'
    assert not compiled(listen + extra).problems
    [problem] = compiled(listen).problems
    assert problem.path == ("api", "listen")
    assert "tcp:0.0.0.0:443 can be reached by others" in problem.text
    assert "set tls, or say behind_proxy = true" in problem.text


@pytest.mark.parametrize("listen", ["udp:127.0.0.1:80", "unix-dgram:/run/x.sock"])
def test_the_api_needs_connections(compiled: Compile, listen: str) -> None:
    [problem] = compiled(f'[api]\nlisten = "{listen}"').problems
    assert "is not for HTTP" in problem.text


def service(user: str, *more: str) -> dict[str, str]:
    return {"a.toml": "\n".join(["[service.a]", 'command = ["/bin/x"]', f'user = "{user}"', *more])}


OWN = ["_durward", "_durward-sup", "_durward-auth", "_durward-log", "_durward-probe", "_durward-api"]


@pytest.mark.parametrize("user", [*OWN, "twin", "friend"])
@pytest.mark.parametrize("more", ["", "allow_root = true"])
def test_no_service_is_an_account_of_ours_or_in_its_group(compiled: Compile, user: str, more: str) -> None:
    """twin has the uid of one, friend is in the group of one; even allow_root does not help."""
    [problem] = compiled("[auth]", service(user, more)).problems
    assert problem.path == ("service", "a", "user")
    assert "is Durward's own account" in problem.text


@pytest.mark.parametrize("key", ["group", "supplementary_groups"])
def test_no_service_is_given_a_group_that_amounts_to_root(compiled: Compile, key: str) -> None:
    value = '"docker"' if key == "group" else '["docker"]'
    found = service("worker", f"{key} = {value}")
    [problem] = compiled("[auth]", found).problems
    assert problem.text == "it would be in group docker, as good as root: that takes allow_root = true"
    allowed = compiled("[auth]", {"a.toml": found["a.toml"] + "\nallow_root = true"})
    assert 999 in table(allowed).entries[0].groups


@pytest.mark.parametrize(
    ("user", "what"),
    [
        ("root", "run as root"),
        ("toor", "run as root"),
        ("captain", "be in group docker"),
        ("wheelman", "be in group root"),
    ],
)
def test_root_and_what_amounts_to_it_must_be_allowed(compiled: Compile, user: str, what: str) -> None:
    [problem] = compiled("[auth]", service(user)).problems
    assert problem.path == ("service", "a", "user")
    assert problem.text.startswith(f"it would {what}")
    found = table(compiled("[auth]", service(user, "allow_root = true")))
    assert found.root == found.entries[0].root == (user in ("root", "toor"))


def test_a_service_with_another_group_loses_its_users_own(compiled: Compile) -> None:
    [entry] = table(compiled("[auth]", service("wheelman", 'group = "mail"'))).entries
    assert (entry.gid, entry.groups) == (8, (8,))


@pytest.mark.parametrize("command", ["[]", '["true"]', '["./true"]', '[""]', '"/bin/true"', '["bin/true", "/x"]'])
def test_d13_a_command_that_is_empty_or_relative_is_refused(compiled: Compile, command: str) -> None:
    [problem] = compiled("[auth]", {"a.toml": f'[service.a]\ncommand = {command}\nuser = "worker"'}).problems
    assert problem == Problem(
        "services.d/a.toml",
        ("service", "a", "command"),
        "must be a list of strings, the first of them an absolute path",
    )


def test_every_problem_is_told_at_once_and_there_is_no_table(compiled: Compile) -> None:
    found = compiled(
        '[paths]\nrun = 5\n[accounts]\nlog = "nobody-here"\n[audit]\non_failure = "?"\n[api]',
        {
            "a.toml": '[service.a]\ncommand = []\nuser = "none"\nenvironment_file = "/etc/env"\n',
            "b.toml": '[socket.b]\nlisten = "x"\ngroup = "none"\n[service.a]\n',
            "c.toml": "x = [",
        },
        files=(File("services.d/d.toml", "", "has 2 hard links"), File("policy.d/e.toml", "", "belongs to uid 5")),
        pam=False,
    )
    assert (found.settings, found.table, found.digest, found.specs) == (None, b"", b"", ())
    told = {(problem.file, ".".join(problem.path)) for problem in found.problems}
    assert told >= {
        ("durward.toml", "paths.run"),
        ("durward.toml", "accounts.log"),
        ("durward.toml", "audit.on_failure"),
        ("durward.toml", "auth.pam_service"),
        ("durward.toml", "auth.pam_account_service"),
        ("services.d/b.toml", "service.a"),
        ("services.d/b.toml", "service.a.command"),
        ("services.d/b.toml", "socket.b.listen"),
        ("services.d/b.toml", "socket.b.group"),
        ("services.d/c.toml", ""),
        ("services.d/d.toml", ""),
        ("policy.d/e.toml", ""),
    }


def test_policy_files_are_handed_on_unread(compiled: Compile) -> None:
    file = File("policy.d/a.toml", "not [ toml")
    assert compiled(files=(file,)).policy == (file,)


def test_an_environment_file_that_cannot_be_trusted_is_told(compiled: Compile, bundle: BundleOf) -> None:
    found = service("worker", 'environment_file = "/etc/env"')
    [problem] = compiled("[auth]", found).problems
    assert problem == Problem("services.d/a.toml", ("service", "a", "environment_file"), "missing")
    [problem] = compiler.compile_bundle(bundle("[auth]", found)._replace(environment_files={})).problems
    assert problem.text == "was not read"


@pytest.mark.parametrize(
    "line", ["nothing", "=x", "1A=x", "A B=x", "LISTEN_FDS=3", "NOTIFY_SOCKET=x", "DURWARD_X=", "A=\0"]
)
def test_a_line_of_an_environment_file_that_is_none_is_told_without_its_content(compiled: Compile, line: str) -> None:
    files = {"/etc/env": File("/etc/env", f"GOOD=1\n{line}\n")}
    found = compiled("[auth]", service("worker", 'environment_file = "/etc/env"'), environment_files=files)
    [problem] = found.problems
    assert problem.text == "line 2 of /etc/env is not NAME=value, or ours to set"


def test_a_generation_is_split_into_what_it_was_made_of(compiled: Compile, bundle: BundleOf) -> None:
    for found in (bundle(), bundle("x = [")):
        result = compiler.compile_bundle(found)
        line, rest = compiler.split_generation(compiler.generation_bytes(result, found))
        assert line == result.table
        assert compiler.bundle_from(rest) == found
        assert compiler.compile_bundle(compiler.bundle_from(rest)) == result


def test_equal_bytes_give_an_equal_table(bundle: BundleOf) -> None:
    found = bundle(MAIN, {"a.toml": FULL}, environment_files={"/etc/site/env": File("", ENV)})
    first = compiler.compile_bundle(found)
    compiler.compile_bundle(bundle())
    again = compiler.compile_bundle(
        compiler.bundle_from(compiler.split_generation(compiler.generation_bytes(first, found))[1])
    )
    assert again == first
    assert first.table


def test_names_needed_are_all_that_the_files_name() -> None:
    files = (
        File("durward.toml", '[accounts]\nlog = "logger"\n[auth]\npam_service = "x"'),
        File("services.d/a.toml", FULL),
    )
    users, groups, paths, pam = compiler.names_needed(files)
    assert users == {
        "_durward",
        "_durward-sup",
        "_durward-auth",
        "logger",
        "_durward-probe",
        "_durward-api",
        "www-site",
        "worker",
    }
    assert groups == {*compiler.ROOTLIKE, "mail", "certs"}
    assert paths == {"/etc/site/env"}
    assert pam == {"x", "x-account"}
    assert compiler.names_needed((File("durward.toml", "x = ["),)) == (set(), set(compiler.ROOTLIKE), set(), set())


def test_a_run_directory_with_a_name_too_long_for_the_sockets_in_it_is_refused(compiled: Compile) -> None:
    fits = "/" + "r" * (RUN_LIMIT - 1)
    assert compiled(f'[paths]\nrun = "{fits}"\n[api]').problems == ()
    problems = compiled(f'[paths]\nrun = "{fits}r"\n[api]\nlisten = "127.0.0.1:1"').problems
    assert [(problem.path, problem.text.partition(":")[0]) for problem in problems] == [
        (("paths", "run"), f"must have {RUN_LIMIT} bytes at most")
    ]
