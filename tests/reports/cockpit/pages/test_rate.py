"""The page "Rate": names are hidden, a vote is kept once, whatever is sent, and only those who may vote do."""

import datetime
import math
import re
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import expect, sync_playwright

from contract import feedback
from contract.conversation import Turn
from contract.errors import StoreError
from contract.feedback import Item, Reply, Round, Vote, item_id
from contract.plan import vary
from contract.settings.feedback import Rating
from contract.store import Store
from evals.bradley_terry import Strength
from reports.cockpit.pages.rate import between, dense

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
NO_VOTE = f"{'0' * 32}-{'0' * 16}-0.json"
HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)>\x1b"
CODE = "Look:\n```python\nif a < b: pass\n```\nand $\\frac{1}{2}$."


@pytest.fixture
def made(visit, judged):
    """A round of the run `one` with six items of two replies, each for two people."""
    return open_round(visit.store)


def open_round(store, name="first", replies=2, dag="", run="one", **rating):
    items = []
    for number in range(6):
        prompt = (Turn("user", f"question {number} {HOSTILE}"),)
        texts = (f"{CODE} {number}", f"{HOSTILE} {number}", "third", "fourth")[:replies]
        written = tuple(Reply(text, f"secret-model-{at}", 0.123) for at, text in enumerate(texts))
        items.append(Item(item_id(prompt, written), 1, prompt, written))
    file = feedback.write_items(store, f"sample/{name}/items.parquet", items)
    wanted = Rating(**({"people": 2, "repeated": 0} | rating))
    made = Round(name=name, number=1, run=run, opened=NOW, files=(file,), dag=dag, rating=wanted)
    return feedback.open_round(store, made)


def form_of(page):
    """The hidden fields of the form."""
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text.split('id="rate"')[1]))


def votes(visit, made):
    return feedback.ballots(visit.store, made).votes


def test_a_vote_from_the_page_to_the_store(visit, made):
    visit.visitor.name = "ann"
    page = visit.get("/rate/runs/one")
    assert page.status_code == 200
    form = form_of(page)
    answer = visit.post(
        "/rate/runs/one/vote",
        **form,
        rank_0=1,
        rank_1=2,
        score_0_1=5,
        score_1_1=2,
        comment=" short\r\nand plain ",
        action="vote",
    )
    assert answer.status_code == 303
    [vote] = votes(visit, made)
    first, second = vote.shown
    assert (vote.ranks[first], vote.ranks[second]) == (1, 2)
    assert (vote.scores["correctness"][first], vote.scores["correctness"][second]) == (5, 2)
    assert (list(vote.scores), vote.annotator, vote.item) == (["correctness"], "ann", form["item"])
    assert (vote.comment, vote.all_bad, vote.skipped) == ("short\nand plain", False, False)
    assert vote.seconds is not None
    assert 0 <= vote.seconds < 60
    after = visit.get(answer.headers["location"])
    assert "Kept: A over B." in after.text
    assert "1 of 12 votes" in after.text
    assert "5 left for you" in after.text
    assert form_of(after)["item"] != form["item"]
    [(event, dag, run, said)] = visit.visitor.recorded
    assert (event, dag, run, said["item"]) == ("vote", "runs", "one", form["item"])


def test_nothing_on_the_page_tells_which_model_wrote_a_reply_and_nothing_runs(visit, made):
    page = visit.get("/rate/runs/one").text
    assert "secret-model" not in page
    assert "0.123" not in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert '<pre class="code" tabindex="0" role="region" aria-label="Code in python">if a &lt; b: pass</pre>' in page
    assert 'and <math display="inline"><mrow><mfrac>' in page


def test_the_same_form_counts_once_and_another_answer_does_not_count(visit, made):
    form = form_of(visit.get("/rate/runs/one"))
    answers = [visit.post("/rate/runs/one/vote", **form, rank_0=1, rank_1=2) for _ in range(3)]
    assert [one.status_code for one in answers] == [303] * 3
    other = visit.post("/rate/runs/one/vote", **form, rank_0=2, rank_1=1)
    assert other.status_code == 409
    assert "That vote counts, and this one was not kept." in other.text
    assert "Your vote counts: A over B." in other.text
    assert len(votes(visit, made)) == 1


