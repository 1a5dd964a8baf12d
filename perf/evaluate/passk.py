"""Is pass@k the formula: `python -m perf.evaluate --only passk`.

On a grid of n, c and k our figure is compared with 1 - C(n - c, k) / C(n, k) in exact numbers.
"""

import math
from fractions import Fraction
from pathlib import Path

from evals.passk import pass_at_k
from perf.bars import Bars

SIZES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 1000)
KS = (1, 2, 5, 10, 25, 100, 1000)
ROUNDING = 1e-12  # doubles cannot hold thirds; less than this is the same number


def run(bars: Bars, data: Path) -> None:
    """`data` is not needed."""
    worst, count = 0.0, 0
    for n in SIZES:
        for c in sorted({*range(min(n, 30) + 1), n // 2, n - 1, n} - {-1}):
            for k in (k for k in KS if k <= n):
                exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
                worst = max(worst, abs(float(exact) - pass_at_k(n, c, k)))
                count += 1
    print(f"{count:,} cases, {worst:.2g} off at most")
    bars.exactly("pass_at_k_off", worst if worst > ROUNDING else 0, 0)
