"""Reads and writes a DeepSpeed engine's state as whole float32 tensors, one parameter at a time, however it is cut.

All processes must call these functions together: under ZeRO 1 to 3 and tensor parallelism each parameter is gathered
from all of them. The processes of a pipeline's stage have its parameters only.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import deepspeed
import torch
from deepspeed.checkpoint.constants import DS_AUTOTP_UC_META
from deepspeed.utils import (
    lazy_init_hp_params_optimizer_state,
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_get_local_fp32_param,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor

from contract.errors import RecipeError
from contract.settings.training import Engine as EngineSettings

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's and LAMB's


Weights = Callable[[str], Tensor]
"""A parameter's whole float32 weights, by its name."""


def laid_over(config: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A nested configuration with the values of another one, where that has any."""
    both = {key: (config[key], value) for key, value in given.items() if isinstance(config.get(key), dict)}
    inner = {key: laid_over(ours, value) for key, (ours, value) in both.items() if isinstance(value, dict)}
    return {**config, **given, **inner}


def in_shards(engine: EngineSettings, world: int) -> contextlib.AbstractContextManager[Any]:
    """Under ZeRO 3, a module that is made within has its parameters in shards, so that no process ever holds it whole.

    The shards have no values yet: give the module an attribute `whole_weights`, of type `Weights`, which says them.
    """
    if engine.stage_in_force != 3:
        return contextlib.nullcontext()
    sharded = {"stage": 3, **({"offload_param": {"device": "cpu"}} if engine.offload_parameters else {})}
    half = {name: {"enabled": engine.dtype == name} for name in ("bf16", "fp16")}
    config = laid_over({"train_batch_size": world, "zero_optimization": sharded, **half}, engine.deepspeed)
    try:
        # The configuration says the precision: without fp16, DeepSpeed takes bf16 for any that is passed.
        made: contextlib.AbstractContextManager[Any] = deepspeed.zero.Init(config_dict_or_path=config)
    except (ValueError, TypeError, AssertionError, NotImplementedError) as error:
        if not engine.deepspeed:
            raise
        raise RecipeError(f"engine.deepspeed: DeepSpeed refuses it ({error})") from error
    return made


def read(engine: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each trained parameter's name with its `weight` and, after the first update, its two moments."""
    stage = engine.zero_optimization_stage()
    begun = any(_optimizer(engine).state.values())  # DeepSpeed asks for states, and so makes empty ones
    if begun:
        _link(engine)
    for name, parameter in _trained(engine):
        tensors = {"weight": _weight(engine, parameter)}
        if stage == 0:
            state = _optimizer(engine).state.get(parameter, {})
            tensors |= {key: value for key, value in state.items() if value.shape == parameter.shape}
        elif begun:
            tensors |= {key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}
        yield name, {key: _whole(parameter, value).float().contiguous() for key, value in tensors.items()}


def weights(engine: Any) -> Iterator[tuple[str, Tensor]]:
    """Each trained parameter's name and whole float32 weights; half precision computes with a rounded copy of them."""
    return ((name, _whole(parameter, _weight(engine, parameter)).float()) for name, parameter in _trained(engine))


def write(engine: Any, lookup: Callable[[str], Mapping[str, Tensor]], updates: int) -> None:
    """Put back the state that `read` gave. `lookup` returns the tensors of one parameter, by its name.

    `updates` is the number of updates that AdamW has made, for its bias correction. Raises RuntimeError if a shape
    differs, and whatever `lookup` raises for an unknown parameter.
    """
    stage = engine.zero_optimization_stage()
    _begin(engine, updates)
    for name, parameter in _trained(engine):
        tensors = {key: value.to(engine.device) for key, value in lookup(name).items()}
        found = tuple(tensors["weight"].shape)
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=stage == 3), torch.no_grad():
            if found != (wanted := _whole_shape(parameter)):
                raise RuntimeError(f"{name}: shape {found}, the model has {wanted}")
            tensors = {key: _piece(parameter, value) for key, value in tensors.items()}
            parameter.copy_(tensors["weight"])
        if stage == 0 and updates:
            _optimizer(engine).state[parameter] = _state(tensors, updates)
        for key in MOMENTS if stage and updates else ():
            _write_moment(engine, parameter, key, tensors[key])
        if stage == 3:
            safe_set_local_fp32_param(parameter, _partition(parameter, tensors["weight"]))
        elif stage:
            safe_set_full_fp32_param(parameter, tensors["weight"])


