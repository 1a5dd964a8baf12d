"""Training goes on from a model that exists: its embeddings grow with its tokenizer, and may be trained first alone."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import CONFIG_MAPPING

from contract.errors import InputError
from contract.kinds import Kind
from contract.results import Tokenizer as TokenizerResult
from contract.settings.training import Pretrain, Sft
from contract.vocabulary import vocabulary
from training.chat.template import Chat
from training.engine.engine import Engine
from training.engine.job import Job
from training.models import llama as model
from training.models.causal import class_of, outline, read_config, stored_names

READ = ("config.json", "tokenizer.json", "tokenizer.model", "*.safetensors", "*.safetensors.index.json")
"""What is read of a model's folder. Weights in other formats would have to be unpickled, which can run code."""


def started(job: Job, chat: Chat) -> tuple[Any, int]:
    """(The model of `pretrain.start_from` with a row for every token of the run, its number of old rows).

    It is in float32 on the CPU, prepared to compute in the recipe's dtype; under ZeRO 3 in shards. Raises InputError
    if the folder holds no causal model in safetensors, or if its tokenizer is not the one from which the run's
    tokenizer was made.
    """
    settings: Pretrain = job.settings
    assert settings.start_from is not None
    folder = job.scratch.fetch(settings.start_from, READ)
    base = base_tokenizer(job, chat)
    check_tokenizer(folder, settings.start_from, base, TokenizerResult.of(job.manifest("tokenizer")).base_digest)
    old, spelled = base.get_vocab_size(), spellings(base, Tokenizer.from_file(str(chat.path)))
    module = grown_in_shards(folder, settings, spelled, old, job.ranks.world)
    if module is None:
        module = load(folder, settings.start_from, settings.engine.dtype)
        rows = per_token(module)[0].shape[0]
        if rows < old:
            raise InputError(f"pretrain.start_from: {settings.start_from} has {rows:,} embeddings for {old:,} tokens")
        grow(module, spelled, old)
    for config in (module.config, module.generation_config):
        config.bos_token_id = config.eos_token_id = chat.end_of_text
        config.pad_token_id = chat.pad
    module.config.use_cache = False
    if settings.new_rows_first and old == chat.vocab_size:
        raise InputError(
            "pretrain.new_rows_first: the tokenizer has no new tokens, so there are no new rows; leave it out"
        )
    return module, old


def brought(job: Job, chat: Chat, folder: Path, settings: Sft, make: Callable[[Path, Job], Any] | None) -> Any:
    """The model of `sft.start_from`, whose tokenizer must be the run's. make: loads it in another way than in float32.

    Raises InputError if the folder holds no causal model in safetensors, or one with another tokenizer.
    """
    key, uri = "sft.start_from", settings.start_from or ""
    base = base_tokenizer(job, chat)
    check_tokenizer(folder, uri, base, TokenizerResult.of(job.manifest("tokenizer")).base_digest, key)
    if make is not None:
        check_folder(folder, f"{key}: {uri}")
        return make(folder, job)
    if settings.engine.stage_in_force == 3:
        check_folder(folder, f"{key}: {uri}")
        model.check_stored(folder)
        return model.made(
            read_config(folder), model.stored_weights(folder), settings.engine.dtype, settings.engine, job.ranks.world
        )
    module = load(folder, uri, settings.engine.dtype, key)
    if (rows := per_token(module)[0].shape[0]) < chat.vocab_size:
        raise InputError(
            f"{key}: {uri} has {rows:,} embeddings, and the run's tokenizer {chat.vocab_size:,} "
            "tokens; let pretrain.start_from grow it, or bring a tokenizer with all special tokens"
        )
    module.config.use_cache = False
    return module


def brought_and_grown(job: Job, chat: Chat, uri: str, dtype: model.Dtype, key: str) -> Any:
    """The model in a folder that a recipe names at `key`, with a row for every token of the run; in float32 on the CPU.

    Raises InputError as `started` does.
    """
    folder = job.scratch.fetch(uri, READ)
    base = base_tokenizer(job, chat)
    check_tokenizer(folder, uri, base, TokenizerResult.of(job.manifest("tokenizer")).base_digest, key)
    module = load(folder, uri, dtype, key)
    old, rows = base.get_vocab_size(), per_token(module)[0].shape[0]
    if rows < old:
        raise InputError(f"{key}: {uri} has {rows:,} embeddings for {old:,} tokens")
    grow(module, spellings(base, Tokenizer.from_file(str(chat.path))), old)
    return module


