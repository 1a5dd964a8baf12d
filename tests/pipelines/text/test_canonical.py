"""Addresses of one page become one string; addresses of two pages never do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.canonical import canonical

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
        ("http://example.org:443/", "https://example.org:443/"),
        ("https://www.example.org/", "https://www.example.org/"),
        ("https://example.org/a%2fb", "https://example.org/a%2Fb"),
        ("https://example.org/caf\u00e9 1", "https://example.org/caf%C3%A9%201"),
        ("https://example.org/caf%c3%a9%201", "https://example.org/caf%C3%A9%201"),
        ("https://example.org/100%", "https://example.org/100%25"),
        ("https://example.org/a?b=%zz", "https://example.org/a?b=%25zz"),
        ("https://B\u00dcCHER.example/", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://[2001:DB8::1]:443/x", "https://[2001:db8::1]/x"),
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


@given(
    st.one_of(
        st.text(),
        st.builds(
            "{}://{}{}?{}#{}".format,
            st.sampled_from(["http", "https", "HTTP"]),
            st.sampled_from(["example.org", "b\u00fccher.example", "EXAMPLE.org:80", "[::1]"]),
            st.text("ab%/.;25eE\u00e9 ", max_size=12).map("/{}".format),
            st.text("ab=&%25 utm_x", max_size=12),
            st.text(max_size=3),
        ),
    )
)
def test_canonical_form_is_a_fixed_point(url: str) -> None:
    assert canonical(canonical(url)) == canonical(url)
