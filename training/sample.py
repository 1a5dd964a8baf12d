"""Sample two to four replies to each prompt of a round of feedback, for people to compare.

The replies come from the run's models in turns, and at one temperature after another. What wrote a reply stands in the
item and on no page for people who vote. The DAG `feedback` opens a round over the items.

A model may judge the replies here, where models run: a reward model notes its rewards, and a chat model is asked which
reply is better, perhaps by principles. `compare` makes votes of both.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice, product
from typing import Any

import torch

from contract import results
from contract.approval import without_ppo
from contract.conversation import Conversation
from contract.errors import InputError, Interrupted
from contract.feedback import Item, Reply, item_id, write_items
from contract.identity import Input
from contract.kinds import Kind
from contract.manifest import Manifest, need
from contract.metrics import Progress
from contract.settings.training import Sample
from evals import judging, kept
from training import reward
from training.chat.template import Chat, open_chat
from training.chat_judge import ChatJudge
from training.data import examples
from training.data.examples import distinct_prompts, own_pairs
from training.data.order import permutation
from training.engine.job import Job
from training.evaluate import load_for_evaluation, parts
from training.models import llama
from training.models.encoder import EncoderReward
from training.rollout import generate, row_seed


@dataclass(frozen=True)
class Voice:
    """What writes the replies of one place of every item. model: a stage and a fingerprint."""

    model: Input
    temperature: float


def voices(settings: Sample, models: Mapping[str, Input]) -> list[Voice]:
    """Who writes each of an item's replies: the models in turns, then again at the next temperature."""
    each = [Voice(models[name], temperature) for temperature, name in product(settings.temperatures, settings.models)]
    return list(islice(cycle(each), settings.replies))


def models_of(job: Job) -> dict[str, Input]:
    """The addresses of the models that may reply, by the names that the recipe uses."""
    settings: Sample = job.settings
    sft, *_ = job.task.read("sft")
    own, *_ = job.task.read(job.setting("align"))
    aligned = sft if without_ppo(job.store, job.manifest("gate"), own) else own
    last = _named(job, settings.last) if settings.last else aligned
    others = {name: _named(job, name) for name in settings.models if "/" in name}
    for name, made in others.items():
        if _tokenizer(need(job.store, made)) != _tokenizer(job.manifest("sft")):
            raise InputError(f"sample.models: {name} has another tokenizer than this run; name models with the same")
    return {"sft": sft, "aligned": aligned, "last": last, **others}


def _tokenizer(made: Manifest) -> Input | None:
    return next((one for one in made.inputs if one.stage == "tokenizer"), None)


def _named(job: Job, address: str) -> Input:
    """The model of the store at an address that the recipe names."""
    return next(one for one in job.task.elsewhere if address == f"{one.stage}/{one.fingerprint}")


def prompts_of(job: Job) -> list[Conversation]:
    """The prompts of the round, drawn from those of the recipe's `prompts.data`, or else of the training pairs."""
    settings: Sample = job.settings
    found = examples.read_prompts(job)
    pairs = own_pairs(job, Kind.PAIRS)
    rows: Sequence[int] = range(len(found)) if len(found) else distinct_prompts(pairs)
    place = permutation(len(rows), row_seed(settings.seed, settings.round))
    drawn = [rows[place(at)] for at in range(min(settings.prompts, len(rows)))]
    return [found[row][0] if len(found) else pairs[row].prompt for row in drawn]


@torch.no_grad()
def replies_of(job: Job, said: Sequence[Voice], prompts: Sequence[list[int]], chat: Chat) -> list[list[str]]:
    """The reply of each voice to each prompt, on every process: a model is loaded once for all of its voices."""
    settings: Sample = job.settings
    texts: list[list[str]] = [[] for _ in said]
    models = list(dict.fromkeys(voice.model for voice in said))
    progress = Progress(job.task.stage, job.task.partition, "replies", len(said))
    for model in models:
        module = load_for_evaluation(job, need(job.store, model))
        for place, voice in enumerate(said):
            if voice.model != model:
                continue
            own: dict[int, list[int]] = {}
            for rows in parts(job, len(prompts)):
                seeds = [row_seed(settings.seed, settings.round, row, place) for row in rows]
                some = prompts[rows.start : rows.stop]
                sampled = generate(
                    module, some, seeds, settings.max_response_tokens, chat.end_of_text, voice.temperature
                )
                own.update(zip(rows, sampled.texts(), strict=True))
            texts[place] = [chat.decode(ids).strip() for ids in job.ranks.rows(own)]
            if job.ranks.rank == 0:
                progress.advance(1, model.stage)
            if job.ranks.stopping():
                raise Interrupted(f"{job.task.stage}: stopped; nothing is kept, run again to start afresh")
    if job.ranks.rank == 0:
        progress.finish()
    return texts


