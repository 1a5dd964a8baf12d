"""Clusters against scipy and brute force, keep rules, and one answer whatever the order, partitions and algorithm."""

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.manifest import Attempt, File, find
from contract.plan import Run
from contract.schema import DOCUMENTS, Drop
from contract.settings.corpus import MinhashSign
from contract.sources import Segment
from contract.store import Store
from pipelines import minhash_sign
from pipelines.dedup.links import id_rank, len_keys, read_edges
from pipelines.dedup_fuzzy import duplicates, facts, keep_edges, show
from pipelines.spark.components import components, spark_components
from pipelines.spark.documents import DocumentSink, IndexSink
from pipelines.spark.job import Job

Rows = list[dict[str, Any]]
Edges = list[tuple[int, int]]


def flood(edges: Edges) -> dict[int, int]:
    """Every node with the smallest node that it reaches, by spreading labels until none changes."""
    labels = {node: node for edge in edges for node in edge}
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            smallest = min(labels[a], labels[b])
            changed |= labels[a] != smallest or labels[b] != smallest
            labels[a] = labels[b] = smallest
    return labels


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=40))
def test_components_equal_flooding(edges: Edges) -> None:
    big, small = np.array(edges, np.int64).T
    nodes, labels = components(big, small)
    assert dict(zip(nodes.tolist(), labels.tolist(), strict=True)) == flood(edges)


def test_what_decides_which_document_stays(tmp_store: Store, make_document: Any) -> None:
    """Of the documents that no stage before has dropped; a node is the file's number and the row in it."""
    rows = [
        make_document(text, id=f"{at:032x}", day=at, language_probability=at / 4)
        for at, text in enumerate(("é", "ab", "abc"))
    ]
    sink = DocumentSink(tmp_store, "in", "filter", "00003-0123abcd", DOCUMENTS)
    for row in rows:
        sink.keep(row, 0)
    (part,) = sink.close().parts
    (signed,) = minhash_sign.sign(tmp_store, "in", MinhashSign(), part, "00003-0123abcd").parts
    judged = IndexSink(tmp_store, "in", "dedup_url", "00003-0123abcd")
    judged.keep(0, 0)
    judged.drop(rows[1], Drop.DUPLICATE_URL)
    judged.keep(2, 0)
    judged.finish(signed)
    (part,) = judged.close().parts
    found = [row for batch in facts(tmp_store, part, 3) for row in batch.to_pylist()]
    assert found == [
        {"node": (3 << 32) + at, "id": rows[at]["id"], "curated": False, "length": len(rows[at]["text"]), "date": 1000 * int(rows[at]["date"].timestamp()), "quality": at / 4}
        for at in (0, 2)
    ]  # fmt: skip
    assert len_keys(tmp_store, [part]) == 14
    assert show({}, "group") == "group"


def test_ids_rank_as_they_sort() -> None:
    ids = [f"{2**127 + 5:032x}", f"{2**64 - 1:032x}", f"{3 << 64:032x}"]
    assert id_rank(pa.array(ids)).tolist() == [2**63, 0, 3]


def test_edges_that_wait_in_the_store(tmp_store: Store) -> None:
    batches = [pa.record_batch({"small": [at], "other": [0], "big": [at + 1]}) for at in range(3)]
    (batch,) = keep_edges(tmp_store, "turns/000", iter(batches))
    ((row),) = batch.to_pylist()
    assert row["rows"] == 3
    assert row["path"].startswith("turns/000/")
    edges = read_edges(tmp_store, File(path=row["path"], kind="edges", bytes=0))
    assert [row for batch in edges for row in batch.to_pylist()] == [{"big": at + 1, "small": at} for at in range(3)]
    assert list(keep_edges(tmp_store, "turns/001", iter([]))) == []


def words(generator: random.Random, count: int) -> list[str]:
    return ["".join(generator.choices("abcdefghij", k=4)) for _ in range(count)]  # digits would be folded


@pytest.fixture
def texts(make_document: Callable[..., dict[str, Any]]) -> Rows:
    """Thirty unrelated texts, three near copies of the first five, exact copies of the sixth, and short texts."""
    generator = random.Random(0)
    plain = [words(generator, 200) for _ in range(30)]
    rows = [make_document(" ".join(text), name=f"plain{n}", day=n) for n, text in enumerate(plain)]
    for n in range(5):
        for copy in range(3):
            changed = list(plain[n])
            changed[50 + copy] = "changed"
            extra = " ".join(words(generator, copy))
            rows.append(
                make_document(" ".join([*changed, extra]).upper(), name=f"near{n}.{copy}", day=(n * 7 + copy * 3) % 11)
            )
    rows += [make_document(rows[5]["text"], name=f"exact{n}", day=0) for n in range(2)]
    rows += [make_document("three short words", name="short0"), make_document("Three short, words!", name="short1")]
    rows += [make_document("three other words", name="short2"), make_document("", name="empty0")]
    return rows


