"""What `estimate` takes for granted about crawls, and how fast the Spark stages have been seen to work."""

from dataclasses import dataclass

CRAWL_FILES = 90_000
FILE_BYTES = 1.08e9
FILE_PAGES = 33_333
"""A crawl of Common Crawl: about 90,000 WARC files of 1.08 GB and 3 billion pages, so 32 kB a page."""
DOCUMENT_TOKENS = 620
"""Of a document that is left at the end: RefinedWeb has 600 billion tokens in 968 million documents."""
DOCUMENT_BYTES = 2_700
"""Of its text: about 4.4 bytes a token in English."""


@dataclass(frozen=True)
class Rate:
    """How a Spark stage works, by the documents that enter it: those that the stage before has left.

    per_core: documents a second and core. written: bytes a document. kept: share of a crawl's pages that is left after
    the stage. bench: the command that printed the first two.
    """

    per_core: float
    written: float
    kept: float
    bench: str


PAGES = "python -m perf --crawl DIR"
CORPUS = "python -m perf.rates"

RATES: dict[str, Rate] = {
    "crawl": Rate(434, 31_700, 0.9776, PAGES),
    "extract": Rate(72, 1_030, 0.9631, PAGES),
    "langid": Rate(1_100, 118, 0.4751, PAGES),
    "score": Rate(1_335, 2_650, 0.4751, "python -m perf.scores"),
    "filter": Rate(7_100, 36, 0.2334, PAGES),
    "minhash_sign": Rate(2_373, 153, 0.2334, CORPUS),
    "dedup_url": Rate(2_307, 17, 0.2334, CORPUS),
    "dedup_fuzzy": Rate(6_715, 34, 0.1450, CORPUS),
    "dedup_substring": Rate(5_097, 6, 0.1167, CORPUS),
    "decontaminate": Rate(817_000, 0, 0.1167, CORPUS),
    "mix": Rate(6_283, 1_213, 0.1167, CORPUS),
    "pack": Rate(332, 1_190, 0.1167, CORPUS),
}
"""Measured on 22 November 2026, on two cores of an AMD EPYC that other work shared, so a quiet machine is faster.

DIR held the 693 pages of the test data (`html_gold`), and for `crawl`, `langid` and `filter` eight copies of them,
because Spark's start would hide these stages. `decontaminate` had no evaluation set, and does nothing then. The shares
kept are RefinedWeb's for English (Penedo et al. 2023, figure 2), whose line-wise corrections are part of `filter` here.
"""

SAMPLES: dict[str, Rate] = {
    "instructions": Rate(1_438, 192, 0, PAGES),
    "preferences": Rate(2_301, 252, 0, PAGES),
    "prompts": Rate(6_912, 62, 0, "python -m pipelines prompts --recipe RUN"),
    "tokenizer": Rate(595, 13, 0, CORPUS),
}
"""The stages that read only a part of the corpus, however large it is: examples, and documents of the sample."""
