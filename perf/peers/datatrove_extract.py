"""datatrove's FineWeb steps on one core, run in the peer's own environment: crawl files in, JSON about speed and decisions out.

Usage: python datatrove_extract.py RESULT.json LID_MODEL REPEATS WARMUP.warc.gz CRAWL.warc.gz ...
"""

import json
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
    URLFilter,
)
from datatrove.pipeline.readers import WarcReader
from datatrove.utils.logging import logger
from fasttext.FastText import _FastText
from tldextract import TLDExtract


class Tap:
    """Notes which documents reach a point of the chain."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[str] = []

    def run(self, data, rank: int = 0, world_size: int = 1):
        for document in data:
            self.seen.append(document.metadata["url"])
            yield document


class Kept(Tap):
    """The end of the chain: also keeps how the text begins, to explain differences."""

    def __init__(self) -> None:
        super().__init__("kept")
        self.heads: dict[str, int] = {}

    def run(self, data, rank: int = 0, world_size: int = 1):
        for document in super().run(data, rank, world_size):
            self.heads[document.metadata["url"]] = len(document.text)
            yield document


def chain(model: str) -> list:
    """The steps of datatrove's own FineWeb example, each behind a tap."""
    language = LanguageFilter(languages="en")
    language.model._model = _FastText(model)
    url = URLFilter()
    url.tldextractor = TLDExtract(suffix_list_urls=())  # the list that is packed with it: nothing is downloaded
    steps = [
        ("url", url),
        ("extract", Trafilatura(favour_precision=True, timeout=10)),
        ("language", language),
        ("repetition", GopherRepetitionFilter()),
        ("quality", GopherQualityFilter()),
        ("c4", C4QualityFilter(filter_no_terminal_punct=False)),
        ("fineweb", FineWebQualityFilter()),
    ]
    made: list = [Tap("read")]
    for name, step in steps:
        made += [step, Tap(name) if name != "fineweb" else Kept()]
    return made


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def run(steps: list, files: list[str]) -> tuple[float, float]:
    """Seconds of wall clock and of processor time for the whole chain over the files."""
    started, used = time.perf_counter(), cpu_seconds()
    for file in files:
        path = Path(file)
        data = WarcReader(str(path.parent), glob_pattern=path.name, compression="gzip").run()
        for step in steps:
            data = step.run(data)
        for document in data:
            assert isinstance(document, Document)
    elapsed = time.perf_counter() - started
    while multiprocessing.active_children():  # reaps the extraction child, whose processor time counts
        time.sleep(0.01)
    return elapsed, cpu_seconds() - used


def main() -> None:
    result, model, repeats, warmup, *files = sys.argv[1:]
    logger.remove()
    steps = chain(model)
    run(steps, [warmup])
    seconds = []
    for _ in range(int(repeats)):
        for step in steps:
            if isinstance(step, Tap):
                step.seen.clear()
        seconds.append(run(steps, files))
    taps = {step.name: step.seen for step in steps if isinstance(step, Tap)}
    memory = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    timed = {
        step.name: step.stats.time_stats.total for step in steps if not isinstance(step, Tap)
    }  # over all runs, warm-up included
    Path(result).write_text(
        json.dumps(
            {
                "seconds": seconds,
                "peak_bytes": memory * 1024,
                "taps": taps,
                "kept_chars": steps[-1].heads,
                "step_seconds": timed,
            }
        )
    )


if __name__ == "__main__":
    main()
