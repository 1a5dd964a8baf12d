"""How near the limit of one GPU the stages run: `python -m perf.gpu [--packages FOLDER]`.

It makes its own tokens, so it needs no network and no store: only torch, transformers, this checkout, and a GPU. It
trains models of 124 M and of about 1 B parameters at 2,048 tokens in bf16 with the parts that the stage has (the loss at
the head, its attention, compiled layers, batches read ahead from pinned memory, the guard), then the same model with
a plain loop of transformers' Trainer. DeepSpeed and pydantic, installed or in FOLDER, bring in the stage's engine; without them
a loop of the same arithmetic takes its place. Liger is used if it is found.

Where DeepSpeed, pydantic and what else the stages import are there, `perf/gpu_align.py` then measures SFT, the reward model and PPO
at about 0.5 B parameters.

Printed of each: tokens a second, MFU = (6 N + 12 L d_model T) x tokens/s / peak, the most memory, and the kernels of a
micro-step. Each is a process of its own, so that none finds memory or a process group that another left. On a CPU it
runs too, with `--small`, and says nothing about a GPU.
"""

import argparse
import dataclasses
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from perf.bars import Bars
from training.data.batch import Batch, Row, collate
from training.data.stream import ahead
from training.engine.compiled import compile_layers
from training.engine.guard import Guard
from training.engine.metrics import flops_per_token, mfu, peak_flops
from training.engine.optimizers import decay_groups
from training.models.lm import learn

LR, BETAS, DECAY, CLIP = 3e-4, (0.9, 0.95), 0.1, 1.0
ALIGNED = ("500m", "small-align")
"""The models of `perf/gpu_align.py`, which needs more packages than this module."""
DOCUMENT = 600  # tokens of a document on average


@dataclass(frozen=True)
class Case:
    """A model, the rows that run at once, and the share of the peak that its training should reach."""

    name: str
    layers: int
    d_model: int
    heads: int
    d_ff: int
    vocabulary: int
    seq_len: int
    micro_batch: int
    bar: float
    accumulation: int = 2

    def config(self, attention: str) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.d_model,
            intermediate_size=self.d_ff,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=self.seq_len,
            tie_word_embeddings=True,
            use_cache=False,
            attn_implementation=attention,
        )


CASES = (
    Case("124m", 12, 768, 12, 2048, 50_304, 2048, 16, 0.45),
    Case("1b", 18, 2048, 16, 5632, 50_304, 2048, 8, 0.55),
)
SMALL = (Case("small", 2, 32, 2, 64, 97, 64, 2, 0.45),)


class Loop:
    """What one process does where DeepSpeed is missing: float32 weights beside bf16 ones, as ZeRO 1 on one GPU."""

    def __init__(self, module: nn.Module, case: Case, compiled: bool) -> None:
        self.module, self.compiled, self.pipeline = module, compiled, None
        self.accumulation, self.micro_batch = case.accumulation, case.micro_batch
        self._own = [one.detach().float().clone() for one in module.parameters()]
        self._sums = [torch.zeros_like(one) for one in self._own]
        for one in module.parameters():
            one.data = one.data.bfloat16()
        self._learnt = [nn.Parameter(one) for one in self._own]
        self._optimizer = torch.optim.AdamW(decay_groups(self._learnt, DECAY), lr=LR, betas=BETAS, fused=True)
        self._guard = Guard(10.0, CLIP)
        if compiled:
            compile_layers(module)

    def __call__(self, **given: Any) -> Any:
        return self.module(**given)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a part to their float32 sums."""
        (loss / self.accumulation).backward()
        with torch.no_grad():
            torch._foreach_add_(self._sums, [one.grad for one in self.module.parameters()])
        self.module.zero_grad()

    @torch.no_grad()
    def step(self) -> float:
        norm = float(torch.nn.utils.get_total_norm(self._sums))
        if self._guard.refuses(norm):
            self._guard.left_out(norm)
        else:
            torch._foreach_mul_(self._sums, min(CLIP / (norm + 1e-6), 1.0))
            for one, grad in zip(self._learnt, self._sums, strict=True):
                one.grad = grad
            self._optimizer.step()
            torch._foreach_copy_(list(self.module.parameters()), self._own)
            self._guard.applied(norm)
        torch._foreach_zero_(self._sums)
        return norm


def stage_engine(module: nn.Module, case: Case, compiled: bool) -> Any:
    """The stage's own engine, with ZeRO 1."""
    from contract.settings.training import Engine as Settings
    from contract.settings.training import Optim
    from training.engine.engine import Engine
    from training.engine.metrics import Curves
    from training.engine.ranks import join

    ranks = join()
    job: Any = SimpleNamespace(task=SimpleNamespace(stage="pretrain"), ranks=ranks, curves=Curves())
    settings = Settings(dtype="bf16", zero_stage=1, micro_batch=case.micro_batch, compile=compiled)
    optim = Optim(schedule="constant", warmup_fraction=0.0)
    return Engine(job, module, optim, settings, case.micro_batch * case.accumulation, 1000)


