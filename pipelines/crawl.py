"""crawl: WARC and WET files to a table of pages. Which URLs may enter is decided here, before anything is stored."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import xxhash

from contract.masking import masked
from contract.printable import printable
from contract.schema import PAGES, SNIPPET_CHARS, Drop
from contract.settings.corpus import Crawl
from contract.sources import Source, file_size
from contract.store import Store
from pipelines.spark.job import Counts, DocumentSink, Job, Output
from pipelines.urls import filter as urls
from pipelines.warc.confined import decode_confined
from pipelines.warc.pages import Span, read_pages
from pipelines.warc.rangefile import RangeFile
from pipelines.warc.record import Loss, Page

PART_PAGES = 128  # pages in a file: the share of work that extraction hands out at once


@dataclass(frozen=True)
class Place:
    """Where a worker's pages go and come from."""

    store: Store
    prefix: str
    snapshot: str


def page_id(snapshot: str, file: str, offset: int, inner: int = 0) -> str:
    """32 hexadecimal digits that stay the same in every run over the same file. `inner` tells records in one gzip member apart."""
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
class Part:
    """A stretch of a crawl file, in bytes: one Spark task's work."""

    source: Source
    start: int = 0
    end: int | None = None


@dataclass
class PartOutput(Output):
    """What one task made of its part, and where the part really began and ended (see `pipelines.warc.pages.Span`)."""

    begun: int | None = None
    ended: int | None = None


def split(source: Source, settings: Crawl) -> list[Part]:
    """The parts of a file, of equal length and at most `split_bytes` each."""
    limit = settings.max_bytes_per_file
    if limit and limit <= settings.split_bytes:
        return [Part(source)]
    size = min(file_size(source, settings.retries), limit or 1 << 62)
    count = max(1, -(-size // settings.split_bytes))
    cuts = [size * number // count for number in range(1, count)]
    return [Part(source, start, end) for start, end in zip([0, *cuts], [*cuts, None], strict=True)]


def meet(parts: Sequence[PartOutput]) -> bool:
    """Whether the parts of a file cover it exactly: each begins where the one before it ended, and the last at its end."""
    read = [part for part in parts if part.begun is not None]
    starts = [*(part.begun for part in read[1:]), None]
    return not read or [part.ended for part in read] == starts


def read_part(part: Part, place: Place, settings: Crawl, url_filter: urls.UrlFilter, name: str) -> PartOutput:
    """A part of a crawl file to tables of PART_PAGES pages; says on standard output which damage it met."""
    source, span = part.source, Span(part.start, part.end)
    stepwise = bool(part.start or part.end)
    with RangeFile(
        source.uri, settings.max_bytes_per_file, settings.retries, stepwise, settings.connections_per_host
    ) as file:
        found = read_pages(file, settings.max_payload_bytes, span, decode_confined)
        total = PartOutput()
        for number in range(1 << 30):
            sink = DocumentSink(place.store, place.prefix, "crawl", f"{name}-{number:05d}", PAGES, "pages")
            ended = not _fill(found, sink, source, place.snapshot, url_filter)
            written = sink.close()
            total.files += written.files
            total.counts += written.counts
            if ended:
                break
    total.begun, total.ended = span.begun, span.ended
    return total


def _fill(
    found: Iterator[Page | Loss], sink: DocumentSink, source: Source, snapshot: str, url_filter: urls.UrlFilter
) -> bool:
    """Sort pages until a table is full (True) or the part ends (False)."""
    for one in found:
        if isinstance(one, Loss):
            sink.lose(one.kind)
            if one.detail:
                print(printable(f"crawl {masked(source.uri)}: {one.kind}: {one.detail}"), flush=True)
            continue
        sort_page(one, page_row(one, snapshot, source.name), url_filter, sink)
        if sink.counts.read >= PART_PAGES:
            return True
    return False


def _work(url_filter: urls.Shipped, place: Place, settings: Crawl, part: Part, name: str) -> PartOutput:
    return read_part(part, place, settings, url_filter.opened(), name)


def whole(
    parts: Sequence[Part], outputs: Sequence[PartOutput], again: Callable[[Sequence[Part]], Sequence[PartOutput]]
) -> tuple[list[PartOutput], list[PartOutput]]:
    """(what stays, what goes). A file whose parts do not meet is read `again` as one: its parts took a page's bytes for a record."""
    made: dict[Source, list[PartOutput]] = {}
    for part, output in zip(parts, outputs, strict=True):
        made.setdefault(part.source, []).append(output)
    torn = [source for source, pieces in made.items() if not meet(pieces)]
    gone = [piece for source in torn for piece in made[source]]
    if torn:
        made |= {source: [one] for source, one in zip(torn, again([Part(source) for source in torn]), strict=True)}
    return [piece for pieces in made.values() for piece in pieces], gone


def run(job: Job) -> None:
    settings: Crawl = job.settings
    segment = job.task.segment
    assert segment is not None, "crawl runs once per segment"
    url_filter = urls.shipped(settings, job.context)
    work = partial(_work, url_filter, Place(job.store, job.prefix, segment.snapshot), settings)
    parts = [part for source in segment.files for part in split(source, settings)]
    outputs = job.map_each(parts, work, "parts")
    kept, gone = whole(parts, outputs, lambda some: job.map_each(some, work, "parts"))
    for file in (file for output in gone for file in output.files):
        job.store.delete(file.path)
    total = Output([file for output in kept for file in output.files], sum((one.counts for one in kept), Counts()))
    job.commit(total, files=len(segment.files), parts=len(parts))
