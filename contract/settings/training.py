"""The settings of the stages that train, evaluate and export models."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from contract.benchmarks import KNOWN, OWN, Ability, Measured, Own, step_of
from contract.chat import OWN_FORMAT, TEMPLATES
from contract.mixture import PRESETS
from contract.results import Evaluate as Evaluated
from contract.settings.base import (
    Batch,
    BelowOne,
    Count,
    Epochs,
    Fingerprint,
    Fraction,
    Length,
    Passes,
    Positive,
    Rate,
    Real,
    Rows,
    Seed,
    Settings,
    Text,
    Uri,
    Weight,
    runtime_only,
)
from contract.settings.corpus import CorpusSections, SeqLen

HEAD = 128
"""Numbers of a head in a shape that `depth` makes, as in LLaMA and nanochat."""
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_ -]{0,39}$")]  # a column of a table
VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]  # a part of a folder's name


Made = Annotated[str, Field(pattern=r"^(sft|ppo|dpo|grpo)/[0-9a-f]{40}$")]  # a model of another run of the store
Rewarding = Annotated[str, Field(pattern=r"^(reward|judge)/[0-9a-f]{40}$")]  # likewise a reward model
OwnName = Literal["sft", "aligned", "last"]  # a model of the run that replies, or compares replies


MADE = re.compile(r"(pretrain|sft|ppo|dpo|grpo)/[0-9a-f]{40}")


def made_by(*addresses: str | None) -> dict[str, tuple[str, ...]]:
    """Stage -> fingerprints, of the addresses of models; None and the names of the run's own models are none."""
    found: dict[str, dict[str, None]] = {}
    for address in addresses:
        stage, _, fingerprint = (address or "").partition("/")
        if fingerprint:
            found.setdefault(stage, {})[fingerprint] = None
    return {stage: tuple(some) for stage, some in found.items()}


class Model(Settings):
    """A LLaMA-style decoder: RMSNorm before each block, SwiGLU, rotary positions, grouped-query attention.

    With `experts`, the feed-forward part of each layer is a mixture of experts as in Mixtral.
    """

    depth: Annotated[int, Field(gt=0, le=1024, strict=True)] | None = runtime_only(None)
    """The whole shape from one number: so many layers, d_model 64 x depth, heads of 128 numbers.

    d_model is rounded up to whole heads; d_ff is 8/3 d_model, rounded up to a multiple of 256; kv_heads as many as
    heads. It only says the sizes below, so it is no part of a result's identity, and another size beside it is refused.
    """
    layers: Annotated[int, Field(gt=0, le=1024, strict=True)] = 12
    d_model: Annotated[int, Field(gt=0, le=1 << 17, strict=True)] = 768
    heads: Annotated[int, Field(gt=0, le=1024, strict=True)] = 12
    kv_heads: Annotated[int, Field(gt=0, le=1024, strict=True)] = 12
    d_ff: Annotated[int, Field(gt=0, le=1 << 19, strict=True)] = 2048
    """Upper bounds: about eight times Llama 3.1 405B's 126 layers, d_model 16,384, 128 heads and d_ff 53,248."""
    rope_theta: Annotated[Real, Field(gt=1, le=1e9)] = 10_000.0
    """Llama 3: 500,000. It must be above 1, because at 1 all dimensions would rotate alike."""
    tie_embeddings: bool = True
    experts: Annotated[int, Field(ge=0, le=1024, strict=True)] = 0
    """Experts of each layer, each of width d_ff; a router sends each token through some. 0: one network for all."""
    experts_per_token: Annotated[int, Field(gt=0, le=1024, strict=True)] = 2
    """How many experts each token goes through. The default is Mixtral's."""
    balance_coef: Annotated[Real, Field(ge=0, le=100)] = 0.01
    """The weight of the balancing loss (Switch Transformer, Fedus et al. 2022, section 2.2) in the training loss.

    Without it a few experts would get all tokens.
    """

    @model_validator(mode="before")
    @classmethod
    def _of_depth(cls, given: Any) -> Any:
        depth = given.get("depth") if isinstance(given, dict) else None
        if not isinstance(depth, int) or isinstance(depth, bool) or not 0 < depth <= 1024:
            return given
        shape = shape_of_depth(depth)
        for name, size in shape.items():
            if given.get(name, size) != size:
                raise ValueError(f"depth {depth} makes {name} {size}, not {given[name]}; say depth or {name}")
        return {**given, **shape}

    @model_validator(mode="after")
    def _chooses_experts(self) -> "Model":
        if 0 < self.experts < self.experts_per_token:
            raise ValueError(f"experts_per_token {self.experts_per_token} must be at most experts {self.experts}")
        return self

    @model_validator(mode="after")
    def _divides(self) -> "Model":
        if self.d_model % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"heads {self.heads} must divide d_model {self.d_model}, and kv_heads {self.kv_heads} must divide heads"
            )
        return self


