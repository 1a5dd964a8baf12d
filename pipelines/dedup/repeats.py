"""Distributed exact substring deduplication: find the windows of k tokens that occur at least twice in a corpus.

A pass has four shuffles of arrays. The files send anchors to buckets; buckets send back which anchors occur at least
twice; the files send the runs of windows of those anchors, with their tokens, to buckets, which compare them; buckets
send the repeated windows back to their files. A passage that many documents share is sent once per block.

A worker's memory does not grow with the corpus. At the files, it holds one block, and one documents file's repeated
anchors or cuts. In a bucket, it holds the anchors or runs of about BUCKET_BYTES of text, because the number of buckets
grows with the corpus. The windows of a very frequent anchor take more, up to `min_tokens` times their text, but they
are spread over all buckets. The driver holds one row per file.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contract.cuts import Ranges, compose, read_cuts
from contract.documents import Part
from contract.settings.corpus import DedupSubstring
from contract.store import Store
from pipelines.dedup import stream, substring
from pipelines.dedup.tokens import Block, blocks, to_bytes
from pipelines.spark import exchange
from pipelines.spark.documents import write_cuts
from pipelines.spark.exchange import Sent, column, gather
from pipelines.spark.heldout import heldout
from pipelines.text.hashing import Offsets, buffers
from pipelines.text.mixing import Hashes

BUCKET_BYTES = 96 << 20  # bytes of the corpus's text per bucket: about 15 million tokens
HOT = 1 << 16  # an anchor with more runs is hot: its windows are spread over all buckets one by one
PIECE_BYTES = 32 << 20  # bytes of tokens sent at once
WIDTH = 4  # bytes per tokenizer id


def id_keys(ids: Sequence[str]) -> tuple[Hashes, Hashes]:
    """Document ids (32 hexadecimal digits) as two uint64 arrays, (high, low), that sort like the ids."""
    keys = np.frombuffer(bytes.fromhex("".join(ids)), ">u8").astype(np.uint64).reshape(-1, 2)
    return keys[:, 0], keys[:, 1]


def places(held: npt.NDArray[np.bool_], high: Hashes, low: Hashes, start: Offsets) -> substring.Places:
    """Sort keys ordered by (held-out documents first, document id, token).

    A key has the document's rank among the given ones in its upper 32 bits and the token's index below.
    """
    order = np.lexsort((low, high, ~held))
    new = (np.diff(high[order], prepend=high[order][:1]) != 0) | (np.diff(low[order], prepend=low[order][:1]) != 0)
    rank = np.empty(len(order), np.uint64)
    rank[order] = np.cumsum(new)
    return (rank << np.uint64(32)) | start.astype(np.uint64)


def send_anchors(store: Store, parts: Any, settings: DedupSubstring, buckets: int, file: int, _: Any) -> Iterator[Sent]:
    """Step 1, at the files: count how often each anchor occurs in each block."""
    for number, block in enumerate(blocks(store, parts.value[file], settings.tokenizer)):
        runs = substring.anchors(substring.token_hashes(block.tokens), block.tokens.bounds, settings.min_tokens)
        anchor, count = np.unique(runs.anchor, return_counts=True)
        batch = pa.record_batch(
            {
                "anchor": anchor,
                "count": count.astype(np.uint32),
                "file": np.full(len(anchor), file, np.uint32),
                "block": np.full(len(anchor), number, np.uint32),
                "index": np.arange(len(anchor), dtype=np.uint32),
            }
        )
        yield from exchange.split_by_place(batch, (anchor % np.uint64(buckets)).astype(np.int64))


def meet_anchors(_: int, batches: Iterator[pa.RecordBatch]) -> Iterator[Sent]:
    """Step 2, where anchors meet: find those that occur at least twice, and which of them are hot."""
    table = gather(batches)
    if table is None:
        return
    anchor, count = column(table, "anchor"), column(table, "count")
    order = np.argsort(anchor)
    begin = np.flatnonzero(np.diff(anchor[order], prepend=~anchor[order][:1]))
    total = np.zeros(len(anchor), np.int64)
    total[order] = np.repeat(np.add.reduceat(count[order].astype(np.int64), begin), np.diff(begin, append=len(anchor)))
    met = total > 1
    batch = pa.record_batch(
        {
            "block": column(table, "block")[met],
            "index": column(table, "index")[met],
            "hot": (total[met] > HOT).astype(np.uint8),
        }
    )
    yield from exchange.split_by_place(batch, column(table, "file")[met].astype(np.int64))


def send_runs(
    store: Store,
    parts: Any,
    settings: DedupSubstring,
    fraction: float,
    buckets: int,
    file: int,
    batches: Iterator[pa.RecordBatch],
) -> Iterator[Sent]:
    """Step 3, at the files: send the tokens of all windows whose anchor occurs at least twice.

    Of equal windows in a block, only the first is sent; the others are marked as repeated here. The field `more` is 1
    if a sent window has such copies, 2 if some of the copies are in held-out documents too.
    """
    met = gather(batches)
    if met is None:
        return
    met = met.sort_by("block")
    block_of = column(met, "block")
    for number, block in enumerate(blocks(store, parts.value[file], settings.tokenizer)):
        low, high = np.searchsorted(block_of, [number, number + 1])
        if low < high:
            mine = met.slice(low, high - low).combine_chunks()
            yield from _block_runs(block, mine, settings.min_tokens, heldout(fraction, block.ids), buckets, file)


def _block_runs(
    block: Block, met: pa.Table, k: int, held: npt.NDArray[np.bool_], buckets: int, file: int
) -> Iterator[Sent]:
    tokens = block.tokens
    hashes = substring.token_hashes(tokens)
    runs = substring.anchors(hashes, tokens.bounds, k)
    anchor, inverse = np.unique(runs.anchor, return_inverse=True)
    state = np.zeros(len(anchor), np.uint8)  # 0: occurs once, 1: occurs at least twice, 2: hot
    state[column(met, "index")] = 1 + column(met, "hot")
    chosen = np.flatnonzero(state[inverse])
    windows = substring.expand(runs.first[chosen], runs.count[chosen])
    run = np.repeat(chosen, runs.count[chosen])
    digest = substring.window_hashes(hashes, tokens.bounds, k)[windows]
    document = np.searchsorted(tokens.bounds, windows, side="right") - 1
    start = windows - tokens.bounds[document]
    high, low = id_keys(block.ids)
    place = places(held, high, low, np.zeros(len(high), np.int64))[document] | start.astype(np.uint64)
    first = substring.first_equal(tokens, windows, digest, place, k)
    alone = first == np.arange(len(windows))
    more = (np.bincount(first, minlength=len(windows)) > 1).astype(np.uint8)
    more += np.bincount(first, held[document], len(windows)) > 1
    marks = substring.stretches(~alone, document, np.cumsum(np.diff(windows, prepend=0) != 1))
    yield from _marks(file, block.rows[document[marks[0]]], start[marks[0]], marks[1], buckets)
    hot = state[inverse[run]] == 2
    label = np.where(hot, np.arange(len(windows)), -1 - run)  # windows of a hot anchor are sent singly
    begin, count = substring.stretches(alone, label, more)
    ends = windows[begin] + count - 1 + k
    sent = np.cumsum(tokens.at[ends] - tokens.at[windows[begin]]) // PIECE_BYTES
    for piece in np.split(np.arange(len(begin)), np.flatnonzero(np.diff(sent)) + 1):
        at = begin[piece]
        data, offsets = stream.payloads(tokens, windows[at], ends[piece])
        batch = pa.record_batch(
            {
                "high": high[document[at]],
                "low": low[document[at]],
                "file": np.full(len(at), file, np.uint32),
                "row": block.rows[document[at]],
                "first": start[at],
                "count": count[piece],
                "held": held[document[at]].astype(np.uint8),
                "more": more[at],
                "tokens": pa.LargeBinaryArray.from_buffers(
                    pa.large_binary(), len(at), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
                ),
            }
        )
        key = np.where(hot[at], digest[at], runs.anchor[run[at]])
        yield from exchange.split_by_place(batch, (key % np.uint64(buckets)).astype(np.int64))


def _marks(file: Any, row: Offsets, first: Offsets, count: Offsets, buckets: int | None = None) -> Iterator[Sent]:
    """Send repeated windows to their file: directly, or through a bucket of the step between if `buckets` is given."""
    files = np.broadcast_to(np.asarray(file, np.uint32), row.shape)
    batch = pa.record_batch({"file": files, "row": row, "first": first, "count": count})
    yield from exchange.split_by_place(batch, files.astype(np.int64) % (buckets or 1 << 62))


def meet_runs(settings: DedupSubstring, _: int, batches: Iterator[pa.RecordBatch]) -> Iterator[Sent]:
    """Step 4, where runs meet: compare windows byte by byte and send on the repeated ones."""
    kept = []
    for batch in batches:
        if "tokens" in batch.schema.names:
            kept.append(batch)
        else:
            yield from exchange.split_by_place(batch, column(batch, "file").astype(np.int64))
    table = gather(iter(kept))
    if table is None:
        return
    k, first, count = settings.min_tokens, column(table, "first"), column(table, "count")
    data, offsets = buffers(table["tokens"])
    width = None if settings.tokenizer is None else WIDTH
    tokens = stream.parse(data[offsets[0] : offsets[-1]], offsets - offsets[0], width)
    windows = substring.expand(tokens.bounds[:-1], count)
    run = np.repeat(np.arange(table.num_rows), count)
    held, more = column(table, "held").astype(bool), column(table, "more")
    place = places(held, column(table, "high"), column(table, "low"), first)[run]
    place += (windows - tokens.bounds[run]).astype(np.uint64)
    digest = substring.window_hashes(substring.token_hashes(tokens), tokens.bounds, k)[windows]
    least = substring.first_equal(tokens, windows, digest, place, k)
    all_copies = settings.cut == "all"
    marked = substring.repeated(least, held[run], more[run]) if all_copies else least != np.arange(len(windows))
    begin, length = substring.stretches(marked, run)
    run = run[begin]
    start = first[run] + windows[begin] - tokens.bounds[run]
    yield from _marks(column(table, "file")[run], column(table, "row")[run], start, length)


def place_cuts(
    store: Store, prefix: str, parts: Any, settings: DedupSubstring, file: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[Sent]:
    """Step 5, at the files: convert repeated windows to byte ranges and write them with the earlier passes' cuts."""
    table = gather(batches)
    if table is not None:
        marks = (column(table, name) for name in ("row", "first", "count"))
        facts = save_cuts(store, prefix, parts.value[file], settings, file, *marks)
        if facts is not None:
            yield 0, facts


