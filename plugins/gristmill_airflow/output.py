"""Turns a child process's output and exit code into lines of a task's log.

Each line keeps its level. Lines that Spark, DeepSpeed and torch print at every start are left out.
"""

import logging
import re
import signal
from collections.abc import Iterable, Iterator

LEVELS = {
    "I": logging.INFO,
    "W": logging.WARNING,
    "E": logging.ERROR,
    "F": logging.CRITICAL,  # FATAL, of Spark and glog
    "C": logging.CRITICAL,
    "D": logging.DEBUG,
    "T": logging.DEBUG,  # Spark's TRACE
}
"""Levels by the first letter of their names."""

LEVEL = re.compile(
    r"(?:\[rank\d+\]: ?)?"  # torch marks what a rank says of its end
    r"(?:"
    r"(?P<ours>error|warning): "
    r"|(?P<python>DEBUG|INFO|WARNING|ERROR|CRITICAL):"
    r"|\[[\d :,.-]+\] \[(?P<deepspeed>DEBUG|INFO|WARNING|ERROR|CRITICAL)\]"
    r"|(?:\d\d/\d\d/\d\d )?\d\d:\d\d:\d\d (?P<spark>TRACE|DEBUG|INFO|WARN|ERROR|FATAL) "
    r"|\[?(?P<torch>[IWEF])\d{4} \d\d:\d\d:\d\d"
    r"|\S+:\d+: \w*(?P<module>Warning): "
    r"|(?P<ends>Traceback \(most recent call last\):|(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b(?=:|$))"
    r")"
)
"""Matches the start of a line that is a log record (ours, Python's, DeepSpeed's, Spark's or torch's), a warning, or an
exception."""

SAID_AT_EVERY_START = re.compile(
    r"WARNING: Using incubator modules: "
    r"|Setting default log level to "
    r"|To adjust logging level use sc\.setLogLevel"
    r"|Using Spark's default log4j profile: "
    r"|\d\d/\d\d/\d\d [\d:]+ WARN (?:NativeCodeLoader: |Utils: Your hostname|Utils: Set SPARK_LOCAL_IP)"
    r"|\[[\d :,.-]+\] \[INFO\] \[[\w.]+:\d+:\w+\] "
    r"|\[[\d :,.-]+\] \[WARNING\] \[(?:runner\.py:\d+:fetch_hostfile|real_accelerator\.py:\d+:get_accelerator)\] "
    r"|\[[\d :,.-]+\] \[ERROR\] \[launch\.py:\d+:sigkill_handler\] .* exits with return code = \d+$"
    r"|Detected VISIBLE_DEVICES="
    r"|\[Gloo\] Rank \d+ is connected to "
)
"""Lines of Spark, DeepSpeed and torch that say nothing about this run: their defaults, the processes that they started,
and the exit code of a process that has itself printed why it ended."""


def graded(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """(level, line) of a child's output. An indented line, as in a stack trace, has the level of the line before."""
    level = logging.INFO
    for line in lines:
        if SAID_AT_EVERY_START.match(line):
            continue
        if not line[:1].isspace():
            level = level_of(line)
        yield level, line


def level_of(line: str) -> int:
    """A line's level, as a number of `logging`; INFO if the line names none."""
    match = LEVEL.match(line)
    if not match:
        return logging.INFO
    return logging.ERROR if match["ends"] else LEVELS[next(filter(None, match.groups()))[0].upper()]


AWAITED = re.compile(r"supervisor: (?P<what>\S+) of this machine is in use by (?P<holder>.+); this task goes on when")
SAME = re.compile(r"supervisor: .+ still runs this task; this attempt goes on when")
HOLDER = re.compile(r"(?P<task>[a-z_]+ \S+) of \S+, process \d+")
"""What the supervisor says while it waits for a lock (`supervisor._take`), and how `Child` names a lock's holder."""


def awaited(line: str) -> str:
    """What a task waits for, if a line of its supervisor says so; else empty: the task goes on.

    It names the stage of the holder and not its run, which the reader may perhaps not see.
    """
    if found := AWAITED.match(line):
        holder = HOLDER.fullmatch(found["holder"])
        return f"the {found['what']} of its machine, in use by {holder['task'] if holder else 'another process'}"
    return "its earlier attempt to end" if SAME.match(line) else ""


OFTEN = {"SIGKILL": "often out of memory", "SIGBUS": "often a full disk or full shared memory"}


def ending(code: int) -> str:
    """How a process ended, to stand after its name: `was killed by signal 9 (SIGKILL), often out of memory`.

    A signal n arrives as -n from Python, as 128 + n from a shell and our supervisor, and as 256 - n from a launcher
    that exits with Python's -n. 255 is not a signal: programs that exit with -1 give it.
    """
    number = -code if code < 0 else code - 128 if code <= 192 else 256 - code
    try:
        name = signal.Signals(number).name if code != 255 else ""
    except ValueError:
        name = ""
    if not name:
        return f"ended with exit code {code}"
    hint = f", {OFTEN[name]}" if name in OFTEN else ""
    return f"was killed by signal {number} ({name}){hint}"
