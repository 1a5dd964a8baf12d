"""The decoder: Hugging Face's LLaMA, built from the recipe or loaded from a committed result."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Literal, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import Manifest
from contract.settings.training import Model
from training.chat.template import Chat
from training.engine.job import Job

transformers_logging.disable_progress_bar()


AnyModule = TypeVar("AnyModule", bound=nn.Module)
Dtype = Literal["fp32", "bf16"]


def attention(dtype: Dtype) -> str:
    """flash-attn if it is installed, there is a GPU and the model computes in bf16; else PyTorch's SDPA.

    flash-attn's kernels take half precision only.
    """
    flash = dtype == "bf16" and importlib.util.find_spec("flash_attn") is not None and torch.cuda.is_available()
    return "flash_attention_2" if flash else "sdpa"


def cast(module: AnyModule, dtype: Dtype) -> AnyModule:
    """The module, with its parameters cast to `dtype`. Buffers stay: bf16 would round the rotary frequencies."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    return module


def build(
    model: Model,
    vocab_size: int,
    seq_len: int,
    seed: int,
    dtype: Dtype = "fp32",
    end_of_text: int | None = None,
    pad: int | None = None,
) -> LlamaForCausalLM:
    """A freshly initialised model in float32 on the CPU, prepared to compute in `dtype`.

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
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def load_model(job: Job, manifest: Manifest, dtype: Dtype = "fp32") -> LlamaForCausalLM:
    """The model that a stage committed, in float32 on the CPU, prepared to compute in `dtype`.

    Raises InputError if the manifest lists no model, or one that cannot be loaded.
    """
    folder = fetch(job, manifest)
    try:
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


def fetch(job: Job, manifest: Manifest) -> Path:
    """A local folder that holds a committed model's files. Raises InputError if the manifest lists no model."""
    files = [job.scratch.download(file) for file in manifest.of(Kind.MODEL)]
    if not any(path.name == "config.json" for path in files):
        raise InputError(f"{job.store.full(manifest.path)}: lists no model; run {manifest.stage} again")
    return files[0].parent


def save(module: nn.Module, folder: Path, chat: Chat, rank: int = 0) -> None:
    """Write safetensors, config.json and tokenizer files that `transformers` loads. Every rank calls it; rank 0 writes.

    Under ZeRO 3 the weights are gathered first. Raises InputError on every rank if a weight is NaN or infinite.
    """
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=None):
        if not all(bool(parameter.isfinite().all()) for parameter in module.parameters()):
            raise InputError(
                "the model's weights contain NaN or Inf: training diverged; lower the learning rate or clip"
            )
        if rank == 0:
            module.save_pretrained(folder)  # type: ignore[operator]  # every model here has it
    if rank == 0:
        shutil.copyfile(chat.path, folder / "tokenizer.json")
        named = {"eos_token": chat.special["end_of_text"], "pad_token": chat.special["pad"]}
        describe = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
        (folder / "tokenizer_config.json").write_text(json.dumps(describe, indent=1))


def parameters(module: nn.Module) -> int:
    """The number of parameters; a tied embedding counts once, and under ZeRO 3 each parameter counts whole."""
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in module.parameters())
