"""The shapes of rows that public sets have: what tells one from another, and what is made of it.

A shape is told by its keys alone, and the first of the table that fits is taken, row by row. So a folder may hold
several.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from contract.conversation import Conversation, Turn
from contract.examples import Unusable
from contract.schema import Drop
from pipelines.examples.fields import MOST_TURNS, Row, chat_of, plain, present, prompt_of, said, text_at, turns_of

T = TypeVar("T")
Keys = tuple[str, ...]


@dataclass(frozen=True)
class RowShape(Generic[T]):
    """One shape. needs: of each of these groups of keys a row has one. parse: row -> what it holds, or Unusable."""

    name: str
    needs: tuple[Keys, ...]
    parse: Callable[[Row], Sequence[T]]

    @property
    def described(self) -> str:
        """For messages: `{instruction, output or response}`."""
        asking = set(QUESTIONS)  # each shape that needs a question takes any of these
        return "{" + ", ".join("a question" if asking <= {*keys} else " or ".join(keys) for keys in self.needs) + "}"


def shape_of(row: Any, shapes: Sequence[RowShape[T]]) -> RowShape[T]:
    """The first shape that a row fits. Raises Unusable, which says what is missing to the nearest one, if none does."""
    if not isinstance(row, dict):
        raise Unusable(Drop.NOT_AN_OBJECT)
    for shape in shapes:
        if all(present(row, keys) for keys in shape.needs):
            return shape
    near = max(shapes, key=lambda shape: sum(present(row, keys) is not None for keys in shape.needs) / len(shape.needs))
    missing = [keys[0] for keys in near.needs if present(row, keys) is None]
    if len(missing) < len(near.needs):
        raise Unusable(Drop.MISSING_TEXT, missing[0])
    raise Unusable(Drop.UNKNOWN_SHAPE, f"keys {', '.join(map(str, itertools.islice(row, 8)))}"[:200])


def drawn(text: str, count: int) -> int:
    """One of `count` numbers, drawn by the hash of a text, so that the same row is always worded the same."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) % count


def asked(row: Row) -> Conversation:
    """What a row asks, as turns: its dialogue so far, or its question with what belongs to it.

    Earlier turns stand in `history`, pairs of a question and a reply, and what holds for all of them in `system`.
    """
    for key in ("messages", "conversations", "prompt", "question", "input", "context_messages"):
        if isinstance(row.get(key), list):
            return prompt_of(turns_of(row[key], row.get("tools"), row.get("system")))
    return (*_before(row), Turn("user", question_of(row)))


def question_of(row: Row) -> str:
    """The question of a row: its instruction, with the input after it, or whatever else it calls what is asked."""
    key = present(row, QUESTIONS)
    if key is None:
        raise Unusable(Drop.MISSING_TEXT, "prompt")
    words = text_at(row, key)
    extra = text_at(row, "input" if key != "input" else "context", "context", default="")
    return f"{words}\n\n{extra}" if extra and extra != words else words


QUESTIONS = ("instruction", "prompt", "question", "query", "input", "inputs")


def _before(row: Row) -> Conversation:
    system = text_at(row, "system", "system_prompt", default="")
    turns = [Turn("system", system)] if system else []
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise Unusable(Drop.NOT_A_DIALOGUE, "history is no list of pairs")
    if len(history) > MOST_TURNS // 2:
        raise Unusable(Drop.NOT_A_DIALOGUE, f"{len(history):,} pairs of history, more than {MOST_TURNS // 2:,}")
    for question, reply in history:
        turns += [Turn("user", text_at({"history": question}, "history"))]
        turns += [Turn("assistant", text_at({"history": reply}, "history"))]
    return tuple(turns)


def _dialogue(row: Row) -> list[Conversation]:
    return [chat_of(turns_of(row[_key(row, DIALOGUES)], row.get("tools"), row.get("system")))]


def _key(row: Row, keys: Keys) -> str:
    found = present(row, keys)
    assert found is not None, "the shape needs one of them"
    return found


def _one_reply(*keys: str) -> Callable[[Row], list[Conversation]]:
    return lambda row: [(*asked(row), Turn("assistant", said(row[_key(row, keys)], _key(row, keys))))]


def _many_replies(row: Row) -> list[Conversation]:
    """One chat for each reply. Raises Unusable unless all are texts."""
    key = _key(row, REPLIES)
    if not isinstance(row[key], list) or not row[key]:
        raise Unusable(Drop.MISSING_TEXT, key)
    prompt = asked(row)
    return [(*prompt, Turn("assistant", said(reply, key))) for reply in row[key]]


def _filled(text: str, key: str) -> str:
    if not text:
        raise Unusable(Drop.EMPTY_TEXT, key)
    return text


