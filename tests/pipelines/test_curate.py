"""Sources beside the crawl: what becomes of their files, alone and together with a crawl that repeats them."""

import gzip
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.documents import parts_of, read_documents
from contract.errors import InputError, RecipeError
from contract.lineage import trace
from contract.manifest import Attempt, find
from contract.plan import Run
from contract.recipe import StageSettings
from contract.settings.corpus import CuratedSource
from contract.stages import STAGES, downstream, upstream
from pipelines import curate as module
from pipelines.spark import documents
from pipelines.spark.job import Job

ENGLISH = "The river bends twice before it meets the old mill, and in spring the children of both villages fish below the weir."
GERMAN = (
    "Der Fluss macht zwei Bögen vor der alten Mühle, und im Frühling angeln die Kinder beider Dörfer unter dem Wehr."
)


def lines(rows: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


@pytest.fixture
def curated(
    tmp_path: Path, make_corpus: Callable[..., Run], run_stage: Callable[..., Any], without_spark: Any
) -> Callable[..., tuple[Run, Any]]:
    """`curated({"books": {"a.jsonl": b"..."}}, {"books": {"rules": {}}})`: a run whose `curate` has read these files."""

    def make(
        files: dict[str, dict[str, bytes]], settings: dict[str, Any] | None = None, name: str = "one", **more: Any
    ) -> tuple[Run, Any]:
        sources: dict[str, Any] = {}
        for source, held in files.items():
            folder = tmp_path / f"sources-{name}" / source
            for path, data in held.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data)
            sources[source] = {"uri": str(folder), **(settings or {}).get(source, {})}
        run = make_corpus([[[]]], {"curate.sources": sources, **more}, name=name)
        return run, run_stage(run, "curate")[0]

    return make


def rows_of(run: Run, done: Any, *columns: str) -> list[Any]:
    names = columns or ("source", "text")
    found = [row for part in parts_of(done) for row in read_documents(run.store, part, names)]
    return [tuple(row[name] for name in names) if len(names) > 1 else row[names[0]] for row in found]


def test_every_layout_and_packing_becomes_documents(
    curated: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([{"text": "in a table", "license": "CC0-1.0", "language": "en"}]), parquet)
    files = {
        "pile": {"00.jsonl.zst": zstd(lines([{"text": "a pile", "meta": {"pile_set_name": "ArXiv"}}]))},
        "oscar": {"fr.jsonl.gz": gzip.compress(lines([{"content": "un conte", "warc_headers": {"warc-record-id": "<1>"}, "metadata": {"identification": {"label": "fr", "prob": 0.5}}}]))},
        "wudao": {"part-1.json": json.dumps([{"title": "标题", "content": "正文"}, {"title": "", "content": "二"}]).encode()},
        "table": {"a.parquet": parquet.getvalue().to_pybytes(), "_SUCCESS": b"", "notes.md": b"x"},
        "books": {"a.txt": b"one book", "deep/b.txt.gz": gzip.compress(b"another book")},
    }  # fmt: skip
    run, done = curated(files)
    assert sorted(rows_of(run, done, "source", "text", "language", "license"), key=str) == sorted(
        [
            ("pile", "a pile", None, None), ("oscar", "un conte", "fr", None), ("wudao", "标题\n\n正文", None, None),
            ("wudao", "二", None, None), ("table", "in a table", "en", "CC0-1.0"), ("books", "one book", None, None),
            ("books", "another book", None, None),
        ],
        key=str,
    )  # fmt: skip
    assert {part.source for part in parts_of(done)} == set(files) == {file.source for file in done.of("documents")}
    assert all(part.signatures is not None and part.signatures.rows == part.rows for part in parts_of(done))
    assert (done.rows.read, done.rows.kept, done.metrics) == (7, 7, {"sources": 5})
    said = capsys.readouterr().out
    assert "source books: 2 files, layout text\n" in said
    assert "source table: 1 files, layout plain; 2 files of other kinds are left out\n" in said
    assert "source wudao: 2 of 2 documents kept\n" in said
    folder = f"file://{tmp_path}/sources-one/books"
    assert any(line.strip().startswith("made curate") for line in trace(run.store, folder))


