"""Sources, held-out documents and the shuffle: the same rows from the same inputs, each once, where its hash says."""

from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import funnel
from contract.documents import Part
from contract.errors import InputError
from contract.manifest import Attempt, Rows
from contract.schema import CURATED, DOCUMENTS
from contract.stages import STAGES
from contract.tables import read_rows
from pipelines import mix as module
from pipelines.mix import shards_of
from pipelines.spark import dealing
from pipelines.spark.documents import DocumentSink
from pipelines.spark.heldout import is_heldout
from pipelines.spark.tables import TableWriter

pytestmark = pytest.mark.usefixtures("without_spark")


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 10**12), min_size=1), st.integers(1, 1000))
def test_shards_are_shared_out_by_size(sizes: dict[str, int], shards: int) -> None:
    found = shards_of(sizes, shards)
    largest = max(sizes, key=lambda source: sizes[source])
    assert found[largest] == (shards if sizes[largest] else 1)
    assert all(1 <= count <= shards for count in found.values())
    assert all(found[a] <= found[b] for a in sizes for b in sizes if sizes[a] <= sizes[b])


def test_a_tenth_of_the_text_makes_a_tenth_of_the_files() -> None:
    assert shards_of({"crawl": 1000, "books": 100, "wiki": 101, "none": 0}, 20) == {
        "crawl": 20, "books": 2, "wiki": 3, "none": 1
    }  # fmt: skip
    assert shards_of({}, 8) == {}


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


def test_each_source_is_written_once_and_apart(
    make_document: Any, make_corpus: Any, run_stage: Any, rows_of: Any, commit_parts: Any
) -> None:
    """However the documents are cut into files, and whatever is held out of one source is held out of all."""
    texts = {
        "crawl": [f"page {number} " + "word " * 9 for number in range(120)],
        "books": [f"book {number} " + "page " * 9 for number in range(60)],
        "wiki": [f"page {number} " + "word " * 9 for number in range(20, 40)],
    }
    rows = {
        source: [make_document(text, name=f"{source} {text}", source=source) for text in held]
        for source, held in texts.items()
    }
    answers = []
    for files in (1, 3):
        run = make_corpus([[[]]], {"mix.heldout_fraction": 0.2, "mix.seed": 3, "mix.shards": 3}, name=f"files{files}")
        commit_parts(
            run, "decontaminate", [(source, held[at::files]) for source, held in rows.items() for at in range(files)]
        )
        (done,) = run_stage(run, "mix")
        found: dict[tuple[str, str], list[list[str]]] = {}
        for file in done.files:
            mine = rows_of(run.store, [done.model_copy(update={"files": (file,)})], file.kind)
            assert {row["source"] for row in mine} == {file.source}
            assert file.rows == len(mine)
            found.setdefault((file.source, file.kind), []).append([row["text"] for row in mine])
        answers.append(found)
    assert answers[0] == answers[1]

    assert {key: len(shards) for key, shards in found.items()} == {
        ("crawl", "documents"): 3, ("books", "documents"): 2, ("wiki", "documents"): 1,
        ("crawl", "heldout"): 1, ("books", "heldout"): 1, ("wiki", "heldout"): 1,
    }  # fmt: skip
    held = {text for (_, kind), shards in found.items() if kind == "heldout" for text in chain.from_iterable(shards)}
    train = {text for (_, kind), shards in found.items() if kind == "documents" for text in chain.from_iterable(shards)}
    drawn = {row["text"] for all_ in rows.values() for row in all_ if is_heldout(0.2, row["id"])}
    assert held == drawn, "a drawn text, and its equals in every source"
    assert held.isdisjoint(train)
    assert any(
        is_heldout(0.2, a["id"]) != is_heldout(0.2, b["id"])
        for a, b in zip(rows["crawl"][20:], rows["wiki"], strict=False)
    )
    for source, given_texts in texts.items():
        both = list(chain(*found[source, "documents"], *found[source, "heldout"]))
        assert sorted(both) == sorted(given_texts), "each once"
        assert both != given_texts
    assert (done.rows.read, done.rows.kept, done.rows.dropped) == (200, 200, 0)
    assert done.rows.bytes_kept == sum(len(text) for some in texts.values() for text in some)
    heldout = sum(file.rows for file in done.of("heldout"))
    assert done.metrics == {"training_documents": 200 - heldout, "heldout_documents": heldout}
    assert not run.store.files(f"{done.prefix}/{done.attempt}/scratch")


def test_what_is_held_out_stays_so_when_a_source_grows(
    make_document: Any, make_corpus: Any, run_stage: Any, rows_of: Any, commit_parts: Any
) -> None:
    books = [make_document(f"book {number}", source="books") for number in range(100)]
    held = []
    for size, seed in ((60, 0), (100, 7)):
        run = make_corpus([[[]]], {"mix.heldout_fraction": 0.2, "mix.seed": seed}, name=f"size{size}")
        commit_parts(run, "decontaminate", [("books", books[:size])])
        held.append({row["text"] for row in rows_of(run.store, run_stage(run, "mix"), "heldout")})
    few, more = held
    assert few == {text for text in more if int(text.split()[1]) < 60}
    assert 0 < len(few) < len(more) < 40