def test_a_vote_that_the_store_does_not_keep_comes_back_filled_in(visit, made, monkeypatch):
    form = form_of(visit.get("/rate/runs/one"))
    create = Store.create

    def lost(self, path, data):
        create(self, path, data)
        raise StoreError("store: timed out")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "create", lost)
        answer = visit.post("/rate/runs/one/vote", **form, rank_0=2, rank_1=1, comment="why <b>", all_bad="true")
    assert answer.status_code == 503
    assert "Send it again; it counts once. (store: timed out)" in answer.text
    again = form_of(answer)
    assert again == form, "it comes back with the same item and time"
    for filled in (
        'name="rank_0" value="2" checked',
        'name="rank_1" value="1" checked',
        "why &lt;b&gt;",
        'value="true" checked',
    ):
        assert filled in answer.text
    sent = visit.post("/rate/runs/one/vote", **again, rank_0=2, rank_1=1, comment="why <b>", all_bad="true")
    assert (sent.status_code, len(votes(visit, made))) == (303, 1)


@pytest.mark.parametrize(
    ("filled", "status", "said"),
    [
        ({}, 422, "Rank every reply, or say that all are bad, or skip. Nothing was kept."),
        ({"rank_0": 1}, 422, "Rank every reply"),
        ({"rank_0": 9}, 422, "rank_0"),
        ({"rank_0": 1, "rank_1": 2, "score_0_0": 6}, 422, "score_0_0"),
        ({"rank_0": 1, "rank_1": 1, "comment": "x" * 2001}, 422, "comment"),
        ({"rank_0": 1, "rank_1": 1, "annotator": "bob"}, 422, "annotator"),
        ({"showing": 1, "rank_0": 1, "rank_1": 1}, 409, "You were not asked to rate this item"),
        ({"item": "f" * 32, "rank_0": 1, "rank_1": 1}, 409, "no such item"),
        ({"round": "none", "rank_0": 1, "rank_1": 1}, 404, "no round none"),
        ({"round": "../runs"}, 422, "round"),
    ],
)
def test_what_is_no_vote_is_said_and_not_kept(visit, made, filled, status, said):
    form = form_of(visit.get("/rate/runs/one"))
    answer = visit.client.post(
        "/rate/runs/one/vote", data=form | filled, headers=visit.same_origin | {"accept": "text/html"}
    )
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert votes(visit, made) == ()


def test_an_item_that_was_shown_to_somebody_else_cannot_be_voted_on(visit, made):
    form = form_of(visit.get("/rate/runs/one"))
    visit.visitor.name = "bob"
    assert visit.post("/rate/runs/one/vote", **form, rank_0=1, rank_1=2).status_code == 409
    assert votes(visit, made) == ()


@pytest.mark.parametrize("action", ["skip", "vote"])
def test_skipping_and_all_bad_need_no_ranking(visit, made, action):
    form = form_of(visit.get("/rate/runs/one"))
    answer = visit.post("/rate/runs/one/vote", **form, action=action, all_bad="true", rank_0=1)
    assert answer.status_code == 303
    [vote] = votes(visit, made)
    assert (vote.skipped, vote.all_bad, vote.ranks) == (action == "skip", action == "vote", ())


def test_a_vote_is_taken_back_and_given_again(visit, made):
    form = form_of(visit.get("/rate/runs/one"))
    visit.post("/rate/runs/one/vote", **form, rank_0=1, rank_1=2)
    [vote] = votes(visit, made)
    for _ in range(2):
        back = visit.post("/rate/runs/one/take_back", round="first", vote=vote.name)
        assert back.status_code == 303
    again = form_of(visit.get(back.headers["location"]))
    assert (again["item"], again["showing"]) == (form["item"], "1")
    visit.post("/rate/runs/one/vote", **again, rank_0=2, rank_1=1)
    assert [one.showing for one in feedback.ballots(visit.store, made).counting] == [1]
    listed = visit.get("/rate/runs/one/votes").text
    assert (listed.count("taken back 20"), listed.count("data-undo")) == (1, 1)
    for name in (NO_VOTE, "", "../x"):
        assert visit.post("/rate/runs/one/take_back", round="first", vote=name).status_code == 422
    visit.visitor.name = "bob"
    assert visit.post("/rate/runs/one/take_back", round="first", vote=vote.name).status_code == 422
    assert "You have not voted in this round." in visit.get("/rate/runs/one/votes").text


