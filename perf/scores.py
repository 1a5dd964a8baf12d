"""What `score` costs a document, for docs/filters.md: `python -m perf.scores`.

The documents are what crawl, extract and langid leave of three benchmarks for extraction, in the ten languages of the stop words that
docs/report.md was made with. One core, every part on texts that nothing else has looked at. What a worker pays once is measured in a process of its own.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perf.bars import Bars

NAMES = ("aeb", "mediacloud2020_multilang", "trafilatura_eval")
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "pl", "ru", "zh", "ja")
US_A_DOCUMENT = 1500
Part = Callable[[str, str], Any]


def documents(data: Path, where: Path) -> list[tuple[str, str]]:
    """(text, language) of every document that reaches `score`."""
    from contract.documents import read_documents
    from contract.manifest import Attempt
    from contract.plan import resolve
    from pipelines.spark.job import Job

    (where / "crawl").mkdir()
    for name in NAMES:
        (where / "crawl" / f"{name}.warc.gz").symlink_to((data / "html_gold" / f"{name}.dev.warc.gz").resolve())
    settings = {"store": f"{where}/store", "spark.master": "local[2]", "crawl.source": f"{where}/crawl"}
    settings |= {"crawl.files_per_segment": "3", "langid.languages": json.dumps(LANGUAGES)}
    run = resolve("recipes/tiny.yaml", "bench", [f"{key}={value}" for key, value in settings.items()])
    task = run.task("langid", run.segments[0].partition)
    for one in (task.inputs[0].inputs[0], task.inputs[0], task):
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(f"pipelines.{one.stage}").run(Job(run, one, Attempt(run, one)))
    parts = Job(run, run.task("score", task.partition), Attempt(run, task)).parts("langid")
    rows = (row for part in parts for row in read_documents(run.store, part, ["text", "language"]))
    return [(row["text"], row["language"]) for row in rows]


def parts() -> dict[str, Part]:
    """What is measured, the whole first."""
    from contract.settings.corpus import Score
    from pipelines.pii import mask as pii
    from pipelines.rules import lines, quality, repetition
    from pipelines.rules.measure import Tools, bloom_scores, clean_and_score
    from pipelines.text.words import Text

    settings, tools = Score(), Tools()
    return {
        "everything that `score` does": lambda text, language: clean_and_score(text, language, settings, tools),
        "repetition": lambda text, language: repetition.repetition_scores(Text(text, language)),
        "Gopher quality": lambda text, language: quality.gopher_scores(Text(text, language)),
        "BLOOM's measures": lambda text, language: bloom_scores(Text(text, language), tools),
        "line corrections": lambda text, language: lines.correct(Text(text, language), settings.lines),
        "masking": lambda text, language: pii.mask(text, settings.mask),
    }


def microseconds(part: Part, found: list[tuple[str, str]]) -> float:
    """A document, the best of five passes."""
    passes = []
    for _ in range(5):
        began = time.perf_counter()
        for text, language in found:
            part(text, language)
        passes.append(time.perf_counter() - began)
    return min(passes) / len(found) * 1e6


def start() -> dict[str, float]:
    """In this process: the memory of a worker before it scores, and what the first document costs."""
    import pipelines.spark.job  # noqa: F401  what every worker has loaded

    before, began = resident_mb(), time.perf_counter()
    parts()["everything that `score` does"]("Some words, and a telephone: 030/1234567.", "en")
    return {"seconds": time.perf_counter() - began, "before": before, "after": resident_mb()}


def resident_mb() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def started(cache: Path) -> dict[str, float]:
    """`start` in a new process with this cache of compiled kernels."""
    command = [sys.executable, "-m", "perf.scores", "--start"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    made: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, env=environment).stdout
    )
    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.scores", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--start", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start:
        print(json.dumps(start()))
        return 0
    with tempfile.TemporaryDirectory(prefix="gristmill-scores-") as where:
        found = documents(given.data, Path(where))
        cold, warm = started(Path(where) / "cache"), started(Path(where) / "cache")
    size = sum(len(text) for text, _ in found) / len(found)
    print(f"{len(found):,} documents of {size:,.0f} characters, {len({one for _, one in found})} languages\n")
    print("| | us a document |", "|---|--:|", sep="\n")
    costs = {}
    for name, part in parts().items():
        costs[name] = microseconds(part, found)
        print(f"| {name} | {costs[name]:.0f} |")
    print(
        f"\nthe first document of a process: {cold['seconds']:.1f} s where the kernels must be compiled, {warm['seconds']:.1f} s after that; "
        f"{warm['before']:.0f} MB resident before it, {warm['after']:.0f} MB after"
    )
    bars = Bars()
    bars.at_most("score_us_per_document", max(costs.values()), US_A_DOCUMENT)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
