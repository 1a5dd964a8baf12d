"""Documents that repeat an evaluation set go or are cut, nothing else is touched, and the report tells leaks from overlap."""

import gzip
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.contamination import Searched, render, reports, searched, tables
from contract.documents import read_documents
from contract.errors import InputError, RecipeError
from contract.manifest import Manifest, need
from contract.plan import Run
from contract.recipe import parse
from contract.settings.corpus import Decontaminate
from contract.tables import read_rows
from pipelines.decontaminate import Judge, describe, load_benchmarks, read_benchmark
from pipelines.decontaminate import search as search_part
from pipelines.spark.documents import DocumentSink, write_cuts

pytestmark = pytest.mark.usefixtures("without_spark")

QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
DAMAGED = gzip.compress(b"{}")[:10] + b"\xff" * 20
OTHER = "A robe takes two bolts of blue fiber and half that much white fiber; how many bolts in total?"
FILLER = "".join(f"Sentence {number} of the page says nothing of note. " for number in range(20))


@pytest.fixture
def benchmarks(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sums.jsonl").write_text(json.dumps({"question": QUESTION, "meta": [{"answer": "72"}, 72]}) + "\n\n")
    (tmp_path / "more.jsonl.gz").write_bytes(gzip.compress((json.dumps([OTHER]) + "\n").encode()))
    return {"sums": str(tmp_path / "sums.jsonl"), "more": str(tmp_path / "more.jsonl.gz")}


def judge_of(benchmarks: dict[str, str], **settings: Any) -> Judge:
    given = Decontaminate(benchmarks=benchmarks, **settings)
    return Judge(load_benchmarks(given).index, given.action, given.min_coverage)


def test_a_file_without_items_is_named(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "empty.jsonl").write_text("")
    (tmp_path / "set" / "sums.jsonl").write_text(json.dumps({"question": QUESTION}) + "\n")
    read = [(name, len(items)) for name, items in read_benchmark("set", str(tmp_path / "set"))]
    assert read == [("empty.jsonl", 0), ("sums.jsonl", 1)]


def test_why_nothing_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file, or it is an empty folder"):
        read_benchmark("sums", str(tmp_path / "none"))
    (tmp_path / "notes.txt").write_text(QUESTION)
    with pytest.raises(InputError, match=r"none of its 1 files ends in \.jsonl"):
        read_benchmark("sums", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Before. {QUESTION} After.", "sums: natalia sold clips to 48 of her friends in april and then she"),
        (QUESTION.upper().replace(",", " --"), "sums: natalia sold clips to 48 of her friends in april and then she"),
        (" ".join(OTHER.split()[3:16]), "more: two bolts of blue fiber and half that much white fiber how many"),
        (" ".join(OTHER.split()[3:15]), None),
        (QUESTION.replace("48", "49"), "sums: of her friends in april and then she sold half as many clips"),
        (QUESTION.replace("friends", "colleagues").replace("half", "twice"), None),
        (f"{OTHER} {QUESTION}", "more: a robe takes two bolts of blue fiber and half that much white"),
        ("", None),
    ],
)
def test_judge(text: str, found: str | None, benchmarks: dict[str, str]) -> None:
    verdict = judge_of(benchmarks)(text)
    assert (verdict and verdict.value) == found
    assert verdict is None or verdict.left is None


def test_cut_texts_are_clean_whatever_comes_together(benchmarks: dict[str, str]) -> None:
    judge = judge_of(benchmarks, action="cut")
    once = judge(f"{FILLER}{QUESTION} {FILLER}")
    assert once is not None
    assert once.left is not None
    assert judge(once.left) is None
    assert FILLER.startswith(once.left[:700])
    assert FILLER.endswith(once.left[-700:])
    # The halves of a question around another one are no match until the cut joins them.
    half, rest = " ".join(QUESTION.split()[:10]), " ".join(QUESTION.split()[10:])
    verdict = judge(f"{FILLER}{half} {'x' * 201} {OTHER} {'y' * 201} {rest} {FILLER}")
    assert verdict is not None
    assert verdict.left is not None
    assert judge(verdict.left) is None
    assert "clips" not in verdict.left
    short = judge(QUESTION)
    assert short is not None
    assert short.left is None


