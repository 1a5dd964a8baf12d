"""The settings of every stage: one small frozen class each, composed by `contract.recipe.Recipe`.

Thresholds cite their source; a value that several sources dispute says whose it is. A field made with `runtime_only` says how
fast or where a stage runs and never what it produces, so it stays out of the stage's fingerprint.
"""

import os
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from contract.printable import HIDDEN
from contract.scores import SCORES

MOST = 1 << 40  # of pages, bytes, tokens, steps: more than anybody has, and it still adds up in 64 bits


def _number(given: Any) -> Any:
    """YAML's `true` is no number."""
    if isinstance(given, bool):
        raise ValueError(f"should be a number, not {str(given).lower()}")
    return given


def _plain(text: str) -> str:
    """No file, server or table can be named with a control character, and a line of a log would be torn by it."""
    if HIDDEN.search(text):
        raise ValueError(f"should hold no control characters, got {text[:80]!r}")
    return text


def _absolute(uri: str) -> str:
    """A relative path means the same to every later task, wherever it runs."""
    return uri if "://" in uri else os.path.abspath(os.path.expanduser(uri))


def _public(uri: str) -> str:
    """A source's address is copied into Airflow's database and into recipes, so it holds no secret; and paths are put after it."""
    if uri.lower().startswith(("http://", "https://")) and set(uri) & set("@?#"):
        raise ValueError(
            "should be a plain address, without user:password@, ? and #; put name and password into ~/.netrc, where they are found"
        )
    return uri


