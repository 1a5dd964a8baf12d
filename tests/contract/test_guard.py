"""The killable child: what it costs, and that the worker outlives every page."""

import ctypes
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from contract import confinement
from contract import guard as guard_module
from contract.guard import Guard, Outcome, Reply

LEFT: list[bytes] = []


def work(body: bytes, note: str) -> bytes:
    return act(body, note).encode("utf-8", "replace")


def act(body: bytes, note: str) -> str:
    """Does to its process what the note says."""
    match note:
        case "nap":
            time.sleep(0.8)
            return "rested"
        case "state":
            core = resource.getrlimit(resource.RLIMIT_CORE)
            int_is = "ignored" if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else "heard"
            term_is = "default" if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else "other"
            held = os.path.exists(f"/proc/self/fd/{body.decode()}")
            return f"{core} {int_is} {term_is} {'open' if held else 'closed'}"
        case "environment":
            with open("/proc/self/environ", "rb") as first:
                return f"{dict(os.environ)} {first.read().strip(bytes(1))!r}"
        case "rights":
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))  # noqa: SIM115
            limits = [resource.getrlimit(one) for one in (resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC)]
            return f"{status['NoNewPrivs'].strip()} {status['CapEff'].strip()} {limits}"
        case "write":
            with open(body.decode(), "wb") as sink:
                sink.write(b"x")
            return "written"
        case "remove":
            os.unlink(body)
            return "removed"
        case "cut":
            os.truncate(body, 0)
            return "cut"
        case "make":
            os.mkdir(body)
            return "made"
        case "start":
            os.execv("/bin/true", ["true"])
        case "chmod":
            os.chmod(body, 0)
            return "changed"
        case "touch":
            os.utime(body, (0, 0))
            return "changed"
        case "attribute":
            os.setxattr(body, "user.note", b"x")
            return "changed"
        case "socket":
            return str(socket.socket(socket.AF_UNIX))
        case "fork":
            return str(os.fork())
        case "limit":
            resource.prlimit(int(body), resource.RLIMIT_CPU, (1, 1))
            return "limited"
        case "own limit":
            resource.setrlimit(resource.RLIMIT_CPU, (3600, 3600))
            return str(resource.getrlimit(resource.RLIMIT_CPU))
        case "signal":
            os.kill(int(body), signal.SIGUSR1)
            return "sent"
        case "network":
            with socket.create_connection(("127.0.0.1", int(body)), timeout=2) as reached:
                return f"reached {reached}"
        case "parent":
            with open(f"/proc/{os.getppid()}/environ", "rb") as environment:
                return str(len(environment.read()))
        case "spin":
            while True:
                pass
        case "sleep":
            time.sleep(3600)
        case "memory":
            return str(len(bytes(500 << 20)))
        case "swallowed":
            held = []
            try:
                while True:
                    held.append(bytes(1 << 20))
            except MemoryError:
                return ""
        case "large":
            return str(len(bytes(70 << 20)))
        case "nothing":
            return ""
        case "leave":
            LEFT.append(bytes(60 << 20))
            return "left"
        case "crash":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "raise":
            raise KeyError(note)
        case "pid":
            return str(os.getpid())
        case "deaf" | "half" | "lie" | "long":  # what a page could do that has taken the child over
            _taken_over(note)
    return body.decode("utf-8", "replace") + note


def _taken_over(how: str) -> None:
    (pipe,) = (
        int(name)
        for name in os.listdir("/proc/self/fd")
        if os.path.realpath(f"/proc/self/fd/{name}").find("socket:") >= 0
    )
    if how == "half":
        os.write(pipe, (1000).to_bytes(4, "big") + b"done")
    elif how == "long":
        os.write(pipe, (-1).to_bytes(4, "big", signed=True) + (1 << 40).to_bytes(8, "big"))
    elif how == "lie":
        os.write(pipe, (3).to_bytes(4, "big") + b"lie")
    else:
        os.close(pipe)
    time.sleep(3600)


