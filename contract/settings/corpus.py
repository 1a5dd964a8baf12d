"""The settings of the stages that make the corpus, from crawl files to packed tokens."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from contract.chat import RESERVED, SMALLEST_VOCABULARY, SPECIAL_TOKENS
from contract.scores import SCORES
from contract.settings.base import (
    MOST,
    BelowOne,
    Count,
    Fingerprint,
    Fraction,
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
from contract.settings.examples import Instructions, Preferences, Prompts
from contract.settings.filter import Filter
from contract.settings.run import RunSettings

CRAWL = "crawl"
"""The crawl's name among the sources of documents."""

LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]  # ISO 639

Layout = Literal["pile", "oscar", "wudao", "dolma", "redpajama", "code", "plain", "text"]


class Crawl(Settings):
    """Which pages are read, how many of them, and which URLs are dropped before anything is stored."""

    source: Annotated[Uri, AfterValidator(_public)] = runtime_only("https://data.commoncrawl.org")
    """A Common Crawl mirror (http, https, s3), or a folder or store prefix that holds WARC or WET files.

    Names and passwords of HTTP servers belong in `~/.netrc`, never here. In fingerprints, a folder's files are
    identified by their content, wherever the folder lies, and a mirror's files by their URI without password and query
    (see `contract.sources.Source`).
    """
    files_per_segment: Pieces | None = runtime_only(None)
    """If unset: 10, doubled until a run has at most `contract.sources.MAX_SEGMENTS` segments."""
    max_files: Positive | None = runtime_only(None)
    """Read only so many files of each crawl. It is in no fingerprint: segments are identified by their own files."""
    max_bytes_per_file: Positive | None = None
    """Read only the first bytes of each file; the record that this cuts is not counted as damage."""
    max_payload_bytes: Annotated[int, Field(gt=0, le=1 << 30, strict=True)] = 8 << 20
    """A page with a larger payload is dropped. At most 1 GiB, because a worker holds whole pages in memory.

    99.99 % of Common Crawl's pages are under 1 MiB, at which it truncates them.
    """
    blocklists: tuple[Uri, ...] = ()
    """The folder of each category to block, with lists named `domains`, `urls` or `hosts`: [ut1/adult, ut1/phishing].

    UT1's top folder is refused; name its categories. A line of `domains` or `hosts` is a domain, a line of a hosts
    file, or a filter `||a.com^`; a line of `urls` is a URL.
    """
    strict_words: tuple[Text, ...] = ()
    """RefinedWeb: drop a page if its URL without `-` and `.` contains one of these words, in upper or lower case."""
    hard_words: tuple[Text, ...] = ()
    """RefinedWeb: drop a page if its URL contains one of these as a whole word."""
    soft_words: tuple[Text, ...] = ()
    """RefinedWeb: drop a page if its URL contains two distinct ones of these as whole words."""
    skip_curated_hosts: bool = True
    """RefinedWeb: drop pages of hosts whose curated dumps are better (Wikipedia, arXiv, GitHub, ...)."""
    retries: Annotated[int, Field(gt=0, le=100, strict=True)] = runtime_only(8)
    """Retries per download. Each waits up to a minute, so a hundred take an hour and a half."""
    connections_per_host: Annotated[int, Field(gt=0, le=256, strict=True)] = runtime_only(8)
    """Downloads from one host that may be open at a time on one machine, over all of its workers."""
    split_bytes: Annotated[int, Field(ge=1024, le=MOST, strict=True)] = runtime_only(256 << 20)
    """Several Spark tasks read a larger file; each takes the records that begin in its range.

    A file that is a single gzip member cannot be split.
    """

    def outside(self) -> dict[str, str]:
        return {f"blocklists.{index}": uri for index, uri in enumerate(self.blocklists)}


class Extract(Settings):
    """Extraction of the main content from HTML."""

    extractor: Literal["trafilatura", "resiliparse", "justext"] = "trafilatura"
    """trafilatura runs its fall-backs (readability, jusText) only on pages whose text it seems to have missed.

    F1 is .957 on the article benchmark (never running them: .957, always: .952) and .922 on trafilatura's multilingual
    set (never: .918, always: .923). It takes a tenth more time than never running them.
    """
    min_chars: Positive = 25
    prefilter_probability: Fraction = 0.1
    """Drop a page if none of `langid.languages` reaches this probability on its plain text; 0 switches the rule off."""
    seconds_per_page: Annotated[Real, Field(ge=0.001, le=3600)] = 10.0
    """Processor time, from 1 ms to an hour; the system's clock takes less than 1 ms to mean no limit."""
    memory_mb_per_page: Annotated[int, Field(gt=0, le=1 << 20, strict=True)] = 1024
    """At most a tebibyte."""


