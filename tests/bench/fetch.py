"""The peers, fetched into a folder of the benchmark's own: the machine itself has and starts nothing of theirs.

Debian's packages are unpacked and not installed; the Python ones go into a virtual environment. A peer that cannot be
had is an error: a comparison with fewer would look better than it is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("runit", "s6", "daemontools")
WHEELS = ("supervisor==4.3.0", "circus==0.19.0")
NEEDED = re.compile(r"\b(lib(?:s6|skarnet|execline)[a-z0-9.-]*)")  # what s6 links to; libc is there
PYTHON = "/usr/bin/python3"


class Fetched(NamedTuple):
    folder: Path
    versions: dict[str, str]  # peer -> its version
    libraries: str  # a value for LD_LIBRARY_PATH

    @property
    def programs(self) -> Path:
        """Where Debian's packages have theirs."""
        return self.folder / "root" / "usr" / "bin"

    def bin(self, program: str) -> str:
        """The path of a peer's program. Raises FileNotFoundError."""
        for place in ("root/usr/bin", "root/usr/sbin", "root/sbin", "venv/bin"):
            if (path := self.folder / place / program).exists():
                return str(path)
        raise FileNotFoundError(f"{program} is in none of the packages in {self.folder}")


def fetch(folder: Path) -> Fetched:
    """What is there already is not fetched again. Raises RuntimeError with what the machine's tools said."""
    root, venv = folder / "root", folder / "venv"
    folder.mkdir(parents=True, exist_ok=True)
    have = dict(line.split() for line in _read(folder / "versions").splitlines())
    for package in PACKAGES:
        if package not in have:
            have[package] = _unpack(package, root)
    for wheel in WHEELS:
        name, _, version = wheel.partition("==")
        if have.get(name) != version:
            if not (venv / "bin" / "pip").exists():
                _run(PYTHON, "-m", "venv", str(venv))
            _run(str(venv / "bin" / "pip"), "-q", "--no-input", "--disable-pip-version-check", "install", wheel)
            have[name] = version
    for path in (folder, root, venv):
        path.chmod(0o755)
    (folder / "versions").write_text("".join(f"{name} {version}\n" for name, version in have.items()))
    libraries = {str(path.parent) for path in root.rglob("*.so.*")}
    return Fetched(folder, have, ":".join(sorted(libraries)))


def _unpack(package: str, root: Path) -> str:
    """Beneath root, with those of its libraries that NEEDED names; its version."""
    with tempfile.TemporaryDirectory() as place:
        try:
            _run("apt-get", "-q", "download", package, cwd=place)
        except RuntimeError:  # the machine may never have been told what there is
            _run("apt-get", "-q", "update")
            _run("apt-get", "-q", "download", package, cwd=place)
        deb = next(Path(place).glob("*.deb"))
        _run("dpkg-deb", "-x", str(deb), str(root))
        version = _run("dpkg-deb", "-f", str(deb), "Version").strip()
        for library in set(NEEDED.findall(_run("dpkg-deb", "-f", str(deb), "Depends"))) - {package}:
            _unpack(library, root)
    return version


def build(source: Path, target: Path) -> Path:
    """A C program, static: the dynamic linker's work is not what is measured."""
    _run(shutil.which("gcc") or "gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", str(source), "-o", str(target))
    target.chmod(0o755)
    return target


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _run(*argv: str, cwd: str = "/") -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
