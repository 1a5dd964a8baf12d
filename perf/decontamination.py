"""What decontamination finds and costs, for docs/decontamination.md: `python -m perf.decontamination`.

Items of real evaluation sets are planted, one to a page, among pages of C4 and Common Crawl, and looked for as the stage does it. Costs
are one worker's, in this process: a documents file is read and searched, without an item and with one in every hundredth page.
"""

import argparse
import gzip
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from contract.contamination import Report, render
from contract.documents import Part
from contract.kinds import Kind
from contract.schema import DOCUMENTS
from contract.settings.corpus import Decontaminate
from contract.store import Store
from perf.bars import Bars
from pipelines.decontaminate import Benchmarks, Judge, load_benchmarks, search
from pipelines.decontamination.findings import summarise
from pipelines.spark.tables import TableWriter

SETS = {
    "bbh": "bbh/bbh_tasks_and_cot_prompts.tar.xz",
    "ceval": "ceval/ceval_dev_val_only.zip",
    "cmmlu": "cmmlu/cmmlu_dev_val_only.zip",
    "gsm8k": "gsm8k/train.jsonl",
    "humaneval": "humaneval/example_problem.jsonl",
    "mmlu": "mmlu/mmlu_dev_val_only.zip",
}
SHOWN = ("bbh", "gsm8k", "mmlu")
PLANTED = 80  # items of each set shown
DOCUMENT_WORDS, DOCUMENTS_TIMED = 800, 20_000
PAGES_A_SECOND = 4000


def pages(data: Path) -> list[str]:
    """320 texts of real pages."""
    lines = (data / "text/llama-factory/c4_demo.jsonl").read_bytes().splitlines()
    for path in sorted((data / "text/dolma").iterdir()):
        lines += gzip.decompress(path.read_bytes()).splitlines()
    return [json.loads(line)["text"] for line in lines]


def settings(data: Path, names: Iterable[str]) -> Decontaminate:
    return Decontaminate(benchmarks={name: str(data / "evals" / SETS[name]) for name in names})


def planted(found: Benchmarks, texts: list[str], draw: random.Random) -> Iterator[str]:
    """A page each for some items of every set that are long enough to be sought: the item between the halves of a real page."""
    sought, first = set(found.index.item.tolist()), 0
    for _, items in found.sets:
        for number in draw.sample([at for at in range(len(items)) if first + at in sought], PLANTED):
            words = draw.choice(texts).split()
            yield " ".join([*words[: len(words) // 2], *items[number].fields, *words[len(words) // 2 :]])
        first += len(items)


def write(store: Store, texts: Iterable[str]) -> Part:
    """A documents file."""
    writer = TableWriter(store, "documents.parquet", "documents", DOCUMENTS)
    for number, text in enumerate(texts):
        row: dict[str, Any] = dict.fromkeys(DOCUMENTS.names)
        writer.write(row | {"id": f"{number:032x}", "source": "crawl", "language": "en", "text": text}, len(text))
    (file,) = writer.close()
    return Part(file)


def report(found: Benchmarks, texts: list[str]) -> Report:
    """What the stage would report of these pages."""
    with tempfile.TemporaryDirectory(prefix="gristmill-decontamination-") as folder:
        store = Store(folder)
        output = search(store, "made", Judge(found.index, "drop", 0.0), (), write(store, texts), "0")
        summarise(store, "made", found.sets, found.index, output)
        return Report.model_validate_json(store.read_bytes(f"made/{Kind.CONTAMINATION}.json"))


def rate(found: Benchmarks, texts: list[str], items: list[str]) -> float:
    """Documents a second, where every hundredth holds an item (or none, without items); the better of two runs."""
    words = " ".join(texts).split()
    starts = random.Random(1)
    made = []
    for number in range(DOCUMENTS_TIMED):
        at = starts.randrange(len(words) - DOCUMENT_WORDS)
        held = [items[number // 100 % len(items)]] if items and number % 100 == 0 else []
        made.append(" ".join(words[at : at + DOCUMENT_WORDS] + held))
    seconds = []
    with tempfile.TemporaryDirectory(prefix="gristmill-decontamination-") as folder:
        store = Store(folder)
        part = write(store, made)
        for turn in range(2):
            began = time.perf_counter()
            search(store, f"made{turn}", Judge(found.index, "drop", 0.0), (), part, "0")
            seconds.append(time.perf_counter() - began)
    return DOCUMENTS_TIMED / min(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.decontamination", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    texts, draw, bars = pages(given.data), random.Random(3), Bars()
    three = load_benchmarks(settings(given.data, SHOWN))
    made = report(three, [*texts, *planted(three, texts, draw)])
    print(f"{len(texts):,} pages, and {PLANTED} items of each set on pages of their own\n")
    print(*render("the crawl", made), "", sep="\n")
    began = time.perf_counter()
    six = load_benchmarks(settings(given.data, SETS))
    seconds = time.perf_counter() - began
    index = six.index
    held = sum(column.nbytes for column in index if hasattr(column, "nbytes"))
    print(
        f"{len(index.grams):,} n-grams of {len(SETS)} sets, read in {seconds:.1f} s: {held / 2**20:.0f} MiB, {held / len(index.grams):.0f} bytes each"
    )
    items = ["\n".join(item.fields) for _, some in three.sets for item in some[:100]]
    clean, dirty = rate(six, texts, []), rate(six, texts, items)
    print(
        f"documents of {DOCUMENT_WORDS} words a second: {clean:,.0f}, and {dirty:,.0f} where one in a hundred holds an item"
    )
    bars.at_least("decontamination_planted_found", min(one.documents_leaking for one in made.benchmarks), PLANTED)
    bars.at_least("decontamination_documents_per_s", clean, PAGES_A_SECOND)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
