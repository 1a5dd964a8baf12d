"""Wordings of a task: which of them a row draws, and the worked examples before it."""

from collections import Counter

import pytest

from contract.conversation import Turn
from contract.examples import Unusable
from contract.settings.examples import Template
from pipelines.examples.templates import keys_of, with_shots, worded

PLAIN = Template(prompt="Q: {question}\nA:", reply="{answer}")
THOUGHT = Template(prompt="{question} Think step by step.", reply="{rationale}\n\nSo the answer is {answer}.")
CHOICE = Template(prompt="{question}\n{options}", reply="{answer}")


def test_values_are_put_where_the_template_names_them() -> None:
    assert worded({"question": "{answer}?", "answer": 42}, [PLAIN]) == (
        Turn("user", "Q: {answer}?\nA:"),
        Turn("assistant", "42"),
    )
    found = worded({"question": "Which?", "options": ["one", "two"], "answer": "two"}, [CHOICE])
    assert found[0].text == "Which?\n- one\n- two"
    assert keys_of(THOUGHT) == {"question", "rationale", "answer"}


def test_every_wording_is_drawn_and_a_row_always_draws_the_same() -> None:
    rows = [{"question": f"q{at}", "answer": "a", "rationale": "r"} for at in range(300)]
    drawn = Counter(worded(row, [PLAIN, THOUGHT])[0].text.startswith("Q:") for row in rows)
    assert 100 < drawn[True] < 200
    assert [worded(row, [PLAIN, THOUGHT]) for row in rows] == [worded(row, [PLAIN, THOUGHT]) for row in rows]
    assert [worded(row, [PLAIN, THOUGHT], 1) for row in rows] != [worded(row, [PLAIN, THOUGHT]) for row in rows]


def test_a_row_without_reasoning_is_asked_plainly() -> None:
    rows = [{"question": f"q{at}", "answer": "a", "rationale": None} for at in range(50)]
    assert {worded(row, [PLAIN, THOUGHT])[1].text for row in rows} == {"a"}
    with pytest.raises(Unusable, match=r"^no template: no value at rationale$"):
        worded(rows[0], [THOUGHT])
    with pytest.raises(Unusable, match=r"^not an object$"):
        worded([], [PLAIN])
    with pytest.raises(Unusable, match=r"^empty text: reply$"):
        worded({"question": "q", "answer": " \n"}, [PLAIN])


def test_worked_examples_stand_before_the_question() -> None:
    pool = [(Turn("user", f"p{at}"), Turn("assistant", f"r{at}")) for at in range(6)]
    chat = (Turn("system", "s"), Turn("user", "q"), Turn("assistant", "a"))
    turns, before = with_shots(chat, pool, [2])
    assert before == 4
    assert turns[0] == chat[0]
    assert turns[-2:] == chat[1:]
    numbers = [turn.text[1:] for turn in turns[1:5]]
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]
    assert [turn.role for turn in turns[1:5]] == ["user", "assistant"] * 2
    assert with_shots(chat, pool, [0]) == (chat, 0)
    assert with_shots(chat, [], [3]) == (chat, 0)
    assert with_shots(pool[0], pool, [6])[1] == 10, "no chat stands before itself"
    drawn = Counter(with_shots((Turn("user", f"q{at}"), chat[2]), pool, [0, 3])[1] for at in range(200))
    assert set(drawn) == {0, 6}
    assert 60 < drawn[0] < 140
