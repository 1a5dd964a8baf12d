"""Windows found through anchors against windows found by comparing everything with everything."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.text.substring import anchors, digest, rebuild, remaining, union

DOCUMENTS = st.lists(
    st.one_of(
        st.lists(st.sampled_from("ab"), max_size=40),
        st.builds(
            lambda unit, times: unit * times,
            st.lists(st.sampled_from("abc"), min_size=1, max_size=5),
            st.integers(0, 12),
        ),
        st.builds(
            lambda a, b, c: a + b + c, *[st.sampled_from([list("abcdefgh"), list("hgfedcba"), list("xyzxyz"), []])] * 3
        ),
    ),
    max_size=6,
)


def brute_force(documents: list[list[str]], k: int) -> set[tuple[int, int]]:
    """(document, start) of every window of k words that stands at two or more places."""
    places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for number, words in enumerate(documents):
        for start in range(len(words) - k + 1):
            places.setdefault(tuple(words[start : start + k]), []).append((number, start))
    return {place for found in places.values() if len(found) > 1 for place in found}


def through_anchors(documents: list[list[str]], k: int) -> set[tuple[int, int]]:
    """The same by the two meetings that the stage makes in Spark: of anchors, then of digests."""
    runs: dict[int, list[tuple[int, int, int]]] = {}
    for number, words in enumerate(documents):
        for anchor, first, count in zip(*anchors(words, k), strict=True):
            runs.setdefault(int(anchor), []).append((number, int(first), int(count)))
    places: dict[bytes, list[tuple[int, int]]] = {}
    for met in runs.values():
        for number, first, count in met if len(met) > 1 else ():
            for start in range(first, first + count):
                places.setdefault(digest(documents[number], start, k), []).append((number, start))
    return {place for found in places.values() if len(found) > 1 for place in found}


@settings(deadline=None, max_examples=300)
@given(DOCUMENTS, st.integers(2, 9))
def test_repeated_windows_equal_brute_force(documents: list[list[str]], k: int) -> None:
    assert through_anchors(documents, k) == brute_force(documents, k)


def test_brute_force_itself_on_a_known_case() -> None:
    assert brute_force([list("abcd"), list("xbcd")], 3) == {(0, 1), (1, 1)}
    assert brute_force([list("aaaa")], 3) == {(0, 0), (0, 1)}
    assert brute_force([list("ab"), list("cd")], 2) == set()


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(2, 9))
def test_every_window_is_in_one_run(words: list[str], k: int) -> None:
    runs = anchors(words, k)
    covered = [
        start for first, count in zip(runs.first, runs.count, strict=True) for start in range(first, first + count)
    ]
    assert covered == list(range(max(len(words) - k + 1, 0)))


def test_random_words_ship_few_anchors() -> None:
    """A window of 50 words has 26 q-grams, so a random text changes its anchor every 13.5 words on average."""
    words = [str(number) for number in np.random.default_rng(0).integers(0, 10**6, 20_000)]
    assert len(anchors(words, 50).first) == pytest.approx(20_000 * 2 / 27, rel=0.05)


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 9))
def test_union_covers_exactly_the_windows(starts: list[int], k: int) -> None:
    ranges = union(starts, k)
    covered = [word for start, end in ranges for word in range(start, end)]
    assert covered == sorted({word for start in starts for word in range(start, start + k)})
    assert all(left[1] < right[0] for left, right in itertools.pairwise(ranges))


def test_passes_count_in_what_is_left() -> None:
    assert remaining(6, []).tolist() == [0, 1, 2, 3, 4, 5]
    assert remaining(6, [[(1, 3)]]).tolist() == [0, 3, 4, 5]
    assert remaining(6, [[(1, 3)], [(0, 2)]]).tolist() == [4, 5]
    assert remaining(6, [[], [(0, 1), (5, 6)]]).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "left", "expected"),
    [
        ("one  two\nthree\tfour", [0, 1, 2, 3], "one  two\nthree\tfour"),
        ("one  two\nthree\tfour", [0, 2, 3], "one  three\tfour"),
        ("one  two\nthree\tfour", [1, 2], "two\nthree"),
        ("one  two\nthree\tfour", [0, 3], "one  four"),
        ("  one two  ", [0, 1], "  one two  "),
        ("  one two  ", [0], "  one"),
        ("  one two  ", [1], "two  "),
        ("one two", [], ""),
        ("\u00e9\u00e8 \U0001f600 z", [1, 2], "\U0001f600 z"),
    ],
)
def test_rebuild(text: str, left: list[int], expected: str) -> None:
    assert rebuild(text, np.array(left, np.int64)) == expected


@given(st.text("ab \n\u00a0\u3000\x1c"), st.data())
def test_rebuild_keeps_exactly_the_words_left(text: str, data: st.DataObject) -> None:
    words = text.split()
    left = [index for index in range(len(words)) if data.draw(st.booleans())]
    assert rebuild(text, np.array(left, np.int64)).split() == [words[index] for index in left]
