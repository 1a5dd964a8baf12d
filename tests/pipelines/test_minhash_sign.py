"""The signatures file: one row a document, in order, with exactly what the pure functions say."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from contract.errors import InputError
from contract.plan import Run
from contract.settings import MinhashSign
from pipelines.minhash_sign import key_count, sign_texts
from pipelines.text.hashing import buffers, shingles
from pipelines.text.minhash import band_keys, signatures
from pipelines.text.simhash import fingerprints


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
    assert [row["length"] for row in rows] == [16] * 5  # characters, not bytes
    assert [row["date"] for row in rows] == [row["date"] for row in documents]
    assert [row["quality"] for row in rows] == [0.0, 0.125, 0.25, 0.375, 0.5]
    expected = signatures(*buffers(pa.array([row["text"] for row in documents])), 2, 12, 7)
    assert [row["keys"] for row in rows] == band_keys(expected, 3).tolist()


def test_a_column_that_documents_do_not_have(make_document: Any, make_corpus: Any, run_stage: Any) -> None:
    run = make_corpus([[[make_document("text")]]], {"minhash_sign.quality": "stars"})
    with pytest.raises(InputError, match=r"minhash_sign\.quality.*'stars'.*language_probability"):
        run_stage(run, "minhash_sign")


def test_a_column_of_text(make_document: Any, make_corpus: Any, run_stage: Any) -> None:
    run = make_corpus([[[make_document("text")]]], {"minhash_sign.quality": "title"})
    with pytest.raises(
        InputError, match=r"minhash_sign\.quality: column 'title' holds no numbers.*language_probability"
    ):
        run_stage(run, "minhash_sign")


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
    assert MinhashSign(preset="fineweb").identity() | {"preset": None} == MinhashSign().identity()
    assert MinhashSign.model_validate(made.model_dump()) == made
    with pytest.raises(ValueError, match="bands 20 contradicts preset refinedweb, which has 450"):
        MinhashSign(preset="refinedweb", bands=20)
