"""What models answered to the items of a benchmark: prompts, outputs, what was found in them, and the verdicts.

First a table of verdicts is read, without texts; then the texts of the few items of one page.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from contract.errors import NotReadyError, StoreError
from contract.printable import printable_lines
from contract.store import Store
from contract.tables import read_batches
from reports.benchmarks import Part

MOST_BYTES = 512 << 20  # of one file of records; a larger one is not read for a page
ROWS = 4096  # of a file in memory at a time
PROMPT_CHARS, OUTPUT_CHARS, SHORT_CHARS = 6000, 3000, 300
OUTPUTS = 4  # of one item and model that are shown
Verdict = Literal["any", "right", "partly", "wrong", "no answer", "lost", "won"]
"""Which items: by the score of the first model; `lost` and `won` beside the second one."""


@dataclass(frozen=True)
class Mark:
    """The verdict on one item of one model. score: the mean of its outputs."""

    source: str
    score: float
    answered: bool


@dataclass(frozen=True)
class Output:
    """One output. Control characters are visible; long texts are cut."""

    text: str
    extracted: str | None
    score: float


@dataclass(frozen=True)
class Item:
    """One item with the outputs of each model, in their order. more: outputs that are not shown, of each model."""

    id: str
    source: str
    where: str
    prompt: str
    expected: str
    outputs: tuple[tuple[Output, ...], ...]
    more: tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """One page of items. of: how many there are of this verdict; all: how many the benchmark has."""

    items: tuple[Item, ...]
    of: int
    all: int


def find(store: Store, chosen: Sequence[Part], verdict: Verdict, source: str, first: int, most: int) -> Found:
    """The items from the `first` on, at most `most`, with the outputs of one or two models of one benchmark.

    source: only items of it, if it is not empty. Raises NotReadyError if a model has no answers.
    """
    marks = [_marks(store, one) for one in chosen]
    ids = [item for item, mark in marks[0].items() if _wanted(item, mark, marks, verdict, source)]
    shown = ids[first : first + most]
    texts = [_texts(store, one, frozenset(shown)) for one in chosen]
    return Found(tuple(_item(one, texts) for one in shown), len(ids), len(marks[0]))


def _wanted(item: str, mark: Mark, marks: Sequence[Mapping[str, Mark]], verdict: Verdict, source: str) -> bool:
    if source and mark.source != source:
        return False
    other = marks[1].get(item) if len(marks) > 1 else None
    gap = mark.score - other.score if other else 0.0
    return {
        "any": True,
        "right": mark.score == 1,
        "partly": 0 < mark.score < 1,
        "wrong": mark.score == 0,
        "no answer": not mark.answered,
        "lost": gap < 0,
        "won": gap > 0,
    }[verdict]


def _marks(store: Store, part: Part) -> dict[str, Mark]:
    """Item id -> its verdict."""
    scores: dict[str, list[float]] = defaultdict(list)
    sources: dict[str, str] = {}
    unanswered: set[str] = set()
    for row in _rows(store, part, ["id", "source", "score", "extracted"]):
        scores[row["id"]].append(row["score"])
        sources[row["id"]] = row["source"]
        if row["extracted"] is None:
            unanswered.add(row["id"])
    return {item: Mark(sources[item], fmean(some), item not in unanswered) for item, some in scores.items()}


def _texts(store: Store, part: Part, ids: frozenset[str]) -> dict[str, list[dict[str, Any]]]:
    """Item id -> its rows, of these items alone."""
    columns = ["id", "source", "where", "prompt", "output", "expected", "extracted", "score"]
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(store, part, columns, ids) if ids else ():
        found[row["id"]].append(row)
    return found


def _rows(store: Store, part: Part, columns: list[str], ids: frozenset[str] | None = None) -> Any:
    """The rows of a model's records, of these ids alone if they are given."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not part.records:
        raise NotReadyError(f"{part.model} has no answers to {part.benchmark}: {part.problem or 'nothing was asked'}")
    wanted = None if ids is None else pa.array(sorted(ids), pa.string())
    for file in part.records:
        if file.bytes > MOST_BYTES:
            raise StoreError(f"{store.full(file.path)}: has {file.bytes:,} bytes, too many for a page; download it")
        for batch in read_batches(store, file, ROWS, columns):
            some = batch if wanted is None else batch.filter(pc.is_in(batch["id"], wanted))
            yield from some.to_pylist()


def _item(name: str, texts: Sequence[Mapping[str, list[dict[str, Any]]]]) -> Item:
    head = texts[0][name][0]
    outputs = tuple(
        tuple(
            Output(
                _shown(row["output"], OUTPUT_CHARS),
                None if row["extracted"] is None else _shown(row["extracted"], SHORT_CHARS),
                row["score"],
            )
            for row in rows.get(name, [])[:OUTPUTS]
        )
        for rows in texts
    )
    return Item(
        _shown(name, SHORT_CHARS),
        _shown(head["source"], SHORT_CHARS),
        _shown(head["where"], SHORT_CHARS),
        _shown_end(head["prompt"]),
        _shown(head["expected"], SHORT_CHARS),
        outputs,
        tuple(max(0, len(rows.get(name, [])) - OUTPUTS) for rows in texts),
    )


def _shown(text: str, most: int) -> str:
    return printable_lines(text if len(text) <= most else f"{text[:most]} [...]").rstrip("\n")


def _shown_end(prompt: str) -> str:
    """The end of a prompt, where the question stands behind its examples."""
    cut = prompt if len(prompt) <= PROMPT_CHARS else f"[...] {prompt[-PROMPT_CHARS:]}"
    return printable_lines(cut).rstrip("\n")
