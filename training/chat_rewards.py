"""Scores the chats of a run by its reward model: `python -m training chat-rewards --recipe RUN --out chats.jsonl`.

Each line is a chat that `instructions` committed to learn from, with its task and, at `reward`, the reward of its last
reply. A later recipe that names the file in `instructions.data`, and `reward` in `instructions.select.quality_key`,
tunes on the best of them. A reply whose end is cut off within `reward.max_tokens` has no reward, and is not selected.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from contract.conversation import Conversation
from contract.errors import GristmillError
from contract.kinds import Kind
from contract.manifest import Attempt, need
from contract.plan import Run, open_run
from training.chat.template import Cut, open_chat
from training.data.examples import read_chats, read_tasks
from training.engine.job import Job
from training.reward import load_reward_model, reader_for, rewards_of


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m training chat-rewards", description=__doc__)
    parser.add_argument("--recipe", required=True, help="URI of a resolved run whose stage reward is done")
    parser.add_argument("--out", required=True, type=Path, help="the file to write, one chat a line")
    given = parser.parse_args(arguments)
    try:
        run = open_run(given.recipe)
        scored, rest = score(run, given.out)
    except (GristmillError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, GristmillError) else 1
    print(f"{given.out}: {scored:,} chats with a reward, {rest:,} that are too long for reward.max_tokens")
    return 0


def score(run: Run, out: Path) -> tuple[int, int]:
    """Write every training chat of a run with its reward; returns how many have one, and how many have none.

    Raises InputError if `instructions` or `reward` of the run is not done.
    """
    task = run.task("sft")  # which reads the chats, in their format
    job = Job(run, task, Attempt(run, task))
    judge = need(run.store, run.task("reward"))
    with job.scratch.held():
        tasks, scored = read_tasks(job, Kind.CHATS), 0
        found = _scored(job, load_reward_model(job, judge), run.recipe.reward)
        with out.open("w") as lines:
            for task_name, (turns, reward) in zip(tasks, found, strict=True):
                messages = [{"role": turn.role, "content": turn.text} for turn in turns]
                row = {"messages": messages, "reward": reward} | ({"task": task_name} if task_name else {})
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
                scored += reward is not None
    return scored, len(tasks) - scored


@torch.no_grad()
def _scored(job: Job, module: Any, settings: Any) -> Iterator[tuple[Conversation, float | None]]:
    """Each chat with its reward, None if its reply lost its end."""
    reader, chats = reader_for(module, open_chat(job)), read_chats(job, Kind.CHATS)
    size = settings.engine.micro_batch
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device).eval()
    for start in range(0, len(chats), size):
        part = chats[start : start + size]
        fits = [reader.fit_chat(turns, settings.max_tokens) for turns in part]
        whole = [fit.prompt + fit.replies[0] for fit in fits if Cut.REPLY not in fit.cuts]
        found = iter(rewards_of(module, whole, reader.pad, device).tolist() if whole else [])
        yield from (
            (turns, None if Cut.REPLY in fit.cuts else next(found)) for turns, fit in zip(part, fits, strict=True)
        )
