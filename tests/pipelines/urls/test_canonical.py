"""Addresses of one page become one string; addresses of two pages never do."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.urls.canonical import canonical

BASE = "https://example.org/a?x=1&y=2"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a?x=1&y=2",
        "HTTPS://EXAMPLE.org:443/a?x=1&y=2",
        "http://example.org:80/a?x=1&y=2",
        "https://example.org./a?x=1&y=2",
        "https://user:secret@example.org/a?x=1&y=2",
        "https://example.org/a?x=1&y=2#section",
        "https://example.org/a?y=2&x=1",
        "https://example.org/a?x=1&&y=2&",
        "https://example.org/a?utm_source=feed&x=1&UTM_Campaign=z&y=2&gclid=1&fbclid=2",
        "https://example.org/%61?x=1&y=2",
        "https://example.org/b/../a?x=1&y=2",
        "https://example.org/./a?x=1&y=2",
        "https://example.org/a;jsessionid=0A1B?x=1&y=2",
        "  https://example.org/a?x=1\n&y=2 ",
    ],
)
def test_same_page(url: str) -> None:
    assert canonical(url) == BASE


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org", "https://example.org/"),
        ("https://example.org/a/", "https://example.org/a/"),
        ("https://example.org/A", "https://example.org/A"),
        ("https://example.org:8080/a", "https://example.org:8080/a"),
        ("http://example.org:443/", "http://example.org:443/"),  # with `https` it would lose its port in a second pass
        ("https://example.org:80/", "https://example.org:80/"),
        ("https://example.org:/", "https://example.org/"),
        ("https://www.example.org/", "https://www.example.org/"),
        ("https://example.org/a%2fb", "https://example.org/a%2Fb"),
        ("https://example.org/caf\u00e9 1", "https://example.org/caf%C3%A9%201"),
        ("https://example.org/caf%c3%a9%201", "https://example.org/caf%C3%A9%201"),
        ("https://example.org/100%", "https://example.org/100%25"),
        ("https://example.org/a?b=%zz", "https://example.org/a?b=%25zz"),
        ("https://B\u00dcCHER.example/", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://XN--BCHER-KVA.example./", "https://xn--bcher-kva.example/"),
        ("https://b%C3%BCcher.example/", "https://xn--bcher-kva.example/"),
        ("https://ex%61mple.org/", "https://example.org/"),
        ("https://example。org/", "https://example.org/"),
        ("https://faß.example/", "https://xn--fa-hia.example/"),
        ("https://i❤.example/", "https://xn--i-7iq.example/"),  # refused by IDNA 2008, used by browsers
        ("https://bücher_1.example/", "https://xn--bcher_1-n2a.example/"),
        ("https://[2001:DB8::1]:443/x", "https://[2001:db8::1]/x"),
        ("https://[2001:DB8:0:0:0:0:0:1]/x", "https://[2001:db8::1]/x"),
        ("https://example.org/a;%6Asessionid=7/b", "https://example.org/a/b"),
        ("https://example.org/a/%2E%2E/b", "https://example.org/b"),
        ("https://example.org/a//b", "https://example.org/a//b"),
        ("https://example.org/%7Eme?q=a+b&r=%2f", "https://example.org/~me?q=a+b&r=%2F"),
        ("https://example.org/?", "https://example.org/"),
        ("https://example.org/?a", "https://example.org/?a"),
        ("https://example.org/?a=", "https://example.org/?a="),
        (
            "https://example.org/?ysclid=1&srsltid=2&gad_source=3&_openstat=4&mtm_kwd=5&PHPSESSID=6",
            "https://example.org/",
        ),
        ("https://example.org/?session_id=12&sid=3", "https://example.org/?session_id=12&sid=3"),  # may be a page's own
        ("https://example.org/\ud800", "https://example.org/%ED%A0%80"),
        ("https://example.org/?a=2&a=1", "https://example.org/?a=2&a=1"),
        ("https://example.org/?sutm_source=1", "https://example.org/?sutm_source=1"),
        ("https://example.org/a/../../b/..", "https://example.org/"),
        ("ftp://example.org:21/f", "ftp://example.org/f"),
        ("https://example.org:99999/a", "https://example.org:99999/a"),
        ("no address", "no address"),
        ("", ""),
    ],
)
def test_known_forms(url: str, expected: str) -> None:
    assert canonical(url) == expected


HOSTS = [
    "example.org",
    "bücher.example",
    "EXAMPLE.org:80",
    "[::1]",
    "user@x.org",
    "i❤.ws",
    "a_ü.com",
    "ex%61mple.org",
    "a.b..",
    "1.2.3.4:0443",
]


@settings(max_examples=1000, deadline=None)
@given(
    st.one_of(
        st.text(st.characters()),
        st.text("htps:/@[]?#%.;=&aüİß。", max_size=30),
        st.builds(
            "{}{}{}{}?{}#{}".format,
            st.sampled_from(["http://", "https://", "HTTP://", "ftp://", "//", "mailto:"]),
            st.one_of(st.sampled_from(HOSTS), st.text(st.characters(), max_size=8)),
            st.sampled_from(["", ":", ":80", ":443", ":8080"]),
            st.text("ab%/.;25eEé 6Ajsessionid=", max_size=20).map("/{}".format),
            st.text("ab=&%25 utm_x\n　+;", max_size=12),
            st.text(max_size=3),
        ),
    )
)
@example("A://%2¡1")
def test_every_string_has_a_canonical_form_and_that_is_a_fixed_point(url: str) -> None:
    assert canonical(canonical(url)) == canonical(url)
