"""The URL filter with block lists of UT1's full size: `python -m perf.urlfilter`. UT1's published part is padded to 4.6 million domains.

A worker is a process of its own that maps the compiled lists and judges URLs all over them; what it costs is the memory that it gained,
though its pages are shared with the other workers of the machine, and the time until the first URL is judged.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from perf.bars import Bars

DOMAINS = 4_600_000
WORKER_MB, WORKER_START_S, US_PER_URL = 300, 2.0, 20.0
UT1 = "urlfilter/ut1_blacklists_2026-08-17_without_adult_domains.tar.xz"
URLS = 200_000


def lists(data: Path, count: int, target: Path) -> list[str]:
    """The folders of UT1's categories, and `adult` filled with made-up domains until there are `count`."""
    with tarfile.open(data / UT1) as archive:
        archive.extractall(target, filter="data")
    folder = target / "blacklists"
    known = len({line for file in folder.glob("*/domains") for line in file.read_bytes().splitlines()})
    (folder / "adult").mkdir(exist_ok=True)
    with (folder / "adult" / "domains").open("a") as file:
        file.writelines(f"{made_up(number)}\n" for number in range(count - known))
    return sorted({str(file.parent) for name in ("domains", "urls") for file in folder.glob(f"*/{name}")})


def made_up(number: int) -> str:
    return f"site{number * 2654435761 % 2**32:x}.example{number % 97}.com"


def judge(compiled: Path) -> dict[str, float]:
    """What a worker does, in this process: map the lists, judge URLs of which every second one is listed."""
    from pipelines.urls.blocklist import Blocklists
    from pipelines.urls.filter import UrlFilter

    chance = random.Random(1)
    urls = [f"https://www.{made_up(chance.randrange(2 * DOMAINS))}/a/page.html?x=1" for _ in range(URLS)]
    before, began = resident_mb(), time.perf_counter()
    url_filter = UrlFilter(Blocklists(compiled))
    url_filter.judge("https://docs.python.org/3/library/")
    start, began = time.perf_counter() - began, time.perf_counter()
    blocked = sum(url_filter.judge(url) is not None for url in urls)
    seconds = time.perf_counter() - began
    gained = resident_mb() - before
    return {"start_s": start, "mb": gained, "us": seconds / URLS * 1e6, "blocked": blocked / URLS}


def resident_mb() -> float:
    """The memory of this process, mapped files included."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.urlfilter", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--domains", type=int, default=DOMAINS)
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.judge:
        print(json.dumps(judge(given.judge)))
        return 0
    from pipelines.urls.filter import compile_lists

    bars = Bars()
    with tempfile.TemporaryDirectory(prefix="gristmill-urlfilter-") as where:
        folders = lists(given.data, given.domains, Path(where))
        began = time.perf_counter()
        compiled = compile_lists(folders, Path(where))
        seconds = time.perf_counter() - began
        assert compiled is not None
        command = [sys.executable, "-m", "perf.urlfilter", "--judge", str(compiled)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{given.domains:,} domains compiled in {seconds:.1f} s, with {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:,} MiB, to {compiled.stat().st_size / 2**20:.0f} MiB; "
            f"{found['us']:.1f} us a URL, {found['blocked']:.0%} of them blocked"
        )
    bars.at_most("urlfilter_worker_mb", found["mb"], WORKER_MB)
    bars.at_most("urlfilter_worker_start_s", found["start_s"], WORKER_START_S)
    bars.at_most("urlfilter_us_per_url", found["us"], US_PER_URL)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
