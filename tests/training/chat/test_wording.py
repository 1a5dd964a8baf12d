"""Tokens of our models and of folders of transformers."""

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from contract.chat import SPECIAL_TOKENS
from contract.conversation import Turn
from contract.errors import InputError
from tests.training.conftest import train_tokenizer
from training.chat.template import Chat
from training.chat.wording import of_chat, of_folder

TURNS = (Turn("user", "The mill?"), Turn("assistant", "Quiet."), Turn("user", "So?"))
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture
def chat(tmp_path: Path) -> Chat:
    train_tokenizer().save(str(tmp_path / "tokenizer.json"))
    return Chat(tmp_path / "tokenizer.json")


def folder(tmp_path: Path, template: str | None = TEMPLATE, **more: object) -> Path:
    train_tokenizer().save(str(tmp_path / "tokenizer.json"))
    named = {"eos_token": SPECIAL_TOKENS["end_of_text"], "pad_token": SPECIAL_TOKENS["pad"], **more}
    PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), chat_template=template, **named
    ).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_ours_is_the_runs_chat(chat: Chat) -> None:
    made = of_chat(chat)
    assert made.encode(["The mill?", "So?"]) == [chat.text("The mill?"), chat.text("So?")]
    assert made.bare("So?") == chat.text("So?")
    assert made.dialogue(TURNS, 99) == chat.prompt(TURNS, 99)
    assert made.decode(chat.text("So?")) == "So?"
    assert (made.first, made.ends) == (chat.end_of_text, frozenset({chat.end_of_text}))


def test_a_folder_has_a_template_of_its_own(tmp_path: Path, chat: Chat) -> None:
    made = of_folder(folder(tmp_path))
    assert made.encode(["The mill?", "So?"]) == [chat.text("The mill?"), chat.text("So?")]
    asked = made.dialogue(TURNS, 999)
    assert made.decode(asked) == "user: The mill?assistant: Quiet.user: So?assistant:"
    assert asked.count(chat.end_of_text) == 3
    assert made.dialogue(TURNS, 5) == asked[-5:]
    assert (made.first, made.ends) == (chat.end_of_text, frozenset({chat.end_of_text}))


def test_tokens_before_every_text_are_kept_and_come_once(tmp_path: Path) -> None:
    """As LLaMA's tokenizer puts <s> before a text; a template writes its own."""
    made = folder(tmp_path, bos_token=SPECIAL_TOKENS["user"])
    described = json.loads((made / "tokenizer.json").read_text())
    begin = SPECIAL_TOKENS["user"]
    number = next(one["id"] for one in described["added_tokens"] if one["content"] == begin)
    described["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": begin, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {begin: {"id": begin, "ids": [number], "tokens": [begin]}},
    }
    (made / "tokenizer.json").write_text(json.dumps(described))
    wording = of_folder(made)
    (ids,) = wording.encode(["So?"])
    assert ids == [number, *wording.bare("So?")]
    assert wording.first == number
    assert number not in wording.dialogue(TURNS, 99)


def test_ends_are_also_those_of_the_generation_config(tmp_path: Path, chat: Chat) -> None:
    made = folder(tmp_path)
    (made / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert of_folder(made).ends == {chat.end_of_text, 5, 6}


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its tokenizer cannot be loaded"):
        of_folder(tmp_path)
    with pytest.raises(InputError, match="has no chat template; ask it without `dialogue`"):
        of_folder(folder(tmp_path, template=None)).dialogue(TURNS, 9)
    with pytest.raises(InputError, match="names no end-of-text token"):
        of_folder(folder(tmp_path, eos_token=None))


@pytest.mark.parametrize("body", ["    c = a + b\n    return c\n", " 42", "42", "  \n x", "\n    return 1", "猫 mill"])
def test_an_answer_keeps_its_first_space(sentencepiece: Path, body: str) -> None:
    """What SentencePiece takes for its own space at the beginning of a text."""
    made = of_folder(sentencepiece)
    asked = "def f(a, b):\n"
    whole = made.encode([asked + body])[0]
    (before,) = made.encode([asked])
    assert whole[: len(before)] == before, "else this test shows nothing"
    assert made.behind(before, whole[len(before) :]) == body
    assert made.behind([*before, made.first], whole[len(before) :]) == body, "behind a special token as well"


def test_ids_behind_half_a_character_are_read_alone(tmp_path: Path) -> None:
    made = of_folder(folder(tmp_path))
    ids = made.bare("猫")
    assert len(ids) == 3
    assert made.behind(ids, made.bare(" So?")) == " So?"
    assert made.behind(ids[:2], ids[2:]) == made.decode(ids[2:]) == "\ufffd"
