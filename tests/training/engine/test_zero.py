"""The state of several processes' engines, written and read back whole."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import deepspeed
import pytest

from contract.errors import RecipeError
from contract.settings.training import Engine as EngineSettings
from training.engine import zero

CASES = [
    (0, 2, "fp32"),
    (1, 0, "bf16"),
    (1, 2, "bf16"),
    (2, 0, "fp32"),
    (2, 2, "fp32"),
    (3, 0, "fp32"),
    (3, 2, "fp32"),
]  # ZeRO stage, updates, dtype
WRITING = f"""
import os
from types import SimpleNamespace
from training.engine.ranks import join
ranks = join()
rank, world = ranks.rank, ranks.world
import torch
from contract.settings.training import Engine as Settings, Optim
from training.engine import zero
from training.engine.engine import Engine

def state(engine):
    return {{name: {{key: value.clone() for key, value in one.items()}} for name, one in zero.read(engine.deepspeed)}}

job = SimpleNamespace(ranks=ranks, task=SimpleNamespace(stage="sft"))
for stage, updates, dtype in {CASES}:
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 1))  # odd sizes: none divides evenly
    shapes = {{name: tuple(one.shape) for name, one in module.named_parameters()}}
    engine = Engine(job, module, Optim(), Settings(zero_stage=stage, micro_batch=1, dtype=dtype), world, 4)
    keys = ("weight", *zero.MOMENTS) if updates else ("weight",)
    draw = torch.Generator().manual_seed(7)
    given = {{name: {{key: torch.rand(shape, generator=draw) for key in keys}} for name, shape in shapes.items()}}
    zero.write(engine.deepspeed, given.__getitem__, updates)
    found = state(engine)
    assert all(found[name].keys() == set(keys) for name in shapes), (stage, updates, found)
    assert all(torch.equal(given[name][key], found[name][key]) for name in shapes for key in keys), (stage, updates)
    engine.backward(engine(torch.ones(1, 3, dtype=next(engine.module.parameters()).dtype)).sum())
    engine.step()
    moved = state(engine)
    assert not any(torch.equal(moved[name][key], found[name][key]) for name in shapes for key in keys), (stage, updates)
    before = [found[name].get("exp_avg", torch.zeros(shape)) for name, shape in shapes.items()]
    tenths = [moved[name]["exp_avg"] - 0.9 * old for name, old in zip(shapes, before)]
    norm = torch.cat([one.flatten() for one in tenths]).norm()
    assert abs(float(norm) - 0.1) < (1e-3 if dtype == 'bf16' else 1e-5), (stage, updates, norm)  # of the gradients, which are clipped to 1
os.write(1, f"{{rank}}\\n".encode())
torch.distributed.barrier()
os._exit(0)
"""


BEGINNING = """
import os
from pathlib import Path
from types import SimpleNamespace
from training.engine.ranks import join
ranks = join()
import torch
from contract.settings.training import Engine as Settings, Model, Optim
from training.engine import zero
from training.engine.engine import Engine
from training.models import llama

job = SimpleNamespace(ranks=ranks, task=SimpleNamespace(stage="pretrain"))
shape = Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64)
whole = llama.build(shape, 51, 16, seed=3, pad=2)
exact = dict(whole.named_parameters())
folder = Path(os.environ["GRISTMILL_SCRATCH"], "stored")
whole.save_pretrained(folder)  # transformers writes on rank 0 alone
ranks.barrier()
for dtype in ("fp32", "bf16"):
    settings = Settings(zero_stage=3, micro_batch=2, dtype=dtype)
    built = llama.build(shape, 51, 16, 3, dtype, pad=2, engine=settings, world=ranks.world)
    loaded = llama.made(built.config, llama.stored_weights(folder), dtype, settings, ranks.world)
    for module in (built, loaded):
        held = sum(one.numel() + one.ds_tensor.numel() for one in module.parameters())
        assert held < 0.51 * sum(one.numel() for one in exact.values()), held
        assert torch.equal(module.model.rotary_emb.inv_freq, whole.model.rotary_emb.inv_freq)
        engine = Engine(job, module, Optim(), settings, 2 * ranks.world, 4)
        found = {name: one["weight"] for name, one in zero.read(engine.deepspeed)}
        assert found.keys() == exact.keys()
        assert all(torch.equal(found[name], exact[name]) for name in exact)
        decayed = {group["weight_decay"]: sum(one.ds_numel for one in some) for group, some in zip(
            engine.deepspeed.optimizer.param_groups, engine.deepspeed.optimizer.fp16_groups)}
        assert decayed == {0.1: sum(one.numel() for one in exact.values()) - 5 * 32, 0.0: 5 * 32}, decayed
        tokens = torch.arange(32).view(2, 16)
        engine.backward(engine(input_ids=tokens, labels=tokens).loss)
        engine.step()
        assert engine.updates == 1
        assert not torch.equal(dict(zero.weights(engine.deepspeed))["model.norm.weight"], exact["model.norm.weight"])

