"""Installations beside the one that is tested, each of another version, and a link that says which one counts.

Each is a virtual environment with a copy of our packages; what they depend on is the tested installation's. A daemon
that was started through the link becomes what the link says at its upgrade.
"""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
import venv
from pathlib import Path

PACKAGES = ("rootd", "policy", "userapi")
SITE = Path(sysconfig.get_path("purelib"))
PROGRAM = """\
#!{python} -I
import sys
{first}
from rootd.__main__ import main
sys.exit(main())
"""


class Prefixes:
    """In `folder`, which every user may enter. `link`: where a daemon is started from."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.link = folder, folder / "current"
        folder.mkdir()
        folder.chmod(0o755)

    @property
    def program(self) -> list[str]:
        return [str(self.link / "bin" / "durward-rootd")]

    def make(self, name: str, source: Path = SITE, first: str = "", **changed: tuple[str, str]) -> Path:
        """An installation of what is in `source`. first: a line that its program begins with. changed: by module of
        rootd, a text and what is to be there instead."""
        place = self.folder / name
        venv.create(place, symlinks=True)
        packages = next(place.glob("lib/python*/site-packages"))
        for package in PACKAGES:
            shutil.copytree(source / package, packages / package)
        (packages / "durward.pth").write_text(f"{SITE}\n")
        (packages / "rootd" / "version.py").write_text(
            re.sub('^BUILD = ".*"', f'BUILD = "{name}"', (source / "rootd" / "version.py").read_text(), flags=re.M)
        )
        self.change(name, **changed)
        program = place / "bin" / "durward-rootd"
        program.write_text(PROGRAM.format(python=self.link / "bin" / "python3", first=first))
        program.chmod(0o755)
        return place

    def change(self, name: str, **changed: tuple[str, str]) -> None:
        packages = next((self.folder / name).glob("lib/python*/site-packages"))
        for module, (old, new) in changed.items():
            path = packages / "rootd" / f"{module}.py"
            text = path.read_text()
            assert old in text, f"{path} has no {old!r}"
            path.write_text(text.replace(old, new))

    def use(self, name: str) -> None:
        new = self.folder / "next"
        new.symlink_to(self.folder / name)
        os.replace(new, self.link)
