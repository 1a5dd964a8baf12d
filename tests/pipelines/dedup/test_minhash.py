"""Signatures against datasketch, estimates against true Jaccard similarities, bands against their theory."""

import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.settings.corpus import MINHASH_PRESETS
from pipelines.dedup.minhash import band_keys, found_probability, minima, permutations, signatures, threshold
from pipelines.text.hashing import buffers, shingles
from pipelines.text.mixing import mix64


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=100), min_size=1, max_size=4),
    st.integers(1, 130),
    st.integers(0, 2**32 - 1),
)
def test_signatures_are_datasketchs(sets: list[list[int]], count: int, seed: int) -> None:
    bounds = np.cumsum([0, *map(len, sets)])
    found = minima(np.array([one for each in sets for one in each], np.uint32), bounds, *permutations(count, seed))
    for values, hashes in zip(found, sets, strict=True):
        oracle = MinHash(num_perm=count, seed=seed, scheme="affine32", hashfunc=lambda value: value)
        oracle.update_batch(hashes)
        assert values.tolist() == oracle.hashvalues.tolist()


def test_signatures_of_texts_are_datasketchs() -> None:
    data, offsets = buffers(pa.array([f"word{chr(97 + n)} " * 3 + "and some more words here" for n in range(5)]))
    hashes, bounds = shingles(data, offsets, 5)
    found = signatures(data, offsets, 5, 9000, 1)
    oracle = MinHash(num_perm=9000, seed=1, scheme="affine32", hashfunc=lambda value: value)
    oracle.update_batch(hashes[bounds[3] : bounds[4]].astype(np.uint32).tolist())
    assert found[3].tolist() == oracle.hashvalues.tolist()


def test_band_keys() -> None:
    values = np.arange(112, dtype=np.uint32)[None, :].repeat(2, axis=0)
    values[1, 8] += 1  # the first row of the second band
    keys = band_keys(values, 14)
    assert (keys[0] == keys[1]).tolist() == [True, False] + [True] * 12
    assert len(set(band_keys(np.zeros((1, 112), np.uint32), 14)[0].tolist())) == 14


@pytest.mark.parametrize(
    ("bands", "rows", "expected"), [(14, 8, 0.6847), (450, 20, 0.7235), (9, 13, 0.8186), (1, 1, 0.5)]
)
def test_threshold_is_found_half_of_the_time(bands: int, rows: int, expected: float) -> None:
    assert threshold(bands, rows) == pytest.approx(expected, abs=0.0006)
    assert found_probability(threshold(bands, rows), bands, rows) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("bands", "rows", "expected"), [(14, 8, 0.924), (450, 20, 0.995), (93, 15, 0.964), (14, 9, 0.867), (20, 13, 0.677)]
)
def test_published_probabilities_at_jaccard_08(bands: int, rows: int, expected: float) -> None:
    assert found_probability(0.8, bands, rows) == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize("preset", sorted(MINHASH_PRESETS))
def test_recall_on_licences_follows_theory(preset: str, data_dir: Path) -> None:
    """Pairs of real licence texts share a band as often as 1-(1-s^r)^b says, in every bin of similarity, within sampling error."""
    ngram, bands, rows = (MINHASH_PRESETS[preset][key] for key in ("ngram", "bands", "rows"))
    with tarfile.open(data_dir / "dedup" / "spdx_license_texts_819.tar.xz") as archive:
        texts = [archive.extractfile(one).read().decode() for one in archive if one.isfile()]  # type: ignore[union-attr]
    data, offsets = buffers(pa.array(texts[:400]))
    hashes, bounds = shingles(data, offsets, ngram)
    sets = [np.unique(hashes[low:high]) for low, high in pairwise(bounds.tolist())]
    _, inverse = np.unique(hashes, return_inverse=True)
    inside = np.zeros((len(sets), inverse.max() + 1), np.float32)
    for number, (low, high) in enumerate(pairwise(bounds.tolist())):
        inside[number, inverse[low:high]] = 1
    shared = inside @ inside.T
    sizes = np.array([len(one) for one in sets])
    similarity = shared / (sizes[:, None] + sizes[None, :] - shared)
    one, other = np.nonzero(np.triu(similarity >= 0.4, 1))
    similarity = similarity[one, other].astype(float)
    found = []
    for seed in range(12):
        keys = band_keys(signatures(data, offsets, ngram, bands * rows, seed), bands)
        found.append((keys[one] == keys[other]).any(axis=1))
    expected = found_probability(similarity, bands, rows)
    for low, high in ((0.4, 0.6), (0.6, 0.75), (0.75, 0.9), (0.9, 1.01)):
        chosen = (similarity >= low) & (similarity < high)
        by_seed = np.array([each[chosen].mean() for each in found])
        error = by_seed.std(ddof=1) / np.sqrt(
            len(by_seed)
        )  # one seed's pairs are not independent, so seeds are the sample
        assert chosen.sum() >= 10
        assert by_seed.mean() == pytest.approx(expected[chosen].mean(), abs=4 * error + 0.002)


def test_a_bands_key_is_its_number_and_its_rows() -> None:
    def one(value: int) -> int:
        return int(mix64(np.uint64(value & (2**64 - 1))))

    rows = np.array([[1, 2, 3, 1, 2, 3], [4, 2, 3, 1, 2, 3]], np.uint32)
    expected = []
    for signature in rows.tolist():
        for band in (0, 1):
            state = one(band + 1)
            for value in signature[3 * band : 3 * band + 3]:
                state = one(state ^ value) + 0x9E3779B97F4A7C15
            expected.append(state & (2**64 - 1))
    found = band_keys(rows, 2)
    assert found.ravel().tolist() == expected
    assert found[0, 0] != found[0, 1], "equal rows of two bands are no match"
    assert found[0, 1] == found[1, 1]
    assert found[0, 0] != found[1, 0]


def test_the_curve_by_hand() -> None:
    assert found_probability(0.5, 1, 1) == 0.5
    assert found_probability(0.5, 2, 1) == 0.75
    assert found_probability(0.5, 2, 2) == 1 - 0.75**2
    assert threshold(1, 1) == 0.5
    assert threshold(1, 2) == pytest.approx(0.5**0.5)
    for bands, rows in ((14, 8), (450, 20), (9, 13)):
        assert found_probability(threshold(bands, rows), bands, rows) == pytest.approx(0.5)
