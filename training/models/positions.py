"""How the model tells positions apart, phase by phase: RoPE's scaling and the longest sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from contract.errors import InputError
from contract.settings.training import Phase, Rope

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}  # Llama 3.1's


@dataclass(frozen=True)
class Positions:
    """longest: tokens of the longest sequence so far; 0 where the model notes and limits none, as with ALiBi.

    rope: `rope_parameters` of a transformers configuration; None if the model has no rotary positions that can be
    scaled as a whole.
    """

    longest: int
    rope: dict[str, Any] | None


def of_model(module: Any) -> Positions:
    """Those of a model as it is now."""
    config = module.config
    rope = getattr(config, "rope_parameters", None) or {}
    if rope and not ("rope_theta" in rope and hasattr(module.base_model, "rotary_emb")):
        return Positions(0, None)  # each kind of layer has rotary positions of its own
    return Positions(getattr(config, "max_position_embeddings", None) or 0, dict(rope) or None)


def of_phases(start: Positions, phases: Sequence[Phase], seq_len: int) -> list[Positions]:
    """Those of each phase, or of the whole training if there is none. `seq_len` is the length where none is said.

    Raises InputError if the model has no rotary positions, and a phase would scale them, or has longer sequences than
    the table of the model's positions.
    """
    found: list[Positions] = []
    _fits(start, seq_len, "pack.seq_len")
    now = Positions(_longest(start.longest, seq_len), start.rope)
    for index, phase in enumerate(phases):
        own = phase.seq_len or seq_len
        _fits(start, own, f"pretrain.phases.{index}.seq_len")
        if phase.rope and start.rope is None:
            raise InputError(
                f"pretrain.phases.{index}.rope: the model of pretrain.start_from has no rotary positions that can be "
                "scaled; leave rope out"
            )
        now = Positions(_longest(now.longest, own), _scaled(phase.rope, start, own) if phase.rope else now.rope)
        found.append(now)
    return found or [now]


def _longest(so_far: int, own: int) -> int:
    """A model that names no longest sequence goes on naming none."""
    return max(so_far, own) if so_far else 0


def _fits(start: Positions, own: int, setting: str) -> None:
    """Raise InputError if positions are a table that is too short. Rotary ones and ALiBi reach as far as one likes."""
    if start.rope is None and 0 < start.longest < own:
        raise InputError(
            f"{setting}: the model of pretrain.start_from has learnt {start.longest:,} positions, and sequences have "
            f"{own:,} tokens; pack shorter ones"
        )


def _scaled(rope: Rope, start: Positions, longer: int) -> dict[str, Any]:
    began = start.rope or {}
    made: dict[str, Any] = {"rope_type": rope.type, "rope_theta": rope.theta or began["rope_theta"]}
    if "partial_rotary_factor" in began:  # the share of each head's numbers that is turned, as in GPT-NeoX
        made["partial_rotary_factor"] = began["partial_rotary_factor"]
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
    if positions.rope is None:
        return
    config, rotary = module.config, module.base_model.rotary_emb
    config.max_position_embeddings = positions.longest
    config.rope_parameters = dict(positions.rope)
    made = type(rotary)(config)
    for name, buffer in made.named_buffers():
        getattr(rotary, name).copy_(buffer)
    for name in ("rope_type", "attention_scaling", "max_seq_len_cached", "original_max_seq_len"):
        setattr(rotary, name, getattr(made, name))


def mean_length(steps: Sequence[int], seq_lens: Sequence[int]) -> float:
    """The mean sequence length over all tokens; every step has equally many."""
    return sum(count * length for count, length in zip(steps, seq_lens, strict=True)) / sum(steps)
