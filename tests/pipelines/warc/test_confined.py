"""What is decoded in the child is what `decode_body` makes of it, and the worker outlives every body."""

import gzip
import os
import zlib
from collections import deque

import brotli
import pyarrow as pa
import pytest

from pipelines.warc import confined
from pipelines.warc.confined import decode_confined
from pipelines.warc.httpbody import TooLarge, Undecodable, decode_body

TEXT = bytes(range(256)) * 40 + "Grüße\n".encode()
GZIP, BROTLI, ZSTD = gzip.compress(TEXT), brotli.compress(TEXT), pa.compress(TEXT, "zstd", asbytes=True)


@pytest.fixture(autouse=True)
def fresh_child():
    confined.guard_for.cache_clear()
    yield
    confined.guard_for.cache_clear()


def outcome(decode, *given):
    try:
        return decode(*given)
    except (TooLarge, Undecodable) as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    ("body", "transfer", "content"),
    [
        (GZIP, "", "gzip"),
        (GZIP[:-20], "", "gzip"),
        (BROTLI, "", "br"),
        (ZSTD, "", "zstd"),
        (zlib.compress(TEXT), "", "deflate"),
        (b"%x\r\n%b\r\n0\r\n\r\n" % (len(GZIP), GZIP), "chunked", "gzip"),
        (b"5\r\nhel", "chunked", ""),
        (b"\x00\x01\x02", "", "br"),
        (b"\x00\x01\x02", "", "a new one"),
        (GZIP, "", ", ".join(["gzip"] * 6)),
        (b"<p>as it is", "chunked", "gzip"),
        (b"<p>as it is", "", ", ".join(["gzip"] * 6)),
        (b"", "chunked", "gzip"),
        (TEXT, "", ""),
        (gzip.compress(bytes(1 << 20)), "", "gzip"),
    ],
)  # fmt: skip
def test_the_child_decodes_as_the_worker_would(body, transfer, content):
    given = (body, transfer, content, len(TEXT))
    assert outcome(decode_confined, *given) == outcome(decode_body, *given)


def test_only_what_needs_a_decoder_goes_to_the_child(monkeypatch):
    monkeypatch.setattr(confined, "guard_for", lambda limit: pytest.fail("asked"))
    for given in ((b"<p>text", "chunked", "gzip"), (b"text", "", ""), (b"text", "", "identity"), (b"", "", "br")):
        assert decode_confined(*given, 99) == (given[0], False)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda *_: os.abort(), "its decoder ended: memory, SIGABRT"),
        (lambda *_: os._exit(3), "its decoder ended: failed, exit 3"),
        (lambda *_: bytes(1 << 30), "its decoder ended: memory, 192 MiB"),
        (lambda *_: deque(iter(int, 1), maxlen=0), r"its decoder ended: timeout, 0\.5 s"),
    ],
)
def test_a_decoder_that_is_taken_over_costs_its_page_alone(monkeypatch, act, message):
    monkeypatch.setattr(confined, "SECONDS", 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(confined, "decode_body", act)
        with pytest.raises(Undecodable, match=message):
            decode_confined(GZIP, "", "gzip", len(TEXT))
        confined.guard_for.cache_clear()
    assert decode_confined(GZIP, "", "gzip", len(TEXT)) == (TEXT, False)
