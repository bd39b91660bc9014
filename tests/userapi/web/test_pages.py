"""Templates and static files, as they are installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from userapi.web import pages

TEMPLATES = sorted((pages.HERE / "templates").iterdir())


def test_every_template_is_compiled_before_the_first_request_and_is_part_of_the_package():
    source = Path(__file__).parents[3] / "userapi" / "web"  # the checkout; what is imported is what is installed
    for folder, found in (("templates", set(pages._TEMPLATES)), ("static", set(pages.ADDRESSES))):
        assert {path.name for path in (source / folder).iterdir()} == found
        for path in (source / folder).iterdir():
            assert (pages.HERE / folder / path.name).read_bytes() == path.read_bytes()
    assert {"base.html", "login.html", "services.html"} <= set(pages._TEMPLATES)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_what_a_template_was_compiled_to_when_it_was_installed_is_used_for_that_text_alone(path):
    def kept(text: str) -> bool:
        return pages.Compiled().get_bucket(pages._environment, path.name, str(path), text).code is not None

    assert kept(path.read_text())
    assert not kept(path.read_text() + " ")
    key = pages.Compiled().get_cache_key(path.name, str(path))
    found = (pages.COMPILED / key).stat()
    assert (found.st_uid, found.st_mode & 0o022) == (0, 0), "whoever may write it is the api"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_h2_no_template_leaves_anything_unescaped_or_has_code_or_style_of_its_own(path):
    text = path.read_text()
    assert not re.search(r"\|\s*safe|autoescape|Markup|{%\s*set\s+\w+\s*%}", text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|https?://", text, re.IGNORECASE)
    for script in re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL):
        assert script == ""


def test_h2_the_module_makes_no_markup_of_text():
    code = pages.FILES[pages.ADDRESSES["durward.js"].removeprefix("/static/")].data.decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(|\.style\b", code)


def test_a_page_that_loads_itself_again_was_not_touched_by_that():
    """Else one on which processes come and go would keep for ever a login that was left."""
    code = pages.FILES[pages.ADDRESSES["durward.js"].removeprefix("/static/")].data.decode()
    assert "let touched = Number(sessionStorage.getItem(LEFT)) || Date.now();" in code
    before = re.findall(r"\n  (.*)\n  location\.reload\(\);", code)
    assert before == ["sessionStorage.setItem(LEFT, touched);", "stop();"]
    assert code.count("location.reload") == 2
    assert 'source.addEventListener("refused", over);' in code, "the session is over, and so is what it shows"
    assert "if (idle()) {\n    rest();\n    return;\n  }\n  sessionStorage" in code


def test_h2_what_somebody_has_typed_covers_no_other_line():
    """Accents can be stacked, to strike out what will run."""
    style = pages.FILES[pages.ADDRESSES["durward.css"].removeprefix("/static/")].data.decode()
    assert "dd, .said, .notice { overflow: hidden; }" in style
    for path in TEMPLATES:
        for before in re.findall(r"(.*){{ (?:\w+\.(?:reason|said|how)\b|service\.text)", path.read_text()):
            assert re.search(r'<dd>|class="(said|notice)"', before), (path.name, before)


def test_what_a_page_loads_is_small():
    sizes = {name: len(pages.FILES[address.removeprefix("/static/")].data) for name, address in pages.ADDRESSES.items()}
    assert max(sizes.values()) < 6 * 1024


def test_what_could_reorder_or_hide_text_is_spelled_out_and_what_is_escaped_stays_so():
    assert pages._harmless("a\u202e\x1b\n") == "a\\u202e\\x1b\n"
    assert pages._harmless(Markup("<b>\u202e")) == "<b>\u202e"
    assert pages._harmless(7) == 7


def test_a_name_that_a_template_does_not_know_is_an_error():
    with pytest.raises(UndefinedError):
        pages.render("error.html", {})
