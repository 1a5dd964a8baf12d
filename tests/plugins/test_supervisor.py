"""The supervisor with real processes: who is signalled, who is left, and what the next attempt gets to see."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

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


def start(lock: Path, code: str, grace_s: float = 10, devices: Sequence[Path] = ()) -> subprocess.Popen:
    """A supervisor of one Python program. It calls itself by the lock's name without `.lock`."""
    options = ["--lock", str(lock), "--name", lock.stem, "--grace", str(grace_s), "--parent", str(os.getpid())]
    for device in devices:
        options += ["--device", str(device)]
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


def kill_all(lock: Path) -> None:
    """As `sweep`, on its own, and once: what that leaves alive must not hold up the tests."""
    for pid in supervisor.marked(lock):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def no_rank(monkeypatch):
    """A child is no rank because the tests' own process was one."""
    monkeypatch.delenv("RANK", raising=False)


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "task.lock"
    yield path
    kill_all(path)


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.lock"
    yield path
    kill_all(path)


def held(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


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


def test_what_a_rank_has_started_itself_is_not_asked_to_stop(lock):
    """A data loader that died before its rank could not feed the rank's last step. It has the rank's variables."""
    loader = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('loader asked')); time.sleep(60)"
    rank = (
        "import signal, subprocess, sys, time\n"
        f"loader = subprocess.Popen([sys.executable, '-c', {loader!r}])\n"
        "signal.signal(signal.SIGTERM, lambda *_: (loader.kill(), sys.exit(75)))\n"
        "time.sleep(1)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    launcher = f"import os, subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {rank!r}], env={{**os.environ, 'RANK': '0'}}))"
    process = start(lock, launcher)
    read_until(process, "up")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert output == "supervisor: asking 1 process(es) to stop, at most 10 s\n"
    assert process.returncode == 75


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


def test_what_is_about_to_end_by_itself_may(lock, tmp_path):
    """Spark's JVM removes its files when its driver has gone."""
    tidies = f"import time; time.sleep(1); open({str(tmp_path / 'tidied')!r}, 'w')"
    process = start(lock, f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {tidies!r}])")
    process.communicate(timeout=20)
    assert (tmp_path / "tidied").exists()


def test_what_waits_in_the_kernel_is_killed_and_not_waited_for(lock, monkeypatch, capsys):
    killed = []
    monkeypatch.setattr(supervisor, "STUCK_S", 0.2)
    monkeypatch.setattr(supervisor, "marked", lambda _: {41: {}, 40: {}})
    monkeypatch.setattr(supervisor, "_signal", lambda pids, number: killed.append((pids, number)))
    monkeypatch.setattr(supervisor, "_state", lambda pid: "D")
    assert supervisor.sweep(lock) == 2
    assert killed[0] == ([41, 40], signal.SIGKILL)
    assert (
        "supervisor: 40, 41: killed, but still waiting for a disk or a server; going on without them"
        in capsys.readouterr().out
    )


def test_what_only_takes_its_time_to_die_is_waited_for(lock, monkeypatch):
    monkeypatch.setattr(supervisor, "STUCK_S", 0.1)
    monkeypatch.setattr(supervisor, "_signal", lambda *_: None)
    monkeypatch.setattr(supervisor, "_state", lambda pid: "D" if pid == 1 else "R")
    ends = time.monotonic() + 0.6
    monkeypatch.setattr(supervisor, "marked", lambda _: {1: {}, 2: {}} if time.monotonic() < ends else {})
    assert supervisor.sweep(lock) == 2
    assert time.monotonic() >= ends


def test_a_command_that_waits_in_the_kernel_does_not_hold_its_supervisor(lock, monkeypatch):
    monkeypatch.setattr(supervisor, "STUCK_S", 0.2)
    monkeypatch.setattr(supervisor, "_stop_requested", True)
    monkeypatch.setattr(supervisor, "sweep", lambda _: 1)
    monkeypatch.setattr(supervisor, "_signal", lambda *_: None)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    kill = child.kill
    monkeypatch.setattr(child, "kill", lambda: None)
    assert supervisor._supervise(child, lock, [], 0.1) == 128 + signal.SIGKILL
    assert child.poll() is None
    kill()
    child.wait()


def test_the_state_of_a_process_is_one_letter():
    assert supervisor._state(os.getpid()) in ("R", "S")
    assert supervisor._state(2**22 + 1) == ""


def test_a_second_attempt_waits_for_the_first(lock):
    first = start(lock, "import time; print('up', flush=True); time.sleep(1.5)")
    read_until(first, "up")
    second = start(lock, "print('mine')")
    said = f"supervisor: task, process {first.pid} still runs this task; this attempt goes on when it has ended\n"
    assert second.stdout.readline() == said
    assert first.poll() is None
    read_until(second, "mine")
    assert first.wait(timeout=10) == 0
    assert second.wait(timeout=10) == 0


