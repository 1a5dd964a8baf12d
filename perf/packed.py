"""Token shards as `pack` commits them, for tests and benches that need known tokens."""

import io
from collections.abc import Sequence

import numpy as np

from contract.kinds import Kind
from contract.manifest import File
from contract.shards import RowsWriter, TokenWriter, rows_name
from contract.store import Store


def write_shard(
    store: Store,
    name: str,
    part: int,
    kind: Kind,
    documents: Sequence[Sequence[int]],
    seq_lens: Sequence[int],
    source: str = "",
) -> list[File]:
    """Write the files of one shard, whose rows follow each other as in the packing `stream`."""
    tokens, index, ids = io.BytesIO(), io.BytesIO(), io.BytesIO()
    writer = TokenWriter(tokens, ids, 1 << 16)
    numbers = b"".join(at.to_bytes(16, "big") for at in range(len(documents)))
    sizes = np.array([len(some) for some in documents])
    writer.add(np.concatenate([np.array(some) for some in documents]), sizes, numbers)
    writer.finish(index)
    made = [
        (f"{name}.bin", kind, tokens, 0),
        (f"{name}.idx", Kind.TOKEN_INDEX, index, 0),
        (f"{name}.ids", Kind.TOKEN_IDS, ids, 0),
    ]
    for seq_len in seq_lens:
        rows, sink = RowsWriter(seq_len), io.BytesIO()
        starts = np.arange(0, max(writer.tokens - 1, 1), seq_len)
        rows.add(np.ones_like(starts), starts, np.minimum(seq_len + 1, writer.tokens - starts))
        rows.finish(sink, writer.tokens)
        made.append((rows_name(name, seq_len), Kind.ROWS, sink, len(starts)))
    files = []
    for path, what, data, count in made:
        store.write_bytes(path, data.getvalue())
        size = len(data.getvalue())
        files.append(File(path=path, kind=what, bytes=size, rows=count, part=part, source=source))
    return files