def _instances(row: Row) -> list[Conversation]:
    """{instruction, instances: [{input, output}]} (Wang et al. 2022): one chat for each instance."""
    found = row["instances"]
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        raise Unusable(Drop.NOT_A_DIALOGUE, "instances is no list of objects")
    return [
        (*asked({**row, "input": one.get("input")}), Turn("assistant", text_at(one, "output", "response")))
        for one in found
    ]


CLASSIFYING = (
    "Which label fits this text?\n\n{}",
    "Read the text and name its class.\n\n{}",
    "{}\n\nHow would you classify the text above?",
)
TELLING = (
    "What do you know about {}?",
    "Tell me some facts about {}.",
    "Write down what is known of {}.",
)


def _classified(row: Row) -> list[Conversation]:
    words = text_at(row, "text", "sentence")
    options = row.get("labels", row.get("options"))
    names = [plain(str(one), "labels") for one in options] if isinstance(options, list) else []
    label = row[_key(row, LABELS)]
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names):
        label = names[label]  # the number of a label
    wording = CLASSIFYING[drawn(words, len(CLASSIFYING))]
    choice = f"\n\nLabels: {', '.join(names)}" if names else ""
    return [(Turn("user", wording.format(words) + choice), Turn("assistant", text_at({"label": label}, "label")))]


LABELS = ("label_text", "label")


def _told(row: Row) -> list[Conversation]:
    """{entity, facts}: the facts are texts, or an object of attributes, one a line of the reply."""
    entity, facts = text_at(row, "entity"), row["facts"]
    if isinstance(facts, dict):
        facts = [f"{name}: {value}" for name, value in facts.items() if value is not None]
    lines = [plain(fact, "facts") for fact in (facts if isinstance(facts, list) else [facts])]
    reply = _filled("\n".join(line for line in lines if line), "facts")
    return [(Turn("user", TELLING[drawn(entity, len(TELLING))].format(entity)), Turn("assistant", reply))]


DIALOGUES = ("messages", "conversations", "conversation")
REPLIES = ("outputs", "responses", "answers", "completions")

CHATS: tuple[RowShape[Conversation], ...] = (
    RowShape("messages", (("messages",),), _dialogue),
    RowShape("sharegpt", (("conversations", "conversation"),), _dialogue),
    RowShape("alpaca", (("instruction",), ("output", "response")), _one_reply("output", "response")),
    RowShape("self-instruct", (("instruction",), ("instances",)), _instances),
    RowShape("question/answer", (("question", "query"), ("answer", "response")), _one_reply("answer", "response")),
    RowShape("input/target", (("input", "inputs"), ("target", "targets", "output")),
             _one_reply("target", "targets", "output")),
    RowShape("prompt/completion", (("prompt",), ("completion", "response")), _one_reply("completion", "response")),
    RowShape("classification", (("text", "sentence"), LABELS), _classified),
    RowShape("entity/facts", (("entity",), ("facts",)), _told),
    RowShape("several outputs", (QUESTIONS, REPLIES), _many_replies),
)  # fmt: skip
"""The shapes of chats. One with fewer keys stands after those that have them, too."""


def _only_asked(row: Row) -> list[Conversation]:
    """The dialogue of a row up to the last thing that its user says, or its question."""
    key = present(row, DIALOGUES)
    if key is None:
        return [asked(row)]
    turns = turns_of(row[key], row.get("tools"), row.get("system"))
    last = max(at for at, turn in enumerate(turns) if turn.role == "user")
    return [turns[: last + 1]]


def answers_of(row: Any) -> tuple[str, ...]:
    """The known answers of a prompt: a text at `answer`, or a list of texts. Raises Unusable if it is another value."""
    found = row.get("answer") if isinstance(row, dict) else None
    if found is None:
        return ()
    return tuple(_filled(plain(one, "answer"), "answer") for one in (found if isinstance(found, list) else [found]))


def _only_text(row: Row) -> list[Conversation]:
    return [(Turn("user", text_at(row, "text")),)]


PROMPTS: tuple[RowShape[Conversation], ...] = (
    RowShape("messages", (("messages",),), _only_asked),
    RowShape("sharegpt", (("conversations",),), _only_asked),
    RowShape("prompt", (QUESTIONS,), _only_asked),
    RowShape("text", (("text",),), _only_text),
)
"""The shapes of prompts. Replies in the row are not looked at, only known answers: see `answers_of`."""


def allowed(shapes: Sequence[RowShape[Any]]) -> str:
    """The shapes for a message."""
    return "; ".join(f"{shape.name} {shape.described}" for shape in shapes)
