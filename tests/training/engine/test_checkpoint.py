"""A run that stops and goes on must be the run that never stopped: weights, moments, random states, curves."""

import contextlib
import errno
import itertools
import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from contract import gc
from contract.errors import InputError, Interrupted, StoreError
from contract.manifest import Attempt, File, find
from contract.results import Result
from contract.settings.training import Engine as EngineSettings
from contract.settings.training import Model, Optim
from contract.store import Store
from training.engine import checkpoint, zero
from training.engine.behind import Behind
from training.engine.engine import Engine
from training.engine.job import Job, kept_steps, settle_checkpoints
from training.engine.metrics import Curves
from training.engine.ranks import Ranks
from training.models import llama as model

SHAPE = Model(layers=1, d_model=16, heads=2, kv_heads=1, d_ff=32)
OPTIM = Optim(lr=0.01, warmup_fraction=0.0)
BATCHES = list(torch.randint(0, 50, (6, 4, 16), generator=torch.Generator().manual_seed(3)))


def make_engine(job: Job, zero_stage: int = 0, seed: int = 0, dtype: str = "fp32", shape: Model = SHAPE) -> Engine:
    settings = EngineSettings(micro_batch=4, zero_stage=zero_stage, dtype=dtype)
    return Engine(job, model.build(shape, 50, 16, seed), OPTIM, settings, 4, len(BATCHES))


def train(engine: Engine, first: int, last: int) -> None:
    for batch in BATCHES[first:last]:
        engine.backward(engine(input_ids=batch, labels=batch).loss)
        engine.step()


def state(engine: Engine) -> dict[str, torch.Tensor]:
    return {f"{name}/{key}": value.clone() for name, one in zero.read(engine.deepspeed) for key, value in one.items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())


def clear(job: Job, keep_last: int = 0, keep_every: int | None = None, **metrics: int) -> None:
    """What becomes of the checkpoints when the task is done."""
    settings = EngineSettings(keep_last=keep_last, keep_every=keep_every)
    settle_checkpoints(job.store, job.task, Mock(metrics=metrics), settings)


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the code under test sees it."""


def kill_at_change(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Of all changes to the store from now on, counted from 1, this one does not happen any more, nor one after it."""
    counted = itertools.count(1)

    def counting(change: Callable[..., object]) -> Callable[..., object]:
        def counted_change(*given: object) -> object:
            if next(counted) >= number:
                raise Killed
            return change(*given)

        return counted_change

    for name in ("write_bytes", "upload", "persist", "create", "delete"):
        monkeypatch.setattr(Store, name, counting(getattr(Store, name)))


class Peers(Ranks):
    """The ranks as one of several processes sees them, alone: the others find nothing amiss, and rank 0 shares what it would."""

    job: Job
    waited: list[tuple[int, int]]

    def sum(self, *values: float) -> list[float]:
        return list(values)

    def share(self, value: Any) -> Any:
        match value:
            case list():
                return [one.prefix for one in checkpoint.committed(self.job)]
            case str() if value.startswith("attempt"):
                return "attempt-one"
            case bool() | str():  # not done anywhere; a digest of the same manifest everywhere
                return value
            case int():
                return value if self.rank == 0 else 1  # checkpoints that rank 0 has set aside

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        written = len(self.job.store.files(f"{self.job.task.stage}/{self.job.task.fingerprint}"))
        self.waited.append((written, len(checkpoint.committed(self.job))))


def peer(job: Job, rank: int, world: int) -> Job:
    ranks = Peers(rank, rank, world)
    ranks.job, ranks.waited = job, []
    return replace(job, ranks=ranks, curves=Curves())


def noting_downloads(job: Job) -> list[str]:
    """The names of the files that the job will have downloaded."""
    download, asked = job.scratch.download, []
    job.scratch.download = lambda file: asked.append(Path(file.path).name) or download(file)  # type: ignore[method-assign,func-returns-value]
    return asked


@pytest.mark.parametrize(
    ("step", "last", "every", "stopping", "expected"),
    [
        (4, 10, 4, False, True),
        (8, 10, 4, False, True),
        (3, 10, 4, False, False),
        (5, 10, 4, False, False),
        (3, 10, 4, True, True),
        (4, 10, 4, True, True),
        (9, 10, 4, True, True),
        (10, 10, 5, False, False),  # what follows is the result
        (10, 10, 4, True, False),
        (1, 10, 1, False, True),
    ],
)
def test_when_a_checkpoint_is_due(step: int, last: int, every: int, stopping: bool, expected: bool) -> None:
    assert checkpoint.due(step, last, every, stopping) is expected


