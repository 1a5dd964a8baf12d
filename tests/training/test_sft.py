"""Instruction tuning: the loss is on the replies, whatever the padding and the micro-batch; and it falls."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contract import results
from contract.chat import TEMPLATES
from contract.conversation import Turn
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import Attempt, need
from contract.metrics import load_points
from contract.mixture import schedule
from contract.settings.training import Model
from evals.heldout import HeldOut
from tests.declared import only_declared
from tests.training.conftest import read_curves
from training import pretrain, sft
from training.chat.template import Cut, open_chat
from training.data.drawing import Draws
from training.data.examples import read_chats
from training.data.order import rows_of
from training.data.reading import TokenData
from training.data.rows import one_each, predicted
from training.engine.engine import lr_at
from training.engine.job import Job
from training.engine.ranks import Ranks
from training.loss import log_probs
from training.models import llama as model
from training.models.lm import heldout_loss

PRETRAINED = ("pretrain.steps=6",)


@pytest.mark.parametrize(("world", "count"), [(1, 5), (2, 4), (2, 5), (3, 4)])
def test_held_out_examples_are_dealt_out_in_equally_many_batches(world: int, count: int) -> None:
    chats = [(Turn("user", str(index)),) for index in range(1, count + 1)]
    chat: Any = SimpleNamespace(
        pad=0, end_of_text=99, encode=lambda turns, most: ([int(turns[0].text)] * most, [0] + [1] * (most - 1))
    )
    heldout = object.__new__(sft.HeldOutChats)
    heldout.chats, heldout.numbers = chats, [index % 2 for index in range(count)]
    jobs: list[Any] = [SimpleNamespace(ranks=Ranks(rank=rank, world=world)) for rank in range(world)]
    dealt = [list(heldout.batches(job, 2, chat, 2)) for job in jobs]
    assert {len(batches) for batches in dealt} == {-(-count // (2 * world))}
    assert max(len(batch.tokens) for batches in dealt for batch in batches) <= 2
    rows = [row for batches in dealt for one in batches for row in zip(one.tokens, one.mask, one.sources, strict=True)]
    learned = sorted((int(row[0]), int(source)) for row, mask, source in rows if mask.sum())
    assert learned == [(index, (index - 1) % 2) for index in range(1, count + 1)]
    assert {tuple(row.tolist()) for row, mask, _ in rows if not mask.sum()} <= {(99, 99)}
    assert sum(batch.count for batches in dealt for batch in batches) == count


def test_small_tasks_are_measured_together_but_never_with_those_of_which_nothing_is_learned() -> None:
    tasks = ["a", "b", "a", "c", "d", "a", "b"]
    assert sft.told_apart(tasks, {"a", "c"}, 2) == [
        "a", "b", "a", "other tasks", "other tasks, not learned", "a", "b",
    ]  # fmt: skip


def test_the_log_says_what_was_learned_and_what_was_forgotten() -> None:
    one = {"before": 3.0, "after": 2.5, "tokens": 9, "learned": 1}
    tasks = {"sums": one, "": {**one, "learned": 0}}
    made = results.Sft.model_construct(
        tasks=tasks, text_sources={"crawl": {"before": 20.126, "after": 21, "tokens": 5}}
    )
    assert sft.report(made) == [
        "held-out loss on replies 3.000 -> 2.500, task sums",
        "held-out loss on replies 3.000 -> 2.500, task without a name, of which nothing was learned",
        "perplexity of pretraining text 20.13 -> 21.00, source crawl",
    ]


def test_waiting_for_a_better_loss_needs_chats_that_are_held_out(make_job: Callable[..., Job], tmp_path: Path) -> None:
    rows = [json.dumps({"instruction": f"Where is mill {one}?", "output": "Near."}) for one in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    given = (f"instructions.data={tmp_path}/a.jsonl", "instructions.min_jaccard=null", "sft.patience=1")
    with pytest.raises(InputError, match=r"sft\.patience: no chat of a task that is learned is held out"):
        run_stages(make_job, *given, "pretrain.steps=1")


def test_the_figures_of_the_result() -> None:
    state = {"before": 2.0, "best": [4, 1.25], "tokens": 90, "text_tokens": 7, "seconds": 1.5}
    assert sft._summary(state, HeldOut(nll=30.0, tokens=20.0, bytes=80.0), 7, 3).model_dump(exclude_unset=True) == {
        "examples": 7,
        "heldout_examples": 3,
        "heldout_loss_before": 2.0,
        "heldout_loss_after": 1.5,
        "heldout_perplexity_before": pytest.approx(7.389056),
        "heldout_perplexity_after": pytest.approx(4.481689),
        "best_step": 4,
        "best_heldout_loss": 1.25,
        "text_tokens": 7,
        "response_tokens": 90,
        "seconds": 1.5,
    }
    none = sft._summary({**state, "before": None}, None, 7, 0)
    assert {name for name, value in none.model_dump().items() if value is None} == {
        *(f"heldout_{figure}_{when}" for figure in ("loss", "perplexity") for when in ("before", "after")),
        "text_perplexity_before", "text_perplexity_after", "stopped_early", "taken_step",
    }  # fmt: skip


def test_the_loss_is_the_mean_over_reply_tokens_only(make_job: Callable[..., Job]) -> None:
    job = make_job("sft")
    chat = open_chat(job)
    module = model.build(Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64), chat.vocab_size, 64, 0)
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
    found = heldout_loss(job, module, [one_each(examples, chat.pad)], 1, chat.token_bytes())[""]
    assert (found.tokens, found.bytes) == (count, size)
    assert found.nll == pytest.approx(by_hand, rel=1e-5)


def run_stages(make_job: Callable[..., Job], *overrides: str, name: str = "one") -> Job:
    """pretrain and sft, in this process."""
    job = make_job("pretrain", *PRETRAINED, *overrides, name=name)
    pretrain.run(job)
    run = only_declared(job.attempt.run, "sft")
    later = Job(run, run.task("sft"), Attempt(run, run.task("sft")))
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
    chat = open_chat(job)
    train, heldout = (
        [chat.encode(turns, 48) for turns in read_chats(job, kind)] for kind in (Kind.CHATS, Kind.HELDOUT_CHATS)
    )
    assert metrics["examples"] == len(train)
    for name, kind in (("training", Kind.CHATS), ("heldout", Kind.HELDOUT_CHATS)):
        fits = [chat.fit_chat(turns, 48) for turns in read_chats(job, kind)]
        assert metrics["cuts"][name] == {cut.value: sum(cut in fit.cuts for fit in fits) for cut in Cut}
    assert metrics["heldout_loss_after"] < metrics["heldout_loss_before"] - 0.3
    (file,) = manifest.of("metrics")
    points = load_points(job.store.read_bytes(file.path))
    loss = [one.value for one in points if one.name == "loss"]
    steps = len(train) * 3 // 8
    assert len(loss) == steps > 20
    rows = {name: [(one.step, one.value) for one in points if one.name == name] for name in ("lr", "heldout_loss")}
    assert rows["lr"] == [(step + 1, lr_at(step, steps, job.settings.optim)) for step in range(steps)]
    before, after = metrics["heldout_loss_before"], metrics["heldout_loss_after"]
    assert rows["heldout_loss"] == [(0, before), (steps, after)]
    assert [one.step for one in points if one.name == "grad_norm"] == list(range(1, steps + 1))
    shown = [train[row] for step in range(steps) for row in rows_of(step, 8, len(train), job.settings.seed)]
    assert metrics["response_tokens"] == predicted(shown), "each epoch shows every reply once"
    assert metrics["heldout_examples"] == len(heldout)
    assert metrics["seconds"] > 0
    assert printed(capsys).endswith(f"held-out loss {after:.3f}")
    assert loss[-1] < loss[0] - 0.3
    reload = model.load_model(Job(job.attempt.run, job.attempt.run.task("reward"), job.attempt), manifest)
    assert model.parameters(reload) > 10_000


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(final_tensors: Callable[..., Any]) -> None:
    whole, resumed = (final_tensors("sft", stop, "pretrain.steps=6") for stop in (None, 3))
    assert whole.keys() == resumed.keys()
    assert {"curve/loss", "figure/response_tokens", "figure/heldout_loss_before"} < whole.keys()
    assert [step for step, _ in whole["curve/loss"].tolist()] == list(range(1, len(whole["curve/loss"]) + 1))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_few_examples_make_one_update_at_least(make_job: Callable[..., Job], tmp_path: Path) -> None:
    rows = [json.dumps({"instruction": f"Where is mill {one}?", "output": "Near."}) for one in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    metrics = need(
        (job := run_stages(make_job, f"instructions.data={tmp_path}/a.jsonl", "instructions.min_jaccard=null")).store,
        job.task,
    ).metrics
    assert (metrics["examples"], metrics["heldout_examples"], metrics["heldout_loss_after"]) == (5, 0, None)
    assert metrics["response_tokens"] > 0


def test_later_stages_follow_the_chat_template_of_sft(make_job: Callable[..., Job]) -> None:
    job = run_stages(make_job, "sft.chat_template=chatml", "pretrain.steps=1")
    run = job.attempt.run
    later = open_chat(Job(run, run.task("reward"), Attempt(run, run.task("reward"))))
    assert later.jinja == TEMPLATES["chatml"]
    turns = [Turn("user", "So?"), Turn("assistant", "Yes.")]
    own = open_chat(job)
    assert later.encode(turns, 100) == own.encode(turns, 100)
    assert later.end_token == own.end_token == "<|im_end|>"
    assert Path(later.path).read_text() == Path(own.path).read_text()
    (saved,) = [file for file in need(job.store, job.task).of(Kind.MODEL) if file.path.endswith("/tokenizer.json")]
    assert "<|im_start|>" in job.scratch.download(saved).read_text()


def test_the_order_of_examples_needs_no_state() -> None:
    assert rows_of(5, 8, 64, 1) == rows_of(5, 8, 64, 1)
    assert sorted(row for step in range(8) for row in rows_of(step, 8, 64, 1)) == list(range(64))


def figures_of(job: Job) -> dict[str, Any]:
    return need(job.store, job.task).metrics


def test_text_of_the_corpus_is_learned_beside_chats(make_job: Callable[..., Job]) -> None:
    job = run_stages(make_job, "sft.text_share=0.25", "sft.optim.lr=5.0e-3")
    plain = run_stages(make_job, "sft.optim.lr=5.0e-3", name="two")
    found, without = figures_of(job), figures_of(plain)
    steps = found["examples"] // 6
    assert (found["text_tokens"], without["text_tokens"]) == (steps * 2 * 64 - unpredicted(job, steps), 0)
    before = {one["text_perplexity_before"] for one in (found, without)}
    assert len(before) == 1
    assert found["text_perplexity_after"] < without["text_perplexity_after"], "less is forgotten"
    assert found["text_sources"]["crawl"]["before"] == pytest.approx(before.pop())
    assert found["heldout_loss_after"] < found["heldout_loss_before"] - 0.2


def unpredicted(job: Job, steps: int) -> int:
    """The places of the text's rows of which nothing is predicted: the first tokens of documents, and padding."""
    data = TokenData(job, Kind.TOKENS, 64)
    drawn = Draws([data], schedule([(steps, job.setting("pretrain.mixture"), data.sources)], 2), job.settings.seed)
    return sum(int((drawn.batch(step).mask == 0).sum()) for step in range(steps))


