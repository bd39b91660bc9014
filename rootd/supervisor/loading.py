"""How a configuration that counts from now on is recorded: who, the hash of each file that is new, what it changes.

Rule: of environment files and credentials there is no hash: what is short in them could be guessed by it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootd.config.trusted import File
    from rootd.supervisor.reload import Loaded

EACH = 100  # files that one record names: it has to fit into a packet


def hashes(files: Iterable[File]) -> dict[str, str]:
    """SHA-256 of durward.toml, services.d/*.toml and policy.d/*.toml, by path; "" for what could not be read."""
    return {one.path: "" if one.error else hashlib.sha256(one.text.encode()).hexdigest() for one in files}


def records(loaded: Loaded, before: Mapping[str, str], request: str, what: str) -> Iterator[dict[str, Any]]:
    """before: the hashes of the files that counted until now; request: whose reload it was, "" for a start.

    A file that is gone has no hash.
    """
    new = {path: mark for path, mark in loaded.files.items() if before.get(path) != mark}
    new |= dict.fromkeys(sorted(before.keys() - loaded.files.keys()), "")
    pairs = iter(new.items())
    yield {
        "kind": "load", "id": request, "generation": loaded.generation, "digest": loaded.digest.hex(),
        "policy": loaded.policy.hash[:12], "services": len(loaded.specs or ()), "problems": len(loaded.problems),
        "changed": what, "files": dict(itertools.islice(pairs, EACH)),
    }  # fmt: skip
    while more := dict(itertools.islice(pairs, EACH)):
        yield {"kind": "files", "id": request, "generation": loaded.generation, "files": more}
