"""The decoder: Hugging Face's LLaMA, built from the recipe or loaded from a committed result."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.initialization import no_init_weights
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
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
from training.chat.template import Chat
from training.data.order import round_keys
from training.engine.job import Job
from training.engine.zero import Weights, in_shards

transformers_logging.disable_progress_bar()


AnyModule = TypeVar("AnyModule", bound=nn.Module)
Dtype = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def attention(dtype: Dtype, documents: bool = False) -> str:
    """The first kind of flash-attn that transformers finds here, with a GPU, for half precision; else PyTorch's SDPA.

    `documents`: rows hold several that must not see each other. For these SDPA would take a mask and no flash kernel,
    so a GPU without flash-attn uses FlexAttention, which transformers compiles.

    flash-attn's kernels take half precision only. Versions 2 and 4 install a package of one name, so only transformers,
    which looks at what was installed, can tell them apart.
    """
    found = (name for name, available in FLASH.items() if available()) if dtype != "fp32" else iter(())
    return next(found, "flex_attention" if documents and torch.cuda.is_available() else "sdpa")


FLASH: dict[str, Callable[[], bool]] = {
    "flash_attention_2": is_flash_attn_2_available,
    "flash_attention_3": is_flash_attn_3_available,
    "flash_attention_4": is_flash_attn_4_available,
}
"""How transformers names each kind, and its answer whether it can be used. The oldest runs on most GPUs."""


def cast(module: AnyModule, dtype: Dtype) -> AnyModule:
    """The module, with its parameters cast to `dtype`. Buffers stay: bf16 would round the rotary frequencies."""
    for parameter in module.parameters():
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
) -> LlamaForCausalLM:
    """A fresh model on the CPU, prepared to compute in `dtype`: in float32, or in shards if `engine` says ZeRO 3.

    The same seed gives the same weights. `end_of_text` and `pad` are the ids that its configuration names.
    """
    config = LlamaConfig(
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
        attn_implementation=attention(dtype),  # type: ignore[call-arg]  # the base class takes it
    )
    return made(config, first_weights(config, seed), engine, world)


def made(config: LlamaConfig, weights: Weights, engine: Engine | None, world: int) -> LlamaForCausalLM:
    """A model with these weights. One in shards gets them when training's engine has it."""
    with in_shards(engine or Engine(), world), no_init_weights():
        module = LlamaForCausalLM(config)
    module.tie_weights()
    # DeepSpeed makes also buffers in half precision, which would round the rotary frequencies.
    module.model.rotary_emb = LlamaRotaryEmbedding(config)
    if engine and engine.stage_in_force == 3:
        module.whole_weights = weights  # type: ignore[assignment]
        return module
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(weights(name))
    return module


def first_weights(config: LlamaConfig, seed: int) -> Weights:
    """The weights of a fresh model. Each parameter draws from a stream of its own, so it needs no other to be made.

    Matrices are normal with the configuration's spread. Those that end in the residual stream start smaller, by
    sqrt(2 x layers), so that its variance does not grow with depth (Radford et al. 2019, section 2.3). The padding
    token's embedding is 0.
    """
    with torch.device("meta"), no_init_weights():
        shapes = {name: one.shape for name, one in LlamaForCausalLM(config).named_parameters()}

    def weights(name: str) -> Tensor:
        if len(shapes[name]) == 1:
            return torch.ones(shapes[name])
        generator = torch.Generator().manual_seed(round_keys("weights", seed, name)[0] >> 1)
        last = name.endswith(("o_proj.weight", "down_proj.weight"))
        smaller = (2 * config.num_hidden_layers) ** -0.5 if last else 1.0
        drawn = torch.randn(shapes[name], generator=generator) * (config.initializer_range * smaller)
        if "embed_tokens" in name and config.pad_token_id is not None:
            drawn[config.pad_token_id] = 0
        return drawn

    return weights


def load_model(job: Job, manifest: Manifest, dtype: Dtype = "fp32", engine: Engine | None = None) -> LlamaForCausalLM:
    """The model that a stage committed, prepared to compute in `dtype`: in float32 on the CPU, or in shards.

    It is in shards if `engine` says ZeRO 3. Raises InputError if the manifest lists no model, or one that cannot be
    loaded.
    """
    folder = fetch(job, manifest)
    try:
        if engine and engine.stage_in_force == 3:
            config = LlamaConfig.from_pretrained(folder, attn_implementation=attention(dtype), local_files_only=True)
            return made(config, stored_weights(folder), engine, job.ranks.world)
        return LlamaForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=attention(dtype),
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{job.store.full(manifest.path)}: its model cannot be loaded ({error}); run {manifest.stage} again"
        ) from error


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
        module.save_pretrained(folder, state_dict=dict(weights or module.state_dict()))  # type: ignore[operator]
        described = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**described, "dtype": "float32"}, indent=2))
        shutil.copyfile(chat.path, folder / "tokenizer.json")
        named = {"eos_token": chat.special["end_of_text"], "pad_token": chat.special["pad"]}
        describe = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
        (folder / "tokenizer_config.json").write_text(json.dumps(describe, indent=1))


def parameters(module: nn.Module) -> int:
    """The number of parameters; a tied embedding counts once, and under ZeRO 3 each parameter counts whole."""
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in module.parameters())
