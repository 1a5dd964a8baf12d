"""Which sequence of which source training draws: the mixture's turns and the order within each source, together."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contract.mixture import Schedule, share_of_draws
from training.data.batch import Batch
from training.data.blanks import Infilling
from training.data.order import BLOCK, block_of, draws_of, share_of
from training.data.reading import TokenData
from training.data.stream import ahead
from training.engine.ranks import Ranks

Places = npt.NDArray[np.int64]


def turns(weights: Sequence[tuple[str, int]], first: int, last: int) -> Iterator[tuple[str, Places, int, int]]:
    """(source, its places among the draws `first` to `last` - 1, its first draw, its last + 1) of each source.

    `contract.mixture.counts` explains the chain. Draws are neighbours at every node of it, so this takes no memory but
    for the places themselves, wherever the draws begin.
    """
    total = sum(weight for _, weight in weights)
    places: Places = np.arange(last - first)
    for source, weight in weights:
        own = share_of_draws(np.arange(first, last + 1), weight, total)
        taken = np.diff(own) > 0
        yield source, places[taken], int(own[0]), int(own[-1])
        places, first, last, total = places[~taken], first - int(own[0]), last - int(own[-1]), total - weight


def drawn_in(schedule: Schedule, step: int, seed: int, block_rows: int = BLOCK) -> list[tuple[str, int]]:
    """(source, row) of each sequence of a step, in order: a pure function of the step."""
    stretch = schedule.at(step)
    batch = stretch.batch
    first = (step - stretch.first) * batch
    found: list[tuple[str, int]] = [("", 0)] * batch
    for source, places, begin, end in turns(stretch.weights, first, first + batch):
        before = stretch.before[source]
        rows = draws_of(source, stretch.rows[source], before + begin, before + end, seed, block_rows)
        for place, row in zip(places.tolist(), rows.tolist(), strict=True):
            found[place] = (source, row)
    return found


@dataclass(frozen=True)
class Draws:
    """The sequences of each step, read. `data` are the rows of each stretch of the schedule, in the length it has."""

    data: Sequence[TokenData]
    schedule: Schedule
    seed: int
    infilling: Infilling | None = None
    """Makes blanks in the sequences, if that is the objective."""

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """One process's sequences of a step; `count` covers only these."""
        data, draws = self._data(step), self.rows(step)
        if self.infilling is None:
            return data.batch(draws, rank, world)
        return self.infilling.batch(data, [data.number(*one) for one in share_of(draws, rank, world)], step)

    def rows(self, step: int) -> list[tuple[str, int]]:
        """(source, row) of each sequence of a step."""
        return drawn_in(self.schedule, step, self.seed, block_of(self._data(step).seq_len))

    def stream(self, ranks: Ranks, step: int) -> AbstractContextManager[Iterator[Batch]]:
        """This process's batches from a step to the last, read ahead; for a GPU in memory from which it copies."""

        def make(one: int) -> Batch:
            # As many rows on every process: under ZeRO 3, all must make the same forward passes.
            most = -(-self.schedule.at(one).batch // ranks.replicas)
            batch = self.batch(one, ranks.replica, ranks.replicas).filled(most)
            return batch.pinned() if ranks.device.type == "cuda" else batch

        return ahead(make, step, self.schedule.steps)

    def _data(self, step: int) -> TokenData:
        return self.data[self.schedule.number(step)]
