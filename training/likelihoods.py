"""Log-likelihoods of texts behind contexts, as the Language Model Evaluation Harness cuts and sums them.

The contexts of one question's choices are alike, and so are the examples before the questions of a subject. Each is
read once: choices of a question are branches of one row, and rows go on from the keys and values of what they share.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from contract.errors import InputError
from training.chat.wording import Wording
from training.data.prefixes import common, families
from training.models.reader import Memory, Reader, Rows, aligned

Pair = tuple[str, str]
"""A context, and the text that is scored behind it."""
LEAST_SHARED = 32
"""Tokens in common that are worth to be kept in memory."""
LEAST_SAVED = 256
"""Tokens whose reading takes as long as starting a pass."""
MOST_PADDING = 1.25
"""Tokens of a batch with padding over those without."""


def widest_new(reader: Reader) -> int:
    """Tokens of a batch that are read anew, with padding: more makes nothing faster, and takes memory."""
    return 16_384 if reader.device.type == "cuda" else 4096


@dataclass(frozen=True)
class Scored:
    """What a model reads, and the tokens that it must predict with its last positions: both at least one."""

    ids: list[int]
    targets: list[int]

    @property
    def first(self) -> int:
        """The place of the token that predicts the first target."""
        return len(self.ids) - len(self.targets)


@dataclass(frozen=True)
class Tree:
    """Several texts as one row: what they begin with, once, then the rest of each.

    number: of the prompt. pairs: which of its pairs the texts belong to. branches: 0 for a token of what they begin
    with. picks: for each text, where its targets are predicted, and the targets. shareable: tokens from the beginning
    that belong to all texts and predict no target.
    """

    number: int
    pairs: list[int]
    ids: list[int]
    positions: list[int]
    branches: list[int]
    picks: list[tuple[list[int], list[int]]]
    shareable: int


@dataclass(frozen=True)
class Placed:
    """A tree in a batch, whose first tokens, so many, are in the memory of a family."""

    tree: Tree
    family: int
    shared: int

    @property
    def width(self) -> int:
        return len(self.tree.ids) - self.shared


def scored(wording: Wording, prompts: Sequence[Sequence[Pair]], longest: int) -> list[list[list[Scored]]]:
    """For each prompt and each of its pairs what is read: one text, or, of what no model can see at once, several.

    Texts are encoded once, however many pairs share a context.
    """
    moved = [[_moved(context, text) for context, text in pairs] for pairs in prompts]
    wanted = {one for pairs in moved for context, text in pairs if context for one in (context, context + text)}
    texts = sorted(wanted)
    ids = dict(zip(texts, wording.encode(texts), strict=True))
    made = []
    for pairs in moved:
        split = [
            _split(ids[context], ids[context + text]) if context else _opening(wording, text) for context, text in pairs
        ]
        made.append([_cut(context, text, longest) for context, text in split])
    return made


def _moved(context: str, text: str) -> Pair:
    """White space at a context's end belongs to what follows: tokens of words begin with it."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + text


