"""The columns of every table that the Spark plane writes, and why stages drop documents and examples."""

from enum import StrEnum

import pyarrow as pa

from contract.scores import SCORES


class Drop(StrEnum):
    """Why a stage other than `filter` dropped a document or an example: what manifests, logs and the funnel show.

    The reasons of `filter` stand with its rules (`contract.settings.filter`), and a new stage may name its own in its
    file, as a `Reason`.
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
    # sources beside the crawl
    DAMAGED_FILE = "damaged_file"
    NOT_UTF8 = "not_utf8"
    # sources beside the crawl, instructions and preferences
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_TEXT = "missing_text"
    NOT_A_TEXT = "not_a_text"
    EMPTY_TEXT = "empty_text"
    BROKEN_TEXT = "broken_text"
    ROW_TOO_LONG = "row_too_long"
    # instructions and preferences
    NOT_A_DIALOGUE = "not_a_dialogue"
    PROMPTS_DIFFER = "prompts_differ"
    REPLIES_ARE_EQUAL = "replies_are_equal"
    REPLIES_TIE = "replies_tie"
    ONE_REPLY = "one_reply"
    UNKNOWN_SHAPE = "unknown_shape"
    NO_TEMPLATE = "no_template"
    WORKED_EXAMPLE = "worked_example"
    OVER_CAP = "over_cap"
    HELDOUT_TASK = "heldout_task"
    NOT_SELECTED = "not_selected"
    DUPLICATE = "duplicate"
    PROMPT_LEARNED = "prompt_learned"
    PROMPT_MEASURED = "prompt_measured"


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
        ("source", pa.string()),  # `crawl`, or a name of `curate.sources`
        ("text", pa.string()),
    ]
)

# What `langid` says of each document, beside its row.
LANGUAGES = pa.schema(
    [DOCUMENTS.field(name) for name in ("language", "language_probability", "languages", "language_probabilities")]
)

# The table that `score` writes; the rules of `filter` read only its numbers.
SCORED = pa.schema(
    [
        *DOCUMENTS,
        ("bytes", pa.int64()),  # of the text in UTF-8
        *((name, pa.float64()) for name in SCORES),
    ]
)

# What `curate` writes of the sources beside the crawl; the scores are null where no rule was asked.
CURATED = pa.schema([*SCORED, ("license", pa.string())])

# What `mix` writes of every source.
MIXED = pa.schema([*DOCUMENTS, ("license", pa.string())])

_TURNS = pa.list_(pa.struct([("role", pa.string()), ("text", pa.string())]))
_EXAMPLE = [
    ("id", pa.string()),  # 32 hexadecimal digits, from the texts, so the same wherever the example stands
    ("source", pa.string()),  # `file.jsonl line 3`, or the id of the document that the example was made of
]

_TASK = ("task", pa.string())  # what kind of question it is; empty if nothing says so

CHATS = pa.schema([*_EXAMPLE, _TASK, ("turns", _TURNS)])  # the last turn is an assistant's

PAIRS = pa.schema(
    [
        *_EXAMPLE,
        _TASK,
        ("prompt", _TURNS),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("chosen_score", pa.float64()),  # null where the replies were only ranked
        ("rejected_score", pa.float64()),
        ("weight", pa.float64()),  # of the pair in the loss of the reward model
    ]
)

PROMPTS = pa.schema(
    [
        *_EXAMPLE,
        _TASK,
        ("prompt", _TURNS),  # the last turn is a user's
        ("answers", pa.list_(pa.string())),  # any of them is right; empty if none is known
    ]
)

# What people compare in one round of feedback; `contract.feedback` says how they vote on it.
RATED = pa.schema(
    [
        ("id", pa.string()),  # 32 hexadecimal digits, from the texts
        ("round", pa.int32()),
        _TASK,
        ("prompt", _TURNS),  # the last turn is a user's
        (
            "replies",
            pa.list_(
                pa.struct(
                    [
                        ("text", pa.string()),
                        # people who vote see nothing of the rest
                        ("model", pa.string()),  # the fingerprint or address of what wrote the reply
                        ("temperature", pa.float64()),
                        ("reward", pa.float64()),  # by the recipe's `sample.judge`; null without one
                    ]
                )
            ),
        ),
        ("gold", pa.list_(pa.int32())),  # the known rank of each reply, 1 is the best; null if none is known
    ]
)

# What a model of ours was asked as a judge of such items; `evals.kept` makes votes of it.
JUDGED = pa.schema(
    [
        ("item", pa.string()),  # of RATED
        ("step", pa.string()),  # comparison, critique, revision, or choice between a reply and its revision
        ("showing", pa.int32()),  # 0 or 1, of comparisons and choices: the second has the reverse order
        ("model", pa.string()),  # the address of the judge
        ("principle", pa.string()),  # empty of comparisons
        ("prompt", _TURNS),
        ("answer", pa.string()),
        ("ranks", pa.list_(pa.int32())),  # of the replies in the item's order; null if the answer ranks nothing
    ]
)

DROPS = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),  # of the page; of an example, its source
        ("stage", pa.string()),
        ("reason", pa.string()),  # a Drop, or the reason of a rule of `filter`
        ("value", pa.string()),  # the number, word or language that crossed the threshold
        ("duplicate_of", pa.string()),  # for duplicates, the id of the document or example that was kept
        ("snippet", pa.string()),  # the text's first SNIPPET_CHARS characters
        ("language", pa.string()),  # null if it was not identified yet, and of examples
    ]
)

_PLACE = [
    ("file", pa.string()),  # its name in the attempt: a file of documents or of drops
    ("row", pa.int32()),  # of that file
    ("reason", pa.string()),  # why it was dropped, or null if it was kept
    ("language", pa.string()),
]

# Where each document stands that a task dropped, and each that `score` and `curate` kept; `pipelines.spark.places` says
# how these two are made and read.
PLACES = pa.schema([("id", pa.binary(16)), *_PLACE])  # sorted by id
ADDRESSES = pa.schema([("address", pa.string()), *_PLACE])  # sorted by `pipelines.text.surt` of the URL

# What `filter` counts for every step that a threshold can take; `pipelines.rules.steps` says what a step is.
STEPS = pa.schema(
    [
        ("setting", pa.string()),  # the dotted key of the threshold below `filter`
        ("step", pa.float64()),
        ("documents", pa.int64()),  # whose score is at this step, of those in whose language the rule is asked
        ("alone", pa.int64()),  # those of them that no other rule drops, so that this threshold decides
        ("words", pa.int64()),  # of these
        ("ids", pa.list_(pa.binary(16))),  # the smallest ids of these
    ]
)

SNIPPET_CHARS = 200
