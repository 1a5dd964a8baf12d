"""Encodes the mixture into token shards: each document once, with its end-of-text, and how rows are cut from them."""

from bisect import bisect_left
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow.compute as pc

from contract import results
from contract.chat import load_special_tokens
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import File
from contract.output import Writer
from contract.settings.corpus import Pack
from contract.shards import RowsWriter, ShardFiles, TokenWriter, rows_name, token_type
from contract.store import Store
from contract.tables import BATCH_ROWS, read_batches
from pipelines.spark.documents import Output
from pipelines.spark.job import Job
from pipelines.text import packing
from pipelines.vocabulary.bytebpe import Ids, Sizes
from pipelines.vocabulary.encoding import Encoder, encoder_of, load_tokenizer

KINDS = {Kind.DOCUMENTS: Kind.TOKENS, Kind.HELDOUT: Kind.HELDOUT_TOKENS}
Batch = tuple[list[str], Ids, Sizes, int]


def encode_documents(store: Store, file: File, encoder: Encoder) -> Iterator[Batch]:
    """Yield batches of documents: their ids, their tokens joined, the tokens of each, and the bytes of all."""
    for batch in read_batches(store, file, BATCH_ROWS, ["id", "text"]):
        tokens, sizes = encoder.encode(batch["text"])
        size = pc.sum(pc.binary_length(batch["text"])).as_py()
        yield batch["id"].to_pylist(), tokens, sizes, size


class Shard:
    """A shard that is being written: tokens go to the store as they come, so memory does not grow with it."""

    def __init__(self, store: Store, path: str, file: File, vocab_size: int) -> None:
        """`path` is that of its files without their endings; `file` holds the documents."""
        self.filled = 0  # places in rows of `seq_len` that hold a token
        self._store, self._path = store, path
        self._kind, self._source = KINDS[file.kind], file.source
        self._tokens, self._ids = Writer(store, f"{path}.bin"), Writer(store, f"{path}.ids")
        self._writer = TokenWriter(self._tokens, self._ids, vocab_size)

    @property
    def tokens(self) -> int:
        return self._writer.tokens

    def add(self, ids: list[str], tokens: Ids, sizes: Sizes) -> None:
        """Add documents, given as `encode_documents` yields them."""
        self._writer.add(tokens, sizes, bytes.fromhex("".join(ids)))

    def close(self, settings: Pack) -> ShardFiles:
        """Cut the rows, and write what describes the tokens."""
        rows = {length: self._cut(length, settings) for length in (settings.seq_len, *settings.more_seq_lens)}
        index = Writer(self._store, f"{self._path}.idx")
        documents = self._writer.documents
        self._writer.finish(index)
        return ShardFiles(
            self._file(self._tokens, self._kind, documents),
            self._file(index, Kind.TOKEN_INDEX, documents),
            self._file(self._ids, Kind.TOKEN_IDS, documents),
            rows,
        )

    def _cut(self, seq_len: int, settings: Pack) -> File:
        stream = settings.packing == "stream"
        rows = RowsWriter(seq_len)
        for cut in packing.stream(self.tokens, seq_len) if stream else packing.best_fit(self._writer.sizes(), seq_len):
            rows.add(*cut)
            self.filled += int(cut[2].sum()) * (seq_len == settings.seq_len)
        count = rows.rows
        writer = Writer(self._store, rows_name(self._path, seq_len))
        rows.finish(writer, self.tokens)
        return self._file(writer, Kind.ROWS, count)

    def _file(self, writer: Writer, kind: Kind, rows: int) -> File:
        writer.close()
        return writer.file(kind, rows).model_copy(update={"source": self._source})


def pack(store: Store, prefix: str, settings: Pack, vocabulary: bytes, end: int, file: File, name: str) -> Output:
    """Write one file of documents as shards of at least `shard_tokens` tokens; the last shard may have fewer.

    `end` is the id of end-of-text.
    """
    encoder = encoder_of(vocabulary, end)
    output = Output()
    shard: Shard | None = None

    def close(shard: Shard) -> None:
        output.shards.append(shard.close(settings))
        output.metrics["filled"] += shard.filled

    for ids, tokens, sizes, size in encode_documents(store, file, encoder):
        starts = [0, *np.cumsum(sizes).tolist()]
        output.counts.bytes_read += size
        at = 0
        while at < len(ids):
            if shard is None:
                path = f"{prefix}/{KINDS[file.kind]}-{name}-{len(output.shards):05d}"
                shard = Shard(store, path, file, encoder.vocab_size)
            full = starts[at] + settings.shard_tokens - shard.tokens
            stop = min(bisect_left(starts, full, at + 1), len(ids))
            shard.add(ids[at:stop], tokens[starts[at] : starts[stop]], sizes[at:stop])
            at = stop
            if shard.tokens >= settings.shard_tokens:
                close(shard)
                shard = None
    if shard:
        close(shard)
    return output


def _totals(shards: list[ShardFiles], kind: Kind, width: int, seq_len: int) -> tuple[int, int, int]:
    """(tokens, rows of `seq_len`, documents) in the shards of one kind."""
    own = [shard for shard in shards if shard.tokens.kind == kind]
    tokens = sum(shard.tokens.bytes for shard in own) // width
    return tokens, sum(shard.rows[seq_len].rows for shard in own), sum(shard.tokens.rows for shard in own)


def run(job: Job) -> None:
    settings: Pack = job.settings
    (vocabulary,) = job.inputs("tokenizer", Kind.TOKENIZER)
    (mixture,) = job.manifests("mix")
    files = mixture.of(Kind.DOCUMENTS, Kind.HELDOUT)
    if not mixture.of(Kind.DOCUMENTS):
        raise InputError(f"pack: {job.store.full(mixture.path)} lists no training documents; run mix again")
    with vocabulary.open(job.store) as source:
        data = source.read()
    (named,) = job.inputs("tokenizer", Kind.SPECIAL_TOKENS)
    special = load_special_tokens(job.store.read_bytes(named.path), job.store.full(named.path))
    end = load_tokenizer(data).token_to_id(special["end_of_text"])
    assert end is not None, "the stage tokenizer adds every special token"
    output = job.map_files(files, partial(pack, job.store, job.prefix, settings, data, end))
    size = output.counts.bytes_read
    output.counts.bytes_read = 0  # pack drops no documents, so it is not a level of the funnel
    width = token_type(load_tokenizer(data).get_vocab_size()).itemsize
    tokens, sequences, documents = _totals(output.shards, Kind.TOKENS, width, settings.seq_len)
    heldout = _totals(output.shards, Kind.HELDOUT_TOKENS, width, settings.seq_len)
    heldout_tokens, heldout_sequences, heldout_documents = heldout
    job.commit(
        output,
        results.Pack(
            tokens=tokens,
            sequences=sequences,
            documents=documents,
            heldout_tokens=heldout_tokens,
            heldout_sequences=heldout_sequences,
            heldout_documents=heldout_documents,
            bytes=size,
            bytes_per_token=size / (tokens + heldout_tokens),
            token_bytes=width,
            padding=1 - output.metrics["filled"] / ((sequences + heldout_sequences) * (settings.seq_len + 1)),
        ),
    )
