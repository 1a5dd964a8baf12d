"""GRPO: an update against the paper's objective token by token, and real runs that learn, resume and split over processes."""

import json
from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import need
from contract.settings.training import Grpo
from tests.training.conftest import OF_MACHINE
from tests.training.test_ppo import PlainEngine, actors_of, job_of, made_up, tiny_policy
from training import grpo
from training.data.order import rows_of
from training.engine.job import Job
from training.models import llama as model

GRPO = (
    "align=grpo", "grpo.steps=4", "grpo.rollout_batch=16", "grpo.minibatch=8", "grpo.group_size=4", "grpo.max_prompt_tokens=24",
    "grpo.max_response_tokens=16", "grpo.optim={lr: 2.0e-3, weight_decay: 0.0, schedule: constant}", "grpo.eval_steps=2", "grpo.eval_prompts=6",
    "grpo.engine={micro_batch: 4, checkpoint_steps: 2}", "grpo.seed=3",
)  # fmt: skip


@pytest.mark.parametrize("world", [1, 2])
def test_an_update_is_the_gradient_of_the_papers_objective(world: int) -> None:
    """The mean over replies of each reply's mean over tokens of: clipped surrogate, and beta times k3 from the reference."""
    settings = Grpo(temperature=0.7, clip=0.2, kl_coef=0.4)
    actors = actors_of()
    seen, _ = made_up(actors, settings.temperature)
    seen = SimpleNamespace(**{**vars(seen), "reference": seen.log_probs * 0.9})
    advantages, rows = torch.tensor([1.0, -1.0, 0.5, 0.0, -2.0, 1.5]), [4, 0, 5, 1]
    engine = PlainEngine(tiny_policy(1), 1, 4 // world, world)
    expected = deepcopy(engine.module)
    total, divergence = torch.zeros(()), 0.0
    for row in rows:
        chat, size = seen.tokens[row][seen.attention[row].bool()], int(seen.mask[row].sum())
        log_p = (expected(input_ids=chat[None]).logits[0] / 0.7).log_softmax(-1)
        for t in range(size):
            at = len(chat) - size + t
            here = log_p[at - 1, chat[at]]
            ratio = (here - seen.log_probs[row, t]).exp()
            surrogate = torch.minimum(ratio * advantages[row], ratio.clamp(0.8, 1.2) * advantages[row])
            other = seen.reference[row, t]
            kl = (other - here).exp() - (other - here) - 1
            total = total - (surrogate - 0.4 * kl) / size / len(rows)
            divergence += float(kl) / size / len(rows)
    total.backward()
    sums = torch.zeros(len(grpo.LEARNT))
    for rank in range(world):
        sums += grpo.update(job_of(settings, rank, world), engine, seen, advantages, rows)  # type: ignore[arg-type]
    found = dict(zip(grpo.LEARNT, sums.tolist(), strict=True))
    assert found["kl_loss"] == pytest.approx(divergence, abs=1e-4)
    assert found["policy_loss"] + 0.4 * found["kl_loss"] == pytest.approx(float(total), abs=1e-5)
    for mine, other in zip(engine.gradients(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, other.grad, rtol=1e-3, atol=1e-5)


def test_a_reply_without_an_end_loses_before_groups_are_compared() -> None:
    settings = Grpo(rollout_batch=4, minibatch=4, group_size=2, no_eot_penalty=1.0, by_deviation=False)
    seen: Any = SimpleNamespace(scores=torch.tensor([2.0, 2.0, 3.0, 1.0]), ended=torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert grpo.advantages_of(seen, settings).tolist() == [0.5, -0.5, 1.0, -1.0]


def test_groups_must_fill_a_batch() -> None:
    with pytest.raises(ValueError, match="rollout_batch 10 is not a multiple of group_size 4"):
        Grpo(rollout_batch=10, minibatch=5, group_size=4)


def test_a_closed_gate_is_refused(align: Callable[..., Job]) -> None:
    with pytest.raises(InputError, match="gate is closed"):
        grpo.run(align("grpo", *GRPO, "gate.min_accuracy=1.0"))


@pytest.fixture(scope="module")
def done(align: Callable[..., Job], curves: Callable[..., Any], tensors: Callable[..., Any]) -> SimpleNamespace:
    """A whole run, whose result is then deleted, so that the same task can run again."""
    job, asked = align("grpo", *GRPO), []
    with pytest.MonkeyPatch.context() as patch:
        real = grpo.collect
        patch.setattr(grpo, "collect", lambda *given: asked.append(given[1]) or real(*given))
        grpo.run(job)
    manifest = need(job.store, job.task)
    made = SimpleNamespace(job=job, asked=asked, manifest=manifest, curves=curves(job), tensors=tensors(job))
    [samples] = manifest.of(Kind.SAMPLES)
    made.samples = [json.loads(line) for line in job.store.read_bytes(samples.path).splitlines()]
    job.store.delete(manifest.path)
    return made


def test_neighbours_answer_one_prompt_each_with_a_seed_of_its_own(done: Any) -> None:
    for asked in done.asked:
        assert len({one.seed for one in asked}) == 16
        for start in range(0, 16, 4):
            assert len({tuple(one.ids) for one in asked[start : start + 4]}) == 1
    assert len(set(rows_of(0, 4, 64, 3))) == 4


def test_curves_samples_and_figures_are_committed(done: Any) -> None:
    found, figures = done.curves, done.manifest.metrics
    assert [step for step, _ in found["heldout_reward"]] == [0, 2, 4]
    assert [row["step"] for row in done.samples] == [0, 0, 0, 2, 2, 2, 4, 4, 4]
    assert [row["prompt"] for row in done.samples[:3]] == [row["prompt"] for row in done.samples[3:6]]
    assert figures["reward_first"] == found["reward"][0][1]
    assert figures["kl_loss_last"] == found["kl_loss"][-1][1] > 0
    assert found["kl"][0][1] == pytest.approx(0.0, abs=1e-4)
    assert {name for name, _ in found.items()} >= {"grad_norm", "ratio", "entropy", "equal_groups", "updates"}


def test_a_stopped_run_ends_as_one_that_was_not(done: Any, final_tensors: Callable[..., Any]) -> None:
    resumed = final_tensors("grpo", 3, *GRPO)
    assert done.tensors.keys() == resumed.keys()
    assert all(torch.equal(done.tensors[name], resumed[name]) for name in resumed)


def test_adapters_may_learn_alone(
    align: Callable[..., Job],
    curves: Callable[..., Any],
    tensors: Callable[..., Any],
    final_tensors: Callable[..., Any],
) -> None:
    """And a run that was stopped ends with the same bits."""
    pytest.importorskip("peft")
    given = (*GRPO, "grpo.lora={enabled: true, rank: 4, targets: [q_proj, v_proj]}", "grpo.engine.zero_stage=1")
    job = align("grpo", *given)
    grpo.run(job)
    found, manifest, whole = curves(job), need(job.store, job.task), tensors(job)
    assert found["kl"][0][1] == pytest.approx(0, abs=1e-4), "the reference is the policy without them"
    assert found["kl_exact"][-1][1] > 0
    made, began = (model.load_model(job, one) for one in (manifest, job.manifest("sft")))
    changed = [
        name
        for (name, one), other in zip(made.named_parameters(), began.parameters(), strict=True)
        if not torch.equal(one, other)
    ]
    assert [name.split(".")[-2] for name in changed] == ["q_proj", "v_proj"] * 2
    job.store.delete(manifest.path)
    resumed = final_tensors("grpo", 3, *given)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_two_processes_do_what_one_does(
    done: Any, curves: Callable[..., Any], run_two: Callable[..., list[str]]
) -> None:
    run_two("-m", "training", "grpo", "--recipe", done.job.attempt.run.uri)
    two = curves(done.job)
    for name in done.curves.keys() - set(OF_MACHINE):
        one, other = ([value for _, value in rows[name]] for rows in (done.curves, two))
        assert other == pytest.approx(one, rel=2e-3, abs=2e-3), name
