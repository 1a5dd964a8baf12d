"""The bench of a GPU, small and on the CPU: with the stage's engine, and on a machine that lacks DeepSpeed and pydantic."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from perf import gpu
from perf.bars import Bars
from perf.gpu import CASES, SMALL, Found, Loop, batch_of, described, flops, judge
from training.models.lm import summed_nll

LACKING = """
import sys
from importlib.machinery import PathFinder

class Lacking(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        lacks = ("deepspeed", "pydantic", "flash_attn", "pyarrow", "fsspec")
        return None if name.partition(".")[0] in lacks else super().find_spec(name, path, target)

sys.meta_path = [Lacking if one is PathFinder else one for one in sys.meta_path]
"""


def bench(tmp_path: Path, *arguments: str) -> str:
    """What `python -m perf.gpu` prints."""
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    there = {"PYTHONPATH": str(tmp_path), "GRISTMILL_SCRATCH": str(tmp_path / "scratch"), "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "perf.gpu", "--small", "--eager", "--steps", "2", *arguments],
        env=alone | there, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_it_runs_where_deepspeed_and_pydantic_are_missing(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LACKING)
    printed = bench(tmp_path, "--kind", "documents apart", "--only", "small")
    assert '"how": "a loop without DeepSpeed"' in printed


@pytest.mark.slow
def test_it_prints_each_run_and_the_bars(tmp_path: Path) -> None:
    lines = [
        line
        for line in bench(tmp_path, "--only", "small", "--peak", "1e12").splitlines()
        if not line.startswith("pretrain: ")
    ]
    assert lines[0].startswith("CPU, Python 3.")
    hows = ("the stage's engine", "the stage's engine", "its defaults")
    for line, kind, how in zip(lines[1:-2], gpu.KINDS, hows, strict=True):
        assert line.startswith(f"small, 23,744 parameters, {kind} ({how}): ")
        assert "tokens/s, MFU 0." in line
        assert 4 < float(line.rpartition("loss ")[2]) < 5, "what random tokens of 97 kinds cost: ln 97 = 4.57"
    assert [line.split()[1] for line in lines[-2:]] == ["mfu_small", "tokens_a_second_vs_trainer_small"]


def test_the_models_have_the_sizes_that_their_names_say() -> None:
    sizes = {case.name: flops(case)[0] for case in CASES}
    assert 123e6 < sizes["124m"] < 125e6
    assert 1.0e9 < sizes["1b"] < 1.1e9
    made = LlamaForCausalLM(SMALL[0].config("sdpa"))
    assert flops(SMALL[0])[0] == sum(one.numel() for one in made.parameters())
    assert [case.bar for case in CASES] == [0.45, 0.55]
    assert all(case.seq_len == 2048 for case in CASES)


def test_the_bars_are_on_mfu_and_on_the_ratio_to_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[0]
    rate = 0.5 * 989e12 / flops(case)[1]
    own, theirs = Found("", rate, 1e9, 10, 5.0), Found("", rate * 2, None, None, 5.0)
    bars = Bars()
    judge(bars, case, {"documents joined": own, "Trainer": theirs}, 989e12)
    assert capsys.readouterr().out.splitlines() == [
        "BAR mfu_124m 0.5 0.45 ok",
        "BAR tokens_a_second_vs_trainer_124m 0.5 1 short",
    ]
    judge(bars, case, {"documents joined": None, "Trainer": theirs}, 989e12)
    assert capsys.readouterr().out.count("short") == 2
    assert "MFU 50.0%, 1.0 GB, 10 kernels a micro-step" in described(case, "", own, 989e12)
    assert "no MFU without a peak, memory not counted, kernels not counted" in described(case, "", theirs, None)


def test_the_loop_without_deepspeed_keeps_float32_weights_and_clips() -> None:
    case = SMALL[0]
    torch.manual_seed(0)
    module = LlamaForCausalLM(case.config("sdpa"))
    before = [one.detach().clone() for one in module.parameters()]
    loop = Loop(module, case, compiled=False)
    batch = batch_of(case, 0, True, False)
    for part in batch.split(case.micro_batch):
        loop.backward(summed_nll(loop, part, torch.device("cpu")) / batch.count * case.accumulation)
    norm = loop.step()
    assert norm > 0
    for own, one, old in zip(loop._own, module.parameters(), before, strict=True):
        assert one.dtype == torch.bfloat16
        assert one.equal(own.bfloat16()), "the model computes with a rounded copy"
        moved = (own - old).abs().max()
        assert 0 < moved <= gpu.LR * (1 + gpu.DECAY * old.abs().max()) * 1.01
    assert all(not one.any() for one in loop._sums)
    again = [one.clone() for one in loop._own]
    loop._sums[0].fill_(torch.nan)
    loop.step()
    assert all(one.equal(same) for one, same in zip(loop._own, again, strict=True)), "a NaN moves nothing"


def test_a_batch_is_the_same_for_a_step_and_has_documents() -> None:
    case = SMALL[0]
    one, same, other = (batch_of(case, step, True, False) for step in (0, 0, 1))
    assert one.tokens.equal(same.tokens)
    assert not one.tokens.equal(other.tokens)
    assert one.tokens.shape == (case.micro_batch * case.accumulation, case.seq_len + 1)
    assert batch_of(case, 0, False, False).positions is None
