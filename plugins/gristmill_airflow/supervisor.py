"""Runs one command for a task, and outlives the task until the command has stopped cleanly. Standard library only.

    python supervisor.py --lock FILE [--device FILE]... --name TEXT --grace SECONDS --parent PID -- COMMAND...

Airflow kills a task within seconds, but a training step with its checkpoint takes longer, and a launcher such as
`deepspeed` kills its ranks when it gets a signal itself. So the task starts this process in a session of its own:

- On SIGTERM, or when the task dies, it asks only the ranks to stop; after the grace period it kills everything.
- It holds the task's lock until all processes of the command are gone. A retry waits for the lock, then resumes.
- It also holds the locks of the command's accelerators, because Airflow gives a killed task's slot to another task
  while the ranks still save.
- Every process of the command has the locks' paths in its environment variable GRISTMILL_LOCK, so it can be found even
  after its parent is gone.
- The command's output never goes to a closed pipe: the next attempt shows the output after the task's death.

A lock's file names the holder, for those that wait. Each supervisor takes the task's lock first, then those of
accelerators in the order of their names, so no two wait for each other. When a supervisor is killed, the kernel frees
its locks; the next holder first kills the processes that the command has left.

Exits with the command's code, or 128 + n if signal n ended the command.
"""

import argparse
import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
MARK = "GRISTMILL_LOCK"
GRACE = "GRISTMILL_GRACE_S"  # tells the command how many seconds it has to stop
POLL_S = 0.2
LEAVING_S = 3.0
STUCK_S = 10.0  # a killed process is gone within milliseconds, unless it waits in the kernel
UNSAFE = (
    "others could replace the locks in it; run: chmod +t {}, "
    "or name a folder that root or this user owns in GRISTMILL_LOCKS"
)
NOTE_BYTES = 500  # that are read of a lock's note on its holder

_stop_requested = False


def _request_stop(*_: object) -> None:
    global _stop_requested
    _stop_requested = True


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _say(text: str, kind: str = "supervisor") -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        print(f"{kind}: {text}", flush=True)


def marked(lock: Path) -> dict[int, dict[str, str]]:
    """Living processes that were started under this lock: process id -> environment."""
    processes: dict[int, dict[str, str]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            raw = Path("/proc", entry, "environ").read_bytes()  # a zombie's is empty
            values = dict(pair.split("=", 1) for pair in raw.decode(errors="replace").split("\0") if "=" in pair)
            if str(lock) in values.get(MARK, "").split("\n"):
                processes[int(entry)] = values
    return processes


def ranks(processes: dict[int, dict[str, str]]) -> list[int]:
    """The ranks that a distributed launcher started, without the helper processes that the ranks started."""
    inside = {pid for pid, values in processes.items() if "RANK" in values}
    return sorted(pid for pid in inside if _parent(pid) not in inside)


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def sweep(lock: Path) -> int:
    """Kill all remaining processes of the command, and return their number.

    A killed process that waits in the kernel for a disk or a server is left to die: it runs no more of its code.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + STUCK_S
    while left := marked(lock):
        seen |= left.keys()
        _signal(list(left), signal.SIGKILL)
        if time.monotonic() > deadline and all(_state(pid) == "D" for pid in left):
            _say(
                f"{', '.join(map(str, sorted(left)))}: killed, but still waiting for a disk or a server; "
                "going on without them"
            )
            break
        time.sleep(0.05)
    return len(seen)


def _state(pid: int) -> str:
    """The process's state letter, D in a sleep that no signal ends; empty if there is no such process."""
    with contextlib.suppress(OSError, IndexError):
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    return ""


# Not filelock's: that opens a path, not a name in a folder already opened and checked, and takes 40 ms to import.
def _open(lock: Path, shared: bool) -> BinaryIO:
    """Open the lock's file and create it if it is missing. A shared lock serves every user of the machine."""
    before = os.umask(0) if shared else None
    try:
        if not shared:
            lock.parent.mkdir(parents=True, exist_ok=True)
        folder = _open_folder(lock.parent, shared)
        try:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(lock.name, os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder))
            # Without O_CREAT: in a sticky folder, Linux refuses it on another user's file.
            return os.fdopen(os.open(lock.name, os.O_RDWR | os.O_NOFOLLOW, dir_fd=folder), "r+b", buffering=0)
        finally:
            os.close(folder)
    except OSError as error:
        error.filename = str(lock.parent / (error.filename or lock.name))  # an absolute filename stays as it is
        raise
    finally:
        if before is not None:
            os.umask(before)


def _open_folder(folder: Path, shared: bool) -> int:
    """The folder's descriptor. A shared folder must not be a link, nor let other users replace the locks in it."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if shared else 0))
    info = os.fstat(opened)
    if shared and not may_share(info):
        os.close(opened)
        raise PermissionError(errno.EPERM, UNSAFE.format(folder), str(folder))
    return opened


def may_share(info: os.stat_result) -> bool:
    """Whether no other user can rename the files of a folder.

    The folder must belong to root or to this user, and must be sticky if others may write in it.
    """
    open_to_others = info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not info.st_mode & stat.S_ISVTX
    return info.st_uid in (0, os.getuid()) and not open_to_others


def _holder(file: BinaryIO) -> str:
    """The lock's note on its holder, as one printable line, because any user of the machine may have written it."""
    note = os.pread(file.fileno(), NOTE_BYTES, 0).decode(errors="replace")
    return "".join(character for character in note if character.isprintable()) or "another process"


