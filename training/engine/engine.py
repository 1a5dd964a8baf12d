"""Wraps DeepSpeed so that a stage's loop is: loss, backward, step. The engine never calls back into the stage.

The recipe fixes the batch. Processes and micro-batches only split it: each process takes batch / processes rows in
`accumulation` parts, and the gradients are averaged over all parts of all processes. Processes that share one copy of
the model, in tensor or pipeline parallelism, take the same rows and count as one.
"""

import contextlib
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.module_inject.tp_plan_converter import TPPlanConverter
from deepspeed.runtime.utils import is_model_parallel_parameter
from pydantic import BaseModel
from torch import Tensor, nn

from contract.errors import InputError, RecipeError
from contract.metrics import ROWS
from contract.settings.training import Engine as EngineSettings
from contract.settings.training import Optim
from training.engine import compiled, optimizers, pipeline, zero
from training.engine.guard import LEVEL, Guard
from training.engine.job import Job
from training.engine.schedule import lr_at


def deepspeed_config(engine: EngineSettings, clip: float, micro_batch: int, accumulation: int) -> dict[str, Any]:
    """DeepSpeed's own configuration. The recipe's `engine.deepspeed` is laid over it; it contradicts nothing of it."""
    sharded: dict[str, Any] = {"stage": engine.stage_in_force}
    if engine.offload_optimizer:
        sharded["offload_optimizer"] = {"device": "cpu"}
    if engine.offload_parameters:
        sharded["offload_param"] = {"device": "cpu"}
    if engine.overlap_communication is not None:
        sharded["overlap_comm"] = engine.overlap_communication
    config = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clip,
        "bf16": {"enabled": engine.dtype == "bf16", "check_grad_overflow": False},  # the guard looks at the norm
        "fp16": {"enabled": engine.dtype == "fp16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": sharded,
        # On the CPU, torch's AdamW is slower than DeepSpeed's, but DeepSpeed's compiles at run time.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }
    if engine.tensor_parallel > 1:
        # Losses are computed from whole logits.
        config["tensor_parallel"] = {"autotp_size": engine.tensor_parallel, "vocab_parallel_lm_head": False}
    return zero.laid_over(config, engine.deepspeed)


class GuardState(BaseModel):
    """What a checkpoint holds of a guard."""

    norms: list[float]
    skipped: int
    in_a_row: int
    refused: list[float]


class State(BaseModel):
    """What a checkpoint holds of an engine besides weights and moments."""

    steps: int
    updates: int
    guard: GuardState
    scale: dict[str, float]


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

        Raises RecipeError if the batch is not a multiple of processes x micro-batch, or the model cannot be shared.
        """
        _check_group(job, engine, module)
        self._job, self._stage, self._replicas = job, job.task.stage, job.ranks.replicas
        self.accumulation, self.micro_batch = self._parts(batch, engine.micro_batch), engine.micro_batch
        self.optim, self.total_steps = optim, total_steps
        self.steps_done = self.updates = 0  # all updates, and those that were not skipped
        self.guard, self.skipped, self.norm = Guard(optim.skip_above, optim.clip), False, 0.0  # of the last update
        self._refused: bool | None = None
        self._looked_at = 0.0  # the norm by which an update under ZeRO was judged
        self._withheld: list[tuple[Tensor, Tensor | None]] = []
        if engine.dtype == "fp16" and not get_accelerator().is_fp16_supported():
            device = job.ranks.device.type
            raise RecipeError(f"{self._stage}.engine.dtype: {device} cannot train in fp16; use bf16 or fp32")
        if job.ranks.rank == 0:
            print(_told(self._stage, engine), flush=True)
        self.compiled = compiled.wanted(job.task.stage, engine, job.ranks)
        self.parameters = sum(getattr(one, "ds_numel", one.numel()) for one in module.parameters())
        """Of the whole model; a tied embedding counts once."""
        self.pipeline = pipeline.cut(module, job.ranks, DTYPES[engine.dtype]) if engine.pipeline_stages > 1 else None
        exact = _exact(module, engine)
        self._prepare(module, engine)
        buffers = {name: value.clone() for name, value in module.named_buffers()}
        self.decays = True
        """Whether the next update also applies the recipe's weight decay."""
        optimizer = optimizers.make(module, optim)
        self._weight_decay = [group["weight_decay"] for group in optimizer.param_groups]
        config = deepspeed_config(engine, optim.clip, engine.micro_batch, self.accumulation)
        self.deepspeed = self._initialized(module, optimizer, config, engine)
        for name, buffer in self.module.named_buffers():
            # bf16 would also round the rotary frequencies, which distorts long positions
            buffer.data = buffers[name].to(buffer.device)
        if exact is not None:
            zero.write(self.deepspeed, lambda name: {"weight": exact(name)}, 0)
        optimizer.register_step_pre_hook(self._withhold)
        optimizer.register_step_post_hook(self._give_back)
        self._micro, self._losses = 0, torch.zeros((), device=job.ranks.device)

    def _prepare(self, module: nn.Module, engine: EngineSettings) -> None:
        """Bring a module to the device, ready to train as the recipe says."""
        module.to(self._job.ranks.device)
        module.train()  # loaded models are in evaluation mode, in which no layer recomputes its activations
        if engine.activation_checkpointing:
            moves = engine.offload_activations and self._job.ranks.device.type != "cpu"  # where they are already
            module.activation_checkpointing_enable({"use_reentrant": False}, offload=moves)  # type: ignore[operator]
        if self.compiled:
            compiled.compile_layers(module, any_length=self._stage != "pretrain")

    def _initialized(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any], engine: EngineSettings
    ) -> Any:
        """DeepSpeed's engine. Raises RecipeError if DeepSpeed refuses an option that the recipe passes through."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # some of its optimizers print how much memory they take
                groups = self.pipeline.groups if self.pipeline else None
                made, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config, mpu=groups)
        except (ValueError, TypeError, AssertionError, NotImplementedError) as error:
            if not engine.deepspeed:
                raise
            raise RecipeError(f"{self._stage}.engine.deepspeed: DeepSpeed refuses it ({error})") from error
        zero.tolerate_overflow(made)
        return made

    def _parts(self, batch: int, micro_batch: int) -> int:
        """The parts in which a process runs its rows of a batch."""
        if batch % (self._replicas * micro_batch):
            what = "processes" if self._job.ranks.group == 1 else "copies of the model"
            raise RecipeError(
                f"{self._stage}: batch {batch} is not a multiple of {self._replicas} {what} x "
                f"engine.micro_batch {micro_batch}; change engine.processes, engine.micro_batch or the batch"
            )
        return batch // (self._replicas * micro_batch)

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
        """The ZeRO stage in force."""
        return int(self.deepspeed.zero_optimization_stage())

    @property
    def module(self) -> nn.Module:
        """The bare module, for evaluation, sampling and saving."""
        module: nn.Module = self.deepspeed.module
        return module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The forward pass whose loss `backward` takes."""
        return self.deepspeed(*args, **kwargs)

    def backward(self, loss: Tensor, weighted: bool = False) -> None:
        """Add the gradients of one micro-batch. Its loss has weight 1 / (accumulation x processes) in the update.

        `weighted`: the loss is made of gradients that have the weight 1 / accumulation already.
        """
        self._micro += 1
        if self._micro > self.accumulation:
            raise RuntimeError(
                f"backward was called {self._micro} times before step; this batch has {self.accumulation} parts"
            )
        self._losses += loss.detach()  # NaN or infinite if any is
        self.deepspeed.backward(loss, scale_wrt_gas=not weighted)
        if self._micro < self.accumulation:
            self.deepspeed.step()  # only counts the part; DeepSpeed updates on the last part

    def step(self) -> float:
        """Clip, update the weights at this update's learning rate, and return the gradients' norm before clipping.

        An update that the guard refuses leaves weights and moments as they were, and `skipped` is then true. It counts
        all the same: the schedule goes on, as the data do, so a skipped update costs one step and no more.
        """
        if self._micro != self.accumulation:
            raise RuntimeError(f"step was called after {self._micro} of {self.accumulation} parts of the batch")
        norm, scale = self._grad_norm(), zero.loss_scale(self.deepspeed)
        self._refused = None if norm is None else self.guard.refuses(norm)
        rate = self.lr
        for group, decay in zip(self.deepspeed.optimizer.param_groups, self._weight_decay, strict=True):
            group["lr"], group["weight_decay"] = rate, decay if self.decays else 0.0
        self.deepspeed.step()
        if norm is None:
            # If it never called the optimizer, it found an overflow, and its norm is infinite also where it is NaN.
            norm = float(self.deepspeed.get_global_grad_norm()) if self._refused is None else self._looked_at
        self.steps_done += 1
        self._micro = 0
        self.norm, self.skipped = norm, self.guard.refuses(norm)
        if scale and not math.isfinite(norm) and not self._bad_loss(scale):
            self._say_overflow(scale["cur_scale"])
        elif self.skipped:
            self.guard.left_out(norm)
        else:
            self.updates += 1
            self.guard.applied(norm)
        self._losses.zero_()
        return norm

    def _bad_loss(self, scale: Mapping[str, float]) -> bool:
        """Whether an infinite norm in fp16 comes of the batch, as every rank finds, and not of the scale of the loss.

        It does if the loss itself, which nothing has scaled, is NaN or infinite, or the scale cannot fall further. The
        scale then stays, because such a batch says nothing about it.
        """
        bad = bool(self._job.ranks.sum(float(not bool(self._losses.isfinite())))[0])
        if bad:
            zero.set_loss_scale(self.deepspeed, scale)
        return bad or scale["cur_scale"] <= scale["min_scale"]

    def _say_overflow(self, scale: float) -> None:
        """In fp16 an infinite norm first says that the loss was scaled too far up, and nothing about the batch."""
        self.skipped = False
        now = zero.loss_scale(self.deepspeed)["cur_scale"]
        if self._job.ranks.rank == 0:
            made = f"update {self.steps_done} overflowed with the loss scaled by {scale:g} and was not made"
            print(f"{self._stage}: {made}; the scale is now {now:g}", flush=True)

    def report_skip(self, step: int, rows: Iterable[tuple[str, int]], what: str = "update", at_once: int = 1) -> None:
        """Say that the last update, of step `step`, was skipped, if it was, and keep the rows of its batch as curves.

        A row has a source, which may be empty, and a number. `at_once` is the number of updates that one batch makes.
        Raises InputError, on every rank, if the updates of `give_up_after` batches in a row were skipped.
        """
        if not self.skipped:
            return
        guard = self.guard
        listed: dict[str, list[int]] = {}
        for source, row in rows:
            listed.setdefault(source, []).append(row)
        self._job.curves.add(step, skipped=guard.skipped)
        for source, numbers in listed.items():
            for number in numbers:
                self._job.curves.add(step, **{f"{ROWS} {source}".strip(): number})
        usual = "none yet" if guard.median is None else f"{guard.median:.4g}"
        found = f"the norm of its gradients is {self.norm:.4g}, the running median {usual}"
        if self._job.ranks.rank == 0:
            said = ", ".join(" ".join(map(str, (source, *some))).strip() for source, some in listed.items())
            print(f"skipped {what} of {self._stage} in step {step}: {found}; rows of its batch: {said}", flush=True)
        if guard.at_new_level(LEVEL * at_once):
            if self._job.ranks.rank == 0:
                found = f"{LEVEL} batches in a row were skipped with norms near {self.norm:.4g}"
                print(f"{self._stage}: {found}: they are no bad batches, so the median starts anew", flush=True)
            guard.forget()
        elif guard.in_a_row >= self.optim.give_up_after * at_once:
            self._job.curves.read(self._job.ranks)  # so that whoever watches sees how it ended
            raise InputError(
                f"{self._stage}: {guard.in_a_row} updates in a row were skipped, the last in step {step}: {found}; "
                f"training diverged, lower the learning rate or clip of {self._stage}, or raise its skip_above"
            )

    def weights(self) -> dict[str, Tensor]:
        """The float32 weights, whole and on the CPU, by name: on rank 0. The others help to gather them and get none.

        Raises InputError on every rank if a weight is NaN or infinite.
        """
        found: dict[str, Tensor] = {}
        finite = True
        for name, weight in zero.weights(self.deepspeed):
            finite = finite and bool(weight.isfinite().all())
            if self._job.ranks.rank == 0 or (self.pipeline and self._job.ranks.replica == 0):
                found[name] = weight.cpu().contiguous()
        if self._job.ranks.sum(float(not finite))[0]:
            raise InputError(
                f"{self._stage}: the model's weights contain NaN or Inf: training diverged; "
                "lower the learning rate or clip"
            )
        return self.pipeline.collect(found) if self.pipeline else found

    def figures(self) -> dict[str, Any]:
        """The figures that every stage commits of its training."""
        return {**self._job.curves.skips(), "zero_stage": self.zero_stage}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold besides weights and moments, as JSON values: those of `State`."""
        return {
            "steps": self.steps_done,
            "updates": self.updates,
            "guard": self.guard.state(),
            "scale": zero.loss_scale(self.deepspeed),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        self.steps_done, self.updates = state["steps"], state["updates"]
        self.guard.restore(state["guard"])
        zero.set_loss_scale(self.deepspeed, state["scale"])

    def _withhold(self, optimizer: torch.optim.Optimizer, *given: Any) -> None:
        """Take the gradients away before the optimizer looks at them, if the guard refuses the update.

        DeepSpeed calls the optimizer after it has made the norm, under ZeRO once for each part of the weights.
        """
        if self._refused is None:
            self._looked_at = zero.norm_in_step(self.deepspeed)
            self._refused = self.guard.refuses(self._looked_at)
        if self._refused:
            self._withheld = [(one, one.grad) for group in optimizer.param_groups for one in group["params"]]
            for parameter, _ in self._withheld:
                parameter.grad = None

    def _give_back(self, *given: Any) -> None:
        """DeepSpeed clears the gradients itself, and where it offloads them it needs the same tensors again."""
        for parameter, own in self._withheld:
            parameter.grad = own
        self._withheld = []

    def _grad_norm(self) -> float | None:
        """The gradients' norm without ZeRO, where DeepSpeed does not give it. With ZeRO None: known after the step."""
        if self.zero_stage > 0:
            return None
        ranks = self._job.ranks
        counted = (one for one in self.module.parameters() if is_model_parallel_parameter(one) or ranks.place == 0)
        own = float(torch.nn.utils.get_total_norm([one.grad for one in counted if one.grad is not None]))
        if ranks.group > 1:  # what each process of a group has is counted once, as is what all of them have
            return math.sqrt(ranks.sum(own**2)[0] / ranks.replicas)
        return ranks.sum(own)[0] / ranks.world  # so that no rank judges by another last bit


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _check_group(job: Job, engine: EngineSettings, module: Any) -> None:
    """Raise RecipeError if the processes that are here cannot share this model as the settings say."""
    if engine.group == 1:
        return
    stage, shape = job.task.stage, module.config
    if job.ranks.group != engine.group:
        raise RecipeError(f"{stage}.engine: tensor_parallel and pipeline_stages are for pretrain and sft")
    heads = shape.num_attention_heads
    if why := engine.misfit(shape.num_hidden_layers, heads, getattr(shape, "num_key_value_heads", None) or heads):
        raise RecipeError(f"{stage}.engine.{why}")
    if engine.pipeline_stages > 1 and not pipeline.fits(module):
        raise RecipeError(
            f"{stage}.engine.pipeline_stages: {type(module).__name__} is not built of stages; "
            f"use {stage}.engine.zero_stage 3"
        )
    if engine.tensor_parallel > 1 and not _can_be_cut(getattr(shape, "base_model_tp_plan", None)):
        raise RecipeError(
            f"{stage}.engine.tensor_parallel: transformers does not say how to cut {type(module).__name__}, "
            f"or says it in a way that DeepSpeed does not know; use {stage}.engine.zero_stage 3"
        )


