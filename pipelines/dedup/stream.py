"""Documents as one stream of tokens in flat arrays.

A token is stored as bytes: a word followed by one space, or a tokenizer id in four bytes. A window's bytes are its
tokens' bytes concatenated, so two windows have equal bytes exactly if they have equal tokens.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.text.hashing import Bytes, Offsets
from pipelines.text.kernels import kernel

Eights = npt.NDArray[np.uint64]

BLANK, MAYBE = 1, 2
_KINDS = np.zeros(256, np.uint8)  # by first byte: ASCII white space (BLANK), perhaps other white space (MAYBE), or 0
_KINDS[[9, 10, 11, 12, 13, 28, 29, 30, 31, 32]] = BLANK
_KINDS[[0xC2, 0xE1, 0xE2, 0xE3]] = MAYBE


class Tokens(NamedTuple):
    """Documents as tokens.

    data: uint8 bytes of all tokens; at: offset of each token in data, (tokens + 1,);
    bounds: index of each document's first token, (documents + 1,).
    """

    data: Bytes
    at: Offsets
    bounds: Offsets


def words(data: Bytes, offsets: Offsets) -> tuple[Tokens, Offsets]:
    """Split texts into words at white space, as `str.split` does.

    Text i is data[offsets[i]:offsets[i + 1]]. Returns the tokens and each word's byte offset in its text, (tokens,).
    """
    spaces = np.flatnonzero((data <= 32) | (data == 0xC2) | (data - np.uint8(0xE1) < 3))  # possible white space
    stream = np.empty(offsets[-1] - offsets[0] + len(offsets) + 7, np.uint8)
    stream_eights = np.ndarray(len(stream) - 7, np.dtype("<u8"), stream, strides=(1,))
    written, at, bounds, starts = _split(data, eights(data), offsets, spaces, _KINDS, stream, stream_eights)
    return Tokens(stream[:written], at, bounds), starts


def eights(data: Bytes) -> Eights:
    """The eight bytes from each offset on as a little-endian uint64, zero-padded past the end. Shape (bytes + 1,)."""
    return np.ndarray(len(data) + 1, np.dtype("<u8"), np.append(data, np.zeros(8, np.uint8)), strides=(1,))


def from_ids(ids: npt.NDArray[np.uint32], bounds: Offsets) -> Tokens:
    """Store a tokenizer's ids as four-byte tokens. Any vocabulary of up to 2^32 ids fits."""
    return Tokens(ids.astype("<u4").view(np.uint8), np.arange(len(ids) + 1, dtype=np.int64) * 4, bounds)


def payloads(tokens: Tokens, first: Offsets, end: Offsets) -> tuple[Bytes, Offsets]:
    """Concatenate the bytes of token ranges [first, end). Also returns each range's offset: (ranges + 1,)."""
    return _copy(tokens.data, tokens.at[first], tokens.at[end])


def parse(data: Bytes, offsets: Offsets, width: int | None) -> Tokens:
    """Read the tokens back from payloads, each as one document. width: bytes per token, or None for words."""
    if width is None:
        at = np.append(0, np.flatnonzero(data == 32) + 1)
        return Tokens(data, at, np.searchsorted(at, offsets))
    return Tokens(data, np.arange(0, len(data) + 1, width), offsets // width)


@kernel
def _wide_space(data: Bytes, at: int, end: int) -> int:
    """Length in bytes of the non-ASCII white space character that starts at data[at]; 0 if there is none."""
    if data[at] == 0xC2:
        return 2 if at + 1 < end and (data[at + 1] == 0x85 or data[at + 1] == 0xA0) else 0
    if at + 2 >= end:
        return 0
    code = (np.int64(data[at]) & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F
    known = code == 0x1680 or code == 0x2028 or code == 0x2029 or code == 0x202F or code == 0x205F or code == 0x3000
    return 3 if known or 0x2000 <= code <= 0x200A else 0


@kernel
def _split(
    data: Bytes, eight: Eights, offsets: Offsets, spaces: Offsets, kinds: Bytes, out: Bytes, out_eight: Eights
) -> tuple[int, Offsets, Offsets, Offsets]:
    """Copy words eight bytes at a time; the next word overwrites the bytes written past a word's end."""
    texts = len(offsets) - 1
    at = np.zeros(len(spaces) + texts + 1, np.int64)
    starts = np.empty(len(spaces) + texts + 1, np.int64)
    bounds = np.zeros(texts + 1, np.int64)
    tokens, written = 0, 0
    here = np.searchsorted(spaces, offsets[0])
    for text in range(texts):
        begin, end = offsets[text], offsets[text + 1]
        while begin < end:
            stop, size = end, 1
            while here < len(spaces) and spaces[here] < end:
                kind = kinds[data[spaces[here]]]
                size = 1 if kind == BLANK else _wide_space(data, spaces[here], end) if kind == MAYBE else 0
                here += 1
                if size:
                    stop = spaces[here - 1]
                    break
            if stop > begin:
                starts[tokens] = begin - offsets[text]
                for shift in range(0, stop - begin, 8):
                    out_eight[written + shift] = eight[begin + shift]
                written += stop - begin
                out[written] = 32
                written += 1
                tokens += 1
                at[tokens] = written
            begin = stop + size
        bounds[text + 1] = tokens
    return written, at[: tokens + 1].copy(), bounds, starts[:tokens].copy()


@kernel
def _copy(data: Bytes, begin: Offsets, end: Offsets) -> tuple[Bytes, Offsets]:
    offsets = np.zeros(len(begin) + 1, np.int64)
    for one in range(len(begin)):
        offsets[one + 1] = offsets[one] + end[one] - begin[one]
    out = np.empty(offsets[len(begin)], np.uint8)
    for one in range(len(begin)):
        out[offsets[one] : offsets[one + 1]] = data[begin[one] : end[one]]
    return out, offsets