def load(folder: Path, uri: str, dtype: model.Dtype, key: str = "pretrain.start_from") -> Any:
    """The model in a local folder.

    Raises InputError, which names `uri` and the setting's key, if it is not a whole one in safetensors.
    """
    where = f"{key}: {uri}"
    check_folder(folder, where)
    try:
        module, found = model.whole(folder, dtype)
    except model.LOADING as error:
        raise InputError(f"{where} cannot be loaded ({error})") from error
    missing = {*found["missing_keys"]} - module.all_tied_weights_keys.keys()  # a tied matrix is stored once
    lacking = sorted(missing | {name for name, *_ in found["mismatched_keys"]})
    if lacking:  # the library gives such tensors random values
        raise InputError(
            f"{where} lacks {len(lacking):,} of its model's tensors, or has them in another shape, the first is "
            f"{lacking[0]}; bring the whole model"
        )
    return module


def grown_in_shards(folder: Path, settings: Pretrain, spelled: Sequence[Sequence[int]], old: int, world: int) -> Any:
    """The grown model under ZeRO 3, whose weights are read one at a time, so that no process ever holds them all.

    None under another stage, and if the folder does not hold each parameter under its own name and in its own shape:
    some formats of experts have to be put together from others, and what is missing `load` says.
    """
    if settings.engine.stage_in_force != 3:
        return None
    check_folder(folder, f"pretrain.start_from: {settings.start_from}")
    config = read_config(folder)
    empty = outline(config)
    shapes = {name: tuple(one.shape) for name, one in empty.named_parameters()}
    stored = model.stored_shapes(folder)
    names = stored_names(empty, stored)
    if any(stored.get(names.get(name, "")) != shape for name, shape in shapes.items()):
        return None
    rows = {id(one) for one in per_token(empty)}
    growing = {name for name, one in empty.named_parameters() if id(one) in rows}
    if any(shapes[name][0] < old for name in growing):
        return None
    weights = model.stored_weights(folder)

    def grown(name: str) -> Tensor:
        found = weights(names[name])
        return with_new_rows(found[:old], spelled) if name in growing else found

    config.vocab_size = old + len(spelled)
    if {name: tuple(one.shape) for name, one in outline(config).named_parameters() if name not in growing} != {
        name: shape for name, shape in shapes.items() if name not in growing
    }:
        return None  # a bias of the unembedding, which only the library knows how to grow
    return model.made(config, grown, settings.engine.dtype, settings.engine, world)


