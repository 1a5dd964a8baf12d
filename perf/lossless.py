"""Is committed data ever lost or doubled? Faults injected one at a time into a task that commits: `python -m perf.lossless`.

The task writes three files and commits them, as a stage does. Every change that it makes to the store (a file opened, written, closed,
synced, linked, removed, a folder made) is the place of one fault of each kind: an error, a kill -9, another attempt that is faster, `gc`. Then it is run again
as Airflow would, and everything older than an hour is collected. Beside that: what NFS may answer to a link, files cut after they were
written, and the same for training's checkpoints.

LOST OR DOUBLED is a fault after which no result stands, or one whose files are not those that its attempt wrote, or another than any attempt
was told or any reader saw.
"""

import argparse
import contextlib
import errno
import io
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract import gc
from contract.errors import GristmillError
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, Rows, find, read_all
from contract.plan import Run, Task, resolve
from contract.store import Store
from perf.bars import Bars

CHANGES = (
    (Store, "open_output"),
    (Store, "delete"),
    (os, "makedirs"),
    (os, "fsync"),
    (os, "link"),
    (os, "unlink"),
)
CODES = (errno.EMFILE, errno.ENOSPC, errno.EIO)
HOURS = 3600
ROWS = 10  # of each of the three files


@dataclass
class Case:
    """One store with one task, and what was told of it meanwhile."""

    run: Run
    task: Task
    told: list[Manifest] = field(default_factory=list)
    struck: bool = False

    @property
    def store(self) -> Store:
        return self.run.store

    def attempt(self) -> None:
        """What one start of the task does: nothing where it is done, else everything from the first file to the commit."""
        done = find(self.store, self.task)
        if done is None:
            made = Attempt(self.run, self.task)
            with made.running():
                done = made.commit(
                    [self._write(made, number) for number in range(3)], Rows(read=3 * ROWS, kept=3 * ROWS)
                )
        self.told.append(done)

    def _write(self, attempt: Attempt, number: int) -> File:
        data = content(attempt.id, number)
        self.store.write_bytes(attempt.path(f"part-{number}"), data)
        return File(path=attempt.path(f"part-{number}"), kind=Kind.DOCUMENTS, bytes=len(data), rows=ROWS)

    def age(self) -> None:
        """Everything in the store was written two hours ago."""
        for entry in self.store.files():
            with contextlib.suppress(FileNotFoundError):
                os.utime(f"{self.store.root}/{entry.path}", (self.store.clock() - 2 * HOURS,) * 2)

    def collect(self) -> None:
        gc.collect(self.store, HOURS, self.store.clock(), delete=True)

    def wrong(self) -> str:
        """What was lost or doubled; empty where nothing was."""
        stands = find(self.store, self.task)
        if stands is None:
            return "no result stands"
        if any(one != stands for one in self.told):
            return "another result was told before"
        if [one.attempt for one in read_all(self.store)[0]] != [stands.attempt]:
            return "there is more than one result"
        if [file.rows for file in stands.files] != [ROWS] * 3:
            return "rows are lost or doubled"
        for number, file in enumerate(stands.files):
            try:
                with file.open(self.store) as source:
                    if source.read() != content(stands.attempt, number):
                        return f"{file.path} holds something else"
            except GristmillError as error:
                return str(error)
        return ""


def content(attempt: str, number: int) -> bytes:
    return f"{number} of {attempt}\n".encode() * ROWS


@contextlib.contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    real = getattr(owner, name)
    setattr(owner, name, make(real))
    try:
        yield
    finally:
        setattr(owner, name, real)


