"""Gold items of a round of feedback: prompts with replies whose ranking is known, from a file of the recipe.

People do not see which items these are. Who ranks them otherwise is not trusted, whatever the others say.
"""

from collections import Counter
from functools import partial
from itertools import islice

from contract.assignment import drawn
from contract.errors import InputError
from contract.feedback import MOST_REPLIES, Item, Reply, item_id
from contract.settings.training import Sample
from pipelines.examples.comparisons import Ranking, comparisons, gathered
from pipelines.examples.reading import Parse, find, of_shape
from pipelines.examples.shapes import allowed

MOST_READ = 10_000  # usable rankings of the file, among which those of a round are drawn
MODEL = "gold"
"""What stands for the model that wrote the replies: the same for all, so that models are not compared by them."""


def read_gold(settings: Sample) -> list[Item]:
    """The gold items of the recipe's round, drawn from `sample.gold`; empty if the recipe names no file.

    Raises InputError, which begins with the recipe's key, if the file is missing or damaged or ranks nothing.
    """
    if settings.gold is None:
        return []
    shapes = comparisons({})
    parse: Parse[Ranking] = partial(of_shape, shapes)
    rows = ((one.place, one.found, one.snippet) for one in find("sample.gold", settings.gold, parse, Counter()))
    rankings = (found for _, found, _ in gathered(rows) if isinstance(found, Ranking))
    usable = (item for ranking in rankings if (item := item_of(ranking, settings.round)))
    known = {item.id: item for item in islice(usable, MOST_READ)}
    if not known:
        raise InputError(f"sample.gold: {settings.gold} ranks no two replies to a prompt; allowed: {allowed(shapes)}")
    chosen = sorted(known, key=lambda name: drawn("gold", settings.seed, settings.round, name))
    return [known[name] for name in chosen[: settings.gold_items]]


def item_of(ranking: Ranking, number: int) -> Item | None:
    """A ranking as an item of a round; None if all of its replies are alike.

    Of more than MOST_REPLIES replies, so many are drawn by their texts. Their order says nothing of their ranks.
    """
    scores: dict[str, float] = {}
    for reply in ranking.replies:
        if reply.text:
            scores.setdefault(reply.text, reply.score)
    texts = sorted(scores, key=lambda text: drawn("gold", text))[:MOST_REPLIES]
    levels = sorted({scores[text] for text in texts}, reverse=True)
    if len(levels) < 2:
        return None
    replies = tuple(Reply(text, MODEL, 0.0) for text in texts)
    ranks = tuple(1 + levels.index(scores[text]) for text in texts)
    return Item(item_id(ranking.prompt, replies), number, ranking.prompt, replies, ranks)
