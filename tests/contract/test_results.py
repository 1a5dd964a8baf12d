"""Figures pass between planes as types: what a stage commits is what its readers expect, by name and by type."""

import ast
import inspect
from collections.abc import Callable

import pytest

from contract import headline
from contract.errors import DamagedError
from contract.manifest import Attempt, find
from contract.plan import Run
from contract.results import RESULTS, Checkpoint, Crawl, Extract, Gate, Result, Reward, result_of
from contract.stages import STAGES

GATE = Gate(open=True, accuracy=0.6, low=0.5, high=0.7, threshold=0.55)


def test_a_stage_without_figures_needs_no_type() -> None:
    assert RESULTS.keys() < STAGES.keys()
    assert (result_of("gate"), result_of("filter")) == (Gate, Result)


def test_a_stage_without_figures_commits_none(make_run: Callable[..., Run]) -> None:
    run = make_run()
    task = run.task("filter", run.segments[0].partition)
    with pytest.raises(TypeError, match="filter commits Result, not Gate"):
        Attempt(run, task).commit([], result=GATE)
    assert Attempt(run, task).commit([]).metrics == {}


def test_figures_are_read_as_they_were_committed(make_run: Callable[..., Run]) -> None:
    run = make_run()
    task = run.task("gate")
    made = Attempt(run, task).commit([], result=GATE)
    assert made.metrics == {"open": True, "accuracy": 0.6, "low": 0.5, "high": 0.7, "threshold": 0.55}
    stands = find(run.store, task)
    assert stands is not None
    assert Gate.of(stands) == GATE


def test_a_stage_commits_its_own_figures_and_a_checkpoint_those_of_checkpoints(make_run: Callable[..., Run]) -> None:
    run = make_run()
    crawl, pretrain = run.task("crawl", run.segments[0].partition), run.task("pretrain")
    with pytest.raises(TypeError, match="crawl commits Crawl, not Extract"):
        Attempt(run, crawl).commit([], result=Extract(extracted_twice=1))
    assert Attempt(run, crawl).commit([], result=Crawl(files=1, parts=2)).metrics == {"files": 1, "parts": 2}
    step = Checkpoint(step=3, processes=2, schedule_steps=9)
    assert Attempt(run, pretrain, "step-00000003").commit([], result=step).metrics == {
        "step": 3,
        "processes": 2,
        "schedule_steps": 9,
    }
    with pytest.raises(TypeError, match="pretrain commits Pretrain, not Checkpoint"):
        Attempt(run, pretrain).commit([], result=step)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({}, "its figure 'pairs' is not one of reward"),
        ({"heldout_pairs": "many"}, "is not one of reward"),
        ({"open": True}, "is not one of reward"),
    ],
)
def test_other_figures_than_those_of_the_stage_are_damage(
    make_run: Callable[..., Run], figures: dict[str, object], said: str
) -> None:
    run = make_run()
    made = Attempt(run, run.task("reward")).commit([], result=Reward.model_construct(**figures))
    with pytest.raises(
        DamagedError, match=rf"reward/.*manifest\.json: {said if not figures else '.*' + said}.*run reward again"
    ):
        Reward.of(made.model_copy(update={"metrics": figures}))


def test_headlines_name_figures_that_stages_commit() -> None:
    """A misspelt figure would be a dash for ever."""
    names = {
        node.args[1].value
        for node in ast.walk(ast.parse(inspect.getsource(headline)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "_n"
        and isinstance(node.args[1], ast.Constant)
    }
    assert len(names) > 15
    types: list[type[Result]] = [*RESULTS.values(), Checkpoint]
    assert names <= {name for kind in types for name in kind.model_fields}