def test_packing_changes_nothing_but_rounding(make_job: Callable[..., Job]) -> None:
    job = run_stages(make_job, "sft.packing=false")
    plain = figures_of(job)
    job.store.delete(need(job.store, job.task).path)
    packed = run_stages(make_job, "sft.packing=true")
    found = figures_of(packed)
    assert packed.task.fingerprint == job.task.fingerprint, "it decides nothing"
    assert found["response_tokens"] == plain["response_tokens"]
    assert found["heldout_loss_after"] == pytest.approx(plain["heldout_loss_after"], rel=1e-4)


def test_held_out_tasks_and_early_stop(make_job: Callable[..., Job], tmp_path: Path) -> None:
    """What is not learned is measured apart; the result has the weights with the lowest loss of what is."""
    for task in ("learned", "other"):
        rows = [
            {"instruction": f"{task} mill {at}", "output": f"The river stands near the old mill {at % 3}."}
            for at in range(40)
        ]
        (tmp_path / f"{task}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = json.dumps({task: {"data": f"{tmp_path}/{task}.jsonl"} for task in ("learned", "other")})
    job = run_stages(
        make_job,
        f"instructions.sources={sources}",
        "instructions.heldout_tasks=[other]",
        "instructions.min_jaccard=null",
        "instructions.heldout_fraction=0.2",
        "instructions.max_heldout=8",
        "sft.epochs=40",
        "sft.optim.lr=3.0e-2",
        "sft.eval_steps=2",
        "sft.patience=2",
    )
    found = figures_of(job)
    tasks = found["tasks"]
    assert {name: one["learned"] for name, one in tasks.items()} == {"learned": 1, "other": 0}
    assert found["heldout_loss_after"] == pytest.approx(tasks["learned"]["after"])
    assert tasks["other"]["before"] > 0
    rows = read_curves(job)
    losses = dict(rows["heldout_loss"])
    best = min((step for step in losses if step), key=lambda step: (losses[step], step))
    assert found["stopped_early"] == best + 4 < 160
    assert (found["taken_step"], found["best_step"]) == (best, best)
    assert found["heldout_loss_after"] == pytest.approx(losses[best], rel=1e-5)
    assert [step for step, _ in rows["heldout_loss_not_learned/other"]] == list(range(2, best + 5, 2))


def test_adapters_learn_and_are_merged(make_job: Callable[..., Job]) -> None:
    pytest.importorskip("peft")
    job = run_stages(make_job, "sft.lora={enabled: true, rank: 4}", "sft.optim.lr=1.0e-2", "pretrain.steps=60")
    found = figures_of(job)
    assert found["heldout_loss_after"] < found["heldout_loss_before"] - 0.05
    made = model.load_model(job, need(job.store, job.task))
    first = model.load_model(job, job.manifest("pretrain"))
    changed = {
        name
        for (name, one), other in zip(made.named_parameters(), first.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert {name.split(".")[-2] for name in changed} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    delta = made.model.layers[0].self_attn.q_proj.weight - first.model.layers[0].self_attn.q_proj.weight
    assert int(torch.linalg.matrix_rank(delta, rtol=1e-4)) <= 4
    again = heldout_of(job, made)
    assert again == pytest.approx(found["heldout_loss_after"], rel=1e-5), "merged it says what it said in training"


def heldout_of(job: Job, module: Any) -> float:
    chat = open_chat(job)
    heldout = sft.HeldOutChats(job, read_chats(job, Kind.HELDOUT_CHATS))
    return heldout_loss(job, module, heldout.batches(job, 4, chat, 48), 4, chat.token_bytes())[""].loss


def test_a_stopped_run_with_adapters_text_and_packing_ends_the_same(final_tensors: Callable[..., Any]) -> None:
    pytest.importorskip("peft")
    given = ("pretrain.steps=6", "sft.lora={enabled: true, rank: 4}", "sft.text_share=0.25", "sft.packing=true")
    whole, resumed = (final_tensors("sft", stop, *given) for stop in (None, 3))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_it_starts_from_a_folder(make_job: Callable[..., Job], tmp_path: Path) -> None:
    job = run_stages(make_job, "pretrain.steps=30")
    folder = tmp_path / "model"
    folder.mkdir()
    for file in need(job.store, job.attempt.run.task("pretrain")).of(Kind.MODEL):
        shutil.copyfile(job.scratch.download(file), folder / Path(file.path).name)
    other = run_stages(make_job, f"sft.start_from={folder}", name="two")
    before = figures_of(job)["heldout_loss_before"]
    assert figures_of(other)["heldout_loss_before"] == pytest.approx(before, rel=1e-5)
    assert figures_of(other)["heldout_loss_after"] == pytest.approx(figures_of(job)["heldout_loss_after"], rel=1e-4)


def test_two_processes_learn_what_one_does(make_job: Callable[..., Job], run_two: Callable[..., list[str]]) -> None:
    """With chats packed into rows, whose number differs between processes, and text of the corpus beside them."""
    given = (
        "sft.packing=true",
        "sft.text_share=0.25",
        "sft.eval_steps=3",
        "sft.patience=50",
        "sft.engine.micro_batch=2",
    )
    job = run_stages(make_job, *given)
    one = figures_of(job)
    job.store.delete(need(job.store, job.task).path)
    sharded = make_job("sft", *PRETRAINED, *given, "sft.engine.processes=2", "sft.engine.zero_stage=3")
    run_two("-m", "training", "sft", "--recipe", sharded.attempt.run.uri)
    two = figures_of(sharded)
    assert sharded.task.fingerprint == job.task.fingerprint
    for name in ("response_tokens", "text_tokens", "taken_step"):
        assert two[name] == one[name]
    for name in ("heldout_loss_after", "text_perplexity_after"):
        assert two[name] == pytest.approx(one[name], rel=1e-3)
