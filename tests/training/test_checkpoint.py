"""A run that stops and goes on must be the run that never stopped: weights, moments, random states, curves."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from contract.errors import InputError
from contract.manifest import Attempt
from contract.settings import Engine as EngineSettings
from contract.settings import Model, Optim
from training import checkpoint, model, zero
from training.engine import Engine
from training.job import Job, clear_checkpoints

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


@pytest.mark.parametrize(("zero_stage", "dtype"), [(0, "fp32"), (2, "fp32"), (2, "bf16"), (3, "fp32")])
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
    checkpoint.save(job, 1, engines, {"kl_coef": 0.1, "running": torch.tensor([1.0, 2.0])})
    drawn = torch.rand(3), np.random.rand(3), random.gauss(0, 1)
    expected = {name: state(engine) for name, engine in engines.items()}

    other = make_job("ppo")
    fresh = {"policy": make_engine(other, 0, seed=3), "value": make_engine(other, 2, seed=4)}
    torch.rand(5), np.random.rand(5), random.gauss(0, 1)
    step, extra = checkpoint.restore(other, fresh)
    again = torch.rand(3), np.random.rand(3), random.gauss(0, 1)
    assert step == 1
    assert extra["kl_coef"] == 0.1
    assert extra["running"].tolist() == [1.0, 2.0]
    assert {name: engine.steps_done for name, engine in fresh.items()} == {"policy": 0, "value": 2}
    assert all(same(expected[name], state(fresh[name])) for name in fresh)
    assert torch.equal(drawn[0], again[0])
    assert np.array_equal(drawn[1], again[1])
    assert drawn[2] == again[2]
    assert [(one.step, one.name, one.value) for one in other.curves.points] == [(1, "loss", 2.5)]


@pytest.mark.parametrize("part", ["shard-00000-of-00001.safetensors", "state.json", "random-00000.safetensors"])
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
    assert "left out a damaged checkpoint" in capsys.readouterr().out
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
    clear_checkpoints(job.store, job.task)
    assert checkpoint.latest(job) is None
    assert not job.store.files(f"pretrain/{job.task.fingerprint}")


def test_what_was_never_committed_is_never_restored(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    checkpoint.save(job, 1, {"model": engine}, {})
    killed = Attempt(job.run, job.task, "step-00000002")
    job.store.write_bytes(killed.path("state.json"), b"{")
    assert checkpoint.restore(job, {"model": engine})[0] == 1


def test_nothing_to_restore_changes_nothing(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    engine = make_engine(job)
    before = state(engine)
    assert checkpoint.restore(job, {"model": engine}) == (0, {})
    assert same(before, state(engine))


def test_a_checkpoint_of_another_model_is_refused(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    checkpoint.save(job, 1, {"model": make_engine(job)}, {})
    wider = make_engine(job, shape=SHAPE.model_copy(update={"d_ff": 64}))
    with pytest.raises(InputError, match=r"does not fit the model .*mlp.*delete it to start afresh"):
        checkpoint.restore(job, {"model": wider})
    with pytest.raises(InputError, match=r"holds \['model'\], this stage needs \['policy'\]"):
        checkpoint.restore(job, {"policy": make_engine(job)})
