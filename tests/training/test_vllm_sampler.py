"""What vLLM is asked, by a stand-in with its interface; vLLM itself needs a GPU."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from contract.errors import RecipeError
from contract.settings.training import Ppo
from training.vllm_sampler import Sampler, rollout_of


def job_of() -> Any:
    ranks = SimpleNamespace(rank=1, device=torch.device("cpu"), gather=lambda value: [value, 4])
    settings = Ppo(max_prompt_tokens=8, max_response_tokens=6, temperature=0.7, sampler="vllm")
    return SimpleNamespace(settings=settings, ranks=ranks, task=SimpleNamespace(stage="ppo"))


def test_replies_become_a_rollout() -> None:
    found = rollout_of([[5, 6], [7]], [[1, 0], [2]], 3, 4, 0, "cpu")
    assert found.tokens.tolist() == [[0, 0, 0, 5, 6, 1, 0], [0, 0, 0, 0, 0, 7, 2]]
    assert found.attention.tolist() == [[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1]]
    assert found.texts() == [[1, 0], [2]]
    assert found.ended(0).tolist() == [True, False]


def test_it_sleeps_unless_it_is_asked_and_has_the_policys_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    class LLM:
        def __init__(self, **given: Any) -> None:
            said.append(given)

        def generate(self, given: Any, asked: Any, use_tqdm: bool) -> Any:
            said.append(("generate", given, [(one.seed, one.max_tokens, one.stop_token_ids) for one in asked]))
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=(3, 0))]) for _ in given]

        def apply_model(self, work: Any) -> None:
            work(SimpleNamespace(load_weights=lambda weights: said.append(("weights", [name for name, _ in weights]))))

        def __getattr__(self, name: str) -> Any:
            return lambda **given: said.append(name)

    module: Any = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, lambda **given: SimpleNamespace(**given)
    monkeypatch.setitem(sys.modules, "vllm", module)
    sampler = Sampler(job_of(), "/model")  # type: ignore[arg-type]
    found = sampler.replies(torch.nn.Linear(1, 1), [[5], [6, 7]], [11, 12], 3, 0)
    assert said[0]["max_model_len"] == 14
    assert said[1:] == [
        "sleep",
        "wake_up",
        ("weights", ["weight", "bias"]),
        "reset_prefix_cache",
        ("generate", [{"prompt_token_ids": [5]}, {"prompt_token_ids": [6, 7]}], [(11, 6, [0]), (12, 6, [0])]),
        "sleep",
    ]
    assert found.mask.tolist() == [[0, 0, 1, 1]] * 2, "as long as the longest reply of another process"


def test_without_vllm_it_says_what_to_do() -> None:
    with pytest.raises(RecipeError, match=r"^ppo\.sampler: vllm is not installed"):
        Sampler(job_of(), "/model")  # type: ignore[arg-type]
