"""The stage table: the whole pipeline in one place.

The DAGs and their edges, fingerprints, checks and the documentation's table come from these rows. Raise a stage's
`version` if a change of its code changes its output for the same settings and inputs; the new version makes old results
stale.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

Plane = Literal["spark", "gpu", "local"]
Scope = Literal["snapshot", "corpus", "model"]
Dag = Literal["corpus", "pretrain", "align", "evaluate", "feedback", "ablate"]

WHOLE = "all"
"""The only partition of a corpus stage."""


@dataclass(frozen=True)
class Stage:
    """One row of the table.

    dag: the DAG that runs it; `ablate` also runs those of `corpus` and `pretrain`, once for each of its variants, and
    `feedback` those that learn from votes.
    plane: `spark` runs in `pipelines`, `gpu` under DeepSpeed in `training`, `local` in `training` as one process.
    scope: `snapshot` runs once for every segment of every crawl, `corpus` once over everything, `model` once for every
    model and benchmark. reads: the stages whose manifests it opens; a snapshot stage reads the same segment, a corpus
    stage all segments, a model stage what its model needs. settings: what it reads of
    the recipe besides its own section, as dotted keys; a job gives it nothing else. facts: the names in
    `contract.facts` of what else decides its output. drops: whether it drops
    documents or examples, so that reports have a row for it. counts: which of the two its counts are of; the funnel
    follows documents, and examples stand in a table of their own. checks: whether its module has a function `check`,
    which refuses settings before a run starts.
    """

    name: str
    dag: Dag
    plane: Plane
    scope: Scope
    reads: tuple[str, ...]
    version: int
    summary: str
    settings: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    drops: bool = False
    counts: Literal["documents", "examples"] = "documents"
    checks: bool = False


ALIGNING = ("ppo", "dpo", "grpo")
"""The stages of which a run has one, which its recipe's `align` names. A stage that reads them reads that one alone."""

