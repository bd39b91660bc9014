"""[defaults], templates with instances, extends: what a service comes to have, and where a mistake in it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rootd.config.compile import Compiled, Problem
from rootd.config.table import Entry, load_table

Compile = Callable[..., Compiled]

DEFAULTS = """
[defaults]
user = "worker"
restart = { backoff = "1s..5s", limit = "9 in 60s" }
environment = { LANG = "C.UTF-8", TZ = "UTC" }
ready = { after = "3s" }
"""
WORKER = """
[template.worker]
command = ["/srv/work", "--queue", "{instance}", "{other}"]
directory = "/srv/queues/{instance}"
environment = { QUEUE = "q-{instance}" }
groups = ["back"]
instances = ["mail", "pdf.2"]
"""


def entries(found: Compiled) -> dict[str, Entry]:
    assert found.problems == ()
    return {entry.service: entry for entry in load_table(found.table).entries}


def test_each_instance_of_a_template_is_a_service_with_its_name_in_its_values(compiled: Compile) -> None:
    found = compiled("[auth]", {"a.toml": DEFAULTS + WORKER})
    assert list(entries(found)) == ["worker-mail", "worker-pdf.2"]
    for name, entry in entries(found).items():
        instance = name.removeprefix("worker-")
        assert entry.argv == ("/srv/work", "--queue", instance, "{other}")
        assert entry.cwd == f"/srv/queues/{instance}"
        assert dict(entry.env)["QUEUE"] == f"q-{instance}"
    assert [spec.groups for spec in found.specs] == [("back", "worker")] * 2


def test_the_defaults_of_one_file_are_those_of_all_services_and_what_is_nearer_wins_key_by_key(
    compiled: Compile,
) -> None:
    site = """
[service.site]
command = ["/srv/site"]
user = "www-site"
restart = { limit = "2 in 10s" }
environment = { TZ = "CET" }
ready = { notify = true }
"""
    found = compiled("[auth]", {"a.toml": DEFAULTS, "b.toml": site})
    [spec], [entry] = found.specs, entries(found).values()
    assert (spec.backoff_first, spec.limit_count) == (1.0, 2)
    assert (spec.ready_kind, entry.uid) == ("notify", 1001)
    assert (dict(entry.env)["LANG"], dict(entry.env)["TZ"]) == ("C.UTF-8", "CET")


def test_our_own_api_takes_nothing_from_them(compiled: Compile) -> None:
    found = compiled("[auth]\n[api]", {"a.toml": DEFAULTS})
    assert [(spec.user, spec.ready_kind) for spec in found.specs] == [("_durward-api", "notify")]


def test_a_service_extends_another_that_extends_a_template(compiled: Compile) -> None:
    text = """
[template.base]
user = "worker"
directory = "/srv"
umask = "077"
[service.one]
extends = "base"
command = ["/srv/one"]
directory = "/srv/one"
[service.two]
extends = "one"
command = ["/srv/two"]
"""
    found = entries(compiled("[auth]", {"a.toml": text}))
    assert [(found[name].path, found[name].cwd, found[name].umask) for name in ("one", "two")] == [
        ("/srv/one", "/srv/one", 0o77),
        ("/srv/two", "/srv/one", 0o77),
    ]


def test_keys_that_are_moved_to_a_template_restart_nothing(compiled: Compile) -> None:
    plain = '[service.x]\ncommand = ["/srv/x"]\nuser = "worker"\nstop = { signal = "INT", timeout = "3s" }\n'
    moved = """
[defaults]
user = "worker"
stop = { signal = "INT" }
[template.base]
stop = { timeout = "3s" }
[service.x]
extends = "base"
command = ["/srv/x"]
"""
    before, after = (compiled("[auth]", {"a.toml": text}) for text in (plain, moved))
    assert before.specs[0].digest == after.specs[0].digest
    assert before.table == after.table


def test_a_one_shot_does_not_take_from_the_defaults_what_is_not_for_it(compiled: Compile) -> None:
    text = DEFAULTS.replace("restart = {", 'timeout = "9s"\nrestart = { policy = "always",')
    job = '[service.job]\ncommand = ["/srv/job"]\nkind = "oneshot"\n[service.x]\ncommand = ["/srv/x"]\n'
    found = {spec.name: spec for spec in compiled("[auth]", {"a.toml": text + job}).specs}
    assert (found["job"].restart_policy, found["job"].ready_kind, found["job"].ready_timeout) == ("never", "exit", 9.0)
    assert (found["x"].restart_policy, found["x"].ready_after) == ("always", 3.0)


def test_a_mistake_is_told_once_and_where_it_was_written(compiled: Compile) -> None:
    text = """
