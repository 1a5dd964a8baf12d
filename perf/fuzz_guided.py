"""The fuzzer of `perf.fuzz` led by coverage: `python -m perf.fuzz_guided --seconds 600`.

atheris (libFuzzer for Python) keeps the files that reach a new branch of the reader and goes on from them, with its own mutations and with
ours, which keep gzip members intact around what they change. It is installed under `.bench`, beside the project's environment.
"""

import argparse
import importlib
import os
import random
import re
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

from perf.bars import Bars

ATHERIS = "atheris==3.0.0"
EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
MAX_BYTES = 1 << 14


def install(where: Path) -> Path:
    """atheris in a folder of its own."""
    folder = where / "atheris"
    if not (folder / "atheris").is_dir():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", folder, ATHERIS], check=True)
    return folder.resolve()


def child(folder: Path, seconds: float, seed: int) -> None:
    """Fuzz in this process, which libFuzzer ends."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(
        include=[
            "pipelines.warc.pages",
            "pipelines.warc.recordsearch",
            "pipelines.warc.recordstream",
            "pipelines.warc.httpbody",
        ]
    ):
        from perf import fuzz

    def mutated(data: bytes, limit: int, number: int) -> bytes:
        chance = random.Random(number)
        try:
            if chance.random() < 0.5:
                return fuzz.mutate(data, chance)[:limit]
        except (OSError, EOFError, zlib.error):  # a gzip file that does not inflate any more
            pass
        return bytes(atheris.Mutate(data, limit))

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(fuzz.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    options = [
        f"-max_total_time={seconds:.0f}", f"-seed={seed}", f"-artifact_prefix={folder}/", f"-max_len={MAX_BYTES}",
        "-print_final_stats=1", "-timeout=20", "-rss_limit_mb=4096",
    ]  # fmt: skip
    atheris.Setup(
        [sys.argv[0], *options, str(corpus)],
        lambda data: fuzz.check(data, folder / "input.warc"),
        custom_mutator=mutated,
    )
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.fuzz_guided", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--where", type=Path, default=Path(".bench"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.seconds, given.seed)
    folder = Path(tempfile.mkdtemp(prefix="gristmill-fuzz-"))  # stays: the file that broke something is in it
    print(f"files in {folder}")
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(install(given.where))])
    command = [
        sys.executable,
        "-m",
        "perf.fuzz_guided",
        "--child",
        folder,
        "--seconds",
        given.seconds,
        "--seed",
        given.seed,
    ]
    done = subprocess.run(
        list(map(str, command)), env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    executed = EXECUTED.search(done.stderr)
    print("\n".join(done.stderr.splitlines()[-12:]))
    broken = [file for file in folder.iterdir() if file.name.startswith(("crash-", "timeout-", "oom-"))]
    bars = Bars()
    bars.at_least("reader_guided_fuzz_files", int(executed[1]) if executed else 0, 50 * given.seconds)
    bars.at_most("reader_guided_fuzz_failures", len(broken) or (1 if done.returncode else 0), 0)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
