"""Runs one command for a task and outlives the task by as long as the command needs to stop well. Standard library only.

    python supervisor.py --lock FILE [--device FILE]... --name TEXT --grace SECONDS --parent PID -- COMMAND...

Airflow kills a task within seconds; a training step with its checkpoint takes longer, and a launcher such as `deepspeed` kills its ranks
when it is signalled itself. So the task starts this process in a session of its own, and

- on SIGTERM, or when the task dies, the ranks alone are asked to stop; after the grace period everything is killed;
- the lock is held until nothing of the command is left, so a retry waits here, and then resumes from what was committed;
- so are the locks of the accelerators that the command uses: Airflow gives a killed task's slot away while its ranks still save;
- whatever the command starts carries its locks in GRISTMILL_LOCK in its environment, by which it is found even after its parent is gone;
- the command's output never meets a closed pipe: what comes after the task's death is shown by the next attempt.

A lock says who holds it, for those that wait. Everyone takes the task's lock first, then those of accelerators in the order of their
names, so no two wait for each other. The kernel frees the locks of a supervisor that is killed; who takes them next first kills what its
command has left.

Exits with the command's code, 128 + n where signal n ended it.
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
POLL_S = 0.2
LEAVING_S = 3.0
STUCK_S = 10.0  # a process that was killed is gone within milliseconds, unless it waits in the kernel
UNSAFE = (
    "others could replace the locks in it; run: chmod +t {}, or name a folder of root or this user in GRISTMILL_LOCKS"
)
NOTE_BYTES = 500  # of a lock's note on its holder

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
    found: dict[int, dict[str, str]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            raw = Path("/proc", entry, "environ").read_bytes()  # a zombie's is empty
            values = dict(pair.split("=", 1) for pair in raw.decode(errors="replace").split("\0") if "=" in pair)
            if str(lock) in values.get(MARK, "").split("\n"):
                found[int(entry)] = values
    return found


def ranks(processes: dict[int, dict[str, str]]) -> list[int]:
    """Those that a distributed launcher started as ranks, without the helpers that the ranks started themselves."""
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
    """Kill everything that is left of the command, and return how many processes that were.

    One that waits in the kernel, for a disk or a server that does not answer, is left to die there: it runs none of its code any more.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + STUCK_S
    while left := marked(lock):
        seen |= left.keys()
        _signal(list(left), signal.SIGKILL)
        if time.monotonic() > deadline and all(_state(pid) == "D" for pid in left):
            _say(
                f"{', '.join(map(str, sorted(left)))}: killed, but still waiting for a disk or a server; going on without"
            )
            break
        time.sleep(0.05)
    return len(seen)


def _state(pid: int) -> str:
    """One letter, D where the process is in a sleep that no signal ends; empty where there is none."""
    with contextlib.suppress(OSError, IndexError):
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _open(lock: Path, shared: bool) -> BinaryIO:
    """The lock's file, made where it is missing. A shared one serves every user of the machine."""
    before = os.umask(0) if shared else None
    try:
        if not shared:
            lock.parent.mkdir(parents=True, exist_ok=True)
        folder = _open_folder(lock.parent, shared)
        try:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(lock.name, os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder))
            # Made above and not here: in a folder for all, Linux refuses O_CREAT on another user's file.
            return os.fdopen(os.open(lock.name, os.O_RDWR | os.O_NOFOLLOW, dir_fd=folder), "r+b", buffering=0)
        finally:
            os.close(folder)
    except OSError as error:
        error.filename = str(lock.parent / (error.filename or lock.name))  # one that is whole already stays
        raise
    finally:
        if before is not None:
            os.umask(before)


def _open_folder(folder: Path, shared: bool) -> int:
    """The folder's descriptor. A shared one must be no link, and nobody else may be able to swap the locks in it."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if shared else 0))
    info = os.fstat(opened)
    if shared and not may_share(info):
        os.close(opened)
        raise PermissionError(errno.EPERM, UNSAFE.format(folder), str(folder))
    return opened


def may_share(info: os.stat_result) -> bool:
    """Whether nobody else can rename the files of a folder: it is root's or this user's, and others write in it only where it is sticky."""
    open_to_others = info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not info.st_mode & stat.S_ISVTX
    return info.st_uid in (0, os.getuid()) and not open_to_others


def _holder(file: BinaryIO) -> str:
    """What the lock says of its holder, as one line: any user of the machine may have written it."""
    said = os.pread(file.fileno(), NOTE_BYTES, 0).decode(errors="replace")
    return "".join(one for one in said if one.isprintable()) or "another process"


def acquire(lock: Path, name: str, awaited: str, shared: bool = False) -> BinaryIO | None:
    """The lock's open file, or None when asked to stop while waiting for it.

    name: what others read who wait for it. awaited: says what this one waits for; `{}` stands for the holder.
    """
    file = _open(lock, shared)
    told = None
    while not _stop_requested:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if (holder := _holder(file)) != told:
                _say(awaited.format(holder))
            told = holder
            time.sleep(POLL_S)
        else:
            note = f"{name}, process {os.getpid()}".encode()
            os.pwrite(file.fileno(), note, 0)
            os.ftruncate(file.fileno(), len(note))
            return file
    return None


def _take(lock: Path, devices: list[Path], name: str) -> list[BinaryIO] | None:
    """The task's lock, then those of its accelerators, each without what a dead holder left; None when asked to stop meanwhile."""
    held = []
    same = "{} is still at this very task; this one goes on when that has ended"
    inuse = "{} of this machine is in use by {{}}; this task goes on when that has ended"
    for one in (lock, *sorted(devices)):
        own = one == lock
        file = acquire(one, name, same if own else inuse.format(one.stem.removeprefix("gristmill-")), shared=not own)
        if file is None:
            return None
        held.append(file)
        if left := sweep(one):
            _say(f"killed {left} process(es) that an earlier {'attempt' if own else 'task'} had left behind")
    return held


def _forward(source: BinaryIO, rest: Path) -> None:
    """Copy the command's output, line by line, to ours; once that is closed, to the file that the next attempt shows."""
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
        _say("after its task had ended, the earlier attempt still said:")
        sys.stdout.buffer.write(rest.read_bytes())
        sys.stdout.buffer.flush()
        rest.unlink()


def _supervise(child: "subprocess.Popen[bytes]", lock: Path, held: list[BinaryIO], grace_s: float) -> int:
    deadline = None
    while child.poll() is None:
        for file in held:
            os.utime(file.fileno())  # /tmp is swept of what is old: another task would lock a new file of the same name
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
    """Give what the command leaves a moment to end by itself: Spark's JVM is still removing its files when the driver has gone."""
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
        env={**os.environ, MARK: "\n".join(map(str, (given.lock, *given.device))), "PYTHONUNBUFFERED": "1"},
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
