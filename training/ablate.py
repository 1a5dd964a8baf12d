"""Compare the models of a recipe's variants: which is better, or that nobody can tell."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from contract import results
from contract.errors import DamagedError, RecipeError
from contract.kinds import Kind
from contract.manifest import Manifest, need
from contract.printable import printable_lines
from contract.settings.training import Ablate
from evals.ablation import Measure, Verdict
from evals.verdicts import Comparison, compare, mean_and_spread
from training.engine.job import Job

BITS = "bits per byte"
LOWER, HIGHER = "lower is better", "higher is better"
Found = Mapping[str, Mapping[int, Any]]
"""Variant -> seed -> what `probe` committed of that model."""


def measures(found: Found) -> list[Measure]:
    """Bits per byte over all documents, then of each source if there are several, then the accuracy of each task.

    Raises DamagedError if the models were not measured on the same items.
    """
    one = next(iter(next(iter(found.values())).values()))
    _check_alike(found, one)
    sources: Mapping[str, Any] = one["documents"]
    made = [_bits(BITS, found, [*sources])]
    if len(sources) > 1:
        made += [_bits(f"{BITS}, {name}", found, [name]) for name in sources]
    for name, task in one["tasks"].items():
        right = {
            variant: {seed: each["tasks"][name]["right"] for seed, each in seeds.items()}
            for variant, seeds in found.items()
        }
        made.append(Measure(name, right, [1.0] * len(task["items"]), lower_is_better=False))
    return made


def _bits(name: str, found: Found, sources: list[str]) -> Measure:
    """A document of a source that was sampled thinly stands for more of them."""

    def all_of(model: Any, key: str, unit: float) -> list[float]:
        documents = model["documents"]
        return [value / unit * documents[one]["stands_for"] for one in sources for value in documents[one][key]]

    values = {
        variant: {seed: all_of(model, "nats", math.log(2)) for seed, model in seeds.items()}
        for variant, seeds in found.items()
    }
    any_model = next(iter(next(iter(found.values())).values()))
    return Measure(name, values, all_of(any_model, "bytes", 1))


def _check_alike(found: Found, one: Any) -> None:
    def items(model: Any) -> Any:
        texts = {name: (each["ids"], each["bytes"]) for name, each in model["documents"].items()}
        return texts, {name: each["items"] for name, each in model["tasks"].items()}

    for variant, seeds in found.items():
        for seed, model in seeds.items():
            if items(model) != items(one):
                raise DamagedError(
                    f"ablate: {variant} with seed {seed} was measured on other text than the first model; "
                    "measure all of them with the runs of one `python -m contract commands`"
                )


def diverged_of(found: Mapping[str, Mapping[int, Manifest]]) -> dict[str, list[int]]:
    """Variant -> the seeds with which its training diverged; only variants that have such seeds."""
    seeds = {
        variant: [seed for seed, probe in models.items() if results.Probe.of(probe).diverged]
        for variant, models in found.items()
    }
    return {variant: some for variant, some in seeds.items() if some}


def facts(found: Mapping[str, Mapping[int, Manifest]], pretrained: Manifest) -> list[str]:
    """Sentences on how the models were trained and measured, and a warning for tokenizers that lose text."""
    probes = {variant: [*seeds.values()] for variant, seeds in found.items()}
    first = results.Probe.of(next(iter(probes.values()))[0])
    told = [
        f"Each model was trained on about {results.Pretrain.of(pretrained).tokens:,} tokens, and predicted "
        f"{first.bytes:,} bytes of {first.documents:,} held-out documents, which no variant was trained on."
    ]
    for variant, made in probes.items():
        if changed := results.Probe.of(made[0]).documents_changed:
            told.append(
                f"Warning: the tokenizer of {variant} loses text in {changed:,} of these documents. What it loses "
                "costs no bits, so its bits per byte are too low."
            )
    asked = (results.Probe.of(one).tasks for made in probes.values() for one in made)
    for name, task in next(filter(None, asked), {}).items():  # a model without figures was asked nothing
        told.append(f"{name}: {task['items']:,} questions; a guess is right with the chance {task['chance']:.2f}.")
    return told


def run(job: Job) -> None:
    settings: Ablate = job.settings
    if len(settings.measured) < 2:
        raise RecipeError(
            "ablate.measured names no two variants; `python -m contract commands --recipe RUN` makes the run that does"
        )
    made = {one.fingerprint: need(job.store, one) for one in job.task.read("probe")}
    probes = {
        variant: {int(seed): made[one] for seed, one in seeds.items()} for variant, seeds in settings.measured.items()
    }
    found = {
        variant: {seed: _content(job, probe) for seed, probe in seeds.items()} for variant, seeds in probes.items()
    }
    diverged = diverged_of(probes)
    whole = {variant: found[variant] for variant in found if variant not in diverged}
    comparison = compare(measures(whole) if whole else [], settings.confidence, diverged)
    pretrained = _pretrained(job, next(iter(made.values())))
    text = render(comparison, facts(probes, pretrained), settings.variants or dict.fromkeys(probes, ()))
    print(printable_lines(text), end="", flush=True)
    folder = job.scratch.fresh("result")
    (folder / "ablation.md").write_text(text)
    (folder / "ablation.json").write_text(json.dumps(as_json(comparison), indent=1))
    models = sum(map(len, probes.values()))
    result = results.Ablate(
        models=models,
        tokens=results.Pretrain.of(pretrained).tokens,
        verdict=comparison.verdict,
        best=comparison.best,
        bits_per_byte={
            variant: dict(
                zip(("mean", "spread", "models"), mean_and_spread(comparison.measures[0], variant), strict=True)
            )
            for variant in comparison.variants
        },
        diverged={variant: {"models": len(seeds)} for variant, seeds in diverged.items()},
    )
    job.commit(folder, result, dict.fromkeys(("ablation.md", "ablation.json"), Kind.COMPARISON))


def _content(job: Job, probe: Manifest) -> Any:
    (file,) = probe.of(Kind.MEASURES)
    return json.loads(job.scratch.download(file).read_bytes())


def _pretrained(job: Job, probe: Manifest) -> Manifest:
    (one,) = [one for one in probe.inputs if one.stage == "pretrain"]
    return need(job.store, one)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs: the verdict, the figures of every model, and every verdict with its interval."""
    return {
        "verdict": comparison.verdict,
        "best": comparison.best,
        "diverged": {variant: list(seeds) for variant, seeds in comparison.diverged.items()},
        "figures": {
            one.name: {
                variant: {str(seed): one.figure(variant, seed) for seed in seeds}
                for variant, seeds in one.values.items()
            }
            for one in comparison.measures
        },
        "verdicts": [
            {
                "measure": one.measure,
                "first": one.first,
                "second": one.second,
                "difference": one.estimate.mean,
                "interval": list(one.interval) if one.estimate.known else None,
                "p": one.p,
                "better": one.better,
                "said": one.said,
            }
            for one in (*comparison.main, *comparison.others)
        ],
    }


