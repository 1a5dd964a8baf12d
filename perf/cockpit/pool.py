"""Rows from which the documents of the synthetic store are made: scores, verdicts, languages, hosts, words.

Drawing fifty columns for ten million documents would take most of the bench's time, so the scores of sixteen files are
drawn once and repeated. What a page looks up, such as ids, addresses and texts, is different in every document.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contract.schema import LANGUAGES
from contract.scores import NEEDED, SCORES
from contract.settings.filter import COMPARISONS, RULES, Filter
from contract.tables import BATCH_ROWS
from pipelines.rules.decide import rules_for

KEPT_LANGUAGES = ("en", "de", "fr", "es", "it")
SHARES = (0.5, 0.2, 0.12, 0.1, 0.08)
SLICES = 16
WORDS, HOSTS, BODIES = 20_000, 30_000, 512
NEAR = 8  # different bodies in a batch
Floats = npt.NDArray[np.float64]
COUNTS: dict[str, tuple[float, float]] = {  # score -> median and spread of a log-normal count
    "words": (420, 1.0),
    "kept_words": (400, 1.0),
    "sentences": (20, 1.0),
    "long_lines": (12, 0.85),
    "stop_words": (9, 0.5),
}
RARE = {"lorem_ipsum": 0.002, "curly_brackets": 0.03, "masked": 0.1}
"""Score -> the share of the documents in which it is 1 instead of 0."""


@dataclass(frozen=True)
class Pool:
    """`rows` documents' worth of columns. All arrays have one entry a row, and the words are for texts and titles."""

    columns: pa.Table
    """`contract.schema.LANGUAGES`, and every score."""
    reasons: npt.NDArray[np.object_]
    """Why `filter` drops the document; None if it keeps it."""
    values: npt.NDArray[np.object_]
    """The score that crossed the threshold, as a drops row shows it."""
    bodies: npt.NDArray[np.int64]
    """Which of `texts` the document's text ends in. Near duplicates share one."""
    hosts: npt.NDArray[np.int64]
    words: pa.Array
    names: pa.Array
    """Of hosts."""
    texts: pa.Array
    sizes: npt.NDArray[np.int64]
    """Bytes of `texts`, which are ASCII."""

    @property
    def rows(self) -> int:
        return len(self.bodies)


def make(rows: int, settings: Filter, seed: int = 0) -> Pool:
    """A pool of `rows` documents, the same for the same seed, judged by the rules of `settings`."""
    random = np.random.default_rng(seed)
    scores = {name: draw(name, rows, random) for name in SCORES}
    languages = random.choice(KEPT_LANGUAGES, rows, p=SHARES)
    reasons, values = judge(scores, languages, settings)
    words = vocabulary(random)
    texts = pa.array([_body(words, int(size), random) for size in random.lognormal(np.log(85), 0.5, BODIES)])
    named = _languages(languages, random)
    measured = {name: pa.nulls(rows, pa.float64()) if name in NEEDED else pa.array(scores[name]) for name in SCORES}
    return Pool(
        columns=pa.table({**named, **measured}),
        reasons=reasons,
        values=values,
        bodies=_bodies(rows, random),
        hosts=(HOSTS * random.random(rows) ** 3).astype(int),  # a few hosts have many pages
        words=words,
        names=pa.array([f"{words[one % WORDS]}-{one}.example.org" for one in range(HOSTS)]),
        texts=texts,
        sizes=np.array([len(text.as_py()) for text in texts]),
    )


def draw(score: str, rows: int, random: np.random.Generator) -> Floats:
    """Values of a score, of which a few in a hundred cross the threshold of the rule that judges it."""
    if score in COUNTS:
        median, spread = COUNTS[score]
        return np.rint(median * np.exp(spread * random.standard_normal(rows)))
    if score in RARE:
        return (random.random(rows) < RARE[score]).astype(float)
    if score == "mean_word_chars":
        return np.round(random.normal(5.2, 0.8, rows), 2)
    if score == "punctuated_lines":
        return np.round(random.beta(3, 2, rows), 3)
    limits = [(rule.comparison, rule.limit) for rule in RULES if rule.score == score]
    comparison, limit = limits[0] if limits else (">", 1.0)
    tail = 0.35 * np.exp(0.45 * random.standard_normal(rows))  # above 1 in one document of a hundred
    if comparison.startswith("<"):
        tail = (1 - (1 - limit) * tail) / limit
    values = limit * tail
    return np.round(np.clip(values, 0, 1) if limit <= 1 else values, 3)


def judge(
    scores: Mapping[str, Floats], languages: npt.NDArray[np.str_], settings: Filter
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
    """(reason, value as a drops row shows it) of each document, as `filter` decides; None for one that it keeps."""
    reasons = np.full(len(languages), None, dtype=object)
    values = reasons.copy()
    for language in np.unique(languages):
        here = languages == language
        for rule in rules_for(settings, str(language)):
            if rule.score in NEEDED:
                continue  # not measured
            hit = here & (reasons == None) & COMPARISONS[rule.comparison](scores[rule.score], rule.limit)  # noqa: E711
            reasons[hit] = str(rule.reason)
            values[hit] = [f"{value:.4g}" for value in scores[rule.score][hit].tolist()]
    return reasons, values


def vocabulary(random: np.random.Generator) -> pa.Array:
    """Words of two to nine letters, each once."""
    letters = random.choice(list("abcdefghijklmnopqrstuvwxyz"), (2 * WORDS, 9))
    lengths = random.integers(3, 10, 2 * WORDS)
    made = dict.fromkeys("".join(row[:size]) for row, size in zip(letters.tolist(), lengths.tolist(), strict=True))
    return pa.array([*made][:WORDS])


def _body(words: pa.Array, size: int, random: np.random.Generator) -> str:
    drawn = words.take(pa.array((WORDS * random.random(max(size, 40)) ** 3).astype(int))).to_pylist()
    return ". ".join(" ".join(drawn[at : at + 12]) for at in range(0, len(drawn), 12)) + "."


def _languages(first: npt.NDArray[np.str_], random: np.random.Generator) -> dict[str, pa.Array]:
    """The columns of `contract.schema.LANGUAGES`."""
    likeliest = np.round(1 - 0.3 * random.random(len(first)) ** 2, 2).astype(np.float32)
    three = [[language, "nl", "pt"] for language in first.tolist()]
    shares = [[one, round((1 - one) / 2, 4), round((1 - one) / 4, 4)] for one in likeliest.tolist()]
    columns = [first.tolist(), likeliest, three, shares]
    return {field.name: pa.array(column, field.type) for field, column in zip(LANGUAGES, columns, strict=True)}


def _bodies(rows: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Few different ones in each batch of rows, so that a file is small; next to each other, so that they compress."""
    batch = np.arange(rows) // BATCH_ROWS
    return (NEAR * batch + random.integers(0, NEAR, rows)) % BODIES
