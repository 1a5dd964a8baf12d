"""Lists of bad words, one a language, and how often a text uses them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from contract.errors import InputError
from contract.store import Store
from pipelines.text import counting
from pipelines.text.languages import UNITS
from pipelines.text.words import Text, keys_of


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
            # A text's words come without the punctuation around them; signs that stand for letters, as in a$$, stay.
            words = tuple(bare for word in entry.split() if (bare := word.strip("'’.,!?")))
            if words:
                phrases.setdefault(words[0], []).append(words)
        return BadWords({first: tuple(sorted(them, key=len, reverse=True)) for first, them in phrases.items()})

    @cached_property
    def first_words(self) -> frozenset[str]:
        return frozenset(self.phrases)

    def count(self, document: Text) -> int:
        """Occurrences in a text, in lower case, whatever punctuation stands around its words."""
        if self.substrings:
            return sum(document.lowered.count(entry) for entry in self.substrings)
        if not counting.listed(document.lowered_words[1].keys, keys_of(self.first_words))[0]:
            return 0
        found, bare = 0, document.bare_words()
        for index, word in enumerate(bare):
            for phrase in self.phrases.get(word, ()):
                if tuple(bare[index : index + len(phrase)]) == phrase:
                    found += 1
                    break
        return found


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