def test_who_may_not_vote_sees_no_item_and_takes_none_away(visit, made):
    form = form_of(visit.get("/rate/runs/one"))
    visit.visitor.votes = False
    page = visit.get("/rate/runs/one")
    assert "You may not vote in the rounds of the DAG runs." in page.text
    assert 'id="rate"' not in page.text
    assert "question" not in page.text
    assert visit.post("/rate/runs/one/vote", **form, rank_0=1, rank_1=2).status_code == 403
    assert visit.post("/rate/runs/one/take_back", round="first", vote=NO_VOTE).status_code == 403
    assert (votes(visit, made), visit.visitor.recorded) == ((), [])
    assert len(feedback.ballots(visit.store, made).held) == 1
    visit.visitor.votes, visit.visitor.edits = True, False
    assert visit.get("/rate/runs/one").text.count('id="rate"') == 1, "who votes need not edit runs"
    for page in ("quality", "strengths"):
        assert visit.get(f"/rate/runs/one/{page}").status_code == 403
    assert "Quality of the votes" not in visit.get("/rate/runs/one").text


def test_the_right_of_the_rounds_own_dag_counts_whichever_run_leads_there(visit, judged):
    made = open_round(visit.store, dag="feedback")
    form = form_of(visit.get("/rate/runs/one"))
    visit.visitor.closed = {"feedback"}
    assert "You may not vote in the rounds of the DAG feedback." in visit.get("/rate").text
    answer = visit.post("/rate/runs/one/vote", **form, rank_0=1, rank_1=2)
    assert (answer.status_code, votes(visit, made)) == (403, ())
    back = visit.post("/rate/runs/one/take_back", round="first", vote=NO_VOTE)
    assert back.status_code == 403
    visit.visitor.closed = set()
    assert visit.post("/rate/runs/one/vote", **form, rank_0=1, rank_1=2).status_code == 303


def test_a_round_that_was_collected_offers_nothing_and_keeps_nothing(visit, made):
    form = form_of(visit.get("/rate/runs/one"))
    visit.post("/rate/runs/one/vote", **form, rank_0=1, rank_1=2)
    [vote] = votes(visit, made)
    late = form_of(visit.get("/rate/runs/one"))
    feedback.close(visit.store, made, feedback.Collected(run="runs/next/recipe.yaml", when=NOW))
    page = visit.get("/rate/runs/one", kept=vote.name).text
    assert "This round was collected" in page
    assert 'id="rate"' not in page
    assert "left for you" not in page
    assert "data-undo" not in page + visit.get("/rate/runs/one/votes").text
    for path, sent in (
        ("vote", {**late, "rank_0": 1, "rank_1": 2}),
        ("take_back", {"round": "first", "vote": vote.name}),
    ):
        answer = visit.post(f"/rate/runs/one/{path}", **sent)
        assert (answer.status_code, "was collected" in answer.text) == (409, True)
    assert feedback.ballots(visit.store, made).counting == [vote]
    open_round(visit.store, "a-second")
    assert 'name="round" value="a-second"' in visit.get("/rate/runs/one").text, "a round that takes votes comes first"


def test_people_rate_the_round_that_waits_for_them_and_not_the_one_that_a_model_rates(visit, made):
    later = NOW + datetime.timedelta(hours=1)
    update = {"name": "first-revised", "by_model": True, "opened": later}
    beside = feedback.open_round(visit.store, made.model_copy(update=update))
    form = form_of(visit.get("/rate/runs/one"))
    assert form["round"] == "first"
    assert 'name="round" value="first"' in visit.get("/rate").text
    page = visit.get("/rate/runs/one", round="first-revised").text
    assert "A model compares the replies of this round" in page
    assert 'id="rate"' not in page
    answer = visit.post("/rate/runs/one/vote", **{**form, "round": "first-revised"}, rank_0=1, rank_1=2)
    assert (answer.status_code, feedback.ballots(visit.store, beside)) == (409, feedback.Ballots())


