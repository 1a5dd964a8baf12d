"""The prompts to which a policy replies: those of preference pairs, or of a file of their own, perhaps with answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contract.conversation import Conversation
from contract.errors import InputError
from contract.kinds import Kind
from contract.settings.training import Rollouts
from training.data import examples
from training.data.examples import distinct_prompts, own_pairs
from training.data.order import permutation
from training.engine.job import Job

HELD_OUT = 10
"""Of a file of prompts, at most one in so many is held out."""


@dataclass(frozen=True)
class Asked:
    """A prompt, the answers of which any is right, none if they are not known, and its row in what it was read from."""

    prompt: Conversation
    answers: tuple[str, ...]
    row: int


class Prompts:
    """Prompts that are made when they are asked for."""

    def __init__(self, rows: Sequence[int], make: Callable[[int], Asked]) -> None:
        self._rows, self._make = rows, make

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Asked:
        return self._make(self._rows[index])


@dataclass(frozen=True)
class PromptSet:
    """Prompts to learn from, and prompts to measure on."""

    training: Prompts
    heldout: Prompts


def read_prompts(job: Job) -> PromptSet:
    """The prompts of the recipe's `prompts.data`, or if it names none, those of the preference pairs.

    Of pairs, those that are held out are measured on, as in `evaluate`. Of a file, up to a tenth is: which rows follows
    from the seed; a file of fewer than ten prompts is measured on the prompts that were learned from. Raises InputError
    if known answers give the rewards, and no prompt has one.
    """
    settings: Rollouts = job.settings
    found = examples.read_prompts(job)
    if not len(found):
        pairs, others = own_pairs(job, Kind.PAIRS), own_pairs(job, Kind.HELDOUT_PAIRS)
        of_pair = [lambda row, some=some: Asked(some[row].prompt, (), row) for some in (pairs, others)]
        most = distinct_prompts(others, settings.eval_prompts)
        return PromptSet(Prompts(distinct_prompts(pairs), of_pair[0]), Prompts(most, of_pair[1]))
    if settings.reward == "answers" and not any(answers for _, answers in found):
        raise InputError(
            f"{job.task.stage}.reward: none of {len(found):,} prompts has a known answer; give the rows of "
            "prompts.data the key answer, or take reward model"
        )
    shuffled = permutation(len(found), settings.seed)
    order = [shuffled(place) for place in range(len(found))]
    held = min(settings.eval_prompts, len(found) // HELD_OUT)
    measured = order[:held] if held else order[: settings.eval_prompts]
    return PromptSet(*(Prompts(sorted(rows), lambda row: Asked(*found[row], row)) for rows in (order[held:], measured)))