def expected(texts: Rows, keep: str) -> dict[str, tuple[str, str]]:
    """id -> (id that stays, smallest id of the cluster), from how the texts were made."""
    clusters = [[texts[n], *texts[30 + 3 * n : 33 + 3 * n]] for n in range(5)]
    clusters += [[texts[5], *texts[45:47]], texts[47:49]]
    rules: dict[str, Callable[[dict[str, Any]], Any]] = {
        "longest": lambda row: (-len(row["text"]), -row["date"].timestamp(), row["id"]),
        "newest": lambda row: (-row["date"].timestamp(), -len(row["text"]), row["id"]),
        "smallest_id": lambda row: row["id"],
    }
    answer = {}
    for cluster in clusters:
        stays = min(cluster, key=rules[keep])
        smallest = min(row["id"] for row in cluster)
        answer |= {row["id"]: (stays["id"], smallest) for row in cluster if row is not stays}
    return answer


def judge(run: Run, run_stage: Any, rows_of: Any) -> tuple[Any, dict[str, tuple[str, str]]]:
    for stage in ("minhash_sign", "dedup_url"):
        run_stage(run, stage)
    (done,) = run_stage(run, "dedup_fuzzy")
    drops = rows_of(run.store, [done], "drops")
    assert {row["reason"] for row in drops} == {"near_duplicate"}
    return done, {row["id"]: (row["duplicate_of"], row["value"]) for row in drops}


@pytest.mark.parametrize(
    ("keep", "files", "partitions", "edge_limit"),
    [("longest", 1, 1, 10**6), ("newest", 3, 3, 10**6), ("smallest_id", 8, 16, 10**6), ("longest", 5, 4, 1)],
)
def test_keep_rules_order_partitions_and_both_algorithms(
    keep: str, files: int, partitions: int, edge_limit: int, texts: Rows, make_corpus: Any, run_stage: Any, rows_of: Any
) -> None:
    shuffled = random.Random(files).sample(texts, len(texts))
    settings = {
        "dedup_fuzzy.keep": keep,
        "dedup_fuzzy.driver_edge_limit": edge_limit,
        "spark.shuffle_partitions": partitions,
    }
    run = make_corpus([[shuffled[at::files] for at in range(files)]], settings)
    done, answer = judge(run, run_stage, rows_of)
    assert answer == expected(texts, keep)
    assert done.metrics["clusters"] == 7
    size = sum(len(row["text"]) for row in texts)
    gone = sum(len(row["text"]) for row in texts if row["id"] in answer)
    assert (done.rows.read, done.rows.dropped) == (len(texts), len(answer)) == (51, 18)
    assert (done.rows.bytes_read, done.rows.bytes_kept) == (size, size - gone)


def test_what_dedup_url_dropped_takes_no_part(
    make_document: Callable[..., dict[str, Any]], make_corpus: Any, run_stage: Any, rows_of: Any
) -> None:
    text = " ".join(words(random.Random(1), 100))
    old = make_document(text + " " + text, name="long but replaced", url="https://example.org/x", day=1)
    new = make_document("something else entirely", url="https://example.org/x", day=2)
    a, b = make_document(text, name="a", day=3), make_document(text, name="b", day=4)
    done, answer = judge(make_corpus([[[old, a]], [[new, b]]]), run_stage, rows_of)
    assert answer == {a["id"]: (b["id"], min(a["id"], b["id"]))}
    assert done.rows.read == 3


def test_best_quality_stays(make_document: Any, make_corpus: Any, run_stage: Any, rows_of: Any) -> None:
    text = " ".join(words(random.Random(2), 60))
    rows = [
        make_document(text, name=f"q{n}", language_probability=quality) for n, quality in enumerate((0.5, 0.9, None))
    ]
    rows.append(make_document(text + " longer", name="q3", language_probability=0.9))
    _, answer = judge(make_corpus([[rows]], {"dedup_fuzzy.keep": "best_quality"}), run_stage, rows_of)
    assert {one["id"]: answer.get(one["id"], (None,))[0] for one in rows} == {
        one["id"]: None if one is rows[3] else rows[3]["id"] for one in rows
    }


