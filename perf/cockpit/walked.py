"""How many clicks a person needs from Airflow's home page to the answers to six questions, counted by walking there."""

import time
from dataclasses import dataclass

from playwright.sync_api import Error, Page

from perf.cockpit.browser import chromium, signed_in
from perf.cockpit.served import DAGS, Served

FAILED = "no-such-recipe"
FAILED_S = 180
NOT_REACHED = 99
DOCUMENT = "main table a[href*='/document/']"


@dataclass(frozen=True)
class Walk:
    """What to click, one after the other: titles of links, or CSS. answer: CSS of what then stands on the page."""

    clicks: tuple[str, ...]
    answer: str


QUESTIONS = {
    "survived_each_filter": Walk(("Funnel",), "table:has-text('dedup_fuzzy') >> text=decontaminate"),
    "why_dropped": Walk(("Why a page was dropped", DOCUMENT), "main:has-text('dropped')"),
    "loss_curve": Walk(("Loss curve",), "#charts .main-svg"),
    "why_the_gate_opened": Walk(("Gate decision",), "main:has-text('threshold')"),
    "sample_replies": Walk(("Sample replies",), "main:has-text('A better answer.')"),
    "log_of_a_failed_task": Walk(("Log of corpus resolve",), f"text=/error:.*{FAILED}/"),
}


def fail(up: Served) -> None:
    """Have a task fail as a person's does: a run whose recipe does not exist. Its log is that of a real task."""
    api = up.api()
    api.pause(DAGS[0], False)
    run = api.trigger(DAGS[0], {"recipe": f"/{FAILED}.yaml"}, "CC-MAIN-2024-10", f"failed-{int(time.time())}")
    deadline = time.monotonic() + FAILED_S
    while api.run(DAGS[0], run)["state"] != "failed":
        if time.monotonic() > deadline:
            raise TimeoutError(f"the run {run} does not end")
        time.sleep(1)
    api.pause(DAGS[0], True)


def clicks(up: Served) -> dict[str, int]:
    """Question -> clicks until its answer is seen; NOT_REACHED if it is not."""
    found = {}
    with chromium() as browser:
        context = signed_in(browser, up.url, up.token())
        for name, walk in QUESTIONS.items():
            page = context.new_page()
            page.goto(up.url)
            try:
                found[name] = walked(page, walk)
            except Error as error:
                print(f"  {name}: at {page.url}: {str(error).splitlines()[0]}")
                found[name] = NOT_REACHED
            page.close()
        context.close()
    return found


def walked(page: Page, walk: Walk) -> int:
    """Click as a walk says, and return the number of clicks once its answer is on the page."""
    for click in walk.clicks:
        link = page.locator(click) if any(sign in click for sign in "[#.:") else page.get_by_role("link", name=click)
        link.first.click()
    page.locator(walk.answer).first.wait_for()
    return len(walk.clicks)
