"""What of root's files may be shown: by the table of keys, and nothing by default."""

from __future__ import annotations

from typing import Any

import pytest

from rootd.config import keys
from rootd.config.redact import HIDDEN, NAMES, SHOWN, is_harmless, is_quotable, redacted, url_of, word_of
from rootd.config.sections import read
from rootd.config.trusted import File


def shown(text: str, file: str = "services.d/site.toml") -> dict[str, Any]:
    found, _ = read((File(file, text),))
    return {name: values for _, name, values in redacted(found)}


SECRET = "hunter2"
SITE = f"""
[service.site]
command = ["/srv/site/run", "--bind", "fd://3", "--token={SECRET}", "{SECRET}", "/srv/site/app.py", "-p{SECRET}", "-v"]
user = "www-site"
environment = {{ APP_ENV = "{SECRET}" }}
environment_file = "/etc/{SECRET}/env"
credentials = {{ db = "/etc/{SECRET}" }}
groups = ["web"]
limits = {{ nofile = 65536 }}
ready = {{ http = "http://127.0.0.1:80/health?key={SECRET}", timeout = "10s" }}
hooks = {{ pre_start = ["/srv/site/migrate", "postgres://site:{SECRET}@db/site"] }}
log = {{ size = "10M" }}
processes = 2
autostart = false
"""


def test_what_could_be_a_secret_is_not_shown_and_what_cannot_is() -> None:
    found = shown(SITE)["service.site"]
    assert SECRET not in repr(found)
    assert found == {
        "command": [
            "/srv/site/run", "--bind", HIDDEN, f"--token={HIDDEN}", HIDDEN, "/srv/site/app.py", HIDDEN, "-v",
        ],
        "user": "www-site",
        "environment": {"APP_ENV": HIDDEN},
        "environment_file": HIDDEN,
        "credentials": {"db": HIDDEN},
        "groups": ["web"],
        "limits": {"nofile": 65536},
        "ready": {"http": f"http://127.0.0.1:80/health?{HIDDEN}", "timeout": "10s"},
        "hooks": {"pre_start": ["/srv/site/migrate", HIDDEN]},
        "log": {"size": "10M"},
        "processes": 2,
        "autostart": False,
    }  # fmt: skip


def test_every_type_of_the_table_is_either_known_to_be_harmless_or_is_not_shown_as_it_is() -> None:
    others = {row.type for row in keys.KEYS if not is_harmless(row.type) and row.type not in keys.SECTIONS}
    assert others == {*NAMES, "perhaps", "command", "url"}
    assert set(keys.TYPES) >= SHOWN


@pytest.mark.parametrize(
    "line",
    ['pasword = "x"', 'user = "not a user"', "groups = 7", 'limits = "x"', "command = 7", 'command = ["run", "x"]',
     'command = ["/x y/run"]', 'log = { size = "x", colour = "x" }', "environment = { A = 7 }"],
)  # fmt: skip
def test_a_value_that_is_not_what_its_key_takes_is_not_shown(line: str) -> None:
    found = shown(f"[service.site]\n{line}\n")["service.site"]
    name = line.partition(" ")[0]
    value = found[name]
    assert (set(value.values()) if isinstance(value, dict) else value) in (HIDDEN, [HIDDEN], {HIDDEN})


def test_a_service_of_a_template_is_shown_as_it_counts() -> None:
    text = f"""
[defaults]
environment = {{ TOKEN = "{SECRET}" }}
[template.job]
instances = ["a", "b"]
command = ["/srv/job", "{{instance}}"]
user = "jobs"
"""
    found = shown(text)
    assert set(found) == {"service.job-a", "service.job-b"}
    assert found["service.job-a"]["user"] == "jobs"
    assert SECRET not in repr(found)


def test_the_daemons_own_file_is_shown_section_by_section() -> None:
    found = shown('exit_on = ["site"]\n[paths]\nrun = "/run/x"\n[api.tls]\nkey = "/etc/key"\n', "durward.toml")
    assert found["daemon"] == {"exit_on": ["site"]}
    assert found["paths"] == {"run": "/run/x"}
    assert found["api"] == {"tls": {"key": "/etc/key"}}
    assert "auth" not in found, "it says nothing of its own"


@pytest.mark.parametrize(
    ("word", "expected"),
    [("--verbose", "--verbose"), ("-v", "-v"), ("--a=b", f"--a={HIDDEN}"), ("-a=b", f"-a={HIDDEN}"), ("-ab", HIDDEN),
     ("/srv/x.py", "/srv/x.py"), ("/", "/"), ("/etc", "/etc"), ("/x?y=z", HIDDEN), ("/x/token=abc", HIDDEN),
     ("/9j4AAQSkZJRgABAQ", HIDDEN), ("/srvx/y", HIDDEN), ("/srv/a+b", HIDDEN), ("http://u:p@h/x", HIDDEN),
     ("//u:p@h", HIDDEN), ("http://x", HIDDEN), ("", HIDDEN)],
)  # fmt: skip
def test_of_an_argument_options_and_plain_paths_are_shown(word: str, expected: str) -> None:
    assert word_of(word) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://127.0.0.1:80", "http://127.0.0.1:80"), ("http://[::1]:80/a/", "http://[::1]:80/a/"), ("/", "/"),
     ("/api/v1/healthz", "/api/v1/healthz"), ("/a?k=s", f"/a?{HIDDEN}"), ("/a/hunter2/b", f"/a/{HIDDEN}"),
     ("/a/9f8e", f"/a/{HIDDEN}"), ("http://127.0.0.1:80/=s", f"http://127.0.0.1:80/{HIDDEN}"),
     ("http://u:p@127.0.0.1/", HIDDEN), ("x", HIDDEN)],
)  # fmt: skip
def test_of_a_url_the_address_and_words_are_shown(url: str, expected: str) -> None:
    assert url_of(url) == expected


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        (("service", "site", "user"), 'user = "nobody-here"', True),
        (("service", "site", "command"), "[service.site]", True),  # it is missing
        (("socket", "http", "listen", 1), '  "0.0.0.0:80",', True),
        (("api", "tls", "key"), 'key = "etc"', True),
        (("service", "site", "ready", "timeout"), 'timeout = "0s"', True),
        (("service", "site", "ready"), "[service.site.ready]", True),
        (("service", "site", "environment", "A"), "A = 7", False),
        (("service", "site", "command", 1), '"hunter2",', False),
        (("service", "site", "ready", "http"), 'http = "x"', False),
        (("service", "site", "ready", "timeout"), 'ready = { timeout = "0s", http = "/?key=hunter2" }', False),
        (("service", "site", "user"), 'user = "www" # hunter2', False),
        (("service", "site", "pasword"), 'pasword = "hunter2"', False),
        (("service", "site", "ready"), 'ready = "hunter2"', False),
        (("service", "site", "command"), '["hunter2"],', False),
        (("defaults", "environment"), 'environment = "hunter2"', False),
        ((), 'user = "hunter2', False),
    ],
)
def test_a_line_that_could_have_a_secret_is_not_quoted(path: tuple[Any, ...], line: str, expected: bool) -> None:
    assert is_quotable(path, line) is expected
