"""The one table of keys: each type takes what it says, and nothing that only looks like it."""

from __future__ import annotations

import resource
import signal
from typing import Any

import pytest
from hypothesis import given, strategies as st

from policy import names
from rootd.config import keys
from rootd.config.keys import KEYS, REQUIRED, SECTIONS, TYPES, parse

GOOD: list[tuple[str, Any, Any]] = [
    ("path", "/", "/"),
    ("path", "/srv/site", "/srv/site"),
    ("path", "/srv/site/", "/srv/site"),
    ("path", "/srv/..site/.env", "/srv/..site/.env"),
    ("name", "0site-a.b_c", "0site-a.b_c"),
    ("user", "_durward-sup", "_durward-sup"),
    ("host", "durward.example", "durward.example"),
    ("flag", True, True),
    ("flag", False, False),
    ("mode", "0660", 0o660),
    ("mode", "022", 0o22),
    ("mode", "000", 0),
    ("size", "50M", 50 << 20),
    ("size", "1024", 1024),
    ("size", "2G", 2 << 30),
    ("duration", "0s", 0.0),
    ("duration", "0.5s", 0.5),
    ("duration", "100ms", 0.1),
    ("duration", "2m", 120.0),
    ("duration", "8h", 28800.0),
    ("duration", "1d", 86400.0),
    ("period", "1ms", 0.001),
    ("backoff", "0.1s..30s", (0.1, 30.0)),
    ("backoff", "1s..1s", (1.0, 1.0)),
    ("rate", "5 in 60s", (5, 60.0)),
    ("command", ["/bin/true"], ("/bin/true",)),
    ("command", ["/bin/echo", "", "ü\n"], ("/bin/echo", "", "ü\n")),
    ("variables", {"A": "1", "_b2": ""}, (("A", "1"), ("_b2", ""))),
    ("variables", {"LISTENER": "x", "NOTIFY_SOCKETS": "x"}, (("LISTENER", "x"), ("NOTIFY_SOCKETS", "x"))),
    ("limit", 5, (5, 5)),
    ("limit", 0, (0, 0)),
    ("limit", "64M", (64 << 20, 64 << 20)),
    ("limit", "unlimited", (-1, -1)),
    ("limit", [1, 2], (1, 2)),
    ("limit", ["1K", "unlimited"], (1024, -1)),
    ("1..64", 64, 64),
    ("[0..255]", [0, 255], (0, 255)),
    ("a|b", "b", "b"),
    ("[user]", [], ()),
]
BAD: list[tuple[str, Any]] = [
    *[
        ("path", value)
        for value in ("", "srv", "/srv/../x", "/srv/.", "//", "/a//b", "/a\0", "/a\n", "/a/..", 5, None, ["/"])
    ],
    *[("name", value) for value in ("", "A", "-a", ".a", "a" * 64, "a/b", "a\n", "\uff41", 5, "a b", "..", "\u0430")],
    *[("host", value) for value in ("", "-a", "a b", "a:80", "a" * 300, 1)],
    *[("flag", value) for value in (0, 1, "true", "yes", None)],
    *[("mode", value) for value in (0o660, "660 ", "1660", "0o660", "668", "66", "", "٠٦٦")],
    *[
        ("size", value)
        for value in ("1023", "99999999999T", "0", "-5M", "5MB", "5 M", "1.5G", "", 52428800, True, "\u0665M")
    ],
    *[
        ("duration", value)
        for value in ("10", 10, "-1s", "1 s", "s", "1e5s", "infs", "nan", "1w", "٣s", "1.s", None, 1.5)
    ],
    *[("period", value) for value in ("0s", "0.000s", "0ms")],
    *[("backoff", value) for value in ("30s..1s", "0s..1s", "1s", "1s...2s", 1, "1s..2s..3s")],
    *[("rate", value) for value in ("0 in 60s", "5 in 0", "5in60s", "x in 5s", 5, "-5 in 60s", "5 in 60")],
    *[
        ("command", value)
        for value in ([], "/bin/true", [""], ["true"], ["./x"], ["/bin/x", 5], ["/bin/x\0"], [["/x"]], None, {})
    ],
    *[
        ("variables", {name: "x"})
        for name in ("LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "DURWARD_PID", "", "1A", "A=B", "A B", "A\n")
    ],
    *[("variables", value) for value in ({"A": 1}, {"A": "x\0"}, [], "A=1", {"A": True})],
    *[
        ("limit", value)
        for value in (
            -1,
            -5,
            1.5,
            True,
            "many",
            [1],
            [2, 1],
            [1, 2, 3],
            ["unlimited", 5],
            1 << 62,
            "9999999999T",
            {},
            [[1], 2],
            None,
        )
    ],
    *[("1..64", value) for value in (0, 65, "5", 1.0, True, None)],
    *[("[0..255]", value) for value in (0, [256], [0, 0], [True], {}, "0")],
    *[("a|b", value) for value in ("c", "a|b", "", "A", 1, None, ["a"])],
    *[("[user]", value) for value in ("alice", [1], ["alice", "alice"], None, [["alice"]])],
]


@pytest.mark.parametrize(("kind", "value", "parsed"), GOOD, ids=str)
def test_a_value_of_its_type_is_parsed(kind: str, value: Any, parsed: Any) -> None:
    assert parse(kind, value) == parsed
    assert type(parse(kind, value)) is type(parsed)


@pytest.mark.parametrize(("kind", "value"), BAD, ids=repr)
def test_any_other_value_is_refused_with_a_sentence(kind: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"must be \S+"):
        parse(kind, value)


A10 = [
    "Alice",
    "\uff41lice",
    "1001",
    "alice\n",
    "alice\0x",
    "a" * 300,
    "",
    "0day",
    "-1",
    "../../x",
    "alice ",
    "алиса",
    "a.b",
]


@pytest.mark.parametrize("name", A10, ids=ascii)
def test_a10_a_user_name_that_only_looks_like_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 32"):
        parse("user", name)


@given(st.text(max_size=70) | st.from_regex(r"\A[a-z0-9_.-]{0,66}\n?\Z"))
def test_a10_names_are_those_that_the_policy_knows(name: str) -> None:
    """rootd/config must not import policy: the two say the same, so that no name means two things."""
    for kind, other in (("name", names.service_name), ("user", names.user_name)):
        try:
            expected: str | None = other(name)
        except ValueError:
            expected = None
        try:
            assert parse(kind, name) == expected
        except ValueError:
            assert expected is None


def test_the_signals_are_those_that_the_policy_knows() -> None:
    for name in keys.SIGNALS.split("|"):
        assert names.signal_name(name) == name
        assert signal.Signals[f"SIG{name}"]


ADDRESSES = {
    "0.0.0.0:80": ("tcp:0.0.0.0:80", "inet", "stream", "0.0.0.0", 80, ""),
    "[::]:443": ("tcp:[::]:443", "inet6", "stream", "::", 443, ""),
    "[0:0::0001]:443": ("tcp:[::1]:443", "inet6", "stream", "::1", 443, ""),
    "[2001:DB8::A]:1": ("tcp:[2001:db8::a]:1", "inet6", "stream", "2001:db8::a", 1, ""),
    "udp:127.0.0.1:53": ("udp:127.0.0.1:53", "inet", "dgram", "127.0.0.1", 53, ""),
    "udp:[::1]:65535": ("udp:[::1]:65535", "inet6", "dgram", "::1", 65535, ""),
    "unix:/run/site.sock": ("unix:/run/site.sock", "unix", "stream", "", 0, "/run/site.sock"),
    "unix-dgram:/run/site": ("unix:/run/site", "unix", "dgram", "", 0, "/run/site"),
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_has_one_key(text: str) -> None:
    assert parse("address", text)[:6] == ADDRESSES[text]
    assert parse("addresses", text) == parse("addresses", [text]) == (parse("address", text),)


@pytest.mark.parametrize(
    "text",
    [
        "80", ":80", "*:80", "localhost:80", "0.0.0.0", "0.0.0.0:", "0.0.0.0:0", "0.0.0.0:65536", "0.0.0.0:080",
        "1.2.3:80", "256.0.0.1:80", "01.2.3.4:80", "[::]", "::1:80", "[::1%lo]:80", "[1.2.3.4]:80", "[g::]:80",
        "0.0.0.0:\u0668\u0660", "tcp:1.2.3.4:80", "0.0.0.0:80\n", "unix:", "unix:/", "unix:run", "unix:/a/../b",
        "unix:/a/", "unix:@x", "unix:\0x", "unix:/a\nb", "udp:unix:/a", "udp:/a", "unix:/" + "a" * 100,
        "unix:/" + "\xe9" * 50, 80, None, True,
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_address_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse("addresses", text)


def test_a_list_of_addresses_has_at_least_one_and_none_twice() -> None:
    with pytest.raises(ValueError, match="must be an address"):
        parse("addresses", [])
    with pytest.raises(ValueError, match="must be there only once"):
        parse("addresses", ["[::1]:80", "[0::1]:80"])


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key.section}.{key.name}")
def test_every_row_has_a_type_a_fitting_default_and_a_line_for_the_manual(key: keys.Key) -> None:
    assert key.doc
    assert "\n" not in key.doc
    if key.default is not REQUIRED and key.default is not None and key.type not in SECTIONS:
        parse(key.type, key.default)
    elif key.type in SECTIONS:
        assert key.type not in TYPES
        assert key.default in ({}, None)


def test_no_key_stands_twice() -> None:
    assert len({(key.section, key.name) for key in KEYS}) == len(KEYS)


def test_limits_are_the_kernels() -> None:
    assert {number: name for name, number in keys.LIMITS.items()}[resource.RLIMIT_NOFILE] == "nofile"
    unnamed = {"locks": 10, "rttime": 15}  # by Python
    known = {name: getattr(resource, f"RLIMIT_{name.upper()}") for name in keys.LIMITS if name not in unnamed}
    assert known | unnamed == keys.LIMITS
    assert sorted(keys.LIMITS.values()) == list(range(16))  # RLIM_NLIMITS: there are no others


@given(st.sampled_from([*TYPES, "1..9", "a|b", "[name]", "[0..255]"]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5,
))  # fmt: skip
def test_b5_no_value_raises_anything_but_a_sentence(kind: str, value: Any) -> None:
    try:
        parse(kind, value)
        text = "taken"
    except ValueError as error:
        text = str(error)
    assert text
