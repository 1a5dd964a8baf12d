"""HellaSwag, ARC, BoolQ, PIQA, SIQA, WinoGrande, OpenBookQA and RACE: questions with choices.

Prompts of the usual style are those of the Language Model Evaluation Harness. Labels of PIQA and SIQA are published in
a file beside the questions (`train-labels.lst`); rows must hold them, as `label`, as on the Hub.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evals.tasks.answers import word
from evals.tasks.choice import by_letter, by_number, cloze_style, grade, letter_style
from evals.tasks.task import LETTERS, Item, Style, Task, Verdict

Row = Mapping[str, Any]


def both(cloze: Style, letters: Style | None = None) -> dict[str, Style]:
    """Usually each choice as the continuation of the question; or asked for its letter."""
    return {"cloze": cloze, "letter": letters or letter_style()}


def tidied(text: str) -> str:
    """HellaSwag's text without the marks of WikiHow, as the harness writes it: ` [title]` ends a sentence."""
    text = text.strip().replace(" [title]", ". ")
    kept, at = [], 0
    while (opened := text.find("[", at)) >= 0 and (closed := text.find("]", opened)) >= 0:
        kept.append(text[at:opened])
        at = closed + 1
    return ("".join(kept) + text[at:]).replace("  ", " ")


def read_hellaswag(row: Row, place: str) -> Item:
    """{"ind", "activity_label", "ctx_a", "ctx_b", "endings", "label"}."""
    context = f"{row['ctx_a']} {str(row['ctx_b']).capitalize()}"
    choices = tuple(tidied(one) for one in row["endings"])
    answer = by_number(row, "label", len(choices))
    question = tidied(f"{row['activity_label']}: {context}")
    return Item(str(row.get("ind", place)), str(row.get("source_id", place)), question, choices, (answer,))


def listed_choices(choices: Any) -> tuple[list[str], list[str]]:
    """(labels, texts) of choices as AI2 publishes them, a list, or as the Hub does, an object of two lists."""
    if isinstance(choices, Mapping):
        return [str(one) for one in choices["label"]], [str(one) for one in choices["text"]]
    return [str(one["label"]) for one in choices], [str(one["text"]) for one in choices]


def read_science(row: Row, place: str) -> Item:
    """ARC and OpenBookQA: {"id", "question": {"stem", "choices"}, "answerKey"}, or flat as on the Hub."""
    question = row["question"] if isinstance(row.get("question"), Mapping) else row
    stem = str(question["stem"] if "stem" in question else row.get("question_stem") or row["question"])
    labels, texts = listed_choices(question["choices"])
    key = str(row["answerKey"])
    if key not in labels:
        raise ValueError(f"answerKey is {key!r}, not one of {', '.join(labels)}")
    identifier = str(row.get("id", place))
    return Item(identifier, identifier, stem, tuple(texts), (LETTERS[labels.index(key)],))


def read_boolq(row: Row, place: str) -> Item:
    """{"question", "passage", "answer": true}, or label 1 as in SuperGLUE."""
    yes = row["answer"] if "answer" in row else int(row["label"]) == 1
    if not isinstance(yes, bool):
        raise ValueError(f"answer is {yes!r}, not true or false")
    passage, question = str(row["passage"]), str(row["question"])
    return Item(place, passage[:80], question, ("no", "yes"), (LETTERS[int(yes)],), {"passage": passage})


def grade_boolq(item: Item, output: str) -> Verdict:
    """Yes or no, or the letter of one of them."""
    found = word(output, ("yes", "no", "true", "false"))
    if found is None:
        return grade(item, output)
    said = "yes" if found in ("yes", "true") else "no"
    return Verdict(said, float(item.choices[item.right] == said))


def read_piqa(row: Row, place: str) -> Item:
    """{"goal", "sol1", "sol2", "label"}."""
    choices = (str(row["sol1"]), str(row["sol2"]))
    return Item(str(row.get("id", place)), place, str(row["goal"]), choices, (by_number(row, "label", 2),))


