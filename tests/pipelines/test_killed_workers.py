"""A worker that dies in the middle of a shuffle changes nothing. `make bench-dedup` kills one in every step; here one for each stage."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

TEXTS, MOST_BYTES = 24, 3000


@pytest.mark.slow
def test_the_same_result(data_dir: Path, tmp_path: Path) -> None:
    """Two executors on a few real licence texts; one is killed when it has sent some of what it must send, and somebody does it again."""
    cases = ["fuzzy_step_2", "substring_step_4"]
    archive = tmp_path / "short.tar"
    with (
        tarfile.open(data_dir / "dedup" / "spdx_license_texts_819.tar.xz") as source,
        tarfile.open(archive, "w") as few,
    ):
        short = [file for file in source if file.isfile() and file.size < MOST_BYTES][:TEXTS]
        for file in short:
            few.addfile(file, source.extractfile(file))
    done = subprocess.run(
        [sys.executable, "-m", "perf.kills", tmp_path, archive, *cases],
        cwd=Path(__file__).parents[2],
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},  # executors find it by themselves
        capture_output=True,
        text=True,
        timeout=900,  # for a machine that does ten other things; alone it takes less than a minute
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("BAR ")]
    again, same = said[::2], said[1::2]
    assert same == [f"BAR killed_{case}_same_result 1 1 ok" for case in cases], done.stderr[-3000:]
    assert [re.sub(r"_tries [2-9] 2 ok$", "", line) for line in again] == [f"BAR killed_{case}" for case in cases]
    assert done.returncode == 0
