"""Finding and ending what a demo started, and nothing else."""

import os
import socket
import stat
import subprocess
import sys
import time

import psutil
import pytest

from contract.errors import GristmillError
from demo import server

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
# A stage's supervisor moves to a session of its own and takes its time over SIGTERM.
WANDERER = "import os, signal, subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\nprint('up', flush=True)\ntime.sleep(60)"


def launch(command, **environment):
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.readline() == b"up\n"
    return process


def test_stop_ends_processes_in_other_sessions_and_leaves_strangers_alone(tmp_path):
    stranger = launch(SLEEPER, **{server.MARK: str(tmp_path / "elsewhere")})
    ours = launch([sys.executable, "-c", WANDERER], **{server.MARK: str(tmp_path)})
    (tmp_path / "airflow.pid").write_text(f"{ours.pid} 8080\n")
    try:
        deadline = time.monotonic() + 30
        # A process has no environment for a moment while it starts another program.
        while len(server.processes(tmp_path)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert server.find(tmp_path) == server.Server(tmp_path, ours.pid, 8080)
        assert server.stop(tmp_path) == 2
        assert server.processes(tmp_path) == set()
        assert server.find(tmp_path) is None
        assert stranger.poll() is None
    finally:
        for process in (stranger, ours):
            process.kill()
            process.wait()


def test_the_log_with_the_password_is_its_owners(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "check_port", lambda port: None)
    monkeypatch.setattr(server, "standalone_environment", lambda home, port: dict(os.environ))
    monkeypatch.setattr(server.sys, "executable", "/bin/python")  # beside it lies no airflow
    (tmp_path / "airflow.log").write_text("an older one")
    (tmp_path / "airflow.log").chmod(0o644)
    with pytest.raises(FileNotFoundError):
        server.start(tmp_path, 8080)
    assert stat.S_IMODE((tmp_path / "airflow.log").stat().st_mode) == 0o600


@pytest.mark.parametrize("named", [None, "base"])
def test_the_demos_recipe_is_the_default_of_the_forms_unless_another_is_named(tmp_path, monkeypatch, named):
    class Started(Exception):
        pass

    def start(command, env, **_):
        raise Started(env["GRISTMILL_RECIPE"])

    monkeypatch.setattr(server, "check_port", lambda port: None)
    monkeypatch.setattr(server.subprocess, "Popen", start)
    if named:
        monkeypatch.setenv("GRISTMILL_RECIPE", named)
    else:
        monkeypatch.delenv("GRISTMILL_RECIPE", raising=False)
    with pytest.raises(Started) as started:
        server.start(tmp_path, 8080, tmp_path / "demo.yaml")
    assert str(started.value) == (named or str(tmp_path / "demo.yaml"))


def test_a_process_that_only_waits_to_be_reaped_is_gone(tmp_path):
    process = subprocess.Popen(["true"], env={**os.environ, server.MARK: str(tmp_path)}, start_new_session=True)
    (tmp_path / "airflow.pid").write_text(f"{process.pid} 8080\n")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
        assert server.processes(tmp_path) == set()
        assert server.find(tmp_path) is None
    finally:
        process.wait()


def test_a_retitled_worker_is_found_by_its_session_and_another_of_that_session_is_not(tmp_path):
    titled = "import time; print('up', flush=True); time.sleep(60)  # airflow worker"
    ours, stranger = launch([sys.executable, "-c", titled]), launch(SLEEPER)
    try:
        for process, found in ((ours, {ours.pid}), (stranger, set())):
            (tmp_path / "airflow.pid").write_text(f"{process.pid} 8080\n")
            assert server.processes(tmp_path) == found
    finally:
        for process in (ours, stranger):
            process.kill()
            process.wait()


def test_stop_kills_what_ignores_sigterm(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "GRACE_S", 0.5)
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)"
    process = launch([sys.executable, "-c", deaf], **{server.MARK: str(tmp_path)})
    assert server.stop(tmp_path) == 1
    assert process.wait(5) == -9


def test_a_pid_file_that_outlived_its_process_means_nothing(tmp_path):
    (tmp_path / "airflow.pid").write_text(f"{os.getpid()} 8080\n")  # alive, but not ours
    assert server.find(tmp_path) is None
    assert server.stop(tmp_path) == 0
    time.sleep(0)  # and this process is still here


def test_port_of_the_system(monkeypatch):
    monkeypatch.setattr(server, "is_free", _denied)
    with pytest.raises(GristmillError, match=r"^port 80: this user may not listen there; make demo PORT=8080$"):
        server.check_port(80)


def _denied(_):
    raise PermissionError(13, "Permission denied")


def test_port_in_use_names_who_has_it_and_a_free_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(GristmillError, match=rf"^port {port} is in use by .* make demo PORT=\d+$") as refused:
            server.check_port(port)
    assert f"by process {os.getpid()} ({' '.join(psutil.Process().cmdline())[:80].strip()}); end that" in str(
        refused.value
    )
    server.check_port(int(str(refused.value).rpartition("=")[2]))


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_what_is_no_port(port):
    with pytest.raises(GristmillError, match=rf"^port {port}: ports go from 1 to 65535; make demo PORT=8080$"):
        server.check_port(port)
