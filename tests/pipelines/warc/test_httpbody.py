"""HTTP bodies: every encoding, archives that removed it, and bodies that are not what they say."""

import gzip
import random
import time
import zlib

import brotli
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.warc.httpbody import TooLarge, Undecodable, dechunk, decode_body, is_html

LIMIT = 1 << 20
HTML = b"<html>" + b"some text " * 1000


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(HTML)),
        ("x-gzip", gzip.compress(HTML)),
        ("deflate", zlib.compress(HTML)),
        ("deflate", zlib.compress(HTML)[2:-4]),
        ("br", brotli.compress(HTML)),
        ("zstd", pa.compress(HTML, "zstd", asbytes=True)),
        ("gzip, br", brotli.compress(gzip.compress(HTML))),
        ("identity", HTML),
        ("gzip", HTML),
        ("deflate", HTML),
        ("br", HTML),
        ("made-up", HTML),
        ("gzip", gzip.compress(HTML[:99]) + gzip.compress(HTML[99:])),
        ("gzip", gzip.compress(HTML) + b"\0\0padding"),
    ],
)
def test_content_encodings_and_archives_that_removed_them(encoding, body):
    assert decode_body(body, "", encoding, LIMIT) == (HTML, False)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_decoding_stops_at_the_limit(encoding):
    packed = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": lambda data: brotli.compress(data, quality=1),
        "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
    }
    body = packed[encoding](bytes(50 << 20))
    with pytest.raises(TooLarge):
        decode_body(body, "", encoding, LIMIT)


NOISE = random.Random(2).randbytes(300_000).hex().encode()  # 600,000 bytes, which come out in several pieces
PACKERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=1),
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
}


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_body_of_just_the_limit_is_decoded_and_one_byte_more_is_not(encoding):
    packed = PACKERS[encoding](NOISE)
    assert decode_body(packed, "", encoding, len(NOISE)) == (NOISE, False)
    with pytest.raises(TooLarge):
        decode_body(packed, "", encoding, len(NOISE) - 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_came_before_damage_is_kept_and_known_for_a_part(encoding):
    packed = bytearray(PACKERS[encoding](NOISE))
    at = len(packed) * 9 // 10
    packed[at : at + 64] = b"\xff" * 64
    body, cut = decode_body(bytes(packed), "", encoding, LIMIT)
    assert cut
    assert len(body) > 100_000
    same = sum(map(int.__eq__, body, NOISE))
    assert same > len(body) * 0.8


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (b"\0\1", "made-up", "content encoding 'made-up' is unknown"),
        (b"\x1f\x8b\x08\xff\xff", "gzip", "does not inflate"),
        (b"\xff" * 9, "deflate", "does not inflate"),
        (b"\xff" * 9, "br", "is not Brotli"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 9, "zstd", "is not Zstandard"),
        (b"a" * 1023 + b"\0", "deflate", "does not inflate"),
        (b"<html>", "gzip, br, gzip, deflate, br, gzip", "has 6 encodings, and more than 5 are refused"),
    ],
)
def test_a_refused_body_is_named_with_what_is_wrong(body, encoding, message):
    with pytest.raises(Undecodable, match=message):
        decode_body(body, "", encoding, LIMIT)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"a" * 1024 + b"\0", "deflate"),  # only the first kibibyte tells
        (b"", "br"),
        (b"\0\1 no gzip", " GZIP "),
        (b"\0\1 no zstd", "ZSTD"),
        (b"\0\1 as it is", "Identity, none,"),
    ],
)
def test_a_body_that_shows_no_encoding_stays(body, encoding):
    assert decode_body(body, "", encoding, LIMIT) == (body, False)


@pytest.mark.parametrize(
    "start", [b"%PDF-", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"PK\3\4", b"\x1f\x8b", b"RIFF", b"\0\0\0\x18ftyp"]
)
def test_what_begins_as_a_known_binary_format_is_no_html(start):
    assert not is_html("text/html", start + b"<html>")
    assert is_html("text/html", b"." + start + b"<html>")


@pytest.mark.parametrize(("blanks", "answer"), [(1019, True), (1020, False)])
def test_the_first_tag_is_looked_for_in_the_first_kibibyte(blanks, answer):
    assert is_html("", b" " * blanks + b"<html>") is answer


def test_five_encodings_come_off_and_six_do_not():
    body = HTML
    for _ in range(5):
        body = gzip.compress(body)
    assert decode_body(body, "identity", "gzip," * 5, LIMIT) == (HTML, False)
    with pytest.raises(Undecodable, match="has 6 encodings"):
        decode_body(body, "chunked", "gzip," * 5, LIMIT)


@pytest.mark.parametrize("inner", [b"", b"some words"])
def test_many_members_are_joined_in_the_time_of_one(inner):
    body = gzip.compress(HTML) + gzip.compress(inner) * 50_000 + gzip.compress(b"end")
    began = time.process_time()
    assert decode_body(body, "", "gzip", LIMIT) == (HTML + inner * 50_000 + b"end", False)
    assert time.process_time() - began < 2


