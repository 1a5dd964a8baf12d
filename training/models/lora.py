"""Low-rank adapters by peft: put into a model, learned alone, and merged into its matrices in float32.

Only adapters are trained, so that only they have moments, and only they are in checkpoints. peft is imported when a
recipe asks for adapters.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contract.errors import InputError, SetupError
from contract.settings.training import Lora
from training.engine.job import Job
from training.models.causal import adapted, class_of, read_config
from training.models.llama import attention


def targets_of(module: nn.Module, settings: Lora) -> list[str]:
    """The last parts of the names of the layers that get adapters. Raises InputError for one that the model lacks."""
    head = module.get_output_embeddings()  # type: ignore[operator]
    linear = {name.rpartition(".")[2] for name, one in module.named_modules() if _is_linear(one) and one is not head}
    if not settings.targets:
        return sorted(linear)
    if unknown := sorted({*settings.targets} - linear):
        raise InputError(
            f"lora.targets: the model has no linear layer {unknown[0]!r}; it has {', '.join(sorted(linear))}"
        )
    return sorted(settings.targets)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)  # bitsandbytes' layers of 4 bits are, too


def with_adapters(module: Any, settings: Lora, seed: int) -> Any:
    """The model with adapters in place, which alone learn. The same seed gives the same adapters, on every process."""
    from peft import LoraConfig, inject_adapter_in_model

    alpha: Any = settings.alpha  # peft declares an int, and only divides it
    config = LoraConfig(
        r=settings.rank, lora_alpha=alpha, target_modules=targets_of(module, settings), lora_dropout=0.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = inject_adapter_in_model(config, module)
    for name, parameter in made.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return made


@contextlib.contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """Context in which a model computes as it did before it got adapters."""
    layers = _adapted(module).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _adapted(module: nn.Module) -> dict[str, Any]:
    """The layers that have adapters, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: one for name, one in module.named_modules() if isinstance(one, BaseTunerLayer)}


def merged(module: Any, settings: Lora, learned: Mapping[str, Tensor]) -> Any:
    """A float32 model on the CPU with adapters merged into its matrices: W + alpha / rank x B A.

    module: the model as it was before. learned: the weights of the adapters, by the names that they have in training.
    """
    made = with_adapters(module, settings, 0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(learned[name])
    for name, layer in _adapted(made).items():
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(made.get_submodule(parent) if parent else made, last, layer.get_base_layer())
    del made.peft_config
    return made.requires_grad_(True)


def quantised(folder: Path, job: Job) -> Any:
    """The model in a folder with its frozen matrices in 4 bits on this process's GPU (NF4, constants quantised, too).

    Raises SetupError without a GPU or without bitsandbytes.
    """
    if job.ranks.device.type != "cuda":
        raise SetupError("sft.lora.quantised needs a GPU, and there is none; leave it out, or use another machine")
    try:
        import bitsandbytes  # noqa: F401 - transformers imports it, and says less clearly what is missing
    except ImportError:
        raise SetupError("sft.lora.quantised needs the library bitsandbytes: pip install bitsandbytes") from None
    from transformers import BitsAndBytesConfig

    config = read_config(folder)
    kind: Any = class_of(config)
    module = kind.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        device_map={"": job.ranks.device},
        attn_implementation=attention("fp32", kind),
        local_files_only=True,
        use_safetensors=True,
    )
    return adapted(module)
