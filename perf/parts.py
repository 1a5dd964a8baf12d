"""A bench in parts, each in a process of its own with a time limit: `python -m perf.parts extract --data DIR`.

What a part's processes use is charged to that part alone: none outlives it. A part that hangs is killed and fails by itself; the others run,
and the whole ends within LIMIT_S. `BENCHES` says how long each part needs. What the fast ones leave is there for one that needs more.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from perf.bars import Bars
from perf.measure import adopt, family

LIMIT_S = 2400.0

# Seconds that each part has for certain. Together they stay below LIMIT_S.
BENCHES: dict[str, dict[str, float]] = {
    "stages": {"stages": 2400},
    "extract": {
        "extract": 420,
        "spark_overhead": 420,
        "extraction_quality": 240,
        "prefilter": 120,
        "language": 180,
        "urlfilter": 120,
        "reading": 300,
        "scores": 180,
        "decontamination": 240,
        "written": 150,
    },
    "dedup": {"sign": 90, "recall": 240, "kill": 540, "peer": 400, "million": 700, "substring": 400},
    "fuzz": {"fuzz": 1000, "fuzz_guided": 1000},
    "hostile": {"pages": 900, "boundary": 120, "lossless": 300},
}


def run_parts(commands: Mapping[str, Sequence[str]], needs: Mapping[str, float], limit: float = LIMIT_S) -> Bars:
    """Run the parts one after the other. A part may take what `limit` leaves beside the needs of those behind it, in seconds."""
    adopt()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started ends as well
    bars, end = Bars(), time.monotonic() + limit
    waiting = list(commands)
    while waiting:
        name = waiting.pop(0)
        given = end - time.monotonic() - sum(needs[other] for other in waiting)
        print(f"== {name}, {given:.0f} s at most", flush=True)
        start = time.monotonic()
        code = run_part(commands[name], given)
        bars.at_most(f"part_{name}_seconds", time.monotonic() - start, given)
        if code:
            bars.short.append(name)
            print(f"part {name}: {'killed, it hung' if code < 0 else f'ended with {code}'}", flush=True)
    return bars


def run_part(command: Sequence[str], seconds: float) -> int:
    """The command's exit code, negative where it was killed because its time was over. Nothing that it started is left."""
    child = subprocess.Popen(command)
    try:
        return child.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL
    finally:
        end_family()


def end_family() -> None:
    """Kill and await every process that this one, or one of those, has started. Orphans are ours, see `adopt`."""
    while left := family(os.getpid()).keys() - {os.getpid()}:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.parts", description=__doc__)
    parser.add_argument("bench", choices=[name for name in BENCHES if name != "dedup"])
    parser.add_argument("--data", type=Path, help="has the test data")
    given = parser.parse_args()
    modules = {name: "perf" if name == "stages" else f"perf.{name}" for name in BENCHES[given.bench]}
    data = [] if given.data is None else ["--data", str(given.data)]
    commands = {name: [sys.executable, "-m", module, *data] for name, module in modules.items()}
    bars = run_parts(commands, BENCHES[given.bench])
    print(f"\nshort or failed: {', '.join(bars.short)}" if bars.short else "\nevery part reached its bars")
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