Real = Annotated[float, BeforeValidator(_number)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
BelowOne = Annotated[Real, Field(ge=0, lt=1)]  # a share that leaves some; AdamW's betas, of which it refuses 1
NotNegative = Annotated[Real, Field(ge=0, le=1e12)]  # a threshold that nothing reaches switches its rule off
Weight = Annotated[Real, Field(ge=0, le=1e6)]  # of a term in a loss; beyond it the other terms vanish in float32
Rate = Annotated[Real, Field(gt=0, le=1)]  # AdamW moves a weight by about this much a step
Epochs = Annotated[Real, Field(ge=0, le=100)]  # of text; more than 40 add nothing (Muennighoff et al. 2023)
Positive = Annotated[int, Field(gt=0, le=MOST, strict=True)]  # strict: `true` is no number
Count = Annotated[int, Field(ge=0, le=MOST, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32, strict=True)]  # what every generator of random numbers takes
Batch = Annotated[int, Field(gt=0, le=1 << 20, strict=True)]  # rows of a step; GPT-3's had 1,600 sequences
Rows = Annotated[int, Field(gt=0, le=1 << 24, strict=True)]  # held in one process's memory
Length = Annotated[int, Field(gt=0, le=1 << 20, strict=True)]  # tokens in one sequence, which attention reads at once
Passes = Annotated[int, Field(gt=0, le=1000, strict=True)]  # over the same data
Pieces = Annotated[
    int, Field(gt=0, le=100_000, strict=True)
]  # tasks or files, of each of which a driver keeps a record
Text = Annotated[str, AfterValidator(_plain)]
_ABSOLUTE = AfterValidator(_absolute)
Uri = Annotated[str, Field(min_length=1), AfterValidator(_plain), _ABSOLUTE]
"""What is read or written somewhere, as `Settings.uris` lists it. Whatever is opened has this type."""


def runtime_only(default: Any, **constraints: Any) -> Any:
    """A field that changes speed or place but not output; `fingerprint` leaves it out."""
    return Field(default, json_schema_extra={"runtime_only": True}, **constraints)


class Settings(BaseModel):
    """Frozen, and strict about names: a misspelt key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """The settings that decide the output, as plain JSON values, without the run-time-only ones."""
        kept: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("runtime_only"):
                continue
            value = getattr(self, name)
            kept[name] = (
                value.identity() if isinstance(value, Settings) else self.model_dump(mode="json", include={name})[name]
            )
        return kept

    def outside(self) -> dict[str, str]:
        """Files or folders that the stage reads from outside the pipeline: key of the setting -> URI. They are part of its identity."""
        return {}

    def uris(self, above: str = "") -> Iterator[tuple[str, str]]:
        """(dotted key, URI) of everything that these settings and those below them say to open."""
        for name, field in type(self).model_fields.items():
            yield from _uris(f"{above}{name}", getattr(self, name), (field.annotation, *field.metadata))


def _uris(key: str, value: Any, kind: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    """`kind` is the field's annotation and what stands beside it."""
    if isinstance(value, Settings):
        yield from value.uris(f"{key}.")
    elif isinstance(value, dict | tuple):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _uris(f"{key}.{name}", one, kind)
    elif isinstance(value, str):
        parts = list(_parts_of(kind))
        if _ABSOLUTE in parts and value not in parts:  # a word that the type itself names is no URI
            yield key, value


def _parts_of(kind: tuple[Any, ...]) -> Iterator[Any]:
    """What a type is made of, down to its validators and literals."""
    for one in kind:
        yield one
        yield from _parts_of(get_args(one))


# ---------------------------------------------------------------- the Spark plane


class Crawl(Settings):
    """Where the pages come from, how much of them, and which URLs are refused before anything is stored."""

    source: Annotated[Uri, AfterValidator(_public)] = runtime_only("https://data.commoncrawl.org")
    """A Common Crawl mirror (http, https, s3), or a folder or store prefix that holds WARC or WET files. Names and passwords of HTTP servers
    stand in `~/.netrc`, never here.

    A folder's files are part of a result's identity by what they hold, wherever it lies; a mirror's by their address, without password
    and query (see `contract.sources.Source`).
    """
    files_per_segment: Pieces | None = runtime_only(None)
    """None: 10, doubled until a run has at most `contract.sources.MAX_SEGMENTS` of them."""
    max_files: Positive | None = runtime_only(None)
    """How many files, and so which segments there are; a segment's identity is its own files."""
    max_bytes_per_file: Positive | None = None
    """Read only the head of each file; the last, cut record is not counted as damage."""
    max_payload_bytes: Annotated[int, Field(gt=0, le=1 << 30, strict=True)] = 8 << 20
    """At most 1 GiB, because a worker holds a page whole. A larger page is dropped with its reason; 99.99 % of Common Crawl's pages are under 1 MiB, which it truncates at."""
    blocklists: tuple[Uri, ...] = ()
    """The folder of each category to block, with lists named `domains`, `urls` or `hosts`: [ut1/adult, ut1/phishing]. UT1 as a whole is refused.

    A line of `domains` or `hosts` is a domain, a line of a hosts file, or a filter `||a.com^`; a line of `urls` is a URL.
    """
    strict_words: tuple[Text, ...] = ()
    """RefinedWeb: dropped when the URL without `-` and `.` contains one, whatever the case."""
    hard_words: tuple[Text, ...] = ()
    """RefinedWeb: dropped when one stands in the URL as a whole word."""
    soft_words: tuple[Text, ...] = ()
    """RefinedWeb: dropped when two distinct ones stand in the URL as whole words."""
    skip_curated_hosts: bool = True
    """RefinedWeb: leave out hosts whose curated dumps are the better copy (Wikipedia, arXiv, GitHub, ...)."""
    retries: Annotated[int, Field(gt=0, le=100, strict=True)] = runtime_only(8)
    """Of a download. They wait up to a minute each: a hundred are an hour and a half."""
    connections_per_host: Annotated[int, Field(gt=0, le=256, strict=True)] = runtime_only(8)
    """Downloads from one host that are open at a time on one machine, over all of its workers."""
    split_bytes: Annotated[int, Field(ge=1024, le=MOST, strict=True)] = runtime_only(256 << 20)
    """A larger file is read by several Spark tasks, each the records that begin in its stretch; one gzip member cannot be split."""

    def outside(self) -> dict[str, str]:
        return {f"blocklists.{index}": uri for index, uri in enumerate(self.blocklists)}


class Extract(Settings):
    """Main content from HTML."""

    extractor: Literal["trafilatura", "resiliparse", "justext"] = "trafilatura"
    """trafilatura asks its fall-back extractors (readability, jusText) only for pages whose text it seems to have missed: F1 on the article
    benchmark .957 (never .957, always .952), on trafilatura's multilingual set .922 (.918, .923), in a tenth more time than never."""
    min_chars: Positive = 25
    prefilter_probability: Fraction = 0.1
    """Skip pages whose plain text is in none of `langid.languages` with at least this probability; 0 extracts every page."""
    seconds_per_page: Annotated[Real, Field(ge=0.001, le=3600)] = 10.0
    """Of processor time, from a millisecond, below which the system's clock means no limit, to an hour."""
    memory_mb_per_page: Annotated[int, Field(gt=0, le=1 << 20, strict=True)] = 1024
    """At most a tebibyte."""


LANGUAGE_MODEL = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
"""sha256 of lid.176.ftz, fastText's language identification model: part of what decides a page's language."""


class Langid(Settings):
    """fastText lid.176 on the extracted text."""

    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...] = ("en",)
    """ISO 639 codes to keep; an empty list keeps every language."""
    min_probability: Fraction = 0.65
    """RefinedWeb 0.65; BLOOM 0.8; CCNet 0.5."""
    sample_chars: Positive = 2000
    """Only the first characters are classified: 3.5 times as fast, the same answer on 99.1 % of pages."""


