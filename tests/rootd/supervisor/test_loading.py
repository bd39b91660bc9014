"""What is recorded of a configuration that counts from now on."""

from __future__ import annotations

import hashlib
import json

from rootd import ipc
from rootd.config.trusted import File
from rootd.supervisor import loading
from rootd.supervisor.reload import NOBODY, Loaded


def loaded(**files: str) -> Loaded:
    return Loaded(3, b"\1" * 32, (), NOBODY, [], files=files)


def test_each_file_has_its_hash_and_one_that_cannot_be_read_has_none() -> None:
    found = loading.hashes([File("durward.toml", "a"), File("policy.d/1.toml", "", error="denied")])
    assert found == {"durward.toml": hashlib.sha256(b"a").hexdigest(), "policy.d/1.toml": ""}


def test_what_is_new_changed_or_gone_is_named_and_nothing_else() -> None:
    before = {"same": "1", "changed": "2", "gone": "3"}
    (record,) = loading.records(loaded(same="1", changed="x", new="4"), before, "abcd", "changed: site")
    assert (record["kind"], record["id"], record["changed"]) == ("load", "abcd", "changed: site")
    assert record["files"] == {"changed": "x", "new": "4", "gone": ""}


def test_many_files_are_in_several_records_each_of_which_fits_into_a_packet() -> None:
    names = [f"services.d/{n:03}-{'x' * 200}.toml" for n in range(250)]
    found = list(loading.records(loaded(**dict.fromkeys(names, "f" * 64)), {}, "", ""))
    assert [record["kind"] for record in found] == ["load", "files", "files"]
    assert [name for record in found for name in record["files"]] == names
    assert all(len(json.dumps(record)) < ipc.BODY_LIMIT for record in found)
