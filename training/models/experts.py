"""Mixtures of experts: the balancing loss, without which a few experts would get all tokens."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def balance_loss(scores: Tensor, weight: Tensor, per_token: int) -> Tensor:
    """How unevenly one layer's router spreads tokens over its experts: experts x sum over i of f_i P_i, a scalar.

    scores (tokens, experts): the router's, before the softmax. weight (tokens,): 0 for tokens that do not count.
    f_i is the share of the chosen places that expert i got, of which each token has `per_token`; P_i is the mean of its
    probability. It is 1 if both are uniform, and experts / per_token if every token surely goes to the same experts.
    Only P has a gradient. Fedus et al. 2022 (Switch Transformer), equations 4 to 6; there a token chooses one expert.
    """
    probabilities = scores.float().softmax(-1)
    chosen = probabilities.topk(per_token, -1).indices
    experts, count = scores.shape[-1], weight.sum().clamp(min=1)
    places = torch.zeros(experts, device=scores.device)
    places.scatter_add_(0, chosen.flatten(), weight[:, None].expand_as(chosen).flatten())
    mean = (probabilities * weight[:, None]).sum(0) / count
    return experts * (places / (per_token * count) * mean).sum()


class Routing:
    """The scores that the routers of a model gave in its last forward pass; of a model without experts none.

    Hooks keep them, so it does not matter who makes the pass. A layer that is computed again on the way back gives its
    scores twice, but only after they were read, and those of the next pass replace them.
    """

    def __init__(self, module: Any) -> None:
        coef = getattr(module.config, "router_aux_loss_coef", None)
        per_token = getattr(module.config, "num_experts_per_tok", None)
        self.coef, self.per_token = float(coef or 0), int(per_token or 0)
        self._routers = routers_of(module) if coef is not None and self.per_token else []
        for router, index in self._routers:
            router.register_forward_hook(partial(_keep, index))

    def balance(self, weight: Tensor) -> Tensor | None:
        """The mean over the layers of their balancing losses; None without experts. weight (B, T): what counts.

        Scores that are not one row for each token, as of experts that are found by two halves of a key, are left out.
        """
        found = [router.__dict__.pop("scores", None) for router, _ in self._routers]
        scores = [one for one in found if one is not None and one.shape[:-1].numel() == weight.numel()]
        if not scores:
            return None
        weight = weight.to(scores[0].device, non_blocking=True)
        losses = [balance_loss(one.flatten(0, -2), weight.flatten(), self.per_token) for one in scores]
        return torch.stack(losses).mean()


def _keep(index: int, router: Any, given: Any, found: Any) -> None:
    # A list for all layers would have another length in each, and torch.compile would make a program of each layer.
    router.scores = found[index] if isinstance(found, tuple) else found


def routing_of(module: Any) -> Routing:
    """A model's, the same at every call."""
    if not hasattr(module, "routing"):
        module.routing = Routing(module)
    found: Routing = module.routing
    return found


def routers_of(module: nn.Module) -> list[tuple[nn.Module, int]]:
    """Each router, and the index of its output that holds the scores, as transformers records them."""
    kinds: dict[Any, int] = {}
    for one in module.modules():
        recorded = getattr(one, "_can_record_outputs", None) if isinstance(one, PreTrainedModel) else None
        found = (recorded or {}).get("router_logits", ())
        for recorder in found if isinstance(found, list | tuple) else [found]:
            # A bare class stands for one whose second output is recorded.
            kinds[getattr(recorder, "target_class", recorder)] = getattr(recorder, "index", 1)
    return [(one, index) for one in module.modules() for kind, index in kinds.items() if isinstance(one, kind)]
