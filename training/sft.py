"""Instruction tuning: next-token prediction on chats, with loss on the replies only."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from contract import results
from contract.conversation import Conversation
from contract.kinds import Kind
from contract.metrics import Progress
from contract.settings.training import Sft
from evals.heldout import HeldOut, perplexity, together
from training.chat.template import Chat, count_cuts, open_chat
from training.data.batch import Batch
from training.data.examples import read_chats
from training.data.order import rows_of, share_of
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.metrics import of_machine
from training.models import llama as model
from training.models.lm import best_of, finite, heldout_loss, learn, note_heldout

Encoded = tuple[list[int], list[int]]
"""A chat's ids and loss mask, equally long."""


def collate(examples: Sequence[Encoded], pad: int, count: int | None = None) -> Batch:
    """Chats padded on the right, where causal attention never sees it. `count` defaults to these chats' own."""
    longest = max(len(ids) for ids, _ in examples)
    tokens = torch.full((len(examples), longest), pad, dtype=torch.long)
    mask = torch.zeros(len(examples), longest - 1)
    for row, (ids, learned) in enumerate(examples):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids) - 1] = torch.tensor(learned[1:], dtype=torch.float32)
    return Batch(tokens, mask, predicted(examples) if count is None else count)


def predicted(examples: Sequence[Encoded]) -> int:
    """Number of tokens with loss: replies and their end-of-text, except a first token, which nothing predicts."""
    return sum(sum(learned[1:]) for _, learned in examples)


def run(job: Job) -> None:
    settings: Sft = job.settings
    chat = open_chat(job)
    train, heldout = read_chats(job, Kind.CHATS), read_chats(job, Kind.HELDOUT_CHATS)
    steps = max(1, len(train) * settings.epochs // settings.batch)
    module = model.load_model(job, job.manifest("pretrain"), settings.engine.dtype, settings.engine)
    engine = Engine(job, module, settings.optim, settings.engine, settings.batch, steps)

    step, state = checkpoint.restore(job, {"model": engine})
    if step == 0:
        found = _judge(job, engine, heldout, chat, settings.max_tokens)
        before = together(found)
        state = {"seconds": 0.0, "tokens": 0, "before": before.loss if before else None}
        state, _ = note_heldout(job, 0, found, state)

    progress = Progress(job.task.stage, job.task.partition, "steps", steps, step)
    job.curves.steps = steps
    while step < steps:
        began = time.perf_counter()
        rows = rows_of(step, settings.batch, len(train), settings.seed)
        mine = share_of(rows, job.ranks.replica, job.ranks.replicas)
        examples = [chat.encode(train[row], settings.max_tokens) for row in mine]
        batch = collate(examples, chat.pad, int(job.ranks.sum_rows(predicted(examples))[0]))
        shares = learn(job, engine, batch)
        lr, norm = engine.lr, engine.step()
        step += 1
        seconds = time.perf_counter() - began
        state = {**state, "seconds": state["seconds"] + seconds, "tokens": state["tokens"] + batch.count}
        job.curves.add_later(step, shares, lr=lr, grad_norm=norm, **of_machine(job.ranks, seconds))
        engine.report_skip(step, (("", row) for row in rows))
        if step % settings.engine.log_steps == 0:
            job.curves.read(job.ranks)
        if job.ranks.rank == 0:
            progress.advance(1, job.curves.note("loss"))
        best = None
        if step < steps and step % settings.eval_steps == 0:
            state, best = note_heldout(job, step, _judge(job, engine, heldout, chat, settings.max_tokens), state)
        checkpoint.save_when_due(job, step, steps, {"model": engine}, state, best)

    checkpoint.save_last(job, step, {"model": engine}, state)
    found = _judge(job, engine, heldout, chat, settings.max_tokens)
    after = together(found)
    if after:
        finite(job, after.loss, "held-out loss is {} at the end")
        state, _ = note_heldout(job, step, found, state)
    if job.ranks.rank == 0:
        progress.finish(f"held-out loss {after.loss:.3f}" if after else "")
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    model.save(engine.module, folder, chat, job.ranks.rank, engine.weights())
    more = {"cuts": _cuts(job, chat, {"training": train, "heldout": heldout}), **engine.figures()}
    job.commit(folder, _summary(state, after, len(train), len(heldout)).model_copy(update=more))


def _cuts(job: Job, chat: Chat, parts: Mapping[str, Sequence[Conversation]]) -> dict[str, dict[str, int]]:
    """What `max_tokens` took, by part and kind."""
    most = job.settings.max_tokens
    return {
        name: count_cuts(job, chats, lambda turns: chat.fit_chat(turns, most).cuts) for name, chats in parts.items()
    }


def _judge(
    job: Job, engine: Engine, heldout: Sequence[Conversation], chat: Chat, max_tokens: int
) -> dict[str, HeldOut]:
    """Held-out loss on reply tokens. Each process gets the same number of batches."""
    dealt = _deal(job, heldout, engine.micro_batch, chat, max_tokens)
    return heldout_loss(job, engine.module, dealt, engine.micro_batch, chat.token_bytes())


def _deal(job: Job, chats: Sequence[Conversation], micro_batch: int, chat: Chat, max_tokens: int) -> Iterator[Batch]:
    for start in range(0, len(chats), micro_batch * job.ranks.replicas):
        group = chats[start : start + micro_batch * job.ranks.replicas]
        mine = [chat.encode(turns, max_tokens) for turns in group[job.ranks.replica :: job.ranks.replicas]]
        filler: Encoded = ([chat.end_of_text, chat.end_of_text], [0, 0])  # so that every process makes the same calls
        yield collate(mine or [filler], chat.pad)


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
        response_tokens=state["tokens"],
        seconds=state["seconds"],
    )
