"""Clusters against scipy and brute force, keep rules, and one answer whatever the order, partitions and algorithm."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.plan import Run
from pipelines.components import components, spark_components

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


@pytest.mark.usefixtures("spark_stops")
def test_components_in_spark_equal_scipys(make_corpus: Any, run_stage: Any) -> None:
    """A path (the worst case for label spreading), a star, a ring, and a random graph with many small components."""
    run = make_corpus([[]])
    from pipelines.job import start_spark

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
    found = {row["node"]: row["component"] for row in spark_components(frame).collect()}
    assert found == flood(edges)
