"""The reward model: where it reads, what it holds out, how it is measured, and that a real run learns, normalises and resumes."""

import hashlib
import json
import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaModel

from contract.errors import InputError
from contract.settings.training import Reward
from evals.calibration import calibration_error
from evals.intervals import wilson
from training import reward
from training.chat.template import Turn, open_chat
from training.data.reading import Preference, documents, rows_of
from training.data.synthetic import synthetic_instructions
from training.engine.engine import lr_at
from training.engine.job import Job
from training.models import llama as model


@pytest.fixture(scope="module")
def small() -> reward.RewardModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    return reward.RewardModel(LlamaModel(config), seed=1).eval()


def pair(prompt: str, index: int = 0) -> Preference:
    return Preference((Turn("user", prompt),), f"good {index}", f"bad {index}")


def test_the_head_starts_as_stiennon_et_al_say() -> None:
    config = LlamaConfig(vocab_size=5, hidden_size=24, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    made = [reward.RewardModel(LlamaModel(config), seed) for seed in (3, 3, 4)]
    drawn = torch.randn(1, 24, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(made[0].head.weight.detach(), drawn / math.sqrt(25))
    assert made[0].head.bias.tolist() == [0.0]
    assert torch.equal(made[0].head.weight, made[1].head.weight)
    assert not torch.equal(made[0].head.weight, made[2].head.weight)


def test_reward_is_read_at_the_last_real_token() -> None:
    values = torch.arange(12.0).view(3, 4)
    attention = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]])
    assert reward.last(values, attention).tolist() == [3.0, 6.0, 11.0]


def test_reward_does_not_depend_on_padding_or_company(small: reward.RewardModel) -> None:
    chats = [[3, 4, 5, 6, 7], [8, 9]]
    together = reward.rewards_of(small, chats, 0, torch.device("cpu")).detach()
    alone = [reward.rewards_of(small, [chat], 0, torch.device("cpu"))[0].detach() for chat in chats]
    torch.testing.assert_close(together, torch.stack(alone))
    changed = reward.rewards_of(small, [[3, 4, 5, 6, 8]], 0, torch.device("cpu")).detach()
    assert abs(float(changed[0] - together[0])) > 1e-3


def test_normalisation_is_folded_into_the_head(small: reward.RewardModel) -> None:
    chats = [[3, 4, 5], [8, 9], [7, 7, 7, 7]]
    with torch.no_grad():
        before = reward.rewards_of(small, chats, 0, torch.device("cpu"))
        small.normalise(2.0, 4.0)
        after = reward.rewards_of(small, chats, 0, torch.device("cpu"))
        small.normalise(-0.5, 0.25)  # undoes it
        again = reward.rewards_of(small, chats, 0, torch.device("cpu"))
    torch.testing.assert_close(after, (before - 2) / 4)
    torch.testing.assert_close(again, before)


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=20, max_size=120), st.floats(0.2, 0.8))
def test_no_prompt_is_on_both_sides(prompts: list[int], fraction: float) -> None:
    pairs = [pair(f"question {prompt}", index) for index, prompt in enumerate(prompts)]
    try:
        train, heldout = reward.split(pairs, fraction)
    except InputError:
        assert len({reward.is_heldout(one.prompt[0].text, fraction) for one in pairs}) == 1
        return
    assert not {one.prompt for one in train} & {one.prompt for one in heldout}
    assert sorted(one.chosen for one in [*train, *heldout]) == sorted(one.chosen for one in pairs)


def test_a_dialogue_at_several_lengths_stays_on_one_side() -> None:
    opening = [Turn("user", f"q{index}") for index in range(40)]
    pairs = [
        Preference((one, *(Turn("assistant", "So?"), Turn("user", f"again {length}")) * length), "good", "bad")
        for one in opening
        for length in range(3)
    ]
    train, heldout = reward.split(pairs, 0.3)
    assert not {one.prompt[0] for one in train} & {one.prompt[0] for one in heldout}


