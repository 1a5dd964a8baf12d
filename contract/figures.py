"""The few figures of a finished task that a person asks for first, as numbers: for asset events, XComs and pages.

`contract.headline` says the same in a sentence.
"""

import math

from contract.manifest import Manifest
from contract.stages import STAGES

Plain = int | float | str | bool

MOST = 6  # figures of a task
MAX_CHARS = 200  # of a figure that is a text
DIGITS = 6  # significant, of a figure that is a fraction

SHOWN: dict[str, tuple[str, ...]] = {
    "crawl": ("files",),
    "minhash_sign": ("documents",),
    "curate": ("sources",),
    "dedup_fuzzy": ("clusters",),
    "dedup_substring": ("tokens_cut", "documents_cut"),
    "decontaminate": ("documents_cut",),
    "mix": ("training_documents", "heldout_documents"),
    "instructions": ("training", "heldout"),
    "preferences": ("training", "heldout"),
    "prompts": ("training",),
    "tokenizer": ("vocab_size", "heldout_bytes_per_token", "heldout_tokens_per_word"),
    "pack": ("documents", "tokens", "sequences", "heldout_tokens"),
    "pretrain": (
        "heldout_perplexity_before",
        "heldout_perplexity_after",
        "bits_per_byte",
        "tokens",
        "parameters",
        "tokens_per_s",
    ),
    "sft": ("heldout_perplexity_before", "heldout_perplexity_after", "examples"),
    "reward": ("accuracy", "accuracy_low", "accuracy_high", "shorter_accuracy", "pairs"),
    "judge": ("accuracy", "accuracy_low", "accuracy_high", "pairs"),
    "gate": ("open", "accuracy", "low", "high", "threshold"),
    "ppo": ("reward_first", "reward_last", "kl_first", "kl_last", "best_of_reward", "heldout_reward"),
    "dpo": ("accuracy", "accuracy_low", "accuracy_high", "pairs"),
    "grpo": ("reward_first", "reward_last", "kl_first", "kl_last"),
    "evaluate": (
        "perplexity_pretrain",
        "perplexity_sft",
        "perplexity_ppo",
        "win_rate",
        "judge_win_rate",
        "judge_win_rate_low",
    ),
    "benchmark": ("score", "low", "high", "n", "extraction_rate", "left_out"),
    "abilities": ("models", "benchmarks", "closed"),
    "sample": ("round", "items", "replies"),
    "export": ("stage", "parameters", "dtype"),
    "probe": ("bits_per_byte", "documents"),
    "ablate": ("verdict", "best", "models", "tokens"),
}
"""Stage -> the fields of its result that are shown, besides its counts."""


def figures(manifest: Manifest) -> dict[str, Plain]:
    """Name -> value, at most MOST of them. Figures that are missing or not finite are left out.

    Stages that judge documents or examples start with how many they read and kept, as `documents_read` and so on.
    """
    stage = STAGES.get(manifest.stage)
    found: dict[str, Plain] = {}
    if stage and stage.drops:
        found = {f"{stage.counts}_read": manifest.rows.read, f"{stage.counts}_kept": manifest.rows.kept}
    for name in SHOWN.get(manifest.stage, ()):
        value = _plain(manifest.metrics.get(name))
        if value is not None:
            found[name] = value
    return dict(list(found.items())[:MOST])


def _plain(value: object) -> Plain | None:
    """A figure as JSON can hold it; None for tables, gaps, and numbers that are not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, str):
        return value[:MAX_CHARS]
    return value if isinstance(value, int) else None
