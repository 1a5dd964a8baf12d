"""The mathematics of training, as pure functions of tensors. Each docstring names the formula's source.

Shapes: B rows, T positions, V vocabulary. A mask is 1 where a position counts. Functions on tokens return one value per
token. `masked_mean` turns these values into a loss, so that the divisor can be the token count of the whole batch
instead of that of one process's part.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from contract.accelerators import LOGITS_AT_ONCE

EPSILON = 1e-8
KL_ERROR_CLIP = 0.2  # Ziegler et al. 2019, section 2.2
KL_GAIN = 0.1  # K_beta, ibid.
IGNORED = -100  # a target without a loss


def log_probs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target) at each position, in float32: logits (B, T, V) predict targets (B, T); returns (B, T)."""
    scaled = logits.float() / temperature
    return scaled.gather(-1, targets[..., None]).squeeze(-1) - scaled.logsumexp(-1)


@torch.no_grad()
def head_nll(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """-log p(target) at each position, for measuring: it has no gradient, and few of the logits are in memory at once.

    hidden (B, T, d), the head's weight (V, d), targets (B, T) -> (B, T) in float32.
    """
    rows, ids = hidden.flatten(0, 1), targets.flatten()
    parts = [_log_softmax(rows[some] @ weight.T, ids[some])[0] for some in _chunks(len(ids), weight)]
    return torch.cat(parts).view(targets.shape)


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor, mask: Tensor, compiled: bool = False) -> Tensor:
    """The sum of mask x -log p(target) in float32, with its gradient, a chunk of logits in memory at a time.

    Shapes as in `head_nll`; mask (B, T). The logits of a whole micro-batch would take several times the memory of the
    rest of a small model. The gradients are made in the forward pass, where the logits are at hand: so nothing is
    computed twice (Hsu et al. 2024, Liger Kernel, section 3.2). That of the weight is summed in float32.

    compiled: what happens to the logits between two products is one program, which reads them from memory less often.
    On a GPU, Liger's own kernel is used if it is installed.
    """
    total: Tensor
    if hidden.is_cuda and _has_liger():
        total = _of_liger(hidden, weight, targets, mask)
    else:
        total = _HeadLoss.apply(hidden, weight, targets, mask, compiled)  # type: ignore[no-untyped-call]
    return total


@cache
def _has_liger() -> bool:
    """Whether Liger is installed. Cached, because a search for a missing package reads every directory of the path."""
    return find_spec("liger_kernel") is not None


