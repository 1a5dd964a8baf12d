"""How many parameters a model has, and how much memory training it takes, from the recipe alone.

`python -m training estimate` prints these figures, and a recipe whose models fit no accelerator is refused. Everything
here is arithmetic. The numbers of copies were read from the code that trains and checked against runs on a CPU
(`perf/pretrain/estimate.py`). Bytes are those of tensors; what CUDA takes for itself is not among them.
"""

from dataclasses import dataclass, fields

from contract.accelerators import GB, LOGITS_AT_ONCE, MOST_MEMORY
from contract.settings.base import Settings
from contract.settings.training import Dpo, Engine, Lora, Model, Ppo, Rollouts, Sft

BUCKET = 500_000_000
"""Elements that DeepSpeed reduces at a time, its default `reduce_bucket_size`."""
LIVE = 1_000_000_000
"""Elements that ZeRO 3 keeps gathered, DeepSpeed's default `stage3_max_live_parameters`."""
NF4 = 0.52
"""Bytes of a weight in 4 bits, with its share of constants that are quantised, too (Dettmers et al. 2023)."""
MOMENTS = 8
"""Bytes a parameter: AdamW's two moments in fp32."""
CHECKPOINT = 4 + MOMENTS
"""Bytes of a checkpoint per parameter: fp32 weights and moments. Each process copies its share and uploads the copy."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device by what they are for.

    `host` is in main memory, for one process: what offloading puts there, and the copy of a checkpoint on its way.
    """

    weights: float = 0
    gradients: float = 0
    optimizer: float = 0
    buffers: float = 0
    activations: float = 0
    logits: float = 0
    cache: float = 0
    host: float = 0

    @property
    def total(self) -> float:
        """All of it on the device, so without `host`."""
        parts = (self.weights, self.gradients, self.optimizer, self.buffers, self.activations, self.logits, self.cache)
        return sum(parts)

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Work:
    """One backward pass: `rows` sequences of `length` tokens, of which the last `predicted` have logits."""

    rows: int
    length: int
    predicted: int
    accumulation: int
    """Micro-batches of one process in an update."""
    masked: bool = False
    """Whether attention gets a mask: for documents that share a row, or for padding on the left."""
    whole: bool = False
    """Whether all logits are in memory together, as PPO and a teacher want them; else LOGITS_AT_ONCE of them are."""


def parameters(model: Model, vocab_size: int) -> int:
    """The parameters of the language model; a tied embedding counts once."""
    width = model.d_model
    kept = width // model.heads * model.kv_heads  # width of the keys, and of the values
    attention = 2 * width * width + 2 * width * kept
    router = width * model.experts
    layer = attention + max(model.experts, 1) * 3 * width * model.d_ff + router + 2 * width  # the last: two norms
    embeddings = vocab_size * width * (1 if model.tie_embeddings else 2)
    return embeddings + model.layers * layer + width


def idle_parameters(model: Model) -> int:
    """The parameters that compute nothing for a token: those of the experts that it does not go through."""
    idle = max(model.experts - model.experts_per_token, 0)
    return model.layers * idle * 3 * model.d_model * model.d_ff


def reward_parameters(model: Model, vocab_size: int) -> int:
    """The same model with a head for one number, of d_model weights and a bias, in place of the unembedding."""
    unembedding = 0 if model.tie_embeddings else vocab_size * model.d_model
    return parameters(model, vocab_size) - unembedding + model.d_model + 1


def adapter_parameters(model: Model, lora: Lora) -> int:
    """The parameters of the adapters of a model; 0 without any. Experts have none: their matrices are one tensor."""
    width, kept = model.d_model, model.d_model // model.heads * model.kv_heads
    layers = {"q_proj": (width, width), "k_proj": (width, kept), "v_proj": (width, kept), "o_proj": (width, width)}
    if not model.experts:
        layers |= {"gate_proj": (width, model.d_ff), "up_proj": (width, model.d_ff), "down_proj": (model.d_ff, width)}
    named = [sum(shape) for name, shape in layers.items() if not lora.targets or name in lora.targets]
    return model.layers * lora.rank * sum(named) if lora.enabled else 0


