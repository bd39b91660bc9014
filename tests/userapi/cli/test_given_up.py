"""userapi/cli/given_up: each key and each account that weakens what Durward guards is told, on a machine on paper."""

from __future__ import annotations

import pytest

from rootd.config import compile as compiler
from rootd.config.settings import User
from rootd.config.trusted import File
from userapi.cli.given_up import given_up
from userapi.cli.machine import OK, PROBLEM, WARNING, Finding

ROLES = ("", "-sup", "-auth", "-log", "-probe", "-api")
USERS = {
    f"_durward{role}": User(900 + number, 900 + number, (900 + number,), "/", "/usr/sbin/nologin")
    for number, role in enumerate(ROLES)
} | {
    "root": User(0, 0, (0,), "/root", "/bin/sh"),
    "www": User(1001, 1001, (1001,), "/", "/bin/sh"),
    "captain": User(1002, 1002, (999, 1002), "/", "/bin/sh"),
}
GROUPS = {"root": 0, "shadow": 42, "docker": 999}
SITE = '[service.site]\ncommand = ["/bin/x"]\nuser = "www"\n'


def told(main: str = "", service: str = SITE, **users: User) -> list[Finding]:
    files = (File("durward.toml", main), File("services.d/a.toml", service))
    pam = {"durward": True, "durward-account": True}
    named = {f"_durward{name}": user for name, user in users.items()}
    bundle = compiler.Bundle("/etc/durward", "/opt/python3", files, {}, USERS | named, GROUPS, pam, {}, True)
    found, problems = compiler.read(files)
    assert not problems
    return given_up(found, bundle, compiler.ROOTLIKE)


def test_an_ordinary_configuration_gives_up_nothing() -> None:
    [finding] = told('[auth]\n[api]\nlisten = "127.0.0.1:9001"\n')
    assert finding.level == OK


@pytest.mark.parametrize(
    ("main", "words"),
    [
        ('[auth]\nlocal = "peer"', 'auth.local = "peer"'),
        ('[auth]\nsession = "48h"', "auth.session is longer than a day"),
        ('[auth]\ntoken_longest = "500d"', "auth.token_longest is longer than a year"),
        ('[audit]\non_failure = "continue"', 'audit.on_failure = "continue"'),
        ('[api]\nlisten = "0.0.0.0:9001"\nbehind_proxy = true', "the API on tcp:0.0.0.0:9001 speaks without TLS"),
    ],
)
def test_a_key_that_weakens_is_told_with_what_to_do(main: str, words: str) -> None:
    [finding] = told(main)
    assert finding.level == WARNING
    assert finding.text.startswith(words)
    assert finding.todo


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ('user = "root"\nallow_root = true', "site runs as root"),
        ('user = "captain"\nallow_root = true', "site is in docker, which is as good as root"),
        ('user = "www"\nallow_root = true\nsupplementary_groups = ["docker"]', "site is in docker"),
        ('user = "www"\nno_new_privileges = false', "site may gain privileges"),
    ],
)
def test_a_service_that_amounts_to_root_is_told(service: str, words: str) -> None:
    [finding] = told(service=SITE.replace('user = "www"', service))
    assert finding.level == WARNING
    assert finding.text.startswith(words)


def test_an_account_of_ours_in_the_docker_group_is_a_problem() -> None:
    account = User(900, 900, (900, 999), "/", "/usr/sbin/nologin")
    [finding] = told(**{"": account})
    assert finding == Finding(
        "given up", PROBLEM, "_durward, which privileged runs as, is in docker: its sandbox is worth nothing",
        "gpasswd -d _durward docker",
    )  # fmt: skip


def test_group_shadow_is_for_auth_alone_and_a_shell_for_none() -> None:
    assert told(**{"-auth": User(902, 902, (42, 902), "/", "/bin/false")})[0].level == OK
    assert told(**{"-log": User(903, 903, (42, 903), "/", "/bin/false")})[0].level == PROBLEM
    [finding] = told(**{"-log": User(903, 903, (903,), "/", "/bin/bash")})
    assert finding.level == WARNING
    assert finding.todo == "usermod -s /usr/sbin/nologin _durward-log"