# ---------------------------------------------------------------- the page: Markdown that also reads well in a log


def figures_table(comparison: Comparison) -> list[str]:
    """A row for each variant, with the mean of its models in each measure; the first measure also has its spread."""
    if not comparison.measures:
        return []
    first, *rest = comparison.measures
    head = ["variant", "models", first.name, "spread", *(one.name for one in rest)]
    rows = []
    for variant in comparison.variants:
        mean, spread, models = mean_and_spread(first, variant)
        others = [f"{mean_and_spread(one, variant)[0]:.4f}" for one in rest]
        rows.append([variant, str(models), f"{mean:.4f}", f"{spread:.4f}", *others])
    for variant, seeds in comparison.diverged.items():
        rows.append([variant, f"{len(seeds)} diverged", *["-"] * (len(head) - 2)])
    return table(head, rows)


def verdicts_table(verdicts: Sequence[Verdict]) -> list[str]:
    """A row for each pair of variants in each measure."""
    confidence = f"{verdicts[0].confidence:.0%} interval"
    rows = []
    for one in verdicts:
        low, high = one.interval
        span = f"{low:+.4f} to {high:+.4f}" if one.estimate.known else "-"
        pair = f"{one.first} - {one.second}"
        rows.append([one.measure, pair, f"{one.estimate.mean:+.4f}", span, f"{one.p:.2g}", one.said])
    return table(["measure", "pair", "difference", confidence, "p", "verdict"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, whose columns are padded so that it also reads well as plain text."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]


def render(comparison: Comparison, facts: Sequence[str], overrides: Mapping[str, Sequence[str]]) -> str:
    """The whole report as Markdown. `facts` are sentences on how the models were trained and measured."""
    named = [
        f"- {name}: {', '.join(f'`{one}`' for one in overrides[name]) or 'the recipe itself'}" for name in overrides
    ]
    lower = ", ".join(one.name for one in comparison.measures if one.lower_is_better)
    higher = ", ".join(one.name for one in comparison.measures if not one.lower_is_better)
    reading = [f"{names}: {word}." for names, word in ((lower, LOWER), (higher, HIGHER)) if names]
    parts = [
        ["# Ablation", "", f"**{comparison.verdict}**", "", *named, "", *facts, ""],
        ["## Figures", "", *reading, "", *figures_table(comparison), ""],
        ["## Verdicts", "", *verdicts_table(comparison.main), ""] if comparison.main else [],
        ["## By source and task", "", *verdicts_table(comparison.others), ""] if comparison.others else [],
    ]
    return "\n".join(line for part in parts for line in part)
