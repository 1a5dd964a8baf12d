"""Packed tokens."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from contract.errors import InputError
from training.data.order import rows_of
from training.data.reading import TokenData
from training.engine.job import Job


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
