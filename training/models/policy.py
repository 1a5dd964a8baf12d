"""The policy of the stages that align: it begins as the SFT model, whole or with adapters that learn in its place.

In a round of feedback it may begin as the model of the last round.
"""

from pathlib import Path
from typing import Any

from contract.manifest import need
from contract.settings.training import Dpo, Rollouts
from training.chat.template import Chat
from training.engine.engine import Engine
from training.engine.job import Job
from training.models import llama as model
from training.models import lora
from training.models.frozen import Adapted, Frozen, frozen


def load_policy(job: Job) -> Any:
    """The SFT model, or that of the last round, ready to learn as the stage's settings say."""
    settings: Rollouts | Dpo = job.settings
    goes_on = isinstance(settings, Rollouts) and settings.last
    begun = need(job.store, job.task.elsewhere[0]) if goes_on else job.manifest("sft")
    module = model.load_model(job, begun, settings.engine.dtype, settings.engine)
    return lora.with_adapters(module, settings.lora, settings.seed) if settings.lora.enabled else module


def reference_of(job: Job, policy: Engine) -> Frozen | Adapted:
    """The SFT model: the policy without its adapters if it has any, else a frozen copy."""
    settings: Rollouts = job.settings
    if settings.lora.enabled:
        return Adapted(policy.module)
    whole = model.load_model(job, job.manifest("sft"), settings.engine.dtype)
    return frozen(job, whole, settings.engine, settings.offload_frozen)


def save_policy(job: Job, policy: Engine, chat: Chat, folder: Path) -> None:
    """Write the model that the policy is now, with its adapters merged into the SFT model."""
    settings: Rollouts | Dpo = job.settings
    weights = policy.weights()
    if not settings.lora.enabled:
        model.save(policy.module, folder, chat, job.ranks.rank, weights)
    elif job.ranks.rank == 0:
        began = model.load_model(job, job.manifest("sft"))
        model.save(lora.merged(began, settings.lora, weights), folder, chat)
