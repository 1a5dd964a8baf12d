"""Mixtures: how often training reads each source, phase by phase, and whose turn it is.

A mixture gives every source a weight. Sources take turns as exactly as whole rows can: after any number of draws, each
has had its share of them. What has been drawn by a step is computed, never counted or stored.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from contract.errors import InputError

if TYPE_CHECKING:
    from contract.settings.training import Mixture, Pretrain

STEPS = 10_000  # of pretraining, if the recipe says nothing from which the number follows
MOST_WEIGHT = 1 << 31  # up to this sum of the weights, products of two of them stay exact in 64 bits


# ---------------------------------------------------------------- published mixtures


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    `size` is in tokens. Where `derived`, it is the one at which proportion x training tokens / size gives the published
    epochs: the paper states none, or a rounded one that contradicts its own epochs by more than 0.02.
    """

    proportion: float
    epochs: float
    size: float
    derived: bool = True
    stated: str = ""
    """The size in the paper, as it stands there."""


@dataclass(frozen=True)
class Preset:
    """A published mixture. Its proportions are divided by their sum, since GPT-3's rounded ones add up to 1.01."""

    tokens: float
    """Training tokens to which the epochs belong."""
    sources: dict[str, Published]


PRESETS = {
    "gpt3": Preset(  # Brown et al. 2020, table 2.2
        300e9,
        {
            "crawl": Published(0.60, 0.44, 410e9, derived=False, stated="410 billion tokens"),
            "webtext2": Published(0.22, 2.9, 22.5e9, stated="19 billion tokens"),
            "books1": Published(0.08, 1.9, 12.5e9, stated="12 billion tokens"),
            "books2": Published(0.08, 0.43, 55e9, derived=False, stated="55 billion tokens"),
            "wikipedia": Published(0.03, 3.4, 2.62e9, stated="3 billion tokens"),
        },
    ),
    "llama": Preset(  # Touvron et al. 2023, table 1, whose sizes are those on disk
        1.4e12,
        {
            "crawl": Published(0.67, 1.10, 853e9, stated="3.3 TB"),
            "c4": Published(0.15, 1.06, 198e9, stated="783 GB"),
            "github": Published(0.045, 0.64, 98.4e9, stated="328 GB"),
            "wikipedia": Published(0.045, 2.45, 25.7e9, stated="83 GB"),
            "books": Published(0.045, 2.23, 28.3e9, stated="85 GB"),
            "arxiv": Published(0.025, 1.06, 33.0e9, stated="92 GB"),
            "stackexchange": Published(0.02, 1.03, 27.2e9, stated="78 GB"),
        },
    ),
}
"""Name -> mixture. The source `crawl` is Common Crawl."""


# ---------------------------------------------------------------- formulas


def exact(value: float) -> Fraction:
    """The fraction that a recipe's decimal number means: 0.1 is 1/10."""
    return Fraction(str(value))


def proportional(proportions: Mapping[str, float]) -> dict[str, Fraction]:
    """Each source's share of the draws: its proportion, divided by the sum of all."""
    given = {source: exact(proportion) for source, proportion in proportions.items()}
    total = sum(given.values())
    return {source: value / total for source, value in given.items()}


def epochs_of(proportions: Mapping[str, float], sizes: Mapping[str, float], budget: float) -> dict[str, float]:
    """Epochs over each source: proportion x budget / size, with sizes and budget in the same unit."""
    shares = proportional(proportions)
    return {source: float(share) * budget / sizes[source] for source, share in shares.items()}


