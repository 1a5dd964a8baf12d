"""The curves of a task as a page needs them: committed, live or missing, with their marks, charts and table."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from contract.kinds import Kind
from contract.live import Seen, points_name
from contract.manifest import Attempt, File, find
from contract.metrics import Point, dump_points
from contract.plan import Run, resolve
from contract.results import Checkpoint, Pretrain
from contract.thinning import Curve, dump_curves, thin
from reports import curves
from reports.curves import Chart, Line, Mark, Shown, charts, marks, spikes, stage_to_show, states, table


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: test\nstore: {tmp_path / 'store'}\ncrawl: {{source: {tmp_path / 'crawl'}}}\n")
    return resolve(str(recipe), "one")


def points(last: int, name: str = "loss") -> list[Point]:
    return [Point(step, name, 3.0 - step / 100, 1000.0 + step) for step in range(1, last + 1)]


@pytest.fixture
def commit(run: Run) -> Callable[..., str]:
    """Commits files of pretrain; returns the folder of its attempt."""

    def made(files: Sequence[tuple[str, Kind, bytes, int]]) -> str:
        attempt = Attempt(run, run.task("pretrain"))
        listed = []
        for name, kind, data, rows in files:
            run.store.write_bytes(attempt.path(name), data)
            listed.append(File(path=attempt.path(name), kind=kind, bytes=len(data), rows=rows))
        attempt.commit(listed, result=Pretrain.model_construct())
        return attempt.path("")

    return made


def test_a_task_that_has_not_begun_has_no_curves(run: Run) -> None:
    assert curves.read(run, run.task("pretrain")) == curves.Reading("waiting")


def test_the_small_file_of_a_committed_task_is_read_and_its_events_are_named(
    run: Run, commit: Callable[..., str]
) -> None:
    events = "events.out.tfevents.0000000000.gristmill"
    folder = commit(
        [
            ("metrics.jsonl", Kind.METRICS, b"nobody reads this", 9),
            ("curves.json", Kind.CURVES, dump_curves(thin(points(30))), 0),
            (events, Kind.EVENTS, b"", 0),
        ]
    )
    found = curves.read(run, run.task("pretrain"))
    done = find(run.store, run.task("pretrain"))
    assert done is not None
    assert (found.state, found.curves, found.whole, found.problem) == ("done", thin(points(30)), True, "")
    assert found.events == (run.store.full(folder + events),)
    assert found.updated == done.finished.timestamp()


def test_an_older_result_is_read_from_its_full_file_unless_that_is_too_large(
    run: Run, commit: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dump_points(points(30))
    commit([("metrics.jsonl", Kind.METRICS, data, 30)])
    assert curves.read(run, run.task("pretrain")).curves == thin(points(30))
    monkeypatch.setattr(curves, "FULL_BYTES", len(data) - 1)
    found = curves.read(run, run.task("pretrain"))
    assert (found.state, found.curves) == ("done", {})
    assert f"{len(data):,} bytes" in found.problem


@pytest.mark.parametrize(("kind", "name"), [(Kind.CURVES, "curves.json"), (Kind.METRICS, "metrics.jsonl")])
def test_a_damaged_file_is_a_problem_and_no_error(run: Run, commit: Callable[..., str], kind: Kind, name: str) -> None:
    folder = commit([(name, kind, b"what is this", 3)])
    found = curves.read(run, run.task("pretrain"))
    assert (found.state, found.curves) == ("done", {})
    assert found.problem
    run.store.delete(folder + name)
    curves._load.cache_clear()
    assert "is gone" in curves.read(run, run.task("pretrain")).problem


def test_a_stage_without_curves_says_so(run: Run, commit: Callable[..., str]) -> None:
    commit([("metrics.jsonl", Kind.METRICS, b"", 0)])
    assert curves.read(run, run.task("pretrain")).problem == "The task has committed no curves."


def test_a_running_task_shows_new_points_and_then_falls_silent(run: Run) -> None:
    task = run.task("pretrain")
    for number, part in enumerate((points(4), points(6)[4:])):
        run.store.write_bytes(f"{task.prefix}/attempt-aa/{points_name(number)}", dump_points(part))
    found = curves.read(run, task)
    assert (found.state, found.whole, found.seen) == ("running", True, Seen("attempt-aa", 1))
    assert found.curves == thin(points(6))
    assert found.events == (run.store.full(f"{task.prefix}/attempt-aa/live"),)
    later = curves.read(run, task, Seen("attempt-aa", 0))
    assert (later.whole, later.curves) == (False, thin(points(6)[4:]))
    for number in range(2):
        path = run.store.local(f"{task.prefix}/attempt-aa/{points_name(number)}")
        os.utime(path, (time.time() - curves.SILENT_S - 60,) * 2)
    assert curves.read(run, task).state == "silent"


def test_a_stopped_task_shows_the_curves_of_its_newest_whole_checkpoint(run: Run) -> None:
    task = run.task("pretrain")
    for step in (4, 8):
        attempt = Attempt(run, task, f"step-{step:08d}")
        data = dump_points(points(step))
        run.store.write_bytes(attempt.path("metrics.jsonl"), data)
        file = File(path=attempt.path("metrics.jsonl"), kind=Kind.METRICS, bytes=len(data))
        attempt.commit([file], result=Checkpoint(step=step, processes=1, schedule_steps=12))
    run.store.write_bytes(f"{task.stage}/{task.fingerprint}/step-00000012/attempt-aa/state.json", b"{}")
    found = curves.read(run, task)
    assert (found.state, found.curves) == ("stopped", thin(points(8)))
    run.store.write_bytes(f"{task.stage}/{task.fingerprint}/step-00000008/manifest.json", b"{")
    assert curves.read(run, task).curves == thin(points(4))


def test_a_committed_task_is_done_whatever_an_attempt_has_left(run: Run, commit: Callable[..., str]) -> None:
    commit([("curves.json", Kind.CURVES, dump_curves(thin(points(3))), 0)])
    task = run.task("pretrain")
    run.store.write_bytes(f"{task.prefix}/attempt-aa/{points_name(0)}", dump_points(points(9)))
    found = curves.read(run, task, Seen("attempt-aa", 0))
    assert (found.state, found.whole, found.curves) == ("done", True, thin(points(3)))


def test_the_stage_that_runs_is_shown_first_and_else_the_last_one(run: Run, commit: Callable[..., str]) -> None:
    assert {one.state for one in states(run)} == {"waiting"}
    shown = ["pretrain", "sft", "reward", "gate", "ppo", "judge", "evaluate"]
    assert [one.stage for one in states(run)] == shown, "without those of ablations and of other ways to align"
    assert stage_to_show(states(run)) is None
    commit([])
    assert states(run)[0] == Shown("pretrain", "done")
    assert stage_to_show(states(run)) == "pretrain"
    run.store.write_bytes(f"{run.task('sft').prefix}/attempt-aa/{points_name(0)}", b"")
    assert states(run)[1] == Shown("sft", "begun")
    assert stage_to_show(states(run)) == "sft"
    run.store.write_bytes(f"{run.task('sft').prefix}/manifest.json", b"")
    run.store.write_bytes(f"{run.task('evaluate').prefix}/manifest.json", b"")
    assert stage_to_show(states(run)) == "sft", "evaluate trains nothing"


def test_curves_stand_in_charts_by_what_they_measure() -> None:
    names = ["grad_norm", "heldout_loss", "loss", "resumed", "skipped", "epochs/b", "own figure", "epochs/a"]
    assert charts(names) == [
        Chart("Loss", "nats", ("loss", "heldout_loss")),
        Chart("Gradient norm", "before clipping", ("grad_norm",)),
        Chart("Epochs over each source", "epochs", ("epochs/b", "epochs/a")),
        Chart("own figure", "", ("own figure",)),
    ]


def curve(values: Sequence[float]) -> Curve:
    steps = tuple(range(1, len(values) + 1))
    return Curve(steps, tuple(values), tuple(map(float, steps)))


def test_a_leap_of_the_loss_is_a_spike_and_noise_and_a_fall_are_not() -> None:
    noise = [2.0 + 0.01 * (step % 3) - 0.002 * step for step in range(60)]
    assert spikes(curve(noise)) == []
    assert spikes(curve([*noise[:30], 9.0, 8.0, *noise[30:]])) == [31, 32]
    assert spikes(curve([*noise[:30], -9.0, *noise[30:]])) == []
    assert spikes(curve([1.0] * 7 + [5.0])) == [], "there is nothing yet to compare it with"
    assert spikes(curve([1.0] * 8 + [5.0])) == [9]
    assert spikes(curve([1.0] * 20 + [1.05] + [1.0] * 5)) == [], "a twentieth more is no spike"


def test_marks_are_resumes_skipped_updates_and_spikes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "loss": curve([1.0] * 9 + [7.0] + [1.0] * 5),
        "skipped": Curve((12, 12), (1.0, 1.0), (0.0, 0.0)),
        "resumed": Curve((3, 8), (1.0, 1.0), (0.0, 0.0)),
    }
    assert marks(found) == [Mark(3, "resumed"), Mark(8, "resumed"), Mark(10, "spike"), Mark(12, "skipped")]
    monkeypatch.setattr(curves, "MARKS", 2)
    assert marks(found) == [Mark(3, "resumed"), Mark(8, "resumed")]
    assert marks({}) == []


def test_the_table_has_ends_and_extremes_of_each_curve() -> None:
    found = {"loss": curve([2.0, 5.0, 1.0, 5.0, 1.0, 1.5]), "resumed": curve([1.0])}
    assert table(found) == [
        Line("loss", first=2.0, last=1.5, last_step=6, lowest=1.0, lowest_step=3, highest=5.0, highest_step=2)
    ]


def test_two_million_points_are_read_in_under_a_second(run: Run, commit: Callable[..., str]) -> None:
    """The file that the stage commits is bounded, however long the run was."""
    names = ("loss", "lr", "grad_norm", "step_s", "memory_bytes", "mfu", "tokens_per_s", "tokens")
    thinned = thin(Point(step, name, float(step % 97), 0.5 * step) for step in range(250_000) for name in names)
    data = dump_curves(thinned)
    assert len(data) < 60_000 * len(names)
    commit([("curves.json", Kind.CURVES, data, 0)])
    began = time.perf_counter()
    found = curves.read(run, run.task("pretrain"))
    assert time.perf_counter() - began < 1.0
    assert found.curves == thinned


def test_a_running_task_says_how_far_it_is() -> None:
    loss = Curve((1, 2, 7), (3.0, 2.0, 1.0), (0.0, 1.0, 2.0))
    every, left = Curve((2, 7), (50.0, 60.0), (1.0, 2.0)), Curve((7,), (12.5,), (2.0,))
    assert curves.progress({}) is None
    assert curves.progress({"loss": loss}) == curves.Progress(7)
    assert curves.progress({"loss": loss, "all_steps": every}) == curves.Progress(7, 60)
    assert curves.progress({"loss": loss, "all_steps": every, "left_s": left}) == curves.Progress(7, 60, 12.5)
    assert curves.charts(["loss", "all_steps", "left_s"]) == [Chart("Loss", "nats", ("loss",))]
    assert [line.name for line in curves.table({"loss": loss, "all_steps": every})] == ["loss"]
