"""Measure the pretrained model on held-out documents, in bits per byte of each source, and on small tasks.

What it measures of every document and every question is committed, so that models can be compared item by item.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from contract import results
from contract.errors import Interrupted
from contract.kinds import Kind
from contract.metrics import Progress
from contract.settings.training import Optim, Probe
from training.chat.template import Chat, open_chat
from training.data.batch import Batch
from training.data.passages import Documents, Passage, Question, next_sentences, read_documents, read_questions
from training.engine.job import Job
from training.evaluate import load_for_evaluation, parts
from training.models.lm import token_nll

NEXT_SENTENCE = "next_sentence"
FILE = "measures.json"
Window = tuple[list[int], int]
"""Tokens, and the number of the first one to predict, at least 1."""


def windows(ids: list[int], first: int, seq_len: int) -> Iterator[Window]:
    """The windows of at most `seq_len` + 1 tokens in which every token from `first` on is predicted once.

    In a text that is longer, each predicted token sees at least half of a sequence, where there is as much before it.
    """
    start = 0
    while first < len(ids):
        if len(ids) - start > seq_len + 1:
            start = max(start, first - max(seq_len // 2, 1))
        stop = min(len(ids), start + seq_len + 1)
        yield ids[start:stop], first - start
        first = stop


def encoded(chat: Chat, passage: Passage) -> tuple[list[int], int]:
    """(A passage's tokens, the number of the first one that spells a character to predict).

    The first token of a text is never predicted: nothing stands before it.
    """
    ids, ends = chat.ends(passage.text)
    return ids, max(1, next((at for at, end in enumerate(ends) if end > passage.given), len(ids)))


@torch.no_grad()
def nats(job: Job, module: nn.Module, chat: Chat, seq_len: int, passages: Sequence[Passage]) -> list[float]:
    """The nats of what is to predict of each passage. Every process returns those of all."""
    cut = [(at, window) for at, one in enumerate(passages) for window in windows(*encoded(chat, one), seq_len)]
    cut.sort(key=lambda one: -len(one[1][0]))  # rows of one batch are about as long
    own: dict[int, float] = {}
    for rows in parts(job, len(cut)):
        some = [window for _, window in cut[rows.start : rows.stop]]
        batch = collate(some, chat.pad)
        nll = token_nll(module, batch, job.ranks.device) * batch.mask.to(job.ranks.device)
        own.update(zip(rows, nll.double().sum(-1).tolist(), strict=True))
    found = [0.0] * len(passages)
    for (at, _), value in zip(cut, job.ranks.rows(own), strict=True):
        found[at] += value
    return found


def collate(some: Sequence[Window], pad: int) -> Batch:
    """Windows as rows of a batch, padded at their ends, where no token before them looks."""
    longest = max(len(ids) for ids, _ in some)
    tokens, mask = torch.full((len(some), longest), pad), torch.zeros(len(some), longest - 1)
    for row, (ids, first) in enumerate(some):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, first - 1 : len(ids) - 1] = 1
    return Batch(tokens, mask, int(mask.sum()))


def answered(question: Question, of_choices: Sequence[float]) -> bool:
    """Whether the true choice has the least nats per byte, and none has as few."""
    each = [value / max(one.bytes, 1) for value, one in zip(of_choices, question.passages, strict=True)]
    return all(each[question.right] < other for at, other in enumerate(each) if at != question.right)


def of_documents(documents: Mapping[str, Documents], found: Sequence[float]) -> dict[str, Any]:
    """Source -> what was measured of its documents; `found` holds the nats of all passages, source by source."""
    made, at = {}, 0
    for source, one in documents.items():
        made[source] = {
            "ids": one.ids,
            "bytes": [passage.bytes for passage in one.passages],
            "nats": list(found[at : at + len(one.ids)]),
            "stands_for": one.stands_for,
        }
        at += len(one.ids)
    return made


def figures(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Bits per byte over all documents and in each source."""
    sums = {name: (math.fsum(one["nats"]), sum(one["bytes"]), one["stands_for"]) for name, one in measured.items()}
    nats_of_all = math.fsum(value * weight for value, _, weight in sums.values())
    bytes_of_all = math.fsum(size * weight for _, size, weight in sums.values())
    return {
        "documents": sum(len(one["ids"]) for one in measured.values()),
        "bytes": sum(size for _, size, _ in sums.values()),
        "bits_per_byte": nats_of_all / math.log(2) / bytes_of_all,
        "sources": {
            name: {
                "documents": len(measured[name]["ids"]),
                "bytes": size,
                "bits_per_byte": value / math.log(2) / size,
            }
            for name, (value, size, _) in sums.items()
        },
    }


def gave_up(skipped_steps: str) -> bool:
    """Whether so many updates in a row were skipped that training would have given up, had an ablation not gone on."""
    steps = [*map(int, skipped_steps.split())]
    some = Optim().give_up_after
    return any(last - first == some - 1 for first, last in zip(steps, steps[some - 1 :], strict=False))


def run(job: Job) -> None:
    settings: Probe = job.settings
    chat, seq_len = open_chat(job), job.setting("pack.seq_len")
    documents = read_documents(job.store, job.manifest("mix"), settings)
    asked = {NEXT_SENTENCE: next_sentences(documents, settings.max_items)}
    asked |= {name: read_questions(name, uri, settings.max_items) for name, uri in settings.tasks.items()}
    asked = {name: questions for name, questions in asked.items() if questions}
    module = load_for_evaluation(job, job.manifest("pretrain"))
    progress = Progress(job.task.stage, job.task.partition, "tasks", 1 + len(asked))

    passages = [passage for one in documents.values() for passage in one.passages]
    measured = of_documents(documents, nats(job, module, chat, seq_len, passages))
    changed = sum(chat.decode(chat.text(passage.text)) != passage.text for passage in passages)
    found = figures(measured)
    finite = math.isfinite(found["bits_per_byte"])
    if not finite:
        print("probe: the model diverged: its held-out loss is not finite", flush=True)
        measured, found = {}, found | {"bits_per_byte": None, "sources": {}}
    tasks: dict[str, Any] = {}
    for name, questions in asked.items() if finite else ():
        _advance(job, progress, name)
        choices = nats(job, module, chat, seq_len, [passage for one in questions for passage in one.passages])
        each = iter(choices)
        right = [answered(one, [next(each) for _ in one.passages]) for one in questions]
        tasks[name] = {"items": [one.name for one in questions], "right": list(map(int, right))}
        found.setdefault("tasks", {})[name] = {
            "items": len(questions),
            "accuracy": sum(right) / len(right),
            "chance": sum(1 / len(one.passages) for one in questions) / len(questions),
        }
    if job.ranks.rank == 0:
        progress.finish()
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    (folder / FILE).write_text(json.dumps({"documents": measured, "tasks": tasks}))
    lost = not finite or gave_up(results.Pretrain.of(job.manifest("pretrain")).skipped_steps)
    job.commit(folder, results.Probe(**found, diverged=lost, documents_changed=changed), {FILE: Kind.MEASURES})


def _advance(job: Job, progress: Progress, name: str) -> None:
    if job.ranks.rank == 0:
        progress.advance(1, name)
    if job.ranks.stopping():
        raise Interrupted(f"{job.task.stage}: stopped before {name}; nothing is kept, run again to start afresh")
