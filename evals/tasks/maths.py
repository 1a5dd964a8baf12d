"""GSM8K, MGSM and MATH: word problems whose answer is a number, and problems whose answer is an expression."""

from collections.abc import Mapping
from typing import Any

from evals.tasks import numbers
from evals.tasks.answers import announced, boxed, number, refuses
from evals.tasks.equivalence import equivalent
from evals.tasks.task import NOTHING, Item, Style, Task, Verdict, cut_tail

Row = Mapping[str, Any]
QUESTION_STOPS = ("\nQuestion:", "\n\nQuestion:", "\nQ:")


def number_part(output: str) -> str:
    """What a number is looked for in: the end of the output, before questions that a base model goes on with."""
    return cut_tail(output, QUESTION_STOPS)


def math_part(output: str) -> str:
    return cut_tail(output, ("\nProblem:", "\n\nProblem:"))


def read_gsm8k(row: Row, place: str) -> Item:
    """{"question", "answer"}, whose answer ends in `#### 72`."""
    _, marked, answer = str(row["answer"]).rpartition("####")
    if not marked:
        raise ValueError("its answer has no ####")
    return Item(place, place, str(row["question"]), (), (exact(answer),), {"solution": row["answer"]})


def exact(text: str) -> str:
    """A published answer as it is compared. Raises ValueError if it is no number."""
    found = numbers.numbers(numbers.plain(text))
    if len(found) != 1:
        raise ValueError(f"its answer {text.strip()!r} is no number")
    return numbers.written(found[0].value)


def read_mgsm(row: Row, place: str) -> Item:
    """Columns question and answer_number, as `mgsm_de.tsv` has them without a header.

    One problem in all its languages is one source.
    """
    language, _, problem = place.rpartition("/")
    answers, fields = (exact(str(row["answer_number"])),), {"solution": row.get("answer")}
    return Item(place, problem, str(row["question"]), (), answers, fields, subject=language)


def grade_number(item: Item, output: str) -> Verdict:
    """Whether the number that an output gives is the right one, exactly."""
    value = number(number_part(output))
    if value is None:
        return NOTHING
    found = numbers.written(value)
    return Verdict(found, float(found in item.answers))


def solution(item: Item) -> str:
    return str(item.fields.get("solution") or item.answers[0])


def read_math(row: Row, place: str) -> Item:
    """{"problem", "solution" with the answer in its last box, "level", "type"}; or an answer of its own.

    Every problem is a source of its own: problems were not drawn by type, and all seven types are in the set.
    """
    answer = row.get("answer") or boxed(str(row["solution"]))
    if not answer:
        raise ValueError(r"its solution has no \boxed{}")
    fields = {"solution": row.get("solution", answer)}
    kind = str(row.get("type") or row.get("subject") or "")
    return Item(str(row.get("unique_id", place)), place, str(row["problem"]), (), (str(answer),), fields, kind)


def math_answer(output: str) -> str | None:
    """The expression that an output gives as its answer: boxed, announced, or the last one between dollar signs."""
    text = math_part(output)
    found = boxed(text)
    if found is not None:
        return found or None
    for part in announced(text):
        expression = part.partition(" I hope it is correct")[0].strip().rstrip(".").strip()
        inner = expression.split("$")
        expression = inner[1] if len(inner) > 2 else expression.strip("$")
        if expression:
            return expression
    if refuses(text):
        return None
    parts = text[-2000:].split("$")
    if len(parts) > 2 and len(parts) % 2:
        return parts[-2].strip() or None
    value = number(text)
    return None if value is None else numbers.written(value)


def grade_math(item: Item, output: str) -> Verdict:
    """Whether an output's expression is equivalent to the right one."""
    found = math_answer(output)
    return (
        NOTHING if found is None else Verdict(found[:500], float(any(equivalent(found, one) for one in item.answers)))
    )


STEPS = Style(lambda item: f"Question: {item.question}\nAnswer:", solution, stop=QUESTION_STOPS)
GSM8K = Task("gsm8k", "maths", read_gsm8k, grade_number, {"steps": STEPS}, shots=5, part=number_part)
MGSM = Task(
    "mgsm", "maths", read_mgsm, grade_number, {"steps": STEPS}, shots=8, columns=("question", "answer_number"),
    part=number_part,
)  # fmt: skip
MATH = Task(
    "math", "maths", read_math, grade_math, shots=4, part=math_part, same=equivalent,
    styles={"steps": Style(lambda item: f"Problem:\n{item.question}\n\nSolution:", solution, stop=("\nProblem:",))},
)  # fmt: skip
TASKS = (GSM8K, MGSM, MATH)
