"""Translation and summaries: texts that are compared with reference texts, by sentence BLEU and ROUGE-L.

Rows are {"id", "source", "references": [...]}. A score of single texts says little; the mean with its interval compares
models on the same items. Corpus BLEU as it is published comes from `evals.references.bleu`.
"""

from collections.abc import Mapping
from typing import Any

from evals.references import bleu, rouge_l
from evals.tasks.openqa import listed
from evals.tasks.task import MOST_CHARS, NOTHING, Item, Style, Task, Verdict


def read(row: Mapping[str, Any], place: str) -> Item:
    """{"id", "source", "references"}; `references` may be one text."""
    name = str(row.get("id", place))
    return Item(name, name, str(row["source"]), (), listed(row["references"]))


def text_of(output: str) -> str:
    return output[:MOST_CHARS].rpartition("</think>")[2].strip()


def grade_translation(item: Item, output: str) -> Verdict:
    """BLEU of this text alone."""
    text = text_of(output)
    return Verdict(text[:500], bleu([text], [item.answers])) if text else NOTHING


def grade_summary(item: Item, output: str) -> Verdict:
    """The F1 of ROUGE-L against the reference that agrees most."""
    text = text_of(output)
    return Verdict(text[:500], max(rouge_l(text, one).f1 for one in item.answers)) if text else NOTHING


def first(item: Item) -> str:
    return item.answers[0]


TRANSLATE = Style(lambda item: f"Translate the following text.\n\n{item.question}\n\nTranslation:", first)
SUMMARISE = Style(lambda item: f"{item.question}\n\nTL;DR:", first, stop=("\n\n",))
TRANSLATION = Task(
    "translation", "dialogue", read, grade_translation, {"translate": TRANSLATE}, shots=3, same_answer=None
)  # fmt: skip
SUMMARY = Task("summary", "dialogue", read, grade_summary, {"summarise": SUMMARISE}, same_answer=None)
TASKS = (TRANSLATION, SUMMARY)
