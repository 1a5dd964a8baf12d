"""Instruction tuning: next-token prediction on chats, with loss on the replies only.

Beside them, a share of each step's rows may be text of the pretraining corpus, so that abilities hold, and adapters may
learn in the model's place.
"""

import time
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from contract import results
from contract.conversation import Conversation
from contract.errors import InputError
from contract.kinds import Kind
from contract.metrics import Progress
from contract.mixture import schedule
from contract.settings.training import Sft
from evals.heldout import HeldOut, perplexity, together
from training.chat.template import Chat, count_cuts, open_chat
from training.data.batch import Batch
from training.data.drawing import Draws
from training.data.examples import read_chats, read_tasks
from training.data.order import rows_of, share_of
from training.data.reading import TokenData
from training.data.rows import Encoded, beside, dealt, one_each, predicted, several_each
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.metrics import of_machine
from training.models import llama as model
from training.models import lora, vocabulary
from training.models.lm import best_of, finite, heldout_loss, heldout_text, learn, note_heldout
from training.models.sight import check_sight

MOST_TASKS = 50
"""Tasks whose held-out loss is told apart; the smaller ones are measured together: those that are learned as `other
tasks`, those of which nothing is learned as `other tasks, not learned`."""


@dataclass(frozen=True)
class Measured:
    """Held-out losses on replies, by task: of tasks that are learned, and of those of which nothing is."""

    learned: dict[str, HeldOut]
    apart: dict[str, HeldOut]

    @property
    def judged(self) -> dict[str, HeldOut]:
        """Those by which the model is judged."""
        return self.learned or self.apart


class HeldOutChats:
    """The held-out chats with the number of each one's task."""

    def __init__(self, job: Job, chats: Sequence[Conversation]) -> None:
        self.chats = chats
        tasks, learned = read_tasks(job, Kind.HELDOUT_CHATS), {*read_tasks(job, Kind.CHATS)}
        told = told_apart(tasks, learned, MOST_TASKS)
        self.names = list(dict.fromkeys(told)) or [""]
        self.numbers = [self.names.index(name) for name in told]
        self.learned = {name for name, task in zip(told, tasks, strict=True) if task in learned}

    def batches(self, job: Job, micro_batch: int, chat: Chat, max_tokens: int) -> Iterator[Batch]:
        """This process's batches; every process gets equally many."""
        at_once = micro_batch * job.ranks.replicas
        for start in range(0, len(self.chats), at_once):
            mine = range(start, min(start + at_once, len(self.chats)))[job.ranks.replica :: job.ranks.replicas]
            encoded = [chat.encode(self.chats[row], max_tokens) for row in mine]
            filler: Encoded = (
                [chat.end_of_text, chat.end_of_text],
                [0, 0],
            )  # so that every process makes the same calls
            numbers = torch.tensor([self.numbers[row] for row in mine] or [0])
            yield replace(one_each(encoded or [filler], chat.pad), sources=numbers)


def told_apart(tasks: Sequence[str], learned: Container[str], most: int) -> list[str]:
    """The name under which each chat is measured: its task, if that is one of the `most` largest, or a common one."""
    large = {task for task, _ in Counter(tasks).most_common(most)}
    common = {True: "other tasks", False: "other tasks, not learned"}
    return [task if task in large else common[task in learned] for task in tasks]


