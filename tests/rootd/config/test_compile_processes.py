"""How many processes a service has, and may be scaled to: its slots in the table, and their names."""

from __future__ import annotations

from collections.abc import Callable

from rootd.config.compile import Compiled, Problem
from rootd.config.table import load_table

Compile = Callable[..., Compiled]


def test_a_service_has_as_many_slots_as_it_may_ever_have_processes(compiled: Compile) -> None:
    text = '[service.work]\ncommand = ["/srv/work"]\nuser = "worker"\n'
    for keys, count, processes in [
        ("", 1, 1),
        ("processes = 3\n", 3, 3),
        ("max_processes = 8\n", 8, 1),
        ("processes = 3\nmax_processes = 3\n", 3, 3),
    ]:
        found = compiled("[auth]", {"a.toml": text + keys})
        assert [entry.count for entry in load_table(found.table).entries] == [count]
        assert [(spec.processes, spec.max_processes) for spec in found.specs] == [(processes, count)]


def test_fewer_at_most_than_there_are_is_a_problem_at_its_key(compiled: Compile) -> None:
    text = '[service.work]\ncommand = ["/srv/work"]\nuser = "worker"\nprocesses = 3\nmax_processes = 2\n'
    [problem] = compiled("[auth]", {"a.toml": text}).problems
    assert problem == Problem(
        "services.d/a.toml", ("service", "work", "max_processes"), "must be processes, which is 3, or more"
    )


def test_no_service_is_called_as_a_process_that_another_may_be_scaled_to(compiled: Compile) -> None:
    work = '[service.work]\ncommand = ["/srv/work"]\nuser = "worker"\nmax_processes = 3\n'
    for name, taken in (("work.2", True), ("work.3", False)):
        more = f'[service."{name}"]\ncommand = ["/srv/x"]\nuser = "worker"\n'
        found = compiled("[auth]", {"a.toml": work + more}).problems
        assert [problem.text for problem in found] == ["a process of work has this name already"] * taken
