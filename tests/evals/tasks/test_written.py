"""Texts against references."""

import pytest

from evals.references import bleu, rouge_l
from evals.tasks.written import SUMMARY, TRANSLATION

REFERENCE = "the cat sat on the red mat today"


def test_a_translation_is_graded_by_bleu_and_a_summary_by_rouge() -> None:
    row = {"id": "a", "source": "die Katze", "references": [REFERENCE, "a cat"]}
    text = "the cat sat on the mat"
    translated, summarised = (
        TRANSLATION.grade(TRANSLATION.read(row, "0"), text),
        SUMMARY.grade(SUMMARY.read(row, "0"), text),
    )
    assert translated.score == pytest.approx(bleu([text], [[REFERENCE, "a cat"]]))
    assert summarised.score == pytest.approx(rouge_l(text, REFERENCE).f1) == pytest.approx(12 / 14)
    assert TRANSLATION.grade(TRANSLATION.read({**row, "references": text}, "0"), f"<think>x</think> {text}").score == 1


def test_an_empty_text_is_no_answer_and_a_row_without_references_no_item() -> None:
    item = SUMMARY.read({"source": "s", "references": REFERENCE}, "0")
    assert (SUMMARY.grade(item, " ").extracted, TRANSLATION.grade(item, "").extracted) == (None, None)
    with pytest.raises(ValueError, match="no answer"):
        SUMMARY.read({"source": "s", "references": []}, "0")
