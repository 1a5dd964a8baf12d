"""Chats as token ids, in one format that sft, reward, ppo and evaluate share.

    <|system|>text<|user|>text<|assistant|>text<|endoftext|><|user|>text<|assistant|>text<|endoftext|>

The format is declared once, in `contract.chat`; exported models get it as a Jinja template. Special tokens come only
from this module: `<|user|>` typed in a text is encoded as plain characters.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from contract.chat import BLANKS, CHAT_FORMAT, SPECIAL_TOKENS, load_special_tokens
from contract.conversation import Role, Turn
from contract.errors import InputError
from contract.kinds import Kind
from contract.vocabulary import token_bytes
from training.engine.job import Job

T = TypeVar("T")


class Cut(StrEnum):
    """What is taken from a chat that is longer than its limit."""

    TURNS = "turns_dropped"
    """Its oldest turns, whole."""
    SYSTEM = "system_dropped"
    """Its opening system turn."""
    PROMPT = "prompt_cut"
    """The beginning of the last turn before the reply."""
    REPLY = "reply_cut"
    """The end of the reply."""


@dataclass(frozen=True)
class Piece:
    """A turn as ids, the first of which is its role's token, with its loss mask."""

    role: Role
    ids: list[int]
    mask: list[int]


@dataclass(frozen=True)
class Fit:
    """A prompt that ends with the assistant's token, with its loss mask, and replies to it, all as ids.

    cuts: what was taken of them so that they fit.
    """

    prompt: list[int]
    mask: list[int]
    replies: list[list[int]]
    cuts: frozenset[Cut]