LANGUAGE_MODEL = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
"""sha256 of lid.176.ftz, fastText's language identification model: part of the fingerprints of stages that use it."""


class Langid(Settings):
    """Language identification with fastText lid.176 on the extracted text."""

    languages: tuple[LanguageCode, ...] = ("en",)
    """ISO 639 codes to keep; an empty list keeps every language."""
    min_probability: Fraction = 0.65
    """RefinedWeb 0.65; BLOOM 0.8; CCNet 0.5."""
    sample_chars: Positive = 2000
    """Only so many first characters are classified: 3.5 times as fast, with the same answer on 99.1 % of pages."""


class LineCorrection(Settings):
    """RefinedWeb's line-wise corrections. `filter.max_removed_word_fraction` limits how much they may remove."""

    enabled: bool = True
    max_upper_case_fraction: Fraction = 0.5
    short_line_words: Positive = 10


class C4Lines(Settings):
    """C4's line rules. The minimum of 3 words is from C4's paper; its released code and DCLM have 5."""

    enabled: bool = False
    terminal_punctuation: bool = True
    min_words_per_line: Count = 3
    max_word_chars: Positive = 1000


class Score(Settings):
    """Corrects and masks the text, then computes all scores that rules of `filter` judge. `score` applies no rule."""

    lines: LineCorrection = LineCorrection()
    c4_lines: C4Lines = C4Lines()
    short_line_chars: Positive = 30
    """FineWeb: a line of fewer characters is short."""
    long_line_chars: Positive = 200
    """mC4: a line of at least as many characters is long."""
    mask: tuple[Literal["email", "ip", "phone"], ...] = ("email", "ip", "phone")
    """Kinds of personal data that are replaced by placeholders. Only public IP addresses are masked."""
    bad_words: Uri | None = None
    """A folder with one file per language, named by its code.

    A line is a word or phrase (the format of LDNOOBW, which C4 used).
    """
    perplexity_model: Uri | None = None
    """A KenLM model (ARPA or binary) over lower-cased words; needs the package kenlm. If unset, perplexity is null."""

    def outside(self) -> dict[str, str]:
        named = {"bad_words": self.bad_words, "perplexity_model": self.perplexity_model}
        return {key: uri for key, uri in named.items() if uri is not None}


MINHASH_PRESETS: dict[str, dict[str, int]] = {
    "fineweb": {"ngram": 5, "bands": 14, "rows": 8},
    "refinedweb": {"ngram": 5, "bands": 450, "rows": 20},
    "slimpajama": {"ngram": 13, "bands": 9, "rows": 13},
}
"""Words per shingle, bands and rows. datasketch derives SlimPajama's from a threshold of 0.8 and 128 permutations."""


def _measured(name: str) -> str:
    known = ("language_probability", *SCORES)
    if name.removeprefix("-") not in known:
        raise ValueError(
            f"{name[:80]!r} is not measured; there are {', '.join(known)}, "
            "and each with a minus before it where less is better"
        )
    return name


class MinhashSign(Settings):
    """How documents are hashed to keys that near duplicates share: MinHash bands, or SimHash."""

    method: Literal["minhash", "simhash"] = "minhash"
    preset: Literal["fineweb", "refinedweb", "slimpajama"] | None = runtime_only(None)
    """Sets ngram and bands x rows: fineweb 5, 14 x 8 (the default); refinedweb 5, 450 x 20; slimpajama 13, 9 x 13."""
    ngram: Annotated[int, Field(gt=0, le=128, strict=True)] = 5
    """Words per shingle. Longer repetitions than the bound allows are found by `dedup_substring`."""
    bands: Annotated[int, Field(gt=0, le=4096, strict=True)] = 14
    rows: Annotated[int, Field(gt=0, le=256, strict=True)] = 8
    """bands x rows hashes are computed per shingle: at most 65,536, seven times RefinedWeb's number."""
    distance: Annotated[int, Field(ge=1, le=8, strict=True)] = 4
    """SimHash: two documents are near if at most this many of 64 bits differ (BLOOM: 4, with ngram 6)."""
    quality: Annotated[str, AfterValidator(_measured)] = "language_probability"
    """What `dedup_fuzzy.keep: best_quality` compares: language_probability or a score (`contract/scores.py`).

    More is better; with a minus before the name, as in `-perplexity`, less is better.
    """
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


