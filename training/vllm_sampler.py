"""Sampling by vLLM, if the recipe wants it and it is installed: an engine beside the policy, asleep while that learns.

vLLM chooses its own batches and kernels, so its draws are no part of what resumes bit for bit. The log-probabilities
from which the policy learns are computed anew by the policy itself, so its gradients are exact all the same.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contract.errors import RecipeError
from contract.settings.training import Rollouts
from training.engine.job import Job
from training.rollout import Rollout, joined, left_pad

MEMORY = 0.3
"""Of the GPU's memory: for vLLM's copy of the weights, and keys and values. It has all of it back while it sleeps."""


class Sampler:
    """One vLLM engine on this process's GPU."""

    def __init__(self, job: Job, folder: Path) -> None:
        """`folder` holds the model with which it begins. Raises RecipeError if vLLM is not installed."""
        settings: Rollouts = job.settings
        if find_spec("vllm") is None:
            raise RecipeError(f"{job.task.stage}.sampler: vllm is not installed; install it, or use own")
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = (
            "0"  # its model is in this process, where the weights are handed over
        )
        import vllm  # type: ignore[import-not-found]

        self._job, self._vllm = job, vllm
        self._engine: Any = vllm.LLM(
            model=str(folder),
            dtype={"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[settings.engine.dtype],
            max_model_len=settings.max_prompt_tokens + settings.max_response_tokens,
            gpu_memory_utilization=MEMORY,
            distributed_executor_backend="external_launcher",  # within this process, as one of ours
            enable_sleep_mode=True,
            skip_tokenizer_init=True,
            seed=job.ranks.rank,
        )
        self._engine.sleep(level=1)

    def replies(
        self, policy: nn.Module, prompts: Sequence[Sequence[int]], seeds: Sequence[int], width: int, end_of_text: int
    ) -> Rollout:
        """One reply to each prompt by the policy as it is. All processes return the same number of positions."""
        settings: Rollouts = self._job.settings
        self._engine.wake_up()
        self._engine.apply_model(lambda module: module.load_weights(policy.state_dict().items()))
        self._engine.reset_prefix_cache()  # what it holds was computed with other weights
        asked = [
            self._vllm.SamplingParams(
                temperature=settings.temperature,
                max_tokens=settings.max_response_tokens,
                stop_token_ids=[end_of_text],
                detokenize=False,
                seed=seed,
            )
            for seed in seeds
        ]
        given = [{"prompt_token_ids": list(ids)} for ids in prompts]
        found = [list(one.outputs[0].token_ids) for one in self._engine.generate(given, asked, use_tqdm=False)]
        self._engine.sleep(level=1)
        longest = max(self._job.ranks.gather(max(map(len, found))))
        return rollout_of(prompts, found, width, longest, end_of_text, self._job.ranks.device)


def rollout_of(
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    width: int,
    longest: int,
    end_of_text: int,
    device: torch.device | str,
) -> Rollout:
    """Prompts and replies as `rollout.generate` gives them: prompts of `width` positions, replies of `longest`."""
    rows = [[*ids, *[end_of_text] * (longest - len(ids))] for ids in replies]
    mask = torch.tensor([[1.0] * len(ids) + [0.0] * (longest - len(ids)) for ids in replies], device=device)
    return joined(*left_pad(prompts, end_of_text, device, width), torch.tensor(rows, device=device), mask)