def test_a_gzip_body_without_its_end_keeps_what_came():
    body, cut = decode_body(gzip.compress(bytes(range(256)) * 4000)[:-2000], "", "gzip", 8 << 20)
    assert cut
    assert 0 < len(body) < 256 * 4000
    assert (bytes(range(256)) * 4000).startswith(body)


def test_a_body_that_is_nothing_of_the_sort():
    with pytest.raises(Undecodable):
        decode_body(b"\xff\xff\xff\xff", "", "deflate", LIMIT)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.sampled_from([b"", b";ext=1", b"  "]))
def test_dechunk_is_the_inverse_of_chunking(chunks, extension):
    body = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\nTrailer: 1\r\n\r\n"
    assert dechunk(body) == (b"".join(chunks), False)


def test_wrong_chunk_sizes_lose_nothing():
    assert dechunk(b"00000005\nhello\n\t1 ;x=y\r\n!0\r\n") == (b"hello!", False)
    assert dechunk(b"000000005\r\nhello\r\n0\r\n") == (b"000000005\r\nhello\r\n0\r\n", False)  # nine digits are none
    assert dechunk(b"<html>not chunked</html>") == (b"<html>not chunked</html>", False)
    assert dechunk(b"5\r\nhello\r\nzzz\r\nworld") == (b"hellozzz\r\nworld", False)
    assert dechunk(b"ff\r\nshort") == (b"short", True)
    assert dechunk(b"5\r\nshort\r\n") == dechunk(b"5\r\nshort") == (b"short", True)


@pytest.mark.parametrize(
    ("mime", "body", "answer"),
    [
        ("text/html", b"words without tags", True),
        ("text/html", b"", False),
        ("text/html", b"  %PDF-1.4", False),
        ("text/plain", b"\xef\xbb\xbf <!-- x --> <!DOCTYPE html><p>", True),
        ("", b"<?xml version='1.0'?>\n<html xmlns='x'>", True),
        ("application/xml", b"<rss></rss>", False),
        ("application/octet-stream", b"<HTML>", True),
        ("", b"<?xml version='1.0'?> <!-- one --> <!-- two --><!----> <html>", True),
        ("text/plain", b"<!-- a comment ends here --> and words follow --> <html>", False),
    ],
)
def test_is_html(mime, body, answer):
    assert is_html(mime, body) is answer


@pytest.mark.parametrize(
    "start", [b"<!---->" * 146, b"<!-- -->" * 128, b"<?xml" + b"<!---->" * 145, b"<!--" * 256, b"<!-- -->\n" * 113]
)
def test_a_head_full_of_comments_is_read_once(start):
    """Taken back one by one, the comments of one kibibyte would be read in 2^146 ways."""
    began = time.process_time()
    assert not is_html("text/plain", start)
    assert time.process_time() - began < 1


@given(
    st.binary(max_size=300),
    st.lists(st.sampled_from(["gzip", "deflate", "br", "zstd"]), max_size=3),
    st.booleans(),
)
def test_encodings_on_top_of_each_other_come_off_in_turn(content, encodings, chunked):
    pack = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": brotli.compress,
        "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
    }
    body = b"<html>" + content
    for name in encodings:
        body = pack[name](body)
    if chunked:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert decode_body(body, "chunked" * chunked, ", ".join(encodings), LIMIT) == (b"<html>" + content, False)


@given(st.binary(max_size=300), st.sampled_from(["", "gzip", "deflate", "br", "zstd", "x"]), st.booleans())
def test_whatever_the_bytes_a_body_is_decoded_or_refused(body, encoding, chunked):
    try:
        assert len(decode_body(body, "chunked" * chunked, encoding, 1000)[0]) <= max(1000, len(body))
    except (TooLarge, Undecodable):
        assert encoding
    assert is_html("", body) in (True, False)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", brotli.compress), ("zstd", PACKERS["zstd"])],
)
def test_half_an_encoded_body_is_known_for_one(encoding, pack):
    whole = b"words" + NOISE
    packed = pack(whole)
    body, cut = decode_body(packed[: len(packed) // 2], "", encoding, LIMIT)
    assert cut
    assert len(body) > 1000
    assert whole.startswith(body)


def test_the_second_member_of_a_gzip_body_may_be_cut_too():
    body, cut = decode_body(gzip.compress(HTML) + gzip.compress(HTML)[:-9], "", "gzip", LIMIT)
    assert cut
    assert (HTML * 2).startswith(body)
    assert len(body) > len(HTML)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip", "zstd", "utf-8"])
@pytest.mark.parametrize("body", [b"\xef\xbb\xbf<html>x", b"\xef\xbb\xbf \n<p>x", b"plain text", "Grüße".encode()])
def test_a_body_stored_decoded_stays_as_it_is(encoding, body):
    assert decode_body(body, "", encoding, LIMIT) == (body, False)


def test_the_beginning_of_a_brotli_body_of_which_nothing_comes_out():
    with pytest.raises(Undecodable):
        decode_body(brotli.compress(HTML)[:3], "", "br", LIMIT)
