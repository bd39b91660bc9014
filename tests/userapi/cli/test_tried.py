"""The child that tries something as another account: whose it is, what it says, and that nothing else comes back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rootd.config.settings import User
from userapi.cli import tried

pytestmark = pytest.mark.root
NOBODY = User(65534, 65534, (65534,), "/", "/usr/sbin/nologin")


def test_the_attempt_is_made_as_that_account_alone_and_leaves_this_process_as_it_was() -> None:
    def attempt() -> None:
        raise OSError(f"{os.getresuid()} {os.getresgid()} {os.getgroups()}")

    before = os.getresuid(), os.getresgid(), os.getgroups()
    assert tried.as_account(NOBODY, attempt) == f"{(65534,) * 3} {(65534,) * 3} [65534]"
    assert tried.as_account(NOBODY, lambda: None) == ""
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


def test_a_file_that_it_may_not_read_is_named_and_any_other_failure_is_told(tls: dict[str, str]) -> None:
    assert tried.as_account(NOBODY, lambda: tried.load_tls(**tls)) == f"{tls['certificate']}: Permission denied"
    assert "ZeroDivisionError" in tried.as_account(NOBODY, lambda: print(1 // 0))
    assert tried.as_account(NOBODY, lambda: os._exit(1)) == "the child that tries it was ended"


def test_what_never_answers_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "key")
    tmp_path.chmod(0o755)
    monkeypatch.setattr(tried, "PATIENCE", 0.1)
    root = User(0, 0, (0,), "/", "/bin/sh")
    fifo = str(tmp_path / "key")
    assert tried.as_account(root, lambda: tried.load_tls(fifo, fifo)) == "it has not answered within 0.1 s"


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(tls: dict[str, str], tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    make = ["openssl", "pkey", "-aes128", "-passout", "pass:long enough", "-in", tls["key"], "-out", str(locked)]
    subprocess.run(make, check=True, capture_output=True)
    tried.load_tls(tls["certificate"], tls["key"])
    with pytest.raises(OSError, match="needs a password, which the api has not"):
        tried.load_tls(tls["certificate"], str(locked))