def number_bytes(engine: Engine) -> int:
    """Bytes of a weight and of an activation."""
    return 4 if engine.dtype == "fp32" else 2


def frozen(count: int, engine: Engine) -> Memory:
    """What a model holds that only computes: whole on each device, or under ZeRO 3 a shard and what is gathered."""
    if engine.stage_in_force == 3:
        shard = 0 if engine.offload_parameters else count / engine.processes
        return Memory(weights=number_bytes(engine) * (shard + min(count, LIVE)))
    return Memory(weights=number_bytes(engine) * count)


def held(count: int, engine: Engine) -> Memory:
    """What a model in training holds at all times: weights, optimizer states, and under ZeRO 3 gradients.

    With ZeRO, the optimizer keeps fp32 weights beside its moments. ZeRO 3 shards the weights too, but gathers up to
    LIVE elements of them again, and its gradients have a fixed place. Tensor or pipeline parallelism shares out the
    parameters first; that embeddings stay whole then is not counted. What is offloaded is on the host instead, but for
    the gathered weights. While a checkpoint is uploaded behind the steps, the host also holds a copy of all state.
    """
    stage, size, processes = engine.stage_in_force, number_bytes(engine), engine.replicas
    count = _own(count, engine)
    shard, gathered = (size * count / processes, size * min(count, LIVE)) if stage == 3 else (0.0, size * count)
    states = count / processes * (4 + MOMENTS) if stage else count * MOMENTS
    gradients = 4 * count / processes if stage == 3 else 0
    host = CHECKPOINT * count / processes
    if engine.offload_parameters:
        host, shard = host + shard, 0.0
    if engine.offload_optimizer:
        return Memory(weights=shard + gathered, host=host + states + 4 * count / processes)
    return Memory(weights=shard + gathered, optimizer=states, gradients=gradients, host=host)


def still(count: int, lora: Lora, engine: Engine) -> Memory:
    """What the weights of a model hold that its adapters leave as they are; nothing without adapters."""
    if not lora.enabled:
        return Memory()
    return Memory(weights=NF4 * count) if lora.quantised else frozen(count, engine)


def gradients(count: int, engine: Engine) -> Memory:
    """The gradients that wait for an update, in fp32: whole below ZeRO 2, on the host if the optimizer is there."""
    sharded = engine.replicas if engine.stage_in_force >= 2 else 1
    return Memory(gradients=0 if engine.offload_optimizer else 4 * _own(count, engine) / sharded)


def _own(count: int, engine: Engine) -> int:
    """Of a model's parameters, those of one process of a group that shares them."""
    return count // engine.group


def training_peak(model: Model, count: int, vocab_size: int, engine: Engine, work: Work, cuda: bool) -> Memory:
    """Bytes at the moment of a step at which most is in use, for a model of `count` parameters.

    There are four such moments: when the loss is known, all activations are held; with activation checkpointing, when
    the first layer is computed again, one layer's; at the end of the backward pass all gradients are, with the buffers
    that reduce them; and during the update. On CUDA DeepSpeed allocates whole buffers, also for small models.
    """
    stage, size, processes = engine.stage_in_force, number_bytes(engine), engine.replicas
    base, own = held(count, engine) + Memory(host=offloaded(model, engine, work)), _own(count, engine)
    whole = base if base.gradients else base + gradients(count, engine)
    begun = whole if work.accumulation > 1 else base
    largest = model.d_model * max(vocab_size, 2 * model.experts * model.d_ff, model.d_ff)  # experts are one tensor
    reducing = _reducing(own, min(own, largest), engine, work.accumulation > 1, cuda)
    flat = not engine.offload_optimizer and (stage == 3 or (stage and size == 4))
    updating = 4 * own / processes if flat else 0  # a flat copy of the gradients
    moments = (
        begun
        + Memory(
            activations=activations(model, engine, work), logits=logits_bytes(model, vocab_size, engine, work, cuda)
        ),
        begun + Memory(activations=recomputed(model, engine, work)),
        whole + Memory(buffers=reducing),
        whole + Memory(buffers=updating),
    )
    return max(moments, key=lambda moment: moment.total)


