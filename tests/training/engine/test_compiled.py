"""A compiled model learns the same; where it cannot be compiled, the log says why."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contract.settings.training import Engine as EngineSettings
from contract.settings.training import Model, Optim
from training.engine import checkpoint, compiled
from training.engine.compiled import why_not
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.ranks import Ranks
from training.models import llama

SHAPE = Model(layers=4, d_model=16, heads=2, kv_heads=1, d_ff=32)


def test_why_a_stage_is_not_compiled() -> None:
    assert why_not("pretrain", 2, True) is None
    assert "ZeRO 3" in str(why_not("pretrain", 3, True))
    assert "token by token" in str(why_not("ppo", 0, True))
    assert "no compiler" in str(why_not("pretrain", 0, False))


@pytest.mark.parametrize(
    ("stage", "given", "compiler", "found", "said"),
    [
        ("pretrain", {}, True, False, ""),
        ("pretrain", {"compile": True}, True, True, "pretrain: layers are compiled\n"),
        ("sft", {"compile": True}, False, False, "sft: engine.compile is left out, because this machine has no"),
        ("sft", {"compile": True, "zero_stage": 3}, True, False, "sft: engine.compile is left out, because ZeRO 3"),
    ],
)
def test_the_log_says_whether_layers_are_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    stage: str, given: dict[str, bool], compiler: bool, found: bool, said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(compiled, "has_compiler", lambda ranks: compiler)
    assert compiled.wanted(stage, EngineSettings(**given), Ranks(rank=1)) is found
    assert capsys.readouterr().out == "", "one process says it"
    assert compiled.wanted(stage, EngineSettings(**given), Ranks()) is found
    printed = capsys.readouterr().out
    assert printed.startswith(said)
    assert bool(printed) == bool(said)


@pytest.mark.parametrize(
    ("device", "programs", "environment", "found"),
    [
        ("cpu", {"g++"}, {}, True),
        ("cpu", {"clang++", "gcc"}, {}, False),  # torch asks for g++ alone
        ("cpu", {"clang++"}, {"CXX": "clang++"}, True),
        ("cpu", {"g++"}, {"CXX": "clang++"}, False),
        ("cuda", {"triton", "gcc"}, {}, True),
        ("cuda", {"triton", "clang"}, {}, True),
        ("cuda", {"triton", "icx"}, {"CC": "icx"}, True),
        ("cuda", {"triton", "gcc"}, {"CC": "icx"}, False),
        ("cuda", {"triton", "g++"}, {}, False),
        ("cuda", {"gcc"}, {}, False),
    ],
)
def test_a_compiler_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, device: str, programs: set[str], environment: dict[str, str], found: bool
) -> None:
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}" if name in programs else None)
    monkeypatch.setattr(compiled, "find_spec", lambda name: name if name in programs else None)
    ranks: Any = SimpleNamespace(device=torch.device(device))
    assert compiled.has_compiler(ranks) is found


def test_compiled_layers_learn_the_same_also_where_activations_are_computed_again(make_job: Callable[..., Job]) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    job, curves, names = make_job("pretrain"), [], []
    for compile_ in (False, True):
        settings = EngineSettings(micro_batch=4, compile=compile_, activation_checkpointing=compile_)
        engine = Engine(job, llama.build(SHAPE, 50, 16, seed=0), Optim(lr=0.01), settings, 4, 3)
        assert engine.compiled is compile_
        random, losses = torch.Generator().manual_seed(0), []
        for step in range(3):
            batch = torch.randint(0, 50, (4, 16), generator=random)
            losses += update(engine, batch)
            if step == 1 and compile_:
                checkpoint.save(job, 2, {"model": engine}, {})
        curves.append(losses)
        names.append([name for name, _ in engine.module.named_parameters()])
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert names[0] == names[1], "checkpoints are the same"
    programs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 1 <= programs <= 2, "the four layers share them; the first one's input can differ from the others'"

    torch._dynamo.reset()  # as in a new process
    resumed = Engine(job, llama.build(SHAPE, 50, 16, seed=9), Optim(lr=0.01), settings, 4, 3)
    checkpoint.restore(job, {"model": resumed})
    assert update(resumed, batch) == losses[-2:], "bit for bit"
    for own, one in zip(resumed.module.parameters(), engine.module.parameters(), strict=True):
        assert own.equal(one)


def update(engine: Engine, batch: torch.Tensor) -> list[float]:
    """The loss and the norm of one update."""
    loss = engine(input_ids=batch, labels=batch).loss
    engine.backward(loss)
    return [float(loss.detach()), engine.step()]


@pytest.mark.parametrize(("any_length", "kinds"), [(False, 5), (True, 1)])
def test_a_length_has_the_same_program_whichever_came_before(
    monkeypatch: pytest.MonkeyPatch, any_length: bool, kinds: int
) -> None:
    """Traced only, which is what decides; a resumed run has another first length."""
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda layer, **how: compile_(layer, backend="eager", **how))
    found = []
    for lengths in ([24, 32, 48, 64, 80], [80, 64, 48, 32, 24]):
        torch._dynamo.reset()
        module, programs = llama.build(SHAPE, 50, 80, seed=0), []
        compiled.compile_layers(module, any_length)
        for length in lengths:
            for grad in (False, True):
                torch._dynamo.utils.counters.clear()
                with torch.set_grad_enabled(grad):
                    module.train(grad)(input_ids=torch.zeros(2, length, dtype=torch.long))
                programs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        found.append(programs)
    assert found[0] == found[1]
    assert found[0] == [1, 1] * kinds + [0, 0] * (5 - kinds), "one to measure and one to learn, of each kind of length"
