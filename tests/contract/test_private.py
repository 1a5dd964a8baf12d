"""A folder or lock at a guessable name is taken only where nobody else can have put anything into it."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import Timeout

from contract.errors import SetupError
from contract.private import private_folder, private_lock


def test_a_folder_is_made_for_this_user_alone_and_taken_again(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert made == tmp_path / "a" / "b"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    (made / "x").touch()
    assert private_folder(made) == made
    assert (made / "x").exists()


def writable(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


def linked(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (writable, "can be written by others"),
        (linked, "is no folder of its own"),
        (Path.touch, "is no folder of its own"),
        (lambda path: path.symlink_to("/nowhere"), "is no folder of its own"),
    ],
)
def test_what_a_stranger_may_have_put_there_is_refused(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    make(tmp_path / "taken")
    with pytest.raises(
        SetupError, match=rf"^{tmp_path}/taken: {why}, so what lies in it cannot be trusted; remove it, or"
    ):
        private_folder(tmp_path / "taken")


def test_another_users_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private_folder(tmp_path / "taken")
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(SetupError, match=rf"taken: belongs to user {tmp_path.stat().st_uid}, so"):
        private_folder(tmp_path / "taken")


def test_a_lock_is_one_process_own_and_its_file_this_users(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.write_text("a note")
    path.chmod(0o600)
    for place in (path, tmp_path / "new.lock"):
        with private_lock(place, timeout=0), pytest.raises(Timeout):
            private_lock(place, timeout=0).acquire()
        with private_lock(place, timeout=0):
            assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert path.read_text() == "a note"


def test_a_lock_is_taken_neither_through_a_link_nor_in_another_users_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "own")
    (tmp_path / "dangling").symlink_to(tmp_path / "made-by-following")
    for name in ("link", "dangling"):
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            private_lock(tmp_path / name, timeout=0).acquire()
    assert not (tmp_path / "made-by-following").exists()
    lock = private_lock(tmp_path / "own", timeout=0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: 4711)
        with pytest.raises(PermissionError, match=f"belongs to user {os.stat(tmp_path).st_uid}: '{tmp_path}/own'"):
            lock.acquire()
    with private_lock(tmp_path / "own", timeout=0):
        assert (tmp_path / "own").read_text() == "mine"


HOLDING = """
import os, pathlib, sys, time
from contract.private import private_lock
with private_lock(pathlib.Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(60)
    print('held', flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_a_killed_process_though_its_child_lives_on(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path / "a.lock")], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Timeout):
            private_lock(tmp_path / "a.lock", timeout=0.1).acquire()
        holder.kill()
        holder.wait()
        with private_lock(tmp_path / "a.lock", timeout=5):
            pass
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.stdout.close()


def test_whoever_waits_for_a_lock_whose_file_was_removed_takes_that_of_the_new_file(tmp_path: Path) -> None:
    path, order = tmp_path / "a.lock", []

    def wait() -> None:
        with private_lock(path, timeout=5):
            order.append("taken")
            with pytest.raises(Timeout):
                private_lock(path, timeout=0).acquire()

    with private_lock(path):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
        order.append("removed")
        path.unlink()
    waiting.join()
    assert order == ["removed", "taken"]
