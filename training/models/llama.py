"""The decoder: a LLaMA built from the recipe, or any causal model of `transformers` from a committed result."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import LlamaConfig, MixtralConfig, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging
from transformers.utils.import_utils import (
    is_flash_attn_2_available,
    is_flash_attn_3_available,
    is_flash_attn_4_available,
)

from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import Manifest
from contract.settings.training import Engine, Model
from training.chat.template import TEMPLATE_FILE, Chat
from training.data.order import round_keys
from training.engine.compiled import COMPILERS, has_compiler
from training.engine.engine import DTYPES
from training.engine.job import Job
from training.engine.ranks import Ranks
from training.engine.zero import Weights, in_shards
from training.models.causal import adapted, class_of, outline, read_config
from training.models.infilling import PLACES, save_places

transformers_logging.disable_progress_bar()


AnyModule = TypeVar("AnyModule", bound=nn.Module)
Dtype = Literal["fp32", "bf16", "fp16"]


LEAST_HEAD = 16
"""Numbers of a head: Triton multiplies no smaller matrices (torch/_inductor/kernel/flex/flex_attention.py)."""


def attention(dtype: Dtype, model: type[PreTrainedModel], flex: bool = False) -> str:
    """The first kind of flash-attn that transformers finds here, with a GPU, for half precision; else PyTorch's SDPA.

    `flex`: rows hold several documents that must not see each other, and `why_not_flex` has nothing against
    FlexAttention, which then goes before SDPA: that would take a mask and no flash kernel.

    flash-attn's kernels take half precision only. Versions 2 and 4 install a package of one name, so only transformers,
    which looks at what was installed, can tell them apart. A model's class says which of these it can use; if none, its
    attention is plain matrix products.
    """
    flash = dtype != "fp32" and model._supports_flash_attn
    found = (name for name, available in FLASH.items() if available()) if flash else iter(())
    flex = flex and model._supports_flex_attn
    return next(found, "flex_attention" if flex else "sdpa" if model._supports_sdpa else "eager")


def why_not_flex(config: PreTrainedConfig, ranks: Ranks) -> str | None:
    """Why a model cannot use FlexAttention here, which transformers compiles; None if it can."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if ranks.device.type != "cuda":
        return "FlexAttention is for GPUs"
    if size < LEAST_HEAD:
        return f"FlexAttention needs heads of {LEAST_HEAD} numbers or more, and these have {size}"
    return None if has_compiler(ranks) else f"FlexAttention must be compiled, and this machine lacks {COMPILERS}"


def set_attention(job: Job, module: PreTrainedModel, dtype: Dtype, apart: bool) -> None:
    """Choose the attention kernel for training; rank 0 logs it. `apart`: documents in a row must not see each other."""
    why = why_not_flex(module.config, job.ranks) if apart else None
    kind = attention(dtype, type(module), apart and why is None)
    module.set_attn_implementation(kind)
    if job.ranks.rank == 0:
        because = f", because {why}" if why and kind == "sdpa" else ""
        print(f"{job.task.stage}: attention by {kind}{because}", flush=True)


def attention_of(module: Any) -> str:
    """The attention in force, as transformers names it."""
    kind: str = module.config._attn_implementation
    return kind


FLASH: dict[str, Callable[[], bool]] = {
    "flash_attention_2": is_flash_attn_2_available,
    "flash_attention_3": is_flash_attn_3_available,
    "flash_attention_4": is_flash_attn_4_available,
}
"""How transformers names each kind, and its answer whether it can be used. The oldest runs on most GPUs."""


def cast(module: AnyModule, dtype: Dtype) -> AnyModule:
    """The module, with its parameters cast to `dtype`, but for those of layers that say `keeps_float32`.

    Buffers stay: bf16 would round the rotary frequencies.
    """
    for layer in module.modules():
        for parameter in () if getattr(layer, "keeps_float32", False) else layer.parameters(recurse=False):
            parameter.data = parameter.data.to(DTYPES[dtype])
    return module


