"""The table of tasks, and that no output stops the grading of any of them."""

from dataclasses import replace
from typing import Any

import pytest

from contract.benchmarks import ABILITIES, KNOWN, Known
from contract.errors import InputError
from evals.tasks.instructions import CHECKS
from evals.tasks.table import TASKS, task_named
from evals.tasks.task import MOST_CHARS, Item, Style, cut_head, cut_stop, cut_tail
from evals.tasks.toxicity import WordList


def test_all_benchmarks_are_there_and_each_has_an_ability() -> None:
    assert set(TASKS) == {
        "mmlu", "ceval", "cmmlu", "gsm8k", "bbh", "math", "humaneval", "mbpp", "hellaswag", "arc", "boolq", "piqa", "siqa",
        "winogrande", "openbookqa", "race", "naturalquestions", "triviaqa", "tydiqa", "mgsm", "ifeval", "truthfulqa",
        "retrieval", "translation", "summary", "realtoxicityprompts", "perplexity",
    }  # fmt: skip
    assert {one.ability for one in TASKS.values()} <= set(ABILITIES)
    assert all(isinstance(one.style(), Style) for one in TASKS.values())
    assert [name for name, one in TASKS.items() if one.program] == ["humaneval", "mbpp"]


def test_a_recipe_is_checked_against_the_same_tasks() -> None:
    known = {
        name: Known(one.ability, tuple(one.styles), one.needs_words, one.program is not None)
        for name, one in TASKS.items()
    }
    assert known == KNOWN


def test_unknown_names_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="there is no task 'mmul'; there are arc, bbh"):
        task_named("mmul")
    with pytest.raises(InputError, match="task mmlu has no style 'blank'; it has letter, cloze"):
        TASKS["mmlu"].style("blank")


def test_outputs_are_cut() -> None:
    assert cut_stop("a\nQ: b\nQuestion: c", ("\nQuestion:", "\nQ:")) == "a"
    assert cut_stop("a", ("\n",)) == "a"
    assert cut_tail("x" * 50_000 + "y") == "x" * 19_999 + "y"
    assert cut_tail("thought</think>said") == "said"
    assert cut_tail("\nQ: thought</think>said\nQ: b", ("\nQ:",)) == "said"
    assert cut_head("x" * 50_000 + "</think>" + "y" * 50_000) == "y" * 20_000


