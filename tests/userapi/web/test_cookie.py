"""The cookie, as it is read; what is set is in test_session."""

from __future__ import annotations

import pytest
from flask import Request, Response

from userapi.web import cookie

ID = "0123456789abcdef" * 4


def found(header: str) -> str:
    return cookie.session_of(Request({"HTTP_COOKIE": header, "REQUEST_METHOD": "GET"}))


def test_a_session_id_is_read():
    assert found(f"__Host-durward={ID}") == ID
    assert found(f"theme=dark; __Host-durward={ID}") == ID


def test_h4_no_other_cookie_hides_it_or_stands_for_it():
    """A site of the same name, on another port or a level higher, gives the browser what cookies it likes."""
    for before, after in (('a="', 'b="'), ('"', '"'), ("=", "="), ("a=\xff\xe9", "\x85b=\\"), ("", "")):
        assert found(f"{before}; __Host-durward={ID}; {after}") == ID
        assert found(f"{before}; {after}") == ""
    assert found(f'a="; __Host-durward={ID}; __Host-durward={"cd" * 32}; b="') == ""


@pytest.mark.parametrize(
    "header",
    [
        "", f"durward={ID}", f"__host-durward={ID}", f"__Host-durward={ID.upper()}", f"__Host-durward={ID}0",
        f"__Host-durward={ID[:-1]}", f"__Host-durward=durward_{ID}", f"__Host-durward={ID}; __Host-durward={ID}",
        f"__Host-durward=Bearer {ID}", f"__Host-session={ID}", f'__Host-durward="{ID}"', f"__Host-durward = {ID}",
        f'__Host-durward="\\060{ID[1:]}"', f"\xa0__Host-durward={ID}", f"\x85__Host-durward={ID}",
        f"=__Host-durward={ID}", f"a=b,__Host-durward={ID}", f"__Host-durward={ID},a=b",
    ],
)  # fmt: skip
def test_a16_anything_else_is_none_a_personal_token_among_them(header):
    assert found(header) == ""


def test_h4_what_is_taken_back_is_the_same_cookie():
    response = Response()
    cookie.take_back(response)
    told = response.headers["Set-Cookie"]
    for part in ("__Host-durward=;", "Max-Age=0", "Secure", "HttpOnly", "Path=/", "SameSite=Strict"):
        assert part in told


def typed(header: str) -> str:
    return cookie.typed_of(Request({"HTTP_COOKIE": header, "REQUEST_METHOD": "GET"}))


@pytest.mark.parametrize("text", ['new & better; "quoted", = ü', "\U0001f6aa" * 200])
def test_what_was_typed_comes_back_to_its_page_as_it_was(text):
    response = Response()
    cookie.keep_typed(response, "/services/site/restart", text)
    pair, *rest = response.headers["Set-Cookie"].split("; ")
    assert typed(f"a=b; {pair}") == text
    assert {"Path=/services/site/restart", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=600"} <= {*rest}
    cookie.drop_typed(response, "/services/site/restart")
    gone = response.headers.getlist("Set-Cookie")[-1]
    assert {"Path=/services/site/restart", "Max-Age=0"} <= {*gone.split("; ")}


@pytest.mark.parametrize("value", ["a%0Ab", "%e2%80%ae", "x" * 201, "", "a; __Secure-durward-typed=b"])
def test_what_is_no_reason_is_nothing_that_was_typed(value):
    assert typed(f"__Secure-durward-typed={value}") == ""
