"""A child process that may be killed: hostile pages hold C code for minutes, and no signal handler runs until it returns.

One child is forked per worker and serves page after page over a pipe. A page that takes too much time or memory costs the child,
never the worker. The child dies with its parent. A page that takes over the libraries finds itself confined (`contract.confinement`).
"""

import multiprocessing
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection

from contract.confinement import confine

LONGEST_WAIT = 8  # a page that is not getting its processor time waits this many times the limit on the clock
PAGES_A_CHILD = 1000  # a fresh child from time to time, so that what libraries cache does not count against a page
ANSWER_S = 30  # from one piece to the next, of a page that is sent or an answer that has begun
ENDING_S = 0.5  # a child whose pipe is closed has ended by then
MEMORY_SIGN = 0.5  # a page that failed with this share of its memory in use has failed for want of memory

Work = Callable[[bytes, str], bytes]
"""(body, note) -> result. Runs in the child; may raise."""


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"
    MEMORY = "memory"


@dataclass(frozen=True)
class Reply:
    """`data` is the result, or what went wrong."""

    outcome: Outcome
    data: bytes = b""

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")


OUTCOMES = {one.value.encode(): one for one in Outcome}
NO_ANSWER = Reply(Outcome.FAILED, b"no answer of ours")


class Guard:
    """Calls `work` in a child with `seconds` of processor time and `memory_mb` of memory for each call."""

    def __init__(self, work: Work, seconds: float, memory_mb: int) -> None:
        self._work, self._seconds, self._memory = work, seconds, memory_mb << 20
        self._pid = 0
        self._pipe: Connection | None = None
        self._served = 0

    def call(self, body: bytes, note: str) -> Reply:
        """The child's answer; never raises for what the work does.

        A page that wants memory in a child that has served others is asked again of a fresh one: what they left counts against it,
        and a process's peak never goes down.
        """
        reply = self._ask(body, note)
        return self._ask(body, note) if reply.outcome is Outcome.MEMORY and self._served > 1 else reply

    def _ask(self, body: bytes, note: str) -> Reply:
        if self._pipe is None or self._served >= PAGES_A_CHILD:
            self._spawn()
        assert self._pipe is not None
        self._served += 1
        try:
            began = _cpu_seconds(self._pid)
            self._pipe.send_bytes(note.encode("utf-8", "replace").replace(b"\n", b" ") + b"\n" + body)
            if not self._wait(began):
                self.close()
                return Reply(Outcome.TIMEOUT, f"{self._seconds:g} s".encode())
            said, _, data = self._pipe.recv_bytes(self._memory).partition(b"\n")
        except (EOFError, OSError):
            return self._died()
        outcome = OUTCOMES.get(said)
        if outcome is None:  # a page has taken the child over
            self.close()
            return NO_ANSWER
        if outcome is Outcome.MEMORY:
            self.close()
        return Reply(outcome, data)

    def close(self) -> int:
        """End the child, if there is one, and return its wait status."""
        if self._pipe is None:
            return 0
        pipe, self._pipe = self._pipe, None
        try:
            os.kill(self._pid, signal.SIGKILL)  # before its pipe is closed, at which it would end by itself
            return os.waitpid(self._pid, 0)[1]
        except (ProcessLookupError, ChildProcessError):
            return 0
        finally:
            pipe.close()

    def __del__(self) -> None:
        if os is not None:  # as at the interpreter's end, where the child goes with its parent
            self.close()

    def _wait(self, began: float) -> bool:
        """True once the answer is there. Counts processor time, so that a busy machine does not drop pages."""
        assert self._pipe is not None
        deadline = time.monotonic() + LONGEST_WAIT * self._seconds
        left = self._seconds
        while not self._pipe.poll(left):
            left = self._seconds - (_cpu_seconds(self._pid) - began)
            if left <= 0 or time.monotonic() >= deadline:
                return False
            left = max(left, 0.01)
        return True

    def _died(self) -> Reply:
        """The child ended by itself: the kernel's memory killer, a crash in C code, or a library's abort."""
        assert self._pipe is not None
        self._pipe.close()
        self._pipe = None
        ends = time.monotonic() + ENDING_S
        while not (ended := os.waitpid(self._pid, os.WNOHANG))[0] and time.monotonic() < ends:
            time.sleep(0.005)
        if not ended[0]:  # it has closed its pipe, or sends half an answer, and lives on
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            return NO_ANSWER
        status = ended[1]
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number in (signal.SIGKILL, signal.SIGABRT):
                return Reply(Outcome.MEMORY, signal.Signals(number).name.encode())
            return Reply(Outcome.FAILED, signal.Signals(number).name.encode())
        return Reply(Outcome.FAILED, f"exit {os.waitstatus_to_exitcode(status)}".encode())

    def _spawn(self) -> None:
        self.close()
        ours, theirs = multiprocessing.Pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                confine(theirs.fileno(), parent)
                _serve(theirs, self._work, self._memory)
            finally:
                os._exit(1)
        theirs.close()
        with socket.socket(fileno=os.dup(ours.fileno())) as end:
            for way in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                end.setsockopt(socket.SOL_SOCKET, way, struct.pack("ll", ANSWER_S, 0))
        self._pipe, self._served = ours, 0


def _serve(pipe: Connection, work: Work, memory: int) -> None:
    base = _address_space("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (base + memory, base + memory))
    limit = f"{memory >> 20} MiB".encode()
    while True:
        try:
            note, _, body = pipe.recv_bytes().partition(b"\n")
        except EOFError:
            os._exit(0)
        try:
            outcome, data = Outcome.DONE, work(body, note.decode())
        except MemoryError:
            outcome, data = Outcome.MEMORY, limit
        except Exception as error:
            outcome, data = Outcome.FAILED, type(error).__name__.encode("utf-8", "replace")
        # Libraries turn a failed allocation into an error of their own, or into an empty result.
        if (outcome is Outcome.FAILED or not data) and _address_space("VmPeak") - base > MEMORY_SIGN * memory:
            outcome, data = Outcome.MEMORY, limit
        pipe.send_bytes(outcome.encode() + b"\n" + data)


def _address_space(field: str) -> int:
    """A field of this process's status, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(f"{field}:"))


def _cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in seconds, by its own clock (clock_getcpuclockid(3): ~pid << 3 | CPUCLOCK_SCHED)."""
    return time.clock_gettime(~pid << 3 | 2)
