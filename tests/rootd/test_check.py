"""Configuration wrong in many ways, each told with file, line, key and the line itself.

In WRONG the line that must be named ends in "#!"; the machine exists on paper, but for the tests marked root.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from policy.messages import Problem
from policy.rules import Policy
from rootd import check
from rootd.config import compile as compiler, keys
from rootd.config.settings import User
from rootd.config.trusted import File

OWN = ("_durward", "_durward-sup", "_durward-auth", "_durward-log", "_durward-probe", "_durward-api")
USERS = {name: User(900 + number, 900 + number, (900 + number,), "/", "") for number, name in enumerate(OWN)} | {
    "root": User(0, 0, (0,), "/root", ""),
    "www-site": User(1001, 1001, (1001,), "/srv", ""),
    "captain": User(1003, 1003, (999, 1003), "/", ""),
}
GROUPS = {"shadow": 42, "docker": 999, "web": 7}
PYTHON = "/opt/durward/bin/python3"


def bundle_of(texts: dict[str, str], errors: dict[str, str] | None = None) -> compiler.Bundle:
    whole = {"durward.toml": "[auth]\n"} | texts
    files = tuple(File(name, text, (errors or {}).get(name, "")) for name, text in whole.items())
    users, groups, paths, pam = compiler.names_needed(files)
    return compiler.Bundle(
        config="/etc/durward",
        python=PYTHON,
        files=files,
        environment_files={path: File(path, "A=1\noops\n") for path in paths},
        users={name: USERS.get(name) for name in (*users, "www-site")},
        groups={name: GROUPS.get(name) for name in (*groups, "web")},
        pam={name: name in ("durward", "durward-account", "none-account") for name in pam},
        credentials={},
        volatile=True,
    )


def problems(texts: dict[str, str], errors: dict[str, str] | None = None) -> list[Problem]:
    bundle = bundle_of(texts, errors)
    return check.problems_of(bundle, compiler.compile_bundle(bundle))


SITE = '[service.site]\ncommand = ["/bin/x"]\nuser = "www-site"\n'
SERVICES, MAIN = "services.d/a.toml", "durward.toml"

# file, its text, key, what is said
WRONG = [
    (MAIN, "[path] #!\n", "path", "no such section; did you mean 'paths'?"),
    (MAIN, "paths = 5 #!\n", "paths", "must be a table"),
    (MAIN, "[paths]\nrun = 5 #!\n", "paths.run", "must be an absolute path"),
    (MAIN, '[paths]\nrun = "run" #!\n', "paths.run", "must be an absolute path"),
    (MAIN, '[paths]\nlogs = "/x" #!\n', "paths.logs", "no such key; did you mean 'log'?"),
    (MAIN, '[paths]\nrun = "/var/log/durward" #!\n', "paths.run", "must be three directories"),
    (MAIN, '[accounts]\nlog = "Log" #!\n', "accounts.log", "must be 1 to 32 of a-z"),
    (MAIN, '[accounts]\nlog = "_durward-lgo" #!\n', "accounts.log", "there is no user '_durward-lgo' on this machine"),
    (MAIN, '[accounts]\nlog = "root" #!\n', "accounts.log", "an account that is not root, nor in its group"),
    (MAIN, '[accounts]\nlog = "_durward" #!\n', "accounts.log", "of its own: privileged has _durward"),
    (MAIN, "[accounts]\nlog = 900 #!\n", "accounts.log", "must be 1 to 32"),
    (MAIN, '[auth]\nlocal = "none" #!\n', "auth.local", "must be one of password, peer"),
    (MAIN, "[auth]\nsession = 30 #!\n", "auth.session", "must be a time"),
    (MAIN, '[auth]\nidle = "0s" #!\n', "auth.idle", "must be a time"),
    (MAIN, '[auth]\npam_service = "none" #!\n[api]\n', "auth.pam_service", "there is no /etc/pam.d/none"),
    (MAIN, '[auth]\npam_service = "../x" #!\n', "auth.pam_service", "must be 1 to 63"),
    (MAIN, '[api]\nlisten = "0.0.0.0:80" #!\n', "api.listen", "say behind_proxy = true"),
    (MAIN, '[api]\nlisten = "localhost:80" #!\n', "api.listen", "must be like"),
    (MAIN, "[api]\nworkers = 0 #!\n", "api.workers", "must be a whole number from 1 to 64"),
    (MAIN, '[api]\ntls = { key = "/x" } #!\n', "api.tls.certificate", "is missing"),
    (MAIN, '[api]\nlisten = "unix:/run/durward/control.sock" #!\n', "api.listen", "/run/durward is Durward's own"),
    (MAIN, '[audit]\non_failure = "ignore" #!\n', "audit.on_failure", "must be one of refuse, continue"),
    (MAIN, "[auth]\nlocal = #!\n", "", "Invalid value"),
    (MAIN, '[auth]\nlocal = "peer"\nlocal = "peer" #!\n', "", "Cannot overwrite a value"),
    (SERVICES, "[paths] #!\n", "paths", "no such section"),
    (SERVICES, "service = 1 #!\n", "service", "must be a table"),
    (SERVICES, "service.site = 1 #!\n", "service.site", "must be a table"),
    (SERVICES, "[[service.site]] #!\n", "service.site", "must be a table"),
    (SERVICES, SITE.replace("site]", "durward-x] #!"), "service.durward-x", "but not durward-"),
    (SERVICES, SITE.replace("site]", "audit] #!"), "service.audit", "but not durward-"),
    (SERVICES, SITE.replace("site]", '"Si te"] #!'), 'service."Si te"', "1 to 63 of a-z"),
    (SERVICES, SITE + "comand = [] #!\n", "service.site.comand", "no such key; did you mean 'command'?"),
    (SERVICES, "[service.site] #!\nuser = 'www-site'\n", "service.site.command", "is missing"),
    (SERVICES, "[service.site] #!\ncommand = ['/x']\n", "service.site.user", "is missing"),
    (SERVICES, "[service.site]\nuser='www-site'\ncommand = ['x'] #!", "service.site.command", "an absolute path"),
    (SERVICES, "[service.site]\nuser='www-site'\ncommand = [] #!", "service.site.command", "a list of strings"),
    (SERVICES, "[service.site]\ncommand=['/x']\nuser = 'www-sit' #!", "service.site.user", "did you mean 'www-site'?"),
    (SERVICES, "[service.site]\ncommand=['/x']\nuser = 1001 #!", "service.site.user", "must be 1 to 32"),
    (SERVICES, "[service.site]\ncommand=['/x']\nuser = '0day' #!", "service.site.user", "must be 1 to 32"),
    (SERVICES, "[service.site]\ncommand=['/x']\nuser = 'root' #!", "service.site.user", "takes allow_root = true"),
    (SERVICES, "[service.site]\ncommand=['/x']\nuser = '_durward' #!", "service.site.user", "Durward's own account"),
    (SERVICES, "[service.site]\ncommand=['/x']\nuser = 'captain' #!", "service.site.user", "in group docker"),
    (SERVICES, SITE + "group = 'wbe' #!\n", "service.site.group", "machine; did you mean 'web'?"),
    (SERVICES, SITE + "supplementary_groups = ['x'] #!\n", "service.site.supplementary_groups", "no group 'x'"),
    (SERVICES, SITE + "groups = ['a', 'a'] #!\n", "service.site.groups[1]", "'a' must be there only once"),
    (SERVICES, SITE + "directory = '../x' #!\n", "service.site.directory", "must be an absolute path"),
    (SERVICES, SITE + "umask = 22 #!\n", "service.site.umask", "must be three octal digits"),
    (SERVICES, SITE + "sockets = ['http'] #!\n", "service.site.sockets", "there is no [socket.http]"),
    (SERVICES, SITE + "environment = { LISTEN_FDS = '3' } #!\n", "service.site.environment.LISTEN_FDS", "not yours"),
    (SERVICES, SITE + "environment = { PORT = 80 } #!\n", "service.site.environment.PORT", "a text in quotes"),
    (SERVICES, SITE + "environment_file = '/etc/e' #!\n", "service.site.environment_file", "line 2 of /etc/e is not"),
    (SERVICES, SITE + "autostart = 'yes' #!\n", "service.site.autostart", "must be true or false"),
    (SERVICES, SITE + "processes = 1025 #!\n", "service.site.processes", "from 1 to 1024"),
    (SERVICES, SITE + "signals = ['SIGHUP'] #!\n", "service.site.signals[0]", "'SIGHUP' must be one of HUP"),
    (SERVICES, SITE + "ready = 5 #!\n", "service.site.ready", "must be a table"),
    (SERVICES, SITE + "ready = { after = '1s', notify = true } #!\n", "service.site.ready", "exclude each other"),
    (SERVICES, SITE + "restart = { policy = 'maybe' } #!\n", "service.site.restart.policy", "must be one of always"),
    (SERVICES, SITE + "restart = { backoff = '9s..1s' } #!\n", "service.site.restart.backoff", "the longer one last"),
    (SERVICES, SITE + "restart.limit = '5' #!\n", "service.site.restart.limit", "must be a number and a time"),
    (SERVICES, SITE + "restart.expected = [256] #!\n", "service.site.restart.expected[0]", "256 must be a"),
    (SERVICES, SITE + "stop = { signal = 'SEGV' } #!\n", "service.site.stop.signal", "must be one of HUP"),
    (SERVICES, SITE + "stop = { timeout = 10 } #!\n", "service.site.stop.timeout", "must be a time"),
    (SERVICES, SITE + "limits = { nofiles = 1 } #!\n", "service.site.limits.nofiles", "did you mean 'nofile'?"),
    (SERVICES, SITE + "limits = { nofile = [2, 1] } #!\n", "service.site.limits.nofile", "or [soft, hard]"),
    (SERVICES, SITE + "log = { size = '1' } #!\n", "service.site.log.size", "must be a size"),
    (SERVICES, SITE + "log = { keep = 0 } #!\n", "service.site.log.keep", "from 1 to 1000"),
    (SERVICES, SITE + "[socket.a] #!\n", "socket.a.listen", "is missing"),
    (SERVICES, SITE + "[socket.a]\nlisten = 80 #!\n", "socket.a.listen", "must be"),
    (SERVICES, SITE + "[socket.a]\nlisten = '[::]:1'\nmode = 660 #!\n", "socket.a.mode", "octal digits in quotes"),
    (SERVICES, SITE + "[socket.a]\nlisten = '[::]:1'\ngroup = 'x' #!\n", "socket.a.group", "there is no group 'x'"),
    (SERVICES, SITE + "[socket.a]\nlisten='unix:/run/durward/a' #!\n", "socket.a.listen", "it /run/durward/sockets/a"),
    (SERVICES, SITE + "[socket.a]\nlisten = 'unix:/run/durward/notify/1' #!\n", "socket.a.listen", "is Durward's own"),
    (SERVICES, SITE + "[socket.a]\nlisten='[::]:1'\n[socket.b]\nlisten='[0::]:1'#!", "socket.b.listen", "has tcp:[::]"),
    (SERVICES, SITE + "processes = 2\n" + SITE.replace("site]", '"site.1"] #!'), 'service."site.1"', "a process of"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "text", "key", "said"), WRONG, ids=[f"{key}-{said}" for _, _, key, said in WRONG])
def test_what_is_wrong_is_told_with_its_file_line_and_key(file: str, text: str, key: str, said: str) -> None:
    [problem] = problems({file: text})
    line = next(number for number, line in enumerate(text.split("\n"), 1) if line.endswith("#!"))
    assert (problem.file, problem.line, problem.key) == (file, line, key)
    assert said in problem.text
    assert problem.source == text.split("\n")[line - 1]


def test_every_mistake_in_a_list_and_in_a_table_is_told_with_its_own_place() -> None:
    text = """
