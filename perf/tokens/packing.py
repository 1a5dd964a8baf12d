"""Padding of rows that hold whole documents: real texts, and as many documents of their lengths as fill windows."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from contract.chat import SPECIAL_TOKENS
from contract.settings.corpus import Tokenizer as TokenizerSettings
from perf.bars import Bars
from perf.tokens.speed import texts
from pipelines.text.packing import best_fit
from pipelines.vocabulary.encoding import Encoder
from pipelines.vocabulary.training import train

SEQ_LENS = (512, 2048, 8192, 32_768, 131_072)
DRAWN = 100_000  # documents


def padding(sizes: np.ndarray, seq_len: int) -> float:
    """The share of the places in rows that hold no token."""
    rows = filled = 0
    for counts, _, length in best_fit([sizes], seq_len):
        rows, filled = rows + len(counts), filled + int(length.sum())
    return 1 - filled / (rows * (seq_len + 1))


def run(bars: Bars, data: Path) -> None:
    held = list(texts(data))
    vocabulary = train(held, TokenizerSettings(), [*SPECIAL_TOKENS.values()]).to_str().encode()
    _, sizes = Encoder(vocabulary, 0).encode(pa.array(held))
    many = np.random.default_rng(0).choice(sizes, DRAWN)
    print(f"{len(sizes):,} documents of {sizes.sum():,} tokens, and {DRAWN:,} of their lengths, {many.sum():,} tokens")
    for seq_len in SEQ_LENS:
        print(f"seq_len {seq_len:>7,}: padding {padding(sizes, seq_len):7.3%} {padding(many, seq_len):7.3%}")
    bars.at_most("packing_padding", padding(sizes, 2048), 0.01)
