"""The search for links without Spark: one answer for any files, buckets and order, and hot keys that stay linear."""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from contract.documents import Part
from contract.errors import DamagedError
from contract.manifest import File
from contract.schema import DOCUMENTS
from contract.settings.corpus import DedupFuzzy, MinhashSign
from contract.store import Store
from contract.tables import read_rows
from pipelines.dedup import links
from pipelines.dedup.linking import near_pairs, pairs
from pipelines.dedup.links import ROW_BITS, meet_pairs, steps
from pipelines.minhash_sign import sign
from pipelines.spark.components import components
from pipelines.spark.documents import DocumentSink

Rows = list[dict[str, Any]]
SIZE = 20_000


@pytest.fixture
def edges_of(tmp_store: Store, in_process: Any) -> Callable[..., list[tuple[str, str]]]:
    """`edges_of(documents, files, buckets, settings, signing)`: the edges found, as ids of two documents."""

    def find(
        documents: Rows, files: int, buckets: int, settings: DedupFuzzy, signing: MinhashSign
    ) -> list[tuple[str, str]]:
        snapshots = sorted({row["snapshot"] for row in documents if row["source"] == "crawl"})
        items = []
        for number in range(files):
            name = f"{number:05d}-{number:08x}"
            rows = documents[number::files]
            source = rows[0]["source"] if rows and rows[0]["source"] != "crawl" else ""
            sink = DocumentSink(tmp_store, f"in{files}", "filter", name, DOCUMENTS, source=source)
            for row in rows:
                sink.keep(row, 0)
            (part,) = sink.close().parts
            items += sign(tmp_store, f"in{files}", signing, part, name).parts
        made = steps(
            tmp_store, f"out{files}", SimpleNamespace(value=items), files, settings, signing, buckets, snapshots
        )
        found = [row for file in in_process(made, seed=files) for row in read_rows(tmp_store, File(**file).path)]

        def name_of(node: int) -> str:
            return documents[node >> ROW_BITS :: files][node & (1 << ROW_BITS) - 1]["id"]

        return [(name_of(row["big"]), name_of(row["small"])) for row in found]

    return find


def clusters(edges: list[tuple[str, str]]) -> set[frozenset[str]]:
    names = sorted({key for edge in edges for key in edge})
    numbers = {name: at for at, name in enumerate(names)}
    ends = np.array([[numbers[key] for key in edge] for edge in edges], np.int64).reshape(-1, 2)
    nodes, labels = components(ends[:, 0], ends[:, 1])
    return {frozenset(names[node] for node in nodes[labels == label]) for label in np.unique(labels)}


@pytest.mark.parametrize(
    ("keys", "paired", "buckets"),
    [(1, False, 1), (8_000_000, False, 1), (8_000_001, False, 2), (2_000_000, True, 1), (8_000_000, True, 4)],
)
def test_as_many_buckets_as_the_keys_fill(keys: int, paired: bool, buckets: int) -> None:
    assert links.buckets_for(keys, paired) == buckets


def test_a_crawl_has_a_salt_of_its_own() -> None:
    found = links.salts(pa.array(["A-2024-10", "A-2024-18", "A-2024-10", None]))
    assert found[0] == found[2]
    assert len(set(found.tolist())) == 3


def named(path: str, signatures: str = "") -> Part:
    signed = File(path=signatures, kind="signatures", bytes=1) if signatures else None
    return Part(File(path=path, kind="documents", bytes=1), signatures=signed)


def test_signatures_are_those_of_the_same_documents() -> None:
    """Whatever the order and the numbers of the parts in the two manifests."""
    found = links.signed([named("b"), named("c")], [named("c", "sc"), named("a", "sa"), named("b", "sb")])
    assert [(part.documents.path, links.signatures_of(part).path) for part in found] == [("b", "sb"), ("c", "sc")]
    with pytest.raises(DamagedError, match=r"^b: dedup_url read these documents, and minhash_sign has not signed them"):
        links.signed([named("b")], [named("a", "sa")])


@pytest.mark.parametrize(
    ("settings", "signing", "sizes"),
    [
        (DedupFuzzy(), MinhashSign(), {9}),
        (DedupFuzzy(), MinhashSign(bands=5, rows=3), {9}),
        (DedupFuzzy(), MinhashSign(preset="slimpajama"), {9}),
        (DedupFuzzy(min_jaccard=0.8, pairs_per_document=2), MinhashSign(), {9}),
        (DedupFuzzy(), MinhashSign(method="simhash", distance=8), {9}),
    ],
)
def test_any_files_buckets_and_order(
    settings: DedupFuzzy, signing: MinhashSign, sizes: set[int], make_document: Any, edges_of: Any
) -> None:
    generator = random.Random(1)
    documents = []
    for original in range(20):
        words = ["".join(generator.choices("abcdefgh", k=5)) for _ in range(300)]
        documents += [
            make_document(" ".join([*words[:299], f"x{'abcdefghi'[copy]}"]), name=f"{original} {copy}")
            for copy in range(9)
        ]
    answers = []
    for files, buckets in ((1, 1), (3, 16), (16, 3)):
        shuffled = random.Random(files).sample(documents, len(documents))
        answers.append(clusters(edges_of(shuffled, files, buckets, settings, signing)))
    assert answers[0] == answers[1] == answers[2]
    assert {len(one) for one in answers[0]} == sizes
    assert len(answers[0]) == 20