[socket.a]
listen = ["localhost:80", "[::]:1",
  "0.0.0.0:0", "[0::]:1", 5]
[service.site]
command = ["/bin/x"]
user = "www-site"
environment = { "A=B" = "x", GOOD = "y", PATH = 3 }
groups = ["front", "Front"]
"""
    like = 'must be like "0.0.0.0:80", "[::]:443", "udp:127.0.0.1:53" or "unix:/run/x.sock"'
    ours = keys.VARIABLE_WORDS
    assert [(problem.line, problem.key, problem.text) for problem in problems({SERVICES: text})] == [
        (3, "socket.a.listen[0]", f"'localhost:80' {like}"),
        (4, "socket.a.listen[2]", f"'0.0.0.0:0' {like}"),
        (4, "socket.a.listen[3]", "'[0::]:1' must be there only once"),
        (4, "socket.a.listen[4]", f"5 {like}"),
        (8, 'service.site.environment."A=B"', ours),
        (8, "service.site.environment.PATH", "must be a text in quotes"),
        (9, "service.site.groups[1]", f"'Front' must be {keys.NAME_WORDS}"),
    ]


def test_they_are_more_than_thirty_ways() -> None:
    assert len(WRONG) > 30


def test_what_is_right_has_no_problem() -> None:
    site_0 = SITE.replace("site]", '"site.0"]')
    assert problems({SERVICES: SITE + site_0, MAIN: "[api]\n[paths]\nrun = '/run/x'"}) == []


@pytest.mark.parametrize("kind", ["service", "socket"])
def test_a_name_in_two_files_is_an_error_that_names_both(kind: str) -> None:
    text = SITE if kind == "service" else "[socket.site]\nlisten = '[::]:1'\n"
    [problem] = problems({"services.d/a.toml": text, "services.d/b.toml": "# again\n" + text})
    assert (problem.file, problem.line, problem.key) == ("services.d/b.toml", 2, f"{kind}.site")
    assert problem.text == "is in services.d/a.toml already"


def test_problems_are_in_the_order_of_files_and_lines() -> None:
    found = problems({"services.d/b.toml": "x = 1\n", SERVICES: f"{SITE}y = 1\n[z]\n", MAIN: "[w]\n"})
    assert [(problem.file, problem.line) for problem in found] == [
        (MAIN, 1),
        (SERVICES, 4),
        (SERVICES, 5),
        ("services.d/b.toml", 1),
    ]


def test_a_file_that_is_not_trusted_has_no_line() -> None:
    [problem] = problems({SERVICES: ""}, {SERVICES: "/etc/durward/services.d/a.toml can be written by everybody"})
    assert (problem.file, problem.line, problem.key, problem.source) == (SERVICES, 0, "", "")


def test_an_end_that_comes_too_early_is_on_the_last_line() -> None:
    [problem] = problems({SERVICES: SITE + '\nx = """\n'})
    assert problem.line == SITE.count("\n") + 2
    [problem] = problems({SERVICES: "x = " + "[" * 5000})
    assert (problem.line, problem.key) == (0, "")


