"""The settings of the stages that train, evaluate and export models."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from contract.settings.base import (
    Batch,
    BelowOne,
    Count,
    Fraction,
    Length,
    Passes,
    Positive,
    Rate,
    Real,
    Rows,
    Seed,
    Settings,
    Weight,
    runtime_only,
)
from contract.settings.corpus import CorpusSections


class Model(Settings):
    """A LLaMA-style decoder: RMSNorm before each block, SwiGLU, rotary positions, grouped-query attention."""

    layers: Annotated[int, Field(gt=0, le=1024, strict=True)] = 12
    d_model: Annotated[int, Field(gt=0, le=1 << 17, strict=True)] = 768
    heads: Annotated[int, Field(gt=0, le=1024, strict=True)] = 12
    kv_heads: Annotated[int, Field(gt=0, le=1024, strict=True)] = 12
    d_ff: Annotated[int, Field(gt=0, le=1 << 19, strict=True)] = 2048
    """Upper bounds: about eight times Llama 3.1 405B's 126 layers, d_model 16,384, 128 heads and d_ff 53,248."""
    rope_theta: Annotated[Real, Field(gt=1, le=1e9)] = 10_000.0
    """Llama 3: 500,000. It must be above 1, because at 1 all dimensions would rotate alike."""
    tie_embeddings: bool = True

    @model_validator(mode="after")
    def _divides(self) -> "Model":
        if self.d_model % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"heads {self.heads} must divide d_model {self.d_model}, and kv_heads {self.kv_heads} must divide heads"
            )
        return self


class Optim(Settings):
    """AdamW and its schedule. Defaults are GPT-3's and LLaMA's (betas 0.9/0.95, weight decay 0.1, clip 1.0)."""

    lr: Rate = 3e-4
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.95)
    weight_decay: Annotated[Real, Field(ge=0, le=10)] = 0.1
    clip: Annotated[Real, Field(gt=0, le=1e12)] = 1.0
    warmup_fraction: Fraction = 0.02
    """Of all steps."""
    warmup_steps: Count | None = None
    """If set, instead of `warmup_fraction`: then a longer run warms up alike, and can go on from a shorter one."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_lr_fraction: Fraction = 0.1


class Engine(Settings):
    """How DeepSpeed runs a stage. The recipe fixes the global batch; `processes` only decides how it is split."""

    dtype: Literal["fp32", "bf16"] = "fp32"
    zero_stage: Annotated[int, Field(ge=0, le=3, strict=True)] = runtime_only(0)
    offload_optimizer: bool = runtime_only(False)
    processes: Annotated[int, Field(gt=0, le=1024, strict=True)] = runtime_only(1)
    """Processes that `deepspeed` starts on this machine: one per GPU, or CPU processes if there is no GPU."""
    micro_batch: Batch = runtime_only(8)
    """Sequences that a process runs at once; gradients are accumulated over the rest of the batch."""
    activation_checkpointing: bool = runtime_only(False)
    checkpoint_steps: Positive = runtime_only(200)
    """A checkpoint takes 12 bytes per parameter; its upload runs behind the steps, one at a time."""
    log_steps: Positive = runtime_only(10)
    """The figures of so many steps are read from the device at once: in each reading the device runs empty."""
    keep_last: Annotated[int, Field(ge=0, le=10_000, strict=True)] = runtime_only(0)
    """The newest checkpoints that stay after the end. While a stage trains, at least 2 stay."""
    keep_every: Positive | None = runtime_only(None)
    """The checkpoints of steps that are multiples of this stay, too."""


class Pretrain(Settings):
    """Next-token prediction on the packed corpus."""

    model: Model = Model()
    optim: Optim = Optim()
    engine: Engine = Engine(keep_last=1)
    steps: Positive = 10_000
    """A finished run can be extended: a run with other `steps` and else the same settings goes on from its checkpoint.

    That is done only where both runs had the same learning rate in all steps up to that checkpoint, so that the result
    is the one of a run that was never extended: with a schedule that is constant until then, and `warmup_steps`.
    """
    batch: Batch = 256
    """Sequences per step, over all processes."""
    eval_sequences: Rows = 256
    eval_steps: Positive = runtime_only(500)
    """Held-out loss is measured after every so many steps, before the first and after the last.

    The best model so far is always saved, and its checkpoint stays if the final model is worse.
    """
    seed: Seed = 0


class Sft(Settings):
    """Instruction tuning on the chats of `instructions`. The loss covers only the response tokens."""

    optim: Optim = Optim(lr=2e-5, weight_decay=0.0)
    engine: Engine = Engine()
    epochs: Passes = 2
    batch: Batch = 64
    max_tokens: Length = 1024
    eval_steps: Positive = runtime_only(500)
    """As in `pretrain`."""
    seed: Seed = 0


class Reward(Settings):
    """Pairwise reward model on the pairs of `preferences`: loss = -log sigmoid(r_chosen - r_rejected)."""

    optim: Optim = Optim(lr=1e-5, weight_decay=0.0)
    engine: Engine = Engine()
    epochs: Passes = 1
    batch: Batch = 32
    """Pairs per step, over all processes."""
    max_tokens: Length = 512
    seed: Seed = 0


class Gate(Settings):
    """PPO starts only if the lower confidence bound of the reward model's held-out accuracy reaches `min_accuracy`."""

    min_accuracy: Fraction = 0.55
    confidence: Annotated[Real, Field(gt=0, lt=1)] = 0.95