@pytest.mark.parametrize(
    ("scope", "least", "together"),
    [("snapshot", None, False), ("global", None, True), ("snapshot", 0.8, False), ("global", 0.8, True)],
)
def test_curated_documents_meet_those_of_every_crawl(
    scope: Any, least: float | None, together: bool, make_document: Any, edges_of: Any
) -> None:
    """Copies in two crawls, of which only the first text is in a curated source as well."""
    texts = [" ".join(f"{letter}{one}{two}" for one in "abcdefghij" for two in "klmnopqrst") for letter in "xyz"]
    crawls = [
        make_document(text, name=f"{snapshot} {at}", snapshot=snapshot)
        for snapshot in ("A-2024-10", "B-2024-18")
        for at, text in enumerate(texts[:2])
    ]
    curated = [
        make_document(text, name=f"book {text[0]}", snapshot=None, source="books") for text in (texts[0], texts[2])
    ]
    documents = [
        crawls[0],
        curated[0],
        crawls[1],
        curated[1],
        crawls[2],
        make_document("", name="none", source="books"),
        crawls[3],
    ]
    ids = [row["id"] for row in crawls]
    found = clusters(edges_of(documents, 2, 3, DedupFuzzy(scope=scope, min_jaccard=least), MinhashSign()))
    wanted = {frozenset({ids[0], ids[2], curated[0]["id"]})}
    assert found == wanted | ({frozenset({ids[1], ids[3]})} if together else set())


@pytest.mark.parametrize("files", [1, 4])
def test_equal_fingerprints_are_linked_in_a_hot_key(
    files: int, make_document: Any, edges_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred fingerprints share every key but their own; two equal ones have the largest ids."""
    prints = {f"text {number}": 1 << (number % 7) | number << 8 for number in range(98)}
    documents = [make_document(text, id=f"{at:032x}") for at, text in enumerate(prints)]
    documents += [make_document("copy", id="f" * 31 + end) for end in "0f"]

    def signed(texts: pa.Array, _: MinhashSign) -> tuple[np.ndarray, np.ndarray]:
        made = np.array([prints.get(text, (1 << 40) - 1 << 20) for text in texts.to_pylist()], np.uint64)
        return np.full((len(made), 20), 7, np.uint64), made

    monkeypatch.setattr("pipelines.minhash_sign.sign_texts", signed)
    monkeypatch.setattr(links, "REACH", 16)
    settings = DedupFuzzy()
    edges = edges_of(documents, files, 3, settings, MinhashSign(method="simhash", distance=3))
    assert {"f" * 31 + "0", "f" * 32} in [set(edge) for edge in edges]


@pytest.mark.parametrize("settings", [DedupFuzzy(), DedupFuzzy(min_jaccard=0.05, pairs_per_document=4)])
def test_a_band_that_twenty_thousand_pages_share(
    settings: DedupFuzzy, make_document: Any, edges_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row a band, and boilerplate that most pages have more of than of their own."""
    monkeypatch.setattr(links, "PAIRED_KEYS", 5000)
    notice = "we use cookies to improve your experience on this site read our policy for more about that"
    letters = "abcdefghijklmnopqrstuvwxyz"
    documents = [
        make_document(
            f"{notice} {letters[n % 26]} {letters[n // 26 % 26]} {letters[n // 676 % 26]} {letters[n // 17576]}",
            name=str(n),
        )
        for n in range(SIZE)
    ]
    edges = edges_of(documents, 4, 3, settings, MinhashSign(bands=3, rows=1))
    assert max(map(len, clusters(edges))) > 0.9 * SIZE  # the others' smallest hash is of a shingle of their own
    assert len(edges) <= 3 * SIZE * (settings.pairs_per_document if settings.min_jaccard else 2)


@examples(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=60, unique=True),
    st.integers(1, 3),
    st.sampled_from([(None, True), (1, True), (1, False)]),
    st.integers(1, 9),
)
def test_pairs_that_wait_on_the_disk(
    rows: list[tuple[int, int]], bound: int, method: tuple[int | None, bool], cut: int
) -> None:
    """A place that holds few keys at a time makes the pairs of one that holds them all."""
    distance, checked = method
    keys, nodes = np.array([key for key, _ in rows], np.uint64), np.array([node for _, node in rows], np.int64)
    ranks, prints = (nodes * 37 % 41).astype(np.uint64), (nodes % 8).astype(np.uint64)
    table = pa.record_batch({"key": keys, "node": nodes, "rank": ranks, "fingerprint": prints})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(links, "PAIRED_KEYS", 4)
        patch.setattr(links, "REACH", bound)
        batches = (table.slice(at, cut) for at in range(0, len(rows), cut))
        sent = list(meet_pairs(distance, bound, checked, 0, batches))
    found = {
        pair for _, batch in sent for pair in zip(batch["big"].to_pylist(), batch["small"].to_pylist(), strict=True)
    }
    if distance is None:
        big, small = pairs(keys, ranks, nodes, bound)
    else:
        big, small = near_pairs(keys, ranks, nodes, prints, distance, bound, bound if checked else None)
    assert found == set(zip(big.tolist(), small.tolist(), strict=True))
