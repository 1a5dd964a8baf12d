"""Makes the synthetic store: one run of ten million documents, and a thousand runs in all, most of them tiny."""

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from contract.plan import Run, open_run, resolve, vary
from contract.printable import printable
from contract.store import Store
from perf.cockpit import corpus, models
from perf.cockpit.payloads import PAYLOADS

RECIPE = """\
name: bench
store: {folder}/store
langid: {{languages: [en, de, fr, es, it]}}
crawl: {{source: {folder}/{crawl}, files_per_segment: 1}}
pretrain: {{steps: {steps}}}
"""
TINY = corpus.Shape(segments=1, files=1, rows=512)
TINY_STEPS = 200
VARIANTS = 200
"""So many different trainings; the runs beyond them share their results, as repeated runs of one recipe do."""
UNFINISHED = 9  # one variant of so many ends with the corpus


class Unsynced(Store):
    """A store without waiting for the disk: after a power cut, the bench begins anew."""

    def persist(self, paths: Iterable[str]) -> None:
        pass


@dataclass(frozen=True)
class Size:
    """How much the store holds. steps: of the large run's pretraining, with 3.4 points each."""

    documents: int = 10_000_000
    runs: int = 1000
    steps: int = 600_000


@dataclass(frozen=True)
class Made:
    """What was made: the URIs of the large run, of the one whose texts attack pages, and of the tiny ones, newest last."""

    size: Size
    large: str
    hostile: str
    tiny: tuple[str, ...]

    @cached_property
    def run(self) -> Run:
        return open_run(self.large)


def make(folder: Path, size: Size = Size(), processes: int = 2) -> Made:
    """Make the store in `folder`, or find the one of this size that was made there before."""
    note = folder / "made.json"
    if note.exists():
        held = json.loads(note.read_text())
        made = Made(Size(**held["size"]), held["large"], held["hostile"], tuple(held["tiny"]))
        if made.size == size:
            return made
    shape = corpus.shape_of(size.documents)
    large = _resolved(folder, "large", shape.segments, size.steps)
    counts = corpus.write(large, shape, processes)
    models.write(large, counts["decontaminate"], size.steps)
    made = Made(size, large.uri, hostile(folder), tuple(_tiny(folder, size.runs - 1)))
    note.write_text(json.dumps(asdict(made)))
    return made


def _resolved(folder: Path, name: str, segments: int, steps: int, settings: Sequence[str] = ()) -> Run:
    """A run over a crawl of so many files without a page: their names and contents are all that a plan reads.

    settings: overrides of the recipe.
    """
    crawl = folder / name
    crawl.mkdir(parents=True, exist_ok=True)
    for number in range(segments):
        head = f"WARC/1.0\r\nWARC-Type: warcinfo\r\nWARC-Date: 2026-03-05T10:00:00Z\r\nContent-Length: 5\r\n\r\n{number:05d}"
        (crawl / f"{name}-{number:05d}.warc.gz").write_bytes(gzip.compress(f"{head}\r\n\r\n".encode(), mtime=0))
    recipe = folder / f"{name}.yaml"
    recipe.write_text(RECIPE.format(folder=folder, crawl=name, steps=steps))
    return unsynced(resolve(str(recipe), name, settings))


def unsynced(run: Run) -> Run:
    run.__dict__["store"] = Unsynced(run.recipe.store)
    return run


def overrides(number: int) -> list[str]:
    """What differs in the recipe of a tiny run."""
    return [f"pretrain.optim.lr={1e-4 * (1 + number % VARIANTS):.4f}"]


def hostile(folder: Path) -> str:
    """The URI of a run whose titles, addresses, texts, curves, replies, name and settings are all `PAYLOADS`."""
    shown = [printable(one) for one in PAYLOADS]  # a recipe refuses control characters
    settings = [f"name={json.dumps(' '.join(shown))}", f"crawl.strict_words={json.dumps(shown)}"]
    run = _resolved(folder, "hostile", 1, TINY_STEPS, settings)
    counts = corpus.write(run, replace(TINY, hostile=PAYLOADS), processes=1)
    models.write(run, counts["decontaminate"], TINY_STEPS, hostile=PAYLOADS)
    return run.uri


def _tiny(folder: Path, runs: int) -> list[str]:
    """The URIs of the tiny runs, which share one corpus."""
    base = _resolved(folder, "tiny", TINY.segments, TINY_STEPS)
    counts = corpus.write(base, TINY, processes=1)
    made: list[str] = []
    for number in range(runs):
        name, first = f"tiny-{number:04d}", f"tiny-{number % VARIANTS:04d}"
        if number >= VARIANTS:
            made.append(_again(base.store, made[number % VARIANTS], first, name))
            continue
        run = unsynced(vary(base, name, overrides(number)))
        last = "pack" if number % UNFINISHED == UNFINISHED - 1 else "export"
        models.write(run, counts["decontaminate"], TINY_STEPS, number, last)
        made.append(run.uri)
    return made


def _again(store: Store, uri: str, first: str, name: str) -> str:
    """A run of the same recipe under another name, which is in its folder alone."""
    for file in ("recipe.yaml", "inputs.json"):
        store.create(f"runs/{name}/{file}", store.read_bytes(f"runs/{first}/{file}"))
    return uri.replace(f"/{first}/", f"/{name}/")
