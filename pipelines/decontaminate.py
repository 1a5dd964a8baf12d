"""Drops or cuts documents that share runs of words with an evaluation set, so that it does not measure memory."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract.errors import InputError
from contract.evalset import SUFFIXES, Item, Malformed, is_named_like_one, read_members
from contract.kinds import Kind
from contract.manifest import File
from contract.metrics import Progress
from contract.printable import printable
from contract.recipe import StageSettings
from contract.schema import DOCUMENTS, Drop
from contract.settings.corpus import Decontaminate
from contract.store import Store, split_uri
from contract.tables import BATCH_ROWS, read_batches
from pipelines.decontamination.findings import Findings, summarise
from pipelines.decontamination.search import Finding, Index, blamed_items, build, cut, find, suspects
from pipelines.spark.job import Counts, DocumentSink, Job, Output, TableWriter
from pipelines.spark.session import store_errors

COPIES_AT_ONCE = 8
MAX_ROUNDS = 10  # cuts of one text, before it is dropped


class Benchmarks(NamedTuple):
    """The evaluation sets of a recipe, each a pair of name and items. Workers need only the index."""

    sets: tuple[tuple[str, tuple[Item, ...]], ...]
    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    files: dict[str, list[tuple[str, int]]]
    """By benchmark: (name, number of items) of each file that was read, or of each member of an archive."""
    sought: dict[str, int]
    """By benchmark: the number of items that are long enough to search for."""


class Verdict(NamedTuple):
    """The decision about a document that shares text with a benchmark.

    left: its remaining text, or None to drop it. value: the reason, empty if nothing is cut. found: all shared text.
    """

    left: str | None
    value: str
    found: Finding


@dataclass(frozen=True)
class Judge:
    """Decides about texts, from the crawl or from curated sources."""

    index: Index
    action: str
    min_coverage: float

    def __call__(self, text: str) -> Verdict | None:
        """The verdict on a text, or None if it shares nothing."""
        return self.decide(text) if suspects(pa.array([text]), self.index)[0] else None

    def decide(self, text: str) -> Verdict | None:
        """The same, for a text that `suspects` has already marked."""
        found = find(text, self.index)
        if found is None:
            return None
        blamed = blamed_items(found, self.index, self.min_coverage)
        guilty = blamed >= 0
        if not guilty.any():
            return Verdict(text, "", found)
        first = int(guilty.argmax())
        name = self.index.names[self.index.benchmark[blamed[first]]]
        return Verdict(self._clean(text, found, guilty), f"{name}: {found.ngram(first)}", found)

    def _clean(self, text: str, found: Finding, guilty: npt.NDArray[np.bool_]) -> str | None:
        """Cut the shared text, and search the rest again, because a cut joins words that were apart.

        Returns None to drop the text: if `action` is not `cut`, if too little is left, or after MAX_ROUNDS.
        """
        for _ in range(MAX_ROUNDS):
            left = cut(text, found, guilty) if self.action == "cut" else None
            if left is None:
                return None
            again = find(left, self.index)
            if again is None:
                return left
            text, found, guilty = left, again, blamed_items(again, self.index, self.min_coverage) >= 0
            if not guilty.any():
                return text
        return None


def read_benchmark(name: str, uri: str) -> list[tuple[str, tuple[Item, ...]]]:
    """The items of a benchmark, by file or member of an archive.

    Raises InputError, which names the recipe's key, the file and the line, if something cannot be read.
    """
    store, path = split_uri(uri)
    alone = any(entry.path == path for entry in store.files(recursive=False))
    names = [""] if alone else [entry.path[len(path) + 1 :] for entry in store.files(path)]
    wanted = [file for file in names if alone or is_named_like_one(file)]
    if not wanted:
        why = (
            "there is no such file, or it is an empty folder"
            if not names
            else f"none of its {len(names)} files ends in {', '.join(SUFFIXES)}, packed or not"
        )
        raise InputError(f"decontaminate.benchmarks.{name}: {uri} cannot be read: {why}")
    contents: list[tuple[str, tuple[Item, ...]]] = []
    for file in wanted:
        try:
            members = [*read_members(file or path, store.read_bytes(f"{path}/{file}" if file else path))]
            contents += members or [(file or path, ())]
        except Malformed as error:
            where = uri.rpartition("/")[0] if alone else uri
            raise InputError(f"decontaminate.benchmarks.{name}: {where}/{error}") from None
    if not any(items for _, items in contents):
        raise InputError(
            f"decontaminate.benchmarks.{name}: {uri} holds no item; check the path, or leave the benchmark out"
        )
    return contents


def load(settings: Decontaminate) -> Benchmarks:
    """Load a recipe's benchmarks. Raises InputError if one of them has no item that can be searched for."""
    read = {name: read_benchmark(name, uri) for name, uri in sorted(settings.benchmarks.items())}
    sets = tuple((name, tuple(item for _, items in files for item in items)) for name, files in read.items())
    index = build(sets, settings.ngram, settings.min_words)
    counts = np.bincount(index.benchmark[np.unique(index.item)], minlength=len(sets)).tolist()
    sought = dict(zip(index.names, counts, strict=True))
    for name, items in sets:
        if not sought[name]:
            raise InputError(
                f"decontaminate.benchmarks.{name}: none of the {len(items):,} items of {settings.benchmarks[name]} "
                f"can be looked for: a text needs {settings.min_words} words and half of its item; "
                "lower decontaminate.min_words or leave the benchmark out"
            )
    files = {name: [(file, len(items)) for file, items in members] for name, members in read.items()}
    return Benchmarks(sets, index, files, sought)