@pytest.mark.parametrize("how", ["deaf", "half", "lie", "long"])
def test_a_child_that_was_taken_over_costs_its_page_alone(how, monkeypatch):
    monkeypatch.setattr(guard_module, "ANSWER_S", 1)
    guard = Guard(work, seconds=10, memory_mb=100)
    assert guard.call(b"", how) == Reply(Outcome.FAILED, b"no answer of ours")
    assert guard.call(b"after ", "it") == Reply(Outcome.DONE, b"after it")
    guard.close()


@pytest.fixture
def guard():
    made = Guard(work, seconds=10, memory_mb=100)
    yield made
    made.close()


@pytest.mark.parametrize("note", ["spin", "sleep"])
def test_a_page_that_takes_too_long_and_the_one_after_it(note):
    guard = Guard(work, seconds=1, memory_mb=100)
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, b"ab")
    assert guard.call(b"", note) == Reply(Outcome.TIMEOUT, b"1 s")
    assert guard.call(b"after ", "it") == Reply(Outcome.DONE, b"after it")
    guard.close()


@pytest.mark.parametrize(
    ("note", "reply"),
    [
        ("memory", Reply(Outcome.MEMORY, b"100 MiB")),
        ("swallowed", Reply(Outcome.MEMORY, b"100 MiB")),
        ("crash", Reply(Outcome.FAILED, b"SIGSEGV")),
        ("exit", Reply(Outcome.FAILED, b"exit 3")),
        ("raise", Reply(Outcome.FAILED, b"KeyError")),
    ],
)
def test_a_page_that_breaks_its_limits_and_the_one_after_it(guard, note, reply):
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, b"ab")
    assert guard.call(b"", note) == reply
    assert guard.call(b"after ", "it") == Reply(Outcome.DONE, b"after it")


def test_a_page_answers_for_its_own_memory_alone(guard):
    """70 of 100 MiB: a peak that looks like want of memory in whatever has no text after it; 60 MiB that stay leave too few."""
    assert guard.call(b"", "large") == Reply(Outcome.DONE, b"%d" % (70 << 20))
    assert guard.call(b"", "nothing") == Reply(Outcome.DONE, b"")
    assert guard.call(b"", "large") == Reply(Outcome.DONE, b"%d" % (70 << 20))
    assert guard.call(b"", "raise") == Reply(Outcome.FAILED, b"KeyError")
    assert guard.call(b"", "leave") == Reply(Outcome.DONE, b"left")
    assert guard.call(b"", "large") == Reply(Outcome.DONE, b"%d" % (70 << 20))


def test_large_bodies_pass_whole(guard):
    body = b"x" * (9 << 20)
    assert guard.call(body, "") == Reply(Outcome.DONE, body)


def test_one_child_serves_many_pages(guard):
    pids = {guard.call(b"", "pid").text for _ in range(50)}
    assert len(pids) == 1
    assert pids != {str(os.getpid())}


def test_a_fresh_child_comes_after_so_many_pages(guard, monkeypatch):
    monkeypatch.setattr(guard_module, "PAGES_A_CHILD", 3)
    pids = [guard.call(b"", "pid").text for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_a_note_is_one_line(guard):
    assert guard.call(b"a\nb", "two\nlines \ud800") == Reply(Outcome.DONE, b"a\nbtwo lines ?")


def test_a_closed_guard_has_no_child_and_starts_another(guard):
    pid = int(guard.call(b"", "pid").text)
    assert os.WTERMSIG(guard.close()) == signal.SIGKILL
    assert not os.path.exists(f"/proc/{pid}")
    assert guard.close() == 0
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, b"ab")


def test_a_page_waits_for_its_processor_time_and_not_for_the_clock():
    """Sleep costs no processor time, so a limit that is shorter does not end it."""
    guard = Guard(work, seconds=0.4, memory_mb=100)
    assert guard.call(b"", "nap") == Reply(Outcome.DONE, b"rested")
    guard.close()


