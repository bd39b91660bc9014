"""The command line and the working directory count for nothing."""

from __future__ import annotations

TOKEN = "ab" * 32
STATUS = (
    f"GET /api/v1/services HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
)


def test_b8_a_configuration_planted_in_the_working_directory_is_not_read(gunicorn, tmp_path):
    planted = tmp_path / "cwd"
    planted.mkdir()
    trap = f"open({str(planted / 'sprung')!r}, 'w').close()\n"
    for name in ("gunicorn.conf.py", "userapi.py", "flask.py", "sitecustomize.py", "usercustomize.py", "prctl.py"):
        (planted / name).write_text(trap)
    server = gunicorn(cwd=planted).ready()
    assert server.raw(STATUS.encode()).startswith(b"HTTP/1.1 200")
    assert not (planted / "sprung").exists()