def test_a_problem_is_shown_with_its_line_and_a_mark() -> None:
    found = problems({SERVICES: SITE.replace("www-site", "www-sit") + 'ready = { notify = 1 }\n[service.""]\n'})
    assert check.render(found) == (
        "services.d/a.toml:3: service.site.user: there is no user 'www-sit' on this machine; did you mean 'www-site'?\n"
        '    user = "www-sit"\n'
        "           ^\n"
        "services.d/a.toml:4: service.site.ready.notify: must be true or false\n"
        "    ready = { notify = 1 }\n"
        "                       ^\n"
        "services.d/a.toml:5: service.\"\": 1 to 63 of a-z, 0-9, '_', '.' and '-', beginning with a letter or digit, "
        "but not durward-… and audit\n"
        '    [service.""]\n'
        "    ^\n"
        'services.d/a.toml:5: service."".command: is missing: a program by its absolute path, and arguments; '
        "there is no shell\n"
        '    [service.""]\n'
        "    ^\n"
        'services.d/a.toml:5: service."".user: is missing: whom it runs as\n'
        '    [service.""]\n'
        "    ^\n"
    )


def test_nothing_in_a_file_can_move_the_cursor() -> None:
    shown = check.render([Problem("a\x1b[2J.toml", 1, "k", "te\nxt", "\tk\t= '\x9b\u202e'")])
    assert shown == "a?[2J.toml:1: k: te?xt\n    k   = '??'\n          ^\n"
    assert check.render([Problem("a.toml", 0, "", "cannot be read", "")]) == "a.toml: cannot be read\n"
    assert check.render([]) == ""


