"""A model answers the prompts of a benchmark: it scores given choices, or writes answers.

Numbers are those of the Language Model Evaluation Harness's backend for transformers: how a context and its
continuation are cut into tokens, what is cut off where a text is too long, where an answer stops. Only the work is
less. What several prompts begin with, such as the examples of a subject, runs through the model once; choices of one
question share the question; logits are made only where they are read; answers that have ended leave their batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import nn

from contract.conversation import Turn
from contract.errors import InputError, Interrupted
from evals.records import Output
from evals.tasks.prompts import Prompt
from evals.tasks.task import cut_stop
from training import reward
from training.chat.template import Chat
from training.chat.wording import Wording
from training.engine.ranks import Ranks
from training.likelihoods import likelihoods
from training.models.encoder import EncoderReward
from training.models.reader import Reader, told_what_is_seen
from training.replying import replies

Rewards = Callable[[Sequence[Prompt], Sequence[str]], Sequence[float]]
"""Prompts, and a text that answers each -> the reward of each."""
T = TypeVar("T")
OF_ANSWER = 4  # times a prompt's: what a token of an answer costs, which is written alone


@dataclass(frozen=True)
class Asked:
    """How answers are written. Those that are scored (`Prompt.pairs`) need of it only what is about memory.

    samples: answers to each prompt. temperature: 0 takes the likeliest token. max_tokens: of an answer. seed:
    determines all draws, whatever the batches and the number of processes. most: tokens that are in memory at once,
    with padding; only speed depends on it. longest: tokens that the model can see, by default what its configuration
    says; of a prompt that is longer the beginning is cut off.
    """

    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 256
    seed: int = 0
    most: int = 32_768
    longest: int | None = None


def answer(
    model: nn.Module,
    wording: Wording,
    prompts: Sequence[Prompt],
    asked: Asked = Asked(),
    ranks: Ranks | None = None,
    rewards: Rewards | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> list[list[Output]]:
    """The outputs of each prompt, in the order of the prompts; every process returns all of them.

    A prompt with `pairs` has one output, with the log-likelihood of each; any other has `asked.samples` texts. The
    model is on its device and in evaluation mode. rewards: of a reward model, whose figure goes with each text; every
    process asks for its own texts. advance: told how many of the prompts of all processes were done since it was last
    called; on rank 0 alone.

    Raises Interrupted if a process was asked to stop, ValueError if several answers are wanted at temperature 0, and
    InputError if an answer cannot be as long as is asked, or if a prompt's turns cannot be rendered.
    """
    ranks = ranks or Ranks()
    if asked.samples > 1 and not asked.temperature:
        raise ValueError("several answers at temperature 0 would all be the same")
    own = share(prompts, ranks.rank, ranks.world, asked)
    reader = Reader(model)
    with told_what_is_seen(model):
        scored = {row: prompts[row].pairs for row in own if prompts[row].pairs}
        longest = asked.longest or reader.longest
        found = {
            row: [Output(logprobs=tuple(values))]
            for row, values in _together(
                likelihoods(reader, wording, scored, longest, asked.most), ranks, advance, lambda values: 1
            ).items()
        }
        texts = _together(
            _texts(reader, wording, prompts, [row for row in own if row not in found], asked, longest),
            ranks, advance, lambda output: 1 / asked.samples,
        )  # fmt: skip
    for row in own:
        if row not in found:
            found[row] = [texts[row, sample] for sample in range(asked.samples)]
    if rewards:
        _reward(rewards, prompts, found)
    return ranks.rows(found)


def share(prompts: Sequence[Prompt], rank: int, world: int, asked: Asked) -> list[int]:
    """The numbers of the prompts of one process. Prompts that begin alike stay together, and shares cost about as much.

    A prompt costs the characters by which it differs from the one before it.
    """
    texts = [one.pairs[0][0] if one.pairs else one.text or str(one.turns) for one in prompts]
    order = sorted(range(len(prompts)), key=lambda row: (texts[row], row))
    costs, before = [], ""
    for row in order:
        same = _same(before, texts[row])
        more = sum(len(text) for _, text in prompts[row].pairs) or asked.max_tokens * asked.samples * OF_ANSWER
        costs.append(len(texts[row]) - same + more)
        before = texts[row]
    whole, done, own = sum(costs), 0, []
    for row, cost in zip(order, costs, strict=True):
        if int((done + cost / 2) * world / whole) == rank:
            own.append(row)
        done += cost
    return own


def _same(one: str, two: str) -> int:
    """How many characters two texts begin with in common."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == two[low:middle] else (low, middle - 1)
    return low


