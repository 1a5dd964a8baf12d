"""Order of rows, and packed tokens."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError
from training.data.reading import TokenData, rows_of, share_of
from training.engine.job import Job


@given(count=st.integers(1, 40), batch=st.integers(1, 9), seed=st.integers(0, 5))
def test_every_epoch_shows_every_row_once(count: int, batch: int, seed: int) -> None:
    steps = -(-3 * count // batch)
    order = [row for step in range(steps) for row in rows_of(step, batch, count, seed)]
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert rows_of(steps - 1, batch, count, seed) == order[-batch:], "any step can be asked for alone"


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = rows_of(0, 50, 50, 1), rows_of(1, 50, 50, 1)
    assert first != second
    assert first != rows_of(0, 50, 50, 2)
    assert rows_of(2, 4, 6, 7) == [2, 1, 4, 5], "a run that goes on after an upgrade reads what it would have read"


def test_shares_of_all_processes_make_the_batch() -> None:
    rows = rows_of(3, 12, 100, 0)
    assert [row for rank in range(4) for row in share_of(rows, rank, 4)] == rows


def test_packed_tokens_mask_only_the_padding(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    data = TokenData(job, "tokens", seed=5)
    manifest = job.manifest("pack")
    assert len(data) == sum(file.rows for file in manifest.of("tokens"))
    everything = data.rows(list(range(len(data))))
    assert everything.tokens.shape == (len(data), 64)
    shards = data._shards
    assert everything.count == sum(shard.used for shard in shards) - len(data), "all but the first token of a sequence"
    last = len(shards[0].tokens) - 1
    used = shards[0].used - 64 * last
    assert everything.mask[last].tolist() == [1.0] * (used - 1) + [0.0] * (64 - used)


def test_packed_rows_against_their_shards(make_job: Callable[..., Job]) -> None:
    data = TokenData(make_job("pretrain"), "heldout_tokens")
    expected = []
    for shard in data._shards:
        for at, row in enumerate(shard.tokens):
            expected.append((row.tolist(), min(64, shard.used - 64 * at)))
    assert len(data) == len(expected)
    assert 0 < min(used for _, used in expected) < 64
    batch = data.rows(list(range(len(expected)))[::-1])
    assert batch.tokens.dtype == torch.int64
    assert batch.tokens.tolist() == [row for row, _ in expected[::-1]]
    assert batch.mask.sum(1).tolist() == [used - 1 for _, used in expected[::-1]]
    assert batch.count == sum(used - 1 for _, used in expected)
    part = data.batch(1, 4, 1, 2)
    rows = rows_of(1, 4, len(data), 0)
    assert part.tokens.tolist() == [expected[row][0] for row in rows[2:]]
    assert part.count == sum(expected[row][1] - 1 for row in rows)


def shards_of(monkeypatch: pytest.MonkeyPatch, *shards: tuple[int, int]) -> Job:
    """A job whose pack lists shards of that many sequences of four tokens, so many tokens of which are used."""
    opened = {at: SimpleNamespace(tokens=np.full((rows, 4), at), used=used) for at, (rows, used) in enumerate(shards)}
    monkeypatch.setattr("training.data.reading.open_shard", opened.__getitem__)
    manifest = SimpleNamespace(of=lambda kind: list(opened), path="pack/manifest.json")
    store = SimpleNamespace(full=lambda path: f"s3://bucket/{path}")
    scratch = SimpleNamespace(download=lambda file: file)
    return SimpleNamespace(manifest=lambda stage: manifest, scratch=scratch, store=store)  # type: ignore[return-value]


def test_a_sequence_of_one_token_predicts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    data = TokenData(shards_of(monkeypatch, (2, 5), (1, 2)), "tokens")
    assert len(data) == 3
    batch = data.rows([0, 1, 2])
    assert batch.tokens[:, 0].tolist() == [0, 0, 1]
    assert batch.mask.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert (batch.count, data.batch(0, 3).count) == (4, 4)


def test_an_empty_corpus_is_refused_and_nothing_held_out_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    job = shards_of(monkeypatch)
    with pytest.raises(InputError, match=r"s3://bucket/pack/manifest.json: lists no token; the corpus is empty"):
        TokenData(job, "tokens")
    assert len(TokenData(job, "heldout_tokens")) == 0


def test_a_batch_is_the_same_however_many_processes_read_it(make_job: Callable[..., Job]) -> None:
    data = TokenData(make_job("pretrain"), "tokens", seed=5)
    for step in (0, 7):
        whole = data.batch(step, 8)
        halves = [data.batch(step, 8, rank, 2) for rank in range(2)]
        assert torch.equal(torch.cat([half.tokens for half in halves]), whole.tokens)
        assert whole.count == halves[0].count == halves[1].count == int(whole.mask.sum())
