"""What the benches of alignment draw and read, against counts by hand."""

import json
import math
import random
from pathlib import Path

import pytest

from contract.conversation import Turn
from perf.align import hh, judged, known_reward
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


def test_a_judge_that_knows_nothing_has_a_kappa_of_zero_and_one_that_knows_all_of_one() -> None:
    rng = random.Random(1)
    prompts = [str(at // 2) for at in range(4000)]
    share, beyond = judged.agreement([rng.choice((-1.0, 1.0)) for _ in prompts], prompts)
    assert share.low < 0.5 < share.high
    assert beyond.low < 0 < beyond.high
    share, beyond = judged.agreement([0.5] * 40, prompts[:40])
    assert (share.mean, share.n, beyond.value) == (1, 40, 1)
    share, beyond = judged.agreement([1.0] * 700 + [-1.0] * 300, [str(at) for at in range(1000)])
    assert share.mean == 0.7
    assert beyond.value == pytest.approx(0.4, abs=0.03), "2 x 0.7 - 1, where chance agrees on half"
    assert judged.agreement([0.0, 0.0], "ab")[0].mean == 0.5


def test_ranked_trees_are_pairs(tmp_path: Path) -> None:
    def reply(text: str, rank: int) -> dict[str, object]:
        return {"text": text, "role": "assistant", "rank": rank, "replies": []}

    tree = {
        "message_tree_id": "a",
        "prompt": {"text": "Hi?", "role": "prompter", "replies": [reply("ok", 1), reply("good", 0)]},
    }
    (tmp_path / "pref" / "oasst").mkdir(parents=True)
    (tmp_path / "pref" / "oasst" / "en_100_tree.jsonl").write_text(
        f"{json.dumps(tree)}\n"
        + json.dumps({"message_tree_id": "b", "prompt": {"text": "x", "role": "prompter", "replies": []}})
    )
    (pair,) = judged.read_oasst(tmp_path)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((Turn("user", "Hi?"),), "good", "ok")