def describe(benchmarks: Benchmarks) -> Iterator[str]:
    """Yield a line for each benchmark and for each file read, so that a file that does not belong to it is noticed."""
    for name, items in benchmarks.sets:
        files = benchmarks.files[name]
        yield f"benchmark {name}: {len(items):,} items, {benchmarks.sought[name]:,} sought, {len(files):,} files read"
        yield from (printable(f"{count:>9,} items in {file}") for file, count in files)


def leaks(settings: Decontaminate) -> Callable[[str], str | None]:
    """A function that says what of a benchmark a text repeats, or None: for texts that are kept or dropped whole."""
    if not settings.benchmarks:
        return lambda _: None
    judge = Judge(load(settings).index, "drop", settings.min_coverage)

    def leak(text: str) -> str | None:
        verdict = judge(text)
        return verdict.value if verdict and verdict.left is None else None

    return leak


def sift(row: dict[str, Any], judge: Judge | None, sink: DocumentSink, findings: Findings) -> dict[str, Any] | None:
    """Keep, cut or drop a document. Returns the row to keep, or None. Without a judge, keeps the row unchanged."""
    size = len(row["text"].encode())
    verdict = judge.decide(row["text"]) if judge else None
    left: str = row["text"]
    if verdict:
        findings.note(row, verdict.found, verdict.left)
        if verdict.left is None:
            sink.drop(row, Drop.CONTAMINATED, verdict.value, size)
            return None
        left = verdict.left
    sink.counts += Counts(read=1, kept=1, bytes_read=size, bytes_kept=len(left.encode()))
    return row | {"text": left}


def search(store: Store, prefix: str, judge: Judge, file: File, name: str) -> Output:
    """Keep, cut or drop the documents of one file."""
    sink = DocumentSink(store, prefix, "decontaminate", name)
    writer = TableWriter(store, f"{prefix}/documents-{name}.parquet", Kind.DOCUMENTS, DOCUMENTS)
    findings = Findings(store, prefix, judge.index, name)
    for batch in read_batches(store, file, BATCH_ROWS, DOCUMENTS.names):
        suspect = suspects(batch["text"], judge.index)
        if suspect.any():
            for row, is_suspect in zip(batch.to_pylist(), suspect.tolist(), strict=True):
                left = sift(row, judge if is_suspect else None, sink, findings)
                if left:
                    writer.write(left, len(left["text"]))
        else:
            size = pc.sum(pc.binary_length(batch["text"])).as_py() or 0
            sink.counts += Counts(read=len(batch), kept=len(batch), bytes_read=size, bytes_kept=size)
            writer.write_table(pa.Table.from_batches([batch]).cast(DOCUMENTS))
    output = sink.close()
    output.files = [*writer.close(), *output.files, *findings.close()]
    return output


def copy(job: Job) -> Output:
    """Copy the documents files unchanged, for a recipe without benchmarks.

    Uses threads of this process: a copy waits for the store and not for a core, and starting Spark takes longer.
    """
    inputs = job.inputs("dedup_substring", Kind.DOCUMENTS)
    progress = Progress(job.task.stage, job.task.partition, "files", len(inputs))

    def copy_file(numbered: tuple[int, File]) -> File:
        number, file = numbered
        path = f"{job.prefix}/documents-{number:05d}.parquet"
        with (
            store_errors(job.store.full(path)),
            file.open(job.store) as source,
            job.store.open_output(path) as sink,
        ):
            sink.upload(source)
        return File(path=path, kind=file.kind, bytes=file.bytes, rows=file.rows)

    with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        files = []
        for file in pool.map(copy_file, enumerate(inputs)):
            files.append(file)
            progress.advance()
    progress.finish()
    (before,) = job.manifests("dedup_substring")
    kept, size = before.rows.kept, before.rows.bytes_kept
    return Output(files, Counts(read=kept, kept=kept, bytes_read=size, bytes_kept=size))


def check(settings: StageSettings) -> None:
    """Raise InputError if a benchmark cannot be read; print what was found of each."""
    if settings.own.benchmarks:
        print(*describe(load(settings.own)), sep="\n", flush=True)


def run(job: Job) -> None:
    settings: Decontaminate = job.settings
    if not settings.benchmarks:
        job.commit(copy(job), benchmark_ngrams=0)
        return
    benchmarks = load(settings)
    print(*describe(benchmarks), sep="\n", flush=True)
    judge = Judge(benchmarks.index, settings.action, settings.min_coverage)
    output = job.map_files(job.inputs("dedup_substring", Kind.DOCUMENTS), partial(search, job.store, job.prefix, judge))
    metrics = summarise(job.store, job.prefix, benchmarks.sets, benchmarks.index, output)
    job.commit(output, benchmark_ngrams=len(benchmarks.index.grams), **metrics)
