"""The documentation of each task in Airflow's UI, made from the stage table and the settings."""

from contract.figures import SHOWN
from contract.recipe import DEFAULTS
from contract.settings.filter import DropsIf
from contract.stages import STAGES

PLANES = {"spark": "Spark", "gpu": "DeepSpeed", "local": "one process"}
OUTSIDE = {"crawl": "files of the crawl", "curate": "files of the sources beside the crawl"}
PAGES = {
    "filter": "docs/filters.md",
    "curate": "docs/sources.md",
    "langid": "docs/language-identification.md",
    "minhash_sign": "docs/deduplication.md",
    "dedup_url": "docs/deduplication.md",
    "dedup_fuzzy": "docs/deduplication.md",
    "dedup_substring": "docs/deduplication.md",
    "decontaminate": "docs/decontamination.md",
    "mix": "docs/mixture.md",
    "tokenizer": "docs/tokenizers.md",
    "pack": "docs/tokens.md",
    "benchmark": "docs/evaluation.md",
    "abilities": "docs/evaluation.md",
    "sample": "docs/feedback.md",
    "probe": "docs/ablations.md",
    "ablate": "docs/ablations.md",
}
"""The page that tells most of a stage; docs/training.md of those that train, and docs/stages.md of the others."""


def task_doc(name: str) -> str:
    """What comes into a stage, what goes out, what it drops, and its section of the recipe, as Markdown."""
    stage = STAGES[name]
    readers = [other.name for other in STAGES.values() if name in other.reads]
    figures = ", ".join(SHOWN.get(name, ()))
    rows = {
        "in": ", ".join(stage.reads) or OUTSIDE[name],
        "out": "a manifest"
        + (f", read by {', '.join(readers)}" if readers else "")
        + (f"; figures: {figures}" if figures else ""),
        "drops": f"{stage.counts}, each with its reason" if stage.drops else "nothing",
        "recipe": f"section `{name}`: {_settings(name)}",
        "runs on": f"{PLANES[stage.plane]}, once for {_scope(stage.scope)}",
        "read more": PAGES.get(name, "docs/training.md" if stage.plane == "gpu" else "docs/stages.md"),
    }
    lines = [f"| {key} | {text} |" for key, text in rows.items()]
    return "\n".join([stage.summary, "", "| | |", "|---|---|", *lines])


def _scope(scope: str) -> str:
    each = {"snapshot": "each segment of a crawl", "model": "each model and benchmark"}
    return each.get(scope, "the whole corpus")


def _settings(name: str) -> str:
    """The settings of a stage's section, but for single thresholds, which docs/filters.md lists."""
    fields = type(DEFAULTS.section(name)).model_fields.items()
    own = [key for key, field in fields if not any(isinstance(one, DropsIf) for one in field.metadata)]
    return ", ".join(f"`{key}`" for key in own) or "nothing to set"
