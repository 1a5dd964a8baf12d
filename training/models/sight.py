"""What a model's attention sees: no later token, and no other document of its row."""

from typing import Any

import torch

from contract.errors import InputError
from training.models.documents import kept_apart

SEEN = 12
"""Tokens of a row on which `check_sight` looks."""


def check_sight(module: Any, boundaries: bool, device: torch.device) -> None:
    """Raise InputError if a logit depends on a later token, or, with `boundaries`, on another document of its row.

    The gradient of one logit says so, exactly and in every precision: it is 0 at each token that attention left out.
    Every process calls it, because under ZeRO 3 they make the forward pass together.
    """
    tokens = torch.arange(2 * SEEN).reshape(2, SEEN) % module.config.vocab_size
    begins = SEEN // 2 if boundaries else 0
    places = torch.arange(SEEN)
    restarting = torch.where(places < begins, places, places - begins).expand(2, -1)
    embedded = module.get_input_embeddings()(tokens.to(device)).detach().requires_grad_()
    known = kept_apart(module, restarting, device) if boundaries else {}
    training = module.training
    module.eval()
    kind = f"pretrain.start_from: a model of type {module.config.model_type!r}"
    mixes, instead = f"{kind} cannot keep the documents of a row apart", "set pretrain.boundaries to false"
    try:
        logits = module(inputs_embeds=embedded, use_cache=False, **known).logits
    except ValueError as error:  # of types that take no mask of documents, or need a package of their own
        raise InputError(f"{mixes} ({error}); {instead}" if boundaries else f"{kind} cannot run ({error})") from error
    finally:
        module.train(training)
    at = SEEN - 3
    (gradient,) = torch.autograd.grad(logits[:, at].float().square().sum(), embedded)
    moved = gradient.abs().amax(-1).amax(0)
    if bool((moved[at + 1 :] > 0).any()):
        raise InputError(f"{kind} sees later tokens, so it cannot learn to predict them; bring a causal model")
    if bool((moved[:begins] > 0).any()):
        raise InputError(f"{mixes}: they move each other's logits; {instead}")
