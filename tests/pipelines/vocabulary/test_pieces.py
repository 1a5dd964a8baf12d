"""SentencePiece models: converted id for id, merged as Chinese-LLaMA was, and no text spells a control token or a byte."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer

from contract.errors import InputError
from contract.settings.corpus import Tokenizer as Settings
from pipelines.vocabulary import pieces
from pipelines.vocabulary.training import train_sentencepiece

TEXTS = ["the cat sat on the mat and 12 cats sat", "aaaa aaa a naïve  cafés"] * 30
TRICKS = ["<s>a</s>", "<unk>", "<0x41><0x0A>", "  a  \n\n b", "\u2581 the \u2581", "\U0010ffff\x00\t", "", " "]


@pytest.fixture(scope="module", params=["sentencepiece_bpe", "unigram"])
def model(request: pytest.FixtureRequest) -> Any:
    return train_sentencepiece(TEXTS, Settings(kind=request.param, vocab_size=400), 310)


def test_ids_are_those_of_sentencepiece(model: Any) -> None:
    own = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    for space in (pieces.SPACE, " "):
        converted = pieces.convert(model, space)
        converted.encode_special_tokens = True
        for text in (*TEXTS[:2], *TRICKS):
            if pieces.SPACE not in text:
                assert converted.encode(text).ids == own.encode(text), text


def test_every_text_comes_back(model: Any) -> None:
    converted = pieces.convert(model, " ")
    converted.encode_special_tokens = True
    for text in (*TEXTS[:2], *TRICKS):
        assert converted.decode(converted.encode(text).ids, skip_special_tokens=False) == text


def scored(model_type: int, *listed: tuple[str, float, int], prefix: bool = False) -> Any:
    model = pieces.ModelProto()
    model.trainer_spec.model_type = model_type
    model.normalizer_spec.add_dummy_prefix = prefix
    model.normalizer_spec.remove_extra_whitespaces = False
    for piece, score, kind in listed:
        model.pieces.append(pieces.Piece(piece=piece, score=score, type=kind))
    return model


CONTROL = [("<unk>", 0.0, 2), ("<s>", 0.0, 3)]
LETTERS = [(letter, -9.0, 1) for letter in "<s>abc"]


@pytest.mark.parametrize("model_type", [pieces.BPE, pieces.UNIGRAM])
def test_no_text_spells_a_control_token(model_type: int) -> None:
    listed = [*CONTROL, *LETTERS, ("<s", -1.0, 1), ("ab", -2.0, 1)]
    converted = pieces.convert(scored(model_type, *listed))
    converted.encode_special_tokens = True
    assert 1 not in converted.encode("<s>ab").ids
    assert converted.encode("<s>ab").tokens[-1] == "ab"
    assert converted.encode("<sab").tokens == ["<s", "ab"]


def test_the_piece_of_the_highest_score_is_merged_first() -> None:
    listed = [*LETTERS, ("ab", -2.0, 1), ("bc", -1.0, 1), ("<s>", 0.0, 3), ("abc", -3.0, 1)]
    assert pieces.merges(listed) == [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c")]
    assert pieces.convert(scored(pieces.BPE, *CONTROL, *listed[:-2])).encode("abc").tokens == ["a", "bc"]


def test_a_model_with_a_space_before_the_text_keeps_it() -> None:
    model = scored(pieces.BPE, *CONTROL, *LETTERS, (pieces.SPACE, -9.0, 1), prefix=True)
    converted = pieces.convert(model)
    assert converted.encode("a b").tokens == [pieces.SPACE, "a", pieces.SPACE, "b"]
    assert converted.decode(converted.encode(" a b").ids) == " a b"


def test_a_merge_appends_what_the_base_lacks_with_score_0() -> None:
    base = scored(pieces.BPE, *CONTROL, *LETTERS, ("ab", -2.0, 1))
    donor = scored(pieces.UNIGRAM, ("<s>", 0.0, 3), ("ca", -5.0, 1), ("ab", -6.0, 1), ("bb", -7.0, 1))
    merged = pieces.merge(base, donor)
    assert [*merged.pieces][: len(base.pieces)] == [*base.pieces]
    assert [(one.piece, one.score, one.type) for one in merged.pieces][len(base.pieces) :] == [
        ("ca", 0.0, 1),
        ("bb", 0.0, 1),
    ]
    assert pieces.convert(merged).encode("bca").tokens == ["b", "ca"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe not a model", "is neither a tokenizer.json nor a SentencePiece model"),
        (b"", "has no pieces or some of them twice"),
        (scored(pieces.BPE, *LETTERS, *LETTERS).SerializeToString(), "some of them twice"),
        (scored(4, *LETTERS).SerializeToString(), "is a SentencePiece model of words or characters"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"model.bin: .*{message}"):
        pieces.parse(data, "model.bin")


def read(path: Path) -> Any:
    return pieces.parse(path.read_bytes(), path.name)


def real_texts(data_dir: Path) -> list[str]:
    with tarfile.open(data_dir / "lid/lingua_sentences_75langs.tar.xz") as archive:
        files = [io.TextIOWrapper(archive.extractfile(one), "utf-8") for one in archive if one.isfile()]  # type: ignore[arg-type]
        texts = [line.rstrip("\n") for file in files for line in [*file][:20]]
    chats = json.loads((data_dir / "sft/llama-factory/alpaca_zh_demo.json").read_text())
    return texts + [row["output"] for row in chats[:100]]


def test_llama_is_converted_id_for_id_on_75_languages(data_dir: Path) -> None:
    model = read(data_dir / "tokenizers/llama2.c/tokenizer.model")
    own, converted = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString()), pieces.convert(model)
    converted.encode_special_tokens = True
    texts = real_texts(data_dir)
    assert len(texts) > 1500
    for text in texts:
        ids = converted.encode(text, add_special_tokens=False).ids
        assert ids == own.encode(text)
        assert converted.decode(ids) == text


def test_chinese_llama_has_49953_tokens_and_decodes_what_llama_decodes(data_dir: Path) -> None:
    base = read(data_dir / "tokenizers/llama2.c/tokenizer.model")
    merged = pieces.merge(base, read(data_dir / "tokenizers/chinese-llama-alpaca/chinese_sp.model"))
    before, after = pieces.convert(base), pieces.convert(merged)
    assert (before.get_vocab_size(), after.get_vocab_size(), len(merged.pieces)) == (32_000, 49_953, 49_953)
    assert {one.score for one in [*merged.pieces][32_000:]} == {0.0}
    assert all(before.id_to_token(number) == after.id_to_token(number) for number in range(32_000))
    texts = real_texts(data_dir)
    for text in texts:
        assert after.decode(before.encode(text, add_special_tokens=False).ids) == text
        assert after.decode(after.encode(text, add_special_tokens=False).ids) == text
    own = sentencepiece.SentencePieceProcessor(model_proto=merged.SerializeToString())
    tokens, theirs = count(after, texts), sum(map(len, own.encode(texts)))
    assert abs(tokens / theirs - 1) < 0.001, "pieces of equal score are joined in another order"
    chinese = texts[-100:]
    assert 0.4 < count(after, chinese) / count(before, chinese) <= 0.55


def count(tokenizer: Tokenizer, texts: list[str]) -> int:
    return sum(len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False))
