"""Samples a second of a whole PPO step beside another's loop: `ppo_vs_trl`.

TRL 1.16 has no PPO any more (its `experimental.ppo` is gone), so the peer is a plain reference loop, which is printed: transformers'
`generate` with its own cache, one forward pass of each of the four models, GAE, and clipped updates of policy and critic with AdamW. Both
have the same models, prompts, lengths, batches, minibatches and threads, and both take turns; each counts with its fastest step.
"""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import LlamaForCausalLM

from perf.align.chain import job_of, make_chain
from perf.bars import Bars
from training import loss, ppo, reward
from training.chat.template import open_chat
from training.data.prompts import read_prompts
from training.experience import minibatches, questions
from training.models import llama as model
from training.rollout import left_pad, response_logits

STEPS = 6
ROWS, MINI, LONGEST = 32, 16, 96
SETTINGS = (
    "pack.seq_len=160", "pretrain.steps=3", "pretrain.model={layers: 6, d_model: 320, heads: 5, kv_heads: 5, d_ff: 864}",
    "sft.epochs=1", "ppo.max_prompt_tokens=48", f"ppo.max_response_tokens={LONGEST}", f"ppo.rollout_batch={ROWS}",
    f"ppo.minibatch={MINI}", "ppo.inner_epochs=2", f"ppo.engine={{micro_batch: {MINI}, checkpoint_steps: 1000}}", "ppo.steps=100",
    "reward.epochs=1", "instructions.max_examples=64", "preferences.max_examples=64", "gate.min_accuracy=0",
)  # fmt: skip


def run(bars: Bars, data: Path) -> None:
    with TemporaryDirectory() as name:
        made = make_chain(Path(name), *SETTINGS)
        job = job_of(made, "ppo")
        chat, prompts = open_chat(job), read_prompts(job)
        ours = ppo.Learner(job, chat, prompts, ppo.start(job))
        theirs = Plain(job, chat)
        print(
            f"peer: a plain loop, because TRL 1.16 has no PPO; {sum(p.numel() for p in theirs.policy.parameters()):,} parameters"
        )
        rates: dict[str, list[float]] = {"ours": [], "plain": []}
        for step in range(STEPS):
            began = time.perf_counter()
            ours.step(step, None)
            middle = time.perf_counter()
            asked, _ = questions(prompts.training, chat, step, job.settings)
            theirs.step([one.ids for one in asked], step)
            rates["ours"].append(ROWS / (middle - began))
            rates["plain"].append(ROWS / (time.perf_counter() - middle))
        best = {name: max(found) for name, found in rates.items()}
        print(f"samples/s: {best}; medians {[round(statistics.median(found), 2) for found in rates.values()]}")
        bars.at_least("ppo_vs_trl", best["ours"] / best["plain"], 1.5)


class Plain:
    """PPO as one writes it first."""

    def __init__(self, job: Any, chat: Any) -> None:
        self.settings, self.end = job.settings, chat.end_of_text
        self.policy: LlamaForCausalLM = model.load_model(job, job.manifest("sft"))
        self.reference = model.load_model(job, job.manifest("sft")).eval()
        self.critic = reward.load_reward_model(job, job.manifest("reward"))
        self.judge = reward.load_reward_model(job, job.manifest("reward")).eval()
        self.optimizers = [torch.optim.AdamW(one.parameters(), lr=1e-6) for one in (self.policy, self.critic)]

    def step(self, prompts: list[list[int]], step: int) -> None:
        tokens, attention = left_pad(prompts, self.end, "cpu")
        width = tokens.shape[1]
        with torch.no_grad():
            self.policy.eval()
            tokens = self.policy.generate(
                input_ids=tokens, attention_mask=attention, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=LONGEST, eos_token_id=self.end, pad_token_id=self.end, use_cache=True,
            )  # fmt: skip
            self.policy.train()
            replies = tokens[:, width:]
            ended = (replies == self.end).cumsum(1)
            mask = ((ended == 0) | ((ended == 1) & (replies == self.end))).float()
            attention = torch.cat((attention, mask.long()), 1)
            old, other = (self.log_probs(one, tokens, attention, replies) for one in (self.policy, self.reference))
            values = self.critic(tokens, attention)[:, -replies.shape[1] - 1 : -1] * mask
            scores = reward.last(self.judge(tokens, attention), attention)
            rewards = loss.shape_rewards(scores, (old - other) * mask, mask, self.settings.kl_coef)
            advantages, returns = loss.gae(rewards, values, mask, 1.0, 0.95)
            advantages = loss.whiten(advantages, mask)
        for rows in minibatches(step, self.settings):
            new = self.log_probs(self.policy, tokens[rows], attention[rows], replies[rows])
            first = loss.masked_mean(loss.policy_loss(new, old[rows], advantages[rows], 0.2), mask[rows])
            now = self.critic(tokens[rows], attention[rows])[:, -replies.shape[1] - 1 : -1]
            second = loss.masked_mean(loss.value_loss(now, values[rows], returns[rows], 0.2), mask[rows])
            (first + 0.5 * second).backward()
            for module, optimizer in zip((self.policy, self.critic), self.optimizers, strict=True):
                torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()

    def log_probs(
        self, module: Any, tokens: torch.Tensor, attention: torch.Tensor, replies: torch.Tensor
    ) -> torch.Tensor:
        return loss.log_probs(response_logits(module, tokens, attention, replies.shape[1]), replies)
