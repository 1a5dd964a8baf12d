"""The chain of manifests is printed back to the crawl files and forward to the models; gc removes only what no manifest lists."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from contract import manifest
from contract.__main__ import main
from contract.errors import InputError
from contract.lineage import Graph, Made, Node, folded, gaps, graph, trace
from contract.manifest import Attempt, File, Rows
from contract.plan import Run
from contract.results import Gate
from contract.stages import ALIGNING, STAGES
from contract.store import Store

ONE, TWO = "CRAWL-2024-10.00000", "CRAWL-2024-10.00001"


@pytest.fixture
def finished(make_run: Callable[..., Run]) -> Run:
    """Every task committed, with one byte each."""
    run = make_run()
    for task in run.tasks().values():
        attempt = Attempt(run, task)
        run.store.write_bytes(attempt.path("x"), b"x")
        attempt.commit(
            [File(path=attempt.path("x"), kind="documents", bytes=1)],
            Rows(read=2, kept=1, dropped=1, reasons={"language": 1}, bytes_kept=2048),
        )
    return run


def test_a_model_leads_back_to_every_crawl_file(finished: Run) -> None:
    lines = trace(finished.store, finished.store.full(finished.task("ppo").prefix + "/manifest.json"))
    assert lines[0].startswith("ppo all ")
    text = "\n".join(lines)
    for segment in finished.segments:
        assert f"from {segment.files[0].uri}" in text
    assert "  made evaluate all" in text
    assert {line.split()[1] for line in lines[1:] if line.strip().startswith("from") and "://" not in line} == set(
        STAGES
    ) - {*ALIGNING, "judge", "evaluate", "benchmark", "abilities", "export", "sample", "probe", "ablate"}


def test_the_chain_is_indented_step_by_step(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """A crawl file, two stages, and a third whose second input lies in another store."""
    monkeypatch.setattr(manifest, "code_version", lambda: "abc")
    run = make_run()
    tasks = [run.task(stage, ONE) for stage in ("crawl", "extract", "score", "minhash_sign")]
    crawl, extract, _, sign = (f"{task.stage} {ONE} {task.fingerprint[:12]}" for task in tasks)
    for task in (tasks[0], tasks[1], tasks[3]):
        rows = Rows(read=2000, kept=1500, dropped=500, reasons={"a": 500}) if task.stage == "extract" else None
        Attempt(run, task).commit([], rows)
    filter_ = run.task("filter", ONE)
    file = run.segments[0].files[0].uri

    def told(place: str) -> list[str]:
        return [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", line) for line in trace(run.store, place)]

    done = "(TIME, code abc"
    extracted = f"{extract} {done}, 1,500 of 2,000 documents)"
    elsewhere = "(its manifest is not in this store)"
    perhaps = f"  perhaps made filter {ONE} {filter_.fingerprint[:12]} {elsewhere}, and then 1 more made from it"
    assert told(tasks[1].prefix) == [extracted, f"  from {crawl} {done})", f"    from {file}", perhaps]
    assert told(tasks[0].prefix) == [f"{crawl} {done})", f"  from {file}", f"  made {extracted}", perhaps]
    assert told(file) == [file, f"  made {crawl} {done})", f"    made {extracted}", perhaps]
    assert told(tasks[3].prefix) == [
        f"{sign} {done})",
        f"  from filter {ONE} {filter_.fingerprint[:12]} {elsewhere}",
    ]


def test_a_committed_file_is_told_with_all_manifests_that_list_it(make_run: Callable[..., Run]) -> None:
    """If it is damaged, all of these must be made again."""
    run = make_run()
    files: list[File] = []
    for stage in ("score", "filter", "minhash_sign"):
        attempt = Attempt(run, run.task(stage, ONE))
        if stage != "minhash_sign":
            run.store.write_bytes(attempt.path("x"), b"x")
            files.append(
                File(path=attempt.path("x"), kind="documents" if stage == "score" else "index", bytes=1, part=0)
            )
        attempt.commit(files)
    score, filter_, sign = (run.store.full(run.task(one, ONE).prefix) for one in ("score", "filter", "minhash_sign"))
    for path in (files[0].path, run.store.full(files[0].path)):
        assert trace(run.store, path) == [
            f"{path} is listed by", *(f"  {one}/manifest.json" for one in (score, filter_, sign)),
        ]  # fmt: skip
    assert trace(run.store, files[1].path)[1:] == [f"  {one}/manifest.json" for one in (filter_, sign)]


def test_what_is_reached_on_several_ways_is_told_once(finished: Run) -> None:
    for place in (finished.task("export").prefix, finished.segments[0].files[0].uri):
        told = [line.strip() for line in trace(finished.store, place)]
        assert len(told) == len(set(told))


def test_a_crawl_file_leads_forward_to_every_model_but_not_to_other_segments(finished: Run) -> None:
    lines = trace(finished.store, finished.segments[0].files[0].uri)
    text = "\n".join(lines)
    assert f"made crawl {ONE}" in text
    assert TWO not in text
    assert trace(finished.store, finished.segments[0].files[0].uri.removeprefix("file://")) == lines, "a path will do"
    assert {line.split()[1] for line in lines[1:]} == set(STAGES) - {"curate", "benchmark"}, "it names no benchmarks"


def test_a_manifest_is_found_under_every_name_that_it_has(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    path = finished.task("ppo").prefix
    lines = trace(finished.store, finished.store.full(path))
    assert lines[0].startswith("ppo all ")
    for store in (finished.store, Store("store"), Store("link")):
        for name in (path, f"{path}/", f"store/{path}", f"./store/../link/{path}/manifest.json", f"{store.uri}/{path}"):
            assert trace(store, name) == lines


def test_a_crawl_file_is_found_under_every_name_that_it_has_even_when_it_is_gone(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "crawl")
    monkeypatch.chdir(tmp_path / "crawl")
    uri = finished.segments[0].files[0].uri
    lines = trace(finished.store, uri)
    names = (
        "part-0.warc.gz",
        "../link/part-0.warc.gz",
        f"{tmp_path}/link/part-0.warc.gz",
        f"file://{tmp_path}/link/part-0.warc.gz",
    )
    assert [trace(finished.store, name) for name in names] == [lines] * 4
    (tmp_path / "crawl" / "part-0.warc.gz").unlink()
    assert [trace(finished.store, name) for name in names] == [lines] * 4
    assert lines[0] == uri


def test_a_crawl_that_was_read_over_a_link_is_found_by_the_file(make_run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "crawl")
    run = make_run(f"crawl.source={tmp_path}/link")
    task = run.task("crawl", run.segments[0].partition)
    Attempt(run, task).commit([])
    assert trace(run.store, str(tmp_path / "crawl" / "part-0.warc.gz"))[0] == f"file://{tmp_path}/link/part-0.warc.gz"


def test_something_unknown_is_refused(finished: Run) -> None:
    with pytest.raises(InputError, match="neither a manifest in"):
        trace(finished.store, "s3://else/where.warc.gz")


def test_gc_lists_first_and_deletes_only_unlisted_attempts(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    garbage = Attempt(finished, finished.task("pack"))
    finished.store.write_bytes(garbage.path("y"), b"yy")
    os.utime(f"{finished.store.root}/{garbage.path('y')}", (1_710_000_000,) * 2)
    before = {entry.path for entry in finished.store.files()}
    command = ["gc", "--store", finished.store.uri, "--older-than-hours", "1"]
    assert main(command) == 0
    assert f"would delete {garbage.prefix}/{garbage.id} (2 B)\n1 unlisted attempts" in capsys.readouterr().out
    assert {entry.path for entry in finished.store.files()} == before
    assert main([*command, "--delete"]) == 0
    assert before - {entry.path for entry in finished.store.files()} == {garbage.path("y")}
    assert main(["gc", "--store", finished.store.uri]) == 0
    assert "0 unlisted" in capsys.readouterr().out


@pytest.mark.parametrize(("gate", "state"), [(True, "to do"), (False, "left out: the gate is closed"), (None, "to do")])
def test_the_plan_knows_what_a_closed_gate_left_out(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str], gate: bool | None, state: str
) -> None:
    run = make_run()
    if gate is not None:
        Attempt(run, run.task("gate")).commit(
            [], result=Gate(open=gate, accuracy=0.6, low=0.5, high=0.7, threshold=0.55)
        )
    assert main(["plan", "--recipe", run.uri]) == 0
    [ppo] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ppo ")]
    assert ppo.endswith(f"gpu    {state}")


def test_the_plan_and_the_funnel_are_printed(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--recipe", finished.uri]) == 0
    stages, _, mixture = capsys.readouterr().out.partition("\n\n")
    lines = stages.splitlines()
    assert len(lines) == 1 + 6 * 2 + 25
    assert all(line.endswith("done") for line in lines[1:])
    assert mixture == "error: pretrain: there is no row to draw; the corpus is empty, check the funnel\n"
    assert main(["funnel", "--recipe", finished.uri]) == 0
    extract = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("extract"))
    assert extract.split() == ["extract", "2", "50.0%", "50.0%", "4.0", "KiB", "language", "2"]


def test_a_wrong_command_line_is_one_line_and_its_exit_code(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--recipe", "nowhere.yaml"]) == 78
    assert capsys.readouterr().err.startswith("error: recipe nowhere.yaml: no such file")
    assert main(["lineage", "--store", make_run().store.uri, "x"]) == 65


def test_a_manifest_holds_no_secret_of_its_source_and_the_file_is_found_by_its_full_address(
    make_run: Callable[..., Run],
) -> None:
    run = make_run()
    source = "https://me:geheim@host/x?sig=S3CRET"
    file = replace(run.segments[0].files[0], uri=source)
    crawl = run.recipe.crawl.model_copy(update={"source": source})
    made = Run(run.uri, run.recipe.model_copy(update={"crawl": crawl}), (replace(run.segments[0], files=(file,)),))
    manifest = Attempt(made, made.task("crawl", ONE)).commit([])
    text = made.store.read_bytes(manifest.path).decode()
    assert "geheim" not in text
    assert "S3CRET" not in text
    assert manifest.sources[0] == "https://***@host/x?***"
    assert trace(made.store, source)[0] == "https://***@host/x?***"


def test_one_damaged_manifest_does_not_stop_it(finished: Run) -> None:
    uri = finished.store.full(finished.task("gate").prefix)
    before = trace(finished.store, uri)
    finished.store.write_bytes(f"{finished.task('export').prefix}/manifest.json", b"{")
    assert [line for line in before if "export" not in line] == [
        line for line in trace(finished.store, uri) if "export" not in line
    ]


def test_the_name_of_a_crawl_file_moves_no_cursor(finished: Run) -> None:
    task = finished.task("crawl", ONE)
    path = f"{task.prefix}/manifest.json"
    made = manifest.read(finished.store, task.prefix).model_copy(update={"sources": ("/data/\x1b[2J\r.warc",)})
    finished.store.write_bytes(path, made.model_dump_json().encode())
    assert r"  from /data/\x1b[2J\r.warc" in trace(finished.store, finished.store.full(path))
    assert trace(finished.store, "/data/\x1b[2J\r.warc")[0] == r"/data/\x1b[2J\r.warc"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [(lambda path: path.write_bytes(b"{"), "cannot be read"), (Path.unlink, "is not in this store")],
    ids=["damaged", "gone"],
)
def test_a_gap_in_the_chain_forward_is_told_with_what_lies_behind_it(
    finished: Run, spoil: Callable[[Path], object], why: str
) -> None:
    """Of a result without a manifest nobody knows what it was made from, and the chain would end without a word."""
    gap = finished.task("extract", ONE)
    spoil(finished.store.local(f"{gap.prefix}/manifest.json"))
    behind = len({*STAGES} - {"crawl", "extract", "curate", "benchmark"})
    perhaps = (
        f"  perhaps made extract {ONE} {gap.fingerprint[:12]} (its manifest {why}), and then {behind} more made from it"
    )
    for place in (finished.segments[0].files[0].uri, finished.task("crawl", ONE).prefix):
        assert trace(finished.store, place)[-1] == perhaps
    other = trace(finished.store, finished.task("crawl", TWO).prefix)
    assert not [line for line in other if "perhaps" in line], "another segment's result is not made from this one"
    assert f"(its manifest {why})" in "\n".join(trace(finished.store, finished.task("filter", ONE).prefix))


def test_an_unreadable_manifest_is_counted_where_nothing_is_found(finished: Run) -> None:
    finished.store.write_bytes(f"{finished.task('crawl', ONE).prefix}/manifest.json", b"{")
    with pytest.raises(InputError, match="1 of its manifests cannot be read"):
        trace(finished.store, finished.segments[0].files[0].uri)


def test_walks_go_both_ways_and_meet_everything_once() -> None:
    found = Graph(dict.fromkeys("abcd"), {"d": ("b", "c"), "c": ("a",), "b": ("a",), "a": ()})
    assert list(found.inputs("d")) == [("b", 1), ("c", 1), ("a", 2)]
    assert sorted(found.results("a")) == [("b", 1), ("c", 1), ("d", 2)]
    assert list(found.results("d")) == []
    circle = Graph(dict.fromkeys("ab"), {"a": ("b",), "b": ("a",)})
    assert list(circle.inputs("a")) == [("b", 1)], "even where a foreign manifest makes a circle"


def test_segments_of_one_stage_are_one_node_and_other_settings_another(make_run: Callable[..., Run]) -> None:
    run, other = make_run(), make_run("extract.min_chars=7", run="two")
    tasks = {task.prefix: task for made in (run, other) for task in made.tasks().values()}
    whole = folded(graph(map(Node.of_task, tasks.values())))
    counts = sorted(
        (group.stage, len(group.nodes)) for group in whole.nodes.values() if group.stage in ("crawl", "extract", "mix")
    )
    assert counts == [("crawl", 2), ("extract", 2), ("extract", 2), ("mix", 1), ("mix", 1)]
    [crawl] = [name for name, group in whole.nodes.items() if group.stage == "crawl"]
    extracts = [name for name, group in whole.nodes.items() if group.stage == "extract"]
    assert sorted(whole.forward[crawl]) == sorted(extracts)
    assert [whole.back[name] for name in extracts] == [(crawl,)] * 2
    settings = sorted(str(whole.nodes[name].identity.settings.get("extract.min_chars")) for name in extracts)  # type: ignore[union-attr]
    assert settings == ["7", "None"]


def test_all_benchmarks_of_a_model_are_one_node(make_run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("{}")
    tasks = ", ".join(f"{name}: {{task: mmlu, items: {tmp_path}/items.jsonl}}" for name in "abc")
    run = make_run(f"benchmark.tasks={{{tasks}}}")
    whole = folded(graph(map(Node.of_task, run.tasks().values())))
    found = {name: group for name, group in whole.nodes.items() if group.stage == "benchmark"}
    assert [sorted(node.key[2] for node in group.nodes) for group in found.values()] == [
        [f"{model}.{name}" for name in "abc"] for model in ("pretrain", "sft", "aligned")
    ]
    [abilities] = [name for name, group in whole.nodes.items() if group.stage == "abilities"]
    assert {*found} < {*whole.back[abilities]}
    [sft] = [name for name, group in whole.nodes.items() if group.stage == "sft"]
    assert [sft] == [one for name in [*found][1:2] for one in whole.back[name]]


def test_a_task_of_a_plan_has_its_edges_before_it_is_done(make_run: Callable[..., Run]) -> None:
    run = make_run()
    crawl = run.task("crawl", ONE)
    made = Made.of(Attempt(run, crawl).commit([], Rows(read=3, kept=2, dropped=1, reasons={"blocked": 1})))
    found = graph([Node.of_task(task, made if task is crawl else None) for task in run.tasks().values()])
    nodes = {key[0]: node for key, node in found.nodes.items() if key[2] in (ONE, "all")}
    assert (made.rows_read, made.rows_kept, made.bytes, made.sources) == (3, 2, 0, (run.segments[0].files[0].uri,))
    assert nodes["crawl"].made is made
    assert (nodes["ppo"].made, nodes["ppo"].why) == (None, "not done yet")
    reached = {key[0] for key, _ in found.results([nodes["crawl"].key])}
    assert reached == set(STAGES) - {"crawl", "curate", "benchmark"}, "the recipe names no benchmarks"
    assert gaps(found, [nodes["crawl"].key]) == []
