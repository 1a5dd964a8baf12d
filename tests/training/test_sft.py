"""Instruction tuning: the loss is on the replies, whatever the padding and the micro-batch; and it falls."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.errors import InputError
from contract.manifest import Attempt, need
from contract.metrics import load_points
from training import model, pretrain, sft
from training.chat import Turn, open_chat
from training.data import rows_of
from training.job import Job
from training.lm import measure
from training.loss import log_probs

PRETRAINED = ("pretrain.steps=6",)


def test_collate_masks_prompts_and_padding() -> None:
    batch = sft.collate([([7, 8, 9, 0], [0, 0, 1, 1]), ([7, 6], [0, 1])], pad=1)
    assert batch.tokens.tolist() == [[7, 8, 9, 0], [7, 6, 1, 1]]
    assert batch.mask.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert batch.count == 3


def test_the_loss_is_the_mean_over_reply_tokens_only(make_job: Callable[..., Job]) -> None:
    job = make_job("sft")
    chat = open_chat(job)
    module = model.build(job.run.recipe.pretrain.model, chat.vocab_size, 64, 0)
    chats = [
        [Turn("user", "The mill?"), Turn("assistant", "It stands near the river.")],
        [Turn("user", "Where is the old lantern of the baker?"), Turn("assistant", "Here.")],
    ]
    examples = [chat.encode(one, 60) for one in chats]
    by_hand, count, size = 0.0, 0, 0
    with torch.no_grad():
        for ids, mask in examples:  # one at a time, without padding
            nll = -log_probs(module(input_ids=torch.tensor([ids])).logits[:, :-1], torch.tensor([ids])[:, 1:])[0]
            by_hand += sum(float(one) for one, kept in zip(nll, mask[1:], strict=True) if kept)
            count += sum(mask)
    size = sum(len(one[1].text.encode()) for one in chats)
    found = measure(job, module, [sft.collate(examples, chat.pad)], 1, chat.token_bytes())
    assert found is not None
    assert (found.tokens, found.bytes) == (count, size)
    assert found.nll == pytest.approx(by_hand, rel=1e-5)


def test_held_out_prompts_are_never_learned() -> None:
    chats = [[Turn("user", f"q{index % 40}"), Turn("assistant", f"a{index}")] for index in range(200)]
    train, heldout = sft.split(chats, 3)
    assert len(train) + len(heldout) == 200
    assert len(heldout) == 10
    assert not {one[0].text for one in train} & {one[0].text for one in heldout}
    assert sft.split(chats, 3) == (train, heldout)


def test_an_instruction_that_most_rows_share_is_learned_from() -> None:
    same = [[Turn("user", "Translate"), Turn("assistant", f"a{index}")] for index in range(95)]
    others = [[Turn("user", f"q{index}"), Turn("assistant", "a")] for index in range(5)]
    train, heldout = sft.split(same + others, 0)
    assert (len(train), len(heldout)) == (95, 5)
    assert {one[0].text for one in train} == {"Translate"}
    assert sft.split(same, 0) == (same, [])


def run_stages(make_job: Callable[..., Job], *overrides: str, name: str = "one") -> Job:
    """pretrain and sft, in this process."""
    job = make_job("pretrain", *PRETRAINED, *overrides, name=name)
    pretrain.run(job)
    later = Job(job.run, job.run.task("sft"), Attempt(job.run, job.run.task("sft")))
    sft.run(later)
    return later


def test_it_learns_from_the_corpus_own_replies(make_job: Callable[..., Job]) -> None:
    job = run_stages(make_job, "sft.epochs=3")
    manifest = need(job.store, job.task)
    metrics = manifest.metrics
    assert metrics["data"] == "synthetic, by rule from the corpus"
    assert metrics["examples"] == 64
    assert metrics["heldout_loss_after"] < metrics["heldout_loss_before"] - 0.3
    (file,) = manifest.of("metrics")
    points = load_points(job.store.read_bytes(file.path))
    loss = [one.value for one in points if one.name == "loss"]
    assert len(loss) == 64 * 3 // 8
    assert loss[-1] < loss[0] - 0.3
    reload = model.load(Job(job.run, job.run.task("reward"), job.attempt), manifest)
    assert model.parameters(reload) > 10_000


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(final_tensors: Callable[..., Any]) -> None:
    whole, resumed = final_tensors("sft", None), final_tensors("sft", 3)
    assert whole.keys() == resumed.keys()
    assert {"curve/loss", "figure/response_tokens", "figure/heldout_loss_before"} < whole.keys()
    assert [step for step, _ in whole["curve/loss"].tolist()] == list(range(1, 9))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_file_of_instructions_with_bad_rows(make_job: Callable[..., Job], tmp_path: Path) -> None:
    rows = [json.dumps({"instruction": f"Where is mill {one}?", "output": "Near the old river."}) for one in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join([*rows, "not json", "{}"]))
    job = run_stages(make_job, f"sft.data={tmp_path}/a.jsonl")
    metrics = need(job.store, job.task).metrics
    assert (metrics["examples"], metrics["heldout_examples"]) == (38, 2)
    assert metrics["bad_rows"] == 2
    assert metrics["bad_rows_not_json"] == metrics["bad_rows_instruction_is_missing"] == 1


def test_without_an_example_it_says_what_to_do(make_job: Callable[..., Job], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    job = make_job("sft", f"sft.data={tmp_path}/a.jsonl")
    with pytest.raises(InputError, match=r"a.jsonl: holds no usable row .*line 1: instruction is missing.*allowed"):
        sft.run(job)


def test_the_order_of_examples_needs_no_state() -> None:
    assert rows_of(5, 8, 64, 1) == rows_of(5, 8, 64, 1)
    assert sorted(row for step in range(8) for row in rows_of(step, 8, 64, 1)) == list(range(64))
