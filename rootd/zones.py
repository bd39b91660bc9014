"""The clock on the wall, for a policy's windows only: the time, and time zones by name from the machine's own data.

Rule 1: a name leads to a file of FOLDER and nowhere else: what is in there is the system's, and everybody's to read.
Rule 2: what a zone says is read whole at once. A newer tzdata counts from the next reload on.

Sources: tzfile(5), https://www.iana.org/time-zones (areas and cities)
"""

from __future__ import annotations

import re
import zoneinfo  # here, because behind the supervisor's walls no module can be read
from datetime import UTC, datetime, tzinfo

FOLDER = "/usr/share/zoneinfo"
AREAS = "Africa|America|Antarctica|Arctic|Asia|Atlantic|Australia|Europe|Indian|Pacific|Etc"
_NAME = re.compile(rf"\A(?:{AREAS})(?:/[A-Za-z0-9_+-]{{1,40}}){{1,2}}\Z")


def zone(name: str, folder: str = FOLDER) -> tzinfo | None:
    """None when there is no such zone here. Raises ValueError when its file cannot be used."""
    if name == "UTC":
        return UTC
    if not _NAME.match(name):
        return None
    path = f"{folder}/{name}"
    try:
        with open(path, "rb") as file:
            return zoneinfo.ZoneInfo.from_file(file, name)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be used: {error}") from None


def posix() -> float:
    """Seconds since 1970."""
    return datetime.now(UTC).timestamp()
