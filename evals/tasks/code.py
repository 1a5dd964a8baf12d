"""HumanEval and MBPP: functions that a model writes, run against the published tests, in the sandbox alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evals.sandbox import run
from evals.tasks.task import MOST_CHARS, NOTHING, Item, Style, Task, Verdict

Row = Mapping[str, Any]
FENCE = re.compile(r"```[ \t]{0,4}([A-Za-z0-9+]{0,12})[ \t]{0,4}\n")
BODY_STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\n```", "\nassert ")
"""Where a base model that completes a function goes on with something else (Chen et al. 2021, section 3)."""


def read_humaneval(row: Row, place: str) -> Item:
    """{"task_id", "prompt", "test", "entry_point", "canonical_solution"}."""
    fields = {key: str(row[key]) for key in ("test", "entry_point", "canonical_solution")}
    name = str(row.get("task_id", place))
    return Item(name, name, str(row["prompt"]), (), (), fields)


def read_mbpp(row: Row, place: str) -> Item:
    """{"task_id", "text" or "prompt", "code", "test_list", "test_setup_code" or "test_imports"}."""
    tests = [str(one) for one in row["test_list"]]
    if not tests:
        raise ValueError("its test_list is empty")
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or ())
    name = str(row.get("task_id", place))
    question = str(row["text"] if "text" in row else row["prompt"])
    return Item(name, name, question, (), (), {"tests": tests, "setup": setup, "canonical_solution": str(row["code"])})


def blocks(output: str) -> list[str]:
    """The blocks of code between fences, in order; the last one may be cut short."""
    found, at = [], 0
    while match := FENCE.search(output, at):
        end = output.find("\n```", match.end() - 1)
        stop = len(output) if end < 0 else end + 1
        if match[1].lower() in ("", "python", "py", "python3"):
            found.append(output[match.end() : stop])
        at = stop + 3
    return found


def defines(code: str, name: str) -> bool:
    """Whether code defines a function of this name at its outermost level."""
    return re.search(rf"^(?:async )?def {re.escape(name)}\b", code, re.MULTILINE) is not None


def humaneval_program(item: Item, output: str) -> str | None:
    """The completed function with its tests, or None if the output is empty.

    Code between fences counts alone. Code that defines the function replaces it, behind the prompt's imports and
    helpers; other code is the rest of its body.
    """
    output = output[:MOST_CHARS].rpartition("</think>")[2]
    name, asked = item.fields["entry_point"], item.question
    fenced = blocks(output)
    code = next((one for one in fenced if defines(one, name)), fenced[0] if fenced else output)
    if not code.strip():
        return None
    if defines(code, name):
        made = f"{asked[: asked.rfind(f'def {name}')]}\n{code}"
    else:
        ends = [at for stop in BODY_STOPS if (at := code.find(stop)) >= 0]
        made = asked + (code if fenced else code[: min(ends, default=len(code))])
    return f"{made}\n\n{item.fields['test']}\n\ncheck({name})\n"


def mbpp_program(item: Item, output: str) -> str | None:
    """The last block of code, or what stands before [DONE], with its tests; None if there is no code."""
    output = output[:MOST_CHARS].rpartition("</think>")[2]
    fenced = blocks(output)
    code = fenced[-1] if fenced else output.partition("[DONE]")[0].rpartition("[BEGIN]")[2]
    if not code.strip():
        return None
    return "\n".join([str(item.fields["setup"]), code, *item.fields["tests"]]) + "\n"


def grade_humaneval(item: Item, output: str) -> Verdict:
    """Whether the function passes its tests. Raises SetupError on a machine without the sandbox."""
    return _graded(humaneval_program(item, output))


def grade_mbpp(item: Item, output: str) -> Verdict:
    """Whether the code passes the tests. Raises SetupError on a machine without the sandbox."""
    return _graded(mbpp_program(item, output))


def _graded(program: str | None) -> Verdict:
    if program is None:
        return NOTHING
    ended = run(program)
    return Verdict(ended.ending, float(ended.passed))


def ask_mbpp(item: Item) -> str:
    tests: Sequence[str] = item.fields["tests"]
    wanted = "\n".join(tests[:3])
    return (
        f"You are an expert Python programmer, and here is your task: {item.question} "
        f"Your code should pass these tests:\n\n{wanted}\n[BEGIN]\n"
    )


def canonical(item: Item) -> str:
    return str(item.fields["canonical_solution"])


HUMANEVAL = Task(
    "humaneval", "code", read_humaneval, grade_humaneval, program=humaneval_program, same_answer=None,
    styles={"complete": Style(lambda item: item.question, canonical, stop=BODY_STOPS)},
)  # fmt: skip
MBPP = Task(
    "mbpp", "code", read_mbpp, grade_mbpp, shots=3, program=mbpp_program, same_answer=None,
    styles={"describe": Style(ask_mbpp, lambda item: f"{canonical(item)}\n[DONE]", stop=("[DONE]",))},
)  # fmt: skip
TASKS = (HUMANEVAL, MBPP)
