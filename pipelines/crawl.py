"""crawl: WARC and WET files to a table of pages. Which URLs may enter is decided here, before anything is stored."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import xxhash

from contract.settings import Crawl
from contract.sources import Source
from contract.store import Store
from pipelines.job import Job, Output, Sorter
from pipelines.schema import PAGES, SNIPPET_CHARS, Drop
from pipelines.text import url as urls
from pipelines.text.rangefile import RangeFile
from pipelines.text.warc import Loss, Page, read_pages

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


def sort_page(page: Page, row: dict[str, Any], url_filter: urls.UrlFilter, sorter: Sorter) -> None:
    """Keep the page, or drop it for its URL or its size."""
    snippet = page.payload[:SNIPPET_CHARS].decode("utf-8", "replace")
    verdict = url_filter.judge(page.url)
    if verdict:
        sorter.drop(row, verdict[0], verdict[1], len(page.payload), snippet=snippet)
    elif page.too_large:
        sorter.drop(row, Drop.PAYLOAD_TOO_LARGE, page.too_large, page.too_large)
    else:
        sorter.keep(row, len(page.payload))


def read_file(source: Source, place: Place, settings: Crawl, url_filter: urls.UrlFilter, name: str) -> Output:
    """One crawl file to parts of PART_PAGES pages; says on standard output which damage it met."""
    with RangeFile(source.uri, settings.max_bytes_per_file, settings.retries) as file:
        found = read_pages(file, settings.max_payload_bytes)
        total = Output()
        for number in range(1 << 30):
            sorter = Sorter(place.store, place.prefix, "crawl", f"{name}-{number:05d}", PAGES, "pages")
            ended = not _fill(found, sorter, source, place.snapshot, url_filter)
            part = sorter.close()
            total = Output(total.files + part.files, total.counts + part.counts)
            if ended:
                break
    return total


def _fill(
    found: Iterator[Page | Loss], sorter: Sorter, source: Source, snapshot: str, url_filter: urls.UrlFilter
) -> bool:
    """Sort pages until a part is full (True) or the file ends (False)."""
    for one in found:
        if isinstance(one, Loss):
            sorter.lose(one.kind)
            if one.detail:
                print(f"crawl {source.uri}: {one.kind}: {one.detail}", flush=True)
            continue
        sort_page(one, page_row(one, snapshot, source.name), url_filter, sorter)
        if sorter.counts.read >= PART_PAGES:
            return True
    return False


def _work(shared: Any, place: Place, settings: Crawl, source: Source, name: str) -> Output:
    return read_file(source, place, settings, shared.value, name)


def run(job: Job) -> None:
    settings: Crawl = job.settings
    segment = job.task.segment
    assert segment is not None, "crawl runs once per segment"
    shared = job.spark.sparkContext.broadcast(urls.load(settings))
    place = Place(job.store, job.prefix, segment.snapshot)
    job.commit(job.map_files(segment.files, partial(_work, shared, place, settings)), files=len(segment.files))
