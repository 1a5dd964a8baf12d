"""Prompts, numbers and verdicts of lm-evaluation-harness 0.4.13 with its backend for transformers, item by item.

`python -m perf.evaluate.golden` asked the harness, with its own task files, about a tiny model whose weights are drawn
here as well. `make bench-evaluate` does the same on real sets with a larger one.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evals.grading import grade
from perf.evaluate.golden import GOLDEN, MAX_TOKENS, Case, cases, same_text, tiny_model
from training.answering import Asked, answer
from training.chat.wording import of_folder

SAID: dict[str, Any] = json.loads(GOLDEN.read_text())


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The models are so small that a second thread only waits."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def test_every_benchmark_with_the_harness_prompts_is_held_to_them() -> None:
    assert {one.name for one in cases()} == set(SAID)
    assert {one.task.name for one in cases()} == {
        "mmlu", "ceval", "cmmlu", "gsm8k", "bbh", "arc", "openbookqa", "hellaswag", "piqa", "siqa", "boolq", "winogrande",
        "naturalquestions",
    }  # fmt: skip


@pytest.mark.parametrize("case", cases(), ids=lambda one: one.name)
def test_prompts_numbers_and_verdicts_are_the_harness_s(case: Case, folder: Path, tmp_path: Path) -> None:
    case.written(tmp_path)
    items, prompts = case.asked(tmp_path)
    said = SAID[case.name]
    assert len(items) == len(said) > 2
    for prompt, one in zip(prompts, said, strict=True):
        assert ([list(pair) for pair in prompt.pairs] or [[prompt.text]]) == one["prompts"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = answer(model, of_folder(folder), prompts, Asked(max_tokens=MAX_TOKENS))
    for prompt, (output,), one in zip(prompts, found, said, strict=True):
        if prompt.pairs:
            assert output.logprobs == pytest.approx([value for value, _ in one["answers"]], abs=1e-4)
        else:
            assert same_text(output.text, one["answers"][0], prompt.stop, one["until"])
    outputs = {item.id: some for item, some in zip(items, found, strict=True)}
    shown = {item.id: prompt for item, prompt in zip(items, prompts, strict=True)}
    records = grade(case.task, items, outputs, lambda item: shown[item.id])
    name, metric = case.metric
    assert [record.score for record in records] == [one["metrics"][name][metric] for one in said]
