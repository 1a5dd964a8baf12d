"""Windows found through anchors, and by the suffix array, against windows found by comparing everything with everything."""

import itertools
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup import suffixes
from pipelines.dedup.stream import Tokens, from_ids, parse, payloads, words
from pipelines.dedup.substring import (
    _all_equal,
    anchors,
    expand,
    first_equal,
    merge,
    repeated,
    stretches,
    token_hashes,
    window_hashes,
)
from pipelines.text.hashing import buffers

TOKEN = st.sampled_from([0, 1, 7, 2**16, 2**32 - 1])
DOCUMENTS = st.lists(
    st.one_of(
        st.lists(TOKEN, max_size=40),
        st.builds(lambda unit, times: unit * times, st.lists(TOKEN, min_size=1, max_size=5), st.integers(0, 12)),
        st.builds(
            lambda a, b, c: a + b + c,
            *[st.sampled_from([list(range(8)), list(range(8, 0, -1)), [3, 1, 2, 3, 1, 2], []])] * 3,
        ),
        st.builds(lambda count: [9] * count, st.integers(0, 60)),
    ),
    max_size=6,
)

Place = tuple[int, int]


def brute_force(documents: list[list[int]], k: int) -> dict[Place, Place]:
    """(document, start) of every window of k tokens that stands at two or more places -> the first of those places."""
    places: dict[tuple[int, ...], list[Place]] = {}
    for number, tokens in enumerate(documents):
        for start in range(len(tokens) - k + 1):
            places.setdefault(tuple(tokens[start : start + k]), []).append((number, start))
    return {place: found[0] for found in places.values() if len(found) > 1 for place in found}


def tokenize(documents: list[list[int]]) -> tuple[Tokens, np.ndarray, np.ndarray]:
    """The documents, and the document and place of each token."""
    bounds = np.cumsum([0, *map(len, documents)])
    owner = np.repeat(np.arange(len(documents)), np.diff(bounds))
    ids = np.array([token for document in documents for token in document], np.uint32)
    place = owner.astype(np.uint64) << np.uint64(32) | (np.arange(len(ids)) - bounds[owner]).astype(np.uint64)
    return from_ids(ids, bounds), owner, place


def as_places(tokens: Tokens, windows: np.ndarray, first: np.ndarray) -> dict[Place, Place]:
    def place(window: int) -> Place:
        document = int(np.searchsorted(tokens.bounds, window, side="right")) - 1
        return document, int(window - tokens.bounds[document])

    return {place(window): place(least) for window, least in zip(windows.tolist(), first.tolist(), strict=True)}


def through_anchors(documents: list[list[int]], k: int, hash_bits: int = 64) -> dict[Place, Place]:
    tokens, _, place = tokenize(documents)
    hashes = token_hashes(tokens)
    runs = anchors(hashes, tokens.bounds, k)
    _, inverse, times = np.unique(runs.anchor, return_inverse=True, return_counts=True)
    met = times[inverse] > 1
    windows = expand(runs.first[met], runs.count[met])
    digests = window_hashes(hashes, tokens.bounds, k)[windows] & np.uint64(2**hash_bits - 1)
    first = first_equal(tokens, windows, digests, place[windows], k)
    repeated = np.bincount(first, minlength=len(windows))[first] > 1
    return as_places(tokens, windows[repeated], windows[first[repeated]])


@settings(deadline=None, max_examples=200)
@given(DOCUMENTS, st.integers(2, 9))
def test_equals_brute_force(documents: list[list[int]], k: int) -> None:
    expected = brute_force(documents, k)
    assert through_anchors(documents, k) == expected
    tokens, _, place = tokenize(documents)
    assert as_places(tokens, *suffixes.first_equal(tokens, place, k)) == expected


@settings(deadline=None, max_examples=100)
@given(DOCUMENTS, st.integers(2, 5), st.integers(0, 2))
def test_hashes_that_collide_decide_nothing(documents: list[list[int]], k: int, hash_bits: int) -> None:
    assert through_anchors(documents, k, hash_bits) == brute_force(documents, k)


def test_every_window_is_in_one_run() -> None:
    documents = [list(range(30)), [5] * 12, [], [1, 2], [1, 2, 1, 2, 1, 2, 1, 2, 1]]
    tokens, owner, _ = tokenize(documents)
    runs = anchors(token_hashes(tokens), tokens.bounds, 5)
    windows = expand(runs.first, runs.count)
    assert windows.tolist() == [
        at for at in range(len(owner) - 4) if owner[at] == owner[at + 4]
    ]  # in order, none twice, none across documents


def test_the_known_answers_of_brute_force() -> None:
    assert brute_force([[1, 2, 3, 4], [9, 2, 3, 4]], 3) == {(0, 1): (0, 1), (1, 1): (0, 1)}
    assert brute_force([[1] * 4], 3) == {(0, 0): (0, 0), (0, 1): (0, 0)}
    assert brute_force([[1, 2], [3, 4]], 2) == {}


def test_words_are_those_of_split_over_all_of_unicode() -> None:
    everything = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    texts = ["x".join(everything), everything, "", " a", "a ", "\u3000", "à\xa0b"]
    tokens, starts = words(*buffers(pa.array(["cut off", *texts]).slice(1)))
    for number, text in enumerate(texts):
        low, high = tokens.bounds[number], tokens.bounds[number + 1]
        expected = text.split()
        assert bytes(tokens.data[tokens.at[low] : tokens.at[high]]) == b"".join(
            word.encode() + b" " for word in expected
        )
        data = text.encode()
        assert all(
            data.startswith(word.encode(), start)
            for start, word in zip(starts[low:high].tolist(), expected, strict=True)
        )


