"""curate: makes documents of the sources beside the crawl, so that later stages treat them like crawled ones.

Each file is read row by row. A row becomes a document in Unicode's form NFC, or is counted as a loss. Its language is
identified and its source's own rules are asked where the recipe says so; what is kept is signed for deduplication. The
files of a code repository first go through the store, so that those of one repository meet.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby, islice
from typing import Any

import pyarrow as pa
import xxhash

from contract import deployment, results
from contract.errors import InputError
from contract.examples import MAX_LINE_BYTES, Unusable
from contract.kinds import Kind
from contract.manifest import File
from contract.printable import printable
from contract.recipe import StageSettings
from contract.schema import CURATED, Drop
from contract.scores import SCORES
from contract.settings.corpus import C4Lines, Curate, CuratedSource, Langid, LineCorrection, Score
from contract.store import Store, split_uri
from pipelines.filter import check_stop_words
from pipelines.langid import check_languages, language_verdict, rank
from pipelines.minhash_sign import sign
from pipelines.rules.decide import decide, rules_for
from pipelines.rules.measure import clean_and_score
from pipelines.score import SECONDS_PER_DOCUMENT, tools_for
from pipelines.sources.files import TEXT, Row, list_files, rows_of
from pipelines.sources.layouts import Found, detect, read_row
from pipelines.spark.dealing import ShardedRows, collect
from pipelines.spark.documents import Counts, DocumentSink, Output, total
from pipelines.spark.job import Job
from pipelines.text.clock import TooSlow, limited

FIRST_ROWS, FIRST_FILES = 100, 10  # rows of a file that tell its layout, and files that are asked until one does
GROUP_BYTES = 64 << 20  # of small files that one task reads
BUCKET_BYTES = 32 << 20  # of code files, packed, whose repositories one task joins: ten times as much in memory
SLOW_CHARS = 2 << 20  # characters for which `score` allows its limit of processor time
CODE = pa.schema(
    [
        *((name, pa.string()) for name in ("repo", "path", "text", "license", "url", "file")),
        ("date", pa.timestamp("s", "UTC")),
        ("offset", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Source:
    """A source with its files, of (path, bytes), and the layout that the recipe names or its first rows show."""

    name: str
    settings: CuratedSource
    layout: str
    files: tuple[tuple[str, int], ...]
    others: int

    @property
    def joins(self) -> bool:
        """Whether several rows make one document."""
        return self.layout == "code" and self.settings.one_document_per == "repository"

    def groups(self) -> list[tuple[str, ...]]:
        """The paths that one task reads, in order: one large file, or some small ones."""
        groups: list[list[str]] = []
        held = 0
        for path, size in self.files:
            if not groups or held + size > GROUP_BYTES:
                groups.append([])
                held = 0
            groups[-1].append(path)
            held += size
        return [tuple(group) for group in groups]

    def __str__(self) -> str:
        others = f"; {self.others:,} files of other kinds are left out" if self.others else ""
        return printable(f"source {self.name}: {len(self.files):,} files, layout {self.layout}{others}")


def examine(name: str, settings: CuratedSource) -> Source:
    """List the files of a source and find out its layout.

    Raises InputError, which names the recipe's key, and RecipeError if a link leads out of a deployment's roots.
    """
    key = f"curate.sources.{name}"
    store, entries, others = list_files(f"{key}.uri", settings.uri, settings.layout == "text")
    files = tuple((entry.path, entry.size) for entry in entries)
    if fixed := deployment.current():
        fixed.check_files((store.full(path) for path, _ in files), f"{key}.uri: file")
    shown: Iterator[str | None] = (first_layout(store, path) for path, _ in files[:FIRST_FILES])
    layout: str | None = settings.layout or next(filter(None, shown), None)
    if layout is None:
        rows = (row.value for row in rows_of(store, files[0][0]))
        keys = next((", ".join(map(str, row)) for row in islice(rows, FIRST_ROWS) if isinstance(row, dict)), "none")
        raise InputError(
            printable(
                f"{key}: the first rows of {settings.uri} have no known layout, their keys are {keys[:200]}; "
                f"name {key}.layout, or give the rows a field `text`"
            )
        )
    return Source(name, settings, layout, files, others)


def first_layout(store: Store, path: str) -> str | None:
    """The layout that the first rows of a file show, or None."""
    found = detect(row.value for row in islice(rows_of(store, path), FIRST_ROWS))
    return "text" if found and TEXT.search(path) else found


def check(settings: StageSettings) -> None:
    """Raise InputError if a source cannot be read, and RecipeError if its languages cannot be judged; print layouts."""
    for name, source in sorted(settings.own.sources.items()):
        check_source(name, source)
        print(examine(name, source), flush=True)


def check_source(name: str, source: CuratedSource) -> None:
    key = f"curate.sources.{name}"
    check_languages(f"{key}.languages", source.languages)
    if source.rules:
        check_stop_words(f"{key}.languages", source.languages, f"{key}.rules", source.rules)


@dataclass(frozen=True)
class Judge:
    """Decides about the documents of one source. score: section `score`; sample_chars: of `langid`."""

    settings: CuratedSource
    score: Score
    sample_chars: int

    def identified(self, found: Found) -> dict[str, Any]:
        """The columns of a document's language: identified if the recipe names languages, else as its row says."""
        if not self.settings.languages:
            said = [found.language] if found.language else []
            ranked = {"languages": said, "language_probabilities": [found.probability] * len(said)}
            return {"language": found.language, "language_probability": found.probability, **ranked}
        languages, chances = zip(*rank(found.text[: self.sample_chars]), strict=True)
        ranked = {"languages": list(languages), "language_probabilities": list(chances)}
        return {"language": languages[0], "language_probability": chances[0], **ranked}

    def unwanted(self, language: str | None, probability: float | None) -> tuple[Drop, object] | None:
        """Why a document goes for its language, and what was identified; None to keep it."""
        wanted = self.settings.languages
        asked = Langid(languages=wanted, min_probability=self.settings.min_probability)
        return language_verdict(language or "", probability or 0.0, asked) if wanted else None

    def scored(self, text: str, language: str | None) -> tuple[str, dict[str, Any]]:
        """The text, corrected if the recipe says so, and its scores if a rule asks for them. Raises TooSlow."""
        if not self.settings.correct and not self.settings.rules:
            return text, {}
        plain = {"lines": LineCorrection(enabled=False), "c4_lines": C4Lines(enabled=False), "mask": ()}
        score = self.score if self.settings.correct else self.score.model_copy(update=plain)
        tools = tools_for(self.score)
        if not text:  # compiles, if not cached, outside the time limit of a document
            return clean_and_score(text, None, score, tools)
        with limited(SECONDS_PER_DOCUMENT * max(1.0, len(text) / SLOW_CHARS)):
            return clean_and_score(text, language, score, tools)


