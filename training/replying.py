"""Writes answers to many prompts: greedily or sampled, until a stop text, with places that are filled again.

What several prompts begin with is read once. An answer that has ended leaves its batch, and the next prompt takes its
place, so that short answers do not wait for long ones.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache

from training.chat.wording import BEHIND, Wording
from training.data.prefixes import families
from training.decoding import Slab, growing_cache, positions
from training.likelihoods import LEAST_SAVED, LEAST_SHARED, widest_new
from training.models.reader import Memory, Reader, aligned, remembered
from training.rollout import draw, left_pad, row_seed

REFILL_AT = 0.75
"""The share of a batch's places in use at which others leave and new prompts come."""
MARGIN = 64
"""Tokens by which the memory of a batch grows."""
TOLD_AFTER = 16
"""Tokens after which what has ended is told."""


@dataclass(eq=False)
class Reply:
    """An answer under way. family, shared: the memory that it goes on from, and its tokens."""

    number: int
    sample: int
    prompt: list[int]
    stop: tuple[str, ...]
    family: int = 0
    shared: int = 0
    uniforms: Tensor | None = None
    ids: list[int] = field(default_factory=list)


def replies(
    reader: Reader,
    wording: Wording,
    prompts: Mapping[int, tuple[list[int], tuple[str, ...]]],
    samples: int,
    temperature: float,
    max_tokens: int,
    seed: int,
    most: int,
) -> Iterator[dict[tuple[int, int], list[int]]]:
    """The tokens of answers by (prompt's number, sample), as they end, each once; without the token that ended them.

    prompts: number -> (ids, stop texts). An answer ends with a token of `wording.ends`, with the first stop text, which
    its tokens still hold, or after `max_tokens`. temperature: 0 takes the likeliest token. seed: with the number and
    the sample it determines an answer. most: tokens in memory at once.
    """
    queue = [Reply(number, sample, ids, stop) for number, (ids, stop) in prompts.items() for sample in range(samples)]
    if reader.shares:
        queue = in_families(queue)
    else:
        queue.sort(key=lambda one: -len(one.prompt))
    for one in queue if temperature else ():
        stream = torch.Generator().manual_seed(row_seed(seed, one.number, one.sample))
        one.uniforms = torch.rand(max_tokens, dtype=torch.float64, generator=stream)
    pool = Pool(reader, queue, max_tokens, most)
    endings = Endings(wording)
    ended: dict[tuple[int, int], list[int]] = {}
    steps = 0
    while pool.under_way:
        chosen = choose(pool.logits, pool.rows, temperature)
        for row, token in enumerate(chosen.tolist()):
            one = pool.rows[row]
            if pool.alive[row] and (endings.add(one, token) or len(one.ids) == max_tokens):
                pool.alive[row] = False
                ended[one.number, one.sample] = one.ids
        pool.step(chosen)
        steps += 1
        if steps % TOLD_AFTER == 0:
            yield ended
            ended = {}
    yield ended


def in_families(queue: Sequence[Reply]) -> list[Reply]:
    """Answers in an order in which those that share a beginning follow each other, the longest first.

    Answers to one prompt follow each other, and count once: their prompt is read once in any case.
    """
    of_prompt: dict[tuple[int, ...], list[Reply]] = {}
    for one in queue:
        of_prompt.setdefault(tuple(one.prompt), []).append(one)
    prompts = [*of_prompt]
    made = []
    for number, family in enumerate(families([[*ids[:-1]] for ids in prompts], LEAST_SHARED, LEAST_SAVED)):
        for row in sorted(family.rows, key=lambda row: (-len(prompts[row]), row)):
            for one in of_prompt[prompts[row]]:
                one.family, one.shared = number, family.shared
                made.append(one)
    return made


