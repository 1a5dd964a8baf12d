"""PPO on tasks whose outcome is known.

`ppo_of_optimum`: rewards are points for known answers, so the policy that maximises E[r] - beta KL(pi || pi_SFT) is known exactly: it has
the SFT model's replies with each verdict's probability p_v multiplied by exp(points_v / beta) and normalised. Its expected reward, its KL
divergence from the SFT model, and the reward that PPO reaches of it, on the prompts that it learned from. `kl_of_budget`: PPO's exact KL
divergence over what the recipe grants, BUDGET times the optimum's.
`kl_with_large_beta`: with a KL coefficient of a thousand, nats a reply from the SFT model after the same steps.
`ptx_rises_less`: of three seeds, those in which held-out pretraining perplexity rises less with a share of pretraining loss than without.
"""

import contextlib
import io
import json
import math
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from contract.kinds import Kind
from contract.manifest import need
from contract.metrics import load_points
from contract.plan import Run
from contract.settings.training import Ppo
from perf.align.chain import job_of, make_chain
from perf.bars import Bars
from training import ppo
from training.answers import Verdict, points
from training.chat.template import open_chat
from training.data.prompts import read_prompts
from training.data.reading import TokenData
from training.engine.job import Job
from training.experience import question_of, sample, score
from training.models import llama as model
from training.models.lm import heldout_loss, heldout_text

ANSWERS = {"Where does the baker wait?": "day", "What is quiet in winter?": "old"}
"""Each is in about an eighth of the SFT model's replies, and the right word of one prompt is wrong for the other."""
BUDGET = 2.0
SAMPLES = 1024  # of the SFT model, to each prompt
TASK = (
    "ppo.reward=answers", "ppo.no_eot_penalty=0.0", "ppo.max_response_tokens=6", "ppo.steps=150", "ppo.rollout_batch=256",
    "ppo.minibatch=128", "ppo.inner_epochs=4", "ppo.kl_coef=0.1", "ppo.lam=1.0", "ppo.value_warmup_steps=5",
    "ppo.engine={micro_batch: 128, checkpoint_steps: 1000}", "ppo.best_of=1", "ppo.eval_steps=1000",
    "ppo.policy_optim={lr: 2.0e-3, weight_decay: 0.0, schedule: linear, min_lr_fraction: 0.0}",
    "ppo.value_optim={lr: 2.0e-3, weight_decay: 0.0, schedule: cosine}",
)  # fmt: skip
TIED = (
    # What a critic has to learn grows a thousandfold once the policy has moved: no gradient is refused for it.
    "ppo.steps=20", "ppo.kl_coef=1000.0", "ppo.value_warmup_steps=0", "ppo.value_optim.skip_above=null",
    "ppo.policy_optim.lr=1.0e-3",
)  # fmt: skip
SHORT = (
    "ppo.steps=12",
    "ppo.rollout_batch=32",
    "ppo.minibatch=16",
    "ppo.kl_coef=0.01",
    "ppo.best_of=1",
    "ppo.eval_steps=1000",
)


def run(bars: Bars, data: Path) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GRISTMILL_SCRATCH"] = str(folder / "scratch")
        optimum(bars, folder)
        pretraining(bars, folder)


