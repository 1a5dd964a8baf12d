"""Packed tokens: rows as the shards say, and of the store only what they need."""

import io
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import File
from contract.mixture import schedule
from contract.settings.training import Mixture
from contract.shards import RowsWriter
from contract.store import Store
from perf.packed import write_shard
from perf.slow_store import slow_store
from training.data import reading
from training.data.drawing import Draws
from training.data.reading import TokenData
from training.data.stream import Ranges, ahead
from training.engine.job import Job
from training.engine.scratch import Scratch

LENGTHS = (5, 1, 9, 3, 30, 2, 7)


def documents(lengths: tuple[int, ...], first: int = 0) -> list[list[int]]:
    """Documents whose tokens are first, first + 1, ... in one sequence over all of them."""
    ends = np.cumsum(lengths).tolist()
    return [list(range(first + start, first + end)) for start, end in pairwise([0, *ends])]


def job_of(files: list[File], store: Store, folder: Path) -> Job:
    manifest = SimpleNamespace(
        files=files, of=lambda *kinds: [file for file in files if file.kind in kinds], path="pack/manifest.json"
    )
    scratch = Scratch(store, "pretrain", folder.name)
    return SimpleNamespace(manifest=lambda stage: manifest, scratch=scratch, store=store)  # type: ignore[return-value]


@pytest.fixture
def two_shards(tmp_store: Store, tmp_path: Path) -> Job:
    files = write_shard(tmp_store, "a", 0, Kind.TOKENS, documents(LENGTHS), [8, 16])
    return job_of(
        [*files, *write_shard(tmp_store, "b", 1, Kind.TOKENS, documents((4, 6), 100), [8, 16])], tmp_store, tmp_path
    )


def test_every_row_holds_its_tokens_and_the_places_where_documents_begin(two_shards: Job) -> None:
    data = TokenData(two_shards, Kind.TOKENS, 8)
    assert len(data) == 7 + 2
    batch = data.rows([0, 6, 7, 1])
    assert batch.tokens.tolist() == [
        [*range(9)],
        [*range(48, 57)],
        [*range(100, 109)],
        [*range(8, 17)],
    ]
    assert batch.positions is not None
    assert batch.positions.tolist() == [
        [0, 1, 2, 3, 4, 0, 0, 1],
        [0, 1, 0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5, 6, 0],
    ]
    assert batch.mask[0].tolist() == [1, 1, 1, 1, 0, 0, 1, 1]
    assert batch.mask[3].tolist() == [1, 1, 1, 1, 1, 1, 0, 1]
    assert batch.count == 6 + 7 + 7 + 7
    padded = data.rows([8])
    assert padded.tokens.tolist() == [[108, 109, 0, 0, 0, 0, 0, 0, 0]]
    assert padded.mask.tolist() == [[1, 0, 0, 0, 0, 0, 0, 0]]


def test_every_token_is_predicted_once_except_the_first_of_a_document(two_shards: Job) -> None:
    for seq_len in (8, 16):
        data = TokenData(two_shards, Kind.TOKENS, seq_len)
        batch = data.rows(list(range(len(data))))
        predicted = batch.tokens[:, 1:][batch.mask > 0].tolist()
        every = documents(LENGTHS) + documents((4, 6), 100)
        assert sorted(predicted) == [token for document in every for token in document[1:]]


