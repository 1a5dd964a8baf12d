"""Links between near duplicates: an edge for each two documents that share a key and, where links are checked, are similar enough.

Keys meet in a shuffle of arrays. In a key that many documents share, each is linked with one (or, where links are checked, with a few),
so that the links never grow with the square of what boilerplate a million pages have in common.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from contract.manifest import File
from contract.settings import DedupFuzzy, MinhashSign
from contract.store import Store
from pipelines import exchange
from pipelines.components import Nodes
from pipelines.exchange import Sent, column, gather
from pipelines.job import Job, TableWriter
from pipelines.survivors import Part, dropped_ids, number
from pipelines.text.hashing import buffers, shingles
from pipelines.text.linking import pairs, set_jaccards, stars

FILE_BITS = 32  # a node is its documents file's number and, in the lower 32 bits, its row there
BATCH_ROWS = 1 << 14
BUCKET_KEYS = 8_000_000  # keys for each place where they meet: some 250 MB of arrays
EDGES = pa.schema([("big", pa.int64()), ("small", pa.int64())])


class Signed(NamedTuple):
    """A part, the signatures of its documents in the same order, and a number that is 0 or stands for its snapshot."""

    part: Part
    signatures: File
    salt: int = 0


def signed(job: Job, inputs: Sequence[Part], scope: str) -> list[Signed]:
    """Join each documents file with the signatures file that `minhash_sign` wrote for it."""
    files: dict[str, tuple[File, int]] = {}
    segments = [task.segment for task in job.task.of("filter")]
    manifests = zip(segments, job.manifests("filter"), job.manifests("minhash_sign"), strict=True)
    for segment, documents, signatures in manifests:
        order = documents.of("documents")
        local = scope == "snapshot" and segment is not None
        salt = xxhash.xxh3_64_intdigest(segment.snapshot.encode()) if local and segment else 0
        files |= {order[number(file)].path: (file, salt) for file in signatures.of("signatures")}
    return [Signed(part, *files[part.documents.path]) for part in inputs]


def read_nodes(store: Store, item: Signed, file: int, *columns: str) -> Iterator[tuple[Nodes, pa.RecordBatch]]:
    """Nodes and rows of the signatures of the documents that are left. Nodes: shape (rows,)."""
    gone = pa.array(dropped_ids(store, item.part), pa.string())
    row = 0
    with store.open_input(item.signatures.path) as source:
        for batch in pq.ParquetFile(source).iter_batches(BATCH_ROWS, columns=["id", *columns]):
            alive = pc.invert(pc.is_in(batch["id"], value_set=gone))
            nodes = (file << FILE_BITS) + np.arange(row, row + batch.num_rows, dtype=np.int64)
            row += batch.num_rows
            yield nodes[alive.to_numpy(zero_copy_only=False)], batch.filter(alive)


def id_rank(ids: pa.Array) -> npt.NDArray[np.uint64]:
    """The first 64 of an id's 128 bits: an order of documents that no partitioning changes."""
    return np.frombuffer(bytes.fromhex("".join(ids.to_pylist())), ">u8").astype(np.uint64)[::2]


def send_keys(store: Store, items: Any, checked: bool, buckets: int, file: int, _: Any) -> Iterator[Sent]:
    """Step 1, at the files: each key with its document. Unchecked, documents that share a key within a batch are linked at once."""
    item: Signed = items.value[file]
    for nodes, batch in read_nodes(store, item, file, "keys", "fingerprint"):
        keys = np.asarray(batch["keys"].flatten()) ^ np.uint64(item.salt)
        width = batch["keys"].type.list_size
        rows = np.repeat(np.arange(len(nodes)), width)
        if not checked:
            big, small, first = stars(keys, nodes[rows])
            yield from _edges(big, small, buckets)
            rows, keys = rows[first], keys[first]
        columns = {"key": keys, "node": nodes[rows]}
        if checked:
            columns |= {"rank": id_rank(batch["id"])[rows], "fingerprint": np.asarray(batch["fingerprint"])[rows]}
        yield from exchange.split(pa.record_batch(columns), (keys % np.uint64(buckets)).astype(np.int64))


def _edges(big: Nodes, small: Nodes, buckets: int | None = None) -> Iterator[Sent]:
    """Edges on their way: to any of the buckets by the node, or to the file of the node `big`."""
    places = big % buckets if buckets else big >> FILE_BITS
    yield from exchange.split(pa.record_batch({"big": big, "small": small}), places)


def meet_keys(store: Store, prefix: str, place: int, batches: Iterator[pa.RecordBatch]) -> Iterator[Sent]:
    """Step 2, where keys meet: each document is linked with the smallest node of its key."""
    held, linked = [], []
    for batch in batches:
        (held if "key" in batch.schema.names else linked).append(batch)
    found = [(column(batch, "big"), column(batch, "small")) for batch in linked]
    table = gather(iter(held))
    if table is not None:
        found.append(stars(column(table, "key"), column(table, "node"))[:2])
    yield from write_edges(store, prefix, place, found)


def meet_pairs(distance: int | None, bound: int, _: int, batches: Iterator[pa.RecordBatch]) -> Iterator[Sent]:
    """Step 2, where keys meet and links are checked: the pairs to compare, sent to the file of the one with the larger id."""
    table = gather(batches)
    if table is None:
        return
    big, small = pairs(
        column(table, "key"),
        column(table, "rank"),
        column(table, "node"),
        column(table, "fingerprint"),
        bound,
        -1 if distance is None else distance,
    )
    yield from _edges(big, small)


