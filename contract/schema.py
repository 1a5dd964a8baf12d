"""The columns of every table that the Spark plane writes, and the reasons for which stages drop documents."""

from enum import StrEnum

import pyarrow as pa

from contract.scores import SCORES


class Drop(StrEnum):
    """Why a stage other than `filter` dropped a document. The value is what manifests, logs and the funnel show.

    The reasons of `filter` stand with its rules (`contract.settings.filter`).
    """

    # crawl
    URL_BLOCKED_DOMAIN = "url_blocked_domain"
    URL_BLOCKED = "url_blocked"
    URL_STRICT_WORD = "url_strict_word"
    URL_HARD_WORD = "url_hard_word"
    URL_SOFT_WORDS = "url_soft_words"
    URL_CURATED_HOST = "url_curated_host"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    # extract
    LANGUAGE_PREFILTER = "language_prefilter"
    EXTRACT_EMPTY = "extract_empty"
    EXTRACT_TIMEOUT = "extract_timeout"
    EXTRACT_MEMORY = "extract_memory"
    EXTRACT_FAILED = "extract_failed"
    TEXT_TOO_LONG = "text_too_long"
    # langid
    LANGUAGE = "language"
    LANGUAGE_UNSURE = "language_unsure"
    # score
    SCORE_TIMEOUT = "score_timeout"
    # deduplication and after
    DUPLICATE_URL = "duplicate_url"
    NEAR_DUPLICATE = "near_duplicate"
    SUBSTRING_TOO_SHORT = "substring_too_short"
    CONTAMINATED = "contaminated"
    MIX_EPOCHS = "mix_epochs"


PAGES = pa.schema(
    [
        ("id", pa.string()),  # 32 hexadecimal digits, from snapshot, file and offset, so the same in every run
        ("url", pa.string()),
        ("snapshot", pa.string()),
        ("date", pa.timestamp("s", "UTC")),  # of the capture
        ("file", pa.string()),  # the crawl file's name within its snapshot
        ("offset", pa.int64()),  # of the record in that file
        ("digest", pa.string()),  # of the payload, hexadecimal
        ("charset", pa.string()),  # from the HTTP header, or null
        ("kind", pa.string()),  # html | text (WET)
        ("payload", pa.binary()),  # transfer and content encoding are decoded, the character set is not
    ]
)

DOCUMENTS = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("snapshot", pa.string()),
        ("date", pa.timestamp("s", "UTC")),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("digest", pa.string()),
        ("title", pa.string()),
        ("language", pa.string()),  # null before langid
        ("language_probability", pa.float32()),
        ("languages", pa.list_(pa.string())),  # langid's three likeliest, `language` first; `pack` drops them
        ("language_probabilities", pa.list_(pa.float32())),  # of `languages`, in the same order
        ("source", pa.string()),  # `crawl`, or the name of a curated source of the mixture
        ("text", pa.string()),
    ]
)

# The table that `score` writes; the rules of `filter` read only its numbers.
SCORED = pa.schema([*DOCUMENTS, *((name, pa.float64()) for name in SCORES)])

DROPS = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),  # a Drop, or the reason of a rule of `filter`
        ("value", pa.string()),  # the number, word or language that crossed the threshold
        ("duplicate_of", pa.string()),  # for duplicates, the id of the document that was kept
        ("snippet", pa.string()),  # the text's first SNIPPET_CHARS characters
    ]
)

SNIPPET_CHARS = 200
