"""The compiled words and shingles against plain Python, over all of Unicode."""

import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.text import folding
from pipelines.text.folding import normalize
from pipelines.text.hashing import buffers, shingles, word_hashes
from pipelines.text.mixing import mix64, ngram_hashes

MASK = 2**64 - 1


def hash_word(word: str) -> int:
    """What the kernel computes of one folded word, in Python's own integers."""
    state = 0x243F6A8885A308D3
    for letter in word:
        state = ((state ^ ord(letter)) * 0x9E3779B97F4A7C15 & MASK) ^ (state >> 29)
    return int(mix64(np.uint64(state)))


def hash_all(texts: list[str]) -> list[list[int]]:
    found = word_hashes(*buffers(pa.array(texts, pa.string())))
    return [found.hashes[low:high].tolist() for low, high in zip(found.bounds, found.bounds[1:], strict=False)]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=5))
@example(
    [
        "が か\u3099 ｶﾞ 한글 ΟΔΥΣΣΕΥΣ Ὀδυσσεύς İstanbul ﬁx 12,345.6 na\u0301ive so\u00adft 漢字々 สวัสดี हिन्दी ½ 𝒜 𐐀 🙂 \u0661\u0662"
    ]
)
def test_words_equal_those_of_normalize(texts: list[str]) -> None:
    assert hash_all(texts) == [[hash_word(word) for word in normalize(text).split()] for text in texts]


TAG = st.sampled_from(
    ["<b>", "</b>", "<br/>", "<br />", "</p", "<a href", '<a\thref = "x y"', ">", "<", "/", "|", " ", "=", "é", "x", "7", "-", "_", ":", "\x0b", "\n"]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(TAG, max_size=20).map("".join))
@example('he <b>bought</b> 3<br/>of <a href="x" class=y>them</a>|<i >a</ i><_b><1><b and c><b =x><a\x0bb=c><b c=')
def test_tags_end_where_those_of_normalize_do(text: str) -> None:
    assert hash_all([text]) == [[hash_word(word) for word in normalize(text).split()]]


def test_every_character() -> None:
    everything = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    texts = ["x".join(everything[at : at + 5000]) for at in range(0, len(everything), 5000)]
    assert hash_all(texts) == [[hash_word(word) for word in normalize(text).split()] for text in texts]


def test_shingles_are_the_ngrams_of_the_words() -> None:
    texts = ["a b c d e f g", "a b", "", "?!", "a b", "one two three"]
    found = shingles(*buffers(pa.array(["cut off", *texts]).slice(1)), 3)
    words = word_hashes(*buffers(pa.array(texts)))
    sets = [found.hashes[low:high].tolist() for low, high in zip(found.bounds, found.bounds[1:], strict=False)]
    assert sets[0] == ngram_hashes(words.hashes[:7], 3).tolist()
    assert sets[1] == sets[4] == ngram_hashes(words.hashes[7:9], 2).tolist()
    assert [len(one) for one in sets] == [5, 1, 1, 1, 1, 1]
    assert sets[2] != sets[3]
    assert [sets[2], sets[3]] == [[hash_bytes(b"")], [hash_bytes(b"?!")]]


def hash_bytes(data: bytes) -> int:
    """What the kernel makes of a text without words."""
    state = 0x13198A2E03707344
    for byte in data:
        state = ((state ^ byte) * 0x9E3779B97F4A7C15 & MASK) ^ (state >> 29)
    return int(mix64(np.uint64(state)))


def test_half_a_character_at_a_texts_end_counts_as_its_byte_and_never_reads_the_next_text() -> None:
    texts = pa.array([b"a \xc3", b"\xa9 b", b"a \xe3", b"a \xf0", b"\x90\x80\x80"], pa.binary())
    found = word_hashes(*buffers(texts))
    sets = [found.hashes[low:high].tolist() for low, high in zip(found.bounds, found.bounds[1:], strict=False)]
    for number, text in ((0, "a \xc3"), (2, "a \xe3"), (3, "a \xf0")):
        assert sets[number] == [hash_word(word) for word in normalize(text).split()]


def test_buffers_of_every_kind_of_string_array() -> None:
    for kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        data, offsets = buffers(pa.array(["cut", "é", "ab"], kind).slice(1))
        assert [bytes(data[low:high]) for low, high in pairwise(offsets)] == ["é".encode(), b"ab"]
        assert offsets.dtype == np.int64
    data, offsets = buffers(pa.chunked_array([["a"], ["b", "c"]]))
    assert (bytes(data), offsets.tolist()) == (b"abc", [0, 1, 2, 3])
    data, offsets = buffers(pa.array([], pa.string()))
    assert (len(data), offsets.tolist()) == (0, [0])


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "7", "!", "é"]), max_size=8).map(" ".join), min_size=2, max_size=2),
    st.integers(1, 4),
)
@example(["!", "?"], 2)
@example(["a b", "a  B!"], 3)
@example(["", "a"], 1)
def test_two_texts_share_as_many_compiled_shingles_as_plain_ones(texts: list[str], n: int) -> None:
    found = shingles(*buffers(pa.array(texts)), n)
    one, other = (set(found.hashes[low:high].tolist()) for low, high in pairwise(found.bounds))
    plain, also = (folding.shingles(text, n) for text in texts)
    assert (len(one), len(other), len(one & other)) == (len(plain), len(also), len(plain & also))
