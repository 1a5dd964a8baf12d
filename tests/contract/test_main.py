"""The commands that need neither Spark nor a GPU, as a person types them."""

import datetime
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from contract import __main__ as command
from contract.contamination import Report
from contract.digest import split_digest
from contract.kinds import Kind
from contract.manifest import Attempt, File, Rows
from contract.plan import Run, open_run
from contract.results import Gate
from contract.store import Store


def test_two_runs_of_one_second_have_names_of_their_own(
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run()
    now = datetime.datetime(2026, 11, 20, 21, 30, tzinfo=datetime.UTC)
    clock = SimpleNamespace(UTC=datetime.UTC, datetime=SimpleNamespace(now=lambda _: now))
    monkeypatch.setattr(command, "datetime", clock)
    for words in ("30", "31"):
        given = ["resolve", "--recipe", str(tmp_path / "recipe.yaml"), "--set", f"filter.min_words={words}"]
        assert command.main(given) == 0
    one, other = capsys.readouterr().out.split()
    assert "/runs/test-20261120T213000-" in one
    assert [open_run(uri).recipe.filter.min_words for uri in (one, other)] == [30, 31]


def test_a_name_that_is_made_up_begins_with_the_recipes_and_ends_at_random(
    make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    given = ["resolve", "--recipe", str(tmp_path / "recipe.yaml"), "--set", "name=news", "--set", "filter.min_words=7"]
    assert command.main([*given, "--snapshot", "CRAWL-2024-10"]) == 0
    uri = capsys.readouterr().out.rstrip()
    assert re.fullmatch(
        rf"{run.store.uri}/runs/news-\d{{8}}T\d{{6}}-[0-9a-f]{{6}}/recipe\.yaml#sha256=[0-9a-f]{{64}}", uri
    )
    assert open_run(uri).recipe.filter.min_words == 7
    assert command.main([*given, "--snapshot", "CRAWL-2024-11"]) == 65
    assert "holds the crawl CRAWL-2024-10, not CRAWL-2024-11" in capsys.readouterr().err


def test_the_plan_prints_every_task_and_its_state(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    one, two = (run.task("crawl", segment.partition) for segment in run.segments)
    Attempt(run, one).commit([])
    assert command.main(["plan", "--recipe", run.uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "stage           partition                   fingerprint   plane  state",
        f"crawl           CRAWL-2024-10.00000         {one.fingerprint[:12]}  spark  done",
        f"crawl           CRAWL-2024-10.00001         {two.fingerprint[:12]}  spark  to do",
    ]
    assert lines[-4:] == [
        f"export          all                         {run.task('export').fingerprint[:12]}  local  to do",
        f"sample          all                         {run.task('sample').fingerprint[:12]}  gpu    to do",
        f"probe           all                         {run.task('probe').fingerprint[:12]}  gpu    "
        "left out: this run is no variant of an ablation",
        f"ablate          all                         {run.task('ablate').fingerprint[:12]}  local  "
        "left out: this run compares no variants",
    ]
    assert len(lines) == 1 + len(run.tasks())


def commit_shards(run: Run, rows: dict[str, int]) -> None:
    """Packed text that has one shard of each source, as far as a manifest says."""
    attempt = Attempt(run, run.task("pack"))
    length = run.recipe.pack.seq_len
    files = [
        File(path=attempt.path(f"{part}{name}"), kind=kind, bytes=1, part=part, source=source, rows=count)
        for part, (source, count) in enumerate(rows.items())
        for name, kind in (
            (".bin", Kind.TOKENS), (".idx", Kind.TOKEN_INDEX), (".ids", Kind.TOKEN_IDS), (f"-{length}.rows", Kind.ROWS),
        )
    ]  # fmt: skip
    for file in files:
        run.store.write_bytes(file.path, b"x")
    attempt.commit(files)


def test_the_plan_says_what_is_drawn_of_each_source_once_the_text_is_packed(
    make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    books = tmp_path / "books.txt"
    books.write_text("Once upon a time.")
    phases = "[{share: 0.9}, {share: 0.1, mixture: {proportions: {books: 0.75, crawl: 0.25}}}]"
    run = make_run(
        "pretrain.steps=1000", "pretrain.batch=8", f"pretrain.phases={phases}", f"curate.sources.books.uri={books}"
    )
    commit_shards(run, {"": 8000, "books": 1000, "code": 1000})
    assert command.main(["plan", "--recipe", run.uri]) == 0
    assert capsys.readouterr().out.splitlines()[len(run.tasks()) + 1 :] == [
        "",
        "mixture: phase 1, steps 0 to 900: crawl 80.0% of the sequences, 0.72 epochs over 8,000",
        "mixture: phase 1, steps 0 to 900: books 10.0% of the sequences, 0.72 epochs over 1,000",
        "mixture: phase 1, steps 0 to 900: code 10.0% of the sequences, 0.72 epochs over 1,000",
        "mixture: phase 2, steps 900 to 1,000: books 75.0% of the sequences, 0.6 epochs over 1,000",
        "mixture: phase 2, steps 900 to 1,000: crawl 25.0% of the sequences, 0.025 epochs over 8,000",
    ]


def test_the_plan_says_which_source_has_no_text(
    make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    books = tmp_path / "books.txt"
    books.write_text("Once upon a time.")
    run = make_run("pretrain.mixture={epochs: {books: 2}}", f"curate.sources.books.uri={books}")
    commit_shards(run, {"crawl": 8000, "code": 0})
    assert command.main(["plan", "--recipe", run.uri]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "error: pretrain: a mixture names books, of which there is no row; the corpus has code (0 rows), crawl (8,000 rows); "
        "name one of these, or see in the funnel why nothing is left"
    )


@pytest.mark.parametrize("opened", [True, False])
def test_a_closed_gate_leaves_out_ppo_alone_and_nothing_that_is_done(
    opened: bool, make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    Attempt(run, run.task("gate")).commit([], result=Gate(open=opened, accuracy=0.6, low=0.5, high=0.7, threshold=0.55))

    def states() -> dict[str, str]:
        assert command.main(["plan", "--recipe", run.uri]) == 0
        return {line[:16].strip(): line[65:].strip() for line in capsys.readouterr().out.splitlines()[-11:-2]}

    ppo = "to do" if opened else "left out: the gate is closed"
    others = dict.fromkeys(("dpo", "grpo"), "left out: the recipe aligns by ppo")
    later = dict.fromkeys(("judge", "evaluate", "abilities", "export", "sample"), "to do")
    assert states() == {"gate": "done", "ppo": ppo, **others, **later}
    Attempt(run, run.task("ppo")).commit([])
    assert states()["ppo"] == "done"


def test_the_funnel_prints_its_table_and_what_was_found_of_benchmarks(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    rows = Rows(read=4, kept=3, dropped=1, reasons={"empty": 1}, bytes_kept=10)
    Attempt(run, run.task("extract", run.segments[0].partition)).commit([], rows)
    attempt = Attempt(run, run.task("decontaminate"))
    run.store.write_bytes(attempt.path("report"), Report(benchmarks=()).model_dump_json().encode())
    attempt.commit([File(path=attempt.path("report"), kind=Kind.CONTAMINATION, bytes=17)])
    assert command.main(["funnel", "--recipe", run.uri]) == 0
    head, extract, empty, benchmarks = capsys.readouterr().out.splitlines()
    assert head.startswith("stage             documents")
    assert extract == "extract                   3   75.0%   75.0%      10 B  empty 1"
    assert (empty, benchmarks[:24]) == ("", "benchmarks in the corpus")


def test_lineage_prints_the_chain(make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    made = Attempt(run, run.task("crawl", run.segments[0].partition)).commit([])
    assert command.main(["lineage", "--store", run.store.uri, made.prefix]) == 0
    what, source = capsys.readouterr().out.splitlines()
    assert what.startswith("crawl CRAWL-2024-10.00000 ")
    assert source == f"  from {run.segments[0].files[0].uri}"


def test_snapshots_prints_what_a_source_offers(
    make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run()
    assert command.main(["snapshots", "--source", str(tmp_path / "crawl")]) == 0
    assert capsys.readouterr().out == "CRAWL-2024-10\n"


def test_gc_prints_what_goes_and_deletes_it_when_it_is_told_to(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    old, young = (Attempt(run, run.task("pack")) for _ in range(2))
    for attempt, hours_ago in ((old, 24.1), (young, 23.9)):
        run.store.write_bytes(attempt.path("x"), b"x" * 1536)
        os.utime(f"{run.store.root}/{attempt.path('x')}", (time.time() - hours_ago * 3600,) * 2)
    given, path = ["gc", "--store", run.store.uri], f"{old.prefix}/{old.id}"
    left = "; 1 more are younger than 24 hours and stay\n"
    assert command.main(given) == 0
    assert (
        capsys.readouterr().out
        == f"would delete {path} (1.5 KiB)\n1 unlisted attempts; add --delete to remove them{left}"
    )
    assert run.store.exists(old.path("x"))
    assert command.main([*given, "--delete"]) == 0
    assert capsys.readouterr().out == f"deleted {path} (1.5 KiB)\n1 unlisted attempts{left}"
    assert not run.store.exists(old.path("x"))
    assert run.store.exists(young.path("x"))
    assert command.main([*given, "--older-than-hours", "23.5"]) == 0
    assert capsys.readouterr().out.endswith("to remove them; 0 more are younger than 23.5 hours and stay\n")


def test_gc_goes_by_the_stores_clock(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("pack"))
    run.store.write_bytes(attempt.path("x"), b"x")
    for ahead_h, said in (
        (23.9, "0 unlisted attempts; 1 more are younger"),
        (24.1, "1 unlisted attempts; add --delete to remove them; 0 more"),
    ):
        monkeypatch.setattr(Store, "clock", lambda _, ahead_h=ahead_h: time.time() + ahead_h * 3600)
        assert command.main(["gc", "--store", run.store.uri]) == 0
        assert said in capsys.readouterr().out
    assert command.main(["gc", "--store", run.store.uri, "--older-than-hours", "0.9", "--delete"]) == 65
    assert capsys.readouterr().err.startswith("error: gc: an attempt younger than an hour may still be running")
    assert run.store.exists(attempt.path("x"))


def test_no_command_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ([], ["plan"], ["gc"], ["lineage", "x"], ["resolve"], ["funnel"]):
        with pytest.raises(SystemExit) as caught:
            command.main(wrong)
        assert caught.value.code == 2
        assert "required" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(make_run: Callable[..., Run]) -> None:
    script = f"{sys.executable} -m contract plan --recipe {make_run().uri} | true; exit ${{PIPESTATUS[0]}}"
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=usual)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_is_given_stays(
    make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run()
    given = ["resolve", "--recipe", str(tmp_path / "recipe.yaml"), "--run", "mine"]
    assert command.main(given) == 0
    place, digest = split_digest(capsys.readouterr().out.rstrip("\n"))
    assert place == f"file://{tmp_path}/store/runs/mine/recipe.yaml"
    assert digest is not None
    assert command.main([*given, "--set", "filter.min_words=31"]) == 78
    assert "exists with other content" in capsys.readouterr().err


def test_a_bad_run_name_is_a_bad_recipe(
    make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run()
    assert command.main(["resolve", "--recipe", str(tmp_path / "recipe.yaml"), "--run", "a b"]) == 78
    assert capsys.readouterr().err == "error: run name 'a b': use letters, digits and . _ + : -\n"


@pytest.mark.parametrize("arguments", [["gc"], ["lineage", "x"]])
def test_a_store_that_is_not_there_is_no_empty_one(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([arguments[0], "--store", str(tmp_path / "none"), *arguments[1:]]) == 65
    assert capsys.readouterr().err == f"error: file://{tmp_path}/none: no store was found there; check --store\n"


def test_gc_of_a_store_that_is_there(
    make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run()
    assert command.main(["gc", "--store", str(tmp_path / "store")]) == 0
    assert capsys.readouterr().out == "0 unlisted attempts; 0 more are younger than 24 hours and stay\n"
