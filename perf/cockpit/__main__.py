"""The bench of the cockpit: `python -m perf.cockpit [--only NAME ...] [--folder DIR]`.

Makes the synthetic store (or finds the one that was made before in the folder), enters its runs into a standalone Airflow,
and measures the pages there. Parts: load, drawn, rights, injections, clicks.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from demo.server import is_free
from perf.bars import Bars
from perf.cockpit import measured, rated
from perf.cockpit.served import Served, serve
from perf.cockpit.store import Made, Size, make

PARTS: dict[str, Callable[[Bars, Served, Made], None]] = {
    "load": measured.load,
    "drawn": measured.drawn,
    "rights": measured.rights,
    "injections": measured.injections,
    "clicks": measured.clicks,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.cockpit", description=__doc__)
    parser.add_argument("--only", metavar="NAME", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=Path, default=Path(".bench/cockpit"), help="has the store; it needs 8 GB")
    parser.add_argument("--documents", type=int, default=Size.documents)
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    made = make(folder / "store", Size(documents=given.documents))
    rated.open_rounds(made)
    print(f"store: {made.size}, {time.monotonic() - began:.0f} s", flush=True)
    bars = Bars()
    shutil.rmtree(folder / "airflow", ignore_errors=True)
    (folder / "airflow").mkdir()
    with serve(folder / "airflow", made, next(port for port in range(19700, 19800) if is_free(port))) as up:
        for name in given.only:
            began = time.monotonic()
            PARTS[name](bars, up, made)
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"\nshort: {', '.join(bars.short)}" if bars.short else "\nevery bar was reached")
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
