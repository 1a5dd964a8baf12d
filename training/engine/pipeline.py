"""Pipeline parallelism: the processes of a group hold one stage of the decoder each, and pass micro-batches along.

A stage is the whole model without what other stages have, so its parameters keep their names, and a checkpoint of
stages fits the whole model. The first stage embeds; the last has the final norm and the output layer, and alone knows
the loss.

Micro-batches pass as in PipeDream-Flush, "one forward, one backward" (Narayanan et al. 2021, section 2.2): a stage
holds the activations of at most as many micro-batches as there are stages from it to the end. It is written here
because DeepSpeed's own pipeline makes the updates itself, where the guard and ZeRO 2 have no place, and PyTorch's calls
autograd, where ZeRO does not see the gradients.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # perf/gpu.py imports this where DeepSpeed is not
    from training.engine.ranks import Ranks

PLAIN = frozenset({"llama", "mistral", "olmo2", "qwen2", "qwen3"})
"""Model types whose forward pass is embeddings, layers, a norm and an output layer, and nothing between or after them.

Others may scale what stands between, and each stage would scale it again.
"""

HELD = 2
"""How many transfers (hidden states or their gradients) a process holds per stage until they have arrived."""


class Elsewhere(nn.Module):
    """Stands for a module that another stage has. Returns its input."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden


class Lent(nn.Module):
    """The last stage's output layer where embeddings are tied: the first stage's embeddings, lent for one step.

    So they have one owner, with one optimizer state. The gradient is summed in float32.
    """

    weight: Tensor

    def forward(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.weight.to(hidden.dtype))