def _of_liger(hidden: Tensor, weight: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """The same by Liger's Triton kernel, which a GPU without torch.compile needs most; masks must be 0 or 1."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy  # type: ignore[import-not-found]

    learned = targets.masked_fill(mask == 0, IGNORED).flatten()
    total: Tensor = liger_fused_linear_cross_entropy(
        hidden.flatten(0, 1), weight, learned, ignore_index=IGNORED, reduction="sum", accum_dtype=torch.float32
    )
    return total


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, mask: Tensor, compiled: bool) -> Tensor:
        rows, ids, counts = hidden.flatten(0, 1), targets.flatten(), mask.flatten().to(hidden.dtype)
        to_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), device=hidden.device)
        parts = _compiled_part() if compiled else _part
        for some in _chunks(len(ids), weight):
            nll, gradient = parts(rows[some] @ weight.T, ids[some])
            total += (nll * counts[some]).sum()
            # Rows are counted rather than their gradients to the logits, which are as wide as the vocabulary.
            if to_rows is not None:
                torch.mm(gradient, weight, out=to_rows[some])
                to_rows[some] *= counts[some, None]
            if to_weight is not None:
                _add_product(to_weight, gradient, rows[some] * counts[some, None])
            del gradient  # before the next chunk
        ctx.gradients, ctx.shape, ctx.dtype = (to_rows, to_weight), hidden.shape, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        (to_rows, to_weight), ctx.gradients = ctx.gradients, None
        return (
            None if to_rows is None else to_rows.mul_(scale).view(ctx.shape),
            None if to_weight is None else to_weight.mul_(scale).to(ctx.dtype),
            None,
            None,
            None,
        )


def _chunks(tokens: int, weight: Tensor) -> Iterator[slice]:
    """Tokens at a time, as many as LOGITS_AT_ONCE allows."""
    size = max(LOGITS_AT_ONCE[weight.device.type] // len(weight), 1)
    return (slice(start, start + size) for start in range(0, tokens, size))


def _log_softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(-log p(target), all log p) in float32: logits (N, V), targets (N,) -> (N,), (N, V)."""
    log_p = logits.float().log_softmax(-1)
    return -log_p.gather(1, targets[:, None]).squeeze(1), log_p


def _part(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """-log p(target), and its gradient to the logits: p - 1 at the target.

    logits (N, V), targets (N,) -> (N,) in float32, and (N, V) in the precision of the logits.
    """
    nll, log_p = _log_softmax(logits, targets)
    gradient = log_p.exp_()
    gradient.scatter_add_(1, targets[:, None], torch.full_like(gradient[:, :1], -1.0))
    return nll, gradient.to(logits.dtype)


@cache
def _compiled_part() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return torch.compile(_part, dynamic=False)


def _add_product(total: Tensor, gradient: Tensor, rows: Tensor) -> None:
    """Add gradient^T x rows to a float32 sum: (V, d) += (N, V)^T (N, d)."""
    if gradient.dtype == torch.float32:
        total.addmm_(gradient.T, rows)
    else:
        total += gradient.T @ rows


def sequence_log_probs(token_log_probs: Tensor, mask: Tensor) -> Tensor:
    """log p of each whole response, the sum over its tokens: (B, T), (B, T) -> (B,)."""
    return (token_log_probs * mask).sum(-1)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of the next token's distribution in nats: (B, T, V) -> (B, T)."""
    log_p = (logits.float() / temperature).log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def masked_mean(values: Tensor, mask: Tensor, count: Tensor | float | None = None) -> Tensor:
    """Sum of the values where the mask is 1, divided by `count` (default: the number of such positions)."""
    total = (values * mask).sum()
    return total / (mask.sum().clamp(min=1) if count is None else count)


def kl_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of the next token's distribution, in nats: logits (B, T, V), (B, T, V) -> (B, T)."""
    ours, theirs = ((logits.float() / temperature).log_softmax(-1) for logits in (student, teacher))
    return (theirs.exp() * (theirs - ours)).sum(-1)


def distilled(nll: Tensor, kl: Tensor, weight: float, temperature: float) -> Tensor:
    """(1 - weight) x nll + weight x temperature^2 x KL of each token: (B, T), (B, T) -> (B, T).

    The square keeps the gradient's size, which the softened distributions make smaller (Hinton et al. 2015, section 2).
    """
    return (1 - weight) * nll + weight * temperature**2 * kl


def pairwise_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid(r_w - r_l) of each pair: (B,), (B,) -> (B,).

    Stiennon et al. 2020, section 3.4; InstructGPT eq. 1.
    """
    return -functional.logsigmoid(chosen.float() - rejected.float())


def kl_penalty(policy: Tensor, reference: Tensor) -> Tensor:
    """log(pi_RL(token) / pi_SFT(token)) of each sampled token (InstructGPT eq. 2).

    Its expectation under the policy is the KL divergence.
    """
    return policy - reference


def kl_k3(policy: Tensor, reference: Tensor) -> Tensor:
    """(r - 1) - log r of each sampled token, r = pi_SFT(token) / pi_RL(token), which is never negative.

    Under the policy its expectation is the KL divergence, as that of `kl_penalty`, and its variance is smaller where
    the two are close (Schulman 2020, "Approximating KL divergence", estimator k3).
    """
    log_ratio: Tensor = reference - policy
    return torch.expm1(log_ratio) - log_ratio


def shape_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Reward of each token: -beta * KL, plus the score on the response's last token (Ziegler et al. 2019, eq. 2).

    scores (B,), kl and mask (B, T) -> (B, T). The mask is 1 on the response; a row without a response gets only zeros.
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (positions * mask).argmax(-1, keepdim=True)
    rewards = -kl_coef * kl
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype)) * mask


@dataclass(frozen=True)
class Moments:
    """How many numbers there were, their mean, and the sum of their squared distances from it."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def seen(self, values: Tensor) -> "Moments":
        """The moments with more numbers (Chan et al. 1979, eq. 2.1), in float64."""
        more = values.double().flatten()
        if not len(more):
            return self
        count, distance = self.count + len(more), float(more.mean()) - self.mean
        within = float(((more - more.mean()) ** 2).sum())
        return Moments(
            count,
            self.mean + distance * len(more) / count,
            self.squares + within + distance**2 * self.count * len(more) / count,
        )

    def scaled(self, values: Tensor, clip: float | None = None) -> Tensor:
        """Numbers less the mean, divided by the standard deviation, and clipped to +- `clip`."""
        spread = (self.squares / max(self.count, 1) + EPSILON) ** 0.5
        found: Tensor = (values - self.mean) / spread
        return found if clip is None else found.clamp(-clip, clip)


def group_advantages(scores: Tensor, size: int, by_deviation: bool = True) -> Tensor:
    """Each reply's score less the mean of its group's, divided by the group's standard deviation: (B,) -> (B,).

    Shao et al. 2024 (DeepSeekMath), section 4.1.2. `size` neighbouring rows answer one prompt. A group of equal scores
    says nothing, and has zeros. Not `by_deviation`: only the mean is taken away, so that prompts that are nearly always
    or never answered well get no more weight (Liu et al. 2025, "Understanding R1-Zero-like training", section 3).
    """
    groups = scores.double().view(-1, size)
    centred = groups - groups.mean(1, keepdim=True)
    if by_deviation:
        centred = centred / (groups.var(1, unbiased=False, keepdim=True) + EPSILON).sqrt()
    return centred.flatten().to(scores.dtype)


def dpo_loss(
    policy: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor], beta: float, smoothing: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """(-log sigmoid(r_w - r_l), r_w, r_l) of each pair, r = beta log(pi(y) / pi_SFT(y)): (B,) each.

    Rafailov et al. 2023, eq. 7. `policy` and `reference` are the log-probabilities of the whole chosen and rejected
    replies. `smoothing`: the probability that a pair's ranking is the wrong way round (Mitchell 2023, cDPO).
    """
    chosen, rejected = (beta * (ours.float() - theirs.float()) for ours, theirs in zip(policy, reference, strict=True))
    margin = chosen - rejected
    found = -(1 - smoothing) * functional.logsigmoid(margin) - smoothing * functional.logsigmoid(-margin)
    return found, chosen, rejected


def best_of_kl(n: int) -> float:
    """An upper bound of KL(best of n || the model that is sampled), in nats per reply: log n - (n - 1) / n.

    Stiennon et al. 2020, appendix G.3; Beirami et al. 2024 show that it is a bound.
    """
    return math.log(n) - (n - 1) / n


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns by generalised advantage estimation (Schulman et al. 2016, eq. 16); all (B, T).

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}, over the positions with mask 1, which
    must be contiguous; the value after the last of them is 0. Returns are A_t + V_t.
    """
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(following)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        next_value = values[:, t] * mask[:, t]
        advantages[:, t] = following
    return advantages, (advantages + values) * mask


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Masked values scaled to variance 1 and, with `shift_mean`, to mean 0; 0 elsewhere."""
    kept = values[mask.bool()].double()
    if not len(kept):
        return torch.zeros_like(values)
    mean, variance = kept.mean(), kept.var(unbiased=False)
    whitened = (values.double() - mean) * torch.rsqrt(variance + EPSILON)
    return ((whitened if shift_mean else whitened + mean) * mask).to(values.dtype)


def policy_loss(new: Tensor, old: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """-min(ratio A, clip(ratio, 1 - clip, 1 + clip) A), ratio = p_new / p_old. All (B, T).

    Schulman et al. 2017, eq. 7.
    """
    ratio = (new - old).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped(new: Tensor, old: Tensor, clip: float) -> Tensor:
    """1.0 where the ratio p_new / p_old is outside [1 - clip, 1 + clip], for the clip fraction."""
    return (((new - old).exp() - 1).abs() > clip).float()


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2) / 2. All (B, T).

    This is the value clipping of PPO's reference code.
    """
    near = torch.minimum(torch.maximum(values, old - clip), old + clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)


def adapt_kl_coef(coef: float, kl: float, target: float) -> float:
    """The next KL coefficient: beta (1 + 0.1 clip(KL / target - 1, -0.2, 0.2)) (Ziegler et al. 2019, section 2.2).

    `kl` and `target` are in nats per response. A KL that is NaN says nothing, and leaves the coefficient as it is.
    """
    if math.isnan(kl):
        return coef
    error = min(max(kl / target - 1, -KL_ERROR_CLIP), KL_ERROR_CLIP)
    return coef * (1 + KL_GAIN * error)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over positions with mask 1; 0 if the returns do not vary."""
    kept = mask.bool()
    spread = returns[kept].double().var(unbiased=False)
    error = (returns - values)[kept].double().var(unbiased=False)
    return 0.0 if spread < EPSILON else float(1 - error / spread)
