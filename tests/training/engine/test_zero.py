"""The state of several processes' engines, written and read back whole."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_what_two_processes_write_they_read_and_train_on(tmp_path: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MASTER_", "GLOO_", "NCCL_"))}
    clean |= {"WORLD_SIZE": "2", "LOCAL_SIZE": "2", "DS_ACCELERATOR": "cpu", "GRISTMILL_SCRATCH": str(tmp_path)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", WRITING],
            env={**clean, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=300) for rank in ranks]
    assert [out for out, _ in said] == ["0\n", "1\n"], said
