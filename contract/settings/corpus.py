"""The settings of the stages that make the corpus, from crawl files to packed tokens."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from contract.scores import SCORES
from contract.settings.base import (
    MOST,
    BelowOne,
    Count,
    Epochs,
    Fraction,
    NotNegative,
    Passes,
    Pieces,
    Positive,
    Real,
    Seed,
    Settings,
    Text,
    Uri,
    _public,
    runtime_only,
)


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
