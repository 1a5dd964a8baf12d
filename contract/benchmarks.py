"""Which models of a run answer which benchmarks: the partitions of the stage `benchmark`, such as `sft.mmlu`.

A partition is one model and one benchmark, and its identity holds nothing of the others. So to name another benchmark
or another model runs nothing again, and each is resumed by itself.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from contract.stages import ALIGNING, Dag

if TYPE_CHECKING:
    from contract.settings.training import Benchmark

Ability = Literal[
    "language", "knowledge en", "knowledge zh", "reasoning", "code", "maths", "dialogue", "harmlessness"
]  # fmt: skip
ABILITIES: tuple[Ability, ...] = (
    "language", "knowledge en", "knowledge zh", "reasoning", "code", "maths", "dialogue", "harmlessness",
)  # fmt: skip

LEAST_EXTRACTED = 0.9
"""Of a benchmark's outputs, the share in which an answer must be found: below it, the score says more about the form of
answers than about the answers."""


def too_few_extracted(name: str, share: float) -> str:
    """What a reader must know before the score."""
    return (
        f"{name}: an answer was found in only {share:.1%} of the outputs; "
        f"below {LEAST_EXTRACTED:.0%} the score tells how answers are written rather than whether they are right"
    )


@dataclass(frozen=True)
class Known:
    """A kind of benchmark: the ability that it measures, and the ways to ask it, the usual one first.

    needs_words: it is graded by a word list. runs_code: programs that a model wrote, in a sandbox.
    """

    ability: Ability
    styles: tuple[str, ...]
    needs_words: bool = False
    runs_code: bool = False


KNOWN: Mapping[str, Known] = {
    "arc": Known("knowledge en", ("cloze", "letter")),
    "bbh": Known("reasoning", ("steps",)),
    "boolq": Known("reasoning", ("cloze", "letter")),
    "ceval": Known("knowledge zh", ("letter", "cloze")),
    "cmmlu": Known("knowledge zh", ("letter", "cloze")),
    "gsm8k": Known("maths", ("steps",)),
    "hellaswag": Known("reasoning", ("cloze", "letter")),
    "humaneval": Known("code", ("complete",), runs_code=True),
    "ifeval": Known("dialogue", ("plain",)),
    "math": Known("maths", ("steps",)),
    "mbpp": Known("code", ("describe",), runs_code=True),
    "mgsm": Known("maths", ("steps",)),
    "mmlu": Known("knowledge en", ("letter", "cloze")),
    "naturalquestions": Known("knowledge en", ("question",)),
    "openbookqa": Known("knowledge en", ("cloze", "letter")),
    "perplexity": Known("language", ("whole",)),
    "piqa": Known("reasoning", ("cloze", "letter")),
    "race": Known("reasoning", ("cloze", "letter")),
    "realtoxicityprompts": Known("harmlessness", ("continue",), needs_words=True),
    "retrieval": Known("reasoning", ("passage",)),
    "siqa": Known("reasoning", ("cloze", "letter")),
    "summary": Known("dialogue", ("summarise",)),
    "translation": Known("dialogue", ("translate",)),
    "triviaqa": Known("knowledge en", ("question",)),
    "truthfulqa": Known("harmlessness", ("letter", "cloze")),
    "tydiqa": Known("reasoning", ("passage",)),
    "winogrande": Known("reasoning", ("blank", "letter")),
}
"""The tasks of `evals.tasks.table`, by name: a recipe is checked where they are not installed."""

Own = Literal["pretrain", "sft", "aligned"]
OWN: tuple[Own, ...] = ("pretrain", "sft", "aligned")
"""The models of a run, each made from the one before. `aligned` is that of the stage which the recipe's `align` names.
"""
STEP = re.compile(r"pretrain-([0-9]+)")


def of_step(step: int) -> str:
    """The name of the model that pretraining had at a step."""
    return f"pretrain-{step}"


def step_of(model: str) -> int | None:
    """The step of such a name; None of any other model."""
    found = STEP.fullmatch(model)
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Measured:
    """One partition: the name of a model, and that of a benchmark of the recipe.

    by_reward: the run's reward model reads the answers, too.
    """

    model: str
    benchmark: str
    by_reward: bool = False

    @property
    def partition(self) -> str:
        return f"{self.model}.{self.benchmark}"

    @classmethod
    def of(cls, partition: str) -> "Measured":
        model, _, benchmark = partition.partition(".")
        return cls(model, benchmark)

    @property
    def reads(self) -> tuple[str, ...]:
        """The stages of the run whose results it reads: the model, unless it is from elsewhere, and the judge of its
        answers."""
        if self._base:
            return ("pretrain",)
        judge = ("sft", "reward", "tokenizer") if self.by_reward else ()
        own = {"sft": ("sft",), "aligned": ("gate", *ALIGNING)}.get(self.model, ())
        return tuple(dict.fromkeys((*own, *judge)))

    @property
    def _base(self) -> bool:
        """Whether it is a model of pretraining, which is there before any reward model."""
        return self.model == "pretrain" or step_of(self.model) is not None

    @property
    def dag(self) -> Dag:
        """The DAG that makes the model and runs the partition right after; that of `evaluate` runs what is left."""
        if self.model in ("sft", "aligned"):
            return "align"
        return "pretrain" if self._base else "evaluate"


def measured(settings: "Benchmark") -> list[Measured]:
    """Every partition that a recipe asks for, model by model: the steps of pretraining, the run's models, the others.

    Without benchmarks there is none.
    """
    steps = map(of_step, sorted(set(settings.steps)))
    own = [name for name in OWN if name in settings.models]
    models = (*steps, *own, *settings.others)
    return [Measured(model, name, one.by_reward) for model in models for name, one in settings.tasks.items()]
