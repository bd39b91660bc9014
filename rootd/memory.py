"""How the parts are kept small: what most of them import is there once, and what is free goes back to the kernel.

Rule 1: what is imported here is the standard library's, and nothing of ours: each part has in memory what it alone
        needs.
Rule 2: nothing here changes what anything does: without it, all would be the same and larger.

A page is shared with the keeper until one of the two writes to it. What writes most is the garbage collector, to every
object that it looks at: what is frozen it leaves alone.

Sources: fork(2), gc.freeze of Python's documentation, malloc_trim(3), mallopt(3).
"""

from __future__ import annotations

import ctypes
import gc
import sys

OWN_HASHES = {"_sha256", "_sha2"}  # Python's own SHA-256, by the name of its module up to 3.11, and since


def share() -> None:
    """In the keeper, before it forks anybody."""
    if OWN_HASHES & {*sys.builtin_module_names}:
        sys.modules.setdefault("_hashlib", None)  # type: ignore[arg-type]  # OpenSSL: 1.3 MiB in each that hashes
    import fcntl, hashlib, hmac, json, typing  # noqa: E401, F401, I001

    gc.collect()
    gc.freeze()
    trim()


def trim() -> None:
    """Give back what was needed for a while: at the start, for a configuration. A C library may not know how."""
    try:
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
    except AttributeError:
        return
