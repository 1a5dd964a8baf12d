"""What several models can do, ability by ability, and which of them lost any of it beyond noise.

There is no average over abilities: a model that gains in one and loses in another has done both.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from contract.benchmarks import ABILITIES
from evals.differences import Difference, compare, corrected
from evals.grading import Score, clusters_of, grouped, scored
from evals.intervals import CONFIDENCE
from evals.records import Record

Results = Mapping[str, Mapping[str, Sequence[Record]]]
"""Model -> benchmark -> its records. Several benchmarks may ask one task in different ways."""


@dataclass(frozen=True)
class Row:
    """An ability, or one of its benchmarks. scores: model -> its score, in the order of the models.

    A model that was not asked all benchmarks of an ability has no score in it: a score of fewer says something else.
    """

    ability: str
    benchmark: str | None
    scores: Mapping[str, Score | None]


def table(results: Results, confidence: float = CONFIDENCE) -> list[Row]:
    """Each ability with its benchmarks below it, in the order of ABILITIES. An ability takes its items together."""
    rows: list[Row] = []
    for ability, names in benchmarks_of(results).items():
        rows.append(Row(ability, None, {model: _score(asked, names, confidence) for model, asked in results.items()}))
        rows += [
            Row(ability, name, {model: _score(asked, [name], confidence) for model, asked in results.items()})
            for name in names
        ]
    return rows


def _score(asked: Mapping[str, Sequence[Record]], names: Sequence[str], confidence: float) -> Score | None:
    return pooled([asked[name] for name in names], confidence) if all(name in asked for name in names) else None


def benchmarks_of(results: Results) -> dict[str, list[str]]:
    """Ability -> the benchmarks of it that any model was asked, in the order of ABILITIES."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, records in {name: records for asked in results.values() for name, records in asked.items()}.items():
        found[records[0].ability].append(name)
    return {one: found[one] for one in sorted(found, key=lambda one: (*ABILITIES, one).index(one))}


def pooled(parts: Sequence[Sequence[Record]], confidence: float = CONFIDENCE) -> Score:
    """The mean over the items of one or more benchmarks, with its interval over their sources."""
    scores: list[float] = []
    clusters: list[Hashable] = []
    sources: set[tuple[int, str]] = set()
    for at, records in enumerate(parts):
        items = grouped(records).values()
        scores += [fmean(one.score for one in several) for several in items]
        of_items = [several[0].source for several in items]
        clusters += [(at, cluster) for cluster in clusters_of(of_items)]
        sources |= {(at, one) for one in of_items}
    return replace(scored(scores, clusters, confidence), sources=len(sources))


Verdict = Literal["worse", "same", "better", "cannot be told"]


@dataclass(frozen=True)
class Change:
    """An ability of one model beside the same ability of an earlier one, on the same items.

    why: whether `against` is the model `before`, or the `best` so far in this ability. verdict: beyond noise, after
    correction for the number of tests; `cannot be told` where no result could be, with so few sources.
    """

    model: str
    against: str
    why: Literal["before", "best"]
    verdict: Verdict
    difference: Difference

    @property
    def ability(self) -> str:
        return self.difference.ability

    @property
    def drop(self) -> float:
        """How much lower the score is."""
        return -self.difference.difference


def _change(
    model: str, against: str, why: Literal["before", "best"], difference: Difference, confidence: float
) -> Change:
    verdict: Verdict = "cannot be told" if difference.cannot_be_told(confidence) else "same"
    if difference.worse(confidence) or difference.better(confidence):
        verdict = "worse" if difference.difference < 0 else "better"
    return Change(model, against, why, verdict, difference)


def balance(results: Results, confidence: float = CONFIDENCE) -> list[Change]:
    """Every model against the one before it, and against the best so far where that is another one, by ability.

    The models are in the order in which they were trained. Two models are compared in the benchmarks that both were
    asked. Raises InputError if these had not the same items.
    """
    models = [*results]
    changes: list[Change] = []
    for at, model in enumerate(models[1:], 1):
        changes += _since(results, models[at - 1], model, confidence)
        changes += _since_best(results, models[:at], model, confidence)
    return changes


def _since(results: Results, before: str, model: str, confidence: float) -> list[Change]:
    shared = [name for name in results[before] if name in results[model]]
    first, second = (_named(results[one], shared) for one in (before, model))
    found = compare(first, second, confidence) if shared else []
    return [_change(model, before, "before", one, confidence) for one in found if one.task is None]


