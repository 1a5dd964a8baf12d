"""Ranks that start at once: forks of a process that has imported torch, DeepSpeed, transformers and the stages.

`python -m tests.forked FD` is that process. Each message on the socket FD starts one group of ranks. A group has a process of
its own above it, as under a launcher, because ranks of one machine find each other by their parent.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

LOADED = (
    "deepspeed", "transformers",
    *(f"training.{name}" for name in ("pretrain", "sft", "reward", "dpo", "ppo", "grpo", "evaluate", "benchmark", "sample")),
)  # fmt: skip
OF_RANKS = ("RANK", "LOCAL_", "WORLD_SIZE", "MASTER_", "GLOO_", "NCCL_")
"""How names of variables begin that a rank has of its group."""
CPU = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
MOST_BYTES = 200_000  # of one message


class Forks:
    """The process that has everything imported. It ends with `close`, or with the process that has made it."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OF_RANKS)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                cwd=Path(__file__).parents[1],
                env=environment | CPU,
                pass_fds=[theirs.fileno()],
            )

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], processes: int, timeout: float
    ) -> tuple[int, list[str]]:
        """Ranks do what `python ARGUMENTS` does, with these variables beside the tests' own; `arguments` begin with -m or -c.

        Returns the first exit code that is not 0, else 0, and what each rank printed. Ranks that take longer are killed.
        """
        given = {name: value for name, value in os.environ.items() if not name.startswith(OF_RANKS)} | CPU
        given |= {"WORLD_SIZE": str(processes), "LOCAL_SIZE": str(processes), **environment}
        message = json.dumps({"arguments": list(arguments), "environment": given}).encode()
        with ExitStack() as opened:
            outputs = [opened.enter_context(tempfile.TemporaryFile()) for _ in range(processes)]
            answers, theirs = map(opened.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            socket.send_fds(self._requests, [message], [theirs.fileno(), *(one.fileno() for one in outputs)])
            theirs.close()
            group = int(answers.recv(MOST_BYTES))
            answers.settimeout(timeout)
            try:
                code = int(answers.recv(MOST_BYTES) or -signal.SIGKILL)
            except TimeoutError:
                os.killpg(group, signal.SIGKILL)
                code = -signal.SIGALRM
            for output in outputs:
                output.seek(0)
            return code, [output.read().decode() for output in outputs]

    def close(self) -> None:
        self._requests.close()
        self._process.wait(60)


def serve(requests: socket.socket) -> None:
    """Fork a group for each message, until the other end is closed."""
    for name in LOADED:
        importlib.import_module(name)
    threads = {Path(f"/proc/self/task/{one}/comm").read_text().strip() for one in os.listdir("/proc/self/task")}
    assert len(threads - {"jemalloc_bg_thd"}) == 1, (
        f"a fork would lack threads: {threads}"
    )  # jemalloc starts its own again
    gc.freeze()  # the ranks leave the pages of these objects alone
    while True:
        message, files, _, _ = socket.recv_fds(requests, MOST_BYTES, 32)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            _lead(json.loads(message), socket.socket(fileno=files[0]), files[1:])
        for file in files:
            os.close(file)
        while True:  # earlier groups that have ended
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break


def _lead(request: dict[str, Any], answers: socket.socket, outputs: Sequence[int]) -> None:
    """Start the ranks of one group, wait for them, and answer with the first exit code that is not 0. Does not return."""
    os.setsid()
    answers.send(str(os.getpid()).encode())
    ranks = set()
    for number, output in enumerate(outputs):
        rank = os.fork()
        if rank == 0:
            answers.close()
            _run(request, number, output)
        ranks.add(rank)
    code = 0
    while ranks:
        rank, status = os.wait()
        ranks.discard(rank)
        code = code or os.waitstatus_to_exitcode(status)
        if code:  # as a launcher: the others would wait for ever
            for other in ranks:
                os.kill(other, signal.SIGKILL)
    answers.send(str(code).encode())
    os._exit(0)


def _run(request: dict[str, Any], number: int, output: int) -> None:
    """Be one rank. Does not return."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(request["environment"], RANK=str(number), LOCAL_RANK=str(number))
    (kind, what), code = request["arguments"][:2], 0
    sys.argv = [kind, *request["arguments"][2:]]
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
