"""The form of a new run in a real browser: mistakes while one types, a key found, the plan, and the start."""

import re
import socket
import threading
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import expect, sync_playwright

from contract import offered

CHROMIUM = "/usr/bin/chromium"
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed")


@pytest.fixture
def address(visit, judged, tmp_path, monkeypatch):
    """The page, served to a browser, with one offered recipe of the crawl of the run `one`."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "own.yaml").write_text(
        f"name: own\nstore: {tmp_path}/store\ncrawl: {{source: {tmp_path}/crawl}}\n"
    )
    monkeypatch.setattr(offered, "RECIPES", tmp_path / "recipes")
    monkeypatch.setattr(offered, "DEFAULT_RECIPE", "own")
    monkeypatch.setattr("reports.cockpit.pages.new.DEFAULT_RECIPE", "own")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(visit.client.app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/new"
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def open_page():
    """Opens pages of which no script fails, and from which nothing foreign is loaded or run."""
    with sync_playwright() as engine:
        browser = engine.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--host-resolver-rules=MAP air.example 127.0.0.1"]
        )
        wrong = []

        def opened(**options):
            page = browser.new_page(viewport={"width": 390, "height": 900}, **options)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
            page.on("dialog", lambda dialog: wrong.append(dialog.message))
            return page

        yield opened
        browser.close()
        assert wrong == []


def test_from_a_mistake_to_a_started_run(visit, address, open_page):
    page = open_page()
    page.goto(address)
    page.fill("textarea", "ppo.steps=3\nfilter.min_word=7\nname='<img src=x onerror=alert(1)>'\nppo.gamma=<script>")
    expect(page.locator("#mistakes li")).to_have_count(2)
    expect(page.locator("#mistakes li").first).to_contain_text("line 2, filter.min_word: unknown key; did you mean")
    expect(page.locator(".numbers .gone")).to_have_text(["2", "4"])
    expect(page.locator("textarea")).to_have_attribute("aria-invalid", "true")
    page.click("#mistakes button >> nth=0")
    chosen = "(area => area.value.slice(area.selectionStart, area.selectionEnd))(document.querySelector('textarea'))"
    assert page.evaluate(chosen) == "filter.min_word=7"
    page.fill("textarea", "ppo.steps=3")
    expect(page.locator("#mistakes li")).to_have_count(0)
    page.fill("#key", "words filter.min")
    expect(page.locator("#found li").first).to_contain_text("filter.min_words=50")
    page.press("#key", "Enter")
    assert page.input_value("textarea") == "ppo.steps=3\nfilter.min_words=50"
    page.get_by_role("link", name="All keys").click()
    assert page.locator("#found li").count() > 300
    page.fill("#key", "")
    expect(page.locator("#found")).to_be_hidden()
    page.get_by_role("button", name="Show what the run would do").click()
    expect(page.locator("#plan")).to_contain_text("15 tasks run, 2 are skipped.")
    expect(page.locator("#mistakes li")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_role("status").first).to_contain_text(re.compile(r"The run manual__\S+ of corpus has started\."))
    made = {"recipe": "own", "overrides": ["ppo.steps=3", "filter.min_words=50"]}
    assert visit.visitor.triggered == [("corpus", made, None)]


def test_another_dag_keeps_what_was_typed(address, open_page):
    page = open_page()
    page.goto(address)
    page.fill("textarea", "ppo.steps=3\nname='a & b'")
    page.fill("input[name=crawl]", "A-2024-10")
    page.get_by_role("link", name="pretrain").click()
    expect(page.locator("a[aria-current=true]")).to_contain_text("pretrain")
    assert page.input_value("textarea") == "ppo.steps=3\nname='a & b'"
    assert page.input_value("input[name=crawl]") == "A-2024-10"
    page.select_option("select[name=earlier]", "runs/one")
    assert page.is_checked("input[value=run]")
    page.get_by_role("link", name="align from").click()
    assert page.is_checked("input[value=run]")
    assert page.input_value("select[name=earlier]") == "runs/one"


def test_without_scripts_the_form_answers_as_well(visit, address, open_page):
    page = open_page(java_script_enabled=False)
    page.goto(address)
    page.fill("textarea", "\nfilter.min_word=7")
    page.get_by_role("button", name="Show what the run would do").click()
    expect(page.locator("#mistakes")).to_contain_text("line 2, filter.min_word: unknown key")
    assert page.input_value("textarea") == "\nfilter.min_word=7"
    page.fill("textarea", "ppo.steps=3")
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_role("status").first).to_contain_text(re.compile(r"The run manual__\S+ of corpus has started\."))
    assert [dag for dag, _, _ in visit.visitor.triggered] == ["corpus"]


def test_a_run_starts_over_plain_http_as_well(visit, address, open_page):
    page = open_page()
    page.goto(address.replace("127.0.0.1", "air.example"))  # there, browsers send no Sec-Fetch-Site
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_role("status").first).to_contain_text(re.compile(r"The run manual__\S+ of corpus has started\."))
    assert [dag for dag, _, _ in visit.visitor.triggered] == ["corpus"]


def test_a_right_that_was_taken_away_meanwhile_is_told(visit, address, open_page):
    page = open_page()
    page.goto(address)
    visit.visitor.edits = False
    page.get_by_role("button", name="Show what the run would do").click()
    expect(page.locator("#mistakes li")).to_have_text("You may not edit the DAG corpus. Ask who administers Airflow.")


def test_a_plan_with_mistakes_leaves_the_form_as_it_is(address, open_page):
    page = open_page()
    page.goto(address)
    page.fill("textarea", "crawl.source=/nowhere/at/all")
    page.get_by_role("button", name="Show what the run would do").click()
    expect(page.locator("#mistakes li")).to_contain_text("it is missing or empty")
    assert page.input_value("textarea") == "crawl.source=/nowhere/at/all"