def test_what_a_child_leaves_alone(guard):
    """No core, no signal from a terminal, none of the parent's files."""
    inside, outside = os.pipe()
    assert guard.call(str(outside).encode(), "state").text == "(0, 0) ignored default closed"
    os.close(inside)
    os.close(outside)


def test_the_child_has_no_environment(tmp_path):
    """Asked in a process that was started with a key, because its first environment lies where no variable is set or unset later."""
    code = (
        "import os; os.environ['AWS_SESSION_TOKEN'] = 'later-key';"
        "from tests.contract.test_guard import Guard, work;"
        "guard = Guard(work, 10, 100); print(guard.call(b'', 'environment').text); guard.close();"
        "print(os.environ['AWS_SECRET_ACCESS_KEY'], os.environ['AWS_SESSION_TOKEN'])"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"AWS_SECRET_ACCESS_KEY": "first-key", "PYTHONPATH": str(root)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=root)
    assert said.stdout.splitlines() == ["{} b''", "first-key later-key"], said.stderr


def test_the_child_gains_no_rights_and_writes_no_file(guard, tmp_path):
    assert guard.call(b"", "rights") == Reply(Outcome.DONE, b"1 0000000000000000 [(0, 0), (0, 0)]")
    target = tmp_path / "written"
    assert guard.call(str(target).encode(), "write").outcome is Outcome.FAILED
    assert not target.exists() or not target.stat().st_size
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, b"ab")


def landlock_version() -> int:
    return ctypes.CDLL(None).syscall(confinement.LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1)


@pytest.mark.skipif(landlock_version() < 6, reason="the kernel has no Landlock of version 6")
@pytest.mark.parametrize("note", ["write", "remove", "cut", "make", "start", "signal"])
def test_the_child_changes_no_file_starts_no_program_and_signals_nobody(guard, tmp_path, note):
    target = tmp_path / ("new" if note == "make" else "old")
    (tmp_path / "old").write_text("mine")
    with subprocess.Popen(["sleep", "60"]) as other:
        body = str(other.pid) if note == "signal" else str(target)
        assert guard.call(body.encode(), note) == Reply(Outcome.FAILED, b"PermissionError")
        assert other.poll() is None
        other.kill()
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("old", "mine")]
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, b"ab")


@pytest.mark.skipif(platform.machine() not in confinement.ARCHITECTURES, reason="no filter for this machine")
@pytest.mark.parametrize("note", ["chmod", "touch", "attribute", "socket", "fork", "limit", "signal", "start"])
def test_the_child_is_refused_what_changes_files_or_reaches_others(guard, tmp_path, monkeypatch, note):
    """By the filter alone: without Landlock and namespaces."""
    monkeypatch.setattr(confinement, "_only_read", lambda libc: None)
    monkeypatch.setattr(confinement, "CLONE_NEWNET", -1)
    target = tmp_path / "old"
    target.write_text("mine")
    before = target.stat()
    with subprocess.Popen(["sleep", "60"]) as other:
        body = str(other.pid) if note in ("signal", "limit") else str(target)
        assert guard.call(body.encode(), note) == Reply(Outcome.FAILED, b"PermissionError")
        assert resource.prlimit(other.pid, resource.RLIMIT_CPU)[1] == resource.getrlimit(resource.RLIMIT_CPU)[1]
        assert other.poll() is None
        other.kill()
    assert target.stat() == before
    assert guard.call(b"", "own limit") == Reply(Outcome.DONE, b"(3600, 3600)")


