"""The token shard, which `pack` writes and training stages read through a memory map.

Little-endian, in this order:

    header   64 bytes: magic `GRISTTOK`, format version, bytes per token (2 or 4), seq_len, sequences, documents,
             tokens without padding
    tokens   sequences x seq_len ids; the tail of the last sequence is padded with the end-of-text id
    starts   documents x uint64: where each document begins, counted in tokens from the shard's start, increasing
    ids      documents x 16 bytes: the document ids, so that any sequence can be traced to its pages
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.errors import InputError

MAGIC = b"GRISTTOK"
VERSION = 1
HEADER = struct.Struct("<8sIIQQQQ16x")  # 64 bytes
WIDTHS: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}


@dataclass(frozen=True)
class Shard:
    """One opened shard.

    tokens: (sequences, seq_len) uint16 or uint32; starts: (documents,) uint64; ids: (documents, 16) uint8.
    used: number of tokens without padding.
    """

    tokens: npt.NDArray[np.unsignedinteger]
    starts: npt.NDArray[np.uint64]
    ids: npt.NDArray[np.uint8]
    used: int

    def segments(self, sequence: int) -> npt.NDArray[np.int32]:
        """For each position of a sequence, the index of its document, from 0 within the sequence. Shape (seq_len,)."""
        seq_len = self.tokens.shape[1]
        positions = np.arange(sequence * seq_len, (sequence + 1) * seq_len, dtype=np.uint64)
        document = np.searchsorted(self.starts, positions, side="right")
        segments: npt.NDArray[np.int32] = (document - document[0]).astype(np.int32)
        return segments

    def documents(self, sequence: int) -> list[str]:
        """Hexadecimal ids of the documents that have tokens in a sequence."""
        seq_len = self.tokens.shape[1]
        first = max(int(np.searchsorted(self.starts, sequence * seq_len, side="right")) - 1, 0)
        last = int(np.searchsorted(self.starts, min((sequence + 1) * seq_len, self.used), side="left"))
        return [bytes(row).hex() for row in self.ids[first:last]]


def token_width(vocab_size: int) -> int:
    """Bytes per token: 2 for a vocabulary of up to 65,536 ids, 4 above."""
    return 2 if vocab_size <= 1 << 16 else 4


def encode(
    documents: Sequence[npt.NDArray[np.unsignedinteger]],
    ids: Sequence[str],
    seq_len: int,
    vocab_size: int,
    end_of_text: int,
) -> bytes:
    """One shard's bytes from whole documents, each ending in `end_of_text`. Each id is 32 hexadecimal digits.

    Raises ValueError if `documents` and `ids` differ in length or a token id is outside the vocabulary.
    """
    if len(documents) != len(ids):
        raise ValueError(f"{len(documents)} documents but {len(ids)} ids")
    width = token_width(vocab_size)
    lengths = np.array([len(document) for document in documents], dtype=np.uint64)
    used = int(lengths.sum())
    sequences = -(-used // seq_len)
    tokens = np.full(sequences * seq_len, end_of_text, dtype=WIDTHS[width])
    if documents:
        joined = np.concatenate(documents)
        if joined.size and int(joined.max()) >= vocab_size:
            raise ValueError(f"token id {int(joined.max())} is outside the vocabulary of {vocab_size}")
        tokens[:used] = joined
    starts = (
        np.concatenate([np.zeros(1, np.uint64), np.cumsum(lengths)[:-1]]).astype("<u8")
        if len(lengths)
        else np.zeros(0, "<u8")
    )
    header = HEADER.pack(MAGIC, VERSION, width, seq_len, sequences, len(documents), used)
    return b"".join((header, tokens.tobytes(), starts.tobytes(), b"".join(bytes.fromhex(digits) for digits in ids)))


def open_shard(path: Path) -> Shard:
    """Memory-map a shard. Raises InputError if the file is not a shard, has another version, or has the wrong size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size or head[:8] != MAGIC:
        raise InputError(f"{path}: is not a token shard; run pack again")
    _, version, width, seq_len, sequences, documents, used = HEADER.unpack(head)
    if version != VERSION or width not in WIDTHS:
        raise InputError(
            f"{path}: token shard version {version} with {width}-byte tokens; "
            f"this code reads version {VERSION}; run pack again"
        )
    tokens_end = HEADER.size + sequences * seq_len * width
    starts_end = tokens_end + documents * 8
    if size != starts_end + documents * 16:
        raise InputError(
            f"{path}: is {size} bytes, its header says {starts_end + documents * 16}; "
            "the file is damaged, run pack again"
        )
    if not sequences:
        return Shard(np.zeros((0, seq_len), WIDTHS[width]), np.zeros(0, np.uint64), np.zeros((0, 16), np.uint8), 0)
    tokens = np.memmap(path, WIDTHS[width], "r", HEADER.size, (sequences, seq_len))
    starts = np.memmap(path, np.dtype("<u8"), "r", tokens_end, (documents,))
    ids = np.memmap(path, np.uint8, "r", starts_end, (documents, 16))
    return Shard(tokens, starts, ids, used)
