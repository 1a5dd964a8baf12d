"""The peak memory of a process and of all that it has started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.memory import peak_bytes


def process(proc: Path, pid: int, parent: int, peak: str) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "status").write_text(f"Name:\tx: y\nPPid:\t{parent}\n{peak}VmRSS:\t   1 kB\n")


def test_the_peaks_of_all_descendants_are_added(tmp_path):
    process(tmp_path, 5, 1, "VmHWM:\t  100 kB\n")
    process(tmp_path, 6, 5, "VmHWM:\t   20 kB\n")
    process(tmp_path, 7, 6, "VmHWM:\t    3 kB\n")
    process(tmp_path, 8, 1, "VmHWM:\t 9000 kB\n")
    process(tmp_path, 9, 5, "")  # one of the kernel, or ended and not yet waited for
    (tmp_path / "10").mkdir()  # ended while the others were read
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB")
    assert peak_bytes(5, tmp_path) == 123 * 1024
    assert peak_bytes(7, tmp_path) == 3 * 1024


def test_where_nothing_tells_it_is_unknown(tmp_path):
    assert peak_bytes(5, tmp_path / "none") is None
    assert peak_bytes(5, tmp_path) is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone tells")
def test_a_real_child_counts():
    alone = peak_bytes()
    hog = "import sys; held = b'x' * 200_000_000; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hog], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        both = peak_bytes(os.getpid())
        child.communicate()
    assert alone is not None
    assert both is not None
    assert 200_000_000 < both - alone < 260_000_000
