"""What models can do, beside each other: the figures that stages committed, with intervals, and replies to read.

A figure has an interval if its stage committed one, or committed what it was measured on item by item or as a count:
Wilson's for shares, the ratio estimate's for bits per byte. Others have none, and none is made up for them.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from contract.benchmarks import Measured
from contract.errors import DamagedError, NotReadyError, StoreError
from contract.headline import warnings
from contract.kinds import Kind
from contract.manifest import File, Manifest, find
from contract.plan import Run
from contract.printable import printable_lines
from contract.results import Benchmark, Evaluate, Judge, Probe, Reward
from contract.stages import ALIGNING
from contract.store import Store
from evals.intervals import ratio, wilson
from reports.models import Figure

OWN_REWARD = "reward by the reward model of PPO"
SHORTER = "accuracy where the better reply is shorter"
WIN_RATES = {
    "reward": ("win rate over the SFT model, by the reward model that PPO optimised", "win_rate"),
    "judge": ("win rate over the SFT model, by the judge, which PPO never saw", "judge_win_rate"),
}
"""Stage of a reward model -> how PPO's win rate by it is called, and its figure."""
SPEAKING = {"sft": "before", **dict.fromkeys(ALIGNING, "after")}
"""The models whose replies `evaluate` samples, and what its samples call them."""
MEASURES_BYTES = 16 << 20  # a larger file of measures gives no interval
SAMPLES_BYTES = 2 << 20  # what is read of a file of samples
PROMPTS, PROMPT_CHARS, REPLY_CHARS = 20, 1500, 2500
TASKS = 12  # most tasks of a probe that are told
Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Ability:
    """One figure of one model. measured_on: equal for figures that were measured on the same items in the same way."""

    name: str
    better: Better
    figure: Figure
    items: str
    measured_on: str


@dataclass(frozen=True)
class Row:
    """One ability of several models, in their order; None where it was not measured."""

    name: str
    better: Better
    cells: tuple[Ability | None, ...]

    @property
    def comparable(self) -> bool:
        """Whether all were measured on the same items in the same way."""
        return len({one.measured_on for one in self.cells if one}) < 2

    @property
    def told_apart(self) -> bool:
        """Whether the best figure's interval lies beyond all others': then the difference is hardly chance."""
        known = [one.figure for one in self.cells if one]
        if len(known) < 2 or not self.comparable:
            return False
        sign = 1 if self.better == "higher" else -1
        ends = [
            sorted((sign * one.low, sign * one.high)) for one in known if one.low is not None and one.high is not None
        ]
        if len(ends) < len(known):
            return False
        best = max(ends)
        return all(best[0] > one[1] for one in ends if one is not best)

    @property
    def verdict(self) -> str:
        """Whether the best model is better by more than chance, in a few words; empty if there are no two figures."""
        if sum(one is not None for one in self.cells) < 2:
            return ""
        if not self.comparable:
            return "not comparable: measured on other data or with other settings"
        if any(one.figure.low is None for one in self.cells if one):
            return "unknown: not every interval is known"
        return "yes: the best interval overlaps no other" if self.told_apart else "no: the intervals overlap"


@dataclass(frozen=True)
class Abilities:
    """The abilities of one model, and why others are missing."""

    found: tuple[Ability, ...]
    notes: tuple[str, ...] = ()


class Results:
    """Reads what one page needs of the store, each file once."""

    def __init__(self) -> None:
        self._manifests: dict[tuple[Store, str], Manifest | None] = {}
        self._samples: dict[tuple[Store, str], list[dict[str, Any]]] = {}

    def manifest(self, run: Run, stage: str) -> Manifest | None:
        """The manifest of a stage of a run, or None if it is not done."""
        task = run.task(stage)
        key = run.store, task.prefix
        if key not in self._manifests:
            self._manifests[key] = find(run.store, task)
        return self._manifests[key]

    def samples(self, store: Store, file: File) -> list[dict[str, Any]]:
        """The rows of a file of samples. Raises DamagedError if it has none that can be read."""
        key = store, file.path
        if key not in self._samples:
            try:
                self._samples[key] = sample_rows(_content(store, file, SAMPLES_BYTES))
            except (ValueError, RecursionError) as error:
                raise _spoilt(store, file) from error
        return self._samples[key]


def abilities(run: Run, stage: str, results: Results | None = None) -> Abilities:
    """Every figure of the model that a stage of a run trained, from `evaluate`, `probe` and `reward`.

    A stage that is not done, or whose manifest cannot be read, is a note and no error.
    """
    results = results or Results()
    found: list[Ability] = []
    notes: list[str] = []
    asked: list[tuple[str, Callable[[Manifest], list[Ability]]]] = []
    if stage in ("pretrain", "sft", run.recipe.align):
        # The figures call the aligned model `ppo`, whichever stage made it.
        named = "ppo" if stage == run.recipe.align else stage
        asked.append(("evaluate", lambda one: of_evaluate(one, named)))
    if stage == "pretrain" and run.recipe.probe.reference:
        asked.append(("probe", lambda one: of_probe(run.store, one)))
    if stage in ("reward", "judge"):
        asked.append((stage, of_reward))
    found += of_benchmarks(run, "aligned" if stage == run.recipe.align else stage, notes)
    for measuring, figures in asked:
        try:
            manifest = results.manifest(run, measuring)
            found += figures(manifest) if manifest else []
            notes += warnings(manifest) if manifest else [f"{measuring} of this run is not done"]
        except StoreError as error:
            notes.append(str(error))
    return Abilities(tuple(found), tuple(notes))


