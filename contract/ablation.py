"""An ablation: the runs of a recipe's variants, one for each seed, and the run that compares their models.

All of these are ordinary runs. What variants share has one fingerprint, so it is computed once. Every model is measured
on the documents that the base recipe's `mix` holds out. No variant trains on them: a document is held out by a hash of
its id, which says where it was crawled and not what became of its text, and a variant whose documents differ from the
base's holds out every equal text and every equal id as well (`mix.also_held_out`).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import PurePosixPath

from contract.digest import split_digest
from contract.errors import RecipeError
from contract.mixture import known_steps
from contract.plan import Run, Task, vary
from contract.recipe import Recipe, change
from contract.settings.training import NEVER
from contract.stages import STAGES, upstream

TRAINED = tuple(name for name in STAGES if name in {"probe", *upstream("probe")})
"""The stages of every variant, in the order of the table."""
ALIKE = (
    "name", "store", "spark", "probe", "ablate", "mix.heldout_fraction", "mix.also_held_out",
    "pretrain.seed", "pretrain.steps", "pretrain.tokens",
)  # fmt: skip
"""What no variant may change: how long it is trained, by which seed, and how it is measured."""


COMPARISON = "comparison"


@dataclass(frozen=True)
class Ablation:
    """The runs of an ablation: (variant, seed) -> run, and the one of the comparison."""

    runs: Mapping[tuple[str, int], Run]
    comparison: Run

    def tasks(self) -> Iterator[tuple[Run, Task]]:
        """Every task, once, after its inputs: those that several runs share are given to the first of them."""
        seen: set[str] = set()
        for stage in TRAINED:
            for run in self.runs.values():
                for task in (one for (name, _), one in run.tasks().items() if name == stage):
                    if task.prefix not in seen:
                        seen.add(task.prefix)
                        yield run, task
        yield self.comparison, self.comparison.task("ablate")

    def by_stage(self) -> dict[str, list[dict[str, str]]]:
        """Stage -> the run and the partition of each of its tasks, as Airflow's operators take them."""
        found: dict[str, list[dict[str, str]]] = {stage: [] for stage in TRAINED}
        for run, task in self.tasks():
            if task.stage in found:
                found[task.stage].append({"recipe": run.uri, "partition": task.partition})
        return found


Vary = Callable[[Run, str, Sequence[str]], Run]
"""Makes a run of a base run's recipe with overrides; the second argument is its name."""


def labels(recipe: Recipe) -> list[str]:
    """`variant.seed` of each model that a recipe's ablation trains; empty if it names no variants."""
    return [f"{variant}.{seed}" for variant in recipe.ablate.variants for seed in recipe.ablate.seeds]


def resolve(base: Run, vary: Vary = vary) -> Ablation:
    """Write the runs of the variants that a resolved recipe names to the store, or open them if they are there.

    `vary` makes a run; one that writes nothing shows what an ablation would do. Raises RecipeError if the recipe names
    no variants, one that changes what must be alike, or two that do not differ.
    """
    settings = base.recipe.ablate
    if not settings.variants:
        raise RecipeError(
            "ablate.variants names no variant; name two or more, "
            "for example ablate.variants={base: [], strict: [filter.min_words=100]}"
        )
    tokens = settings.tokens or _tokens(base.recipe)
    runs: dict[tuple[str, int], Run] = {}
    for variant, overrides in settings.variants.items():
        for seed in settings.seeds:
            alike = [f"pretrain.seed={seed}", "pretrain.steps=null", f"pretrain.tokens={tokens}"]
            alike += [f"pretrain.optim.give_up_after={NEVER}"]  # a model that diverges counts as the worst
            alike += [f"probe.reference={base.task('mix').fingerprint}", "ablate={}"]
            try:
                runs[variant, seed] = vary(base, name_of(base, variant, seed), [*_checked(base, overrides), *alike])
            except RecipeError as error:
                raise RecipeError(f"ablate.variants.{variant}: {error}") from None
    measured: dict[str, dict[str, str]] = {}
    for (variant, seed), run in runs.items():
        measured.setdefault(variant, {})[str(seed)] = run.task("probe").fingerprint
    for one, other in combinations(measured, 2):
        if measured[one] == measured[other]:
            raise RecipeError(f"ablate.variants.{other}: its models are those of {one}; change a setting or remove it")
    return Ablation(runs, vary(base, name_of(base, COMPARISON), [f"ablate.measured={json.dumps(measured)}"]))


def name_of(base: Run, *which: object) -> str:
    """The name of the run of a variant and a seed, or of COMPARISON, of the recipe that names the variants."""
    return ".".join((PurePosixPath(split_digest(base.uri)[0]).parent.name, *map(str, which)))


def _checked(base: Run, overrides: Sequence[str]) -> list[str]:
    """A variant's overrides; if its documents may differ from the base's, also that it holds out the base's texts.

    Raises RecipeError if the variant changes what must be alike.
    """
    recipe = change(base.recipe, base.uri, overrides)
    for key in ALIKE:
        if recipe.at(key) != base.recipe.at(key):
            raise RecipeError(f"changes {key}, which must be the same for all variants; set it in the recipe itself")
    if _documents(recipe) == _documents(base.recipe):
        return [*overrides]
    return [*overrides, f"mix.also_held_out={base.task('mix').fingerprint}"]


def _documents(recipe: Recipe) -> tuple[object, ...]:
    """All that decides which documents a recipe's `mix` writes, and their texts."""
    before = sorted(upstream("mix"))
    return recipe.crawl, recipe.snapshots, *(recipe.identity(stage) for stage in [*before, "mix"])


def _tokens(recipe: Recipe) -> int:
    """The tokens on which the recipe's `pretrain` trains. Raises RecipeError if only the corpus can tell."""
    steps = known_steps(recipe.pretrain, recipe.pack.seq_len)
    if steps is None:
        raise RecipeError("ablate.tokens is not set, and pretrain.mixture.epochs says no number; set ablate.tokens")
    return steps * recipe.pretrain.batch * recipe.pack.seq_len