def test_a_task_that_is_to_stop_saves_first(make_job: Callable[..., Job], capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job("pretrain", "pretrain.engine.checkpoint_steps=3")
    engine = make_engine(job)
    steps = lambda: [one.metrics["step"] for one in checkpoint.committed(job)]  # noqa: E731
    for step in (1, 2, 3, 4):
        checkpoint.save_when_due(job, step, 6, {"model": engine}, {"tokens": step})
    job.behind.wait()
    assert steps() == [3]
    job.ranks.stop.raised = True
    with pytest.raises(Interrupted, match=r"^pretrain: stopped after step 5 of 6; run again to go on$"):
        checkpoint.save_when_due(job, 5, 6, {"model": engine}, {"tokens": 5})
    assert steps() == [5, 3]
    assert checkpoint.restore(job, {"model": engine}) == (5, {"tokens": 5})
    assert "resumed pretrain from step 5: file://" in capsys.readouterr().out
    checkpoint.save_when_due(job, 6, 6, {"model": engine}, {})
    assert steps() == [5, 3]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (1, [2, 1]),  # before the upload
        (2, [2, 1]),  # one file is there
        (4, [2, 1]),  # all but the curves
        (5, [2, 1]),  # uploaded, not yet on the disk
        (6, [2, 1]),  # all there but the manifest
        (7, [3, 2, 1]),  # the manifest is there, its name not yet on the disk
        (8, [3, 2, 1]),  # nothing old is deleted
        (9, [3, 2]),  # the old manifest is gone, its files are not
        (10, [3, 2]),  # there is no tenth
    ],
)
def test_a_save_killed_at_any_change_leaves_whole_checkpoints(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, change: int, left: list[int]
) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    for step in (1, 2):
        checkpoint.save(job, step, {"model": engine}, {})
    with monkeypatch.context() as patch:
        kill_at_change(patch, change)
        with pytest.raises(Killed) if change < 10 else contextlib.nullcontext():
            checkpoint.save(job, 3, {"model": engine}, {})
    found = checkpoint.committed(job)
    assert [one.metrics["step"] for one in found] == left
    assert all(job.store.size(file.path) == file.bytes for one in found for file in one.files)
    assert checkpoint.restore(job, {"model": engine})[0] == left[0]


def test_every_process_writes_its_share_and_takes_up_its_own_random_state(make_job: Callable[..., Job]) -> None:
    alone = make_job("pretrain")
    engine = make_engine(alone)
    train(engine, 0, 1)
    alone.curves.add(1, loss=2.0)
    for rank in (1, 0):  # rank 0 commits when all have written
        torch.manual_seed(10 + rank)
        one = peer(alone, rank, 2)
        one.curves.add(1, loss=2.0)
        checkpoint.save(one, 1, {"model": engine}, {})
        # Rank 1 leaves a list of its two files; when rank 0 has committed, its own four, a manifest and no list are there.
        assert one.ranks.waited == ([(3, 0)] if rank else [(7, 1)])
    (manifest,) = checkpoint.committed(alone)
    figures = {"step": 1, "processes": 2, "schedule_steps": len(BATCHES)}
    assert manifest.metrics == {**figures, "upload_s": manifest.metrics["upload_s"]}
    kinds = {Path(file.path).name: file.kind for file in manifest.files}
    shards = [f"shard-0000{rank}-000.safetensors" for rank in range(2)]
    others = ["random-00000.safetensors", "random-00001.safetensors", "state.json"]
    assert kinds == {"metrics.jsonl": "metrics"} | dict.fromkeys([*shards, *others], "checkpoint")
    written = [
        load_file(alone.scratch.download(file))
        for name in shards
        for file in manifest.files
        if file.path.endswith(name)
    ]
    names = [{key.rpartition("/")[0] for key in one} for one in written]
    assert not names[0] & names[1]
    assert len(names[0]) - len(names[1]) in (0, 1)
    together = {key.removeprefix("model/"): value for one in written for key, value in one.items()}
    assert same(together, state(engine))

    for rank in range(3):
        torch.manual_seed(99)
        one, resumed = peer(alone, rank, 3), make_engine(alone, seed=9)
        asked = noting_downloads(one)
        assert checkpoint.restore(one, {"model": resumed}) == (1, {})
        assert same(state(resumed), state(engine))
        expected = torch.rand(4, generator=torch.Generator().manual_seed(10 + rank if rank < 2 else 99))
        assert torch.equal(torch.rand(4), expected), "the third process saved none, so nothing is taken up"
        assert {name for name in asked if "random" in name} == {f"random-0000{rank}.safetensors"} & {*others}
        assert [(point.step, point.name, point.value) for point in one.curves.points] == [
            (1, "loss", 2.0),
            (1, "resumed", 1.0),
        ]


@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_damaged_for_one_process_is_left_out_by_all(make_job: Callable[..., Job], rank: int) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    checkpoint.save(job, 1, {"model": engine}, {})
    one = peer(job, rank, 2)
    one.ranks.gather = lambda state: [state, checkpoint._State.DAMAGED]  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"all 1 checkpoint.s. are damaged"):
        checkpoint.restore(one, {"model": engine})
    assert len(checkpoint.committed(job)) == rank, "rank 0 alone sets it aside"