def test_a_waiting_attempt_can_be_stopped(lock):
    first = start(lock, STUBBORN)
    read_until(first, "up")
    second = start(lock, "print('never')")
    assert "still runs this task" in second.stdout.readline()
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
        f"command = [sys.executable, {SCRIPT!r}, '--lock', {str(lock)!r}, '--name', 'it', '--grace', '10', '--parent', str(os.getpid()),"
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
    assert start(lock, "print('once')").communicate(timeout=30)[0] == "once\n"


UP = "import time; print('up', flush=True); time.sleep(60)"
SAVES = """
import signal, sys, time
def stop(*_):
    time.sleep(1.5)
    open({file!r}, 'a').write('saved ')
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
print('up', flush=True)
time.sleep(60)
"""


def test_two_tasks_never_share_a_device_and_who_waits_says_for_whom(lock, other, tmp_path):
    """The first is asked to stop and saves for a while, as when Airflow has given its slot to the second already."""
    gpu, written = tmp_path / "gpu-0", tmp_path / "written"
    gpu.write_text("an earlier holder that was killed, process 7, " * 5)
    first = start(lock, SAVES.format(file=str(written)), devices=[gpu])
    read_until(first, "up")
    first.send_signal(signal.SIGTERM)
    second = start(other, f"open({str(written)!r}, 'a').write('began')", devices=[gpu])
    said = f"supervisor: gpu-0 of this machine is in use by task, process {first.pid}; this task goes on when that has ended\n"
    assert second.stdout.readline() == said
    assert first.poll() is None
    assert second.communicate(timeout=20)[0] == "", "the line came once"
    assert second.returncode == 0
    assert first.wait(timeout=5) == 75
    assert written.read_text() == "saved began"


def test_tasks_on_other_devices_and_without_one_do_not_wait(lock, other, tmp_path):
    first = start(lock, UP, devices=[tmp_path / "gpu-0"])
    read_until(first, "up")
    for devices in ([], [tmp_path / "gpu-1"]):
        assert start(other, "print('mine')", devices=devices).communicate(timeout=20)[0] == "mine\n"
    first.kill()
    first.wait()


def test_a_task_that_waits_for_a_device_can_be_stopped_and_leaves_both_locks(lock, other, tmp_path):
    first = start(lock, UP, devices=[tmp_path / "gpu-1"])
    read_until(first, "up")
    second = start(other, "print('never')", devices=[tmp_path / "gpu-0", tmp_path / "gpu-1"])
    assert second.stdout.readline().startswith("supervisor: gpu-1 of this machine is in use by task, ")
    assert held(other)
    assert held(tmp_path / "gpu-0")
    second.send_signal(signal.SIGTERM)
    output, _ = second.communicate(timeout=10)
    assert (second.returncode, output) == (128 + signal.SIGTERM, "")
    assert not held(other)
    assert not held(tmp_path / "gpu-0")
    assert held(tmp_path / "gpu-1")
    first.kill()
    first.wait()


