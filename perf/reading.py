"""Crawl files of a gibibyte through the crawl stage's reader, in a worker of its own each: `python -m perf.reading`.

Real records are repeated until a file is large: one gzip member a record, plain, and all in one gzip member. Two more have no real
record: a single line, and one record, as long as the file. What counts is the worker's peak memory, which must not follow the file's size.
"""

import argparse
import gzip
import itertools
import json
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from perf.bars import Bars

PEAK_MB = 1536
NAMES = ("aeb", "mediacloud2020_multilang", "trafilatura_eval")
FORMS = ("gzip_per_record", "plain", "one_member", "one_line", "one_record")
PIECE = 1 << 20
HEAD = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.test/\r\nContent-Type: application/http\r\nContent-Length: "


def pieces(form: str, data: Path) -> Iterator[bytes]:
    """The bytes of a file of one form, without end."""
    if form == "one_line":
        return itertools.chain([b"WARC/1.0\r\nWARC-Type: "], itertools.repeat(b"x" * PIECE))
    if form == "one_record":
        return itertools.chain([HEAD + b"%d\r\n\r\nHTTP/1.1 200 OK\r\nX: " % (1 << 40)], itertools.repeat(b"x" * PIECE))
    files = [(data / "html_gold" / f"{name}.dev.warc.gz").read_bytes() for name in NAMES]
    return itertools.cycle(files if form == "gzip_per_record" else [gzip.decompress(file) for file in files])


def write(form: str, data: Path, size: int, target: Path) -> Path:
    """A file of at least `size` bytes."""
    engine = zlib.compressobj(0, zlib.DEFLATED, 31) if form == "one_member" else None
    with target.open("wb") as file:
        for piece in pieces(form, data):
            file.write(engine.compress(piece) if engine else piece)
            if file.tell() >= size:
                break
        if engine:
            file.write(engine.flush())
    return target


def peak_mb() -> float:
    """The largest memory of this process so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def work(file: Path, where: Path) -> dict[str, float]:
    """What a Spark worker does with a crawl file, in this process: peak memory, pages, losses, seconds."""
    from contract.settings.corpus import Crawl
    from contract.sources import Source
    from contract.store import Store
    from pipelines import crawl
    from pipelines.urls import filter as url

    settings = Crawl()
    before, began = peak_mb(), time.perf_counter()
    part = crawl.FileRange(Source(str(file), file.name, file.stat().st_size, ""))
    place = crawl.Place(Store(str(where)), "pages", "BENCH-2024-10")
    counts = crawl.read_part(part, place, settings, url.load_url_filter(settings), "0").counts
    seconds = time.perf_counter() - began
    return {
        "before_mb": before, "peak_mb": peak_mb(), "pages": counts.read, "losses": counts.losses.total(), "seconds": seconds,
    }  # fmt: skip


def measure(form: str, data: Path, size: int) -> dict[str, float]:
    """`work` on a new file, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="gristmill-reading-") as folder:
        name = "big.warc" + (".gz" if form in ("gzip_per_record", "one_member") else "")
        file = write(form, data, size, Path(folder) / name)
        command = [sys.executable, "-m", "perf.reading", "--work", str(file), "--where", folder]
        return dict(
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.reading", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--where", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        print(json.dumps(work(given.work, given.where)))
        return 0
    bars = Bars()
    for form in FORMS:
        found = measure(form, given.data, given.megabytes << 20)
        print(
            f"{form:<16}{found['pages']:8,.0f} pages, {found['losses']:,.0f} losses, {found['seconds']:6.1f} s, "
            f"memory {found['before_mb']:,.0f} MiB before, {found['peak_mb']:,.0f} MiB at its peak"
        )
        bars.at_most(f"reading_peak_mb_{form}", found["peak_mb"], PEAK_MB)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
