"""Shared runs of words: against the plain definition, at the edges of lengths, and what a cut leaves."""

import time
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.cuts import without
from contract.evalset import Item
from pipelines.decontamination.search import (
    Index,
    _filter_of,
    blamed_items,
    build,
    cut,
    find_shared,
    occurrences,
    passages,
    suspects,
)
from pipelines.text.spelling import split_words

FILLER = " ".join(f"filler{number} word" for number in range(60))


def words(name: str, count: int) -> str:
    return " ".join(f"{name}{number}" for number in range(count))


def index_of(*items: tuple[str, ...], n: int = 13, min_words: int = 8) -> Index:
    return build([("one", [Item(str(number), fields) for number, fields in enumerate(items)])], n, min_words)


def covered(text: str, index: Index) -> dict[int, float]:
    found = find_shared(text, index)
    assert bool(found) <= suspects(pa.array([text]), index)[0]
    return dict(zip(found.items.tolist(), found.covered.round(3).tolist(), strict=True)) if found else {}


def naive(text: str, items: list[tuple[str, ...]], n: int, min_words: int) -> set[int]:
    """Items of which a passage's n words, or the whole of a shorter one that is half of the item, stand in the text."""
    padded = f" {' '.join(split_words(text))} "
    found = set()
    for number, fields in enumerate(items):
        whole = len(split_words(" ".join(fields)))
        for passage in passages(fields) if whole >= min_words else ():
            has = split_words(passage)
            size = min(n, len(has))
            sought = len(has) >= min_words and (len(has) >= n or 2 * len(has) >= whole)
            runs = [" ".join(has[at : at + size]) for at in range(len(has) - size + 1)] if sought else []
            if any(f" {run} " in padded for run in runs):
                found.add(number)
    return found


LETTERS = st.lists(st.sampled_from("uvwxy"), max_size=24).map(" ".join)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(LETTERS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4), LETTERS, LETTERS)
def test_find_equals_the_plain_definition(items: list[tuple[str, ...]], before: str, after: str) -> None:
    index = index_of(*items, n=9, min_words=5)
    for text in (before, f"{before} {items[0][0]} {after}"):
        found = set(covered(text, index)) if len(index.grams) else set()
        assert found == naive(text, items, 9, 5)


def test_passages() -> None:
    assert list(passages(("q", " ", "x", "y"))) == ["q\nx\ny", "q", "x", "y", "q\nA\nx\nB\ny"]
    assert list(passages(("q", "x"))) == ["q\nx", "q", "x"]
    lettered = "q\n" + "\n".join(f"{letter}\n{number}" for number, letter in enumerate("ABCDEFGHIJK"))
    assert list(passages(("q", *map(str, range(11)))))[-1] == lettered, "as many choices as there are letters"
    assert list(passages(("q", *map(str, range(12)))))[-1] == "11"
    assert list(passages(("q",))) == ["q"]
    assert list(passages(("q", "x", "y", "(B)"))) == ["q\nx\ny\n(B)", "q", "x", "y", "(B)", "q\nx\ny", "q\nA\nx\nB\ny"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words("q", 13), {0: 0.325}),
        (words("q", 12), {}),
        (f"{FILLER} {words('q', 40)} {FILLER}", {0: 1.0}),
        (words("q", 40).replace("q20", "Q-20!"), {0: 1.0}),
        (words("q", 40).replace("q20", "other"), {0: 0.975}),
        (words("q", 40).replace("q33", "other"), {0: 0.825}),  # what follows is shorter than 13 words
        (words("s", 8), {}),  # a short text of an item of which it is a small part
        (words("s", 7), {}),
        (f"{words('s', 8)} {words('t', 30)}", {1: 1.0}),
        (words("t", 30), {1: 1.0}),
        (f"{words('s', 8)}\nA. {words('t', 30)}", {1: 1.0}),
        (words("v", 8), {2: 1.0}),
        (f"{words('v', 8)} {words('q', 20)}", {0: 0.5, 2: 1.0}),
        ("", {}),
    ],
)
def test_coverage(text: str, expected: dict[int, float]) -> None:
    index = index_of((words("q", 40),), (words("s", 8), words("t", 30)), (words("v", 8), "w1 w2"))
    assert covered(text, index) == expected


def test_answers_are_found_with_letters_and_without() -> None:
    item = (
        "The pleura",
        "have no sensory innervation.",
        "are separated by a 2 mm space.",
        "extend into the neck.",
        "C",
    )
    index = index_of(item)
    for text in (
        "\n".join(item),
        "The pleura\n(A) have no sensory innervation.\n(B) are separated by a 2 mm space. (C) extend into the neck.",
    ):
        assert covered(text, index)[0] >= 0.8