class CuratedSource(Settings):
    """One source beside the crawl: books, code, an encyclopaedia, or a published corpus."""

    uri: Uri = runtime_only(...)
    """A file, or a folder or store prefix of JSONL, JSON, Parquet or plain text: plain, gz or zst.

    In fingerprints its files are identified by their names and contents, wherever they lie.
    """
    layout: Layout | None = None
    """How rows are published; if unset, the first rows tell. docs/sources.md lists the fields of each layout."""
    one_document_per: Literal["repository", "file"] = "repository"
    """Layout `code`: a repository's files in the order of their paths make one document, or each makes its own."""
    languages: tuple[LanguageCode, ...] = ()
    """Identify the language of each text and keep these; if empty, keep all, with the language that the row says."""
    min_probability: Fraction = 0.65
    """Of the language that was identified; not of one that the row says."""
    correct: bool = False
    """Correct lines and mask personal data as section `score` says. If not, a text stays as it was published."""
    rules: Filter | None = None
    """The rules to ask, as in section `filter`; `{}` asks those that are on by default. If unset, no rule is asked."""
    dedup: bool = runtime_only(True)
    """If not, none of its documents is dropped or cut as a duplicate, nor any other document because of them."""
    decontaminate: bool = runtime_only(True)
    """If not, its documents may repeat benchmarks."""


class Curate(Settings):
    """The sources beside the crawl, by name."""

    sources: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")], CuratedSource] = {}

    @field_validator("sources")
    @classmethod
    def _named(cls, sources: dict[str, CuratedSource]) -> dict[str, CuratedSource]:
        if CRAWL in sources:
            raise ValueError("`crawl` is the crawl's own name; name the source something else")
        return sources

    @property
    def not_deduplicated(self) -> tuple[str, ...]:
        """Names of the sources whose duplicates stay. A setting of the stages that look for duplicates."""
        return tuple(sorted(name for name, source in self.sources.items() if not source.dedup))

    @property
    def not_decontaminated(self) -> tuple[str, ...]:
        """Names of the sources that are not searched for benchmarks. A setting of the stage that searches."""
        return tuple(sorted(name for name, source in self.sources.items() if not source.decontaminate))

    def outside(self) -> dict[str, str]:
        return {f"sources.{name}.uri": source.uri for name, source in self.sources.items()}


class DedupUrl(Settings):
    """One document per canonical URL."""

    keep: Literal["newest", "first"] = "newest"


class DedupFuzzy(Settings):
    """One document per cluster of near duplicates."""

    keep: Literal["longest", "newest", "best_quality", "smallest_id"] = "longest"
    curated_first: bool = True
    """If a cluster has documents of curated sources, `keep` chooses among these."""
    scope: Literal["snapshot", "global"] = "snapshot"
    """Compare crawled documents within each crawl (FineWeb), or over all crawls of the run.

    Curated documents are compared with those of every crawl in any case.
    """
    min_jaccard: Annotated[Real, Field(gt=0, le=1)] | None = None
    """Link two candidates only if the exact Jaccard similarity of their shingles is at least this; unset links all."""
    pairs_per_document: Pieces = 16
    """If links are checked, each document is compared with at most this many of those that share a key with it.

    With SimHash, only documents that are also near count.
    """
    driver_edge_limit: Annotated[int, Field(gt=0, lt=1 << 31, strict=True)] = runtime_only(20_000_000)
    """Up to this many edges the driver finds the components with scipy, which has 31-bit indices; above, Spark does."""


