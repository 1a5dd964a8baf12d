"""What happened to a page, told from the committed files alone."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.manifest import Attempt, File
from contract.settings.filter import Filter
from reports import why


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("example.org/a", ["example.org/a", "http://example.org/a", "https://example.org/a"]),
        ("http://EXAMPLE.org/a#b", ["http://EXAMPLE.org/a#b", "http://example.org/a", "https://example.org/a"]),
        ("https://example.org/a", ["http://example.org/a", "https://example.org/a"]),
    ],
)
def test_an_address_is_looked_for_in_every_spelling(asked: str, named: list[str]) -> None:
    assert why.spellings(asked) == named


def test_a_few_cuts_of_many_are_shown(make_document: Any, make_corpus: Any) -> None:
    text = "".join(f"{at:02d}{'x' * 68} " for at in range(12))
    row = make_document(text)
    run = make_corpus([[[row]]])
    attempt = Attempt(run, run.task("dedup_substring"))
    path = f"{attempt.prefix}/{attempt.id}/cuts.parquet"
    cuts = [{"row": 0, "id": row["id"], "start": 71 * at, "end": 71 * at + (60 if at else 62)} for at in range(12)]
    with run.store.open_output(path) as sink:
        pq.write_table(pa.Table.from_pylist(cuts), sink)
    attempt.commit([File(path=path, kind="cuts", bytes=run.store.size(path), rows=12)])
    (done,) = [one for one in why.committed(run) if one.stage == "dedup_substring"]
    found = why.cuts_of(run.store, done, row["id"])
    first, *shown, last = why.passages(run, done.stage, row["id"], found)
    assert first == f"{row['id']}  dedup_substring: {62 + 11 * 60} bytes cut"
    assert shown == [
        f"{' ' * 34}0-62: 00{'x' * 58}...",
        *(f"{' ' * 34}{71 * at}-{71 * at + 60}: {at:02d}{'x' * 58}" for at in range(1, 10)),
    ]
    assert last == f"{' ' * 34}and 2 more passages"
    assert why.cuts_of(run.store, done, "f" * 32) == []
    assert list(why.passages(run, done.stage, row["id"], [])) == []
    assert (why.text_of(run, row["id"]), why.text_of(run, "f" * 32)) == (text, None)


def test_what_a_page_is_called_moves_no_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(why, "open_run", lambda _: None)
    monkeypatch.setattr(why, "explain", lambda *_: ["dropped http://a/\x1b[2J\rkept", "x\n\u202ey"])
    assert why.main(["--recipe", "x", "http://a"]) == 0
    assert capsys.readouterr().out == r"dropped http://a/\x1b[2J\rkept" + "\n" + r"x\n\u202ey" + "\n"
    monkeypatch.setattr(why, "explain", lambda *_: [])
    assert why.main(["--recipe", "x", "\x1b[2J"]) == 1
    assert capsys.readouterr().out == (
        r"no stage of this run has seen a document with the URL or the id \x1b[2J" + "\n"
    )


def test_an_example_is_told_what_stays_and_no_cluster_of_documents(make_document: Any, make_corpus: Any) -> None:
    run = make_corpus([[[make_document("a mill")]]], {})
    done = Attempt(run, run.task("instructions")).commit([])
    row = {"id": "a" * 32, "duplicate_of": "b" * 32, "reason": "near_duplicate", "value": "0.91"}
    assert [line.strip() for line in why.cluster_members(run, done, row)] == [f"it stays: {'b' * 32}"]


def test_a_drop_of_filter_names_the_threshold_that_it_broke_and_its_setting() -> None:
    rules = Filter().rules()

    def told(reason: str, value: str) -> list[str]:
        return [line.strip() for line in why.broken(rules, {"reason": reason, "value": value})]

    assert told("too_few_words", "49") == ["words < 50: filter.min_words, Gopher, A1.1"]
    assert told("top_ngram", "0.19") == [
        "top_3gram > 0.18: filter.gopher_repetition.top_ngram_char_fraction.3, Gopher, table A1",
        "top_4gram > 0.16: filter.gopher_repetition.top_ngram_char_fraction.4, Gopher, table A1",
    ]
    assert told("too_few_words", "50") == []


def test_every_fate(make_document: Any, make_corpus: Any, run_stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    passage = " ".join(f"p{letter}" for letter in "abcdefghijklmnopqrst")
    first = " ".join(f"f{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
    rows = {
        "near": make_document(f"{first} {first.upper()}", id=f"{1:032x}", day=1),
        "copy": make_document(f"{first} {first}!", id=f"{2:032x}", day=2),
        "old": make_document("an older capture", id=f"{3:032x}", url="https://example.org/page"),
        "new": make_document("a newer capture of it all", id=f"{4:032x}", url="https://example.org/page#top", day=5),
        "one": make_document(f"begins so {passage}", id=f"{5:032x}"),
        "other": make_document(f"quite unlike the rest of them {passage}", id=f"{6:032x}"),
    }
    settings = {"dedup_substring.min_tokens": 12, "dedup_substring.min_chars": 5, "dedup_fuzzy.keep": "smallest_id"}
    run = make_corpus([[list(rows.values())]], settings)
    for stage in ("minhash_sign", "dedup_url", "dedup_fuzzy", "dedup_substring"):
        run_stage(run, stage)

    def told(asked: str) -> list[str]:
        capsys.readouterr()
        why.main(["--recipe", run.uri, asked])
        return capsys.readouterr().out.splitlines()

    near, new, other = rows["near"]["id"], rows["new"]["id"], rows["other"]["id"]
    copy = [
        f"{rows['copy']['id']}  dedup_fuzzy: dropped, near_duplicate {near}",
        f"{' ' * 32}  it stays: {near} {rows['near']['url']}",
        f"{' ' * 32}  similarity of the two: 1.00 (shared 5-word shingles)",
        f"{' ' * 32}  documents in the cluster: 2",
    ]
    assert told(rows["copy"]["id"]) == copy
    assert told(rows["copy"]["url"]) == copy
    assert (
        told("http://EXAMPLE.org:80/page?utm_source=x") == told("example.org/page") == told("https://example.org/page")
    )
    assert told("https://example.org/page")[:2] == [
        f"{rows['old']['id']}  dedup_url: dropped, duplicate_url https://example.org/page",
        f"{' ' * 32}  it stays: {new} https://example.org/page#top",
    ]
    assert told(near) == [f"{near}  kept; dedup_substring was the last to keep it"]
    start = rows["other"]["text"].index(" pa")
    end = len(rows["other"]["text"])
    assert told(other) == [
        f"{other}  dedup_substring: {end - start} bytes cut",
        f"{' ' * 32}  {start}-{end}: {passage}",
        f"{other}  kept; dedup_substring was the last to keep it",
    ]
    match = {"id": near, "url": rows["near"]["url"], "benchmark": "sums", "action": "cut", "ngram": "a b c"}
    matches = [match, match | {"id": other, "action": "dropped"}]
    for stage, kind, held in (("decontaminate", "matches", matches), ("mix", "heldout", [{"id": near}])):
        attempt = Attempt(run, run.task(stage))
        path = f"{attempt.prefix}/{attempt.id}/{kind}.parquet"
        with run.store.open_output(path) as sink:
            pq.write_table(pa.Table.from_pylist(held), sink)
        attempt.commit([File(path=path, kind=kind, bytes=len(run.store.read_bytes(path)), rows=len(held))])
    assert told(near) == [
        f"{near}  decontaminate: cut, sums: a b c",
        f"{near}  mix: held out of training",
        f"{near}  kept; mix was the last to keep it",
    ]
    assert not [line for line in told(other) if "sums" in line]
    assert why.main(["--recipe", run.uri, "https://example.org/never"]) == 1
    assert "no stage of this run has seen" in capsys.readouterr().out