def test_who_may_not_edit_the_rounds_own_dag_sees_neither_people_nor_models(visit, judged, monkeypatch):
    open_round(visit.store, dag="feedback")
    edits = visit.visitor.may_edit
    pages = ("quality", "strengths")
    assert [visit.get(f"/rate/runs/one/{page}").status_code for page in pages] == [200, 200]
    monkeypatch.setattr(visit.visitor, "may_edit", lambda dag_id: dag_id != "feedback" and edits(dag_id))
    for page in pages:
        answer = visit.get(f"/rate/runs/one/{page}")
        assert (answer.status_code, "You may not edit the DAG feedback." in answer.text) == (403, True)
    for page in ("", "/votes"):
        assert "Quality of the votes" not in visit.get(f"/rate/runs/one{page}").text


def test_a_run_that_cannot_be_read_does_not_hide_a_round(visit, made):
    visit.store.write_bytes("runs/zzz/recipe.yaml", b"name: [")
    assert visit.get("/rate").text.count('id="rate"') == 1


def test_a_store_that_fails_is_not_taken_for_one_without_rounds(visit, made, monkeypatch):
    def failing(store):
        raise StoreError("s3://bucket: timed out")

    monkeypatch.setattr(feedback, "rounds", failing)
    answer = visit.get("/rate")
    assert (answer.status_code, "timed out" in answer.text) == (503, True)


def test_a_form_of_another_site_is_refused(visit, made):
    form = form_of(visit.get("/rate/runs/one"))
    answer = visit.client.post("/rate/runs/one/vote", data=form, headers={"origin": "http://evil.example"})
    assert (answer.status_code, votes(visit, made)) == (403, ())


def test_the_page_says_which_votes_models_gave(visit, made):
    assert "0 of 12 votes. You" in visit.get("/rate/runs/one").text
    [first, *_] = feedback.items(visit.store, made)
    vote = Vote(
        round=made.name, item=first, annotator="judge:m", showing=0, shown=(0, 1), ranks=(1, 2), when=made.opened
    )
    feedback.cast(visit.store, made, vote)
    assert "1 of 12 votes, 1 of them by models. You: 0 votes" in visit.get("/rate/runs/one").text


def test_without_a_round_the_page_says_so(visit, judged):
    answer = visit.get("/rate")
    assert "No round is open" in answer.text
    assert "<h1>Rate</h1>" in answer.text
    answer = visit.get("/rate/runs/one")
    assert "<h1>Rate</h1>" in answer.text
    assert (answer.status_code, "has opened no round" in answer.text) == (404, True)
    made = open_round(visit.store, "second")
    visit.store.write_bytes("feedback/torn/round.json", b"{")
    assert visit.get("/rate").text.count('id="rate"') == 1
    assert visit.get("/rate/runs/one", round="second").status_code == 200
    while (page := visit.get("/rate/runs/one")).text.count('id="rate"'):
        visit.post("/rate/runs/one/vote", **form_of(page), action="skip")
    assert "Nothing is left for you now. Other people are rating the rest" in page.text
    assert len(votes(visit, made)) == 6


def test_the_quality_of_the_votes_and_the_models_are_shown_to_those_who_run_the_round(visit, made):
    assert "Nobody has voted" in visit.get("/rate/runs/one/quality").text
    assert "There are no two models" in visit.get("/rate/runs/one/strengths").text
    for at, item in enumerate(feedback.items(visit.store, made)):
        for name, ranks in (("ann", (1, 2)), ("bob <b>", (1, 2) if at else (2, 1)), ("mal", (2, 1))):
            vote = Vote(
                round="first", item=item, annotator=name, showing=0, shown=(0, 1), ranks=ranks, seconds=7, when=NOW
            )
            feedback.cast(visit.store, made, vote)
    page = visit.get("/rate/runs/one/quality").text
    assert "18 votes count, 0 were taken back." in page
    assert '<tr class="gone"><th scope="row">mal</th><td>6</td>' in page
    assert "agreement with the others 0%" in page
    assert "bob &lt;b&gt;" in page
    assert "<b>" not in page
    assert "7.0 s" in page
    assert "--round first</code>" in page
    lenient = visit.get("/rate/runs/one/quality", min_agreement=0).text
    assert "nobody is left out" in lenient
    assert "--round first --min-agreement 0</code>" in lenient
    assert visit.get("/rate/runs/one/quality", min_agreement=2).status_code == 422
    models = visit.get("/rate/runs/one/strengths").text
    assert "12 comparisons of replies by different models" in models
    assert "Left out: mal." in models
    assert '<th scope="row">secret-model-0</th><td>1.20</td>' in models, "half of ln(11)"
    assert "91.7" in models