class LineCorrection(Settings):
    """RefinedWeb's line-wise corrections. What they may take of a document is `filter.max_removed_word_fraction`."""

    enabled: bool = True
    max_upper_case_fraction: Fraction = 0.5
    short_line_words: Positive = 10


class C4Lines(Settings):
    """C4's line rules. Minimum words as C4's paper has them (3; its released code and DCLM say 5)."""

    enabled: bool = False
    terminal_punctuation: bool = True
    min_words_per_line: Count = 3
    max_word_chars: Positive = 1000


class Score(Settings):
    """Corrects and masks the text, then measures everything that a rule of `filter` may judge. No document goes here."""

    lines: LineCorrection = LineCorrection()
    c4_lines: C4Lines = C4Lines()
    short_line_chars: Positive = 30
    """FineWeb: a line of fewer characters is short."""
    long_line_chars: Positive = 200
    """mC4: a line of as many characters is long."""
    mask: tuple[Literal["email", "ip", "phone"], ...] = ("email", "ip", "phone")
    """Personal data that is replaced by a placeholder. Of IP addresses only public ones are masked."""
    bad_words: Uri | None = None
    """A folder with one file a language, named by its code, one word or phrase a line (the format of LDNOOBW, which C4 used)."""
    perplexity_model: Uri | None = None
    """A KenLM model (ARPA or binary) over lower-cased words; needs the package kenlm. Without one perplexity is not measured."""

    def outside(self) -> dict[str, str]:
        named = {"bad_words": self.bad_words, "perplexity_model": self.perplexity_model}
        return {key: uri for key, uri in named.items() if uri is not None}


TopN = Annotated[int, Field(ge=2, le=4, strict=True)]
DuplicateN = Annotated[int, Field(ge=5, le=10, strict=True)]


class GopherRepetition(Settings):
    """Gopher (MassiveText) table A1: drop when a fraction is above its threshold."""

    enabled: bool = True
    duplicate_line_fraction: Fraction = 0.30
    duplicate_paragraph_fraction: Fraction = 0.30
    duplicate_line_char_fraction: Fraction = 0.20
    duplicate_paragraph_char_fraction: Fraction = 0.20
    top_ngram_char_fraction: dict[TopN, Fraction] = {2: 0.20, 3: 0.18, 4: 0.16}
    duplicate_ngram_char_fraction: dict[DuplicateN, Fraction] = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    """By n; a recipe that names one n keeps the others. 1.0 switches an n off."""

    @field_validator("top_ngram_char_fraction", "duplicate_ngram_char_fraction", mode="before")
    @classmethod
    def _differences(cls, given: Any, info: ValidationInfo) -> Any:
        known = cls.model_fields[info.field_name or ""].default
        if not isinstance(given, dict):
            return given
        return known | {int(n) if isinstance(n, str) and n.isdigit() else n: value for n, value in given.items()}


