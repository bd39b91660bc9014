"""What services say of each other."""

from __future__ import annotations

from collections.abc import Callable

from rootd.config.compile import Compiled, Problem

Compile = Callable[..., Compiled]
ORDERED = """
[service.{0}]
command = ["/srv/{0}"]
user = "worker"
{1}
"""


def test_an_order_that_goes_in_a_circle_is_refused_and_named(compiled: Compile) -> None:
    links = {"a": 'requires = ["b"]', "b": 'after = ["c"]', "c": 'requires = ["a"]', "d": 'restart_with = ["d"]'}
    found = compiled("[auth]", {f"{name}.toml": ORDERED.format(name, line) for name, line in links.items()})
    circle, alone = found.problems
    assert circle.text.removeprefix("goes in a circle: ").split(" -> ") in (
        ["a", "b", "c", "a"], ["b", "c", "a", "b"], ["c", "a", "b", "c"]
    )  # fmt: skip
    assert circle.path[2] == {"a": "requires", "b": "after", "c": "requires"}[circle.path[1]]
    assert alone == Problem("services.d/d.toml", ("service", "d", "restart_with"), "goes in a circle: d -> d")


def test_an_order_among_services_that_are_not_there_is_refused(compiled: Compile) -> None:
    lines = 'requires = ["wrk"]\nafter = ["durward-api"]\nrestart_with = ["nobody"]'
    found = compiled("[auth]\n[api]", {"a.toml": ORDERED.format("a", lines), "b.toml": ORDERED.format("work", "")})
    assert {(problem.path[2], problem.text) for problem in found.problems} == {
        ("requires", "there is no [service.wrk]; did you mean 'work'?"),
        ("after", "there is no [service.durward-api]; did you mean 'durward-api'?"),
        ("restart_with", "there is no [service.nobody]"),
    }
