"""What the users of the bench ask for: different runs, queries and pages of the cockpit."""

import random
from collections.abc import Callable
from urllib.parse import quote

from contract.documents import parts_of, read_documents
from contract.manifest import need
from contract.plan import Run
from perf.cockpit.served import HOSTILE, LARGE

KNOWN = 200  # documents of the large run whose ids and addresses are searched
LARGE_SHARE = 0.4  # of the requests for the large run; the others are for tiny ones
Choose = Callable[[random.Random], tuple[str, str]]


class Addresses:
    """Draws addresses. Texts are known of some documents of the large run: those that a search must find."""

    def __init__(self, large: Run, runs: tuple[tuple[str, str], ...]) -> None:
        self.runs = [one for one in runs if one[1] not in (HOSTILE, LARGE)]
        self.documents = known_documents(large)

    def choose(self, drawn: random.Random) -> tuple[str, str]:
        """(page, address) of a page of any kind."""
        page = drawn.choice(("funnel", "pages", "training", "models", "rate"))
        return page, getattr(self, page)(drawn)

    def run(self, drawn: random.Random, dags: tuple[str, ...] = ("corpus", "pretrain", "align", "evaluate")) -> str:
        if drawn.random() < LARGE_SHARE:
            return f"{drawn.choice(dags)}/{LARGE}"
        return "/".join(drawn.choice([one for one in self.runs if one[0] in dags]))

    def funnel(self, drawn: random.Random) -> str:
        return f"/run/{self.run(drawn)}"

    def pages(self, drawn: random.Random) -> str:
        document = drawn.choice(self.documents)
        host = document["url"].split("/")[2]
        word = document["title"].split()[0]
        other = drawn.choice(
            ("?reason=too_few_words", "?reason=kept&language=de", "?stage=dedup_fuzzy", "/thresholds", "/verdicts")
        )
        sought = drawn.choice((document["id"], quote(document["url"], safe=""), host))
        asked = drawn.choice(
            (
                "",
                f"?address={sought}",
                f"?words={word}",
                f"/document/{document['id']}",
                f"/document/{document['id']}",
                other,
            )
        )
        return f"/pages/corpus/{LARGE}{asked}"

    def training(self, drawn: random.Random) -> str:
        return f"/training/{self.run(drawn, ('pretrain',))}/pretrain{drawn.choice(('', '/points'))}"

    def models(self, drawn: random.Random) -> str:
        run = self.run(drawn)
        return drawn.choice((f"/models?part={drawn.randint(1, 20)}", f"/models/{run}", f"/models/{run}/pretrain"))

    def rate(self, drawn: random.Random) -> str:
        beside = drawn.choice(("", "", "", "", "", "", "/votes", "/quality", "/strengths"))
        return f"/rate/align/{LARGE}{beside}"


def known_documents(run: Run) -> list[dict[str, str]]:
    """Documents of the first segment that `filter` judged, kept or not: id, url, title."""
    task = run.task("score", run.segments[0].partition)
    part = parts_of(need(run.store, task))[0]
    rows = read_documents(run.store, part, ["id", "url", "title"])
    return [row for row, _ in zip(rows, range(KNOWN), strict=False)]