def batch_of(case: Case, step: int, boundaries: bool, pinned: bool) -> Batch:
    """The rows of a step: random tokens, in documents of random lengths."""
    random = np.random.default_rng(step)
    rows = []
    for _ in range(case.micro_batch * case.accumulation):
        starts = np.flatnonzero(random.random(case.seq_len) < 1 / DOCUMENT)
        starts = np.unique(np.concatenate([[0], starts]))
        rows.append(Row(random.integers(case.vocabulary, size=case.seq_len + 1), starts))
    batch = collate(rows, case.seq_len, boundaries)
    return batch.pinned() if pinned else batch


@dataclass(frozen=True)
class Found:
    """What a run of one kind reached."""

    how: str
    tokens_per_s: float
    memory: float | None
    """The most bytes on the device; None on a CPU."""
    kernels: float | None
    """A micro-step, with its share of the update; on a CPU operations of torch. None: not counted."""
    loss: float


def ours(case: Case, steps: int, compiled: bool, boundaries: bool) -> Found:
    """The stage's loop, with its engine where DeepSpeed and pydantic are."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.type == "cuda"
    torch.manual_seed(0)
    module = LlamaForCausalLM(case.config("flex_attention" if boundaries and cuda else "sdpa")).to(device)
    whole = all(map(importable, ("deepspeed", "pydantic")))
    engine = stage_engine(module, case, compiled) if whole else Loop(module, case, compiled)
    how = "the stage's engine" if whole else "a loop without DeepSpeed"
    job: Any = SimpleNamespace(ranks=SimpleNamespace(device=device, replicas=1, speaks=True))
    loss = torch.zeros(())

    def step(batches: Any) -> None:
        nonlocal loss
        loss = learn(job, engine, next(batches))["loss"]
        engine.step()

    with ahead(lambda one: batch_of(case, one, boundaries, cuda), 0, 2 * steps + 1) as batches:
        found = timed(lambda: step(batches), case, steps, device)
    return Found(how, *found, loss=float(loss))


class Rows(Dataset[dict[str, Tensor]]):
    """The same tokens, as Trainer takes them."""

    def __init__(self, case: Case, steps: int) -> None:
        batches = (batch_of(case, one, False, False).tokens[:, :-1] for one in range(steps))
        self._rows = torch.cat(list(batches))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self._rows[index], "labels": self._rows[index]}


def trainer(case: Case, steps: int, compiled: bool) -> Found:
    """transformers' Trainer with its defaults in bf16: fused AdamW, SDPA, documents that see each other; compiled if ours is."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Ends(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    module, noted = LlamaForCausalLM(case.config("sdpa")), Ends()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=2 * steps, per_device_train_batch_size=case.micro_batch,
            gradient_accumulation_steps=case.accumulation, learning_rate=LR, weight_decay=DECAY, max_grad_norm=CLIP,
            bf16=True, torch_compile=compiled, logging_steps=10, save_strategy="no", report_to=[], disable_tqdm=True,
            use_cpu=device.type == "cpu",
        )  # fmt: skip
        made = Trainer(module, arguments, train_dataset=Rows(case, 2 * steps), callbacks=[noted])
        out = made.train()
    taken = noted.ends[-1] - noted.ends[steps - 1]
    tokens = steps * case.micro_batch * case.accumulation * case.seq_len
    return Found("its defaults", tokens / taken, memory(device), None, out.training_loss)


def timed(
    step: Callable[[], None], case: Case, steps: int, device: torch.device
) -> tuple[float, float | None, float | None]:
    """(tokens a second, bytes, kernels a micro-step): `steps` to warm up, as many that count, and one that is looked at."""
    for _ in range(steps):
        step()
    wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    rate = steps * case.micro_batch * case.accumulation * case.seq_len / (time.perf_counter() - began)
    most = memory(device)
    kinds = torch.profiler.ProfilerActivity
    kind = kinds.CUDA if device.type == "cuda" else kinds.CPU
    with torch.profiler.profile(activities=[kind]) as profile:
        step()
        wait(device)
    where = torch.autograd.DeviceType.CUDA if device.type == "cuda" else torch.autograd.DeviceType.CPU
    return rate, most, sum(event.device_type == where for event in profile.events() or ()) / case.accumulation


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def memory(device: torch.device) -> float | None:
    return float(torch.cuda.max_memory_allocated()) if device.type == "cuda" else None


