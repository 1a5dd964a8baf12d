"""Runs Python that a model wrote, where it can compute and nothing else. Without the sandbox nothing is run, ever.

bubblewrap makes the place: user, process, network, IPC and host-name namespaces of its own, no capabilities, an empty
environment, a read-only /usr and Python, one writable folder in memory, and no /etc, /home, /proc, /sys or /dev but
null, zero and urandom. A system-call filter refuses new processes and threads, which no limit counts for root, sockets,
tracing, mounts, and memory that no limit counts. Limits hold for processor time, memory, files and open descriptors,
and the caller's clock ends what sleeps.

A program passes by saying a random word when it came to its end, so one that exits early, or prints what it likes, does
not. Code that searches its own interpreter's frames for that word could find it: a pass is a grade, no proof.
"""

import contextlib
import functools
import os
import platform
import secrets
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contract.confinement import (
    ALLOW,
    ARCHITECTURE_AT,
    ARCHITECTURES,
    JUMP_IF_AT_LEAST,
    JUMP_IF_EQUAL,
    LOAD_WORD,
    NUMBER_AT,
    REFUSE,
    RETURN,
    X32,
)
from contract.errors import SetupError

MIB = 1 << 20
CGROUP = Path("/sys/fs/cgroup")
SCRATCH = "/scratch"
REFUSED = {
    "x86_64": {
        "clone": 56, "fork": 57, "vfork": 58, "socket": 41, "ptrace": 101, "process_vm_readv": 310, "kcmp": 312,
        "process_vm_writev": 311, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272,
        "setns": 308, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "fanotify_init": 300, "keyctl": 250,
        "add_key": 248, "request_key": 249, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240,
        "memfd_create": 319, "personality": 135, "open_by_handle_at": 304, "name_to_handle_at": 303, "swapon": 167,
        "reboot": 169, "settimeofday": 164, "clock_settime": 227, "init_module": 175, "finit_module": 313,
        "kexec_load": 246, "acct": 163, "iopl": 172, "ioperm": 173, "vhangup": 153, "quotactl": 179, "syslog": 103,
        "socketpair": 53,
    },
    "aarch64": {
        "clone": 220, "socket": 198, "ptrace": 117, "process_vm_readv": 270, "kcmp": 272, "process_vm_writev": 271,
        "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "bpf": 280,
        "perf_event_open": 241, "userfaultfd": 282, "fanotify_init": 262, "keyctl": 219, "add_key": 217,
        "request_key": 218, "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180, "memfd_create": 279,
        "personality": 92, "open_by_handle_at": 265, "name_to_handle_at": 264, "swapon": 224, "reboot": 142,
        "settimeofday": 170, "clock_settime": 112, "init_module": 105, "finit_module": 273, "kexec_load": 104,
        "acct": 89, "vhangup": 58, "quotactl": 60, "syslog": 116, "socketpair": 199,
    },
}  # fmt: skip
SAME_EVERYWHERE = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434, "clone3": 435,
    "pidfd_getfd": 438, "mount_setattr": 442, "memfd_secret": 447,
}  # fmt: skip
LAUNCHER = """
def launch():
    import os, resource, sys, traceback
    leave, say, tell = os._exit, os.write, traceback.print_exception  # a program may replace these
    word, program = sys.stdin.buffer.read().split(b"\\n", 1)
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for name, value in ({limits}):
        resource.setrlimit(getattr(resource, name), (value, value + (name == "RLIMIT_CPU")))
    try:
        exec(compile(program, "program.py", "exec"), {{"__name__": "__main__"}})
        sys.stdout.flush()
        say(1, b"\\n" + word)
        leave(0)
    except BaseException as error:
        tell(error, limit=-3)
        sys.stderr.flush()
        sys.stdout.flush()
    leave(1)

launch()
"""

Ending = Literal["passed", "failed", "time", "output"]