def beside(models: Sequence[Abilities]) -> list[Row]:
    """The abilities of several models as rows, in the order in which the first models have them."""
    names = dict.fromkeys((one.name, one.better) for model in models for one in model.found)
    by_name = [{one.name: one for one in model.found} for model in models]
    return [Row(name, better, tuple(known.get(name) for known in by_name)) for name, better in names]


def of_evaluate(manifest: Manifest, stage: str) -> list[Ability]:
    """What `evaluate` measured of one model; nothing of PPO's if the gate was closed.

    Perplexity and bits per byte have no interval: the losses of single sequences are not committed.
    """
    made = Evaluate.of(manifest)
    values = made.model_dump()
    text = f"{made.heldout_sequences:,} sequences, {made.heldout_tokens:,} tokens"
    prompts = f"{made.prompts:,} prompts"
    figures: list[tuple[str, Better, str, str, tuple[str, ...]]] = [
        ("bits per byte", "lower", f"bits_per_byte_{stage}", text, ("pack",)),
        ("perplexity", "lower", f"perplexity_{stage}", text, ("pack",)),
        (OWN_REWARD, "higher", f"reward_{stage}", prompts, ("preferences", "reward")),
        ("reward by the judge", "higher", f"judge_{stage}", prompts, ("preferences", "judge")),
    ]
    found = [
        Ability(name, better, Figure(name, values[key]), items, _measured_on(manifest, data))
        for name, better, key, items, data in figures
        if values.get(key) is not None
    ]
    for judge, (name, key) in WIN_RATES.items() if stage == "ppo" else ():
        if values[key] is not None:
            figure = Figure(name, values[key], values[f"{key}_low"], values[f"{key}_high"])
            data = _measured_on(manifest, ("preferences", judge, "sft"))
            found.append(Ability(name, "higher", figure, prompts, data))
    return found


def of_benchmarks(run: Run, model: str, notes: list[str]) -> list[Ability]:
    """The score of a model, as `benchmark` calls it, on each benchmark that it has answered; damage is noted."""
    found = []
    for (stage, partition), task in run.tasks().items():
        of = Measured.of(partition)
        if stage != "benchmark" or of.model != model:
            continue
        try:
            manifest = find(run.store, task)
            made = Benchmark.of(manifest) if manifest else None
        except StoreError as error:
            notes.append(str(error))
            continue
        if manifest and made and made.score is not None:
            name = f"{of.benchmark}: {made.ability}"
            figure = Figure(name, made.score, made.low, made.high)
            found.append(Ability(name, "higher", figure, f"{made.n:,} items", _asked_as(manifest)))
    return found


def _asked_as(manifest: Manifest) -> str:
    """What decides the items of a benchmark and how they are asked, whatever the model."""
    of_models = ("benchmark.models", "benchmark.steps", "benchmark.others")
    settings = {key: one for key, one in manifest.identity.settings.items() if key not in of_models}
    files = {key: one for key, one in manifest.identity.outside.items() if not key.startswith(of_models)}
    return json.dumps([manifest.stage, manifest.identity.version, settings, files], sort_keys=True)


def of_reward(manifest: Manifest) -> list[Ability]:
    """A reward model's accuracy on held-out pairs, with the intervals that it committed; nothing of a judge not asked
    for.
    """
    made = Reward.of(manifest) if manifest.stage == "reward" else Judge.of(manifest)
    if made.accuracy is None or made.ece is None:
        return []
    items, shorter = f"{made.heldout_pairs:,} pairs", f"{made.shorter_pairs:,} pairs"
    data = _measured_on(manifest, ("preferences",))
    found: list[tuple[str, Better, Figure]] = [
        (items, "higher", Figure("pairwise accuracy", made.accuracy, made.accuracy_low, made.accuracy_high)),
        (items, "lower", Figure("calibration error", made.ece)),
    ]
    if made.shorter_accuracy is not None:
        low, high = made.shorter_accuracy_low, made.shorter_accuracy_high
        found.append((shorter, "higher", Figure(SHORTER, made.shorter_accuracy, low, high)))
    return [Ability(figure.name, better, figure, of, data) for of, better, figure in found]


