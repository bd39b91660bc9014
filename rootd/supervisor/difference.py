"""What a new configuration changes, in one line for people: told by a dry run before, and by a reload after.

Keys are named, and no value is shown: an environment may hold secrets, and a command may be long.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rootd.supervisor.mentions import COUNT, mark, plain

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec
    from rootd.config.table import Socket
    from rootd.supervisor.reload import Loaded

ROOM = 6_000  # characters of each kind of change; the rest is counted. All of them fit into one packet.
NO_CHANGE = "no change"
SOCKET = f"of {COUNT}"


def difference(old: Loaded, new: Loaded) -> str:
    """What changes from one to the other. A service that is named without a key has another environment or account."""
    before, after = ({spec.name: spec for spec in loaded.specs or ()} for loaded in (old, new))
    pairs = [(before[name], after[name]) for name in sorted(before.keys() & after.keys())]
    held, wanted = ({socket.key: socket for socket in loaded.sockets} for loaded in (old, new))
    ends, end = ([name for name, spec in specs.items() if spec.exit_on] for specs in (before, after))
    found = {
        "added": [_marked(after[name], name) for name in sorted(after.keys() - before.keys())],
        "removed": [_marked(before[name], name) for name in sorted(before.keys() - after.keys())],
        "changed": [_named(one, two) for one, two in pairs if one.digest != two.digest],
        "changed without a restart": [
            _named(one, two) for one, two in pairs if one.digest == two.digest and one.settings != two.settings
        ],
        "sockets added": _addresses(after, (wanted[key] for key in wanted.keys() - held.keys())),
        "sockets removed": _addresses(before, (held[key] for key in held.keys() - wanted.keys())),
        "exit_on": [] if ends == end else [_marked(after[name], name) for name in end] or ["nothing"],
        "policy": ["changed"] if old.policy.hash != new.policy.hash else [],
        "counts from the daemon's next start on": [*_later(old, new), *_kept(after, held, wanted)],
    }
    return "; ".join(f"{word}: {_listed(names)}" for word, names in found.items() if names) or NO_CHANGE


def fingerprint(old: Loaded, new: Loaded, key: bytes) -> str:
    """32 hex digits, the same for exactly this change alone: of two commands that differ, one line says the same.

    Without the key nobody can try what a secret in the files may be.
    """
    both = [[one.digest.hex(), one.policy.hash, sorted(one.files.items())] for one in (old, new)]
    return hmac.digest(key, json.dumps(both).encode(), "sha256").hex()[:32]


def _named(old: ServiceSpec, new: ServiceSpec) -> str:
    """A service and the keys that are not what they were, with those that it has had or has only now."""
    keys = ", ".join(sorted({key for key, _ in set(old.settings) ^ set(new.settings)}))
    return _marked(new, f"{new.name} ({keys})" if keys else new.name)


def _marked(spec: ServiceSpec, text: str) -> str:
    return mark(whose(spec), text)


def whose(spec: ServiceSpec) -> str:
    """For mark: it may not be configured any more, or yet."""
    return " ".join((spec.name, *spec.groups))


def users(specs: Iterable[ServiceSpec], socket: str) -> str:
    """For mark: who may view one of the services that it is for."""
    return "|".join(whose(spec) for spec in specs if socket in spec.sockets)


def _addresses(specs: dict[str, ServiceSpec], sockets: Iterable[Socket]) -> list[str]:
    told = sorted((socket.name, f"{socket.name} ({socket.key})") for socket in sockets)
    return [mark(users(specs.values(), name), text, SOCKET) for name, text in told]


def _later(old: Loaded, new: Loaded) -> list[str]:
    if old.settings is None or new.settings is None:
        return []
    same = {"[audit]": old.settings.audit == new.settings.audit, "[auth]": old.settings.auth == new.settings.auth}
    return [name for name, is_same in same.items() if not is_same]


def _kept(specs: dict[str, ServiceSpec], held: dict[str, Socket], wanted: dict[str, Socket]) -> Iterator[str]:
    """Sockets that stay, and are bound as before: a socket that is held is never bound again."""
    for key in sorted(held.keys() & wanted.keys()):
        both = zip(held[key]._fields, held[key], wanted[key], strict=True)
        keys = [name for name, one, two in both if one != two and name not in ("name", "users")]
        if keys:
            text = f"socket {wanted[key].name} ({', '.join(keys).replace('gid', 'group')})"
            yield mark(users(specs.values(), wanted[key].name), text, SOCKET)


def _listed(names: list[str]) -> str:
    shown, room = list[str](), ROOM
    for name in names:
        room -= len(plain(name)) + 2
        if room < 0:
            return f"{', '.join(shown)} and {len(names) - len(shown)} more"
        shown.append(name)
    return ", ".join(shown)