def choose(logits: Tensor, rows: Sequence[Reply], temperature: float) -> Tensor:
    """The next token of each row: (B, V) -> (B,)."""
    if not temperature:
        return logits.float().argmax(-1)
    each = [one.uniforms[min(len(one.ids), len(one.uniforms) - 1)] for one in rows if one.uniforms is not None]
    uniforms = torch.stack(each)  # rows that have ended are in it, and get a token that nobody reads
    return draw((logits.float() / temperature).softmax(-1), uniforms.to(logits.device))


class Endings:
    """Where answers end."""

    def __init__(self, wording: Wording) -> None:
        self._wording = wording
        self._spelled: dict[int, str] = {}

    def add(self, one: Reply, token: int) -> bool:
        """Put a token to an answer; whether it has ended. A token that ends every answer is not put to it."""
        if token in self._wording.ends:
            return True
        one.ids.append(token)
        return bool(one.stop) and self._stops(one, token)

    def _stops(self, one: Reply, token: int) -> bool:
        """Whether a stop text has just been finished. Only a token with its last character can have done it."""
        if token not in self._spelled:
            self._spelled[token] = self._wording.behind(one.prompt, [token])
        spelled = self._spelled[token]
        stops = [text for text in one.stop if text[-1] in spelled or "\ufffd" in spelled]
        if not stops:
            return False
        start = max(0, len(one.ids) - max(len(text.encode()) for text in stops) - 8)
        before = [*one.prompt[-BEHIND:], *one.ids[:start]]
        tail = self._wording.behind(before, one.ids[start:])
        return any(text in tail for text in stops)


