"""Links between near duplicates: edges between documents that share a key and, if checked, are similar enough.

Keys are grouped by a shuffle of arrays. If many documents share a key, each is linked with one of them (with a few, if
links are checked), so that boilerplate on a million pages does not make a quadratic number of links.

A worker's memory does not grow with the corpus. At the files, it holds one batch, the links of one documents file and,
if links are checked, SET_BYTES of received shingles and a batch of the file's own. Where keys meet, it holds about
BUCKET_KEYS keys, because the number of buckets grows with the keys. If very many documents share a key, their links are
made batch by batch, and the documents still to be paired are spilled to disk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from contract.documents import Part, read_index, read_part
from contract.errors import DamagedError
from contract.kinds import Kind
from contract.manifest import File
from contract.settings.corpus import CRAWL, DedupFuzzy, MinhashSign
from contract.store import Store
from contract.tables import batches_of, open_table
from pipelines.dedup.linking import distinct, near_pairs, pairs, ranked, set_jaccards, stars
from pipelines.dedup.substring import stretches
from pipelines.spark import exchange
from pipelines.spark.components import Nodes
from pipelines.spark.exchange import Sent, Spill, chunks, column, gather
from pipelines.spark.job import Job
from pipelines.spark.tables import TableWriter
from pipelines.text.hashing import buffers, shingles

ROW_BITS = 32  # a node is the number of its part and, in the lower 32 bits, its row in the documents file
BATCH_KEYS = 1 << 18
BUCKET_KEYS = 8_000_000  # keys per bucket: about 250 MB of arrays
PAIRED_KEYS = BUCKET_KEYS // 4  # keys per bucket if documents are compared, which takes more memory per key
REACH = 4096  # a key's documents are compared with this many of smallest rank, at microseconds per document
SET_BYTES = 128 << 20
PAIR_BYTES = 64 << 20
EDGES = pa.schema([("big", pa.int64()), ("small", pa.int64())])


def signed(parts: Sequence[Part], signers: Sequence[Part]) -> list[Part]:
    """The parts with the signatures of their documents, which are those of `signers` over the same documents file.

    Raises DamagedError if a part was not signed.
    """
    signatures = {part.documents.path: part.signatures for part in signers}
    for part in parts:
        if signatures.get(part.documents.path) is None:
            raise DamagedError(
                f"{part.documents.path}: dedup_url read these documents, and minhash_sign has not signed them; "
                "delete the manifests of both and run them again"
            )
    return [replace(part, signatures=signatures[part.documents.path]) for part in parts]


def signatures_of(part: Part) -> File:
    assert part.signatures is not None, "`signed` refuses others"
    return part.signatures


def read_nodes(store: Store, part: Part, number: int, *columns: str) -> Iterator[tuple[Nodes, pa.RecordBatch]]:
    """Read signatures of the documents that are left, in batches: (nodes of shape (rows,), rows with `columns`)."""
    left, file, seen = read_index(store, part)["row"].to_numpy(), signatures_of(part), 0
    with open_table(store, file) as table:
        rows = max(1, BATCH_KEYS // keys_per_document(table))
        for batch in batches_of(store, file, table, rows, ["row", "id", *columns]):
            batch = batch.filter(pa.array(np.isin(column(batch, "row"), left)))
            seen += batch.num_rows
            yield (number << ROW_BITS) + column(batch, "row"), batch
    if seen != len(left):
        raise DamagedError(
            f"{store.full(file.path)}: signs {seen:,} of {len(left):,} documents that are left; "
            "delete the manifest of its minhash_sign and run it again"
        )


def id_rank(ids: pa.Array) -> npt.NDArray[np.uint64]:
    """The first 64 of each id's 128 bits: an order of documents that does not depend on partitioning."""
    return np.frombuffer(bytes.fromhex("".join(ids.to_pylist())), ">u8").astype(np.uint64)[::2]


