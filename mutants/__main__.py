"""Put faults into the code and count those that the tests notice: `python -m mutants --sample 400 --seed 1`.

The processes work side by side, each in its own copy of the tree. A fault is noticed when the tests of its module's area fail, crash or take too
long. A survivor is printed with its line; one that changes nothing anybody can see belongs into `equivalent.yaml`, with the reason.
"""

import argparse
import multiprocessing
import queue
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from contract.metrics import clock
from mutants import worker
from mutants.areas import Group, groups
from mutants.faults import Fault, draw, faults, possible

ROOT = Path(__file__).parents[1]
UNTRIED = "untried"  # and why, as the worker says it
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")


def sample(chosen: Sequence[Group], count: int, seed: int) -> list[tuple[Group, Fault]]:
    """`count` faults, the same for the same seed and code."""
    chance = random.Random(seed)  # noqa: S311
    drawn: list[tuple[Group, Fault]] = []
    filled = [group for group in chosen if group.modules]
    for group in filled:
        texts = {module: (ROOT / module).read_text() for module in group.modules}
        found = [fault for module, text in texts.items() for fault in faults(module, text)]
        wanted = round(count * group.share / sum(one.share for one in filled))
        drawn += [(group, one) for one in draw(found, wanted, chance) if possible(one, texts[one.module])]
    return drawn


def equivalents() -> set[tuple[str, str]]:
    """(module, change) of the faults that nobody can see."""
    written = yaml.safe_load(EQUIVALENT.read_text()) or {}
    return {(module, one) for module, entries in written.items() for one in entries}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=420)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], help="only modules whose path contains this")
    parser.add_argument("--least", type=float, help="one bar for all faults together, instead of the groups' own")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)

    def wanted(module: str) -> bool:
        return not given.only or any(one in module for one in given.only)

    chosen = [replace(one, modules=tuple(filter(wanted, one.modules))) for one in groups(ROOT)]
    drawn = sample(chosen, given.sample, given.seed)
    results = _run([fault for _, fault in drawn], given.processes)
    return _report(drawn, results, given.least)


def by_module(drawn: Sequence[Fault]) -> list[list[Fault]]:
    """The faults of each module, the most first, so that the processes end together. A module's tests run once without any fault."""
    found: defaultdict[str, list[Fault]] = defaultdict(list)
    for fault in sorted(drawn):
        found[fault.module].append(fault)
    return sorted(found.values(), key=len, reverse=True)


def _run(drawn: Sequence[Fault], processes: int) -> dict[Fault, tuple[str, str]]:
    """What became of each fault, and its change. Prints each as it comes."""
    context = multiprocessing.get_context("spawn")
    jobs, results = context.Queue(), context.Queue()
    for job in [*by_module(drawn), *[None] * processes]:
        jobs.put(job)
    known = equivalents()
    workers = [
        context.Process(target=worker.serve, args=(number, ROOT, known, jobs, results)) for number in range(processes)
    ]
    for one in workers:
        one.start()
    found, began = {}, time.monotonic()
    while len(found) < len(drawn):
        try:
            fault, state, seconds, changed = results.get(timeout=5)
        except queue.Empty:
            if not any(one.is_alive() for one in workers):
                break
            continue
        found[fault] = (state, changed)
        at = f"{len(found)}/{len(drawn)} {clock(time.monotonic() - began)}"
        print(f"{at} {state} in {seconds:.1f} s {fault.module}:{fault.line} {fault.kind}: {changed}", flush=True)
    return {fault: found.get(fault, (f"{UNTRIED}, its process ended", "")) for fault in drawn}


def _report(drawn: Sequence[tuple[Group, Fault]], results: dict[Fault, tuple[str, str]], least: float | None) -> int:
    """Print what the tests did not notice, and each group's share. 1 where a share is under its bar or a fault was not tried."""
    for fault, (state, changed) in sorted(results.items()):
        if not state.startswith("noticed"):
            print(f"{state}: {fault.module}:{fault.line} {changed}")
    code = int(any(state.startswith(UNTRIED) for state, _ in results.values()))
    shares = [
        (group.name, group.bar, [one for other, one in drawn if other is group])
        for group in dict.fromkeys(group for group, _ in drawn)
    ]
    if least is not None:
        shares = [("all", least, [fault for _, fault in drawn])]
    for name, bar, members in shares:
        states = [results[fault][0] for fault in members]
        tried = len(states) - states.count("equivalent")
        noticed = sum(state.startswith("noticed") for state in states)
        share = noticed / tried if tried else 1.0
        ok = share >= bar
        print(f"{name}: {noticed} of {tried} noticed, {states.count('equivalent')} more equivalent")
        print(f"BAR noticed_{name.replace(' ', '_')} {share:.4g} {bar:g} {'ok' if ok else 'short'}")
        code |= not ok
    return code


if __name__ == "__main__":
    sys.exit(main())
