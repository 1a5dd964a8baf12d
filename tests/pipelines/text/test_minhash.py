"""Signatures against datasketch, estimates against true Jaccard similarities, bands against their theory."""

import tarfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import xxhash
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.text.minhash import band_keys, found_probability, shingles, signature
from pipelines.text.ngrams import mix64, ngram_hashes, normalize, word_hashes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  WORLD!\n\tTwice", "hello world twice"),
        ("Na\u00efve caf\u00e9 \u00c5ngstr\u00f6m", "naive cafe angstrom"),
        ("in 1999 it cost 3.14, not 2,000", "in 0 it cost 0 not 0"),
        ("don't \u201cquote\u201d \u2014 me", "dont quote me"),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e\u0964",
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e",
        ),
        ("\u4e2d\u6587\u3002x", "\u4e2d \u6587 x"),
        ("smile \U0001f600 now", "smile now"),
        ("\u0661\u0662 \u0663", "0 0"),
        ("...", ""),
    ],
)
def test_normalize(text: str, expected: str) -> None:
    assert normalize(text) == expected


def test_number_of_shingles() -> None:
    assert len(shingles("a b c d e f g", 5)) == 3
    assert len(shingles("a b a b a b a b", 2)) == 2
    assert len(shingles("only three words", 5)) == 1
    assert shingles("Only three WORDS!", 5) == shingles("only three words", 5)
    assert shingles("only three words", 5) != shingles("only three birds", 5)
    assert len(shingles("", 5)) == len(shingles("?!", 5)) == 1
    assert shingles("", 5) != shingles("?!", 5)


def test_ngram_hash_depends_on_its_words_and_their_order_only() -> None:
    words = ["a", "b", "c", "d", "x", "a", "b", "c", "d", "a", "c", "b", "d"]
    hashes = ngram_hashes(word_hashes(words), 4)
    assert len(hashes) == 10
    assert hashes[0] == hashes[5]
    assert len(set(hashes.tolist())) == 9
    assert hashes[0] == ngram_hashes(word_hashes(["a", "b", "c", "d"]), 4)[0]
    assert ngram_hashes(word_hashes(["a"]), 2).shape == (0,)


def test_mix64_is_murmur_hash_3s() -> None:
    assert mix64(np.array([0, 1], np.uint64)).tolist() == [0, 0xB456BCFC34C2CB2C]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=200, unique=True),
    st.integers(1, 130),
    st.integers(0, 2**32 - 1),
)
def test_signature_is_datasketchs(hashes: list[int], count: int, seed: int) -> None:
    oracle = MinHash(num_perm=count, seed=seed, scheme="affine32", hashfunc=lambda value: value)
    oracle.update_batch(hashes)
    assert signature(np.array(hashes, np.uint32), count, seed).tolist() == oracle.hashvalues.tolist()


def test_signature_over_many_chunks_is_the_minimum_of_its_parts() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**32, 30_000, np.uint32)
    whole = signature(hashes, 112, 1)
    parts = [signature(part, 112, 1) for part in np.array_split(hashes, 7)]
    assert whole.tolist() == np.minimum.reduce(parts).tolist()


def test_band_keys() -> None:
    values = np.arange(112, dtype=np.uint32)
    other = values.copy()
    other[8] += 1  # the first row of the second band
    equal = band_keys(values, 14) == band_keys(other, 14)
    assert equal.tolist() == [True, False] + [True] * 12
    assert band_keys(values, 14)[0] == np.int64(
        np.uint64(xxhash.xxh3_64_intdigest(np.arange(8, dtype="<u4").tobytes())).astype(np.int64)
    )
    same_rows = band_keys(np.zeros(112, np.uint32), 14)
    assert len(set(same_rows.tolist())) == 14


@pytest.mark.parametrize(
    ("bands", "rows", "expected"), [(14, 8, 0.924), (450, 20, 0.995), (93, 15, 0.964), (14, 9, 0.867), (20, 13, 0.677)]
)
def test_published_probabilities_at_jaccard_08(bands: int, rows: int, expected: float) -> None:
    assert found_probability(0.8, bands, rows) == pytest.approx(expected, abs=0.001)


def test_recall_on_licences_follows_theory(data_dir: Path) -> None:
    """Pairs of real licence texts share a band as often as 1-(1-s^r)^b says, over 20 seeds, in every bin of similarity."""
    with tarfile.open(data_dir / "dedup" / "spdx_license_texts_819.tar.xz") as archive:
        texts = [archive.extractfile(one).read().decode() for one in archive if one.isfile()]  # type: ignore[union-attr]
    sets = [shingles(text, 5) for text in texts[:300]]
    inside = [set(one.tolist()) for one in sets]
    pairs = {}
    for a, b in combinations(range(len(sets)), 2):
        shared = len(inside[a] & inside[b])
        similarity = shared / (len(inside[a]) + len(inside[b]) - shared)
        if similarity >= 0.4:
            pairs[a, b] = similarity
    assert len(pairs) > 100
    found = dict.fromkeys(pairs, 0)
    for seed in range(20):
        keys = np.array([band_keys(signature(one, 112, seed), 14) for one in sets])
        for pair in pairs:
            found[pair] += bool((keys[pair[0]] == keys[pair[1]]).any())
    for low, high in ((0.4, 0.6), (0.6, 0.75), (0.75, 0.9), (0.9, 1.01)):
        inside_bin = [pair for pair, similarity in pairs.items() if low <= similarity < high]
        measured = np.mean([found[pair] / 20 for pair in inside_bin])
        expected = np.mean([found_probability(pairs[pair], 14, 8) for pair in inside_bin])
        assert len(inside_bin) >= 10
        assert measured == pytest.approx(expected, abs=0.06)
