"""The benches of alignment: the optimum that PPO is held against, by hand, and which benches there are."""

import math

import pytest

from contract.settings.training import Answers, Ppo
from contract.stages import STAGES
from perf.align import resume
from perf.align.__main__ import LIMIT_S, names, needs
from perf.align.known import tilted
from training.answers import Verdict


def test_the_optimum_of_a_coin_by_hand() -> None:
    """Half right, half wrong, beta 1: weights e / 2 and 1 / (2 e), so the reward is tanh 1, and the KL follows."""
    settings = Ppo(kl_coef=1.0, reward="answers", answers=Answers(right=1.0, abstained=0.0, wrong=-1.0))
    reward, distance = tilted({Verdict.RIGHT: 0.5, Verdict.WRONG: 0.5}, settings)
    assert reward == pytest.approx(math.tanh(1))
    right = (1 + reward) / 2
    assert distance == pytest.approx(right * math.log(2 * right) + (1 - right) * math.log(2 * (1 - right)))


def test_a_small_beta_asks_for_right_replies_alone() -> None:
    settings = Ppo(kl_coef=0.02, reward="answers")
    reward, distance = tilted({Verdict.RIGHT: 0.1, Verdict.WRONG: 0.9}, settings)
    assert (reward, distance) == (pytest.approx(1.0), pytest.approx(math.log(10)))


def test_every_bench_of_the_folder_is_run_and_they_end_in_time() -> None:
    assert {"known", "replies", "resume"} <= set(names())
    assert needs().keys() == set(names())
    assert sum(needs().values()) <= LIMIT_S


def test_every_stage_that_trains_is_killed_and_those_with_adapters_where_peft_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`pretrain` is killed in a bench of its own, and `judge` learns by the code of `reward`."""
    trained = {stage.name for stage in STAGES.values() if stage.plane == "gpu"}
    assert set(resume.SETTINGS) == trained - {"pretrain", "judge", "evaluate", "benchmark", "sample", "probe"}
    for there, labels in (
        (None, [*resume.SETTINGS]),
        ("a spec", [*resume.SETTINGS, *(f"{one}_adapters" for one in resume.ADAPTED)]),
    ):
        monkeypatch.setattr(resume, "find_spec", lambda name, there=there: there)
        assert [label for label, _, _ in resume.cases()] == labels