[template.worker]
command = ["work"]
user = "nobody-knows"
stop = { timeout = "soon" }
instances = ["a", "b"]
[service.x]
extends = "worker"
command = ["/srv/x"]
umask = "9"
"""
    found = compiled("[auth]", {"a.toml": "[defaults]\ndirectory = 7\n", "b.toml": text}).problems
    assert {(one.file, one.path) for one in found} == {
        ("services.d/a.toml", ("defaults", "directory")),
        ("services.d/b.toml", ("template", "worker", "command")),
        ("services.d/b.toml", ("template", "worker", "user")),
        ("services.d/b.toml", ("template", "worker", "stop", "timeout")),
        ("services.d/b.toml", ("service", "x", "umask")),
    }
    assert len(found) == 5


def test_a_template_that_nobody_uses_is_checked_and_may_leave_keys_out(compiled: Compile) -> None:
    good = compiled("[auth]", {"a.toml": '[template.base]\ndirectory = "/srv/{instance}"\n'})
    assert good.problems == ()
    bad = compiled("[auth]", {"a.toml": '[template.base]\ndirektory = "/srv"\n[defaults]\nextends = "base"\n'}).problems
    assert {one.path for one in bad} == {("template", "base", "direktory"), ("defaults", "extends")}


@pytest.mark.parametrize(
    ("text", "path", "part"),
    [
        ('[service.x]\nextends = "bass"\n[template.base]\n', ("service", "x", "extends"), "did you mean 'base'?"),
        ('[service.x]\nextends = 7\n', ("service", "x", "extends"), "there is no [template.7]"),
        ('[service.a]\nextends = "b"\n[service.b]\nextends = "a"\n', ("service", "a", "extends"), "a -> b -> a"),
        ('[service.a]\nextends = "a"\n', ("service", "a", "extends"), "a -> a"),
        ('[template.w]\ninstances = ["Up"]\n', ("template", "w", "instances", 0), "1 to 63"),
        ('[template.w]\ninstances = ["a", "a"]\n', ("template", "w", "instances", 1), "only once"),
        ('[template.w]\ninstances = ["a"]\n[service.w-a]\n', ("template", "w", "instances", 0), "already"),
        ('[service.x]\ninstances = ["a"]\n', ("service", "x", "instances"), "no such key"),
        ('[template.w]\numask = "{instance}"\n[service.x]\nextends = "w"\n', ("service", "x"), "of a template alone"),
        ("[template]\nw = 3\n", ("template", "w"), "must be a table"),
        ("defaults = 3\n", ("defaults",), "must be a table"),
        ("[defaults]\nallow_root = true\n", ("defaults", "allow_root"), "each service has to say it"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_told_with_its_place(
    compiled: Compile, text: str, path: tuple[str | int, ...], part: str
) -> None:
    found = compiled("[auth]", {"a.toml": text}).problems
    assert [one for one in found if one.path == path and part in one.text], found


def test_defaults_are_there_only_once(compiled: Compile) -> None:
    found = compiled("[auth]", {"a.toml": DEFAULTS, "b.toml": DEFAULTS}).problems
    assert found == (Problem("services.d/b.toml", ("defaults",), "is in services.d/a.toml already"),)


def test_no_instance_of_a_template_has_the_name_of_our_own_service_which_may_run_as_ours(compiled: Compile) -> None:
    """durward-api may have an account of ours; with that name any command would have been run as the supervisor."""
    for user in ("_durward-sup", "worker"):
        template = f'[template.durward]\ncommand = ["/bin/x"]\nuser = "{user}"\ninstances = ["api"]'
        [problem] = compiled("[auth]", {"a.toml": template}).problems
        assert problem.path == ("template", "durward", "instances", 0)
        assert problem.text.startswith("durward-api: a service's name has")


def test_a_circle_of_templates_is_told_to_who_extends_them(compiled: Compile) -> None:
    rows = '[template.b]\nextends = "c"\n[template.c]\nextends = "b"\n'
    services = "".join(
        f'[service.{name}]\nextends = "c"\ncommand = ["/bin/x"]\nuser = "worker"\n' for name in ("a", "d")
    )
    [problem] = compiled("[auth]", {"a.toml": rows + services}).problems
    assert (problem.path, problem.text) == (("template", "b", "extends"), "goes in a circle: b -> c -> b")
