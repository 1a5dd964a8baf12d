"""A round of feedback on a live Airflow: started on a page, voted on by keyboard, and ended by the model that learned from it."""

import shutil
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from contract import feedback
from contract.manifest import need
from contract.plan import open_run
from contract.results import Evaluate
from gristmill_airflow import cockpit
from gristmill_airflow.environment import PASSWORDS, token
from perf.cockpit.browser import CHROMIUM, chromium, signed_in
from perf.cockpit.served import Served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason=f"there is no Chromium at {CHROMIUM}"),
]
ITEMS = 32
OVERRIDES = [
    "gate.approval=false", f"sample.prompts={ITEMS}", "sample.max_response_tokens=16",
    "feedback.rating={people: 1, repeated: 0}", "preferences.max_examples=32", "preferences.heldout_fraction=0.3",
]  # fmt: skip


@pytest.fixture(scope="module")
def aligned(live):
    """The id of a run of `align` that made a model."""
    began = live.trigger("corpus", {"overrides": OVERRIDES})
    assert live.finished("corpus", began, 900) == "success", live.failures("corpus", began)
    live.wait("a model is aligned", lambda: live.runs("align", state="success"), 900)
    return live.runs("align", state="success")[0]["dag_run_id"]


def start(live, aligned):
    """Start a round from a run on the page New run; its run's id."""
    port = int(live.api.url.rpartition(":")[2])
    answer = requests.post(
        f"{live.api.url}{cockpit.PREFIX}/new/start/feedback",
        data={"start": "run", "earlier": f"align/{aligned}", "overrides": ""},
        headers={"cookie": f"_token={token(live.home, port)}", "origin": live.api.url, "accept": "text/html"},
        allow_redirects=False,
        timeout=60,
    )
    assert answer.status_code == 303, answer.text
    return parse_qs(urlsplit(answer.headers["location"]).query)["started"][0]


def vote(page, address):
    """Prefer the reply that stands first, by keyboard, until nothing is left; the number of votes."""
    page.goto(address)
    count = 0
    while page.locator("#rate").count():
        page.evaluate("window.before = true")
        for key in ("a", "1", "b", "2", "Enter"):
            page.keyboard.press(key)
        page.wait_for_function("() => !window.before && document.readyState === 'complete'")
        assert "kept=" in page.url
        count += 1
    assert "All items have their votes." in page.content()
    return count


def test_a_round_waits_for_votes_and_ends_in_a_model_that_learned_from_them(live, aligned):
    live.api.call("PATCH", "dags/feedback", {"is_paused": False})
    run = start(live, aligned)
    live.wait("the round waits", lambda: live.tasks("feedback", run)["votes", -1]["state"] == "deferred", 300)
    live.wait("nobody else compares", lambda: live.tasks("feedback", run)["compare", -1]["state"] == "success", 120)
    pool = live.api.call("GET", f"pools/{live.tasks('feedback', run)['votes', -1]['pool']}")
    assert (pool["deferred_slots"], pool["include_deferred"]) == (1, False), "a round that waits holds no slot"
    sampled = open_run(live.xcom("feedback", run, "resolve"))
    [made], _ = feedback.rounds(sampled.store)
    up = Served(live.folder, live.api.url, (), live.home / PASSWORDS)
    with chromium() as browser:
        page = signed_in(browser, up.url, up.token()).new_page()
        votes = vote(page, f"{up.cockpit}/rate/feedback/{run}")
    assert votes == len(feedback.items(sampled.store, made)) == len(feedback.ballots(sampled.store, made).counting)
    assert live.finished("feedback", run, 1200) == "success", live.failures("feedback", run)

    learned = open_run(live.xcom("feedback", run, "collect"))
    [frozen] = learned.recipe.preferences.rounds.values()
    assert len(feedback.read_frozen(frozen.votes)[2]) == votes
    assert learned.recipe.sample.round == 2
    told = Evaluate.of(need(learned.store, learned.task("evaluate")))
    assert told.last_win_rate is not None, "it is measured against the model of the last round"
    later = live.wait(
        "the next round begins", lambda: [one for one in live.runs("feedback") if one["dag_run_id"] != run]
    )
    live.api.call("PATCH", "dags/feedback", {"is_paused": True})
    assert later[0]["run_type"] == "asset_triggered"