Known = dict[str, tuple[Source, Judge]]
"""What every worker knows of the sources, by their names: without their files, of which each task names its own."""


class Curator:
    """Writes the documents of one worker, all of one source, and counts what it drops and loses."""

    def __init__(self, store: Store, prefix: str, source: Source, judge: Judge, name: str) -> None:
        self._source, self._judge = source, judge
        rules = source.settings.rules
        self._rules = lru_cache(maxsize=None)(lambda language: rules_for(rules, language) if rules else [])
        judge.scored("", None)
        self._sink = DocumentSink(store, prefix, "curate", name, CURATED, source=source.name)

    def lose(self, place: str, why: Unusable) -> None:
        """Count a row that never became a document; the log names the first of each reason."""
        kind = f"{self._source.name}: {why.reason}"
        if kind not in self._sink.counts.losses:
            print(printable(f"curate: {kind}: {place}: {why}; further ones are only counted"), flush=True)
        self._sink.lose(kind)

    def take(self, found: Found, file: str, number: int) -> None:
        """Keep or drop a document. file, number: where its row stands."""
        size = len(found.text.encode())
        row = dict.fromkeys(CURATED.names) | {
            "id": found.id(self._source.name), "url": found.url, "date": found.date, "file": file, "offset": number,
            "title": found.title, "source": self._source.name, "text": found.text, "license": found.license,
        }  # fmt: skip
        row |= self._judge.identified(found)
        unwanted = self._judge.unwanted(row["language"], row["language_probability"])
        if unwanted:
            self._sink.drop(row, *unwanted, size)
            return
        try:
            text, scores = self._judge.scored(found.text, row["language"])
        except TooSlow as error:
            self._sink.drop(row, Drop.SCORE_TIMEOUT, error, size)
            return
        broken = decide(scores, self._rules(row["language"]))
        if broken:
            self._sink.drop(row, *broken, size)
            return
        if not text:
            self._sink.drop(row, Drop.EMPTY_TEXT, "after corrections", size)
            return
        left = len(text.encode())
        self._sink.keep({**row, **{name: scores.get(name) for name in SCORES}, "text": text, "bytes": left}, left, size)

    def close(self) -> Output:
        return self._sink.close()