@pytest.mark.parametrize(("quality", "stays"), [("-hash_ratio", 2), ("hash_ratio", 3)])
def test_a_score_decides_either_way(
    quality: str, stays: int, scored_run: Any, make_document: Any, run_stage: Any, rows_of: Any
) -> None:
    """One text with more or fewer # in it, which signatures do not see: 3, 2, 1 and 9 of them."""
    text = " ".join(words(random.Random(2), 60))
    rows = [make_document(f"{text} {'# ' * count}", name=f"q{count}") for count in (3, 2, 1, 9)]
    run = scored_run([rows[:2], rows[2:]], {"minhash_sign.quality": quality, "dedup_fuzzy.keep": "best_quality"})
    run_stage(run, "filter")
    _, answer = judge(run, run_stage, rows_of)
    kept = rows[stays]["id"]
    assert {key: stays for key, (stays, _) in answer.items()} == {row["id"]: kept for row in rows if row["id"] != kept}


@pytest.mark.parametrize(
    ("keep", "curated_first", "stays"),
    [
        ("longest", True, "c"),
        ("longest", False, "b"),
        ("newest", True, "c"),
        ("newest", False, "a"),
        ("smallest_id", True, "c"),
    ],
)
def test_a_curated_document_stays_unless_the_recipe_says_otherwise(
    keep: str, curated_first: bool, stays: str, make_corpus: Any, spark_stops: None
) -> None:
    """Two documents with one id have the same text: one of them goes, and the id tells which stayed in its place."""
    run = make_corpus([[[]]])
    task = run.task("dedup_fuzzy")
    columns = {
        "node": [0, 1, 1 << 32, (1 << 32) + 1], "id": ["a", "b", "c", "c"], "curated": [False, False, True, True],
        "length": [1, 4, 2, 2], "date": [9, 3, None, None], "quality": [0.1] * 4, "component": [0] * 4,
    }  # fmt: skip
    members = Job(run, task, Attempt(run, task)).spark.createDataFrame(pa.table(columns))
    found = duplicates(members, keep, curated_first).toArrow().to_pylist()
    rows = {(0, 0): "a", (0, 1): "b", (1, 0): "c", (1, 1): "c"}
    gone = [rows[row["part"], row["row"]] for row in found]
    assert sorted([*gone, stays]) == ["a", "b", "c", "c"]
    assert {(row["stays"], row["group"]) for row in found} == {(stays, "a")}


def jaccard(one: str, other: str) -> float:
    a, b = ({tuple(text.split()[at : at + 5]) for at in range(len(text.split()) - 4)} for text in (one, other))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("files", [1, 3])
def test_checked_links_are_those_above_the_true_jaccard(
    files: int, make_document: Any, make_corpus: Any, run_stage: Any, rows_of: Any
) -> None:
    """Bands of one row propose nearly every pair that shares anything; only the true similarity decides."""
    generator = random.Random(4)
    base = words(generator, 120)
    rows = []
    for n in range(12):
        mixed = [*base[: 120 - 9 * n], *words(generator, 9 * n)]
        rows.append(make_document(" ".join(mixed), name=f"m{n}"))
    settings = {
        "minhash_sign.bands": 64,
        "minhash_sign.rows": 1,
        "dedup_fuzzy.min_jaccard": 0.6,
        "dedup_fuzzy.keep": "smallest_id",
    }
    shuffled = random.Random(files).sample(rows, len(rows))
    done, answer = judge(make_corpus([[shuffled[at::files] for at in range(files)]], settings), run_stage, rows_of)
    edges = [
        (a, b)
        for a, one in enumerate(rows)
        for b, other in enumerate(rows[:a])
        if jaccard(one["text"], other["text"]) >= 0.6
    ]
    assert 5 < len(edges) < 60
    assert "edges" not in done.metrics  # a pair is written once a band and place: their number depends on the cut
    clusters: dict[int, list[str]] = {}
    for node, label in flood(edges).items():
        clusters.setdefault(label, []).append(rows[node]["id"])
    assert answer == {key: (min(ids), min(ids)) for ids in clusters.values() for key in ids if key != min(ids)}