def read_siqa(row: Row, place: str) -> Item:
    """{"context", "question", "answerA", "answerB", "answerC", "label": "1" to "3" or "correct": "A"}."""
    choices = tuple(str(row[f"answer{one}"]) for one in "ABC")
    answer = by_letter(row, "correct", 3) if "correct" in row else by_number(row, "label", 3, first=1)
    question = f"{row['context']} {row['question']}"
    return Item(place, str(row["context"])[:80], question, choices, (answer,))


def read_winogrande(row: Row, place: str) -> Item:
    """{"qID", "sentence" with a blank `_`, "option1", "option2", "answer": "1" or "2"}. Twins are one source."""
    sentence = str(row["sentence"])
    if "_" not in sentence:
        raise ValueError("the sentence has no blank _")
    choices = (str(row["option1"]), str(row["option2"]))
    name = str(row.get("qID", place))
    return Item(name, name.rpartition("-")[0] or name, sentence, choices, (by_number(row, "answer", 2, first=1),))


def blank_style() -> Style:
    """Each choice is put into the blank, and what follows the blank is scored (Trinh, Le 2018: partial evaluation)."""

    def continuations(item: Item) -> Sequence[tuple[str, str]]:
        before, _, behind = item.question.partition("_")
        return [(before + choice, f" {behind.strip()}") for choice in item.choices]

    def ask(item: Item) -> str:
        return item.question.partition("_")[0]

    def answer(item: Item) -> str:
        return item.choices[item.right] + item.question.partition("_")[2]

    return Style(ask, answer, continuations=continuations)


def race_rows(row: Row) -> Sequence[Row]:
    """An article with its questions, as RACE is published, or one question with its article, as on the Hub."""
    if "questions" not in row:
        return (row,)
    asked = zip(row["questions"], row["options"], row["answers"], strict=True)
    return [
        {
            "article": row["article"],
            "example_id": row.get("id"),
            "question": question,
            "options": options,
            "answer": right,
        }
        for question, options, right in asked
    ]


def read_race(row: Row, place: str) -> Item:
    """{"article", "question", "options", "answer": "A"}. The questions of an article are one source."""
    choices = tuple(map(str, row["options"]))
    article = str(row["article"])
    source = str(row.get("example_id") or article[:80])
    answer = by_letter(row, "answer", len(choices))
    return Item(f"{source}#{place}", source, str(row["question"]), choices, (answer,), {"article": article})


def ask_race(item: Item) -> str:
    return f"Article: {item.fields['article']}\n\nQuestion: {item.question}\nAnswer:"


def asked_of_passage(item: Item) -> str:
    return f"{item.fields['passage']}\nQuestion: {item.question}?"


def answer_to(item: Item) -> str:
    return f"Question: {item.question}\nAnswer:"


HELLASWAG = Task("hellaswag", "reasoning", read_hellaswag, grade, both(cloze_style(lambda item: item.question)))
ARC = Task("arc", "knowledge en", read_science, grade, both(cloze_style(answer_to)))
OPENBOOKQA = Task("openbookqa", "knowledge en", read_science, grade, both(cloze_style(lambda item: item.question)))
BOOLQ = Task(
    "boolq", "reasoning", read_boolq, grade_boolq,
    both(cloze_style(lambda item: f"{asked_of_passage(item)}\nAnswer:"), letter_style(question=asked_of_passage)),
)  # fmt: skip
PIQA = Task("piqa", "reasoning", read_piqa, grade, both(cloze_style(answer_to)))
SIQA = Task("siqa", "reasoning", read_siqa, grade, both(cloze_style(lambda item: f"Q: {item.question}\nA:")))
WINOGRANDE = Task("winogrande", "reasoning", read_winogrande, grade, {"blank": blank_style(), "letter": letter_style()})
RACE = Task(
    "race", "reasoning", read_race, grade,
    both(
        cloze_style(ask_race),
        letter_style(question=lambda item: f"Article: {item.fields['article']}\n\nQuestion: {item.question}"),
    ),
)  # fmt: skip
TASKS = (HELLASWAG, ARC, OPENBOOKQA, BOOLQ, PIQA, SIQA, WINOGRANDE, RACE)
