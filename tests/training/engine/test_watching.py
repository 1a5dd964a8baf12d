"""Curves that are shown while a stage runs: in the store, as TensorBoard's files, and in W&B and MLflow."""

import importlib
import inspect
import re
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, call

import pytest
from tensorboardX.proto.event_pb2 import Event

from contract.errors import StoreError
from contract.kinds import Kind
from contract.live import ALL_STEPS, EVERY, LEFT_S, Live, Seen, points_name, read_live
from contract.manifest import need
from contract.metrics import Point, load_points
from contract.results import Pretrain
from contract.thinning import load_curves, thin
from training import __main__ as main
from training.engine import watching
from training.engine.events import event_name, write_events
from training.engine.job import Job
from training.engine.watching import PACE, StoreWatcher, Watch, wanted, watched


def scalars(data: bytes) -> list[tuple[int, str, float]]:
    """What an event file says; its frame is a length, a checksum, the event, a checksum."""
    found = []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + size])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + size :]
    return found


def wait_for(what: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not what() and time.monotonic() < limit:
        time.sleep(0.01)
    assert what()


def test_numbers_of_rows_are_in_no_chart(tmp_path: Path) -> None:
    write_events(tmp_path / "events", [Point(2, "skipped", 1.0, 0.0), Point(2, "skipped_row web", 71.0, 0.0)])
    assert scalars((tmp_path / "events").read_bytes()) == [(2, "skipped", 1.0)]
    write_events(tmp_path / "none", [Point(2, "skipped_row", 71.0, 0.0)])
    assert (tmp_path / "none").read_bytes() == b""


def test_an_event_file_holds_the_points(tmp_path: Path) -> None:
    write_events(tmp_path / "events", [Point(1, "loss", 2.5, 100.0), Point(2, "loss", 1.5, 101.0)])
    data = (tmp_path / "events").read_bytes()
    assert scalars(data) == [(1, "loss", 2.5), (2, "loss", 1.5)]
    (size,) = struct.unpack("<Q", data[:8])
    first = Event.FromString(data[12 : 12 + size])
    assert (first.file_version, first.wall_time) == ("brain.Event:2", 100.0)
    assert sorted([event_name(10), event_name(9)]) == [event_name(9), event_name(10)]


def test_a_running_stage_shows_its_points_and_leaves_nothing_behind(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    read = lambda seen=None: read_live(job.store, job.task.prefix, seen)  # noqa: E731

    def number() -> int:
        found: Live | None = read()
        return found.seen.number if found else -1

    assert read() is None
    watch = Watch(job, "the store", StoreWatcher, every_s=0.01)
    watch.start()
    job.curves.add(1, loss=2.5)
    wait_for(lambda: number() == 0)
    job.curves.add(2, loss=1.5, lr=0.1)
    wait_for(lambda: number() == 1)
    assert read().curves == thin(job.curves.points)
    assert read(Seen(job.attempt.id, 0)).curves == thin(job.curves.points[1:])
    files = [job.attempt.path(f"live/{event_name(number)}") for number in (0, 1)]
    wait_for(lambda: job.store.exists(files[1]))
    assert [scalars(job.store.read_bytes(path)) for path in files] == [
        [(1, "loss", 2.5)],
        [(2, "loss", 1.5), (2, "lr", pytest.approx(0.1))],
    ]
    watch.end()
    watch.wait(30)
    assert not job.store.files(job.task.prefix)


def test_now_and_then_all_curves_so_far_are_one_small_file(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    watcher = StoreWatcher(job)
    for step in range(EVERY + 1):
        job.curves.add(step, loss=float(step))
        watcher.add(job.curves.points[-1:])
    names = {Path(entry.path).name for entry in job.store.files(job.task.prefix)}
    assert [name for name in names if name.startswith("curves")] == [f"curves-{EVERY - 1:06d}.json"]
    data = job.store.read_bytes(job.attempt.path(f"live/curves-{EVERY - 1:06d}.json"))
    assert load_curves(data)["loss"].steps == tuple(range(EVERY))
    for number in range(EVERY):  # what the small file sums up need not be read
        job.store.delete(job.attempt.path(f"live/points-{number:06d}.jsonl"))
    found = read_live(job.store, job.task.prefix)
    assert found is not None
    assert found.curves == thin(job.curves.points)


def test_a_watcher_that_fails_is_reported_once_and_sees_the_points_later(
    make_job: Callable[..., Job], caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job("pretrain")
    seen: list[list[Point]] = []
    answers = iter([StoreError("503"), StoreError("503"), None, StoreError("504"), None])

    def add(points: list[Point]) -> None:
        if error := next(answers, None):
            raise error
        seen.append(points)

    watcher: Any = SimpleNamespace(add=add, close=Mock())
    watch = Watch(job, "somewhere", lambda _: watcher)
    job.curves.add(1, loss=1.0)
    for _ in range(3):
        watch._show(watcher)
    job.curves.add(2, loss=2.0)
    for _ in range(3):
        watch._show(watcher)
    assert [[point.step for point in points] for points in seen] == [[1], [2]]
    assert [record.getMessage() for record in caplog.records if "shown in" in record.getMessage()] == [
        "warning: the curves cannot be shown in somewhere (503)",
        "warning: the curves cannot be shown in somewhere (504)",
    ]


def test_others_are_used_when_package_and_variable_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching.importlib.util, "find_spec", lambda name: name == "wandb" or None)
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    assert list(wanted()) == ["the store"]
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "something")
    assert list(wanted()) == ["the store", "wandb"], "mlflow is not installed"


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Mock:
    wandb = Mock()
    wandb.init.return_value.resumed = False
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return wandb


class Refused(Exception):
    error_code = "INVALID_PARAMETER_VALUE"


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for MLflow, which keeps what it gets as (name, value, milliseconds, step)."""
    got: list[tuple[str, float, int, int]] = []
    metric = lambda key, value, timestamp, step: SimpleNamespace(key=key, kept=(key, value, timestamp, step), step=step)  # noqa: E731

    def log_batch(run: str, metrics: list[SimpleNamespace]) -> None:
        assert run == "run-1"
        assert len(metrics) <= 1000
        if any(one.kept[1] == 13.0 for one in metrics):
            raise Refused("13")
        got.extend(one.kept for one in metrics)

    client = SimpleNamespace(log_batch=Mock(side_effect=log_batch))
    entities = SimpleNamespace(Metric=metric)
    made = SimpleNamespace(
        MlflowClient=lambda: client, client=client, entities=entities, set_experiment=Mock(), log_params=Mock(), end_run=Mock(), got=got,
        start_run=lambda run_name: SimpleNamespace(info=SimpleNamespace(run_id="run-1")),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mlflow", made)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return made


UNORDERED = [
    Point(1, "loss", 2.5, 1.0),
    Point(3, "loss", 1.5, 3.0),
    Point(2, "skipped", 1.0, 2.0),
    Point(2, "skipped_row web", 71.0, 2.0),
    Point(2, "skipped_row web", 72.0, 2.0),
    Point(1, "lr", 0.1, 1.0),
]


def test_wandb_gets_every_step_in_order_and_no_numbers_of_rows(make_job: Callable[..., Job], wandb: Mock) -> None:
    job = make_job("pretrain")
    watcher = watching.WandbWatcher(job)
    watcher.add(UNORDERED)
    watcher.close()
    given = wandb.init.call_args.kwargs
    assert (given["id"], given["resume"]) == (f"pretrain-{job.task.fingerprint}", "allow")
    assert given["config"] == job.task.identity.settings
    run = wandb.init.return_value
    assert run.log.mock_calls == [
        call({"loss": 2.5, "lr": 0.1}, step=1),
        call({"skipped": 1.0}, step=2),
        call({"loss": 1.5}, step=3),
    ]
    assert run.finish.called


def test_a_run_that_wandb_resumes_goes_on_after_what_it_has(make_job: Callable[..., Job], wandb: Mock) -> None:
    run = wandb.init.return_value
    run.resumed, run.step = True, 3
    watching.WandbWatcher(make_job("pretrain")).add(UNORDERED)
    assert run.log.mock_calls == [call({"loss": 1.5}, step=3)]


def test_mlflow_gets_every_point_with_its_time(make_job: Callable[..., Job], mlflow: SimpleNamespace) -> None:
    watcher = watching.MlflowWatcher(make_job("pretrain"))
    watcher.add(UNORDERED)
    watcher.add([Point(step, "loss", 1.0, 4.0) for step in range(4, 1505)])
    watcher.close()
    assert mlflow.got[:4] == [("loss", 2.5, 1000, 1), ("loss", 1.5, 3000, 3), ("skipped", 1.0, 2000, 2), ("lr", 0.1, 1000, 1)]  # fmt: skip
    assert [step for *_, step in mlflow.got[4:]] == list(range(4, 1505))
    assert mlflow.client.log_batch.call_count == 3
    assert mlflow.end_run.called


def test_a_value_that_mlflow_refuses_holds_up_no_other(
    make_job: Callable[..., Job], mlflow: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = watching.MlflowWatcher(make_job("pretrain"))
    watcher.add([Point(step, "loss", float(step), 0.0) for step in range(10, 17)])
    assert [step for *_, step in mlflow.got] == [10, 11, 12, 14, 15, 16]
    assert [record.getMessage() for record in caplog.records if "MLflow" in record.getMessage()] == [
        "warning: MLflow refuses loss of step 13, which is left out (13)"
    ]
    mlflow.client.log_batch.side_effect = ConnectionError("reset")
    with pytest.raises(ConnectionError):  # what is not refused is sent again later
        watcher.add([Point(17, "loss", 1.0, 0.0)])


@pytest.mark.parametrize(
    ("name", "start", "changed"),
    [
        ("heldout_loss/web-2.de crawl", "heldout_loss/web-2.de crawl", False),
        ("epochs/böse:quelle", "epochs/b_se_quelle-", True),
        ("epochs/a//b/../c", "epochs/a__b_.._c-", True),
        ("epochs/..", "epochs/_-", True),
        ("epochs/" + "x" * 300, "epochs/" + "x" * 200 + "-", True),
    ],
)
def test_mlflow_gets_names_that_it_takes(name: str, start: str, changed: bool) -> None:
    found = watching.mlflow_name(name)
    assert found.startswith(start)
    assert len(found) == len(start) + 8 * changed


def test_names_that_look_alike_to_mlflow_stay_apart() -> None:
    assert watching.mlflow_name("epochs/中国") != watching.mlflow_name("epochs/日本")


def test_a_service_that_hangs_holds_up_no_other_and_not_the_end(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job, seen, never = make_job("pretrain"), [], threading.Event()

    def hang(*_: object) -> None:
        never.wait(60)

    makers = {
        "a service that never starts": hang,
        "a service that never takes": lambda _: SimpleNamespace(add=hang, close=Mock()),
        "a service that never ends": lambda _: SimpleNamespace(add=Mock(), close=hang),
        "the store": lambda _: SimpleNamespace(add=seen.append, close=Mock()),
    }
    monkeypatch.setattr(watching, "wanted", lambda: makers)
    monkeypatch.setattr(watching, "END_S", 0.5)
    job.curves.add(1, loss=1.0)
    began = time.monotonic()
    with watched(job):
        pass
    took = time.monotonic() - began
    never.set()
    assert 0.5 <= took < 10
    assert seen == [job.curves.points]
    assert [record.getMessage() for record in caplog.records if "answer" in record.getMessage()] == [
        f"warning: {name} does not answer; the stage ends without it, its curves may lack the last points"
        for name in list(makers)[:3]
    ]


def test_only_the_first_rank_shows_curves_also_if_the_stage_fails(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, seen = make_job("pretrain"), []
    watcher = SimpleNamespace(add=seen.append, close=Mock())
    monkeypatch.setattr(watching, "wanted", lambda: {"somewhere": lambda _: watcher})
    job.curves.add(1, loss=1.0)
    with pytest.raises(StoreError, match="failed"), watched(job):
        raise StoreError("failed")
    assert seen == [job.curves.points]
    assert watcher.close.called
    job.ranks.rank = 1
    with watched(job):
        job.curves.add(2, loss=1.0)
    assert len(seen) == 1


def test_the_result_has_the_curves_for_tensorboard_and_no_live_files(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("pretrain")
    job.curves.add(3, loss=0.5)
    job.commit(job.scratch.fresh("result"), Pretrain.model_construct())
    (thinned,) = need(job.store, job.task).of(Kind.CURVES)
    assert load_curves(job.store.read_bytes(thinned.path)) == thin(job.curves.points)
    (file,) = need(job.store, job.task).of(Kind.EVENTS)
    assert file.path.endswith(f"/{event_name(0)}")
    assert scalars(job.store.read_bytes(file.path)) == [(3, "loss", 0.5)]
    left = job.attempt.path("live/points-000000.jsonl")
    job.store.write_bytes(left, b"")
    monkeypatch.setattr(main.StopFlag, "install", lambda self: self)
    monkeypatch.setattr(main, "headline", lambda _: "")
    assert main.main(["pretrain", "--recipe", job.run_uri]) == 0
    assert not job.store.exists(left)


def test_a_running_stage_says_how_far_it_is(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    watcher = StoreWatcher(job)
    shown = lambda number: load_points(job.store.read_bytes(job.attempt.path(points_name(number))))  # noqa: E731
    watcher.add([Point(4, "loss", 2.0, 100.0)])
    assert shown(0) == [Point(4, "loss", 2.0, 100.0)], "nobody knows how many steps there are"
    job.curves.steps = 20
    watcher.add([Point(5, "loss", 2.0, 110.0)])
    assert shown(1)[1:] == [Point(5, ALL_STEPS, 20.0, 110.0)], "the pace is not known yet"
    watcher.add([Point(6, "loss", 2.0, 111.0), Point(10, "loss", 2.0, 120.0)])
    assert shown(2)[2:] == [Point(10, ALL_STEPS, 20.0, 120.0), Point(10, LEFT_S, 20.0, 120.0)]
    events = job.store.read_bytes(job.attempt.path(f"live/{event_name(2)}"))
    assert [name for _, name, _ in scalars(events)] == ["loss", "loss"]
    assert job.curves.points == [], "nothing of it is committed"
    for step in range(20, 20 + 3 * PACE):
        watcher.add([Point(step, "loss", 2.0, 120.0 + 7 * (step - 10))])
    assert len(watcher._newest) == PACE


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward", "ppo", "dpo", "grpo"])
def test_every_stage_that_trains_says_how_many_steps_it_takes(stage: str) -> None:
    """Beside its line of progress, which has the same number. The points themselves go when a stage is done."""
    source = inspect.getsource(importlib.import_module(f"training.{stage}"))
    assert re.search(r'"steps", (\S+), step\).*\n    job\.curves\.steps = \1\n', source)
