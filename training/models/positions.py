"""How the model tells positions apart, phase by phase: RoPE's scaling and the longest sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from contract.settings.training import Phase, Rope

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}  # Llama 3.1's


@dataclass(frozen=True)
class Positions:
    """longest: tokens of the longest sequence so far. rope: `rope_parameters` of a transformers configuration."""

    longest: int
    rope: dict[str, Any]


def of_model(module: Any) -> Positions:
    """Those of a model as it is now."""
    return Positions(module.config.max_position_embeddings, dict(module.config.rope_parameters))


def of_phases(start: Positions, phases: Sequence[Phase], seq_len: int) -> list[Positions]:
    """Those of each phase, or of the whole training if there is none. `seq_len` is the length where none is said."""
    found: list[Positions] = []
    now = Positions(max(start.longest, seq_len), start.rope)
    for phase in phases:
        own = phase.seq_len or seq_len
        now = Positions(max(now.longest, own), _scaled(phase.rope, start, own) if phase.rope else now.rope)
        found.append(now)
    return found or [now]


def _scaled(rope: Rope, start: Positions, longer: int) -> dict[str, Any]:
    made: dict[str, Any] = {"rope_type": rope.type, "rope_theta": rope.theta or start.rope["rope_theta"]}
    if rope.type != "default":
        made["factor"] = rope.factor or max(longer / start.longest, 1.0)
    if rope.type in ("yarn", "llama3"):
        made["original_max_position_embeddings"] = start.longest
    return made | (LLAMA3 if rope.type == "llama3" else {})


@torch.no_grad()
def turn(module: Any, positions: Positions) -> None:
    """Let a model tell positions apart in this way from now on; its configuration says so when it is saved.

    The rotary layer is changed in place, because ZeRO 3 has noted the layers that it found.
    """
    config, rotary = module.config, module.model.rotary_emb
    config.max_position_embeddings = positions.longest
    config.rope_parameters = dict(positions.rope)
    made = type(rotary)(config)
    for name, buffer in made.named_buffers():
        getattr(rotary, name).copy_(buffer)
    for name in ("rope_type", "attention_scaling", "max_seq_len_cached", "original_max_seq_len"):
        setattr(rotary, name, getattr(made, name))


def micro_batch(own: int, seq_len: int, longer: int) -> int:
    """Sequences that a process runs at once, so that they have as many tokens as `own` sequences of `seq_len`."""
    return max(1, own * seq_len // longer)


def mean_length(steps: Sequence[int], seq_lens: Sequence[int]) -> float:
    """The mean sequence length over all tokens; every step has equally many."""
    return sum(count * length for count, length in zip(steps, seq_lens, strict=True)) / sum(steps)