class Sink:
    """A file that is being written: what is written to it and its end are changes too."""

    def __init__(self, file: Any, counting: Callable[[Any], Any]) -> None:
        self._file = file
        self.write, self.close = counting(file.write), counting(file.close)

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def at_change(case: Case, number: int, strike: Callable[[], None]) -> Iterator[list[int]]:
    """Call `strike` in place of the change of this number, counted from 1, and then make the change. What `strike` changes is not counted."""
    count, striking = [0], [False]

    def counting(real: Any) -> Any:
        def change(*given: Any, **named: Any) -> Any:
            if not striking[0]:
                count[0] += 1
                if count[0] == number:
                    case.struck = striking[0] = True
                    try:
                        strike()
                    finally:
                        striking[0] = False
            made = real(*given, **named)
            return Sink(made, counting) if hasattr(made, "write") else made

        return change

    with contextlib.ExitStack() as patched:
        for owner, name in CHANGES:
            patched.enter_context(replaced(owner, name, counting))
        yield count


def fail(code: int) -> Callable[[], None]:
    def strike() -> None:
        raise OSError(code, os.strerror(code))

    return strike


def killed(case: Case, number: int) -> None:
    """The attempt in a child process that ends as by kill -9."""
    child = os.fork()
    if not child:
        try:
            with at_change(case, number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                case.attempt()
        finally:
            os._exit(1)
    case.struck = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def collected(case: Case, alive: bool) -> Callable[[], None]:
    """`gc` finds files two hours old: of an attempt that lives and has just beaten, or of one that slept as long as its machine."""

    def strike() -> None:
        case.age()
        for folder in {
            entry.path.rpartition("/")[0] for entry in case.store.files("crawl") if "/attempt-" in entry.path
        }:
            if alive:
                case.store.write_bytes(f"{folder}/heartbeat", b"alive")
        case.collect()

    return strike


def answered(case: Case, code: int, made: bool, rival: bool) -> None:
    """An attempt to whose link NFS answers with an error, made or not; a rival may have been faster."""

    def make(link: Any) -> Any:
        def answer(one: str, other: str) -> None:
            case.struck = True
            if rival:
                with replaced(os, "link", lambda _: link):
                    case.attempt()
            if made and not rival:
                link(one, other)
            raise OSError(code, os.strerror(code))

        return answer

    with replaced(os, "link", make):
        case.attempt()


def cut(case: Case, size: int) -> None:
    """A file that is shorter, or longer, on the server than the writer was told."""

    def make(write: Any) -> Any:
        def cutting(store: Store, path: str, data: bytes) -> None:
            write(store, path, data)
            if path.endswith("part-1"):
                case.struck = True
                os.truncate(f"{store.root}/{path}", size)

        return cutting

    with replaced(Store, "write_bytes", make):
        case.attempt()


def faults(changes: int) -> Iterator[tuple[str, Callable[[Case], None]]]:
    """(kind, what happens to a case), each to one of its own."""
    for number in range(1, changes + 1):
        for code in CODES:
            yield f"error {errno.errorcode[code]}", lambda case, n=number, code=code: _struck(case, n, fail(code))
        yield "killed writer", lambda case, n=number: killed(case, n)
        yield "faster rival", lambda case, n=number: _struck(case, n, case.attempt)
        yield "gc beside a living attempt", lambda case, n=number: _struck(case, n, collected(case, True))
        yield "gc beside a sleeping attempt", lambda case, n=number: _struck(case, n, collected(case, False))
    for code in (errno.EEXIST, errno.EIO, errno.ESTALE, errno.ETIMEDOUT):
        for made in (True, False):
            for rival in (False, True):
                if code != errno.EEXIST or made or rival:
                    yield "answer of NFS", lambda case, *given, a=(code, made, rival): answered(case, *a)
    for size in (0, 1, 10_000):
        yield "file cut", lambda case, size=size: cut(case, size)


def _struck(case: Case, number: int, strike: Callable[[], None]) -> None:
    with at_change(case, number, strike):
        case.attempt()


def judge(case: Case, fault: Callable[[Case], None]) -> str:
    """What was lost or doubled when the fault happened to the case and the task was then run again."""
    with contextlib.suppress(GristmillError, OSError):
        fault(case)
    try:
        if seen := find(case.store, case.task):
            case.told.append(seen)
        case.attempt()
        case.age()
        case.collect()
        return case.wrong()
    except GristmillError as error:
        return f"the task cannot be run again: {error}"


def new_case(folder: Path, number: int) -> Case:
    run = resolve(str(folder / "recipe.yaml"), "one", [f"store={folder}/store-{number}"])
    return Case(run, run.task("crawl", run.segments[0].partition))


def checkpoint_faults(folder: Path) -> Iterator[tuple[str, str]]:
    """(kind, what was lost) of training's checkpoints: two are saved, reading is disturbed, and both must stand or the older one be used."""
    from training.engine import checkpoint
    from training.engine.job import Job

    os.environ["GRISTMILL_SCRATCH"] = str(folder / "scratch")
    transient = (errno.EMFILE, errno.ESTALE, errno.EIO, errno.EACCES)
    for number, code in enumerate([*transient, *transient, 0, 0, 0, 0]):
        case = new_case(folder, 10_000 + number)
        task = case.run.task("pretrain")
        job = Job(case.run, task, Attempt(case.run, task))
        for step in (1, 2):
            checkpoint.save(job, step, {}, {})  # of no engine: random states alone
        name = next(file.path for file in checkpoint.committed(job)[0].files if "/random-" in file.path)
        if not code:
            damage(Path(case.store.root, name), number)
            step, wanted, kind = checkpoint.restore(job, {})[0], 1, "checkpoint damaged"
        else:
            owner = Store if number < len(transient) else Path
            with (
                contextlib.suppress(GristmillError),
                replaced(owner, "open_input" if owner is Store else "open", unreadable(code)),
            ):
                checkpoint.restore(job, {})
            step, wanted, kind = checkpoint.restore(job, {})[0], 2, f"checkpoint {errno.errorcode[code]}"
        left = len(
            {entry.path.split("/")[2] for entry in case.store.files("pretrain") if entry.path.endswith("safetensors")}
        )
        yield kind, "" if (step, left) == (wanted, 2) else f"went on from step {step}, {left} of 2 checkpoints are left"


def unreadable(code: int) -> Callable[[Any], Any]:
    """Every opening of a file of tensors ends with this error."""

    def make(real: Any) -> Any:
        def opening(one: Any, *given: Any, **named: Any) -> Any:
            if str(one if isinstance(one, Path) else given[0]).endswith(".safetensors"):
                raise OSError(code, os.strerror(code))
            return real(one, *given, **named)

        return opening

    return make


def damage(path: Path, how: int) -> None:
    data = path.read_bytes()
    path.write_bytes((data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b"\xff" * 8 + data[8:], b"")[how % 4])


def measure(folder: Path) -> tuple[int, list[str]]:
    """(faults that happened, what was lost or doubled by which)."""
    (folder / "crawl").mkdir()
    (folder / "crawl" / "a.warc").write_bytes(random.Random(1).randbytes(1000))
    (folder / "recipe.yaml").write_text(f"{{store: {folder}/store, crawl: {{source: {folder}/crawl}}}}")
    with at_change(first := new_case(folder, 0), 0, lambda: None) as changes:
        first.attempt()
    happened: Counter[str] = Counter()
    wrong = []
    for number, (kind, fault) in enumerate(faults(changes[0]), 1):
        case = new_case(folder, number)
        if said := judge(case, fault):
            wrong.append(f"{kind}: {said}")
        happened[kind] += case.struck
    with contextlib.redirect_stdout(io.StringIO()):  # which checkpoint was resumed
        checkpoints = [*checkpoint_faults(folder)]
    for kind, said in checkpoints:
        happened[kind] += 1
        if said:
            wrong.append(f"{kind}: {said}")
    for kind, count in happened.items():
        print(f"{kind:32} {count:4}")
    return happened.total(), wrong


def main() -> int:
    argparse.ArgumentParser(prog="python -m perf.lossless", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="gristmill-lossless-") as folder:
        happened, wrong = measure(Path(folder))
    print(*wrong, sep="\n")
    bars = Bars()
    bars.at_least("faults_injected", happened, 60)
    bars.at_most("lost_or_doubled", len(wrong), 0)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
