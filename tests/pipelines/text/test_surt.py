"""The sort-friendly form of addresses, and the ranges that a search means."""

import pytest

from pipelines.text.surt import SURT_CHARS, ranges, surt


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("http://www.example.org/a?b=1#c", "org,example,www)/a?b=1"),
        ("https://WWW.Example.org:443/A", "org,example,www)/A"),
        ("https://example.org", "org,example)/"),
        ("http://example.org:80", "org,example)/"),
        ("http://example.org:8080/x", "org,example:8080)/x"),
        ("http://user:word@example.org./x", "org,example)/x"),
        ("http://192.168.1.10/x", "192.168.1.10)/x"),
        ("http://[2001:DB8::1]/x", "[2001:db8::1])/x"),
        ("//example.org/a//b", "org,example)/a//b"),
        (" https://example.org/ ", "org,example)/"),
        ("no address", "no address"),
        ("", ""),
        ("https:///x", "https:///x"),
    ],
)
def test_an_address_begins_with_its_host_from_right_to_left(url, form):
    assert surt(url) == form


def test_a_long_address_is_cut():
    assert surt("https://example.org/" + "a" * 200) == ("org,example)/" + "a" * 200)[:SURT_CHARS]
    assert len(surt("x" * 500)) == SURT_CHARS


@pytest.mark.parametrize(
    ("asked", "found", "others"),
    [
        ("example.org", ["http://example.org/", "https://www.example.org/a", "https://example.org:81/"], ["https://example.orgx/", "https://myexample.org/"]),
        ("Example.ORG", ["https://a.b.example.org/"], ["https://example.org.evil.com/"]),
        ("example.org/a", ["https://example.org/a", "http://example.org/abc"], ["https://example.org/", "https://www.example.org/a"]),
        ("https://example.org/a?", ["https://example.org/a?x=1"], ["https://example.org/a"]),
        ("http://example.org", ["https://example.org/a"], ["https://www.example.org/"]),
    ],
)  # fmt: skip
def test_a_host_means_its_subdomains_and_an_address_all_that_begins_so(asked, found, others):
    def holds(url):
        return any(surt(url).startswith(prefix) for prefix in ranges(asked))

    assert [holds(url) for url in found] == [True] * len(found)
    assert [holds(url) for url in others] == [False] * len(others)