def send_sets(store: Store, items: Any, ngram: int, file: int, batches: Iterator[pa.RecordBatch]) -> Iterator[Sent]:
    """Step 3, at the files: the shingles of one document of each pair travel to the file of the other."""
    table = gather(batches)
    if table is None:
        return
    both = np.unique(np.stack([column(table, "big"), column(table, "small")]), axis=1)
    target = both[1] >> FILE_BITS
    for nodes, sets in read_sets(store, items.value[file], file, ngram, np.unique(both[0])):
        inside = np.isin(both[0], nodes)
        for place in np.unique(target[inside]).tolist():
            big, small = both[:, inside & (target == place)]
            yield place, pa.record_batch({"big": big, "small": small})
            wanted = np.unique(np.searchsorted(nodes, big))
            yield place, pa.record_batch({"node": nodes[wanted], "set": sets.take(pa.array(wanted))})


def read_sets(store: Store, item: Signed, file: int, ngram: int, nodes: Nodes) -> Iterator[tuple[Nodes, pa.Array]]:
    """Distinct shingles, ascending, of some documents of a file, a batch at a time."""
    wanted, row = nodes & ((1 << FILE_BITS) - 1), 0
    with store.open_input(item.part.documents.path) as source:
        for batch in pq.ParquetFile(source).iter_batches(1024, columns=["text"]):
            inside = wanted[(wanted >= row) & (wanted < row + batch.num_rows)]
            found = shingles(*buffers(batch["text"].take(pa.array(inside - row))), ngram)
            sets = [
                np.unique(found.hashes[low:high]) for low, high in zip(found.bounds, found.bounds[1:], strict=False)
            ]
            offsets = np.cumsum([0, *map(len, sets)])
            flat = np.concatenate(sets) if sets else np.zeros(0, np.uint64)
            if len(inside):
                yield (file << FILE_BITS) + inside, pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))
            row += batch.num_rows


def check_pairs(
    store: Store, prefix: str, items: Any, ngram: int, least: float, file: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[Sent]:
    """Step 4, at the files: pairs whose true Jaccard similarity is high enough are linked."""
    held, asked = [], []
    for batch in batches:
        (held if "set" in batch.schema.names else asked).append(batch)
    found: list[tuple[Nodes, Nodes]] = []
    others, pair = gather(iter(held)), gather(iter(asked))
    if others is not None and pair is not None:
        others = others.sort_by("node").combine_chunks()
        big, small = column(pair, "big"), column(pair, "small")
        for nodes, sets in read_sets(store, items.value[file], file, ngram, np.unique(small)):
            inside = np.isin(small, nodes)
            one, other = big[inside], small[inside]
            similarity = set_jaccards(
                *_lists(others["set"].chunk(0)),
                *_lists(sets),
                np.searchsorted(column(others, "node"), one),
                np.searchsorted(nodes, other),
            )
            found.append((one[similarity >= least], other[similarity >= least]))
    yield from write_edges(store, prefix, file, found)


def _lists(values: pa.Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    return np.asarray(values.values), np.asarray(values.offsets)


def write_edges(store: Store, prefix: str, place: int, found: Sequence[tuple[Nodes, Nodes]]) -> Iterator[Sent]:
    """The distinct edges of one place in a file, because all of them together may be more than the driver holds."""
    both = np.concatenate([np.zeros((2, 0), np.int64), *(np.stack(one) for one in found)], axis=1)
    both = np.unique(both, axis=1)
    path = f"{prefix}/edges-{place:05d}-{np.random.default_rng().bytes(4).hex()}.parquet"
    writer = TableWriter(store, path, "edges", EDGES)
    writer.write_table(pa.table({"big": both[0], "small": both[1]}, schema=EDGES))
    for file in writer.close():
        yield 0, pa.RecordBatch.from_pylist([file.model_dump()])


def link(job: Job, items: Sequence[Signed], settings: DedupFuzzy, signing: MinhashSign) -> list[File]:
    """The files of edges between documents that are near duplicates."""
    context, store, prefix = job.spark.sparkContext, job.store, job.prefix
    keys = sum(item.signatures.rows for item in items) * len_keys(store, items)
    buckets = max(context.defaultParallelism, -(-keys // BUCKET_KEYS))
    shared, files = context.broadcast(list(items)), len(items)
    simhash, checked = signing.method == "simhash", settings.min_jaccard is not None
    steps: list[tuple[int, exchange.Work]] = [
        (files, partial(send_keys, store, shared, simhash or checked, buckets)),
        (buckets, partial(meet_keys, store, prefix)),
    ]
    if simhash or checked:
        steps[1] = (buckets, partial(meet_pairs, signing.distance if simhash else None, settings.pairs_per_document))
        steps.append((files, partial(link_pairs, store, prefix)))
    if checked:
        steps[2] = (files, partial(send_sets, store, shared, signing.ngram))
        steps.append((files, partial(check_pairs, store, prefix, shared, signing.ngram, settings.min_jaccard)))
    return [File(**row) for batch in exchange.shuffle(context, steps) for row in batch.to_pylist()]


def link_pairs(store: Store, prefix: str, file: int, batches: Iterator[pa.RecordBatch]) -> Iterator[Sent]:
    """Step 3 where a SimHash distance decides alone: all pairs are edges."""
    yield from write_edges(store, prefix, file, [(column(batch, "big"), column(batch, "small")) for batch in batches])


def len_keys(store: Store, items: Sequence[Signed]) -> int:
    """Keys a document has, from the first signatures file."""
    with store.open_input(items[0].signatures.path) as source:
        return int(pq.ParquetFile(source).schema_arrow.field("keys").type.list_size)


def read_edges(store: Store, file: File, _: int = 0) -> Iterator[pa.RecordBatch]:
    with store.open_input(file.path) as source:
        yield from pq.ParquetFile(source).iter_batches(1 << 20)
