"""userapi/cli/offline/schema: shipped as the tables say; what the daemon takes is valid, what is broken is not."""

from __future__ import annotations

import datetime
import io
import json
import tomllib
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from policy import names, parse as policies
from policy.parse import parse
from policy.rules import Policy
from rootd.config import keys
from rootd.config.sections import read
from rootd.config.trusted import File
from userapi.cli.__main__ import main
from userapi.cli.offline import schema

PACKAGING = Path(__file__).resolve().parents[4] / "packaging"
EXAMPLES = sorted(PACKAGING.glob("**/*.toml"))
SITE = '[service.site]\ncommand = ["/bin/x"]\nuser = "www"\n'
GRANT = '[[grant]]\nid = "a"\nwho = ["user:alice"]\nmay = ["restart"]\non = ["site"]\n'
TEST = '[[test]]\nuser = "alice"\nmay = "restart"\nexpect = "deny"\non = "site"\n'


def valid(what: str) -> Callable[[str], bool]:
    # half a second each: for who asks, and not for every process that collects
    check = cache(lambda: fastjsonschema.compile(json.loads(schema.spelled(what))))

    def is_valid(text: str) -> bool:
        try:
            check()(plain(tomllib.loads(text)))
        except fastjsonschema.JsonSchemaValueException:
            return False
        return True

    return is_valid