def save_cuts(
    store: Store,
    prefix: str,
    part: Part,
    settings: DedupSubstring,
    number: int,
    row: Offsets,
    first: Offsets,
    count: Offsets,
) -> pa.RecordBatch | None:
    """Write the cuts of one part. Returns the path, size and counts of the cuts file.

    row, first, count: runs of repeated windows; first is a token index in the document. Shapes (runs,).
    """
    rows, starts, ends = substring.merge(row, first, count, settings.min_tokens)
    before = read_cuts(store, part.cuts)
    found: dict[int, Ranges] = {}
    ids: dict[int, str] = {}
    for block in blocks(store, part, settings.tokenizer, np.union1d(rows, list(before)).astype(np.int64)):
        for document, (at_row, key) in enumerate(zip(block.rows.tolist(), block.ids, strict=True)):
            low, high = np.searchsorted(rows, [at_row, at_row + 1])
            later = [to_bytes(block, document, int(starts[at]), int(ends[at])) for at in range(low, high)]
            ids[at_row], cuts = key, compose(before.get(at_row, []), [one for one in later if one[0] < one[1]])
            if cuts:  # a repeat inside one character gives an empty cut, which was dropped
                found[at_row] = cuts
    if not found:
        return None
    path = f"{prefix}/cuts-{number:05d}-{np.random.default_rng().bytes(4).hex()}.parquet"
    written = write_cuts(store, path, found, ids)
    facts = {
        "part": number,
        "path": path,
        "bytes": written.bytes,
        "sha256": written.sha256,
        "rows": written.rows,
        "documents": len(found),
    }
    return pa.RecordBatch.from_pylist([facts | {"spans": len(rows), "tokens": int((ends - starts).sum())}])


def steps(
    store: Store, prefix: str, parts: Any, files: int, settings: DedupSubstring, fraction: float, buckets: int
) -> list[tuple[int, exchange.Work]]:
    """The steps of one pass, as an exchange between `files` documents files and `buckets` buckets.

    parts.value: the parts with the cuts of the passes before; fraction: share of documents that are held out.
    """
    return [
        (files, partial(send_anchors, store, parts, settings, buckets)),
        (buckets, meet_anchors),
        (files, partial(send_runs, store, parts, settings, fraction, buckets)),
        (buckets, partial(meet_runs, settings)),
        (files, partial(place_cuts, store, prefix, parts, settings)),
    ]
