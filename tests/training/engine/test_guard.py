"""Which updates are skipped, told by hand from the norms that came before them."""

import json
import math
from collections.abc import Callable

import pytest
import torch

from training.engine import guard as guarding
from training.engine.engine import Engine
from training.engine.guard import FEWEST, WINDOW, Guard


def after(norms: list[float], above: float | None = 10.0, clip: float = 1.0) -> Guard:
    guard = Guard(above, clip)
    for norm in norms:
        guard.applied(norm)
    return guard


@pytest.mark.parametrize("norm", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_no_number_is_refused_from_the_first_update_on(norm: float) -> None:
    assert Guard(None, 1.0).refuses(norm)
    assert after([1.0] * FEWEST).refuses(norm)


@pytest.mark.parametrize(
    ("norms", "above", "clip", "norm", "expected"),
    [
        ([2.0] * FEWEST, 10.0, 1.0, 20.1, True),
        ([2.0] * FEWEST, 10.0, 1.0, 20.0, False),  # not above, but at
        ([2.0] * (FEWEST - 1), 10.0, 1.0, 1e9, False),  # no median yet
        ([2.0] * FEWEST, 11.0, 1.0, 20.1, False),
        ([2.0] * FEWEST, None, 1.0, 1e9, False),
        ([0.01] * FEWEST, 10.0, 1.0, 1.0, False),  # a hundred times the median, but clipping leaves it alone
        ([0.01] * FEWEST, 10.0, 1.0, 1.01, True),
        ([0.01] * FEWEST, 10.0, 0.05, 0.11, True),
        ([1.0] * (FEWEST // 2 + 1) + [50.0] * (FEWEST // 2 - 1), 10.0, 1.0, 11.0, True),  # the median, not the mean
    ],
)
def test_a_norm_far_above_the_median_is_refused(
    norms: list[float], above: float | None, clip: float, norm: float, expected: bool
) -> None:
    assert after(norms, above, clip).refuses(norm) is expected


def test_the_median_looks_at_the_last_updates_only() -> None:
    guard = after([100.0] * WINDOW + [1.0] * (WINDOW // 2 + 1))
    assert len(guard.norms) == WINDOW
    assert guard.median == 1.0
    assert after([3.0] * (FEWEST - 1)).median is None


def test_what_was_skipped_is_counted_and_moves_no_median() -> None:
    guard = after([1.0] * FEWEST)
    for _ in range(3):
        guard.left_out(math.nan)
    assert (guard.skipped, guard.in_a_row, guard.norms) == (3, 3, [1.0] * FEWEST)
    guard.applied(2.0)
    assert (guard.skipped, guard.in_a_row, guard.norms[-1]) == (3, 0, 2.0)


def test_other_weights_begin_another_median() -> None:
    guard = after([0.001] * FEWEST, clip=0.001)
    assert guard.refuses(0.1)
    guard.forget()
    assert not guard.refuses(0.1)


def test_norms_that_stay_close_together_are_a_new_level_and_others_are_not() -> None:
    guard = after([1.0] * 30)
    for norm in (15.0, 5.1, 15.0):
        assert not guard.at_new_level(3)
        guard.left_out(norm)
    assert guard.at_new_level(3)
    assert not guard.at_new_level(4)
    guard.left_out(15.4)  # more than three times 5.1
    assert not guard.at_new_level(4)
    assert guard.at_new_level(2)
    guard.left_out(math.nan)
    guard.left_out(15.0)
    assert not guard.at_new_level(2)
    guard.left_out(15.0)
    assert guard.at_new_level(2)
    guard.applied(1.0)
    assert not guard.at_new_level(1)
    guard.left_out(15.0)
    guard.forget()
    assert (guard.refused, guard.norms, guard.skipped, guard.in_a_row) == ([], [], 8, 1)


def test_a_restored_guard_judges_as_the_one_before() -> None:
    norms = [1 / (number + 3) for number in range(WINDOW + 5)]
    first = after(norms)
    first.left_out(5.0)
    second = Guard(10.0, 1.0)
    second.restore(json.loads(json.dumps(first.state())))
    assert second == first
    assert second.median == first.median


@pytest.mark.parametrize(
    ("stage", "stop", "bad", "updates_a_step"),
    [("pretrain", 5, (3, 6), 1), ("sft", 5, (3, 6), 1), ("reward", 5, (3, 6), 1), ("ppo", 2, (3, 9), 4)],
)
def test_a_run_stopped_after_a_bad_batch_skips_what_the_whole_run_skips(
    final_tensors: Callable[..., dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    stop: int,
    bad: tuple[int, int],
    updates_a_step: int,
) -> None:
    """One bad update before the stop; one after it, which only the norms from before the stop show to be bad."""
    monkeypatch.setattr(guarding, "FEWEST", 4)
    backward = Engine.backward
    factors = dict(zip(bad, (math.nan, 1e4), strict=True))
    monkeypatch.setattr(Engine, "backward", lambda self, loss: backward(self, loss * factors.get(self.steps_done, 1.0)))
    less = ("pretrain.steps=9", "pretrain.engine.keep_last=0", "reward.epochs=1")
    whole, resumed = (final_tensors(stage, one, *less) for one in (None, stop))
    assert whole.keys() == resumed.keys()
    timed = ("curve/tokens_per_s", "figure/tokens_per_s", "figure/reader_share")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole if name not in timed)
    engines = 2 if stage == "ppo" else 1
    assert whole["figure/skipped_updates"] == 2 * engines
    [rows] = [value.tolist() for name, value in whole.items() if name.startswith("curve/skipped_row")]
    assert {int(step) for step, _ in rows} == {update // updates_a_step + 1 for update in bad}
    assert len(rows) == 2 * engines * (16 if stage == "reward" else 8)
