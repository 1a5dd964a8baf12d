"""Curves that are shown while a stage runs: in the store, as TensorBoard's files, and in W&B and MLflow."""

import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, call

import pytest
from tensorboardX.proto.event_pb2 import Event

from contract.errors import StoreError
from contract.kinds import Kind
from contract.manifest import need
from contract.metrics import Point, live_points
from contract.results import Pretrain
from training import __main__ as main
from training.engine import watching
from training.engine.events import event_name, write_events
from training.engine.job import Job
from training.engine.watching import StoreWatcher, Watch, wanted, watched


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
    read = lambda after=-1: live_points(job.store, job.task.prefix, after)  # noqa: E731
    assert read() == ([], -1)
    watch = Watch(job, {"the store": StoreWatcher}, every_s=0.01)
    watch.start()
    job.curves.add(1, loss=2.5)
    wait_for(lambda: read()[1] == 0)
    job.curves.add(2, loss=1.5, lr=0.1)
    wait_for(lambda: read()[1] == 1)
    assert read()[0] == job.curves.points
    assert read(0) == (job.curves.points[1:], 1)
    assert read(1) == ([], 1)
    assert read(7) == (job.curves.points, 1), "a new attempt has begun, with fewer files"
    files = [job.attempt.path(f"live/{event_name(number)}") for number in (0, 1)]
    assert [scalars(job.store.read_bytes(path)) for path in files] == [
        [(1, "loss", 2.5)],
        [(2, "loss", 1.5), (2, "lr", pytest.approx(0.1))],
    ]
    watch.end()
    assert not job.store.files(job.task.prefix)


def test_the_attempt_that_wrote_last_is_read(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    for number, attempt in enumerate(("attempt-aa", "attempt-bb")):
        data = f'{{"step": {number}, "name": "loss", "value": 1.0, "time": 0.0}}\n'.encode()
        job.store.write_bytes(f"{job.task.prefix}/{attempt}/live/points-000000.jsonl", data)
        time.sleep(1.1 if number == 0 else 0)  # the time of a file is exact to the second
    assert [point.step for point in live_points(job.store, job.task.prefix)[0]] == [1]


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

    watch = Watch(job, {"somewhere": lambda _: SimpleNamespace(add=add, close=Mock())})
    watch._watchers["somewhere"] = SimpleNamespace(add=add, close=Mock())  # type: ignore[assignment]
    job.curves.add(1, loss=1.0)
    for _ in range(3):
        watch._show()
    job.curves.add(2, loss=2.0)
    for _ in range(3):
        watch._show()
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


def test_wandb_and_mlflow_get_every_step(make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job("pretrain")
    points = [Point(1, "loss", 2.5, 0), Point(1, "lr", 0.1, 0), Point(2, "loss", 1.5, 0)]
    wandb, mlflow = Mock(), Mock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    for make in (watching.WandbWatcher, watching.MlflowWatcher):
        watcher = make(job)
        watcher.add(points)
        watcher.close()
    given = wandb.init.call_args.kwargs
    assert (given["id"], given["resume"]) == (f"pretrain-{job.task.fingerprint}", "allow")
    assert given["config"] == job.task.identity.settings
    steps = [({"loss": 2.5, "lr": 0.1}, 1), ({"loss": 1.5}, 2)]
    assert wandb.init.return_value.log.mock_calls == [call(values, step=step) for values, step in steps]
    assert mlflow.log_metrics.mock_calls == [call(values, step=step) for values, step in steps]
    assert wandb.init.return_value.finish.called
    assert mlflow.end_run.called


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
    (file,) = need(job.store, job.task).of(Kind.EVENTS)
    assert file.path.endswith(f"/{event_name(0)}")
    assert scalars(job.store.read_bytes(file.path)) == [(3, "loss", 0.5)]
    left = job.attempt.path("live/points-000000.jsonl")
    job.store.write_bytes(left, b"")
    monkeypatch.setattr(main.StopFlag, "install", lambda self: self)
    monkeypatch.setattr(main, "headline", lambda _: "")
    assert main.main(["pretrain", "--recipe", job.run_uri]) == 0
    assert not job.store.exists(left)
