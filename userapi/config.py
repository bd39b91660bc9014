"""What the api is told: two environment variables that the table's entry for durward-api sets.

DURWARD_RUN is the run directory. DURWARD_API is one JSON object; unknown keys are errors, absent ones have the
defaults below. Nothing else of the environment, and no file, changes how the api works.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

HEADROOM = 16  # threads that streams and waits never take
SHARE = 8  # streams, and as many waits, that one session may hold at once in one worker


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    certificate: str
    key: str


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The object in DURWARD_API."""

    workers: int = 2
    threads: int = 64  # a worker; streams and waits together may hold HEADROOM fewer
    tls: Tls | None = None
    behind_proxy: bool = False  # believe X-Forwarded-For of a peer on loopback or a Unix socket
    hosts: list[str] = []  # names in Host besides this machine's own and loopback's
    local: str = "password"
    page: bool = True  # the page at "/", for browsers


class Config(msgspec.Struct, frozen=True):
    run: str
    api: Settings

    @property
    def streams(self) -> int:
        """Streams at once, in one worker."""
        return max(1, self.api.threads - HEADROOM - self.waits)

    @property
    def waits(self) -> int:
        """Waits for an operation at once, in one worker: however many streams there are, these find a thread."""
        return max(1, (self.api.threads - HEADROOM) // 4)

    @property
    def logins(self) -> int:
        """Logins at once, in one worker: PAM is slow, and must not take every thread."""
        return max(1, self.api.threads // 8)


def from_environment(environ: Mapping[str, str]) -> Config:
    """Raises ValueError with a sentence that names the variable."""
    run = environ.get("DURWARD_RUN", "/run/durward")
    if not run.startswith("/"):
        raise ValueError(f"DURWARD_RUN must be an absolute path, not {run!r}")
    try:
        api = msgspec.json.decode(environ.get("DURWARD_API", "{}"), type=Settings)
    except msgspec.DecodeError as error:
        raise ValueError(f"DURWARD_API is not as it must be: {error}") from None
    if not 1 <= api.workers <= 64:
        raise ValueError(f"DURWARD_API: workers must be 1 to 64, not {api.workers}")
    if not 4 <= api.threads <= 1000:
        raise ValueError(f"DURWARD_API: threads must be 4 to 1000, not {api.threads}")
    return Config(run, api)
