"""The table of characters against Python's own answers, and texts as code points."""

import unicodedata

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.text import counting, recurrence
from pipelines.text.characters import BULLETS, LINE_ENDS, PUNCTUATION, UNSPACED, classes, code_points
from pipelines.text.mixing import mix64, ngram_hashes
from pipelines.text.words import Text, keys_of, split_words

ANY = st.characters(categories=["L", "M", "N", "P", "S", "Z", "Cc", "Cf", "Cs", "Cn"])


@settings(deadline=None)
@given(ANY)
def test_a_characters_bits_are_what_python_says(one):
    bits = int(classes()[ord(one)])
    assert bool(bits & counting.SPACE) == one.isspace()
    assert bool(bits & counting.LETTER) == one.isalpha()
    assert bool(bits & counting.UPPER) == one.isupper()
    assert bool(bits & counting.DIGIT) == one.isdigit()
    assert bool(bits & counting.WORD) == (one.isalnum() or one == "_")
    assert bool(bits & counting.MARK) == unicodedata.category(one).startswith("M")
    assert bool(bits & counting.TRIM) == (one in PUNCTUATION)
    assert bool(bits & counting.BULLET) == (one in BULLETS)
    assert bool(bits & counting.LINE_END) == (one in LINE_ENDS)
    assert bool(bits & counting.UNSPACED) == any(
        a <= one <= b for a, b in zip(UNSPACED[::3], UNSPACED[2::3], strict=True)
    )


@given(st.text(alphabet=ANY))
def test_a_text_is_its_code_points(text):
    assert code_points(text).tolist() == [ord(one) for one in text]


@settings(deadline=None)
@given(st.frozensets(st.text(alphabet="abcé漢", min_size=1, max_size=4), max_size=8))
def test_a_lists_keys_ascend_and_are_those_of_a_texts_words(words):
    keys = keys_of(words).tolist()
    assert keys == sorted(keys)
    assert len(set(keys)) == len(words)
    text = " ".join(words)
    if all(split_words(word) == [word] for word in words):
        assert set(keys) == set(Text(text).words.keys.tolist())


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 4))
def test_equal_runs_have_equal_keys(parts, n):
    keys = ngram_hashes(np.array(parts, np.uint64), n).tolist()
    runs = [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]
    assert len(keys) == len(runs)
    assert len(set(keys)) == len(set(runs))
    assert len(set(zip(keys, runs, strict=True))) == len(set(runs))
    assert sorted(recurrence.occurrences(np.array(keys, np.uint64)).tolist()) == sorted(
        runs.count(run) for run in set(runs)
    )


def test_a_key_is_that_of_its_code_points():
    state = 0x243F6A8885A308D3
    for letter in "abé":
        state = ((state ^ ord(letter)) * 0x9E3779B97F4A7C15 % 2**64) ^ (state >> 29)
    assert keys_of(frozenset(["abé"])).tolist() == [mix64(np.uint64(state))]


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=200))
def test_a_table_that_fills_counts_every_key(parts):
    """Small keys lie side by side, so that places of the table are taken."""
    found = recurrence.occurrences(np.array(parts, np.uint64) * np.uint64(2))
    assert sorted(found.tolist()) == sorted(parts.count(one) for one in set(parts))


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=20), st.sets(st.integers(0, 9)))
def test_what_a_list_holds(parts, known):
    count, entries = counting.listed(np.array(parts, np.uint64), np.array(sorted(known), np.uint64))
    assert (count, entries) == (sum(one in known for one in parts), len(known & set(parts)))
