"""The judge: it learns as the reward model does, from other prompts and another seed, and PPO's result does not depend on it."""

from collections.abc import Callable

import torch

from contract import results
from contract.kinds import Kind
from contract.manifest import need
from training import judge, reward
from training.data.examples import read_pairs
from training.data.rankings import Rankings
from training.engine.job import Job


def test_it_is_another_model_of_other_prompts_and_is_measured_on_the_same(align: Callable[..., Job]) -> None:
    job = align("evaluate")  # which has reward and judge run
    second, first = job.manifest("judge"), job.manifest("reward")
    found, known = results.Judge.of(second), results.Reward.of(first)
    pairs = Rankings(read_pairs(align("judge"), Kind.PAIRS))
    assert found.pairs + known.pairs + sum(sum(one.dropped["training"].values()) for one in (found, known)) == len(
        pairs
    )
    assert 0.1 < found.pairs / (found.pairs + known.pairs) < 0.5
    assert found.heldout_pairs == known.heldout_pairs
    assert found.accuracy is not None
    assert found.accuracy > 0.6, "a random one ranks half of them right"
    weights = [reward.load_reward_model(job, one).state_dict()["head.weight"] for one in (first, second)]
    assert not torch.equal(*weights)
    assert {file.kind for file in second.files} >= {Kind.MODEL, Kind.CALIBRATION}


def test_ppo_never_sees_it(align: Callable[..., Job]) -> None:
    run = align("judge").attempt.run
    other = align("judge", "judge.seed=9").attempt.run
    assert run.task("judge").fingerprint != other.task("judge").fingerprint
    assert run.task("ppo").fingerprint == other.task("ppo").fingerprint
    assert "judge" not in {one.stage for one in run.task("ppo").inputs}
    more = align("judge", "judge.share=0.2").attempt.run
    assert run.task("reward").fingerprint != more.task("reward").fingerprint, "the reward model gets other prompts"


def test_a_recipe_may_do_without(align: Callable[..., Job]) -> None:
    job = align("judge", "judge.share=0")
    judge.run(job)
    made = need(job.store, job.task)
    assert (results.Judge.of(made), made.of(Kind.MODEL)) == (results.Judge(), [])
    every = Rankings(read_pairs(align("reward", "judge.share=0"), Kind.PAIRS))
    assert reward.divided(job, every, 0, judge=False).numbers == every.numbers
