"""Models that only compute: whole on the device, in the CPU's memory until they are asked, or in ZeRO 3's shards."""

import contextlib
from collections.abc import Iterator
from typing import Any

import deepspeed
import torch
from torch import nn

from contract.settings.training import Engine as EngineSettings
from training.engine.job import Job
from training.engine.zero import laid_over
from training.models.llama import cast
from training.models.lora import without_adapters


class Frozen:
    """A model that never learns. `awake` lends it; asleep, it takes no memory of the device if it is offloaded."""

    def __init__(self, module: nn.Module, device: torch.device | str = "cpu", offload: bool = False) -> None:
        """`offload`: the weights stay in the CPU's memory, and are copied to the device while the model is awake."""
        self.module = module.eval().requires_grad_(False)
        self._device, self._depth = torch.device(device), 0
        self._offload = offload and self._device.type != "cpu"
        self._kept: list[tuple[nn.Parameter, torch.Tensor]] = []
        if self._offload:
            for buffer in module.buffers():  # they are small
                buffer.data = buffer.to(self._device)
            self._kept = [(one, one.data.cpu().pin_memory()) for one in module.parameters()]
            self._sleep()
        else:
            self.module.to(self._device)

    @contextlib.contextmanager
    def awake(self) -> Iterator[nn.Module]:
        """The model, ready to compute on the device."""
        self._depth += 1
        if self._depth == 1:
            for parameter, kept in self._kept:
                parameter.data = kept.to(self._device, non_blocking=True)
        try:
            yield self.module
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._sleep()

    def held(self) -> contextlib.AbstractContextManager[Any]:
        """Context in which it stays awake from one use to the next."""
        return self.awake()

    def _sleep(self) -> None:
        for parameter, kept in self._kept:
            parameter.data = kept


class Adapted:
    """The model that a policy with adapters began as: the policy itself, with its adapters switched off.

    It takes no memory of its own.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @contextlib.contextmanager
    def awake(self) -> Iterator[nn.Module]:
        training = self.module.training
        with without_adapters(self.module):
            yield self.module.eval()
        self.module.train(training)

    def held(self) -> contextlib.AbstractContextManager[Any]:
        """Nothing to hold: between two uses the policy computes."""
        return contextlib.nullcontext()


def frozen(job: Job, module: nn.Module, engine: EngineSettings, offload: bool = False) -> Frozen:
    """A frozen model in the precision of those that learn; its buffers keep their own precision.

    Under ZeRO 3 each process holds a shard of it.
    """
    module = cast(module, engine.dtype)
    if engine.stage_in_force == 3:
        return Frozen(in_shards(job, module, engine), job.ranks.device)
    return Frozen(module, job.ranks.device, offload)


def in_shards(job: Job, module: nn.Module, engine: EngineSettings) -> nn.Module:
    """A model that only computes, with its weights cut over the processes, which gather a layer at a time."""
    sharded: dict[str, Any] = {"stage": 3}
    if engine.offload_parameters:
        sharded["offload_param"] = {"device": "cpu"}
    half = {name: {"enabled": engine.dtype == name} for name in ("bf16", "fp16")}
    passed = {"zero_optimization": engine.deepspeed.get("zero_optimization", {})}
    plain = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": sharded, "steps_per_print": None, **half}
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    made, *_ = deepspeed.initialize(model=module.requires_grad_(False), config=laid_over(plain, passed))
    held: nn.Module = made.module
    for name, buffer in held.named_buffers():
        buffer.data = buffers[name].to(buffer.device)  # half precision would round the rotary frequencies
    return held
