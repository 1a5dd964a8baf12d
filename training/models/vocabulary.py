"""Training goes on from a model that exists: its embeddings grow with its tokenizer, and may be trained first alone."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import LlamaForCausalLM

from contract.errors import InputError
from contract.kinds import Kind
from contract.results import Tokenizer as TokenizerResult
from contract.settings.training import Pretrain
from contract.vocabulary import vocabulary
from training.chat.template import Chat
from training.engine.engine import Engine
from training.engine.job import Job
from training.models.llama import attention

READ = ("config.json", "tokenizer.json", "tokenizer.model", "*.safetensors", "*.safetensors.index.json")
"""What is read of a model's folder. Weights in other formats would have to be unpickled, which can run code."""


def started(job: Job, chat: Chat) -> tuple[LlamaForCausalLM, int]:
    """(The model of `pretrain.start_from` with a row for every token of the run, its number of old rows).

    It is in float32 on the CPU, prepared to compute in the recipe's dtype. Raises InputError if the folder holds no
    LLaMA in safetensors, or if its tokenizer is not the one from which the run's tokenizer was made.
    """
    settings: Pretrain = job.settings
    assert settings.start_from is not None
    folder = job.scratch.fetch(settings.start_from, READ)
    base = base_tokenizer(job, chat)
    check_tokenizer(folder, settings.start_from, base, TokenizerResult.of(job.manifest("tokenizer")).base_digest)
    module = load(folder, settings.start_from, settings.engine.dtype)
    old, rows = base.get_vocab_size(), per_token(module)[0].shape[0]
    if rows < old:
        raise InputError(f"pretrain.start_from: {settings.start_from} has {rows:,} embeddings for {old:,} tokens")
    grow(module, spellings(base, Tokenizer.from_file(str(chat.path))), old)
    for config in (module.config, module.generation_config):
        config.bos_token_id = config.eos_token_id = chat.end_of_text
        config.pad_token_id = chat.pad
    module.config.use_cache = False
    if settings.new_rows_first and old == chat.vocab_size:
        raise InputError(
            "pretrain.new_rows_first: the tokenizer has no new tokens, so there are no new rows; leave it out"
        )
    return module, old


def load(folder: Path, uri: str, dtype: Any, key: str = "pretrain.start_from") -> LlamaForCausalLM:
    """A LLaMA in a local folder.

    Raises InputError, which names `uri` and the setting's key, if it is not a whole one in safetensors.
    """
    where = f"{key}: {uri}"
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{where} has no readable config.json ({error}); name a model's folder") from None
    if kind != "llama":
        raise InputError(f"{where} is a model of type {str(kind)[:80]!r}; only llama can be continued")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{where} has no *.safetensors; other formats are not read, because they can run code")
    from_pretrained: Any = LlamaForCausalLM.from_pretrained  # its type leaves out what it says of missing tensors
    try:
        module, found = from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=attention(dtype),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{where} cannot be loaded ({error})") from error
    missing = {*found["missing_keys"]} - module.all_tied_weights_keys.keys()  # a tied matrix is stored once
    lacking = sorted(missing | {name for name, *_ in found["mismatched_keys"]})
    if lacking:  # the library gives such tensors random values
        raise InputError(
            f"{where} lacks {len(lacking):,} of its model's tensors, or has them in another shape, the first is "
            f"{lacking[0]}; bring the whole model"
        )
    whole: LlamaForCausalLM = module
    return whole


def base_tokenizer(job: Job, chat: Chat) -> Tokenizer:
    """The tokenizer that was brought, as it was; the run's own if none was brought."""
    files = job.manifest("tokenizer").of(Kind.BASE_TOKENIZER)
    return Tokenizer.from_file(str(job.scratch.download(files[0]) if files else chat.path))


def check_tokenizer(folder: Path, uri: str, base: Tokenizer, digest: str | None) -> None:
    """Raise InputError unless the folder's tokenizer has the base's ids.

    `digest` is the sha256 of the file that was brought; a SentencePiece model must be that very file.
    """
    model, described = folder / "tokenizer.model", folder / "tokenizer.json"
    if model.exists() and hashlib.sha256(model.read_bytes()).hexdigest() == digest:
        return
    needed = f"pretrain.start_from: {uri}"
    if not described.exists():
        what = "another tokenizer.model than tokenizer.start_from" if model.exists() else "no tokenizer"
        raise InputError(f"{needed} has {what}; bring the tokenizer of this model as tokenizer.start_from")
    try:
        theirs = vocabulary(json.loads(described.read_text()))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{needed} has an unreadable tokenizer.json ({error})") from None
    ours = base.get_vocab(with_added_tokens=True)
    if theirs != ours:
        token = next(iter({*theirs.items()} ^ {*ours.items()}))[0]
        raise InputError(
            f"{needed} was trained with another tokenizer ({token!r} has the id {theirs.get(token)} there and "
            f"{ours.get(token)} here); bring the tokenizer of this model as tokenizer.start_from"
        )


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
            rows = weight[:old]
            for index, ids in enumerate(spelled):
                weight[old + index] = (rows[list(ids)] if ids else rows).mean(0)


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
