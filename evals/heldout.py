"""How well a model predicts text that it was not trained on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class HeldOut:
    """Sums over held-out text: nll in nats, predicted tokens, and the bytes that these tokens spell."""

    nll: float
    tokens: float
    bytes: float

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nll / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(mean nll)."""
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float | None:
        """nll / ln 2 / bytes: comparable across tokenizers, unlike perplexity. None if no byte was predicted."""
        return self.nll / math.log(2) / self.bytes if self.bytes else None


def together(found: Mapping[str, HeldOut]) -> HeldOut | None:
    """The sums over all sources; None if there are none."""
    every = [(one.nll, one.tokens, one.bytes) for one in found.values()]
    return HeldOut(*map(sum, zip(*every, strict=True))) if every else None


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token; infinite if that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def totals(losses: Sequence[float], sizes: Sequence[tuple[int, int]]) -> HeldOut:
    """The sums over all sequences, from each one's loss in nats per token and its (predicted tokens, bytes)."""
    nats = sum(loss * tokens for loss, (tokens, _) in zip(losses, sizes, strict=True))
    return HeldOut(nats, sum(tokens for tokens, _ in sizes), sum(size for _, size in sizes))
