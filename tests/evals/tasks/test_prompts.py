"""Prompts, written out."""

from contract.conversation import Turn
from evals.tasks.code import BODY_STOPS, HUMANEVAL
from evals.tasks.commonsense import BOOLQ, PIQA, WINOGRANDE
from evals.tasks.knowledge import CEVAL, MMLU
from evals.tasks.maths import GSM8K
from evals.tasks.prompts import prompt, shots_for
from evals.tasks.task import Item

ASKED = Item("arts/1", "arts", " Who? ", ("Bo", "Al", "Cy", "Di"), ("C",), subject="fine_arts")
SHOT = Item("arts/0", "arts", "When?", ("1", "2", "3", "4"), ("B",), subject="fine_arts")
TEXT = """The following are multiple choice questions (with answers) about fine arts.

When?
A. 1
B. 2
C. 3
D. 4
Answer: B

Who?
A. Bo
B. Al
C. Cy
D. Di
Answer:"""


def test_mmlu_is_asked_as_the_harness_asks_it() -> None:
    made = prompt(MMLU, ASKED, [SHOT])
    assert made.text == TEXT
    assert made.pairs == tuple((TEXT, f" {letter}") for letter in "ABCD")
    assert prompt(MMLU, ASKED).text == TEXT.replace("When?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\n", "")


def test_examples_are_turns_of_a_dialogue() -> None:
    intro, first, second = TEXT.split("\n\n")
    assert prompt(MMLU, ASKED, [SHOT], dialogue=True).turns == (
        Turn("user", f"{intro}\n\n{first.removesuffix(' B')}"),
        Turn("assistant", "B"),
        Turn("user", second),
    )


def test_a_reply_of_a_dialogue_ends_with_its_turn_alone() -> None:
    """A fence, a function or a blank line ends what a base model writes, and is part of what a chat model says."""
    asked = Item(
        "HumanEval/0", "HumanEval/0", "def add(a, b):\n", fields={"entry_point": "add", "canonical_solution": ""}
    )
    for task, item in ((HUMANEVAL, asked), (MMLU, ASKED), (GSM8K, ASKED)):
        assert prompt(task, item, dialogue=True).stop == ()
    assert prompt(HUMANEVAL, asked).stop == BODY_STOPS, "as one text"
    assert prompt(MMLU, ASKED).stop == ("\n\n",)


def test_a_cloze_lists_no_choices_and_scores_each_as_a_continuation() -> None:
    made = prompt(MMLU, ASKED, [SHOT], "cloze")
    assert made.text == "When? 2\n\nWho?"
    assert [scored for _, scored in made.pairs] == [" Bo", " Al", " Cy", " Di"]


def test_chinese_exams_name_the_subject_in_chinese() -> None:
    asked = Item("arts/1", "arts", "谁？", ("甲", "乙", "丙", "丁"), ("A",), {"name": "艺术学"}, "arts")
    assert prompt(CEVAL, asked).text == (
        "以下是中国关于艺术学的单项选择题，请选出其中的正确答案。\n\n谁？\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案："
    )


def test_a_blank_is_filled_with_each_choice_and_what_follows_is_scored() -> None:
    asked = WINOGRANDE.read(
        {"qID": "a-1", "sentence": "Ann beat Bo as _ trained.", "option1": "Ann", "option2": "Bo", "answer": "1"}, "0"
    )
    assert prompt(WINOGRANDE, asked).pairs == (("Ann beat Bo as Ann", " trained."), ("Ann beat Bo as Bo", " trained."))
    shot = prompt(WINOGRANDE, asked, [asked]).text
    assert shot == "Ann beat Bo as Ann trained.\n\nAnn beat Bo as "


def test_the_other_sets_are_asked_as_the_harness_asks_them() -> None:
    goal = PIQA.read({"goal": "Dry hair.", "sol1": "towel", "sol2": "soup", "label": 0}, "0")
    assert prompt(PIQA, goal).pairs == (
        ("Question: Dry hair.\nAnswer:", " towel"),
        ("Question: Dry hair.\nAnswer:", " soup"),
    )
    asked = BOOLQ.read({"question": "is it", "passage": "It is.", "answer": True}, "0")
    assert prompt(BOOLQ, asked).pairs[0] == ("It is.\nQuestion: is it?\nAnswer:", " no")
    assert prompt(BOOLQ, asked, style="letter").text == "It is.\nQuestion: is it?\nA. no\nB. yes\nAnswer:"
    word_problem = GSM8K.read({"question": "How many?", "answer": "Two.\n#### 2"}, "0")
    assert prompt(GSM8K, word_problem, [word_problem]).text == (
        "Question: How many?\nAnswer: Two.\n#### 2\n\nQuestion: How many?\nAnswer:"
    )


def test_examples_are_of_the_items_subject_where_there_are_any_and_never_the_item_itself() -> None:
    others = [Item(f"x/{at}", "x", f"question {at}", subject="x") for at in range(3)]
    assert shots_for(ASKED, [others[0], ASKED, SHOT, *others], 2) == [SHOT]
    assert shots_for(ASKED, others, 2) == others[:2]
    bare = Item("y", "y", "of no subject")
    assert shots_for(bare, [others[2], Item("z", "z", "also of none")], 1) == [others[2]]