GRANT = '[[grant]]\nid = "a"\nwho = ["user:alice"]\nmay = ["view"]\non = ["{}"]\n'


def test_the_policy_is_that_of_the_services_in_the_table() -> None:
    for name, good in (("site", True), ("group:front", True), ("none", False)):
        bundle = bundle_of(
            {SERVICES: SITE + "groups = ['front']", MAIN: "[api]", "policy.d/a.toml": GRANT.format(name)}
        )
        found = check.policy_of(compiler.compile_bundle(bundle))
        assert isinstance(found, Policy) == good


@pytest.fixture
def config() -> Iterator[Path]:
    """A real directory that is root's alone, with this machine's own accounts in place of ours."""
    path = Path(tempfile.mkdtemp(prefix="durward-test-", dir="/var/lib"))
    os.chmod(path, 0o755)
    for folder in ("services.d", "policy.d"):
        (path / folder).mkdir(mode=0o755)
    accounts = zip(
        ("privileged", "supervisor", "auth", "log", "probe", "api"),
        ("daemon", "bin", "sys", "games", "man", "lp"),
        strict=True,
    )
    rows = "".join(f'{role} = "{name}"\n' for role, name in accounts)
    write(path, "durward.toml", f'[auth]\npam_service = "login"\npam_account_service = "su"\n[accounts]\n{rows}')
    write(path, "services.d/site.toml", SITE.replace("www-site", "www-data"))
    yield path
    shutil.rmtree(path)


