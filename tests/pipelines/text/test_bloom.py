"""BLOOM's measures against plain readings of their definitions, and bad words."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError
from contract.settings import Bloom
from pipelines.schema import Drop
from pipelines.text import badwords, bloom
from pipelines.text.rules import bloom_rules, decide
from pipelines.text.words import Text

SMALL = st.text(alphabet="ab é漢", max_size=60)


def slow_char_repetition(text, n):
    counts = sorted(Counter(text[i : i + n] for i in range(len(text) - n + 1)).values(), reverse=True)
    largest = min(math.isqrt(len(counts)), sum(count > 1 for count in counts))
    return sum(counts[:largest]) / sum(counts) if largest else 0.0


@given(SMALL, st.integers(1, 10))
def test_char_repetition_equals_the_definition(text, n):
    assert bloom.char_repetition(text, n) == pytest.approx(slow_char_repetition(text, n))


@given(st.lists(st.sampled_from(["a", "B", "b", "c"]), max_size=30), st.integers(1, 5))
def test_word_repetition_equals_the_definition(words, n):
    grams = [tuple(word.lower() for word in words[i : i + n]) for i in range(len(words) - n + 1)]
    expected = sum(grams.count(gram) > 1 for gram in grams) / len(grams) if grams else 0.0
    assert bloom.word_repetition(words, n) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0.0), ("abcd", 0.0), ("ab 1", 0.5), ("!!!!", 1.0), ("é", 0.0), ("e\u0301", 0.0), ("नमस्ते", 0.0), ("a🙂", 0.5)],
)
def test_special_characters(text, share):
    assert bloom.special_chars(text) == share


def test_rules_at_their_limits():
    fine = {
        "char_repetition": 0.106, "word_repetition": 0.19, "special_chars": 0.4, "stop_word_fraction": 0.3,
        "bad_word_fraction": 0.01, "perplexity": 1500.0,
    }  # fmt: skip
    rules = bloom_rules(Bloom(), "en")
    assert decide(fine, rules) is None
    for score, value, reason in (
        ("char_repetition", 0.107, Drop.BLOOM_CHAR_REPETITION),
        ("word_repetition", 0.191, Drop.BLOOM_WORD_REPETITION),
        ("special_chars", 0.41, Drop.BLOOM_SPECIAL_CHARS),
        ("stop_word_fraction", 0.29, Drop.BLOOM_STOP_WORDS),
        ("bad_word_fraction", 0.011, Drop.BLOOM_FLAGGED_WORDS),
        ("perplexity", 1501.0, Drop.BLOOM_PERPLEXITY),
    ):
        assert decide({**fine, score: value}, rules) == (reason, value)
    assert decide({**fine, "stop_word_fraction": 0.0}, bloom_rules(Bloom(), "eo")) is None


def test_bad_words_match_whole_words_and_phrases():
    listed = badwords.BadWords.build(["Darn", "two words", "two"], "en")
    text = "Darn! darned, (darn) two  words. Two"
    assert listed.count(text, Text(text).bare_words) == 4
    zh = badwords.BadWords.build(["坏话"], "zh")
    assert zh.count("这是坏话坏话。", []) == 2


def test_lists_are_loaded_by_language(tmp_path):
    (tmp_path / "en").write_text("darn\n\ntwo words\n")
    (tmp_path / "de.txt").write_text("mist\n")
    (tmp_path / "LICENSE").write_text("no list")
    lists = badwords.load(str(tmp_path))
    assert sorted(lists) == ["de", "en"]
    assert lists["de"].count("Mist, Mist", Text("Mist, Mist").bare_words) == 2
    with pytest.raises(InputError, match=r"score\.bad_words: .*no list"):
        badwords.load(str(tmp_path / "absent"))