def run(job: Job) -> None:
    settings: Sft = job.settings
    chat = open_chat(job)
    train, heldout = read_chats(job, Kind.CHATS), HeldOutChats(job, read_chats(job, Kind.HELDOUT_CHATS))
    if settings.patience and not heldout.learned:
        raise InputError(
            "sft.patience: no chat of a task that is learned is held out, so nobody can tell when to stop; "
            "raise instructions.heldout_fraction, or leave patience out"
        )
    chats_a_step = settings.batch - settings.text_rows
    steps = max(1, len(train) * settings.epochs // chats_a_step)
    engine = Engine(job, start(job, chat), settings.optim, settings.engine, settings.batch, steps)

    step, state = checkpoint.restore(job, {"model": engine})
    if step == 0:
        state = _first_state(job, engine, train, heldout, chat)
    progress = Progress(job.task.stage, job.task.partition, "steps", steps, step)
    job.curves.steps = steps
    with _text(job, steps, step) as texts:
        while step < steps and not _stale(settings, state):
            began = time.perf_counter()
            rows = rows_of(step, chats_a_step, len(train), settings.seed)
            mine = share_of(rows, job.ranks.replica, job.ranks.replicas)
            examples = [chat.encode(train[row], settings.max_tokens) for row in mine]
            batch, tokens = _batch(job, examples, texts, chat)
            shares = learn(job, engine, batch)
            lr, norm = engine.lr, engine.step()
            step += 1
            seconds = time.perf_counter() - began
            added = {"seconds": seconds, "tokens": tokens, "text_tokens": batch.count - tokens}
            state = {**state, **{name: state[name] + value for name, value in added.items()}}
            job.curves.add_later(step, shares, lr=lr, grad_norm=norm, **of_machine(job.ranks, seconds))
            engine.report_skip(step, (("", row) for row in rows))
            if step % settings.engine.log_steps == 0:
                job.curves.read(job.ranks)
            if job.ranks.rank == 0:
                progress.advance(1, job.curves.note("loss"))
            best = None
            if step < steps and step % settings.eval_steps == 0:
                state, best, _ = _note(job, engine, heldout, chat, step, state)
            checkpoint.save_when_due(job, step, steps, {"model": engine}, state, best)
    checkpoint.save_last(job, step, {"model": engine}, state)
    _finish(job, engine, (len(train), heldout), chat, step, state, progress)


def start(job: Job, chat: Chat) -> Any:
    """The model before the first step: that of `pretrain` or of a folder, with adapters if the recipe wants them."""
    settings: Sft = job.settings
    module = _base(job, chat, settings.engine.dtype, quantised=settings.lora.enabled and settings.lora.quantised)
    if settings.lora.enabled:
        if chat.ends_reserved and job.ranks.rank == 0:
            print(
                f"warning: sft: replies end with {chat.end_token}, which pretraining never saw, and adapters train no "
                "embeddings; if the model does not learn to stop, use sft.chat_template gristmill or zephyr",
                flush=True,
            )
        module = lora.with_adapters(module, settings.lora, settings.seed)
    if settings.packing or settings.text_rows:
        model.set_attention(job, module, settings.engine.dtype, apart=True)
        if settings.engine.stage_in_force < 3 and settings.engine.pipeline_stages == 1:
            key = "sft.packing" if settings.packing else "sft.text_share"
            check_sight(module.to(job.ranks.device), True, job.ranks.device, key, "leave it out")
    return module


def _base(job: Job, chat: Chat, dtype: model.Dtype, quantised: bool = False) -> Any:
    settings: Sft = job.settings
    if settings.start_from is None and not quantised:
        return model.load_model(job, job.manifest("pretrain"), dtype, settings.engine)
    if settings.start_from is None:
        return lora.quantised(model.fetch(job, job.manifest("pretrain")), job)
    folder = job.scratch.fetch(settings.start_from, vocabulary.READ)
    return vocabulary.brought(job, chat, folder, settings, lora.quantised if quantised else None)


def _first_state(
    job: Job, engine: Engine, train: Sequence[Conversation], heldout: HeldOutChats, chat: Chat
) -> dict[str, Any]:
    """The state before the first step, with what the model was like then.

    Each chat is encoded once, so that one that the template refuses ends the task now, and not hours later.
    """
    state: dict[str, Any] = {"seconds": 0.0, "tokens": 0, "text_tokens": 0, "stale": 0}
    state["cuts"] = _cuts(job, chat, {"training": train, "heldout": heldout.chats})
    found = measure(job, engine, heldout, chat)
    before = together(found.judged)
    state["before"] = before.loss if before else None
    state["tasks"] = {name: one.loss for name, one in (found.learned | found.apart).items()}
    state["text"] = {name: one.loss for name, one in measure_text(job, engine, chat).items()}
    return note_heldout(job, 0, found.judged, state)[0]


def _note(
    job: Job, engine: Engine, heldout: HeldOutChats, chat: Chat, step: int, state: dict[str, Any]
) -> tuple[dict[str, Any], float | None, Measured]:
    """Measure, and note it; returns the state, the loss if it is the best so far, and what was measured."""
    found = measure(job, engine, heldout, chat)
    state, best = note_heldout(job, step, found.judged, state)
    if found.learned:
        job.curves.add(step, **{f"heldout_loss_not_learned/{name}": one.loss for name, one in found.apart.items()})
    return {**state, "stale": 0 if best is not None else state["stale"] + 1}, best, found


def _stale(settings: Sft, state: Mapping[str, Any]) -> bool:
    """Whether the held-out loss was not better in as many measurements as the recipe waits for."""
    return settings.patience is not None and state["stale"] >= settings.patience


def _text(job: Job, steps: int, step: int) -> AbstractContextManager[Iterator[Batch] | None]:
    """The rows of pretraining text of each step; None without a share of it."""
    settings: Sft = job.settings
    if not settings.text_rows:
        return nullcontext()
    data = TokenData(job, Kind.TOKENS, job.setting("pack.seq_len"), job.setting("pretrain.boundaries"))
    plan = schedule([(steps, job.setting("pretrain.mixture"), data.sources)], settings.text_rows)
    return Draws([data], plan, settings.seed).stream(job.ranks, step)


def _batch(job: Job, examples: Sequence[Encoded], texts: Iterator[Batch] | None, chat: Chat) -> tuple[Batch, int]:
    """(This process's rows of a step, the tokens of replies that all processes learn in it)."""
    settings: Sft = job.settings
    tokens = int(job.ranks.sum_rows(predicted(examples))[0])
    examples = examples or [([chat.end_of_text, chat.end_of_text], [0, 0])]
    if settings.packing:
        batch = several_each(dealt(examples, settings.max_tokens), chat.pad, tokens)
    else:
        batch = one_each(examples, chat.pad, tokens)
    if texts is None:
        return batch, tokens
    text = next(texts)
    return beside(batch, text.counted(job.ranks), chat.pad), tokens


def measure(job: Job, engine: Engine, heldout: HeldOutChats, chat: Chat) -> Measured:
    """Held-out loss on reply tokens, by task."""
    batches = heldout.batches(job, engine.micro_batch, chat, job.settings.max_tokens)
    found = heldout_loss(job, engine.module, batches, engine.micro_batch, chat.token_bytes(), heldout.names)
    learned = {name: one for name, one in found.items() if name in heldout.learned}
    return Measured(learned, {name: one for name, one in found.items() if name not in learned})


def measure_text(job: Job, engine: Engine, chat: Chat) -> dict[str, HeldOut]:
    """Held-out loss on text of the pretraining corpus, by source."""
    data = TokenData(job, Kind.HELDOUT_TOKENS, job.setting("pack.seq_len"), job.setting("pretrain.boundaries"))
    batches = heldout_text(job, data, job.settings.text_sequences, engine.micro_batch)
    return heldout_loss(job, engine.module, batches, engine.micro_batch, chat.token_bytes(), list(data.sources))


def _finish(
    job: Job,
    engine: Engine,
    data: tuple[int, HeldOutChats],
    chat: Chat,
    step: int,
    state: dict[str, Any],
    progress: Progress,
) -> None:
    """Take the best weights if the recipe waits for them, and commit the model with its figures.

    `data` are the number of training chats and the held-out ones.
    """
    settings: Sft = job.settings
    train, heldout = data
    early = step if _stale(settings, state) else None
    found = measure(job, engine, heldout, chat)
    after = together(found.judged)
    if after:
        finite(job, after.loss, "held-out loss is {} at the end")
        if early is None:
            state, _ = note_heldout(job, step, found.judged, state)
    taken = None
    best = state.get("best")
    if settings.patience and best and best[0] != step and checkpoint.take_weights(job, best[0], {"model": engine}):
        taken, found = best[0], measure(job, engine, heldout, chat)
        after = together(found.judged)
    if job.ranks.rank == 0:
        progress.finish(f"held-out loss {after.loss:.3f}" if after else "")
    texts = measure_text(job, engine, chat)
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    _save(job, engine, chat, folder)
    more = {
        "cuts": state["cuts"],
        "tasks": _tasks(state, found),
        "stopped_early": early,
        "taken_step": taken,
        **_forgotten(state["text"], texts),
        **engine.figures(),
    }
    made = _summary(state, after, train, len(heldout.chats)).model_copy(update=more)
    if job.ranks.rank == 0:
        print("\n".join(f"{job.task.stage}: {line}" for line in report(made)), flush=True)
    job.commit(folder, made)


def _save(job: Job, engine: Engine, chat: Chat, folder: Any) -> None:
    """Write the model, with adapters merged into it."""
    settings: Sft = job.settings
    weights = engine.weights()
    if not settings.lora.enabled:
        model.save(engine.module, folder, chat, job.ranks.rank, weights)
    elif job.ranks.rank == 0:
        model.save(lora.merged(_base(job, chat, "fp32"), settings.lora, weights), folder, chat)


def _cuts(job: Job, chat: Chat, parts: Mapping[str, Sequence[Conversation]]) -> dict[str, dict[str, int]]:
    """What `max_tokens` took, by part and kind."""
    most = job.settings.max_tokens
    return {
        name: count_cuts(job, chats, lambda turns: chat.fit_chat(turns, most).cuts) for name, chats in parts.items()
    }


def _tasks(state: Mapping[str, Any], found: Measured) -> dict[str, dict[str, float]]:
    """Each task's held-out loss before and after."""
    told: dict[str, dict[str, float]] = {}
    for name, one in (found.learned | found.apart).items():
        told[name] = {"before": state["tasks"][name], "after": one.loss, "tokens": one.tokens}
        told[name]["learned"] = int(name in found.learned)
    return told


def _forgotten(before: Mapping[str, float], after: Mapping[str, HeldOut]) -> dict[str, Any]:
    """The perplexity of pretraining text before and after, over all sources and of each."""
    whole = together(after)
    if whole is None:
        return {}
    first = sum(before[name] * one.tokens for name, one in after.items()) / whole.tokens
    return {
        "text_perplexity_before": perplexity(first),
        "text_perplexity_after": whole.perplexity,
        "text_sources": {
            name: {"before": perplexity(before[name]), "after": one.perplexity, "tokens": one.tokens}
            for name, one in after.items()
        },
    }


def report(made: results.Sft) -> list[str]:
    """What was learned and what was forgotten, by task and by source, as lines of the log."""
    lines = [
        f"held-out loss on replies {one['before']:.3f} -> {one['after']:.3f}, "
        f"task {task or 'without a name'}{'' if one['learned'] else ', of which nothing was learned'}"
        for task, one in made.tasks.items()
    ]
    return lines + [
        f"perplexity of pretraining text {one['before']:.2f} -> {one['after']:.2f}, source {source}"
        for source, one in made.text_sources.items()
    ]


def _summary(state: dict[str, Any], after: HeldOut | None, train: int, heldout: int) -> results.Sft:
    before = state["before"]
    return results.Sft(
        examples=train,
        heldout_examples=heldout,
        heldout_loss_before=before,
        heldout_loss_after=after.loss if after else None,
        heldout_perplexity_before=None if before is None else perplexity(before),
        heldout_perplexity_after=after.perplexity if after else None,
        **best_of(state),
        text_tokens=state["text_tokens"],
        response_tokens=state["tokens"],
        seconds=state["seconds"],
    )
