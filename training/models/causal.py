"""Load any causal language model of `transformers` for training, and check that it fits.

`config.json` names its class. Code beside a model is never run, and only safetensors are read.
"""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.models.bloom.modeling_bloom import BloomForCausalLM, build_alibi_tensor

from contract.settings.training import Model
from contract.sizes import parameters
from training.models.infilling import PLACES, InfillingLlama


def read_config(folder: Path) -> Any:
    """The configuration in a folder, for training: nothing in the model is random, no dropout and no jitter.

    A random stream inside the model would be no part of a checkpoint. Raises ValueError, OSError or another error of
    the library if there is none, or if only code that lies beside it could read it.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    for name, value in config.to_dict().items():
        if isinstance(value, float) and ("drop" in name or "jitter" in name):
            setattr(config, name, 0.0)
    return config


def class_of(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of a configuration's causal language model.

    Raises ValueError if there is none, or one that cannot be trained and sampled here, and says why.
    """
    if getattr(config, PLACES, 0):
        return InfillingLlama
    kind = f"a model of type {config.model_type[:80]!r}"
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{kind}, of which transformers knows no causal language model")
    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if config.get_text_config() is not config or config.is_encoder_decoder:
        raise ValueError(f"{kind}, which is no plain decoder of text")
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"{kind} with quantized weights, which cannot be trained; bring it in bf16, fp16 or fp32")
    taken = inspect.signature(found.forward).parameters
    if not {"past_key_values", "logits_to_keep"} <= taken.keys():
        raise ValueError(f"{kind}, which has no key-value cache to sample with")
    kept: type[PreTrainedModel] = found
    return kept


def outline(config: PreTrainedConfig) -> Any:
    """A model that has shapes and no weights."""
    with torch.device("meta"), no_init_weights():
        module: Any = class_of(config)(config)
    module.tie_weights()
    return module


def stored_names(module: Any, stored: Iterable[str]) -> dict[str, str]:
    """Parameter -> the tensor of a file that is it, by the library's own rules for older names and bare decoders.

    A parameter that has to be put together from several tensors is not among them.
    """
    transforms, own = get_model_conversion_mapping(module), module.state_dict()
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    found = {name: rename_source_key(name, renamings, converters, module.base_model_prefix, own) for name in stored}
    return {renamed: name for name, (renamed, put_together) in found.items() if put_together is None}


def shape_of(described: Mapping[str, Any]) -> tuple[Model, int]:
    """(The shape of the model of a config.json, its number of embeddings), in the words of a recipe.

    d_ff is the one with which a model of the recipe's kind has as many parameters as this one. Raises ValueError or
    another error of the library if it is no configuration of a causal model.
    """
    config: Any = AutoConfig.for_model(**described)
    total = sum(one.numel() for one in outline(config).parameters())
    heads = config.num_attention_heads
    experts = int(getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 0)
    shape = Model(
        layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        d_ff=1,
        tie_embeddings=config.tie_word_embeddings,
        experts=experts,
        experts_per_token=config.num_experts_per_tok if experts else 1,
    )
    each = 3 * shape.layers * max(experts, 1) * shape.d_model  # parameters that one more in d_ff makes
    wider = (total - parameters(shape, config.vocab_size)) / each
    return shape.model_copy(update={"d_ff": max(1, 1 + round(wider))}), config.vocab_size


def adapted(module: Any) -> Any:
    """A model that has just been made, ready for masks of documents."""
    if isinstance(module, BloomForCausalLM):
        module.transformer.build_alibi_tensor = _alibi  # type: ignore[method-assign, assignment]
    return module


def _alibi(mask: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """ALiBi from each key's place in its row; softmax sees only differences, so documents need not begin at 0.

    `mask` is that of padding, (B, T), or of documents, (B, 1, T, T). Bloom itself takes the first alone.
    """
    seen = mask if mask.dim() == 2 else torch.ones(mask.shape[0], mask.shape[-1], device=mask.device)
    return build_alibi_tensor(seen, heads, dtype)