def items_of(
    number: int, prompts: Sequence[Conversation], said: Sequence[Voice], texts: Sequence[Sequence[str]]
) -> list[Item]:
    """The items of a round. texts: of each voice, a reply to each prompt.

    Empty replies and those that repeat another are left out, and so are prompts with fewer than two replies left: there
    is nothing to compare. Two equal prompts with equal replies are one item.
    """
    found: dict[str, Item] = {}
    for row, prompt in enumerate(prompts):
        written: dict[str, Reply] = {}
        for voice, texts_of_voice in zip(said, texts, strict=True):
            address = f"{voice.model.stage}/{voice.model.fingerprint}"
            written.setdefault(texts_of_voice[row], Reply(texts_of_voice[row], address, voice.temperature))
        replies = tuple(reply for text, reply in written.items() if text)
        if len(replies) > 1:
            item = Item(item_id(prompt, replies), number, prompt, replies)
            found[item.id] = item
    return list(found.values())


@torch.no_grad()
def with_rewards(job: Job, items: Sequence[Item], chat: Chat) -> list[Item]:
    """The items with the reward of each reply by the recipe's `sample.judge`, on every process.

    It reads what people read: the text of a reply, with an end. Raises InputError if it has another tokenizer.
    """
    settings: Sample = job.settings
    assert settings.judge is not None, "it rewards"
    manifest = need(job.store, _named(job, settings.judge))
    module = reward.load_reward_model(job, manifest, settings.engine.dtype)
    same = _tokenizer(manifest) == _tokenizer(job.manifest("sft"))
    if not same and not isinstance(module, EncoderReward):
        raise InputError(f"sample.judge: {settings.judge} has another tokenizer than this run; name one with the same")
    judge = llama.cast(module, settings.engine.dtype).to(job.ranks.device).eval()
    reader, most = reward.reader_for(judge, chat), job.setting("ppo.max_prompt_tokens") + settings.max_response_tokens
    found: dict[int, list[float]] = {}
    for row in (row for rows in parts(job, len(items)) for row in rows):
        texts = [reply.text for reply in items[row].replies]
        fit = reader.fit(items[row].prompt, texts, most + 1)
        chats = [fit.prompt + ids for ids in fit.replies]
        found[row] = reward.rewards_of(judge, chats, reader.pad, job.ranks.device).tolist()
    return [
        replace(item, replies=tuple(replace(one, reward=value) for one, value in zip(item.replies, given, strict=True)))
        for item, given in zip(items, job.ranks.rows(found), strict=True)
    ]


@dataclass(frozen=True)
class Judged:
    """The answers of a chat model on the items of a round, and what the result says of them."""

    model: str
    answers: Sequence[kept.Answer]
    too_long: int

    def figures(self) -> dict[str, Any]:
        ranking = [one for one in self.answers if one.step in ("comparison", "choice")]
        return {
            "judge": self.model,
            "asked": len(ranking),
            "unread": sum(not one.ranks for one in ranking),
            "too_long": self.too_long,
            "revised": len({one.item for one in ranking if one.step == "choice"}),
        }


def judged(job: Job, items: Sequence[Item], models: Mapping[str, Input]) -> Judged:
    """What the chat model `sample.judge` answers on the items, on every process. models: those of the run by name."""
    settings: Sample = job.settings
    assert settings.judge is not None, "it chats"
    made = models.get(settings.judge) or _named(job, settings.judge)
    asked = ChatJudge(job, need(job.store, made), settings.max_response_tokens)
    named = settings.principles
    principles = judging.read_principles(named, "sample.principles") if named else []
    return Judged(asked.judge.model, kept.ask_everything(asked.judge, items, principles), asked.too_long)


def run(job: Job) -> None:
    settings: Sample = job.settings
    chat, asked, models = open_chat(job), prompts_of(job), models_of(job)
    said = voices(settings, models)
    prompts = [chat.prompt(turns, job.setting("ppo.max_prompt_tokens")) for turns in asked]
    items = items_of(settings.round, asked, said, replies_of(job, said, prompts, chat))
    if not items:
        raise InputError(
            f"sample: no prompt of {len(asked):,} got two replies that differ; raise sample.temperatures, or .prompts"
        )
    if settings.judge and not settings.chats:
        items = with_rewards(job, items, chat)
    answers = judged(job, items, models) if settings.chats else None
    if job.ranks.rank == 0:
        files = [write_items(job.store, job.attempt.path("items.parquet"), items)]
        if answers:
            files.append(kept.write(job.store, job.attempt.path("judged.parquet"), answers.model, answers.answers))
        wrote = Counter(reply.model for item in items for reply in item.replies)
        told = results.Sample(
            round=settings.round,
            prompts=len(asked),
            items=len(items),
            replies=wrote.total(),
            models={model: {"replies": count} for model, count in sorted(wrote.items())},
            **(answers.figures() if answers else {}),
        )
        job.attempt.commit(files, result=told)
    job.ranks.barrier()
