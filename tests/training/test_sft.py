"""Instruction tuning: the loss is on the replies, whatever the padding and the micro-batch; and it falls."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from training.data.synthetic import synthetic_instructions

from contract.errors import InputError
from contract.manifest import Attempt, need
from contract.metrics import load_points
from contract.settings.training import Sft
from training import pretrain, sft
from training.chat.template import Turn, open_chat
from training.data.reading import Bad, documents, rows_of
from training.engine.engine import lr_at
from training.engine.job import Job
from training.loss import log_probs
from training.models import llama as model
from training.models.lm import HeldOut, measure

PRETRAINED = ("pretrain.steps=6",)


def test_collate_masks_prompts_and_padding() -> None:
    batch = sft.collate([([7, 8, 9, 0], [0, 0, 1, 1]), ([7, 6], [0, 1])], pad=1)
    assert batch.tokens.tolist() == [[7, 8, 9, 0], [7, 6, 1, 1]]
    assert batch.mask.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert batch.count == 3
    assert sft.collate([([7, 8], [0, 1])], pad=1, count=40).count == 40
    # What stands first is predicted from nothing, and so not learned.
    assert sft.predicted([([7, 8, 9], [1, 0, 1]), ([7, 8], [1, 1])]) == 2
    assert sft.collate([([7, 8, 9], [1, 0, 1])], pad=1).mask.tolist() == [[0, 1]]


@pytest.mark.parametrize(("world", "count"), [(1, 5), (2, 4), (2, 5), (3, 4)])
def test_held_out_examples_are_dealt_out_in_equally_many_batches(world: int, count: int) -> None:
    examples = [([index, index], [0, 1]) for index in range(1, count + 1)]
    chat = SimpleNamespace(pad=0, end_of_text=99)
    dealt = [list(sft._deal(SimpleNamespace(rank=rank, world=world), examples, 2, chat)) for rank in range(world)]  # type: ignore[arg-type]
    assert {len(batches) for batches in dealt} == {-(-count // (2 * world))}
    assert max(len(batch.tokens) for batches in dealt for batch in batches) <= 2
    rows = [(row, mask) for batches in dealt for one in batches for row, mask in zip(one.tokens, one.mask, strict=True)]
    assert sorted(int(row[0]) for row, mask in rows if mask.sum()) == list(range(1, count + 1))
    assert {tuple(row.tolist()) for row, mask in rows if not mask.sum()} <= {(99, 99)}
    assert sum(batch.count for batches in dealt for batch in batches) == count


def test_the_figures_of_the_result() -> None:
    state = {"before": 2.0, "tokens": 90, "seconds": 1.5}
    bad = Bad(Counter(not_json=2, output_is_empty=1))
    assert sft._summary(Sft(data="/a.jsonl"), state, HeldOut(nll=30.0, tokens=20.0, bytes=80.0), 7, 3, bad) == {
        "data": "/a.jsonl",
        "examples": 7,
        "heldout_examples": 3,
        "heldout_loss_before": 2.0,
        "heldout_loss_after": 1.5,
        "heldout_perplexity_before": pytest.approx(7.389056),
        "heldout_perplexity_after": pytest.approx(4.481689),
        "response_tokens": 90,
        "seconds": 1.5,
        "bad_rows": 3,
        "bad_rows_not_json": 2,
        "bad_rows_output_is_empty": 1,
    }
    none = sft._summary(Sft(data="synthetic"), {**state, "before": None}, None, 7, 0, Bad())
    assert none["data"] == "synthetic, by rule from the corpus"
    assert {name for name, value in none.items() if value is None} == {
        f"heldout_{figure}_{when}" for figure in ("loss", "perplexity") for when in ("before", "after")
    }


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
    assert sft.split(chats, 4)[1] != heldout
    assert heldout != sorted(heldout, key=str)[:10], "by lot"


def test_a_twentieth_and_256_at_most_are_held_out() -> None:
    chats = [[Turn("user", f"q{index}"), Turn("assistant", "a")] for index in range(6000)]
    for count, wanted in ((9, 0), (10, 0), (11, 1), (29, 1), (31, 2), (5000, 250), (6000, 256)):
        train, heldout = sft.split(chats[:count], 0)
        assert (len(train), len(heldout)) == (count - wanted, wanted)


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


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line about sft's progress."""
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("progress sft all")][-1]


def test_it_learns_from_the_corpus_own_replies(
    make_job: Callable[..., Job], capsys: pytest.CaptureFixture[str]
) -> None:
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
    rows = {name: [(one.step, one.value) for one in points if one.name == name] for name in ("lr", "heldout_loss")}
    assert rows["lr"] == [(step + 1, lr_at(step, 24, job.settings.optim)) for step in range(24)]
    before, after = metrics["heldout_loss_before"], metrics["heldout_loss_after"]
    assert rows["heldout_loss"] == [(0, before), (24, after)]
    assert [one.step for one in points if one.name == "grad_norm"] == list(range(1, 25))
    train, heldout, _ = sft._examples(job, job.settings, open_chat(job))
    assert metrics["response_tokens"] == 3 * sft.predicted(train), "each of three epochs shows every reply once"
    assert metrics["heldout_examples"] == len(heldout)
    assert metrics["seconds"] > 0
    chat, mixture = open_chat(job), job.manifest("mix")
    for kind, found in (("documents", train), ("heldout", heldout)):
        made = list(synthetic_instructions(documents(job, mixture, kind), job.settings.seed))
        assert found == [chat.encode(turns, 48) for turns in made[: 64 if kind == "documents" else 256]]
    assert printed(capsys).endswith(f"held-out loss {after:.3f}")
    assert loss[-1] < loss[0] - 0.3
    reload = model.load(Job(job.run, job.run.task("reward"), job.attempt), manifest)
    assert model.parameters(reload) > 10_000


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(final_tensors: Callable[..., Any]) -> None:
    whole, resumed = (final_tensors("sft", stop, "pretrain.steps=6") for stop in (None, 3))
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
    assert metrics["data"] == f"{tmp_path}/a.jsonl"
    assert metrics["bad_rows_not_json"] == metrics["bad_rows_instruction_is_missing"] == 1


def test_without_an_example_it_says_what_to_do(make_job: Callable[..., Job], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    job = make_job("sft", f"sft.data={tmp_path}/a.jsonl")
    with pytest.raises(InputError, match=r"a.jsonl: holds no usable row .*line 1: instruction is missing.*allowed"):
        sft.run(job)


def test_a_corpus_without_instructions_is_refused(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "synthetic_instructions", lambda texts, seed: iter([]))
    with pytest.raises(InputError, match="sft: synthetic data gives no example to learn from; name a larger file"):
        sft.run(make_job("sft"))


def test_few_examples_make_one_update_at_least(make_job: Callable[..., Job], tmp_path: Path) -> None:
    rows = [json.dumps({"instruction": f"Where is mill {one}?", "output": "Near."}) for one in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    metrics = need((job := run_stages(make_job, f"sft.data={tmp_path}/a.jsonl")).store, job.task).metrics
    assert (metrics["examples"], metrics["heldout_examples"], metrics["heldout_loss_after"]) == (5, 0, None)
    assert metrics["response_tokens"] > 0


def test_the_order_of_examples_needs_no_state() -> None:
    assert rows_of(5, 8, 64, 1) == rows_of(5, 8, 64, 1)
    assert sorted(row for step in range(8) for row in rows_of(step, 8, 64, 1)) == list(range(64))
