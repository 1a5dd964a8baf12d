"""The supervisor with real processes: who is signalled, who is left, and what the next attempt gets to see."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gristmill_airflow import supervisor

SCRIPT = supervisor.__file__
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
# Like a distributed launcher: two ranks in sessions of their own; it kills them at once when it is signalled itself.
LAUNCHER = """
import os, signal, subprocess, sys
rank = '''
import os, signal, sys, time
def say(what):  # in one write: two ranks share the pipe
    os.write(1, f'rank {os.environ["RANK"]} {what}{chr(10)}'.encode())
def stop(*_):
    time.sleep(0.5)
    say('saved')
    os._exit(75)
signal.signal(signal.SIGTERM, stop)
say('up')
time.sleep(60)
'''
ranks = [subprocess.Popen([sys.executable, '-c', rank], env={**os.environ, 'RANK': str(n)}, start_new_session=True) for n in range(2)]
def kill(*_):
    [one.kill() for one in ranks]
    os._exit(1)
signal.signal(signal.SIGTERM, kill)
codes = [one.wait() for one in ranks]
sys.exit(max(codes))
"""


def start(lock: Path, code: str, grace_s: float = 10, parent: int | None = None) -> subprocess.Popen:
    options = ["--lock", str(lock), "--grace", str(grace_s), "--parent", str(parent or os.getpid())]
    return subprocess.Popen(
        [sys.executable, SCRIPT, *options, "--", sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen, *wanted: str) -> None:
    missing = set(wanted)
    while missing:
        line = process.stdout.readline()
        assert line, f"ended before it said {missing}"
        missing.discard(line.strip())


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "task.lock"
    yield path
    supervisor.sweep(path)


@pytest.mark.parametrize(
    ("code", "expected"), [("pass", 0), ("raise SystemExit(78)", 78), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_commands_exit_code_comes_through(lock, code, expected):
    process = start(lock, f"print('hello'); {code}" if expected != 137 else code)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == expected
    assert output == ("hello\n" if expected != 137 else "")


def test_only_the_ranks_are_asked_to_stop_and_their_code_comes_through(lock):
    process = start(lock, LAUNCHER)
    read_until(process, "rank 0 up", "rank 1 up")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert "asking 2 process(es) to stop" in output
    assert {"rank 0 saved", "rank 1 saved"} <= set(output.splitlines())
    assert process.returncode == 75
    assert supervisor.marked(lock) == {}


def test_what_does_not_stop_within_the_grace_period_is_killed(lock):
    process = start(lock, STUBBORN, grace_s=0.5)
    read_until(process, "up")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 137
    assert 0.4 < time.monotonic() - began < 10
    assert supervisor.marked(lock) == {}


def test_what_a_finished_command_leaves_behind_is_killed(lock):
    leaves = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True)"
    process = start(lock, leaves)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert supervisor.marked(lock) == {}


def test_a_second_attempt_waits_for_the_first(lock):
    first = start(lock, "import time; print('up', flush=True); time.sleep(1.5)")
    read_until(first, "up")
    second = start(lock, "print('mine')")
    assert "still stopping" in second.stdout.readline()
    assert first.poll() is None
    read_until(second, "mine")
    assert first.wait(timeout=10) == 0
    assert second.wait(timeout=10) == 0


def test_a_waiting_attempt_can_be_stopped(lock):
    first = start(lock, STUBBORN)
    read_until(first, "up")
    second = start(lock, "print('never')")
    assert "still stopping" in second.stdout.readline()
    second.send_signal(signal.SIGTERM)
    output, _ = second.communicate(timeout=10)
    assert (second.returncode, output) == (128 + signal.SIGTERM, "")
    first.kill()
    first.wait()


def test_the_next_attempt_kills_what_a_killed_supervisor_left(lock):
    first = start(lock, LAUNCHER)
    read_until(first, "rank 0 up", "rank 1 up")
    first.kill()
    first.wait()
    second = start(lock, "print('mine')")
    output, _ = second.communicate(timeout=30)
    assert "had left behind" in output
    assert output.endswith("mine\n")
    assert supervisor.marked(lock) == {}


def test_the_end_of_the_task_is_a_request_to_stop_and_late_output_is_shown_next(lock):
    """The task is a process that starts a supervisor and is killed, as Airflow kills it; the closed pipe must not hurt the rank."""
    task = (
        "import os, subprocess, sys\n"
        f"command = [sys.executable, {SCRIPT!r}, '--lock', {str(lock)!r}, '--grace', '10', '--parent', str(os.getpid()),"
        f" '--', sys.executable, '-c', {LAUNCHER!r}]\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)\n"
        "for line in child.stdout: print(line, end='', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", task], stdout=subprocess.PIPE, text=True)
    read_until(process, "rank 0 up", "rank 1 up")
    process.kill()
    process.wait()
    second = start(lock, "print('resumed')")
    output, _ = second.communicate(timeout=30)
    lines = output.splitlines()
    assert {"rank 0 saved", "rank 1 saved"} <= set(lines)
    assert lines.index("rank 0 saved") < lines.index("resumed")
    assert second.returncode == 0
