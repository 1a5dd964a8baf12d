"""Values of rows: texts, numbers, roles, tools; and what is said of those that cannot be used."""

from typing import Any

import pytest

from contract.conversation import Turn
from contract.examples import Unusable
from pipelines.examples.fields import TOOLS, number, number_at, task_of, text_at, turns_of

ASKED = {"role": "user", "content": "So?"}
ANSWERED = {"role": "assistant", "content": "Yes."}


def test_the_first_key_with_a_value_counts() -> None:
    assert text_at({"a": None, "b": " x\r\ny "}, "a", "b") == "x\ny"
    assert text_at({"a": " "}, "a", default="") == ""
    assert text_at({}, "a", default="z") == "z"
    assert text_at({"a": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]}, "a") == "one two"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "missing text: a"),
        ({"a": None, "b": None}, "missing text: a"),
        ({"a": " \n"}, "empty text: a"),
        ({"a": 3}, "not a text: a"),
        ({"b": ["x"]}, "not a text: b"),
        ({"a": [{"type": "image_url", "image_url": "x"}]}, "not a text: a: image_url"),
        ({"a": "b\udfff"}, "broken text: lone surrogate at character 1"),
    ],
)
def test_what_is_no_text_is_named(row: dict[str, Any], said: str) -> None:
    with pytest.raises(Unusable, match=f"^{said}$"):
        text_at(row, "a", "b")


@pytest.mark.parametrize(
    ("value", "found"),
    [(4, 4.0), ("4.5", 4.5), ("-1", -1.0), (True, None), ("N/A", None), (None, None), ([], None), (float("nan"), None), ("inf", None), (10**400, None)],
)  # fmt: skip
def test_what_counts_as_a_number(value: object, found: float | None) -> None:
    assert number(value) == found
    assert number_at({"a": "no", "b": value}, "a", "b") == found


def test_a_row_may_name_its_task() -> None:
    assert task_of({"task": "nli"}, "other") == "nli"
    assert task_of({"task_name": "qa"}, "other") == "qa"
    for odd in ({"task": 3}, {"task": ""}, {"task": "a\nb"}, {"task": "x" * 81}, [], "task"):
        assert task_of(odd, "other") == "other"


def test_roles_of_every_set_become_ours() -> None:
    said = [("system", "a"), ("human", "b"), ("gpt", "c"), ("observation", "d"), ("assistant", "e"), ("prompter", "f")]
    found = turns_of([{"from": role, "value": words} for role, words in said])
    assert [turn.role for turn in found] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert [turn.text for turn in found] == list("abcdef")
    assert turns_of([ASKED, ANSWERED], system=" Be kind. ")[0] == Turn("system", "Be kind.")


def test_calls_of_tools_are_written_out() -> None:
    """OpenAI's present and older form, and ShareGPT's, give the same turns."""
    called = '<tool_call>\n{"name": "mill", "arguments": {"turns": 2}}\n</tool_call>'
    function = {"name": "mill", "arguments": '{"turns": 2}'}
    tool = {"role": "tool", "content": "done"}
    new = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    old = {"role": "assistant", "content": "", "function_call": function}
    share = {"from": "function_call", "value": '{"name": "mill", "arguments": {"turns": 2}}'}
    for call in (new, old, share):
        found = turns_of([ASKED, call, tool, ANSWERED])
        assert found == (
            Turn("user", "So?"),
            Turn("assistant", called),
            Turn("tool", "done"),
            Turn("assistant", "Yes."),
        )
    twice = turns_of([ASKED, {**new, "content": "Wait.", "tool_calls": [{"function": function}] * 2}])
    assert twice[1].text == f"Wait.\n{called}\n{called}"


def test_the_list_of_tools_joins_the_system_turn() -> None:
    tools = [{"name": "mill"}]
    described = TOOLS.format('{"name": "mill"}')
    assert turns_of([ASKED, ANSWERED], tools=tools)[0] == Turn("system", described)
    assert (
        turns_of([ASKED, ANSWERED], tools='[{"name": "mill"}]', system="Be kind.")[0].text == f"Be kind.\n\n{described}"
    )
    for none in (None, "", [], " "):
        assert turns_of([ASKED, ANSWERED], tools=none)[0].role == "user"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("text", "not a dialogue: no list of messages"),
        ([], "not a dialogue: no list of messages"),
        ([3], "not a dialogue: a message is no object"),
        ([{"role": "narrator", "content": "x"}], "not a dialogue: unknown role 'narrator'"),
        ([ANSWERED, ASKED], "not a dialogue: does not begin with a user's turn"),
        ([ASKED] * 1001, "not a dialogue: 1,001 turns, more than 1,000"),
        ([{"role": "system", "content": "x"}], "not a dialogue: does not begin with a user's turn"),
        ([ASKED, {"role": "assistant", "content": " "}], "empty text: reply"),
        ([{"role": "user", "content": None}, ANSWERED], "empty text: user"),
        ([ASKED, {"role": "assistant", "tool_calls": [{"function": {}}]}], "not a dialogue: a call of a tool has no name"),
    ],
)  # fmt: skip
def test_what_is_no_dialogue_is_named(messages: object, said: str) -> None:
    with pytest.raises(Unusable, match=f"^{said}$"):
        turns_of(messages)


def test_tools_that_are_no_list_are_named() -> None:
    with pytest.raises(Unusable, match="not a dialogue: tools is no list"):
        turns_of([ASKED, ANSWERED], tools="a hammer")