@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_process_cannot_read_is_left_alone_by_all(make_job: Callable[..., Job], rank: int) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    checkpoint.save(job, 1, {"model": engine}, {})
    one = peer(job, rank, 2)
    one.ranks.gather = lambda state: [checkpoint._State.UNREADABLE, state]  # type: ignore[method-assign]
    with pytest.raises(StoreError, match=r"cannot be read .by another process.; nothing was changed, run again"):
        checkpoint.restore(one, {"model": engine})
    assert len(checkpoint.committed(job)) == 1


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ESTALE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("place", ["contract.store.Store.open_input", "pathlib.Path.open"])
def test_what_cannot_be_read_at_this_time_is_not_damaged(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, code: int, place: str
) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    for step in (1, 2):
        checkpoint.save(job, step, {"model": engine}, {})
    owner, _, name = place.rpartition(".")
    opened = getattr(Store if "Store" in owner else Path, name)

    def failing(one: Store | Path, *given: Any, **named: Any) -> Any:
        if str(given[0] if isinstance(one, Store) else one).endswith(".safetensors"):
            raise OSError(code, os.strerror(code))
        return opened(one, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(place, failing)
        with pytest.raises(StoreError, match=r"cannot be read .*; nothing was changed, run again$"):
            checkpoint.restore(job, {"model": engine})
    assert [one.metrics["step"] for one in checkpoint.committed(job)] == [2, 1]
    assert checkpoint.restore(job, {"model": engine})[0] == 2


def test_a_file_that_the_library_calls_missing_is_not_damaged(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    checkpoint.save(job, 1, {"model": engine}, {})
    for error in (FileNotFoundError("No such file or directory"), SafetensorError("too many open files")):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "load_file", Mock(side_effect=error))
            with pytest.raises(StoreError, match="nothing was changed"):
                checkpoint.restore(job, {"model": engine})
    assert checkpoint.restore(job, {"model": engine})[0] == 1


@pytest.mark.parametrize("part", ["shard-00000-000.safetensors", "state.json", "random-00000.safetensors"])
def test_a_changed_byte_is_noticed(make_job: Callable[..., Job], capsys: pytest.CaptureFixture[str], part: str) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    for step in (1, 2):
        checkpoint.save(job, step, {"model": engine}, {"value": 5})
    (path,) = [file.path for file in checkpoint.committed(job)[0].files if file.path.endswith(part)]
    data = job.store.read_bytes(path)
    job.store.write_bytes(path, data.replace(b"5", b"6") if part == "state.json" else data[:-1] + bytes([data[-1] ^ 1]))
    assert checkpoint.restore(job, {"model": make_engine(job)})[0] == 1
    assert f"skipped a damaged checkpoint ({part}: its checksum does not match)" in capsys.readouterr().out


def test_a_damaged_checkpoint_stays_when_its_step_is_saved_again_and_falls_behind(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    for step in (1, 2):
        checkpoint.save(job, step, {"model": engine}, {})
    damaged = checkpoint.committed(job)[0]
    manifest = job.store.read_bytes(damaged.path)
    for file in damaged.files:
        job.store.write_bytes(file.path, b"damaged")
    assert checkpoint.restore(job, {"model": make_engine(job)})[0] == 1
    for step in range(2, 4 + checkpoint.KEEP):
        checkpoint.save(job, step, {"model": engine}, {})
    left = {entry.path for entry in job.store.files(damaged.prefix)}
    (aside,) = left - {file.path for file in damaged.files}
    assert aside.startswith(f"{damaged.prefix}/damaged-")
    assert job.store.read_bytes(aside) == manifest
    assert 2 not in [one.metrics["step"] for one in checkpoint.committed(job)]


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over_in_silence(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    for step in (1, 2):
        checkpoint.save(job, step, {"model": engine}, {})
    whole = {file.path: job.store.read_bytes(file.path) for one in checkpoint.committed(job) for file in one.files}
    manifests = {job.store.read_bytes(one.path) for one in checkpoint.committed(job)}
    for path in whole:
        job.store.write_bytes(path, b"damaged")
    for _ in range(2):
        with pytest.raises(InputError, match=r"^pretrain: all 2 checkpoint.s. are damaged, so training"):
            checkpoint.restore(job, {"model": engine})
    left = {entry.path for entry in job.store.files(f"pretrain/{job.task.fingerprint}")}
    assert {job.store.read_bytes(path) for path in left - whole.keys()} == manifests, "set aside, never deleted"
    assert all("/damaged-" in path for path in left - whole.keys())
    for path in whole:
        os.utime(f"{job.store.root}/{path}", (1_710_000_000,) * 2)
    assert gc.collect(job.store, 3600, time.time(), delete=True) == ([], [])
    for path, data in whole.items():  # a person brings them back
        job.store.write_bytes(path, data)
    for path in left - whole.keys():
        os.rename(f"{job.store.root}/{path}", f"{job.store.root}/{path.rpartition('/')[0]}/manifest.json")
    assert checkpoint.restore(job, {"model": engine})[0] == 2
    clear(job)
    assert checkpoint.restore(job, {"model": engine}) == (0, {})


@pytest.mark.parametrize("content", ["{", "another task's"])
def test_a_manifest_that_was_not_written_here_is_skipped(
    make_job: Callable[..., Job], capsys: pytest.CaptureFixture[str], content: str
) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    for step in (1, 2):
        checkpoint.save(job, step, {"model": engine}, {})
    newest = checkpoint.committed(job)[0]
    if content != "{":
        content = newest.model_copy(update={"partition": "step-00000007"}).model_dump_json()
    job.store.write_bytes(newest.path, content.encode())
    assert [one.metrics["step"] for one in checkpoint.committed(job)] == [1]
    assert checkpoint.restore(job, {"model": make_engine(job)})[0] == 1
    assert f"skipped a damaged checkpoint ({job.store.full(newest.path)}: " in capsys.readouterr().out
    for file in newest.files:
        os.utime(f"{job.store.root}/{file.path}", (1_710_000_000,) * 2)
    assert gc.collect(job.store, 3600, time.time(), delete=True) == ([], []), "a person may want its files"
    checkpoint.save(job, 2, {"model": engine}, {})
    assert [one.metrics["step"] for one in checkpoint.committed(job)] == [2, 1]


def test_a_checkpoint_that_replaces_a_damaged_one_is_not_set_aside(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    for step in (1, 2):
        checkpoint.save(job, step, {"model": engine}, {})
    damaged = checkpoint.committed(job)[0]
    job.store.write_bytes(damaged.files[0].path, b"damaged")

    def meanwhile(state: Any) -> list[Any]:
        if "/step-00000002" in checkpoint.committed(job)[0].prefix and checkpoint.committed(job)[0] == damaged:
            job.store.delete(damaged.path)
            checkpoint.save(job, 2, {"model": engine}, {})  # another attempt
        return [state]

    job.ranks.gather = meanwhile  # type: ignore[method-assign]
    checkpoint.restore(job, {"model": engine})
    assert [one.metrics["step"] for one in checkpoint.committed(job)] == [2, 1]


def test_a_damaged_checkpoint_that_another_attempt_has_set_aside_is_left_to_it(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    prefix = f"pretrain/{job.task.fingerprint}/step-00000002"
    checkpoint._set_aside(job, prefix, b"manifest", "damaged")
    assert job.store.files(prefix) == []


def test_a_store_that_cannot_be_asked_whether_a_checkpoint_is_gone_changes_nothing(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    checkpoint.save(job, 1, {"model": engine}, {})
    (only,) = checkpoint.committed(job)
    job.store.write_bytes(only.files[0].path, b"damaged")
    exists, asked = Store.exists, []

    def failing(store: Store, path: str) -> bool:
        asked.append(path)
        if len(asked) > 1:  # the first call lists the checkpoints
            raise StoreError("503 Slow Down")
        return exists(store, path)

    monkeypatch.setattr(Store, "exists", failing)
    with pytest.raises(StoreError, match="nothing was changed, run again"):
        checkpoint.restore(job, {"model": engine})
    assert checkpoint.committed(job) == [only]


def test_a_checkpoint_that_vanishes_while_it_is_read_is_looked_for_again(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    checkpoint.save(job, 1, {"model": engine}, {})
    checkpoint.save(job, 2, {"model": engine}, {})
    download, vanished = job.scratch.download, []

    def slow(file: File) -> Path:
        if "step-00000002" in file.path and not vanished:
            vanished.append(file)
            for step in (3, 4):
                checkpoint.save(job, step, {"model": engine}, {})  # another attempt, which keeps two
        return download(file)

    monkeypatch.setattr(job.scratch, "download", slow)
    assert checkpoint.restore(job, {"model": engine})[0] == 4
    assert vanished
    cleared = Mock(side_effect=lambda file: clear(job) or download(file))
    monkeypatch.setattr(job.scratch, "download", cleared)
    Attempt(job.attempt.run, job.task).commit([])
    with pytest.raises(Interrupted, match="another attempt has finished this task; its result stands, this one stops"):
        checkpoint.restore(job, {"model": engine})


def test_an_attempt_whose_task_is_done_saves_no_checkpoint(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    checkpoint.save(job, 1, {"model": engine}, {})
    Attempt(job.attempt.run, job.task).commit([])
    clear(job)
    with pytest.raises(Interrupted, match=r"^pretrain: another attempt has finished this task"):
        checkpoint.save(job, 2, {"model": engine}, {})
    assert not [name for name in job.store.folders(f"pretrain/{job.task.fingerprint}") if name.startswith("step-")]


def test_weights_that_are_no_numbers_are_never_saved(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    checkpoint.save(job, 1, {"model": engine}, {})
    elsewhere = peer(job, 0, 2)
    elsewhere.ranks.sum = lambda *values: [value + 1 for value in values]  # type: ignore[method-assign]
    with pytest.raises(InputError, match="weights contain NaN or Inf after step 2; training diverged"):
        checkpoint.save(elsewhere, 2, {"model": engine}, {})
    with torch.no_grad():
        next(iter(engine.module.parameters()))[0, 0] = torch.inf
    with pytest.raises(InputError, match="weights contain NaN or Inf after step 2"):
        checkpoint.save(job, 2, {"model": engine}, {})
    assert [one.metrics["step"] for one in checkpoint.committed(job)] == [1]


@pytest.mark.parametrize(("zero_stage", "dtype"), [(0, "fp32"), (1, "bf16"), (2, "fp32"), (2, "bf16"), (3, "fp32")])
def test_going_on_gives_the_same_bits(make_job: Callable[..., Job], zero_stage: int, dtype: str) -> None:
    job = make_job("pretrain")
    whole = make_engine(job, zero_stage, dtype=dtype)
    train(whole, 0, 3)
    checkpoint.save(job, 3, {"model": whole}, {"tokens": 7})
    train(whole, 3, 6)

    resumed = make_engine(job, zero_stage, seed=9, dtype=dtype)  # other weights: all must come from the checkpoint
    step, extra = checkpoint.restore(job, {"model": resumed})
    assert (step, extra, resumed.steps_done) == (3, {"tokens": 7}, 3)
    train(resumed, 3, 6)
    assert same(state(whole), state(resumed))
    assert len(state(whole)) == 3 * len(list(whole.module.parameters()))
    for one, two in zip(whole.module.parameters(), resumed.module.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 2), (2, 0)])
def test_a_checkpoint_fits_any_zero_stage(make_job: Callable[..., Job], before: int, after: int) -> None:
    job = make_job("pretrain")
    saved = make_engine(job, before)
    train(saved, 0, 3)
    checkpoint.save(job, 3, {"model": saved}, {})
    restored = make_engine(job, after, seed=9)
    checkpoint.restore(job, {"model": restored})
    assert same(state(saved), state(restored))
    train(saved, 3, 5)
    train(restored, 3, 5)
    for key, value in state(saved).items():
        torch.testing.assert_close(state(restored)[key], value, rtol=1e-4, atol=1e-6)


def test_several_engines_extras_random_states_and_curves_come_back(make_job: Callable[..., Job]) -> None:
    job = make_job("ppo")
    engines = {"policy": make_engine(job, 0, seed=1), "value": make_engine(job, 2, seed=2)}
    train(engines["value"], 0, 2)
    job.curves.add(1, loss=2.5)
    random.gauss(0, 1), np.random.standard_normal()  # both make two numbers at a time and keep one for the next call
    checkpoint.save(job, 1, engines, {"kl_coef": 0.1})
    drawn = torch.rand(3), np.random.standard_normal(3), [random.gauss(0, 1) for _ in range(3)]
    expected = {name: state(engine) for name, engine in engines.items()}

    other = make_job("ppo")
    fresh = {"policy": make_engine(other, 0, seed=3), "value": make_engine(other, 2, seed=4)}
    torch.rand(5), np.random.rand(5), random.gauss(0, 1), random.random()
    step, extra = checkpoint.restore(other, fresh)
    again = torch.rand(3), np.random.standard_normal(3), [random.gauss(0, 1) for _ in range(3)]
    assert step == 1
    assert extra == {"kl_coef": 0.1}
    assert {name: engine.steps_done for name, engine in fresh.items()} == {"policy": 0, "value": 2}
    assert all(same(expected[name], state(fresh[name])) for name in fresh)
    assert torch.equal(drawn[0], again[0])
    assert np.array_equal(drawn[1], again[1])
    assert drawn[2] == again[2]
    (manifest,) = checkpoint.committed(job)
    (path,) = [file.path for file in manifest.files if file.path.endswith("state.json")]
    norms = engines["value"].guard.norms
    assert len(norms) == 2
    assert json.loads(job.store.read_bytes(path)) == {
        "step": 1,
        "engines": {
            "policy": {
                "steps": 0,
                "updates": 0,
                "guard": {"norms": [], "skipped": 0, "in_a_row": 0, "refused": []},
                "scale": {},
            },
            "value": {
                "steps": 2,
                "updates": 2,
                "guard": {"norms": norms, "skipped": 0, "in_a_row": 0, "refused": []},
                "scale": {},
            },
        },
        "extra": {"kl_coef": 0.1},
    }
    assert [(one.step, one.name, one.value) for one in other.curves.points] == [
        (1, "loss", 2.5),
        (1, "resumed", 1.0),
    ]


@pytest.mark.parametrize("part", ["shard-00000-000.safetensors", "state.json", "random-00000.safetensors"])
@pytest.mark.parametrize("left", [None, 40])
def test_a_damaged_checkpoint_is_left_out_for_the_one_before(
    make_job: Callable[..., Job], capsys: pytest.CaptureFixture[str], part: str, left: int | None
) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    train(engine, 0, 2)
    checkpoint.save(job, 2, {"model": engine}, {})
    expected = state(engine)
    train(engine, 2, 4)
    checkpoint.save(job, 4, {"model": engine}, {})
    (path,) = [file.path for file in checkpoint.committed(job)[0].files if file.path.endswith(part)]
    data = job.store.read_bytes(path)
    job.store.delete(path)
    if left is not None:
        job.store.write_bytes(path, data[:left])
    resumed = make_engine(job, seed=9)
    assert checkpoint.restore(job, {"model": resumed})[0] == 2
    assert same(expected, state(resumed))
    assert "skipped a damaged checkpoint" in capsys.readouterr().out
    train(resumed, 2, 4)
    checkpoint.save(job, 4, {"model": resumed}, {})
    assert checkpoint.restore(job, {"model": make_engine(job)})[0] == 4


def test_two_are_kept_and_none_after_the_end(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    for step in (1, 2, 3):
        checkpoint.save(job, step, {"model": engine}, {})
    assert [one.partition for one in checkpoint.committed(job)] == ["step-00000003", "step-00000002"]
    assert not job.store.files(f"pretrain/{job.task.fingerprint}/step-00000001")
    clear(job)
    assert checkpoint.committed(job) == []
    Attempt(job.attempt.run, job.task).commit([])
    assert checkpoint.committed(job) == [], "the stage's own result is no checkpoint"
    job.store.delete(job.task.prefix)
    assert not job.store.files(f"pretrain/{job.task.fingerprint}")


def test_what_was_never_committed_is_never_restored(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    checkpoint.save(job, 1, {"model": engine}, {})
    killed = Attempt(job.attempt.run, job.task, "step-00000002")
    job.store.write_bytes(killed.path("state.json"), b"{")
    assert checkpoint.restore(job, {"model": engine})[0] == 1


def test_nothing_to_restore_changes_nothing(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    before = state(engine)
    assert checkpoint.restore(job, {"model": engine}) == (0, {})
    assert same(before, state(engine))


@pytest.mark.parametrize("error", [OSError(errno.EIO, os.strerror(errno.EIO)), SafetensorError("too many open files")])
def test_a_tensor_that_cannot_be_read_at_this_time_is_not_called_unfit(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    job = make_job("pretrain")
    checkpoint.save(job, 1, {"model": make_engine(job)}, {})
    monkeypatch.setattr(checkpoint.Shards, "tensors", Mock(side_effect=error))
    with pytest.raises(StoreError, match=r"manifest\.json: cannot be read \(.*\); run again$"):
        checkpoint.restore(job, {"model": make_engine(job)})


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_checkpoint_of_another_model_is_refused(make_job: Callable[..., Job], zero_stage: int) -> None:
    job = make_job("pretrain")
    checkpoint.save(job, 1, {"model": make_engine(job, zero_stage)}, {})
    wider = make_engine(job, zero_stage, shape=SHAPE.model_copy(update={"d_ff": 64}))
    with pytest.raises(
        InputError,
        match=r"does not fit the model .*mlp.*: shape \(32, 16\), the model has \(64, 16\)\); delete it to start",
    ):
        checkpoint.restore(job, {"model": wider})
    deeper = make_engine(job, zero_stage, shape=SHAPE.model_copy(update={"layers": 2}))
    with pytest.raises(InputError, match=r"does not fit the model .*no model.layers.1"):
        checkpoint.restore(job, {"model": deeper})
    with pytest.raises(InputError, match=r"holds \['model'\], this stage needs \['policy'\]"):
        checkpoint.restore(job, {"policy": make_engine(job)})


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (("engines",), "engines: Field required"),
        (("engines", "model", "guard"), "engines.model.guard: Field required"),
        (("engines", "model", "scale"), "engines.model.scale: Field required"),
        (("engines", "model", "guard", "in_a_row"), "engines.model.guard.in_a_row: Field required"),
        ((), "Input should be a valid dictionary"),
    ],
)
def test_a_checkpoint_of_an_older_version_is_refused_and_its_folder_named(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], said: str
) -> None:
    """As the version before wrote it: without engines, or without the state of the guard."""
    job, engine = make_job("pretrain"), make_engine(make_job("pretrain"))
    dumps = json.dumps

    def older(written: Any, **how: Any) -> str:
        if not isinstance(written, dict) or "engines" not in written:
            return dumps(written, **how)
        if not missing:
            return "[1]"
        inner = written
        for key in missing[:-1]:
            inner = inner[key]
        del inner[missing[-1]]
        return dumps(written)

    with monkeypatch.context() as patched:
        patched.setattr(json, "dumps", older)
        checkpoint.save(job, 1, {"model": engine}, {})
    before = state(engine)
    with pytest.raises(InputError) as refused:
        checkpoint.restore(job, {"model": engine})
    [folder] = checkpoint.checkpoint_prefixes(job.store, "pretrain", job.task.fingerprint)
    assert str(refused.value).startswith(f"{job.store.full(folder)}: its state.json was written by another version")
    assert said in str(refused.value)
    assert str(refused.value).endswith("; delete the folder to start afresh")
    assert same(before, state(engine))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until it is set, no file of a checkpoint is written."""
    opened, write = threading.Event(), Store.write_bytes

    def waiting(self: Store, path: str, data: bytes) -> None:
        assert "/step-" not in path or opened.wait(60)
        write(self, path, data)

    monkeypatch.setattr(Store, "write_bytes", waiting)
    return opened


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_steps_go_on_while_a_checkpoint_is_uploaded_and_do_not_change_it(
    make_job: Callable[..., Job], gate: threading.Event, zero_stage: int
) -> None:
    job = make_job("pretrain")
    engine = make_engine(job, zero_stage)
    train(engine, 0, 2)
    saved = state(engine)
    job.curves.add(2, loss=1.0)
    checkpoint.begin(job, 2, {"model": engine}, {"tokens": 2})
    train(engine, 2, 4)
    job.curves.add(4, loss=0.5)
    assert job.behind.busy
    assert checkpoint.committed(job) == []
    gate.set()
    job.behind.wait()
    resumed = make_engine(job, zero_stage, seed=9)
    assert checkpoint.restore(job, {"model": resumed}) == (2, {"tokens": 2})
    assert same(state(resumed), saved)
    assert not same(state(engine), saved)
    assert [(point.step, point.name) for point in job.curves.points] == [(2, "loss"), (2, "resumed")]


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_a_copy_takes_the_memory_of_the_one_before(make_job: Callable[..., Job], zero_stage: int) -> None:
    job = make_job("pretrain")
    engine = make_engine(job, zero_stage)
    train(engine, 0, 1)
    checkpoint.save(job, 1, {"model": engine}, {})
    places = {name: value.data_ptr() for name, value in job.behind.copied.items()}
    train(engine, 1, 2)
    checkpoint.save(job, 2, {"model": engine}, {})
    assert {name: value.data_ptr() for name, value in job.behind.copied.items()} == places
    assert {name.rpartition("/")[2] for name in places} == {"weight", "exp_avg", "exp_avg_sq"}
    resumed = make_engine(job, zero_stage, seed=9)
    checkpoint.restore(job, {"model": resumed})
    assert same(state(resumed), state(engine))
    wider = make_engine(job, zero_stage, shape=SHAPE.model_copy(update={"d_ff": 64}))
    checkpoint.save(job, 3, {"model": wider}, {})
    assert [one.metrics["step"] for one in checkpoint.committed(job)] == [3, 2]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([1.0, -3.0, 2.0], 3.0), ([4.0, -3.0], 4.0), ([0.0, -math.inf], math.inf), ([1.0, math.inf], math.inf)],
)
def test_the_largest_size(numbers: list[float], expected: float) -> None:
    assert checkpoint.largest(torch.tensor([numbers])) == expected
    for at in range(len(numbers)):
        spoiled = torch.tensor([*numbers[:at], math.nan, *numbers[at:]])
        assert checkpoint.largest(spoiled).isnan()


def test_looking_for_what_is_not_finite_takes_no_longer_than_two_copies() -> None:
    """The steps wait for both."""
    value = torch.randn(1 << 22)
    memory = torch.empty_like(value)

    def least(work: Callable[[torch.Tensor], object]) -> float:
        took = []
        for _ in range(9):
            began = time.perf_counter()
            work(value)
            took.append(time.perf_counter() - began)
        return min(took)

    assert least(checkpoint.largest) < 2 * least(memory.copy_)


def test_a_save_waits_for_the_one_before_and_says_so(
    make_job: Callable[..., Job], gate: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    capsys.readouterr()
    checkpoint.begin(job, 2, {"model": engine}, {})
    threading.Timer(0.3, gate.set).start()
    checkpoint.save(job, 4, {"model": engine}, {})
    assert [one.metrics["step"] for one in checkpoint.committed(job)] == [4, 2]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "pretrain: step 4 is to be saved, and the checkpoint of step 2 is still being uploaded; "
        "waiting, about 0 s; raise pretrain.engine.checkpoint_steps"
    )
    found = re.fullmatch(
        r"pretrain: checkpoint of step 4, 0\.0 MB: the steps waited (\d+\.\d\d) s, (\d+\.\d\d) s of them for the one "
        r"before; uploaded in \d+\.\d s at \d+ MB/s",
        said[2],
    )
    assert found, said
    assert float(found[1]) >= float(found[2]) >= 0.2, "the gate opens after 0.3 s, of which copying took some"


def test_an_upload_that_fails_is_reported_at_the_next_step(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("pretrain", "pretrain.engine.checkpoint_steps=2")
    engine = make_engine(job)
    monkeypatch.setattr(Store, "write_bytes", Mock(side_effect=StoreError("503 Slow Down")))
    checkpoint.save_when_due(job, 2, 6, {"model": engine}, {})
    job.behind._thread.join()  # type: ignore[union-attr]
    with pytest.raises(StoreError, match="503 Slow Down"):
        checkpoint.save_when_due(job, 3, 6, {"model": engine}, {})
    assert not job.store.files(f"pretrain/{job.task.fingerprint}")
    checkpoint.save_when_due(job, 2, 6, {"model": engine}, {})
    with pytest.raises(StoreError, match="503 Slow Down"):
        job.commit(job.scratch.fresh("result"), Result())
    assert find(job.store, job.task) is None


def test_a_large_state_is_uploaded_in_pieces_several_at_a_time(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    train(engine, 0, 1)
    monkeypatch.setattr(checkpoint, "PIECE_BYTES", 4000)
    together, write = threading.Barrier(checkpoint.STREAMS, timeout=30), Store.write_bytes
    first = itertools.count()

    def meeting(self: Store, path: str, data: bytes) -> None:
        if next(first) < checkpoint.STREAMS:
            together.wait()
        write(self, path, data)

    monkeypatch.setattr(Store, "write_bytes", meeting)
    checkpoint.save(job, 1, {"model": engine}, {})
    (manifest,) = checkpoint.committed(job)
    pieces = [file for file in manifest.files if "/shard-" in file.path]
    assert len(pieces) > checkpoint.STREAMS
    assert [Path(one.path).name for one in sorted(pieces, key=lambda one: one.path)] == [
        f"shard-00000-{number:03d}.safetensors" for number in range(len(pieces))
    ]
    resumed = make_engine(job, seed=9)
    checkpoint.restore(job, {"model": resumed})
    assert same(state(resumed), state(engine))


@pytest.mark.parametrize(
    ("left", "upload", "grace", "expected"),
    [(0, 10, None, True), (0, 10, 10, True), (0, 10.1, 10, False), (4, 6, 10, True), (5, 6, 10, False)],
)
def test_what_fits_the_grace_period(left: float, upload: float, grace: float | None, expected: bool) -> None:
    assert checkpoint.fits(left, upload, grace) is expected


def test_a_grace_period_that_is_too_short_is_said_beforehand(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job("pretrain")
    result = [(job, 4, 8_000_000_000, (1.0, 0.0), 400.0), (job, 8, 8_000_000_000, (1.0, 0.0), 800.0)]
    monkeypatch.setenv("GRISTMILL_GRACE_S", "600")
    for given in result:
        checkpoint._say(*given)
    assert capsys.readouterr().out.splitlines() == [
        "pretrain: checkpoint of step 4, 8,000.0 MB: the steps waited 1.00 s; uploaded in 400.0 s at 20 MB/s",
        "pretrain: checkpoint of step 8, 8,000.0 MB: the steps waited 1.00 s; uploaded in 800.0 s at 10 MB/s",
        "pretrain: a stop grants 600 s, and a checkpoint of 8,000.0 MB at 10 MB/s takes 800 s: a stop will lose the steps "
        "since the last checkpoint; grant more, use a faster store, or lower engine.checkpoint_steps",
    ]


def test_a_stop_that_has_no_time_for_another_upload_lets_the_one_under_way_end(
    make_job: Callable[..., Job],
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = make_job("pretrain", "pretrain.engine.checkpoint_steps=2")
    engine = make_engine(job)
    capsys.readouterr()
    checkpoint.save_when_due(job, 2, 6, {"model": engine}, {})
    job.behind.took_s = 9.0
    monkeypatch.setenv("GRISTMILL_GRACE_S", "10")
    job.ranks.stop.raised = True
    threading.Timer(0.2, gate.set).start()
    with pytest.raises(Interrupted, match=r"^pretrain: stopped after step 3 of 6; run again to go on$"):
        checkpoint.save_when_due(job, 3, 6, {"model": engine}, {})
    assert [one.metrics["step"] for one in checkpoint.committed(job)] == [2]
    assert capsys.readouterr().out.splitlines()[0] == (
        "pretrain: the checkpoint of step 2 is still being uploaded, and another upload would take 9 s more; "
        "10 s are granted, so step 3 is not saved"
    )


def test_a_stop_that_has_no_time_for_any_upload_saves_nothing_also_right_after_a_resume(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job("pretrain", "pretrain.engine.checkpoint_steps=2")
    engine, now, write = make_engine(job), [100.0], Store.write_bytes

    def slow(self: Store, path: str, data: bytes) -> None:
        now[0] += 9 if "/shard-" in path else 0
        write(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.time, "monotonic", lambda: now[0])
        patch.setattr(Store, "write_bytes", slow)
        checkpoint.save(job, 2, {"model": engine}, {})
    (manifest,) = checkpoint.committed(job)
    assert manifest.metrics["upload_s"] == 9.0
    again = replace(job, behind=Behind())
    checkpoint.restore(again, {"model": engine})
    capsys.readouterr()
    again.ranks.stop.raised = True
    for grace, steps in (("8", [2]), ("9", [3, 2])):
        monkeypatch.setenv("GRISTMILL_GRACE_S", grace)
        with pytest.raises(Interrupted, match="stopped after step 3 of 6"):
            checkpoint.save_when_due(again, 3, 6, {"model": engine}, {})
        assert [one.metrics["step"] for one in checkpoint.committed(job)] == steps
    assert capsys.readouterr().out.splitlines()[0] == (
        "pretrain: an upload takes 9 s; 8 s are granted, so step 3 is not saved"
    )


@pytest.mark.parametrize(
    ("newest", "every", "best", "expected"),
    [
        (2, None, None, {8, 9}),
        (0, None, None, set()),
        (99, None, None, {2, 4, 6, 8, 9}),
        (1, 4, None, {4, 8, 9}),
        (1, None, 4, {4, 9}),
        (0, 3, 2, {2, 6, 9}),
        (1, None, 5, {9}),
    ],
)
def test_which_checkpoints_stay(newest: int, every: int | None, best: int | None, expected: set[int]) -> None:
    assert kept_steps([9, 8, 6, 4, 2], newest, every, best) == expected


def test_the_best_and_every_so_many_stay_while_it_trains_and_after(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain", "pretrain.engine.keep_every=4", "pretrain.engine.checkpoint_steps=2")
    engine, last = make_engine(job), 13
    steps = lambda: [one.metrics["step"] for one in checkpoint.committed(job)]  # noqa: E731
    for step, loss in [(1, 5.0), (2, None), (3, 3.0), (4, None), (6, None), (8, None), (10, 4.0), (12, None)]:
        checkpoint.save_when_due(job, step, last, {"model": engine}, {}, loss)
    job.behind.wait()
    assert steps() == [12, 10, 8, 4, 3], "of those that were measured, 3 is the best; 4, 8 and 12 are multiples"
    clear(job, keep_last=1, keep_every=8, best_step=3)
    assert steps() == [12, 8, 3]
    clear(job, keep_last=1)
    assert steps() == [12]
    job.store.write_bytes(f"pretrain/{job.task.fingerprint}/step-00000013/attempt-{'0' * 32}/state.json", b"{")
    clear(job, keep_last=1)
    assert steps() == [12], "what was never committed is no newest checkpoint"
    assert not job.store.files(f"pretrain/{job.task.fingerprint}/step-00000013")
    for path in job.store.files(f"pretrain/{job.task.fingerprint}"):
        os.utime(f"{job.store.root}/{path.path}", (1_710_000_000,) * 2)
    assert gc.collect(job.store, 3600, time.time(), delete=True) == ([], []), "it is committed, so gc leaves it"


@pytest.mark.parametrize(("keep_last", "saved"), [(0, []), (1, [6])])
def test_the_last_step_is_saved_if_it_is_kept(make_job: Callable[..., Job], keep_last: int, saved: list[int]) -> None:
    job = make_job("pretrain", f"pretrain.engine.keep_last={keep_last}")
    engine = make_engine(job)
    for _ in range(2):  # resumed from it, it is there
        checkpoint.save_last(job, 6, {"model": engine}, {"tokens": 1})
        job.behind.wait()
        assert [one.metrics["step"] for one in checkpoint.committed(job)] == saved
