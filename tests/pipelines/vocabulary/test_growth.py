"""Continued BPE: base ids stay, new tokens are made of base tokens and are reached, other languages stay as they were."""

import pytest
from tokenizers import Tokenizer, models

from contract.errors import InputError
from contract.settings.corpus import Tokenizer as Settings
from pipelines.vocabulary import pieces
from pipelines.vocabulary.growth import common_characters, expand
from pipelines.vocabulary.training import train, train_sentencepiece

ENGLISH = ["the cat sat on the mat, the cat sat still"] * 20
CHINESE = ["水车在河边，水车很旧。"] * 30 + ["河边的水车转了12圈。"] * 30


def ids(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]


def test_bytes_are_joined_on_top_of_the_base() -> None:
    base = train(ENGLISH, Settings(vocab_size=330), ["</s>"])
    grown = expand(base, CHINESE, 12, 2)
    assert ids(grown)[: len(ids(base))] == ids(base)
    assert grown.get_vocab_size() == len(ids(base)) + 12
    for text in (*ENGLISH[:1], *CHINESE[:1], "neither 水 nor"):
        assert grown.decode(grown.encode(text).ids) == text
    assert grown.encode(ENGLISH[0]).ids == base.encode(ENGLISH[0]).ids
    assert len(grown.encode(CHINESE[0]).ids) <= len(base.encode(CHINESE[0]).ids) - 12
    used = {number for text in CHINESE for number in grown.encode(text).ids}
    assert max(used) >= len(ids(base)), "new tokens are reached"
    assert expand(base, CHINESE, 12, 2).to_str() == grown.to_str()


def test_a_base_with_byte_fallback_gets_characters_first() -> None:
    base = pieces.convert(train_sentencepiece(ENGLISH, Settings(kind="sentencepiece_bpe", vocab_size=400), 300))
    assert common_characters(base, CHINESE)[:2] == ["水", "车"]
    grown = expand(base, CHINESE, 18, 2)
    new = ids(grown)[len(ids(base)) :]
    assert new[:2] == ["水", "车"]
    assert {"水车", "河边"} <= set(new)
    assert not [piece for piece in new if len(piece) > 1 and set(piece) & set("，。12")], "no word crosses these"
    assert grown.encode("水车").tokens[-1] == "水车"
    assert grown.decode(grown.encode(CHINESE[0]).ids) == CHINESE[0]


def test_rare_pairs_are_not_joined() -> None:
    base = train(ENGLISH, Settings(vocab_size=330), [])
    assert expand(base, ["水车"], 12, 2).get_vocab_size() == base.get_vocab_size()


def test_other_models_are_refused() -> None:
    base = Tokenizer(models.Unigram([("a", -1.0)], 0, False))
    with pytest.raises(InputError, match=r"start_from is a Unigram, and only a BPE can be continued; name a second"):
        expand(base, CHINESE, 12, 2)
