"""Our funnel in the steps of RefinedWeb's, so that both can stand side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from contract.funnel import Level
from contract.schema import Drop
from pipelines.rules.decide import group_of

# RefinedWeb, figure 2: cumulative percentage of documents that are left; exact deduplication counts tokens.
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
STEP_OF_GROUP = {
    "gopher_repetition": "repetition",
    "length": "document-wise",
    "gopher_quality": "document-wise",
    "lines": "line-wise",
}
FILTER_STEPS = ("repetition", "document-wise", "line-wise", "other rule sets")


@dataclass(frozen=True)
class Step:
    """What is left after one step: documents, their share of all that were read, and the share that RefinedWeb printed."""

    stage: str
    name: str
    kept: int
    share: float
    published: float | None


def funnel(found: Sequence[Level]) -> list[Step]:
    """Our stages in RefinedWeb's steps: pages that the language prefilter skips count under language, and `filter` is three steps and one."""
    made: list[tuple[str, str, int]] = []
    for level in found:
        if level.stage == "extract":
            skipped = level.reasons[Drop.LANGUAGE_PREFILTER]
            made.append(("extract", "extraction", level.kept + skipped))
        elif level.stage == "filter":
            left = level.read
            for name in FILTER_STEPS:
                left -= sum(
                    count
                    for reason, count in level.reasons.items()
                    if STEP_OF_GROUP.get(group_of(reason), "other rule sets") == name
                )
                made.append(("filter", name, left))
        elif level.stage != "score":
            made.append((level.stage, STEP_OF_STAGE.get(level.stage, level.stage), level.kept))
    first = max(found[0].read, 1) if found else 1
    return [Step(stage, name, kept, kept / first, REFINEDWEB.get(name)) for stage, name, kept in made]


def funnel_table(found: Sequence[Level]) -> list[str]:
    """The funnel in cumulative percent of documents, RefinedWeb's beside it."""
    lines = ["| stage | step | documents | left | RefinedWeb |", "|---|---|--:|--:|--:|"]
    for step in funnel(found):
        published = "" if step.published is None else f"{step.published:.2f} %"
        lines.append(f"| {step.stage} | {step.name} | {step.kept:,} | {step.share:.2%} | {published} |")
    return lines