class DedupSubstring(Settings):
    """Lee et al. 2021: cut text that stands at two or more places."""

    min_tokens: Annotated[int, Field(ge=2, le=1 << 20, strict=True)] = 50
    cut: Literal["all", "keep_first"] = "keep_first"
    """Held-out documents count as first: they lose only text that held-out documents repeat among themselves."""
    passes: Passes = 1
    """A cut can create new matches, which the next pass cuts. The paper has 2 passes."""
    min_chars: Count = 20
    """A document with fewer characters left is dropped."""
    tokenizer: Uri | None = None
    """A tokenizer.json whose ids are the tokens compared.

    If unset, tokens are words between white space, which finds nothing in languages written without spaces.
    """
    one_process_bytes: Annotated[int, Field(ge=0, lt=1 << 31, strict=True)] = runtime_only(48 << 20)
    """Up to this much text, at most 2 GiB, the driver builds one suffix array; above, Spark's workers do the search."""

    def outside(self) -> dict[str, str]:
        return {"tokenizer": self.tokenizer} if self.tokenizer else {}


class Decontaminate(Settings):
    """Keeps evaluation sets out: documents that share an n-gram of words with one are dropped or cut."""

    benchmarks: dict[Text, Uri] = {}
    """Name of the benchmark -> a file or folder of JSONL, JSON, CSV, TSV or Parquet.

    Files may be packed (gz, xz, bz2, zip, tar). Each line, element or row is one item, and its strings are the item's
    text.
    """
    ngram: Annotated[int, Field(ge=8, le=50, strict=True)] = 13
    """Words per n-gram. GPT-3: 13."""
    min_words: Annotated[int, Field(ge=5, le=50, strict=True)] = 8
    """An item, or one of its texts, with fewer words than `ngram` is sought as a whole, down to this many words.

    GPT-3's smallest n: 8.
    """
    action: Literal["drop", "cut"] = "drop"
    """`cut` removes a match and 200 characters on either side, and keeps pieces of at least 200 characters (GPT-3)."""
    min_coverage: Fraction = 0.0
    """Act only if a document holds this fraction of an item or of one of its texts.

    0 means any n-gram (GPT-3); 0.8 means leakage (Llama 2). The report counts the two separately in any case.
    """

    @model_validator(mode="after")
    def _ordered(self) -> "Decontaminate":
        if self.min_words > self.ngram:
            raise ValueError(f"min_words {self.min_words} is above ngram {self.ngram}")
        return self

    def outside(self) -> dict[str, str]:
        return {f"benchmarks.{name}": uri for name, uri in self.benchmarks.items()}


class Mix(Settings):
    """How much of each source is held out, and how its documents are shuffled."""

    heldout_fraction: BelowOne = 0.05
    """Fraction of each source's documents; every document with the same text, of any source, is held out as well.

    The same documents are held out in every run, whatever the seed and however the sources grow. `dedup_substring`
    does not cut them because training text repeats theirs.
    """
    seed: Seed = 0
    shards: Pieces = 8
    """Files of the source with the most text; the others have fewer in proportion. A worker holds one in memory."""
    also_held_out: Fingerprint | None = None
    """The fingerprint of another run's `mix`: the texts and the ids that it holds out are held out here, too.

    `python -m contract commands` sets it, so that no variant trains on the text that judges all of them.
    """

    def results(self) -> dict[str, tuple[str, ...]]:
        return {"mix": (self.also_held_out,)} if self.also_held_out else {}


def _holds_all_bytes(vocab_size: int) -> int:
    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"should be at least {SMALLEST_VOCABULARY}, for {len(SPECIAL_TOKENS)} special tokens and 256 bytes, "
            f"got {vocab_size}"
        )
    return vocab_size


class Expand(Settings):
    """What is added to the tokenizer of `tokenizer.start_from`. Its own tokens keep their ids."""

    model: Uri | None = None
    """A second SentencePiece model. Its pieces that the first lacks are appended, as Chinese-LLaMA's were."""
    tokens: Annotated[int, Field(ge=0, le=1 << 20, strict=True)] = 0
    """So many tokens are trained on the mixture and appended."""
    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...] = ()
    """They are trained on documents of these languages; on all if empty."""

    @model_validator(mode="after")
    def _one_way(self) -> "Expand":
        if self.model and self.tokens:
            raise ValueError("name either a model, whose pieces are appended, or a number of tokens to train")
        return self