class GopherQuality(Settings):
    """Gopher's document quality rules, without the word count, which is `filter.min_words` and `filter.max_words`."""

    enabled: bool = True
    min_mean_word_chars: NotNegative = 3
    max_mean_word_chars: NotNegative = 10
    max_hash_ratio: NotNegative = 0.1
    max_ellipsis_ratio: NotNegative = 0.1
    max_bullet_line_fraction: Fraction = 0.9
    max_ellipsis_line_fraction: Fraction = 0.3
    min_alpha_word_fraction: Fraction = 0.8
    min_stop_words: Count = 2

    @model_validator(mode="after")
    def _ordered(self) -> "GopherQuality":
        if self.min_mean_word_chars > self.max_mean_word_chars:
            raise ValueError(
                f"min_mean_word_chars {self.min_mean_word_chars} is above max_mean_word_chars {self.max_mean_word_chars}"
            )
        return self


class C4(Settings):
    """C4's document rules; its line rules are `score.c4_lines`. Minimum sentences as C4's paper has them (5; DCLM says 3)."""

    enabled: bool = False
    min_sentences: Count = 5
    max_bad_words: Count = 0
    """Occurrences of a listed word; judged where `score.bad_words` names lists."""


class MC4(Settings):
    """mC4's rule, for languages whose sentences end in other signs than C4's: enough lines of `score.long_line_chars`."""

    enabled: bool = False
    min_long_lines: Count = 3


class FineWeb(Settings):
    """FineWeb's additional rules. 0.1 for characters in duplicated lines is the paper's value."""

    enabled: bool = True
    min_punctuated_line_fraction: Fraction = 0.12
    max_duplicate_line_char_fraction: Fraction = 0.1
    max_short_line_fraction: Fraction = 0.67


class Bloom(Settings):
    """BLOOM's rules (ROOTS, appendix A) with its English thresholds."""

    enabled: bool = False
    max_char_repetition: Fraction = 0.106
    max_word_repetition: Fraction = 0.19
    max_special_char_fraction: Fraction = 0.4
    min_stop_word_fraction: Fraction = 0.3
    max_bad_word_fraction: Fraction = 0.01
    max_perplexity: Annotated[Real, Field(gt=0, le=1e12)] = 1500
    """Judged where `score.perplexity_model` names a model."""


class Filter(Settings):
    """Which rule sets judge a document, and their thresholds, in RefinedWeb's order: repetition, length and quality, line corrections."""

    min_words: Count = 50
    max_words: Positive = 100_000
    """Gopher: 50 to 100,000 words. In scripts without spaces, as many characters as that many words have on average."""
    max_removed_word_fraction: Fraction = 0.05
    """RefinedWeb: drop when more than this fraction of the words fell to line corrections."""
    gopher_repetition: GopherRepetition = GopherRepetition()
    gopher_quality: GopherQuality = GopherQuality()
    c4: C4 = C4()
    mc4: MC4 = MC4()
    fineweb: FineWeb = FineWeb()
    bloom: Bloom = Bloom()

    @model_validator(mode="after")
    def _ordered(self) -> "Filter":
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}")
        return self


MINHASH_PRESETS: dict[str, dict[str, int]] = {
    "fineweb": {"ngram": 5, "bands": 14, "rows": 8},
    "refinedweb": {"ngram": 5, "bands": 450, "rows": 20},
    "slimpajama": {"ngram": 13, "bands": 9, "rows": 13},
}
"""Words a shingle, bands and rows. SlimPajama's are what datasketch derives from a threshold of 0.8 and 128 permutations."""


def _measured(name: str) -> str:
    known = ("language_probability", *SCORES)
    if name.removeprefix("-") not in known:
        raise ValueError(
            f"{name[:80]!r} is not measured; there are {', '.join(known)}, and each with a minus before it where less is better"
        )
    return name