@pytest.mark.parametrize(("layers", "stays"), [(3, True), (9, True), (11, False)])
def test_a_text_that_shares_more_with_every_cut_goes(layers: int, stays: bool, benchmarks: dict[str, str]) -> None:
    """Halves of a question around another one, and so on: each round of cutting reads the whole text again."""
    half, rest = " ".join(QUESTION.split()[:10]), " ".join(QUESTION.split()[10:])
    text = QUESTION
    for _ in range(layers):
        text = f"{half} {'x' * 201} {text} {'y' * 201} {rest}"
    verdict = judge_of(benchmarks, action="cut")(f"{FILLER}{text} {FILLER}")
    assert verdict is not None
    assert (verdict.left is not None) is stays


def test_only_exact_leakage_by_recipe(benchmarks: dict[str, str]) -> None:
    judge = judge_of(benchmarks, min_coverage=0.8)
    part = judge(" ".join(QUESTION.split()[:14]))
    assert part is not None
    assert (part.left, part.value) == (" ".join(QUESTION.split()[:14]), "")
    whole = judge(f"{QUESTION} {OTHER[:50]}")
    assert whole is not None
    assert whole.left is None


def test_settings_are_checked() -> None:
    with pytest.raises(RecipeError, match=r"decontaminate.*min_words 9 is above ngram 8"):
        parse("decontaminate: {ngram: 8, min_words: 9}", "here")


@pytest.fixture
def search(make_corpus: Any, commit_documents: Any, run_stage: Any) -> Any:
    """`search(files, {"decontaminate.action": "cut"}, name="one")`: the run and its manifest, over files of rows."""

    def execute(
        files: list[list[dict[str, Any]]], overrides: dict[str, Any], name: str = "one"
    ) -> tuple[Run, Manifest]:
        run = make_corpus([[files[0]]], overrides, name)
        commit_documents(run, "dedup_substring", "all", files)
        (done,) = run_stage(run, "decontaminate")
        return run, done

    return execute


def test_stage(benchmarks: dict[str, str], make_document: Any, search: Any, rows_of: Any) -> None:
    clean = [make_document(f"A clean text, number {n}") for n in range(5)]
    dirty = make_document(f"Blog post: {OTHER} Tell me!")
    part = make_document("She " + " ".join(QUESTION.split()[1:15]))
    files = [clean[:2], [dirty, *clean[2:4], part, clean[4]]]
    run, done = search(files, {"decontaminate.benchmarks": benchmarks})
    assert rows_of(run.store, [done], "documents") == clean
    own = [file.kind for file in done.files if file.path.startswith(done.prefix)]
    assert sorted(own) == ["addresses", "contamination", "drops", "index", "items", "matches", "ngrams", "places"], (
        "no text is written again"
    )
    drops = rows_of(run.store, [done], "drops")
    assert [(row["id"], row["reason"]) for row in drops] == [
        (dirty["id"], "contaminated"),
        (part["id"], "contaminated"),
    ]
    assert drops[0]["value"] == "more: a robe takes two bolts of blue fiber and half that much white"
    assert (done.rows.read, done.rows.kept) == (7, 5)
    assert (done.rows.bytes_read, done.rows.bytes_kept) == (
        sum(len(row["text"]) for file in files for row in file),
        sum(len(row["text"]) for row in clean),
    )
    assert (done.metrics["benchmark_ngrams"], done.metrics["documents_cut"]) == (7 + 9, 0)
    assert rows_of(run.store, [done], "matches") == [
        {"id": dirty["id"], "url": dirty["url"], "benchmark": "more", "action": "dropped", "covered": 1.0, "leaked": [0], "ngrams": 7, "ngram": "a robe takes two bolts of blue fiber and half that much white"},
        {"id": part["id"], "url": part["url"], "benchmark": "sums", "action": "dropped", "covered": pytest.approx(0.7), "leaked": [], "ngrams": 2, "ngram": "sold clips to 48 of her friends in april and then she sold"},
    ]  # fmt: skip
    (report,) = reports(run).values()
    more, sums = report.benchmarks
    assert (more.items, more.leaked, more.overlapping, more.documents_leaking, more.documents_overlapping) == (
        1,
        1,
        0,
        1,
        0,
    )
    assert (sums.items, sums.leaked, sums.overlapping, sums.documents_leaking, sums.documents_overlapping) == (
        1,
        0,
        1,
        0,
        1,
    )
    assert (more.ngrams_found, more.ngrams, sums.ngrams_found, sums.ngrams) == (7, 7, 2, 9)


