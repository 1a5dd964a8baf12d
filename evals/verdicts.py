"""What an ablation says of its variants, in one sentence, and the verdicts behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from evals.ablation import Measure, Verdict, best, decide


@dataclass(frozen=True)
class Comparison:
    """The variants of a recipe, compared. `main` are the verdicts of the first measure, `others` those of the rest.

    The two are decided apart: the more sources and tasks there are, the less could be told otherwise of the main one.
    diverged: variant -> the seeds with which its training diverged. Such a variant is worse than all others, and in no
    measure.
    """

    measures: tuple[Measure, ...]
    main: tuple[Verdict, ...]
    others: tuple[Verdict, ...]
    diverged: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def variants(self) -> list[str]:
        """Those whose models did not diverge."""
        return [*self.measures[0].values] if self.measures else []

    @property
    def best(self) -> str | None:
        return self.variants[0] if len(self.variants) == 1 else best(self.main)

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        lost = " and ".join(f"{name} (seed {', '.join(map(str, seeds))})" for name, seeds in self.diverged.items())
        if not self.variants:
            return f"no variant is better: training diverged for {lost}"
        if len(self.variants) == 1:
            return f"{self.best} is better than every other variant: training diverged for {lost}"
        return f"{self._of_figures}; worse is what diverged: {lost}" if lost else self._of_figures

    @property
    def _of_figures(self) -> str:
        if len(self.variants) == 2:
            (one,) = self.main
            if one.better:
                return f"{one.better} is better than {_other(one)}: {_told(one)}"
            return f"{' and '.join(self.variants)}: {one.said}"
        if self.best:
            return f"{self.best} is better than every other variant in {self.main[0].measure}"
        told = [f"{one.better} is better than {_other(one)}" for one in self.main if one.better]
        return (
            f"no variant is better than every other; {', '.join(told) or 'no difference between any two can be told'}"
        )


def _other(one: Verdict) -> str:
    return one.second if one.better == one.first else one.first


def _told(one: Verdict) -> str:
    low, high = sorted(map(abs, one.interval))
    size = f"{abs(one.estimate.mean):.3g} {one.measure}"
    return f"a difference of {size}, {one.confidence:.0%} interval {low:.3g} to {high:.3g}"


def compare(
    measures: Sequence[Measure], confidence: float, diverged: Mapping[str, Sequence[int]] | None = None
) -> Comparison:
    """Compare variants; the first measure decides which is best. All have the same variants, in the same order.

    `diverged` are the variants that no measure has. There is no measure if that are all of them.
    """
    main, others = decide(measures[:1], confidence), decide(measures[1:], confidence)
    return Comparison(tuple(measures), tuple(main), tuple(others), diverged or {})


def mean_and_spread(measure: Measure, variant: str) -> tuple[float, float, int]:
    """(The mean of a variant's figures, their standard deviation, their number); the deviation of one is 0."""
    found = measure.figures(variant)
    return fmean(found), stdev(found) if len(found) > 1 else 0.0, len(found)
