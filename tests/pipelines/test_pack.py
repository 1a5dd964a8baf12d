"""Shards against their definition: every document's tokens, then end-of-text, and nothing lost between files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.chat import SPECIAL_TOKENS, dump_special_tokens
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import Attempt, File, Rows
from contract.schema import DOCUMENTS
from contract.settings.corpus import Pack, Tokenizer
from contract.shards import open_shard
from pipelines.pack import load_tokenizer, pack, sizes
from pipelines.spark.tables import TableWriter
from pipelines.vocabulary.training import train

pytestmark = pytest.mark.usefixtures("without_spark")

TEXTS = [
    "the cat sat on the mat",
    "one <|endoftext|> two <|user|>",
    "caf\u00e9 \U0001f600",
    *[f"text {n} " * n for n in range(1, 30)],
]


def commit_tokenizer(run: Any) -> bytes:
    attempt = Attempt(run, run.task("tokenizer"))
    files = {"tokenizer": train_tokenizer(), "special_tokens": dump_special_tokens(SPECIAL_TOKENS)}
    for kind, data in files.items():
        run.store.write_bytes(attempt.path(f"{kind}.json"), data)
    attempt.commit(
        [File(path=attempt.path(f"{kind}.json"), kind=kind, bytes=len(data)) for kind, data in files.items()]
    )
    return files["tokenizer"]


def train_tokenizer() -> bytes:
    return train(TEXTS, Tokenizer(vocab_size=400), [*SPECIAL_TOKENS.values()]).to_str().encode()


@pytest.mark.parametrize(
    ("shard_tokens", "shards"), [(1, [1, 1, 1, 1]), (6, [2, 2]), (7, [3, 1]), (1000, [4])], ids=str
)
def test_a_shard_is_closed_once_it_has_its_tokens(
    shard_tokens: int, shards: list[int], tmp_store: Any, make_document: Any, tmp_path: Path
) -> None:
    """Four documents of two tokens, each then with its end of text: three tokens."""
    writer = TableWriter(tmp_store, "in.parquet", "documents", DOCUMENTS)
    for at in range(4):
        writer.write(make_document("~é"[0] + "^", name=f"d{at}"))
    (file,) = writer.close()
    settings = Pack(seq_len=1024, shard_tokens=shard_tokens)
    output = pack(tmp_store, "out", settings, train_tokenizer(), 0, file, "00000-0123abcd")
    opened = [open_shard(tmp_store.download(one.path, tmp_path / f"{at}")) for at, one in enumerate(output.files)]
    assert [len(one.ids) for one in opened] == shards
    assert [one.used for one in opened] == [3 * count for count in shards]
    assert [(one.kind, one.rows) for one in output.files] == [("tokens", 1)] * len(shards)
    assert [one.path for one in output.files] == [
        f"out/tokens-00000-0123abcd-{at:05d}.bin" for at in range(len(shards))
    ]
    assert [one.bytes for one in output.files] == [len(tmp_store.read_bytes(one.path)) for one in output.files]
    assert output.counts.bytes_read == 8
    assert sizes(tmp_store, output.files, Kind.TOKENS) == (12, len(shards), 4)
    assert sizes(tmp_store, output.files, Kind.HELDOUT_TOKENS) == (0, 0, 0)


def test_stage(make_document: Any, make_corpus: Any, run_stage: Any, commit_mixture: Any, tmp_path: Path) -> None:
    rows = [make_document(text) for text in TEXTS]
    run = make_corpus([[rows]], {"pack.seq_len": 1024, "pack.shard_tokens": 300})
    tokenizer = load_tokenizer(commit_tokenizer(run))
    commit_mixture(run, {"documents": [rows[:20], rows[20:29]], "heldout": [rows[29:]]})
    (done,) = run_stage(run, "pack")
    tokens = {"tokens": 0, "heldout_tokens": 0}
    for kind, expected in (("tokens", rows[:29]), ("heldout_tokens", rows[29:])):
        found = []
        for file in done.of(kind):
            shard = open_shard(run.store.download(file.path, tmp_path / Path(file.path).name))
            assert shard.tokens.shape == (file.rows, 1024)
            flat = np.array(shard.tokens).reshape(-1)
            assert not flat[shard.used :].any()
            tokens[kind] += shard.used
            ends = [*shard.starts[1:].tolist(), shard.used]
            found += [
                (bytes(key).hex(), flat[start:end].tolist())
                for key, start, end in zip(shard.ids, shard.starts.tolist(), ends, strict=True)
            ]
        assert found == [(row["id"], [*tokenizer.encode(row["text"]).ids, 0]) for row in expected]
        assert all(min(ids[:-1]) >= len(SPECIAL_TOKENS) for _, ids in found)
    assert len(done.of("tokens")) > 3
    assert done.rows == Rows(), "it judges no document"
    size = sum(len(row["text"].encode()) for row in rows)
    assert done.metrics == {
        "tokens": tokens["tokens"],
        "sequences": sum(file.rows for file in done.of("tokens")),
        "documents": 29,
        "heldout_tokens": tokens["heldout_tokens"],
        "heldout_sequences": 1,
        "heldout_documents": 3,
        "bytes": size,
        "bytes_per_token": size / sum(tokens.values()),
        "token_bytes": 2,
    }


def test_nothing_to_pack(make_document: Any, make_corpus: Any, run_stage: Any, commit_mixture: Any) -> None:
    run = make_corpus([[[make_document("text")]]])
    commit_tokenizer(run)
    commit_mixture(run, {"heldout": [[make_document("text")]]})
    with pytest.raises(InputError, match=r"mix/.*manifest\.json lists no training documents; run mix again"):
        run_stage(run, "pack")
