"""The gate's decision as a page needs it: the sentence, the calibration, the worst pairs, and what is missing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract import approval
from contract.kinds import Kind
from contract.manifest import Attempt, File
from contract.plan import Run, resolve, vary
from contract.results import Evaluate, Gate, Judge, Result, Reward
from reports import gate

BIN = {"low": 0.5, "high": 0.55, "pairs": 4, "confidence": 0.52, "right": 0.75}
PAIR = {
    "row": 7,
    "margin": -2.5,
    "reward_chosen": -1.5,
    "reward_rejected": 1.0,
    "prompt": "user: <script>alert(1)</script>",
    "chosen": "good",
    "rejected": "bad\x1b[31m",
}
OPEN = Gate(open=True, accuracy=0.9, low=0.84, high=0.94, threshold=0.55)
REWARD = Reward.model_validate(
    {name: 1 for name, field in Reward.model_fields.items() if field.is_required()}
    | {"accuracy": 0.9, "heldout_pairs": 120, "heldout_correct": 108.0, "ece": 0.03, "skipped_steps": ""}
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: test\nstore: {tmp_path / 'store'}\ncrawl: {{source: {tmp_path / 'crawl'}}}\ngate: {{confidence: 0.9}}\n"
    )
    return resolve(str(recipe), "one")


@pytest.fixture
def commit(run: Run) -> Callable[..., None]:
    def made(stage: str, result: Result, calibration: bytes | None = None) -> None:
        attempt = Attempt(run, run.task(stage))
        files = []
        if calibration is not None:
            path = attempt.path("calibration.json")
            run.store.write_bytes(path, calibration)
            files.append(File(path=path, kind=Kind.CALIBRATION, bytes=len(calibration)))
        attempt.commit(files, result=result)

    return made


def dumped(**changed: Any) -> bytes:
    return json.dumps({"bins": [BIN], "worst": [PAIR], **changed}).encode()


def test_a_run_without_a_gate_says_what_is_missing(run: Run) -> None:
    found = gate.view(run)
    assert (found.decision, found.reward, found.calibration) == (None, None, None)
    assert found.missing == ("reward is not done yet.", "gate is not done yet.")
    assert found.sentence == "The gate has not decided yet."


def test_an_open_gate_with_its_calibration_and_its_worst_pairs(run: Run, commit: Callable[..., None]) -> None:
    commit("reward", REWARD, dumped())
    commit("gate", OPEN)
    found = gate.view(run)
    assert found.missing == ()
    assert found.decision == OPEN
    assert found.reward is not None
    assert (found.reward.heldout_pairs, found.reward.ece, found.confidence) == (120, 0.03, 0.9)
    assert found.calibration is not None
    assert found.calibration.bins == (gate.Bin(**BIN),)
    assert found.calibration.worst == (gate.Pair(**PAIR),)
    assert found.sentence == (
        "The gate is open: the lower end of the interval, 84.0%, reaches the threshold of 55.0%. PPO may start."
    )


def test_what_the_recipe_asks_is_told_with_what_was_measured(run: Run, commit: Callable[..., None]) -> None:
    asking = vary(run, "bounds", ["export.at_least={judge_win_rate_low: 0.5}", "export.at_most={perplexity_ppo: 20}"])
    short = Gate(
        open=False, accuracy=0.9, low=0.84, high=0.94, threshold=0.55,
        shorter_accuracy=0.6, shorter_low=0.4, shorter_high=0.8, shorter_threshold=0.5,
    )  # fmt: skip
    commit("gate", short)
    before = gate.view(asking)
    assert [(one.value, one.bound, one.holds) for one in before.criteria] == [
        (0.84, "at least 0.55", True),
        (0.4, "at least 0.5", False),
        (None, "at least 0.5", None),
        (None, "at most 20", None),
    ]
    assert (before.judge, before.evaluated) == (None, None)
    assert "where the better reply is the shorter one, 40.0% is under 50.0%. PPO is left out" in before.sentence
    assert "84.0%, reaches the threshold" in before.sentence
    commit("judge", Judge(pairs=9, accuracy=0.8))
    commit(
        "evaluate",
        Evaluate(heldout_sequences=1, heldout_tokens=1, prompts=1, perplexity_ppo=21.0, judge_win_rate_low=0.5, reward_sft=0.0, worse_sft=False),
    )  # fmt: skip
    after = gate.view(asking)
    assert [(one.value, one.holds) for one in after.criteria[2:]] == [(0.5, True), (21.0, False)]
    assert after.judge is not None
    assert after.judge.accuracy == 0.8
    assert len(gate.view(run).criteria) == 2


def test_what_was_left_out_is_told_with_its_reason(run: Run, commit: Callable[..., None]) -> None:
    assert gate.view(run).left_out == ""
    dropped = {
        "training": {"equal": 2, "lost_end": 0, "\x1b[31m": 3},
        "heldout": {"lost_end": 1200},
        "other": {"equal": 1},
    }
    commit("reward", REWARD.model_copy(update={"dropped": dropped}))
    assert gate.view(run).left_out == (
        "of the training prompts, 2 whose replies became the same within reward.max_tokens; "
        "of the held-out prompts, 1,200 whose replies lost their end within reward.max_tokens"
    )


def test_tasks_and_histograms_are_told_as_they_were_committed(run: Run, commit: Callable[..., None]) -> None:
    figures = {"pairs": 4, "accuracy": 0.5, "low": 0.1, "high": 0.9}
    named = {f"{number} \x1b[31m": figures for number in range(60)} | {"broken": {"pairs": 1}}
    drawn = {"edges": [0.0, 1.0, 2.0], "better": [1, 2], "worse": [3, 4]}
    commit("reward", REWARD.model_copy(update={"tasks": named}), dumped(histograms=drawn))
    found = gate.view(run)
    assert len(found.tasks) == 40
    assert found.tasks[0][1] == figures
    assert "\x1b" not in found.tasks[0][0]
    assert found.calibration is not None
    assert found.calibration.histograms == gate.Histograms.model_validate(drawn)
    assert gate.Calibration(bins=(), worst=()).histograms.edges == (), "an older version wrote none"


def test_a_closed_gate_says_what_follows(run: Run, commit: Callable[..., None]) -> None:
    commit("gate", Gate(open=False, accuracy=0.6, low=0.5, high=0.7, threshold=0.55))
    found = gate.view(run)
    assert found.sentence == (
        "The gate is closed: the lower end of the interval, 50.0%, is under the threshold of 55.0%. "
        "PPO is left out, and the SFT model is the result."
    )
    assert found.missing == ("reward is not done yet.",)


def test_a_reward_model_of_an_older_version_has_no_calibration(run: Run, commit: Callable[..., None]) -> None:
    commit("reward", REWARD)
    found = gate.view(run)
    assert found.calibration is None
    assert any("Run reward again" in one for one in found.missing)


@pytest.mark.parametrize("data", [b"", b"{}", dumped(bins=[{}]), dumped(worst=7)])
def test_a_damaged_calibration_is_said_and_hides_nothing_else(
    run: Run, commit: Callable[..., None], data: bytes
) -> None:
    commit("reward", REWARD, data)
    commit("gate", OPEN)
    found = gate.view(run)
    assert (found.decision, found.calibration) == (OPEN, None)
    assert any("calibration.json" in one for one in found.missing)


def test_the_page_says_whether_a_person_was_asked_and_what_became_of_it(run: Run, commit: Callable[..., None]) -> None:
    assert gate.view(run).approval == "PPO needs no approval: the recipe does not set gate.approval."
    asking = vary(run, "asking", ["gate.approval=true"])
    assert asking.task("ppo").fingerprint == run.task("ppo").fingerprint, "asking changes no result"
    assert gate.view(asking).approval == "PPO needs the approval of a person (gate.approval). Nobody has rejected it."
    approval.refuse(run.store, run.task("ppo"), approval.Refusal("Ada <b>", "2026-11-22T15:00:00"))
    assert gate.view(asking).approval == "PPO is left out, because Ada <b> rejected it (2026-11-22T15:00:00)."
    run.store.write_bytes(approval.place(run.task("ppo")), b"{")
    assert "is not a refusal" in gate.view(asking).approval
    approval.allow(run.store, run.task("ppo"))
    commit("gate", Gate(open=False, accuracy=0.6, low=0.5, high=0.7, threshold=0.55))
    assert gate.view(asking).approval == "No approval is asked for, because the gate is closed."
    run.store.write_bytes(f"{run.task('ppo').prefix}/manifest.json", b"{}")
    assert gate.view(run).approval == "PPO is done. No approval was needed."
    assert gate.view(asking).approval == "PPO is done. The recipe asks a person for approval first (gate.approval)."


def test_a_figure_that_is_none_is_said(run: Run, commit: Callable[..., None]) -> None:
    commit("gate", Gate.model_construct(open=True))
    found = gate.view(run)
    assert found.decision is None
    assert any("its figure 'accuracy'" in one for one in found.missing)


def test_a_damaged_manifest_is_said(run: Run, commit: Callable[..., None]) -> None:
    commit("gate", OPEN)
    run.store.write_bytes(f"{run.task('reward').prefix}/manifest.json", b"{")
    found = gate.view(run)
    assert found.decision == OPEN
    assert any("is not a manifest" in one for one in found.missing)
