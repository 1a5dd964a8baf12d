"""Which task a page means, and what it tells of its manifest, bounded."""

import pytest

from contract.errors import NotReadyError
from contract.kinds import Kind
from contract.manifest import Attempt, File, Rows
from contract.results import result_of
from reports.manifests import MAX_CHARS, MOST, shown, task_of


@pytest.fixture
def run(tmp_path, resolve_run):
    (tmp_path / "crawl").mkdir()
    for index in range(2):
        (tmp_path / "crawl" / f"{index}.warc").write_bytes(b"WARC" * (index + 1))
    return resolve_run(tmp_path / "crawl", {"crawl.files_per_segment": 1, "dedup_url.keep": "first"})


@pytest.mark.parametrize(
    ("task_id", "index", "found"),
    [
        ("segment.filter", 1, ("filter", 1)),
        ("filter", 0, ("filter", 0)),
        ("segment.filter", 2, None),
        ("segment.filter", -1, None),
        ("pack", -1, ("pack", None)),
        ("pack", 0, None),
        ("resolve", -1, None),
        ("../../secrets", -1, None),
    ],
)
def test_the_task_behind_a_task_of_airflow(run, task_id, index, found):
    task = task_of(run, "corpus", task_id, index)
    expected = found and (found[0], "all" if found[1] is None else run.segments[found[1]].partition)
    assert (task and (task.stage, task.partition)) == expected


def tables(page):
    return {table.title: table.rows for table in page.tables}


def test_everything_that_a_manifest_says_is_told(run):
    task = task_of(run, "corpus", "filter", 1)
    attempt = Attempt(run, task)
    path = attempt.path("a.parquet")
    run.store.write_bytes(path, b"12345")
    rows = Rows(read=5, kept=2, dropped=3, bytes_kept=99, reasons={"short": 1, "gopher": 2})
    attempt.commit([File(path=path, kind=Kind.INDEX, bytes=5, rows=2)], rows)
    page = shown(run, task, "corpus")
    assert (page.stage, page.partition, page.made_elsewhere) == ("filter", run.segments[1].partition, False)
    assert page.line == "2 of 5 documents kept; gopher 2, short 1"
    found = tables(page)
    assert found["Rows"] == (("read", 5), ("kept", 2), ("dropped", 3), ("bytes kept", 99))
    assert found["Dropped because"] == (("gopher", 2), ("short", 1))
    assert found["Files"] == (("a.parquet", "index", 2, 5),)
    assert page.inputs == (("score", run.segments[1].partition, 1),)


def test_only_changed_settings_are_told(run):
    task = task_of(run, "corpus", "dedup_url")
    Attempt(run, task).commit([])
    assert tables(shown(run, task, "corpus")) == {
        "Settings that differ from the defaults": (("dedup_url.keep", "first"),)
    }


def test_figures_stand_in_tables_and_long_ones_are_cut(run):
    task = task_of(run, "corpus", "probe")
    sources = {f"s{number:03}": {"documents": number, "bits_per_byte": 0.5} for number in range(MOST + 7)}
    result = result_of("probe").model_construct(bits_per_byte=1.23456789, sources=sources, documents=4)
    Attempt(run, task).commit([], result=result)
    page = shown(run, task, "corpus")
    (nested,) = [table for table in page.tables if table.title == "sources"]
    assert nested.head == ("", "documents", "bits_per_byte")
    assert nested.rows[1] == ("s001", 1, 0.5)
    assert (len(nested.rows), nested.left_out) == (MOST, 7)
    assert ("bits_per_byte", 1.23456789) in tables(page)["Figures"]


def test_a_secret_is_masked_and_a_long_text_is_cut(run):
    task = task_of(run, "corpus", "ablate")
    result = result_of("ablate").model_construct(verdict="s3://me:geheim@host/x " + "v" * 900, models=2)
    Attempt(run, task).commit([], result=result)
    [verdict] = [value for name, value in tables(shown(run, task, "corpus"))["Figures"] if name == "verdict"]
    assert verdict.startswith("s3://***@host/x vvv")
    assert len(verdict) == MAX_CHARS + len(" ...")


def test_a_task_that_is_not_done_says_what_to_run(run):
    with pytest.raises(NotReadyError, match="run pack first"):
        shown(run, task_of(run, "corpus", "pack"), "corpus")


def test_a_benchmarks_place_is_that_in_its_dag(tmp_path, run, resolve_run):
    (tmp_path / "items.jsonl").write_text("{}")
    tasks = {name: {"task": "mmlu", "items": f"{tmp_path}/items.jsonl"} for name in ("a", "b")}
    run = resolve_run(tmp_path / "crawl", {"benchmark.tasks": tasks}, "two")
    found = {dag: [task_of(run, dag, "benchmark", at) for at in range(7)] for dag in ("pretrain", "align", "evaluate")}
    partitions = {dag: [one and one.partition for one in tasks] for dag, tasks in found.items()}
    assert partitions["pretrain"] == ["pretrain.a", "pretrain.b", *[None] * 5]
    assert partitions["align"] == ["sft.a", "sft.b", "aligned.a", "aligned.b", *[None] * 3]
    assert partitions["evaluate"] == [*partitions["pretrain"][:2], *partitions["align"][:4], None]
    task = run.task("abilities")
    Attempt(run, task).commit([])
    page = shown(run, task, "evaluate")
    assert [one for one in page.inputs if one[0] == "benchmark"][-1] == ("benchmark", "aligned.b", 5)
