"""Any model, opened to be asked: a result of a store, a step of pretraining, or a folder of `transformers`.

Each brings its own tokenizer and chat template. A result's tokenizer is among what it was made from.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from contract.errors import InputError, NotReadyError
from contract.identity import Input
from contract.kinds import Kind
from contract.manifest import Manifest, need, read
from contract.stages import WHOLE
from contract.store import Store
from training.chat.template import TEMPLATE_FILE, Chat, chat_of
from training.chat.wording import Wording, of_chat, of_folder
from training.engine.checkpoint_files import Shards
from training.engine.scratch import Scratch
from training.models import llama as model
from training.models.vocabulary import load

RESULT = re.compile(r"(?P<store>.+)/(?P<prefix>[a-z_]+/[0-9a-f]{40}/[A-Za-z0-9][^/]*)(?:/|/manifest\.json)?")
"""Matches the URI of a result: its folder in a store, or the manifest in that folder."""
ENGINE = "model"
"""What pretraining calls the model in its checkpoints."""


@dataclass(frozen=True)
class Opened:
    """A model on its device, in evaluation mode, with what makes tokens of texts. made_by: where it comes from."""

    module: Any
    wording: Wording
    made_by: str


def open_step(store: Store, fingerprint: str, step: int) -> Manifest:
    """The checkpoint of a step of pretraining. Raises NotReadyError if it was not kept."""
    prefix = f"pretrain/{fingerprint}/step-{step:08d}"
    try:
        return read(store, prefix)
    except FileNotFoundError:
        raise NotReadyError(
            f"{store.full(prefix)}: there is no checkpoint of this step; pretrain.engine.keep_every says which are kept"
        ) from None


def open_result(scratch: Scratch, made: Manifest, dtype: model.Dtype, device: torch.device, rank: int = 0) -> Opened:
    """The model of a manifest of the scratch folder's store: of a finished stage, or of a step of pretraining.

    Raises InputError if it lists no model or one that cannot be loaded, or if its tokenizer is gone.
    """
    store, step = scratch.store, made.partition != WHOLE
    whole = need(store, Input(stage=made.stage, partition=WHOLE, fingerprint=made.fingerprint)) if step else made
    folder = _folder_of(scratch, whole)
    where = store.full(whole.path)
    try:
        model.check_stored(folder)
        module = model.whole(folder, dtype)[0]
    except model.LOADING as error:
        raise InputError(f"{where}: its model cannot be loaded ({error}); run {made.stage} again") from error
    if step:
        _put_weights(scratch, made, module)
    tokenizer = next((one for one in whole.inputs if one.stage == "tokenizer"), None)
    if tokenizer is None:
        raise InputError(f"{where}: was made without a tokenizer, so it cannot be asked")
    chat = _chat(scratch, need(store, tokenizer), folder, rank)
    return Opened(_ready(module, dtype, device), of_chat(chat), _address(made))


def open_folder(folder: Path, uri: str, key: str, dtype: model.Dtype, device: torch.device) -> Opened:
    """The model in a local folder of `transformers`, with its own tokenizer and chat template.

    uri and key: what messages call it. Raises InputError if it holds no causal model in safetensors, or no tokenizer.
    """
    module = load(folder, uri, dtype, key)
    return Opened(_ready(module, dtype, device), of_folder(folder), f"folder {uri.rstrip('/').rpartition('/')[2]}")


def _folder_of(scratch: Scratch, made: Manifest) -> Path:
    files = [scratch.download(file) for file in made.of(Kind.MODEL)]
    if not any(path.name == "config.json" for path in files):
        raise InputError(f"{scratch.store.full(made.path)}: lists no model; run {made.stage} again")
    return files[0].parent


def _put_weights(scratch: Scratch, made: Manifest, module: nn.Module) -> None:
    """Give the last model the weights that it had at the step of a checkpoint."""
    files = [file for file in made.of(Kind.CHECKPOINT) if Path(file.path).name.startswith("shard-")]
    try:
        shards = Shards(scratch.download(file) for file in files)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(shards.tensors(ENGINE, name)["weight"])
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{scratch.store.full(made.path)}: its model cannot be read ({error})") from error


def _chat(scratch: Scratch, tokenizer: Manifest, folder: Path, rank: int) -> Chat:
    template = folder / TEMPLATE_FILE
    text = template.read_text() if template.exists() else None
    return chat_of(scratch, tokenizer, text, scratch.fresh(f"tokenizer-{rank}"), "the template of sft")


def _ready(module: Any, dtype: model.Dtype, device: torch.device) -> Any:
    return model.cast(module, dtype).to(device).eval().requires_grad_(False)


def _address(made: Manifest) -> str:
    return f"{made.stage}/{made.fingerprint}" + ("" if made.partition == WHOLE else f"/{made.partition}")