@dataclass(frozen=True)
class Limits:
    """What one program may use: seconds of one processor and of the clock, and bytes."""

    cpu_s: int = 10
    wall_s: float = 15.0
    memory: int = 1024 * MIB
    scratch: int = 64 * MIB
    file: int = 16 * MIB
    output: int = MIB
    descriptors: int = 64


@dataclass(frozen=True)
class Outcome:
    """How a program ended. output: the last SHOWN_CHARS of what it printed and of what went wrong."""

    ending: Ending
    output: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.ending == "passed"


USUAL = Limits()
SHOWN_CHARS = 2000
ENDING_S = 2.0  # between the end of what a program says and the end of its process


def run(program: str, limits: Limits = USUAL) -> Outcome:
    """Run one program in the sandbox. Raises SetupError if this machine has none: the program is then not run."""
    require()
    return _run(program, limits)


def run_all(programs: Sequence[str], limits: Limits = USUAL, workers: int | None = None) -> list[Outcome]:
    """Run programs, by default `at_once(limits)` of them at a time. Raises SetupError as `run`."""
    require()
    with ThreadPoolExecutor(workers or at_once(limits)) as pool:
        return [*pool.map(lambda program: _run(program, limits), programs)]


def at_once(limits: Limits) -> int:
    """How many programs run together without taking each other's time or memory, which would change their verdicts.

    One on each processor that this process may use, as long as their memory is there. A container may have less of both
    than the machine.
    """
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such file, or the word max
        quota, period = map(int, (CGROUP / "cpu.max").read_text().split())
        cores = min(cores, quota // period)
    with contextlib.suppress(OSError, ValueError):
        memory = min(memory, int((CGROUP / "memory.max").read_text()))
    return max(1, min(cores, memory // (limits.memory + limits.scratch)))


def require() -> None:
    """Raises SetupError if this machine cannot make the sandbox; the message says what is missing."""
    if missing := _missing():
        raise SetupError(f"code that a model wrote runs only in a sandbox, and this machine has none: {missing}")


@functools.cache
def _missing() -> str | None:
    """What keeps this machine from making the sandbox; None if it can."""
    if platform.machine() not in ARCHITECTURES:
        return f"its system-call filter is not written for {platform.machine()}"
    if shutil.which("bwrap") is None:
        return "bwrap was not found; install bubblewrap 0.8 or newer, for example with: apt-get install bubblewrap"
    tried = _run("pass", Limits(wall_s=60.0))
    if tried.passed:
        return None
    said = tried.output.strip() or tried.ending
    return f"bwrap does not work here, perhaps because user namespaces are forbidden: {said}"


def _run(program: str, limits: Limits) -> Outcome:
    word = secrets.token_hex(16)
    began = time.monotonic()
    with _filter_file() as rules:
        child = subprocess.Popen(
            [*_command(limits, rules)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=[rules], env={},
        )  # fmt: skip
    ending: Ending | None = "time"
    try:
        said, ending = _converse(child, f"{word}\n{program}".encode("utf-8", "replace"), limits)
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.0 if ending else ENDING_S)
        child.kill()  # and with it, by --die-with-parent, everything in its process namespace
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
    if ending is None and child.returncode == 128 + signal.SIGXCPU:
        ending = "time"
    passed = ending is None and said.endswith(f"\n{word}".encode())
    shown = said.removesuffix(f"\n{word}".encode()).decode("utf-8", "replace")[-SHOWN_CHARS:]
    return Outcome(ending or ("passed" if passed else "failed"), shown, time.monotonic() - began)


def _converse(child: subprocess.Popen[bytes], given: bytes, limits: Limits) -> tuple[bytes, Ending | None]:
    """(What the child said, the limit that it met): write to it and read from it until it closes its end."""
    assert child.stdin
    assert child.stdout
    end, said, left = time.monotonic() + limits.wall_s, bytearray(), memoryview(given)
    os.set_blocking(child.stdin.fileno(), False)
    with selectors.DefaultSelector() as waiting:
        waiting.register(child.stdout, selectors.EVENT_READ)
        waiting.register(child.stdin, selectors.EVENT_WRITE)
        while (remains := end - time.monotonic()) > 0:
            for key, _ in waiting.select(remains):
                if key.fileobj is child.stdin:
                    try:
                        left = left[os.write(child.stdin.fileno(), left[:65536]) :]
                    except BrokenPipeError:
                        left = left[:0]
                    if not left:
                        waiting.unregister(child.stdin)
                        child.stdin.close()
                    continue
                piece = os.read(child.stdout.fileno(), 65536)
                if not piece:
                    return bytes(said), None
                said += piece
                if len(said) > limits.output:
                    return bytes(said), "output"
    return bytes(said), "time"


def _command(limits: Limits, rules: int) -> Iterator[str]:
    """bubblewrap's arguments, and Python's behind them."""
    base = Path(sys.base_prefix).resolve()
    interpreter = Path(sys.executable).resolve()
    # fmt: off
    yield from (
        shutil.which("bwrap") or "bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent",
        "--new-session", "--clearenv", "--cap-drop", "ALL", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox",
        "--ro-bind", "/usr", "/usr",
    )
    # fmt: on
    for name in ("lib", "lib64"):
        if Path("/", name).is_symlink():
            yield from ("--symlink", os.readlink(f"/{name}"), f"/{name}")
        elif Path("/", name).is_dir():
            yield from ("--ro-bind", f"/{name}", f"/{name}")
    if not base.is_relative_to("/usr"):
        yield from ("--ro-bind", str(base), "/python", "--setenv", "LD_LIBRARY_PATH", "/python/lib")
        interpreter = Path("/python") / interpreter.relative_to(base)
    for name in ("null", "zero", "urandom"):
        yield from ("--dev-bind", f"/dev/{name}", f"/dev/{name}")
    yield from ("--size", str(limits.scratch), "--tmpfs", SCRATCH, "--chdir", SCRATCH, "--remount-ro", "/")
    yield from ("--setenv", "HOME", SCRATCH, "--setenv", "TMPDIR", SCRATCH, "--setenv", "PYTHONHASHSEED", "0")
    yield from ("--seccomp", str(rules), "--", str(interpreter), "-I", "-S", "-B", "-u", "-c", _launcher(limits))


def _launcher(limits: Limits) -> str:
    values = {
        "RLIMIT_CPU": limits.cpu_s, "RLIMIT_AS": limits.memory, "RLIMIT_FSIZE": limits.file, "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": limits.descriptors, "RLIMIT_MEMLOCK": 0,
    }  # fmt: skip
    return LAUNCHER.format(limits=", ".join(f"({name!r}, {value})" for name, value in values.items()))


@contextlib.contextmanager
def _filter_file() -> Iterator[int]:
    """A descriptor from which bubblewrap reads the system-call filter."""
    code = b"".join(struct.pack("HBBI", *one) for one in filter_program(platform.machine()))
    reader, writer = os.pipe()
    try:
        os.write(writer, code)  # some hundred bytes, which any pipe takes at once
        os.close(writer)
        yield reader
    finally:
        os.close(reader)


def filter_program(machine: str) -> list[tuple[int, int, int, int]]:
    """The filter's instructions: (operation, jump if true, jump if false, value). A jump skips so many instructions."""
    refused = sorted({**REFUSED[machine], **SAME_EVERYWHERE}.values())
    count = len(refused)
    return [
        (LOAD_WORD, 0, 0, ARCHITECTURE_AT),
        (JUMP_IF_EQUAL, 0, count + 3, ARCHITECTURES[machine]),  # another architecture's table of calls: refuse
        (LOAD_WORD, 0, 0, NUMBER_AT),
        (JUMP_IF_AT_LEAST, count + 1, 0, X32),
        *[(JUMP_IF_EQUAL, count - at, 0, number) for at, number in enumerate(refused)],
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
