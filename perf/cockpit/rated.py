"""Rounds of feedback in the synthetic store, which the page Rate shows: one of the large run, and one whose texts attack."""

import datetime
from collections.abc import Sequence

import numpy as np

from contract import feedback
from contract.assignment import order_of
from contract.conversation import Turn
from contract.digest import split_digest
from contract.feedback import Item, Reply, Round, Vote, item_id
from contract.plan import Run, open_run
from contract.settings.feedback import Rating
from perf.cockpit.payloads import PAYLOADS
from perf.cockpit.store import Made, unsynced

ITEMS, PEOPLE, EACH = 1000, 8, 3
REPLIES = 3
WHEN = datetime.datetime(2026, 3, 5, 10, tzinfo=datetime.UTC)
NAME = "r001-bench"
PROSE = "A mill turns while the river runs, and the miller counts the sacks. " * 12
CODE = "```python\nfor sack in mill:\n    print(sack)\n```"


def open_rounds(made: Made) -> None:
    """The rounds of the large and of the hostile run, unless they are there."""
    write(unsynced(made.run), items(ITEMS))
    write(unsynced(open_run(made.hostile)), items(len(PAYLOADS), PAYLOADS), PAYLOADS)


def items(count: int, hostile: Sequence[str] = ()) -> list[Item]:
    """Items with replies of a page's length. hostile: texts that stand in every prompt and reply, and in code."""
    attack = "\n".join(hostile)
    found = []
    for number in range(count):
        prompt = (Turn("user", f"{number}: What does a mill do?\n{attack}"),)
        replies = tuple(
            Reply(f"{PROSE}\n{attack}\n{CODE}\n{place}\n```{attack}\n```", _model(place, hostile), 1.0)
            for place in range(REPLIES)
        )
        found.append(Item(item_id(prompt, replies), 1, prompt, replies))
    return found


def _model(place: int, hostile: Sequence[str]) -> str:
    return hostile[place] if hostile else f"ppo/{place:040x}"


def write(run: Run, rated: Sequence[Item], hostile: Sequence[str] = ()) -> None:
    """Open a round over the items with the votes of EACH of PEOPLE on all but a tenth. hostile: names and comments."""
    store, folder = run.store, split_digest(run.uri)[0].split("/")[-2]
    name = name_of(folder)
    if store.exists(f"{feedback.FOLDER}/{name}/round.json"):
        return
    file = feedback.write_items(store, f"{feedback.FOLDER}/{name}/items.parquet", rated)
    made = feedback.open_round(
        store, Round(name=name, number=1, run=folder, opened=WHEN, files=(file,), rating=Rating(people=EACH + 1))
    )
    random = np.random.default_rng(0)
    people = [*hostile] or [f"person-{number}" for number in range(PEOPLE)]
    for number, item in enumerate(rated[: len(rated) * 9 // 10]):
        for turn in range(EACH):
            who = people[(number + turn) % len(people)]
            ranks = tuple(int(rank) + 1 for rank in random.permutation(REPLIES))
            comment = " ".join(hostile)[:2000]
            feedback.cast(
                store,
                made,
                Vote(
                    round=name, item=item.id, annotator=who, showing=0, shown=order_of(REPLIES, item.id, who, 0),
                    ranks=ranks, comment=comment, seconds=float(random.integers(5, 90)), when=WHEN,
                ),
            )  # fmt: skip


def name_of(run: str) -> str:
    """The name of a run's round."""
    return f"{NAME}-{run}"