def optimum(bars: Bars, folder: Path) -> None:
    """`ppo_of_optimum`, `kl_of_budget` and `kl_with_large_beta`."""
    began = time.monotonic()
    file = folder / "prompts.jsonl"
    rows = [{"prompt": prompt, "answer": answer} for prompt, answer in ANSWERS.items()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = make_chain(folder, *TASK, f"prompts.data={file}", name="task")
    best, apart = known_optimum(made)
    align(made)
    reached, kl = last_of(made, "reward"), last_of(made, "kl_exact")
    seconds = time.monotonic() - began
    print(f"optimum: reward {best:.3f} at KL {apart:.2f}; PPO: reward {reached:.3f} at KL {kl:.2f}, in {seconds:.0f} s")
    bars.at_least("ppo_of_optimum", reached / best, 0.95)
    bars.at_most("kl_of_budget", kl / (BUDGET * apart), 1.0)
    bars.at_most("ppo_of_optimum_seconds", seconds, 300)
    tied = make_chain(folder, *TASK, f"prompts.data={file}", *TIED, name="tied")
    align(tied)
    bars.at_most("kl_with_large_beta", last_of(tied, "kl_exact"), 0.1)


def align(made: Run) -> None:
    """Run PPO in this process, without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        ppo.run(job_of(made, "ppo"))


def known_optimum(made: Run) -> tuple[float, float]:
    """(expected reward, KL divergence in nats a reply) of the policy that maximises the objective, over all prompts."""
    job = job_of(made, "ppo")
    settings, chat, prompts = job.settings, open_chat(job), read_prompts(job).training
    module = model.load_model(job, job.manifest("sft")).eval()
    rewards, distances = [], []
    for row in range(len(prompts)):
        asked = [question_of(chat, prompts[row], settings, row, turn) for turn in range(SAMPLES)]
        sampled = sample(module, asked, len(asked[0].ids), chat, settings)
        _, verdicts = score(None, sampled, asked, chat, settings)
        shares = {
            one: float((verdicts == one).float().mean()) for one in (Verdict.WRONG, Verdict.ABSTAINED, Verdict.RIGHT)
        }
        reward, distance = tilted(shares, settings)
        print(f"SFT's replies to {prompts[row].prompt[0].text!r}: {shares[Verdict.RIGHT]:.1%} right")
        rewards.append(reward)
        distances.append(distance)
    return statistics.fmean(rewards), statistics.fmean(distances)


def tilted(shares: dict[Verdict, float], settings: Ppo) -> tuple[float, float]:
    """(expected reward, KL divergence from the SFT model) of the optimal policy, for the SFT model's share of verdicts."""
    beta = settings.kl_coef
    weights = {one: share * math.exp(points(one, settings.answers) / beta) for one, share in shares.items()}
    total = sum(weights.values())
    reward = sum(weight / total * points(one, settings.answers) for one, weight in weights.items())
    return reward, reward / beta - math.log(total)


def last_of(made: Run, name: str) -> float:
    """The mean of a curve's last five steps."""
    manifest = need(made.store, made.task("ppo"))
    found = [
        point.value
        for one in manifest.of(Kind.METRICS)
        for point in load_points(made.store.read_bytes(one.path))
        if point.name == name
    ]
    return statistics.fmean(found[-5:])


def pretraining(bars: Bars, folder: Path) -> None:
    """`ptx_rises_less`."""
    less = 0
    for seed in range(3):
        rises = {}
        for coef in (0.0, 1.0):
            made = make_chain(folder, *SHORT, f"ppo.seed={seed}", f"ppo.ptx_coef={coef}", name=f"ptx-{seed}-{coef}")
            before = perplexity(job_of(made, "ppo"), "sft")
            align(made)
            rises[coef] = perplexity(job_of(made, "ppo"), "ppo") / before
        print(f"seed {seed}: perplexity times {rises[0.0]:.3f} without pretraining loss, {rises[1.0]:.3f} with it")
        less += rises[1.0] < rises[0.0]
    bars.at_least("ptx_rises_less", less, 3)


def perplexity(job: Job, stage: str) -> float:
    """Of a stage's model on the held-out pretraining text."""
    manifest = need(job.store, job.attempt.run.task(stage))
    module = model.load_model(job, manifest).eval()
    data = TokenData(job, Kind.HELDOUT_TOKENS, job.setting("pack.seq_len"), job.setting("pretrain.boundaries"))
    with torch.no_grad():
        found = heldout_loss(
            job, module, heldout_text(job, data, 64, 8), 8, open_chat(job).token_bytes(), list(data.sources)
        )
    return math.exp(sum(one.nll for one in found.values()) / sum(one.tokens for one in found.values()))
