"""Every model of the run on the same held-out text and the same held-out prompts.

Perplexity and bits per byte of the pretrained, the instruction-tuned and the PPO model; how often the reward model prefers PPO's
reply to the SFT model's; a few chats to read. A figure that got worse than in the stage before, by more than chance explains, is
flagged.
"""

import json
import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

CONFIDENCE = 0.95


def perplexity(nats: Sequence[float], tokens: int) -> float:
    """exp of the mean negative log-likelihood a token. `nats` are totals, one a sequence."""
    return math.exp(sum(nats) / tokens)


def bits_per_byte(nats: Sequence[float], size: int) -> float:
    """Negative log-likelihood in bits over the UTF-8 bytes of the text: comparable between tokenizers."""
    return sum(nats) / math.log(2) / size


def got_worse(before: Sequence[float], after: Sequence[float], confidence: float = CONFIDENCE) -> bool:
    """Whether the loss rose beyond noise: the lower end of the paired mean difference's normal interval is above 0.

    One loss a sequence, the same sequences in both. With fewer than two sequences nothing can be said: False.
    """
    differences = [late - early for early, late in zip(before, after, strict=True)]
    if len(differences) < 2:
        return False
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return fmean(differences) > z * stdev(differences) / math.sqrt(len(differences))


def wins(before: Sequence[float], after: Sequence[float]) -> float:
    """How many of the second rewards are higher than the first of the same prompt; a tie counts half."""
    return sum((late > early) + 0.5 * (late == early) for early, late in zip(before, after, strict=True))
