"""rootd/memory: each claim in a process of its own, since what is hidden or frozen is so for good."""

from __future__ import annotations

import subprocess
import sys

SHARED = "from rootd import memory; memory.share(); "


def ran(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


def test_openssl_is_in_no_part_and_hashes_and_macs_are_what_they_are_with_it() -> None:
    code = (
        "import hashlib, hmac; print(hashlib.sha256(b'abc').hexdigest(), hmac.digest(b'k', b'm', 'sha256').hex(),"
        " hmac.new(b'k', b'm', hashlib.sha256).hexdigest(), hmac.compare_digest(b'a', b'a'))"
    )
    assert ran(SHARED + code) == ran(code)
    assert ran(SHARED + "print('libcrypto' in open('/proc/self/maps').read())") == "False"


def test_nothing_of_ours_is_imported_for_others() -> None:
    code = "import sys; print(*sorted(name for name in sys.modules if name.startswith(('rootd', 'policy', 'msgspec'))))"
    assert ran(SHARED + code) == "rootd rootd.memory"


def test_what_was_there_before_the_fork_is_not_looked_at_again() -> None:
    code = (
        "import gc; before = gc.get_freeze_count(); gc.collect(); print(before > 1000, gc.get_freeze_count() - before)"
    )
    assert ran(SHARED + code) == "True 0"


def test_what_is_free_goes_back_to_the_kernel() -> None:
    """Pieces too small to be mapped alone, all but the last given up: without being asked, the C library keeps them."""
    code = (
        "from rootd import memory\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "pieces = [bytes(10_000) + bytes([at % 256]) for at in range(3000)]\n"
        "last = pieces.pop()\n"
        "del pieces\n"
        "before = resident()\n"
        "memory.trim()\n"
        "print(before - resident() > 20_000_000)"
    )
    assert ran(code) == "True"


def test_a_c_library_that_cannot_trim_is_left_alone() -> None:
    code = "from rootd import memory\nmemory.ctypes.CDLL = lambda _: object()\nprint(memory.trim())"
    assert ran(code) == "None"