def test_a_licence_goes_with_its_document(
    make_document: Any, make_corpus: Any, run_stage: Any, rows_of: Any, tmp_store: Any
) -> None:
    run = make_corpus([[[]]], {"mix.heldout_fraction": 0})
    attempt = Attempt(run, run.task("decontaminate"))
    sink = DocumentSink(run.store, f"{attempt.prefix}/{attempt.id}", "decontaminate", "0", CURATED, source="code")
    for license_ in ("MIT", None):
        sink.keep({**dict.fromkeys(CURATED.names), **make_document(f"under {license_}"), "license": license_}, 9)
    attempt.commit(sink.close().listed())
    (done,) = run_stage(run, "mix")
    assert {row["text"]: row["license"] for row in rows_of(run.store, [done], "documents")} == {
        "under MIT": "MIT", "under None": None
    }  # fmt: skip


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


def test_many_row_groups_a_shard(crawl: list[dict[str, Any]], tmp_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dealing, "HELD_BYTES", 200)
    writer = TableWriter(tmp_store, "in.parquet", "documents", DOCUMENTS)
    for row in crawl:
        writer.write(row)
    (file,) = writer.close()
    held = SimpleNamespace(value=np.array([module.text_hash(crawl[7]["text"])], np.uint64))
    dealt = module.deal(tmp_store, "out", 0, {"crawl": 2}, held, Part(file), "00000-a")
    assert (dealt.counts.read, dealt.counts.kept, dealt.counts.bytes_kept) == (
        120,
        120,
        sum(len(row["text"]) for row in crawl),
    )
    (sharded,) = dealt.files
    assert (sharded.path, sharded.kind, sharded.rows, sharded.source) == (
        "out/scratch/dealt-00000-a.parquet", "dealt", 120, "crawl"
    )  # fmt: skip
    shards = [module.write_shard(tmp_store, "out", dealt.files, ("crawl", shard), f"{shard}") for shard in (0, 1, -1)]
    (held_out,) = shards[2].files
    assert (held_out.kind, held_out.rows, held_out.source) == ("heldout", 1, "crawl")
    rows = [row for shard in shards for file in shard.files for row in read_rows(tmp_store, file.path)]
    assert sorted(row["id"] for row in rows) == sorted(row["id"] for row in crawl)
    assert module.write_shard(tmp_store, "out", dealt.files, ("books", 0), "x").files == []


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
    assert module.explain_empty(SimpleNamespace(funnel=lambda: funnel.levels(run))).startswith(said)  # type: ignore[arg-type]


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
    ],
)
def test_unusable_shares(
    settings: dict[str, Any], message: str, crawl: Any, make_corpus: Any, commit_documents: Any, run_stage: Any
) -> None:
    with pytest.raises(InputError, match=message):
        mix(crawl, {"seed": 5} | settings, 2, make_corpus, commit_documents, run_stage)


def test_no_variant_trains_on_a_text_that_another_run_holds_out(
    make_document: Any, make_corpus: Any, commit_documents: Any, run_stage: Any, rows_of: Any
) -> None:
    """The variant kept other copies of the same texts, with other ids."""
    texts = [f"a page that says {number}" for number in range(60)]
    run = make_corpus([[[]]], {"mix.heldout_fraction": 0.3}, name="base")
    commit_documents(run, "decontaminate", "all", [[make_document(text) for text in texts]])
    (base,) = run_stage(run, "mix")
    held = {row["text"] for row in rows_of(run.store, [base], "heldout")}
    copies = [make_document(text, name=f"copy of {text}") for text in texts]
    trained = {}
    for name, more in (("careless", {}), ("variant", {"mix.also_held_out": base.fingerprint})):
        settings = {"mix.heldout_fraction": 0.3, "store": str(run.store.local("")), **more}
        other = make_corpus([[[]]], {**settings, "dedup_fuzzy.keep": "newest"}, name=name)
        commit_documents(other, "decontaminate", "all", [copies])
        (made,) = run_stage(other, "mix")
        trained[name] = {row["text"] for row in rows_of(other.store, [made], "documents")}
        other.store.delete(f"{other.task('decontaminate').prefix}/manifest.json")
    assert held & trained["careless"], "so the ids alone would not do"
    assert held.isdisjoint(trained["variant"])
    assert trained["variant"] == {row["text"] for row in copies if not is_heldout(0.3, row["id"])} - held
    assert [one.fingerprint for one in made.inputs if one.stage == "mix"] == [base.fingerprint]


def test_no_variant_trains_on_a_page_that_another_run_holds_out_for_its_text(
    make_document: Any, make_corpus: Any, commit_documents: Any, run_stage: Any, rows_of: Any
) -> None:
    """The variant's extractor gives each of two pages, whose texts were equal, a text of its own."""
    pages = [
        (make_document("the same", name=f"{number}"), make_document("the same", name=f"{number} again"))
        for number in range(9)
    ]
    drawn, other = next((a, b) for a, b in pages if is_heldout(0.3, a["id"]) and not is_heldout(0.3, b["id"]))
    rest = [make_document(f"a page that says {number}") for number in range(20)]
    run = make_corpus([[[]]], {"mix.heldout_fraction": 0.3}, name="base")
    commit_documents(run, "decontaminate", "all", [[drawn, other, *rest]])
    (base,) = run_stage(run, "mix")
    assert {drawn["id"], other["id"]} <= {row["id"] for row in rows_of(run.store, [base], "heldout")}
    settings = {"mix.heldout_fraction": 0.3, "store": str(run.store.local("")), "mix.also_held_out": base.fingerprint}
    variant = make_corpus([[[]]], settings | {"dedup_fuzzy.keep": "newest"}, name="variant")
    commit_documents(variant, "decontaminate", "all", [[drawn, other | {"text": "its own text"}, *rest]])
    made = run_stage(variant, "mix")
    assert other["id"] in {row["id"] for row in rows_of(variant.store, made, "heldout")}
    assert len(rows_of(variant.store, made, "documents")) == len(rows_of(run.store, [base], "documents"))
