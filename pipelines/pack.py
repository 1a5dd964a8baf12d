"""Encodes the mixture into token shards: the documents, each with end-of-text, cut into sequences of equal length."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from tokenizers import Tokenizer

from contract import results
from contract.chat import load_special_tokens
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import File
from contract.output import write_file
from contract.settings.corpus import Pack
from contract.shards import HEADER, encode, token_width
from contract.store import Store
from contract.tables import read_rows
from pipelines.spark.documents import Output
from pipelines.spark.job import Job
from pipelines.tokenizer import BATCH_TEXTS, batched

KINDS = {Kind.DOCUMENTS: Kind.TOKENS, Kind.HELDOUT: Kind.HELDOUT_TOKENS}


def load_tokenizer(data: bytes) -> Tokenizer:
    """Load the tokenizer, set to encode special tokens that occur in documents, such as `<|user|>`, as plain text."""
    tokenizer = Tokenizer.from_buffer(data)
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode_documents(store: Store, file: File, tokenizer: Tokenizer, end: int) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield for each document of a file: its id, its token ids followed by `end`, and its bytes of UTF-8."""
    for rows in batched(read_rows(store, file, ["id", "text"]), BATCH_TEXTS):
        for row, encoding in zip(
            rows, tokenizer.encode_batch_fast([row["text"] for row in rows], add_special_tokens=False), strict=True
        ):
            yield row["id"], np.array([*encoding.ids, end], np.uint32), len(row["text"].encode())


def pack(store: Store, prefix: str, settings: Pack, vocabulary: bytes, end: int, file: File, name: str) -> Output:
    """Write one file of documents as shards of at least `shard_tokens` tokens; the last shard may have fewer.

    `end` is the id of end-of-text.
    """
    tokenizer = load_tokenizer(vocabulary)
    size = tokenizer.get_vocab_size()
    output = Output()
    documents: list[np.ndarray] = []
    ids: list[str] = []
    used = 0

    def flush() -> None:
        nonlocal used
        path = f"{prefix}/{KINDS[file.kind]}-{name}-{len(output.files):05d}.bin"
        data = encode(documents, ids, settings.seq_len, size, end)
        rows = -(-used // settings.seq_len)
        output.files.append(write_file(store, path, KINDS[file.kind], data, rows))
        documents.clear()
        ids.clear()
        used = 0

    for key, tokens, size_bytes in encode_documents(store, file, tokenizer, end):
        documents.append(tokens)
        ids.append(key)
        used += len(tokens)
        output.counts.bytes_read += size_bytes
        if used >= settings.shard_tokens:
            flush()
    if documents:
        flush()
    return output


def sizes(store: Store, files: list[File], kind: Kind) -> tuple[int, int, int]:
    """(tokens, sequences, documents) in the shards of one kind, read from their headers."""
    headers = []
    for file in files:
        if file.kind == kind:
            with file.open(store) as source:
                headers.append(HEADER.unpack(source.read(HEADER.size)))
    _, _, _, _, sequences, documents, used = zip(*headers, strict=True) if headers else ((),) * 7
    return sum(used), sum(sequences), sum(documents)


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
    tokens, sequences, documents = sizes(job.store, output.files, Kind.TOKENS)
    heldout_tokens, heldout_sequences, heldout_documents = sizes(job.store, output.files, Kind.HELDOUT_TOKENS)
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
            token_bytes=token_width(load_tokenizer(data).get_vocab_size()),
        ),
    )
