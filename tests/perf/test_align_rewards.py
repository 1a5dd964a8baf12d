"""What the benches of alignment draw and read, against counts by hand."""

import math
import random
from pathlib import Path

import pytest

from contract.conversation import Turn
from perf.align import cuts, hh, known_reward
from perf.align.__main__ import names
from perf.bars import Bars
from training.chat import template


def test_every_bench_is_found() -> None:
    assert {"cuts", "hh", "known_reward"} <= {*names()}


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


def test_a_cut_that_is_not_counted_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {
            key: f"\n\nHuman: {' '.join(str(number * step % 997) for step in range(300))}\n\nAssistant: {reply} {number}"
            for key, reply in both
        }
        for number in range(20)
        for both in [(("chosen", "yes"), ("rejected", "no"))]
    ]
    monkeypatch.setattr(cuts, "read_hh", lambda data: [pair for row in rows for pair in [_pair(row)]])
    bars = Bars()
    cuts.run(bars, tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == "BAR truncations_uncounted 0 0 ok"
    kept = template.keep_turns
    monkeypatch.setattr(template, "keep_turns", lambda turns, room: (kept(turns, room)[0], frozenset()))
    cuts.run(bars, tmp_path)
    assert bars.short == ["truncations_uncounted"]


def _pair(row: dict[str, str]) -> "hh.Preference":
    chosen, rejected = (hh.turns_of(row[key]) for key in ("chosen", "rejected"))
    return hh.Preference(chosen[:-1], chosen[-1].text, rejected[-1].text)
