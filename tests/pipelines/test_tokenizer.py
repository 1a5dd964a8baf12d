"""Byte-level BPE: every text comes back, special tokens keep their ids, a text cannot smuggle one in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from contract.chat import END_OF_TEXT, PAD, RESERVED, SMALLEST_VOCABULARY, SPECIAL_TOKENS
from contract.errors import RecipeError
from contract.recipe import parse
from pipelines.pack import load_tokenizer
from pipelines.tokenizer import batched, bytes_per_token, train

TEXTS = ["the cat sat on the mat, the cat sat still", "a cat and the mat; na\u00efve caf\u00e9s"] * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(train(TEXTS, 344, 2).to_str().encode())


def test_special_tokens_and_bytes_are_in_every_vocabulary(tokenizer: Tokenizer) -> None:
    assert (END_OF_TEXT, PAD) == ("<|endoftext|>", "<|pad|>")
    assert len(SPECIAL_TOKENS) == len(set(SPECIAL_TOKENS.values())) == 5 + RESERVED == 69
    assert SPECIAL_TOKENS["reserved_63"] == "<|reserved_63|>"
    special = [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS.values()]
    assert sorted(special) == list(range(69))
    assert tokenizer.get_vocab_size() == 344
    single = {tokenizer.id_to_token(number) for number in range(69, SMALLEST_VOCABULARY)}
    assert {len(token) for token in single} == {1}
    assert len(single) == 256


def test_known_merges(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("the cat").tokens == ["the", "\u0120cat"]
    assert tokenizer.encode("xyz").tokens == ["x", "y", "z"]


@given(st.text())
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_special_tokens_in_a_text_are_plain_text(tokenizer: Tokenizer) -> None:
    for token in SPECIAL_TOKENS.values():
        text = f"before {token} after"
        assert min(tokenizer.encode(text).ids) >= len(SPECIAL_TOKENS)
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True) == text


def test_a_vocabulary_that_cannot_hold_every_byte_is_refused() -> None:
    assert parse("tokenizer: {vocab_size: 325}", "here").tokenizer.vocab_size == 325
    with pytest.raises(
        RecipeError,
        match=r"tokenizer\.vocab_size: should be at least 325, for 69 special tokens and 256 bytes, got 324",
    ):
        parse("tokenizer: {vocab_size: 324}", "here")
    assert train(TEXTS, 325, 1).get_vocab_size() == 325


def test_too_small_a_corpus_gives_a_smaller_vocabulary() -> None:
    assert train(["ab ab ab"], 1000, 2).get_vocab_size() == 69 + 256 + 2  # "ab" and " ab"


def test_training_twice_gives_the_same_file() -> None:
    texts = [f"word{number % 37} other{number % 11} the text" for number in range(2000)]
    assert train(texts, 400, 2).to_str() == train(texts, 400, 2).to_str()


def test_bytes_per_token(tokenizer: Tokenizer) -> None:
    assert bytes_per_token(tokenizer, ["the cat", "\u00e9"]) == 9 / (2 + len(tokenizer.encode("\u00e9").ids))
    assert bytes_per_token(tokenizer, []) is None


def test_batched() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []


def test_stage(
    make_document: Any, make_corpus: Any, commit_documents: Any, run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.spark.job.start_context", lambda *_: pytest.fail("Spark was started"))
    texts = [f"{chr(97 + number % 26) * 3}{chr(97 + number % 17) * 4} and more" for number in range(40)]
    rows = [make_document(text, name=str(number)) for number, text in enumerate(texts)]
    size = [len(text.encode()) for text in texts]
    run = make_corpus(
        [[rows]], {"tokenizer.vocab_size": 364, "tokenizer.min_frequency": 1, "tokenizer.sample_bytes": sum(size[:11])}
    )
    commit_documents(run, "mix", "all", [rows[:9], rows[9:]])
    (done,) = run_stage(run, "tokenizer")
    assert done.metrics == {
        "vocab_size": 364,
        "sample_bytes": sum(size[:11]),
        "sample_documents": 11,
        "heldout_bytes_per_token": None,
    }
    (file,) = done.of("tokenizer")
    assert run.store.read_bytes(file.path).decode() == train(texts[:11], 364, 1).to_str()
