"""Encodes documents with any tokenizer: by compiled code where it knows the kind, else by the tokenizers library."""

import json
from array import array
from functools import lru_cache

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from pipelines.text.hashing import buffers
from pipelines.vocabulary import bytebpe
from pipelines.vocabulary.bytebpe import Ids, Sizes


def load_tokenizer(data: bytes) -> Tokenizer:
    """Load the tokenizer, set to encode special tokens that occur in documents, such as `<|user|>`, as plain text."""
    tokenizer = Tokenizer.from_buffer(data)
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@lru_cache(maxsize=1)
def encoder_of(data: bytes, end: int) -> "Encoder":
    """An encoder that the files of one worker share: its tables take longer to make than a megabyte to encode."""
    return Encoder(data, end)


class Encoder:
    """Encodes documents, each followed by the token `end`."""

    def __init__(self, data: bytes, end: int) -> None:
        """`data` is a tokenizer.json."""
        self._tokenizer, self._end = load_tokenizer(data), end
        self._merges = bytebpe.merges_of(json.loads(data))

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, texts: pa.Array) -> tuple[Ids, Sizes]:
        """(the tokens of all texts joined, the number of each text's); each text ends with `end`."""
        if self._merges is None:
            return self._by_library(texts.to_pylist())
        tokens, sizes = bytebpe.encode(self._merges, *buffers(texts), self._end)
        left = np.flatnonzero(sizes == 0)
        if not len(left):
            return tokens, sizes
        others, other_sizes = self._by_library(texts.take(pa.array(left)).to_pylist())
        places = np.repeat(np.cumsum(sizes)[left], other_sizes)
        sizes[left] = other_sizes
        return np.insert(tokens, places, others), sizes

    def _by_library(self, texts: list[str]) -> tuple[Ids, Sizes]:
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        rows = [array("i", [*encoding.ids, self._end]) for encoding in encoded]
        joined = np.frombuffer(b"".join(row.tobytes() for row in rows), np.int32)
        return joined, np.array([len(row) for row in rows], np.int64)
