"""The signatures file: one row a document, in order, with exactly what the pure functions say."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from contract.plan import Run
from contract.settings.corpus import MinhashSign
from pipelines.dedup.minhash import band_keys, signatures
from pipelines.dedup.simhash import fingerprints
from pipelines.minhash_sign import key_count, sign_texts
from pipelines.text.hashing import buffers, shingles

pytestmark = pytest.mark.usefixtures("without_spark")


def test_signatures(
    make_document: Callable[..., dict[str, Any]],
    make_corpus: Callable[..., Run],
    run_stage: Callable[..., Any],
    rows_of: Callable[..., list[dict[str, Any]]],
) -> None:
    documents = [
        make_document("caf\u00e9 " * 3 + "abcde"[n], name=f"d{n}", day=n, language_probability=n / 8) for n in range(5)
    ]
    run = make_corpus(
        [[documents[:2], documents[2:4]], [documents[4:]], []],
        {"minhash_sign.bands": 3, "minhash_sign.rows": 4, "minhash_sign.seed": 7, "minhash_sign.ngram": 2},
    )
    done = run_stage(run, "minhash_sign")
    assert [one.metrics["documents"] for one in done] == [4, 1, 0]
    rows = rows_of(run.store, done, "signatures")
    assert [row["id"] for row in rows] == [row["id"] for row in documents]
    assert [row["row"] for row in rows] == [0, 1, 0, 1, 0]
    assert {row["snapshot"] for row in rows} == {"TEST-2024-10"}
    assert [row["length"] for row in rows] == [16] * 5  # characters, not bytes
    assert [row["date"] for row in rows] == [row["date"] for row in documents]
    assert [row["quality"] for row in rows] == [0.0, 0.125, 0.25, 0.375, 0.5]
    expected = signatures(*buffers(pa.array([row["text"] for row in documents])), 2, 12, 7)
    assert [row["keys"] for row in rows] == band_keys(expected, 3).tolist()


@pytest.mark.parametrize(("quality", "sign"), [("hash_ratio", 1), ("-hash_ratio", -1)])
def test_a_score_is_the_quality(
    quality: str, sign: int, scored_run: Any, make_document: Any, run_stage: Any, rows_of: Any, monkeypatch: Any
) -> None:
    """Seven texts in six files of scores, of which three are dropped."""
    monkeypatch.setattr("pipelines.score.GROUP_ROWS", 1)
    texts = ["one two three # four", "one", "a # b # c # d", "e f g h", "short", "two", "last # of all them"]
    rows = [make_document(text, name=f"d{at}") for at, text in enumerate(texts)]
    files = [[0], [1], [4], [5], [2], [3, 6]]
    run = scored_run(
        [[rows[at] for at in file] for file in files], {"minhash_sign.quality": quality, "filter.min_words": 3}
    )
    assert len(rows_of(run.store, run_stage(run, "filter"), "documents")) == 4
    done = run_stage(run, "minhash_sign")
    signed = rows_of(run.store, done, "signatures")
    assert [row["row"] for row in signed] == [0, 0, 0, 1]
    found = {row["id"]: row["quality"] for row in signed}
    assert found == {rows[at]["id"]: sign * value for at, value in ((0, 1 / 5), (2, 3 / 7), (3, 0.0), (6, 1 / 5))}


def test_simhash_keys() -> None:
    texts = pa.array(["a b c d e f g h", "a b c d e f g h", "quite another text"])
    settings = MinhashSign(method="simhash", ngram=6, distance=4)
    keys, prints = sign_texts(texts, settings)
    assert keys.shape == (3, key_count(settings)) == (3, 35)
    assert prints.tolist() == fingerprints(*shingles(*buffers(texts), 6)).tolist()
    assert (prints[0], prints[0] == prints[2]) == (prints[1], False)


def test_presets() -> None:
    made = MinhashSign(preset="refinedweb")
    assert (made.ngram, made.bands, made.rows) == (5, 450, 20)
    assert list(MinhashSign(preset="fineweb").differences(MinhashSign())) == []
    assert MinhashSign.model_validate(made.model_dump()) == made
    with pytest.raises(ValueError, match="bands 20 contradicts preset refinedweb, which has 450"):
        MinhashSign(preset="refinedweb", bands=20)
