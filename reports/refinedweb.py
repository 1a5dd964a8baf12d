"""A run's funnel in RefinedWeb's steps, so that the two can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass

from contract.funnel import Level
from contract.schema import Drop
from contract.settings.filter import RULE_SETS

# RefinedWeb, figure 2: cumulative percentage of documents left; for exact deduplication, of tokens.
REFINEDWEB = {
    "URL filter": 97.76,
    "extraction": 96.31,
    "language": 47.51,
    "repetition": 35.97,
    "document-wise": 30.15,
    "line-wise": 23.34,
    "fuzzy deduplication": 14.50,
    "exact deduplication": 11.67,
}
STEP_OF_STAGE = {
    "crawl": "URL filter",
    "extract": "extraction",
    "langid": "language",
    "dedup_fuzzy": "fuzzy deduplication",
    "dedup_substring": "exact deduplication",
}
STEP_OF_RULE_SET = {
    "gopher_repetition": "repetition",
    "length": "document-wise",
    "gopher_quality": "document-wise",
    "lines": "line-wise",
}
FILTER_STEPS = ("repetition", "document-wise", "line-wise", "other rule sets")


@dataclass(frozen=True)
class Step:
    """What is left after one step.

    kept: documents; share: their share of all documents read; published: RefinedWeb's percentage, None if it has none.
    """

    stage: str
    name: str
    kept: int
    share: float
    published: float | None


def funnel(found: Sequence[Level]) -> list[Step]:
    """Convert a run's stages to RefinedWeb's steps.

    Pages skipped by the language prefilter count as dropped by `language`, not by `extraction`. The stage `filter`
    becomes RefinedWeb's three filter steps and one for the other rule sets; the stage `score` is left out.
    """
    steps: list[tuple[str, str, int]] = []
    for level in found:
        if level.stage == "extract":
            skipped = level.reasons[Drop.LANGUAGE_PREFILTER]
            steps.append(("extract", "extraction", level.kept + skipped))
        elif level.stage == "filter":
            left = level.read
            for name in FILTER_STEPS:
                left -= sum(count for reason, count in level.reasons.items() if step_of_reason(reason) == name)
                steps.append(("filter", name, left))
        elif level.stage != "score":
            steps.append((level.stage, STEP_OF_STAGE.get(level.stage, level.stage), level.kept))
    first = max(found[0].read, 1) if found else 1
    return [Step(stage, name, kept, kept / first, REFINEDWEB.get(name)) for stage, name, kept in steps]


def step_of_reason(reason: str) -> str:
    """The filter step to which a reason of the stage `filter` belongs."""
    return STEP_OF_RULE_SET.get(RULE_SETS.get(reason, ""), "other rule sets")


def funnel_table(found: Sequence[Level]) -> list[str]:
    """The funnel as a Markdown table, in cumulative percent of documents, next to RefinedWeb's."""
    lines = ["| stage | step | documents | left | RefinedWeb |", "|---|---|--:|--:|--:|"]
    for step in funnel(found):
        published = "" if step.published is None else f"{step.published:.2f} %"
        lines.append(f"| {step.stage} | {step.name} | {step.kept:,} | {step.share:.2%} | {published} |")
    return lines