def test_synthetic_pairs_to_judge_by_were_learned_by_no_stage(align: Callable[..., Job]) -> None:
    """Neither their prompts nor their replies' documents: they come from the corpus's held-out part."""
    job = align("reward")
    pairs, recipe, mixture = reward.read_pairs(job), job.run.recipe, job.manifest("mix")
    tuned = list(islice(synthetic_instructions(documents(job, mixture), recipe.sft.seed), recipe.sft.max_examples))
    assert len(tuned) == 64
    assert len(pairs.heldout) >= 20
    asked = {one.prompt[0] for one in pairs.heldout}
    assert not asked & {one.prompt[0] for one in pairs.train}
    assert not asked & {ask for ask, _ in tuned}
    unseen = synthetic_instructions(documents(job, mixture, "heldout"), recipe.reward.seed)
    assert {(one.prompt[0].text, one.chosen) for one in pairs.heldout} <= {
        (ask.text, told.text) for ask, told in unseen
    }
    cut = reward.read_pairs(align("reward", "reward.max_examples=20"))
    assert (len(cut.train), len(cut.heldout)) == (16, 4)


def test_heldout_share_is_the_recipes() -> None:
    held = sum(reward.is_heldout(f"prompt {index}", 0.2) for index in range(10_000))
    assert abs(held - 2000) < 5 * math.sqrt(10_000 * 0.2 * 0.8)


@pytest.mark.parametrize("turn", ["How?", "", "caf\u00e9 \ud800"])
def test_a_prompt_is_held_out_by_its_hash(turn: str) -> None:
    """The first eight bytes as a fraction of 2^64: the same prompts in every run, and more of them as the share grows."""
    digest = hashlib.sha256(turn.encode(errors="surrogatepass")).hexdigest()
    place = int(digest[:16], 16) / 2**64
    assert reward.is_heldout(turn, place + 1e-9)
    assert not reward.is_heldout(turn, place - 1e-9)


def test_a_split_keeps_the_order_of_the_file() -> None:
    pairs = [pair(f"question {index}", index) for index in range(60)]
    for side in reward.split(pairs, 0.4):
        assert side == [one for one in pairs if one in side]


def test_synthetic_pairs_are_limited_with_one_to_judge_by_at_least(align: Callable[..., Job]) -> None:
    sizes = {}
    for limit in (3, 7):
        pairs = reward.read_pairs(align("reward", f"reward.max_examples={limit}", "reward.heldout_fraction=0.1"))
        sizes[limit] = len(pairs.train), len(pairs.heldout)
    assert sizes == {3: (2, 1), 7: (6, 1)}


@pytest.mark.parametrize("empty", ["documents", "heldout"])
def test_a_corpus_without_pairs_is_refused(
    align: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, empty: str
) -> None:
    monkeypatch.setattr(reward, "documents", lambda job, mixture, kind="documents": kind)
    some = [pair(f"question {index}", index) for index in range(4)]
    kinds = {"documents": some[:2], "heldout": some[2:], empty: []}
    monkeypatch.setattr(reward, "synthetic_preferences", lambda kind, seed: iter(kinds[kind]))
    monkeypatch.setattr(reward, "synthetic_instructions", lambda kind, seed: iter([]))
    counts = "0 synthetic preference pairs to learn from and 2" if empty == "documents" else "pairs to learn from and 0"
    with pytest.raises(InputError, match=f"{counts} to judge by; name a file"):
        reward.read_pairs(align("reward", "reward.max_examples=null"))


def test_a_split_with_an_empty_side_is_refused() -> None:
    with pytest.raises(InputError, match="too few"):
        reward.split([pair("one and only", index) for index in range(9)], 0.5)


def test_encoding_puts_all_chosen_replies_before_the_rejected_ones() -> None:
    chat = SimpleNamespace(encode=lambda turns, limit: ([turn.role[0] + turn.text for turn in turns][:limit], []))
    pairs = [pair("p", 1), pair("q", 2)]
    assert reward.encode(chat, pairs, 9) == [  # type: ignore[arg-type]
        ["up", "agood 1"], ["uq", "agood 2"], ["up", "abad 1"], ["uq", "abad 2"],
    ]  # fmt: skip
    assert reward.encode(chat, pairs[:1], 1) == [["up"], ["up"]]  # type: ignore[arg-type]