def layers_of(stage: int, stages: int, layers: int) -> range:
    """The decoder layers of a stage: the numbers of layers of any two stages differ by at most one."""
    return range(layers * stage // stages, layers * (stage + 1) // stages)


def turns(stage: int, stages: int, parts: int) -> Iterator[tuple[str, int]]:
    """("forward" or "backward", number of the micro-batch), in the order in which a stage runs them."""
    ahead = min(stages - stage - 1, parts)
    yield from (("forward", part) for part in range(ahead))
    for part in range(parts - ahead):
        yield "forward", ahead + part
        yield "backward", part
    yield from (("backward", part) for part in range(parts - ahead, parts))


class Groups:
    """How DeepSpeed asks for the groups: processes of one copy of the model, and processes with the same stage.

    It averages gradients and shares out states between the latter, and sums squared norms over the former.
    """

    def __init__(self, ranks: "Ranks") -> None:
        model = [list(range(first, first + ranks.group)) for first in range(0, ranks.world, ranks.group)]
        data = [list(range(place, ranks.world, ranks.group)) for place in range(ranks.group)]
        self._ranks, self._data_ranks = ranks, data[ranks.place]
        self._model_group = [torch.distributed.new_group(one) for one in model][ranks.replica]
        self._data_group = [torch.distributed.new_group(one) for one in data][ranks.place]

    def get_model_parallel_group(self) -> Any:
        return self._model_group

    def get_model_parallel_rank(self) -> int:
        return self._ranks.place

    def get_model_parallel_world_size(self) -> int:
        return self._ranks.group

    def get_data_parallel_group(self) -> Any:
        return self._data_group

    def get_data_parallel_group_ranks(self) -> list[int]:
        return self._data_ranks

    def get_data_parallel_rank(self) -> int:
        return self._ranks.replica

    def get_data_parallel_world_size(self) -> int:
        return self._ranks.replicas


@dataclass
class Pipeline:
    """One stage, and its way to its neighbours. `tied`: the last stage borrows the first one's embeddings."""

    ranks: "Ranks"
    width: int
    dtype: torch.dtype
    tied: bool
    groups: Groups
    onward: Any
    """The process group of what goes from a stage to a later one."""
    back: Any
    """The other way, so that neither ever waits for the other."""
    _sent: list[tuple[Any, Tensor]] = field(default_factory=list)
    """What was sent last, with its transfer: of a transfer that is under way the tensor must stay."""

    @property
    def stage(self) -> int:
        return self.ranks.place

    @property
    def stages(self) -> int:
        return self.ranks.group

    @property
    def first(self) -> bool:
        return self.stage == 0

    @property
    def last(self) -> bool:
        return self.stage == self.stages - 1

    def turns(self, parts: int) -> Iterator[tuple[str, int]]:
        """`turns` of this stage."""
        return turns(self.stage, self.stages, parts)

    def receive(self, rows: int, length: int) -> Tensor | None:
        """The hidden states of a micro-batch from the stage before, (rows, length, width); None on the first stage."""
        return None if self.first else self._receive((rows, length, self.width), self.dtype, -1, self.onward)

    def send(self, hidden: Tensor) -> None:
        """Hidden states to the next stage."""
        self._send(hidden.detach(), 1, self.onward)

    def receive_gradient(self, hidden: Tensor) -> Tensor:
        """From the next stage, the gradient of the hidden states that it was sent."""
        return self._receive(tuple(hidden.shape), hidden.dtype, 1, self.back)

    def send_gradient(self, gradient: Tensor) -> None:
        """To the stage before."""
        self._send(gradient, -1, self.back)

    def lend(self, module: Any) -> None:
        """Before a step: the first stage lends its embeddings to the last one's output layer, if they are tied."""
        if not self.tied:
            return
        if self.first:
            self._send(module.get_input_embeddings().weight.detach(), self.stages - 1, self.onward)
        elif self.last:
            shape = (module.config.vocab_size, self.width)
            lent = self._receive(shape, self.dtype, 1 - self.stages, self.onward)
            module.lm_head.weight = lent.float().requires_grad_()

    def give_back(self, module: Any) -> None:
        """After the last stage's last backward pass: the gradient of what it was lent."""
        if self.tied and self.last:
            self._send(module.lm_head.weight.grad, 1 - self.stages, self.back)

    def given_back(self, module: Any) -> Tensor:
        """On the first stage, before its last backward pass: a term whose gradient is the one that it gets back."""
        if not (self.tied and self.first):
            return torch.zeros((), device=self.ranks.device)
        weight: Tensor = module.get_input_embeddings().weight
        gradient = self._receive(tuple(weight.shape), torch.float32, self.stages - 1, self.back)
        return (weight.float() * gradient).sum()

    def collect(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of all stages by name, on the CPU, on rank 0; the others get none. `found` are a stage's own.

        Every process calls it; only those of the first copy of the model have any.
        """
        for stage in range(1, self.stages):
            mine = self.ranks.rank == stage
            names = self.ranks.gather([(name, tuple(one.shape)) for name, one in found.items()] if mine else [])[stage]
            for name, shape in names:
                if mine:
                    torch.distributed.send(found[name].to(self.ranks.device), 0)
                elif self.ranks.rank == 0:
                    whole = torch.empty(shape, device=self.ranks.device)
                    torch.distributed.recv(whole, stage)
                    found[name] = whole.cpu()
        return found if self.ranks.rank == 0 else {}

    def settle(self) -> None:
        """Wait until all that was sent has left."""
        for work, _ in self._sent:
            work.wait()
        self._sent = []

    def _send(self, tensor: Tensor, by: int, group: Any) -> None:
        """To the process `by` places on, without waiting for it.

        It waits for what it sent 2 x stages transfers ago, which no longer need be held. In the order of turns the
        receiver has had it before it could answer what was sent since.
        """
        if len(self._sent) == HELD * self.stages:
            self._sent.pop(0)[0].wait()
        whole = tensor.contiguous()
        self._sent.append((torch.distributed.isend(whole, self.ranks.rank + by, group), whole))

    def _receive(self, shape: tuple[int, ...], dtype: torch.dtype, by: int, group: Any) -> Tensor:
        made = torch.empty(shape, dtype=dtype, device=self.ranks.device)
        torch.distributed.recv(made, self.ranks.rank + by, group)
        return made


def fits(module: Any) -> bool:
    """Whether a model can be cut into stages. Experts cannot: routers of all but the last would get no balance."""
    return module.config.model_type in PLAIN


def cut(module: Any, ranks: "Ranks", dtype: torch.dtype) -> Pipeline:
    """Make a whole model, which `fits`, this process's stage, in place. Every process calls it."""
    inner = module.base_model
    tied = module.lm_head.weight is inner.embed_tokens.weight
    ways = [torch.distributed.new_group() for _ in range(2)]
    pipeline = Pipeline(ranks, module.config.hidden_size, dtype, tied, Groups(ranks), *ways)
    own = layers_of(pipeline.stage, pipeline.stages, len(inner.layers))
    for number in range(len(inner.layers)):
        if number not in own:
            inner.layers[number] = Elsewhere()
    if not pipeline.last:
        inner.norm, module.lm_head = Elsewhere(), Elsewhere()
    elif tied:
        module.lm_head = Lent()
    if not pipeline.first:
        inner.embed_tokens = Elsewhere()
    for parameter in module.parameters():
        parameter.model_parallel = True  # DeepSpeed then counts it in the norm, whatever stage it is in
    module.pipeline = pipeline
    return pipeline