def test_simhash(texts: Rows, make_corpus: Any, run_stage: Any, rows_of: Any) -> None:
    """One changed word in 200 flips a few bits of 64; unrelated texts differ in about half."""
    settings = {"minhash_sign.method": "simhash", "minhash_sign.ngram": 1, "minhash_sign.distance": 8}
    done, answer = judge(make_corpus([[texts[::2], texts[1::2]]], settings), run_stage, rows_of)
    truth = expected(texts, "longest")
    assert set(answer) <= set(truth)
    assert len(answer) > 12
    assert all(answer[row["id"]] == truth[row["id"]] for row in texts[45:47] if row["id"] in answer)
    assert done.metrics["clusters"] >= 6


@pytest.mark.parametrize(("scope", "dropped"), [("snapshot", 1), ("global", 2)])
def test_scope(
    scope: str, dropped: int, make_document: Any, make_corpus: Any, commit_documents: Any, run_stage: Any, rows_of: Any
) -> None:
    """Two pages of one crawl and one of another say the same; only a global search sees the third."""
    text = " ".join(words(random.Random(8), 80))
    run = make_corpus([[]], {"dedup_fuzzy.scope": scope}, name=scope)
    crawls = tuple(Segment(name, 0, ()) for name in ("CC-MAIN-2024-10", "CC-MAIN-2024-18"))
    run = dataclasses.replace(run, segments=crawls)
    for number, segment in enumerate(run.segments):
        rows = [make_document(text, name=f"{number}.{n}", snapshot=segment.snapshot) for n in range(2 - number)]
        commit_documents(run, "filter", segment.partition, [rows])
    _, answer = judge(run, run_stage, rows_of)
    assert len(answer) == dropped


@pytest.mark.usefixtures("spark_stops")
def test_components_in_spark_equal_scipys(make_corpus: Any, run_stage: Any) -> None:
    """A path (the worst case for label spreading), a star, a ring, and a random graph with many small components."""
    run = make_corpus([[]])
    from pipelines.spark.session import start_spark

    spark = start_spark(run, run.task("dedup_fuzzy"))
    generator = random.Random(3)
    path = [(node + 1, node) for node in range(0, 60)]
    scattered = [(1000 + generator.randrange(300), 1000 + generator.randrange(300)) for _ in range(150)]
    edges = [
        *path,
        *[(200 + n, 200) for n in range(1, 20)],
        *[(300 + n, 300 + (n + 1) % 9) for n in range(9)],
        *[(max(pair), min(pair)) for pair in scattered if pair[0] != pair[1]],
    ]
    edges = [(max(pair), min(pair)) for pair in generator.sample(edges, len(edges))]
    frame = spark.createDataFrame(edges, "big bigint, small bigint")
    found = {
        row["node"]: row["component"]
        for row in spark_components(frame, lambda edges, turn: edges.localCheckpoint()).collect()
    }
    assert found == flood(edges)


def test_a_new_crawl_meets_the_old_ones_signatures(
    make_document: Any, make_corpus: Any, commit_documents: Any, run_stage: Any, rows_of: Any
) -> None:
    """What an older run signed is signed no more: its committed files are what the new crawl is compared with."""
    text = " ".join(words(random.Random(8), 80))
    settings = {"dedup_fuzzy.scope": "global", "dedup_fuzzy.keep": "smallest_id"}
    old, new = (Segment(name, 0, ()) for name in ("CC-MAIN-2024-10", "CC-MAIN-2024-18"))
    first = dataclasses.replace(make_corpus([[]], settings, name="old"), segments=(old,))
    commit_documents(first, "filter", old.partition, [[make_document(text, id=f"{1:032x}", url="https://a.test/old")]])
    (signed,) = run_stage(first, "minhash_sign")
    both = dataclasses.replace(first, segments=(old, new))
    assert find(both.store, both.task("minhash_sign", old.partition)) == signed
    commit_documents(both, "filter", new.partition, [[make_document(text, id=f"{2:032x}", url="https://a.test/new")]])
    task = both.task("minhash_sign", new.partition)
    minhash_sign.run(Job(both, task, Attempt(both, task)))
    run_stage(both, "dedup_url")
    (done,) = run_stage(both, "dedup_fuzzy")
    assert [(row["id"], row["duplicate_of"]) for row in rows_of(both.store, [done], "drops")] == [
        (f"{2:032x}", f"{1:032x}")
    ]
    assert signed.path in {
        one.path for one in (find(both.store, each) for each in both.task("dedup_fuzzy").of("minhash_sign")) if one
    }
