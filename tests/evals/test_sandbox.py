"""The sandbox: what runs in it, what does not get out of it, and that nothing runs without it."""

import os
import platform
import re
import time
from pathlib import Path

import pytest

from contract.confinement import ALLOW, ARCHITECTURES, REFUSE, X32
from contract.errors import SetupError
from evals import sandbox
from evals.sandbox import Limits, at_once, filter_program, run, run_all
from perf.evaluate.escapes import ATTEMPTS, LEAST, bare, tried, world
from tests.evals.conftest import needs_sandbox

SHORT = Limits(cpu_s=1, wall_s=3.0)


@pytest.fixture(scope="module")
def attempts() -> dict[str, str | None]:
    return tried()


@needs_sandbox
@pytest.mark.parametrize("name", [one.name for one in ATTEMPTS])
def test_nothing_gets_out(name: str, attempts: dict[str, str | None]) -> None:
    assert attempts[name] is None


def test_there_are_enough_attempts_and_each_has_a_name() -> None:
    assert len({one.name for one in ATTEMPTS}) == len(ATTEMPTS) >= LEAST


def test_attempts_that_can_be_made_without_a_sandbox_succeed_there() -> None:
    """What cannot succeed anywhere would show nothing."""
    harmless = [one for one in ATTEMPTS if one.bare]
    assert len(harmless) >= 15
    with world() as there:
        assert [one.name for one in harmless if not bare(one, there)] == []


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "ending", "said"),
    [
        ("print('hello')", "passed", "hello"),
        ("assert 1 + 1 == 3, 'wrong sum'", "failed", "AssertionError: wrong sum"),
        ("def f(:", "failed", "SyntaxError"),
        ("input()", "failed", "EOFError"),
        ("while True: pass", "time", ""),
        ("import time; time.sleep(60)", "time", ""),
        ("while True: print('x' * 9999)", "output", "xxx"),
        ("bytearray(10 << 30)", "failed", "MemoryError"),
        ("open('a', 'w').write('kept'); print(open('a').read())", "passed", "kept"),
        ("import threading; threading.Thread(target=print).start()", "failed", "can't start new thread"),
        ("import os; print(os.getuid(), sorted(os.listdir('/')), os.getcwd())", "passed", "65534 ['dev', 'lib'"),
        ("print('名前', __name__)", "passed", "名前 __main__"),
    ],
)
def test_programs_end_as_they_do(program: str, ending: str, said: str) -> None:
    ended = run(program, SHORT)
    assert (ended.ending, ended.passed) == (ending, ending == "passed")
    assert said in ended.output
    assert len(ended.output) <= sandbox.SHOWN_CHARS
    assert ended.seconds < SHORT.wall_s + 5


@needs_sandbox
@pytest.mark.parametrize(
    "end",
    ["import os; os.kill(os.getpid(), 9)", "import os; os._exit(3)", "import ctypes; ctypes.string_at(0)", "1 / 0"],
)
def test_what_was_printed_before_a_sudden_end_is_kept(end: str) -> None:
    """An escape that is told and then hidden by a crash would look as if it was held."""
    ended = run(f"print('told')\n{end}", SHORT)
    assert (ended.ending, "told" in ended.output) == ("failed", True)


@needs_sandbox
def test_the_usual_modules_are_there() -> None:
    names = "bisect collections copy datetime decimal fractions functools hashlib heapq itertools json math operator random re statistics string typing"
    assert run(f"import {', '.join(names.split())}").passed


@needs_sandbox
def test_many_programs_run_at_once_and_keep_their_order() -> None:
    began = time.monotonic()
    ended = run_all([f"import time; time.sleep(1); assert {at} % 2" for at in range(8)], SHORT, workers=8)
    assert [one.passed for one in ended] == [False, True] * 4
    assert time.monotonic() - began < 6


@pytest.mark.parametrize(
    ("cores", "quota", "memory", "programs"),
    [
        (4, None, None, 4),
        (64, "max 100000", "max", 10),  # of 10 GiB
        (64, "200000 100000", "max", 2),
        (64, "50000 100000", "max", 1),
        (64, "max 100000", str(3 << 30), 3),
        (64, "max 100000", str(1 << 20), 1),
    ],
)
def test_as_many_programs_run_at_once_as_have_a_processor_and_memory_of_their_own(
    cores: int,
    quota: str | None,
    memory: str | None,
    programs: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, said in (("cpu.max", quota), ("memory.max", memory)):
        if said is not None:
            (tmp_path / name).write_text(f"{said}\n")
    monkeypatch.setattr(sandbox, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10 << 18}.__getitem__)
    assert at_once(Limits(memory=1 << 30, scratch=0)) == programs


@needs_sandbox
def test_nothing_is_left_between_programs() -> None:
    assert run("open('/scratch/note', 'w').write('x')").passed
    assert run("import os; assert os.listdir('/scratch') == []").passed


def test_a_machine_without_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox._missing.cache_clear()
    try:
        for call in (lambda: run("pass"), lambda: run_all(["pass"]), sandbox.require):
            with pytest.raises(SetupError, match="this machine has none: bwrap was not found; install bubblewrap"):
                call()
        (tmp_path / "bwrap").write_text("#!/bin/sh\necho no permission to make a namespace >&2\nexit 1\n")
        (tmp_path / "bwrap").chmod(0o755)
        sandbox._missing.cache_clear()
        with pytest.raises(SetupError, match=r"bwrap does not work here.*no permission to make a namespace"):
            sandbox.require()
        sandbox._missing.cache_clear()
        monkeypatch.setattr(platform, "machine", lambda: "riscv64")
        with pytest.raises(SetupError, match="not written for riscv64"):
            sandbox.require()
    finally:
        sandbox._missing.cache_clear()


def decided(machine: str, call: int, architecture: int | None = None) -> int:
    """What the filter returns for a system call: the instructions, carried out here."""
    data = {0: call, 4: ARCHITECTURES[machine] if architecture is None else architecture}
    program, at, held = filter_program(machine), 0, 0
    while True:
        operation, if_true, if_false, value = program[at]
        at += 1
        match operation:
            case 0x20:
                held = data[value]
            case 0x15:
                at += if_true if held == value else if_false
            case 0x35:
                at += if_true if held >= value else if_false
            case 0x06:
                return value


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_filter_refuses_what_it_lists_and_allows_the_rest(machine: str) -> None:
    listed = {
        *sandbox.REFUSED[machine].values(),
        *sandbox.SAME_EVERYWHERE.values(),
    }
    assert {decided(machine, call) for call in listed} == {REFUSE}
    assert {decided(machine, call) for call in set(range(520)) - listed} == {ALLOW}
    assert decided(machine, X32) == REFUSE
    assert decided(machine, 1, architecture=0x40000003) == REFUSE, "another table of calls"


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")],
)
def test_the_numbers_of_the_calls_are_the_kernels(machine: str, header: str) -> None:
    path = Path("/usr/include", header)
    if not path.exists():
        pytest.skip(f"{path} is not here; it comes with linux-libc-dev")
    found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", path.read_text(), re.MULTILINE)
    numbers = {name: int(number) for name, number in found}
    ours = {**sandbox.REFUSED[machine], **sandbox.SAME_EVERYWHERE}
    assert {name: number for name, number in ours.items() if numbers.get(name, number) != number} == {}
    assert len(ours.keys() & numbers.keys()) >= len(ours) - 2, "a new call may be missing in old headers"
