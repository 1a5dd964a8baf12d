"""What a policy did in one step: the replies that it sampled, and what every model says of them. For ppo and grpo.

Sampling and scoring are split over the processes. Then every process gets the experience of the whole batch (a few
numbers per token), so whitening, minibatches and figures do not depend on the number of processes.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from contract.conversation import Conversation
from contract.errors import InputError
from contract.metrics import Point
from contract.results import Gate, Result
from contract.settings.training import Rollouts
from training import loss, reward
from training.answers import Verdict, points, verdict
from training.chat.template import Chat
from training.data.order import rows_of, share_of
from training.data.prompts import Asked, Prompts
from training.engine.engine import Engine
from training.engine.job import Job
from training.models import llama as model
from training.models.encoder import EncoderReward
from training.models.frozen import Adapted, Frozen
from training.rollout import Rollout, generate, response_logits, row_seed, trimmed
from training.vllm_sampler import Sampler

TEXT_CHARS = 2000
"""How much of a sample's prompt and reply is kept to be read."""


@dataclass(frozen=True)
class Question:
    """A prompt as ids, the seed of its reply, the answers of which any is right, and the prompt's turns."""

    ids: list[int]
    seed: int
    answers: tuple[str, ...] = ()
    turns: Conversation = ()


@dataclass(frozen=True)
class Experience:
    """One step's replies and their scores, with N rows, P prompt positions and R response positions.

    tokens, attention (N, P + R). mask (N, R). log_probs, reference, values (N, R): log-probabilities under the sampling
    policy and under the reference, and the critic's values; exact (N, R): the KL divergence of their distributions. All
    are 0 where the mask is 0. scores (N,): rewards, the model's normalised. ended (N,): 1 where the reply ended with
    end-of-text. verdicts (N,): a `Verdict` on each reply.
    """

    tokens: Tensor
    attention: Tensor
    mask: Tensor
    log_probs: Tensor
    reference: Tensor
    values: Tensor
    scores: Tensor
    ended: Tensor
    exact: Tensor
    verdicts: Tensor


@dataclass(frozen=True)
class Actors:
    """The models: policy and critic learn, reference and reward model are frozen.

    GRPO has no critic. Where known answers alone give the rewards, there may be no reward model. With `shared`, the
    critic is a head on the reward model's own decoder, which must be awake for both.
    """

    policy: Engine
    critic: Engine | None
    reference: Frozen | Adapted
    reward: Frozen | None
    shared: bool = False
    sampler: Sampler | None = None


def require_open_gate(job: Job) -> None:
    """Raise InputError if the reward model is not good enough."""
    gate = Gate.of(job.manifest("gate"))
    if not gate.open:
        raise InputError(
            f"gate is closed: the reward model's held-out accuracy is {gate.low:.3f} at the interval's lower end, "
            f"under gate.min_accuracy {gate.threshold:g}; give reward more or better pairs"
        )


@torch.no_grad()
def collect(
    actors: Actors,
    asked: Sequence[Question],
    width: int,
    chat: Chat,
    settings: Rollouts,
    anyone: Callable[[bool], bool] = bool,
) -> tuple[Experience, float]:
    """Sample one reply to each prompt and evaluate it with every model; also the seconds that sampling took.

    `rollout.generate` explains `width` and `anyone`. One frozen model is awake at a time.
    """
    began = time.perf_counter()
    policy = actors.policy.module
    if actors.sampler:
        ids, seeds = [one.ids for one in asked], [one.seed for one in asked]
        sampled = actors.sampler.replies(policy, ids, seeds, width, chat.end_of_text)
    else:
        sampled = sample(policy, asked, width, chat, settings, anyone)
    seconds = time.perf_counter() - began
    length, size, mask = sampled.mask.shape[1], settings.engine.micro_batch, sampled.mask
    said: list[tuple[Tensor, ...]] = []
    with actors.reference.held():
        for tokens, attention in parts(sampled, size):
            ours = response_logits(policy, tokens, attention, length)
            with actors.reference.awake() as reference:
                theirs = response_logits(reference, tokens, attention, length)
            both = [loss.log_probs(one, tokens[:, -length:], settings.temperature) for one in (ours, theirs)]
            said.append((*both, loss.kl_divergence(ours, theirs, settings.temperature)))
    log_probs, others, exact = (torch.cat(part) * mask for part in zip(*said, strict=True))
    scores, verdicts = score(actors.reward, sampled, asked, chat, settings)
    seen = Experience(
        tokens=sampled.tokens,
        attention=sampled.attention,
        mask=mask,
        log_probs=log_probs,
        reference=others,
        values=values_of(actors, sampled, size),
        scores=scores,
        ended=sampled.ended(chat.end_of_text).float(),
        exact=exact,
        verdicts=verdicts,
    )
    return seen, seconds