def _named(asked: Mapping[str, Sequence[Record]], names: Iterable[str]) -> list[Record]:
    """The records of some benchmarks, with the benchmark for their task: one task may be asked twice."""
    return [replace(one, task=name) for name in names for one in asked[name]]


def _since_best(results: Results, earlier: Sequence[str], model: str, confidence: float) -> list[Change]:
    """The best of several is partly the luckiest, so its p-value is taken times their number before Holm's correction.

    An earlier model that was not asked all benchmarks of an ability is not among them.
    """
    found: list[tuple[str, Difference]] = []
    for names in benchmarks_of({model: results[model]}).values():
        known = [one for one in earlier if all(name in results[one] for name in names)]
        means = {one: _mean(results[one], names) for one in known}
        best = max(known, key=lambda one: (means[one], known.index(one)), default=earlier[-1])
        if best == earlier[-1]:
            continue  # that comparison is there already
        whole = compare(_named(results[best], names), _named(results[model], names), confidence)[0]
        chosen = replace(whole, p=min(1.0, whole.p * len(known)), least=min(1.0, whole.least * len(known)))
        found.append((best, chosen))
    tested = corrected([one for _, one in found])
    return [_change(model, best, "best", one, confidence) for (best, _), one in zip(found, tested, strict=True)]


def _mean(asked: Mapping[str, Sequence[Record]], names: Sequence[str]) -> float:
    """The mean over the items of some benchmarks."""
    return pooled([asked[name] for name in names]).mean


def closing(changes: Sequence[Change], model: str, instead: str, max_drop: float) -> list[Change]:
    """The drops of a model that are larger than `max_drop`, a share of the items, and speak for another model instead.

    A drop since the best so far counts only where the model is also worse than `instead`: else nothing is won by it.
    """
    since = {one.ability: one.drop for one in changes if (one.model, one.against) == (model, instead)}
    return [
        one
        for one in changes
        if one.model == model and one.verdict == "worse" and one.drop > max_drop and since.get(one.ability, 0.0) > 0
    ]


def untold(changes: Sequence[Change], model: str, instead: str) -> list[str]:
    """The abilities of which no drop against another model could be told from noise, in words."""
    return [
        f"{one.ability} ({one.difference.n:,} items of {one.difference.sources:,} sources)"
        for one in changes
        if (one.model, one.against, one.verdict) == (model, instead, "cannot be told")
    ]


def told(change: Change) -> str:
    """A change in words, such as `code 41.0 % after 44.1 %: -3.1 points (-5.0 to -1.2), n = 164, p = 0.002`."""
    one = change.difference
    points = f"{100 * one.difference:+.1f} points ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
    scores = f"{100 * one.second:.1f} % after {100 * one.first:.1f} %"
    return f"{one.ability} {scores}: {points}, n = {one.n:,}, p = {one.adjusted:.2g}"


def alignment_tax(changes: Sequence[Change], tuned: str, aligned: str) -> str:
    """One line on what alignment cost: every ability in which the aligned model is worse than the tuned one.

    Empty if the two were not compared.
    """
    both = [one for one in changes if (one.model, one.against) == (aligned, tuned)]
    if not both:
        return ""
    abilities = {
        verdict: [one.ability for one in both if one.verdict == verdict]
        for verdict in ("worse", "better", "same", "cannot be told")
    }
    paid = "; ".join(told(one) for one in both if one.verdict == "worse")
    said = f"Alignment tax, {tuned} to {aligned}: {paid or 'none beyond noise'}."
    said += f" Better: {', '.join(abilities['better'])}." if abilities["better"] else ""
    said += f" No difference beyond noise: {', '.join(abilities['same'])}." if abilities["same"] else ""
    few = abilities["cannot be told"]
    return said + (f" Too few sources to tell anything: {', '.join(few)}." if few else "")


def below(rows: Sequence[Row], model: str, at_least: Mapping[str, float]) -> list[str]:
    """What a model does not reach, in words: ability -> the score that each of its benchmarks must have.

    An ability that was not measured reaches nothing.
    """
    said: list[str] = []
    for ability, bound in at_least.items():
        of_it = [row for row in rows if row.ability == ability and row.benchmark is not None]
        scores = {row.benchmark: row.scores.get(model) for row in of_it}
        said += [] if any(scores.values()) else [f"{ability} was not measured"]
        said += [
            f"{ability}: {name} {100 * one.mean:.1f} % is under {100 * bound:g} %"
            for name, one in scores.items()
            if one and one.mean < bound
        ]
    return said
