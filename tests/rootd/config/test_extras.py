"""What a service may be given besides: exactly what is configured, and words for what cannot be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootd.config import extras
from rootd.config.compile import Compiled, generation_bytes
from rootd.config.extras import NOTHING, Extra
from rootd.config.keys import parse
from rootd.config.table import load_table
from rootd.config.trusted import File

Compile = Callable[..., Compiled]


def compile_one(compiled: Compile, more: str, **words: Any) -> Compiled:
    return compiled("[auth]", {"a.toml": f'[service.a]\ncommand = ["/x"]\nuser = "worker"\n{more}\n'}, **words)


def extra(compiled: Compile, more: str, **words: Any) -> Extra | None:
    found = compile_one(compiled, more, **words)
    assert found.problems == ()
    return load_table(found.table).entries[0].extra


def test_a_service_that_asks_for_nothing_has_nothing(compiled: Compile) -> None:
    assert extra(compiled, "") is None
    assert extra(compiled, "credentials = {}\ncapabilities = []") is None


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("nice = 5", NOTHING._replace(nice=5)),
        ("nice = 0", NOTHING._replace(nice=0)),
        ("nice = -20", NOTHING._replace(nice=-20)),
        ('io_priority = "idle"', NOTHING._replace(io=3 << 13)),
        ('io_priority = "best-effort 7"', NOTHING._replace(io=2 << 13 | 7)),
        ('io_priority = "realtime 0"', NOTHING._replace(io=1 << 13)),
        ("oom_score_adj = -1000", NOTHING._replace(oom=-1000)),
        ('cpu_affinity = "0-2,8"', NOTHING._replace(cpus=(0, 1, 2, 8))),
        ('capabilities = ["CAP_NET_RAW", "sys_nice"]', NOTHING._replace(capabilities=(13, 23))),
        (
            'files = { read = ["/"], write = ["/srv/var/"], optional = true }',
            NOTHING._replace(read=("/",), write=("/srv/var",), optional=(True, False)),
        ),
        (
            'cgroup = { memory = "512M", memory_high = "1G", swap = "1K", cpu = "150%", cpu_weight = 20, tasks = 9 }',
            NOTHING._replace(
                cgroup=(
                    ("memory.max", str(512 << 20)), ("memory.high", str(1 << 30)), ("memory.swap.max", "1024"),
                    ("cpu.max", "150000 100000"), ("cpu.weight", "20"), ("pids.max", "9"),
                )
            ),
        ),
    ],
)  # fmt: skip
def test_an_entry_has_exactly_what_is_configured(compiled: Compile, more: str, found: Extra) -> None:
    assert extra(compiled, more) == found


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("nice = 20", "a whole number from -20 to 19"),
        ("nice = true", "a whole number from -20 to 19"),
        ("oom_score_adj = 1001", "a whole number from -1000 to 1000"),
        ('io_priority = "idle 3"', 'must be "idle", or "best-effort"'),
        ('io_priority = "best-effort 8"', 'must be "idle", or "best-effort"'),
        ('cpu_affinity = "3-1"', "numbers of processors"),
        ('cpu_affinity = ""', "numbers of processors"),
        ('cpu_affinity = "0-99999"', "numbers of processors"),
        ('capabilities = ["ROOT"]', "a name of capabilities(7)"),
        ('capabilities = ["NET_RAW", "CAP_NET_RAW"]', "must be there only once"),
        ('capabilities = ["DAC_OVERRIDE", "SYS_ADMIN"]', "by DAC_OVERRIDE, SYS_ADMIN: that takes allow_root"),
        ('credentials = { "a/b" = "/etc/x" }', "a table of names and absolute paths"),
        ('credentials = { ".." = "/etc/x" }', "a table of names and absolute paths"),
        ('credentials = { db = "secret" }', "a table of names and absolute paths"),
        ('credentials = { db = "/etc/../x" }', "a table of names and absolute paths"),
        ("credentials = 3", "a table of names and absolute paths"),
        ('cgroup = { cpu = "0%" }', "one processor and a half"),
        ('cgroup = { memory = "12" }', "a size of a kilobyte or more"),
        ("cgroup = { optional = true }", "optional without a limit says nothing"),
        ("files = { optional = true }", "optional without read and write says nothing"),
        ('files = { write = ["/srv"] }', "read must name what it executes"),
        ('files = { read = ["/"] }\nno_new_privileges = false', "takes no_new_privileges"),
        ('environment = { CREDENTIALS_DIRECTORY = "/x" }', "are not yours to set"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(compiled: Compile, more: str, text: str) -> None:
    [problem] = compile_one(compiled, more).problems
    assert text in problem.text


def test_a_capability_that_makes_root_is_taken_with_allow_root(compiled: Compile) -> None:
    assert extra(compiled, 'capabilities = ["SETUID"]\nallow_root = true') == NOTHING._replace(capabilities=(7,))


def test_names_of_capabilities_are_at_the_kernels_numbers() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no kernel headers")
    found = {
        name: int(number) for name, number in re.findall(r"#define CAP_([A-Z_]+)\s+([0-9]+)\n", header.read_text())
    }
    assert {name: number for number, name in enumerate(extras.CAPABILITIES)} == found


def test_every_io_class_is_the_kernels() -> None:
    assert parse("io_priority", "realtime 3") == 1 << 13 | 3  # IOPRIO_PRIO_VALUE(IOPRIO_CLASS_RT, 3)


FILE = File("/etc/db", "12/34/56")


def test_a_credential_is_a_path_and_a_mark_and_its_mark_makes_another_service_of_it(
    compiled: Compile, bundle: Callable[..., Any]
) -> None:
    more, given = 'credentials = { db = "/etc/db" }', {"/etc/db": FILE}
    assert extra(compiled, more, credentials=given) == NOTHING._replace(credentials=(("db", "/etc/db", "12/34/56"),))
    before = compile_one(compiled, more, credentials=given).specs[0]
    after = compile_one(compiled, more, credentials={"/etc/db": FILE._replace(text="12/35/56")}).specs[0]
    assert before.digest != after.digest
    assert dict(before.settings)["credentials"] == json.dumps(["db"])
    text = {"a.toml": f'[service.a]\ncommand = ["/x"]\nuser = "worker"\n{more}\n'}
    whole = generation_bytes(compile_one(compiled, more, credentials=given), bundle("[auth]", text, credentials=given))
    assert b"12/34/56" in whole


def test_a_credential_that_cannot_be_had_or_would_be_on_a_disk_is_told_at_its_place(compiled: Compile) -> None:
    more = 'credentials = { db = "/etc/db" }'
    [problem] = compile_one(compiled, more, credentials={"/etc/db": File("", "", "Permission denied")}).problems
    assert problem[1:] == (("service", "a", "credentials", "db"), "Permission denied")
    [problem] = compile_one(compiled, more, credentials={"/etc/db": FILE}, volatile=False).problems
    assert problem.text.startswith("they would lie on a disk: [paths] run, which is /run/durward, must be on a tmpfs")


def test_hooks_get_what_their_service_gets(compiled: Compile) -> None:
    found = compile_one(compiled, 'nice = 3\nhooks = { pre_start = ["/y"] }')
    assert [entry.extra for entry in load_table(found.table).entries] == [NOTHING._replace(nice=3)] * 2