def sample(
    module: nn.Module,
    asked: Sequence[Question],
    width: int,
    chat: Chat,
    settings: Rollouts,
    anyone: Callable[[bool], bool] = bool,
) -> Rollout:
    """One reply of a model to each prompt, as the settings say."""
    ids, seeds = [one.ids for one in asked], [one.seed for one in asked]
    most = settings.max_response_tokens
    end = chat.end_of_text
    return generate(module, ids, seeds, most, end, settings.temperature, width, anyone, settings.cuda_graphs)


def parts(sampled: Rollout | Experience, size: int) -> list[tuple[Tensor, Tensor]]:
    """Tokens and attention, `size` rows at a time, without what is padding in all of them."""
    rows = zip(sampled.tokens.split(size), sampled.attention.split(size), strict=True)
    return [trimmed(*one, sampled.mask.shape[1]) for one in rows]


def values_of(actors: Actors, sampled: Rollout, size: int) -> Tensor:
    """The critic's values where the mask is 1, (N, R); zeros without a critic."""
    length = sampled.mask.shape[1]
    if actors.critic is None:
        return torch.zeros_like(sampled.mask)
    with critic_awake(actors):
        critic = actors.critic.module
        # The critic gives a state's value at the token before the one that is chosen in that state.
        found = [critic(*one)[:, -length - 1 : -1] for one in parts(sampled, size)]
    return torch.cat(found) * sampled.mask


def critic_awake(actors: Actors) -> AbstractContextManager[Any]:
    """Context in which the critic can compute: a shared decoder is awake."""
    return actors.reward.awake() if actors.shared and actors.reward else nullcontext()


@torch.no_grad()
def score(
    judge: Frozen | None, sampled: Rollout, asked: Sequence[Question], chat: Chat, settings: Rollouts
) -> tuple[Tensor, Tensor]:
    """(rewards, verdicts) of the replies, (N,) each, by the source that `settings.reward` names."""
    device = sampled.tokens.device
    found = [
        verdict(chat.decode(ids), one.answers, settings.answers) if one.answers else Verdict.UNKNOWN
        for ids, one in zip(sampled.texts(), asked, strict=True)
    ]
    total = torch.zeros(len(asked), device=device)
    if settings.reward != "answers":
        assert judge is not None, "only known answers score without a reward model"
        with judge.awake() as module:
            for at, (tokens, attention) in enumerate(parts(sampled, settings.engine.micro_batch)):
                first = at * settings.engine.micro_batch
                some = slice(first, first + len(tokens))
                if isinstance(module, EncoderReward):
                    texts = [chat.decode(ids) for ids in sampled.texts()[some]]
                    total[some] = reward.rewards_of_texts(module, [one.turns for one in asked[some]], texts, device)
                else:
                    total[some] = reward.last(module(tokens, attention), attention)
    if settings.reward != "model":
        total += torch.tensor([points(one, settings.answers) for one in found], device=device)
    return total, torch.tensor(found, device=device)


