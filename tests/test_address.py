"""URLs and addresses: what is taken, what is refused and with which sentence; nothing else is ever raised."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.address import Address, Headers, masked, parse_listen, parse_unix, parse_url


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://localhost:8080/health", Address("localhost", 8080, "/health")),
        ("HTTP://h", Address("h", 80, "/")),
        ("https://h?q=1", Address("h", 443, "/?q=1", tls=True)),
        ("http://[::1]:9090/metrics#part", Address("::1", 9090, "/metrics")),
        ("http://u:p%40@h:1/a@b", Address("h", 1, "/a@b", userinfo="u:p%40")),
    ],
)
def test_a_url_becomes_an_address(text: str, address: Address) -> None:
    assert parse_url(text) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("localhost:8080", "'localhost:8080': want a URL such as http://localhost:8080/health"),
        ("ftp://h/", "'ftp://h/': want a URL such as http://localhost:8080/health"),
        ("http://", "'http://': no host"),
        ("http://:80/", "'http://:80/': no host"),
        ("http://h:port/", "'http://h:port/': port 'port', want a number up to 65535"),
        ("http://h:65536/", "'http://h:65536/': port '65536', want a number up to 65535"),
        ("http://[::1/", "'http://[::1/': an IPv6 address stands in brackets, as in [::1]:8080"),
        ("http://h/ x", "'http://h/ x': a URL has no spaces and only ASCII; write others as %XX or xn--"),
        ("http://h/\r\nHost: evil", "'http://h/\\r\\nHost: evil': a URL has no spaces and only ASCII; "
         "write others as %XX or xn--"),
        ("http://me:secret@h:x/", "'http://***@h:x/': port 'x', want a number up to 65535"),
    ],
)  # fmt: skip
def test_a_url_that_is_none_gets_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"want|no host|brackets|spaces") as caught:
        parse_url(text)
    assert str(caught.value) == message


def test_an_address_to_listen_on() -> None:
    assert parse_listen("127.0.0.1:9710") == Address("127.0.0.1", 9710)
    assert parse_listen("[::]:0") == Address("::", 0)
    assert parse_listen("unix:/run/s.sock").unix == "/run/s.sock"
    assert parse_unix("unix:/run/s.sock:/livez") == Address("localhost", 80, "/livez", unix="/run/s.sock")
    for bad in ("9710", "h:", ":9710", "h:-1", "unix:"):
        with pytest.raises(ValueError, match=r"want|no host"):
            parse_listen(bad)


def test_the_host_header_has_the_port_where_it_is_not_the_usual_one() -> None:
    assert [parse_url(text).authority for text in ("http://h/", "http://h:81/", "https://[::1]/", "https://h:80/")] == [
        "h",
        "h:81",
        "[::1]",
        "h:80",
    ]


@given(st.text(max_size=60) | st.builds("http://{}".format, st.text(max_size=40)))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    for parse in (parse_url, parse_listen, parse_unix):
        with suppress(ValueError):
            assert parse(text).port <= 65535
    masked(text)


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=6), st.sampled_from(["/x", "", "?q", "#f"])
)
def test_a_password_is_never_shown(password: str, tail: str) -> None:
    assert password not in masked(f"http://user:{password}@{'h' * 3}{tail}")


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.none() | st.integers(), max_size=3))
def test_headers_are_one_line_each_or_refused(plain: dict[str, object]) -> None:
    with suppress(ValueError):
        assert all((name + value).isprintable() and ":" not in name for name, value in Headers.parse(plain))