def test_payloads_are_read_back() -> None:
    tokens, _ = words(*buffers(pa.array(["one two three", "vier fünf"])))
    data, offsets = payloads(tokens, np.array([1, 3]), np.array([3, 5]))
    assert bytes(data) == "two three vier fünf ".encode()
    back = parse(data, offsets, None)
    assert (back.bounds.tolist(), back.at.tolist()) == ([0, 2, 4], [0, 4, 10, 15, 21])
    ids, _, _ = tokenize([[7, 8, 9], [2**32 - 1]])
    back = parse(*payloads(ids, np.array([0, 3]), np.array([2, 4])), 4)
    assert (back.bounds.tolist(), back.at.tolist()) == ([0, 2, 3], [0, 4, 8, 12])
    assert back.data.view("<u4").tolist() == [7, 8, 2**32 - 1]


def test_ranges_that_overlap_or_touch_merge() -> None:
    rows, first, count = np.array([2, 1, 1, 1, 2]), np.array([0, 10, 3, 0, 9]), np.array([1, 2, 1, 1, 1])
    assert [found.tolist() for found in merge(rows, first, count, 3)] == [[1, 1, 2, 2], [0, 10, 0, 9], [6, 14, 3, 12]]


@pytest.mark.parametrize(
    ("chosen", "label", "expected"),
    [
        ("1101", "aaab", ([0, 3], [2, 1])),
        ("1111", "aabb", ([0, 2], [2, 2])),
        ("000", "aaa", ([], [])),
        ("", "", ([], [])),
    ],
)
def test_stretches(chosen: str, label: str, expected: tuple[list[int], list[int]]) -> None:
    flags = np.array([one == "1" for one in chosen], bool)
    begin, length = stretches(flags, np.array([ord(one) for one in label], np.int64))
    assert (begin.tolist(), length.tolist()) == expected


GROUPED = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2)), max_size=12)


@settings(deadline=None)
@given(GROUPED)
def test_a_window_is_repeated_when_another_one_that_counts_equals_it(rows: list[tuple[int, bool, int]]) -> None:
    least = {group: at for at, (group, _, _) in reversed(list(enumerate(rows)))}
    first = np.array([least[group] for group, _, _ in rows], np.int64)
    held = np.array([one for _, one, _ in rows], bool)
    more = np.array([one for _, _, one in rows], np.uint8)
    expected = []
    for group, is_held, _ in rows:
        same = [(one, stands_for) for other, one, stands_for in rows if other == group]
        copies = sum(one or not is_held for one, _ in same)
        others = sum(stands_for > (1 if is_held else 0) for _, stands_for in same)
        expected.append(copies + others > 1)
    assert repeated(first, held, more).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 6)), max_size=12), st.integers(1, 5))
def test_merged_runs_cover_the_same_tokens(rows: list[tuple[int, int, int]], k: int) -> None:
    columns = [np.array([row[at] for row in rows], np.int64) for at in range(3)]
    found = list(zip(*(one.tolist() for one in merge(*columns, k)), strict=True))
    expected = {(row, token) for row, first, count in rows for token in range(first, first + count + k - 1)}
    assert {(row, token) for row, start, end in found for token in range(start, end)} == expected
    assert found == sorted(found)
    assert all(a[0] != b[0] or a[2] < b[1] for a, b in itertools.pairwise(found)), "touching ranges are one"


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=20), max_size=20))
def test_equal_tokens_have_equal_hashes_and_others_do_not(tokens: list[str]) -> None:
    stream, _ = words(*buffers(pa.array([" ".join(tokens)])))
    hashes = token_hashes(stream).tolist()
    assert len(set(zip(hashes, tokens, strict=True))) == len(set(hashes)) == len(set(tokens))


def test_windows_that_a_document_is_too_short_for_have_no_hash() -> None:
    tokens, _, _ = tokenize([[1, 2, 3, 4], [1, 2], [3, 1, 2, 3]])
    found = window_hashes(token_hashes(tokens), tokens.bounds, 3).tolist()
    assert [at for at, one in enumerate(found) if one] == [0, 1, 6, 7]
    assert found[0] == found[7]
    assert len({found[0], found[1], found[6]}) == 3


def test_runs_as_windows() -> None:
    assert expand(np.array([5, 0, 9]), np.array([2, 3, 1])).tolist() == [5, 6, 0, 1, 2, 9]
    assert expand(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize(
    ("claimed", "equal"),
    [({}, True), ({4: 0}, True), ({4: 0, 5: 1}, True), ({4: 0, 5: 1, 6: 2}, False), ({6: 2}, False), ({5: 0}, False)],
)
def test_windows_that_share_a_hash_are_compared(claimed: dict[int, int], equal: bool) -> None:
    """Windows of two one-byte tokens. Behind two equal ones only the next token is looked at."""
    data = np.frombuffer(b"abcXabcY" + bytes(16), np.uint8)
    windows = np.arange(7)
    first = np.array([claimed.get(window, window) for window in windows])
    assert _all_equal(data, windows, windows, windows + 2, first) == equal
