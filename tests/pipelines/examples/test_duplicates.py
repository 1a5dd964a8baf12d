"""Near duplicates by hand, and estimates against exact similarities."""

import random
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dedup import minhash
from pipelines.examples.duplicates import HASHES, clusters, sign, similarity
from pipelines.text.mixing import ngram_hashes

LONG = " ".join(f"w{at}" for at in range(100))


def alike(*examples: tuple[str, ...], min_jaccard: float = 0.8) -> list[int]:
    return clusters(sign(examples), min_jaccard).tolist()


def test_prompt_and_reply_must_both_be_alike() -> None:
    other = LONG.replace("w50", "x")
    assert alike((LONG, LONG), (other, other)) == [0, 0]
    assert alike((LONG, "It is three."), (LONG, "Nobody knows.")) == [0, 1], "two questions about one text"
    assert alike((f"{LONG} Who?", "He did it."), (f"{LONG} When?", "In winter.")) == [0, 1]
    assert alike(("What is the first line?", LONG), ("Recite it to me.", LONG)) == [0, 1]
    assert alike((LONG, "yes", "no"), (LONG, "yes", "perhaps")) == [0, 1], "another comparison"
    assert alike((LONG, "yes", "no"), (LONG, "no", "yes")) == [0, 1], "another verdict"


def test_a_signature_is_the_same_in_every_run() -> None:
    """The least values of five-word shingles under the maps of one seed: another seed or shingle would draw other lines."""
    signed = sign([("one two three four five six", "mill")])
    maps = minhash.permutations(14 * 8, 1)
    words = np.array(
        [xxhash.xxh3_64_intdigest(word.encode()) for word in ["one", "two", "three", "four", "five", "six"]], np.uint64
    )
    shingles = ngram_hashes(words, 5).astype(np.uint32)
    assert len(shingles) == 2
    assert signed.shape == (1, 2, 112)
    assert (signed[0, 0] == minhash.minima(shingles, np.array([0, 2]), *maps)[0]).all()


def test_digits_count_and_case_and_punctuation_do_not() -> None:
    assert alike(("What is 2 + 3?", "5"), ("What is 7 + 1?", "8")) == [0, 1]
    assert alike(("What is that?", "A mill."), ("what IS that", "a mill")) == [0, 0]
    assert alike(("!!!", "?"), ("!!!", "?"), ("???", "?")) == [0, 0, 2], "texts without words are compared as they are"


def test_the_first_of_a_cluster_stays() -> None:
    rng = random.Random(1)
    versions = [LONG]
    for _ in range(3):
        words = versions[-1].split()
        words[rng.randrange(100)] = f"n{len(versions)}"
        versions.append(" ".join(words))
    other = " ".join(f"v{at}" for at in range(100))
    examples = [("a", other), *(("a", version) for version in versions), ("a", other + " and so it ends")]
    assert alike(*examples) == [0, 1, 1, 1, 1, 0]
    assert alike(*examples, min_jaccard=1.0) == list(range(6))
    assert alike(("a", "b")) == [0]


@pytest.mark.parametrize("changed", [0, 1, 3, 10, 40])
def test_the_estimate_is_near_the_exact_similarity(changed: int) -> None:
    """Each changed word changes the five shingles that contain it; the estimate's deviation is 0.047 at most."""
    words = [f"w{at}" for at in range(500)]
    for at in range(changed):
        words[10 + at * 12] = "x"
    whole = " ".join(f"w{at}" for at in range(500))
    signed = sign([(whole, whole), (whole, " ".join(words))])
    kept = 496 - 5 * changed
    exact = kept / (2 * 496 - kept)
    found = similarity(signed[:1], signed[1:])[0]
    assert found == pytest.approx(exact, abs=4 * 0.047 if changed else 0)


@given(st.lists(st.tuples(st.text("ab ", max_size=12), st.text("ab ", max_size=12)), max_size=30))
def test_every_example_goes_to_an_earlier_one_like_it(examples: list[Any]) -> None:
    signed = sign(examples) if examples else np.zeros((0, 2, HASHES), np.uint32)
    first = clusters(signed, 0.8)
    assert (first <= np.arange(len(examples))).all()
    assert (first[first] == first).all(), "what is kept is kept"
    same = {example: at for at, example in reversed(list(enumerate(examples)))}
    assert all(first[at] == first[same[example]] for at, example in enumerate(examples)), "equal ones share a cluster"