@pytest.mark.parametrize(("world", "count"), [(1, 5), (2, 5), (2, 9), (3, 2)])
def test_judging_is_split_over_processes(world: int, count: int) -> None:
    """Each process calls the model equally often, for under ZeRO 3 it would hang otherwise; together they judge every pair once."""
    chat = SimpleNamespace(
        encode=lambda turns, limit: ([1 + int(turns[0].text), 1 if turns[-1].text[0] == "g" else 2], []), pad=0
    )
    settings = Reward(engine={"micro_batch": 2}, batch=2)
    shapes: list[list[int]] = []
    judged: dict[int, tuple[float, float]] = {}

    def rows(own: dict[int, tuple[float, float]]) -> list[tuple[float, float]]:
        assert judged.keys().isdisjoint(own)
        judged.update(own)
        return [judged[row] for row in sorted(judged)]

    for rank in range(world):
        called: list[int] = []

        def module(tokens: torch.Tensor, attention: torch.Tensor, called: list[int] = called) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            called.append(len(tokens))
            return (tokens[:, :1] * 10 + tokens[:, 1:]).expand(-1, 2).float()

        job = SimpleNamespace(settings=settings, rank=rank, world=world, device="cpu", rows=rows)
        found = reward.judge(job, module, chat, [pair(str(index), index) for index in range(count)])  # type: ignore[arg-type]
        shapes.append(called)
    assert found[0] == [10 * (1 + index) + 1 for index in range(count)]
    assert found[1] == [10 * (1 + index) + 2 for index in range(count)]
    assert {len(called) for called in shapes} == {math.ceil(math.ceil(count / 2) / world)}
    assert max(max(called) for called in shapes) <= 4


def test_measured_figures() -> None:
    found = reward.measure([1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 4.0, 0.0])
    assert (found["accuracy"], found["heldout_correct"], found["heldout_pairs"]) == (0.625, 2.5, 4)
    assert (found["reward_mean"], found["reward_std"]) == pytest.approx((1.5, math.sqrt(1.25)))
    losses = [math.log1p(math.exp(-margin)) for margin in (1, 2, -1, 0)]
    assert found["heldout_loss"] == pytest.approx(sum(losses) / 4)
    assert (found["accuracy_low"], found["accuracy_high"]) == wilson(2.5, 4, 0.95)
    assert found["ece"] == pytest.approx(calibration_error([1.0, 2.0, -1.0, 0.0]))