def test_cut_and_spare(benchmarks: dict[str, str], make_document: Any, search: Any, rows_of: Any) -> None:
    whole = make_document(f"{FILLER}{QUESTION} {FILLER}é")
    part = make_document(f"{FILLER}{' '.join(QUESTION.split()[1:14])} {FILLER}")
    short = make_document(QUESTION)
    given = {"benchmarks": benchmarks, "action": "cut", "min_coverage": 0.8}
    run, done = search([[whole, part, short]], {f"decontaminate.{key}": value for key, value in given.items()})
    cut, spared = rows_of(run.store, [done], "documents")
    assert spared == part
    assert {key for key in cut if cut[key] != whole[key]} == {"text"}
    assert "Natalia" not in cut["text"]
    assert cut["text"].endswith(FILLER[-500:] + "é")
    assert [row["action"] for row in rows_of(run.store, [done], "matches")] == ["cut", "kept", "dropped"]
    assert [row["id"] for row in rows_of(run.store, [done], "drops")] == [short["id"]]
    assert (done.metrics["documents_cut"], done.metrics["documents_spared"]) == (1, 1)
    assert done.rows.bytes_kept == len(cut["text"].encode()) + len(part["text"])
    (report,) = reports(run).values()
    table = "\n".join(render("the corpus", report))
    assert re.search(r"^sums +1 +1 +1 +0 +2 +1 +8 of 9$", table, re.MULTILINE), table
    assert "    in 3 documents: sold clips to 48 of her friends in april and then she sold" in table
    assert "\n".join(tables(run)) == f"\n{table}"


def test_what_is_cut_is_cut_from_what_earlier_cuts_left(
    benchmarks: dict[str, str], make_document: Any, tmp_store: Any
) -> None:
    """Of three documents, an earlier stage cut the first and the second, and this one the second and the third."""
    dirty = f"{FILLER}{QUESTION} {FILLER}"
    rows = [make_document(text, name=str(at)) for at, text in enumerate((f"gone é {FILLER}", f"gone é {dirty}", dirty))]
    sink = DocumentSink(tmp_store, "in", "dedup_substring", "0")
    for row in rows:
        sink.keep(row, 0)
    (part,) = sink.close().parts
    ids = {at: row["id"] for at, row in enumerate(rows)}
    gone = len("gone é ".encode())
    part = replace(part, cuts=write_cuts(tmp_store, "cuts.parquet", {0: [(0, gone)], 1: [(0, gone)]}, ids))
    output = search_part(tmp_store, "out", judge_of(benchmarks, action="cut"), (), part, "0")
    (left,) = output.parts
    first, *others = [row["text"] for row in read_documents(tmp_store, left, ["text"])]
    verdict = judge_of(benchmarks, action="cut")(dirty)
    assert verdict is not None
    assert verdict.left is not None
    assert first == FILLER
    assert others == [verdict.left] * 2
    assert "Natalia" not in verdict.left
    assert output.counts.bytes_kept == len(FILLER) + 2 * len(verdict.left)
    assert [row["id"] for row in read_rows(tmp_store, left.cuts)][:1] == [rows[0]["id"]]


