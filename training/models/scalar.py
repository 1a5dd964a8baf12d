"""A model with one number per position: the reward model and PPO's critic.

On disk it is a sequence classifier of transformers with one label and no bias, so that
`AutoModelForSequenceClassification` opens it. What is subtracted from a score to make a reward stands in `config.json`
as `reward_mean`: reward = score - reward_mean.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from training.models import llama as model
from training.models.causal import class_of, read_config
from training.models.infilling import PLACES
from training.rollout import positions

BRANCHES = frozenset({"gpt2", "gpt_neox", "llama", "mistral", "mixtral", "olmo2", "qwen2", "qwen3"})
"""Types whose attention takes any mask, and whose positions are what they are told, so that replies share a prompt."""
MEAN = "reward_mean"
HEAD = "score.weight"


class ScalarHead(nn.Linear):
    """One number per position, computed in float32 whatever the decoder computes in: bf16 keeps 8 bits of a reward.

    Where nothing is learned, its weights stay in float32 as well.
    """

    keeps_float32 = True

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states (B, T, d_model) -> (B, T, 1)."""
        return nn.functional.linear(hidden.float(), self.weight.float(), self.bias.float())


class RewardModel(nn.Module):
    """A decoder without its unembedding, and a linear head that gives one number per position."""

    head_name = "head"

    def __init__(self, decoder: Any, seed: int) -> None:
        """`decoder` maps tokens to hidden states.

        The head's weights start as N(0, 1 / (d_model + 1)) (Stiennon et al. 2020, appendix B.1).
        """
        super().__init__()
        width = int(decoder.config.hidden_size)
        self.decoder = decoder
        self.head = ScalarHead(width, 1)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            self.head.weight.copy_(torch.randn(1, width, generator=generator) * (width + 1) ** -0.5)
            self.head.bias.zero_()

    def forward(self, tokens: Tensor, attention: Tensor, places: Tensor | None = None) -> Tensor:
        """One number per position, in float32: tokens and attention (B, T) -> (B, T). A critic's are state values.

        places (B, T): positions of tokens whose `attention`, (B, 1, T, T), says what each of them sees.
        """
        places = positions(attention) if places is None else places
        output: Any = self.decoder(input_ids=tokens, attention_mask=attention, position_ids=places, use_cache=False)
        values: Tensor = self.head(output.last_hidden_state).squeeze(-1)
        return values

    def save_pretrained(
        self, folder: Path, state_dict: Mapping[str, Tensor] | None = None, pad: int | None = None
    ) -> None:
        """Write model.safetensors and config.json, which `load` and transformers read; by default the own weights.

        pad: the id of the padding token, by which transformers finds the last token of a row.
        """
        folder.mkdir(parents=True, exist_ok=True)
        own = {name: one.detach().float().cpu() for name, one in (state_dict or self.state_dict()).items()}
        described, prefix = _described(self.decoder.config, pad)
        described[MEAN] = -float(own.pop("head.bias"))
        named = {HEAD: own.pop("head.weight"), **{f"{prefix}{name[len('decoder.') :]}": own[name] for name in own}}
        save_file(
            {name: one.contiguous() for name, one in named.items()}, folder / "model.safetensors", {"format": "pt"}
        )
        (folder / "config.json").write_text(json.dumps(described, indent=2))

    branches = False
    """Whether several replies may stand in one row after one prompt, as `training.data.branches` has them."""

    def share_prompts(self) -> None:
        """Let replies share their prompt, if the decoder can: with SDPA, because flash-attn's kernels take no mask."""
        config = self.decoder.config
        self.branches = config.model_type in BRANCHES and not getattr(config, "sliding_window", None)
        if self.branches:
            self.decoder.set_attn_implementation("sdpa")

    def activation_checkpointing_enable(self, options: dict[str, Any], offload: bool) -> None:
        self.decoder.activation_checkpointing_enable(options, offload=offload)


def classifier_of(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """The class of transformers that is such a decoder with the head `score`; None if it has none of that form."""
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return None
    found: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    with torch.device("meta"), no_init_weights():
        names = {name for name, _ in found(deepcopy(config)).named_parameters()}
        decoder = {f"{found.base_model_prefix}.{name}" for name, _ in AutoModel.from_config(config).named_parameters()}
    kept: type[PreTrainedModel] = found
    return kept if names == {HEAD, *decoder} else None


def _described(config: PreTrainedConfig, pad: int | None) -> tuple[dict[str, Any], str]:
    """(What config.json says of a reward model over such a decoder, what its decoder's names begin with).

    Of a decoder for which transformers has no classifier it names no class: only `load` opens it then.
    """
    own = deepcopy(config)
    own.num_labels = 1
    own.pad_token_id = own.pad_token_id if pad is None else pad
    known = classifier_of(own)
    whole = json.loads(own.to_json_string())
    described = {name: value for name, value in whole.items() if name not in (PLACES, "architectures")}
    if known:
        described["architectures"] = [known.__name__]
    return described, f"{(known or class_of(config)).base_model_prefix}."


def normalised(weights: Mapping[str, Tensor], mean: float, deviation: float, head: str = "head") -> dict[str, Tensor]:
    """A reward model's weights by name, with (reward - mean) / deviation folded into the layer `head`."""
    weight, bias = f"{head}.weight", f"{head}.bias"
    return {**weights, weight: weights[weight] / deviation, bias: (weights[bias] - mean) / deviation}


def last(values: Tensor, attention: Tensor) -> Tensor:
    """The value at each row's last real token: (B, T) -> (B,)."""
    index = (torch.arange(attention.shape[1], device=attention.device) * attention).argmax(-1, keepdim=True)
    return values.gather(1, index).squeeze(1)


def load(folder: Path, dtype: model.Dtype = "fp32") -> RewardModel:
    """The reward model in a folder, in float32 on the CPU, prepared to compute in `dtype`.

    Raises one of `model.LOADING` if there is none.
    """
    config = read_config(folder)
    plain = class_of(config)
    prefix = f"{(classifier_of(config) or plain).base_model_prefix}."
    decoder = AutoModel.from_config(config, attn_implementation=model.attention(dtype, plain), trust_remote_code=False)
    module = RewardModel(decoder, seed=0)
    stored = load_file(folder / "model.safetensors")
    weights = {"head.weight": stored.pop(HEAD), "head.bias": torch.tensor([-float(getattr(config, MEAN))])}
    module.load_state_dict(weights | {f"decoder.{name.removeprefix(prefix)}": one for name, one in stored.items()})
    return module
