"""A bench's parts run alone: one that hangs fails by itself, and none pays for what another left running."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perf.parts import BENCHES, LIMIT_S
from perf.pretrain.__main__ import LIMIT_S as longest

ROOT = Path(__file__).parents[2]
DRIVER = """
import sys
from perf.parts import run_parts
commands = {{name: [sys.executable, "-c", code] for name, code in {parts!r}.items()}}
bars = run_parts(commands, dict.fromkeys(commands, {need}), {limit})
print("short:", *bars.short)
sys.exit(bars.code)
"""


def run(parts: dict[str, str], need: float, limit: float) -> tuple[int, str]:
    """(exit code, what was said) of a bench with parts of this Python code."""
    done = subprocess.run(
        [sys.executable, "-u", "-c", DRIVER.format(parts=parts, need=need, limit=limit)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_part_that_hangs_fails_alone() -> None:
    began = time.monotonic()
    code, said = run({"first": "pass", "hangs": "import time; time.sleep(900)", "last": "print('went on')"}, 8, 22)
    assert code == 1
    assert "went on" in said
    assert re.search(r"^BAR part_hangs_seconds \S+ \S+ short$", said, re.MULTILINE)
    assert re.search(r"^BAR part_last_seconds \S+ \S+ ok$", said, re.MULTILINE)
    assert said.endswith("part hangs: killed, it hung\n== last" + said.partition("== last")[2])
    assert said.splitlines()[-1] == "short: part_hangs_seconds hangs"
    assert 8 <= time.monotonic() - began < 120


def test_a_part_that_fails_is_told_and_the_others_run() -> None:
    code, said = run({"fails": "raise SystemExit(3)", "last": "print('went on')"}, 20, 60)
    assert (code, "part fails: ended with 3" in said, "went on" in said) == (1, True, True)


def test_what_a_part_leaves_behind_is_ended_and_charged_to_no_other(tmp_path: Path) -> None:
    busy = "while True: pass"
    leaves = (
        "import subprocess, sys, time; "
        f"left = subprocess.Popen([sys.executable, '-c', {busy!r}], start_new_session=True); "
        f"open({str(tmp_path / 'left')!r}, 'w').write(str(left.pid)); time.sleep(3)"
    )
    measures = (
        "import sys; from perf.measure import cost; print('charged', cost([sys.executable, '-c', 'pass']).processor)"
    )
    code, said = run({"leaves": leaves, "measures": measures}, 30, 90)
    assert code == 0
    assert not Path(f"/proc/{(tmp_path / 'left').read_text()}").exists()
    charged = re.search(r"^charged (\S+)$", said, re.MULTILINE)
    assert charged is not None
    assert float(charged[1]) < 1


def test_the_readme_says_how_long_a_target_may_take() -> None:
    said = f"within {LIMIT_S / 60:.0f} minutes, but for `make bench-pretrain`, which ends within {longest / 60:.0f} minutes"
    assert said in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("bench", BENCHES)
def test_every_bench_ends_in_time(bench: str) -> None:
    assert sum(BENCHES[bench].values()) <= LIMIT_S == 40 * 60
