"""SentencePiece models as data: read, merged, and converted to tokenizers of Hugging Face's library.

A model is parsed, never run. Its conversion gives the ids that SentencePiece itself gives; docs/tokenizers.md says
where they can differ.
"""

import re
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from contract.errors import InputError

SPACE = "\u2581"
"""SentencePiece writes this character in place of a space."""

ModelProto: Any = sentencepiece_model_pb2.__dict__["ModelProto"]  # made when it is imported, so without a type
Piece = ModelProto.SentencePiece
UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType


def parse(data: bytes, where: str) -> Any:
    """The model in a file's bytes. Raises InputError if they are none, or one of a type that cannot be converted."""
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise InputError(f"{where}: is neither a tokenizer.json nor a SentencePiece model ({error})") from None
    pieces = [piece.piece for piece in model.pieces]
    if not pieces or len(set(pieces)) < len(pieces):
        raise InputError(f"{where}: is not a SentencePiece model, because it has no pieces or some of them twice")
    if model.trainer_spec.model_type not in (UNIGRAM, BPE):
        raise InputError(f"{where}: is a SentencePiece model of words or characters; bring one of type bpe or unigram")
    return model


def merge(base: Any, donor: Any) -> Any:
    """The base model with the donor's pieces that it lacks, in the donor's order and with score 0.

    These are the order and the score of the published Chinese-LLaMA; every id of the base stays. A BPE model merges
    pieces of the highest score first, and a score of 0 is above those of the base.
    """
    merged = ModelProto()
    merged.CopyFrom(base)
    known = {piece.piece for piece in base.pieces}
    for piece in donor.pieces:
        if piece.piece not in known:
            merged.pieces.append(Piece(piece=piece.piece, score=0.0))
    return merged


def convert(model: Any, space: str = SPACE) -> Tokenizer:
    """A tokenizer with the model's ids.

    `space` is what stands for a space in the pieces. With " ", a text may hold the character U+2581 itself; a model
    that was brought keeps its own spelling.
    """
    pieces = [(piece.piece.replace(SPACE, space), piece.score, piece.type) for piece in model.pieces]
    fallback = any(kind == Piece.BYTE for _, _, kind in pieces)
    unknown = next((index for index, (_, _, kind) in enumerate(pieces) if kind == Piece.UNKNOWN), None)
    if model.trainer_spec.model_type == BPE:
        vocabulary = {piece: index for index, (piece, _, _) in enumerate(pieces)}
        unknown_piece = None if unknown is None else pieces[unknown][0]
        tokenizer = Tokenizer(
            models.BPE(vocabulary, merges(pieces), unk_token=unknown_piece, fuse_unk=True, byte_fallback=fallback)
        )
    else:
        scored = [(piece, score) for piece, score, _ in pieces]
        tokenizer = Tokenizer(models.Unigram(scored, unknown, fallback))
    tokenizer.normalizer = normalizers.Sequence(_normalizers(model.normalizer_spec, space))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_splits(model, pieces, space))
    prefix = model.normalizer_spec.add_dummy_prefix
    tokenizer.decoder = decoders.Sequence(
        [
            *([decoders.Replace(space, " ")] if space != " " else []),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefix else []),
        ]
    )
    for piece, _, kind in pieces:
        if kind in (Piece.UNKNOWN, Piece.CONTROL):
            tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False)])
        elif kind == Piece.USER_DEFINED:
            tokenizer.add_tokens([AddedToken(piece, special=False, normalized=True)])
    return tokenizer


def merges(pieces: list[tuple[str, float, int]]) -> list[tuple[str, str]]:
    """The merges of a BPE model, the first to be done first: those that give the piece of the highest score.

    Only ordinary pieces take part, so that no text spells a control token or the name of a byte.
    """
    ordinary = {piece for piece, _, kind in pieces if kind == Piece.NORMAL}
    ranked = sorted((-score, index) for index, (_, score, kind) in enumerate(pieces) if kind == Piece.NORMAL)
    return [
        (piece[:cut], piece[cut:])
        for _, index in ranked
        for piece in (pieces[index][0],)
        for cut in range(1, len(piece))
        if piece[:cut] in ordinary and piece[cut:] in ordinary
    ]


def _normalizers(spec: Any, space: str) -> list[Any]:
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(space))
    if space != " ":
        steps.append(normalizers.Replace(" ", space))
    return steps


def _splits(model: Any, pieces: list[tuple[str, float, int]], space: str) -> list[Any]:
    """Where a text is cut before it is encoded, so that pieces of words can be remembered; the ids stay the same.

    A text is cut where a space follows another character, unless a piece crosses such a place. Unigram would also take
    `<0x41>` in a text for the byte, so the first character of such a word is cut off.
    """
    steps: list[Any] = []
    if not any(re.search(f"[^{space}]{space}", piece) for piece, _, kind in pieces if kind == Piece.NORMAL):
        steps.append(pre_tokenizers.Split(Regex(f"{space}*[^{space}]+|{space}+"), "isolated"))
    if model.trainer_spec.model_type == UNIGRAM:
        named = [piece for piece, _, kind in pieces if kind not in (Piece.NORMAL, Piece.BYTE) and len(piece) > 1]
        alike = "|".join([f"{re.escape(one[0])}(?={re.escape(one[1:])})" for one in named] + ["<(?=0x[0-9A-F]{2}>)"])
        steps.append(pre_tokenizers.Split(Regex(alike), "isolated"))
    return steps