class Tokenizer(Settings):
    """A tokenizer trained on the mixture, or one that is brought and perhaps expanded: docs/tokenizers.md."""

    kind: Literal["bpe", "sentencepiece_bpe", "unigram", "wordpiece"] = "bpe"
    """bpe: on bytes, as GPT-2's. sentencepiece_bpe and unigram: SentencePiece's, with byte fallback. Every text comes
    back from these three; wordpiece loses words that hold a character outside its alphabet."""
    vocab_size: Annotated[int, Field(le=1 << 20, strict=True), AfterValidator(_holds_all_bytes)] = 32_000
    """All tokens, special ones included. At most 2^20; the largest published vocabularies have a quarter of that."""
    sample_bytes: Positive = 1 << 30
    min_frequency: Positive = 2
    """Of a pair that bpe or wordpiece joins; SentencePiece has no such limit."""
    split_digits: bool = False
    """Every digit is a token of its own, as in LLaMA."""
    special_tokens: dict[Text, Annotated[Text, Field(min_length=1)]] = {}
    """Role -> token, where it is not the one of `contract/chat.py`: `{end_of_text: </s>, reserved_0: <|image|>}`."""
    start_from: Uri | None = None
    """A tokenizer.json or a SentencePiece model to use instead of training one. Tokens of roles that it lacks are added
    at its end; `kind`, `vocab_size`, `min_frequency` and `split_digits` then say nothing."""
    expand: Expand = Expand()
    reference: Uri | None = None
    """A tokenizer.json or a SentencePiece model that the report on fertility sets beside this one."""

    @field_validator("special_tokens")
    @classmethod
    def _known_roles(cls, given: dict[str, str]) -> dict[str, str]:
        for role in given:
            if role not in SPECIAL_TOKENS:
                raise ValueError(
                    f"{role[:80]!r} is no role; there are {', '.join([*SPECIAL_TOKENS][:5])} "
                    f"and reserved_0 to reserved_{RESERVED - 1}"
                )
        tokens = [*{**SPECIAL_TOKENS, **given}.values()]
        if twice := next((token for token in tokens if tokens.count(token) > 1), None):
            raise ValueError(f"{twice[:80]!r} is the token of two roles; each role needs one of its own")
        return given

    @model_validator(mode="after")
    def _base_to_expand(self) -> "Tokenizer":
        if (self.expand.model or self.expand.tokens) and not self.start_from:
            key = "model" if self.expand.model else "tokens"
            raise ValueError(f"expand.{key} adds to a brought tokenizer; name it as start_from, or raise vocab_size")
        return self

    def outside(self) -> dict[str, str]:
        named = {"start_from": self.start_from, "expand.model": self.expand.model, "reference": self.reference}
        return {key: uri for key, uri in named.items() if uri is not None}


SeqLen = Annotated[int, Field(ge=8, le=1 << 20, strict=True)]


class Pack(Settings):
    """Packing: documents as token ids, each with its end-of-text, and how rows of `seq_len + 1` are cut from them."""

    seq_len: SeqLen = 2048
    more_seq_lens: tuple[SeqLen, ...] = ()
    """Further lengths that rows are cut to from the same tokens, for example for a phase of long context."""
    packing: Literal["stream", "best_fit"] = "stream"
    """stream: a row ends after `seq_len + 1` tokens, wherever documents end, so no row is padded. best_fit: whole
    documents, several to a row; only documents that are longer than a row are split. Rows are then padded a little."""
    shard_tokens: Annotated[int, Field(gt=0, le=1 << 32, strict=True)] = 1 << 27
    """Tokens per file, which one worker writes: at most 2^32, or 16 GiB. Memory does not depend on it."""

    @field_validator("more_seq_lens")
    @classmethod
    def _differ(cls, given: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if len({*given, info.data.get("seq_len")}) <= len(given):
            raise ValueError(f"should be lengths that differ from each other and from seq_len, got {list(given)}")
        return given


class CorpusSections(RunSettings):
    """The section of each stage that makes the corpus, in the order of the stages."""

    crawl: Crawl = Crawl()
    extract: Extract = Extract()
    langid: Langid = Langid()
    score: Score = Score()
    filter: Filter = Filter()
    minhash_sign: MinhashSign = MinhashSign()
    curate: Curate = Curate()
    dedup_url: DedupUrl = DedupUrl()
    dedup_fuzzy: DedupFuzzy = DedupFuzzy()
    dedup_substring: DedupSubstring = DedupSubstring()
    decontaminate: Decontaminate = Decontaminate()
    mix: Mix = Mix()
    instructions: Instructions = Instructions()
    preferences: Preferences = Preferences()
    prompts: Prompts = Prompts()
    tokenizer: Tokenizer = Tokenizer()
    pack: Pack = Pack()