def _can_be_cut(plan: Mapping[str, str] | None) -> bool:
    """Whether DeepSpeed knows how to cut matrices as transformers plans it; it knows no cuts of experts."""
    try:
        return bool(plan) and TPPlanConverter.convert(plan) is not None
    except ValueError:
        return False


def _told(stage: str, engine: EngineSettings) -> str:
    """The line of the log that says which ZeRO stage is in force, and why if the recipe names another."""
    force = engine.stage_in_force
    if force == engine.zero_stage:
        return f"{stage}: ZeRO stage {force}"
    why = "offload_optimizer" if engine.dtype == "fp32" else engine.dtype
    return (
        f"{stage}: ZeRO stage {force}, because engine.zero_stage is 0 and {why} needs float32 weights of its own; "
        "not 1, which holds the float32 gradients of the whole model on every process"
    )


def _exact(module: nn.Module, engine: EngineSettings) -> zero.Weights | None:
    """The float32 weights to begin with; None if DeepSpeed begins with them by itself.

    It has none of a module that was made in shards, and those of half precision it would have rounded.
    """
    if hasattr(module, "whole_weights"):
        return module.whole_weights  # type: ignore[return-value]
    if engine.dtype == "fp32":
        return None
    copies = {name: one.detach().clone() for name, one in module.named_parameters()}
    return lambda name: copies[name]