def check_folder(folder: Path, where: str) -> None:
    """Raise InputError, which begins with `where`, unless a folder has a causal model that can be trained here."""
    try:
        described = json.loads((folder / "config.json").read_text())
        if not isinstance(described, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{where} has no readable config.json ({error}); name a model's folder") from None
    if not isinstance(kind := described.get("model_type"), str) or kind not in CONFIG_MAPPING:
        raise InputError(
            f"{where} is a model of type {str(kind)[:80]!r}, which transformers does not know; "
            "code that lies beside a model is not run"
        )
    try:
        class_of(read_config(folder))
    except ValueError as error:
        raise InputError(f"{where} is {error}") from None
    except model.LOADING as error:
        raise InputError(f"{where} has no readable config.json ({error!r}); name a model's folder") from None
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{where} has no *.safetensors; other formats are not read, because they can run code")


def base_tokenizer(job: Job, chat: Chat) -> Tokenizer:
    """The tokenizer that was brought, as it was; the run's own if none was brought."""
    files = job.manifest("tokenizer").of(Kind.BASE_TOKENIZER)
    return Tokenizer.from_file(str(job.scratch.download(files[0]) if files else chat.path))


def check_tokenizer(
    folder: Path, uri: str, base: Tokenizer, digest: str | None, key: str = "pretrain.start_from"
) -> None:
    """Raise InputError unless the folder's tokenizer has the base's ids.

    `digest` is the sha256 of the file that was brought; a SentencePiece model must be that very file.
    """
    model, described = folder / "tokenizer.model", folder / "tokenizer.json"
    if model.exists() and hashlib.sha256(model.read_bytes()).hexdigest() == digest:
        return
    needed = f"{key}: {uri}"
    if not described.exists():
        what = "another tokenizer.model than tokenizer.start_from" if model.exists() else "no tokenizer"
        raise InputError(f"{needed} has {what}; bring the tokenizer of this model as tokenizer.start_from")
    if found := difference(described, base.get_vocab(with_added_tokens=True), needed):
        raise InputError(
            f"{needed} was trained with another tokenizer ({found}); "
            "bring the tokenizer of this model as tokenizer.start_from"
        )


def difference(described: Path, ours: Mapping[str, int], where: str) -> str:
    """The first token that has another id in a tokenizer.json than in a vocabulary, with both; empty if none has.

    Raises InputError, which begins with `where`, if the file is unreadable.
    """
    try:
        theirs = vocabulary(json.loads(described.read_text()))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{where} has an unreadable tokenizer.json ({error})") from None
    if theirs == ours:
        return ""
    token = min({*theirs.items()} ^ {*ours.items()}, key=lambda one: one[1])[0]
    return f"{token!r} has the id {theirs.get(token)} there and {ours.get(token)} here"


def spellings(base: Tokenizer, tokenizer: Tokenizer) -> list[list[int]]:
    """For each token that the base lacks, in the order of their ids: the ids of the base's tokens that spell it."""
    old, size = base.get_vocab_size(), tokenizer.get_vocab_size()
    pieces = [tokenizer.id_to_token(index) or "" for index in range(old, size)]
    return [[token.id for token in base.model.tokenize(piece)] for piece in pieces]


def grow(module: nn.Module, spelled: Sequence[Sequence[int]], old: int) -> None:
    """Give a model a row for each new token, after its first `old` rows, in both matrices that have one per token.

    A new row is the mean of the rows of the old tokens that spell it; of all old rows if none do. Rows beyond `old`
    that the model already had belong to no token and are overwritten.
    """
    module.resize_token_embeddings(old + len(spelled), mean_resizing=False)  # type: ignore[operator]
    with torch.no_grad():
        for weight in per_token(module):
            weight.copy_(with_new_rows(weight[:old], spelled))


def with_new_rows(rows: Tensor, spelled: Sequence[Sequence[int]]) -> Tensor:
    """The rows of old tokens and after them those of new ones, (old + new, d_model)."""
    new = [(rows[list(ids)] if ids else rows).mean(0) for ids in spelled]
    return torch.cat([rows, torch.stack(new)]) if new else rows.clone()


def per_token(module: nn.Module) -> list[nn.Parameter]:
    """The matrices with one row per token: embedding and unembedding, or the one matrix that is both."""
    both = (module.get_input_embeddings().weight, module.get_output_embeddings().weight)  # type: ignore[operator]
    return list({id(one): one for one in both}.values())


class OnlyNewRows:
    """Trains only the rows of new tokens during the first steps; everything else stays as it is, bit for bit.

    All other gradients are zero and nothing decays. AdamW then moves a weight by exactly nothing.
    """

    def __init__(self, engine: Engine, old: int, steps: int) -> None:
        """`old` rows are not new; `steps` is the number of updates to which this applies."""
        self._engine, self._old, self._steps = engine, old, steps
        self._handles: list[RemovableHandle] = []

    def before(self, step: int) -> None:
        """Call it before update `step`, counted from 0. What it does depends on the step alone, also after a resume."""
        holds = step < self._steps
        self._engine.decays = not holds
        if step == self._steps:
            self._engine.guard.forget()  # the gradients of all weights have another norm than those of a few rows
        if holds and not self._handles:
            rows = {id(one) for one in per_token(self._engine.module)}
            for parameter in self._engine.module.parameters():
                self._handles.append(
                    parameter.register_hook(self._only_new if id(parameter) in rows else torch.zeros_like)
                )
        elif not holds:
            while self._handles:
                self._handles.pop().remove()

    def _only_new(self, gradient: Tensor) -> Tensor:
        kept = gradient.clone()
        kept[: self._old] = 0
        return kept
