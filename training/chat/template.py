"""Chats as token ids, in one format that sft, reward, ppo and evaluate share.

    <|system|>text<|user|>text<|assistant|>text<|endoftext|><|user|>text<|assistant|>text<|endoftext|>

The format is declared once, in `contract.chat`, or it is the Jinja template that the recipe names in
`sft.chat_template`; exported models get it as a Jinja template. Special tokens come only from this module and the
template: `<|user|>` typed in a text is encoded as plain characters.
"""

import bisect
import json
import re
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

from contract.chat import BLANKS, CHAT_FORMAT, OWN_FORMAT, SPECIAL_TOKENS, jinja_template, load_special_tokens
from contract.chat_template import read_template
from contract.conversation import Role, Turn
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import Manifest
from contract.vocabulary import token_bytes
from training.chat.jinja import FREE, ChatTemplate, with_tokens_of, words_of
from training.engine.job import Job
from training.engine.scratch import Scratch

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

    def __init__(
        self, path: Path, special: Mapping[str, str] = SPECIAL_TOKENS, template: ChatTemplate | None = None
    ) -> None:
        """`special` is the token of each role. Raises InputError if the file is not a tokenizer or lacks one of them.

        A special token's text is never found in a text: see `text`. Without a template, chats have our own format.
        """
        self.path, self.special, self.template = path, special, template
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
        """The token that ends a reply: by our own format also every document of the corpus."""
        return self._number(self.end_token)

    @cached_property
    def end_of_document(self) -> int:
        """The token that ends every document of the corpus."""
        return self._id("end_of_text")

    @cached_property
    def end_token(self) -> str:
        """The same as text. Raises InputError if the template ends a reply with no special token."""
        if self.template is None:
            return self.special["end_of_text"]
        rendered = self.template.render((Turn("user", "a"), Turn("assistant", "b")))
        _, end = rendered.learned[-1] if rendered.learned else (0, 0)
        found = next((token for token in self._words if rendered.text[:end].endswith(token)), None)
        if found is None:
            raise InputError(
                f"{self.template.where}: ends a reply with no special token, so no model would learn to stop; "
                "end it with {{ eos_token }} inside its generation block"
            )
        return found

    @property
    def ends_reserved(self) -> bool:
        """Whether a reply ends with a token that was reserved, so that pretraining never saw it."""
        return self.end_token in {self.special[role] for role in FREE}

    @property
    def jinja(self) -> str:
        """The format as the template that `transformers` reads."""
        return jinja_template(self.special) if self.template is None else self.template.text

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

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each of several plain texts, which the tokenizer reads at the same time."""
        return [one.ids for one in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

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
        if self.template is not None:
            kept, cuts = self._kept(turns, max_tokens)
            return self._rendered(kept, asking=True)[0][-max_tokens:], cuts
        pieces, cuts = keep_turns([self._turn(turn) for turn in turns], max_tokens - 1)
        return [*(token for piece in pieces for token in piece.ids), self.role("assistant")], cuts

    def response(self, text: str, max_tokens: int) -> list[int]:
        """Ids of a reply with its end-of-text. A reply that is too long loses its tail, including the end-of-text."""
        return [*self.text(text), self.end_of_text][:max_tokens]

    def encode(self, turns: Sequence[Turn], max_tokens: int) -> tuple[list[int], list[int]]:
        """A chat that ends with an assistant turn, as ids and loss mask, both at most `max_tokens` long.

        The mask is 1 on the assistant's words and its end-of-text, 0 elsewhere. `fit` says what is cut. With a template
        these are the ids of `apply_chat_template`, if they are no more than `max_tokens`.
        """
        if self.template is not None and _short(turns, max_tokens):
            ids, mask = self._rendered(turns)
            if len(ids) <= max_tokens:
                return ids, mask
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
        if self.template is not None:
            return self._fit_rendered(turns, replies, max_tokens)
        pieces = [self._turn(turn) for turn in turns]
        room = max_tokens - min(sum(len(piece.ids) for piece in pieces) + 1, max_tokens // 4)
        responses = [self.response(reply, room) for reply in replies]
        kept, cuts = keep_turns(pieces, max_tokens - max(map(len, responses)) - 1)
        if any(response[-1] != self.end_of_text for response in responses):
            cuts |= {Cut.REPLY}
        prompt = [*(token for piece in kept for token in piece.ids), self.role("assistant")]
        return Fit(prompt, [*(one for piece in kept for one in piece.mask), 0], responses, cuts)

    def _fit_rendered(self, turns: Sequence[Turn], replies: Sequence[str], max_tokens: int) -> Fit:
        """The same with a template."""
        size = self._size(turns, max_tokens)
        responses = [self.response(reply, max_tokens - min(size, max_tokens // 4)) for reply in replies]
        room = max_tokens - max(map(len, responses))
        kept, cuts = self._kept(turns, room)
        if any(response[-1] != self.end_of_text for response in responses):
            cuts |= {Cut.REPLY}
        ids, mask = self._rendered(kept, asking=True)
        return Fit(ids[len(ids) - room :] if len(ids) > room else ids, mask[-room:], responses, cuts)

    def _kept(self, turns: Sequence[Turn], room: int) -> tuple[Sequence[Turn], frozenset[Cut]]:
        """The turns of a prompt that, rendered, fit in `room` tokens, and what was taken, as `keep_turns` does it."""

        def fits(*some: Turn) -> bool:
            return self._size(some, room) <= room

        if fits(*turns):
            return turns, frozenset()
        opening = [turn for turn in turns[:1] if turn.role == "system" and len(turns) > 1]
        rest = turns[len(opening) :]
        stays = opening if opening and self._size([*opening, Turn("user", "")], room) <= room // 2 else []
        cuts = {Cut.SYSTEM} if len(stays) < len(opening) else set()
        starts = [at for at, turn in enumerate(rest) if turn.role == "user"] or [len(rest) - 1]
        place = bisect.bisect_left(starts, True, key=lambda at: fits(*stays, *rest[at:]))
        if place < len(starts):
            return [*stays, *rest[starts[place] :]], frozenset(cuts | ({Cut.TURNS} if starts[place] else set()))
        last = rest[-1]
        text = last.text[-LONGEST_TOKEN * room :]
        ends = [0, *self.ends(text)[1]]
        taken = bisect.bisect_left(ends, True, key=lambda end: fits(*stays, Turn(last.role, text[end:])))
        left = Turn(last.role, text[ends[min(taken, len(ends) - 1)] :])
        cuts |= ({Cut.PROMPT} if left.text != last.text else set()) | ({Cut.TURNS} if len(rest) > 1 else set())
        return [*stays, left], frozenset(cuts)

    def _size(self, turns: Sequence[Turn], most: int) -> int:
        """The tokens of a prompt, rendered; of one that is not `_short`, its characters."""
        return len(self._rendered(turns, asking=True)[0]) if _short(turns, most) else _characters(turns)

    def _rendered(self, turns: Sequence[Turn], asking: bool = False) -> tuple[list[int], list[int]]:
        """Ids and loss mask of turns in the template's format.

        Texts that hold a special token are encoded piece by piece, with the token as plain characters.
        """
        assert self.template is not None
        if not any(self._word.search(turn.text) for turn in turns):
            made = self.template.render(turns, asking)
            encoded = self._reader.encode(made.text, add_special_tokens=False)
            return encoded.ids, _learned(made.learned, encoded.offsets)
        guards = self._guards(turns)
        plain = str.maketrans({guard: first for first, guard in guards.items()})
        hidden = [Turn(turn.role, self._word.sub(lambda at: guards[at[0][0]] + at[0][1:], turn.text)) for turn in turns]
        made = self.template.render(hidden, asking)
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        at = 0
        for found in [*self._word.finditer(made.text), None]:
            start = found.start() if found else len(made.text)
            piece = self._tokenizer.encode(made.text[at:start].translate(plain), add_special_tokens=False)
            ids += piece.ids
            places += [(at + begin, at + end) for begin, end in piece.offsets]
            if found:
                ids.append(self._number(found[0]))
                places.append(found.span())
                at = found.end()
        return ids, _learned(made.learned, places)

    def _guards(self, turns: Sequence[Turn]) -> dict[str, str]:
        """First character of special tokens -> what stands for it in a token that is only words of a text.

        It is a private character that no turn has.
        """
        used = set().union(*(turn.text for turn in turns))
        free = (character for character in map(chr, PRIVATE) if character not in used)
        return {first: next(free) for first in dict.fromkeys(word[0] for word in self._words)}

    @cached_property
    def _reader(self) -> Tokenizer:
        """The tokenizer that finds special tokens in a text, for what a template wrote."""
        return Tokenizer.from_file(str(self.path))

    @cached_property
    def _words(self) -> tuple[str, ...]:
        """Every special token."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        return tuple(token.content for token in added if token.special)

    @cached_property
    def _word(self) -> re.Pattern[str]:
        return words_of(self._words)

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """The number of bytes of UTF-8 that each token spells, by id; 0 for special tokens."""
        return token_bytes(json.loads(self._tokenizer.to_str()))

    def _turn(self, turn: Turn) -> Piece:
        frame, learned = CHAT_FORMAT[turn.role], int(turn.role == "assistant")
        ids = [self._id(frame.begins), *self.text(turn.text), *([self._id(frame.ends)] if frame.ends else [])]
        return Piece(turn.role, ids, [0] + [learned] * (len(ids) - 1))

    def _id(self, role: str) -> int:
        return self._number(self.special[role])

    def _number(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        assert found is not None, "it is one of the tokenizer's special tokens"
        return found


PRIVATE = range(0xF0000, 0xFFFFE)
"""A plane of private characters: more than any text uses."""
LONGEST_TOKEN = 64
"""Characters. A text with more than so many for each token that there is room for does not fit."""


def _characters(turns: Sequence[Turn]) -> int:
    return sum(len(turn.text) for turn in turns)


def _short(turns: Sequence[Turn], most: int) -> bool:
    """Whether turns may have no more than `most` tokens, so that it is worth the time to render them."""
    return _characters(turns) <= LONGEST_TOKEN * most


def _learned(spans: Sequence[tuple[int, int]], places: Sequence[tuple[int, int]]) -> list[int]:
    """1 for each token, whose characters are at `places`, that lies within a span. Both are in ascending order."""
    mask, at = [], 0
    for start, end in places:
        while at < len(spans) and spans[at][1] <= start and spans[at][1] < end:
            at += 1
        mask.append(int(at < len(spans) and spans[at][0] <= start and end <= spans[at][1] and start < end))
    return mask


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


TEMPLATE_FILE = "chat_template.jinja"
"""The template beside a model, where transformers looks for it."""


def open_chat(job: Job) -> Chat:
    """The run's tokenizer, with the chat template of `sft` where the stage is `sft` or comes after it."""
    where = f"sft.chat_template: {job.settings.chat_template}" if job.task.stage == "sft" else "the template of sft"
    folder = job.scratch.fresh(f"tokenizer-{job.ranks.rank}")
    return chat_of(job.scratch, job.manifest("tokenizer"), _template_of(job), folder, where)


def chat_of(scratch: Scratch, made: Manifest, text: str | None, folder: Path, where: str) -> Chat:
    """The tokenizer that a manifest lists, with a chat template, or for None with our own format.

    folder: an empty one for the tokenizer that knows the template's tokens. where: what messages call the template.
    """
    files = {file.kind: file for file in made.of(Kind.TOKENIZER, Kind.SPECIAL_TOKENS)}
    if len(files) < 2:
        raise InputError(f"{scratch.store.full(made.path)}: lists no tokenizer; run tokenizer again")
    named = files[Kind.SPECIAL_TOKENS]
    special = load_special_tokens(scratch.download(named).read_bytes(), scratch.store.full(named.path))
    path = scratch.download(files[Kind.TOKENIZER])
    if text is None:
        return Chat(path, special)
    extended, special = with_tokens_of(text, path.read_text(), special)
    own = folder / "tokenizer.json"
    own.write_text(extended)
    return Chat(
        own, special, ChatTemplate(text, {"eos_token": special["end_of_text"], "pad_token": special["pad"]}, where)
    )


def _template_of(job: Job) -> str | None:
    """The text of the template that the recipe names, or that `sft` committed; None for our own format."""
    if job.task.stage == "sft":
        name = job.settings.chat_template
        if name == OWN_FORMAT:
            return None
        return read_template(name)
    if not any(one.stage == "sft" for one in job.task.inputs):
        return None
    found = [file for file in job.manifest("sft").of(Kind.MODEL) if file.path.endswith(f"/{TEMPLATE_FILE}")]
    return job.scratch.download(found[0]).read_text() if found else None
