"""The machine's own people and their groups."""

from __future__ import annotations

import grp
import os
import pwd

import pytest

from userapi.cli import accounts
from userapi.cli.failure import Failure


def test_everybody_whom_the_machine_lists_is_there_with_his_groups() -> None:
    found = accounts.everybody()
    assert "root" in found
    assert found["root"] == accounts.groups_of("root")
    assert grp.getgrgid(pwd.getpwnam("root").pw_gid).gr_name in found["root"]


def test_whom_it_does_not_know_is_said() -> None:
    with pytest.raises(Failure, match="this machine knows no user 'nobody-at-all': say --groups instead"):
        accounts.groups_of("nobody-at-all")


def test_a_group_without_a_name_is_in_no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda user, gid: [0, 2**31 - 7])
    assert accounts.groups_of("root") == [grp.getgrgid(0).gr_name]
