"""The runs of an ablation: what variants share is one task, and none may change what makes them comparable."""

from collections import Counter
from collections.abc import Callable

import pytest

from contract import ablation
from contract.errors import RecipeError
from contract.plan import Run, open_run, varied
from contract.settings.training import NEVER

TWO = "ablate.variants={base: [], strict: [filter.min_words=99]}"


def test_variants_and_seeds_share_what_does_not_differ(make_run: Callable[..., Run]) -> None:
    base = make_run(TWO, "ablate.seeds=[5, 7, 9]", "ablate.tokens=1000000")
    made = ablation.resolve(base)
    segments = len(base.segments)
    counted = Counter(task.stage for _, task in made.tasks())
    assert counted["crawl"] == counted["score"] == segments
    assert counted["filter"] == 2 * segments
    assert (counted["curate"], counted["mix"], counted["pack"]) == (1, 2, 2)
    assert (counted["pretrain"], counted["probe"], counted["ablate"]) == (6, 6, 1)
    assert not {"sft", "instructions", "gate", "evaluate"} & counted.keys()
    assert [task.stage for _, task in made.tasks()][-1] == "ablate"
    assert {stage: len(tasks) for stage, tasks in made.by_stage().items()} == {
        stage: count for stage, count in counted.items() if stage != "ablate"
    }
    seen: set[str] = set()
    for _, task in made.tasks():
        assert {one.prefix for one in task.inputs} <= seen, "after its inputs"
        seen.add(task.prefix)


def test_the_runs_of_variants_have_names_that_can_be_told_before_they_are_there(make_run: Callable[..., Run]) -> None:
    base = make_run(TWO, "ablate.seeds=[5, 7]", "ablate.tokens=1000000")
    assert ablation.labels(base.recipe) == ["base.5", "base.7", "strict.5", "strict.7"]
    made = ablation.resolve(base)
    named = {f"{variant}.{seed}": run for (variant, seed), run in made.runs.items()}
    for label, run in {**named, ablation.COMPARISON: made.comparison}.items():
        assert open_run(base.store.full(f"runs/{ablation.name_of(base, label)}/recipe.yaml")).uri == run.uri
    assert ablation.labels(make_run(run="none").recipe) == []


def test_every_model_is_measured_on_the_text_that_the_base_holds_out(make_run: Callable[..., Run]) -> None:
    base = make_run(TWO, "ablate.seeds=[5]", "ablate.tokens=1000000")
    made = ablation.resolve(base)
    held_out = base.task("mix").fingerprint
    for run in made.runs.values():
        (mixture,) = run.task("probe").read("mix")
        assert mixture.fingerprint == held_out
        assert mixture in run.task("probe").identity.inputs
    same, other = made.runs["base", 5], made.runs["strict", 5]
    assert same.task("mix").fingerprint == held_out
    assert same.recipe.mix.also_held_out is None
    assert other.task("mix").fingerprint != held_out
    assert other.recipe.mix.also_held_out == held_out
    assert [one.fingerprint for one in other.task("mix").read("mix")] == [held_out]
    assert made.comparison.task("ablate").read("probe") == [
        one for run in made.runs.values() for one in made.comparison.task("ablate").elsewhere
        if one.fingerprint == run.task("probe").fingerprint
    ]  # fmt: skip
    assert made.comparison.task("ablate").inputs == ()


def test_the_budget_is_the_recipes_own_if_none_is_said(make_run: Callable[..., Run]) -> None:
    own = "pretrain.steps=7"
    base = make_run(own, "pretrain.batch=16", "pack.seq_len=2048", "ablate.variants={a: [], b: [pretrain.batch=32]}")
    made = ablation.resolve(base)
    assert {run.recipe.pretrain.tokens for run in made.runs.values()} == {7 * 16 * 2048}
    assert {run.recipe.pretrain.steps for run in made.runs.values()} == {None}
    assert {run.recipe.pretrain.optim.give_up_after for run in made.runs.values()} == {NEVER}
    assert {seed for _, seed in made.runs} == {0, 1, 2}
    assert {run.recipe.pretrain.seed for run in made.runs.values()} == {0, 1, 2}


def test_an_ablation_is_opened_again_where_it_stands(make_run: Callable[..., Run]) -> None:
    base = make_run(TWO)
    first, again = ablation.resolve(base), ablation.resolve(open_run(base.uri))
    assert first == again
    assert ".strict.2/recipe.yaml#sha256=" in first.runs["strict", 2].uri
    assert ".comparison/recipe.yaml#sha256=" in first.comparison.uri


@pytest.mark.parametrize(
    "change",
    ["pretrain.tokens=9", "pretrain.seed=3", "mix.heldout_fraction=0.5", "probe.documents=3", "store=/elsewhere"],
)
def test_what_must_be_alike_may_not_be_varied(make_run: Callable[..., Run], change: str) -> None:
    base = make_run(f"ablate.variants={{a: [], b: [{change}]}}", "pretrain.tokens=8")
    key = "probe" if change.startswith("probe") else change.partition("=")[0]
    with pytest.raises(RecipeError, match=rf"^ablate\.variants\.b: changes {key}, which must be the same"):
        ablation.resolve(base)


def test_mistakes_name_the_variant_and_what_to_do(make_run: Callable[..., Run]) -> None:
    with pytest.raises(RecipeError, match=r"ablate\.variants names no variant; name two or more"):
        ablation.resolve(make_run())
    with pytest.raises(RecipeError, match=r"^ablate\.variants\.b: .*filter\.min_word: unknown key"):
        ablation.resolve(make_run("ablate.variants={a: [], b: [filter.min_word=3]}", run="two"))
    with pytest.raises(RecipeError, match="names only one; name two or more"):
        make_run("ablate.variants={a: []}")
    with pytest.raises(RecipeError, match="seeds should differ"):
        make_run("ablate.seeds=[1, 1]")
    with pytest.raises(RecipeError, match=r"^ablate\.variants\.b: its models are those of a; "):
        ablation.resolve(make_run("ablate.variants={a: [], b: [filter.min_words=50]}", "pretrain.tokens=8", run="same"))
    with pytest.raises(RecipeError, match=r"set ablate\.tokens"):
        ablation.resolve(make_run(TWO, "pretrain.mixture.epochs={crawl: 1}", run="three"))


def test_an_ablation_can_be_drafted_without_writing_it(make_run: Callable[..., Run]) -> None:
    base = make_run(TWO)
    drafted = ablation.resolve(base, lambda run, _, overrides: varied(run, overrides))
    assert base.store.folders("runs") == ["one"]
    written = ablation.resolve(base)
    assert [task.prefix for _, task in drafted.tasks()] == [task.prefix for _, task in written.tasks()]