@pytest.mark.parametrize("machine", confinement.ARCHITECTURES)
def test_the_filter_refuses_its_calls_and_no_others(machine):
    """The program, run as the kernel would."""
    program = confinement._filter(machine)

    def asked(architecture, number, first=7):
        loaded, at = 0, 0
        values = {confinement.ARCHITECTURE_AT: architecture, confinement.NUMBER_AT: number}
        values[confinement.FIRST_ARGUMENT_AT] = first
        while True:
            operation, true, false, value = program[at]
            if operation == confinement.RETURN:
                return value == confinement.ALLOW
            if operation == confinement.LOAD_WORD:
                loaded = values[value]
                at += 1
            else:
                met = loaded == value if operation == confinement.JUMP_IF_EQUAL else loaded >= value
                at += 1 + (true if met else false)

    ours = confinement.ARCHITECTURES[machine]
    refused = {number for number in range(600) if not asked(ours, number)}
    assert refused == {*confinement.REFUSED[machine].values(), confinement.PRLIMIT[machine]}
    assert asked(ours, confinement.PRLIMIT[machine], first=0)
    assert not asked(ours, confinement.X32 + 1)
    assert not asked(1, 0), "another architecture's numbers mean other calls"


def test_a_child_that_stops_reading_costs_its_page_alone(monkeypatch):
    monkeypatch.setattr(guard_module, "ANSWER_S", 1)
    guard = Guard(work, seconds=10, memory_mb=100)
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, b"ab")
    os.kill(int(guard.call(b"", "pid").text), signal.SIGSTOP)
    assert guard.call(b"x" * (8 << 20), "") == Reply(Outcome.FAILED, b"no answer of ours")
    assert guard.call(b"after ", "it") == Reply(Outcome.DONE, b"after it")
    guard.close()


@pytest.mark.parametrize("version", [-1, 1, 2, 3, 5, 6])
def test_each_version_of_landlock_is_asked_for_what_it_knows(version, monkeypatch):
    asked = []

    def syscall(number, *given):
        asked.append((number, *given[:1]))
        return version if given[0] is None else os.dup(0)

    confinement._only_read(SimpleNamespace(syscall=syscall))
    rules = [given for number, given in asked if number == 444 and given]
    rights = {1: 0x1FF3, 2: 0x3FF3, 3: 0x7FF3, 5: 0x7FF3, 6: 0x7FF3}
    if version < 1:
        assert rules == []
    else:
        assert int.from_bytes(rules[0][:8], "little") == rights[version]
        assert len(rules[0]) == (24 if version == 6 else 8)
        assert asked[-1][0] == 446


def namespaces_allowed():
    """Whether the kernel gives a process of ours a network of its own, as the guard asks for it."""
    return subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not namespaces_allowed(), reason="the kernel allows no namespaces here")
def test_the_child_reaches_no_network_and_not_its_parent(guard):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1]).encode()
        assert work(port, "network").startswith(b"reached")
        assert guard.call(port, "network").text in ("OSError", "PermissionError")  # by the namespace, or by Landlock
    assert guard.call(b"", "parent") == Reply(Outcome.FAILED, b"PermissionError")


def test_a_child_without_namespaces_serves(monkeypatch):
    monkeypatch.setattr(confinement, "CLONE_NEWNET", -1)  # which no kernel takes
    guard = Guard(work, seconds=10, memory_mb=100)
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, b"ab")
    guard.close()


@pytest.mark.parametrize("note", ["pid", "spin"])
def test_the_child_dies_with_its_parent(note):
    """At rest it reads the end of its pipe; at work nothing but the kernel can end it."""
    pipe_in, pipe_out = os.pipe()
    parent = os.fork()
    if parent == 0:
        guard = Guard(work, 10, 100)
        os.write(pipe_out, guard.call(b"", "pid").text.encode())
        guard.call(b"", note)
        signal.pause()
    child = int(os.read(pipe_in, 20))
    time.sleep(0.3)  # the call has reached the child
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    for _ in range(100):
        if not os.path.exists(f"/proc/{child}") or "Z" in open(f"/proc/{child}/stat").read().split()[2]:  # noqa: SIM115
            break
        time.sleep(0.02)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail(f"the child {child} outlived its parent")
