"""Expands a tokenizer: appends tokens that a language needs. Every token of the base keeps its id.

A BPE continues where the base ends: texts are encoded with the base, and pairs of its tokens are joined as in any BPE.
So each new token can be reached, and texts in the base's own languages are encoded almost as before.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from contract.errors import InputError
from contract.vocabulary import BYTE
from pipelines.vocabulary.pieces import SPACE

FIRST = 0x10000
"""While a BPE is continued, the token of id n is the character FIRST + n. There is no white space from there on."""
COVERAGE = 0.9995  # of the characters that the base spells with bytes; SentencePiece's usual share


def expand(base: Tokenizer, texts: Iterable[str], count: int, least: int) -> Tokenizer:
    """The base with at most `count` more tokens, learned from `texts`, which are read twice if the base has bytes.

    `least` is how often a pair must occur to be joined. Raises InputError for a tokenizer that is no BPE.
    """
    check(base)
    spec = json.loads(base.to_str())
    model = spec["model"]
    characters = common_characters(base, texts)[:count] if model.get("byte_fallback") else []
    symbols = Symbols(base, characters)
    trainer = trainers.BpeTrainer(
        vocab_size=base.get_vocab_size() + count,
        min_frequency=least,
        initial_alphabet=[chr(FIRST + index) for index in range(len(symbols.spelled))],
        show_progress=False,
    )
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learned.train_from_iterator(map(symbols.words, texts), trainer)
    held = base.get_vocab(with_added_tokens=True)
    for character in characters:
        model["vocab"][character] = held[character] = len(held)
    for pair in json.loads(learned.to_str())["model"]["merges"]:
        left, right = (symbols.spell(part) for part in pair)
        if left + right not in held:
            model["vocab"][left + right] = held[left + right] = len(held)
        if left + right in model["vocab"]:  # and not the text of an added token
            model["merges"].append([left, right])
    return Tokenizer.from_str(json.dumps(spec))


def check(base: Tokenizer) -> None:
    """Raise InputError for a tokenizer that cannot be continued."""
    kind = json.loads(base.to_str())["model"]["type"]
    if kind != "BPE":
        raise InputError(
            f"tokenizer.expand.tokens: the tokenizer of start_from is a {kind}, and only a BPE can be continued; "
            "name a second SentencePiece model as expand.model"
        )


class Symbols:
    """Texts as words of symbols, one character for each token of the base or each new character."""

    def __init__(self, base: Tokenizer, characters: Sequence[str]) -> None:
        self._base = base
        tokens = [base.id_to_token(index) or "" for index in range(base.get_vocab_size())]
        self.spelled = [*tokens, *characters]
        self._new = {character: len(tokens) + index for index, character in enumerate(characters)}
        cuts_words = json.loads(base.to_str())["model"].get("byte_fallback") or any(SPACE in one for one in tokens)
        self._joins = [not cuts_words or has_letter(token) for token in self.spelled]

    def spell(self, symbols: str) -> str:
        """The token that a run of symbols makes up."""
        return "".join(self.spelled[ord(symbol) - FIRST] for symbol in symbols)

    def words(self, text: str) -> str:
        """A text as symbols, with a space between words.

        A word ends where the base's pre-tokenizer ends one. The base may have none, so a word also ends before a space
        and at a token without a letter, unless the base's tokens are bytes.
        """
        made: list[str] = []
        last: int | None = None
        for symbol, word in self._symbols(text):
            joins = symbol is not None and self._joins[symbol]
            if word != last or not joins or (symbol is not None and self.spelled[symbol].startswith(SPACE)):
                made.append(" ")
            if symbol is not None:
                made.append(chr(FIRST + symbol))
            last = word if joins else None
        return "".join(made)

    def _symbols(self, text: str) -> Iterator[tuple[int | None, int | None]]:
        """(symbol, number of its word) of a text. The bytes of a new character are one symbol; other bytes are None."""
        encoding = self._base.encode(text, add_special_tokens=False)
        run: list[str] = []
        at: int | None = None
        for index, token, word in zip(
            [*encoding.ids, 0], [*encoding.tokens, ""], [*encoding.word_ids, None], strict=True
        ):
            if self._new and BYTE.fullmatch(token):
                run.append(token)
                at = word
                continue
            for character in spelled_by(run):
                yield self._new.get(character), at
            run = []
            if token:
                yield index, word


def common_characters(base: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The characters that the base spells with bytes, the most frequent first, up to COVERAGE of their occurrences."""
    counts: Counter[str] = Counter()
    for text in texts:
        run: list[str] = []
        for token in base.encode(text, add_special_tokens=False).tokens:
            if BYTE.fullmatch(token):
                run.append(token)
            elif run:
                counts.update(spelled_by(run))
                run = []
        counts.update(spelled_by(run))
    ranked = sorted(((-count, one) for one, count in counts.items() if one.isprintable()))
    left, kept = COVERAGE * sum(-count for count, _ in ranked), []
    for count, character in ranked:
        if left <= 0:
            break
        kept.append(character)
        left += count
    return kept


def spelled_by(tokens: Iterable[str]) -> str:
    """The text of a run of byte tokens such as `<0xE4>`."""
    return bytes(int(token[3:5], 16) for token in tokens).decode(errors="replace")


def has_letter(token: str) -> bool:
    """Whether a token holds a letter, or a mark that belongs to one."""
    return any(unicodedata.category(character)[0] in "LM" for character in token) and not BYTE.fullmatch(token)
