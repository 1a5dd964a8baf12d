"""The compiled byte-level BPE against the tokenizers library: the same words, and the same tokens, of every text."""

import json
import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from contract.chat import SPECIAL_TOKENS
from contract.settings.corpus import Tokenizer as TokenizerSettings
from pipelines.text.hashing import buffers
from pipelines.vocabulary import bytebpe
from pipelines.vocabulary.encoding import Encoder
from pipelines.vocabulary.training import train

TEXTS = [
    "the cat sat on the mat, and the cats' mats weren't the cat's; they'll say we've, I'm, you're, he'd it",
    "in 1984 and 2024, 12345 of 67.89 % was 1,000,000 or ½ of ² or ⅷ",
    "наконец-то кошка села на коврик, а коврик сел на кошку",
    "今天天气很好，我们去公园散步吧。今天我们不去公园。",
    "def f(x):\n    return x  # done\n\n\n\tif x:\n\t\tpass\r\n",
    "caf\u00e9 cafe\u0301 \U0001f600\U0001f600 \u00a0\u00a0\u3000x \u2028\u2029 a\u200bb",
]
PIECES = st.sampled_from(
    [*" \n\t\r'.-1²é中👩\u0301\u00a0\u3000\x1c\x85\u200b", "  ", "'s", "'ll", "'re", " the", "cat", "12", "<|user|>"]
)
MIXED = st.lists(st.one_of(PIECES, st.characters(exclude_categories=["Cs"])), max_size=30).map("".join)


def made(digits: bool, size: int = 500) -> bytes:
    settings = TokenizerSettings(vocab_size=size, split_digits=digits)
    return train(TEXTS * 3, settings, [*SPECIAL_TOKENS.values()]).to_str().encode()


@pytest.fixture(scope="module", params=[False, True], ids=["runs of digits", "single digits"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return Encoder(made(request.param), 3)


def words(text: str, digits: bool) -> list[bytes]:
    data, at, found = np.frombuffer(text.encode(), np.uint8), 0, []
    while at < len(data):
        after = bytebpe._word(data, at, len(data), bytebpe.classes(), digits)
        found.append(bytes(data[at:after]))
        at = after
    return found


@pytest.mark.parametrize("digits", [False, True])
def test_every_character_makes_the_words_that_it_makes_in_the_library(digits: bool) -> None:
    """All code points but those within a block of thousands alike, beside letters, digits, white space and others."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    single = pre_tokenizers.Digits(individual_digits=True)
    library = pre_tokenizers.Sequence([single, level]) if digits else level
    byte = {character: number for number, character in enumerate(bytebpe.byte_characters())}
    alike = [(0x4E10, 0x9FF0), (0xAC10, 0xD7A0), (0xD800, 0xF8FF), (0x20010, 0x2A6D0), (0xF0010, 0x110000)]
    skipped = {point for first, last in alike for point in range(first, last)}
    known = [point for point in range(sys.maxunicode + 1) if bytebpe.classes()[point] and point not in skipped]
    assert len(known) > 60_000
    for point in known:
        one = chr(point)
        text = f"a{one}b{one}{one}1{one}. {one} '{one}s  {one}"
        expected = [bytes(byte[character] for character in word) for word, _ in library.pre_tokenize_str(text)]
        assert words(text, digits) == expected, hex(point)


@settings(max_examples=500)
@given(texts=st.lists(MIXED, min_size=1, max_size=5))
def test_tokens_are_those_of_the_library(encoder: Encoder, texts: list[str]) -> None:
    tokens, sizes = encoder.encode(pa.array(texts))
    expected, expected_sizes = encoder._by_library(texts)
    assert sizes.tolist() == expected_sizes.tolist()
    assert tokens.tolist() == expected.tolist()


def test_texts_of_the_training_set_use_its_merges(encoder: Encoder) -> None:
    assert encoder._merges is not None
    tokens, sizes = bytebpe.encode(encoder._merges, *buffers(pa.array(TEXTS)), 3)
    expected, expected_sizes = encoder._by_library(TEXTS)
    assert (tokens.tolist(), sizes.tolist()) == (expected.tolist(), expected_sizes.tolist())
    assert len(tokens) < 0.6 * sum(len(text.encode()) for text in TEXTS)
    assert tokens[np.cumsum(sizes) - 1].tolist() == [3] * len(TEXTS)


def test_real_texts(encoder: Encoder, data_dir: Any) -> None:
    lines = (data_dir / "text" / "llama-factory" / "c4_demo.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    tokens, sizes = encoder.encode(pa.array(texts))
    expected, expected_sizes = encoder._by_library(texts)
    assert np.array_equal(tokens, expected)
    assert np.array_equal(sizes, expected_sizes)


def test_what_it_does_not_know_is_left_to_the_library(encoder: Encoder) -> None:
    """A character that this Python's Unicode lacks, and a word that is too long; their neighbours are not."""
    unknown = next(chr(point) for point in range(0x1000, 0x20000) if not bytebpe.classes()[point])
    longest = "x" * bytebpe.LONGEST_WORD
    texts = ["one", f"two{unknown}", longest, "", longest + "x", unknown, "three"]
    assert encoder._merges is not None
    tokens, sizes = bytebpe.encode(encoder._merges, *buffers(pa.array(texts)), 3)
    assert (sizes > 0).tolist() == [True, False, True, True, False, False, True]
    assert sizes[3] == 1, "an empty text is its end alone"
    assert len(tokens) == sizes.sum()
    whole, whole_sizes = encoder.encode(pa.array(texts))
    expected, expected_sizes = encoder._by_library(texts)
    assert (whole.tolist(), whole_sizes.tolist()) == (expected.tolist(), expected_sizes.tolist())


def test_a_slice_of_an_arrow_column_is_read_where_it_lies(encoder: Encoder) -> None:
    column = pa.chunked_array([["zero"], ["one 1", "two"], ["three"]]).slice(1, 2)
    tokens, sizes = encoder.encode(column)
    expected, expected_sizes = encoder._by_library(["one 1", "two"])
    assert (tokens.tolist(), sizes.tolist()) == (expected.tolist(), expected_sizes.tolist())


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}},
        {"model": {"dropout": 0.1}},
        {"model": {"ignore_merges": True}},
        {"model": {"byte_fallback": True}},
        {"model": {"end_of_word_suffix": "</w>"}},
        {"model": {"continuing_subword_prefix": "##"}},
        {"model": {"type": "WordPiece"}},
        {"lost": "é"},
        {"added": True},
    ],
    ids=str,
)
def test_another_tokenizer_is_left_to_the_library(change: dict[str, Any]) -> None:
    spec = json.loads(made(False))
    assert bytebpe.merges_of(spec) is not None
    if "lost" in change:
        del spec["model"]["vocab"][bytebpe.byte_characters()[0xC3]]
    elif "added" in change:
        tokenizer = Tokenizer.from_str(json.dumps(spec))
        tokenizer.add_tokens(["tool"])
        spec = json.loads(tokenizer.to_str())
    elif "model" in change:
        spec["model"] |= change["model"]
    else:
        spec |= change
    assert bytebpe.merges_of(spec) is None
    encoder = Encoder(made(False), 3)
    encoder._merges = None
    tokens, sizes = encoder.encode(pa.array(["the cat", "sat"]))
    assert (len(tokens), sizes[1], tokens[-1]) == (sizes.sum(), len(tokens) - sizes[0], 3)


