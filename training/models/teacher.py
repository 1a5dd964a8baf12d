"""The teacher from whose logits a model learns: read once, never changed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.digest import file_digest
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import Manifest, read
from contract.mixture import lengths
from contract.settings.training import Pretrain
from contract.store import Store
from contract.vocabulary import vocabulary
from training.chat.template import Chat
from training.engine.job import Job
from training.engine.scratch import Scratch
from training.models.llama import cast
from training.models.sight import check_sight
from training.models.vocabulary import READ, difference, load

KEY = "pretrain.distill.teacher"
MANIFEST = "/manifest.json"


@dataclass(frozen=True)
class Teacher:
    """A frozen model with the student's vocabulary. weight and temperature are those of `pretrain.distill`."""

    module: Any
    weight: float
    temperature: float


def open_teacher(job: Job, chat: Chat) -> Teacher | None:
    """The recipe's teacher on this process's device, in the recipe's dtype; None if it names none.

    Raises InputError if it is no whole causal model in safetensors, if it has another tokenizer than the run, if it was
    made for shorter sequences, or if it sees what the student must not learn from: later tokens, or other documents.
    """
    settings: Pretrain = job.settings
    uri, dtype = settings.distill.teacher, settings.engine.dtype
    if uri is None:
        return None
    folder = fetch(job.scratch, uri)
    check_vocabulary(folder, uri, chat)
    module = load(folder, uri, dtype, KEY)
    if module.config.vocab_size < chat.vocab_size:
        raise InputError(
            f"{KEY}: {uri} has {module.config.vocab_size:,} embeddings for {chat.vocab_size:,} tokens; bring another"
        )
    longest = max(length for length, _ in lengths(settings, job.setting("pack.seq_len")))
    made_for = getattr(module.config, "max_position_embeddings", None)  # those with ALiBi name none
    if made_for is not None and made_for < longest:
        raise InputError(
            f"{KEY}: {uri} was made for {made_for:,} tokens, and rows have {longest:,}; "
            "bring a teacher for longer sequences, or pack shorter rows"
        )
    frozen: Any = cast(module, dtype)
    frozen = frozen.to(job.ranks.device).eval().requires_grad_(False)
    check_sight(frozen, settings.boundaries, job.ranks.device, KEY)
    return Teacher(frozen, settings.distill.weight, settings.distill.temperature)


def fetch(scratch: Scratch, uri: str) -> Path:
    """A local folder with the teacher's files.

    Raises InputError if a result has no model, or other bytes than were committed; DamagedError if a file is gone.
    """
    if not uri.endswith(MANIFEST):
        return scratch.fetch(uri, READ)
    manifest, store = _read(uri)
    listed = {Path(file.path).name: file for file in manifest.of(Kind.MODEL)}
    if "config.json" not in listed:
        raise InputError(f"{KEY}: {uri} lists no model; name the manifest.json of pretrain, sft or ppo")
    found = {name: scratch.download(file, store) for name, file in listed.items()}
    for name, path in found.items():
        if file_digest(path) != listed[name].sha256:
            raise InputError(f"{KEY}: {name} of {uri} is not the file that was committed; bring it back")
    return found["config.json"].parent


def _read(uri: str) -> tuple[Manifest, Store]:
    """The manifest at a URI `<store>/<stage>/<fingerprint>/<partition>/manifest.json`, and the store."""
    root, *prefix = uri.removesuffix(MANIFEST).rsplit("/", 3)
    try:
        store = Store(root)
        return read(store, "/".join(prefix)), store
    except FileNotFoundError:
        raise InputError(f"{KEY}: {uri} is not there; name <store>/<stage>/<fingerprint>/all/manifest.json") from None


def check_vocabulary(folder: Path, uri: str, chat: Chat) -> None:
    """Raise InputError unless teacher and run use the same token ids, so that their logits are of the same tokens."""
    described = folder / "tokenizer.json"
    if not described.exists():
        raise InputError(f"{KEY}: {uri} has no tokenizer.json, which says what its logits are of; add it")
    if found := difference(described, vocabulary(json.loads(chat.path.read_text())), f"{KEY}: {uri}"):
        raise InputError(
            f"{KEY}: {uri} has another vocabulary ({found}), so its logits are of other tokens; "
            "bring its tokenizer as tokenizer.start_from"
        )
