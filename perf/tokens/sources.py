"""Reading a source beside the crawl: rows a second in the layouts of published corpora, and memory over a growing file."""

import json
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from contract.store import Store
from perf.bars import Bars
from pipelines.sources.files import rows_of
from pipelines.sources.layouts import read_row

WORDS = 400  # of a text, a page of the web has about as many
FEW, MANY = 4_000, 16_000
HELD_BYTES = 4 << 20
"""The bar of memory: a row, and what is read ahead of it. A file of MANY rows has ten times as much text."""
LEAST_MB = 10.0
"""The bar of speed, in megabytes of text a second of processor: to identify the language of such a text takes a millisecond, or 3 MB/s."""


def made(layout: str, number: int) -> dict[str, Any]:
    text = " ".join(f"word{(number * 31 + at * at) % 9973}" for at in range(WORDS))
    match layout:
        case "pile":
            return {"text": text, "meta": {"pile_set_name": "Pile-CC"}}
        case "oscar":
            headers = {"warc-record-id": f"<urn:uuid:{number}>", "warc-date": "2022-11-26T09:45:47Z"}
            return {
                "content": text,
                "warc_headers": headers,
                "metadata": {"identification": {"label": "en", "prob": 1.0}},
            }
        case "dolma":
            return {"id": str(number), "text": text, "source": "s", "created": "2020-03-29T09:04:10Z", "metadata": {}}
        case _:
            return {"title": f"title {number}", "content": text}


def written(folder: Path, layout: str, count: int) -> str:
    """A file of rows, packed as zst; WuDao's are JSON arrays."""
    rows = [json.dumps(made(layout, number)) for number in range(count)]
    data = ("[" + ",\n".join(rows) + "]" if layout == "wudao" else "\n".join(rows)).encode()
    name = f"{layout}-{count}"
    (folder / name).write_bytes(pa.compress(data, codec="zstd", asbytes=True))
    return name


def sizes(store: Store, name: str, layout: str) -> Iterator[int]:
    for row in rows_of(store, name):
        yield len(read_row(layout, row.value).text)


def peak(store: Store, name: str, layout: str) -> int:
    """The most bytes that Python held at a time while it read a file."""
    tracemalloc.start()
    for _ in sizes(store, name, layout):
        pass
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def run(bars: Bars, data: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="gristmill-sources-") as where:
        store = Store(where)
        speeds, most = {}, 0
        for layout in ("pile", "oscar", "dolma", "wudao"):
            few, many = (written(Path(where), layout, count) for count in (FEW, MANY))
            began = time.process_time()
            size = sum(sizes(store, many, layout))
            speeds[layout] = size / (time.process_time() - began) / 1e6
            held = peak(store, few, layout), peak(store, many, layout)
            most = max(most, *held)
            print(
                f"{layout:<10} {size / 1e6:.0f} MB of text, {speeds[layout]:.0f} MB/s; peak {held[0]:,} and {held[1]:,} bytes"
            )
        bars.at_least("sources_mb_a_second", min(speeds.values()), LEAST_MB)
        bars.at_most("sources_held_bytes", most, HELD_BYTES)
