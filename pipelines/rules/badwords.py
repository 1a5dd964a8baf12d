"""Lists of bad words, one a language, and how often a text uses them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from contract.errors import InputError
from contract.store import Store
from pipelines.text import counting
from pipelines.text.characters import PUNCTUATION
from pipelines.text.languages import UNITS
from pipelines.text.words import Text, keys_of, split_words

SIGNS = "$*@#&+%_"  # may stand for letters, as in a$$ and f***
AROUND = "".join(sign for sign in PUNCTUATION if sign not in SIGNS)


@dataclass(frozen=True)
class BadWords:
    """One language's list. Words of spaced languages match whole; in scripts without spaces a phrase matches anywhere."""

    phrases: Mapping[str, tuple[tuple[str, ...], ...]]
    """First word -> every phrase that begins with it, in words, longest first."""
    substrings: tuple[str, ...] = ()

    @staticmethod
    def build(entries: Sequence[str], language: str) -> "BadWords":
        wanted = sorted({entry.strip().lower() for entry in entries if entry.strip()})
        if language in UNITS:
            return BadWords({}, tuple(wanted))
        phrases: dict[str, list[tuple[str, ...]]] = {}
        for entry in wanted:
            words = tuple(bare for word in split_words(entry) if (bare := word.strip(AROUND)))
            if words:
                phrases.setdefault(words[0], []).append(words)
        return BadWords({first: tuple(sorted(them, key=len, reverse=True)) for first, them in phrases.items()})

    @cached_property
    def first_words(self) -> frozenset[str]:
        """What a text's bare words must hold for a phrase to begin anywhere."""
        return frozenset(first.strip(PUNCTUATION) for first in self.phrases)

    def count(self, document: Text) -> int:
        """Occurrences in a text, in lower case, whatever punctuation stands around its words.

        A word matches with the signs at its ends that may stand for letters and without them: `a$$` as such, `*darn*` as `darn`.
        """
        if self.substrings:
            return sum(document.lowered.count(entry) for entry in self.substrings)
        if not counting.listed(document.lowered_words[1].keys, keys_of(self.first_words))[0]:
            return 0
        words = [(word.strip(AROUND), word.strip(PUNCTUATION)) for word in split_words(document.lowered)]
        return sum(self._begins(words, index) for index in range(len(words)))

    def _begins(self, words: Sequence[tuple[str, str]], index: int) -> bool:
        """Whether a phrase begins at a word; each word comes in its two forms."""
        return any(
            len(phrase) <= len(words) - index
            and all(part in words[index + offset] for offset, part in enumerate(phrase))
            for form in words[index]
            for phrase in self.phrases.get(form, ())
        )


def load(folder: str) -> dict[str, BadWords]:
    """The list of every language in a folder; raises InputError where it holds none."""
    store = Store(folder)
    lists = {}
    for entry in store.files(recursive=False):
        language = entry.path.partition(".")[0]
        if language.isalpha() and language.islower() and 2 <= len(language) <= 3:
            lists[language] = BadWords.build(
                store.read_bytes(entry.path).decode("utf-8", "replace").splitlines(), language
            )
    if not lists:
        raise InputError(
            f"score.bad_words: {folder} holds no list; name a folder with one file a language, such as en and de"
        )
    return lists