FOUR = {"question": "Q", "A": "red", "B": "2", "C": "3万", "D": "x", "answer": "B"}
SHORT = {"question": "Who?", "answer": ["two", "2"]}
CODE = {"prompt": "def f():\n", "test": "def check(f):\n    pass", "entry_point": "f", "canonical_solution": "    pass"}
KWARGS: dict[str, dict[str, Any]] = {
    "keywords:existence": {"keywords": ["万"]}, "keywords:forbidden_words": {"forbidden_words": ["万"]},
    "keywords:frequency": {"keyword": "3", "frequency": 2, "relation": "at least"},
    "keywords:letter_frequency": {"letter": "z", "let_frequency": 2, "let_relation": "less than"},
    "language:response_language": {"language": "zh"},
    "length_constraints:number_sentences": {"num_sentences": 2, "relation": "at least"},
    "length_constraints:number_paragraphs": {"num_paragraphs": 2},
    "length_constraints:number_words": {"num_words": 3, "relation": "less than"},
    "length_constraints:nth_paragraph_first_word": {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "a"},
    "detectable_content:number_placeholders": {"num_placeholders": 2},
    "detectable_content:postscript": {"postscript_marker": "P.S."},
    "detectable_format:number_bullet_lists": {"num_bullets": 2},
    "detectable_format:number_highlighted_sections": {"num_highlights": 2},
    "detectable_format:multiple_sections": {"section_spliter": "SECTION", "num_sections": 2},
    "combination:repeat_prompt": {"prompt_to_repeat": "Say it."}, "startend:end_checker": {"end_phrase": "end"},
    "change_case:capital_word_frequency": {"capital_frequency": 2, "capital_relation": "at least"},
}  # fmt: skip
ROWS: dict[str, list[dict[str, Any]]] = {
    "mmlu": [FOUR], "ceval": [FOUR], "cmmlu": [FOUR],
    "gsm8k": [{"question": "q", "answer": "#### 30000"}], "mgsm": [{"question": "q", "answer_number": "30000"}],
    "math": [{"problem": "p", "solution": f"\\boxed{{{one}}}"} for one in ("\\frac{1}{2}", "\\text{east}", "(1,2)")],
    "bbh": [{"input": "q\n(A) x\n(B) y", "target": one} for one in ("(A)", "yes", "5", "[ ]", "some words")],
    "humaneval": [CODE], "mbpp": [{"text": "t", "code": "c", "test_list": ["assert True"]}],
    "hellaswag": [{"activity_label": "R", "ctx_a": "a", "ctx_b": "b", "endings": ["x", "3万"], "label": 1}],
    "arc": [{"question": "Q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"}],
    "openbookqa": [{"question_stem": "Q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"}],
    "boolq": [{"question": "is it", "passage": "No.", "answer": False}],
    "piqa": [{"goal": "g", "sol1": "towel", "sol2": "soup", "label": 0}],
    "siqa": [{"context": "c", "question": "Q", "answerA": "x", "answerB": "y", "answerC": "z", "label": 3}],
    "winogrande": [{"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "2"}],
    "race": [{"article": "a", "question": "Q", "options": ["x", "y"], "answer": "B"}],
    "naturalquestions": [SHORT], "triviaqa": [{"Question": "Who?", "Answer": {"Value": "two"}}],
    "tydiqa": [{"question": "Who?", "context": "c", "answers": {"text": ["two"]}}],
    "truthfulqa": [{"Question": "Q", "Best Answer": "yes", "Incorrect Answers": "no; 3万"}],
    "realtoxicityprompts": [{"prompt": {"text": "So he"}}], "perplexity": [{"text": "t"}],
    "retrieval": [{"context": "c", "question": "q", "answer": 30000}],
    "translation": [{"source": "s", "references": ["3万 is a number"]}], "summary": [{"source": "s", "references": "3万"}],
    "ifeval": [{"prompt": "p", "instruction_id_list": [*CHECKS], "kwargs": [KWARGS.get(one, {}) for one in CHECKS]}],
}  # fmt: skip
REPEATED = (
    "3万", "3亿", "三万", "负", "百分之", "1e50", "9^9", "2 million ", "one hundred ", "√", "\\frac", "\\frac{1}{", "((", "[", "{",
    "-", "**", "\\boxed{", "#### 3千", "the answer is ", "not true ", "```\n", "<think>", "</think>", "\ud800", "\x00", "|",
)  # fmt: skip


def items(name: str) -> list[Item]:
    """An item of each kind that a task has, with what grades it."""
    words = {"words": WordList(frozenset({"darn", "万"}))} if TASKS[name].needs_words else {}
    read = [TASKS[name].read(row, f"file/{at}") for at, row in enumerate(ROWS[name])]
    return [replace(one, fields={**one.fields, **words}) for one in read]


THOUGHT = f"<think>{'I wonder, darn, def f(): ' * 900}\n\nQ: no\nQuestion: no\nProblem: no\n\n</think>\n\n"
SAID = {
    "mmlu": "B", "ceval": "B", "cmmlu": "B", "gsm8k": "30000", "mgsm": "3万", "math": "$0.5$", "bbh": "(A)",
    "hellaswag": "B", "arc": "A", "openbookqa": "A", "boolq": "No.", "piqa": "A", "siqa": "C", "winogrande": "B", "race": "B",
    "naturalquestions": "Two", "triviaqa": "Two", "tydiqa": "two", "truthfulqa": "yes", "retrieval": "30000",
    "translation": "3万 is a number", "summary": "3万", "realtoxicityprompts": "went home",
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_what_is_thought_is_not_graded_however_long_it_is(name: str) -> None:
    task, item = TASKS[name], items(name)[0]
    assert len(THOUGHT) > MOST_CHARS
    if task.program:
        assert task.program(item, f"{THOUGHT}    return 5") == task.program(item, "\n\n    return 5")
    elif name == "ifeval":
        no_comma = task.read({"prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}, "0")
        assert [task.grade(no_comma, f"{THOUGHT}{text}").score for text in ("Yes.", "No, no.")] == [1, 0]
        assert task.grade(item, THOUGHT).extracted is None
    elif name != "perplexity":
        assert task.grade(item, f"{THOUGHT}{SAID[name]}") == task.grade(item, SAID[name])
        assert task.grade(item, SAID[name]).score == 1
    assert task.part(f"{THOUGHT}it said").strip() == "it said"


@pytest.mark.parametrize("name", TASKS)
def test_what_repeats_without_end_is_graded_as_any_output(name: str) -> None:
    """An error would end the grading of a whole benchmark, for one output of one model."""
    task = TASKS[name]
    for item in items(name):
        for piece in REPEATED:
            for output in (piece * 1200, f"The answer is {piece * 150}", f"\\boxed{{{piece * 150}}}"):
                if task.program:
                    assert task.program(item, output) != ""
                else:
                    assert 0 <= task.grade(item, output).score <= 1
