"""A worker that dies in the middle of a shuffle changes nothing. `make bench-dedup` kills one in every step; here one for each stage."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_same_result(data_dir: Path, tmp_path: Path) -> None:
    """Two executors on real licence texts; one is killed when it has sent some of what it must send."""
    cases = ["fuzzy_step_2", "substring_step_4"]
    archive = data_dir / "dedup" / "spdx_license_texts_819.tar.xz"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", tmp_path, archive, *cases],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("BAR ")]
    assert said == [f"BAR killed_{case}_same_result 1 1 ok" for case in cases], done.stderr[-3000:]
    assert done.returncode == 0
