"""The policy begins as the SFT model or as the model of the last round; the reference is the SFT model in both cases."""

from collections.abc import Callable

import torch

from contract.manifest import need
from contract.settings.training import Ppo
from training import ppo
from training.engine.job import Job
from training.models import llama as model


def test_a_policy_goes_on_from_the_last_round_and_is_held_to_the_sft_model(align: Callable[..., Job]) -> None:
    first = align("sample").task.of("ppo")[0]  # PPO has run for it
    job = align("ppo", "ppo.steps=1", f"ppo.last=ppo/{first.fingerprint}")
    assert job.task.fingerprint != align("ppo", "ppo.steps=1").task.fingerprint
    actors = ppo.start(job)
    last, tuned = (model.load_model(job, need(job.store, one)).state_dict() for one in (job.task.elsewhere[0], job.task.of("sft")[0]))  # fmt: skip
    policy = actors.policy.weights()
    assert all(torch.equal(policy[name], last[name]) for name in policy)
    assert any(not torch.equal(last[name], tuned[name]) for name in policy)
    with actors.reference.awake() as reference:
        assert all(torch.equal(value, tuned[name]) for name, value in reference.state_dict().items())
    ppo.run(job)
    figures = need(job.store, job.task).metrics
    assert figures["kl_first"] > 0, "the divergence is that from the SFT model, also before the first step"
    assert Ppo(last=f"sft/{'a' * 40}").beside() == {"sft": ("a" * 40,)}
