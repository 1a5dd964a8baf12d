"""Every bench of this folder: `python -m perf.feedback [--only NAME]`."""

import argparse
import sys
import time
from collections.abc import Callable

from perf.bars import Bars
from perf.feedback import kept, known, rounds

BENCHES: dict[str, Callable[[Bars], None]] = {"known": known.run, "rounds": rounds.run, "kept": kept.run}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.feedback", description=__doc__)
    parser.add_argument("--only", metavar="NAME", nargs="+", choices=BENCHES, default=list(BENCHES))
    bars = Bars()
    for name in parser.parse_args().only:
        began = time.monotonic()
        BENCHES[name](bars)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"\nshort: {', '.join(bars.short)}" if bars.short else "\nevery bar was reached")
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
