"""What counts as better and worse, by hand."""

import pytest

from evals import compare
from evals.intervals import wilson


def test_wins_count_a_tie_as_half() -> None:
    assert compare.wins([0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 0.0, 4.0]) == 2.5
    found = compare.win_rate([0.0] * 20, [0.0] * 20, range(20))
    assert found["win_rate"] == 0.5
    assert found["win_rate_low"] < 0.5 < found["win_rate_high"]


def test_prompts_with_one_opening_say_as_much_as_one() -> None:
    before, after = [0.0, 0.0, 0.0], [1.0, 0.0, -1.0]
    once, twice = (compare.win_rate(before * each, after * each, [*"abc"] * each) for each in (1, 2))
    assert twice == pytest.approx(once)
    low, high = wilson(1.5, 3)
    assert once == pytest.approx({"win_rate": 0.5, "win_rate_low": low, "win_rate_high": high})


def test_a_rise_is_flagged_only_beyond_noise_and_when_it_matters() -> None:
    before = [3.0, 3.4, 2.6, 3.1]
    assert compare.got_worse(before, [loss + rise for loss, rise in zip(before, (0.1, 0.12, 0.09, 0.1), strict=True)])
    assert not compare.got_worse(
        before, [loss + rise for loss, rise in zip(before, (0.5, -0.4, 0.3, -0.2), strict=True)]
    )
    assert not compare.got_worse(before, [loss + 0.009 for loss in before]), "certain, but under 1 % of perplexity"
    assert not compare.got_worse(before, [loss - 0.1 for loss in before])
    assert not compare.got_worse([3.0], [9.0])


def test_drops_name_what_fell() -> None:
    stages, flat = ["pretrain", "sft", "ppo"], [3.0, 3.1, 2.9]
    worse = [loss + 1 for loss in flat]
    assert compare.drops(stages, {"pretrain": flat, "sft": worse, "ppo": worse}, [0.7]) == {"sft"}
    assert compare.drops(stages, {"pretrain": flat, "sft": flat, "ppo": flat}, [0.9, 0.4]) == {"ppo"}
    assert compare.drops(stages[:2], {}, []) == set()
