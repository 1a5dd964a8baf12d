"""Drops or cuts documents that share runs of words with an evaluation set, so that it does not measure memory."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract import results
from contract.cuts import Ranges, compose, read_cuts, without
from contract.documents import Part, read_documents, read_part
from contract.errors import InputError
from contract.evalset import SUFFIXES, Item, Malformed, is_named_like_one, read_members
from contract.manifest import File
from contract.printable import printable
from contract.recipe import StageSettings
from contract.schema import Drop
from contract.settings.corpus import Decontaminate
from contract.store import Store, split_uri
from pipelines.decontamination.findings import Findings, summarise
from pipelines.decontamination.search import Finding, Index, blamed_items, build, cut, find_shared, suspects
from pipelines.spark.documents import Counts, IndexSink, Output, write_cuts
from pipelines.spark.job import Job

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
    cuts: the byte ranges of the text that are cut.
    """

    left: str | None
    value: str
    found: Finding
    cuts: Ranges


@dataclass(frozen=True)
class Judge:
    """Decides about texts."""

    index: Index
    action: str
    min_coverage: float

    def __call__(self, text: str) -> Verdict | None:
        """The verdict on a text, or None if it shares nothing."""
        return self.decide(text) if suspects(pa.array([text]), self.index)[0] else None

    def decide(self, text: str) -> Verdict | None:
        """The same, for a text that `suspects` has already marked."""
        found = find_shared(text, self.index)
        if found is None:
            return None
        blamed = blamed_items(found, self.index, self.min_coverage)
        guilty = blamed >= 0
        if not guilty.any():
            return Verdict(text, "", found, [])
        first = int(guilty.argmax())
        name = self.index.names[self.index.benchmark[blamed[first]]]
        cuts = self._cuts(text, found, guilty)
        left = None if cuts is None else without(text.encode(), cuts).decode()
        return Verdict(left, f"{name}: {found.ngram(first)}", found, cuts or [])

    def _cuts(self, text: str, found: Finding, guilty: npt.NDArray[np.bool_]) -> Ranges | None:
        """What to cut. The rest is searched again, because a cut joins words that were apart.

        Returns None to drop the text: if `action` is not `cut`, if too little is left, or after MAX_ROUNDS.
        """
        data, cuts = text.encode(), Ranges()
        for _ in range(MAX_ROUNDS):
            later = cut(text, found, guilty) if self.action == "cut" else None
            if later is None:
                return None
            cuts = compose(cuts, later)
            text = without(data, cuts).decode()
            again = find_shared(text, self.index)
            if again is None:
                return cuts
            found, guilty = again, blamed_items(again, self.index, self.min_coverage) >= 0
            if not guilty.any():
                return cuts
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


def load_benchmarks(settings: Decontaminate) -> Benchmarks:
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
                f"can be searched for: a text needs {settings.min_words} words and half of its item; "
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
    judge = Judge(load_benchmarks(settings).index, "drop", settings.min_coverage)

    def leak(text: str) -> str | None:
        verdict = judge(text)
        return verdict.value if verdict and verdict.left is None else None

    return leak


def search(store: Store, prefix: str, judge: Judge, spared: Collection[str], part: Part, name: str) -> Output:
    """Keep, cut or drop the documents of one part; keep all if its source is spared."""
    sink = IndexSink(store, prefix, "decontaminate", name)
    findings = Findings(store, prefix, judge.index, name)
    cut: dict[int, Ranges] = {}
    for batch in read_part(store, part, ["id", "url", "text"]):
        searched = part.source not in spared
        suspect = suspects(batch["text"], judge.index).tolist() if searched else [False] * batch.num_rows
        sizes = pc.binary_length(batch["text"]).to_pylist()
        for at, (row, size) in enumerate(zip(batch["row"].to_pylist(), sizes, strict=True)):
            document = batch.slice(at, 1).to_pylist()[0] if suspect[at] else {}
            verdict = judge.decide(document["text"]) if suspect[at] else None
            if verdict is None:
                sink.keep(row, size)
                continue
            findings.note(document, verdict.found, verdict.left)
            if verdict.left is None:
                sink.drop(document, Drop.CONTAMINATED, verdict.value, size)
                continue
            sink.keep(row, len(verdict.left.encode()), size)
            if verdict.cuts:
                cut[row] = verdict.cuts
    sink.finish(part)
    output = sink.close()
    if cut:
        output.parts = [replace(one, cuts=add_cuts(store, prefix, one, cut, name)) for one in output.parts]
    output.files += findings.close()
    return output


def add_cuts(store: Store, prefix: str, part: Part, later: dict[int, Ranges], name: str) -> File:
    """Write the cuts of a part together with `later` ones, by row, of the texts that they left."""
    cuts = read_cuts(store, part.cuts)
    cuts |= {row: compose(cuts.get(row, []), ranges) for row, ranges in later.items()}
    only = np.array(list(cuts))
    ids = {row["row"]: row["id"] for row in read_documents(store, part, ["id"], only)}
    left = {row: ranges for row, ranges in cuts.items() if row in ids}
    return write_cuts(store, f"{prefix}/cuts-{name}.parquet", left, ids)


def check(settings: StageSettings) -> None:
    """Raise InputError if a benchmark cannot be read; print what was found of each."""
    if settings.own.benchmarks:
        print(*describe(load_benchmarks(settings.own)), sep="\n", flush=True)


def run(job: Job) -> None:
    settings: Decontaminate = job.settings
    if not settings.benchmarks:
        (before,) = job.manifests()
        kept, size = before.rows.kept, before.rows.bytes_kept
        counts = Counts(read=kept, kept=kept, bytes_read=size, bytes_kept=size)
        job.commit(Output(counts=counts, parts=job.parts()), results.Decontaminate(benchmark_ngrams=0))
        return
    benchmarks = load_benchmarks(settings)
    print(*describe(benchmarks), sep="\n", flush=True)
    judge = Judge(benchmarks.index, settings.action, settings.min_coverage)
    spared = job.setting("curate.not_decontaminated")
    output = job.map_files(job.parts(), partial(search, job.store, job.prefix, judge, spared))
    metrics = summarise(job.store, job.prefix, benchmarks.sets, benchmarks.index, output)
    job.commit(output, results.Decontaminate(benchmark_ngrams=len(benchmarks.index.grams), **metrics))
