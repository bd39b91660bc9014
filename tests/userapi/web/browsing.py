"""A browser for tests: it keeps the cookie, says where a form comes from, and reads pages as html.parser does."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from userapi.web.forms import proof

OURS = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}


class Read(HTMLParser):
    """tags: every element with its attributes; text: all that is shown, one space between words; fields: of forms."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]

    @property
    def links(self) -> list[str | None]:
        return [one.get("href") for one in self.of("a")]

    @property
    def fields(self) -> dict[str | None, str | None]:
        return {one.get("name"): one.get("value") for one in self.of("input")}


class Browser:
    def __init__(self, client: Any, session: str) -> None:
        self.client, self.session = client, session
        if session:
            client.set_cookie("__Host-durward", session)

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def read(self, path: str) -> Read:
        answer = self.get(path)
        assert (answer.status_code, answer.mimetype) == (200, "text/html"), answer.text
        return Read(answer.text)

    def post(self, path: str, fields: dict[str, str] | None = None, **headers: str | None) -> Any:
        """A form of ours, with this session's proof. A header that is None is not sent."""
        said = OURS | {name.replace("_", "-"): value for name, value in headers.items()}
        data = {"proof": proof(self.session)} | (fields or {}) if self.session else fields or {}
        return self.client.post(path, data=data, headers={key: value for key, value in said.items() if value})
