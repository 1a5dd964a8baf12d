"""Grades the outputs of a task: the score with its interval, and how many answers were found."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from contract.benchmarks import LEAST_EXTRACTED, too_few_extracted
from contract.errors import InputError
from evals.intervals import CONFIDENCE, ratio, trials_of, wilson
from evals.passk import best_of, majority, pass_at_k
from evals.records import Output, Record
from evals.sandbox import Outcome, run_all
from evals.tasks.choice import grade_likelihoods
from evals.tasks.perplexity import PERPLEXITY
from evals.tasks.prompts import Prompt
from evals.tasks.table import TASKS
from evals.tasks.task import MOST_CHARS, NOTHING, Item, Task, Verdict

KS = (1, 5, 10, 100)
Asked = Callable[[Item], Prompt]


@dataclass(frozen=True)
class Score:
    """A mean of items with its interval; n items, of as many sources."""

    mean: float
    low: float
    high: float
    n: int
    sources: int


@dataclass(frozen=True)
class Several:
    """The scores that only items with several outputs have. `Report` explains each of them."""

    pass_at: Mapping[int, Score]
    majority: Score | None
    best: Score | None

    @property
    def named(self) -> dict[str, Score]:
        """The scores that could be computed, by the names that tables show."""
        more = {"majority": self.majority, "best by reward": self.best}
        passed = {f"pass@{k}": one for k, one in self.pass_at.items()}
        return passed | {name: one for name, one in more.items() if one}


@dataclass(frozen=True)
class Report:
    """What a task's outputs show. extraction_rate: the share of outputs in which an answer was found.

    pass_at: k -> pass@k, where items have several outputs and are right or wrong. majority: the share of items whose
    most frequent answer is right, where they have several outputs, and outputs of this task have answers. best: of the
    output with the highest reward, where all have one. bits_per_byte: of a task that measures how well texts are
    predicted, over all of their bytes. shots: examples before an item, where that is known.
    """

    task: str
    ability: str
    score: Score
    extraction_rate: float
    outputs: int
    pass_at: Mapping[int, Score]
    majority: Score | None
    best: Score | None
    bits_per_byte: Score | None = None
    shots: int | None = None

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before the score."""
        few = self.extraction_rate < LEAST_EXTRACTED
        return [too_few_extracted(self.task, self.extraction_rate)] if few else []


def grade(
    task: Task, items: Sequence[Item], outputs: Mapping[str, Sequence[Output]], asked: Asked, by_byte: bool = False
) -> list[Record]:
    """One record for each output, in the order of the items.

    by_byte: log-likelihoods are divided by the bytes of their choices. Raises InputError if an item has no output, an
    output no item, or an output's log-likelihoods do not fit its item; SetupError if code cannot be run.
    """
    _check(items, outputs)
    flat = [(item, sample, one) for item in items for sample, one in enumerate(outputs[item.id])]
    verdicts = _run_code(task, flat) if task.program else [_verdict(task, item, one, by_byte) for item, _, one in flat]
    prompts = {item.id: _shown(asked(item)) for item in items}
    return [
        Record(
            task.name, task.ability, item.id, item.source, sample, prompts[item.id],
            _shown_output(task, one),
            "; ".join(item.answers), verdict.extracted, verdict.score, one.reward, item.where,
        )
        for (item, sample, one), verdict in zip(flat, verdicts, strict=True)
    ]  # fmt: skip


def _shown_output(task: Task, output: Output) -> str:
    """The text with its thought, or of one too long for a record the part that was graded; or the log-likelihoods."""
    if output.logprobs is not None:
        return " ".join(f"{value:.6g}" for value in output.logprobs)
    return output.text if len(output.text) <= MOST_CHARS else task.part(output.text)


def _check(items: Sequence[Item], outputs: Mapping[str, Sequence[Output]]) -> None:
    known = {item.id for item in items}
    if strange := [name for name in outputs if name not in known]:
        raise InputError(f"{len(strange)} outputs have ids that no item has, for example {strange[0]!r}")
    if missing := [item.id for item in items if not outputs.get(item.id)]:
        raise InputError(
            f"{len(missing)} of {len(items)} items have no output, for example {missing[0]!r}; "
            "a score without them would mislead: make outputs for all, or choose fewer items"
        )


def _verdict(task: Task, item: Item, output: Output, by_byte: bool) -> Verdict:
    if output.logprobs is None:
        return task.grade(item, output.text)
    try:
        if task.grade_likelihoods:
            return task.grade_likelihoods(item, output.logprobs)
        if item.choices:
            return grade_likelihoods(item, output.logprobs, by_byte)
    except ValueError as error:
        raise InputError(str(error)) from None
    raise InputError(f"item {item.id} of {task.name} has no choices, and its output has log-likelihoods")


def _run_code(task: Task, flat: Sequence[tuple[Item, int, Output]]) -> list[Verdict]:
    """Every program runs in the sandbox, several at a time."""
    assert task.program
    programs = [task.program(item, one.text) for item, _, one in flat]
    ended = iter(run_all([one for one in programs if one is not None]))
    return [NOTHING if one is None else _of_outcome(next(ended)) for one in programs]


def _of_outcome(outcome: Outcome) -> Verdict:
    return Verdict(outcome.ending, float(outcome.passed))


def _shown(prompt: Prompt) -> str:
    if prompt.turns:
        return "\n\n".join(f"{turn.role}: {turn.text}" for turn in prompt.turns)
    return prompt.text


