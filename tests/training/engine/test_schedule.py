"""The learning rate of every schedule: values by hand, and what holds for all of them."""

import math

import pytest

from contract.settings.training import Optim
from training.engine.schedule import LEFT, lr_at

FALLING = sorted(LEFT)


def rates(total: int, **settings: object) -> list[float]:
    optim = Optim(lr=1.0, **settings)
    return [lr_at(step, total, optim) for step in range(total)]


@pytest.mark.parametrize(
    ("schedule", "settings", "expected"),
    [
        ("linear", {}, [0.75, 0.5, 0.25, 0.0]),
        ("linear", {"min_lr_fraction": 0.2}, [0.8, 0.6, 0.4, 0.2]),
        ("polynomial", {}, [0.75**2, 0.5**2, 0.25**2, 0.0]),
        ("polynomial", {"power": 3.0}, [0.75**3, 0.5**3, 0.25**3, 0.0]),
        ("polynomial", {"power": 1.0}, [0.75, 0.5, 0.25, 0.0]),
        ("cosine", {}, [(1 + math.cos(math.pi * part / 4)) / 2 for part in (1, 2, 3, 4)]),
        ("wsd", {"decay_fraction": 0.5}, [1.0, 1.0, 1 - math.sqrt(0.5), 0.0]),
        ("wsd", {"decay_fraction": 1.0}, [0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75), 0.0]),
        ("wsd", {"decay_fraction": 0.25, "min_lr_fraction": 0.1}, [1.0, 1.0, 1.0, 0.1]),
        ("constant", {}, [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_four_updates_by_hand(schedule: str, settings: dict[str, float], expected: list[float]) -> None:
    given = {"warmup_fraction": 0.0, "min_lr_fraction": 0.0, "schedule": schedule, **settings}
    assert rates(4, **given) == pytest.approx(expected, abs=1e-12)


def test_warm_up_rises_in_equal_steps_and_cosine_ends_at_the_floor() -> None:
    found = rates(40, warmup_fraction=0.1, min_lr_fraction=0.1)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[21] == pytest.approx(0.1 + 0.9 * 0.5)  # 18 of 36 decaying updates: half-way
    assert found[12] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert found[39] == pytest.approx(0.1)


@pytest.mark.parametrize("schedule", [*FALLING, "constant"])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 1.0])
def test_every_schedule_rises_to_lr_and_never_rises_again(schedule: str, total: int, warmup: float) -> None:
    found = rates(total, schedule=schedule, warmup_fraction=warmup, min_lr_fraction=0.1)
    rising = math.ceil(total * warmup)
    assert all(0 < rate <= 1 for rate in found)
    assert found[:rising] == sorted(found[:rising])
    assert found[rising:] == sorted(found[rising:], reverse=True)
    if rising:
        assert found[rising - 1] == 1.0
    if schedule != "constant" and rising < total:
        assert found[-1] == pytest.approx(0.1)


def test_the_default_stable_phase_is_four_fifths() -> None:
    found = rates(100, schedule="wsd", warmup_fraction=0.0)
    assert [rate == 1.0 for rate in found] == [True] * 80 + [False] * 20
