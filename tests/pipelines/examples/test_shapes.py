"""Every shape of rows by a known answer, and why a row fits none."""

from typing import Any

import pytest

from contract.conversation import Conversation, Turn
from contract.examples import Unusable
from pipelines.examples.shapes import CHATS, CLASSIFYING, PROMPTS, TELLING, allowed, drawn, shape_of

MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def chat(*texts: str) -> Conversation:
    """Texts of a user and an assistant in turn."""
    return tuple(Turn("assistant" if at % 2 else "user", text) for at, text in enumerate(texts))


def read(row: Any, shapes: Any = CHATS) -> tuple[str, list[Conversation]]:
    shape = shape_of(row, shapes)
    return shape.name, list(shape.parse(row))


@pytest.mark.parametrize(
    ("row", "name", "found"),
    [
        ({"messages": MESSAGES, "prompt": "x"}, "messages", [chat("a", "b")]),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "sharegpt", [chat("a", "b")]),
        ({"instruction": "Add.", "input": "1, 2", "output": "3 "}, "alpaca", [chat("Add.\n\n1, 2", "3")]),
        ({"instruction": "Add.", "input": "", "response": "3"}, "alpaca", [chat("Add.", "3")]),
        (
            {"instruction": "Go on.", "output": "c", "system": "Be kind.", "history": [["a", "b"]]},
            "alpaca",
            [(Turn("system", "Be kind."), *chat("a", "b", "Go on.", "c"))],
        ),
        (
            {"instruction": "Add.", "instances": [{"input": "1", "output": "2"}, {"input": "", "output": "4"}]},
            "self-instruct",
            [chat("Add.\n\n1", "2"), chat("Add.", "4")],
        ),
        ({"question": "a", "answer": "b"}, "question/answer", [chat("a", "b")]),
        ({"question": "a", "context": "Long ago.", "answer": "b"}, "question/answer", [chat("a\n\nLong ago.", "b")]),
        ({"system_prompt": "s", "question": "a", "response": "b"}, "question/answer", [(Turn("system", "s"), *chat("a", "b"))]),
        ({"input": "a", "target": "b"}, "input/target", [chat("a", "b")]),
        ({"inputs": "a", "targets": "b", "task": "t"}, "input/target", [chat("a", "b")]),
        ({"prompt": "a", "completion": "b"}, "prompt/completion", [chat("a", "b")]),
        ({"prompt": MESSAGES + MESSAGES[:1], "completion": "c"}, "prompt/completion", [chat("a", "b", "a", "c")]),
        (
            {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]},  # TRL's
            "prompt/completion",
            [chat("a", "b")],
        ),
        ({"question": "a", "answer": ["b"]}, "question/answer", [chat("a", "b")]),
        ({"instruction": "a", "outputs": ["b", {"text": "c"}]}, "several outputs", [chat("a", "b"), chat("a", "c")]),
        ({"question": "a", "answers": ["b"]}, "several outputs", [chat("a", "b")]),
        ({"entity": "Mill", "facts": ["old", "", "grey"]}, "entity/facts", [chat(TELLING[drawn("Mill", 3)].format("Mill"), "old\ngrey")]),
        (
            {"entity": "Mill", "facts": {"age": 300, "owner": None}},
            "entity/facts",
            [chat(TELLING[drawn("Mill", 3)].format("Mill"), "age: 300")],
        ),
    ],
)  # fmt: skip
def test_shapes_by_known_answers(row: dict[str, Any], name: str, found: list[Conversation]) -> None:
    assert read(row) == (name, found)


def test_the_number_of_a_label_stands_for_its_name() -> None:
    for label, said in ((1, "good"), ("good", "good")):
        [(asked, answered)] = read({"text": "a", "label": label, "labels": ["bad", "good"]})[1]
        assert answered == Turn("assistant", said)
        assert asked.text.endswith("Labels: bad, good")
    for label in (2, -1, True):
        with pytest.raises(Unusable, match=r"^not a text: label"):
            read({"text": "a", "label": label, "labels": ["bad", "good"]})


def test_a_text_to_classify_is_asked_in_one_of_several_wordings() -> None:
    asked = set()
    for at in range(40):
        [(question, reply)] = read({"text": f"{{}} text {at}", "label": "good", "labels": ["good", "bad"]})[1]
        wording = CLASSIFYING[drawn(f"{{}} text {at}", 3)]
        assert question.text == wording.replace("{}", f"{{}} text {at}") + "\n\nLabels: good, bad"
        assert reply.text == "good"
        asked.add(wording)
    assert asked == set(CLASSIFYING)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], "not an object"),
        ("text", "not an object"),
        ({}, "unknown shape: keys "),
        ({"x": 1, "y": 2}, "unknown shape: keys x, y"),
        ({"instruction": "What?"}, "missing text: output"),
        ({"output": "b"}, "missing text: "),
        ({"instruction": "a", "output": None}, "missing text: output"),
        ({"instruction": "\n", "output": "b"}, "empty text: instruction"),
        ({"instruction": "a", "input": 3, "output": "b"}, "not a text: input"),
        ({"instruction": "a", "output": ["b", "c"]}, "not a text: output"),
        ({"text": "a", "label": 3}, "not a text: label"),
        ({"entity": "a", "facts": []}, "empty text: facts"),
        ({"instruction": "a", "instances": "b"}, "not a dialogue: instances is no list of objects"),
        ({"prompt": "a", "outputs": []}, "missing text: outputs"),
        ({"prompt": "a", "outputs": ["b", " "]}, "empty text: outputs"),
        ({"messages": MESSAGES[:1]}, "not a dialogue: no dialogue that ends with a reply"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, "not a dialogue: history is no list of pairs"),
        ({"instruction": "a", "output": "b", "history": 5}, "not a dialogue: history is no list of pairs"),
        ({"instruction": "a", "output": "b", "history": [["c", ""]]}, "empty text: history"),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]] * 501}, "not a dialogue: 501 pairs of history"),
        ({"prompt": MESSAGES, "completion": "b"}, "not a dialogue: no dialogue that ends with a question"),
    ],
)
def test_why_a_row_cannot_be_used(row: object, said: str) -> None:
    with pytest.raises(Unusable, match=f"^{said}"):
        read(row)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"prompt": "a"}, chat("a")),
        ({"instruction": "a", "input": "b", "output": "c"}, chat("a\n\nb")),
        ({"messages": MESSAGES}, chat("a")),
        ({"conversations": [*MESSAGES, *MESSAGES]}, chat("a", "b", "a")),
        ({"text": "a"}, chat("a")),
    ],
)
def test_prompts_by_known_answers(row: dict[str, Any], found: Conversation) -> None:
    assert read(row, PROMPTS)[1] == [found]


def test_what_is_allowed_is_named() -> None:
    assert "alpaca {instruction, output or response}; " in allowed(CHATS)
    assert {drawn(str(at), 4) for at in range(50)} == {0, 1, 2, 3}
    assert drawn("mill", 1 << 60) == drawn("mill", 1 << 60) != drawn("river", 1 << 60)