def importable(name: str) -> bool:
    """Whether a package is here and whole."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


KINDS: dict[str, Callable[[Case, int, bool], Found]] = {
    "documents apart": lambda case, steps, compiled: ours(case, steps, compiled, True),
    "documents joined": lambda case, steps, compiled: ours(case, steps, compiled, False),
    "Trainer": trainer,
}
"""What is run of each model. Trainer knows no documents, so it is compared with ours where they are joined."""


def in_a_process(case: str, kind: str, given: argparse.Namespace, *more: str) -> dict[str, Any] | None:
    """What a kind of run reached in a process of its own; None if it failed, which its output explains."""
    options = [f"--{name}" for name in ("small", "eager") if getattr(given, name)]
    options += ["--packages", given.packages] if given.packages else []
    command = [sys.executable, "-m", "perf.gpu", "--only", case, "--kind", kind, "--steps", str(given.steps)]
    done = subprocess.run([*command, *options, *more], stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    if done.returncode:
        print(*lines[-20:], sep="\n", flush=True)
        return None
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def flops(case: Case) -> tuple[int, float]:
    """(N, training FLOPs a token) of a case."""
    layer = 4 * case.d_model**2 + 3 * case.d_model * case.d_ff + 2 * case.d_model
    count = (case.vocabulary + 1) * case.d_model + case.layers * layer
    return count, flops_per_token(count, case.layers, case.d_model, case.seq_len)


def described(case: Case, kind: str, found: Found, peak: float | None) -> str:
    """One line of what was reached."""
    count, each = flops(case)
    share = f"MFU {mfu(found.tokens_per_s, each, peak, 1):.1%}" if peak else "no MFU without a peak"
    memory = "memory not counted" if found.memory is None else f"{found.memory / 1e9:.1f} GB"
    kernels = "kernels not counted" if found.kernels is None else f"{found.kernels:,.0f} kernels a micro-step"
    return (
        f"{case.name}, {count:,} parameters, {kind} ({found.how}): {found.tokens_per_s:,.0f} tokens/s, {share}, "
        f"{memory}, {kernels}, loss {found.loss:.3f}"
    )


def judge(bars: Bars, case: Case, found: dict[str, Found | None], peak: float | None) -> None:
    """Hold a model's runs against the bars; one that failed is short."""
    own, theirs = found["documents joined"], found["Trainer"]
    if peak:
        bars.at_least(f"mfu_{case.name}", mfu(own.tokens_per_s, flops(case)[1], peak, 1) if own else 0.0, case.bar)
    ratio = own.tokens_per_s / theirs.tokens_per_s if own and theirs else 0.0
    bars.at_least(f"tokens_a_second_vs_trainer_{case.name}", ratio, 1.0)


def versions() -> str:
    """What was measured, for the page that quotes it."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return ", ".join([device, f"Python {sys.version.split()[0]}", *map(version, ("torch", "transformers", "triton"))])


def version(name: str) -> str:
    """A package and its version."""
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {name}"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--packages", help="a folder of packages that the machine lacks, such as DeepSpeed and pydantic"
    )
    parser.add_argument("--only", help="one of the models: 124m, 1b or 500m")
    parser.add_argument("--kind", help="run this alone, in this process, and print it as JSON")
    parser.add_argument("--depth", type=int, help="of the policy that is tried for size")
    parser.add_argument("--steps", type=int, default=20, help="that are measured, after as many to warm up")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--small", action="store_true", help="a tiny model, for a machine without a GPU")
    parser.add_argument("--peak", type=float, help="FLOP/s in bf16 of a device whose peak is not listed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(arguments)
    if given.packages:
        sys.path.append(given.packages)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if given.kind:
        print(json.dumps(one_kind(given)), flush=True)
        return 0
    peak = given.peak or (peak_flops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None)
    print(versions(), flush=True)
    bars = Bars()
    for case in cases(given):
        runs: dict[str, Found | None] = {}
        for kind in KINDS:
            found = in_a_process(case.name, kind, given)
            runs[kind] = one = Found(**found) if found else None
            print(described(case, kind, one, peak) if one else f"{case.name}, {kind}: failed", flush=True)
        judge(bars, case, runs, peak)
    align(bars, given)
    return bars.code


def cases(given: argparse.Namespace) -> list[Case]:
    """The models that pretraining is measured with."""
    return [case for case in (SMALL if given.small else CASES) if given.only in (None, case.name)]


def one_kind(given: argparse.Namespace) -> dict[str, Any]:
    """What this process was asked to measure."""
    if given.kind in KINDS:
        return dataclasses.asdict(KINDS[given.kind](cases(given)[0], given.steps, not given.eager))
    from perf import gpu_align

    sizes = gpu_align.SMALL if given.small else gpu_align.SIZES
    return gpu_align.measure(given.kind, sizes, given.steps, not given.eager, given.depth)


def align(bars: Bars, given: argparse.Namespace) -> None:
    """SFT, the reward model and PPO, if what they import is here."""
    if given.only not in (None, *ALIGNED):
        return
    try:
        from perf import gpu_align
    except ImportError as error:
        print(f"{ALIGNED[0]}: left out, because {error.name} is missing; --packages may bring it", flush=True)
        return

    def run(kind: str, depth: int | None) -> dict[str, Any] | None:
        return in_a_process(sizes.name, kind, given, *(["--depth", str(depth)] if depth else []))

    sizes = gpu_align.SMALL if given.small else gpu_align.SIZES
    gpu_align.report(bars, sizes, run)


if __name__ == "__main__":
    sys.exit(main())
