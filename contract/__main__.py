"""Commands that need neither Spark nor a GPU:
`python -m contract resolve | plan | commands | funnel | lineage | trace | verify | snapshots | gc`.
"""

import argparse
import datetime
import logging
import re
import secrets
import sys
from collections.abc import Sequence
from typing import Any

from contract import ablation, commands, contamination, funnel, gc, lineage, recipe, trace, verify
from contract.approval import without_ppo
from contract.digest import split_digest
from contract.errors import DamagedError, GristmillError, InputError, RecipeError, exit_code_of
from contract.headline import omitted
from contract.manifest import find
from contract.mixture import lengths, of_pretrain, told
from contract.plan import Run, Task, open_run, resolve
from contract.printable import printable
from contract.results import Gate
from contract.shards import rows_by_source
from contract.sources import list_snapshots
from contract.stages import ALIGNING, STAGES
from contract.store import Store, split_uri


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("contract").setLevel(logging.INFO)  # shows which server or store is being asked
    return exit_code_of(lambda: _COMMANDS[given.command](given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m contract", description=__doc__)
    parsers = parser.add_subparsers(dest="command", required=True)

    _add_resolve(parsers)
    for name, text in (
        ("plan", "every task of a run, its fingerprint, and whether it is done"),
        ("commands", "the command of every task, for a shell; of all variants if the recipe names some"),
        ("funnel", "documents after each stage, why they were dropped, and what of evaluation sets was in them"),
    ):
        one = parsers.add_parser(name, help=text)
        one.add_argument("--recipe", required=True, help="URI of a resolved run's recipe.yaml")

    one = parsers.add_parser(
        "lineage", help="the chain of a manifest or crawl file, back and forward; of a committed file, who lists it"
    )
    one.add_argument("--store", required=True)
    one.add_argument("uri")

    one = parsers.add_parser("trace", help="the documents and pages that a row of training tokens holds")
    one.add_argument("--store", required=True)
    one.add_argument("--row", type=int, required=True, help="counted from 0")
    one.add_argument("file", help="a file of rows that pack committed: its path in the store, or its URI")

    one = parsers.add_parser(
        "verify", help="recompute fingerprints and checksums of a result and of the results that it was made from"
    )
    one.add_argument("uri", help="URI of a manifest, or of a resolved run's recipe.yaml")

    one = parsers.add_parser("snapshots", help="the crawls that a source offers, newest first")
    one.add_argument("--source", default="https://data.commoncrawl.org")

    one = parsers.add_parser("gc", help="remove attempts that no manifest lists")
    one.add_argument("--store", required=True)
    one.add_argument(
        "--older-than-hours",
        type=float,
        default=24.0,
        help="leave younger attempts alone, at least 1: they may still be running",
    )
    one.add_argument("--delete", action="store_true", help="really delete; without it the attempts are only listed")
    return parser


def _add_resolve(parsers: Any) -> None:
    one = parsers.add_parser(
        "resolve", help="validate a recipe, list its crawl, write runs/<run>/recipe.yaml and print its URI"
    )
    one.add_argument("--recipe", required=True)
    one.add_argument("--run", help="name of the run; default: recipe name, time and six random digits")
    one.add_argument(
        "--snapshot",
        action="append",
        default=[],
        help="crawl to use, may be repeated; default: the recipe's, or the newest",
    )
    one.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override, for example filter.min_words=40",
    )


def _resolve(given: argparse.Namespace) -> None:
    name = given.run or _new_name(recipe.load(given.recipe, given.overrides).name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+:-]*", name):
        raise RecipeError(f"run name {name!r}: use letters, digits and . _ + : -")
    run = resolve(given.recipe, name, given.overrides, given.snapshot)
    if run.recipe.ablate.variants:
        ablation.resolve(run)  # refuses mistakes in a variant now
    print(run.uri)


def _new_name(of: str) -> str:
    """A name that sorts by time. Its random end keeps runs apart that begin in the same second."""
    return f"{of}-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def _open(uri: str) -> Run:
    split_uri(split_digest(uri)[0])[0].reach()
    return open_run(uri)


def _plan(given: argparse.Namespace) -> None:
    run = _open(given.recipe)
    print(f"{'stage':<16}{'partition':<28}{'fingerprint':<14}{'plane':<7}state")
    for task in run.tasks().values():
        print(
            f"{task.stage:<16}{task.partition:<28}{task.fingerprint[:12]:<14}"
            f"{STAGES[task.stage].plane:<7}{_state(run, task)}"
        )
    print(*_mixture(run), sep="\n", end="")


def _commands(given: argparse.Namespace) -> None:
    for run, task in commands.tasks_of(_open(given.recipe)):
        print(commands.command(run, task, sys.executable))


def _state(run: Run, task: Task) -> str:
    try:
        if find(run.store, task):
            return "done"
    except DamagedError as error:
        return f"damaged: {error}"
    gate = find(run.store, run.task("gate")) if task.stage in ALIGNING else None
    why = omitted(run.recipe, task.stage, Gate.of(gate).open if gate else None)
    if not why and gate and without_ppo(run.store, gate, task):
        why = "a person refused it"
    return f"left out: {why}" if why else "to do"


def _mixture(run: Run) -> list[str]:
    """What pretraining will draw of each source, or why it cannot; nothing as long as `pack` is not done."""
    settings, seq_len = run.recipe.pretrain, run.recipe.pack.seq_len
    try:
        packed = find(run.store, run.task("pack"))
        if not packed:
            return []
        rows = {length: rows_by_source(packed, length) for length, _ in lengths(settings, seq_len)}
        whole = rows_by_source(packed, seq_len)
        return ["", *told(of_pretrain(settings, seq_len, whole, rows)), ""]
    except GristmillError as error:
        return ["", f"error: {error}", ""]


def _funnel(given: argparse.Namespace) -> None:
    run = _open(given.recipe)
    print(*funnel.tables(run), *contamination.tables(run), sep="\n")


def _lineage(given: argparse.Namespace) -> None:
    print("\n".join(lineage.trace(_existing(given.store), given.uri)))


def _trace(given: argparse.Namespace) -> None:
    print("\n".join(trace.row_lines(_existing(given.store), given.file, given.row)))


def _verify(given: argparse.Namespace) -> None:
    verdict = verify.verify(given.uri)
    for line in verdict.wrong:
        print(printable(line))
    read = f"{verdict.manifests:,} manifests, {verdict.files:,} files, {funnel.human_bytes(verdict.bytes)}"
    if verdict.wrong:
        raise DamagedError(
            f"{read}; faults, named above: {len(verdict.wrong):,}. Bring damaged files back, "
            "or delete the manifests that list them and run their stages again"
        )
    print(f"{read}: all as committed")


def _snapshots(given: argparse.Namespace) -> None:
    print("\n".join(list_snapshots(given.source, patience_s=5)))  # a person waits


def _existing(uri: str) -> Store:
    """A store that has content. A misspelt URI would otherwise look like an empty store."""
    store = Store(uri)
    store.reach()
    if not {"runs", *STAGES} & set(store.folders()):
        raise InputError(f"{store.uri}: no store was found there; check --store")
    return store


def _gc(given: argparse.Namespace) -> None:
    hours, store = given.older_than_hours, _existing(given.store)
    old, young = gc.collect(store, hours * 3600, store.clock(), given.delete)
    for one in old:
        done = "deleted" if given.delete else "would delete"
        print(printable(f"{done} {one.path} ({funnel.human_bytes(one.bytes)})"))
    hint = "; add --delete to remove them" if old and not given.delete else ""
    print(f"{len(old)} unlisted attempts{hint}; {len(young)} more are younger than {hours:g} hours and stay")


_COMMANDS = {
    "resolve": _resolve,
    "plan": _plan,
    "commands": _commands,
    "funnel": _funnel,
    "lineage": _lineage,
    "trace": _trace,
    "verify": _verify,
    "snapshots": _snapshots,
    "gc": _gc,
}

if __name__ == "__main__":
    sys.exit(main())