def gather(job: Job, mine: Experience) -> Experience:
    """The rows of all processes, in the order of the ranks."""
    if job.ranks.world == 1:
        return mine

    def whole(part: Tensor) -> Tensor:  # as a tensor: pickled, 64 rows of 512 numbers take 3.6 ms instead of 0.8
        found = [torch.empty_like(part) for _ in range(job.ranks.world)]
        torch.distributed.all_gather(found, part.contiguous())
        return torch.cat(found)

    return Experience(**{field.name: whole(getattr(mine, field.name)) for field in fields(mine)})


def figures_of(seen: Experience, settings: Rollouts) -> dict[str, float]:
    """What a step's replies are like. `reward` is the reward alone; KL divergences are in nats per reply.

    `kl` and `kl_k3` are estimates from the sampled tokens, `kl_exact` is of the whole distributions at each of them.
    """
    mask, lengths = seen.mask, seen.mask.sum(-1)
    per_token = {
        "kl": loss.kl_penalty(seen.log_probs, seen.reference),
        "kl_k3": loss.kl_k3(seen.log_probs, seen.reference),
        "kl_exact": seen.exact,
    }
    found = {name: float(loss.sequence_log_probs(kl, mask).mean()) for name, kl in per_token.items()}
    found |= {
        "reward": float(seen.scores.mean()),
        "reward_std": float(seen.scores.std(unbiased=False)),
        "response_length": float(lengths.mean()),
        "response_length_max": float(lengths.max()),
        "eot_fraction": float(seen.ended.mean()),
    }
    if (known := seen.verdicts != Verdict.UNKNOWN).any():
        told = seen.verdicts[known]
        shares = {one.name.lower(): float((told == one).float().mean()) for one in Verdict if one != Verdict.UNKNOWN}
        found |= {f"{name}_fraction": share for name, share in shares.items()}
    return found


def question_of(chat: Chat, asked: Asked, settings: Rollouts, *seed: int) -> Question:
    """A prompt, cut to `max_prompt_tokens`, with the seed of its reply."""
    ids = chat.prompt(asked.prompt, settings.max_prompt_tokens)
    return Question(ids, row_seed(settings.seed, *seed), asked.answers, asked.prompt)


