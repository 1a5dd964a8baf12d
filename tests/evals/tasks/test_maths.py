"""GSM8K, MGSM and MATH."""

import pytest

from evals.tasks.maths import GSM8K, MATH, MGSM, exact, math_answer
from evals.tasks.published import read_items
from tests.conftest import DATA


def test_gsm8k_is_right_or_wrong_or_not_answered() -> None:
    item = GSM8K.read({"question": "How many?", "answer": "a\n#### 1,250"}, "0")
    graded = [GSM8K.grade(item, text) for text in ("so 1250.00", "#### 1,251", "I don't know", "It is \\boxed{1250}")]
    assert [(one.extracted, one.score) for one in graded] == [("1250", 1), ("1251", 0), (None, 0), ("1250", 1)]


def test_what_a_base_model_asks_itself_next_is_not_its_answer() -> None:
    item = GSM8K.read({"question": "How many?", "answer": "#### 9"}, "0")
    assert GSM8K.grade(item, "#### 9\n\nQuestion: next\nAnswer: #### 5").score == 1


@pytest.mark.skipif(not DATA.is_dir(), reason="the test data is not here")
def test_every_published_solution_of_gsm8k_is_right() -> None:
    items = read_items(GSM8K, DATA / "evals" / "gsm8k" / "train.jsonl", most=2000)
    assert [one.id for one in items if GSM8K.grade(one, one.fields["solution"]).score != 1] == []
    said = [one.fields["solution"].replace("####", "The answer is") for one in items]
    assert [one.id for one, text in zip(items, said, strict=True) if GSM8K.grade(one, text).score != 1] == []


def test_a_problem_of_mgsm_is_one_source_in_all_its_languages() -> None:
    rows = [MGSM.read({"question": "Wie viele?", "answer_number": "18"}, f"mgsm_{one}/3") for one in ("de", "fr")]
    assert [(one.id, one.source, one.subject, one.answers) for one in rows] == [
        ("mgsm_de/3", "3", "mgsm_de", ("18",)),
        ("mgsm_fr/3", "3", "mgsm_fr", ("18",)),
    ]


def test_an_answer_that_is_no_number_is_refused() -> None:
    assert exact(" 1,250 ") == "1250"
    for wrong in ("", "x", "1 and 22"):
        with pytest.raises(ValueError, match="is no number"):
            exact(wrong)


def test_math_compares_what_expressions_say() -> None:
    item = MATH.read(
        {"problem": "P", "solution": "so $\\boxed{\\frac{1}{2}}$", "type": "Algebra", "level": "Level 1"}, "x/0"
    )
    assert (item.answers, item.source) == (("\\frac{1}{2}",), "x/0"), "types were not drawn"
    assert item.subject == "Algebra", "examples are of the same type"
    assert MATH.grade(item, "It is \\boxed{0.5}").score == 1
    assert MATH.grade(item, "It is \\boxed{2}").score == 0
    assert MATH.grade(item, "I'm sorry, no").extracted is None
    with pytest.raises(ValueError, match="has no"):
        MATH.read({"problem": "P", "solution": "none"}, "x/0")


def test_an_expression_is_boxed_or_announced_or_between_dollars_or_the_last_number() -> None:
    texts = [
        "\\boxed{x} so the answer is y",
        "Final Answer: The final answer is $\\sqrt{2}$. I hope it is correct.",
        "thus $a$ and $b+1$",
        "we get 7 then 8",
        "\\boxed{}",
    ]
    assert [math_answer(one) for one in texts] == ["x", "\\sqrt{2}", "b+1", "8", None]
