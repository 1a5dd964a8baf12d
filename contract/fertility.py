"""How many tokens a tokenizer makes of texts in each language: the stage `tokenizer` commits it, a report shows it."""

from pydantic import BaseModel, ConfigDict

from contract.errors import DamagedError
from contract.kinds import Kind
from contract.manifest import Manifest
from contract.store import Store


class Counts(BaseModel):
    """What one tokenizer made of some held-out texts, in sums."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    documents: int = 0
    words: int = 0
    """Between white space; a character of a script without spaces is a word (`pipelines/text/words.py`)."""
    characters: int = 0
    bytes: int = 0
    """Of UTF-8."""
    tokens: int = 0
    unknown: int = 0
    """Tokens that stand for what the vocabulary lacks."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in Counts.model_fields})

    @property
    def tokens_per_word(self) -> float:
        return self.tokens / max(self.words, 1)

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(self.tokens, 1)

    @property
    def characters_per_token(self) -> float:
        return self.characters / max(self.tokens, 1)

    @property
    def unknown_rate(self) -> float:
        return self.unknown / max(self.tokens, 1)


class Fertility(BaseModel):
    """Counts by language, of the run's tokenizer and, if the recipe names one, of a reference on the same texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    own: dict[str, Counts]
    reference: dict[str, Counts] | None = None


def whole(counts: dict[str, Counts]) -> Counts:
    """The sum over all languages."""
    return sum(counts.values(), Counts())


def read_fertility(store: Store, manifest: Manifest) -> Fertility:
    """What a manifest of `tokenizer` lists. Raises DamagedError if it is not there, or is something else."""
    for file in manifest.of(Kind.FERTILITY):
        try:
            with file.open(store) as source:
                return Fertility.model_validate_json(source.read())
        except ValueError as error:
            raise DamagedError(f"{store.full(file.path)}: is no report on fertility; {file.cure(store)}") from error
    raise DamagedError(f"{store.full(manifest.path)}: lists no report on fertility; delete it and run tokenizer again")
