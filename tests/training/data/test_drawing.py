"""Which sequence of which source a step draws."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.mixture import counts, schedule, weights_of
from contract.settings.training import Mixture
from training.data.batch import Batch
from training.data.drawing import Draws, drawn_in, turns
from training.data.order import share_of
from training.engine.ranks import Ranks

SMALL_OR_HUGE = st.one_of(st.integers(1, 1000), st.integers(1 << 32, 1 << 60))
WEIGHTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), SMALL_OR_HUGE, min_size=1, max_size=9)


def sources_of(weights: tuple[tuple[str, int], ...], first: int, last: int) -> list[str]:
    """The source of each draw."""
    found = {place: source for source, places, _, _ in turns(weights, first, last) for place in places.tolist()}
    return [found[place] for place in range(last - first)]


@given(weights=WEIGHTS, first=st.one_of(st.integers(0, 2000), st.integers(1 << 50, 1 << 55)), size=st.integers(1, 60))
def test_turns_are_those_that_are_counted(weights: dict[str, int], first: int, size: int) -> None:
    ordered = weights_of({source: Fraction(weight) for source, weight in weights.items()})
    last = first + size
    before, after = counts(ordered, first), counts(ordered, last)
    drawn = list(turns(ordered, first, last))
    assert {source: (begin, end) for source, _, begin, end in drawn} == {
        source: (before[source], after[source]) for source in weights
    }
    assert all(len(places) == end - begin for _, places, begin, end in drawn)
    whole = sources_of(ordered, first, last)
    cut = first + size // 2
    assert sources_of(ordered, first, cut) + sources_of(ordered, cut, last) == whole, "wherever one begins"


def test_turns_come_evenly() -> None:
    assert "".join(sources_of((("a", 2), ("b", 1), ("c", 1)), 0, 8)) == "cabacaba"
    assert sources_of((("a", 1),), 5, 7) == ["a", "a"]


def test_every_sequence_is_drawn_as_often_as_the_mixture_says() -> None:
    rows = {"crawl": 60, "code": 10, "books": 5}
    mixture = Mixture(epochs={"crawl": 1, "code": 3})
    made = schedule([(9, mixture, rows), (4, Mixture(epochs={"books": 4}), rows)], 10)
    steps = [drawn_in(made, step, seed=1) for step in range(13)]
    first = Counter(draw for step in steps[:9] for draw in step)
    assert first == {("crawl", row): 1 for row in range(60)} | {("code", row): 3 for row in range(10)}
    assert Counter(draw for step in steps[9:] for draw in step) == {("books", row): 8 for row in range(5)}
    assert drawn_in(made, 4, seed=1) == steps[4]
    assert drawn_in(made, 4, seed=2) != steps[4]


def test_a_second_phase_reads_what_the_first_left() -> None:
    rows = {"crawl": 40, "code": 20}
    general, best = Mixture(proportions={"crawl": 0.9, "code": 0.1}), Mixture(epochs={"crawl": 0.325, "code": 0.85})
    made = schedule([(3, general, rows), (3, best, rows)], 10)
    drawn = [draw for step in range(6) for draw in drawn_in(made, step, seed=0)]
    assert len(set(drawn)) == len(drawn) == 60
    assert made.epochs(6) == {"crawl": 1.0, "code": 1.0}


def test_a_process_reads_its_share_of_a_step() -> None:
    made = schedule([(4, Mixture(), {"crawl": 10})], 6)
    read = SimpleNamespace(seq_len=64, batch=lambda draws, rank, world: (draws, rank, world))
    draws = Draws([read], made, seed=3)  # type: ignore[arg-type]
    assert draws.batch(2, 1, 3) == (drawn_in(made, 2, seed=3), 1, 3)


@pytest.mark.parametrize("world", [3, 8])
def test_rows_that_do_not_divide_are_all_read_in_equally_many_places(world: int) -> None:
    made = schedule([(2, Mixture(), {"crawl": 10})], 4)

    def read(draws: list[tuple[str, int]], rank: int, world: int) -> Batch:
        mine = torch.tensor([row + 1 for _, row in share_of(draws, rank, world)], dtype=torch.long)
        return Batch(mine[:, None].expand(-1, 3), torch.ones(len(mine), 2), 2 * len(mine))

    draws = Draws([SimpleNamespace(seq_len=2, batch=read)], made, seed=3)  # type: ignore[list-item]
    for step in range(2):
        found = []
        for rank in range(world):
            with draws.stream(Ranks(rank=rank, world=world), step) as batches:
                found.append(next(batches))
        assert {len(batch.tokens) for batch in found} == {-(-4 // world)}, "all make the same forward passes"
        rows = [
            int(row[0]) - 1 for batch in found for row, mask in zip(batch.tokens, batch.mask, strict=True) if mask.sum()
        ]
        assert rows == [row for _, row in drawn_in(made, step, seed=3)]
        assert sum(batch.count for batch in found) == 8


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_batches_for_a_gpu_are_pinned_ahead(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    made = schedule([(3, Mixture(), {"crawl": 60})], 10)
    batch = Batch(torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 1), 1)
    monkeypatch.setattr(
        Draws, "batch", lambda self, step, rank, world: replace(batch, count=100 * step + 10 * rank + world)
    )
    monkeypatch.setattr(Batch, "pinned", lambda self: replace(self, count=-self.count))
    ranks = Ranks(rank=1, world=2)
    ranks.device = torch.device(kind)
    with Draws([], made, 0).stream(ranks, 1) as batches:
        assert [one.count for one in batches] == ([-112, -212] if kind == "cuda" else [112, 212])