def build(
    model: Model,
    vocab_size: int,
    seq_len: int,
    seed: int,
    dtype: Dtype = "fp32",
    end_of_text: int | None = None,
    pad: int | None = None,
    engine: Engine | None = None,
    world: int = 1,
    span_places: int = 0,
) -> Any:
    """A fresh model on the CPU, prepared to compute in `dtype`: in float32, or in shards if `engine` says ZeRO 3.

    It is a LLaMA, or with experts a Mixtral. One that fills blanks has embeddings for `span_places` places in a span.

    The same seed gives the same weights. `end_of_text` and `pad` are the ids that its configuration names.
    """
    if model.experts:
        kind: Any = MixtralConfig
        experts: dict[str, Any] = {
            "num_local_experts": model.experts,
            "num_experts_per_tok": model.experts_per_token,
            "router_aux_loss_coef": model.balance_coef,
        }
    else:
        kind, experts = LlamaConfig, {}
    config = kind(
        vocab_size=vocab_size,
        hidden_size=model.d_model,
        intermediate_size=model.d_ff,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        max_position_embeddings=seq_len,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        tie_word_embeddings=model.tie_embeddings,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        pad_token_id=pad,
        use_cache=False,
        **experts,
    )
    if span_places:
        setattr(config, PLACES, span_places)
    return made(config, first_weights(config, seed), dtype, engine, world)


def made(config: PreTrainedConfig, weights: Weights, dtype: Dtype, engine: Engine | None = None, world: int = 1) -> Any:
    """A model with these weights. One in shards gets them when training's engine has it."""
    kind = class_of(config)
    config._attn_implementation = "sdpa" if getattr(config, PLACES, 0) else attention(dtype, kind)
    with in_shards(engine or Engine(), world), no_init_weights():
        module: Any = adapted(kind(config))
    module.tie_weights()
    if hasattr(module.base_model, "rotary_emb"):
        # DeepSpeed makes also buffers in half precision, which would round the rotary frequencies.
        module.base_model.rotary_emb = type(module.base_model.rotary_emb)(config)
    if engine and engine.stage_in_force == 3:
        module.whole_weights = weights
        return module
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(weights(name))
    return module


def first_weights(config: PreTrainedConfig, seed: int) -> Weights:
    """The weights of a fresh model. Each parameter draws from a stream of its own, so it needs no other to be made.

    Matrices are normal with the configuration's spread. Those that end in the residual stream start smaller, by
    sqrt(2 x layers), so that its variance does not grow with depth (Radford et al. 2019, section 2.3). The padding
    token's embedding is 0, and so is that of place 0, the context.
    """
    shapes = {name: one.shape for name, one in outline(config).named_parameters()}

    def weights(name: str) -> Tensor:
        if len(shapes[name]) == 1:
            return torch.ones(shapes[name])
        generator = torch.Generator().manual_seed(round_keys("weights", seed, name)[0] >> 1)
        last = name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj"))
        smaller = (2 * config.num_hidden_layers) ** -0.5 if last else 1.0
        drawn: Tensor = torch.randn(shapes[name], generator=generator) * (config.initializer_range * smaller)
        if "embed_tokens" in name and config.pad_token_id is not None:
            drawn[config.pad_token_id] = 0
        if name.startswith(PLACES):
            drawn[0] = 0
        return drawn

    return weights


def load_model(job: Job, manifest: Manifest, dtype: Dtype = "fp32", engine: Engine | None = None) -> Any:
    """The model that a stage committed, prepared to compute in `dtype`: in float32 on the CPU, or in shards.

    It is in shards if `engine` says ZeRO 3. Raises InputError if the manifest lists no model, or one that cannot be
    loaded.
    """
    folder = fetch(job, manifest)
    try:
        check_stored(folder)
        if engine and engine.stage_in_force == 3:
            return made(read_config(folder), stored_weights(folder), dtype, engine, job.ranks.world)
        return whole(folder, dtype)[0]
    except LOADING as error:
        raise InputError(
            f"{job.store.full(manifest.path)}: its model cannot be loaded ({error}); run {manifest.stage} again"
        ) from error


