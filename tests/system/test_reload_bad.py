"""Configuration wrong in many ways: refused whole, each with its file, line and key; and nothing has changed.

The same by reload, while everything runs, and by `durward-rootd --check`, which exits 65.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import templates
from hostage import standing
from house import House

from policy import messages

pytestmark = pytest.mark.root

SITE, WORKER, WEB, MAIN = "services.d/site.toml", "services.d/worker.toml", "policy.d/10-web.toml", "durward.toml"
USER = 'user = "@jobs@"'
BASE = {SITE: templates.SITE, WORKER: templates.WORKER, WEB: templates.POLICY["10-web.toml"]}


@pytest.fixture(scope="module")
def unchanged(house: House) -> Iterator[House]:
    """The house as it was, however often it was told nonsense."""
    house.until(lambda: len(house.api_workers()) == 2, "the api has its workers")
    before, loads = standing(house), [record for record in house.audit() if record["kind"] == "load"]
    yield house
    assert standing(house) == before
    assert [record for record in house.audit() if record["kind"] == "load"] == loads


@pytest.fixture
def kept(unchanged: House) -> Iterator[House]:
    house = unchanged
    main = (house.etc / MAIN).read_text()
    before = standing(house)
    yield house
    assert standing(house) == before
    assert set(house.status()) == {"site", "worker"}
    shutil.rmtree(house.etc)
    for folder in (house.etc, house.etc / "services.d", house.etc / "policy.d"):
        folder.mkdir()
        os.chown(folder, 0, house.people["priv"].gid)
        folder.chmod(0o750)
    for name, text in {MAIN: main, **BASE}.items():
        house.write(name, text)


def problems_of(house: House) -> list[messages.Problem]:
    """What the reload refuses, having compared it with what --check says."""
    _, ended = house.operate(messages.Reload())
    assert (ended.ok, ended.text) == (False, "the files cannot be used: nothing was changed")
    done = house.check()
    assert done.returncode == 65, done
    lines = done.stderr.splitlines()
    for problem in ended.problems:
        place = problem.file + (f":{problem.line}" if problem.line else "")
        assert ": ".join(part for part in (place, problem.key, problem.text) if part) in lines, done.stderr
    assert ended.problems
    return ended.problems


# what is put into which line, and the words that must be in the problem that names that line
WRONG = {
    "an unknown key": (WORKER, USER, 'usr = "@jobs@"', "did you mean 'user'"),
    "a key of another table": (WORKER, USER, f"{USER}\nlisten = 80", "listen"),
    "an unknown table": (WORKER, "[service.worker]", "[servce.worker]", "servce"),
    "an unknown section": (MAIN, "[audit]", "[audits]", "audits"),
    "not TOML": (WORKER, USER, "user = ", ""),
    "a key twice": (WORKER, USER, f"{USER}\n{USER}", ""),
    "a command that is text": (WORKER, "command = [", 'command = "/bin/true" #', "command"),
    "a command without a path": (WORKER, "command = [", 'command = ["true", ', "absolute path"),
    "a user that nobody is": (WORKER, USER, 'user = "dwt-nobody-is-called-so"', "dwt-nobody-is-called-so"),
    "a user by number": (WORKER, USER, "user = 0", "user"),
    "a user that begins with a digit": (WORKER, USER, 'user = "0day"', "user"),
    "root, unasked": (WORKER, USER, 'user = "root"', "allow_root"),
    "our own supervisor as user": (WORKER, USER, 'user = "@sup@"', "Durward's own account"),
    "our own api as user": (WORKER, USER, 'user = "@api@"', "Durward's own account"),
    "a group as good as root": (WORKER, USER, f'{USER}\nsupplementary_groups = ["shadow"]', ""),
    "a group of ours": (WORKER, USER, f'{USER}\nsupplementary_groups = ["@log@"]', ""),
    "a group that is none": (WORKER, USER, f'{USER}\nsupplementary_groups = ["dwt-none"]', "dwt-none"),
    "no such directory in words": (WORKER, USER, f'{USER}\ndirectory = "../x"', "absolute path"),
    "an umask by number": (WORKER, USER, f"{USER}\numask = 18", "octal"),
    "a socket that is none": (WORKER, USER, f'{USER}\nsockets = ["htpp"]', "did you mean 'http'"),
    "variables in a list": (WORKER, USER, f'{USER}\nenvironment = ["A=1"]', "environment"),
    "a variable of ours": (WORKER, USER, f'{USER}\nenvironment = {{ LISTEN_FDS = "3" }}', "LISTEN_"),
    "an environment file that is not there": (WORKER, USER, f'{USER}\nenvironment_file = "/run/dwt-none"', "No such"),
    "a yes for a flag": (WORKER, USER, f'{USER}\nautostart = "yes"', "true or false"),
    "no processes": (WORKER, USER, f"{USER}\nprocesses = 0", "1 to 1024"),
    "a signal that is none": (WORKER, USER, f'{USER}\nsignals = ["NOPE"]', "signals"),
    "an unknown policy of restarts": (WORKER, USER, f'{USER}\nrestart = {{ policy = "often" }}', "always"),
    "a back-off that shrinks": (WORKER, USER, f'{USER}\nrestart = {{ backoff = "9s..1s" }}', "two times"),
    "a limit in words": (WORKER, USER, f'{USER}\nrestart = {{ limit = "often" }}', "a number and a time"),
    "an exit code of 256": (WORKER, USER, f"{USER}\nrestart = {{ expected = [256] }}", "255"),
    "ready in two ways": (SITE, "ready = {", 'ready = { after = "1s", ', "exclude each other"),
    "a time without a unit": (SITE, "stop = {", 'stop = { timeout = "15" } #', "a time such as"),
    "a resource without a limit": (WORKER, USER, f'{USER}\nlimits = {{ nofile = "many" }}', "unlimited"),
    "an unknown resource": (WORKER, USER, f"{USER}\nlimits = {{ nofiles = 7 }}", "did you mean 'nofile'"),
    "a log of ten bytes": (WORKER, USER, f'{USER}\nlog = {{ size = "10" }}', "kilobyte"),
    "a bad name of a group": (WORKER, USER, f'{USER}\ngroups = ["No Name"]', "groups"),
    "a reserved name": (WORKER, "[service.worker]", "[service.durward-worker]", ""),
    "a service twice": (WORKER, "[service.worker]", "[service.site]", "services.d/site.toml"),
    "a port beyond the last": (SITE, 'listen = "0.0.0.0:80"', 'listen = "0.0.0.0:65536"', "like"),
    "a host by name": (SITE, 'listen = "0.0.0.0:80"', 'listen = "localhost:80"', "like"),
    "a backlog of nothing": (SITE, "[socket.http]", "[socket.http]\nbacklog = 0", "65535"),
    "an address twice": (SITE, "[service.site]", '[socket.more]\nlisten = "0.0.0.0:80"\n[service.site]', "already"),
    "a socket without a directory": (
        SITE, "[service.site]", '[socket.more]\nlisten = "unix:@FOLDER@/none/x"\n[service.site]', "make it first",
    ),
    "a socket where others write": (
        SITE, "[service.site]", '[socket.more]\nlisten = ["unix:/tmp/x"]\n[service.site]', "can be written by",
    ),
    "a session without an end": (MAIN, 'session = "8h"', 'session = "0s"', "not 0"),
    "another way to log in": (MAIN, 'local = "password"', 'local = "none"', "password, peer"),
    "a PAM service that is not there": (MAIN, 'pam_service = "', 'pam_service = "dwt-none-', "/etc/pam.d"),
    "an api for everybody without TLS": (MAIN, '"127.0.0.1:9001"]', '"0.0.0.0:9001"]', "set tls"),
    "one account for two": (MAIN, 'log = "@log@"', 'log = "@sup@"', ""),
    "relative paths": (MAIN, 'run = "/', 'run = "', "absolute path"),
    "an unknown action": (WEB, 'may = ["view"]', 'may = ["veiw"]', "veiw"),
    "a rule for nobody": (WEB, 'who = ["user:@bob@"]', 'who = ["@bob@"]', ""),
    "a rule twice": (WEB, 'id = "bob-looks"', 'id = "webops-restart"', "webops-restart"),
    "an unknown key of a rule": (WEB, 'id = "bob-looks"', 'id = "bob-looks"\nwhen_ = 1', "when_"),
    "a test that fails": (
        WEB, '[[grant]]\nid = "bob-looks"',
        '[[test]]\nuser = "bob"\ngroups = []\nmay = "stop"\non = "site"\nexpect = "allow"\n[[grant]]\nid = "bob-looks"',
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(WRONG))
def test_b5_b6_refused_with_file_line_and_key(kept: House, what: str) -> None:
    name, old, new, words = WRONG[what]
    text = BASE.get(name) or (kept.etc / name).read_text()
    old, new, text = kept.fill(old), kept.fill(new), kept.fill(text)
    assert text.count(old) == 1
    kept.write(name, text.replace(old, new))
    at = text[: text.index(old)].count("\n") + 1
    lines = range(at, at + new.count("\n") + 1)
    found = problems_of(kept)
    told = [problem for problem in found if problem.file == name and problem.line in lines]
    assert told, found
    assert any(words in f"{problem.key}: {problem.text}" for problem in told), told
    assert not [one for one in told if one.source and name.startswith("policy.d/")], "rules name people"
    for problem in (one for one in told if one.source):  # else it could be a secret
        assert problem.source.strip() == (kept.etc / name).read_text().splitlines()[problem.line - 1].strip()


def acl(path: Path, entry: str) -> None:
    subprocess.run(["setfacl", "--modify", entry, str(path)], check=True)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def linked_folder(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o640)
    os.chown(path, 0, path.parent.stat().st_gid)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir(0o750)
    os.chown(path, 0, path.parent.stat().st_gid)


# what is done to which path (from the house's folder), and the words of the problem
UNTRUSTED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a file that its group can write": (f"etc/{WEB}", lambda path: path.chmod(0o660), "can be written by its group"),
    "a file that everybody can write": (f"etc/{WORKER}", lambda path: path.chmod(0o646), "by everybody"),
    "durward.toml open to its group": (f"etc/{MAIN}", lambda path: path.chmod(0o660), "can be written by its group"),
    "a folder that its group can write": ("etc/policy.d", lambda path: path.chmod(0o770), "by its group"),
    "the configuration open to its group": ("etc", lambda path: path.chmod(0o770), "by its group"),
    "an ancestor that its group can write": ("", lambda path: path.chmod(0o775), "by its group"),
    "an ancestor like /tmp": ("", lambda path: path.chmod(0o1777), "by everybody"),
    "a file of somebody else's": (f"etc/{WORKER}", lambda path: os.chown(path, 65534, -1), "belongs to uid 65534"),
    "a folder of somebody else's": ("etc/services.d", lambda path: os.chown(path, 65534, -1), "belongs to uid 65534"),
    "an ancestor of somebody else's": ("", lambda path: os.chown(path, 65534, -1), "belongs to uid 65534"),
    "an ACL on a file": (f"etc/{WEB}", lambda path: acl(path, "u:65534:rw"), "its ACL"),
    "an ACL on a folder": ("etc/services.d", lambda path: acl(path, "u:65534:rwx"), "its ACL"),
    "an ACL on an ancestor": ("", lambda path: acl(path, "g:65534:rwx"), "its ACL"),
    "a symbolic link": (f"etc/{WORKER}", link, "is a symbolic link"),
    "a folder that is a link": ("etc/policy.d", linked_folder, "is a symbolic link"),
    "the configuration by a link": ("etc", linked_folder, "is a symbolic link"),
    "a hard link": (f"etc/{WORKER}", lambda path: os.link(path, path.with_suffix(".two")), "2 hard links"),
    "a pipe": (f"etc/{WORKER}", fifo, "is not a regular file"),
    "a folder in place of a file": (f"etc/{WORKER}", folder, "is not a regular file"),
    "bytes that are no text": (f"etc/{WORKER}", lambda path: path.write_bytes(b"# \xff"), "not UTF-8"),
    "two megabytes": (f"etc/{WORKER}", lambda path: path.write_bytes(b"#" * (2 << 20)), "larger than"),
    "no durward.toml": (f"etc/{MAIN}", lambda path: path.unlink(), "No such file"),
}


@pytest.mark.parametrize("what", list(UNTRUSTED))
def test_b1_b2_b3_not_trusted_and_the_component_is_named(kept: House, what: str) -> None:
    name, spoil, words = UNTRUSTED[what]
    path = kept.folder / name
    try:
        spoil(path)
        found = problems_of(kept)
        assert any(words in problem.text and str(path) in problem.text for problem in found), found
    finally:
        os.chown(kept.folder, 0, 0)
        subprocess.run(["setfacl", "--remove-all", str(kept.folder)], check=True)
        kept.folder.chmod(0o755)
        if kept.etc.is_symlink():
            kept.etc.unlink()
            kept.folder.joinpath("elsewhere").rename(kept.etc)


def test_every_mistake_is_told_at_once(kept: House) -> None:
    kept.write(WORKER, templates.WORKER + 'umask = 18\nprocesses = 0\nuser_ = "x"\n')
    kept.write(SITE, templates.SITE.replace("0.0.0.0:80", "0.0.0.0:65536"))
    kept.write("services.d/other.toml", "[service.other]\n")
    kept.write("policy.d/20-more.toml", '[[grant]]\nid = "more"\nwho = []\nmay = ["veiw"]\non = ["*"]\n')
    (kept.etc / "policy.d" / "30-late.toml").symlink_to("/etc/passwd")
    found = {(problem.file, problem.line) for problem in problems_of(kept)}
    assert found >= {
        (WORKER, 6), (WORKER, 7), (WORKER, 8), (SITE, 2), ("services.d/other.toml", 1), ("policy.d/20-more.toml", 4),
        ("policy.d/30-late.toml", 0),
    }  # fmt: skip
