"""Lists of bad words, one per language, and the count of their occurrences in a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from contract.errors import InputError
from contract.store import Store
from pipelines.text import counting
from pipelines.text.characters import PUNCTUATION
from pipelines.text.languages import UNITS
from pipelines.text.words import Text, keys_of, split_words

SIGNS = "$*@#&+%_"  # may replace letters, as in a$$ and f***
AROUND = "".join(sign for sign in PUNCTUATION if sign not in SIGNS)


@dataclass(frozen=True)
class BadWords:
    """One language's list. Phrases match whole words, or any substring in scripts without spaces between words."""

    phrases: Mapping[str, tuple[tuple[str, ...], ...]]
    """First word -> all phrases that begin with it, each as a tuple of words, longest first."""
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
        """First words of all phrases, without punctuation. A text with none of them contains no phrase."""
        return frozenset(first.strip(PUNCTUATION) for first in self.phrases)

    def count(self, document: Text) -> int:
        """Count occurrences in a text, ignoring case and the punctuation around words.

        A word is tried both with and without the SIGNS at its ends: `a$$` matches as it is, `*darn*` matches `darn`.
        """
        if self.substrings:
            return sum(document.lowered.count(entry) for entry in self.substrings)
        if not counting.listed(document.lowered_words[1].keys, keys_of(self.first_words))[0]:
            return 0
        words = [(word.strip(AROUND), word.strip(PUNCTUATION)) for word in split_words(document.lowered)]
        return sum(self._begins(words, index) for index in range(len(words)))

    def _begins(self, words: Sequence[tuple[str, str]], index: int) -> bool:
        """Whether a phrase begins at words[index]. Each word is given as (with signs, without signs)."""
        return any(
            len(phrase) <= len(words) - index
            and all(part in words[index + offset] for offset, part in enumerate(phrase))
            for form in words[index]
            for phrase in self.phrases.get(form, ())
        )


def load_lists(folder: str) -> dict[str, BadWords]:
    """Load the lists of a folder, by language code. Raises InputError if the folder has no list."""
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
            f"score.bad_words: {folder} holds no list; name a folder with one file for each language, such as en and de"
        )
    return lists
