"""Pages made to stall or break a worker, one each: `hostile_pages()` yields (name, content encoding, body as sent)."""

import gzip
import zlib
from collections.abc import Iterator

import brotli


def hostile_pages(scale: float = 1.0) -> Iterator[tuple[str, str, bytes]]:
    """At scale 1 the sizes are the full ones; a test of seconds takes less."""

    def times(count: int) -> int:
        return max(1, int(count * scale))

    yield "attributes", "", b"<html><body><p " + b" ".join(b'a%d="x"' % n for n in range(times(300_000))) + b">x</p>"
    yield "paragraphs", "", b"<html><body>" + b"<p>some words stand here</p>" * times(200_000)
    yield "nested_divs", "", b"<html><body>" + b"<div>" * times(100_000) + b"text" + b"</div>" * times(100_000)
    yield "one_text_node", "gzip", gzip.compress(b"<html><body><p>" + b"word " * times(10_000_000), 1)
    zeros = b"<html><body>" + b" " * times(1 << 28)
    yield "bomb_gzip", "gzip", gzip.compress(zeros, 6)
    yield "bomb_deflate", "deflate", zlib.compress(zeros, 6)
    yield "bomb_brotli", "br", brotli.compress(zeros, quality=3)
    yield "bomb_twice", "gzip, gzip", gzip.compress(gzip.compress(zeros, 6), 6)
    chain = b"".join(b'<!ENTITY e%d "&e%d;&e%d;">' % (n, n - 1, n - 1) for n in range(1, 64))
    yield "entities", "", b'<!DOCTYPE html [<!ENTITY e0 "ha">' + chain + b"]><html><body><p>&e63;</p></body></html>"
    yield "references", "", b"<html><body><p>" + b"&amp;&#x41;&#0;&#xD800;&nosuch;" * times(100_000)
    yield "nul_bytes", "", b"<html><body><p>" + b"wo\x00rd " * times(100_000) + b"</p>"
    yield "surrogates", "", b"<html><meta charset=utf-8><body><p>" + b"\xed\xa0\x80 text \xed\xb0\x80" * times(50_000)
    yield "unclosed_comment", "", b"<html><body><p>some text</p>" + b"<!-- " * times(500_000)
    yield "unclosed_tags", "", b"<html><body>" + b"<a href=x><b><i>" * times(60_000) + b"text"
    yield "tables", "", b"<html><body>" + b"<table><tr><td>" * times(20_000) + b"text"
    yield "long_attribute", "", b'<html><body><p class="' + b"comment " * times(1_000_000) + b'">text</p>'
    yield "utf16_half", "", b"\xff\xfe" + b"<\x00p\x00>\x00\x00\xd8" * times(100_000)