def test_where_a_document_stood_is_told(curated: Any) -> None:
    run, done = curated(
        {"books": {"b.jsonl": lines([{"text": "one"}, {"text": "two"}]), "a.jsonl": lines([{"text": "0"}])}}
    )
    assert rows_of(run, done, "file", "offset", "text") == [
        ("books/a.jsonl", 1, "0"), ("books/b.jsonl", 1, "one"), ("books/b.jsonl", 2, "two")
    ]  # fmt: skip


def test_ids_stay_when_a_source_grows_moves_and_is_cut_otherwise(curated: Any) -> None:
    rows = [{"text": f"book {number}"} for number in range(9)]
    one, few = curated({"books": {"a.jsonl": lines(rows)}})
    more = [{"text": "a new one"}, *rows[::-1]]
    other, grown = curated(
        {"books": {"x/1.jsonl": lines(more[:4]), "x/2.jsonl.gz": gzip.compress(lines(more[4:]))}}, name="two"
    )
    before, after = (dict(rows_of(run, done, "text", "id")) for run, done in ((one, few), (other, grown)))
    assert before.items() < after.items()
    assert len(set(after.values())) == 10


def test_losses_are_counted_by_source_and_reason(curated: Any, capsys: pytest.CaptureFixture[str]) -> None:
    good = [{"text": f"text {number} " * 50} for number in range(2000)]
    packed = gzip.compress(lines(good))
    run, done = curated(
        {
            "books": {"a.jsonl": lines([{"text": "a"}]) + b"{\n[]\n{}\n\xff\n" + b'{"text": " "}\n{"text": 5}\n{\n'},
            "news": {"a.jsonl.gz": packed[: len(packed) // 2], "b.jsonl": lines([{"text": "whole"}])},
        }
    )
    assert done.rows.losses == {
        "books: not_json": 2, "books: not_an_object": 1, "books: missing_text": 1, "books: not_utf8": 1,
        "books: empty_text": 1, "books: not_a_text": 1, "news: damaged_file": 1,
    }  # fmt: skip
    kept = [text for source, text in rows_of(run, done) if source == "news"]
    assert kept[-1] == "whole"
    assert 500 < len(kept) < 1500
    said = capsys.readouterr().out
    assert "books: not_json: file://" in said
    assert "/books/a.jsonl row 2: not json; further ones are only counted" in said
    assert said.count("books: not_json") == 1
    assert "source books: 1 of 1 documents kept; records that gave no document: not_json 2, not_an_object 1" in said


def test_languages_are_identified_where_the_recipe_names_some(curated: Any) -> None:
    rows = [{"text": ENGLISH, "language": "fr"}, {"text": GERMAN}, {"text": "7"}]
    run, done = curated(
        {"a": {"a.jsonl": lines(rows)}, "b": {"b.jsonl": lines(rows)}},
        {"a": {"languages": ["en"], "min_probability": 0.5}},
    )
    found = rows_of(run, done, "source", "text", "language", "language_probability", "languages")
    (english,) = [row for row in found if row[0] == "a"]
    assert english[1:3] == (ENGLISH, "en")
    assert english[3] > 0.9
    assert english[4][0] == "en"
    assert [row[2:] for row in found if row[0] == "b"] == [("fr", None, ["fr"]), (None, None, []), (None, None, [])]
    assert done.rows.reasons == {"language": 2}


def test_a_sources_own_rules_are_asked(curated: Any, rows_of: Any) -> None:
    short, loud = "Too short.", " ".join(["Buy {now}!"] * 40)
    rows = lines([{"text": text, "language": "en"} for text in (short, f"{ENGLISH} {loud}", " ".join([ENGLISH] * 3))])
    only_length = {f"{name}": {"enabled": False} for name in ("gopher_repetition", "gopher_quality", "fineweb")}
    run, done = curated(
        {"any": {"a.jsonl": rows}, "length": {"a.jsonl": rows}, "web": {"a.jsonl": rows}},
        {"length": {"rules": {"min_words": 20, **only_length}}, "web": {"rules": {}}},
    )
    drops = {(row["snippet"][:10], row["reason"]) for row in rows_of(run.store, [done], "drops")}
    assert (
        drops
        == {("Too short.", "too_few_words"), ("The river ", "duplicate_ngrams"), ("The river ", "top_ngram")} & drops
    )
    kept = [row["source"] for row in rows_of(run.store, [done], "documents")]
    assert [kept.count(name) for name in ("any", "length", "web")] == [3, 2, 0]
    assert done.rows.read == 9


def test_a_text_is_corrected_only_where_the_recipe_says_so(curated: Any) -> None:
    text = f"{ENGLISH}\nWrite to ann@example.org now.\n3 likes"
    run, done = curated({"a": {"a.txt": text.encode()}, "b": {"b.txt": text.encode()}}, {"b": {"correct": True}})
    assert dict(rows_of(run, done)) == {"a": text, "b": f"{ENGLISH}\nWrite to email@example.com now."}
    assert dict(rows_of(run, done, "source", "id"))["a"] != dict(rows_of(run, done, "source", "id"))["b"]


CODE = [
    {"repo_name": "ann/tools", "path": "src/b.py", "code": "b = 2", "license": "mit"},
    {"repo_name": "bob/site", "path": "index.js", "code": "let x", "license": "apache-2.0"},
    {"repo_name": "ann/tools", "path": "a.py", "code": "import b", "license": "mit"},
    {"repo_name": "ann/tools", "path": "LICENSE", "code": "MIT License", "license": ["mit", "isc"]},
    {"repo_name": "ann/tools", "path": "a.py", "code": "import b", "license": "mit"},
]


@pytest.mark.parametrize("files", [1, 2, 5])
def test_the_files_of_a_repository_make_one_document(curated: Any, files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUCKET_BYTES", 200)
    monkeypatch.setattr(module, "GROUP_BYTES", 100)
    held = {f"{at}.jsonl": lines(CODE[at::files]) for at in range(files)}
    run, done = curated({"code": held, "each": held}, {"each": {"one_document_per": "file"}})
    found = {(row[0], row[1]): row[2:] for row in rows_of(run, done, "source", "title", "text", "license", "language")}
    assert {key: value for key, value in found.items() if key[0] == "code"} == {
        ("code", "ann/tools"): ("LICENSE\nMIT License\n\na.py\nimport b\n\nsrc/b.py\nb = 2", "isc, mit", None),
        ("code", "bob/site"): ("index.js\nlet x", "apache-2.0", None),
    }
    assert found["each", "ann/tools/src/b.py"] == ("b = 2", "mit", None)
    assert done.rows.read == 2 + 5
    assert not run.store.files(f"{done.prefix}/{done.attempt}/scratch")


def test_a_task_carries_no_list_of_all_files(curated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    counted: list[str] = []
    each, buckets_of = Job.map_each, module.buckets_of

    def map_each(self: Job, items: Sequence[Any], work: Any, unit: str = "files") -> list[Any]:
        if unit not in ("parts", "indexes"):
            sent.extend((items, work.args[2]))
        return each(self, items, work, unit)

    def count(source: Any) -> int:
        counted.append(source.name)
        return buckets_of(source)

    monkeypatch.setattr(Job, "map_each", map_each)
    monkeypatch.setattr(module, "buckets_of", count)
    monkeypatch.setattr(module, "GROUP_BYTES", 1)
    curated({"code": {f"{at}.jsonl": lines(CODE[at : at + 1]) for at in range(5)}, "a": {"a.jsonl": b'{"text": "x"}'}})
    (whole, known), (pieces, _), (buckets, _) = zip(sent[::2], sent[1::2], strict=True)
    assert [(name, len(paths)) for name, paths in [*whole, *pieces]] == [("a", 1), *[("code", 1)] * 5]
    assert buckets == [("code", 0)]
    assert [source.files for source, _ in known.values()] == [(), ()]
    assert counted == ["code"]


def test_a_large_repository_is_cut_between_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 60)
    files = [{"path": f"{at}", "text": "x" * 20, "license": None, "date": None} for at in range(5)]
    made = [found for found, _ in module.joined("r", files)]
    assert [found.text.count("x") for found in made] == [40, 40, 20]
    assert [found.key for found in made] == ["r", "r\n1", "r\n2"]
    assert all(len(found.text) <= 60 for found in made)


def test_many_documents_make_several_parts(curated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PART_ROWS", 4)
    run, done = curated({"a": {"a.jsonl": lines([{"text": f"text {number}"} for number in range(10)])}})
    assert [part.rows for part in parts_of(done)] == [4, 4, 2]
    assert [text for _, text in rows_of(run, done)] == [f"text {number}" for number in range(10)]


def test_without_sources_there_is_nothing_to_do(make_corpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.spark.job.start_context", None)
    run = make_corpus([[[]]])
    task = run.task("curate")
    run.store.delete(task.prefix)
    module.run(Job(run, task, Attempt(run, task)))
    done = find(run.store, task)
    assert done is not None
    assert (done.files, done.rows.read, done.metrics) == ((), 0, {"sources": 0})


@pytest.mark.parametrize(
    ("files", "settings", "message"),
    [
        ({"a.jsonl": b'{"words": 1, "n": 2}\n'}, {}, r"curate\.sources\.books: the first rows of .*/books have no known layout, their keys are words, n; name curate\.sources\.books\.layout"),
        ({"a.jsonl": b""}, {"layout": "plain"}, r"curate\.sources\.books: none of its 1 files holds a document \(they are empty\); name another layout"),
        ({"a.jsonl": b'{"content": "x"}\n'}, {"layout": "pile"}, r"none of its 1 files holds a document \(missing_text 1\)"),
        ({"a.csv": b"x"}, {}, r"curate\.sources\.books\.uri: .*/books: none of its 1 files ends in \.jsonl"),
    ],
)  # fmt: skip
def test_a_source_that_gives_nothing_is_refused(curated: Any, files: Any, settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        curated({"books": files}, {"books": settings})


def test_a_source_is_checked_before_the_run(
    make_corpus: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text("x")

    def checked(**settings: Any) -> str:
        given = {"books": {"uri": str(tmp_path / "books"), **settings}}
        run = make_corpus([[[]]], {"curate.sources": given}, name=str(len(settings)))
        module.check(StageSettings(run.recipe, "curate"))
        return capsys.readouterr().out

    assert checked() == "source books: 1 files, layout text\n"
    with pytest.raises(RecipeError, match=r"curate\.sources\.books\.languages: lid\.176 does not know xx"):
        checked(languages=["xx"])
    with pytest.raises(
        RecipeError,
        match=r"curate\.sources\.books\.languages: there are no stop words for mt; set curate\.sources\.books\.rules\.gopher_quality",
    ):
        checked(languages=["mt"], rules={})  # fmt: skip


def test_a_link_that_leads_out_of_the_roots_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "roots" / "books").mkdir(parents=True)
    (tmp_path / "secret.jsonl").write_text('{"text": "secret"}')
    (tmp_path / "roots" / "books" / "a.jsonl").symlink_to(tmp_path / "secret.jsonl")
    settings = CuratedSource(uri=str(tmp_path / "roots" / "books"))
    assert module.examine("books", settings).layout == "plain"
    fixed = tmp_path / "deployment.yaml"
    fixed.write_text(f"store: {tmp_path}/store\nrecipes: {tmp_path}/roots\nroots: [{tmp_path}/roots]\n")
    fixed.chmod(0o600)
    monkeypatch.setenv("GRISTMILL_DEPLOYMENT", str(fixed))
    with pytest.raises(
        RecipeError, match=r"^curate\.sources\.books\.uri: file file://.*/roots/books/a\.jsonl lies below none"
    ):
        module.examine("books", settings)


CHAIN = [stage for stage in STAGES if stage == "mix" or stage in upstream("mix") & {"curate", *downstream("filter")}]


def words(seed: int, count: int = 120) -> str:
    generator = random.Random(seed)
    return " ".join(f"{generator.choice('abcdefgh')}{generator.randrange(5000)}" for _ in range(count))


def test_a_crawl_and_two_sources_share_deduplication_and_decontamination(
    make_document: Any, make_corpus: Any, run_stage: Any, rows_of: Any, tmp_path: Path
) -> None:
    """A near duplicate in the crawl gives way to the book, one between the sources goes, and a benchmark is found in each."""
    question = "Natalia sold clips to 48 of her friends in April, and then she sold half as many in May."
    (tmp_path / "sums.jsonl").write_text(json.dumps({"question": question}) + "\n")
    books = [words(seed) for seed in range(1000, 1030)]
    wiki = [words(seed) for seed in range(2000, 2020)]
    code = [words(seed) for seed in range(3000, 3005)]
    pages = [words(seed) for seed in range(30)]
    shared = words(9000, 60)
    pages += [f"{books[0]} and more words", code[0], f"{words(9001)} {shared} {words(9002)}"]
    wiki += [f"{books[1]} indeed", f"{words(9003)} {question}", f"{words(9004)} {shared} {words(9005)}"]
    for name, texts in (("books", books), ("wiki", wiki), ("code", [*code, code[0], f"{words(3009)} {question}"])):
        (tmp_path / f"{name}.jsonl").write_bytes(lines([{"text": text} for text in texts]))
    sources = {name: {"uri": str(tmp_path / f"{name}.jsonl")} for name in ("books", "wiki", "code")}
    sources["code"] |= {"dedup": False, "decontaminate": False}  # type: ignore[dict-item]
    crawled = [make_document(text, snapshot="CRAWL-ONE-2024-10") for text in pages]
    settings = {
        "curate.sources": sources, "decontaminate.benchmarks": {"sums": str(tmp_path / "sums.jsonl")},
        "mix.heldout_fraction": 0.1, "mix.shards": 2,
    }  # fmt: skip
    run = make_corpus([[crawled]], settings)
    assert run.segments[0].snapshot == crawled[0]["snapshot"]
    done = {stage: run_stage(run, stage) for stage in CHAIN}
    ids = {row["text"]: row["id"] for row in rows_of(run.store, done["curate"], "documents") if row["source"] != "code"}

    near = {(row["snippet"], row["duplicate_of"]) for row in rows_of(run.store, done["dedup_fuzzy"], "drops")}
    longer = f"{books[1]} indeed"
    assert near == {(pages[30][:200], ids[books[0]]), (books[1][:200], ids[longer])}, (
        "the crawled one is longer, and goes"
    )
    (funnel,) = done["dedup_fuzzy"]
    assert funnel.rows.read == 33 + 30 + 23 + 7
    (found,) = rows_of(run.store, done["decontaminate"], "drops")
    assert (found["snippet"], found["reason"]) == (wiki[21][:200], "contaminated")

    (mixture,) = done["mix"]
    counts = {name: sum(file.rows for file in mixture.files if file.source == name) for name in ("crawl", *sources)}
    assert counts == {"crawl": 32, "books": 29, "wiki": 22, "code": 7}
    texts = [row["text"] for kind in ("documents", "heldout") for row in rows_of(run.store, [mixture], kind)]
    assert sum(text.count(shared) for text in texts) == 1
    assert sum(question in text for text in texts) == 1, "of code, which is not searched"
    assert texts.count(code[0]) == 3, "two of code, where duplicates stay, and the page"
    assert all(file.source for file in mixture.files)
