"""Shards against their definition: every document's tokens, then end-of-text, and nothing lost between files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import InputError
from contract.manifest import Attempt, File
from contract.shards import SPECIAL_TOKENS, open_shard
from pipelines.pack import load_tokenizer
from pipelines.tokenizer import train

pytestmark = pytest.mark.usefixtures("without_spark")

TEXTS = [
    "the cat sat on the mat",
    "one <|endoftext|> two <|user|>",
    "caf\u00e9 \U0001f600",
    *[f"text {n} " * n for n in range(1, 30)],
]


def commit_tokenizer(run: Any) -> bytes:
    attempt = Attempt(run, run.task("tokenizer"))
    data = train(TEXTS, 400, 2).to_str().encode()
    run.store.write_bytes(attempt.path("tokenizer.json"), data)
    attempt.commit([File(path=attempt.path("tokenizer.json"), kind="tokenizer", bytes=len(data))])
    return data


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
