"""Does the sandbox hold: programs that try to break out of it, or to pass without being right.

`python -m perf.evaluate --only escapes` runs all of them, on a machine where there is something to find: a server on a port and one on a
socket, a file with a secret in the home folder, a secret in the environment, a process to kill. A program prints ESCAPED when it has got
what it should not; the host also looks for connections, files, dead or left-over processes, and for time.

`bare` are attempts that are harmless enough to be made without a sandbox, where they must succeed: an attempt that cannot succeed anywhere
would show nothing.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from evals.sandbox import MIB, Limits
from evals.sandbox import run as run_program
from perf.bars import Bars

LEAST = 25
GRACE_S = 6.0  # a busy machine starts and ends processes late
CALL = "import ctypes, os, platform\nlibc = ctypes.CDLL(None, use_errno=True)\nx86 = platform.machine() == 'x86_64'\n"
ESCAPED = "print('ESCAPED')"


@dataclass(frozen=True)
class Attempt:
    """One program. by_passing: it escapes if it counts as passed, which no program here deserves."""

    name: str
    program: str
    bare: bool = False
    by_passing: bool = False


def opened(path: str) -> str:
    return f"print('ESCAPED', open({path!r}).read()[:20])"


def called(name: str, call: str) -> Attempt:
    """A system call that must be refused: it escapes by any result but -1."""
    return Attempt(name, f"{CALL}if {call} != -1: {ESCAPED}")


ATTEMPTS = (
    # processes
    Attempt("fork", f"import os\nif os.fork() >= 0: {ESCAPED}", bare=True),
    Attempt("fork bomb", f"import os\nwhile True:\n    os.fork()\n    {ESCAPED}"),
    called("fork by its number", "libc.syscall(57 if x86 else 220, 17, 0, 0, 0, 0)"),
    called("clone by its number", "libc.syscall(56 if x86 else 220, 17, 0, 0, 0, 0)"),
    called("clone3", "libc.syscall(435, ctypes.create_string_buffer(88), 88)"),
    Attempt("posix_spawn", f"import os\nos.posix_spawn('/usr/bin/env', ['env'], {{}})\n{ESCAPED}", bare=True),
    Attempt("a shell", f"import subprocess\nsubprocess.run('true', shell=True, check=True)\n{ESCAPED}", bare=True),
    Attempt(
        "a daemon of a session of its own",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\n" + ESCAPED,
    ),
    Attempt("a thread", f"import threading\nthreading.Thread(target=print).start()\n{ESCAPED}", bare=True),
    Attempt("threads without end", f"import threading, time\nthreading.stack_size(32768)\nwhile True:\n    threading.Thread(target=time.sleep, args=(600,)).start()\n    {ESCAPED}"),
    Attempt("kill the parent", "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(1)\nos.kill(1, signal.SIGKILL)"),
    Attempt("kill everything", "import os, signal\nos.kill(-1, signal.SIGKILL)"),
    Attempt("kill a process of the host", f"import os, signal\nos.kill(@VICTIM@, signal.SIGKILL)\n{ESCAPED}"),
    Attempt("stop the parent", "import os, signal, time\nos.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(600)"),
    # network and sockets
    Attempt("a port of the host", f"import socket\nsocket.create_connection(('127.0.0.1', @PORT@), 3)\n{ESCAPED}", bare=True),
    Attempt("a web page", "import urllib.request\nprint('ESCAPED', urllib.request.urlopen('http://127.0.0.1:@PORT@/', timeout=3).status)", bare=True),
    Attempt("UDP", f"import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', @PORT@))\n{ESCAPED}", bare=True),
    Attempt("a raw socket", f"import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\n{ESCAPED}"),
    Attempt("a packet socket", f"import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n{ESCAPED}"),
    Attempt("netlink", f"import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n{ESCAPED}", bare=True),
    Attempt("a UNIX socket of the host", f"import socket\nsocket.socket(socket.AF_UNIX).connect('@SOCKET@')\n{ESCAPED}", bare=True),
    Attempt("an abstract socket of the host", f"import socket\nsocket.socket(socket.AF_UNIX).connect('\\x00@ABSTRACT@')\n{ESCAPED}", bare=True),
    Attempt("a pair of sockets", f"import socket\nsocket.socketpair()\n{ESCAPED}", bare=True),
    called("a pair of sockets by its number", "libc.syscall(53 if x86 else 199, 1, 1, 0, (ctypes.c_int * 2)())"),
    called("io_uring, which has sockets of its own", "libc.syscall(425, 4, ctypes.create_string_buffer(120))"),
    # files
    Attempt("/etc/passwd", opened("/etc/passwd"), bare=True),
    Attempt("/etc/shadow", opened("/etc/shadow")),
    Attempt("a secret in the home folder", opened("@SECRET@"), bare=True),
    Attempt("the home folder", "import os\nif os.listdir('@HOME@'): " + ESCAPED, bare=True),
    Attempt("a symbolic link to the secret", "import os\nos.symlink('@SECRET@', 'link')\nprint('ESCAPED', open('link').read())", bare=True),
    Attempt("a link of links upwards", "import os\nos.symlink('../../../../../..' + '@SECRET@', 'up')\nprint('ESCAPED', open('up').read())", bare=True),
    Attempt("a hard link to a program", f"import os\nos.link('/usr/bin/env', 'env')\n{ESCAPED}"),
    Attempt("a file outside", f"open('@HOME@/marker', 'w').write('x')\n{ESCAPED}", bare=True),
    Attempt("a file in the root", f"open('/marker', 'w').write('x')\n{ESCAPED}"),
    Attempt("a file in /usr", f"open('/usr/marker', 'w').write('x')\n{ESCAPED}"),
    Attempt("a module of Python", f"import os\nopen(os.path.dirname(os.__file__) + '/marker', 'w').write('x')\n{ESCAPED}"),
    Attempt("/dev/shm", f"open('/dev/shm/marker', 'w').write('x')\n{ESCAPED}"),
    Attempt("memory of the kernel", opened("/dev/mem")),
    Attempt("a device node", f"import os, stat\nos.mknod('disk', 0o600 | stat.S_IFBLK, os.makedev(8, 0))\nopen('disk', 'rb')\n{ESCAPED}"),
    Attempt("an inherited descriptor", "import os\nfor n in range(3, 64):\n    try: os.fstat(n)\n    except OSError: continue\n    print('ESCAPED', n)"),
    # /proc and other processes
    Attempt("the environment of the first process", opened("/proc/1/environ")),
    Attempt("the root of the first process", "import os\nprint('ESCAPED', os.listdir('/proc/1/root'))"),
    Attempt("its own memory as a file", f"open('/proc/self/mem', 'r+b')\n{ESCAPED}", bare=True),
    Attempt("the kernel's settings", f"open('/proc/sys/kernel/core_pattern', 'w')\n{ESCAPED}"),
    Attempt("the cgroups", "import os\nprint('ESCAPED', os.listdir('/sys/fs/cgroup'))", bare=True),
    called("trace the parent", "libc.ptrace(16, os.getppid(), 0, 0)"),
    called("read the parent's memory", "libc.process_vm_readv(os.getppid(), ctypes.create_string_buffer(16), 1, ctypes.create_string_buffer(16), 1, 0)"),
    Attempt("a secret in the environment", "import os\nif '@WORD@' in os.environ.values(): " + ESCAPED, bare=True),
    Attempt("the host's name", "import socket\nif socket.gethostname() != 'sandbox': " + ESCAPED, bare=True),
    # rights, namespaces, mounts
    Attempt("become root", f"import os\nos.setuid(0)\n{ESCAPED}"),
    Attempt("a program that makes root", "import os\nos.execv('/usr/bin/su', ['su', '-c', 'echo ESCAPED'])"),
    called("a new user namespace", "libc.unshare(0x10000000)"),
    called("a new mount namespace", "libc.unshare(0x00020000)"),
    called("mount a file system", "libc.mount(b'none', b'/scratch', b'tmpfs', 0, b'size=10g')"),
    called("mount /proc", "libc.mount(b'proc', b'/scratch', b'proc', 0, None)"),
    called("the root writable", "libc.mount(None, b'/', None, 32 | 4096, None)"),
    called("unmount", "libc.umount2(b'/usr', 2)"),
    called("change the root", "libc.chroot(b'/usr')"),
    called("a new mount by its new call", "libc.syscall(430, b'tmpfs', 0)"),
    called("the kernel's keys", "libc.syscall(250 if x86 else 219, 0, -3, 1)"),
    called("a program in the kernel", "libc.syscall(321 if x86 else 280, 0, ctypes.create_string_buffer(120), 120)"),
    # limits
    Attempt("10 GB of memory", f"data = bytearray(10 << 30)\n{ESCAPED}"),
    Attempt("10 GB in small pieces", f"held = [bytearray(MIB) for MIB in [1 << 20] * 10240]\n{ESCAPED}"),
    Attempt("10 GB of mapped memory", f"import mmap\nheld = mmap.mmap(-1, 10 << 30)\n{ESCAPED}"),
    called("a file in memory that no limit counts", "libc.memfd_create(b'x', 0)"),
    called("shared memory that no limit counts", "libc.shmget(0, 1 << 20, 0o1600)"),
    Attempt("more memory by higher limits", f"import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n{ESCAPED}", bare=True),
    Attempt("a loop without end", "while True: pass"),
    Attempt("sleep", "import time\ntime.sleep(600)"),
    Attempt("a loop that ignores signals", "import signal\nfor n in set(signal.Signals) - {9, 19}: signal.signal(n, lambda *_: None)\nwhile True: pass"),
    Attempt("a full disk", f"for n in range(1000): open(str(n), 'wb').write(bytes(1 << 20))\n{ESCAPED}"),
    Attempt("a million files", f"for n in range(1_000_000): open(str(n), 'wb').write(b'x')\n{ESCAPED}"),
    Attempt("a large file", f"f = open('large', 'wb')\nfor _ in range(64): f.write(bytes(1 << 20))\nf.flush()\n{ESCAPED}"),
    Attempt("a flood on standard output", "while True: print('x' * 65536)"),
    Attempt("a flood on standard error", "import sys\nwhile True: sys.stderr.write('x' * 65536)"),
    Attempt("descriptors without end", f"held = [open('/dev/null') for _ in range(1000)]\n{ESCAPED}"),
    Attempt("a stack without end", "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", by_passing=True),
    # to pass without being right
    Attempt("leave with 0", "raise SystemExit(0)", by_passing=True),
    Attempt("leave at once", "import os\nos._exit(0)", by_passing=True),
    Attempt("fail and never leave", "import os, sys\nos._exit = sys.exit = lambda code=0: None\nassert False", by_passing=True),
    Attempt("fail and tell nobody", "import traceback\ntraceback.print_exception = lambda *a, **k: None\nassert False", by_passing=True),
    Attempt("the word from the main module", "import __main__, os\nos.write(1, b'\\n' + __main__.word)\nos._exit(0)", by_passing=True),
    Attempt("the word from standard input", "import os\nos.lseek(0, 0, 0)\nos.write(1, b'\\n' + os.read(0, 32))\nos._exit(0)", by_passing=True),
    Attempt("a crash", "import ctypes\nctypes.string_at(0)", by_passing=True),
    Attempt("close standard output", "import os\nos.close(1)", by_passing=True),
)  # fmt: skip


@dataclass
class World:
    """What there is to find and to harm on the host."""

    home: Path
    word: str
    port: int
    victim: subprocess.Popen[bytes]
    touched: list[str] = field(default_factory=list)

    def filled(self, program: str) -> str:
        places = {
            "PORT": str(self.port), "HOME": str(self.home), "SECRET": str(self.home / "secret"), "WORD": self.word,
            "SOCKET": str(self.home / "socket"), "ABSTRACT": self.word, "VICTIM": str(self.victim.pid),
        }  # fmt: skip
        for name, value in places.items():
            program = program.replace(f"@{name}@", value)
        return program

    def harm(self) -> list[str]:
        """What the host noticed since it was asked last."""
        found, self.touched = self.touched, []
        if (self.home / "marker").exists():
            (self.home / "marker").unlink()
            found.append("a file was written")
        if self.victim.poll() is not None:
            found.append("a process was killed")
        return found


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Servers, a secret and a victim, for as long as attempts are made."""
    word = secrets.token_hex(8)
    servers = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    os.environ["GRISTMILL_BENCH_SECRET"] = word
    with tempfile.TemporaryDirectory(prefix="escapes-", dir=Path.home()) as folder:
        home = Path(folder)
        (home / "secret").write_text(word)
        servers[1].bind(str(home / "socket"))
        servers[2].bind(f"\0{word}")
        made = World(home, word, servers[0].getsockname()[1], victim)
        for server in servers:
            server.listen()
            threading.Thread(target=_accept, args=(server, made.touched), daemon=True).start()
        try:
            yield made
        finally:
            victim.kill()
            victim.wait()
            del os.environ["GRISTMILL_BENCH_SECRET"]
            for server in servers:
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)
                server.close()


