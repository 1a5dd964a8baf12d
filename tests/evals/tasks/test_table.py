"""The table of tasks."""

import pytest

from contract.benchmarks import ABILITIES, KNOWN, Known
from contract.errors import InputError
from evals.tasks.table import TASKS, task_named
from evals.tasks.task import Style, cut_stop, cut_tail


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
