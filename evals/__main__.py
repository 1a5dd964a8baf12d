"""Commands that grade and compare without a model of ours:
`python -m evals tasks | prompts | grade | compare | judge`; the judge is a model behind an endpoint.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from contract.errors import exit_code_of
from contract.printable import printable
from evals.asking import add_asking, asking_of
from evals.ballots import ballot_file, lines_of, rating_lines, read_pairs
from evals.differences import Difference, compare
from evals.endpoint import KEY, URL, Endpoint, from_environment
from evals.grading import grade, report, told
from evals.judge import CRITERIA, judge_pairs, rate
from evals.records import read_outputs, read_records, write_records
from evals.tasks.table import TASKS

EXIT_WORSE = 3  # compare: an ability dropped beyond noise
EXIT_UNJUDGED = 4  # judge: some pairs have no verdict


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    ended = [0]

    def work() -> None:
        ended[0] = _COMMANDS[given.command](given) or 0

    return exit_code_of(work) or ended[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evals", description=__doc__)
    parsers = parser.add_subparsers(dest="command", required=True)
    parsers.add_parser("tasks", help="every task, its ability and the ways to ask it")
    one = parsers.add_parser("prompts", help="write what a model is asked, as JSONL of id and prompt")
    add_asking(one)
    one.add_argument("--out", type=Path, required=True)
    one = parsers.add_parser("grade", help="grade outputs that were made elsewhere")
    add_asking(one)
    one.add_argument("--outputs", type=Path, required=True, help="JSONL of id and text, texts or logprobs")
    one.add_argument("--out", type=Path, help="write a row for each output: JSONL, or Parquet if it ends so")
    one.add_argument("--by-byte", action="store_true", help="divide log-likelihoods by the bytes of their choices")
    one.add_argument("--json", action="store_true", help="print the report as JSON")
    one = parsers.add_parser("compare", help="paired tests of two result sets; exit code 3 if an ability is worse")
    one.add_argument("first", type=Path)
    one.add_argument("second", type=Path)
    one.add_argument("--confidence", type=_confidence, default=0.95)
    one.add_argument("--json", action="store_true", help="print the differences as JSON")
    one = parsers.add_parser("judge", help="a model compares two replies to each prompt, in both orders, or rates one")
    one.add_argument(
        "--pairs", type=Path, required=True, help="JSONL of id, prompt, ours, theirs, category, difficulty, score"
    )
    one.add_argument("--rate", action="store_true", help="give `ours` of each pair points from 1 to 10 instead")
    one.add_argument(
        "--endpoint", help=f"OpenAI-compatible, such as https://api.example.com/v1; default: {URL}; key: {KEY}"
    )
    one.add_argument("--model", required=True, help="the judge's name at the endpoint")
    one.add_argument("--criteria", default=CRITERIA)
    one.add_argument("--workers", type=int, default=4, help="pairs that are judged at a time")
    one.add_argument("--out", type=Path, help="write every verdict with its reasons, as JSONL")
    return parser


def _confidence(said: str) -> float:
    """A share, not per cent: at 95 no p-value is below 1 - 95, and every drop would pass."""
    with contextlib.suppress(ValueError):
        if 0.5 <= (value := float(said)) < 1:
            return value
    raise argparse.ArgumentTypeError(f"{said}: give a share from 0.5 to below 1, such as 0.95")


def _tasks(given: argparse.Namespace) -> None:
    for name, task in sorted(TASKS.items()):
        print(f"{name:<20}{task.ability:<14}{', '.join(task.styles)}")


def _prompts(given: argparse.Namespace) -> None:
    asking = asking_of(given)
    with given.out.open("w") as out:
        for item in asking.items:
            made = asking.prompt(item)
            row: dict[str, object] = {"id": item.id, "prompt": made.text, "stop": made.stop}
            if made.turns:
                row = {"id": item.id, "turns": [dataclasses.asdict(one) for one in made.turns], "stop": made.stop}
            if made.pairs:
                row["pairs"] = made.pairs
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{len(asking.items):,} prompts of {asking.task.name} in {given.out}")


def _grade(given: argparse.Namespace) -> None:
    asking = asking_of(given)
    records = grade(asking.task, asking.items, read_outputs(given.outputs), asking.prompt, given.by_byte)
    if given.out:
        write_records(given.out, records)
    # Without --shots nobody knows the examples of outputs that were made elsewhere, so the report names no number.
    made = report(records, shots=asking.shots if given.shots else None)
    print(json.dumps(dataclasses.asdict(made)) if given.json else "\n".join(told(made)))
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _compare(given: argparse.Namespace) -> int:
    found = compare(read_records(given.first), read_records(given.second), given.confidence)
    if given.json:
        rows = [dataclasses.asdict(one) | {"worse": one.worse(given.confidence)} for one in found]
        print(json.dumps(rows))
    else:
        print(f"{'ability, task':<34}{'first':>8}{'second':>8}  {'difference':<26}{'n':>7}  p")
        for one in found:
            print(_line(one, given.confidence))
    return EXIT_WORSE if any(one.worse(given.confidence) for one in found if one.task is None) else 0


def _line(one: Difference, confidence: float) -> str:
    name = printable(one.ability if one.task is None else f"  {one.task}")
    gap = f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
    flag = ""
    if one.task is None:
        flag = " WORSE" if one.worse(confidence) else " better" if one.better(confidence) else ""
        flag = flag or (" cannot be told: too few sources" if one.cannot_be_told(confidence) else "")
    return f"{name:<34}{one.first:>8.4f}{one.second:>8.4f}  {gap:<26}{one.n:>7,}  {one.adjusted:.2g} ({one.test}){flag}"


def _judge(given: argparse.Namespace) -> int:
    endpoint = Endpoint(given.endpoint, given.model) if given.endpoint else from_environment(given.model)
    pairs = read_pairs(given.pairs, ("prompt", "ours") if given.rate else ("prompt", "ours", "theirs"))
    with ballot_file(given.out) as keep:
        if given.rate:
            ratings, unjudged = rate(pairs, endpoint.ask, given.criteria, given.workers, keep)
            lines = rating_lines(ratings, unjudged)
        else:
            made = judge_pairs(pairs, endpoint.ask, given.criteria, given.workers, keep)
            lines, unjudged = lines_of(made), made.unjudged
    print("\n".join(lines))
    return EXIT_UNJUDGED if unjudged else 0


_COMMANDS = {"tasks": _tasks, "prompts": _prompts, "grade": _grade, "compare": _compare, "judge": _judge}


if __name__ == "__main__":
    sys.exit(main())
