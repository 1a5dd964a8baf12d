"""What a model's attention sees: no later token, and no other document of its row."""

from typing import Any

import torch
from torch import Tensor

from contract.errors import InputError
from training.models.documents import kept_apart

SEEN = 12
"""Tokens of a row on which `check_sight` looks."""
ROUNDING = 1e-3
"""Under ZeRO 3: the share of what its own tokens move a logit, below which a difference is rounding."""


def check_sight(
    module: Any,
    boundaries: bool,
    device: torch.device,
    key: str = "pretrain.start_from",
    instead: str = "set pretrain.boundaries to false",
) -> None:
    """Raise InputError, which begins with a setting's key, if a model sees what it must not.

    No logit may depend on a later token, or, with `boundaries`, on another document of its row. The module must be
    whole, on the device. Every process calls it, because under ZeRO 3 they make the forward passes together. `instead`
    is what else a recipe can do.
    """
    tokens = torch.arange(2 * SEEN).reshape(2, SEEN).to(device) % module.config.vocab_size
    begins = SEEN // 2 if boundaries else 0
    places = torch.arange(SEEN)
    restarting = torch.where(places < begins, places, places - begins).expand(2, -1)
    known = kept_apart(module, restarting, device) if boundaries else {}
    kind = f"{key}: a model of type {module.config.model_type!r}"
    mixes = f"{kind} cannot keep the documents of a row apart"
    sharded = any(hasattr(one, "ds_id") for one in module.parameters())
    training, at = module.training, SEEN - 3
    module.eval()
    halved = module.config._attn_implementation.startswith("flash")  # whose kernels take no float32
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=halved):
            moves = (_by_change if sharded else _by_gradient)(module, tokens, known, begins, at)
    except ValueError as error:  # of types that take no mask of documents, or need a package of their own
        raise InputError(f"{mixes} ({error}); {instead}" if boundaries else f"{kind} cannot run ({error})") from error
    finally:
        module.train(training)
    if bool(moves[at + 1 :].any()):
        raise InputError(f"{kind} sees later tokens, so it cannot learn to predict them; bring a causal model")
    if bool(moves[:begins].any()):
        raise InputError(f"{mixes}: they move each other's logits; {instead}")


def check_sight_of_stages(module: Any, boundaries: bool) -> None:
    """Run `check_sight` on the CPU, with its attention, before a pipeline cuts a model: the whole may fit no device."""
    own = module.config._attn_implementation
    module.set_attn_implementation("sdpa" if module._supports_sdpa else "eager")
    check_sight(module, boundaries, torch.device("cpu"))
    module.set_attn_implementation(own)


def _by_gradient(module: Any, tokens: Tensor, known: dict[str, Any], begins: int, at: int) -> Tensor:
    """Whether each place moves the logits at `at`, (T,): exactly, because a masked token's gradient is 0."""
    embedded = module.get_input_embeddings()(tokens).detach().requires_grad_()
    logits = module(inputs_embeds=embedded, use_cache=False, **known).logits
    gradient: Tensor = torch.autograd.grad(logits[:, at].float().square().sum(), embedded)[0]
    return gradient.abs().amax((0, 2)) > 0


@torch.no_grad()
def _by_change(module: Any, tokens: Tensor, known: dict[str, Any], begins: int, at: int) -> Tensor:
    """Find the same by changing tokens. Under ZeRO 3 a backward pass here would count as a part of the batch."""

    def logits(changed: slice) -> Tensor:
        given = tokens.clone()
        given[:, changed] = tokens.flip(0)[:, changed]
        found: Tensor = module(input_ids=given, use_cache=False, **known).logits[:, at].float()
        return found

    before = logits(slice(0, 0))
    regions = (slice(0, begins), slice(begins, at + 1), slice(at + 1, None))
    moved = [float((logits(region) - before).abs().max()) for region in regions]
    moves = torch.zeros(tokens.shape[1], dtype=torch.bool)
    for region, size in zip(regions, moved, strict=True):
        moves[region] = size > ROUNDING * moved[1]
    return moves
