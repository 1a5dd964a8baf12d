"""Evaluation: the decisions by hand, and real runs with the gate open and closed against direct computation."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from contract.approval import Refusal, refuse
from contract.conversation import Turn
from contract.errors import Interrupted
from contract.kinds import Kind
from contract.manifest import Attempt, find
from evals.compare import win_rate
from tests.declared import only_declared
from training import evaluate, gate, reward
from training.chat.template import open_chat
from training.data.examples import distinct_prompts, read_pairs
from training.data.reading import TokenData
from training.engine.job import Job
from training.models import llama as model


def result(job: Job) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    manifest = find(job.store, job.task)
    assert manifest is not None
    (samples,) = manifest.of("samples")
    return dict(manifest.metrics), [json.loads(line) for line in job.store.read_bytes(samples.path).splitlines()]


def test_figures_equal_a_direct_computation(align: Callable[..., Job]) -> None:
    job = align(
        "evaluate",
        "evaluate.sequences=10",
        "evaluate.prompts=20",
        "evaluate.samples=20",
        "evaluate.engine.micro_batch=4",
    )
    evaluate.run(job)
    metrics, samples = result(job)
    module, data, chat = (
        model.load_model(job, job.manifest("sft")).eval(),
        TokenData(job, Kind.HELDOUT_TOKENS, 64),
        open_chat(job),
    )
    nats, size = 0.0, 0
    for row in data.sample(10):
        batch = data.rows([row])
        starts = (batch.positions[0] == 0).nonzero().flatten().tolist()
        for start, end in pairwise([*starts, 65]):
            ids = batch.tokens[:, start:end]
            if not batch.mask[0, start : end - 1].all() or end - start == 1:
                continue  # padding, or a document of which the row holds one token
            with torch.no_grad():
                nats += float(module(input_ids=ids, labels=ids).loss) * (end - start - 1)
            size += sum(len(chat.decode([one]).encode()) for one in ids[0, 1:].tolist())
    assert metrics["heldout_sequences"] == 10
    assert metrics["perplexity_sft"] == pytest.approx(math.exp(nats / metrics["heldout_tokens"]), rel=1e-4)
    assert metrics["bits_per_byte_sft"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)
    assert {"perplexity_pretrain", "perplexity_ppo", "worse_sft", "worse_ppo"} <= metrics.keys()
    assert 0 <= metrics["win_rate_low"] <= metrics["win_rate"] <= metrics["win_rate_high"] <= 1
    assert 0 <= metrics["judge_win_rate_low"] <= metrics["judge_win_rate"] <= metrics["judge_win_rate_high"] <= 1
    # Both win rates from the replies' rewards by each of the two reward models, which are not the same.
    for stage, name in (("reward", "win_rate"), ("judge", "judge_win_rate")):
        both = [[row[f"{stage}_{when}"] for row in samples] for when in ("before", "after")]
        judge = reward.load_reward_model(job, job.manifest(stage)).eval()
        rows = range(20)
        held = read_pairs(job, Kind.HELDOUT_PAIRS)
        asked = [held[row].prompt for row in distinct_prompts(held, 20)]
        prompts = [chat.prompt(turns, 24) for turns in asked]
        replied = {
            one: evaluate.reply(job, model.load_model(job, job.manifest(one)), prompts, chat) for one in ("sft", "ppo")
        }
        given = [evaluate.rewards(job, judge, asked, prompts, one.ids, chat) for one in replied.values()]
        assert metrics[name] == pytest.approx(sum(given[1][row] > given[0][row] for row in rows) / 20)
        assert [given[0][:20], given[1][:20]] == [pytest.approx(one, abs=1e-4) for one in both]
        assert [metrics[f"{stage}_sft"], metrics[f"{stage}_ppo"]] == pytest.approx([sum(one) / 20 for one in given])
    assert samples[0]["reward_before"] != samples[0]["judge_before"]
    assert metrics["prompts"] == 20
    assert len(samples) == 20
    whose = ("", "reward_", "judge_")
    assert all(
        set(row) == {"prompt", *(f"{one}{when}" for one in whose for when in ("before", "after"))} for row in samples
    )
    replies = [row[when] for row in samples for when in ("before", "after")]
    assert sum(bool(reply) for reply in replies) >= 5, "a model of 60 steps may end a reply at once"
    assert len({row["prompt"] for row in samples}) == 20


def test_a_closed_gate_leaves_the_sft_model(align: Callable[..., Job]) -> None:
    job = align("gate", "gate.min_accuracy=1.0")
    gate.run(job)
    run = only_declared(job.attempt.run, "evaluate")
    job = Job(run, run.task("evaluate"), Attempt(run, run.task("evaluate")))
    evaluate.run(job)
    metrics, samples = result(job)
    assert "perplexity_sft" in metrics
    assert not any("ppo" in name or "win" in name for name in metrics)
    assert sum(bool(row["before"]) for row in samples) >= 2
    assert all(row["after"] is None and row["reward_after"] is None for row in samples)


def test_a_refused_ppo_leaves_the_sft_model(align: Callable[..., Job]) -> None:
    job = align("gate", "gate.min_accuracy=0.002")  # open, and PPO is not done behind it
    gate.run(job)
    refuse(job.store, job.attempt.run.task("ppo"), Refusal("ann", "2026-11-22"))
    run = only_declared(job.attempt.run, "evaluate")
    job = Job(run, run.task("evaluate"), Attempt(run, run.task("evaluate")))
    evaluate.run(job)
    metrics, _ = result(job)
    assert "perplexity_sft" in metrics
    assert not any("ppo" in name or "win" in name for name in metrics)


def test_a_stop_ends_it_after_the_model_at_hand(align: Callable[..., Job]) -> None:
    job = align("evaluate", "evaluate.seed=5")
    answers = iter([False, True])
    job.ranks.stopping = lambda: next(answers)  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="evaluate: stopped after sft"):
        evaluate.run(job)
    assert find(job.store, job.task) is None


def test_models_are_measured_in_the_recipes_precision(align: Callable[..., Job]) -> None:
    job = align("evaluate", "evaluate.engine.dtype=bf16")
    module = evaluate.load_for_evaluation(job, job.manifest("sft"))
    assert {one.dtype for one in module.parameters()} == {torch.bfloat16}
    assert module.model.rotary_emb.inv_freq.dtype == torch.float32
    data = TokenData(job, Kind.HELDOUT_TOKENS, 64)
    exact = evaluate.heldout_losses(job, model.load_model(job, job.manifest("sft")).eval(), data, data.sample(4))
    assert evaluate.heldout_losses(job, module, data, data.sample(4)) == pytest.approx(exact, rel=0.01)


def test_equal_models_get_equal_replies(align: Callable[..., Job]) -> None:
    """The same random numbers for every model: what differs between two models' replies is the models'."""
    job = align("evaluate")
    chat = open_chat(job)
    prompts = [[chat.role("user"), 70 + row, chat.role("assistant")] for row in range(5)]
    module = model.load_model(job, job.manifest("sft")).eval()
    first, again = (evaluate.reply(job, module, prompts, chat) for _ in range(2))
    assert first == again
    assert len({tuple(ids) for ids in first.ids}) == 5
    judge = reward.load_reward_model(job, job.manifest("reward")).eval()
    asked = [(Turn("user", str(row)),) for row in range(5)]
    given = [evaluate.rewards(job, judge, asked, prompts, one.ids, chat) for one in (first, again)]
    assert win_rate(*given, range(5))["win_rate"] == 0.5


def test_without_a_judge_only_the_reward_model_is_asked(align: Callable[..., Job]) -> None:
    job = align("evaluate", "judge.share=0", "ppo.steps=1")
    evaluate.run(job)
    metrics, samples = result(job)
    assert metrics["win_rate"] is not None
    assert not any(name.startswith("judge") for name in metrics)
    assert all(row["judge_before"] is None and row["reward_before"] is not None for row in samples)


def test_the_newest_model_is_compared_with_that_of_the_last_round(align: Callable[..., Job]) -> None:
    """With the SFT model in the last round's place, the win rate over it is that over the SFT model."""
    address = f"sft/{align('evaluate').task.of('sft')[0].fingerprint}"
    job = align("evaluate", f"evaluate.last={address}", "evaluate.prompts=12", "evaluate.sequences=4")
    evaluate.run(job)
    metrics, _ = result(job)
    for whose in ("", "judge_"):
        for end in ("", "_low", "_high"):
            assert metrics[f"{whose}last_win_rate{end}"] == metrics[f"{whose}win_rate{end}"]
    assert "reward_last" not in metrics
    other = align("evaluate", f"evaluate.last=ppo/{job.task.of('ppo')[0].fingerprint}", "evaluate.prompts=12")
    evaluate.run(other)
    assert result(other)[0]["last_win_rate"] == 0.5, "a model ties with itself"


def test_two_processes_measure_what_one_does(align: Callable[..., Job], run_two: Callable[..., list[str]]) -> None:
    """The same figures and, from the same seeds, the same replies."""
    job = align("evaluate", "evaluate.prompts=7", "evaluate.sequences=9", "evaluate.engine.micro_batch=2")
    run_two("-m", "training", "evaluate", "--recipe", job.attempt.run.uri)
    two, replies = result(job)
    job.store.delete(f"{job.task.prefix}/manifest.json")
    evaluate.run(job)
    one, expected = result(job)
    assert [row["after"] for row in replies] == [row["after"] for row in expected]
    assert [row["reward_before"] for row in replies] == pytest.approx(
        [row["reward_before"] for row in expected], rel=1e-4
    )
    assert two.pop("aligned_by") == one.pop("aligned_by") == "ppo"
    assert two.keys() == one.keys()
    assert two == pytest.approx(one, rel=1e-4)
