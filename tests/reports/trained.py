"""Runs with models: every stage of training committed with small files, without training anything."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest
from contract.plan import Run
from contract.results import Checkpoint, Evaluate, Export, Ppo, Pretrain, Result, Reward, Sft

PRETRAIN = Pretrain(
    heldout_perplexity_before=4000.0, heldout_perplexity_after=117.0, heldout_loss_after=4.76, bits_per_byte=1.88,
    heldout_tokens=900, parameters=1_315_968, tokens=490_467, seconds=60.0, reader_share=0.1, tokens_per_s=8000.0,
)  # fmt: skip
SFT = Sft(
    examples=800, heldout_examples=110, heldout_loss_before=5.7, heldout_loss_after=5.4,
    heldout_perplexity_before=296.0, heldout_perplexity_after=229.0, response_tokens=24_843, seconds=12.0,
)  # fmt: skip
REWARD = Reward(
    pairs=640, accuracy=0.96, accuracy_low=0.91, accuracy_high=0.98, heldout_correct=106.0, heldout_pairs=110,
    heldout_loss=0.05, ece=0.03, reward_mean=3.5, reward_std=1.4,
)  # fmt: skip
PPO = Ppo(**{name: 0.5 for name in Ppo.model_fields if name.endswith(("_first", "_last"))})
EVALUATE = Evaluate(
    heldout_sequences=64, heldout_tokens=16_371, prompts=32, perplexity_pretrain=117.0, perplexity_sft=145.0,
    perplexity_ppo=167.0, bits_per_byte_pretrain=1.88, bits_per_byte_sft=1.97, bits_per_byte_ppo=2.03,
    reward_sft=-1.3, reward_ppo=0.65, win_rate=0.78, win_rate_low=0.61, win_rate_high=0.89, worse_sft=True,
    worse_ppo=False,
)  # fmt: skip
SAMPLES = (
    {"prompt": "What is a list?", "before": "a thing", "reward_before": -1.5, "after": "a row of things", "reward_after": 0.5},
    {"prompt": "And a set?", "before": "", "reward_before": 0.0, "after": "no order", "reward_after": 1.0},
)  # fmt: skip
MODEL = {"config.json": b"{}", "model.safetensors": b"weights" * 10}


def commit(
    run: Run, stage: str, result: Result, files: Mapping[str, bytes], kind: Kind, partition: str | None = None
) -> Manifest:
    """Commit a stage of a run with these files, all of one kind."""
    attempt = Attempt(run, run.task(stage), partition)
    for name, content in files.items():
        run.store.write_bytes(attempt.path(name), content)
    made = [File(path=attempt.path(name), kind=kind, bytes=len(content)) for name, content in files.items()]
    return attempt.commit(made, result=result)


def dump(samples: Sequence[Mapping[str, Any]]) -> bytes:
    """A file of samples as `evaluate` writes it."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in samples).encode()


def train(run: Run, samples: Sequence[Mapping[str, Any]] = SAMPLES) -> dict[str, Manifest]:
    """Commit every stage from `pretrain` to `export`, `gate` left out, and a checkpoint of step 5 of `pretrain`."""
    commit(
        run, "pretrain", Checkpoint(step=5, processes=1, schedule_steps=9, heldout_loss=4.9),
        {"state.json": b"{}"}, Kind.CHECKPOINT, "step-00000005",
    )  # fmt: skip
    made = {"pretrain": PRETRAIN, "sft": SFT, "reward": REWARD, "ppo": PPO}
    found = {stage: commit(run, stage, result, MODEL, Kind.MODEL) for stage, result in made.items()}
    found["evaluate"] = commit(run, "evaluate", EVALUATE, {"samples.jsonl": dump(samples)}, Kind.SAMPLES)
    exported = Export(stage="ppo", parameters=1_315_968, dtype="fp32")
    return found | {"export": commit(run, "export", exported, MODEL, Kind.EXPORT)}