class Pool:
    """The answers that are written at the same time, with their keys and values, aligned at the newest token."""

    def __init__(self, reader: Reader, queue: Sequence[Reply], max_tokens: int, most: int) -> None:
        self._reader, self._max_tokens, self._most = reader, max_tokens, most
        self._queue = deque(queue)
        self._memories: dict[int, Memory] = {}
        self._cache: Any = None
        self._attention = torch.zeros(0, 0, dtype=torch.long, device=reader.device)
        self.rows: list[Reply] = []
        self.alive: list[bool] = []
        """Of each row, whether its answer goes on."""
        self.logits = torch.zeros(0, 0, device=reader.device)
        """Of the next token of each row, (B, V)."""
        self._rearrange()

    @property
    def under_way(self) -> bool:
        return bool(self.rows)

    def step(self, chosen: Tensor) -> None:
        """Go on with one token for each row; then rows that have ended may leave, and others come."""
        alive = torch.tensor(self.alive, device=self._reader.device)
        if any(self.alive):
            self._attention = torch.cat((self._attention, alive[:, None].long()), 1)
            self.logits = self._read(chosen[:, None], self._attention, self._cache)
        if sum(self.alive) <= REFILL_AT * len(self.rows) or self._full:
            self._rearrange()

    @property
    def _full(self) -> bool:
        first = self._cache.layers[0]
        return isinstance(first, Slab) and first.full

    def _rearrange(self) -> None:
        """Let rows that have ended leave, and let others come where there is room."""
        stay = [row for row, alive in enumerate(self.alive) if alive]
        kept = [self.rows[row] for row in stay]
        if not self._reader.shares and kept:  # what their layers remember cannot be put together
            self._select(stay)
            return
        came = self._taken(kept)
        parts = [self._kept(stay)] if kept else []
        parts += [self._prompted(some) for some in self._chunks(came)]
        self.rows = kept + came
        self.alive = [True] * len(self.rows)
        if not self.rows:
            return
        self.logits = torch.cat([part.logits for part in parts])
        if self._reader.shares:
            self._cache, self._attention = joined(parts, MARGIN)
        else:
            (part,) = parts
            self._cache, self._attention = part.cache, part.attention

    def _select(self, stay: list[int]) -> None:
        rows = torch.tensor(stay, device=self._reader.device)
        self._cache.batch_select_indices(rows)
        self._attention, self.logits = self._attention[rows], self.logits[rows]
        self.rows, self.alive = [self.rows[row] for row in stay], [True] * len(stay)

    def _taken(self, kept: Sequence[Reply]) -> list[Reply]:
        """As many of the waiting as there is room for beside those that stay, at least one."""
        widest = max((len(one.prompt) for one in kept), default=0)
        taken: list[Reply] = []
        while self._queue:
            widest = max(widest, len(self._queue[0].prompt))
            count = len(kept) + len(taken)
            if count and (count + 1) * (widest + self._max_tokens) > self._most:
                break
            taken.append(self._queue.popleft())
        return taken

    def _chunks(self, came: Sequence[Reply]) -> Iterator[list[Reply]]:
        """Prompts that are read together."""
        if not self._reader.shares:
            yield from [[*came]] if came else []
            return
        some: list[Reply] = []
        widest, most = 0, widest_new(self._reader)
        for one in came:
            widest = max(widest, len(one.prompt) - one.shared)
            if some and (len(some) + 1) * widest > most:
                yield some
                some, widest = [], len(one.prompt) - one.shared
            some.append(one)
        if some:
            yield some

    def _kept(self, stay: list[int]) -> "Part":
        """The rows that stay, without the places that none of them uses."""
        rows = torch.tensor(stay, device=self._reader.device)
        attention = self._attention[rows]
        first = int(attention.any(0).long().argmax())
        memory = [(layer.keys[rows, :, first:], layer.values[rows, :, first:]) for layer in self._cache.layers]
        return Part(memory, attention[:, first:], self.logits[rows])

    def _prompted(self, some: Sequence[Reply]) -> "Part":
        """Read the prompts of new rows, each once, behind what they share."""
        distinct = {tuple(one.prompt): one for one in some}
        if len(distinct) < len(some) and self._reader.shares:
            part, number = self._prompted([*distinct.values()]), dict(zip(distinct, range(len(distinct)), strict=True))
            rows = torch.tensor([number[tuple(one.prompt)] for one in some], device=self._reader.device)
            memory = [(keys[rows], values[rows]) for keys, values in part.memory]
            return Part(memory, part.attention[rows], part.logits[rows])
        reader = self._reader
        begins = {one.family: one.prompt[: one.shared] for one in some if one.shared}
        self._memories = {family: self._memories.get(family) or reader.memory(ids) for family, ids in begins.items()}
        memory, filled = aligned([self._memories.get(one.family, []) for one in some], reader.device)
        tokens, attention = left_pad([one.prompt[one.shared :] for one in some], 0, reader.device)
        attention = torch.cat((filled.long(), attention), 1)
        if reader.shares:
            cache: Any = remembered(reader.model.config, memory)
        else:
            cache = growing_cache(reader.model, tokens.shape[1] + self._max_tokens)
        logits = self._read(tokens, attention, cache)
        return Part([(layer.keys, layer.values) for layer in cache.layers], attention, logits, cache)

    @torch.no_grad()
    def _read(self, tokens: Tensor, attention: Tensor, cache: Any) -> Tensor:
        output = self._reader.model(
            input_ids=tokens,
            attention_mask=attention,
            position_ids=positions(attention)[:, -tokens.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits


@dataclass(frozen=True)
class Part:
    """Rows with their keys and values, where these are of tokens (1) or padding (0), and the next token's logits."""

    memory: Memory
    attention: Tensor
    logits: Tensor
    cache: Any = None


def joined(parts: Sequence[Part], margin: int) -> tuple[Cache, Tensor]:
    """The rows of all parts in one cache, aligned right, with room for more tokens; and where it is filled."""
    widest = max(part.attention.shape[1] for part in parts)
    attention = torch.cat([pad(part.attention, (widest - part.attention.shape[1], 0)) for part in parts])
    layers = zip(*(part.memory for part in parts), strict=True)
    return Cache(layers=[Slab(widest + margin).hold(some) for some in layers]), attention
