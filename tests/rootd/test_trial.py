"""rootd/trial: what would be in the way of this program is said, all of it, and nothing is done."""

from __future__ import annotations

import os

import pytest

from rootd import sealed, trial, version
from rootd.config import compile as compiler, trusted
from rootd.keeper import manifest
from rootd.keeper.manifest import Manifest


def text(held: dict[str, int], **more: object) -> bytes:
    return manifest.write(Manifest(held, formats=more.pop("formats", version.written()), program="0.9"))  # type: ignore[arg-type]


def never() -> int:
    raise AssertionError("the configuration is not looked at")


def test_a_later_form_of_what_the_running_one_writes_is_refused_with_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    later = version.written() | {"state": 99}
    assert trial.main(text({}, formats=later), never) == trial.REFUSED
    assert capsys.readouterr().err == "0.9 writes version 99 of 'state', and this one reads 1 to 1\n"


def test_a_later_manifest_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert trial.main(b"durward keeper 99\nend\n", never) == trial.REFUSED
    assert "writes version 99" in capsys.readouterr().err


def test_what_cannot_be_read_of_the_store_is_said_all_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    bad = sealed.memfd("x", b'{"entries":1}\n{}')
    try:
        assert trial.main(text({"letters/1": bad, "settings": bad, "generation/3": bad}), never) == trial.REFUSED
    finally:
        os.close(bad)
    said = capsys.readouterr().err
    assert "it does not know what 'letters/1' is" in said
    assert "cannot read the settings that are in use" in said
    assert "cannot read configuration 3, which is in use" in said


@pytest.mark.parametrize("status", [0, 65])
def test_where_nothing_is_in_the_way_the_present_configuration_decides(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def check() -> int:
        asked.append(1)
        return status

    monkeypatch.setattr(trial, "unusable", lambda _told: iter(()))
    assert trial.main(text({}), check) == status
    assert asked


def test_every_part_can_be_imported_in_one_process() -> None:
    trial.import_parts()


def test_a_configuration_in_use_that_this_program_would_refuse_is_told_by_its_mistakes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = (trusted.File("durward.toml", "nonsense = 1\n"),)
    bundle = compiler.Bundle("/etc/x", "/p", files, {}, {}, {}, {}, {}, True)
    found = compiler.compile_bundle(bundle)
    assert found.problems
    said = [*trial.problems(b"{}", compiler.generation_bytes(found, bundle).partition(b"\n")[2])]
    assert any(one.startswith("durward.toml: nonsense: ") for one in said), said


def test_a_configuration_in_use_whose_services_it_would_number_otherwise_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = compiler.Compiled(None, b'{"entries":[],"root":false,"sockets":[]}', bytes(32), (), (), ())
    monkeypatch.setattr(compiler, "compile_bundle", lambda _bundle: empty)
    monkeypatch.setattr(compiler, "bundle_from", lambda _line: None)
    assert [*trial.problems(empty.table, b"")] == []
    entries = empty.table.replace(b"[]", b'[{"service":"site"}]', 1)
    assert "number its services or sockets otherwise" in next(trial.problems(entries, b""))


def test_a_program_reads_all_that_it_writes_itself() -> None:
    assert trial.unreadable(version.written(), "x") == []


def test_what_is_later_older_or_unknown_is_a_sentence_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "FORMATS", {"state": (3, 2), "store": (1, 1)})
    assert trial.unreadable({"state": 2, "store": 1}, "0.9") == []
    assert trial.unreadable({"state": 4, "store": 0, "letters": 1}, "0.9") == [
        "0.9 writes version 4 of 'state', and this one reads 2 to 3",
        "0.9 writes version 0 of 'store', and this one reads 1 to 1",
        "0.9 writes version 1 of 'letters', and this one does not know it",
    ]
    assert trial.unreadable({"state": 1}, "")[0].startswith("the running program writes version 1 of 'state'")