class MinhashSign(Settings):
    """The keys under which near duplicates meet: MinHash bands, or SimHash."""

    method: Literal["minhash", "simhash"] = "minhash"
    preset: Literal["fineweb", "refinedweb", "slimpajama"] | None = None
    """Sets ngram, bands and rows: 5, 14 x 8 (also the default), 5, 450 x 20, or 13, 9 x 13."""
    ngram: Annotated[int, Field(gt=0, le=128, strict=True)] = 5
    """Words a shingle; pages share no longer ones but where `dedup_substring` finds them."""
    bands: Annotated[int, Field(gt=0, le=4096, strict=True)] = 14
    rows: Annotated[int, Field(gt=0, le=256, strict=True)] = 8
    """bands x rows hashes are computed of each shingle: at most 65,536, seven times RefinedWeb's."""
    distance: Annotated[int, Field(ge=1, le=8, strict=True)] = 4
    """SimHash: at most this many of 64 bits differ (BLOOM: 4, with ngram 6)."""
    quality: Annotated[str, AfterValidator(_measured)] = "language_probability"
    """What `dedup_fuzzy.keep: best_quality` compares: this, or a score (`contract/scores.py`). More is better; with a minus before
    its name, as in `-perplexity`, less is."""
    seed: Seed = 1

    @property
    def quality_column(self) -> str:
        return self.quality.removeprefix("-")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        name = given.get("preset") if isinstance(given, dict) else None
        preset = MINHASH_PRESETS.get(name) if isinstance(name, str) else None
        if preset and given.get("method") == "simhash":
            raise ValueError(f"preset {given['preset']} is MinHash's; method simhash has ngram and distance")
        for key, value in (preset or {}).items():
            if given.get(key, value) != value:
                raise ValueError(
                    f"{key} {given[key]} contradicts preset {given['preset']}, which has {value}; name one of the two"
                )
        return given | preset if preset else given

    @model_validator(mode="after")
    def _computable(self) -> "MinhashSign":
        if self.bands * self.rows > 1 << 16:
            raise ValueError(f"bands {self.bands} x rows {self.rows} are more than {1 << 16:,} hashes of each shingle")
        return self


class DedupUrl(Settings):
    """One document per canonical URL."""

    keep: Literal["newest", "first"] = "newest"


class DedupFuzzy(Settings):
    """One document per cluster of near duplicates."""

    keep: Literal["longest", "newest", "best_quality", "smallest_id"] = "longest"
    scope: Literal["snapshot", "global"] = "snapshot"
    """Compare documents of one crawl (FineWeb), or of all crawls of the run."""
    min_jaccard: Annotated[Real, Field(gt=0, le=1)] | None = None
    """Link two candidates only if their shingles' true Jaccard similarity is at least this; unset links all candidates."""
    pairs_per_document: Pieces = 16
    """Where links are checked, and more documents than this share a key (with SimHash: and are near), each is compared with this many."""
    driver_edge_limit: Annotated[int, Field(gt=0, lt=1 << 31, strict=True)] = runtime_only(20_000_000)
    """Up to this many edges the driver finds the components with scipy, whose indices have 31 bits; above it Spark does."""


class DedupSubstring(Settings):
    """Lee et al. 2021: cut what stands at two or more places."""

    min_tokens: Annotated[int, Field(ge=2, le=1 << 20, strict=True)] = 50
    cut: Literal["all", "keep_first"] = "keep_first"
    """Of a held-out document only what held-out ones repeat among themselves is cut; it counts as first."""
    passes: Passes = 1
    """Cutting can make new matches; 2 reproduces the paper."""
    min_chars: Count = 20
    """A document with less text left is dropped."""
    tokenizer: Uri | None = None
    """A tokenizer.json whose ids are the tokens; without one, tokens are the words that white space separates, which finds nothing in
    languages written without spaces."""
    one_process_bytes: Annotated[int, Field(ge=0, lt=1 << 31, strict=True)] = runtime_only(48 << 20)
    """Up to this much text, at most 2 GiB, one suffix array on the driver does it; above it Spark's workers search together."""

    def outside(self) -> dict[str, str]:
        return {"tokenizer": self.tokenizer} if self.tokenizer else {}


