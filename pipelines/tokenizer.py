"""Makes the tokenizer: trained on the mixture, or brought and perhaps expanded. Reports its fertility by language."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import pyarrow.parquet as pq
from tokenizers import Tokenizer

from contract import results
from contract.chat import SPECIAL_TOKENS, dump_special_tokens
from contract.errors import InputError
from contract.fertility import Fertility, whole
from contract.kinds import Kind
from contract.manifest import File
from contract.metrics import Progress
from contract.output import write_file
from contract.recipe import StageSettings
from contract.settings.corpus import Tokenizer as TokenizerSettings
from contract.store import Store
from contract.tables import open_table, read_rows, reading
from pipelines.spark.documents import Output
from pipelines.spark.job import Job
from pipelines.vocabulary import brought, fertility, growth, pieces
from pipelines.vocabulary.training import train

BATCH_TEXTS = 256


class Sample:
    """Documents from the start of each source's shards, up to about `limit` bytes of UTF-8 over all sources.

    A source gives its share of the limit by the bytes of its texts. Its shards are shuffled, so their start is a fair
    sample. The sample may be read several times.
    """

    def __init__(self, store: Store, files: Sequence[File], limit: int, languages: Collection[str] = ()) -> None:
        self._store, self._limit, self._languages = store, limit, languages
        self._sources: dict[str, list[File]] = {}
        for file in files:
            self._sources.setdefault(file.source, []).append(file)
        self.bytes = self.documents = 0

    def __iter__(self) -> Iterator[str]:
        return (row["text"] for row in self.rows())

    def rows(self) -> Iterator[dict[str, Any]]:
        """The documents' texts and languages."""
        self.bytes = self.documents = 0
        sizes = {source: sum(text_bytes(self._store, file) for file in of) for source, of in self._sources.items()}
        for source, size in sizes.items():
            left = self._limit * size / max(sum(sizes.values()), 1)
            for row in self._documents(source):
                if left <= 0:
                    break
                read = len(row["text"].encode())
                left -= read
                self.bytes += read
                self.documents += 1
                yield row

    def _documents(self, source: str) -> Iterator[dict[str, Any]]:
        for file in self._sources[source]:
            for row in read_rows(self._store, file, ["text", "language"]):
                if not self._languages or row["language"] in self._languages:
                    yield row


def text_bytes(store: Store, file: File) -> int:
    """About the bytes of the texts in a file of documents, from its footer."""
    with open_table(store, file) as table, reading(store, file):
        return sum(_column_bytes(table.metadata.row_group(group)) for group in range(table.metadata.num_row_groups))


def _column_bytes(group: pq.RowGroupMetaData) -> int:
    columns = [group.column(index) for index in range(group.num_columns)]
    return sum(int(column.total_uncompressed_size) for column in columns if column.path_in_schema == "text")


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def bring(settings: TokenizerSettings) -> tuple[Tokenizer, Tokenizer, str]:
    """(The brought tokenizer, the same with the pieces of `expand.model`, the sha256 of the brought file)."""
    assert settings.start_from is not None
    data = brought.read_file("tokenizer.start_from", settings.start_from)
    base = brought.load("tokenizer.start_from", settings.start_from, data)
    digest, other = hashlib.sha256(data).hexdigest(), settings.expand.model
    if other is None:
        return base, Tokenizer.from_str(base.to_str()), digest
    if brought.is_json(data):
        raise InputError(
            f"tokenizer.expand.model: {settings.start_from} is a tokenizer.json; only a SentencePiece model can take "
            "the pieces of another; name one as start_from, or give expand.tokens"
        )
    donor = pieces.parse(brought.read_file("tokenizer.expand.model", other), f"tokenizer.expand.model: {other}")
    merged = pieces.merge(pieces.parse(data, settings.start_from), donor)
    return base, pieces.convert(merged), digest


def load_reference(uri: str) -> Tokenizer:
    return brought.load("tokenizer.reference", uri, brought.read_file("tokenizer.reference", uri))


def check(settings: StageSettings) -> None:
    """Raise InputError for a file that is no tokenizer, or one that cannot be expanded as the recipe says."""
    own: TokenizerSettings = settings.own
    if own.start_from:
        _, tokenizer, _ = bring(own)
        if own.expand.tokens:
            growth.check(tokenizer)
        brought.add_special(tokenizer, own.special_tokens)
    if own.reference:
        load_reference(own.reference)


def run(job: Job) -> None:
    settings: TokenizerSettings = job.settings
    progress = Progress(job.task.stage, job.task.partition, "tokenizers", 1)
    documents = job.inputs("mix", Kind.DOCUMENTS)
    sample = Sample(job.store, documents, settings.sample_bytes, settings.expand.languages)
    files, made = [], {}
    if settings.start_from:
        base, tokenizer, digest = bring(settings)
        if settings.expand.tokens:
            tokenizer = growth.expand(tokenizer, sample, settings.expand.tokens, settings.min_frequency)
        made = {
            "base_size": base.get_vocab_size(),
            "expanded_size": tokenizer.get_vocab_size(),
            "base_digest": digest,
        }
        files.append(_write(job, "base.json", Kind.BASE_TOKENIZER, base.to_str(pretty=False).encode()))
        special = brought.add_special(tokenizer, settings.special_tokens)
    else:
        special = {**SPECIAL_TOKENS, **settings.special_tokens}
        tokenizer = train(sample, settings, [*special.values()])
    files.append(_write(job, "tokenizer.json", Kind.TOKENIZER, tokenizer.to_str(pretty=False).encode()))
    files.append(_write(job, "special_tokens.json", Kind.SPECIAL_TOKENS, dump_special_tokens(special)))
    measured = measure(job, settings, tokenizer)
    files.append(_write(job, "fertility.json", Kind.FERTILITY, measured.model_dump_json(indent=1).encode()))
    progress.advance()
    progress.finish()
    job.commit(Output(files), _result(tokenizer, sample, measured, made))


def measure(job: Job, settings: TokenizerSettings, tokenizer: Tokenizer) -> Fertility:
    """Fertility on held-out documents, beside that of the recipe's reference."""
    heldout = Sample(job.store, job.inputs("mix", Kind.HELDOUT), settings.sample_bytes)
    reference = None
    if settings.reference:
        reference = fertility.count(load_reference(settings.reference), batched(heldout.rows(), BATCH_TEXTS))
    return Fertility(own=fertility.count(tokenizer, batched(heldout.rows(), BATCH_TEXTS)), reference=reference)


def _result(tokenizer: Tokenizer, sample: Sample, measured: Fertility, made: dict[str, Any]) -> results.Tokenizer:
    own, reference = whole(measured.own), whole(measured.reference or {})
    return results.Tokenizer(
        vocab_size=tokenizer.get_vocab_size(),
        sample_bytes=sample.bytes,
        sample_documents=sample.documents,
        heldout_bytes_per_token=own.bytes_per_token if own.tokens else None,
        heldout_tokens_per_word=own.tokens_per_word if own.words else None,
        heldout_unknown_rate=own.unknown_rate if own.tokens else None,
        reference_bytes_per_token=reference.bytes_per_token if reference.tokens else None,
        **made,
    )


def _write(job: Job, name: str, kind: Kind, data: bytes) -> File:
    return write_file(job.store, f"{job.prefix}/{name}", kind, data)
