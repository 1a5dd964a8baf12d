"""What several outputs to one question are worth: pass@k, the majority's answer, the best by a score of its own."""

import math
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice

MOST_COMPARED = 20


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that of k outputs, drawn without replacement from n of which c are right, one is right or more.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, eq. 1), unbiased for every k <= n, as a product of which no factor
    overflows. Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} needs 1 <= k <= n and 0 <= c <= n, not n = {n}, c = {c}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / at for at in range(n - c + 1, n + 1))


def majority(answers: Sequence[str | None], same: Callable[[str, str], bool] = operator.eq) -> str | None:
    """The answer that most outputs give (Wang et al. 2023, self-consistency); the earliest of several, or None.

    same: whether two answers that are not spelled alike are one; their votes count for the most frequent spelling. Each
    spelling is compared with the MOST_COMPARED most frequent ones, so that a thousand of them cost no minutes.
    """
    votes: dict[str, int] = {}
    for answer, count in Counter(one for one in answers if one is not None).most_common():
        known = next((one for one in islice(votes, MOST_COMPARED) if same(answer, one)), answer)
        votes[known] = votes.get(known, 0) + count
    return max(votes, key=votes.__getitem__, default=None)


def best_of(rewards: Sequence[float]) -> int:
    """The place of the output with the highest reward, the first of several; NaN is below every number.

    Raises ValueError without outputs.
    """
    if not rewards:
        raise ValueError("of no outputs none is the best")
    return max(range(len(rewards)), key=lambda at: -math.inf if math.isnan(rewards[at]) else rewards[at])