def shape_of_depth(depth: int) -> dict[str, int]:
    """The sizes of a model of one number. That the width grows with the depth, 64 to 1, is nanochat's rule (Karpathy
    2025); Kaplan et al. 2020, section 3.2, found that loss hardly depends on the ratio. 8/3 is LLaMA's (Touvron et al.
    2023, section 2.2).
    """
    heads = -(-64 * depth // HEAD)
    width = heads * HEAD
    return {
        "layers": depth,
        "d_model": width,
        "heads": heads,
        "kv_heads": heads,
        "d_ff": -(-8 * width // 3 // 256) * 256,
    }


NEVER = 1 << 20
"""As `give_up_after`: goes on whatever happens."""


class Optim(Settings):
    """The optimizer and its schedule. Defaults are GPT-3's and LLaMA's (betas 0.9/0.95, weight decay 0.1, clip 1.0)."""

    optimizer: Literal["adamw", "lamb", "muon"] = "adamw"
    """LAMB scales each matrix's step by its norm (You et al. 2020), for very large batches. Muon makes the steps of the
    hidden matrices orthogonal (Jordan et al. 2024); AdamW moves the other parameters, at the same learning rate."""
    lr: Rate = 3e-4
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.95)
    weight_decay: Annotated[Real, Field(ge=0, le=10)] = 0.1
    clip: Annotated[Real, Field(gt=0, le=1e12)] = 1.0
    warmup_fraction: Fraction = 0.02
    """Of all steps."""
    warmup_steps: Count | None = None
    """If set, instead of `warmup_fraction`: then a longer run warms up alike, and can go on from a shorter one."""
    schedule: Literal["cosine", "polynomial", "linear", "wsd", "constant"] = "cosine"
    min_lr_fraction: Fraction = 0.1
    """Of `lr`, reached with the last update. `constant` never falls."""
    power: Annotated[Real, Field(gt=0, le=100)] = 2.0
    """Of the schedule `polynomial`; 1 is linear."""
    decay_fraction: Annotated[Real, Field(gt=0, le=1)] = 0.2
    """Of the updates after the warm-up: those in which the schedule `wsd` falls (warm-up, stable, decay)."""
    skip_above: Annotated[Real, Field(gt=1, le=1e6)] | None = 10.0
    """An update is skipped if the norm of its gradients is above this many times the median of the last 128, and above
    `clip`. Norms of a healthy run stay within about three times their median; those of broken data or hardware are
    often hundreds of times larger. An update of NaN or infinity is always skipped; null skips nothing else."""
    give_up_after: Annotated[int, Field(gt=0, le=NEVER, strict=True)] = runtime_only(10)
    """Batches in a row whose updates were all skipped, after which the run ends with an error.

    At 1048576, pretraining ends without one, and commits its model, also if the held-out loss is no number: a variant
    of an ablation that diverges is measured, too.
    """


class Engine(Settings):
    """How DeepSpeed runs a stage. The recipe fixes the global batch; `processes` only decides how it is split."""

    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """fp16 scales the loss as far up as its gradients stay finite. Beside bf16 and fp16, float32 weights are kept."""
    zero_stage: Annotated[int, Field(ge=0, le=3, strict=True)] = runtime_only(0)
    """0 becomes 2 where bf16, fp16 or offloading need ZeRO."""
    offload_optimizer: bool = runtime_only(False)
    """The optimizer's state is held and updated by the CPU."""
    offload_parameters: bool = runtime_only(False)
    """With ZeRO 3: the CPU also holds the weights that are not in use."""
    overlap_communication: bool | None = runtime_only(None)
    """Gradients are reduced while the backward pass goes on. Unset: in ZeRO 3 only, as DeepSpeed does by itself."""
    deepspeed: dict[str, Any] = runtime_only({})
    """Options of DeepSpeed's own configuration, such as {zero_optimization: {reduce_bucket_size: 100000000}}.

    Only those that change nothing but speed, memory and what is logged; the others follow from the recipe."""
    processes: Annotated[int, Field(gt=0, le=1024, strict=True)] = runtime_only(1)
    """Processes that `deepspeed` starts on this machine: one per GPU, or CPU processes if there is no GPU."""
    tensor_parallel: Annotated[int, Field(gt=0, le=64, strict=True)] = runtime_only(1)
    """Processes that share the matrices of every layer. They compute the same rows together, so they count as one when
    the batch is split. Only pretrain and sft; it must divide `processes` and the model's heads."""
    pipeline_stages: Annotated[int, Field(gt=0, le=64, strict=True)] = runtime_only(1)
    """Stages, one process each, into which the decoder layers are cut. They count as one when the batch is split; its
    micro-batches pass from stage to stage. Only pretrain and sft; it must divide `processes`."""
    micro_batch: Batch = runtime_only(8)
    """Sequences that a process runs at once; gradients are accumulated over the rest of the batch."""
    activation_checkpointing: bool = runtime_only(False)
    offload_activations: bool = runtime_only(False)
    """With activation checkpointing: what is kept, each layer's input, waits in the CPU's memory."""
    compile: bool = runtime_only(False)
    """torch.compile makes one program of each kind of layer, and of the loss: it takes a minute or two at the start.

    Left out, with a line in the log, under ZeRO 3, in `ppo` and `grpo`, and where the machine has no compiler."""
    checkpoint_steps: Positive = runtime_only(200)
    """A checkpoint takes 12 bytes per parameter; its upload runs behind the steps, one at a time."""
    log_steps: Positive = runtime_only(10)
    """The figures of so many steps are read from the device at once: in each reading the device runs empty."""
    keep_last: Annotated[int, Field(ge=0, le=10_000, strict=True)] = runtime_only(0)
    """The newest checkpoints that stay after the end. While a stage trains, at least 2 stay."""
    keep_every: Positive | None = runtime_only(None)
    """The checkpoints of steps that are multiples of this stay, too."""

    @property
    def stage_in_force(self) -> int:
        """The ZeRO stage that the recipe asks for; 2 if it asks for none but needs one.

        Half precision and offloading need ZeRO, whose optimizer keeps the float32 weights that every update changes.
        """
        return self.zero_stage or (2 if self.dtype != "fp32" or self.offload_optimizer else 0)

    @property
    def group(self) -> int:
        """The processes that hold one copy of the model together and read the same rows."""
        return self.tensor_parallel * self.pipeline_stages

    @property
    def replicas(self) -> int:
        """The copies of the model, between which the rows of a batch are split."""
        return self.processes // self.group

    @model_validator(mode="after")
    def _groups_that_work(self) -> "Engine":
        named = ", ".join(f"{key} {value}" for key, value in self._sharing().items())
        if self.processes % self.group:
            raise ValueError(f"processes {self.processes} is not a multiple of {named}; change one of them")
        if len(self._sharing()) > 1:
            raise ValueError(f"{named} cannot be combined; set one of them to 1")
        if named and self.zero_stage == 3:
            raise ValueError(
                f"{named} already shares out the weights, zero_stage 3 would cut them again; use 0, 1 or 2"
            )
        if self.pipeline_stages > 1 and self.dtype == "fp16":
            raise ValueError(f"{named} runs in fp32 or bf16: the stages would scale their losses apart; use bf16")
        return self

    def _sharing(self) -> dict[str, int]:
        """The settings by which several processes share one model."""
        found = {"tensor_parallel": self.tensor_parallel, "pipeline_stages": self.pipeline_stages}
        return {key: value for key, value in found.items() if value > 1}

    def misfit(self, layers: int, heads: int, kv_heads: int) -> str:
        """Why a model of this shape cannot be shared as the settings say; empty if it can."""
        for name, count in (("heads", heads), ("key and value heads", kv_heads)):
            if count % self.tensor_parallel:
                return f"tensor_parallel {self.tensor_parallel} does not divide the model's {count} {name}"
        if layers < self.pipeline_stages:
            return f"pipeline_stages {self.pipeline_stages} is more than the model's {layers} layers"
        return ""

    @model_validator(mode="after")
    def _offloads_what_is_sharded(self) -> "Engine":
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(f"offload_parameters needs zero_stage 3, not {self.zero_stage}")
        if self.offload_activations and not self.activation_checkpointing:
            raise ValueError("offload_activations is about what activation_checkpointing keeps; set that, too")
        return self

    @field_validator("deepspeed")
    @classmethod
    def _contradicts_nothing(cls, given: dict[str, Any]) -> dict[str, Any]:
        for path, value in _leaves(given):
            key = ".".join(path)
            for decided, setting in DECIDED.items():
                if f"{key}.".startswith(f"{decided}."):
                    raise ValueError(f"{key} would contradict the recipe: {setting}")
            if any(path == other[: len(path)] for other in OPTIONS - {path}):
                raise ValueError(f"{key} should hold options by name, got {value!r}")
            if path not in OPTIONS:
                raise ValueError(f"{key} is none of the options that change only speed, memory or what is logged")
            if value is None or isinstance(value, dict):
                raise ValueError(f"{key} should have a value, got {value!r}")
        return given


def _leaves(given: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The settings of nested ones that hold no others, with the names that lead to them."""
    for key, value in given.items():
        path = (*above, str(key))
        if value and isinstance(value, dict):
            yield from _leaves(value, path)
        else:
            yield path, value


OPTIONS = frozenset(
    tuple(key.split("."))
    for section, names in {
        "": "wall_clock_breakdown memory_breakdown dump_state disable_python_gc",
        "zero_optimization.": (
            "allgather_bucket_size allgather_partitions contiguous_gradients memory_efficient_linear "
            "reduce_bucket_size reduce_scatter round_robin_gradients sub_group_size use_multi_rank_bucket_allreduce "
            "stage3_allgather_sequential stage3_max_live_parameters stage3_max_reuse_distance "
            "stage3_model_persistence_threshold stage3_module_granularity_threshold "
            "stage3_param_persistence_threshold stage3_prefetch_bucket_size stage3_use_all_reduce_for_fetch_params "
            "offload_optimizer.pin_memory offload_param.pin_memory log_trace_cache_warnings enable_sanity_checks"
        ),
        "aio.": "block_size queue_depth intra_op_parallelism single_submit overlap_events",
        # They say how soon the largest scale is found at which gradients stay finite; powers of two round nothing.
        "fp16.": "initial_scale_power loss_scale_window hysteresis consecutive_hysteresis min_loss_scale",
        "comms_logger.": "enabled prof_all prof_ops verbose debug",
        "flops_profiler.": "enabled recompute_fwd_factor profile_step module_depth top_modules detailed",
        "timers.throughput.": "enabled synchronized",
    }.items()
    for key in (f"{section}{name}" for name in names.split())
)
"""Options of DeepSpeed that change only speed, memory or what is logged: they are passed through, and no others."""


DECIDED = {
    "train_batch_size": "set the batch of the stage instead",
    "train_micro_batch_size_per_gpu": "set engine.micro_batch instead",
    "gradient_accumulation_steps": "it follows from batch, engine.processes and engine.micro_batch",
    "managed_gradient_accumulation": "it follows from batch, engine.processes and engine.micro_batch",
    "gradient_clipping": "set optim.clip instead",
    "optimizer": "set optim.optimizer instead",
    "scheduler": "set optim.schedule instead",
    "bf16": "set engine.dtype instead; weights, gradients and moments are kept in float32 beside it",
    "bfloat16": "set engine.dtype instead",
    "fp16.enabled": "set engine.dtype instead",
    "fp16.auto_cast": "set engine.dtype instead",
    "fp16.loss_scale": "the scale follows the gradients",
    "fp16.fp16_master_weights_and_grads": "weights and gradients are kept in float32",
    "communication_data_type": "gradients are summed in float32",
    "activation_checkpointing": "set engine.activation_checkpointing instead",
    "amp": "set engine.dtype instead",
    "torch_autocast": "set engine.dtype instead",
    "data_types": "set engine.dtype instead; gradients are summed in float32",
    "zero_optimization.stage": "set engine.zero_stage instead",
    "zero_optimization.overlap_comm": "set engine.overlap_communication instead",
    "zero_optimization.offload_optimizer.device": "set engine.offload_optimizer instead",
    "zero_optimization.offload_param.device": "set engine.offload_parameters instead",
    "zero_optimization.cpu_offload": "set engine.offload_optimizer instead",
    "zero_optimization.cpu_offload_param": "set engine.offload_parameters instead",
    "zero_optimization.zero_quantized_gradients": "gradients are summed in float32",
    "zero_optimization.compute_grad_norm": "updates are judged and clipped by the norm",
    "tensor_parallel": "set engine.tensor_parallel instead",
    "pipeline": "set engine.pipeline_stages instead",
    "sequence_parallel_size": "batches are dealt to as many processes as there are",
    "elasticity": "it would change the batch",
    "autotuning": "it would change the batch",
    "curriculum_learning": "it would change the batches; set pretrain.phases instead",
    "data_efficiency": "it would change the batches; set pretrain.phases instead",
    "progressive_layer_drop": "it would change the model",
    "compression_training": "it would change the model",
    "steps_per_print": "progress is printed already",
}
"""Options of DeepSpeed that the recipe decides -> what to do instead."""


def _check_adapters(lora: "Lora", engine: Engine, optim: Optim) -> None:
    """Raise ValueError for an engine or an optimizer that cannot carry adapters."""
    if not lora.enabled:
        return
    if engine.stage_in_force == 3 or engine.group > 1:
        raise ValueError(
            "lora: the adapters are merged into whole matrices, and zero_stage 3, tensor_parallel and "
            "pipeline_stages cut these; use engine.zero_stage 0, 1 or 2"
        )
    if optim.optimizer == "muon":
        raise ValueError("lora: Muon makes updates of full rank, and adapters have none; use adamw")


def _check_aligning(lora: "Lora", engine: Engine, optim: Optim) -> None:
    """The same of a stage that aligns, which starts from `sft`'s result and holds no matrices of 4 bits."""
    _check_adapters(lora, engine, optim)
    if lora.enabled and lora.quantised:
        raise ValueError("lora.quantised is for sft; leave it out here")


def _check_whole(engine: Engine, **optims: Optim) -> None:
    """Raise ValueError for an optimizer that looks at whole matrices, which ZeRO cuts into pieces."""
    for name, optim in optims.items():
        if optim.optimizer != "adamw" and engine.tensor_parallel > 1:
            raise ValueError(
                f"{name}.optimizer {optim.optimizer} looks at whole matrices, and engine.tensor_parallel "
                f"{engine.tensor_parallel} cuts them; use adamw, or engine.pipeline_stages instead"
            )
        if optim.optimizer != "adamw" and engine.stage_in_force:
            needs = "offload_optimizer" if engine.dtype == "fp32" else engine.dtype
            why = "" if engine.zero_stage else f", which {needs} needs,"
            raise ValueError(
                f"{name}.optimizer {optim.optimizer} looks at whole matrices, and ZeRO {engine.stage_in_force}{why} "
                "cuts them; use adamw, or engine.dtype fp32 and engine.zero_stage 0 without offloading"
            )


class Mixture(Settings):
    """How often each source is read. The source `crawl` is the crawl; the others have the names of the recipe.

    Say at most one of `proportions`, `epochs` and `preset`; what it does not name is not read. If none is said, every
    source is read equally often.
    """

    proportions: dict[Text, Fraction] = {}
    """Source -> its share of the sequences drawn. They should add up to 1, give or take 0.02 for rounded tables."""
    epochs: dict[Text, Epochs] = {}
    """Source -> how often it is read, relative to the others; absolute if neither steps nor tokens are said."""
    preset: Literal["gpt3", "llama"] | None = None
    """The proportions of a published mixture, by the names of its sources: `contract/mixture.py` has the tables."""
    max_epochs: Annotated[Real, Field(gt=0, le=100)] | None = None
    """Of no source is more drawn than so many passes over as much text, counted from the first step.

    The others make up for it, in proportion. Phases of several lengths can read some text more often, other less."""

    @model_validator(mode="after")
    def _says_one(self) -> "Mixture":
        said = self.said()
        if len(said) > 1:
            raise ValueError(f"{' and '.join(said)} contradict each other; say one of them")
        for name in said:
            if name != "preset" and not any(getattr(self, name).values()):
                raise ValueError(f"{name} are all 0; give at least one source more")
        total = sum(self.proportions.values())
        if self.proportions and not 0.98 <= total <= 1.02:
            raise ValueError(f"proportions add up to {total:.6g}; they should add up to 1")
        return self

    def said(self) -> list[str]:
        """Which of the settings that name sources are set; at most one may be."""
        return [name for name in ("proportions", "epochs", "preset") if getattr(self, name)]

    def named(self) -> dict[str, float] | None:
        """The sources and numbers that proportions, epochs or preset say, or None if none of them does."""
        if self.preset:
            return {source: row.proportion for source, row in PRESETS[self.preset].sources.items()}
        return self.proportions or self.epochs or None


class Rope(Settings):
    """Rotary positions for longer sequences than those that the model began with."""

    type: Literal["default", "linear", "yarn", "llama3"] = "default"
    """default: only theta changes. linear: Chen et al. 2023; yarn: Peng et al. 2023; llama3: as in Llama 3.1."""
    factor: Annotated[Real, Field(ge=1, le=1024)] | None = None
    """How many times longer. If unset: the phase's seq_len / the length that the model began with, at least 1.

    That is `pack.seq_len`, or with `start_from` the model's max_position_embeddings."""
    theta: Annotated[Real, Field(gt=1, le=1e9)] | None = None
    """If unset: `pretrain.model.rope_theta`, or with `start_from` the model's own."""


class Phase(Settings):
    """A part of pretraining that has a mixture, a sequence length or rotary positions of its own."""

    share: Annotated[Real, Field(gt=0, le=1)]
    """Of all steps."""
    mixture: Mixture | None = None
    """If unset: `pretrain.mixture`."""
    seq_len: SeqLen | None = None
    """One of `pack.more_seq_lens`; if unset `pack.seq_len`. A step keeps its tokens: of longer sequences it has fewer.

    `engine.processes` must divide these. A process runs at most as many tokens at once as in `engine.micro_batch`
    sequences of `pack.seq_len`, but at least one sequence: the largest number that divides its part of a step."""
    rope: Rope | None = None
    """If unset: as in the phase before."""


class Blanks(Settings):
    """Blank infilling (Du et al. 2022, GLM): the model sees a text with blanks on both sides and writes what was there.

    The context, with one token for each blank, is seen whole; the spans follow in a random order, each from left to
    right. A row keeps its length, so about an eighth of its text is left out, in each step another part.
    """

    share: Annotated[Real, Field(gt=0, le=0.5)] = 0.15
    """Of the text's tokens: those in spans."""
    mean_span: Annotated[Real, Field(gt=0, le=64)] = 3.0
    """Lengths of spans are drawn Poisson with this mean; no span has 0 tokens, or more than `longest_span`."""
    longest_span: Annotated[int, Field(gt=0, le=1024, strict=True)] = 40
    """The model has an embedding for each place in a span of this length."""

    @property
    def places(self) -> int:
        """The places that have embeddings: the context, a span's begin and end, and its tokens."""
        return self.longest_span + 3


class Distill(Settings):
    """Learning from a teacher's logits beside the text itself (Hinton et al. 2015).

    The loss is (1 - weight) x nll + weight x temperature^2 x KL(teacher || student).
    """

    teacher: Uri | None = None
    """A folder with a causal model of `transformers` in safetensors, or the manifest.json of a committed result of one.

    It must have the run's own tokenizer. It computes in `engine.dtype`, learns nothing, and is whole on each process.
    """
    weight: Annotated[Real, Field(gt=0, le=1)] = 0.5
    """Of the teacher; the rest is of the text."""
    temperature: Annotated[Real, Field(ge=0.01, le=100)] = 2.0
    """By which both models' logits are divided. Above 1, unlikely tokens count for more."""


class Pretrain(Settings):
    """Learning from the packed corpus: by next-token prediction, or by filling blanks."""

    objective: Literal["next_token", "blank_infilling"] = "next_token"
    blanks: Blanks = Blanks()
    """Of the objective `blank_infilling`."""
    model: Model = Model()
    optim: Optim = Optim()
    engine: Engine = Engine(keep_last=1)
    distill: Distill = Distill()
    """If `teacher` is set, of the objective `next_token`."""
    mixture: Mixture = Mixture()
    """What is read. PPO's share of pretraining text is drawn from this mixture too, whatever the phases are."""
    phases: tuple[Phase, ...] = ()
    """One after the other, for example general text, then the best sources. Without phases `mixture` holds throughout.

    Within neighbouring phases of one length no sequence of a source comes twice before all came once. A phase of
    another length has an order of its own: it can meet text of the phases before it, while other text is not read.
    """
    steps: Positive | None = None
    """If neither steps nor tokens are said: as many as `mixture.epochs` fill, else 10,000.

    A finished run can be extended: a run of another length and else the same settings goes on from its checkpoint, if
    both have the same learning rates and draws in all steps until then. So the result is the one of a run that was
    never extended. It takes a schedule that is constant until then, `optim.warmup_steps`, no phases, no `max_epochs`.
    """
    tokens: Positive | None = None
    """The same in tokens to train on, of which a step takes batch x pack.seq_len; rounded up to whole steps."""
    batch: Batch = 256
    """Sequences per step, over all processes."""
    boundaries: bool = True
    """Documents of one sequence neither see nor predict each other; false trains across them, as GPT-3 did."""
    eval_sequences: Rows = 256
    eval_steps: Positive = runtime_only(500)
    """Held-out loss is measured after every so many steps, before the first and after the last.

    The best model so far is always saved, and its checkpoint stays if the final model is worse.
    """
    seed: Seed = 0
    start_from: Uri | None = None
    """A folder with a causal language model of `transformers` in safetensors, from which training goes on.

    Its type may be any that keeps documents apart, see docs/training.md; `model` then says nothing.

    Its tokenizer must be the one of `tokenizer.start_from`, or the run's own. For tokens that were added, its
    embeddings grow: a new row starts as the mean of the rows of the old tokens that spell the new one.
    """
    new_rows_first: Count = 0
    """During so many first steps only the rows of added tokens are trained, without weight decay."""

    @model_validator(mode="after")
    def _rows_to_train(self) -> "Pretrain":
        if self.new_rows_first and not self.start_from:
            raise ValueError("new_rows_first is about the rows that are added to start_from; name a model there")
        if self.new_rows_first and self.engine.group > 1:
            raise ValueError(
                "new_rows_first needs the embeddings whole on each process; "
                "set engine.tensor_parallel and engine.pipeline_stages to 1"
            )
        return self

    @model_validator(mode="after")
    def _keeps_matrices_whole(self) -> "Pretrain":
        _check_whole(self.engine, optim=self.optim)
        return self

    def outside(self) -> dict[str, str]:
        named = {"start_from": self.start_from, "distill.teacher": self.distill.teacher}
        return {key: uri for key, uri in named.items() if uri}

    @model_validator(mode="after")
    def _begins_afresh(self) -> "Pretrain":
        if self.objective == "blank_infilling" and self.start_from:
            raise ValueError(
                "objective blank_infilling begins with a fresh model, which has embeddings for places in a span; "
                "leave start_from out, or take objective next_token"
            )
        if self.objective == "blank_infilling" and self.model.experts:
            raise ValueError("objective blank_infilling trains no mixture of experts; leave model.experts out")
        return self

    @model_validator(mode="after")
    def _shares_a_plain_model(self) -> "Pretrain":
        other = {
            "model.experts": bool(self.model.experts),
            "distill.teacher": self.distill.teacher is not None,
            "objective blank_infilling": self.objective == "blank_infilling",
        }
        for name in (name for name, asked in other.items() if asked and self.engine.group > 1):
            raise ValueError(
                f"{name} needs the whole model in each process; "
                "set engine.tensor_parallel and engine.pipeline_stages to 1"
            )
        return self

    @model_validator(mode="after")
    def _teaches_next_tokens(self) -> "Pretrain":
        if self.objective == "blank_infilling" and self.distill.teacher:
            raise ValueError(
                "distill.teacher says how likely each next token is, which objective blank_infilling does not ask; "
                "leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _ordered(self) -> "Pretrain":
        if self.steps is not None and self.tokens is not None:
            raise ValueError("steps and tokens both say how long to train; set one of them to null")
        if self.steps is not None and (self.optim.warmup_steps or 0) > self.steps:
            raise ValueError(
                f"with optim.warmup_steps {self.optim.warmup_steps} no step of {self.steps} reaches optim.lr; lower it"
            )
        total = sum(phase.share for phase in self.phases)
        if self.phases and abs(total - 1) > 0.001:
            raise ValueError(f"the shares of the phases add up to {total:.6g}; they should add up to 1")
        return self


class Lora(Settings):
    """Low-rank adapters (Hu et al. 2021): only they learn, and the result has them merged into its matrices."""

    enabled: bool = False
    rank: Annotated[int, Field(gt=0, le=1024, strict=True)] = 16
    alpha: Annotated[Real, Field(gt=0, le=1e4)] = 32.0
    """The adapters' product is scaled by alpha / rank."""
    targets: tuple[Text, ...] = ()
    """The last parts of the names of the layers that get adapters, such as `q_proj`. If unset: all linear layers but
    the last, as in QLoRA (Dettmers et al. 2023)."""
    quantised: bool = False
    """The frozen matrices are held in 4 bits (QLoRA's NF4). Needs a GPU and the library bitsandbytes."""


class Sft(Settings):
    """Instruction tuning on the chats of `instructions`. The loss covers only the response tokens."""

    start_from: Uri | None = None
    """A model's folder to begin with instead of the result of `pretrain`, whose tokenizer is `tokenizer.start_from`."""
    optim: Optim = Optim(lr=2e-5, weight_decay=0.0)
    engine: Engine = Engine()
    lora: Lora = Lora()
    epochs: Passes = 2
    batch: Batch = 64
    """Rows per step, over all processes."""
    text_share: BelowOne = 0.0
    """So large a share of the rows of a step are sequences of the pretraining corpus, drawn by `pretrain.mixture`, so
    that abilities hold. The loss is the mean over all tokens that are predicted, of chats and of text."""
    packing: bool = runtime_only(False)
    """Short chats share a row of up to `max_tokens` tokens without seeing each other: the same loss in less time."""
    patience: Positive | None = None
    """Stop once the held-out loss was not better in so many measurements, and take the model with the lowest one.

    Then `eval_steps` decides the result, too."""
    text_sequences: Rows = 64
    """So many held-out sequences of the pretraining corpus are read before and after, to see what was forgotten."""
    max_tokens: Length = 1024
    chat_template: Literal["gristmill", "chatml", "llama-3", "zephyr"] | Uri = "gristmill"
    """How a chat becomes a text: our own format, a well-known template, or a file with one: Jinja, or JSON with the key
    `chat_template`, as `tokenizer_config.json` has. Every later stage, and the exported model, follow it."""
    eval_steps: Positive = runtime_only(500)
    """As in `pretrain`."""
    seed: Seed = 0

    def outside(self) -> dict[str, str]:
        known = self.chat_template == OWN_FORMAT or self.chat_template in TEMPLATES
        return ({} if known else {"chat_template": self.chat_template}) | (
            {"start_from": self.start_from} if self.start_from else {}
        )

    @property
    def text_rows(self) -> int:
        """The rows of a step that are sequences of the pretraining corpus; at least one row is left for chats."""
        return min(round(self.batch * self.text_share), self.batch - 1)

    @model_validator(mode="after")
    def _keeps_matrices_whole(self) -> "Sft":
        _check_whole(self.engine, optim=self.optim)
        return self

    def differences(self, default: Settings, above: str = "") -> Iterator[tuple[str, Any]]:
        """As of every section; also how often it is measured, where that says when training ends."""
        yield from super().differences(default, above)
        if self.patience is not None and self.eval_steps != getattr(default, "eval_steps", None):
            yield f"{above}eval_steps", self.eval_steps

    @model_validator(mode="after")
    def _adapters_fit(self) -> "Sft":
        _check_adapters(self.lora, self.engine, self.optim)
        if self.lora.enabled and self.lora.quantised and self.engine.dtype != "fp32":
            raise ValueError(
                "lora.quantised: the adapters learn in float32 beside matrices of 4 bits; leave engine.dtype at fp32"
            )
        return self


class Reward(Settings):
    """Reward model on the replies of `preferences`: loss = -log sigmoid(r_better - r_worse) of each two of a prompt."""

    optim: Optim = Optim(lr=1e-5, weight_decay=0.0)
    engine: Engine = Engine()
    epochs: Passes = 1
    batch: Batch = 32
    """Prompts per step, with two or more replies each, over all processes."""
    max_tokens: Length = 512
    objective: Literal["pairwise", "regression", "both"] = "pairwise"
    """`regression` learns the scores that people gave, by their mean squared error; `both` adds it to the pairs."""
    regression_coef: Weight = 1.0
    """Of `both`: the weight of the squared error."""
    start_from: Uri | None = None
    """The folder of another model to start from, perhaps a larger one than the policy; if unset, the SFT model.

    Any causal model or encoder of transformers in safetensors. A causal model gets the policy's tokens, so its
    tokenizer must be the one of `tokenizer.start_from`, or the run's own. An encoder, such as BERT, brings its own.
    """
    pretrain_tasks: tuple[Text, ...] = ()
    """Tasks of `preferences` that are learned before all others: large public comparisons, such as answers by votes.

    Preference model pre-training (Askell et al. 2021, section 4). Held-out figures and the gate leave them out.
    """
    pretrain_epochs: Passes = 1
    """Passes over these tasks, before `epochs` over the others."""
    seed: Seed = 0

    def outside(self) -> dict[str, str]:
        return {"start_from": self.start_from} if self.start_from else {}

    @model_validator(mode="after")
    def _keeps_matrices_whole(self) -> "Reward":
        _check_whole(self.engine, optim=self.optim)
        return self


class Judge(Settings):
    """A second reward model, which PPO never sees: `evaluate` asks it, too, whether PPO's replies are better.

    It learns by the settings of `reward`, but from pairs of other prompts and with another seed.
    """

    share: BelowOne = 0.3
    """Of the training prompts; `reward` and `dpo` learn from all others. 0: there is no second reward model."""
    engine: Engine = Engine()
    """What is unset is as in `reward`."""
    seed: Seed = 1

    def check_optim(self, optim: Optim) -> None:
        """Raise ValueError if the engine cannot run the optimizer of `reward`."""
        _check_whole(self.engine, optim=optim)


class Gate(Settings):
    """PPO starts only if the lower confidence bound of the reward model's held-out accuracy reaches `min_accuracy`."""

    min_accuracy: Fraction = 0.55
    min_shorter_accuracy: Fraction | None = None
    """If set, the same of the pairs whose better reply is the shorter one: a model that only likes length fails it."""
    confidence: Annotated[Real, Field(gt=0, lt=1)] = 0.95
    approval: bool = runtime_only(False)
    """Whether a person must also approve PPO in Airflow's UI, once the gate is open."""
    approval_hours: Annotated[Real, Field(gt=0, le=24 * 365)] = runtime_only(72.0)
    """How long Airflow waits for the answer. No answer in time is a refusal."""


class Answers(Settings):
    """Points for a reply to a prompt whose answer is known. A wrong answer costs more than none, so inventing one does.

    A reply is right if it contains an answer, as whole words whatever their case; it abstains if it contains one of
    `phrases` and no answer.
    """

    right: Real = 1.0
    abstained: Real = 0.0
    wrong: Real = -1.0
    phrases: tuple[Text, ...] = ("I don't know", "I do not know", "I am not sure", "I'm not sure")

    @model_validator(mode="after")
    def _punishes_invention(self) -> "Answers":
        if not self.right > self.abstained > self.wrong:
            raise ValueError(
                f"right {self.right:g}, abstained {self.abstained:g} and wrong {self.wrong:g} should fall in this "
                "order: abstaining scores above a wrong answer"
            )
        return self


class Rollouts(Settings):
    """What the stages share that sample replies and learn from their rewards."""

    steps: Positive = 1000
    rollout_batch: Batch = 64
    """Replies per step, over all processes."""
    minibatch: Batch = 32
    inner_epochs: Passes = 2
    max_prompt_tokens: Length = 256
    max_response_tokens: Length = 128
    temperature: Annotated[Real, Field(ge=0.01, le=100)] = 1.0
    """The bounds reach from almost greedy to almost uniform sampling."""
    reward: Literal["model", "answers", "both"] = "model"
    """model: the reward model's. answers: points for replies to prompts whose answers are known. both: their sum; a
    prompt without a known answer has the model's alone."""
    answers: Answers = Answers()
    no_eot_penalty: Weight = 1.0
    """What a reply without an end loses."""
    clip: Annotated[Real, Field(gt=0, le=1e6)] = 0.2
    kl_stop: Annotated[Real, Field(gt=0, le=1e6)] | None = None
    """The rest of a step's updates is left out once the policy is this many nats a token (k3) from the one that
    sampled."""
    eval_steps: Positive = 100
    """After every so many steps, and after the last, replies to held-out prompts are sampled and scored."""
    eval_prompts: Rows = 32
    """Those of held-out pairs; of `prompts.data`, up to a tenth is held out for them."""
    samples: Rows = 3
    """So many of these replies are kept at each evaluation, to be read."""
    offload_frozen: bool = runtime_only(False)
    """Models that only compute wait in the CPU's memory while they are not asked."""
    sampler: Literal["own", "vllm"] = "own"
    """vllm: by vLLM, which must be installed. It needs a GPU, and its draws are not repeated bit for bit."""
    cuda_graphs: bool = runtime_only(False)
    """On a GPU, the kernels that sample a token are started at once, by a CUDA graph. Not under ZeRO 3."""
    engine: Engine = Engine()
    lora: Lora = Lora()
    """Only adapters of the policy learn. The SFT model is the policy without them, so it is in memory once."""
    last: Made | None = None
    """The policy begins as this model, `ppo/FINGERPRINT`, in place of the SFT model; the KL divergence stays that from
    the SFT model. The DAG `feedback` sets it, so that each round goes on where the last one ended."""
    seed: Seed = 0

    def beside(self) -> dict[str, tuple[str, ...]]:
        return made_by(self.last)

    @model_validator(mode="after")
    def _begins_whole(self) -> "Rollouts":
        if self.last and self.lora.enabled:
            raise ValueError("last: with lora the policy is the SFT model and adapters that begin anew; leave one out")
        return self

    @model_validator(mode="after")
    def _vllm_takes_whole_models(self) -> "Rollouts":
        if self.sampler == "vllm" and self.lora.enabled:
            raise ValueError("sampler vllm takes the policy's matrices, and with lora these stand still; use own")
        return self

    @model_validator(mode="after")
    def _graphs_of_whole_models(self) -> "Rollouts":
        if (self.cuda_graphs or self.sampler == "vllm") and self.engine.stage_in_force == 3:
            what = "cuda_graphs" if self.cuda_graphs else "sampler vllm"
            raise ValueError(f"{what} needs the weights in one place, and engine.zero_stage 3 gathers them; use 2")
        return self


class Ppo(Rollouts):
    """InstructGPT's objective: reward, KL penalty per token against the SFT model, and a share of pretraining loss."""

    gamma: Fraction = 1.0
    lam: Fraction = 0.95
    value_clip: Annotated[Real, Field(gt=0, le=1e6)] = 0.2
    value_coef: Weight = 0.5
    value_warmup_steps: Count = 0
    """In so many first steps only the critic learns."""
    critic: Literal["own", "head"] = "own"
    """own: a whole model that starts from the reward model and learns. head: a head on the reward model's frozen
    decoder, which then is in memory once for both; only the head learns."""
    entropy_coef: Weight = 0.0
    kl_coef: Weight = 0.05
    kl_estimator: Literal["k1", "k3"] = "k1"
    """Of the penalty per token: k1 is log(pi_RL / pi_SFT), k3 has less variance and is never negative
    (Schulman 2020)."""
    kl_target: Annotated[Real, Field(gt=0, le=1e6)] | None = None
    """If set, `kl_coef` adapts towards this KL in nats per response (Ziegler et al. 2019); unset, it is fixed."""
    ptx_coef: Weight = 0.0
    ptx_sequences: Batch = 4
    normalise_rewards: bool = False
    """By mean and standard deviation of all rewards so far, before penalties."""
    reward_clip: Annotated[Real, Field(gt=0, le=1e6)] | None = None
    """Rewards are clipped to +- this, after they are normalised."""
    whiten_rewards: bool = False
    best_of: Annotated[int, Field(gt=0, le=1024, strict=True)] = 4
    """At the end, the SFT model samples so many replies to each held-out prompt, and the one with the most reward
    counts: the baseline that PPO must beat. 1 leaves it out."""
    policy_optim: Optim = Optim(lr=1e-6, weight_decay=0.0, schedule="constant")
    value_optim: Optim = Optim(lr=5e-6, weight_decay=0.0, schedule="constant")

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "Ppo":
        if self.critic == "head" and self.engine.stage_in_force == 3:
            raise ValueError(
                "critic head needs the reward model's decoder whole, and engine.zero_stage 3 cuts it; use own, or 2"
            )
        if self.value_warmup_steps >= self.steps:
            raise ValueError(
                f"value_warmup_steps {self.value_warmup_steps} leaves the policy none of {self.steps} steps; lower it"
            )
        return self

    @model_validator(mode="after")
    def _keeps_matrices_whole(self) -> "Ppo":
        _check_whole(self.engine, policy_optim=self.policy_optim, value_optim=self.value_optim)
        _check_aligning(self.lora, self.engine, self.policy_optim)
        return self


class Dpo(Settings):
    """Direct preference optimisation (Rafailov et al. 2023) on the pairs of `preferences` that are not the judge's."""

    optim: Optim = Optim(lr=5e-7, weight_decay=0.0)
    engine: Engine = Engine()
    lora: Lora = Lora()
    """Only adapters learn."""
    epochs: Passes = 1
    batch: Batch = 32
    """Pairs per step, over all processes."""
    max_tokens: Length = 512
    beta: Annotated[Real, Field(gt=0, le=1e6)] = 0.1
    """How much the distance from the SFT model weighs."""
    label_smoothing: Annotated[Real, Field(ge=0, lt=0.5)] = 0.0
    """The probability that a pair's ranking is the wrong way round."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _keeps_matrices_whole(self) -> "Dpo":
        _check_whole(self.engine, optim=self.optim)
        _check_aligning(self.lora, self.engine, self.optim)
        return self


class Grpo(Rollouts):
    """Group relative policy optimisation (Shao et al. 2024): PPO without a critic, whose baseline is a prompt's group.

    `reward` may be the reward model's, or one that is computed from known answers.
    """

    group_size: Annotated[int, Field(gt=1, le=1024, strict=True)] = 8
    """Replies to each prompt of a step; it must divide `rollout_batch`."""
    by_deviation: bool = True
    """Advantages are divided by the standard deviation of their group's rewards."""
    kl_coef: Weight = 0.04
    """Of the KL divergence from the SFT model (k3) in the loss."""
    optim: Optim = Optim(lr=1e-6, weight_decay=0.0, schedule="constant")

    @model_validator(mode="after")
    def _whole_groups(self) -> "Grpo":
        if self.rollout_batch % self.group_size:
            raise ValueError(f"rollout_batch {self.rollout_batch} is not a multiple of group_size {self.group_size}")
        return self

    @model_validator(mode="after")
    def _keeps_matrices_whole(self) -> "Grpo":
        _check_whole(self.engine, optim=self.optim)
        _check_aligning(self.lora, self.engine, self.optim)
        return self


class Evaluate(Settings):
    """Evaluation of every model of the run on the same held-out text and prompts."""

    sequences: Rows = 256
    prompts: Rows = 64
    max_response_tokens: Length = 128
    samples: Rows = 3
    last: Made | None = None
    """The model of the last round of feedback, such as `ppo/FINGERPRINT`: what share of the prompts this one wins
    against it. The DAG `feedback` sets it."""
    engine: Engine = Engine()
    seed: Seed = 0

    def beside(self) -> dict[str, tuple[str, ...]]:
        return made_by(self.last)


Temperature = Annotated[Real, Field(ge=0.01, le=100)]


class BenchmarkTask(Settings):
    """One benchmark: its items, and how they are asked. The words are those of `python -m evals grade`."""

    task: Text = ""
    """What kind of benchmark it is, such as `mmlu`; empty: its name says it. docs/evaluation.md lists them."""
    items: Uri = runtime_only(...)
    """File, folder, archive or store prefix of the published items. In fingerprints its content counts."""
    split: Text | None = None
    """Of a folder or an archive: only files with this word in their name, such as `test`."""
    limit: Rows | None = None
    """At most so many items, evenly of all subjects or files."""
    shots: Uri | None = runtime_only(None)
    """File, folder or archive of examples; `bbh` reads only the unpacked folder `cot-prompts`."""
    shots_split: Text | None = None
    k: Annotated[int, Field(ge=0, le=1000, strict=True)] | None = None
    """How many examples; if unset, the task's usual number, or as many as there are. The result says how many."""
    style: Text | None = None
    """One of the task's ways to ask; if unset, the usual one."""
    dialogue: bool = False
    """Ask as turns of a dialogue instead of one text."""
    names: Uri | None = runtime_only(None)
    """`mapping.json` of the subjects' names in prompts."""
    words: Uri | None = runtime_only(None)
    """Of `realtoxicityprompts`: a file or folder of words or phrases, one a line."""
    by_byte: bool = False
    """Divide log-likelihoods by the bytes of their choices."""
    samples: Annotated[int, Field(gt=0, le=1024, strict=True)] = 1
    """Outputs to each item. With several there are pass@k and, where there is an answer to vote on, the majority's."""
    by_reward: bool = False
    """The run's reward model reads all outputs, and the score of those it likes best stands beside the others
    (best of n). Models of pretraining are left out: they are there before it."""
    temperature: Annotated[Real, Field(ge=0, le=100)] = 0.0
    """0: always the likeliest token."""
    max_tokens: Length = 256
    """Of an output that is written."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "BenchmarkTask":
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"{self.samples} samples at temperature 0 would all be the same; raise temperature")
        if self.k and self.shots is None:
            raise ValueError(f"k: {self.k} examples need a file of them; name it in shots, or set k to 0")
        if self.by_reward and self.samples == 1:
            raise ValueError("by_reward: there is nothing to choose among one output; raise samples")
        return self

    def outside(self) -> dict[str, str]:
        named = {"items": self.items, "shots": self.shots, "names": self.names, "words": self.words}
        return {key: uri for key, uri in named.items() if uri is not None}


AnyMade = Annotated[str, Field(pattern=f"^{MADE.pattern}$")]


class Benchmark(Settings):
    """Models answer published benchmarks, whose files are at hand: each model each benchmark, apart from all others.

    Without `tasks` nothing runs.
    """

    tasks: Annotated[dict[VariantName, BenchmarkTask], Field(max_length=200)] = {}
    """Name -> benchmark."""
    models: Annotated[tuple[Own, ...], Field(max_length=3)] = OWN
    """Those of the run that are asked."""
    steps: Annotated[tuple[Positive, ...], Field(max_length=100)] = ()
    """Steps of pretraining whose checkpoints are asked as well; `pretrain.engine.keep_every` keeps them."""
    others: Annotated[dict[VariantName, AnyMade | Uri], Field(max_length=100)] = {}
    """Name -> a further model: a result of the store, such as `ppo/FINGERPRINT`, or a folder of `transformers`."""
    engine: Engine = Engine()
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _kinds_by_name(cls, given: Any) -> Any:
        """A benchmark that says no `task` is of the kind that its name says."""
        tasks = given.get("tasks") if isinstance(given, dict) else None
        if not isinstance(tasks, dict):
            return given
        named = {key: {"task": key, **one} if isinstance(one, dict) else one for key, one in tasks.items()}
        return {**given, "tasks": named}

    @model_validator(mode="after")
    def _asks_known_tasks(self) -> "Benchmark":
        for name, one in self.tasks.items():
            if one.task not in KNOWN:
                raise ValueError(f"tasks.{name}.task: there is no task {one.task!r}; there are {', '.join(KNOWN)}")
            styles = KNOWN[one.task].styles
            if one.style is not None and one.style not in styles:
                raise ValueError(
                    f"tasks.{name}.style: task {one.task} has no style {one.style!r}; it has {', '.join(styles)}"
                )
            if KNOWN[one.task].needs_words and one.words is None:
                raise ValueError(f"tasks.{name}.words: task {one.task} is graded by a list of words; name its file")
        return self

    @model_validator(mode="after")
    def _names_of_others(self) -> "Benchmark":
        for name in self.others:
            if name in OWN or step_of(name) is not None:
                raise ValueError(f"others.{name}: that is the name of a model of the run; choose another")
        return self

    def outside(self) -> dict[str, str]:
        files = {f"tasks.{name}.{key}": uri for name, one in self.tasks.items() for key, uri in one.outside().items()}
        folders = {f"others.{name}": uri for name, uri in self.others.items() if not MADE.fullmatch(uri)}
        return files | folders

    def beside(self) -> dict[str, tuple[str, ...]]:
        made = [one.split("/") for one in self.others.values() if MADE.fullmatch(one)]
        stages = dict.fromkeys(stage for stage, _ in made)
        return {of: tuple(dict.fromkeys(one for stage, one in made if stage == of)) for of in stages}

    def of_partition(self, partition: str) -> Self:
        """Its own benchmark and its own model alone. The address of a model from elsewhere is among its inputs."""
        one = Measured.of(partition)
        if one.benchmark not in self.tasks:
            return self
        step = step_of(one.model)
        only = {
            "tasks": {one.benchmark: self.tasks[one.benchmark]},
            "models": tuple(name for name in OWN if name == one.model),
            "steps": () if step is None else (step,),
            "others": {name: address for name, address in self.others.items() if name == one.model},
        }
        return self.model_copy(update=only)

    def uris(self, above: str = "") -> Iterator[tuple[str, str]]:
        return ((key, uri) for key, uri in super().uris(above) if not MADE.fullmatch(uri))


class Abilities(Settings):
    """What all models can do, ability by ability, and what each lost against the one before."""

    confidence: Annotated[Real, Field(ge=0.5, lt=1)] = 0.95
    max_drop: Fraction | None = None
    """If set, the aligned model is kept back where it lost more of an ability than this, beyond noise, against the SFT
    model."""
    at_least: dict[Ability, Fraction] = {}
    """Ability -> what the aligned model must reach in each of its benchmarks, or be kept back: `{maths: 0.2}`."""


class Sample(Settings):
    """One round of feedback: replies of the run's models to prompts, for people to compare."""

    round: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 1
    """Another round draws other prompts. The DAG `feedback` counts."""
    prompts: Annotated[int, Field(gt=0, le=5000, strict=True)] = 100
    """Drawn from those that PPO learns on; all of them if there are fewer."""
    replies: Annotated[int, Field(ge=2, le=4, strict=True)] = 2
    """To each prompt. Replies that are empty or equal to another are left out, and prompts with fewer than two left."""
    models: Annotated[tuple[OwnName | Made, ...], Field(min_length=1, max_length=4)] = ("aligned",)
    """The models that reply in turns. `aligned` is the SFT model where the gate is closed; `last` is that of the last
    round, and `aligned` where there is none. `ppo/FINGERPRINT` is one of the store that has the same tokenizer."""
    temperatures: Annotated[tuple[Temperature, ...], Field(min_length=1, max_length=4)] = (1.0,)
    """Once all models had their turn with the first temperature, the next one's is theirs, and so on."""
    max_response_tokens: Length = 128
    last: Made | None = None
    """The model of the last round, such as `ppo/FINGERPRINT`. The DAG `feedback` sets it."""
    judge: Rewarding | Made | OwnName | None = None
    """A model that votes beside the people: a reward model of the store, of this run or another, `reward/FINGERPRINT`,
    or a chat model, which is asked in words: `ppo/FINGERPRINT`, or one of this run, named as in `models`."""
    principles: Uri | None = None
    """A file of principles, one a line. The chat model `judge` also criticises a reply to each prompt by one of them,
    revises it, and chooses between the two."""
    gold: Uri | None = None
    """A file or folder of comparisons in the shapes that `preferences` reads. Some of them stand among the items of a
    round and tell who votes against what is known: `feedback.trust.min_gold`."""
    gold_items: Annotated[int, Field(ge=1, le=1000, strict=True)] = 20
    """Of `gold` so many are drawn for each round; of more than four replies, four."""
    engine: Engine = Engine()
    seed: Seed = 0

    @property
    def chats(self) -> bool:
        """Whether `judge` is a chat model."""
        return self.judge is not None and not self.judge.startswith(("reward/", "judge/"))

    @property
    def questions(self) -> int:
        """How often `judge` writes an answer about the replies to one prompt."""
        return (6 if self.principles else 2) if self.chats else 0

    @model_validator(mode="after")
    def _fits_a_round(self) -> "Sample":
        if self.gold and self.prompts + self.gold_items > 5000:
            raise ValueError("prompts and gold_items should add up to 5000 at most, as many items as a round has")
        return self

    @model_validator(mode="after")
    def _principles_need_words(self) -> "Sample":
        if self.principles and not self.chats:
            raise ValueError("principles needs a chat model that revises by them; set judge to one, such as `aligned`")
        return self

    def outside(self) -> dict[str, str]:
        named = {"gold": self.gold, "principles": self.principles}
        return {key: uri for key, uri in named.items() if uri is not None}

    def beside(self) -> dict[str, tuple[str, ...]]:
        return made_by(self.last, self.judge, *self.models)


class Export(Settings):
    """Export of the last model as a folder that `transformers` loads.

    Figures of `evaluate` may be a second gate: beyond one of their bounds, the SFT model is exported and not PPO's.
    """

    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    at_least: dict[Text, Real] = {}
    """Figure of `evaluate` -> its lower bound: `{judge_win_rate_low: 0.5}`."""
    at_most: dict[Text, Real] = {}
    """Figure of `evaluate` -> its upper bound: `{perplexity_ppo: 20}`."""

    @model_validator(mode="after")
    def _bounds_known_figures(self) -> "Export":
        known = [name for name in Evaluated.model_fields if not name.startswith("worse_")]
        for key in ("at_least", "at_most"):
            for name in getattr(self, key):
                if name not in known:
                    raise ValueError(
                        f"{key} bounds {name!r}, which is no figure of evaluate; there are {', '.join(known)}"
                    )
        return self


class Probe(Settings):
    """The pretrained model on held-out documents and on tasks at which small models are above chance."""

    reference: Fingerprint | None = None
    """The fingerprint of the `mix`, perhaps of another run, whose held-out documents are read; if unset, the run's own.

    `python -m contract commands` sets it, so that all variants are measured on the same text.
    """
    documents: Rows = 500
    """Of each source at most so many held-out documents are read."""
    max_chars: Annotated[int, Field(ge=256, le=1 << 20, strict=True)] = 4096
    """Of a document at most so many characters are read."""
    tasks: dict[TaskName, Uri] = {}
    """Name -> a file of JSON lines, each a question with its choices: docs/ablations.md names the keys."""
    max_items: Rows = 500
    """Of each task at most so many questions are asked."""
    engine: Engine = Engine()

    def outside(self) -> dict[str, str]:
        return {f"tasks.{name}": uri for name, uri in self.tasks.items()}

    def results(self) -> dict[str, tuple[str, ...]]:
        return {"mix": (self.reference,)} if self.reference else {}


class Ablate(Settings):
    """Variants of a recipe, each trained with several seeds on as many tokens: docs/ablations.md.

    An ablation is a recipe in which `variants` names two or more. `python -m contract commands` and the DAG `ablate`
    make a run of each variant and seed, and one that compares them.
    """

    variants: dict[VariantName, tuple[Text, ...]] = runtime_only({})
    """Name -> overrides of this recipe: `{base: [], strict: [filter.min_words=100]}`."""
    seeds: tuple[Seed, ...] = runtime_only((0, 1, 2), min_length=1)
    """The values of `pretrain.seed` with which each variant is trained; with fewer than two nothing can be told."""
    tokens: Positive | None = runtime_only(None)
    """The tokens on which every model is trained. If unset: as many as this recipe's `pretrain` takes."""
    confidence: Annotated[Real, Field(ge=0.5, lt=1)] = 0.95
    measured: dict[VariantName, dict[Text, Fingerprint]] = {}
    """Variant -> seed -> the fingerprint of its `probe`. `python -m contract commands` sets it."""

    def results(self) -> dict[str, tuple[str, ...]]:
        named = dict.fromkeys(one for seeds in self.measured.values() for one in seeds.values())
        return {"probe": tuple(named)} if named else {}

    @model_validator(mode="after")
    def _differs(self) -> "Ablate":
        if len(self.variants) == 1:
            raise ValueError("variants names only one; name two or more, for example {base: [], strict: [...]}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds should differ from each other, got {list(self.seeds)}")
        return self


class TrainingSections(CorpusSections):
    """The section of each stage that trains, evaluates or exports a model, after those of the corpus."""

    pretrain: Pretrain = Pretrain()
    sft: Sft = Sft()
    reward: Reward = Reward()
    judge: Judge = Judge()
    gate: Gate = Gate()
    align: Literal["ppo", "dpo", "grpo"] = "ppo"
    """The stage that makes the aligned model, once the gate is open."""
    ppo: Ppo = Ppo()
    dpo: Dpo = Dpo()
    grpo: Grpo = Grpo()
    evaluate: Evaluate = Evaluate()
    benchmark: Benchmark = Benchmark()
    abilities: Abilities = Abilities()
    export: Export = Export()
    sample: Sample = Sample()
    probe: Probe = Probe()
    ablate: Ablate = Ablate()
