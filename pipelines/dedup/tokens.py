"""Documents as blocks of tokens for substring deduplication, and the conversion of token ranges into byte ranges.

Each pass tokenises the text that the earlier passes left, so the cuts are the only state kept between passes.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract.documents import Part, read_part
from contract.errors import InputError
from contract.store import Store, split_uri
from pipelines.dedup.stream import Tokens, from_ids, words
from pipelines.spark.exchange import column
from pipelines.text.hashing import Offsets, buffers

BLOCK_ROWS = 1024  # most documents in a block
BLOCK_BYTES = 16 << 20  # bytes of text in a block, about: the document that crosses this limit ends the block


class Block(NamedTuple):
    """Consecutive documents of one file.

    rows: their rows in the documents file; texts: the bytes that earlier passes left of them;
    starts, ends: byte offsets of each token in its own text, shape (tokens,).
    """

    rows: Offsets
    ids: Sequence[str]
    texts: pa.Array
    tokens: Tokens
    starts: Offsets
    ends: Offsets


def to_bytes(block: Block, document: int, first: int, end: int) -> tuple[int, int]:
    """Byte range [start, end) to cut for tokens [first, end) of a document.

    The range never splits a character and never takes bytes of a token that stays. White space is cut together with
    the token before it; leading white space is cut together with the first token. A cut that reaches the end of the
    text also takes the white space before the cut.
    """
    base, tokens = block.tokens.bounds[document], block.tokens.bounds[document + 1] - block.tokens.bounds[document]
    starts, ends = block.starts[base:], block.ends[base:]
    start = 0
    if first:  # a character shared with the previous token is kept whole
        start = int(starts[first]) if ends[first - 1] <= starts[first] else int(ends[first])
    if end < tokens:
        return start, max(start, int(starts[end]))
    text = block.texts[document].as_py()
    return len(text[:start].decode().rstrip().encode()) if start else 0, len(text)


def blocks(
    store: Store, part: Part, tokenizer: str | None, only: npt.NDArray[np.integer] | None = None
) -> Iterator[Block]:
    """Read the documents that are left of a part in blocks, which are the same on every call.

    only: the rows of the documents file to tokenise; all that are left if None.
    """
    for batch in read_part(store, part, ["id", "text"], BLOCK_ROWS, only):
        for piece in _pieces(batch):
            yield _block(piece, tokenizer)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Split a batch at each multiple of BLOCK_BYTES of text, because a thousand books would take gigabytes."""
    size = np.cumsum(pc.binary_length(batch["text"]).to_numpy(zero_copy_only=False).astype(np.int64))
    ends = [*(np.flatnonzero(np.diff(size // BLOCK_BYTES)) + 1).tolist(), batch.num_rows]
    for start, end in zip([0, *ends], ends, strict=False):
        yield batch.slice(start, end - start)


def _block(batch: pa.RecordBatch, tokenizer: str | None) -> Block:
    rows, ids, texts = column(batch, "row"), batch["id"].to_pylist(), batch["text"].cast(pa.large_binary())
    if tokenizer is None:
        tokens, starts = words(*buffers(texts))
        lengths = np.diff(tokens.at) - 1
        return Block(rows, ids, texts, tokens, starts, starts + lengths)
    tokens, starts, ends = _encode(tokenizer, batch["text"].to_pylist())
    return Block(rows, ids, texts, tokens, starts, ends)


def _encode(uri: str, texts: list[str]) -> tuple[Tokens, Offsets, Offsets]:
    """Tokenise texts with a tokenizer file. Returns the tokens and the byte offsets where each starts and ends."""
    coded = load_tokenizer(uri).encode_batch(texts, add_special_tokens=False)
    bounds = np.cumsum([0, *(len(one.ids) for one in coded)])
    ids = np.fromiter((token for one in coded for token in one.ids), np.uint32, int(bounds[-1]))
    starts, ends = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
    for index, (one, text) in enumerate(zip(coded, texts, strict=True)):
        at = np.array(one.offsets, np.int64).reshape(-1, 2)
        if not text.isascii():  # convert character offsets to byte offsets
            at = np.cumsum([0, *(len(character.encode()) for character in text)])[at]
        starts[bounds[index] : bounds[index + 1]], ends[bounds[index] : bounds[index + 1]] = at[:, 0], at[:, 1]
    return from_ids(ids, bounds), starts, ends


@lru_cache(maxsize=1)
def load_tokenizer(uri: str) -> Any:
    """Load a Hugging Face tokenizer.json. Raises InputError if it is missing or unusable."""
    from tokenizers import Tokenizer  # imported only if a recipe names a tokenizer

    folder, name = split_uri(uri)
    try:
        tokenizer = Tokenizer.from_str(folder.read_bytes(name).decode())
    except FileNotFoundError:
        raise InputError(f"dedup_substring.tokenizer: {uri} does not exist") from None
    except Exception as error:
        raise InputError(f"dedup_substring.tokenizer: {uri} is not a tokenizer.json: {error}") from None
    # A tokenizer.json may enable both; padded or truncated tokens would then cut text that occurs only once.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
