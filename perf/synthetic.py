"""A corpus with duplicates in it: page lengths, cluster sizes and boilerplate about as a crawl has them, the same for the same seed.

Seven documents of ten are unlike any other. The rest come in clusters whose sizes follow a power law (most have two, a few have
hundreds) and differ from their original by up to a tenth of their words. One in twenty ends in one of a few shared notices.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contract.kinds import Kind
from contract.manifest import Attempt, File, Rows
from contract.output import Writer
from contract.plan import WHOLE, Run, resolve
from contract.schema import SCORED

WORDS = 50_000
FILE_ROWS = 12_500
SINGLE, NOTICE = 0.7, 0.05
T = TypeVar("T")


def texts(documents: int, mean_words: int, seed: int = 0) -> Iterator[str]:
    """The documents' texts, clusters spread over the whole corpus."""
    random = np.random.default_rng(seed)
    vocabulary = np.array(
        ["".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), random.integers(2, 10))) for _ in range(WORDS)]
    )
    notices = [" ".join(vocabulary[random.integers(0, WORDS, 80)]) for _ in range(20)]
    originals: list[np.ndarray] = []
    for _ in range(documents):
        if originals and random.random() > SINGLE:
            words = originals[int(len(originals) * random.random() ** 3)].copy()  # a few are copied often
            changed = random.random(len(words)) < random.choice([0.0, 0.01, 0.03, 0.1])
            words[changed] = random.integers(0, WORDS, changed.sum())
        else:
            words = (WORDS * random.random(max(20, int(random.lognormal(np.log(mean_words) - 0.32, 0.8)))) ** 3).astype(
                int
            )
            if len(originals) < 50_000:
                originals.append(words)
        text = " ".join(vocabulary[words])
        yield f"{text} {notices[random.integers(0, 20)]}" if random.random() < NOTICE else text


def make_run(
    folder: Path, corpus: Iterable[str], overrides: dict[str, object], file_rows: int = FILE_ROWS, stage: str = "filter"
) -> Run:
    """A run in which `stage`, which is `filter` or `dedup_fuzzy`, has committed these texts.

    After `filter`, deduplication by URL is committed too, and has dropped nothing; there are no curated sources.
    """
    crawl = folder / "crawl"
    crawl.mkdir(parents=True, exist_ok=True)
    (crawl / "none.warc.gz").write_bytes(b"WARC")
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"name: bench\nstore: {folder}/store\nspark: {{master: 'local[2]', driver_memory: 2g}}\n")
    given = {"crawl.source": str(crawl)} | overrides
    run = resolve(str(recipe), "bench", [f"{key}={value}" for key, value in given.items()])
    attempt = Attempt(run, run.task(stage, run.segments[0].partition if stage == "filter" else WHOLE))
    files, size, documents = [], 0, 0
    for rows in batched(enumerate(corpus), file_rows):
        files.append(_write(run, attempt, len(files), list(rows)))
        documents += len(rows)
        size += sum(len(text.encode()) for _, text in rows)
    everything = Rows(read=documents, kept=documents, bytes_read=size, bytes_kept=size)
    attempt.commit(files, everything)
    if stage == "filter":
        Attempt(run, run.task("dedup_url", WHOLE)).commit(files, everything)
        Attempt(run, run.task("curate", WHOLE)).commit([])
    return run


def identifier(number: int) -> str:
    """Ids whose order is not that of the documents."""
    return f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}{number:016x}"


def address(number: int) -> str:
    """One page in ten has that of another."""
    return f"https://example.org/{number - 9 * (number % 10 == 9)}"


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while held := list(islice(left, size)):
        yield held


def _write(run: Run, attempt: Attempt, number: int, rows: list[tuple[int, str]]) -> File:
    columns = {name: pa.nulls(len(rows), SCORED.field(name).type) for name in SCORED.names}
    columns |= {
        "id": pa.array([identifier(document) for document, _ in rows]),
        "url": pa.array([address(document) for document, _ in rows]),
        "text": pa.array([text for _, text in rows]),
        "bytes": pa.array([len(text.encode()) for _, text in rows]),
    }
    path = attempt.path(f"documents-{number:05d}-{number:08x}.parquet")
    with Writer(run.store, path) as sink:
        pq.write_table(pa.table(columns, schema=SCORED), sink, compression="zstd", row_group_size=1024)
    return sink.file(Kind.DOCUMENTS, len(rows), number)