def _texts(
    reader: Reader, wording: Wording, prompts: Sequence[Prompt], own: Sequence[int], asked: Asked, longest: int
) -> Iterator[dict[tuple[int, int], Output]]:
    """The answers by (prompt, sample), as they end."""
    if not own:
        return
    room = longest - asked.max_tokens
    if room < 1:
        raise InputError(
            f"answers of {asked.max_tokens} tokens leave no room for a prompt: the model sees {longest} tokens; "
            "ask for shorter answers"
        )
    plain = [row for row in own if not prompts[row].turns]
    ids = dict(zip(plain, wording.encode([prompts[row].text for row in plain]), strict=True))
    ids |= {row: wording.dialogue(prompts[row].turns, room) for row in own if prompts[row].turns}
    asking = {row: (ids[row][-room:] or [wording.first], prompts[row].stop) for row in own}
    for ended in replies(
        reader, wording, asking, asked.samples, asked.temperature, asked.max_tokens, asked.seed, asked.most
    ):
        yield {
            (row, sample): _output(
                wording.behind(asking[row][0], ids), prompts[row].stop, ended_itself=len(ids) < asked.max_tokens
            )
            for (row, sample), ids in ended.items()
        }


def _output(text: str, stop: Sequence[str], ended_itself: bool) -> Output:
    """An answer without what begins at a stop text, which ends it as well."""
    kept = cut_stop(text, stop)
    return Output(kept, whole=ended_itself or kept != text)


Key = TypeVar("Key")


def _together(
    steps: Iterator[dict[Key, T]], ranks: Ranks, advance: Callable[[int], None], worth: Callable[[T], float]
) -> dict[Key, T]:
    """All that this process's steps find. Processes take their steps together, so that all stop at the same one."""
    found: dict[Key, T] = {}
    done = told = 0.0
    while True:
        more = next(steps, None)
        found |= more or {}
        new = sum(map(worth, (more or {}).values()))
        stop, going, count = ranks.sum(float(ranks.stop.raised), float(more is not None), new)
        if stop:
            raise Interrupted("answers: stopped; nothing of this benchmark is kept, run again to start it afresh")
        done += count
        if ranks.rank == 0 and round(done) > told:
            advance(round(done) - round(told))
            told = round(done)
        if not going:
            return found


def by_reward_model(module: reward.AnyReward, chat: Chat, device: torch.device, rows: int = 16) -> Rewards:
    """The normalised rewards that a reward model of the run gives; a prompt that is one text is a user's turn.

    Where a prompt with its answer is longer than the model can see, the oldest turns are cut off. rows: chats that it
    reads together.
    """

    @torch.no_grad()
    def rewards(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        asked = [one.turns or (Turn("user", one.text),) for one in prompts]
        found: list[float] = []
        longest = 0 if isinstance(module, EncoderReward) else Reader(module.decoder).longest
        for at in range(0, len(texts), rows):
            turns, some = asked[at : at + rows], texts[at : at + rows]
            if isinstance(module, EncoderReward):
                found += reward.rewards_of_texts(module, turns, some, device).tolist()
                continue
            fits = [chat.fit(one, [text], longest) for one, text in zip(turns, some, strict=True)]
            chats = [one.prompt + one.replies[0] for one in fits]
            found += reward.rewards_of(module, chats, chat.pad, device).tolist()
        return found

    return rewards


def _reward(rewards: Rewards, prompts: Sequence[Prompt], found: dict[int, list[Output]]) -> None:
    """Put the reward of each text to it."""
    rows = [(row, sample) for row, several in found.items() for sample, one in enumerate(several) if not one.logprobs]
    values = rewards([prompts[row] for row, _ in rows], [found[row][sample].text for row, sample in rows])
    for (row, sample), value in zip(rows, values, strict=True):
        found[row][sample] = replace(found[row][sample], reward=value)