class Decontaminate(Settings):
    """Keep evaluation sets out: documents that share words in a row with one are dropped or cut."""

    benchmarks: dict[Text, Uri] = {}
    """Name of the benchmark -> a file or folder of JSONL, JSON, CSV, TSV or Parquet, packed (gz, xz, bz2, zip, tar) or not. Each line,
    element or row is one item; its strings are its text."""
    ngram: Annotated[int, Field(ge=8, le=50, strict=True)] = 13
    """Words in a row. GPT-3: 13."""
    min_words: Annotated[int, Field(ge=5, le=50, strict=True)] = 8
    """An item, or a text of one, that is shorter than `ngram` is sought as a whole, down to this many words. GPT-3's smallest n: 8."""
    action: Literal["drop", "cut"] = "drop"
    """`cut` removes what matches and 200 characters on either side, and keeps pieces of at least 200 characters (GPT-3)."""
    min_coverage: Fraction = 0.0
    """Act only where a document holds this part of an item or of a whole text of it: 0 is any n-gram (GPT-3), 0.8 is exact leakage
    (Llama 2). The report tells the two apart in any case."""

    @model_validator(mode="after")
    def _ordered(self) -> "Decontaminate":
        if self.min_words > self.ngram:
            raise ValueError(f"min_words {self.min_words} is above ngram {self.ngram}")
        return self

    def outside(self) -> dict[str, str]:
        return {f"benchmarks.{name}": uri for name, uri in self.benchmarks.items()}


class MixSource(Settings):
    """One curated source beside the crawl: JSONL (gz or not) with a `text` field."""

    uri: Uri
    epochs: Epochs = 1.0


class Mix(Settings):
    """What the corpus is made of, how often each source is seen, and what is held out."""

    crawl_epochs: Epochs = 1.0
    sources: dict[Text, MixSource] = {}
    heldout_fraction: BelowOne = 0.05
    """Of the documents that the epochs take, and whatever has the same text as one. The same ones in every run, whatever the seed;
    `dedup_substring` cuts no text of theirs for training text's sake."""
    seed: Seed = 0
    shards: Pieces = 8

    @field_validator("sources")
    @classmethod
    def _named(cls, sources: dict[str, MixSource]) -> dict[str, MixSource]:
        if "crawl" in sources:
            raise ValueError("`crawl` is the crawl's own name; name the source something else")
        return sources

    def outside(self) -> dict[str, str]:
        return {f"sources.{name}.uri": source.uri for name, source in self.sources.items()}


class Tokenizer(Settings):
    """Byte-level BPE trained on the mixture. Special tokens take the first ids."""

    vocab_size: Annotated[int, Field(ge=300, le=1 << 20, strict=True)] = 32_000
    """At most a million; the largest published vocabularies have a quarter of that."""
    sample_bytes: Positive = 1 << 30
    min_frequency: Positive = 2


class Pack(Settings):
    """Documents as token ids, one after the other with end-of-text between, in sequences of equal length."""

    seq_len: Annotated[int, Field(ge=8, le=1 << 20, strict=True)] = 2048
    shard_tokens: Annotated[int, Field(gt=0, le=1 << 32, strict=True)] = 1 << 27
    """At most 16 GiB, which a worker writes as one file."""


# ---------------------------------------------------------------- the GPU plane


class Model(Settings):
    """A LLaMA-style decoder: RMSNorm before each block, SwiGLU, rotary positions, grouped-query attention."""

    layers: Annotated[int, Field(gt=0, le=1024, strict=True)] = 12
    d_model: Annotated[int, Field(gt=0, le=1 << 17, strict=True)] = 768
    heads: Annotated[int, Field(gt=0, le=1024, strict=True)] = 12
    kv_heads: Annotated[int, Field(gt=0, le=1024, strict=True)] = 12
    d_ff: Annotated[int, Field(gt=0, le=1 << 19, strict=True)] = 2048
    """The upper bounds are about eight times Llama 3.1 405B's 126 layers, 16,384, 128 heads and 53,248."""
    rope_theta: Annotated[Real, Field(gt=1, le=1e9)] = 10_000.0
    """Llama 3: 500,000. At 1 every position is rotated alike."""
    tie_embeddings: bool = True

    @model_validator(mode="after")
    def _divides(self) -> "Model":
        if self.d_model % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"heads {self.heads} must divide d_model {self.d_model}, and kv_heads {self.kv_heads} must divide heads"
            )
        return self


class Optim(Settings):
    """AdamW and its schedule. Defaults are GPT-3's and LLaMA's (betas 0.9/0.95, weight decay 0.1, clip 1.0)."""

    lr: Rate = 3e-4
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.95)
    weight_decay: Annotated[Real, Field(ge=0, le=10)] = 0.1
    clip: Annotated[Real, Field(gt=0, le=1e12)] = 1.0
    warmup_fraction: Fraction = 0.02
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_lr_fraction: Fraction = 0.1