def report(records: Sequence[Record], confidence: float = CONFIDENCE, shots: int | None = None) -> Report:
    """What the records of one task show. shots: the examples before each item.

    Raises InputError without records or with those of several tasks.
    """
    names = {one.task for one in records}
    if len(names) != 1:
        raise InputError(f"a report is of one task; these records are of {', '.join(sorted(names)) or 'none'}")
    (name,) = names
    by_item = grouped(records)
    sources = [several[0].source for several in by_item.values()]
    means = [fmean(one.score for one in several) for several in by_item.values()]
    found = fmean(one.extracted is not None for one in records)
    several = of_several(records, confidence)
    ability = records[0].ability
    bits = _bits_per_byte(records, confidence) if name == PERPLEXITY.name else None
    score = scored(means, sources, confidence)
    return Report(
        name, ability, score, found, len(records), several.pass_at, several.majority, several.best, bits, shots
    )


def of_several(records: Sequence[Record], confidence: float = CONFIDENCE) -> Several:
    """Compute pass@k, majority and best of the records of one task. All are empty if an item has only one output."""
    by_item = grouped(records)
    sources = [some[0].source for some in by_item.values()]
    fewest = min(map(len, by_item.values()))
    if fewest < 2:
        return Several({}, None, None)
    binary = all(one.score in (0, 1) for one in records)
    pass_at = {}
    for k in (k for k in KS if binary and k <= fewest):
        each = [pass_at_k(len(some), sum(one.score == 1 for one in some), k) for some in by_item.values()]
        pass_at[k] = scored(each, sources, confidence)
    same = TASKS[records[0].task].same if records[0].task in TASKS else None
    voted = best = None
    if binary and same:
        voted = scored([_vote(some, same) for some in by_item.values()], sources, confidence)
    if all(one.reward is not None for one in records):
        best = scored([_best(some) for some in by_item.values()], sources, confidence)
    return Several(pass_at, voted, best)


def _bits_per_byte(records: Sequence[Record], confidence: float) -> Score | None:
    """Bits per byte of all texts together; None if the likelihood of one is not known."""
    if any(one.extracted is None for one in records):
        return None
    bits: Counter[Hashable] = Counter()
    sizes: Counter[Hashable] = Counter()
    for cluster, one in zip(clusters_of([one.source for one in records]), records, strict=True):
        bits[cluster] -= float(one.output) / math.log(2)  # type: ignore[assignment]  # counts may be any numbers
        sizes[cluster] += int(one.expected)
    low, high = ratio([bits[one] for one in sizes], [*sizes.values()], confidence)
    mean = math.fsum(bits.values()) / sum(sizes.values())
    return Score(mean, max(0.0, low), high, len(records), len({one.source for one in records}))


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Item id -> its records."""
    found: dict[str, list[Record]] = defaultdict(list)
    for one in records:
        found[one.id].append(one)
    return found


def _vote(several: Sequence[Record], same: Callable[[str, str], bool]) -> float:
    """The score of the most frequent answer: 0 if no output has one."""
    answer = majority([one.extracted for one in several], same)
    return next((one.score for one in several if answer is not None and one.extracted == answer), 0.0)


def _best(several: Sequence[Record]) -> float:
    """The score of the output with the highest reward."""
    return several[best_of([math.nan if one.reward is None else one.reward for one in several])].score


def clusters_of(sources: Sequence[Hashable]) -> list[Hashable]:
    """The sources as clusters; items that all have one source say nothing of how alike sources are, and stand alone."""
    return [*sources] if len(set(sources)) > 1 else [*range(len(sources))]


def scored(scores: Sequence[float], sources: Sequence[Hashable], confidence: float = CONFIDENCE) -> Score:
    """The mean with its interval, which takes items of one source as a cluster.

    Wilson's interval for shares, with the number of trials that the items are; else the ratio estimate's over clusters.
    Equal scores show no spread, but few of them prove little. They have Wilson's interval, too: of all scores from 0
    to 1 with this mean, those that are 0 or 1 spread most, so it is wide enough.
    """
    clusters = clusters_of(sources)
    mean = math.fsum(scores) / len(scores)
    if all(one in (0, 1) for one in scores) or min(scores) == max(scores):
        number = trials_of(scores, clusters, confidence)
        low, high = wilson(mean * number, number, confidence)
    else:
        sums: Counter[Hashable] = Counter()
        for cluster, one in zip(clusters, scores, strict=True):
            sums[cluster] += one  # type: ignore[assignment]  # counts may be any numbers
        sizes = Counter(clusters)
        low, high = ratio([sums[one] for one in sizes], [*sizes.values()], confidence)
        low, high = max(0.0, low), min(1.0, high)
    return Score(mean, low, high, len(scores), len(set(sources)))


def told(made: Report) -> list[str]:
    """A report as lines of text."""
    lines = [f"{made.task} ({made.ability}): {shown(made.score)}"]
    lines += [f"  pass@{k}: {shown(score)}" for k, score in made.pass_at.items()]
    if made.majority:
        lines.append(f"  majority of {made.outputs // made.score.n} outputs: {shown(made.majority)}")
    if made.best:
        lines.append(f"  best of {made.outputs // made.score.n} outputs by reward: {shown(made.best)}")
    if made.bits_per_byte:
        lines.append(f"  bits per byte: {shown(made.bits_per_byte)}")
    shots = "" if made.shots is None else f", {made.shots}-shot"
    lines.append(f"  extraction rate {made.extraction_rate:.1%} of {made.outputs:,} outputs{shots}")
    return lines


def shown(score: Score) -> str:
    return f"{score.mean:.4f} [{score.low:.4f}, {score.high:.4f}], n = {score.n:,} of {score.sources:,} sources"
