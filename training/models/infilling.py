"""The model that fills blanks: a LLaMA that also knows a token's place in its span.

RoPE rotates by the first position, that of the blank for all tokens of its span. The second position, the place in the
span, is a learned embedding that is added to that of the token, as in GLM (Du et al. 2022, section 2.3). That of the
context, place 0, is always zero: so without spans the model is a plain LLaMA, as later stages and transformers load it.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from training.data.batch import Batch

PLACES = "span_places"
"""One name for three: the key in `config.json`, the module of embeddings, and its file in a committed model."""


class InfillingLlama(LlamaForCausalLM):
    """A LLaMA whose forward pass also takes `places` (B, T), if its configuration has `span_places` embeddings."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        places: int = config.span_places
        self.span_places = nn.Embedding(places, config.hidden_size, padding_idx=0)  # place 0 gets no gradient

    def forward(self, input_ids: Tensor | None = None, places: Tensor | None = None, **known: Any) -> Any:
        if places is None:
            return super().forward(input_ids=input_ids, **known)
        embedded = self.model.embed_tokens(input_ids) + self.span_places(places)
        return super().forward(inputs_embeds=embedded, **known)


def span_inputs(batch: Batch, device: torch.device) -> dict[str, Any]:
    """What a model that fills blanks gets beside the tokens of a batch."""
    assert batch.positions is not None
    assert batch.places is not None
    assert batch.documents is not None
    known = (batch.positions, batch.places, batch.documents)
    first, places, documents = (one.to(device, non_blocking=True) for one in known)
    return {"position_ids": first, "places": places, "attention_mask": visible(places, documents)}


def visible(places: Tensor, documents: Tensor) -> Tensor:
    """Which tokens see which: (B, T), (B, T) -> (B, 1, T, T), true where a query (third axis) sees a key (fourth).

    All tokens of a document see its whole context, those with place 0. A token of a span also sees itself and what
    stands before it in the spans of its document.
    """
    among = torch.arange(places.shape[1], device=places.device).expand_as(places)
    order = torch.where(places > 0, among + 1, 0)  # 0 is seen by all
    alike = documents[:, :, None] == documents[:, None, :]
    return (alike & (order[:, None, :] <= order[:, :, None]))[:, None]


def save_places(folder: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Write the embeddings of places, if there are any, to a file of their own; returns the other weights.

    So what lies beside it is a whole LLaMA, in which transformers misses nothing and finds nothing unknown.
    """
    name = f"{PLACES}.weight"
    if name in weights:
        save_file({name: weights[name].contiguous()}, folder / f"{PLACES}.safetensors", {"format": "pt"})
    return {key: value for key, value in weights.items() if key != name}