def test_a_run_learns_to_rank_and_saves_normalised_rewards(
    align: Callable[..., Job], curves: Callable[..., Any]
) -> None:
    job = align("gate")  # which has reward run
    manifest = job.manifest("reward")
    metrics = manifest.metrics
    assert metrics["accuracy_low"] > 0.6
    assert metrics["accuracy_low"] < metrics["accuracy"] < metrics["accuracy_high"]
    assert {file.path.rpartition("/")[2]: file.kind for file in manifest.files} == {
        "metrics.jsonl": "metrics",
        **dict.fromkeys(("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"), "model"),
    }
    judged = align("reward")
    heldout = reward.read_pairs(judged).heldout
    assert len(heldout) == metrics["heldout_pairs"]
    chosen, rejected = reward.judge(judged, reward.load(judged, manifest).eval(), open_chat(judged), heldout)
    again = reward.measure(chosen, rejected)
    assert again["accuracy"] == metrics["accuracy"]
    pairs = reward.read_pairs(judged)
    assert metrics["pairs"] == manifest.rows.read == manifest.rows.kept == len(pairs.train) + len(pairs.heldout)
    # The curves: one row an update, at the schedule's rate; the first one is the untrained model's on the first batch.
    rows, optim = curves(Job(judged.run, judged.task, judged.attempt)), judged.settings.optim
    steps = math.ceil(len(pairs.train) * 3 / 16)
    assert [step for step, _ in rows["loss"]] == list(range(1, steps + 1))
    assert [value for _, value in rows["lr"]] == [lr_at(step, steps, optim) for step in range(steps)]
    assert all(value > 0 for _, value in rows["grad_norm"])
    fresh = reward.RewardModel(model.load(judged, judged.manifest("sft")).model, judged.settings.seed)
    first = [pairs.train[row] for row in rows_of(0, 16, len(pairs.train), judged.settings.seed)]
    untrained = reward.measure(*reward.judge(judged, fresh, open_chat(judged), first))
    assert rows["loss"][0][1] == pytest.approx(untrained["heldout_loss"], rel=1e-4)
    assert rows["accuracy"][0][1] == untrained["accuracy"]
    assert (again["reward_mean"], again["reward_std"]) == pytest.approx((0.0, 1.0), abs=1e-4)


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(
    final_tensors: Callable[..., Any], tmp_path: Path
) -> None:
    """From a file, two of whose rows are no pairs."""
    rows = [
        {"chosen": f"\n\nHuman: q{n}\n\nAssistant: yes {n}", "rejected": f"\n\nHuman: q{n}\n\nAssistant: no"}
        for n in range(60)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("{}\nnot JSON\n" + "".join(json.dumps(row) + "\n" for row in rows))
    less = ("reward.epochs=2", f"reward.data={path}", "reward.engine.micro_batch=4")
    whole, resumed = final_tensors("reward", None, *less), final_tensors("reward", 3, *less)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert whole["rows"].tolist() == [62, 60, 2, 1, 1]
    assert whole["figure/pairs"] == 60


def test_pairs_of_a_file_and_what_was_wrong_with_the_others(align: Callable[..., Job], tmp_path: Path) -> None:
    rows = [
        {"chosen": f"\n\nHuman: q{n}\n\nAssistant: yes", "rejected": f"\n\nHuman: q{n}\n\nAssistant: no"}
        for n in range(5)
    ]
    bad = [{"chosen": rows[0]["chosen"]}, {**rows[0], "rejected": rows[1]["rejected"]}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *bad]) + "not JSON\n")
    read = reward.read_pairs(align("reward", f"reward.data={path}", "reward.heldout_fraction=0.5"))
    pairs = [Preference((Turn("user", f"q{n}"),), "yes", "no") for n in range(5)]
    assert sorted([*read.train, *read.heldout], key=str) == pairs
    assert read.bad.reasons == {"rejected_is_missing": 1, "prompts_differ": 1, "not_json": 1}
    few = ("reward.heldout_fraction=0.5", "reward.max_examples=3")
    read = reward.read_pairs(align("reward", f"reward.data={path}", *few))
    assert len(read.train) + len(read.heldout) == 3


def test_real_comparisons(align: Callable[..., Job], data_dir: Path) -> None:
    """Bai et al.'s helpful-base test set: nearly every row is a pair, and the held-out prompts are the share that was asked for."""
    job = align("reward", f"reward.data={data_dir / 'pref' / 'hh-rlhf' / 'helpful-base'}")
    pairs = reward.read_pairs(job)
    count = len(pairs.train) + len(pairs.heldout)
    assert count > 2000
    assert pairs.bad.reasons.total() < 0.02 * count
    assert len(pairs.heldout) / count == pytest.approx(0.2, abs=0.03)
    ids = reward.encode(open_chat(job), pairs.heldout[:50], 48)
    assert len(ids) == 100
    assert all(len(one) <= 48 for one in ids)
    assert not {one.prompt[0] for one in pairs.train} & {one.prompt[0] for one in pairs.heldout}


def test_a_loaded_model_computes_with_the_attention_of_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    reward.RewardModel(LlamaModel(LlamaConfig(vocab_size=50, **shape)), seed=0).save_pretrained(tmp_path)
    monkeypatch.setattr(model, "fetch", lambda job, manifest: tmp_path)
    monkeypatch.setattr(model, "attention", lambda dtype: {"bf16": "eager", "fp32": "sdpa"}[dtype])
    for dtype, attention in (("bf16", "eager"), ("fp32", "sdpa")):
        loaded = reward.load(None, None, dtype)  # type: ignore[arg-type]
        assert loaded.decoder.config._attn_implementation == attention
