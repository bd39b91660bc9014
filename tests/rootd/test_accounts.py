"""Names to numbers, on the machine as it is."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from rootd import accounts
from rootd.config.settings import User


def entry(name: str, uid: int = 5, gid: int = 6) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, gid, "", "/home", "/bin/sh"))


def test_a_user_is_found_with_all_its_groups() -> None:
    found = accounts.find_user("root")
    assert found is not None
    assert (found.uid, found.gid, found.home) == (0, 0, "/root")
    assert 0 in found.groups
    assert found.groups == tuple(sorted(set(found.groups)))


def test_a_group_is_found() -> None:
    assert accounts.find_group("shadow") == grp.getgrnam("shadow").gr_gid


NOBODY = [
    "Root",
    "ROOT",
    "0",
    "root\n",
    "root\0x",
    "r\uff4f\uff4ft",
    "a" * 300,
    "",
    " root",
    "root ",
    "-1",
    "\udcff",
    "../../x",
]


@pytest.mark.parametrize("name", NOBODY, ids=ascii)
def test_a10_what_only_looks_like_a_name_is_nobody(name: str) -> None:
    assert accounts.find_user(name) is None
    assert accounts.find_group(name) is None


def test_a10_a_name_that_the_directory_spells_otherwise_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As directory services do that do not care about case."""
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry(name.lower()))
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid])
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name.lower(), "x", 7, [])))
    assert accounts.find_user("alice") == User(5, 6, (6,), "/home", "/bin/sh")
    assert accounts.find_user("Alice") is None
    assert accounts.find_group("web") == 7
    assert accounts.find_group("Web") is None


@pytest.mark.parametrize("number", [-1, 0xFFFFFFFF, 1 << 32, -5])
def test_a9_a_number_that_no_system_call_takes_is_nobodys(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid])
    for uid, gid in ((number, 6), (5, number)):
        monkeypatch.setattr(pwd, "getpwnam", lambda name, uid=uid, gid=gid: entry(name, uid, gid))
        assert accounts.find_user("alice") is None
    monkeypatch.setattr(pwd, "getpwnam", entry)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, number])
    assert accounts.find_user("alice") is None
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", number, [])))
    assert accounts.find_group("web") is None


def test_names_are_resolved_with_none_for_nobody() -> None:
    users, groups = accounts.resolve({"root", "zzqqxx-nobody"}, {"shadow", "zzqqxx-nogroup"})
    assert users == {"root": accounts.find_user("root"), "zzqqxx-nobody": None}
    assert groups == {"shadow": accounts.find_group("shadow"), "zzqqxx-nogroup": None}


def test_a_misspelt_name_brings_the_one_that_was_meant() -> None:
    users, groups = accounts.resolve(["www-dat"], ["shadwo"])
    assert users == {"www-dat": None, "www-data": accounts.find_user("www-data")}
    assert groups == {"shadwo": None, "shadow": accounts.find_group("shadow")}


def test_nothing_is_similar_when_the_file_cannot_be_read(tmp_path: Path) -> None:
    assert accounts.similar(str(tmp_path / "none"), ["alice"]) == []
    (tmp_path / "passwd").write_bytes(b"alice:x:1\n\xff\xfe\n")
    assert accounts.similar(str(tmp_path / "passwd"), ["alise"]) == ["alice"]
    assert accounts.similar(str(tmp_path / "passwd"), []) == []