def test_the_shards_of_a_source_are_one_list(tmp_store: Store, tmp_path: Path) -> None:
    files: list[File] = []
    for part, (source, length) in enumerate((("crawl", 17), ("code", 25), ("", 9), ("code", 17))):
        texts = documents((length,), 100 * part)
        files += write_shard(tmp_store, f"{part}", part, Kind.TOKENS, texts, [8], source)
    data = TokenData(job_of(files, tmp_store, tmp_path), Kind.TOKENS, 8)
    assert data.sources == {"crawl": 3, "code": 5}, "a file without a source is the crawl's"
    assert sorted(data.number(source, row) for source, rows in data.sources.items() for row in range(rows)) == [
        *range(8)
    ]
    crawl, code = ([(source, row) for row in range(data.sources[source])] for source in ("crawl", "code"))
    assert data.batch(crawl).tokens[:, 0].tolist() == [0, 8, 200]
    assert data.batch(code).tokens[:, 0].tolist() == [100, 108, 116, 300, 308]
    assert data.batch([code[4], crawl[2], code[0]]).tokens[:, 0].tolist() == [308, 200, 100]
    assert [data.source(row) for row in range(8)] == ["code"] * 5 + ["crawl"] * 3
    with pytest.raises(IndexError, match="crawl has no row 3"):
        data.number("crawl", 3)
    some = data.sample(4)
    assert data.rows(some).tokens[:, 0].tolist() == [100, 116, 308, 8], "of each source its share"
    assert data.sample(100) == [*range(8)]


