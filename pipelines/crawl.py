"""crawl: reads WARC and WET files into a table of pages. Filters URLs before it stores a page."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import xxhash

from contract import results
from contract.kinds import Kind
from contract.masking import masked
from contract.printable import printable
from contract.recipe import StageSettings
from contract.schema import PAGES, SNIPPET_CHARS, Drop
from contract.settings.corpus import Crawl
from contract.sources import Source, file_size
from contract.store import Store
from pipelines.spark.documents import Counts, DocumentSink, Output
from pipelines.spark.job import Job
from pipelines.urls import filter as urls
from pipelines.urls.listfile import read_lists
from pipelines.warc.confined import decode_confined
from pipelines.warc.pages import Span, read_pages
from pipelines.warc.rangefile import RangeFile
from pipelines.warc.record import Loss, Page

PART_PAGES = 128  # pages in an output file, which `extract` gives to a worker as a whole


@dataclass(frozen=True)
class Place:
    """Where a worker's pages go (store and prefix) and the snapshot that they come from."""

    store: Store
    prefix: str
    snapshot: str


def page_id(snapshot: str, file: str, offset: int, inner: int = 0) -> str:
    """32 hexadecimal digits, the same in every run over the same file. `inner` distinguishes records in one member."""
    place = f"{snapshot}|{file}|{offset}" if not inner else f"{snapshot}|{file}|{offset}+{inner}"
    return xxhash.xxh3_128_hexdigest(place.encode())


def page_row(page: Page, snapshot: str, file: str) -> dict[str, Any]:
    """A page in the columns of `schema.PAGES`."""
    return {
        "id": page_id(snapshot, file, page.offset, page.inner),
        "url": page.url,
        "snapshot": snapshot,
        "date": page.date,
        "file": file,
        "offset": page.offset,
        "digest": blake2b(page.payload, digest_size=16).hexdigest(),
        "charset": page.charset,
        "kind": page.kind,
        "payload": page.payload,
    }


def sort_page(page: Page, row: dict[str, Any], url_filter: urls.UrlFilter, sink: DocumentSink) -> None:
    """Keep the page, or drop it for its URL or its size."""
    snippet = page.payload[:SNIPPET_CHARS].decode("utf-8", "replace")
    verdict = url_filter.judge(page.url)
    if verdict:
        sink.drop(row, verdict[0], verdict[1], len(page.payload), snippet=snippet)
    elif page.too_large:
        sink.drop(row, Drop.PAYLOAD_TOO_LARGE, page.too_large, page.too_large)
    else:
        sink.keep(row, len(page.payload))


@dataclass(frozen=True)
class FileRange:
    """A range of bytes of a crawl file: the work of one Spark task."""

    source: Source
    start: int = 0
    end: int | None = None


@dataclass
class PartOutput(Output):
    """The output of one task, and where its part really began and ended (see `pipelines.warc.pages.Span`)."""

    begun: int | None = None
    ended: int | None = None


def split_source(source: Source, settings: Crawl) -> list[FileRange]:
    """Split a file into parts of equal length, at most `split_bytes` each."""
    limit = settings.max_bytes_per_file
    if limit and limit <= settings.split_bytes:
        return [FileRange(source)]
    size = min(file_size(source, settings.retries), limit or 1 << 62)
    count = max(1, -(-size // settings.split_bytes))
    cuts = [size * number // count for number in range(1, count)]
    return [FileRange(source, start, end) for start, end in zip([0, *cuts], [*cuts, None], strict=True)]


def meet(parts: Sequence[PartOutput]) -> bool:
    """Whether the parts cover a file exactly: each begins where the previous one ended, and the last ends with it."""
    read = [part for part in parts if part.begun is not None]
    starts = [*(part.begun for part in read[1:]), None]
    return not read or [part.ended for part in read] == starts


def read_part(part: FileRange, place: Place, settings: Crawl, url_filter: urls.UrlFilter, name: str) -> PartOutput:
    """Read a part of a crawl file into tables of PART_PAGES pages. Prints the damage that it finds."""
    source, span = part.source, Span(part.start, part.end)
    stepwise = bool(part.start or part.end)
    with RangeFile(
        source.uri, settings.max_bytes_per_file, settings.retries, stepwise, settings.connections_per_host
    ) as file:
        results = read_pages(file, settings.max_payload_bytes, span, decode_confined)
        total = PartOutput()
        for number in range(1 << 30):
            sink = DocumentSink(place.store, place.prefix, "crawl", f"{name}-{number:05d}", PAGES, Kind.PAGES)
            ended = not _fill(results, sink, source, place.snapshot, url_filter)
            written = sink.close()
            total.files += written.files
            total.counts += written.counts
            if ended:
                break
    total.begun, total.ended = span.begun, span.ended
    return total


def _fill(
    results: Iterator[Page | Loss], sink: DocumentSink, source: Source, snapshot: str, url_filter: urls.UrlFilter
) -> bool:
    """Sort pages until a table is full (True) or the part ends (False)."""
    for result in results:
        if isinstance(result, Loss):
            sink.lose(result.kind)
            if result.detail:
                print(printable(f"crawl {masked(source.uri)}: {result.kind}: {result.detail}"), flush=True)
            continue
        sort_page(result, page_row(result, snapshot, source.name), url_filter, sink)
        if sink.counts.read >= PART_PAGES:
            return True
    return False


def _work(url_filter: urls.Shipped, place: Place, settings: Crawl, part: FileRange, name: str) -> PartOutput:
    return read_part(part, place, settings, url_filter.opened(), name)


def whole(
    parts: Sequence[FileRange],
    outputs: Sequence[PartOutput],
    again: Callable[[Sequence[FileRange]], Sequence[PartOutput]],
) -> tuple[list[PartOutput], list[PartOutput]]:
    """Returns (outputs to keep, outputs to delete).

    If the parts of a file do not meet, one of them mistook bytes of a page for a record. Then `again` reads the file as
    a single part.
    """
    by_source: dict[Source, list[PartOutput]] = {}
    for part, output in zip(parts, outputs, strict=True):
        by_source.setdefault(part.source, []).append(output)
    torn = [source for source, pieces in by_source.items() if not meet(pieces)]
    replaced = [piece for source in torn for piece in by_source[source]]
    if torn:
        by_source |= {
            source: [output_of_all]
            for source, output_of_all in zip(torn, again([FileRange(source) for source in torn]), strict=True)
        }
    return [piece for pieces in by_source.values() for piece in pieces], replaced


def check(settings: StageSettings) -> None:
    """Raise InputError or RecipeError if a block list cannot be read."""
    for folder in settings.own.blocklists:
        read_lists(folder)


def run(job: Job) -> None:
    settings: Crawl = job.settings
    segment = job.task.segment
    assert segment is not None, "crawl runs once per segment"
    url_filter = urls.shipped(settings, job.context)
    work = partial(_work, url_filter, Place(job.store, job.prefix, segment.snapshot), settings)
    parts = [part for source in segment.files for part in split_source(source, settings)]
    outputs = job.map_each(parts, work, "parts")
    kept, gone = whole(parts, outputs, lambda some: job.map_each(some, work, "parts"))
    for file in (file for output in gone for file in output.files):
        job.store.delete(file.path)
    total = Output([file for output in kept for file in output.files], sum((one.counts for one in kept), Counts()))
    job.commit(total, results.Crawl(files=len(segment.files), parts=len(parts)))