class Engine(Settings):
    """How DeepSpeed runs a stage. The batch is fixed by the recipe; the number of processes only splits it."""

    dtype: Literal["fp32", "bf16"] = "fp32"
    zero_stage: Annotated[int, Field(ge=0, le=3, strict=True)] = runtime_only(0)
    offload_optimizer: bool = runtime_only(False)
    processes: Annotated[int, Field(gt=0, le=1024, strict=True)] = runtime_only(1)
    """Processes that `deepspeed` starts on this machine: one a GPU, or CPU processes where there is none."""
    micro_batch: Batch = runtime_only(8)
    """Sequences a process holds at once; the rest of the batch is accumulated."""
    activation_checkpointing: bool = runtime_only(False)
    checkpoint_steps: Positive = runtime_only(200)


class Pretrain(Settings):
    """Next-token prediction on the packed corpus."""

    model: Model = Model()
    optim: Optim = Optim()
    engine: Engine = Engine()
    steps: Positive = 10_000
    batch: Batch = 256
    """Sequences a step, over all processes."""
    eval_sequences: Rows = 256
    seed: Seed = 0


class Examples(Settings):
    """What a model is tuned on."""

    data: Literal["synthetic"] | Uri = "synthetic"
    """A file of examples, or `synthetic`: made by rule from the corpus itself."""
    max_examples: Positive | None = None

    def outside(self) -> dict[str, str]:
        return {} if self.data == "synthetic" else {"data": self.data}


class Sft(Examples):
    """Instruction tuning on JSONL or JSON in the Alpaca format; loss on the response tokens only."""

    optim: Optim = Optim(lr=2e-5, weight_decay=0.0)
    engine: Engine = Engine()
    epochs: Passes = 2
    batch: Batch = 64
    max_tokens: Length = 1024
    seed: Seed = 0


class Reward(Examples):
    """Pairwise reward model on JSONL with `chosen` and `rejected` (hh-rlhf): loss = -log sigmoid(r_chosen - r_rejected)."""

    heldout_fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.2
    optim: Optim = Optim(lr=1e-5, weight_decay=0.0)
    engine: Engine = Engine()
    epochs: Passes = 1
    batch: Batch = 32
    """Pairs a step, over all processes."""
    max_tokens: Length = 512
    seed: Seed = 0


class Gate(Settings):
    """PPO starts only when the reward model's held-out accuracy is this good at the interval's lower end."""

    min_accuracy: Fraction = 0.55
    confidence: Annotated[Real, Field(gt=0, lt=1)] = 0.95


class Ppo(Settings):
    """InstructGPT's objective: reward, a KL penalty per token against the SFT model, and a share of pretraining loss."""

    steps: Positive = 1000
    rollout_batch: Batch = 64
    """Prompts a step, over all processes."""
    minibatch: Batch = 32
    inner_epochs: Passes = 2
    max_prompt_tokens: Length = 256
    max_response_tokens: Length = 128
    temperature: Annotated[Real, Field(ge=0.01, le=100)] = 1.0
    """From all but greedy to all but uniform."""
    gamma: Fraction = 1.0
    lam: Fraction = 0.95
    clip: Annotated[Real, Field(gt=0, le=1e6)] = 0.2
    value_clip: Annotated[Real, Field(gt=0, le=1e6)] = 0.2
    value_coef: Weight = 0.5
    entropy_coef: Weight = 0.0
    kl_coef: Weight = 0.05
    kl_target: Annotated[Real, Field(gt=0, le=1e6)] | None = None
    """Adaptive KL coefficient (Ziegler et al. 2019) towards this many nats a response; unset keeps it fixed."""
    ptx_coef: Weight = 0.0
    ptx_sequences: Batch = 4
    no_eot_penalty: Weight = 1.0
    whiten_rewards: bool = False
    policy_optim: Optim = Optim(lr=1e-6, weight_decay=0.0, schedule="constant")
    value_optim: Optim = Optim(lr=5e-6, weight_decay=0.0, schedule="constant")
    engine: Engine = Engine()
    seed: Seed = 0


