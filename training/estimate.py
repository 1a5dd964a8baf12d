"""What a run will take, said before it starts: `python -m training estimate --recipe R --gpus N [--gpu h100]`.

For each stage that trains: parameters, steps, tokens, epochs, memory by part, FLOPs and hours. For each stage of the
corpus: documents, core-hours and bytes. All of it is arithmetic on the recipe, on what a data sheet says of the GPU and
on the measured rates of `training/rates.py`. Nothing is trained and no page is read.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from contract import recipe as recipes
from contract.accelerators import ACCELERATORS, GB, Accelerator
from contract.digest import split_digest
from contract.errors import InputError, exit_code_of
from contract.manifest import find
from contract.mixture import Schedule, known_steps, lengths, of_pretrain, split_steps
from contract.plan import open_run
from contract.recipe import Recipe
from contract.settings.corpus import CRAWL
from contract.settings.examples import MAX_SYNTHETIC, Examples
from contract.settings.training import Dpo, Engine, Grpo, Model, Ppo, Rollouts, Sft
from contract.shards import rows_by_source
from contract.sizes import (
    CHECKPOINT,
    Memory,
    Work,
    activations,
    adapter_parameters,
    cache_bytes,
    frozen,
    gradients,
    held,
    idle_parameters,
    logits_bytes,
    number_bytes,
    parameters,
    part_of_logits,
    reward_parameters,
    still,
    training_peak,
)
from contract.sources import list_segments
from contract.stages import ALIGNING
from contract.store import split_uri
from training.engine.metrics import flops_per_token
from training.rates import CRAWL_FILES, DOCUMENT_BYTES, DOCUMENT_TOKENS, FILE_BYTES, FILE_PAGES, RATES, SAMPLES

CHINCHILLA = 20
"""Tokens a parameter that make the best model for a number of FLOPs (Hoffmann et al. 2022)."""
MFU = 0.4
"""Assumed unless --mfu says otherwise. PaLM reached 0.46 (Chowdhery et al. 2022)."""
GIB = float(1 << 30)
ANSWERED = 32_768
"""Tokens that `training.answering` keeps in memory at once."""
TRAINING = ("pretrain", "sft", "reward", "judge", *ALIGNING)


# ---------------------------------------------------------------- the corpus


@dataclass(frozen=True)
class Processed:
    """What a Spark stage will take: documents that enter it, core-hours, and the bytes that it writes."""

    stage: str
    documents: float
    core_hours: float
    written: float


@dataclass(frozen=True)
class Corpus:
    """What a crawl gives: `size` bytes in `files`, the stages over them, and the tokens that are left."""

    files: float
    size: float
    stages: tuple[Processed, ...]
    tokens: float

    @property
    def pages(self) -> float:
        return self.size / FILE_BYTES * FILE_PAGES


def corpus(recipe: Recipe, files: float, size: float) -> Corpus:
    """The stages over crawl files of `size` bytes in all."""
    pages = entering = size / FILE_BYTES * FILE_PAGES
    stages = []
    for stage, rate in RATES.items():
        stages.append(Processed(stage, entering, entering / rate.per_core / 3600, entering * rate.written))
        entering = pages * rate.kept
    sampled = {
        "instructions": examples(recipe.instructions) or 0,
        "preferences": examples(recipe.preferences) or 0,
        "prompts": (recipe.prompts.max_examples or 0) if recipe.prompts.data else 0,
        "tokenizer": min(entering, recipe.tokenizer.sample_bytes / DOCUMENT_BYTES),
    }
    for stage, count in sampled.items():
        rate = SAMPLES[stage]
        stages.append(Processed(stage, count, count / rate.per_core / 3600, count * rate.written))
    return Corpus(files, size, tuple(stages), entering * (1 - recipe.mix.heldout_fraction) * DOCUMENT_TOKENS)


def crawl_size(recipe: Recipe) -> tuple[int, float]:
    """(files, bytes) that the recipe reads: of a mirror as many as a crawl has, of a folder those that lie there."""
    most = recipe.crawl.max_bytes_per_file or FILE_BYTES
    if recipe.crawl.source.startswith(("http://", "https://")):
        files = min(recipe.crawl.max_files or CRAWL_FILES, CRAWL_FILES) * max(1, len(set(recipe.snapshots)))
        return files, files * min(most, FILE_BYTES)
    sizes = [file.size for segment in list_segments(recipe) for file in segment.files]
    return len(sizes), float(sum(min(most, size) for size in sizes))


def examples(settings: Examples) -> int | None:
    """The examples that are read, those held out included; None if only the file knows."""
    return settings.max_examples or (MAX_SYNTHETIC if settings.synthetic else None)


# ---------------------------------------------------------------- the models


@dataclass(frozen=True)
class Trained:
    """What a stage that trains will take.

    parameters: of the model that learns. tokens: that go through it, at most. memory: of one GPU. generation: seconds
    in which tokens are sampled one after the other, which memory bandwidth bounds and no FLOPs.
    """

    stage: str
    engine: Engine
    parameters: int
    steps: int | None
    tokens: float
    flops: float
    memory: Memory
    generation: float = 0

    def hours(self, gpu: Accelerator, mfu: float) -> float:
        return (self.flops / (gpu.peak * self.engine.processes * mfu) + self.generation) / 3600


def pretrain(recipe: Recipe, sources: Mapping[str, int] | None = None) -> Trained:
    """`sources`: the rows of `pack.seq_len` that each source has, which mixtures by epochs need; None if not known."""
    own, length = recipe.pretrain, recipe.pack.seq_len
    vocabulary, count = recipe.tokenizer.vocab_size, parameters(own.model, recipe.tokenizer.vocab_size)
    blanks = own.objective == "blank_infilling"
    count += own.blanks.places * own.model.d_model if blanks else 0
    steps = known_steps(own, length)
    if steps is None and sources is not None:
        steps = _schedule(recipe, sources).steps
    each = split_steps([phase.share for phase in own.phases] or [1], steps or 0)
    flops, peaks, whole = 0.0, [], own.distill.teacher is not None or makes_logits(recipe, own.engine)
    for some, (long, rows) in zip(each, lengths(own, length), strict=True):
        flops += some * rows * long * _flops(count, own.model, long)
        micro = max(1, own.engine.micro_batch * length // long)
        # On a GPU attention gets a mask only to fill blanks.
        work = Work(micro, long, long, rows // (own.engine.replicas * micro), blanks, whole)
        peaks.append(training_peak(own.model, count, vocabulary, own.engine, work, cuda=True))
    memory = max(peaks, key=lambda peak: peak.total)
    return Trained("pretrain", own.engine, count, steps, (steps or 0) * own.batch * length, flops, memory)


def _flops(count: int, model: Model, length: int) -> float:
    """FLOPs a token of a model of `count` parameters, of which those of experts that a token misses do nothing."""
    return flops_per_token(count - idle_parameters(model), model.layers, model.d_model, length)


def _schedule(recipe: Recipe, rows: Mapping[str, int]) -> Schedule:
    """What pretraining draws of sources of so many rows of `pack.seq_len`."""
    own, length = recipe.pretrain, recipe.pack.seq_len
    others = {long: {name: count * length // long for name, count in rows.items()} for long, _ in lengths(own, length)}
    return of_pretrain(own, length, rows, others)


def sft(recipe: Recipe) -> Trained:
    own, model = recipe.sft, recipe.pretrain.model
    length = max(own.max_tokens, recipe.pack.seq_len if own.text_rows else 0)
    vocabulary, count = recipe.tokenizer.vocab_size, parameters(model, recipe.tokenizer.vocab_size)
    whole = makes_logits(recipe, own.engine)
    work = Work(own.engine.micro_batch, length, length, _parts(own.batch, own.engine), whole=whole)
    memory = _learning(own, model, vocabulary, work)
    read = examples(recipe.instructions)
    steps = None if read is None else max(1, read * own.epochs // (own.batch - own.text_rows))
    tokens = (steps or 0) * own.batch * length
    flops = tokens * _flops(count, model, length)
    return Trained("sft", own.engine, count, steps, tokens, flops, memory)


def _learning(own: Sft | Dpo | Rollouts, model: Model, vocabulary: int, work: Work) -> Memory:
    """`training_peak` of a model of which, if the recipe says so, only adapters learn."""
    count = parameters(model, vocabulary)
    learnt = adapter_parameters(model, own.lora) or count
    return still(count, own.lora, own.engine) + training_peak(model, learnt, vocabulary, own.engine, work, cuda=True)


def reward(recipe: Recipe) -> Trained:
    """Pairs of replies; a prompt with more of them takes more."""
    return _rewarding("reward", recipe, recipe.reward.engine, 1 - recipe.judge.share)


def judge(recipe: Recipe) -> Trained:
    """The second reward model, which learns from the other prompts."""
    return _rewarding("judge", recipe, recipe.judge.engine, recipe.judge.share)


def _rewarding(stage: str, recipe: Recipe, engine: Engine, share: float) -> Trained:
    own, model, length = recipe.reward, recipe.pretrain.model, recipe.reward.max_tokens
    count = reward_parameters(model, recipe.tokenizer.vocab_size)
    work = Work(2 * engine.micro_batch, length, 0, _parts(own.batch, engine), masked=True)  # a pair is two rows
    memory = training_peak(model, count, recipe.tokenizer.vocab_size, engine, work, cuda=True)
    read = examples(recipe.preferences)
    pairs = None if read is None else round(read * (1 - recipe.preferences.heldout_fraction) * share)
    steps = None if pairs is None else -(-pairs * own.epochs // own.batch)
    tokens = 2 * (steps or 0) * own.batch * length
    flops = tokens * _flops(count, model, length)
    return Trained(stage, engine, count, steps, tokens, flops, memory)


@dataclass(frozen=True)
class Frozen:
    """What the models that only compute hold: while the policy learns, and while one of them is asked."""

    learning: Memory
    judging: Memory


def frozen_models(own: Rollouts, reference: int, judge: int) -> Frozen:
    """Of the reference and the reward model, of so many parameters each; of 0 there is none.

    Offloaded, they wait on the host, and one at a time is on the device. A critic that is a head on the reward model's
    decoder needs that while it learns.
    """
    engine = own.engine
    shared = frozen(judge, engine) if isinstance(own, Ppo) and own.critic == "head" else Memory()
    if not own.offload_frozen:
        both = frozen(reference, engine) + frozen(judge, engine)
        return Frozen(both, both)
    host = Memory(host=number_bytes(engine) * (reference + judge))
    return Frozen(shared + host, frozen(max(reference, judge), engine) + host)


def ppo(recipe: Recipe, gpu: Accelerator) -> Trained:
    """Policy and critic learn; reference and reward model only compute. Every reply may have its full length."""
    return _replying("ppo", recipe, recipe.ppo, gpu)


def grpo(recipe: Recipe, gpu: Accelerator) -> Trained:
    """The same without a critic."""
    return _replying("grpo", recipe, recipe.grpo, gpu)


def _replying(stage: str, recipe: Recipe, own: Ppo | Grpo, gpu: Accelerator) -> Trained:
    model, engine, text = recipe.pretrain.model, own.engine, own.ptx_coef if isinstance(own, Ppo) else 0
    vocabulary, length = recipe.tokenizer.vocab_size, own.max_prompt_tokens + own.max_response_tokens
    policy, judge = parameters(model, vocabulary), reward_parameters(model, vocabulary)
    critic, _ = _critic(own, model, judge)
    rows = -(-own.rollout_batch // engine.processes)
    updates = own.inner_epochs * (own.rollout_batch // own.minibatch)

    seen = own.rollout_batch * own.inner_epochs * length
    mixed = updates * own.ptx_sequences * recipe.pack.seq_len if isinstance(own, Ppo) and text else 0
    each = [_flops(count, model, length) if count else 0.0 for count in (policy, critic)]
    passes = own.rollout_batch * length * (3 * each[0] + 2 * each[1]) / 3  # a forward pass is a third of training
    flops = own.steps * (seen * sum(each) + mixed * each[0] + passes)
    # Each sampled token reads all weights; the cache of the tokens before it is read too, on average half full.
    cache = cache_bytes(model, engine, rows, length)
    seconds = own.max_response_tokens * (number_bytes(engine) * policy + cache / 2) / gpu.bandwidth

    memory = _replying_memory(recipe, own, cache)
    return Trained(stage, engine, policy, own.steps, own.steps * (seen + mixed), flops, memory, own.steps * seconds)


def _replying_memory(recipe: Recipe, own: Ppo | Grpo, cache: float) -> Memory:
    """Of all models: while replies are sampled, while they are judged, and while policy and critic learn from them."""
    model, engine, vocabulary = recipe.pretrain.model, own.engine, recipe.tokenizer.vocab_size
    policy, judge = parameters(model, vocabulary), reward_parameters(model, vocabulary)
    critic, learned = _critic(own, model, judge)
    judge = judge if own.reward != "answers" or (critic and critic != learned) else 0
    learnt = adapter_parameters(model, own.lora) or policy
    asked = frozen_models(own, 0 if own.lora.enabled else policy, judge)
    rated = held(learned, engine) if learned else Memory()
    waiting = rated + (gradients(learned, engine) if learned else Memory())
    actor = still(policy, own.lora, engine) + held(learnt, engine)

    length, parts = own.max_prompt_tokens + own.max_response_tokens, _parts(own.minibatch, engine)
    reply = Work(engine.micro_batch, length, own.max_response_tokens + 1, parts, masked=True, whole=True)
    # Two models' logits, and five tensors as large in fp32 of the divergence of their distributions.
    compared = (2 * number_bytes(engine) + 5 * 4) * vocabulary * reply.rows * own.max_response_tokens
    moments = [
        asked.learning + actor + rated + Memory(cache=cache),
        asked.judging + actor + rated + Memory(logits=compared),
        asked.learning + waiting + _learning(own, model, vocabulary, reply),
    ]
    if isinstance(own, Ppo) and own.ptx_coef:  # one backward pass for replies and text
        text = _text(recipe, own, parts)
        passing = Memory(
            activations=sum(activations(model, engine, work) for work in (reply, text)),
            logits=sum(logits_bytes(model, vocabulary, engine, work, cuda=True) for work in (reply, text)),
        )
        begun = gradients(learnt, engine) if parts > 1 and engine.stage_in_force < 3 else Memory()
        moments.append(asked.learning + waiting + actor + begun + passing)
    if critic:
        judging = replace(reply, predicted=0)
        passing = training_peak(model, learned, vocabulary, engine, judging, cuda=True)
        moments.append(asked.learning + actor + gradients(learnt, engine) + passing)
    return max(moments, key=lambda moment: moment.total)


def _text(recipe: Recipe, own: Ppo, parts: int) -> Work:
    """The pretraining text beside one of the parts in which a process learns a minibatch."""
    rows, length = max(1, own.ptx_sequences // own.engine.processes // parts), recipe.pack.seq_len
    return Work(rows, length, length, parts, recipe.pretrain.boundaries, makes_logits(recipe, own.engine))


def _critic(own: Ppo | Grpo, model: Model, judge: int) -> tuple[int, int]:
    """(the parameters with which a critic computes, those of them that learn)."""
    if not isinstance(own, Ppo):
        return 0, 0
    return judge, judge if own.critic == "own" else model.d_model + 1


def dpo(recipe: Recipe) -> Trained:
    """One model: the SFT model's log-probabilities are taken before it learns."""
    own, model, length = recipe.dpo, recipe.pretrain.model, recipe.dpo.max_tokens
    vocabulary, count = recipe.tokenizer.vocab_size, parameters(model, recipe.tokenizer.vocab_size)
    work = Work(2 * own.engine.micro_batch, length, length, _parts(own.batch, own.engine), whole=True)
    memory = _learning(own, model, vocabulary, work)
    read = examples(recipe.preferences)
    pairs = None if read is None else round(read * (1 - recipe.preferences.heldout_fraction) * (1 - recipe.judge.share))
    steps = None if pairs is None else -(-pairs * own.epochs // own.batch)
    tokens = 2 * (steps or 0) * own.batch * length
    flops = tokens * _flops(count, model, length) * (1 + 1 / (3 * own.epochs))
    return Trained("dpo", own.engine, count, steps, tokens, flops, memory)


def aligned(recipe: Recipe, gpu: Accelerator) -> Trained:
    """The stage that the recipe aligns by."""
    return dpo(recipe) if recipe.align == "dpo" else {"ppo": ppo, "grpo": grpo}[recipe.align](recipe, gpu)


def largest(recipe: Recipe, gpu: Accelerator) -> Trained | None:
    """The aligning stage with the largest model that fits one GPU, of the shapes that `model.depth` makes.

    All other settings stay. None if not even a depth of 1 fits.
    """

    def at(depth: int) -> Trained:
        shape = Model(depth=depth, tie_embeddings=recipe.pretrain.model.tie_embeddings)
        return aligned(
            recipe.model_copy(
                update={"pretrain": recipe.pretrain.model_copy(update={"model": shape, "start_from": None})}
            ),
            gpu,
        )

    low, high = 0, 1024
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if at(middle).memory.total <= gpu.memory else (low, middle - 1)
    return at(low) if low else None


def evaluate(recipe: Recipe) -> Trained:
    """A model and the reward model that judges its replies: nothing learns."""
    own, model, engine = recipe.evaluate, recipe.pretrain.model, recipe.evaluate.engine
    vocabulary, length = recipe.tokenizer.vocab_size, recipe.pack.seq_len
    count, judge = parameters(model, vocabulary), reward_parameters(model, vocabulary)
    weights = frozen(count, engine) + frozen(judge, engine)
    tokens = own.sequences * length
    flops = 3 * tokens * _flops(count, model, length) / 3  # three models, forward only
    read = engine.micro_batch * length
    whole = vocabulary * read * (number_bytes(engine) + 2 * 4)
    logits = whole if makes_logits(recipe, engine) else part_of_logits(vocabulary, engine, read, cuda=True)
    asked = recipe.ppo.max_prompt_tokens + own.max_response_tokens
    cache = cache_bytes(model, engine, engine.micro_batch, asked)
    moments = (weights + Memory(logits=logits), weights + Memory(cache=cache))
    memory = max(moments, key=lambda moment: moment.total)
    return Trained("evaluate", engine, count, None, tokens, flops, memory)


def sample(recipe: Recipe, gpu: Accelerator) -> Trained:
    """One model at a time replies, and nothing learns: of a round of feedback, all replies at their full length."""
    own, model, engine = recipe.sample, recipe.pretrain.model, recipe.sample.engine
    vocabulary, length = recipe.tokenizer.vocab_size, recipe.ppo.max_prompt_tokens + own.max_response_tokens
    count = parameters(model, vocabulary)
    rows = min(engine.micro_batch, -(-own.prompts // engine.processes))
    cache = cache_bytes(model, engine, rows, length)
    memory = frozen(count, engine) + Memory(cache=cache)
    # The judge's questions hold a prompt and two of its replies.
    asked = own.questions * (length + own.max_response_tokens * 2)
    tokens = own.prompts * (own.replies * length + asked)
    # Each sampled token reads all weights and, on average, half of the cache.
    each = own.max_response_tokens * (number_bytes(engine) * count + cache / 2) / gpu.bandwidth
    seconds = (own.replies + own.questions) * -(-own.prompts // (engine.processes * rows)) * each
    return Trained("sample", engine, count, None, tokens, tokens * _flops(count, model, length) / 3, memory, seconds)


def benchmark(recipe: Recipe) -> Trained:
    """One model that answers benchmarks: how many tokens these have is known when their files are read."""
    engine, count = recipe.benchmark.engine, parameters(recipe.pretrain.model, recipe.tokenizer.vocab_size)
    cache = cache_bytes(recipe.pretrain.model, engine, 1, ANSWERED)
    return Trained("benchmark", engine, count, None, 0, 0, frozen(count, engine) + Memory(cache=cache))


def _parts(batch: int, engine: Engine) -> int:
    """Micro-batches of one process in an update."""
    return batch // (engine.replicas * engine.micro_batch)


def epochs(recipe: Recipe, sources: Mapping[str, int] | None) -> dict[str, float | None]:
    """Source -> how often pretraining reads it; None if the sizes of the sources are not known."""
    if sources is None:
        return dict.fromkeys((CRAWL, *recipe.curate.sources))
    plan = _schedule(recipe, sources)
    return {**plan.epochs(plan.steps)}


def sources_of(recipe: Recipe, made: Corpus) -> dict[str, int] | None:
    """The rows that each source will have; None if there are others beside the crawl, whose size only reading tells."""
    return None if recipe.curate.sources else {CRAWL: max(1, int(made.tokens / recipe.pack.seq_len))}


def packed(uri: str) -> dict[str, int] | None:
    """The rows that each source has, if the recipe is that of a run whose tokens are packed already."""
    if not split_uri(split_digest(uri)[0])[0].exists("inputs.json"):
        return None
    run = open_run(uri)
    done = find(run.store, run.task("pack"))
    return rows_by_source(done, run.recipe.pack.seq_len) if done else None


def with_started(recipe: Recipe) -> Recipe:
    """The recipe with the shape and vocabulary of the model from which pretraining goes on, if it does.

    Raises InputError if the folder has no readable config.json.
    """
    folder = recipe.pretrain.start_from
    if folder is None:
        return recipe
    from training.models.causal import shape_of  # torch and transformers take seconds to import

    try:
        shape, size = shape_of(_described(folder))
        vocabulary = size + recipe.tokenizer.expand.tokens
    except (FileNotFoundError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"pretrain.start_from: {folder} has no config.json of a causal model ({error!r})") from error
    return recipe.model_copy(
        update={
            "pretrain": recipe.pretrain.model_copy(update={"model": shape}),
            "tokenizer": recipe.tokenizer.model_copy(update={"vocab_size": vocabulary}),
        }
    )


def makes_logits(recipe: Recipe, engine: Engine) -> bool:
    """Whether only the model itself can make its logits, all at once.

    So do some types from which pretraining goes on, and all whose last matrix tensor parallelism cuts.
    """
    folder = recipe.pretrain.start_from
    if engine.tensor_parallel > 1:
        return True
    if folder is None:
        return False
    from training.models.lm import PLAIN_HEADS

    return _described(folder)["model_type"] not in PLAIN_HEADS


def _described(folder: str) -> dict[str, Any]:
    store, name = split_uri(f"{folder.rstrip('/')}/config.json")
    found: dict[str, Any] = json.loads(store.read_bytes(name))
    return found


# ---------------------------------------------------------------- the output


def advice(stage: str, engine: Engine, part: str) -> str:
    """What would make the largest part of a GPU's memory smaller: only settings that are not at their end yet."""
    cuts, more = engine.stage_in_force if stage in TRAINING else 3, "take more GPUs, or a smaller model"
    whole = "these are whole on each GPU: take GPUs with more memory, or a smaller model"
    offers = {
        "weights": [
            (cuts < 3, "raise engine.zero_stage to 3"),
            (stage in TRAINING and not engine.offload_parameters, "set engine.offload_parameters"),
            (True, more if stage in TRAINING else whole),
        ],
        "gradients": [(cuts < 2, "raise engine.zero_stage to 2 or 3"), (True, more)],
        "optimizer": [
            (cuts < 1, "raise engine.zero_stage"),
            (not engine.offload_optimizer, "set engine.offload_optimizer"),
            (True, more),
        ],
        "buffers": [(True, "these have a fixed size: take GPUs with more memory")],
        "activations": [
            (engine.micro_batch > 1, "lower engine.micro_batch"),
            (not engine.activation_checkpointing, "set engine.activation_checkpointing"),
            (not engine.offload_activations, "set engine.offload_activations"),
            (True, "take shorter sequences, or GPUs with more memory"),
        ],
        "logits": [(engine.micro_batch > 1, "lower engine.micro_batch"), (True, "lower tokenizer.vocab_size")],
        "cache": [
            (stage in TRAINING, f"lower {stage}.rollout_batch, or take more GPUs"),
            (stage not in TRAINING, "lower engine.micro_batch"),
        ],
    }
    able = [text for applies, text in offers[part] if applies]
    return ", or ".join(able[:2]).replace("engine", f"{stage}.engine")


PARTS = [field.name for field in fields(Memory) if field.name != "host"]


def most(memory: Memory) -> str:
    """The part that takes most of a GPU's memory."""
    return max(PARTS, key=lambda part: getattr(memory, part))


def report(recipe: Recipe, gpu: Accelerator, mfu: float, rows: Mapping[str, int] | None = None) -> list[str]:
    """The lines that the command prints. `rows`: of each source, if they are packed already."""
    recipe = with_started(recipe)
    made = corpus(recipe, *crawl_size(recipe))
    sources = rows or sources_of(recipe, made)
    stages = [pretrain(recipe, sources), sft(recipe), reward(recipe), aligned(recipe, gpu)]
    stages += [*([judge(recipe)] if recipe.judge.share else []), evaluate(recipe)]
    stages += [benchmark(recipe)] if recipe.benchmark.tasks else []
    stages += [sample(recipe, gpu)]
    fits = _largest(recipe, gpu)
    return [*_models(recipe, stages, sources, gpu, mfu), "", *_memory(stages, gpu), fits, "", *_corpus(recipe, made)]


def _largest(recipe: Recipe, gpu: Accelerator) -> str:
    """What `largest` says, in a line."""
    found, settings = largest(recipe, gpu), "with these settings of its engine and batches"
    if found is None:
        return f"{recipe.align}: no model fits {gpu.name} {settings}"
    each = found.memory.total / found.parameters
    return (
        f"{recipe.align}: the largest model that fits {gpu.name} {settings} has {short(found.parameters)} parameters, "
        f"at {each:.1f} bytes each"
    )


def _models(
    recipe: Recipe, stages: Sequence[Trained], sources: Mapping[str, int] | None, gpu: Accelerator, mfu: float
) -> list[str]:
    rows = [
        (
            one.stage,
            f"{one.parameters:,}",
            f"{one.engine.processes}",
            "" if one.steps is None else f"{one.steps:,}",
            short(one.tokens) if one.tokens else "not known",
            f"{one.flops:.2e}" if one.flops else "",
            f"{one.hours(gpu, mfu):,.2f}" if one.flops else "",
        )
        for one in stages
    ]
    first = stages[0]
    saved = CHECKPOINT * first.parameters / GB
    ratio = first.tokens / first.parameters
    read = epochs(recipe, sources)
    said = ", ".join(f"{name} {'not known' if value is None else f'{value:.2f}'}" for name, value in read.items())
    return [
        f"Models, on {gpu.name}: {gpu.peak / 1e12:.0f} TFLOP/s dense bf16, of which {mfu:.0%} are assumed",
        "",
        *table(("stage", "parameters", "GPUs", "steps", "tokens at most", "FLOPs", "hours"), rows),
        "",
        f"pretrain: {ratio:.0f} tokens a parameter, {ratio / CHINCHILLA:.1f} times Chinchilla's {CHINCHILLA}",
        f"pretrain: epochs over each source: {said}",
        f"pretrain: a checkpoint takes {saved:,.1f} GB; at 1 GB/s to the store, a stop needs {saved:,.0f} s to save it",
        *(line for one in stages for line in _sampling(one)),
    ]


def _sampling(stage: Trained) -> list[str]:
    hours = f"{stage.generation / 3600:,.2f}"
    said = f"{stage.stage}: {hours} of its hours are sampling, which reads all weights for each token"
    return [said] if stage.generation else []


def _memory(stages: Sequence[Trained], gpu: Accelerator) -> list[str]:
    rows = [
        (
            one.stage,
            one.engine.dtype,
            f"{one.engine.stage_in_force}" if one.stage in TRAINING else "",
            f"{one.engine.micro_batch}",
            *(gib(getattr(one.memory, part)) for part in (*PARTS, "total", "host")),
        )
        for one in stages
    ]
    told = []
    for one in stages:
        part = most(one.memory)
        if one.memory.total > gpu.memory:
            told.append(f"{one.stage} does not fit: {part} take most; {advice(one.stage, one.engine, part)}")
        else:
            told.append(f"{one.stage} fits: {one.memory.total / gpu.memory:.0%} of the memory, most of it {part}")
    head = ("stage", "dtype", "ZeRO", "micro-batch", *PARTS, "total", "host")
    return [
        f"Memory of one GPU at its fullest moment, in GiB; {gpu.name} has {gib(gpu.memory)}; "
        "host: main memory of one process",
        "",
        *table(head, rows),
        "",
        *told,
    ]


def _corpus(recipe: Recipe, made: Corpus) -> list[str]:
    rows = [
        (one.stage, short(one.documents), f"{one.core_hours:,.1f}", f"{one.written / 1e9:,.1f}") for one in made.stages
    ]
    hours, written = sum(one.core_hours for one in made.stages), sum(one.written for one in made.stages)
    slowest = max(made.stages, key=lambda one: one.core_hours)
    largest = max(made.stages, key=lambda one: one.written)
    beside = (
        f"; what {', '.join(recipe.curate.sources)} hold is known when they are read" if recipe.curate.sources else ""
    )
    return [
        f"Corpus, of {made.files:,} crawl files: {made.size / 1e9:,.1f} GB, about {short(made.pages)} pages",
        "",
        *table(
            ("stage", "documents in", "core-hours", "GB written"),
            [*rows, ("all", "", f"{hours:,.1f}", f"{written / 1e9:,.1f}")],
        ),
        "",
        f"about {short(made.tokens)} tokens of the crawl are left to train on{beside}",
        f"{slowest.stage} takes {slowest.core_hours / hours:.0%} of the core-hours, "
        f"{largest.stage} {largest.written / written:.0%} of the bytes"
        if hours
        else "the crawl is empty",
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column aligned left, the others right."""
    whole = [tuple(head), *rows]
    widths = [max(len(row[column]) for row in whole) for column in range(len(head))]
    return ["  ".join((row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))).rstrip() for row in whole]


def gib(count: float) -> str:
    return f"{count / GIB:,.1f}" if count else "-"


def short(count: float) -> str:
    """A large number as people say it: 5.24 billion."""
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:,.3g} {name}"
    return f"{count:,.0f}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m training estimate", description=__doc__)
    parser.add_argument("--recipe", required=True, help="name, path or URI of a recipe, resolved or not")
    parser.add_argument("--gpus", type=int, metavar="N", help="of each stage; default: its engine.processes")
    parser.add_argument("--gpu", choices=ACCELERATORS, default="h100")
    parser.add_argument("--mfu", type=float, default=MFU, help=f"share of the peak that is reached; default: {MFU}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    given = parser.parse_args(arguments)
    if given.gpus is not None and given.gpus < 1:
        parser.error(f"--gpus should be 1 or more, got {given.gpus}")
    if not 0 < given.mfu <= 1:
        parser.error(f"--mfu should be above 0 and at most 1, got {given.mfu:g}")
    spread = (
        ()
        if given.gpus is None
        else [f"{stage}.engine.processes={given.gpus}" for stage in (*TRAINING, "evaluate", "benchmark", "sample")]
    )

    def say() -> None:
        recipe = recipes.load(given.recipe, [*given.overrides, *spread])
        print("\n".join(report(recipe, ACCELERATORS[given.gpu], given.mfu, packed(given.recipe))))

    return exit_code_of(say)