class Chat:
    """A tokenizer that knows the chat format."""

    def __init__(self, path: Path, special: Mapping[str, str] = SPECIAL_TOKENS) -> None:
        """`special` is the token of each role. Raises InputError if the file is not a tokenizer or lacks one of them.

        A special token's text is never found in a text: see `text`.
        """
        self.path, self.special = path, special
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise InputError(f"{path}: is not a tokenizer ({error}); run tokenizer again") from error
        self._tokenizer.encode_special_tokens = True  # special tokens in a text are read as plain characters
        missing = [token for token in special.values() if self._tokenizer.token_to_id(token) is None]
        if missing:
            raise InputError(f"{path}: lacks {len(missing)} special tokens, such as {missing[0]}; run tokenizer again")

    @cached_property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    @cached_property
    def end_of_text(self) -> int:
        return self._id("end_of_text")

    @cached_property
    def pad(self) -> int:
        return self._id("pad")

    def role(self, role: Role) -> int:
        """The id of the token that opens a turn."""
        return self._id(CHAT_FORMAT[role].begins)

    def blanks(self) -> dict[str, int]:
        """The ids of the tokens that blank infilling needs, by the names of `contract.chat.BLANKS`."""
        return {name: self._id(role) for name, role in BLANKS.items()}

    def text(self, text: str) -> list[int]:
        """Ids of plain text, without any special token."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def ends(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of plain text, and the character of the text at which each token ends."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return encoded.ids, [end for _, end in encoded.offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def prompt(self, turns: Sequence[Turn], max_tokens: int) -> list[int]:
        """Ids of a prompt for a reply: the turns, then the assistant's token, cut to `max_tokens` by `keep_turns`."""
        return self.fit_prompt(turns, max_tokens)[0]

    def fit_prompt(self, turns: Sequence[Turn], max_tokens: int) -> tuple[list[int], frozenset[Cut]]:
        """The same, and what was cut."""
        pieces, cuts = keep_turns([self._turn(turn) for turn in turns], max_tokens - 1)
        return [*(token for piece in pieces for token in piece.ids), self.role("assistant")], cuts

    def response(self, text: str, max_tokens: int) -> list[int]:
        """Ids of a reply with its end-of-text. A reply that is too long loses its tail, including the end-of-text."""
        return [*self.text(text), self.end_of_text][:max_tokens]

    def encode(self, turns: Sequence[Turn], max_tokens: int) -> tuple[list[int], list[int]]:
        """A chat that ends with an assistant turn, as ids and loss mask, both at most `max_tokens` long.

        The mask is 1 on the assistant's words and its end-of-text, 0 elsewhere. `fit` says what is cut.
        """
        fit = self.fit_chat(turns, max_tokens)
        return fit.prompt + fit.replies[0], fit.mask + [1] * len(fit.replies[0])

    def fit_chat(self, turns: Sequence[Turn], max_tokens: int) -> Fit:
        """`fit` of a chat to learn from. Raises ValueError unless its last turn, the reply, is an assistant's."""
        if not turns or turns[-1].role != "assistant":
            raise ValueError("a chat to learn from must end with an assistant turn")
        return self.fit(turns[:-1], [turns[-1].text], max_tokens)

    def fit(self, turns: Sequence[Turn], replies: Sequence[str], max_tokens: int) -> Fit:
        """A prompt and replies to it, cut so that the prompt and any one of the replies have at most `max_tokens`.

        A reply gets the room that the prompt leaves, but at least three quarters of `max_tokens`; one that is longer
        loses its tail, including the end-of-text. The prompt is cut once, by `keep_turns`, for the longest reply:
        replies that are compared must answer the same prompt.
        """
        pieces = [self._turn(turn) for turn in turns]
        room = max_tokens - min(sum(len(piece.ids) for piece in pieces) + 1, max_tokens // 4)
        responses = [self.response(reply, room) for reply in replies]
        kept, cuts = keep_turns(pieces, max_tokens - max(map(len, responses)) - 1)
        if any(response[-1] != self.end_of_text for response in responses):
            cuts |= {Cut.REPLY}
        prompt = [*(token for piece in kept for token in piece.ids), self.role("assistant")]
        return Fit(prompt, [*(one for piece in kept for one in piece.mask), 0], responses, cuts)

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """The number of bytes of UTF-8 that each token spells, by id; 0 for special tokens."""
        return token_bytes(json.loads(self._tokenizer.to_str()))

    def _turn(self, turn: Turn) -> Piece:
        frame, learned = CHAT_FORMAT[turn.role], int(turn.role == "assistant")
        ids = [self._id(frame.begins), *self.text(turn.text), *([self._id(frame.ends)] if frame.ends else [])]
        return Piece(turn.role, ids, [0] + [learned] * (len(ids) - 1))

    def _id(self, role: str) -> int:
        found = self._tokenizer.token_to_id(self.special[role])
        assert found is not None, "__init__ has looked for all of them"
        return found


def keep_turns(turns: Sequence[Piece], room: int) -> tuple[list[Piece], frozenset[Cut]]:
    """The turns of a prompt that fit in `room` tokens, and what was taken: whole turns, the oldest first.

    What is left begins with a user's turn, because a reply without its question teaches nothing. An opening system turn
    stays if it takes no more than half of the room. If the last turn alone is too long, it keeps its first token, which
    is its role's, and its end, and nothing is learned from it.
    """
    if sum(len(turn.ids) for turn in turns) <= room:
        return list(turns), frozenset()
    opening = [turn for turn in turns[:1] if turn.role == "system" and len(turns) > 1]
    rest, kept = turns[len(opening) :], [turn for turn in opening if len(turn.ids) <= room // 2]
    cuts = {Cut.SYSTEM} if len(kept) < len(opening) else set()
    space = room - sum(len(turn.ids) for turn in kept)
    first, size = len(rest) - 1, 0
    for number in reversed(range(len(rest))):
        size += len(rest[number].ids)
        if size > space:
            break
        first = number if rest[number].role == "user" else first
    if first:
        cuts.add(Cut.TURNS)
    if sum(len(turn.ids) for turn in rest[first:]) > space:
        cuts.add(Cut.PROMPT)
        return [*kept, *_tail(rest[-1], space)], frozenset(cuts)
    return [*kept, *rest[first:]], frozenset(cuts)


def _tail(turn: Piece, room: int) -> list[Piece]:
    """A turn's role and its end, in `room` tokens; none without room."""
    ids = [turn.ids[0], *turn.ids[len(turn.ids) - room + 1 :]]
    return [Piece(turn.role, ids, [0] * room)] if room > 0 else []


def count_cuts(job: Job, examples: Sequence[T], cuts_of: Callable[[T], frozenset[Cut]]) -> dict[str, int]:
    """Kind of cut -> the examples that it was made in; over all processes, each of which calls it."""
    own = Counter(
        cut for row in range(job.ranks.rank, len(examples), job.ranks.world) for cut in cuts_of(examples[row])
    )
    return {cut.value: int(count) for cut, count in zip(Cut, job.ranks.sum(*(own[cut] for cut in Cut)), strict=True)}


def open_chat(job: Job) -> Chat:
    """The run's tokenizer."""
    (file,) = job.files("tokenizer", Kind.TOKENIZER)
    (named,) = job.files("tokenizer", Kind.SPECIAL_TOKENS)
    special = load_special_tokens(job.scratch.download(named).read_bytes(), job.store.full(named.path))
    return Chat(job.scratch.download(file), special)