def _split(context: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
    """The ids of a context with its continuation, divided after as many tokens as the context has alone.

    If these are all, the last one is scored: it spells the end of the context and the continuation together.
    """
    at = min(len(context), len(whole) - 1)
    return whole[:at] if at < len(context) else context, whole[at:]


def _opening(wording: Wording, text: str) -> tuple[list[int], list[int]]:
    """A text with nothing before it stands behind the token that texts begin with. Raises InputError for no text."""
    ids = wording.bare(text)
    if not ids:
        raise InputError("a text without a token cannot be scored; every choice needs words")
    return (ids[:1], ids[1:]) if ids[0] == wording.first and len(ids) > 1 else ([wording.first], ids)


def _cut(context: list[int], text: list[int], longest: int) -> list[Scored]:
    """The end of the context and all of the text; of a text that is longer than the model sees, windows.

    Each window but the last predicts all that it reads, and the last has as much before what it predicts as it can.
    """
    if len(text) <= longest:
        return [Scored([*context, *text][-(longest + 1) : -1], text)]
    whole = [context[-1], *text]
    ends = [*range(longest, len(text), longest), len(text)]
    starts = range(0, len(text), longest)
    return [Scored(whole[max(0, end - longest) : end], text[at:end]) for at, end in zip(starts, ends, strict=True)]


def tree(number: int, texts: Sequence[tuple[int, Scored]]) -> Tree:
    """One row for several texts, each with the number of its pair."""
    distinct = list(dict.fromkeys(tuple(one.ids) for _, one in texts))
    trunk = min(common(distinct[0], one) for one in distinct)
    ids, positions, branches = list(distinct[0][:trunk]), [*range(trunk)], [0] * trunk
    ahead = {}
    for branch, one in enumerate(distinct, 1):
        ahead[one] = len(ids) - trunk
        ids += one[trunk:]
        positions += range(trunk, len(one))
        branches += [branch] * (len(one) - trunk)
    picks = []
    for _, text in texts:
        moved = ahead[tuple(text.ids)]
        places = [at if at < trunk else at + moved for at in range(text.first, len(text.ids))]
        picks.append((places, text.targets))
    shareable = min([trunk, *(text.first for _, text in texts)])
    return Tree(number, [pair for pair, _ in texts], ids, positions, branches, picks, shareable)


def trees(number: int, pairs: Sequence[Sequence[Scored]], shares: bool) -> list[Tree]:
    """The rows of a prompt: one for all of its pairs where the model can, else one for each text that differs."""
    texts = [(pair, text) for pair, several in enumerate(pairs) for text in several]
    if shares and len(texts) == len(pairs):
        return [tree(number, texts)]
    alike: dict[tuple[int, ...], list[tuple[int, Scored]]] = {}
    for pair, text in texts:
        alike.setdefault(tuple(text.ids), []).append((pair, text))
    return [tree(number, some) for some in alike.values()]


def likelihoods(
    reader: Reader, wording: Wording, prompts: Mapping[int, Sequence[Pair]], longest: int, most: int
) -> Iterator[dict[int, list[float]]]:
    """The log-likelihood of each pair's text, in nats, by the prompts' numbers: batch by batch, each prompt once.

    longest: tokens that the model sees. most: tokens in memory at once. Raises InputError for a text without a token.
    """
    numbers = [*prompts]
    cut = scored(wording, [prompts[number] for number in numbers], longest)
    rows = [row for number, pairs in zip(numbers, cut, strict=True) for row in trees(number, pairs, reader.shares)]
    left = Counter(row.number for row in rows)
    sums = {number: [0.0] * len(pairs) for number, pairs in prompts.items()}
    memories: dict[int, Memory] = {}
    for batch in batches(rows, most, widest_new(reader), reader.shares):
        begins = {one.family: one.tree.ids[: one.shared] for one in batch if one.shared}
        memories = {family: memories.get(family) or reader.memory(ids) for family, ids in begins.items()}
        found = iter(reader.log_likelihoods(*laid_out(reader, batch, memories)).double().tolist())
        done = {}
        for one in batch:
            for pair, (places, _) in zip(one.tree.pairs, one.tree.picks, strict=True):
                sums[one.tree.number][pair] += sum(next(found) for _ in places)
            left[one.tree.number] -= 1
            if not left[one.tree.number]:
                done[one.tree.number] = sums.pop(one.tree.number)
        yield done


def batches(rows: Sequence[Tree], most: int, widest: int, shares: bool) -> Iterator[list[Placed]]:
    """Rows that are read together: of a family and about as long, and as many as there is room for."""
    found = families([row.ids[: row.shareable] if shares else [] for row in rows], LEAST_SHARED, LEAST_SAVED)
    batch: list[Placed] = []
    for number, family in enumerate(found):
        for row in sorted(family.rows, key=lambda row: -len(rows[row].ids)):
            one = Placed(rows[row], number, family.shared)
            if batch and not _fits([*batch, one], most, widest):
                yield batch
                batch = []
            batch.append(one)
    if batch:
        yield batch


def _fits(batch: Sequence[Placed], most: int, widest: int) -> bool:
    widths = [one.width for one in batch]
    padded = len(batch) * max(widths)
    seen = len(batch) * (max(widths) + max(one.shared for one in batch))
    return padded <= widest and seen <= most and padded <= max(MOST_PADDING * sum(widths), LEAST_SAVED)


def laid_out(
    reader: Reader, batch: Sequence[Placed], memories: Mapping[int, Memory]
) -> tuple[Rows, tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A batch as tensors, and the rows, places and targets of all that is predicted, tree by tree."""
    shape = len(batch), max(one.width for one in batch)
    tokens, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    branches = np.full(shape, -1, np.int64)  # padding sees itself and what all see
    at: list[tuple[int, int]] = []
    targets: list[int] = []
    for row, one in enumerate(batch):
        for whole, values in ((tokens, one.tree.ids), (positions, one.tree.positions), (branches, one.tree.branches)):
            whole[row, : one.width] = values[one.shared :]
        for places, wanted in one.tree.picks:
            at += [(row, place - one.shared) for place in places]
            targets += wanted
    made = [torch.from_numpy(one).to(reader.device) for one in (tokens, positions, branches)]
    memory, filled = aligned([memories.get(one.family, []) for one in batch], reader.device)
    seen = _seen(made[2], filled) if reader.shares else (made[2] >= 0).long()
    rows_places = torch.tensor(at, device=reader.device).T
    predicted = torch.tensor(targets, device=reader.device)
    return Rows(made[0], made[1], seen, memory), (rows_places[0], rows_places[1]), predicted


def _seen(branches: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
    """What each token sees: (B, T), memory that is filled (B, P) -> (B, 1, T, P + T).

    That is the memory, and earlier tokens of what all begin with or of its own branch.
    """
    near = (branches[:, None, :] == 0) | (branches[:, :, None] == branches[:, None, :])
    behind = filled[:, None, :].expand(-1, branches.shape[1], -1)
    return torch.cat((behind, near.tril()), 2)[:, None]
