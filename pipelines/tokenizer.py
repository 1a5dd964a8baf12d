"""Trains a byte-level BPE tokenizer on the mixture. It can encode every text, and decoding restores the bytes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from contract import results
from contract.chat import SPECIAL_TOKENS
from contract.kinds import Kind
from contract.manifest import File
from contract.metrics import Progress
from contract.output import write_file
from contract.settings.corpus import Tokenizer as TokenizerSettings
from contract.store import Store
from contract.tables import read_rows
from pipelines.spark.documents import Output
from pipelines.spark.job import Job

BATCH_TEXTS = 256


class Sample:
    """Texts from the start of the shards, up to about `limit` bytes of UTF-8.

    The mixture is shuffled, so its start is a fair sample.
    """

    def __init__(self, store: Store, files: Sequence[File], limit: int) -> None:
        self._store, self._files, self._limit = store, files, limit
        self.bytes = self.documents = 0

    def __iter__(self) -> Iterator[str]:
        for file in self._files:
            for row in read_rows(self._store, file, ["text"]):
                if self.bytes >= self._limit:
                    return
                self.bytes += len(row["text"].encode())
                self.documents += 1
                yield row["text"]


def train(texts: Iterable[str], vocab_size: int, min_frequency: int) -> Tokenizer:
    """Train a byte-level BPE (GPT-2's pre-tokenization). Special tokens get the first ids, the 256 bytes the next."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS.values()],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def bytes_per_token(tokenizer: Tokenizer, texts: Iterable[str]) -> float | None:
    """UTF-8 bytes per token, or None without texts. Special tokens that occur in the texts count as plain text."""
    tokenizer.encode_special_tokens = True
    total = tokens = 0
    for batch in batched(texts, BATCH_TEXTS):
        total += sum(len(text.encode()) for text in batch)
        tokens += sum(len(one.ids) for one in tokenizer.encode_batch_fast(batch, add_special_tokens=False))
    return total / tokens if tokens else None


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def run(job: Job) -> None:
    settings: TokenizerSettings = job.settings
    progress = Progress(job.task.stage, job.task.partition, "tokenizers", 1)
    sample = Sample(job.store, job.inputs("mix", Kind.DOCUMENTS), settings.sample_bytes)
    tokenizer = train(sample, settings.vocab_size, settings.min_frequency)
    data = tokenizer.to_str(pretty=False).encode()
    file = write_file(job.store, f"{job.prefix}/tokenizer.json", Kind.TOKENIZER, data)
    heldout = Sample(job.store, job.inputs("mix", Kind.HELDOUT), settings.sample_bytes)
    progress.advance()
    progress.finish()
    job.commit(
        Output([file]),
        results.Tokenizer(
            vocab_size=tokenizer.get_vocab_size(),
            sample_bytes=sample.bytes,
            sample_documents=sample.documents,
            heldout_bytes_per_token=bytes_per_token(tokenizer, heldout),
        ),
    )