STAGES: dict[str, Stage] = {
    row.name: row
    for row in (
        Stage(
            "crawl", "corpus", "spark", "snapshot", (), 7, "WARC or WET records to pages; URL filter",
            drops=True, checks=True,
        ),
        Stage(
            "extract", "corpus", "spark", "snapshot", ("crawl",), 7,
            "main content of each page, behind a time and memory guard",
            settings=("langid.languages",), facts=("language_model",), drops=True,
        ),
        Stage(
            "langid", "corpus", "spark", "snapshot", ("extract",), 4,
            "language of each text; keeps the recipe's languages",
            facts=("language_model",), drops=True, checks=True,
        ),
        Stage(
            "score", "corpus", "spark", "snapshot", ("langid",), 5,
            "line corrections, masks, and every score that a rule judges",
            facts=("new_scores",), drops=True, checks=True,
        ),
        Stage(
            "filter", "corpus", "spark", "snapshot", ("score",), 4,
            "repetition and quality rules, decided on the scores alone",
            settings=("langid.languages",), drops=True, checks=True,
        ),
        Stage(
            "minhash_sign", "corpus", "spark", "snapshot", ("filter",), 4,
            "MinHash signature and band keys of each document",
        ),
        Stage(
            "curate", "corpus", "spark", "corpus", (), 3,
            "documents of the sources beside the crawl: read, judged by their own rules, signed",
            settings=("langid.sample_chars", "score", "minhash_sign"),
            facts=("language_model", "new_curated_scores"), drops=True, checks=True,
        ),
        Stage(
            "dedup_url", "corpus", "spark", "corpus", ("filter",), 5,
            "one document per canonical URL",
            drops=True,
        ),
        Stage(
            "dedup_fuzzy", "corpus", "spark", "corpus", ("minhash_sign", "dedup_url", "curate"), 7,
            "one document per cluster of near duplicates",
            settings=("minhash_sign", "curate.not_deduplicated"), drops=True,
        ),
        Stage(
            "dedup_substring", "corpus", "spark", "corpus", ("dedup_fuzzy",), 5,
            "cuts text that stands at two or more places",
            # held-out text is not cut because training text repeats it
            settings=("mix.heldout_fraction", "curate.not_deduplicated"), drops=True, checks=True,
        ),
        Stage(
            "decontaminate", "corpus", "spark", "corpus", ("dedup_substring",), 7,
            "drops or cuts documents that repeat evaluation sets",
            settings=("curate.not_decontaminated",), drops=True, checks=True,
        ),
        Stage(
            "mix", "corpus", "spark", "corpus", ("decontaminate",), 4,
            "writes each source's documents once, shuffled, some of them held out",
        ),
        Stage(
            "instructions", "corpus", "spark", "corpus", ("mix",), 2,
            "chats to tune on, read or made by rule: cleaned, without duplicates, split by prompt",
            settings=("decontaminate",), drops=True, counts="examples", checks=True,
        ),
        Stage(
            "preferences", "corpus", "spark", "corpus", ("mix", "instructions"), 4,
            "prompts with a better and a worse reply, or more replies that are ranked, likewise",
            settings=("decontaminate",), drops=True, counts="examples", checks=True,
        ),
        Stage(
            "prompts", "corpus", "spark", "corpus", ("instructions", "preferences"), 1,
            "prompts for PPO from a file of their own; none without one",
            settings=("decontaminate",), drops=True, counts="examples", checks=True,
        ),
        Stage(
            "tokenizer", "corpus", "spark", "corpus", ("mix",), 2,
            "trains a tokenizer on the mixture, or expands one that is brought",
            facts=("special_tokens",), checks=True,
        ),
        Stage(
            "pack", "corpus", "spark", "corpus", ("mix", "tokenizer"), 2,
            "documents to token shards, and to rows of equal length",
        ),
        Stage(
            "pretrain", "pretrain", "gpu", "corpus", ("pack", "tokenizer"), 4,
            "next-token prediction, or blanks to fill",
            settings=("pack.seq_len",),
        ),
        Stage(
            "sft", "align", "gpu", "corpus", ("pretrain", "tokenizer", "instructions", "pack"), 7,
            "instruction tuning",
            settings=("pack.seq_len", "pretrain.boundaries", "pretrain.mixture"), facts=("chat_format",),
        ),
        Stage(
            "reward", "align", "gpu", "corpus", ("sft", "tokenizer", "preferences"), 9,
            "reward model from people's preferences",
            settings=("judge.share",), facts=("chat_format",),
        ),
        Stage(
            "gate", "align", "local", "corpus", ("reward",), 3,
            "is the reward model good enough for PPO",
        ),
        Stage(
            "ppo", "align", "gpu", "corpus",
            ("sft", "reward", "gate", "pack", "preferences", "prompts", "tokenizer"), 8,
            "reinforcement learning from the reward model",
            settings=("reward.pretrain_tasks", "pack.seq_len", "pretrain.boundaries", "pretrain.mixture"),
            facts=("chat_format",),
        ),
        Stage(
            "dpo", "align", "gpu", "corpus", ("sft", "gate", "preferences", "tokenizer"), 2,
            "direct preference optimisation, in PPO's place if `align` says so",
            settings=("judge.share", "reward.pretrain_tasks"), facts=("chat_format",),
        ),
        Stage(
            "grpo", "align", "gpu", "corpus", ("sft", "reward", "gate", "preferences", "prompts", "tokenizer"), 2,
            "PPO without a critic, in PPO's place if `align` says so",
            settings=("reward.pretrain_tasks",), facts=("chat_format",),
        ),
        Stage(
            "judge", "evaluate", "gpu", "corpus", ("sft", "tokenizer", "preferences"), 2,
            "a second reward model from other prompts, which PPO never sees",
            settings=("reward",), facts=("chat_format",),
        ),
        Stage(
            "evaluate", "evaluate", "gpu", "corpus",
            ("pretrain", "sft", "reward", "judge", "gate", *ALIGNING, "pack", "preferences", "tokenizer"), 7,
            "every model on the same held-out data",
            settings=("align", "ppo.max_prompt_tokens", "reward.pretrain_tasks", "pack.seq_len", "pretrain.boundaries"),
            facts=("chat_format",),
        ),
        Stage(
            "benchmark", "evaluate", "gpu", "model", ("pretrain", "sft", "reward", "gate", *ALIGNING, "tokenizer"), 2,
            "each model's answers to the items of each benchmark, and which are right",
            facts=("chat_format",),
        ),
        Stage(
            "abilities", "evaluate", "local", "corpus", ("decontaminate", "evaluate", "benchmark"), 2,
            "what each model can do, and what it lost against the one before",
        ),
        Stage(
            "export", "evaluate", "local", "corpus",
            ("sft", "gate", *ALIGNING, "evaluate", "abilities", "tokenizer"), 3,
            "safetensors that transformers loads",
            settings=("name", "align"), facts=("chat_format",),
        ),
        Stage(
            "sample", "feedback", "gpu", "corpus", ("sft", "gate", *ALIGNING, "preferences", "prompts", "tokenizer"), 3,
            "two to four replies to each prompt of a round, for people to compare",
            settings=("align", "ppo.max_prompt_tokens", "reward.pretrain_tasks"), facts=("chat_format",),
        ),
        Stage(
            "probe", "ablate", "gpu", "corpus", ("pretrain", "tokenizer", "mix"), 1,
            "the pretrained model on held-out documents and on small tasks",
            settings=("pack.seq_len",),
        ),
        Stage(
            "ablate", "ablate", "local", "corpus", ("probe",), 1,
            "which variant of a recipe is better, or that nobody can tell",
        ),
    )
}  # fmt: skip


@cache  # each of the thousands of files that a manifest lists is checked against it
def upstream(name: str) -> frozenset[str]:
    """Every stage that `name` depends on, directly or not."""
    found: set[str] = set()
    waiting = list(STAGES[name].reads)
    while waiting:
        stage = waiting.pop()
        if stage not in found:
            found.add(stage)
            waiting.extend(STAGES[stage].reads)
    return frozenset(found)


def downstream(name: str) -> set[str]:
    """Every stage that depends on `name`, directly or not."""
    return {other for other in STAGES if name in upstream(other)}


def stages_of(dag: str) -> tuple[str, ...]:
    """The stages that a DAG runs, in the order of the table."""
    return tuple(stage.name for stage in STAGES.values() if stage.dag == dag)


def stage_dags() -> tuple[str, ...]:
    """The DAGs that run stages, in the order of the table."""
    return tuple(dict.fromkeys(stage.dag for stage in STAGES.values()))


def reads_setting(stage: str, key: str) -> bool:
    """Whether a stage reads the setting at a dotted key: all of its own section, and what it declares of others."""
    return any(f"{key}.".startswith(f"{declared}.") for declared in (stage, *STAGES[stage].settings))