def test_the_thresholds_are_those_of_the_recipe_unless_others_are_tried(visit, judged):
    run = vary(judged, "two", ["feedback.trust.min_agreement=0", "feedback.trust.min_seconds=9"])
    made = open_round(visit.store, run="two")
    for item in feedback.items(visit.store, made):
        for name, ranks in (("ann", (1, 2)), ("bob", (1, 2)), ("cat", (1, 2)), ("mal", (2, 1))):
            vote = Vote(
                round="first", item=item, annotator=name, showing=0, shown=(0, 1), ranks=ranks, seconds=10, when=NOW
            )
            feedback.cast(run.store, made, vote)
    page = visit.get("/rate/runs/two/quality").text
    assert "nobody is left out" in page, "mal agrees with nobody, and the recipe allows that"
    assert "--round first --min-agreement 0 --min-seconds 9</code>" in page
    assert 'name="min_seconds" type="number" min="0" max="3600" step="any" value="9.0"' in page
    assert "Left out" not in visit.get("/rate/runs/two/strengths").text
    tried = visit.get("/rate/runs/two/quality", min_agreement=0.5).text
    assert '<tr class="gone"><th scope="row">mal</th>' in tried
    assert "--round first --min-seconds 9</code>" in tried


def test_an_interval_without_ends_is_unknown():
    one = Strength("a", 0.5, -math.inf, math.inf, 3.0, 4)
    assert between(one) == "unknown"
    assert between(replace(one, low=-0.25, high=1.25)) == "-0.25 to 1.25"


def test_ranks_have_no_gaps():
    assert [dense([1, 3, 3]), dense([4, 2, 4, 1]), dense([2, 2])] == [(1, 2, 2), (3, 2, 3, 1), (1, 1)]


CHROMIUM = "/usr/bin/chromium"


@pytest.fixture
def address(visit, judged):
    """The page, served to a browser."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(visit.client.app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/rate/runs/one"
        server.should_exit = True
        thread.join(30)


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed")
@pytest.mark.parametrize("scripts", [True, False])
def test_a_round_by_keyboard_and_without_scripts(visit, address, scripts):
    made = open_round(visit.store, replies=3, people=1)
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(java_script_enabled=scripts, viewport={"width": 390, "height": 800}).new_page()
        page.goto(address)
        (by_keyboard if scripts else by_mouse)(page)
        expect(page.get_by_text("Kept: B over A = C.")).to_be_visible()
        [vote] = votes(visit, made)
        shown = vote.shown
        assert [vote.ranks[reply] for reply in shown] == [2, 1, 2]
        assert vote.scores == ({"helpfulness": tuple(4 if reply == shown[1] else None for reply in range(3))})
        assert vote.comment == "a reason, x"
        if scripts:
            page.keyboard.press("u")
            expect(page.get_by_text("Kept:")).to_have_count(0)
            page.keyboard.press("s")
            expect(page.get_by_text("Kept: skipped.")).to_be_visible()
            page.keyboard.press("x")
            expect(page.get_by_role("checkbox")).to_be_checked()
            page.keyboard.press("Enter")
            expect(page.get_by_text("Kept: all bad.")).to_be_visible()
        browser.close()
    assert len(feedback.ballots(visit.store, made).counting) == (2 if scripts else 1)


def by_keyboard(page):
    """Ranks A, B and C by digits alone, scores B, and comments."""
    expect(page.locator("#reply-A")).to_be_focused()
    for key in ("2", "1", "2", "b", "Tab", "Tab", "Tab"):
        page.keyboard.press(key)
    while page.evaluate("document.activeElement.name") != "score_1_0":
        page.keyboard.press("Tab")
    for key in ("4", "t"):
        page.keyboard.press(key)
    page.keyboard.type("a reason, x")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")


def by_mouse(page):
    for name, value in (("rank_0", 3), ("rank_1", 1), ("rank_2", 3), ("score_1_0", 4)):
        page.check(f'input[name="{name}"][value="{value}"]')
    page.fill("textarea", "a reason, x")
    page.click("button.go")