SCALING = ("cur_scale", "min_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


def loss_scale(engine: Any) -> dict[str, float]:
    """The state of fp16's dynamic loss scaling, the same on every rank; empty if the loss is not scaled so."""
    scaler = getattr(engine.optimizer, "loss_scaler", None)
    return {name: getattr(scaler, name) for name in SCALING} if getattr(scaler, "dynamic", False) else {}


def set_loss_scale(engine: Any, state: Mapping[str, float]) -> None:
    """Put back what `loss_scale` gave. A run that did not scale its loss before begins with DeepSpeed's own state."""
    for name, value in state.items() if loss_scale(engine) else ():
        setattr(engine.optimizer.loss_scaler, name, value)


def tolerate_overflow(engine: Any) -> None:
    """Let an update that overflows at the lowest loss scale be skipped as any other, instead of ending the process."""
    if loss_scale(engine):
        engine.optimizer.loss_scaler.raise_error_at_min_scale = False


def _whole(parameter: Any, piece: Tensor) -> Tensor:
    """Gather the tensor of which each process of a tensor-parallel group has a piece, cut like the parameter."""
    if not hasattr(parameter, "gather_params"):
        return piece
    made = piece.detach().clone()
    parameter.gather_params([made])  # DeepSpeed's layer knows how it was cut, and replaces the data of what it is given
    return made


def _piece(parameter: Any, whole: Tensor) -> Tensor:
    """This process's piece of a whole tensor, cut as the parameter is."""
    if not hasattr(parameter, "gather_params"):
        return whole
    made = whole.clone()
    parameter._tp_partition([made])
    return made


def _whole_shape(parameter: Any) -> tuple[int, ...]:
    described = getattr(parameter, DS_AUTOTP_UC_META, None)
    return tuple(described["logical_shape"] if described else parameter.shape)


def _weight(engine: Any, parameter: Any) -> Tensor:
    if engine.zero_optimization_stage() == 0:
        return parameter.detach()  # type: ignore[no-any-return]
    whole: Tensor = safe_get_full_fp32_param(parameter)
    return whole


def norm_in_step(engine: Any) -> float:
    """The norm of the gradients before clipping, in the middle of `engine.step()`, under ZeRO.

    DeepSpeed's own `get_global_grad_norm` gives it only when the weights have already moved.
    """
    return float(engine.optimizer._global_grad_norm)


def _write_moment(engine: Any, parameter: Tensor, key: str, value: Tensor) -> None:
    stage = engine.zero_optimization_stage()
    if stage == 3:
        safe_set_local_optimizer_state(parameter, _partition(parameter, value), key)
    else:
        safe_set_full_optimizer_state(parameter, value, key)


def _state(tensors: Mapping[str, Tensor], updates: int) -> dict[str, Tensor]:
    """An optimizer's state of one parameter without ZeRO. The optimizers that count have moments, Muon has not."""
    state = {key: value.clone() for key, value in tensors.items() if key != "weight"}
    if state.keys() >= set(MOMENTS):
        state["step"] = torch.tensor(float(updates), device=state["exp_avg"].device)
    return state


def _begin(engine: Any, updates: int) -> None:
    """Give AdamW the zero moments that it would make in its first update, and the number of updates."""
    adam = _optimizer(engine)
    adam.state.clear()
    if not updates or engine.zero_optimization_stage() == 0:
        return
    for tensor in _optimised(engine):
        adam.state[tensor] = {
            "step": torch.tensor(float(updates), device=tensor.device),
            **{key: torch.zeros_like(tensor, memory_format=torch.preserve_format) for key in MOMENTS},
        }
    _link(engine)


def _link(engine: Any) -> None:
    """Link the parameters to their moments, where ZeRO 1 and 2 look for them.

    DeepSpeed makes these links once, after the first parameter group's first update, when the other groups have no
    moments yet.
    """
    for attribute in ("bit16_groups", "bf16_groups"):
        if hasattr(engine.optimizer, attribute):
            for group, flat in zip(getattr(engine.optimizer, attribute), _optimised(engine), strict=True):
                lazy_init_hp_params_optimizer_state(group, flat, _optimizer(engine).state)


def _optimizer(engine: Any) -> torch.optim.Optimizer:
    """The optimizer inside DeepSpeed's wrappers: with ZeRO torch's AdamW, without any of the recipe's."""
    own: torch.optim.Optimizer = engine.basic_optimizer
    return own


def _optimised(engine: Any) -> list[Tensor]:
    """The tensors that AdamW itself updates under ZeRO: this process's flat float32 partitions."""
    for attribute in ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition"):
        if hasattr(engine.optimizer, attribute):
            return list(getattr(engine.optimizer, attribute))
    raise RuntimeError(f"cannot restore DeepSpeed's {type(engine.optimizer).__name__}")


def _trained(engine: Any) -> Iterator[tuple[str, Any]]:
    return ((name, parameter) for name, parameter in engine.module.named_parameters() if parameter.requires_grad)


def _partition(parameter: Any, value: Tensor) -> Tensor:
    """This process's part of a whole tensor under ZeRO 3, padded with zeros as DeepSpeed pads it."""
    size, rank = safe_get_local_fp32_param(parameter).numel(), torch.distributed.get_rank()
    whole = torch.zeros(size * torch.distributed.get_world_size(), dtype=value.dtype, device=value.device)
    whole[: value.numel()] = value.flatten()
    return whole[size * rank : size * (rank + 1)]