def disguised(fields: tuple[str, ...], random: random.Random) -> str:
    """An item as a page may print it: with letters, in capitals, on other lines, with other punctuation, in the middle of a text."""
    first, *rest = [field for field in fields if field.strip()]
    answer = ""
    if len(rest) > 1 and rest[-1] in list("ABCDE"):  # MMLU's and C-Eval's last column
        answer = random.choice(["", f"\nAnswer: {rest[-1]}", f"\n{rest[-1]}"])
        rest = rest[:-1]
    mark = random.choice(["({}) ", "{}. ", "{}: "])
    lettered = [mark.format(letter) + text for letter, text in zip("ABCDEFGHIJK", rest, strict=False)]
    text = "\n".join([first, *(lettered if random.random() < 0.5 and len(rest) > 1 else rest)]) + answer
    text = random.choice([str, str.upper, str.lower, str.title])(text)
    text = text.replace(", ", random.choice([", ", " - ", "; ", ",\n"])).replace(" ", random.choice([" ", "\n", "  "]))
    return f"{FILLER}{random.choice(['', '«', '> '])}{text}{random.choice(['.', ' ', '»'])} {FILLER}"


def clean_texts(data_dir: Path) -> list[str]:
    lines = (data_dir / "text/llama-factory/c4_demo.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    for path in (data_dir / "text/dolma").iterdir():
        texts += [json.loads(line)["text"] for line in gzip.decompress(path.read_bytes()).splitlines()]
    return texts


def test_every_planted_item_is_found_and_no_clean_page(
    data_dir: Path, make_document: Any, search: Any, rows_of: Any
) -> None:
    # Without HumanEval's samples, which are answers and all too short.
    files = [path for path in (data_dir / "evals").glob("*/*") if not re.search("mapping|example_samples", path.name)]
    sets = {f"{path.parent.name} {path.name}": str(path) for path in files}
    items = {name: [item for _, one in read_benchmark(name, uri) for item in one] for name, uri in sets.items()}
    draw = random.Random(3)
    planted: dict[str, tuple[str, int]] = {}
    rows = [make_document(text) for text in clean_texts(data_dir)]
    clean = {row["id"] for row in rows}
    loaded = load_benchmarks(Decontaminate(benchmarks=sets))
    sought = set(loaded.index.item.tolist())
    first = 0
    for name in sorted(items):
        candidates = [number for number in range(len(items[name])) if first + number in sought]
        for number in draw.sample(candidates, min(80, len(candidates))):
            row = make_document(disguised(items[name][number].fields, draw), name=f"{name} {number}")
            planted[row["id"]] = name, number
            rows.append(row)
        first += len(items[name])
    assert len(planted) == 5 * 80 + 1  # HumanEval's example is one
    answers = []
    for parts in (1, 3, 16):
        shuffled = draw.sample(rows, len(rows))
        run, done = search(
            [shuffled[at::parts] for at in range(parts)], {"decontaminate.benchmarks": sets}, f"parts{parts}"
        )
        assert {row["id"] for row in rows_of(run.store, [done], "documents")} == clean
        matches = {(row["id"], row["benchmark"]): row["leaked"] for row in rows_of(run.store, [done], "matches")}
        assert {key for key, place in planted.items() if place[1] in matches[key, place[0]]} == set(planted)
        drops = {row["id"]: row["value"] for row in rows_of(run.store, [done], "drops")}
        assert set(drops) == set(planted)
        answers.append((matches, drops, reports(run), rows_of(run.store, [done], "items")))
    assert answers[0] == answers[1] == answers[2]


def test_without_benchmarks_everything_stays_where_it_is_and_no_spark_starts(
    make_document: Any,
    make_corpus: Any,
    commit_documents: Any,
    run_stage: Any,
    rows_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.spark.job.start_context", lambda *_: pytest.fail("Spark was started"))
    rows = [make_document(f"text {n}") for n in range(5)]
    run = make_corpus([[rows]])
    commit_documents(run, "dedup_substring", "all", [rows[:2], rows[2:]])
    (done,) = run_stage(run, "decontaminate")
    assert rows_of(run.store, [done], "documents") == rows
    size = sum(len(row["text"]) for row in rows)
    assert (done.rows.read, done.rows.kept, done.rows.bytes_kept) == (5, 5, size)
    assert done.files == need(run.store, run.task("dedup_substring")).files
    assert not run.store.files(f"{done.prefix}/{done.attempt}"), "nothing is written again"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"decontaminate\.benchmarks\.bad: .*bad\.jsonl cannot be read"),
        (b'{"a": "b"}\n{"a": \n', r"decontaminate\.benchmarks\.bad: .*bad\.jsonl line 2 is not JSON"),
        (b"[" * 100_000, r"decontaminate\.benchmarks\.bad: .*bad\.jsonl line 1 is not JSON"),
        (DAMAGED, r"decontaminate\.benchmarks\.bad: .*bad\.jsonl cannot be read"),
        (b"\n", r"decontaminate\.benchmarks\.bad: .*bad\.jsonl holds no item"),
        (b"\x1f\x8b\x08cut", r"decontaminate\.benchmarks\.bad: .*bad\.jsonl cannot be read"),
        (
            b'{"a": "too short"}\n',
            r"decontaminate\.benchmarks\.bad: none of the 1 items of .*bad\.jsonl can be searched for: a text needs 8 words",
        ),
    ],
)
def test_bad_benchmarks(
    content: bytes | None, message: str, tmp_path: Path, make_document: Any, make_corpus: Any, run_stage: Any
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content or b"")
    run = make_corpus([[[make_document("text")]]], {"decontaminate.benchmarks": {"bad": str(path)}})
    if content is None:
        path.unlink()  # gone since the run was resolved
    with pytest.raises(InputError, match=message):
        run_stage(run, "decontaminate")


