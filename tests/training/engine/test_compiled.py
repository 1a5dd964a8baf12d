"""A compiled model learns the same; where it cannot be compiled, the log says why."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contract.settings.training import Engine as EngineSettings
from contract.settings.training import Model, Optim
from training.engine import compiled
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
    job, curves, names = make_job("sft"), [], []
    for compile_ in (False, True):
        settings = EngineSettings(micro_batch=4, compile=compile_, activation_checkpointing=compile_)
        engine = Engine(job, llama.build(SHAPE, 50, 16, seed=0), Optim(lr=0.01), settings, 4, 3)
        assert engine.compiled is compile_
        random, losses = torch.Generator().manual_seed(0), []
        for _ in range(3):
            batch = torch.randint(0, 50, (4, 16), generator=random)
            loss = engine(input_ids=batch, labels=batch).loss
            engine.backward(loss)
            losses += [float(loss.detach()), engine.step()]
        curves.append(losses)
        names.append([name for name, _ in engine.module.named_parameters()])
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert names[0] == names[1], "checkpoints are the same"
    programs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 1 <= programs <= 2, "the four layers share them; the first one's input can differ from the others'"
