"""Chats get the rewards of the run's own reward model, in a file from which a later recipe selects the best."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from contract.kinds import Kind
from contract.manifest import Attempt, need
from contract.settings.examples import Instructions
from pipelines.examples.reading import read_chats as read_file
from training import chat_rewards
from training.chat.template import open_chat
from training.data.examples import read_chats
from training.engine.job import Job
from training.reward import load_reward_model, rewards_of


def test_every_chat_has_its_reward(
    align: Callable[..., Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = align("ppo")  # which has reward run
    run, out = job.attempt.run, tmp_path / "chats.jsonl"
    assert chat_rewards.main(["--recipe", run.uri, "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    sft = Job(run, run.task("sft"), Attempt(run, run.task("sft")))
    chat, chats = open_chat(sft), read_chats(sft, Kind.CHATS)
    said = capsys.readouterr().out
    known = [row["reward"] for row in rows if row["reward"] is not None]
    assert f"{len(known):,} chats with a reward, {len(rows) - len(known):,} that are too long" in said
    assert [[turn["content"] for turn in row["messages"]] for row in rows] == [
        [turn.text for turn in one] for one in chats
    ]
    module = load_reward_model(job, need(run.store, run.task("reward"))).eval()
    most = run.recipe.reward.max_tokens
    with torch.no_grad():
        for row, turns in list(zip(rows, chats, strict=True))[:20]:
            ids = chat.encode(turns, 1 << 20)[0]
            if chat.fit_chat(turns, most).cuts:
                continue
            alone = rewards_of(module, [ids], chat.pad, torch.device("cpu"))
            assert row["reward"] == pytest.approx(float(alone), abs=1e-4)
    settings = Instructions(data=str(out), select={"examples": 3, "quality_key": "reward"})
    read = [row.found for row in read_file(settings, Counter())]
    assert [one.quality for one in read] == [row["reward"] for row in rows]


def test_a_run_without_a_reward_model_is_refused(
    align: Callable[..., Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = align("reward", "reward.seed=99").attempt.run
    assert chat_rewards.main(["--recipe", run.uri, "--out", str(tmp_path / "a.jsonl")]) != 0
    assert "reward" in capsys.readouterr().err
    assert not (tmp_path / "a.jsonl").exists()
