"""Compare the models of a recipe's variants: which is better, or that nobody can tell."""

import json
import math
from collections.abc import Mapping
from typing import Any

from contract import results
from contract.errors import DamagedError, RecipeError
from contract.kinds import Kind
from contract.manifest import Manifest, need
from contract.printable import printable
from contract.settings.training import Ablate
from evals.ablation import Measure
from evals.verdicts import Comparison, compare, mean_and_spread, render
from training.engine.job import Job

BITS = "bits per byte"
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
    for name, task in first.tasks.items():
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
    comparison = compare(measures(found), settings.confidence)
    pretrained = _pretrained(job, next(iter(made.values())))
    text = render(comparison, facts(probes, pretrained), settings.variants or dict.fromkeys(probes, ()))
    print(printable_lines(text), flush=True)
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
    )
    job.commit(folder, result, dict.fromkeys(("ablation.md", "ablation.json"), Kind.COMPARISON))


def _content(job: Job, probe: Manifest) -> Any:
    (file,) = probe.of(Kind.MEASURES)
    return json.loads(job.scratch.download(file).read_bytes())


def _pretrained(job: Job, probe: Manifest) -> Manifest:
    (one,) = [one for one in probe.inputs if one.stage == "pretrain"]
    return need(job.store, one)


def printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.splitlines()))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs: the verdict, the figures of every model, and every verdict with its interval."""
    return {
        "verdict": comparison.verdict,
        "best": comparison.best,
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
