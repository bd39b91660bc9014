"""Templates and static files: read once, when the application is loaded, before the walls and the first request.

Rule 1: everything that a template writes is escaped for HTML, and what could reorder or hide text is spelled out as
        the command line does (cli/plain): a service's words, a log and a reason are anybody's.
Rule 2: a name that a template does not know is an error, never "".
Rule 3: a static file's address has its content's hash: it may be kept for ever, and a new version has a new address.
Rule 4: what the templates are compiled to is kept beside them by who installs them (python -I -m userapi.web.pages), as
        Python's own bytecode is: a tenth of a second at each start. What is not made of this very text is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import NamedTuple

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup

from userapi.cli import plain

HERE = Path(__file__).resolve().parent
COMPILED = HERE / "compiled"
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class File(NamedTuple):
    data: bytes
    content_type: str


class Compiled(BytecodeCache):
    """Jinja's own check of it is by Jinja's version, Python's, and `get_source_checksum`."""

    def get_source_checksum(self, source: str) -> str:
        return hashlib.sha256(Path(__file__).read_bytes() + source.encode()).hexdigest()

    def load_bytecode(self, bucket: Bucket) -> None:
        if __name__ != "__main__":
            with contextlib.suppress(OSError), (COMPILED / bucket.key).open("rb") as file:
                bucket.load_bytecode(file)

    def dump_bytecode(self, bucket: Bucket) -> None:
        if __name__ == "__main__":
            COMPILED.mkdir(exist_ok=True)
            (COMPILED / bucket.key).write_bytes(bucket.bytecode_to_string())


def _harmless(value: object) -> object:
    return plain.text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _statics(folder: Path) -> tuple[dict[str, str], dict[str, File]]:
    """The address of each file by its name, and what is there."""
    addresses, files = {}, {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        name = f"{path.stem}.{hashlib.sha256(data).hexdigest()[:16]}{path.suffix}"
        files[name] = File(data, TYPES[path.suffix])
        addresses[path.name] = f"/static/{name}"
    return addresses, files


ADDRESSES, FILES = _statics(HERE / "static")
_environment = Environment(
    loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, finalize=_harmless,
    auto_reload=False, trim_blocks=True, lstrip_blocks=True, bytecode_cache=Compiled(),
)  # fmt: skip
_environment.globals["static"] = ADDRESSES
_TEMPLATES = {name: _environment.get_template(name) for name in _environment.list_templates()}


def render(name: str, values: dict[str, object]) -> str:
    """The page of that template. `values` are plain values, and nothing of the request."""
    return _TEMPLATES[name].render(values)
