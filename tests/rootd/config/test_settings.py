"""The settings that every part is handed."""

from __future__ import annotations

import pytest

from rootd.config import settings
from rootd.config.keys import SECTIONS
from rootd.config.settings import Account, Api, Audit, Auth, Paths, Settings, Tls

API = Api(("unix:/run/durward/api.sock",), 2, 64, ("durward.example",), Tls("/etc/tls/cert", "/etc/tls/key"), False)
WHOLE = Settings(
    "/etc/durward",
    Paths("/run/durward", "/var/log/durward", "/var/lib/durward"),
    {"auth": Account("_durward-auth", 902, 902, (42,))},
    Auth("durward", "durward-account", "password", 28800.0, 1800.0),
    API,
    Audit("refuse"),
)


@pytest.mark.parametrize("api", [API, API._replace(tls=None), None])
def test_settings_are_read_as_they_were_written(api: Api | None) -> None:
    whole = WHOLE._replace(api=api)
    assert settings.from_json(settings.to_json(whole)) == whole


def test_settings_of_another_shape_are_not_read() -> None:
    with pytest.raises(ValueError, match="not the fields of Settings"):
        settings.from_json(b'{"config": "/etc/durward"}')


@pytest.mark.parametrize(
    ("section", "kind"), [("paths", Paths), ("auth", Auth), ("api", Api), ("tls", Tls), ("audit", Audit)]
)
def test_every_key_of_a_section_has_its_field(section: str, kind: type[Paths]) -> None:
    assert set(SECTIONS[section]) == set(kind._fields)
