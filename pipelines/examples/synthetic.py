"""Makes instructions and preferences by rules from the corpus itself, so that a run needs no data but a crawl.

They exercise every stage but teach a model little; a recipe for a useful model names real files instead.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from contract.conversation import Conversation, Preference, Turn
from contract.manifest import File
from contract.store import Store
from contract.tables import read_rows

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
MIN_REPLY_CHARS = 20
MAX_PER_DOCUMENT = 8


@dataclass(frozen=True)
class Document:
    id: str
    title: str
    text: str


def documents(store: Store, files: Sequence[File]) -> Iterator[Document]:
    """The texts of files that `mix` committed, in the order of the mixture."""
    for file in files:
        for row in read_rows(store, file, ["id", "title", "text"]):
            yield Document(row["id"], (row["title"] or "").strip(), row["text"])


def sentences(text: str) -> list[str]:
    """Sentences of running text, split after . ! or ? and at line breaks.

    Pieces that end otherwise, such as headings, are left out.
    """
    pieces = (piece.strip() for line in text.splitlines() for piece in SENTENCE_END.split(line))
    return [piece for piece in pieces if piece[-1:] in (".", "!", "?")]


def synthetic_instructions(texts: Iterable[Document], seed: int) -> Iterator[tuple[str, Conversation]]:
    """Instructions whose replies are the corpus's own sentences, at most MAX_PER_DOCUMENT per document.

    Yields the document's id with each. The same seed gives the same instructions.
    """
    for document in texts:
        rng = random.Random(f"{seed}:{document.id}")  # noqa: S311 - has to repeat, not to be secret
        found = sentences(document.text)
        made = []
        if document.title and len(found) >= 2:
            ask = rng.choice(('Write the opening of a text titled "{}".', 'How does a page called "{}" begin?'))
            made.append((ask.format(document.title), " ".join(found[:2])))
        for index in range(0, len(found) - 2, 3):
            rule = rng.choice((_continue, _complete, _between))
            made.append(rule(found[index : index + 3], rng))
        usable = [(ask, reply) for ask, reply in made if len(reply) >= MIN_REPLY_CHARS]
        rng.shuffle(usable)
        for ask, reply in usable[:MAX_PER_DOCUMENT]:
            yield document.id, (Turn("user", ask), Turn("assistant", reply))


def _continue(three: list[str], rng: random.Random) -> tuple[str, str]:
    ask = rng.choice(("Continue: {}", "What comes after this sentence?\n{}", "Go on from here: {}"))
    return ask.format(three[0]), " ".join(three[1:])


def _complete(three: list[str], rng: random.Random) -> tuple[str, str]:
    words = three[1].split()
    cut = max(1, len(words) // 2)
    ask = rng.choice(("Complete the sentence: {}", "Finish what was begun: {}"))
    return ask.format(" ".join((three[0], *words[:cut]))), " ".join(words[cut:])


def _between(three: list[str], rng: random.Random) -> tuple[str, str]:
    ask = rng.choice(("Which sentence stands between these two?\n1. {}\n2. {}", "Fill the gap.\nBefore: {}\nAfter: {}"))
    return ask.format(three[0], three[2]), three[1]


def synthetic_preferences(texts: Iterable[Document], seed: int) -> Iterator[tuple[str, Preference]]:
    """Prefers the true reply of each synthetic instruction to a version with words shuffled, cut off or repeated."""
    for index, (key, (ask, reply)) in enumerate(synthetic_instructions(texts, seed)):
        rng = random.Random(f"{seed}:{index}:{ask.text}")  # noqa: S311 - has to repeat, not to be secret
        worse = rng.choice((_shuffled, _truncated, _repeated))(reply.text.split(), rng)
        if worse != reply.text:
            yield key, Preference((ask,), reply.text, worse)


def _shuffled(words: list[str], rng: random.Random) -> str:
    return " ".join(rng.sample(words, len(words)))


def _truncated(words: list[str], rng: random.Random) -> str:
    return " ".join(words[: max(1, len(words) // rng.randint(3, 5))])


def _repeated(words: list[str], rng: random.Random) -> str:
    size = min(len(words), rng.randint(2, 4))
    return " ".join((words[:size] * len(words))[: len(words)])
