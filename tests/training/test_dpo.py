"""DPO: an update against the paper's gradient pair by pair, and real runs that learn, resume and split over processes."""

from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contract.conversation import opening
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import need
from contract.settings.training import Dpo
from tests.training.conftest import OF_MACHINE
from tests.training.test_ppo import PlainEngine, job_of, tiny_policy
from training import dpo
from training.chat.template import Fit
from training.data.examples import read_pairs
from training.data.rankings import Rankings
from training.engine.job import Job
from training.models import llama as model
from training.reward import divided

DPO = (
    "align=dpo", "dpo.max_tokens=64", "dpo.batch=16", "dpo.beta=0.3", "dpo.label_smoothing=0.1",
    "dpo.optim={lr: 2.0e-3, weight_decay: 0.0}", "dpo.engine={micro_batch: 4, checkpoint_steps: 2}", "preferences.max_examples=96",
)  # fmt: skip
PAIRS = [([5, 6], [7, 0], [8, 9, 0]), ([9], [1, 2, 3, 0], [0]), ([3, 4, 5], [6, 0], [7, 0]), ([8], [2, 0], [3, 3, 0])]
WEIGHTS = (1.0, 0.5, 2.0, 1.0)
CHAT: Any = SimpleNamespace(pad=11, fit=lambda prompt, replies, most: Fit(list(prompt), [], list(replies), frozenset()))


def pairs() -> list[Any]:
    return [
        SimpleNamespace(prompt=prompt, chosen=chosen, rejected=rejected, weight=weight)
        for (prompt, chosen, rejected), weight in zip(PAIRS, WEIGHTS, strict=True)
    ]


