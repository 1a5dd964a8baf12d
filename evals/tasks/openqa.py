"""NaturalQuestions, TriviaQA and TyDi QA: questions whose short answer is compared with references."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evals.references import best_f1, exact_match, normalised
from evals.tasks.answers import announced, refuses
from evals.tasks.task import NOTHING, Item, Style, Task, Verdict, cut_tail, said

Row = Mapping[str, Any]
STOPS = ("\nQuestion:", "\nQ:", "\n\n")
MOST_ANSWER_CHARS = 1000


def read_nq(row: Row, place: str) -> Item:
    """{"question", "answer": ["14 December 1972 UTC", "December 1972"]}, as in NQ-Open."""
    return Item(place, place, str(row["question"]), (), listed(row["answer"]))


def listed(answers: Any) -> tuple[str, ...]:
    """Every answer of a row. Raises ValueError if there is none."""
    several = [answers] if isinstance(answers, str) else answers
    found = tuple(str(one) for one in several if one is not None and str(one).strip())
    if not found:
        raise ValueError("it has no answer")
    return found


def read_trivia(row: Row, place: str) -> Item:
    """{"Question", "QuestionId", "Answer": {"Value", "Aliases"}} as published, and in lower case as on the Hub."""
    question = str(row["Question"] if "Question" in row else row["question"])
    answer = row["Answer"] if "Answer" in row else row["answer"]
    value = answer["Value"] if "Value" in answer else answer["value"]
    aliases = answer.get("Aliases", answer.get("aliases")) or []
    name = str(row.get("QuestionId") or row.get("question_id") or place)
    return Item(name, name, question, (), tuple(dict.fromkeys((*listed([value]), *map(str, aliases)))))


def squad_rows(row: Row) -> Sequence[Row]:
    """An article of SQuAD's format as its questions; one question of the Hub's format as itself."""
    if "paragraphs" not in row:
        return (row,)
    return [
        {"id": asked["id"], "question": asked["question"], "context": paragraph["context"], "answers": asked["answers"]}
        for paragraph in row["paragraphs"]
        for asked in paragraph["qas"]
    ]


def read_tydiqa(row: Row, place: str) -> Item:
    """TyDi QA's gold passages. The language, which ids begin with, is the source."""
    answers = row["answers"]
    texts = answers["text"] if isinstance(answers, Mapping) else [one["text"] for one in answers]
    name = str(row.get("id", place))
    fields = {"context": str(row["context"])}
    return Item(name, name.partition("-")[0], str(row["question"]), (), listed(texts), fields)


def answer_part(output: str) -> str:
    return cut_tail(said(output).lstrip(), STOPS)


def short_answer(output: str) -> str | None:
    """What is announced as the answer, else the first line that says something; None for nothing."""
    text = answer_part(output)
    first = next(announced(text), "") or text.strip().partition("\n")[0]
    return first.strip(" *\"'`").rstrip(".")[:MOST_ANSWER_CHARS] or None


def grade_exact(item: Item, output: str) -> Verdict:
    """Whether the answer is one of the references in normal form."""
    return _graded(item, output, lambda found: 0.0)


def grade_f1(item: Item, output: str) -> Verdict:
    """The F1 of the answer's words against the reference that agrees most."""
    return _graded(item, output, lambda found: best_f1(found, item.answers))


def _graded(item: Item, output: str, otherwise: Callable[[str], float]) -> Verdict:
    """1 for a reference, though it reads like a refusal, as the name of a song may; no answer for a refusal."""
    found = short_answer(output)
    if found is not None and exact_match(found, item.answers):
        return Verdict(found, 1.0)
    return NOTHING if found is None or refuses(answer_part(output)) else Verdict(found, otherwise(found))


def same(one: str, other: str) -> bool:
    """Whether two answers have one normal form."""
    return normalised(one) == normalised(other)


def first(item: Item) -> str:
    return item.answers[0]


QUESTION = Style(lambda item: f"Question: {item.question.rstrip('?')}?\nAnswer:", first, stop=STOPS)
PASSAGE = Style(lambda item: f"{item.fields['context']}\n\nQuestion: {item.question}\nAnswer:", first, stop=STOPS)
OPEN = Style(
    lambda item: f"Q: {item.question.rstrip('?')}?\nA:", first, lambda item: "Answer these questions:\n\n", STOPS, "\n"
)
NATURAL_QUESTIONS = Task(
    "naturalquestions", "knowledge en", read_nq, grade_exact, {"question": OPEN}, shots=5, part=answer_part, same=same
)
TRIVIAQA = Task(
    "triviaqa", "knowledge en", read_trivia, grade_exact, {"question": QUESTION}, shots=5, part=answer_part, same=same
)
TYDIQA = Task(
    "tydiqa",
    "reasoning",
    read_tydiqa,
    grade_f1,
    {"passage": PASSAGE},
    shots=1,
    rows=squad_rows,
    part=answer_part,
    same=None,
)
TASKS = (NATURAL_QUESTIONS, TRIVIAQA, TYDIQA)
