"""The killable child: what it costs, and that the worker outlives every page."""

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.text import guard as guard_module
from pipelines.text.guard import Guard, Outcome, Reply

LEFT: list[bytes] = []


def work(body: bytes, note: str) -> str:
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
            return f"{status['NoNewPrivs'].strip()} {limits}"
        case "write":
            with open(body.decode(), "wb") as sink:
                sink.write(b"x")
            return "written"
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
        case "deaf" | "half" | "lie":  # what a page could do that has taken the child over
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
    elif how == "lie":
        os.write(pipe, (3).to_bytes(4, "big") + b"lie")
    else:
        os.close(pipe)
    time.sleep(3600)


@pytest.mark.parametrize("how", ["deaf", "half", "lie"])
def test_a_child_that_was_taken_over_costs_its_page_alone(how, monkeypatch):
    monkeypatch.setattr(guard_module, "ANSWER_S", 1)
    guard = Guard(work, seconds=10, memory_mb=100)
    assert guard.call(b"", how) == Reply(Outcome.FAILED, "no answer of ours")
    assert guard.call(b"after ", "it") == Reply(Outcome.DONE, "after it")
    guard.close()


@pytest.fixture
def guard():
    made = Guard(work, seconds=10, memory_mb=100)
    yield made
    made.close()


@pytest.mark.parametrize("note", ["spin", "sleep"])
def test_a_page_that_takes_too_long_and_the_one_after_it(note):
    guard = Guard(work, seconds=1, memory_mb=100)
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, "ab")
    assert guard.call(b"", note) == Reply(Outcome.TIMEOUT, "1 s")
    assert guard.call(b"after ", "it") == Reply(Outcome.DONE, "after it")
    guard.close()


@pytest.mark.parametrize(
    ("note", "reply"),
    [
        ("memory", Reply(Outcome.MEMORY, "100 MiB")),
        ("swallowed", Reply(Outcome.MEMORY, "100 MiB")),
        ("crash", Reply(Outcome.FAILED, "SIGSEGV")),
        ("exit", Reply(Outcome.FAILED, "exit 3")),
        ("raise", Reply(Outcome.FAILED, "KeyError")),
    ],
)
def test_a_page_that_breaks_its_limits_and_the_one_after_it(guard, note, reply):
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, "ab")
    assert guard.call(b"", note) == reply
    assert guard.call(b"after ", "it") == Reply(Outcome.DONE, "after it")


def test_a_page_answers_for_its_own_memory_alone(guard):
    """70 of 100 MiB: a peak that looks like want of memory in whatever has no text after it; 60 MiB that stay leave too few."""
    assert guard.call(b"", "large") == Reply(Outcome.DONE, str(70 << 20))
    assert guard.call(b"", "nothing") == Reply(Outcome.DONE, "")
    assert guard.call(b"", "large") == Reply(Outcome.DONE, str(70 << 20))
    assert guard.call(b"", "raise") == Reply(Outcome.FAILED, "KeyError")
    assert guard.call(b"", "leave") == Reply(Outcome.DONE, "left")
    assert guard.call(b"", "large") == Reply(Outcome.DONE, str(70 << 20))


def test_large_bodies_pass_whole(guard):
    body = b"x" * (9 << 20)
    assert guard.call(body, "") == Reply(Outcome.DONE, body.decode())


def test_one_child_serves_many_pages(guard):
    pids = {guard.call(b"", "pid").text for _ in range(50)}
    assert len(pids) == 1
    assert pids != {str(os.getpid())}


def test_a_fresh_child_comes_after_so_many_pages(guard, monkeypatch):
    monkeypatch.setattr(guard_module, "PAGES_A_CHILD", 3)
    pids = [guard.call(b"", "pid").text for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_a_note_is_one_line(guard):
    assert guard.call(b"a\nb", "two\nlines \ud800") == Reply(Outcome.DONE, "a\nbtwo lines ?")


def test_a_closed_guard_has_no_child_and_starts_another(guard):
    pid = int(guard.call(b"", "pid").text)
    assert os.WTERMSIG(guard.close()) == signal.SIGKILL
    assert not os.path.exists(f"/proc/{pid}")
    assert guard.close() == 0
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, "ab")


def test_a_page_waits_for_its_processor_time_and_not_for_the_clock():
    """Sleep costs no processor time, so a limit that is shorter does not end it."""
    guard = Guard(work, seconds=0.4, memory_mb=100)
    assert guard.call(b"", "nap") == Reply(Outcome.DONE, "rested")
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
        "from tests.pipelines.text.test_guard import Guard, work;"
        "guard = Guard(work, 10, 100); print(guard.call(b'', 'environment').text); guard.close();"
        "print(os.environ['AWS_SECRET_ACCESS_KEY'], os.environ['AWS_SESSION_TOKEN'])"
    )
    root = Path(__file__).parents[3]
    environment = os.environ | {"AWS_SECRET_ACCESS_KEY": "first-key", "PYTHONPATH": str(root)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=root)
    assert said.stdout.splitlines() == ["{} b''", "first-key later-key"], said.stderr


def test_the_child_gains_no_rights_and_writes_no_file(guard, tmp_path):
    assert guard.call(b"", "rights") == Reply(Outcome.DONE, "1 [(0, 0), (0, 0)]")
    target = tmp_path / "written"
    assert guard.call(str(target).encode(), "write") == Reply(Outcome.FAILED, "OSError")
    assert not target.exists() or not target.stat().st_size
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, "ab")


def namespaces_allowed():
    """Whether the kernel gives a process of ours a network of its own, as the guard asks for it."""
    return subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not namespaces_allowed(), reason="the kernel allows no namespaces here")
def test_the_child_reaches_no_network_and_not_its_parent(guard):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1]).encode()
        assert work(port, "network").startswith("reached")
        assert guard.call(port, "network") == Reply(Outcome.FAILED, "OSError")
    assert guard.call(b"", "parent") == Reply(Outcome.FAILED, "PermissionError")


def test_a_child_without_namespaces_serves(monkeypatch):
    monkeypatch.setattr(guard_module, "CLONE_NEWNET", -1)  # which no kernel takes
    guard = Guard(work, seconds=10, memory_mb=100)
    assert guard.call(b"a", "b") == Reply(Outcome.DONE, "ab")
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
