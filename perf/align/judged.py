"""A reward model as a judge of what people ranked: how often, and how far beyond chance, both take the same reply.

Each pair is shown in an order that is drawn, so that chance agrees on half of them, and Cohen's kappa says what is beyond it. Pairs of one
prompt are not independent: the interval of the share takes them as a cluster; that of kappa does not.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from contract.conversation import Preference
from contract.examples import Unusable
from contract.manifest import need
from contract.plan import Run
from evals.agreement import Estimate, cohen
from evals.grading import Score, scored
from perf.align.rewarded import job_of
from pipelines.examples.comparisons import comparisons, pairs_of
from pipelines.examples.reading import of_shape
from pipelines.preferences import prompt

BATCH = 32
MOST = 64  # pairs of one ranking


def read_oasst(data: Path) -> list[Preference]:
    """Every two replies of which people ranked one higher, of the trees of Open Assistant."""
    found: list[Preference] = []
    with (data / "pref" / "oasst" / "en_100_tree.jsonl").open() as lines:
        for line in lines:
            try:
                rankings = of_shape(comparisons({}), json.loads(line))[1]
            except Unusable:
                continue
            found += [pair for one in rankings for pair in pairs_of(one, MOST)]
    return found


def margins(made: Run, pairs: Sequence[Preference]) -> list[float]:
    """The reward of the reply that people prefer less that of the other, by the run's reward model."""
    import torch

    from training.chat.template import open_chat
    from training.reward import load_reward_model, reader_for, rewards_of

    job = job_of(made, "reward")
    module = load_reward_model(job, need(made.store, made.task("reward"))).eval()
    reader = reader_for(module, open_chat(job))
    found: list[float] = []
    with torch.no_grad():
        for start in range(0, len(pairs), BATCH):
            fits = [
                reader.fit(one.prompt, (one.chosen, one.rejected), made.recipe.reward.max_tokens)
                for one in pairs[start : start + BATCH]
            ]
            chats = [[*fit.prompt, *reply] for fit in fits for reply in fit.replies]
            rewards = rewards_of(module, chats, reader.pad, torch.device("cpu")).tolist()
            found += [better - worse for better, worse in zip(rewards[::2], rewards[1::2], strict=True)]
    return found


def agreement(found: Sequence[float], prompts: Sequence[str], seed: int = 0) -> tuple[Score, Estimate]:
    """(The share of pairs of which judge and people take the same reply, a tie as half; kappa). found: the margins."""
    share = scored([(one > 0) + 0.5 * (one == 0) for one in found], prompts)
    drawn = random.Random(seed)
    people = [drawn.choice(("first", "second")) for _ in found]
    other = {"first": "second", "second": "first"}
    judge = ["tie" if one == 0 else said if one > 0 else other[said] for one, said in zip(found, people, strict=True)]
    return share, cohen([*zip(people, judge, strict=True)])


def tell(name: str, made: Run, pairs: Sequence[Preference]) -> None:
    """Print how far the reward model agrees with people on these pairs."""
    share, beyond = agreement(margins(made, pairs), [prompt(one) for one in pairs])
    print(
        f"reward model as judge of {name}: agrees with people on {share.mean:.4f} ({share.low:.4f} to {share.high:.4f}) "
        f"of {share.n:,} pairs of {share.sources:,} prompts; kappa {beyond.value:.4f} ({beyond.low:.4f} to {beyond.high:.4f})",
        flush=True,
    )
