"""The optimizers of a recipe: AdamW and Muon are torch's, LAMB is here."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from contract.settings.training import Optim

LAMB_EPSILON = 1e-6  # You et al. 2020, section 4


def make(module: nn.Module, optim: "Optim") -> torch.optim.Optimizer:
    """The recipe's optimizer of the trained parameters of a module."""
    if optim.optimizer == "lamb":
        return Lamb(decay_groups(module.parameters(), optim.weight_decay), optim.lr, optim.betas)
    hidden = hidden_matrices(module) if optim.optimizer == "muon" else []
    own = {id(parameter) for parameter in hidden}
    others = decay_groups((one for one in module.parameters() if id(one) not in own), optim.weight_decay)
    adam = torch.optim.AdamW(others, lr=optim.lr, betas=optim.betas, fused=True)
    if not hidden:
        return adam
    # Scaled so, a step is as large as AdamW's, and one learning rate serves both (Liu et al. 2025, section 2.2).
    muon = torch.optim.Muon(hidden, optim.lr, optim.weight_decay, adjust_lr_fn="match_rms_adamw")
    return Both(muon, adam)


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Apply weight decay to matrices, but not to norms and biases (Brown et al. 2020; nanoGPT's practice)."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if _dimensions(parameter) >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if _dimensions(parameter) < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _dimensions(parameter: nn.Parameter) -> int:
    """Of the whole parameter, also if only a shard of it is here."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """The trained matrices between embedding and head. A head is a linear layer of the outermost module."""
    outer = {id(one) for child in module.modules() if isinstance(child, nn.Embedding) for one in child.parameters()}
    outer |= {id(one) for child in module.children() if isinstance(child, nn.Linear) for one in child.parameters()}
    return [one for one in module.parameters() if one.requires_grad and one.dim() == 2 and id(one) not in outer]


class Both(torch.optim.Optimizer):
    """Two optimizers of different parameters, with one state and one list of groups, as DeepSpeed wants them."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        super().__init__([{"params": group["params"]} for part in parts for group in part.param_groups], {})
        self.parts = parts
        self.param_groups = [group for part in parts for group in part.param_groups]
        for part in parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()


class Lamb(torch.optim.Optimizer):
    """Adam whose step for each matrix is scaled to the matrix's norm (You et al. 2020, algorithm 2)."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        first, second = group["betas"]
        gradient, mean, square = parameter.grad, state["exp_avg"], state["exp_avg_sq"]
        assert gradient is not None
        state["step"] += 1
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        step = mean / (1 - first ** state["step"])
        step /= (square / (1 - second ** state["step"])).sqrt() + LAMB_EPSILON
        step += group["weight_decay"] * parameter
        if parameter.dim() >= 2:  # norms and biases take plain steps, as in the authors' code
            long, wide = parameter.norm(), step.norm()
            step *= torch.where((long > 0) & (wide > 0), long / wide, 1.0)
        parameter.add_(step, alpha=-group["lr"])