class Ppo(Settings):
    """InstructGPT's objective: reward, KL penalty per token against the SFT model, and a share of pretraining loss."""

    steps: Positive = 1000
    rollout_batch: Batch = 64
    """Prompts per step, over all processes."""
    minibatch: Batch = 32
    inner_epochs: Passes = 2
    max_prompt_tokens: Length = 256
    max_response_tokens: Length = 128
    temperature: Annotated[Real, Field(ge=0.01, le=100)] = 1.0
    """The bounds reach from almost greedy to almost uniform sampling."""
    gamma: Fraction = 1.0
    lam: Fraction = 0.95
    clip: Annotated[Real, Field(gt=0, le=1e6)] = 0.2
    value_clip: Annotated[Real, Field(gt=0, le=1e6)] = 0.2
    value_coef: Weight = 0.5
    entropy_coef: Weight = 0.0
    kl_coef: Weight = 0.05
    kl_target: Annotated[Real, Field(gt=0, le=1e6)] | None = None
    """If set, `kl_coef` adapts towards this KL in nats per response (Ziegler et al. 2019); unset, it is fixed."""
    ptx_coef: Weight = 0.0
    ptx_sequences: Batch = 4
    no_eot_penalty: Weight = 1.0
    whiten_rewards: bool = False
    policy_optim: Optim = Optim(lr=1e-6, weight_decay=0.0, schedule="constant")
    value_optim: Optim = Optim(lr=5e-6, weight_decay=0.0, schedule="constant")
    engine: Engine = Engine()
    seed: Seed = 0


class Evaluate(Settings):
    """Evaluation of every model of the run on the same held-out text and prompts."""

    sequences: Rows = 256
    prompts: Rows = 64
    max_response_tokens: Length = 128
    samples: Rows = 3
    engine: Engine = Engine()
    seed: Seed = 0


class Export(Settings):
    """Export of the last model as a folder that `transformers` loads."""

    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"


class TrainingSections(CorpusSections):
    """The section of each stage that trains, evaluates or exports a model, after those of the corpus."""

    pretrain: Pretrain = Pretrain()
    sft: Sft = Sft()
    reward: Reward = Reward()
    gate: Gate = Gate()
    ppo: Ppo = Ppo()
    evaluate: Evaluate = Evaluate()
    export: Export = Export()
