"""MMLU, C-Eval and CMMLU: exam questions with four choices, by subject.

Prompts are those of the Language Model Evaluation Harness (tasks mmlu, ceval-valid, cmmlu). A subject's name is that
of the set's mapping (`mapping.json`), and its file's name without one.
"""

from collections.abc import Callable, Mapping
from typing import Any

from evals.tasks.choice import CHINESE, by_letter, by_number, cloze_style, grade, letter_style
from evals.tasks.task import Item, Style, Task

FOUR = ("A", "B", "C", "D")


def subject_of(row: Mapping[str, Any], place: str) -> str:
    """The subject that a row names, or the name of its file."""
    return str(row.get("subject") or row.get("Subject") or place.rpartition("/")[0])


def read_mmlu(row: Mapping[str, Any], place: str) -> Item:
    """Columns question, A, B, C, D, answer, as in Hendrycks's files; or question, choices, answer as on the Hub."""
    if "choices" in row:
        choices = tuple(map(str, row["choices"]))
        numbered = str(row["answer"]).lstrip("-").isdigit()
        right = (by_number if numbered else by_letter)(row, "answer", len(choices))
    else:
        choices = tuple(str(row[one]) for one in FOUR)
        right = by_letter(row, "answer", 4)
    subject = subject_of(row, place)
    name = f"{subject}/{place.rpartition('/')[2]}"
    return Item(name, subject, str(row["question"]), choices, (right,), subject=subject)


def read_exam(row: Mapping[str, Any], place: str) -> Item:
    """C-Eval's columns id, question, A, B, C, D, answer, and CMMLU's, which begin with capitals."""
    question = str(row["Question"] if "Question" in row else row["question"])
    right = by_letter(row, "Answer" if "Answer" in row else "answer", 4)
    subject = subject_of(row, place)
    choices = tuple(str(row[one]) for one in FOUR)
    return Item(f"{subject}/{place.rpartition('/')[2]}", subject, question, choices, (right,), subject=subject)


def named(item: Item) -> str:
    """The subject's name in a prompt: that of the set's mapping, or the file's with spaces."""
    return str(item.fields.get("name") or item.subject.replace("_", " "))


def styles(letters: Style) -> dict[str, Style]:
    """Asked for the letter, or with each choice as the continuation of the question."""
    return {"letter": letters, "cloze": cloze_style(lambda item: item.question.strip())}


def intro(opening: str, ending: str) -> Callable[[Item], str]:
    """What stands before the questions of a subject."""
    return lambda item: f"{opening}{named(item)}{ending}\n\n"


ENGLISH_EXAM = letter_style(intro("The following are multiple choice questions (with answers) about ", "."))
CEVAL_EXAM = letter_style(intro("以下是中国关于", "的单项选择题，请选出其中的正确答案。"), CHINESE)
CMMLU_EXAM = letter_style(intro("以下是关于", "的单项选择题，请直接给出正确答案的选项。"), CHINESE)
MMLU = Task(
    "mmlu", "knowledge en", read_mmlu, grade, styles(ENGLISH_EXAM), shots=5, columns=("question", *FOUR, "answer")
)  # fmt: skip
CEVAL = Task("ceval", "knowledge zh", read_exam, grade, styles(CEVAL_EXAM), shots=5)
CMMLU = Task("cmmlu", "knowledge zh", read_exam, grade, styles(CMMLU_EXAM), shots=5)
TASKS = (MMLU, CEVAL, CMMLU)
