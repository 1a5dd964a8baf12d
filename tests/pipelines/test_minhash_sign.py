"""The signatures file: one row a document, in order, with exactly what the pure functions say."""

from collections.abc import Callable
from typing import Any

from contract.plan import Run
from pipelines.text.minhash import band_keys, shingles, signature


def test_signatures(
    make_document: Callable[..., dict[str, Any]],
    make_corpus: Callable[..., Run],
    run_stage: Callable[..., Any],
    rows_of: Callable[..., list[dict[str, Any]]],
) -> None:
    documents = [make_document("caf\u00e9 " * 3 + str(n), name=f"d{n}", day=n) for n in range(5)]
    run = make_corpus(
        [[documents[:2], documents[2:4]], [documents[4:]], []],
        {"minhash_sign.bands": 3, "minhash_sign.rows": 4, "minhash_sign.seed": 7, "minhash_sign.ngram": 2},
    )
    done = run_stage(run, "minhash_sign")
    assert [one.metrics["documents"] for one in done] == [4, 1, 0]
    rows = rows_of(run.store, done, "signatures")
    assert [row["id"] for row in rows] == [row["id"] for row in documents]
    assert [row["length"] for row in rows] == [16] * 5  # characters, not bytes
    assert [row["date"] for row in rows] == [row["date"] for row in documents]
    for row, document in zip(rows, documents, strict=True):
        values = signature(shingles(document["text"], 2), 12, 7)
        assert row["signature"] == values.tolist()
        assert row["bands"] == band_keys(values, 3).tolist()
