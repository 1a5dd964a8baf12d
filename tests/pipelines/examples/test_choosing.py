"""Caps and selection against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.examples.choosing import FEATURES, best, features, over_cap, weighted


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99), st.booleans()), max_size=40), st.integers(0, 8))
def test_of_each_task_those_with_the_smallest_lots_stay(rows: list[tuple[int, int, bool]], most: int) -> None:
    tasks = np.array([task for task, _, _ in rows], np.int64)
    lots = np.array([lot for _, lot, _ in rows], np.uint64)
    usable = np.array([flag for _, _, flag in rows], bool)
    gone = over_cap(tasks, lots, usable, most)
    for task in range(4):
        members = [at for at, row in enumerate(rows) if row[0] == task and row[2]]
        kept = sorted(members, key=lambda at: (rows[at][1], at))[:most]
        assert [at for at in members if not gone[at]] == sorted(kept)
    assert not (gone & ~usable).any()
    assert not over_cap(tasks, lots, usable, None).any()


def test_prompts_with_the_same_words_are_alike() -> None:
    texts = ["How does the old mill turn?", "how does the old mill turn", "Name a river in France.", ""]
    made = weighted(np.stack([features(text) for text in texts]))
    assert made.shape == (4, FEATURES)
    cosines = made @ made.T
    assert cosines[0, 1] == pytest.approx(1, abs=1e-5)
    assert abs(cosines[0, 2]) < 0.4
    assert cosines[3].tolist() == [0, 0, 0, 0]
    assert np.abs(features("mill mill mill")).max() == pytest.approx(1 + np.log(3))


@given(st.integers(0, 99), st.integers(0, 12), st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_the_best_are_taken_unless_a_better_one_is_alike(seed: int, most: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 2, (20, FEATURES)).astype(np.float32)
    counts[10:] = counts[:10]  # each prompt twice
    scores = rng.integers(0, 5, 20).astype(np.float64)
    scores[rng.integers(0, 20)] = np.nan
    usable = rng.random(20) < 0.8
    expected: list[int] = []
    made = weighted(counts)
    for at in sorted(
        (at for at in range(20) if usable[at] and not np.isnan(scores[at])), key=lambda at: (-scores[at], at)
    ):
        if len(expected) < most and all(made[at] @ made[other] <= limit + 1e-6 for other in expected):
            expected.append(at)
    assert np.flatnonzero(best(scores, counts, usable, most, limit)).tolist() == sorted(expected)


def test_many_candidates_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    counts = rng.random((50, FEATURES)).astype(np.float32)
    scores = rng.random(50)
    whole = best(scores, counts, np.ones(50, bool), 20, 0.76)
    monkeypatch.setattr("pipelines.examples.choosing.COMPARED", 3)
    assert (best(scores, counts, np.ones(50, bool), 20, 0.76) == whole).all()
    assert 1 < whole.sum() <= 20
