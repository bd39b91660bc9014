"""The question that is asked most, understood without argparse: `durward`, or `durward status` and names, no option.

argparse, with what it imports, takes longer than the whole question. Everything else is parser's, which means the
same by these words; what is known here, parser takes from here.
"""

from __future__ import annotations

import os
from types import SimpleNamespace

URL = "unix:/run/durward/api.sock"
GROUP, ALL = "group:", "all"


def parse(argv: list[str]) -> SimpleNamespace | None:
    """What parser would say; None for what is parser's."""
    words = argv or ["status"]
    if words[0] != "status" or any(not word or word.startswith("-") for word in words):
        return None
    targets = words[1:]
    plain = len(targets) == 1 and is_plain(targets[0])
    return SimpleNamespace(
        command="status", targets=targets, service=targets[0] if plain else None,
        url=url(), cacert="", token_file="", root="", json=False, color="auto",
    )  # fmt: skip


def url() -> str:
    return os.environ.get("DURWARD_URL") or URL


def is_plain(word: str) -> bool:
    """The name of one service, and no word that may mean several."""
    return word != ALL and not word.startswith(GROUP) and not any(mark in word for mark in "*?[")