def test_many_sources_that_take_turns_do_not_push_each_other_out_of_memory(
    tmp_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """22 sources, 2 shards of each and 2 windows of each shard are in use at a time; each is read once."""
    files: list[File] = []
    for part in range(44):
        texts = documents((17,), 100 * part)
        files += write_shard(tmp_store, f"{part}", part, Kind.TOKENS, texts, [8], f"source-{part % 22}")
    read: Counter[str] = Counter()

    def counted(name: str) -> None:
        real = getattr(reading, name)
        monkeypatch.setattr(reading, name, lambda *given: read.update([name]) or real(*given))

    monkeypatch.setattr(reading, "WINDOW", 1)
    counted("read_index")
    counted("read_rows")
    data = TokenData(job_of(files, tmp_store, tmp_path), Kind.TOKENS, 8)
    for _ in range(5):
        for row in range(4):
            batch = data.batch([(source, row) for source in data.sources])
            assert batch.tokens[:, 0].tolist() == [
                100 * (int(source.split("-")[1]) + 22 * (row // 2)) + 8 * (row % 2) for source in data.sources
            ]
    assert read == {"read_index": 44, "read_rows": 88}


def test_without_boundaries_a_row_is_one_text(two_shards: Job) -> None:
    batch = TokenData(two_shards, Kind.TOKENS, 8, boundaries=False).rows([0, 8])
    assert batch.positions is None
    assert batch.mask.tolist() == [[1] * 8, [1, *[0] * 7]]


def test_without_boundaries_the_token_that_a_cut_repeats_is_predicted_once(tmp_store: Store, tmp_path: Path) -> None:
    """As best_fit packs: a document of 12 tokens in two pieces that share token 8, and two documents of 4."""
    files = write_shard(tmp_store, "a", 0, Kind.TOKENS, documents((12, 4, 4)), [8])
    rows, sink = RowsWriter(8), io.BytesIO()
    rows.add(np.array([1, 2, 2]), np.array([0, 16, 8, 12, 16]), np.array([9, 4, 4, 4, 4]))
    rows.finish(sink, 20)
    (file,) = [one for one in files if one.kind == Kind.ROWS]
    tmp_store.write_bytes(file.path, sink.getvalue())
    files[files.index(file)] = file.model_copy(update={"bytes": len(sink.getvalue())})
    batch = TokenData(job_of(files, tmp_store, tmp_path), Kind.TOKENS, 8, boundaries=False).rows([0, 1, 2])
    predicted = [row[1:][mask > 0].tolist() for row, mask in zip(batch.tokens, batch.mask, strict=True)]
    assert predicted[0] == [*range(1, 9)]
    assert predicted[1] == [17, 18, 19, 9, 10, 11], "8 follows from elsewhere and was predicted by the row before"
    assert predicted[2] == [13, 14, 15, 16, 17, 18, 19], "16 follows 15 in the shard"


def test_an_empty_corpus_is_refused_and_nothing_held_out_is_not(tmp_store: Store, tmp_path: Path) -> None:
    job = job_of([], tmp_store, tmp_path)
    with pytest.raises(InputError, match=r"pack/manifest.json: lists no token; the corpus is empty"):
        TokenData(job, Kind.TOKENS, 8)
    assert len(TokenData(job, Kind.HELDOUT_TOKENS, 8)) == 0


def test_a_sequence_length_that_was_not_packed_is_named(two_shards: Job) -> None:
    with pytest.raises(InputError, match=r"no rows of 32 tokens, only of 8, 16; add 32 to pack.more_seq_lens"):
        TokenData(two_shards, Kind.TOKENS, 32)


def test_a_batch_is_the_same_however_many_processes_read_it(make_job: Callable[..., Job]) -> None:
    data = TokenData(make_job("pretrain"), Kind.TOKENS, 64)
    for step in (0, 1):
        draws = [("crawl", row) for row in range(8 * step, 8 * step + 8)]
        whole = data.batch(draws)
        halves = [data.batch(draws, rank, 2) for rank in range(2)]
        assert torch.equal(torch.cat([half.tokens for half in halves]), whole.tokens)
        assert whole.count == sum(half.count for half in halves) == int(whole.mask.sum())


def test_files_that_contradict_each_other_are_refused(two_shards: Job, tmp_store: Store) -> None:
    tmp_store.write_bytes("a.idx", tmp_store.read_bytes("b.idx"))
    files = two_shards.manifest("pack").files
    files[:] = [file.model_copy(update={"bytes": tmp_store.size(file.path)}) for file in files]
    with pytest.raises(InputError, match=r"a.bin: its index is of 10 tokens"):
        TokenData(two_shards, Kind.TOKENS, 8).rows([0])


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("GRISTMILL_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "served"


def held(chunks: Path) -> int:
    """Bytes of the chunks on the disk, also of those that a thread is fetching."""
    size = 0
    for path in chunks.iterdir():
        with suppress(FileNotFoundError):  # it went for a newer one
            size += path.stat().st_size
    return size


def test_a_stream_gives_what_the_files_hold_and_fetches_little_at_first(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 rows of 16 tokens through a cache of 256 KiB: 1.3 MB of tokens, 0.5 MB of places."""
    monkeypatch.setattr(reading, "Ranges", lambda scratch: Ranges(scratch, limit=1 << 18, chunk=1 << 14))
    monkeypatch.setattr(reading, "WINDOW", 256)
    lengths = np.random.default_rng(0).integers(1, 60, 10_000)
    texts = [[token % 60_000 for token in text] for text in documents(tuple(lengths.tolist()))]
    local = Store(str(bucket / "corpus"))
    files = write_shard(local, "a", 0, Kind.TOKENS, texts, [16])
    expected = TokenData(job_of(files, local, tmp_path / "here"), Kind.TOKENS, 16)
    with slow_store(bucket) as (endpoint, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        data = TokenData(job_of(files, Store("s3://corpus"), tmp_path / "there"), Kind.TOKENS, 16)
        assert asked.requests == 0, "the manifest alone says how many rows there are"
        plan = schedule([(600, Mixture(), data.sources)], 16)
        chunks = data._ranges._place(files[0], 0).parent
        with ahead(Draws([data], plan, 1).batch, 0, 600, depth=2) as batches:
            for step, batch in enumerate(batches):
                if step == 0:
                    assert asked.sent[".bin"] <= 10 << 14, "the 4,096 rows of a block, and what lies beside them"
                same = Draws([expected], plan, 1).batch(step)
                assert torch.equal(batch.tokens, same.tokens)
                assert torch.equal(batch.mask, same.mask)
                assert 0 < held(chunks) <= 1 << 18
        assert asked.sent[".bin"] > 1 << 18, "more than the cache holds"


def test_a_store_that_fails_for_a_while_is_asked_again(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_shard(Store(str(bucket / "corpus")), "a", 0, Kind.TOKENS, documents(LENGTHS), [8])
    with slow_store(bucket) as (endpoint, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        asked.failures = 3
        data = TokenData(job_of(files, Store("s3://corpus"), tmp_path), Kind.TOKENS, 8)
        with ahead(lambda step: data.rows([step]), 0, 2) as batches:
            assert [batch.tokens[0, 0].item() for batch in islice(batches, 2)] == [0, 8]
        assert asked.failures == 0
