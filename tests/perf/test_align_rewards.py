"""What the benches of alignment draw and read, against counts by hand."""

import math
import random

import pytest

from contract.conversation import Turn
from perf.align import hh, known_reward
from perf.align.__main__ import names


def test_every_bench_is_found() -> None:
    assert {"hh", "known_reward"} <= {*names()}


def test_pairs_are_ranked_as_often_as_bradley_and_terry_say() -> None:
    weights = known_reward.word_weights(random.Random(1))
    made = known_reward.pairs(4000, 7, weights)
    margins = [
        known_reward.true_reward(one.chosen, weights) - known_reward.true_reward(one.rejected, weights) for one in made
    ]
    expected = sum(1 / (1 + math.exp(-abs(margin))) for margin in margins) / 4000
    right = sum(margin > 0 for margin in margins) / 4000
    assert right == pytest.approx(expected, abs=0.025), "the true reward is right as often as its probabilities say"
    assert 0.7 < expected < 0.9, "the ceiling is neither chance nor certainty"
    assert len({one.prompt for one in made}) == 4000
    assert made != known_reward.pairs(4000, 8, weights)
    assert known_reward.true_reward("mill mill stone", {"mill": 0.5, "stone": -0.25}) == 0.75


def test_dialogues_of_hh_are_read_with_their_turns() -> None:
    found = hh.turns_of("\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant: No: Human\n")
    assert found == (
        Turn("user", "Hi"),
        Turn("assistant", "Hello"),
        Turn("user", "And?"),
        Turn("assistant", "No: Human"),
    )
