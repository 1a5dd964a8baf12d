"""What models are measured on: held-out documents, questions made of them, and questions from files.

All of it follows from the documents alone, never from a model or its tokenizer: every model predicts the same text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import File, Manifest
from contract.settings.corpus import CRAWL
from contract.settings.training import Probe
from contract.store import Store, split_uri
from contract.tables import read_batches

GIVEN = 32  # characters of a document that no model must predict, because nothing stands before them
SHORTEST = 128  # characters of a document that is read
CONTEXT = 100  # characters at least before a sentence that is to be found
SENTENCE = range(20, 301)  # its characters
CHOICES = 4
MAX_BYTES = 1 << 28  # of a file of questions; the largest published sets have a few dozen MB
END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|\Z)|[。！？][”’」』)\]]*|\S(?=\n)")
CONTEXTS = ("context", "ctx")
QUESTIONS = ("question", "query")
OPTIONS = ("choices", "endings", "options")
ANSWERS = ("answer", "label", "gold", "answerKey")


@dataclass(frozen=True)
class Passage:
    """A text of which everything after the first `given` characters is predicted."""

    text: str
    given: int

    @property
    def bytes(self) -> int:
        """Bytes of UTF-8 to predict."""
        return len(self.text[self.given :].encode())


@dataclass(frozen=True)
class Documents:
    """Held-out documents of one source. stands_for: how many held-out documents each one represents."""

    ids: list[str]
    passages: list[Passage]
    stands_for: float


@dataclass(frozen=True)
class Question:
    """Passages of which the one with the number `right` is the true one."""

    name: str
    passages: list[Passage]
    right: int


def read_documents(store: Store, mixture: Manifest, settings: Probe) -> dict[str, Documents]:
    """The first held-out documents of each source; they are shuffled already. Raises InputError if there is none."""
    files: dict[str, list[File]] = {}
    for file in mixture.of(Kind.HELDOUT):
        files.setdefault(file.source or CRAWL, []).append(file)
    found = {source: _of_source(store, files[source], settings) for source in sorted(files)}
    found = {source: documents for source, documents in found.items() if documents.ids}
    if not found:
        raise InputError(
            f"probe: {store.full(mixture.path)} holds out no document of {SHORTEST} characters or more; "
            "raise mix.heldout_fraction or name a larger crawl"
        )
    return found


def _of_source(store: Store, files: Sequence[File], settings: Probe) -> Documents:
    ids: list[str] = []
    passages: list[Passage] = []
    looked = 0
    batches = (batch for file in files for batch in read_batches(store, file, 256, ["id", "text"]))
    for row in (row for batch in batches for row in batch.to_pylist()):
        if len(ids) == settings.documents:
            break
        looked += 1
        if len(row["text"]) >= SHORTEST:
            text = row["text"][: settings.max_chars]
            ids.append(row["id"])
            passages.append(Passage(text, after_word(text)))
    return Documents(ids, passages, sum(file.rows for file in files) / max(looked, 1))


def after_word(text: str) -> int:
    """Where the first word ends that ends after GIVEN characters; GIVEN if none ends soon, as in Chinese."""
    space = re.compile(r"\s").search(text, GIVEN, 2 * GIVEN)
    return space.start() if space else GIVEN


def next_sentences(documents: Mapping[str, Documents], most: int) -> list[Question]:
    """Which of four sentences follows: the true one, or those that follow in three other documents of the source?

    Takes time in proportion to the documents, also where many have the same sentence.
    """
    asked: list[Question] = []
    for one in documents.values():
        found = [
            (name, *cut) for name, passage in zip(one.ids, one.passages, strict=True) if (cut := _cut(passage.text))
        ]
        different = list(dict.fromkeys(sentence for *_, sentence in found))
        if len(different) < CHOICES:
            continue
        at = {sentence: number for number, sentence in enumerate(different)}
        for name, before, sentence in found:
            choices = [different[(at[sentence] + step) % len(different)] for step in range(CHOICES)]
            asked.append(Question(name, [Passage(before + choice, len(before)) for choice in choices], 0))
    return [asked[at * len(asked) // most] for at in range(most)] if len(asked) > most else asked


def _cut(text: str) -> tuple[str, str] | None:
    """The first sentences of a text, and the next sentence with the space before it. None if their sizes do not fit."""
    first = END.search(text, CONTEXT)
    second = END.search(text, first.end() + 1) if first else None
    if not first or not second or second.end() - first.end() not in SENTENCE:
        return None
    return text[: first.end()], text[first.end() : second.end()]


def read_questions(name: str, uri: str, most: int) -> list[Question]:
    """The first questions of a file of JSON lines. Raises InputError that names the first line that is none."""
    store, path = split_uri(uri)
    if (size := store.size(path)) > MAX_BYTES:
        raise InputError(f"probe.tasks.{name}: {uri} has {size:,} bytes; at most {MAX_BYTES:,} are read")
    try:
        lines = store.read_bytes(path).decode().split("\n")  # a text may hold the other ends of a line as they are
    except UnicodeDecodeError as error:
        raise InputError(f"probe.tasks.{name}: {uri} is not UTF-8 text ({error})") from error
    asked: list[Question] = []
    for number, line in enumerate(lines, 1):
        if len(asked) == most:
            break
        if line.strip():
            try:
                asked.append(question(f"{number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise InputError(f"probe.tasks.{name}: {uri}:{number}: {error}") from None
    if not asked:
        raise InputError(f"probe.tasks.{name}: {uri} holds no question")
    return asked


def question(name: str, row: Any) -> Question:
    """A question from a row of a published set. Raises ValueError if the row has not its parts."""
    if not isinstance(row, dict):
        raise ValueError("is no JSON object")
    prompts = [row[key] for keys in (CONTEXTS, QUESTIONS) for key in keys if row.get(key) not in (None, "")]
    answer = _first(row, ANSWERS)
    options: Any = _first(row, OPTIONS)
    labels: Any = list("ABCDEFGHIJ")
    if isinstance(options, dict):  # as ARC has them
        options, labels = options.get("text"), options.get("label", labels)
    if not prompts or not all(isinstance(one, str) and one.strip() for one in prompts):
        raise ValueError(f"{' or '.join((*CONTEXTS, *QUESTIONS))} should be a text")
    if not isinstance(labels, list):
        raise ValueError("label should list the names of the choices")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(one, str) and one for one in options):
        raise ValueError(f"{' or '.join(OPTIONS)} should list two texts or more")
    prompt = "\n".join(prompts)
    right = labels.index(answer) if answer in labels else answer
    right = int(right) if isinstance(right, str) and right.isdecimal() else right
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(options):
        raise ValueError(f"{' or '.join(ANSWERS)} should be the number of a choice, from 0, or its letter")
    space = "" if prompt[-1].isspace() or options[0][0].isspace() else " "
    return Question(name, [Passage(prompt + space + one, len(prompt)) for one in options], right)


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((row[key] for key in keys if key in row), None)
