"""Curves whose figures wait on the device, and the peaks of devices."""

from unittest.mock import Mock

import pytest
import torch

from training.engine.metrics import Curves, Pace, mfu, peak_flops
from training.engine.ranks import Ranks


def test_what_waits_is_summed_over_all_processes_in_one_go() -> None:
    times = iter([10.0, 11.0, 12.0])
    curves, ranks = Curves(clock=lambda: next(times)), Ranks()
    ranks.total = Mock(side_effect=lambda values: (values * 2).tolist())  # type: ignore[method-assign]
    curves.read(ranks)
    assert not ranks.total.called
    curves.add_later(1, {"loss": torch.tensor(1.5), "accuracy": torch.tensor(0.25)}, lr=0.1)
    curves.add_later(2, {"loss": torch.tensor(1.0), "accuracy": torch.tensor(0.5)}, lr=0.2)
    assert curves.points == []
    assert curves.last("loss") is None
    curves.read(ranks)
    curves.read(ranks)
    assert ranks.total.call_count == 1
    assert [(one.step, one.name, one.value, one.time) for one in curves.points] == [
        (1, "loss", 3.0, 10.0),
        (1, "accuracy", 0.5, 10.0),
        (1, "lr", 0.1, 10.0),
        (2, "loss", 2.0, 11.0),
        (2, "accuracy", 1.0, 11.0),
        (2, "lr", 0.2, 11.0),
    ]
    assert curves.last("loss") == 2.0


def test_what_is_added_behind_figures_that_wait_stays_in_the_order_of_steps() -> None:
    curves, ranks = Curves(), Ranks()
    curves.add(0, heldout_loss=6.0)
    assert [point.step for point in curves.points] == [0], "nothing waits"
    curves.add_later(1, {"loss": torch.tensor(3.0)})
    curves.add(1, skipped=1)
    for row in (71, 72):
        curves.add(1, **{"skipped_row web": row})
    curves.add_later(2, {"loss": torch.tensor(2.0)})
    assert len(curves.points) == 1
    assert curves.skips() == {"skipped_updates": 1, "skipped_steps": "1"}
    curves.read(ranks)
    assert [(one.step, one.name, one.value) for one in curves.points[1:]] == [
        (1, "loss", 3.0),
        (1, "skipped", 1.0),
        (1, "skipped_row web", 71.0),
        (1, "skipped_row web", 72.0),
        (2, "loss", 2.0),
    ]
    assert curves.skips() == {"skipped_updates": 1, "skipped_steps": "1"}
    curves.add_later(3, {}, lr=0.1)
    curves.read(ranks)
    assert curves.last("lr") == 0.1


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("Tesla T4", None),
    ],
)
def test_the_peaks_of_devices_with_one_chip_and_other_clocks_differ(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


def test_speed_is_that_since_the_last_reading() -> None:
    pace = Pace()
    pace.add(100, 1.0)
    pace.add(200, 2.0)
    assert pace.read() == 100
    pace.add(60, 2.0)
    assert pace.read() == 30
    assert mfu(1000, 2e9, 1e12, 4) == 0.5
