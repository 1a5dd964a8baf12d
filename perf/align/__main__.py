"""Every bench of this folder: `python -m perf.align [--only NAME] [--data DIR]`.

A bench is a module with a function `run(bars: Bars, data: Path) -> None`, where `data` is the folder of the test data.
Each runs in a process of its own, so that the memory that one takes is not charged to another.
"""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

from perf import align
from perf.bars import Bars
from perf.parts import run_parts

LIMIT_S = 3000.0
NEEDS_S = {"resume": 900.0}
"""Seconds that each bench has for certain; the others EACH_NEEDS_S. Together they stay below LIMIT_S."""
EACH_NEEDS_S = 300.0


def names() -> list[str]:
    """The modules of this folder that have a function `run`."""
    found = [module.name for module in pkgutil.iter_modules(align.__path__) if not module.name.startswith("_")]
    return [name for name in sorted(found) if hasattr(importlib.import_module(f"perf.align.{name}"), "run")]


def needs() -> dict[str, float]:
    """The seconds that each bench has for certain."""
    return {name: NEEDS_S.get(name, EACH_NEEDS_S) for name in names()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.align", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="run this bench alone, in this process")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="has the test data")
    given = parser.parse_args()
    if given.only:
        bars = Bars()
        importlib.import_module(f"perf.align.{given.only}").run(bars, given.data)
        return bars.code
    alone = {name: [sys.executable, "-m", "perf.align", "--only", name, "--data", str(given.data)] for name in names()}
    bars = run_parts(alone, needs(), LIMIT_S)
    print(f"\nshort or failed: {', '.join(bars.short)}" if bars.short else "\nevery bench reached its bars")
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