def test_a_wrong_answer_of_common_words_is_no_item() -> None:
    wrong = "Yes, because it arguably constitutes cruel and unusual punishment."
    index = index_of((words("q", 30), wrong, words("r", 9), words("s", 8), words("t", 7), "C"))
    assert covered(f"{FILLER} {wrong} {FILLER}", index) == {}
    assert covered(words("q", 30), index) == {0: 1.0}


@pytest.mark.parametrize("last", ["", "\nAnswer: B", "\nThe answer is (B)."])
@pytest.mark.parametrize("mark", ["{}. ", "({}) ", "{}) "])
def test_short_items_as_pages_print_them(last: str, mark: str) -> None:
    question, options = "Which of these is a noble gas?", ("Iron", "Argon", "Chlorine", "Sulphur")
    index = index_of((question, *options, "B"))
    printed = [mark.format(letter) + option for letter, option in zip("ABCD", options, strict=True)]
    assert covered(f"{FILLER}\n{question}\n" + "\n".join(printed) + f"{last}\n{FILLER}", index) == {0: 1.0}
    assert covered(f"{FILLER}\n{question}\n" + "\n".join(options) + f"{last}\n{FILLER}", index) == {0: 1.0}


ITEM = "Mary bought 3 bags of 12 apples at the market and gave half of them to her brother. How many are left?"


@pytest.mark.parametrize(
    "printed",
    [
        ITEM.replace("bought", "<b>bought</b>").replace("market", '<a href="https://a.test/x?y=1" class=z>market</a>'),
        ITEM.replace(" ", "<br/>"),
        f"<p>{ITEM.replace('. ', '.</p><p>')}</p>",
        ITEM.replace(" ", " | "),
        "|".join(ITEM.split()),
        "/".join(ITEM.split()),
        ITEM.replace("apples at", "apples<at").replace("gave half", "gave>half"),
        ITEM.replace("bought", "bo'ught").replace("brother", "bro-ther"),  # within a word, as before
    ],
)
def test_items_inside_markup_and_between_signs(printed: str) -> None:
    index = index_of((ITEM,))
    assert covered(f"{FILLER} {printed} {FILLER}", index) == {0: 1.0}


def test_a_comparison_is_no_tag() -> None:
    item = "if a <b and c> d then the answer is e else the answer is f or g or h"
    assert split_words(item)[:6] == ["if", "a", "b", "and", "c", "d"]


def test_an_unclosed_tag_costs_no_more_than_its_length() -> None:
    began = time.process_time()
    for text in (
        "<a b=" * 200_000,
        "<a " + "b" * 1_000_000,
        "<a b=" + "=" * 1_000_000,
        "<" * 1_000_000,
        "<a" + " " * 1_000_000,
    ):
        split_words(text)
        suspects(pa.array([text]), index_of((ITEM,)))
    assert time.process_time() - began < 20


def test_numbers_are_compared_digit_by_digit() -> None:
    index = index_of((words("q", 6) + " 48 " + words("r", 6),))
    same, other = (f"{words('q', 6)} {number} {words('r', 6)}" for number in (48, 49))
    assert suspects(pa.array([same, other, FILLER]), index).tolist() == [True, True, False]
    assert [covered(text, index) for text in (same, other)] == [{0: 1.0}, {}]


def test_words_of_a_kind_do_not_make_every_table_suspect() -> None:
    index = index_of(("1 2 3 4 5 6 7 8 9 10 11 12 13 14",))
    assert covered(" ".join(map(str, range(100, 200))), index) == {}
    assert covered(" ".join(map(str, range(200))), index) == {0: 1.0}


def test_the_filter_has_sixteen_to_thirty_two_bits_an_ngram_and_lets_every_key_through() -> None:
    keys = np.unique(np.random.default_rng(3).integers(0, 2**64, 10_000, np.uint64))
    bits = _filter_of(keys)
    assert len(bits) * 8 == 1 << 18
    assert len(_filter_of(keys[:10])) * 8 == 1 << 16
    slots = {int(key) >> (64 - 18) for key in keys}
    assert np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist() == sorted(slots)


