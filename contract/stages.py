"""The stage table: the whole pipeline in one place.

DAG edges, fingerprints and the documentation's table come from these rows. Raise a stage's `version` if a change of its
code changes its output for the same settings and inputs; the new version makes old results stale.
"""

from dataclasses import dataclass
from typing import Literal

Plane = Literal["spark", "gpu", "local"]
Scope = Literal["snapshot", "corpus"]


@dataclass(frozen=True)
class Stage:
    """One row of the table.

    plane: `spark` runs in `pipelines`, `gpu` under DeepSpeed in `training`, `local` in `training` as one process.
    scope: `snapshot` runs once for every segment of every crawl, `corpus` once over everything.
    reads: the stages whose manifests it opens; a snapshot stage reads the same segment, a corpus stage all segments.
    """

    name: str
    plane: Plane
    scope: Scope
    reads: tuple[str, ...]
    version: int
    summary: str


STAGES: dict[str, Stage] = {
    row.name: row
    for row in (
        Stage("crawl", "spark", "snapshot", (), 6, "WARC or WET records to pages; URL filter"),
        Stage(
            "extract", "spark", "snapshot", ("crawl",), 5, "main content of each page, behind a time and memory guard"
        ),
        Stage("langid", "spark", "snapshot", ("extract",), 2, "language of each text; keeps the recipe's languages"),
        Stage(
            "score", "spark", "snapshot", ("langid",), 2, "line corrections, masks, and every score that a rule judges"
        ),
        Stage(
            "filter", "spark", "snapshot", ("score",), 2, "repetition and quality rules, decided on the scores alone"
        ),
        Stage(
            "minhash_sign",
            "spark",
            "snapshot",
            ("filter", "score"),
            3,
            "MinHash signature and band keys of each document",
        ),
        Stage("dedup_url", "spark", "corpus", ("filter",), 3, "one document per canonical URL"),
        Stage(
            "dedup_fuzzy",
            "spark",
            "corpus",
            ("minhash_sign", "filter", "dedup_url"),
            4,
            "one document per cluster of near duplicates",
        ),
        Stage(
            "dedup_substring",
            "spark",
            "corpus",
            ("filter", "dedup_url", "dedup_fuzzy"),
            3,
            "cuts text that stands at two or more places",
        ),
        Stage(
            "decontaminate",
            "spark",
            "corpus",
            ("dedup_substring",),
            5,
            "drops or cuts documents that repeat evaluation sets",
        ),
        Stage(
            "mix", "spark", "corpus", ("decontaminate",), 3, "weighs the sources, shuffles, holds some documents out"
        ),
        Stage("tokenizer", "spark", "corpus", ("mix",), 1, "trains a byte-level BPE on the mixture"),
        Stage("pack", "spark", "corpus", ("mix", "tokenizer"), 1, "documents to token shards of equal sequences"),
        Stage("pretrain", "gpu", "corpus", ("pack", "tokenizer"), 1, "next-token prediction"),
        Stage("sft", "gpu", "corpus", ("pretrain", "tokenizer", "mix"), 2, "instruction tuning"),
        Stage("reward", "gpu", "corpus", ("sft", "tokenizer", "mix"), 2, "reward model from preference pairs"),
        Stage("gate", "local", "corpus", ("reward",), 1, "is the reward model good enough for PPO"),
        Stage(
            "ppo",
            "gpu",
            "corpus",
            ("sft", "reward", "gate", "pack", "mix", "tokenizer"),
            1,
            "reinforcement learning from the reward model",
        ),
        Stage(
            "evaluate",
            "gpu",
            "corpus",
            ("pretrain", "sft", "reward", "gate", "ppo", "pack", "mix", "tokenizer"),
            2,
            "every model on the same held-out data",
        ),
        Stage(
            "export", "local", "corpus", ("sft", "gate", "ppo", "tokenizer"), 1, "safetensors that transformers loads"
        ),
    )
}


def upstream(name: str) -> set[str]:
    """Every stage that `name` depends on, directly or not."""
    found: set[str] = set()
    waiting = list(STAGES[name].reads)
    while waiting:
        stage = waiting.pop()
        if stage not in found:
            found.add(stage)
            waiting.extend(STAGES[stage].reads)
    return found


def downstream(name: str) -> set[str]:
    """Every stage that depends on `name`, directly or not."""
    return {other for other in STAGES if name in upstream(other)}
