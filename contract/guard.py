"""Runs work in a child process that can be killed: a hostile page can keep C code busy for minutes, deaf to signals.

Each worker forks one child, which serves page after page over a pipe. A page that takes too much time or memory costs
the child, never the worker. The child dies with its parent. A page that exploits a library to run code is confined to
the child's sandbox (`contract.confinement`).
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

LONGEST_WAIT = 8  # on a busy machine a page waits at most this many times its limit, by the wall clock
PAGES_A_CHILD = 1000  # then a fresh child is forked, so that libraries' caches do not count against a page's memory
ANSWER_S = 30  # longest gap between two pieces of a page being sent or an answer being received
ENDING_S = 0.5  # a child that closed its pipe by ending has exited within this time
MEMORY_SIGN = 0.5  # a page that failed with more than this share of its memory used failed for lack of memory

Work = Callable[[bytes, str], bytes]
"""(body, note) -> result. Runs in the child; may raise."""


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"
    MEMORY = "memory"


@dataclass(frozen=True)
class Reply:
    """`data` is the result, or a description of the failure."""

    outcome: Outcome
    data: bytes = b""

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")


OUTCOMES = {outcome.value.encode(): outcome for outcome in Outcome}
NO_ANSWER = Reply(Outcome.FAILED, b"no answer of ours")


class Guard:
    """Calls `work` in a child with `seconds` of processor time and `memory_mb` of memory for each call."""

    def __init__(self, work: Work, seconds: float, memory_mb: int) -> None:
        self._work, self._seconds, self._memory = work, seconds, memory_mb << 20
        self._pid = 0
        self._pipe: Connection | None = None
        self._served = 0

    def call(self, body: bytes, note: str) -> Reply:
        """Return the child's answer; an exception in `work` becomes a reply too.

        A page that runs out of memory in a child that has served other pages is tried again in a fresh child: memory
        that the others left counts against it, and a process's peak never goes down.
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
            os.kill(self._pid, signal.SIGKILL)  # before the pipe is closed, or the child would exit by itself
            return os.waitpid(self._pid, 0)[1]
        except (ProcessLookupError, ChildProcessError):
            return 0
        finally:
            pipe.close()

    def __del__(self) -> None:
        if os is not None:  # it is None at the interpreter's end, and then the child dies with its parent
            self.close()

    def _wait(self, began: float) -> bool:
        """Wait for the answer; False if time is up. Processor time counts, so that a busy machine drops no pages."""
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
        """The reply for a child that ended by itself: killed for memory, crashed in C code, or aborted by a library."""
        assert self._pipe is not None
        self._pipe.close()
        self._pipe = None
        ends = time.monotonic() + ENDING_S
        while not (ended := os.waitpid(self._pid, os.WNOHANG))[0] and time.monotonic() < ends:
            time.sleep(0.005)
        if not ended[0]:  # the child lives on: it closed its pipe or sent half an answer
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
        # Libraries may turn a failed allocation into an error of their own or an empty result.
        if (outcome is Outcome.FAILED or not data) and _address_space("VmPeak") - base > MEMORY_SIGN * memory:
            outcome, data = Outcome.MEMORY, limit
        pipe.send_bytes(outcome.encode() + b"\n" + data)


def _address_space(field: str) -> int:
    """A field of this process's status, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(f"{field}:"))


def _cpu_seconds(pid: int) -> float:
    """Seconds of processor time that a process has used.

    Its clock id is ~pid << 3 | CPUCLOCK_SCHED, see clock_getcpuclockid(3).
    """
    return time.clock_gettime(~pid << 3 | 2)