def test_merges_are_read_as_pairs_and_as_the_older_text() -> None:
    spec = json.loads(made(True))
    again = json.loads(made(True))
    again["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]
    one, other = bytebpe.merges_of(spec), bytebpe.merges_of(again)
    assert one is not None
    assert other is not None
    assert all(np.array_equal(left, right) for left, right in zip(one.table, other.table, strict=True))
    assert (one.digits, other.digits) == (True, True)


def test_a_vocabulary_of_bytes_alone_merges_nothing() -> None:
    spec = json.loads(made(False))
    spec["model"]["merges"] = []
    merges = bytebpe.merges_of(spec)
    assert merges is not None
    tokens, sizes = bytebpe.encode(merges, *buffers(pa.array(["the cat"])), 3)
    assert (sizes.tolist(), tokens.tolist()) == ([8], [*merges.first[list(b"the cat")].tolist(), 3])


def test_a_truncation_in_the_file_cuts_no_document() -> None:
    tokenizer = Tokenizer.from_str(made(False).decode())
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=99)
    encoder = Encoder(tokenizer.to_str().encode(), 3)
    encoder._merges = None
    _, sizes = encoder.encode(pa.array(["x y z " * 50, "x"]))
    assert sizes[0] > 99
    assert sizes[1] == 2


def test_words_of_the_longest_length_take_time_in_proportion_to_the_text(encoder: Encoder) -> None:
    """The search for pairs takes the square of a word's length, so words are bounded: eight times the text, not 64 times."""

    def seconds(count: int) -> float:
        text = pa.array([" ".join(["ab" * (bytebpe.LONGEST_WORD // 2 - 1)] * count)])
        started = time.process_time()
        encoder.encode(text)
        return time.process_time() - started

    seconds(1)
    assert seconds(160) < 24 * max(seconds(20), 0.005)