def acquire(lock: Path, name: str, awaited: str, shared: bool = False) -> BinaryIO | None:
    """The lock's open file, or None when asked to stop while waiting for it.

    name: the holder's name for those that wait. awaited: the message of this process while it waits; `{}` stands for
    the holder.
    """
    file = _open(lock, shared)
    reported = None
    while not _stop_requested:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if (holder := _holder(file)) != reported:
                _say(awaited.format(holder))
            reported = holder
            time.sleep(POLL_S)
        else:
            note = f"{name}, process {os.getpid()}".encode()
            os.pwrite(file.fileno(), note, 0)
            os.ftruncate(file.fileno(), len(note))
            return file
    return None


def _take(lock: Path, devices: list[Path], name: str) -> list[BinaryIO] | None:
    """Take the task's lock, then those of its accelerators; None when asked to stop meanwhile.

    After taking each lock, kill the processes that a dead holder left behind.
    """
    held = []
    same = "{} still runs this task; this attempt goes on when it has ended"
    inuse = "{} of this machine is in use by {{}}; this task goes on when that has ended"
    for path in (lock, *sorted(devices)):
        own = path == lock
        file = acquire(path, name, same if own else inuse.format(path.stem.removeprefix("gristmill-")), shared=not own)
        if file is None:
            return None
        held.append(file)
        if left := sweep(path):
            _say(f"killed {left} process(es) that an earlier {'attempt' if own else 'task'} had left behind")
    return held


def _forward(source: BinaryIO, rest: Path) -> None:
    """Copy the command's output to stdout line by line; once that is closed, to a file that the next attempt shows."""
    sink: BinaryIO = sys.stdout.buffer
    for line in source:
        try:
            sink.write(line)
            sink.flush()
        except OSError:
            sink = rest.open("ab", buffering=0)
            sink.write(line)


def _show(rest: Path) -> None:
    if rest.exists():
        _say("after its task had ended, the earlier attempt still wrote:")
        sys.stdout.buffer.write(rest.read_bytes())
        sys.stdout.buffer.flush()
        rest.unlink()


def _supervise(child: "subprocess.Popen[bytes]", lock: Path, held: list[BinaryIO], grace_s: float) -> int:
    deadline = None
    while child.poll() is None:
        for file in held:
            os.utime(file.fileno())  # else /tmp's cleaner removes it as old, and another task locks a new file
        if _stop_requested and deadline is None:
            processes = marked(lock)
            targets = ranks(processes) or [child.pid]
            _say(f"asking {len(targets)} process(es) to stop, at most {grace_s:g} s")
            _signal(targets, signal.SIGTERM)
            deadline = time.monotonic() + grace_s
        if deadline is not None and time.monotonic() > deadline:
            _say("the grace period is over; killing what is left")
            sweep(lock)
            child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(STUCK_S)
            if child.returncode is None:
                return 128 + signal.SIGKILL
        time.sleep(POLL_S)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _let_end(lock: Path) -> None:
    """Give remaining processes a moment to end: Spark's JVM still removes its files after the driver has gone."""
    deadline = time.monotonic() + LEAVING_S
    while marked(lock) and time.monotonic() < deadline and not _stop_requested:
        time.sleep(POLL_S)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lock", type=Path, required=True, help="of the task")
    parser.add_argument("--device", type=Path, default=[], action="append", help="lock of an accelerator that it uses")
    parser.add_argument("--name", required=True, help="who holds the locks, for those that wait for them")
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument(
        "--parent", type=int, required=True, help="process id of the task; its end is a request to stop"
    )
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def main() -> int:
    given = _arguments()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _request_stop)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != given.parent:  # the task died before it could be watched
        return 128 + signal.SIGTERM

    try:
        held = _take(given.lock, given.device, given.name)
    except OSError as error:
        told = "" if error.errno == errno.EPERM else "; a lock must be a file that this user may write"
        _say(f"{error.filename or given.lock}: {error.strerror}{told}", "error")
        return 1
    if held is None:
        return 128 + signal.SIGTERM
    rest = given.lock.with_suffix(".rest")
    _show(rest)
    child = subprocess.Popen(
        given.command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            **os.environ,
            MARK: "\n".join(map(str, (given.lock, *given.device))),
            GRACE: f"{given.grace:g}",
            "PYTHONUNBUFFERED": "1",
        },
        preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    assert child.stdout is not None
    forwarder = threading.Thread(target=_forward, args=(child.stdout, rest), daemon=True)
    forwarder.start()
    code = _supervise(child, given.lock, held, given.grace)
    _let_end(given.lock)
    sweep(given.lock)
    forwarder.join(timeout=10)
    return code


if __name__ == "__main__":
    os._exit(main())  # an ordinary exit would trip over a closed standard output and lose the code
