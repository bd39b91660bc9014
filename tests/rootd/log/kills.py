"""kill -9 in the middle of anything: of this process, at a chosen call of the os module."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import Any


def kill_at(step: int, after: bool, names: Iterable[str]) -> None:
    """From now on these functions of os count their calls together; that one is the last, before or after its work."""
    count = iter(range(1_000_000))

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            now = next(count) == step
            if now and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*args, **kwargs)
            finally:
                if now:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in names:
        setattr(os, name, wrapped(getattr(os, name)))
