"""rootd/sealed: what is handed on cannot be changed by anybody."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from rootd import sealed


def test_what_is_sealed_can_never_change() -> None:
    fd = sealed.memfd("generation", b"table" * 100_000)
    assert sealed.content(fd) == b"table" * 100_000
    for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 1), lambda: os.ftruncate(fd, 1 << 20)):
        with pytest.raises(PermissionError):
            change()
    os.close(fd)


def test_a_table_that_is_not_sealed_is_not_read() -> None:
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    with pytest.raises(PermissionError, match="not sealed"):
        sealed.content(fd)
    os.close(fd)


def test_what_cannot_be_made_leaves_no_descriptor() -> None:
    before, limit = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limit[1]))
    try:
        with pytest.raises(OSError, match="large") as refused:
            sealed.memfd("table", b"two")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert refused.value.errno == errno.EFBIG
    assert len(os.listdir("/proc/self/fd")) == before