# Models to go on from, of other types, whose embeddings grow by two rows; then a fresh mixture of experts.
from transformers import AutoConfig, AutoModelForCausalLM
from contract.settings.training import Pretrain
from training.models import causal, sight, vocabulary

def trained(module, expected):
    held = sum(one.numel() + one.ds_tensor.numel() for one in module.parameters())
    assert held < 0.52 * sum(one.numel() for one in expected.values()), held
    engine = Engine(job, module, Optim(), settings, 2 * ranks.world, 4)
    found = {name: one["weight"] for name, one in zero.read(engine.deepspeed)}
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    sight.check_sight(engine.module, True, ranks.device)
    engine.backward(engine(input_ids=tokens, labels=tokens).loss)
    engine.step()
    assert engine.updates == 1
    assert not any(torch.equal(one, expected[name]) for name, one in zero.weights(engine.deepspeed) if "norm" in name)

settings = Settings(zero_stage=3, micro_batch=2)
special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
for kind, shape in (
    ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    ("gpt_neox", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}),
):
    torch.manual_seed(3)
    begun = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=40, **shape, **special))
    folder = Path(os.environ["GRISTMILL_SCRATCH"], kind)
    (begun.base_model if kind == "bloom" else begun).save_pretrained(folder)  # the published BLOOM has bare names
    ranks.barrier()
    module = vocabulary.grown_in_shards(folder, Pretrain(start_from=str(folder), engine=settings), [[2, 3], []], 39, ranks.world)
    vocabulary.grow(begun, [[2, 3], []], 39)
    assert module.config.vocab_size == 41
    trained(module, {name: one.detach() for name, one in begun.named_parameters()})

mixture = Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64, experts=4)
exact = {name: one.detach() for name, one in llama.build(mixture, 51, 16, seed=3).named_parameters()}
trained(llama.build(mixture, 51, 16, 3, engine=settings, world=ranks.world), exact)
os.write(1, f"{ranks.rank}\\n".encode())
torch.distributed.barrier()
os._exit(0)
"""


def test_what_two_processes_write_they_read_and_train_on(run_two: Callable[..., list[str]]) -> None:
    assert last_lines(run_two("-c", WRITING)) == ["0", "1"]


def test_a_model_begins_in_shards_of_which_no_process_ever_holds_all(run_two: Callable[..., list[str]]) -> None:
    assert last_lines(run_two("-c", BEGINNING)) == ["0", "1"]


def test_what_begins_in_shards_has_the_options_that_the_recipe_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = Mock()
    monkeypatch.setattr(deepspeed.zero, "Init", begun)
    given: dict[str, Any] = {"stage3_param_persistence_threshold": 7, "offload_param": {"pin_memory": False}}
    settings = EngineSettings(
        dtype="bf16", zero_stage=3, offload_parameters=True, deepspeed={"zero_optimization": given}
    )
    zero.in_shards(settings, 2)
    made = begun.call_args.kwargs["config_dict_or_path"]
    assert made["zero_optimization"] == {
        "stage": 3, "stage3_param_persistence_threshold": 7, "offload_param": {"device": "cpu", "pin_memory": False},
    }  # fmt: skip
    assert (made["train_batch_size"], made["bf16"], made["fp16"]) == (2, {"enabled": True}, {"enabled": False})
    begun.side_effect = ValueError("not so many")
    with pytest.raises(RecipeError, match=r"engine.deepspeed: DeepSpeed refuses it \(not so many\)"):
        zero.in_shards(settings, 2)


def last_lines(said: list[str]) -> list[str]:
    return [one.splitlines()[-1] for one in said]