def send_keys(
    store: Store, parts: Any, apart: Sequence[str], checked: bool, simhash: bool, buckets: int, number: int, _: Any
) -> Iterator[Sent]:
    """Step 1, at the parts: send each key with its document.

    apart: the snapshots whose documents share no key; a curated document shares its keys with each of them. If
    documents are not compared, those that share a key within a batch are linked here. With SimHash, the fingerprint is
    an additional key, so that equal fingerprints meet even if very many documents share the other keys.
    """
    curated = parts.value[number].source != CRAWL
    for nodes, batch in read_nodes(store, parts.value[number], number, "snapshot", "keys", "fingerprint"):
        width = batch["keys"].type.list_size
        keys = np.asarray(batch["keys"].flatten())
        if simhash:
            keys = np.column_stack([keys.reshape(-1, width), np.asarray(batch["fingerprint"])]).reshape(-1)
            width += 1
        facts: dict[str, npt.NDArray[Any]] = {"node": nodes}
        if checked:
            facts |= {"rank": id_rank(batch["id"]), "fingerprint": np.asarray(batch["fingerprint"])}
        for salt in scopes(batch["snapshot"], curated, apart):
            yield from _keys(np.bitwise_xor(keys, np.repeat(salt, width)), width, facts, checked, buckets)


def scopes(snapshots: pa.Array, curated: bool, apart: Sequence[str]) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield what is mixed into the keys of documents, one array of shape (documents,) for each time they are sent."""
    if not apart:
        yield np.zeros(len(snapshots), np.uint64)
    elif curated:
        yield from (np.full(len(snapshots), salt) for salt in salts(pa.array(apart)))
    else:
        yield salts(snapshots)


def _keys(
    keys: npt.NDArray[np.uint64], width: int, facts: dict[str, npt.NDArray[Any]], checked: bool, buckets: int
) -> Iterator[Sent]:
    rows = np.repeat(np.arange(len(facts["node"])), width)
    if not checked:
        big, small, first = stars(keys, facts["node"][rows])
        yield from _edges(big, small, big % buckets)
        rows, keys = rows[first], keys[first]
    columns = {"key": keys} | {name: values[rows] for name, values in facts.items()}
    yield from exchange.split_by_place(pa.record_batch(columns), (keys % np.uint64(buckets)).astype(np.int64))


def salts(snapshots: pa.Array) -> npt.NDArray[np.uint64]:
    """A hash of the name of each document's snapshot. Shape (documents,)."""
    names = snapshots.fill_null("").dictionary_encode()
    hashes = np.array([xxhash.xxh3_64_intdigest(name.encode()) for name in names.dictionary.to_pylist()], np.uint64)
    return hashes.take(np.asarray(names.indices))


def _edges(big: Nodes, small: Nodes, places: Nodes) -> Iterator[Sent]:
    yield from exchange.split_by_place(pa.record_batch({"big": big, "small": small}), places)


def meet_keys(store: Store, prefix: str, place: int, batches: Iterator[pa.RecordBatch]) -> Iterator[Sent]:
    """Step 2, where keys meet: link each document with the smallest node of its key."""
    held: list[pa.RecordBatch] = []
    linked: list[pa.RecordBatch] = []
    for batch in batches:
        (held if "key" in batch.schema.names else linked).append(batch)
    found = [(column(batch, "big"), column(batch, "small")) for batch in linked]
    table = gather(iter(held))
    if table is not None:
        found.append(stars(column(table, "key"), column(table, "node"))[:2])
    yield from write_edges(store, prefix, place, found)