def found_in(source: Source, paths: Iterable[str], curator: Curator) -> Iterator[tuple[Found, str, Row]]:
    """Yield what the rows of files say: (document, file, row). What cannot be used is counted."""
    store, _ = split_uri(source.settings.uri)
    for path in paths:
        for row in rows_of(store, path, source.settings.layout == "text"):
            try:
                yield read_row(source.layout, row.value), path, row
            except Unusable as why:
                curator.lose(f"{store.full(path)} row {row.number:,}", why)


def read_files(store: Store, prefix: str, known: Known, item: tuple[str, Any], name: str) -> Output:
    """Make documents of the rows of some files."""
    (source, judge), paths = known[item[0]], item[1]
    curator = Curator(store, prefix, source, judge, name)
    for found, path, row in found_in(source, paths, curator):
        curator.take(found, path, row.number)
    return curator.close()


def deal_files(
    store: Store, prefix: str, known: Known, buckets: dict[str, int], item: tuple[str, Any], name: str
) -> Output:
    """Deal the rows of some files to buckets, by their repositories."""
    (source, judge), paths = known[item[0]], item[1]
    curator = Curator(store, prefix, source, judge, name)
    dealt = ShardedRows(store, f"{prefix}/scratch/dealt-{name}.parquet", CODE, source.name)
    for found, path, row in found_in(source, paths, curator):
        bucket = xxhash.xxh3_64_intdigest(found.repo.encode()) % buckets[source.name]
        columns: dict[str, Any] = {"repo": found.repo, "path": found.path, "text": found.text, "license": found.license}
        columns |= {"url": found.url, "date": found.date, "file": path, "offset": row.number}
        dealt.add(bucket, columns, len(found.text.encode()))
    output = curator.close()
    output.files += dealt.close()
    return output


