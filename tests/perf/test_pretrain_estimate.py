"""The bench of memory: one run of its own kind, short, and what a case says before it."""

import pytest

from contract.settings.training import Engine
from perf.bars import Bars
from perf.pretrain import estimate


def test_a_small_model_takes_the_memory_that_was_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(rank, raising=False)
    measured, estimated = estimate.measure("19M"), estimate.CASES["19M"].estimated()
    assert measured < 4 * 4 * 1024 * estimate.VOCABULARY, "less than four fp32 copies of the logits alone"
    assert estimated == pytest.approx(measured, rel=0.1), "the bar; on a quiet machine it is 5 % too much"


def test_the_worst_case_is_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {name: case.estimated() for name, case in estimate.CASES.items()}
    sizes["57M"] *= 0.5  # twice of it was estimated
    monkeypatch.setattr(estimate, "measure", sizes.__getitem__)
    bars = Bars()
    estimate.run(bars, None)
    assert "BAR estimate_off 1 0.1 short" in capsys.readouterr().out
    assert bars.code == 1


def test_the_cases_have_three_sizes_and_what_saves_memory() -> None:
    assert len({case.model for case in estimate.CASES.values()}) == 3
    engines = [case.engine for case in estimate.CASES.values()]
    assert any(engine.activation_checkpointing for engine in engines)
    assert any((engine.dtype, engine.zero_stage) == ("bf16", 2) for engine in engines)
    assert Engine(micro_batch=4) in engines