def plain(value: Any) -> Any:
    """As a language server has it: dates and times are strings."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else value


DURWARD, SERVICES, POLICY = valid("durward"), valid("services"), valid("policy")


@pytest.mark.parametrize("what", schema.FILES)
def test_what_is_shipped_is_what_the_tables_say_now(what: str) -> None:
    shipped = (PACKAGING / "schema" / f"{what}.json").read_text()
    assert shipped == schema.spelled(what), f"durward policy schema {what} > packaging/schema/{what}.json"


def test_durward_policy_schema_prints_it() -> None:
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(["policy", "schema", "services"]) == 0
    assert said.getvalue() == schema.spelled("services")
    assert json.loads(said.getvalue()) == schema.MADE["services"]()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(PACKAGING)))
def test_every_example_and_the_default_configuration_are_valid(path: Path) -> None:
    kind = {"policy.d": POLICY, "services.d": SERVICES}.get(path.parent.name, DURWARD)
    assert kind(path.read_text())


def test_there_are_examples_of_each_kind() -> None:
    assert {"policy.d", "services.d"} <= {path.parent.name for path in EXAMPLES}
    assert sum(path.name == "durward.toml" for path in EXAMPLES) > 1


def test_every_type_of_the_table_of_keys_has_a_schema() -> None:
    for key in keys.KEYS:
        assert schema.of_type(key.type)
    patterns = {kind for kind, (_, parser) in keys.TYPES.items() if isinstance(parser, keys.Text)}
    assert set(schema.OTHER) == set(keys.TYPES) - patterns


def test_every_key_of_the_tables_is_in_it_and_no_other() -> None:
    made = schema.services()["definitions"]
    assert set(made["service"]["properties"]) == set(keys.SECTIONS["service"])
    assert set(made["template.template"]["properties"]) == set(keys.SECTIONS["template"])
    assert set(made["defaults"]["properties"]) == set(keys.SECTIONS["service"]) - set(schema.NOT_DEFAULTS)
    rules = schema.policy()["properties"]
    assert set(rules["grant"]["items"]["properties"]) == set(policies.GRANT_KEYS)
    assert set(rules["deny"]["items"]["properties"]) == set(policies.RULE_KEYS)
    assert set(rules["test"]["items"]["properties"]) == set(policies.TEST_KEYS)
    assert rules["test"]["items"]["properties"]["may"]["enum"] == list(names.Action)


WHOLE = f"""
[socket.http]
listen = ["0.0.0.0:80", "unix:/run/x.sock"]
mode = "0660"
[defaults]
restart = {{ backoff = "0.1s..30s", limit = "5 in 60s" }}
[template.app]
instances = ["a", "b"]
command = ["/srv/{{instance}}/run"]
user = "www-{{instance}}"
log = {{ size = "50M", keep = 3 }}
ready = {{ http = "/healthz", over = "probe" }}
[service.job]
extends = "site"
schedule = "*/5 * * * *"
timezone = "Europe/Zurich"
{SITE}
kind = "simple"
environment = {{ APP_ENV = "production" }}
limits = {{ nofile = 65536, core = [0, "unlimited"], as = "1G" }}
stop = {{ signal = "INT", then = ["TERM 5s"], timeout = "10s" }}
capabilities = ["NET_RAW", "cap_sys_nice"]
io_priority = "best-effort 4"
cpu_affinity = "0-3,8"
cgroup = {{ cpu = "150%", memory = "1G" }}
credentials = {{ db = "/etc/site/db" }}
files = {{ read = ["/usr"], write = ["/srv"] }}
no_new_privileges = false
"""


def test_every_kind_of_value_is_valid_as_the_daemon_reads_it() -> None:
    assert SERVICES(WHOLE)
    _, problems = read((File("durward.toml", ""), File("services.d/a.toml", WHOLE)))
    assert problems == ()


# each is refused by the daemon too, for what the schema says


@pytest.mark.parametrize(
    "text",
    [
        'prot = "x"', '[api]\nworkers = 0', '[api]\nlisten = "localhost:80"', '[audit]\non_failure = "ignore"',
        '[auth]\nsession = "eight hours"', "[api]\ntls = { key = \"/k\" }", '[paths]\nrun = "run"', "[service.x]",
        '[accounts]\napi = "Web"', 'exit_on = "site"',
    ],
)  # fmt: skip
def test_a_broken_durward_toml_is_not_valid(text: str) -> None:
    assert not DURWARD(text)
    assert read((File("durward.toml", text),))[1]


@pytest.mark.parametrize(
    "text",
    [
        SITE + 'comand = ["/bin/y"]', SITE.replace("/bin/x", "bin/x"), SITE.replace("www", "WWW"),
        SITE + "processes = 2000", SITE + 'restart = { policy = "sometimes" }', SITE + 'limits = { nofiles = 5 }',
        SITE + 'stop = { timeout = 10 }', SITE.replace("service.site", "service.durward-x"),
        SITE.replace("service.site", "service.audit"), "[socket.http]\nmode = \"660\"", "[grant.x]",
        "[socket.http]\nlisten = []", SITE + 'environment = { LISTEN_FDS = "3" }', SITE + "environment = { A = 1 }",
        SITE + 'sockets = ["a", "a"]', SITE + 'directory = "/srv/../etc"', SITE + 'capabilities = ["ROOT"]',
        SITE + 'limits = { nofile = [1, 2, 3] }', "[defaults]\nallow_root = true", SITE + 'ready = { tcp = "x" }',
        '[template.t]\nuser = "WWW"',
    ],
)  # fmt: skip
def test_a_broken_services_file_is_not_valid(text: str) -> None:
    assert not SERVICES(text)
    assert read((File("durward.toml", ""), File("services.d/a.toml", text)))[1]


ALL = """
[group.staff]
people = ["user:alice", "group:ops"]
[group.web]
services = ["site", "group:front"]
[group.use]
actions = ["start", "stop"]
[[grant]]
id = "a"
who = ["@staff", "user:bob"]
may = ["@use", "restart"]
on = ["@web", "*"]
when = { days = "Mon-Wed, Fri", hours = "22:00-06:00", timezone = "UTC" }
limit = "6 in 10m"
reason = true
from = ["10.0.0.0/8", "local"]
expires = 2027-01-31
approval = { by = ["group:leads"], within = "10m" }
[[grant]]
id = "b"
who = ["user:carol"]
may = ["reload"]
expires = 2027-01-31T18:00:00+01:00
[[deny]]
id = "c"
who = ["group:x"]
may = ["stop"]
on = ["site"]
when = { hours = "08:00-18:00", timezone = "UTC" }
[[test]]
user = "dan"
groups = ["x"]
may = "stop"
on = "site"
at = 2026-11-23T12:00:00Z
from = "10.0.0.7"
reason = true
expect = "deny"
[[test]]
user = "carol"
may = "reload"
expect = "allow"
at = 2026-11-23T12:00:00Z
"""


def test_every_key_of_a_policy_is_valid_as_the_parser_reads_it() -> None:
    assert POLICY(ALL)
    assert isinstance(parse([("a.toml", ALL)], {"site": ("front",)}), Policy)


@pytest.mark.parametrize(
    "text",
    [
        GRANT + "why = 5", GRANT.replace("user:alice", "alice"), GRANT.replace('["restart"]', '["reboot"]'),
        GRANT.replace('["site"]', "[]"), GRANT.replace('id = "a"', ""), GRANT.replace('"a"', '"a b"'),
        GRANT.replace("[[grant]]", "[grant]"), GRANT.replace("[[grant]]", "[[allow]]"), GRANT + 'limit = "6/10m"',
        GRANT + "when = {}", GRANT + 'when = { days = "Mon", hours = "8-18", timezone = "UTC" }',
        GRANT + 'when = { days = "Mon" }', GRANT + 'when = { days = "Monday", timezone = "UTC" }',
        GRANT + 'expires = "soon"', GRANT + 'reason = "yes"', GRANT + 'approval = { by = ["user:bob"] }',
        GRANT.replace("grant", "deny") + "reason = true", TEST.replace('expect = "deny"', 'expect = "no"'),
        TEST.replace("restart", "reload"), TEST.replace('on = "site"', ""), TEST + 'groups = ["A"]',
        "[group.x]\npeople = [\"user:a\"]\nactions = [\"stop\"]", "[group.x]", GRANT + 'who = "user:alice"',
    ],
)  # fmt: skip
def test_a_broken_policy_is_not_valid(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        text = text.replace('who = ["user:alice"]\n', "", 1)
    assert not POLICY(text)
    assert isinstance(parse([("a.toml", text)], {"site": ()}), list)


def test_patterns_are_as_other_languages_have_them() -> None:
    assert schema.portable(r"\A[a-z]\Z") == "^(?:[a-z])$"
    assert schema.portable(r"a\Z|[^\0]") == r"^(?:a$|[^\x00])$"
    for what in schema.FILES:
        text = schema.spelled(what)
        assert r"\\Z" not in text
        assert r"\\A" not in text
        assert "(?P" not in text
        assert "(?i" not in text