def buckets_of(source: Source) -> int:
    return max(1, -(-sum(size for _, size in source.files) // BUCKET_BYTES))


def join_files(store: Store, prefix: str, known: Known, dealt: list[File], item: tuple[str, Any], name: str) -> Output:
    """Make documents of the repositories of one bucket."""
    (source, judge), bucket = known[item[0]], item[1]
    curator = Curator(store, prefix, source, judge, name)
    held = collect(store, [file.path for file in dealt if file.source == source.name], bucket)
    if held is not None:
        ordered = held.sort_by([(column, "ascending") for column in ("repo", "path", "text")])
        rows = (row for batch in ordered.to_batches(max_chunksize=256) for row in batch.to_pylist())
        for repo, files in groupby(rows, lambda row: row["repo"]):
            for found, row in joined(repo, files):
                curator.take(found, row["file"], row["offset"])
    return curator.close()


def joined(repo: str, files: Iterable[dict[str, Any]]) -> Iterator[tuple[Found, dict[str, Any]]]:
    """Yield a repository as one document, with its first row: the files in order, each after a line with its path.

    A repository that is larger than a document may be is cut between two files. Of equal files under one path, one is
    taken.
    """
    held: list[dict[str, Any]] = []
    size = count = 0
    for row in files:
        if held and (row["path"], row["text"]) == (held[-1]["path"], held[-1]["text"]):
            continue
        length = len(row["path"].encode()) + len(row["text"].encode()) + 4
        if held and size + length > MAX_LINE_BYTES:
            yield _repository(repo, count, held), held[0]
            held, size, count = [], 0, count + 1
        held.append(row)
        size += length
    if held:
        yield _repository(repo, count, held), held[0]


def _repository(repo: str, count: int, files: Sequence[dict[str, Any]]) -> Found:
    licenses = sorted({one for row in files if row["license"] for one in row["license"].split(", ")})
    return Found(
        "\n\n".join(f"{row['path']}\n{row['text']}" for row in files),
        f"{repo}\n{count}" if count else repo,
        date=max((row["date"] for row in files if row["date"]), default=None),
        title=repo,
        license=", ".join(licenses) or None,
    )


def account(sources: Sequence[Source], owners: Sequence[str], outputs: Sequence[Output]) -> None:
    """Print what became of each source. owners: of the outputs. Raises InputError if one has not a single document."""
    for source in sources:
        mine = (output.counts for owner, output in zip(owners, outputs, strict=True) if owner == source.name)
        counts = sum(mine, Counts())
        lost = ", ".join(f"{kind.partition(': ')[2]} {count:,}" for kind, count in counts.losses.most_common())
        if not counts.read:
            raise InputError(
                f"curate.sources.{source.name}: none of its {len(source.files):,} files holds a document "
                f"({lost or 'they are empty'}); name another layout or other files"
            )
        losses = f"; records that gave no document: {lost}" if lost else ""
        print(f"source {source.name}: {counts.kept:,} of {counts.read:,} documents kept{losses}", flush=True)


def run(job: Job) -> None:
    settings: Curate = job.settings
    sources = [examine(name, source) for name, source in sorted(settings.sources.items())]
    for source in sources:
        check_source(source.name, source.settings)
        print(source, flush=True)
    score, chars = job.setting("score"), job.setting("langid.sample_chars")
    known = {one.name: (replace(one, files=()), Judge(one.settings, score, chars)) for one in sources}
    given = (job.store, job.prefix, known)
    counts = {source.name: buckets_of(source) for source in sources if source.joins}
    whole = [(source.name, group) for source in sources if not source.joins for group in source.groups()]
    pieces = [(source.name, group) for source in sources if source.joins for group in source.groups()]
    buckets = [(name, bucket) for name, count in counts.items() for bucket in range(count)]
    read = job.map_each(whole, partial(read_files, *given), "groups")
    dealt = job.map_each(pieces, partial(deal_files, *given, counts), "groups")
    files = [file for output in dealt for file in output.files if file.kind == Kind.DEALT]
    merged = job.map_each(buckets, partial(join_files, *given, files), "buckets")
    account(sources, [name for name, _ in (*whole, *pieces, *buckets)], [*read, *dealt, *merged])
    job.store.delete(f"{job.prefix}/scratch")
    output = total([*read, *dealt, *merged])
    output.files = [file for file in output.files if file.kind != Kind.DEALT]
    signing = partial(sign, job.store, job.prefix, job.setting("minhash_sign"))
    output.parts = job.map_files(output.parts, signing, "parts").parts
    job.commit(output, results.Curate(sources=len(sources)))