def of_probe(store: Store, manifest: Manifest) -> list[Ability]:
    """What `probe` measured: bits per byte, with the interval of its documents, and each task's share of right answers.

    Of a file of measures above MEASURES_BYTES no interval is computed.
    """
    made = Probe.of(manifest)
    data = _measured_on(manifest, ("mix",))
    found = []
    if made.bits_per_byte is not None:
        low, high = _bits_interval(store, manifest)
        name = "bits per byte of documents"
        items = f"{made.documents:,} documents"
        found.append(Ability(name, "lower", Figure(name, made.bits_per_byte, low, high), items, data))
    for task, one in [*made.tasks.items()][:TASKS]:
        count, accuracy = int(one["items"]), one["accuracy"]
        name = f"{task}: share of right answers"
        figure = Figure(name, accuracy, *wilson(accuracy * count, count))
        found.append(Ability(name, "higher", figure, f"{count:,} items, chance {one['chance']:.2f}", data))
    return found


def _bits_interval(store: Store, manifest: Manifest) -> tuple[float, float] | tuple[None, None]:
    """The interval of `probe`'s bits per byte, from each document's nats and bytes; None if it cannot be known."""
    (file,) = manifest.of(Kind.MEASURES)
    if file.bytes > MEASURES_BYTES:
        return None, None
    try:
        sources = json.loads(_content(store, file, MEASURES_BYTES))["documents"].values()
    except (ValueError, KeyError) as error:
        raise _spoilt(store, file) from error
    nats = [value * one["stands_for"] for one in sources for value in one["nats"]]
    sizes = [size * one["stands_for"] for one in sources for size in one["bytes"]]
    low, high = ratio([value / math.log(2) for value in nats], sizes)
    return (low, high) if math.isfinite(low) else (None, None)


def _measured_on(manifest: Manifest, stages: Sequence[str]) -> str:
    """What decides the items of a measurement and how it is done: its version, settings, and these inputs."""
    inputs = sorted(one.prefix for one in manifest.inputs if one.stage in stages)
    return json.dumps([manifest.stage, manifest.identity.version, manifest.identity.settings, inputs], sort_keys=True)


def _content(store: Store, file: File, most: int) -> bytes:
    with file.open(store) as source:
        return store.read_range(file.path, source, 0, min(file.bytes, most))


def _spoilt(store: Store, file: File) -> DamagedError:
    return DamagedError(f"{store.full(file.path)}: does not hold what its stage writes; {file.cure(store)}")


@dataclass(frozen=True)
class Reply:
    """One reply, of at most REPLY_CHARS characters, and its reward if there is one. Control characters are visible."""

    text: str
    reward: float | None


@dataclass(frozen=True)
class Prompt:
    """One prompt, and each model's reply to it; None where a model was not asked."""

    text: str
    replies: tuple[Reply | None, ...]


def replies(chosen: Sequence[tuple[Run, str]], results: Results | None = None) -> tuple[list[Prompt], list[str]]:
    """Replies of models at the same prompts, side by side: (at most PROMPTS prompts, why a model has no replies).

    chosen: a run and the stage of its model, one of SPEAKING. Prompts that all models were asked come first.
    """
    found: list[dict[str, Reply]] = []
    notes: list[str] = []
    results = results or Results()
    for run, stage in chosen:
        try:
            found.append(_replies_of(run, stage, results))
        except (StoreError, NotReadyError) as error:
            found.append({})
            notes.append(str(error))
    asked = dict.fromkeys(prompt for one in found for prompt in one)
    ordered = sorted(asked, key=lambda prompt: -sum(prompt in one for one in found))[:PROMPTS]
    rows = [Prompt(_shown(prompt, PROMPT_CHARS), tuple(one.get(prompt) for one in found)) for prompt in ordered]
    return rows, list(dict.fromkeys(notes))


def _replies_of(run: Run, stage: str, results: Results) -> dict[str, Reply]:
    """Prompt -> the reply of one model, as `evaluate` committed them. Raises NotReadyError if there are none."""
    side = SPEAKING[stage]
    manifest = results.manifest(run, "evaluate")
    if manifest is None:
        raise NotReadyError("evaluate of this run is not done, so there are no samples yet")
    found: dict[str, Reply] = {}
    for file in manifest.of(Kind.SAMPLES):
        for row in results.samples(run.store, file):
            text, reward = row.get(side), row.get(f"reward_{side}")
            if isinstance(text, str):
                known = reward if isinstance(reward, int | float) else None
                found[str(row.get("prompt"))] = Reply(_shown(text, REPLY_CHARS), known)
    if not found:
        raise NotReadyError(f"evaluate of this run has no samples of {stage}; its gate may have been closed")
    return found


def sample_rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of a file of samples, or of its beginning: a last line that is cut short is left out.

    Lines end in a line feed alone: a text may hold Unicode's other line ends.
    """
    lines = content.split(b"\n")
    lines.pop()  # what follows the last line's end: nothing, or the beginning of a line that was not read
    rows = (json.loads(line) for line in lines if line)
    return [row for row in rows if isinstance(row, dict)]


def _shown(text: str, most: int) -> str:
    cut = text if len(text) <= most else f"{text[:most]} [...]"
    return printable_lines(cut).rstrip("\n")
