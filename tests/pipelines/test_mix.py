"""Epochs, held-out documents and the shuffle: the same rows from the same inputs, each copy where its hash says."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contract import funnel
from contract.contamination import reports
from contract.documents import Part
from contract.errors import InputError
from contract.manifest import Attempt, Rows
from contract.schema import DOCUMENTS
from contract.settings.corpus import Mix
from contract.stages import STAGES
from contract.tables import read_rows
from pipelines import mix as module
from pipelines.mix import copies, parse_curated, read_curated
from pipelines.spark.heldout import is_heldout
from pipelines.spark.tables import TableWriter

pytestmark = pytest.mark.usefixtures("without_spark")

KEYS = [f"{number:032x}" for number in range(4000)]


@pytest.mark.parametrize(("epochs", "possible"), [(0, {0}), (1, {1}), (3, {3}), (2.5, {2, 3}), (0.44, {0, 1})])
def test_copies(epochs: float, possible: set[int]) -> None:
    found = [copies(epochs, 0, key) for key in KEYS]
    assert set(found) == possible
    assert sum(found) / len(KEYS) == pytest.approx(epochs, abs=0.03)


def test_draws_depend_on_the_seed() -> None:
    assert [copies(0.5, 0, key) for key in KEYS] != [copies(0.5, 1, key) for key in KEYS]


def test_raising_a_share_only_adds() -> None:
    assert all(copies(2.2, 0, key) <= copies(2.6, 0, key) for key in KEYS)


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'"text"',
        b'{"content": "x"}',
        b'{"text": 5}',
        b'{"text": " \\n"}',
        b'{"text": "\\ud800"}',
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
    ],
)
def test_unusable_lines(line: bytes) -> None:
    assert parse_curated("books", 0, line) is None


def test_a_curated_text_is_in_the_form_of_the_crawls() -> None:
    row = parse_curated("books", 0, '{"text": "Cafe\u0301 \u212b"}'.encode())
    assert row is not None
    assert row["text"] == "Caf\u00e9 \u00c5"


def test_read_curated(tmp_path: Path) -> None:
    lines = b'{"text": "one", "url": "https://example.org/1"}\n\nbroken\n{"text": "two", "url": 7}'
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    plain, packed = (list(read_curated("books", str(tmp_path / name))) for name in ("a.jsonl", "a.jsonl.gz"))
    assert plain == packed
    one, broken, two = plain
    assert one is not None
    assert two is not None
    assert broken is None
    assert (one["text"], one["url"], one["source"]) == ("one", "https://example.org/1", "books")
    assert (two["text"], two["url"]) == ("two", None)
    assert one["id"] != two["id"]
    assert len(bytes.fromhex(one["id"])) == 16
    other = next(read_curated("wiki", str(tmp_path / "a.jsonl")))
    assert other is not None
    assert other["id"] != one["id"]


def test_a_damaged_curated_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"{}")[:10] + b"\xff" * 20)
    with pytest.raises(InputError, match=r"mix\.sources\.books\.uri: .*a\.jsonl\.gz cannot be read"):
        list(read_curated("books", str(tmp_path / "a.jsonl.gz")))


def test_curated_documents_are_decontaminated_too(
    crawl: list[dict[str, Any]], tmp_path: Path, make_corpus: Any, commit_documents: Any, run_stage: Any, rows_of: Any
) -> None:
    question = "Natalia sold clips to 48 of her friends in April, and then she sold half as many in May."
    (tmp_path / "sums.jsonl").write_text(json.dumps({"question": question}) + "\n")
    texts = [f"Exercise: {question}", "a clean page of a book"]
    (tmp_path / "books.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    settings = {
        "decontaminate.benchmarks": {"sums": str(tmp_path / "sums.jsonl")},
        "mix.sources": {"books": {"uri": str(tmp_path / "books.jsonl"), "epochs": 2}},
        "mix.heldout_fraction": 0.0,
    }
    run = make_corpus([[crawl]], settings)
    commit_documents(run, STAGES["mix"].reads[0], "all", [crawl])
    (done,) = run_stage(run, "mix")
    (drop,) = rows_of(run.store, [done], "drops")
    assert (drop["reason"], drop["value"][:24]) == ("contaminated", "sums: natalia sold clips")
    assert drop["snippet"] == texts[0]
    assert (done.rows.read, done.rows.kept, done.metrics["training_rows"]) == (122, 121, 122)
    assert texts[0] not in {row["text"] for row in rows_of(run.store, [done], "documents")}


def test_curated_documents_are_cut_where_the_recipe_says_so(
    crawl: list[dict[str, Any]], tmp_path: Path, make_corpus: Any, commit_documents: Any, run_stage: Any, rows_of: Any
) -> None:
    """Words of five characters on both sides, so that 200 characters are 40 words; a word that a cut meets goes whole."""
    question = "Natalia sold clips to 48 of her friends in April, and then she sold half as many in May."
    part = "clips to 48 of her friends in April, and then she sold half"
    before, after = "abcd " * 100, "wxyz " * 100
    (tmp_path / "sums.jsonl").write_text(json.dumps({"question": question}) + "\n")
    texts = {
        f"{before}{question} {after}": "abcd " * 60 + "wxyz " * 60,
        f"{question} {after}": "wxyz " * 60,
        f"{before}{part}": "abcd " * 60,
        f"{before}{question} {'wxyz ' * 79}": "abcd " * 60,  # 195 characters are too short a piece
        f"Exercise: {question}": None,
        "a clean page of a book": "a clean page of a book",
    }
    (tmp_path / "books.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    settings = {
        "decontaminate.benchmarks": {"sums": str(tmp_path / "sums.jsonl")},
        "decontaminate.action": "cut",
        "mix.sources": {"books": {"uri": str(tmp_path / "books.jsonl"), "epochs": 2}},
        "mix.heldout_fraction": 0.0,
    }
    run = make_corpus([[crawl]], settings)
    commit_documents(run, STAGES["mix"].reads[0], "all", [crawl])
    (done,) = run_stage(run, "mix")
    mixed = [row["text"] for row in rows_of(run.store, [done], "documents") if row["source"] == "books"]
    assert sorted(mixed) == sorted(2 * [left for left in texts.values() if left])
    assert [row["snippet"] for row in rows_of(run.store, [done], "drops")] == [f"Exercise: {question}"]
    matches = rows_of(run.store, [done], "matches")
    assert [(row["action"], row["leaked"], row["ngrams"]) for row in matches] == [
        ("cut", [0], 7), ("cut", [0], 7), ("cut", [], 1), ("cut", [0], 7), ("dropped", [0], 7)
    ]  # fmt: skip
    assert (done.rows.read, done.rows.kept, dict(done.rows.reasons)) == (126, 125, {"contaminated": 1})
    assert done.rows.bytes_kept == sum(len(row["text"]) for row in crawl) + sum(map(len, filter(None, texts.values())))
    assert (done.metrics["documents_cut"], done.metrics["documents_spared"]) == (4, 0)
    (sums,) = reports(run)["the curated sources"].benchmarks
    assert (sums.items, sums.leaked, sums.documents_leaking, sums.documents_overlapping) == (1, 1, 4, 1)


@pytest.fixture
def crawl(make_document: Any) -> list[dict[str, Any]]:
    return [make_document(f"crawled text number {number}") for number in range(120)]


def mix(
    crawl: list[dict[str, Any]],
    settings: dict[str, Any],
    files: int,
    make_corpus: Any,
    commit_documents: Any,
    run_stage: Any,
) -> Any:
    given = {f"mix.{key}": value for key, value in settings.items()}
    run = make_corpus([[crawl]], given, name=f"files{files}")
    commit_documents(run, STAGES["mix"].reads[0], "all", [crawl[at::files] for at in range(files)])
    return run, run_stage(run, "mix")[0]


def test_mixture(
    crawl: list[dict[str, Any]],
    make_document: Any,
    tmp_path: Path,
    make_corpus: Any,
    commit_documents: Any,
    run_stage: Any,
    rows_of: Any,
) -> None:
    crawl += [make_document(row["text"], name=f"again {row['id']}") for row in crawl[20:40]]
    books = [f"book {number} " + "page " * 5 for number in range(30)]
    twice = [f"twice {number} " + "page " * 5 for number in range(20)]
    both = [row["text"] for row in crawl[:40]]
    lines = [*(json.dumps({"text": text}) for text in [*books, *twice, *twice, *both]), "broken"]
    (tmp_path / "books.jsonl").write_text("\n".join(lines))
    settings = {
        "crawl_epochs": 0.5,
        "sources": {"books": {"uri": str(tmp_path / "books.jsonl"), "epochs": 2.5}},
        "heldout_fraction": 0.2,
        "seed": 3,
        "shards": 3,
    }
    answers = []
    for files in (1, 4):
        run, done = mix(crawl, settings, files, make_corpus, commit_documents, run_stage)
        shards = [
            rows_of(run.store, [done.model_copy(update={"files": (file,)})], "documents")
            for file in done.of("documents")
        ]
        heldout = rows_of(run.store, [done], "heldout")
        answers.append(
            ([[(row["id"], row["text"]) for row in shard] for shard in shards], [row["id"] for row in heldout])
        )
    assert answers[0] == answers[1]

    train = [row for shard in shards for row in shard]
    times = {text: sum(row["text"] == text for row in train) for text in {row["text"] for row in train}}
    held = {row["text"] for row in heldout}
    assert held.isdisjoint(times)
    by_id = {row["text"] for row in crawl if is_heldout(0.2, row["id"])}
    drawn = by_id | {text for text in [*books, *twice, *both] if is_heldout(0.2, text)}
    taken = [row["text"] for row in crawl if copies(0.5, 3, row["id"])]
    # A drawn text and all its equals, as far as the epochs take them; none is trained on.
    assert sorted(row["text"] for row in heldout) == sorted(
        text for text in [*taken, *books, *twice, *twice, *both] if text in drawn
    )
    assert drawn.isdisjoint(times)
    texts = [*(row["text"] for row in crawl), *books, *twice, *twice, *both]
    assert all([held & set(both[20:]) & by_id, held & set(twice), held & set(books), held & set(both) - by_id])
    assert {times[text] for text in books if text in times} == {2, 3}
    assert {times[text] for text in twice if text in times} == {4, 5, 6}
    assert all(text in times or text in held for text in books)
    dropped = rows_of(run.store, [done], "drops")
    assert {row["reason"] for row in dropped} == {"mix_epochs"}
    assert {row["id"] for row in dropped} == {row["id"] for row in crawl if not copies(0.5, 3, row["id"])}
    assert done.rows.read == len(texts) == 250
    assert done.rows.losses == {"books: line without text": 1}
    assert done.rows.kept == 250 - len(dropped)
    assert done.metrics == {
        "training_rows": len(train),
        "heldout_documents": len(heldout),
        "extra_copies": len(train) + len(heldout) - done.rows.kept,
    }
    assert len(shards) == 3
    assert all(len(shard) > 20 for shard in shards)
    assert all(file.path.split("/")[-2].startswith("attempt-") for file in done.files)
    assert not run.store.files(f"{done.prefix}/{done.attempt}/scratch")


def test_shuffle_mixes_well(
    crawl: list[dict[str, Any]], make_corpus: Any, commit_documents: Any, run_stage: Any, rows_of: Any
) -> None:
    """Order in is no order out: rank correlation near 0, and another seed gives another order."""
    orders = []
    for files, seed in ((1, 0), (2, 1)):
        settings = {"heldout_fraction": 0.0, "shards": 1, "seed": seed}
        run, done = mix(crawl, settings, files, make_corpus, commit_documents, run_stage)
        orders.append([int(row["text"].split()[-1]) for row in rows_of(run.store, [done], "documents")])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(120))
    assert orders[0] != orders[1]
    assert all(abs(np.corrcoef(order, range(120))[0, 1]) < 0.25 for order in orders)


def test_many_row_groups_a_shard(
    crawl: list[dict[str, Any]],
    make_corpus: Any,
    run_stage: Any,
    rows_of: Any,
    tmp_store: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 200)
    settings = Mix(shards=2, heldout_fraction=0.0)
    writer = TableWriter(tmp_store, "in.parquet", "documents", DOCUMENTS)
    for row in crawl:
        writer.write(row)
    (file,) = writer.close()
    none = SimpleNamespace(value=np.zeros(0, np.uint64))
    dealt = module.deal(tmp_store, "out", settings, None, none, module.Item("crawl", 2.0, Part(file)), "00000-a")
    (sharded,) = dealt.files
    shards = [module.collect(tmp_store, "out", [sharded.path], shard, f"{shard}") for shard in range(2)]
    rows = [row for shard in shards for file in shard.files for row in read_rows(tmp_store, file.path)]
    assert sorted(row["id"] for row in rows) == sorted([row["id"] for row in crawl] * 2)
    assert sharded.rows == 240


def test_a_line_without_text_ends_nothing(tmp_store: Any, tmp_path: Path) -> None:
    (tmp_path / "books.jsonl").write_text(
        "\n".join(["broken", json.dumps({"text": "a book"}), "[]", json.dumps({"text": "b"})])
    )
    item = module.Item("books", 2.0, uri=str(tmp_path / "books.jsonl"))
    held = SimpleNamespace(value=np.array([module.text_hash("b")], np.uint64))
    output = module.deal(tmp_store, "out", Mix(shards=2), None, held, item, "00000-a")
    assert dict(output.counts.losses) == {"books: line without text": 2}
    assert (output.counts.read, output.counts.kept, output.counts.bytes_read, output.counts.bytes_kept) == (2, 2, 7, 7)
    (sharded,) = output.files
    assert (sharded.path, sharded.kind, sharded.bytes, sharded.rows) == (
        "out/scratch/dealt-00000-a.parquet",
        "dealt",
        0,
        3,
    )
    shards = {
        shard: module.collect(tmp_store, "out", [sharded.path], shard, "x").files for shard in (0, 1, module.HELDOUT)
    }
    texts = {
        shard: [row["text"] for file in files for row in read_rows(tmp_store, file.path)]
        for shard, files in shards.items()
    }
    assert texts.pop(module.HELDOUT) == ["b"], "once, whatever its epochs"
    assert sorted(text for found in texts.values() for text in found) == ["a book", "a book"]
    assert [file.kind for file in shards[module.HELDOUT]] == ["heldout"]


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([Rows(read=5, kept=5), Rows(read=5, kept=0, dropped=5, reasons={"extract_empty": 5})], "extract dropped all 5 documents that reached it (extract_empty 5)"),
        ([Rows(losses={"torn": 2, "bad": 3})], "crawl found no page in the crawl files (bad 3, torn 2;"),
        ([Rows(read=1, kept=1, losses={"torn": 2})], "no stage read a document; check crawl.source"),
        ([], "no stage read a document; check crawl.source"),
    ],
)  # fmt: skip
def test_an_empty_corpus_is_explained(levels: list[Rows], said: str, make_corpus: Any) -> None:
    run = make_corpus([[[]]])
    for stage, rows in zip(("crawl", "extract"), levels, strict=False):
        Attempt(run, run.task(stage, run.segments[0].partition)).commit([], rows)
    assert module.explain_empty(SimpleNamespace(funnel=lambda: funnel.levels(run)), module.Counts()).startswith(said)  # type: ignore[arg-type]


def test_empty_corpus_names_the_stage(make_document: Any, make_corpus: Any, run_stage: Any) -> None:
    run = make_corpus([[[make_document("text")]]])
    task = run.task("langid", run.segments[0].partition)
    Attempt(run, task).commit([], Rows(read=7, kept=0, dropped=7, reasons={"language": 5, "language_unsure": 2}))
    Attempt(run, run.task(STAGES["mix"].reads[0])).commit([])
    with pytest.raises(
        InputError,
        match=r"the corpus is empty: langid dropped all 7 documents that reached it \(language 5, language_unsure 2\); loosen",
    ):
        run_stage(run, "mix")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"heldout_fraction": 0.99999},
            r"all 120 documents were held out at mix\.heldout_fraction 0\.99999; lower it",
        ),
        ({"heldout_fraction": 1e-9}, r"none of 120 documents was held out at mix\.heldout_fraction 1e-09; raise it"),
        (
            {"crawl_epochs": 0},
            r"the corpus is empty: mix dropped all 120 documents that reached it \(mix_epochs 120\); raise mix\.crawl_epochs",
        ),
    ],
)
def test_unusable_shares(
    settings: dict[str, Any], message: str, crawl: Any, make_corpus: Any, commit_documents: Any, run_stage: Any
) -> None:
    with pytest.raises(InputError, match=message):
        mix(crawl, {"seed": 5} | settings, 2, make_corpus, commit_documents, run_stage)