def write(config: Path, name: str, text: str) -> None:
    (config / name).write_text(text)
    (config / name).chmod(0o644)


@pytest.mark.root
def test_a_good_directory_has_nothing_wrong(config: Path) -> None:
    write(config, "policy.d/a.toml", GRANT.format("site"))
    assert check.check(str(config), PYTHON) == ([], [], f"{config}: 1 service, 0 sockets, 1 rule: no mistake found")


@pytest.mark.root
def test_services_and_policy_are_checked_together(config: Path) -> None:
    write(config, "services.d/site.toml", "[service.site]\nuser = 'www-dat'\ngroups = ['front']\ncommand = ['/x']\n")
    write(config, "policy.d/a.toml", GRANT.format("site") + GRANT.replace('"a"', '"b"').format("group:frnt"))
    found = check.check(str(config), PYTHON).problems
    assert [(problem.file, problem.line, problem.key) for problem in found] == [
        ("services.d/site.toml", 2, "service.site.user"),
        ("policy.d/a.toml", 10, "grant[1].on[0]"),
    ]
    assert "did you mean 'www-data'?" in found[0].text


@pytest.mark.root
def test_a_policy_is_not_blamed_for_services_that_could_not_be_read(config: Path) -> None:
    write(config, "services.d/site.toml", "[service.site")
    write(config, "policy.d/a.toml", GRANT.format("site"))
    assert [problem.file for problem in check.check(str(config), PYTHON).problems] == ["services.d/site.toml"]


@pytest.mark.root
def test_a_policy_file_that_is_not_trusted_is_told_once(config: Path) -> None:
    write(config, "policy.d/a.toml", "x")
    (config / "policy.d/a.toml").chmod(0o666)
    [problem] = check.check(str(config), PYTHON).problems
    assert problem.file == "policy.d/a.toml"
    assert "chmod go-w" in problem.text


@pytest.mark.root
def test_a_directory_that_is_not_there_is_told() -> None:
    [problem] = check.check("/var/lib/durward-none", PYTHON).problems
    assert (problem.file, problem.text) == ("durward.toml", "/var/lib/durward-none: No such file or directory")


