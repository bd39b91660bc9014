"""Forms: whose they are, from where, and what is in them."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from userapi.http.problems import Problem
from userapi.web import forms

ID = "ab" * 32


def request(data: bytes = b"", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(EnvironBuilder(method="POST", data=data, headers=named, content_type=forms.KIND).get_environ())


def test_h1_a_proof_is_of_its_session_alone_and_does_not_tell_it():
    assert forms.proof(ID) != forms.proof("cd" * 32)
    assert len(forms.proof(ID)) == 64
    assert ID not in forms.proof(ID)
    forms.proven(ID, forms.Form(proof=forms.proof(ID)))


@pytest.mark.parametrize("proof", ["", ID, forms.proof("cd" * 32), forms.proof(ID)[:-1], forms.proof(ID).upper(), "é"])
def test_h1_any_other_is_refused(proof):
    with pytest.raises(Problem, match="another login"):
        forms.proven(ID, forms.Form(proof=proof))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "https://localhost"},
        {"Sec_Fetch_Site": "same-origin"},
    ],
)
def test_h1_a_page_of_ours_is_known_by_what_the_browser_says(headers):
    forms.from_a_page_of_ours(request(**headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost", "Sec_Fetch_Site": "none"},
        {"Origin": "http://localhost", "Sec_Fetch_Site": "same-site"},
        {"Origin": "http://localhost", "Sec_Fetch_Site": "cross-site"},
        {"Origin": "null"},
        {"Origin": "x://localhost"},
        {"Sec_Fetch_Site": ""},
    ],
)
def test_h1_anything_else_is_refused_and_so_is_one_that_says_nothing(headers):
    with pytest.raises(Problem):
        forms.from_a_page_of_ours(request(**headers))


def test_fields_are_read_whole_or_not_at_all():
    assert forms.fields(request(b"a=1&b=&c=%C3%A9+x")) == {"a": "1", "b": "", "c": "é x"}
    assert forms.fields(request()) == {}
    for data in (b"a=1&a=2", b"a", b"a=1&&b=2", b"a=%ff", b"\xff=1", b"&".join(b"%d=1" % n for n in range(9))):
        with pytest.raises(Problem):
            forms.fields(request(data))


def test_a_form_has_the_fields_that_it_has_and_no_others():
    asked = forms.form(request(b"proof=x&reason=new+build"), forms.Asking)
    assert (asked.proof, asked.reason) == ("x", "new build")
    with pytest.raises(Problem, match="reason must be one line"):
        forms.form(request(b"reason=a%0Ab"), forms.Asking)
    with pytest.raises(Problem):
        forms.form(request(b"as=root"), forms.Asking)
