"""The reward model: where it reads, what it holds out, how it is measured, and that a real run learns, normalises and resumes."""

import json
import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaModel

from contract.errors import InputError
from training import reward
from training.chat import Turn, open_chat
from training.data import Preference, documents, synthetic_instructions
from training.job import Job


@pytest.fixture(scope="module")
def small() -> reward.RewardModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    return reward.RewardModel(LlamaModel(config), seed=1).eval()


def pair(prompt: str, index: int = 0) -> Preference:
    return Preference((Turn("user", prompt),), f"good {index}", f"bad {index}")


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


def test_a_split_with_an_empty_side_is_refused() -> None:
    with pytest.raises(InputError, match="too few"):
        reward.split([pair("one and only", index) for index in range(9)], 0.5)


def test_calibration_error_by_hand() -> None:
    # sigmoid(log 3) = 0.75: three right of four is perfect, one of four is off by a half.
    margin = math.log(3)
    assert reward.calibration_error([margin, margin, margin, -margin]) == pytest.approx(0.0)
    assert reward.calibration_error([margin, -margin, -margin, -margin]) == pytest.approx(0.5)
    # Two bins: 2 rows off by 0.25 (certainty 0.75, all right), 2 ties of certainty 0.5 that count half right.
    assert reward.calibration_error([margin, margin, 0.0, 0.0]) == pytest.approx(0.125)
    assert reward.calibration_error([100.0]) == pytest.approx(0.0)


def test_measured_figures() -> None:
    found = reward.measure([1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 4.0, 0.0])
    assert (found["accuracy"], found["heldout_correct"], found["heldout_pairs"]) == (0.625, 2.5, 4)
    assert (found["reward_mean"], found["reward_std"]) == pytest.approx((1.5, math.sqrt(1.25)))
    losses = [math.log1p(math.exp(-margin)) for margin in (1, 2, -1, 0)]
    assert found["heldout_loss"] == pytest.approx(sum(losses) / 4)


def test_a_run_learns_to_rank_and_saves_normalised_rewards(align: Callable[..., Job]) -> None:
    job = align("gate")  # which has reward run
    manifest = job.manifest("reward")
    metrics = manifest.metrics
    assert metrics["accuracy_low"] > 0.6
    assert metrics["accuracy_low"] < metrics["accuracy"] < metrics["accuracy_high"]
    judged = align("reward")
    heldout = reward.read_pairs(judged).heldout
    assert len(heldout) == metrics["heldout_pairs"]
    chosen, rejected = reward.judge(judged, reward.load(judged, manifest).eval(), open_chat(judged), heldout)
    again = reward.measure(chosen, rejected)
    assert again["accuracy"] == metrics["accuracy"]
    assert (again["reward_mean"], again["reward_std"]) == pytest.approx((0.0, 1.0), abs=1e-4)


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(final_tensors: Callable[..., Any]) -> None:
    less = ("reward.epochs=1", "reward.max_examples=100")
    whole, resumed = final_tensors("reward", None, *less), final_tensors("reward", 3, *less)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


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