@pytest.mark.root
def test_a_missing_folder_of_policy_is_noted_and_no_mistake(config: Path) -> None:
    (config / "policy.d").rmdir()
    found = check.check(str(config), PYTHON)
    assert found.problems == []
    assert found.notes == [f"there is no {config}/policy.d: nobody but root may do anything"]
    assert found.summary.endswith(": 1 service, 0 sockets, 0 rules: no mistake found")


@pytest.mark.root
def test_e1_a_path_that_somebody_else_controls_is_told_with_its_line(config: Path) -> None:
    somebody = config / "somebody"
    somebody.mkdir(mode=0o755)
    os.chown(somebody, 4242, 4242)
    (config / "circle").symlink_to("circle")
    text = (config / "durward.toml").read_text()
    write(
        config,
        "durward.toml",
        f'[paths]\nrun = "{somebody}/run"\nlog = "/tmp/x/y"\nstate = "{config}/circle/x"\n{text}',
    )
    found = check.check(str(config), PYTHON).problems
    assert [(problem.file, problem.line, problem.key, problem.text) for problem in found] == [
        ("durward.toml", 2, "paths.run", f"{somebody} belongs to uid 4242, not to root: choose another place"),
        ("durward.toml", 3, "paths.log", "/tmp can be written by everybody (mode 1777): choose another place"),
        ("durward.toml", 4, "paths.state", f"{config}/circle: Too many levels of symbolic links"),
    ]


@pytest.mark.root
def test_e1_sockets_that_a_start_would_refuse_are_told_with_their_lines_whatever_else_is_wrong(config: Path) -> None:
    own = config / "own"
    own.mkdir(mode=0o755)
    os.chown(own, pwd.getpwnam("www-data").pw_uid, 0)
    write(
        config,
        "services.d/site.toml",
        f'{SITE.replace("www-site", "www-data")}sockets = ["a", "b"]\numask = 5\n'
        f'[socket.a]\nlisten = "unix:{own}/a"\n'
        f'[socket.b]\nlisten = [\n"unix:{config}/b",\n"unix:{config}/none/b",\n"unix:/run/durward/sockets/b"]\n'
        f'[socket.c]\nlisten = "unix:{own}/c"\n',
    )
    found = check.check(str(config), PYTHON).problems
    uid = own.stat().st_uid
    assert [(problem.line, problem.key, problem.text) for problem in found] == [
        (5, "service.site.umask", 'must be three octal digits in quotes, such as "027" or "660"'),
        (
            7,
            "socket.a.listen",
            f"unix:{own}/a: its directory can be written by uid {uid}, whose {own} is: choose one that is root's alone",
        ),
        (11, "socket.b.listen[1]", f"unix:{config}/none/b: its directory {config}/none is missing: make it first"),
    ]


def test_what_only_root_may_look_at_is_noted_and_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: str, uid: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(check.trusted, "check_place", closed)
    problems, notes = check.look(bundle_of({}))
    assert problems == []
    assert notes[0] == "durward.toml: paths.run: only root can look at it: /run/durward: Permission denied"


def test_what_cannot_be_bound_is_told_with_the_place_of_its_address() -> None:
    text = "[socket.a]\nlisten = ['[::]:1',\n'[::]:2']\n[socket.b]\nlisten = '[::]:22'\n"
    files = bundle_of({SERVICES: text, MAIN: "[api]\nlisten = '127.0.0.1:9'\n"}).files
    for name, key, expected in (
        ("a", "tcp:[::]:2", (SERVICES, 3, "socket.a.listen[1]", "'[::]:2']")),
        ("b", "tcp:[::]:22", (SERVICES, 5, "socket.b.listen", "listen = '[::]:22'")),
        (compiler.API, "tcp:127.0.0.1:9", (MAIN, 2, "api.listen", "listen = '127.0.0.1:9'")),
    ):
        found = check.located(files, f"socket {name}: {key}: Address already in use")
        assert (found.file, found.line, found.key, found.source) == expected
        assert found.text == f"{key}: Address already in use"
    for reason in (
        "socket c: tcp:[::]:1: x",
        "socket a: tcp:[::]:3: x",
        "another durward-rootd runs in /run/durward",
        "",
    ):
        assert check.located(files, reason) == Problem("", 0, "", reason)