def shares_of(mixture: "Mixture", rows: Mapping[str, int]) -> dict[str, Fraction]:
    """Each source's share of the draws, without the cap. `rows` are the rows of one epoch over each source.

    By default every source is read equally often, so its share is that of its rows. Raises InputError if a source that
    is named has no row.
    """
    named = mixture.named()
    if named is None:
        wanted = {source: Fraction(count) for source, count in rows.items() if count}
    else:
        empty = [source for source, value in named.items() if value and not rows.get(source)]
        if empty:
            there = ", ".join(f"{source} ({count:,} rows)" for source, count in sorted(rows.items())) or "none"
            raise InputError(
                f"pretrain: a mixture names {', '.join(empty)}, of which there is no row; the corpus has {there}; "
                "name one of these, or see in the funnel why nothing is left"
            )
        wanted = {source: exact(value) for source, value in named.items() if value}
        if mixture.epochs:
            wanted = {source: epochs * rows[source] for source, epochs in wanted.items()}
    total = sum(wanted.values())
    return {source: value / total for source, value in wanted.items()}


def capped(shares: Mapping[str, Fraction], left: Mapping[str, int], budget: int) -> dict[str, int]:
    """Draws of each source, `budget` in all, none above what is `left` of it.

    What a capped source cannot give goes to the others in proportion to their shares; where that exceeds another's cap,
    again. Raises InputError if all are capped and too little is left.
    """
    given: dict[str, int] = {}
    free = dict(shares)
    while free:
        rest, total = budget - sum(given.values()), sum(free.values())
        over = [source for source, share in free.items() if rest * share / total > left[source]]
        if not over:
            return given | _whole({source: rest * share / total for source, share in free.items()}, rest)
        for source in over:
            given[source] = left[source]
            del free[source]
    raise InputError(
        f"pretrain: max_epochs leaves {sum(given.values()):,} rows of {', '.join(sorted(given))}, and "
        f"{budget:,} are to be drawn; raise max_epochs, lower pretrain.steps or pretrain.tokens, or add text"
    )


