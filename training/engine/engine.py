"""Wraps DeepSpeed so that a stage's loop is: loss, backward, step. The engine never calls back into the stage.

The recipe fixes the batch. Processes and micro-batches only split it: each process takes batch / processes rows in
`accumulation` parts, and the gradients are averaged over all parts of all processes.
"""

import math
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn

from contract.errors import InputError, RecipeError
from contract.settings.training import Engine as EngineSettings
from contract.settings.training import Optim
from training.engine.job import Job


def lr_at(step: int, total: int, optim: Optim) -> float:
    """The learning rate of update `step`, counted from 0, of `total`.

    Linear warm-up that ends at `lr` after warmup_steps updates, or after warmup_fraction x total, then cosine or linear
    decay that reaches `lr x min_lr_fraction` with the last update (Radford et al. 2018; Brown et al. 2020, appendix B),
    or no decay.
    """
    warmup = math.ceil(total * optim.warmup_fraction) if optim.warmup_steps is None else optim.warmup_steps
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    if optim.schedule == "constant":
        return optim.lr
    done = (step - warmup + 1) / max(total - warmup, 1)
    left = (1 + math.cos(math.pi * done)) / 2 if optim.schedule == "cosine" else 1 - done
    return optim.lr * (optim.min_lr_fraction + (1 - optim.min_lr_fraction) * left)


def deepspeed_config(engine: EngineSettings, clip: float, micro_batch: int, accumulation: int) -> dict[str, Any]:
    """DeepSpeed's own configuration.

    bf16 and offloading need ZeRO, whose optimizer keeps the float32 master weights. If the recipe sets no ZeRO stage
    for them, the stage is 2, because stage 1 in bf16 compiles C++ when it starts.
    """
    half = engine.dtype == "bf16"
    zero: dict[str, Any] = {"stage": engine.zero_stage or (2 if half or engine.offload_optimizer else 0)}
    if engine.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clip,
        "bf16": {"enabled": half},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        # On the CPU, torch's AdamW is slower than DeepSpeed's, but DeepSpeed's compiles at run time.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Apply weight decay to matrices, but not to norms and biases (Brown et al. 2020; nanoGPT's practice)."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.dim() >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.dim() < 2], "weight_decay": 0.0},
    ]


class Engine:
    """One module in training. A process may hold several engines."""

    def __init__(
        self,
        job: Job,
        module: nn.Module,
        optim: Optim,
        engine: EngineSettings,
        batch: int,
        total_steps: int,
    ) -> None:
        """`batch` is the rows of one update over all processes, `total_steps` the length of the schedule in updates.

        Raises RecipeError if the batch is not a multiple of processes x micro-batch.
        """
        self._stage, self._world = job.task.stage, job.ranks.world
        self.accumulation, self.micro_batch = self._parts(batch, engine.micro_batch), engine.micro_batch
        self.optim, self.total_steps, self.steps_done = optim, total_steps, 0
        module.to(job.ranks.device)
        module.train()  # loaded models are in evaluation mode, in which no layer recomputes its activations
        buffers = {name: value.clone() for name, value in module.named_buffers()}
        if engine.activation_checkpointing:
            module.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        self.decays = True
        """Whether the next update also applies the recipe's weight decay."""
        adam = torch.optim.AdamW(decay_groups(module, optim.weight_decay), lr=optim.lr, betas=optim.betas, fused=True)
        self._weight_decay = [group["weight_decay"] for group in adam.param_groups]
        config = deepspeed_config(engine, optim.clip, engine.micro_batch, self.accumulation)
        self.deepspeed, *_ = deepspeed.initialize(model=module, optimizer=adam, config=config)
        for name, buffer in self.module.named_buffers():
            # bf16 would also round the rotary frequencies, which distorts long positions
            buffer.data = buffers[name].to(buffer.device)
        self._micro = 0

    def _parts(self, batch: int, micro_batch: int) -> int:
        """The parts in which a process runs its rows of a batch."""
        if batch % (self._world * micro_batch):
            raise RecipeError(
                f"{self._stage}: batch {batch} is not a multiple of {self._world} processes x "
                f"engine.micro_batch {micro_batch}; change engine.processes, engine.micro_batch or the batch"
            )
        return batch // (self._world * micro_batch)

    def resize(self, batch: int, micro_batch: int) -> None:
        """Go on with batches of another number of rows. Raises RecipeError as the constructor does."""
        self.accumulation, self.micro_batch = self._parts(batch, micro_batch), micro_batch
        self.deepspeed.set_train_micro_batch_size(micro_batch)
        self.deepspeed.set_train_batch_size(batch)
        self.deepspeed.micro_steps = 0  # it updates where their number is a multiple of the accumulation

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return lr_at(self.steps_done, self.total_steps, self.optim)

    @property
    def zero_stage(self) -> int:
        """The ZeRO stage in use; bf16 and offloading raise stage 0 to 2."""
        return int(self.deepspeed.zero_optimization_stage())

    @property
    def module(self) -> nn.Module:
        """The bare module, for evaluation, sampling and saving."""
        module: nn.Module = self.deepspeed.module
        return module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The forward pass whose loss `backward` takes."""
        return self.deepspeed(*args, **kwargs)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro-batch. Its loss has weight 1 / (accumulation x processes) in the update."""
        self._micro += 1
        if self._micro > self.accumulation:
            raise RuntimeError(
                f"backward was called {self._micro} times before step; this batch has {self.accumulation} parts"
            )
        self.deepspeed.backward(loss)
        if self._micro < self.accumulation:
            self.deepspeed.step()  # only counts the part; DeepSpeed updates on the last part

    def step(self) -> float:
        """Clip, update the weights at this update's learning rate, and return the gradients' norm before clipping.

        Raises InputError on every process if that norm is NaN or infinite; the weights then stay as before the update.
        """
        if self._micro != self.accumulation:
            raise RuntimeError(f"step was called after {self._micro} of {self.accumulation} parts of the batch")
        norm = self._grad_norm()
        if norm is not None:
            self._check(float(norm))
        rate = self.lr
        for group, decay in zip(self.deepspeed.optimizer.param_groups, self._weight_decay, strict=True):
            group["lr"], group["weight_decay"] = rate, decay if self.decays else 0.0
        self.deepspeed.step()
        self.steps_done += 1
        self._micro = 0
        total = float(self.deepspeed.get_global_grad_norm() if norm is None else norm)
        # ZeRO skips an update whose gradients overflow, and then gives their norm as infinite.
        self._check(total)
        return total

    def _check(self, norm: float) -> None:
        if not math.isfinite(norm):
            raise InputError(
                f"{self._stage}: the gradients' norm is {norm} in update {self.steps_done + 1}; "
                f"training diverged, lower the learning rate or clip of {self._stage}"
            )

    def _grad_norm(self) -> Tensor | None:
        """The gradients' norm without ZeRO, where DeepSpeed does not give it. With ZeRO None: known after the step."""
        if self.zero_stage > 0:
            return None
        gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)