class Evaluate(Settings):
    """Every model of the run on the same held-out text and prompts."""

    sequences: Rows = 256
    prompts: Rows = 64
    max_response_tokens: Length = 128
    samples: Rows = 3
    engine: Engine = Engine()
    seed: Seed = 0


class Export(Settings):
    """The last model as a folder that `transformers` loads."""

    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"


# ---------------------------------------------------------------- where it runs


MEMORY = re.compile(r"([1-9][0-9]{0,12})([kmgt])", re.IGNORECASE)
LEAST_MEMORY, MOST_MEMORY = 512 << 20, 64 << 40  # Spark wants 450 MiB at least; no machine has more than 64 TiB
MASTER = re.compile(
    r"local|local\[(?P<cores>\*|[1-9]\d{0,8})(,[1-9]\d{0,4})?\]|local-cluster\[\d{1,4},\d{1,4},\d{1,8}\]|yarn"
    r"|spark://[^\s/,:]+:\d{1,5}(,[^\s/,:]+:\d{1,5})*|k8s://(https?://)?[^\s/]+/?"
)
MOST_CORES = 1024  # a Python process each


def memory_bytes(text: str) -> int:
    """Bytes of an amount as Java writes it: 512m, 4g. Raises ValueError for other text, and for what no Spark could start with."""
    found = MEMORY.fullmatch(text)
    if not found:
        raise ValueError(f"should be a whole number and k, m, g or t, as in 4g, got {text[:80]!r}")
    size = int(found[1]) << {"k": 10, "m": 20, "g": 30, "t": 40}[found[2].lower()]
    if not LEAST_MEMORY <= size <= MOST_MEMORY:
        raise ValueError(f"should be from 512m to 64t, got {text}")
    return size


def _memory(text: str) -> str:
    memory_bytes(text)
    return text


def _master(text: str) -> str:
    found = MASTER.fullmatch(text)
    if not found:
        raise ValueError(
            f"should be local[*], local[N], spark://host:port, k8s://https://host:port or yarn, got {text[:80]!r}"
        )
    if (found["cores"] or "*") != "*" and int(found["cores"]) > MOST_CORES:
        raise ValueError(f"should name at most {MOST_CORES} cores, got {text}")
    return text


Master = Annotated[str, AfterValidator(_master)]


# A secret by its key: as spark.redaction.regex has it, and Azure's. And what only names a secret.
SECRET_KEY = re.compile(r"secret|passw(or)?d|token|(access|account)[.]?key", re.IGNORECASE)
NAMES_A_SECRET = re.compile(r"spark\.kubernetes\.(driver|executor)\.secret(s|KeyRef)\.|.*File$")


def _sets_a_secret(value: str) -> bool:
    """Whether a value hands Java an option such as `-Dstore.password=x`."""
    names = (name for word in value.split() for name in word.split("=")[:-1])
    return any(SECRET_KEY.search(name.partition("-D")[2]) for name in names)


def _conf(conf: dict[str, str]) -> dict[str, str]:
    """A run's recipe is stored and shown, so no property of it may be a secret."""
    for key, value in conf.items():
        secret = SECRET_KEY.search(key) and not NAMES_A_SECRET.match(key) and value not in ("true", "false")
        if secret or _sets_a_secret(value):
            raise ValueError(
                f"{key[:80]} would be stored with the run for all to read; set it in spark-defaults.conf, or hand it to "
                "Kubernetes as a secretKeyRef (docs/security.md)"
            )
    return conf


SparkConf = Annotated[dict[Text, Text], AfterValidator(_conf)]


class Spark(Settings):
    """Where the Spark jobs run; never what they produce."""

    master: Master = runtime_only("local[*]")
    driver_memory: Annotated[str, AfterValidator(_memory)] = runtime_only("2g")
    executor_memory: Annotated[str, AfterValidator(_memory)] = runtime_only("4g")
    shuffle_partitions: Pieces = runtime_only(8)
    conf: SparkConf = runtime_only({})
    """Further Spark properties, for example a Kubernetes image. Properties that look like secrets are refused."""