def test_devices_named_in_another_order_are_taken_in_the_same(lock, other, tmp_path):
    """Each holds what the other wants next, were they taken as named."""
    devices = [tmp_path / "gpu-0", tmp_path / "gpu-1"]
    with devices[0].open("w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        both = [start(lock, "pass", devices=devices), start(other, "pass", devices=devices[::-1])]
        for one in both:
            assert one.stdout.readline().startswith("supervisor: gpu-0 of this machine is in use by another process;")
        assert not devices[1].exists()
    assert [one.wait(timeout=20) for one in both] == [0, 0]


def test_a_killed_holder_frees_the_device_and_the_next_task_kills_what_it_left(lock, other, tmp_path):
    gpu = tmp_path / "gpu-0"
    first = start(lock, LAUNCHER, devices=[gpu])
    read_until(first, "rank 0 up", "rank 1 up")
    first.kill()
    first.wait()
    assert not held(gpu)
    output, _ = start(other, "print('mine')", devices=[gpu]).communicate(timeout=20)
    assert "process(es) that an earlier task had left behind" in output
    assert output.endswith("mine\n")
    assert supervisor.marked(lock) == {}


def test_a_device_lock_serves_every_user_and_a_tasks_lock_only_its_own(lock, tmp_path):
    gpu = tmp_path / "gpu-0"
    before = os.umask(0o027)
    try:
        process = start(lock, f"import os; print(oct(os.umask(0)), flush=True); {UP}", devices=[gpu])
    finally:
        os.umask(before)
    read_until(process, "0o27", "up")
    assert oct(gpu.stat().st_mode & 0o7777) == "0o666"
    assert lock.stat().st_mode & 0o022 == 0
    assert gpu.read_text() == f"task, process {process.pid}"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert not held(gpu)


def test_a_held_lock_never_looks_old(lock, tmp_path):
    gpu = tmp_path / "gpu-0"
    process = start(lock, UP, devices=[gpu])
    read_until(process, "up")
    os.utime(gpu, (0, 0))
    time.sleep(1)
    assert time.time() - gpu.stat().st_mtime < 60
    process.kill()
    process.wait()


def test_what_a_stranger_wrote_into_a_lock_stays_one_line(lock, tmp_path):
    gpu = tmp_path / "gpu-0"
    gpu.write_text("me\x1b[2J\nerror: forged " + "x" * 5000)
    with gpu.open("rb") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        process = start(lock, "print('mine')", devices=[gpu])
        said = process.stdout.readline()
    assert said.startswith("supervisor: gpu-0 of this machine is in use by me[2Jerror: forged xxx")
    assert len(said) < 700
    assert process.communicate(timeout=20)[0] == "mine\n"


def test_a_lock_that_is_a_link_or_another_users_is_refused_in_one_line(lock, tmp_path):
    (tmp_path / "precious").write_text("text")
    (tmp_path / "gpu-0").symlink_to(tmp_path / "precious")
    output, _ = (process := start(lock, "print('never')", devices=[tmp_path / "gpu-0"])).communicate(timeout=20)
    assert process.returncode == 1
    assert (
        output
        == f"error: {tmp_path}/gpu-0: Too many levels of symbolic links; a lock must be a file that this user may write\n"
    )
    assert (tmp_path / "precious").read_text() == "text"


def test_a_folder_of_locks_that_is_a_link_is_refused_in_one_line(lock, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "locks").symlink_to(tmp_path / "mine")
    output, _ = (process := start(lock, "print('never')", devices=[tmp_path / "locks" / "gpu-0"])).communicate(
        timeout=20
    )
    assert process.returncode == 1
    assert output == f"error: {tmp_path}/locks: Not a directory; a lock must be a file that this user may write\n"
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    ("owner", "mode", "shared"),
    [
        (0, 0o1777, True),  # /tmp
        (0, 0o755, True),
        (0, 0o777, False),
        (0, 0o775, False),
        (os.getuid(), 0o700, True),
        (os.getuid(), 0o1777, True),
        (4711, 0o755, False),
        (4711, 0o1777, False),  # its owner may rename what others made in it
    ],
)
def test_a_folder_in_which_somebody_else_can_swap_locks_is_refused(owner, mode, shared):
    assert supervisor.may_share(SimpleNamespace(st_uid=owner, st_mode=mode)) is shared


def test_the_locks_are_held_until_nothing_of_the_command_is_left(lock, tmp_path):
    """The launcher has ended; a rank in a session of its own has not, and is given a moment before it is killed."""
    gpu = tmp_path / "gpu-0"
    rank = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    process = start(
        lock,
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {rank!r}], start_new_session=True); print('launched', flush=True)",
        devices=[gpu],
    )
    read_until(process, "launched")
    while (left := supervisor.marked(lock)) and held(gpu):
        time.sleep(0.05)
    assert not left
    assert process.wait(timeout=10) == 0


def test_a_supervisor_whose_task_is_gone_already_starts_nothing(lock, tmp_path):
    options = ["--lock", str(lock), "--name", "it", "--grace", "5", "--parent", str(os.getpid() + 1)]
    done = subprocess.run([sys.executable, SCRIPT, *options, "--", "touch", str(tmp_path / "ran")], timeout=20)
    assert done.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "ran").exists()


def test_an_orphan_of_the_command_stays_below_its_supervisor(lock):
    """Who ends a task's whole tree finds it there."""
    rank = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    process = start(
        lock,
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {rank!r}], start_new_session=True).pid, flush=True)",
    )
    orphan = int(process.stdout.readline())
    deadline = time.monotonic() + 2
    while supervisor._parent(orphan) != process.pid and time.monotonic() < deadline:
        time.sleep(0.05)
    assert supervisor._parent(orphan) == process.pid
    assert process.wait(timeout=20) == 0


def test_a_line_is_seen_when_it_is_printed_and_a_killed_supervisor_takes_the_command_along(lock, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    process = start(lock, "import os, time; print(os.getpid()); time.sleep(60)")  # to a pipe, without a flush
    began = time.monotonic()
    command = int(process.stdout.readline())
    assert time.monotonic() - began < 40
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while command in supervisor.marked(lock) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert command not in supervisor.marked(lock)


def test_the_command_is_told_how_long_it_may_take_to_stop(lock):
    process = start(lock, "import os; print(os.environ['GRISTMILL_GRACE_S'])", grace_s=600)
    assert process.communicate(timeout=40)[0] == "600\n"
