"""Are answers found in outputs that are hard to read: `python -m perf.evaluate --only extraction`.

The cases are written by hand: units, thousands separators, two answers, answers in words, boxes, refusals, Chinese numerals. Each says
what a careful reader takes for the answer, None where there is none. Every miss is listed.
"""

import json
from pathlib import Path
from typing import Any

from evals.tasks import numbers
from evals.tasks.answers import letter, number, word
from evals.tasks.equivalence import equivalent
from evals.tasks.maths import QUESTION_STOPS, math_answer
from evals.tasks.task import cut_stop
from perf.bars import Bars

CASES = Path(__file__).parents[2] / "tests/evals/extraction_hard_cases.jsonl"
LEAST = 200


def cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CASES.read_text().splitlines()]


def read(case: dict[str, Any]) -> str | None:
    """What our code takes for the answer."""
    text = cut_stop(case["text"], QUESTION_STOPS)
    match case["kind"]:
        case "number":
            value = number(text)
            return None if value is None else numbers.written(value)
        case "letter":
            return letter(text, case["choices"])
        case "word":
            return word(text, case["known"])
    return math_answer(text)


def right(case: dict[str, Any]) -> bool:
    """Whether that is what a careful reader takes; of mathematics, whether it is as much as the right or the wrong answer."""
    found = read(case)
    if "right" in case:
        return found is not None and equivalent(found, case["right"])
    if "wrong" in case:
        return found is None or not equivalent(found, case["wrong"])
    return bool(found == case["want"])


def run(bars: Bars, data: Path) -> None:
    """`data` is not needed."""
    every = cases()
    missed = [one for one in every if not right(one)]
    for one in missed:
        print(f"missed: {json.dumps(one, ensure_ascii=False)} was read as {read(one)!r}")
    bars.at_least("extraction_cases", len(every), LEAST)
    bars.at_least("extraction_hard_cases", 1 - len(missed) / len(every), 0.98)
