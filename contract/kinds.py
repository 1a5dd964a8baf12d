"""The kinds of file that a task commits. A manifest names the kind of each file, and readers ask for files by kind."""

from enum import StrEnum


class Kind(StrEnum):
    """What a committed file holds. Tables are Parquet; `contract.schema` has their columns."""

    # tables of the corpus
    PAGES = "pages"
    DOCUMENTS = "documents"  # rows with a text
    INDEX = "index"  # the rows of a documents file that are still in the corpus
    CUTS = "cuts"  # byte ranges that are cut out of texts of a documents file
    DROPS = "drops"  # dropped documents or examples, each with its reason
    PLACES = "places"  # where documents stand in files of the same attempt, sorted by id
    ADDRESSES = "addresses"  # the same, sorted by address
    STEPS = "steps"  # how many documents each step of a threshold of `filter` would move
    HELDOUT = "heldout"  # documents that no model trains on
    SIGNATURES = "signatures"  # keys that near duplicates share
    EDGES = "edges"  # links between near duplicates
    MATCHES = "matches"  # documents that share text with a benchmark
    NGRAMS = "ngrams"  # the n-grams that a benchmark shares with documents
    ITEMS = "items"  # the items of a benchmark, each with what was found of it
    CONTAMINATION = "contamination"  # the report of a benchmark's leaks
    # examples for chat models
    CHATS = "chats"
    HELDOUT_CHATS = "heldout_chats"
    PAIRS = "pairs"  # preferences
    HELDOUT_PAIRS = "heldout_pairs"
    PROMPTS = "prompts"  # without a reply: PPO samples replies to them
    RATED = "rated"  # prompts with replies that people compare
    JUDGED = "judged"  # what a model of ours was asked about them as a judge, and what it answered
    # what training reads
    TOKENIZER = "tokenizer"
    SPECIAL_TOKENS = "special_tokens"  # role -> token of the tokenizer
    BASE_TOKENIZER = "base_tokenizer"  # the brought one, as it was before anything was added
    FERTILITY = "fertility"  # how many tokens a tokenizer makes of each language
    TOKENS = "tokens"  # token ids; `contract.shards` says how these five lie together
    HELDOUT_TOKENS = "heldout_tokens"
    TOKEN_INDEX = "token_index"  # where each document of a file of tokens begins
    TOKEN_IDS = "token_ids"  # the ids of these documents
    ROWS = "rows"  # how rows of one sequence length are cut from a file of tokens
    # models
    MODEL = "model"
    CRITIC = "critic"
    EXPORT = "export"
    CHECKPOINT = "checkpoint"
    # what people and pages read
    METRICS = "metrics"  # curves
    CURVES = "curves"  # the same, thinned for pages
    EVENTS = "events"  # the curves as TensorBoard reads them
    SAMPLES = "samples"
    CALIBRATION = "calibration"  # how sure a reward model is and how often right, and the pairs it gets most wrong
    MEASURES = "measures"  # of one model, document by document and question by question
    COMPARISON = "comparison"  # of the variants of a recipe
    RECORDS = "records"  # each item of a benchmark with a model's output, what was found in it, and the verdict
    REPORT = "report"  # what all models can do, to be read or to be computed with
    # written and read within one attempt, never committed
    DEALT = "dealt"  # documents on their way to the shards of the mixture
    REMOVED = "removed"  # the duplicates of one documents file


OF_SHARDS = frozenset({Kind.TOKENS, Kind.HELDOUT_TOKENS, Kind.TOKEN_INDEX, Kind.TOKEN_IDS, Kind.ROWS})
"""The kinds of the files of a shard of tokens."""