def _accept(server: socket.socket, touched: list[str]) -> None:
    while True:
        try:
            caller, _ = server.accept()
        except OSError:
            return
        touched.append("a connection was made")
        with contextlib.suppress(OSError), caller:
            caller.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")


def limits_of(attempt: Attempt) -> Limits:
    """Short limits, whose largest file is no other program's: processes that are left over are known by it."""
    return Limits(cpu_s=2, wall_s=3.0, file=16 * MIB + os.getpid() % 60_000 * len(ATTEMPTS) + ATTEMPTS.index(attempt))


def escaped(attempt: Attempt, there: World) -> str | None:
    """How an attempt got out; None if it did not."""
    limits = limits_of(attempt)
    ended = run_program(there.filled(attempt.program), limits)
    if harm := there.harm():
        return "; ".join(harm)
    if "ESCAPED" in ended.output:
        return ended.output.strip()
    if ended.passed and attempt.by_passing:
        return "it counts as passed"
    if ended.seconds > limits.wall_s + GRACE_S:
        return f"it ran for {ended.seconds:.1f} s"
    return _left_over(limits)


def _left_over(limits: Limits) -> str | None:
    """Processes of an attempt that live on after it; what was killed may take a moment to go."""
    for _ in range(50):
        if not (found := _running(f"'RLIMIT_FSIZE', {limits.file}")):
            return None
        time.sleep(0.1)
    for process in found:
        os.kill(process, signal.SIGKILL)
    return f"{len(found)} processes lived on"


def _running(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "cmdline").read_bytes() and "(zombie)" not in (folder / "status").read_text():
                found.append(int(folder.name))
    return found


def bare(attempt: Attempt, there: World) -> bool:
    """Whether an attempt gets what it wants without a sandbox, in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=there.home) as folder:
        command = [sys.executable, "-I", "-S", "-c", there.filled(attempt.program)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    there.harm()
    return "ESCAPED" in done.stdout


def tried() -> dict[str, str | None]:
    """Every attempt, by name: how it got out, or None. Many wait for their limits, so several run at a time."""
    with world() as there, ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda attempt: escaped(attempt, there), ATTEMPTS)]
    return {attempt.name: how for attempt, how in zip(ATTEMPTS, found, strict=True)}


def run(bars: Bars, data: Path) -> None:
    """`data` is not needed."""
    found = tried()
    for name, how in found.items():
        print(f"{name}: {'held' if how is None else f'ESCAPED: {how}'}")
    bars.at_least("escapes_tried", len(found), LEAST)
    bars.exactly("sandbox_escapes", sum(how is not None for how in found.values()), 0)
