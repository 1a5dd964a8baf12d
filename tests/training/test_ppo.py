"""PPO: the step's arithmetic by hand, and real runs that start at the reference, gain reward, resume and split over processes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from contract.errors import InputError
from contract.manifest import find
from contract.metrics import Point, load_points
from contract.settings import Ppo
from training import ppo, reward
from training.chat import open_chat
from training.job import Job


def experience(**changed: torch.Tensor) -> ppo.Experience:
    """Two replies, of three and of two tokens; the second did not end."""
    given = {
        "tokens": torch.zeros(2, 5, dtype=torch.long),
        "attention": torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]),
        "mask": torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]),
        "log_probs": torch.tensor([[-1.0, -1.0, -1.0], [-2.0, -2.0, 0.0]]),
        "reference": torch.tensor([[-2.0, -1.0, -1.0], [-2.0, -1.0, 0.0]]),
        "values": torch.zeros(2, 3),
        "scores": torch.tensor([2.0, 1.0]),
        "ended": torch.tensor([1.0, 0.0]),
    }
    return ppo.Experience(**{**given, **changed})


def test_rewards_penalties_and_figures_by_hand() -> None:
    settings = Ppo(no_eot_penalty=0.5, gamma=1.0, lam=1.0)
    advantages, returns, figures = ppo.judge(experience(), 0.1, settings)
    # KL terms: -0.1 on the first token; +0.1 on the fifth. Scores: 2 on the third, 1 - 0.5 on the fifth.
    expected = torch.tensor([[1.9, 2.0, 2.0], [0.6, 0.6, 0.0]])
    torch.testing.assert_close(returns, expected)
    kept = advantages[experience().mask.bool()]
    assert (float(kept.mean()), float(kept.std(unbiased=False))) == pytest.approx((0.0, 1.0), abs=1e-5)
    assert kept.argsort().tolist()[:2] in ([3, 4], [4, 3])
    assert figures == pytest.approx(
        {
            "reward": 1.5,
            "objective": (1.9 + 0.6) / 2,
            "kl": 0.0,
            "kl_coef": 0.1,
            "response_length": 2.5,
            "eot_fraction": 0.5,
            "explained_variance": 0.0,
        }
    )


def test_a_perfect_critic_leaves_no_advantage() -> None:
    _, returns, _ = ppo.judge(experience(), 0.1, Ppo(no_eot_penalty=0.0, gamma=1.0, lam=1.0))
    _, again, figures = ppo.judge(experience(values=returns), 0.1, Ppo(no_eot_penalty=0.0, gamma=1.0, lam=0.95))
    torch.testing.assert_close(again, returns)
    assert figures["explained_variance"] == pytest.approx(1.0)


def test_every_inner_epoch_shows_every_row_once() -> None:
    settings = Ppo(rollout_batch=12, minibatch=4, inner_epochs=3)
    plan = ppo.minibatches(7, settings)
    assert [len(rows) for rows in plan] == [4] * 9
    epochs = [sorted(row for rows in plan[start : start + 3] for row in rows) for start in (0, 3, 6)]
    assert epochs == [list(range(12))] * 3
    assert plan[:3] != plan[3:6]
    assert plan != ppo.minibatches(8, settings)
    assert plan == ppo.minibatches(7, settings)


def test_first_and_last_values_of_curves() -> None:
    points = [
        Point(step, name, value, 0.0) for step, name, value in ((1, "kl", 0.0), (1, "reward", 1.0), (2, "kl", 3.0))
    ]
    assert ppo.ends(points) == {"kl_first": 0.0, "kl_last": 3.0, "reward_first": 1.0, "reward_last": 1.0}
    assert ppo.ends([]) == {}


def test_prompts_are_those_that_evaluation_does_not_use(align: Callable[..., Job]) -> None:
    job = align("ppo")
    chat = open_chat(job)
    heldout = reward.read_pairs(job).heldout
    used = ppo.training_prompts(job, chat, 64)
    kept = [chat.prompt(one.prompt, 64) for one in heldout]
    assert len(used) > 50
    assert len({tuple(prompt) for prompt in used}) == len(used)
    assert not {tuple(prompt) for prompt in used} & {tuple(prompt) for prompt in kept}


def test_a_closed_gate_is_refused(align: Callable[..., Job]) -> None:
    job = align("ppo", "gate.min_accuracy=1.0")
    with pytest.raises(InputError, match=r"gate is closed: .* under gate.min_accuracy 1"):
        ppo.run(job)
    assert find(job.store, job.task) is None


def curves(job: Job) -> dict[str, list[float]]:
    manifest = find(job.store, job.task)
    assert manifest is not None
    (file,) = manifest.of("metrics")
    found: dict[str, list[float]] = {}
    for point in load_points(job.store.read_bytes(file.path)):
        found.setdefault(point.name, []).append(point.value)
    return found


def test_reward_rises_and_the_policy_leaves_the_reference(align: Callable[..., Job]) -> None:
    job = align("ppo", "ppo.steps=25", "ppo.rollout_batch=32", "ppo.minibatch=16", "ppo.kl_coef=0.01")
    ppo.run(job)
    found = curves(job)
    assert found["kl"][0] == pytest.approx(0.0, abs=1e-4)
    assert found["kl"][-1] > 0.05
    early, late = (sum(found["objective"][part]) / 5 for part in (slice(0, 5), slice(-5, None)))
    assert late > early + 0.3
    manifest = find(job.store, job.task)
    assert manifest is not None
    assert manifest.metrics["reward_first"] == found["reward"][0]
    assert manifest.metrics["kl_last"] == found["kl"][-1]
    assert {file.kind for file in manifest.files} == {"model", "critic", "metrics"}


FULL = ("ppo.ptx_coef=0.5", "ppo.kl_target=0.01", "ppo.entropy_coef=0.01", "ppo.whiten_rewards=true")


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(final_tensors: Callable[..., Any]) -> None:
    """With everything switched on that has a state: PTX data, the adaptive KL coefficient, both optimizers."""
    whole, resumed = final_tensors("ppo", None, *FULL), final_tensors("ppo", 3, *FULL)
    assert {name.split("/")[0] for name in whole} == {"model.safetensors", "critic.safetensors"}
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_two_processes_do_what_one_does(align: Callable[..., Job], launch: Callable[..., Any]) -> None:
    """The same samples and, but for the order of sums, the same updates; every figure of every step is compared."""
    alone = align("ppo", *FULL)
    ppo.run(alone)
    one = curves(alone)
    found = find(alone.store, alone.task)
    assert found is not None
    alone.store.delete(found.path)
    process = launch(alone.run, "ppo", processes=2)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    two = curves(alone)
    assert one.keys() == two.keys()
    for name in one:
        assert two[name] == pytest.approx(one[name], rel=2e-3, abs=2e-3), name
