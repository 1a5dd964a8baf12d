"""Instruction tuning: next-token prediction on chats, with loss on the replies only."""

import random
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from contract.errors import InputError
from contract.kinds import Kind
from contract.metrics import Progress
from contract.settings.training import Sft
from evals.heldout import HeldOut, perplexity
from training.chat.template import Chat, Turn, open_chat
from training.data.reading import ALPACA, Bad, Batch, documents, parse_alpaca, read_examples, rows_of, share_of
from training.data.synthetic import synthetic_instructions
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.models import llama as model
from training.models.lm import batch_loss, finite, learn, measure

HELDOUT_SHARE = 0.05  # of a file's examples
MAX_HELDOUT = 256

Encoded = tuple[list[int], list[int]]
"""A chat's ids and loss mask, equally long."""


def split(chats: Sequence[list[Turn]], seed: int) -> tuple[list[list[Turn]], list[list[Turn]]]:
    """(training, held out). Chats with the same first turn stay on one side, so training sees no held-out prompt.

    A group that is larger than the room left in the held-out set goes to training: all rows may share one instruction.
    """
    groups: dict[str, list[list[Turn]]] = {}
    for chat in chats:
        groups.setdefault(chat[0].text, []).append(chat)
    keys = sorted(groups)
    random.Random(seed).shuffle(keys)  # noqa: S311 - has to repeat, not to be secret
    wanted = min(MAX_HELDOUT, round(len(chats) * HELDOUT_SHARE))
    train: list[list[Turn]] = []
    heldout: list[list[Turn]] = []
    for key in keys:
        (heldout if len(groups[key]) <= wanted - len(heldout) else train).extend(groups[key])
    return train, heldout


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
    train, heldout, bad = _examples(job, settings, chat)
    steps = max(1, len(train) * settings.epochs // settings.batch)
    module = model.load(job, job.manifest("pretrain"), settings.engine.dtype)
    engine = Engine(job, module, settings.optim, settings.engine, settings.batch, steps)

    step, state = checkpoint.restore(job, {"model": engine})
    if step == 0:
        before = _judge(job, engine, heldout, chat)
        state = {"seconds": 0.0, "tokens": 0, "before": before.loss if before else None}
        if before:
            job.curves.add(0, heldout_loss=before.loss)

    progress = Progress(job.task.stage, job.task.partition, "steps", steps, step)
    while step < steps:
        began = time.perf_counter()
        examples = [train[index] for index in rows_of(step, settings.batch, len(train), settings.seed)]
        batch = collate(share_of(examples, job.rank, job.world), chat.pad, predicted(examples))
        nll = learn(job, engine, batch)
        lr = engine.lr
        loss = batch_loss(job, step + 1, nll, batch)
        norm = engine.step()
        step += 1
        seconds = time.perf_counter() - began
        state = {**state, "seconds": state["seconds"] + seconds, "tokens": state["tokens"] + batch.count}
        job.curves.add(step, loss=loss, lr=lr, grad_norm=norm)
        if job.rank == 0:
            progress.advance(1, f"loss {loss:.3f}")
        checkpoint.save_when_due(job, step, steps, {"model": engine}, state)

    after = _judge(job, engine, heldout, chat)
    if after:
        finite(job, after.loss, "held-out loss is {} at the end")
        job.curves.add(step, heldout_loss=after.loss)
    if job.rank == 0:
        progress.finish(f"held-out loss {after.loss:.3f}" if after else "")
    folder = job.fresh(f"result-{job.rank}")
    model.save(engine.module, folder, chat.path, job.rank)
    job.commit(folder, _summary(settings, state, after, len(train), len(heldout), bad))


def _examples(job: Job, settings: Sft, chat: Chat) -> tuple[list[Encoded], list[Encoded], Bad]:
    """(training, held out, unusable rows). Synthetic chats come from the mixture's training and held-out documents."""
    bad = Bad()
    if settings.data == "synthetic":
        mixture = job.manifest("mix")
        train, heldout = (
            list(islice(synthetic_instructions(documents(job, mixture, kind), settings.seed), limit))
            for kind, limit in ((Kind.DOCUMENTS, settings.max_examples), (Kind.HELDOUT, MAX_HELDOUT))
        )
    else:
        chats, bad = read_examples(settings.data, parse_alpaca, ALPACA, settings.max_examples)
        train, heldout = split(chats, settings.seed)
    if not train:
        raise InputError(f"sft: {settings.data} data gives no example to learn from; name a larger file in sft.data")
    return _encode(chat, train, settings.max_tokens), _encode(chat, heldout, settings.max_tokens), bad


def _encode(chat: Chat, chats: Sequence[list[Turn]], max_tokens: int) -> list[Encoded]:
    return [chat.encode(turns, max_tokens) for turns in chats]


def _judge(job: Job, engine: Engine, heldout: list[Encoded], chat: Chat) -> HeldOut | None:
    """Held-out loss on reply tokens. Each process gets the same number of batches."""
    return measure(
        job, engine.module, _deal(job, heldout, engine.micro_batch, chat), engine.micro_batch, chat.token_bytes()
    )


def _deal(job: Job, examples: list[Encoded], micro_batch: int, chat: Chat) -> Iterator[Batch]:
    for start in range(0, len(examples), micro_batch * job.world):
        group = examples[start : start + micro_batch * job.world]
        mine = group[job.rank :: job.world]
        filler: Encoded = ([chat.end_of_text, chat.end_of_text], [0, 0])  # so that every process makes the same calls
        yield collate(mine or [filler], chat.pad)


def _summary(
    settings: Sft, state: dict[str, Any], after: HeldOut | None, train: int, heldout: int, bad: Bad
) -> dict[str, float | int | str | None]:
    before = state["before"]
    return {
        "data": "synthetic, by rule from the corpus" if settings.data == "synthetic" else settings.data,
        "examples": train,
        "heldout_examples": heldout,
        "heldout_loss_before": before,
        "heldout_loss_after": after.loss if after else None,
        "heldout_perplexity_before": None if before is None else perplexity(before),
        "heldout_perplexity_after": after.perplexity if after else None,
        "response_tokens": state["tokens"],
        "seconds": state["seconds"],
        "bad_rows": bad.reasons.total(),
        **{f"bad_rows_{reason}": count for reason, count in sorted(bad.reasons.items())},
    }
