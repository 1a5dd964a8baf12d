"""The four kinds of tokenizer: what comes back of a text, how many bytes its tokens spell, what digits become."""

import json
from typing import Literal, get_args

import pytest
from tokenizers import Tokenizer

from contract.chat import SPECIAL_TOKENS
from contract.errors import InputError
from contract.settings.corpus import Tokenizer as Settings
from contract.vocabulary import token_bytes, unknown_id
from pipelines.vocabulary.training import LINE_CHARS, lines, train

KINDS = get_args(Settings.model_fields["kind"].annotation)
TEXTS = ["The mill's wheel 123 stands still, \u6c34\u8f66 near  the  river.\n\tIt turned in 1850!"] * 20 + [
    f"word{number % 37} other{number % 11} na\u00efve caf\u00e9 ## #x {number}" for number in range(400)
]
SPECIAL = [*SPECIAL_TOKENS.values()]


@pytest.fixture(scope="module")
def made() -> dict[str, Tokenizer]:
    return {kind: train(TEXTS, Settings(kind=kind, vocab_size=520, split_digits=True), SPECIAL) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_of_the_alphabet_comes_back_and_its_tokens_spell_its_bytes(
    made: dict[str, Tokenizer], kind: str
) -> None:
    tokenizer = made[kind]
    tokenizer.encode_special_tokens = True
    assert tokenizer.get_vocab_size() <= 520
    lengths = token_bytes(json.loads(tokenizer.to_str()))
    assert len(lengths) == tokenizer.get_vocab_size()
    strange = ["\u2581", "\U0010ffff\x00<0x41>", "<|user|>", "\ud7ff\u00a0"] if kind != "wordpiece" else []
    for text in [*TEXTS[:1], *TEXTS[20:60], *strange, "", "  the"]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert lengths[ids].sum() == len(text.encode())
    special = [tokenizer.token_to_id(token) for token in SPECIAL]
    assert len(set(special)) == 69
    assert lengths[special].sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_digits_stand_alone_if_the_recipe_says_so(made: dict[str, Tokenizer], kind: str) -> None:
    assert made[kind].encode("x 1850").tokens[-4:] == ["1", "8", "5", "0"] or made[kind].encode("x1850").tokens[
        -3:
    ] == [
        "8",
        "5",
        "0",
    ]
    joined = train(TEXTS, Settings(kind=kind, vocab_size=520), SPECIAL)
    assert len(joined.encode("1850").ids) < 4


def test_wordpiece_loses_words_outside_its_alphabet(made: dict[str, Tokenizer]) -> None:
    tokenizer = made["wordpiece"]
    ids = tokenizer.encode("the \u00e9\U0001f600 mill").ids
    unknown = unknown_id(json.loads(tokenizer.to_str()))
    assert tokenizer.id_to_token(unknown) == "[UNK]"
    assert ids.count(unknown) == 1
    assert tokenizer.decode(ids, skip_special_tokens=False) == "the[UNK] mill"
    assert token_bytes(json.loads(tokenizer.to_str()))[ids].sum() == len("the mill")


def test_only_wordpiece_says_that_something_is_unknown(made: dict[str, Tokenizer]) -> None:
    for kind in ("sentencepiece_bpe", "unigram"):
        unknown = unknown_id(json.loads(made[kind].to_str()))
        assert unknown == 0
        assert unknown not in made[kind].encode("\U0001f600\U0010ffff\x00").ids
    assert unknown_id(json.loads(made["bpe"].to_str())) is None


@pytest.mark.parametrize("kind", KINDS)
def test_training_twice_gives_the_same_file(kind: Literal["bpe"], made: dict[str, Tokenizer]) -> None:
    again = train(TEXTS, Settings(kind=kind, vocab_size=520, split_digits=True), SPECIAL)
    made[kind].encode_special_tokens = again.encode_special_tokens = False
    assert again.to_str() == made[kind].to_str()


def test_a_vocabulary_too_small_for_the_characters_is_refused() -> None:
    texts = ["".join(map(chr, range(0x4E00, 0x4E00 + 300)))] * 3
    with pytest.raises(InputError, match="vocab_size 400 is too small for the characters of the mixture; raise it"):
        train(texts, Settings(kind="unigram", vocab_size=400), SPECIAL)
    with pytest.raises(InputError, match="the mixture holds no text"):
        train([], Settings(kind="unigram", vocab_size=400), SPECIAL)


def test_long_lines_are_cut() -> None:
    assert [*lines(["a\n\nb", "c" * (LINE_CHARS + 1)])] == ["a", "b", "c" * LINE_CHARS, "c"]