def _reducing(count: int, largest: int, engine: Engine, accumulates: bool, cuda: bool) -> float:
    """Bytes beside the gradients, at the end of a backward pass, while DeepSpeed reduces them over the processes."""
    stage, size, used = engine.stage_in_force, number_bytes(engine), min(count, BUCKET)
    bucket = size * (BUCKET if cuda and stage else used)
    if stage < 2:
        return bucket
    if stage == 3:
        return bucket + used * (4 if size == 4 else 2 * size)
    cast = 4 * largest if size == 2 else 0  # the gradient that is being turned into fp32
    return bucket + cast + (size * count / engine.replicas if accumulates else 0)


def activations(model: Model, engine: Engine, work: Work) -> float:
    """Bytes that the forward pass keeps for the backward pass, without the logits.

    With activation checkpointing only each layer's input is kept, or if that is offloaded, that of the layer at hand.
    """
    size, width, tokens = number_bytes(engine), model.d_model, work.rows * work.length
    last = (12 if size == 4 else 8) * width  # of the last norm: its input in fp32, the normalised input, its output
    mask = work.masked * tokens * work.length  # of booleans, which every layer turns into numbers
    if engine.activation_checkpointing:
        return tokens * (_inputs(model, engine) * size * width + last) + mask
    return model.layers * _layer(model, engine, work) + tokens * last + mask


def recomputed(model: Model, engine: Engine, work: Work) -> float:
    """With activation checkpointing: the layers' inputs, and one layer's activations that are computed again."""
    if not engine.activation_checkpointing:
        return 0
    size, tokens = number_bytes(engine), work.rows * work.length
    passing = 3 * size * model.d_ff * _passed(model)  # gradients of the feed-forward part
    return tokens * (_inputs(model, engine) * size * model.d_model + passing) + _layer(model, engine, work)


def offloaded(model: Model, engine: Engine, work: Work) -> float:
    """Bytes of the layers' inputs that wait in main memory."""
    layers = model.layers if engine.offload_activations else 0
    return number_bytes(engine) * layers * model.d_model * work.rows * work.length


def _inputs(model: Model, engine: Engine) -> int:
    """With activation checkpointing: the layers whose inputs are on the device at once."""
    return 1 if engine.offload_activations else model.layers


def _layer(model: Model, engine: Engine, work: Work) -> float:
    """Bytes that one layer keeps.

    Each of the two norms keeps its input in fp32, the normalised input and its output; in fp32 the input is one tensor
    with the residual stream. Attention keeps queries, keys, values, its output, and an fp32 number per head; where it
    is masked, PyTorch's SDPA also keeps the mask, and keys and values repeated for all heads. The feed-forward part
    keeps the gate, its SiLU, the other projection, and their product, of every expert that a token goes through; each
    of these also has its own copy of its input and output.
    """
    size, width, tokens = number_bytes(engine), model.d_model, work.rows * work.length
    kept = width if work.masked else width // model.heads * model.kv_heads
    norms = 2 * width * (4 + 2 * size)
    numbers = 2 * width + 2 * kept + 4 * model.d_ff * _passed(model) + work.masked * work.length
    numbers += 2 * width * _passed(model) if model.experts else 0
    return tokens * (norms + size * numbers + 4 * model.heads)


def _passed(model: Model) -> int:
    """The feed-forward parts of a layer that a token goes through."""
    return model.experts_per_token if model.experts else 1