def _whole(parts: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """The parts of a total as whole numbers: rounded down, and up where most was cut off, until their sum is right."""
    rounded = {source: math.floor(part) for source, part in parts.items()}
    by_rest = sorted(parts, key=lambda source: (rounded[source] - parts[source], source))
    for source in by_rest[: total - sum(rounded.values())]:
        rounded[source] += 1
    return rounded


def weights_of(shares: Mapping[str, Fraction] | Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """(source, integer weight), heaviest first, in exactly these shares: a rounded one could draw more than a cap."""
    scale = math.lcm(*(share.denominator for share in shares.values()))
    whole = {source: int(share * scale) for source, share in shares.items()}
    divisor = math.gcd(*whole.values())
    weights = {source: weight // divisor for source, weight in whole.items()}
    return tuple(sorted(weights.items(), key=lambda item: (-item[1], item[0])))


def share_of_draws(n: Any, weight: int, total: int) -> Any:
    """floor(n x weight / total) without overflow: of a node's first n draws, so many are its first source's.

    `n` is an int, or an array of int64; weight <= total. Above MOST_WEIGHT an array is computed as Python's integers,
    which takes about a microsecond for each draw.
    """
    if total > MOST_WEIGHT and not isinstance(n, int):
        return (n.astype(object) * weight // total).astype(n.dtype)
    return n // total * weight + n % total * weight // total


def counts(weights: Sequence[tuple[str, int]], n: int) -> dict[str, int]:
    """How many of the first n draws are each source's.

    The sources are a chain: at each, a draw is that source's or goes on to the rest. A node's n-th draw, from 0, is its
    source's where floor((n + 1) a / b) > floor(n a / b), a being its weight and b the sum of its own and the rest's.
    """
    drawn: dict[str, int] = {}
    total = sum(weight for _, weight in weights)
    for source, weight in weights:
        drawn[source] = share_of_draws(n, weight, total)
        n, total = n - drawn[source], total - weight
    return drawn


# ---------------------------------------------------------------- phases


@dataclass(frozen=True)
class Stretch:
    """The steps `first` to `last` - 1, in which one mixture holds.

    weights: of the sources that are read, heaviest first. rows: of one epoch over each source. before: each source's
    draws at the start, in these rows. batch: rows of a step.
    """

    first: int
    last: int
    weights: tuple[tuple[str, int], ...]
    rows: Mapping[str, int]
    before: Mapping[str, int]
    batch: int

    def drawn(self, step: int) -> dict[str, int]:
        """Rows drawn of each source in this stretch by the start of a step."""
        done = min(max(step, self.first), self.last) - self.first
        return counts(self.weights, done * self.batch)

    def epochs(self) -> dict[str, float]:
        """Epochs over each source in this stretch."""
        return {source: count / self.rows[source] for source, count in self.drawn(self.last).items()}


@dataclass(frozen=True)
class Schedule:
    """What is drawn in which step."""

    stretches: tuple[Stretch, ...]

    @property
    def steps(self) -> int:
        return self.stretches[-1].last

    def at(self, step: int) -> Stretch:
        """The stretch of a step; of one behind the end, the last."""
        return self.stretches[self.number(step)]

    def number(self, step: int) -> int:
        """The number of a step's stretch, from 0."""
        return next((at for at, one in enumerate(self.stretches) if step < one.last), len(self.stretches) - 1)

    def drawn(self, step: int) -> dict[str, int]:
        """Rows drawn of each source by the start of a step, over all stretches."""
        total: dict[str, int] = {}
        for stretch in self.stretches:
            for source, count in stretch.drawn(step).items():
                total[source] = total.get(source, 0) + count
        return total

    def epochs(self, step: int) -> dict[str, float]:
        """Epochs over each source by the start of a step."""
        total: dict[str, float] = {}
        for stretch in self.stretches:
            for source, count in stretch.drawn(step).items():
                total[source] = total.get(source, 0.0) + count / stretch.rows[source]
        return total


def told(plan: Schedule) -> list[str]:
    """One line for each source and phase: what will be drawn of it."""
    lines = []
    for number, stretch in enumerate(plan.stretches, 1):
        phase = f"phase {number}, " if len(plan.stretches) > 1 else ""
        epochs, total = stretch.epochs(), sum(weight for _, weight in stretch.weights)
        for source, weight in stretch.weights:
            lines.append(
                f"mixture: {phase}steps {stretch.first:,} to {stretch.last:,}: {source} {weight / total:.1%} of the "
                f"sequences, {epochs[source]:.3g} epochs over {stretch.rows[source]:,}"
            )
    last = plan.stretches[-1]
    unread = sorted(source for source in last.rows if source not in plan.drawn(plan.steps))
    return [*lines, *(f"mixture: {source} is not read" for source in unread)]


def schedule(parts: Sequence[tuple[int, "Mixture", Mapping[str, int]]], batch: int | Sequence[int]) -> Schedule:
    """The draws of phases one after the other: (steps, mixture, rows of one epoch over each source) of each.

    `batch` is the rows of a step, of each phase if they differ.

    A phase goes on in each source where the phases before it ended. Caps count what was drawn in all phases so far. If
    the rows of a source differ from the last phase's because sequences have another length, its draws are converted to
    as many epochs. Raises the errors of `shares_of` and `capped`.
    """
    made: list[Stretch] = []
    read: dict[str, Fraction] = {}
    first = 0
    batches = [batch] * len(parts) if isinstance(batch, int) else batch
    for (steps, mixture, rows), own in zip(parts, batches, strict=True):
        before = {source: math.ceil(read.get(source, Fraction(0)) * count) for source, count in rows.items()}
        weights = _weights(mixture, rows, before, steps * own)
        stretch = Stretch(first, first + steps, weights, dict(rows), before, own)
        for source, count in stretch.drawn(stretch.last).items():
            read[source] = Fraction(before[source] + count, rows[source])
        made.append(stretch)
        first += steps
    return Schedule(tuple(made))


def _weights(
    mixture: "Mixture", rows: Mapping[str, int], before: Mapping[str, int], budget: int
) -> tuple[tuple[str, int], ...]:
    shares = shares_of(mixture, rows)
    if not shares:
        raise InputError("pretrain: there is no row to draw; the corpus is empty, check the funnel")
    if mixture.max_epochs is None:
        return weights_of(shares)
    most = exact(mixture.max_epochs)
    left = {source: max(math.floor(most * rows[source]) - before[source], 0) for source in shares}
    return weights_of({source: count for source, count in capped(shares, left, budget).items() if count})


def split_steps(shares: Sequence[float], steps: int) -> list[int]:
    """The steps of each phase: its share of all, rounded so that together they make `steps`."""
    parts = [exact(share) for share in shares]
    total, ends, done = sum(parts), [0], Fraction(0)
    for part in parts:
        done += part
        ends.append(math.floor(done / total * steps + Fraction(1, 2)))
    return [end - start for start, end in pairwise(ends)]


def known_steps(settings: "Pretrain", seq_len: int) -> int | None:
    """The steps that follow from the recipe; None where a mixture by epochs fixes them and the corpus must be known.

    A step trains on batch x seq_len tokens.
    """
    if settings.steps is not None:
        return settings.steps
    if settings.tokens is not None:
        return -(-settings.tokens // (settings.batch * seq_len))
    return None if settings.mixture.epochs and not settings.phases else STEPS


def lengths(settings: "Pretrain", seq_len: int) -> list[tuple[int, int]]:
    """(sequence length, sequences of a step) of each phase, or of the whole pretraining if it has none.

    All steps have as many tokens. Raises ValueError if a phase's length does not divide them.
    """
    found = []
    for number, phase in enumerate(settings.phases):
        own = phase.seq_len or seq_len
        rows, rest = divmod(settings.batch * seq_len, own)
        if rest:
            raise ValueError(
                f"pretrain.phases.{number}.seq_len {own} does not divide the {settings.batch * seq_len:,} tokens of a "
                f"step, batch {settings.batch} x pack.seq_len {seq_len}; change one of them"
            )
        found.append((own, rows))
    return found or [(seq_len, settings.batch)]


def micro_batch(most: int, rows: int) -> int:
    """Sequences that a process runs at once: the most that divide its rows of a step, at most `most`, at least 1."""
    return next(size for size in range(min(max(most, 1), rows), 0, -1) if rows % size == 0)


def micro_batches(settings: "Pretrain", seq_len: int) -> list[int]:
    """The micro-batch of each phase, or of the whole pretraining if it has none.

    A process runs about as many tokens at once as `engine.micro_batch` sequences of `seq_len` have. Raises ValueError
    if the processes cannot share a phase's rows equally.
    """
    engine, found = settings.engine, []
    for number, (own, rows) in enumerate(lengths(settings, seq_len)):
        each, rest = divmod(rows, engine.replicas)
        if rest:
            those = f"{engine.processes} / {engine.group}" if engine.group > 1 else engine.processes
            raise ValueError(
                f"pretrain.phases.{number}.seq_len {own} leaves {rows:,} rows in a step, which "
                f"pretrain.engine.processes {those} does not divide; change one of them or pretrain.batch"
            )
        found.append(micro_batch(engine.micro_batch * seq_len // own, each))
    return found


def of_pretrain(
    settings: "Pretrain",
    seq_len: int,
    rows: Mapping[str, int],
    others: Mapping[int, Mapping[str, int]] | None = None,
) -> Schedule:
    """The draws of pretraining. `rows` are the sequences of `seq_len` that each source has.

    `others` are those of the phases' other lengths.
    """
    mixture, steps = settings.mixture, known_steps(settings, seq_len)
    if steps is None:
        shares_of(mixture, rows)  # its errors are the plainer ones
        whole = sum(exact(epochs) * rows[source] for source, epochs in mixture.epochs.items() if epochs)
        steps = max(1, math.floor(whole / settings.batch))  # the last rows fill no step
    if not settings.phases:
        return schedule([(steps, mixture, rows)], settings.batch)
    each = split_steps([phase.share for phase in settings.phases], steps)
    known = {**(others or {}), seq_len: rows}
    sizes = lengths(settings, seq_len)
    mixtures = [phase.mixture or mixture for phase in settings.phases]
    parts = [(own, drawn, known[length]) for own, drawn, (length, _) in zip(each, mixtures, sizes, strict=True)]
    return schedule(parts, [batch for _, batch in sizes])