def test_an_index_by_hand() -> None:
    items = [[Item("x", (words("q", 4),)), Item("y", (words("r", 2),))], [Item("z", (words("r", 2),))]]
    index = build([("one", items[0]), ("two", items[1])], 3, 2)
    assert (index.names, index.lengths) == (("one", "two"), (2, 3))
    assert index.item.tolist() == [0, 1, 2]
    assert index.words.tolist() == [4, 2, 2]
    assert index.benchmark.tolist() == [0, 0, 1]
    assert sorted(index.length.tolist()) == [2, 3, 3]
    of = [
        list(zip(index.passage[low:high].tolist(), index.place[low:high].tolist(), strict=True))
        for low, high in pairwise(index.starts.tolist())
    ]
    assert sorted(map(sorted, of)) == [[(0, 0)], [(0, 1)], [(1, 0), (2, 0)]]
    assert len(index.keys) == 2, "all numbers are equal there"
    found = find_shared(f"x {words('r', 2)} y", index)
    assert found is not None
    assert (found.first.tolist(), found.length.tolist(), found.items.tolist()) == ([1], [2], [1, 2])
    assert occurrences(found.gram, index).tolist() == sorted(at for at in range(4) if index.passage[at] in (1, 2))
    assert blamed_items(found, index, 1.0).tolist() == [1]


def test_culprits() -> None:
    index = index_of((words("q", 40),), (words("t", 30),))
    found = find_shared(f"{words('q', 20)} {words('t', 30)}", index)
    assert found is not None
    assert found.ngram(0) == words("q", 13)
    assert np.unique(blamed_items(found, index, 0.0)).tolist() == [0, 1]
    assert np.unique(blamed_items(found, index, 0.5)).tolist() == [0, 1]
    assert blamed_items(found, index, 0.8).tolist() == [-1] * 8 + [1] * 18
    assert (blamed_items(found, index, 1.0) >= 0).sum() == 18
    half = find_shared(words("q", 20), index)
    assert half is not None
    assert blamed_items(half, index, 0.8).tolist() == [-1] * 8


def test_one_page_with_a_whole_benchmark() -> None:
    """80,000 runs; one pass over the finding for each of them took minutes."""
    items = [words(f"i{number}x", 32) for number in range(4000)]
    index = index_of(*((item,) for item in items))
    found = find_shared(" ".join(items), index)
    assert found is not None
    began = time.process_time()
    blamed = blamed_items(found, index, 0.9)
    assert time.process_time() - began < 2
    assert blamed.tolist() == np.repeat(np.arange(4000), 20).tolist()


def shorn(text: str, index: Index) -> str | None:
    found = find_shared(text, index)
    assert found is not None
    cuts = cut(text, found, np.ones(len(found.gram), bool))
    assert cuts is None or all(start < end for start, end in cuts)
    return None if cuts is None else without(text.encode(), cuts).decode()


def test_cut() -> None:
    index = index_of((words("q", 14),))
    before = " ".join(f"écru{number:04}," for number in range(100))  # ten characters each, eleven bytes
    after = "".join(f"öre{number:04}\n" for number in range(100))
    left = shorn(f"{before} «{words('q', 14)}» {after}", index)
    start = 1000 + 1  # characters before the first word of the match, and a quotation mark
    assert left is not None
    kept = left.index("öre")
    assert before.startswith(left[:kept].rstrip())
    assert after.endswith(left[kept:])
    assert start - 200 - 10 <= kept <= start - 200
    assert left[:kept].endswith(" ")
    assert 800 - 200 - 8 <= len(left) - kept <= 800 - 200


def test_what_is_too_short_or_in_too_many_pieces_goes() -> None:
    index = index_of((words("q", 14),))
    item = words("q", 14)
    assert shorn(f"{'x' * 150} {item} {'y' * 350}", index) is None
    assert shorn(f"{FILLER} {item}", index) == FILLER[: len(left_of(FILLER, 200))]
    assert shorn(" ".join([FILLER, *[item, FILLER] * 9]), index) is not None
    assert shorn(" ".join([FILLER, *[item, FILLER] * 10]), index) is None


def left_of(text: str, characters: int) -> str:
    """What a cut that begins `characters` before the end of a text leaves of it: up to the word that stands there."""
    return text[: text.rindex(" ", 0, len(text) - characters + 1) + 1]


def test_a_text_costs_a_search_and_no_pass_over_the_index() -> None:
    """Of a million n-grams; a pass over them takes milliseconds, and a text has a thousand runs."""
    index = index_of(*((words(f"a{item}x", 112),) for item in range(10_000)))
    assert len(index.grams) == 1_000_000
    texts = pa.array([f"{number} {FILLER * 8}" for number in range(200)])
    suspects(texts, index)
    began = time.process_time()
    assert not suspects(texts, index).any()
    assert time.process_time() - began < 1
