"""The configuration that counts, as an auditor may read it: policy/source.py, packed until somebody asks for it.

Rule: what is kept, and what goes out, is redacted (rootd/config/redact.py). The files themselves are in the bundle
alone, which is forgotten once it is compiled.

Sources: memfd_create(2), fcntl(2) F_ADD_SEALS.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from typing import TYPE_CHECKING

from msgspec import structs

from policy import source
from rootd.config import compile as compiler
from rootd.config.redact import redacted

if TYPE_CHECKING:
    from rootd.config.compile import Bundle

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def packed(bundle: Bundle) -> bytes:
    """Of a configuration without a mistake."""
    found, _ = compiler.read(bundle.files)
    services = {path[1]: list(one.values["groups"] or ()) for path, one in found.items() if path[0] == "service"}
    files = [source.policy_file(one.path, one.text) for one in bundle.files if one.path.startswith("policy.d/")]
    sections = [source.Section(*told) for told in redacted(found)]
    return zlib.compress(source.encode(source.Source(files, services, sections, "the running daemon")), 1)


def policy_alone(content: bytes) -> bytes:
    """Of what packed has made, what rights are made of: policy, services and their groups. b"": nobody has any."""
    found = source.decode(zlib.decompress(content)) if content else source.Source([], {}, [])
    return zlib.compress(source.encode(structs.replace(found, configuration=[])), 1)


def opened(content: bytes) -> int:
    """A sealed memfd of its own with what packed has made; it is the caller's. Raises OSError."""
    fd = os.memfd_create("durward-policy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(zlib.decompress(content))
        while left:
            left = left[os.write(fd, left) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd
