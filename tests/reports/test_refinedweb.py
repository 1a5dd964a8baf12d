"""Our funnel in RefinedWeb's steps: each document is counted in the step that lost it."""

from collections import Counter

from contract.funnel import Level
from reports.refinedweb import funnel, funnel_table


def level(stage: str, read: int, **reasons: int) -> Level:
    return Level(stage, read, read - sum(reasons.values()), 10, Counter(reasons), Counter())


FOUND = [
    level("crawl", 1000, url_blocked=200),
    level("extract", 800, language_prefilter=300, extract_empty=100),
    level("langid", 400, language=40),
    level("score", 360),
    level("filter", 360, top_ngram=60, too_few_words=20, hash_ratio=10, lines_removed=25, short_lines=5),
    level("dedup_url", 240, duplicate_url=40),
    level("dedup_fuzzy", 200, near_duplicate=50),
    level("dedup_substring", 150, substring_too_short=10),
    level("decontaminate", 140, contaminated=1),
]


def test_the_table() -> None:
    assert funnel_table(FOUND) == [
        "| stage | step | documents | left | RefinedWeb |",
        "|---|---|--:|--:|--:|",
        "| crawl | URL filter | 800 | 80.00% | 97.76 % |",
        "| extract | extraction | 700 | 70.00% | 96.31 % |",
        "| langid | language | 360 | 36.00% | 47.51 % |",
        "| filter | repetition | 300 | 30.00% | 35.97 % |",
        "| filter | document-wise | 270 | 27.00% | 30.15 % |",
        "| filter | line-wise | 245 | 24.50% | 23.34 % |",
        "| filter | other rule sets | 240 | 24.00% |  |",
        "| dedup_url | dedup_url | 200 | 20.00% |  |",
        "| dedup_fuzzy | fuzzy deduplication | 150 | 15.00% | 14.50 % |",
        "| dedup_substring | exact deduplication | 140 | 14.00% | 11.67 % |",
        "| decontaminate | decontaminate | 139 | 13.90% |  |",
    ]


def test_shares_are_of_what_the_first_stage_read() -> None:
    assert [step.share for step in funnel([level("crawl", 1), level("langid", 1, language=1)])] == [1.0, 0.0]
    assert [step.share for step in funnel([level("crawl", 0)])] == [0.0]
    assert funnel([]) == []
