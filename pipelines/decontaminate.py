"""Drops documents that share an n-gram of words with an evaluation set, so that evaluation measures ability and not memory."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from contract.errors import InputError
from contract.manifest import File
from contract.metrics import Progress
from contract.settings import Decontaminate
from contract.store import Store, split_uri
from pipelines.job import Counts, Job, Output, Sorter, read_rows
from pipelines.schema import Drop
from pipelines.session import store_errors
from pipelines.text.ngrams import Hashes, ngram_hashes, normalize, word_hashes

COPIES_AT_ONCE = 8


class Index(NamedTuple):
    """The n-grams of all benchmarks, ascending by `key`: rolling hash, an independent hash of the words, benchmark. Shapes (ngrams,)."""

    names: tuple[str, ...]
    key: Hashes
    check: Hashes
    benchmark: npt.NDArray[np.uint16]


def strings(value: Any) -> Iterator[str]:
    """Every string value in a JSON value, in order; the keys of objects are not text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def read_benchmark(name: str, uri: str) -> Iterator[str]:
    """The texts of a benchmark's JSONL file (gz or not); raises InputError naming the recipe's key, the file and the line."""
    folder, file = split_uri(uri)
    try:
        data = folder.read_bytes(file)
        lines = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).splitlines()
    except (FileNotFoundError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"decontaminate.benchmarks.{name}: {uri} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            yield from strings(json.loads(line)) if line.strip() else ()
        except (ValueError, RecursionError) as error:
            raise InputError(f"decontaminate.benchmarks.{name}: {uri} line {number} is not JSON: {error}") from None


def check_hash(words: list[str]) -> int:
    return xxhash.xxh3_64_intdigest(" ".join(words).encode(), seed=1)


def build_index(benchmarks: Mapping[str, str], n: int) -> Index:
    """The n-grams of all benchmarks; an n-gram in two of them counts for the first by name."""
    names = tuple(sorted(benchmarks))
    found: dict[int, tuple[int, int]] = {}
    for number, name in enumerate(names):
        for text in read_benchmark(name, benchmarks[name]):
            words = normalize(text).split()
            for start, key in enumerate(ngram_hashes(word_hashes(words), n).tolist()):
                found.setdefault(key, (check_hash(words[start : start + n]), number))
    keys = np.array(sorted(found), np.uint64)
    pairs = [found[key] for key in keys.tolist()]
    return Index(
        names,
        keys,
        np.array([check for check, _ in pairs], np.uint64),
        np.array([number for _, number in pairs], np.uint16),
    )


def load(settings: Decontaminate) -> Index:
    """The index of a recipe's benchmarks. Raises InputError where they hold not one n-gram."""
    index = build_index(settings.benchmarks, settings.ngram)
    if not len(index.key):
        raise InputError(
            f"decontaminate.benchmarks: no text in {', '.join(index.names)} has {settings.ngram} words; lower decontaminate.ngram or leave them out"
        )
    return index


def contamination(text: str, index: Index, n: int) -> tuple[str, str] | None:
    """The first benchmark n-gram in a text, as (benchmark, n-gram), or None. Both hashes must agree."""
    words = normalize(text).split()
    hashes = ngram_hashes(word_hashes(words), n)
    places = np.clip(np.searchsorted(index.key, hashes), 0, len(index.key) - 1)
    for start in np.flatnonzero(index.key[places] == hashes).tolist():
        at = places[start]
        ngram = words[start : start + n]
        if int(index.check[at]) == check_hash(ngram):
            return index.names[index.benchmark[at]], " ".join(ngram)
    return None


def judge(store: Store, prefix: str, index: Index, n: int, file: File, name: str) -> Output:
    """Keep or drop the documents of one file."""
    sorter = Sorter(store, prefix, "decontaminate", name)
    for row in read_rows(store, file.path):
        size = len(row["text"].encode())
        found = contamination(row["text"], index, n)
        if found:
            sorter.drop(row, Drop.CONTAMINATED, f"{found[0]}: {found[1]}", size)
        else:
            sorter.keep(row, size)
    return sorter.close()


def copy(job: Job) -> Output:
    """With no benchmark there is nothing to look for: the files are streamed from store to store.

    In threads of this process, because a copy waits for the store and not for a core, and starting Spark takes longer.
    """
    inputs = job.inputs("dedup_substring", "documents")
    progress = Progress(job.task.stage, job.task.partition, "files", len(inputs))

    def one(numbered: tuple[int, File]) -> File:
        number, file = numbered
        path = f"{job.prefix}/documents-{number:05d}.parquet"
        with (
            store_errors(job.store.full(path)),
            job.store.open_input(file.path) as source,
            job.store.open_output(path) as sink,
        ):
            sink.upload(source)
        return File(path=path, kind=file.kind, bytes=file.bytes, rows=file.rows)

    with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        files = []
        for file in pool.map(one, enumerate(inputs)):
            files.append(file)
            progress.advance()
    progress.finish()
    (before,) = job.manifests("dedup_substring")
    kept, size = before.rows.kept, before.rows.bytes_kept
    return Output(files, Counts(read=kept, kept=kept, bytes_read=size, bytes_kept=size))


def run(job: Job) -> None:
    settings: Decontaminate = job.settings
    if not settings.benchmarks:
        job.commit(copy(job), benchmark_ngrams=0)
        return
    index = load(settings)
    work = partial(judge, job.store, job.prefix, index, settings.ngram)
    job.commit(job.map_files(job.inputs("dedup_substring", "documents"), work), benchmark_ngrams=len(index.key))
