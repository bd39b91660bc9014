"""What privileged loads: the table as it was written, or nothing."""

from __future__ import annotations

import json

import pytest

from rootd.config import shape
from rootd.config.extras import NOTHING
from rootd.config.table import INSTANCES, LEAVE, Entry, Socket, Table, load_table

ENTRY = Entry(
    service="site", count=2, path="/srv/serve", argv=("/srv/serve", "-x"), env=(("PATH", "/bin"),), cwd="/", uid=1001,
    gid=1001, groups=(1001, 2001), umask=0o22, limits=((7, 1024, LEAVE),), sockets=(("http", "tcp:0.0.0.0:80"),),
    signals=(9, 15), notify=False, ready_fd=0, probe=False, nnp=True, root=False, log=(52428800, 10),
    extra=NOTHING._replace(nice=5, credentials=(("db", "/etc/db", "1/2/3"),)),
)  # fmt: skip
SOCKET = Socket("tcp:0.0.0.0:80", "inet", "stream", "0.0.0.0", 80, "", "http", 4096, 0o660, 1001, True, False, (1001,))
TABLE = Table((ENTRY,), (SOCKET,), False)


def test_a_table_is_loaded_as_it_was_written() -> None:
    assert load_table(shape.to_json(TABLE)) == TABLE


def test_a_slot_has_room_for_every_process_that_can_be_configured() -> None:
    from rootd.config.keys import SECTIONS

    assert SECTIONS["service"]["processes"].type == f"1..{INSTANCES}"


@pytest.mark.parametrize("field", Entry._fields)
def test_an_entry_with_a_field_of_another_type_is_not_loaded(field: str) -> None:
    raw = json.loads(shape.to_json(TABLE))
    raw["entries"][0][field] = 1.5  # no field is one, and extra may be None
    with pytest.raises(ValueError, match="expected"):
        load_table(json.dumps(raw).encode())


@pytest.mark.parametrize("field", [field for field in Socket._fields if field not in Socket._field_defaults])
def test_a_socket_without_a_field_that_has_no_default_is_not_loaded(field: str) -> None:
    raw = json.loads(shape.to_json(TABLE))
    del raw["sockets"][0][field]
    with pytest.raises(ValueError, match="not the fields of Socket"):
        load_table(json.dumps(raw).encode())