def questions(
    prompts: Prompts, chat: Chat, step: int, settings: Rollouts, group: int = 1
) -> tuple[list[Question], list[int]]:
    """The questions of a step, `group` neighbours being one prompt, and the row that each prompt was read from."""
    rows = rows_of(step, settings.rollout_batch // group, len(prompts), settings.seed)
    asked = [prompts[row] for row in rows for _ in range(group)]
    return [question_of(chat, one, settings, step, row) for row, one in enumerate(asked)], [one.row for one in asked]


def minibatches(step: int, settings: Rollouts) -> list[list[int]]:
    """The rows of each update of a step: every inner epoch uses every row once, in its own order."""
    seed = row_seed(settings.seed, step)
    return [
        rows_of(index, settings.minibatch, settings.rollout_batch, seed) for index in range(updates_of_step(settings))
    ]


def updates_of_step(settings: Rollouts) -> int:
    """The updates of the policy in one step, if none is left out."""
    return settings.inner_epochs * (settings.rollout_batch // settings.minibatch)


@dataclass(frozen=True)
class Assessed:
    """Figures of replies to held-out prompts, and a few of the replies, to be read."""

    figures: dict[str, float]
    samples: list[dict[str, Any]]


def assess(job: Job, actors: Actors, heldout: Prompts, chat: Chat, step: int) -> Assessed:
    """Sample the policy's replies to held-out prompts; at every step they get the same random numbers."""
    settings: Rollouts = job.settings
    if not len(heldout):
        return Assessed({}, [])
    asked = [heldout[row] for row in range(len(heldout))]
    own = [question_of(chat, one, settings, row) for row, one in enumerate(asked)]
    width = max(len(one.ids) for one in own)
    actors = replace(actors, critic=None)
    seen = gather(job, collect(actors, share(job, own), width, chat, settings, anyone(job))[0])
    seen = Experience(**{field.name: getattr(seen, field.name)[: len(own)] for field in fields(seen)})
    found = figures_of(seen, settings)
    replies = Rollout(seen.tokens, seen.attention, seen.mask).texts()
    samples = [
        {
            "step": step,
            "prompt": spoken(asked[row].prompt)[:TEXT_CHARS],
            "reply": chat.decode(replies[row]).strip()[:TEXT_CHARS],
            "reward": round(float(seen.scores[row]), 4),
        }
        for row in range(min(settings.samples, len(own)))
    ]
    return Assessed({f"heldout_{name}": value for name, value in found.items() if name in MEASURED}, samples)


MEASURED = ("reward", "kl", "kl_exact", "response_length", "right_fraction", "abstained_fraction", "wrong_fraction")
"""The figures of replies to held-out prompts that are kept."""


def share(job: Job, rows: Sequence[Question]) -> list[Question]:
    """This process's share; the last row is repeated until all shares are equally long."""
    padded = [*rows, *[rows[-1]] * (-len(rows) % job.ranks.world)]
    return share_of(padded, job.ranks.rank, job.ranks.world)


def spoken(prompt: Conversation) -> str:
    """The turns of a prompt as people read them."""
    return "\n".join(f"{turn.role}: {turn.text}" for turn in prompt)


def anyone(job: Job) -> Callable[[bool], bool]:
    """Whether something is true in any process."""
    return lambda flag: job.ranks.sum(float(flag))[0] > 0


@dataclass(frozen=True)
class BestOf:
    """The most rewarded of so many replies of the SFT model to each held-out prompt, and the mean of all of them."""

    reward: float
    single: float


@torch.no_grad()
def best_of(job: Job, actors: Actors, heldout: Prompts, chat: Chat, count: int) -> BestOf | None:
    """The baseline that alignment must beat; None without held-out prompts."""
    settings: Rollouts = job.settings
    if not len(heldout):
        return None
    asked = [
        question_of(chat, heldout[row], settings, row, turn) for row in range(len(heldout)) for turn in range(count)
    ]
    size, width = settings.rollout_batch, max(len(one.ids) for one in asked)
    scores: list[float] = []
    for start in range(0, len(asked), size):
        some = asked[start : start + size]
        mine = share(job, some)
        with actors.reference.awake() as module:
            sampled = sample(module, mine, width, chat, settings, anyone(job))
        found, _ = score(actors.reward, sampled, mine, chat, settings)
        scores += [one for part in job.ranks.gather(found.tolist()) for one in part][: len(some)]
    groups = [scores[start : start + count] for start in range(0, len(scores), count)]
    return BestOf(fmean(map(max, groups)), fmean(scores))


def dump_samples(samples: Sequence[dict[str, Any]]) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in samples).encode()


def sampler_of(job: Job) -> Sampler | None:
    """vLLM's engine with the SFT model, if the recipe wants it."""
    wanted = job.settings.sampler == "vllm"
    return Sampler(job, model.fetch(job, job.manifest("sft"))) if wanted else None


def speeds(
    seen: Experience, settings: Rollouts, updates: float, sampling: float, learning: float, step: float
) -> dict[str, float]:
    """Tokens a second of sampling and of learning, as curves.

    updates: those that were made. The others are seconds, of the two and of the whole step.
    """
    epochs = settings.inner_epochs * updates / updates_of_step(settings)
    return {
        "sampled_tokens_per_s": float(seen.mask.sum()) / sampling,
        "learned_tokens_per_s": float(seen.attention.sum()) * epochs / learning,
        "sampling_share": sampling / step,
    }


def ends(points: Sequence[Point], result: type[Result]) -> dict[str, float]:
    """The first and the last value of every curve that a result has, as `<name>_first` and `<name>_last`."""
    return {
        f"{point.name}_{end}": point.value
        for end, order in (("first", reversed(points)), ("last", points))
        for point in order
        if f"{point.name}_{end}" in result.model_fields
    }