def logits_bytes(model: Model, vocab_size: int, engine: Engine, work: Work, cuda: bool) -> float:
    """What the loss holds of logits and, until the backward pass begins, of the gradients that it has made already.

    Whole logits lie in memory four times in fp32: those whose log-probabilities are taken, and three in the gradient of
    these. Of a part at a time there are the product, its fp32 copy, which in fp32 is the product, and the
    log-probabilities; the gradients are those of the head, in fp32, and of what goes into it.
    """
    tokens, size = work.rows * work.predicted, number_bytes(engine)
    if work.whole or not tokens:
        return 4 * 4 * vocab_size * tokens
    return part_of_logits(vocab_size, engine, tokens, cuda) + model.d_model * (4 * vocab_size + size * tokens)


def part_of_logits(vocab_size: int, engine: Engine, tokens: int, cuda: bool) -> float:
    """Bytes of logits in memory at once, when the log-probabilities of `tokens` tokens are computed in parts."""
    at_once = min(tokens, max(LOGITS_AT_ONCE["cuda" if cuda else "cpu"] // vocab_size, 1))
    return vocab_size * at_once * (8 if engine.dtype == "fp32" else 10)


def cache_bytes(model: Model, engine: Engine, rows: int, length: int) -> float:
    """Keys and values of `rows` sequences of `length` tokens, which generation keeps."""
    return 2 * number_bytes(engine) * model.layers * model.d_model // model.heads * model.kv_heads * rows * length


def beside(own: Settings, model: Model, vocab_size: int) -> Memory:
    """What an aligning stage always holds beside its policy: a critic that learns, and models that only compute."""
    if not isinstance(own, Rollouts):
        return Memory()
    judge = reward_parameters(model, vocab_size)
    head = isinstance(own, Ppo) and own.critic == "head"
    found = held(judge, own.engine) if isinstance(own, Ppo) and not head else Memory()
    if own.offload_frozen:
        return found + (frozen(judge, own.engine) if head else Memory())
    scored = frozen(judge, own.engine) if head or own.reward != "answers" else Memory()
    reference = Memory() if own.lora.enabled else frozen(parameters(model, vocab_size), own.engine)
    return found + reference + scored


def refuse_absurd(stage: str, own: Settings, model: Model, vocab_size: int, engine: Engine, seq_len: int) -> None:
    """Raise ValueError if no accelerator that is made has the memory that a stage needs on each.

    own: the stage's settings, of which `engine` is a part. seq_len: of pretraining, whose rows are always full; 0 for a
    stage whose rows are as long as its examples.
    """
    count = parameters(model, vocab_size)
    lora = own.lora if isinstance(own, Sft | Dpo | Rollouts) else Lora()
    learnt = adapter_parameters(model, lora) or count
    models = held(learnt, engine) + still(count, lora, engine) + beside(own, model, vocab_size)
    where = f"on each of {engine.processes} processes with ZeRO stage {engine.stage_in_force}"
    limit = f"no accelerator has more than {MOST_MEMORY / GB:.0f} GB"
    if models.total > MOST_MEMORY:
        raise ValueError(
            f"pretrain.model: its {count:,} parameters take {models.total / GB:,.0f} GB in {stage}, {where}; {limit}; "
            f"raise {stage}.engine.zero_stage or .processes, set .offload_optimizer, or make the model smaller"
        )
    work = Work(engine.micro_batch, seq_len, seq_len, accumulation=1)
    logits = logits_bytes(model, vocab_size, engine, work, cuda=True)
    passing = Memory(activations=activations(model, engine, work), logits=logits)
    if (models + passing).total > MOST_MEMORY:
        raise ValueError(
            f"{stage}.engine.micro_batch: {engine.micro_batch:,} sequences of {seq_len:,} tokens take "
            f"{passing.total / GB:,.0f} GB beside {models.total / GB:,.0f} GB for the model, {where}; {limit}; "
            f"lower it, or set {stage}.engine.activation_checkpointing"
        )