LOADING = (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError, AttributeError, SafetensorError)
"""What the library raises for a folder that it cannot read. A damaged config.json ends in any of these."""


def whole(folder: Path, dtype: Dtype) -> tuple[Any, dict[str, Any]]:
    """(The model in a folder, in float32 on the CPU, what the library says of missing tensors)."""
    config = read_config(folder)
    kind: Any = class_of(config)
    module, found = kind.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        attn_implementation=attention(dtype, kind),
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    return adapted(module), found


def stored_weights(folder: Path) -> Weights:
    """The weights in a folder's safetensors, each read when it is asked for."""
    where: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            where |= dict.fromkeys(file.keys(), path)

    def weights(name: str) -> Tensor:
        with safe_open(where[name], "pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor.float()

    return weights


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The name and shape of each tensor in a folder's safetensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes


def check_stored(folder: Path) -> None:
    """Raise ValueError unless a folder's safetensors hold each parameter of its model, by its name, in its shape.

    The library would give what is missing random values. Only headers are read.
    """
    stored = stored_shapes(folder)
    for name, one in outline(read_config(folder)).named_parameters():
        if one.requires_grad and stored.get(name) != tuple(one.shape):
            found = f"has the shape {stored[name]}, not {tuple(one.shape)}" if name in stored else "is missing"
            raise ValueError(f"{name} {found}")


def fetch(job: Job, manifest: Manifest) -> Path:
    """A local folder that holds a committed model's files. Raises InputError if the manifest lists no model."""
    files = [job.scratch.download(file) for file in manifest.of(Kind.MODEL)]
    if not any(path.name == "config.json" for path in files):
        raise InputError(f"{job.store.full(manifest.path)}: lists no model; run {manifest.stage} again")
    return files[0].parent


def save(
    module: nn.Module, folder: Path, chat: Chat, rank: int = 0, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write safetensors, config.json and tokenizer files that `transformers` loads, on rank 0.

    `weights` are those of `Engine.weights`, in float32 whatever the model computes in; by default the module's own.
    """
    if rank == 0:
        own = save_places(folder, dict(weights or module.state_dict()))
        # Under the names of the parameters, by which ZeRO 3 reads them one at a time; only `export` uses older ones.
        plain = isinstance(module, PreTrainedModel)  # a reward model is none
        more: dict[str, Any] = {"save_original_format": False} if plain else {"pad": chat.pad}
        module.save_pretrained(folder, state_dict=own, **more)  # type: ignore[operator]
        described = json.loads((folder / "config.json").read_text())
        described["dtype"] = "float32"
        if described.pop(PLACES, None):
            described["architectures"] = ["LlamaForCausalLM"]
        (folder / "config.json").write_text(json.dumps(described, indent=2))
        shutil.copyfile(chat.path, folder / "tokenizer.json")
        if chat.template is not None:
            (folder / TEMPLATE_FILE).write_text(chat.jinja)
        named = {"eos_token": chat.special["end_of_text"], "pad_token": chat.special["pad"]}
        describe = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
        (folder / "tokenizer_config.json").write_text(json.dumps(describe, indent=1))


def parameters(module: nn.Module) -> int:
    """The number of parameters; a tied embedding counts once, and under ZeRO 3 each parameter counts whole."""
    return sum(map(_size, module.parameters()))


def active_parameters(module: Any) -> int:
    """The number of parameters that one token uses: of the experts, only those that it goes through."""
    idle = 0.0
    for name, parameter in module.named_parameters():
        shape = getattr(parameter, "ds_shape", parameter.shape)
        if len(shape) >= 2 and ".experts." in f".{name}":  # one tensor for all experts of a layer
            idle += _size(parameter) * (1 - module.config.num_experts_per_tok / shape[0])
    return parameters(module) - round(idle)


def _size(parameter: Any) -> int:
    """Of the whole parameter, also if only a shard of it is here."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
