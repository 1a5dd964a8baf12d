"""torch.compile, layer by layer: they share one program, so a model is compiled once, however deep it is."""

import os
import shutil
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from contract.settings.training import Engine
    from training.engine.ranks import Ranks


def wanted(stage: str, engine: "Engine", ranks: "Ranks") -> bool:
    """Whether a stage compiles its model; rank 0 says why if the recipe wants it and it cannot be done."""
    if not engine.compile:
        return False
    reason = why_not(stage, engine.stage_in_force, has_compiler(ranks))
    if ranks.rank == 0:
        said = f"engine.compile is left out, because {reason}" if reason else "layers are compiled"
        print(f"{stage}: {said}", flush=True)
    return reason is None


def why_not(stage: str, zero_stage: int, compiler: bool) -> str | None:
    """Why a stage cannot compile its model; None if it can."""
    if zero_stage == 3:
        return "ZeRO 3 gathers the weights of each layer between its operations"
    if stage in ("ppo", "grpo"):
        return "replies grow token by token, and each length would be compiled"
    return None if compiler else f"this machine has no compiler: {COMPILERS}"


COMPILERS = "Triton with gcc or clang for a GPU, g++ for a CPU, or what CC and CXX name"


def has_compiler(ranks: "Ranks") -> bool:
    """Whether torch.compile finds here what turns its programs into machine code.

    Triton translates its kernels by itself, and has a C compiler build what starts them.
    """
    if ranks.device.type == "cuda":
        return find_spec("triton") is not None and any(map(shutil.which, _named("CC", "gcc", "clang")))
    return any(map(shutil.which, _named("CXX", "clang++" if sys.platform == "darwin" else "g++")))


def _named(variable: str, *usual: str) -> tuple[str, ...]:
    """The program that a variable of the environment names, which alone is then tried, or the usual ones."""
    return (os.environ[variable],) if os.environ.get(variable) else usual


PROGRAMS = 256
"""How many compiled programs layers may share; each length needs two or more. torch stops after eight by default."""


def compile_layers(module: "nn.Module", any_length: bool = False) -> None:
    """Compile each decoder layer in place; the names of its parameters stay.

    The rest stays as it is: the head computes the loss instead of logits, and one graph of the whole model would have
    to be cut at DeepSpeed's hooks.

    A length gets a program of its own, or with `any_length` the one for all: the same whichever lengths came before.
    Left to itself, torch makes one for the first length, and for all later ones another, which may round otherwise; a
    run that resumes has another first length.
    """
    torch.compiler.config.recompile_limit = PROGRAMS
    names = set(getattr(module, "_no_split_modules", None) or ())
    for layer in module.modules():
        if type(layer).__name__ in names:
            layer.compile(dynamic=any_length)