def test_every_file_is_told_with_its_items(tmp_path: Path, make_document: Any, search: Any, capsys: Any) -> None:
    folder = tmp_path / "mmlu"
    folder.mkdir()
    (folder / "a.jsonl").write_text(f"{json.dumps([QUESTION])}\n{json.dumps(['short'])}\n")
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps([OTHER]).encode()))
    (folder / "empty.csv").write_text("")
    (folder / "mapping.json").write_text(json.dumps({"astronomy": "STEM"}))
    lines = [
        "benchmark mmlu: 4 items, 2 sought, 4 files read",
        "        2 items in a.jsonl",
        "        1 items in a.jsonl",
        "        0 items in empty.csv",
        "        1 items in mapping.json",
    ]
    sets = {"mmlu": str(folder)}
    assert list(describe(load_benchmarks(Decontaminate(benchmarks=sets)))) == lines
    search([[make_document("text")]], {"decontaminate.benchmarks": sets})
    assert "\n".join(lines) in capsys.readouterr().out


def test_one_benchmark_without_anything_to_seek_is_refused_beside_another(
    benchmarks: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "short.jsonl").write_text('["too short"]')
    with pytest.raises(InputError, match=r"decontaminate\.benchmarks\.short: none of the 1 items"):
        load_benchmarks(Decontaminate(benchmarks=benchmarks | {"short": str(tmp_path / "short.jsonl")}))


def test_what_was_found_of_each_item_is_known_by_the_content_of_its_files(
    tmp_path: Path, make_document: Any, search: Any
) -> None:
    (tmp_path / "set").mkdir()
    rows = [QUESTION, OTHER, "Who knows how many bolts a very long winter night may last?", "Why?"]
    (tmp_path / "set" / "a.jsonl").write_text("".join(json.dumps({"question": row}) + "\n\n" for row in rows))
    most = " ".join(QUESTION.split()[:17])  # 17 of 19 words
    documents = [make_document(f"{FILLER}{most} {FILLER}"), make_document(" ".join(OTHER.split()[3:16]))]
    asked = {"gsm": {"task": "gsm8k", "items": str(tmp_path / "set")}}
    given = {"decontaminate.benchmarks": {"sums": str(tmp_path / "set")}, "benchmark.tasks": asked}
    run, done = search([documents], given | {"decontaminate.min_coverage": 0.95})
    found = searched(run.store, done)
    assert found == {
        run.outside["benchmark.tasks.gsm.items"]: {
            "a.jsonl:1": Searched("leaked", True),
            "a.jsonl:3": Searched("overlapping", False),
            "a.jsonl:5": Searched("clean", False),
            "a.jsonl:7": Searched("too short", False),
        }
    }
    other, dropped = search([documents], given, "two")
    assert next(iter(searched(other.store, dropped).values()))["a.jsonl:1"] == Searched("leaked", False)