def meet_pairs(
    distance: int | None, bound: int, checked: bool, _: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[Sent]:
    """Step 2 if documents are compared: make the pairs that share a key.

    If links are checked, a pair is sent to the file of its document of smaller id, whose shingles are then sent on.
    If the documents of a bucket do not fit in memory, only each key's heads, the documents of smallest rank that all
    others are compared with, stay there; the rest are spilled to disk.
    """
    reach = bound if distance is None else REACH
    heads, spilled = None, Spill()
    for table in chunks(batches, PAIRED_KEYS * 32):
        heads = table if heads is None else pa.concat_tables([heads, table]).combine_chunks()
        if heads.num_rows > PAIRED_KEYS:
            head = ranked(column(heads, "key"), column(heads, "rank")) < reach
            spilled.add(heads.filter(pa.array(~head)))
            heads = heads.filter(pa.array(head)).combine_chunks()
    if heads is None:
        return
    tails = (behind(heads, tail) for tail in spilled.tables())
    for table in chain([heads], tails):
        keys, ranks, nodes = (column(table, name) for name in ("key", "rank", "node"))
        if distance is None:
            big, small = pairs(keys, ranks, nodes, bound)
        else:
            prints = column(table, "fingerprint")
            big, small = near_pairs(keys, ranks, nodes, prints, distance, reach, bound if checked else None)
        yield from _edges(big, small, (small if checked else big) >> ROW_BITS)


def behind(heads: pa.Table, tail: pa.Table) -> pa.Table:
    """Prepend to spilled documents the heads that share a key with them."""
    hot = heads.filter(pc.is_in(heads["key"], tail["key"].combine_chunks()))
    return pa.concat_tables([hot, tail]).combine_chunks()


def send_sets(store: Store, parts: Any, ngram: int, number: int, batches: Iterator[pa.RecordBatch]) -> Iterator[Sent]:
    """Step 3, at the files: send the shingles of each pair's document of smaller id to the other document's file.

    The shingles are sent once per file, so comparing a million documents with one does not send a million documents.
    """
    for table in chunks(batches, PAIR_BYTES):
        small, big = distinct(column(table, "small"), column(table, "big"))
        for nodes, sets in read_sets(store, parts.value[number], number, ngram, np.unique(small)):
            inside = np.isin(small, nodes)
            one, other = small[inside], big[inside]
            order = np.lexsort((other, one, other >> ROW_BITS))
            one, other = one[order], other[order]
            place = other >> ROW_BITS
            begin, count = stretches(np.ones(len(one), bool), one, place)
            for target in np.unique(place).tolist():
                mine = place[begin] == target
                asked = other[place == target]
                yield (
                    target,
                    pa.record_batch(
                        {
                            "small": one[begin[mine]],
                            "set": sets.take(pa.array(np.searchsorted(nodes, one[begin[mine]]))),
                            "big": pa.LargeListArray.from_arrays(
                                pa.array(np.cumsum([0, *count[mine]])), pa.array(asked)
                            ),
                        }
                    ),
                )


def read_sets(store: Store, part: Part, number: int, ngram: int, nodes: Nodes) -> Iterator[tuple[Nodes, pa.Array]]:
    """Read the shingles of the given nodes of a part, in batches: (nodes, their distinct ascending shingles)."""
    for batch in read_part(store, part, ["text"], 1024, nodes & ((1 << ROW_BITS) - 1)):
        found = shingles(*buffers(batch["text"]), ngram)
        sets = [np.unique(found.hashes[low:high]) for low, high in zip(found.bounds, found.bounds[1:], strict=False)]
        offsets = np.cumsum([0, *map(len, sets)])
        flat = pa.array(np.concatenate(sets))
        yield (number << ROW_BITS) + column(batch, "row"), pa.LargeListArray.from_arrays(pa.array(offsets), flat)


def check_pairs(
    store: Store, prefix: str, parts: Any, ngram: int, least: float, number: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[Sent]:
    """Step 4, at the files: link pairs whose exact Jaccard similarity is at least `least`."""
    found: list[tuple[Nodes, Nodes]] = []
    for table in chunks(batches, SET_BYTES):
        big, bounds = _lists(table["big"].chunk(0))
        at = np.repeat(np.arange(table.num_rows), np.diff(bounds))
        small = column(table, "small")[at]
        for nodes, sets in read_sets(store, parts.value[number], number, ngram, np.unique(big)):
            inside = np.isin(big, nodes)
            where = np.searchsorted(nodes, big[inside])
            similarity = set_jaccards(*_lists(table["set"].chunk(0)), *_lists(sets), at[inside], where)
            similar = similarity >= least
            found.append((big[inside][similar], small[inside][similar]))
    yield from write_edges(store, prefix, number, found)


def _lists(values: pa.Array) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    offsets = np.asarray(values.offsets)
    return np.asarray(values.flatten()), offsets - offsets[0]


def write_edges(store: Store, prefix: str, place: int, found: Sequence[tuple[Nodes, Nodes]]) -> Iterator[Sent]:
    """Write one worker's distinct edges to a file, because the driver may not have memory for all edges."""
    none = np.zeros(0, np.int64)
    big, small = distinct(
        np.concatenate([none, *(one for one, _ in found)]), np.concatenate([none, *(one for _, one in found)])
    )
    path = f"{prefix}/edges-{place:05d}-{np.random.default_rng().bytes(4).hex()}.parquet"
    writer = TableWriter(store, path, Kind.EDGES, EDGES)
    writer.write_table(pa.table({"big": big, "small": small}, schema=EDGES))
    for file in writer.close():
        yield 0, pa.RecordBatch.from_pylist([file.model_dump()])


def steps(
    store: Store,
    prefix: str,
    parts: Any,
    count: int,
    settings: DedupFuzzy,
    signing: MinhashSign,
    buckets: int,
    snapshots: Sequence[str],
) -> list[tuple[int, exchange.Work]]:
    """The steps of the search, as an exchange between `count` parts and `buckets` buckets.

    parts.value: the parts with their signatures. snapshots: the names of all crawls.
    """
    simhash, least = signing.method == "simhash", settings.min_jaccard
    checked = least is not None
    meet: exchange.Work = partial(meet_keys, store, prefix)
    if simhash or checked:
        meet = partial(meet_pairs, signing.distance if simhash else None, settings.pairs_per_document, checked)
    apart = snapshots if settings.scope == "snapshot" else ()
    work: list[tuple[int, exchange.Work]] = [
        (count, partial(send_keys, store, parts, apart, simhash or checked, simhash, buckets)),
        (buckets, meet),
    ]
    if least is not None:
        work.append((count, partial(send_sets, store, parts, signing.ngram)))
        work.append((count, partial(check_pairs, store, prefix, parts, signing.ngram, least)))
    elif simhash:
        work.append((count, partial(link_pairs, store, prefix)))
    return work


def link(job: Job, parts: Sequence[Part], settings: DedupFuzzy, signing: MinhashSign) -> list[File]:
    """Find the near duplicates. Returns the files of edges between them."""
    context, shared = job.context, job.context.broadcast(list(parts))
    snapshots = sorted({task.segment.snapshot for task in job.task.of("minhash_sign") if task.segment})
    times = len(snapshots) if settings.scope == "snapshot" else 1  # a curated document's keys are sent
    rows = sum(signatures_of(part).rows * (times if part.source != CRAWL else 1) for part in parts)
    keys = rows * len_keys(job.store, parts)
    paired = signing.method == "simhash" or settings.min_jaccard is not None
    buckets = max(context.defaultParallelism, buckets_for(keys, paired))
    work = steps(job.store, job.prefix, shared, len(parts), settings, signing, buckets, snapshots)
    found = exchange.shuffle(context, work, job.store.full(job.prefix))
    return [File(**row) for batch in found for row in batch.to_pylist()]


def buckets_for(keys: int, paired: bool) -> int:
    """The number of buckets at which each holds about 250 MB.

    paired: whether documents are compared, which takes more memory per key.
    """
    return -(-keys // (PAIRED_KEYS if paired else BUCKET_KEYS))


def link_pairs(store: Store, prefix: str, number: int, batches: Iterator[pa.RecordBatch]) -> Iterator[Sent]:
    """Step 3 if SimHash distance alone decides: every pair is an edge."""
    yield from write_edges(store, prefix, number, [(column(batch, "big"), column(batch, "small")) for batch in batches])


def len_keys(store: Store, parts: Sequence[Part]) -> int:
    """Number of keys per document, from the schema of the first signatures file."""
    with open_table(store, signatures_of(parts[0])) as table:
        return keys_per_document(table)


def keys_per_document(signatures: pq.ParquetFile) -> int:
    return int(signatures.schema_arrow.field("keys").type.list_size)


def read_edges(store: Store, file: File, _: int = 0) -> Iterator[pa.RecordBatch]:
    with store.open_input(file.path) as source:
        yield from pq.ParquetFile(source).iter_batches(1 << 20)