def plain_log_prob(module: Any, prompt: list[int], reply: list[int]) -> torch.Tensor:
    """log pi(reply) of one chat alone, without padding."""
    ids = [*prompt, *reply]
    log_p = module(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return torch.stack([log_p[at - 1, ids[at]] for at in range(len(prompt), len(ids))]).sum()


@pytest.mark.parametrize("world", [1, 2])
def test_an_update_is_the_gradient_of_the_papers_loss(world: int) -> None:
    """-log sigmoid(beta (log pi/pi_SFT of the chosen - of the rejected)), whatever the padding, the parts and the processes."""
    settings = Dpo(beta=0.3, label_smoothing=0.1)
    engine = PlainEngine(tiny_policy(1), 1, 4 // world, world)
    reference, expected = tiny_policy(2), deepcopy(engine.module)
    with torch.no_grad():
        theirs = [tuple(float(plain_log_prob(reference, p, one)) for one in (c, r)) for p, c, r in PAIRS]
    total, margins = torch.zeros(()), []
    for (prompt, chosen, rejected), (better, worse), weight in zip(PAIRS, theirs, WEIGHTS, strict=True):
        margin = 0.3 * (plain_log_prob(expected, prompt, chosen) - better)
        margin = margin - 0.3 * (plain_log_prob(expected, prompt, rejected) - worse)
        total = total - weight * (0.9 * margin.sigmoid().log() + 0.1 * (1 - margin.sigmoid()).log()) / len(PAIRS)
        margins.append(float(margin))
    total.backward()

    found: dict[str, float] = dict.fromkeys(dpo.LEARNT, 0.0)
    for rank in range(world):
        one: Any = engine
        figures = dpo.update(job_of(settings, rank, world), one, CHAT, pairs(), theirs)  # type: ignore[arg-type]
        found = {name: found[name] + value for name, value in figures.items()}
    assert found["loss"] == pytest.approx(float(total), abs=1e-5)
    assert found["margin"] == pytest.approx(sum(margins) / 4, abs=1e-5)
    assert found["margin"] == pytest.approx(found["reward_chosen"] - found["reward_rejected"], abs=1e-6)
    assert found["accuracy"] == sum(margin > 0 for margin in margins) / 4
    for mine, other in zip(engine.gradients(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, other.grad, rtol=1e-3, atol=1e-6)


def test_the_reference_is_the_policy_before_its_first_update() -> None:
    settings = Dpo()
    engine: Any = PlainEngine(tiny_policy(1), 1, 1, 1)
    job = job_of(settings)
    job.ranks.rows = lambda own: [own[row] for row in sorted(own)]
    found = dpo.judge(job, engine, CHAT, pairs())
    with torch.no_grad():
        expected = [[float(plain_log_prob(engine.module, p, one)) for one in (c, r)] for p, c, r in PAIRS]
    assert [list(one) for one in found] == [pytest.approx(one, abs=1e-4) for one in expected]


def test_a_closed_gate_is_refused(align: Callable[..., Job]) -> None:
    with pytest.raises(InputError, match="gate is closed"):
        dpo.run(align("dpo", *DPO, "gate.min_accuracy=1.0"))


def test_the_judges_pairs_are_left_to_it(align: Callable[..., Job]) -> None:
    """`evaluate` asks the judge whether the policy got better, so both must not have learned the same pairs by heart."""
    job = align("dpo", *DPO)
    pairs, share = read_pairs(job, Kind.PAIRS), job.setting("judge.share")
    rankings = Rankings(pairs)
    judges = {opening(one.prompt) for one in divided(job, rankings, share, judge=True)}
    own = {opening(one.prompt) for one in dpo.for_policy(job, pairs)}
    assert judges
    assert own
    assert not judges & own
    assert judges | own == {opening(one.prompt) for one in pairs}
    alone = align("dpo", *DPO, "judge.share=0")
    assert len(dpo.for_policy(alone, pairs)) == len(pairs)


@pytest.fixture(scope="module")
def done(align: Callable[..., Job], curves: Callable[..., Any], tensors: Callable[..., Any]) -> SimpleNamespace:
    """A whole run, whose result is then deleted, so that the same task can run again."""
    job = align("dpo", *DPO)
    dpo.run(job)
    manifest = need(job.store, job.task)
    made = SimpleNamespace(job=job, manifest=manifest, curves=curves(job), tensors=tensors(job))
    job.store.delete(manifest.path)
    return made


def test_it_learns_what_people_prefer(done: Any) -> None:
    figures, found = done.manifest.metrics, done.curves
    assert found["loss"][0][1] == pytest.approx(0.6931, abs=1e-4), "log 2: nothing has moved yet"
    assert found["accuracy"][0][1] == 0.5
    assert found["loss"][-1][1] < 0.6
    assert figures["accuracy"] > 0.6
    assert figures["reward_chosen"] > figures["reward_rejected"]
    assert figures["accuracy_low"] < figures["accuracy"] <= figures["accuracy_high"]
    assert figures["pairs"] == len(range(figures["pairs"]))
    assert set(figures["cuts"]) == set(figures["dropped"]) == {"training", "heldout"}
    assert {file.kind for file in done.manifest.files} == {"model", "metrics", "curves", "events"}


def test_a_stopped_run_ends_as_one_that_was_not(done: Any, final_tensors: Callable[..., Any]) -> None:
    resumed = final_tensors("dpo", 3, *DPO)
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
    given = (*DPO, "dpo.lora={enabled: true, rank: 4, targets: [q_proj, v_proj]}", "dpo.engine.zero_stage=1")
    job = align("dpo", *given)
    dpo.run(job)
    found, manifest, whole = curves(job), need(job.store, job.task), tensors(job)
    assert found["loss"][0][1] == pytest.approx(0.6931, abs=1e-4), "log 2: nothing has moved yet"
    assert found["loss"][-1][1] < 0.69
    made, began = (model.load_model(job, one) for one in (manifest, job.manifest("sft")))
    changed = [
        name
        for (name, one), other in zip(made.named_parameters(), began.parameters(), strict=True)
        if not torch.equal(one, other)
    ]
    assert [name.split(".")[-2] for name in changed] == ["q_proj", "v_proj"] * 2
    job.store.delete(manifest.path)
    resumed = final_tensors("dpo", 3, *given)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_two_processes_do_what_one_does(
    done: Any, curves: Callable[..., Any], run_two: Callable[..., list[str]]
) -> None:
    run_two("-m", "training", "dpo", "--recipe", done.job.attempt.run.uri)
    two = curves(done.job)
    for name in done.curves.keys() - set(OF_MACHINE):
        one, other = ([value for _, value in rows[name]] for rows in (done.curves, two))
        assert other == pytest.approx(one, rel=2e-3, abs=2e-3), name
