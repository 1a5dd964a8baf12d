"""The card in a real browser: figures, links and hostile texts. A few lines stand in for React, which Airflow brings."""

from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
SCRIPT = Path(__file__).parents[3] / "reports" / "cockpit" / "static" / "card.js"
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed")

HOME = """<!doctype html><base href="/airflow/"><div id="root"></div><script>
const state = []; let at = 0, began = false;
const dom = (node) => {
  if (node === null || node === undefined || node === false) return document.createTextNode("");
  if (typeof node !== "object") return document.createTextNode(String(node));
  const made = document.createElement(node.type);
  for (const [name, value] of Object.entries(node.props))
    name === "style" ? Object.assign(made.style, value) : name !== "key" && made.setAttribute(name, value);
  made.append(...node.children.map(dom));
  return made;
};
const render = () => {
  at = 0;
  document.getElementById("root").replaceChildren(dom(globalThis.GristmillCard()));
};
globalThis.React = {
  createElement: (type, props, ...children) => ({ type, props: props || {}, children: children.flat(9) }),
  useState: (first) => {
    const place = at++;
    if (!(place in state)) state[place] = first;
    return [state[place], (value) => { state[place] = value; render(); }];
  },
  useEffect: (run) => { if (!began) { began = true; run(); } },
};
</script><script type="module">import("/airflow/gristmill/static/card.js").then(render);</script>"""
EVIL = "<img src=x onerror=alert(1)>"
CARD = {
    "runs": {
        "corpus": {
            "run": f"manual__{EVIL}",
            "state": "success",
            "steps": [{"stage": "crawl", "kept": 1200, "share": 0.8}, {"stage": EVIL, "kept": 3, "share": 0.002}],
            "links": [{"title": "Funnel", "address": "/airflow/gristmill/run/corpus/x"}],
        },
        "align": {
            "run": "a",
            "state": "running",
            "stages": {"gate": {"line": f"open: {EVIL}", "figures": {}}},
            "links": [{"title": "Gate decision", "address": "/airflow/gristmill/training/align/a/gate"}],
        },
        "evaluate": {"run": "e", "state": "failed", "error": EVIL, "links": []},
    }
}
FAILED = {"task_instances": [{"dag_id": "corpus", "dag_run_id": "a+b", "task_id": "segment.filter", "map_index": 2}]}


@pytest.fixture
def open_home():
    """`open_home(card, failed)`: a home page below `/airflow/`, with what its two addresses answer; None is a refusal."""
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        wrong = []

        def opened(card, failed):
            page = browser.new_page(viewport={"width": 390, "height": 900})
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("dialog", lambda dialog: wrong.append(dialog.message))

            def answer(route):
                path = route.request.url.partition("card.test")[2].partition("?")[0]
                data = {"/airflow/gristmill/card": card, "/airflow/api/v2/dags/~/dagRuns/~/taskInstances": failed}
                if path in data:
                    found = data[path]
                    route.fulfill(status=200 if found else 403, json=found or {})
                elif path == "/airflow/gristmill/static/card.js":
                    route.fulfill(body=SCRIPT.read_text(), content_type="text/javascript")
                else:
                    route.fulfill(body=HOME if path == "/airflow/" else "", content_type="text/html")

            page.route("**/*", answer)
            page.goto("http://card.test/airflow/")
            return page

        yield opened
        browser.close()
        assert wrong == []


def test_the_card_tells_the_newest_runs_and_leads_to_their_pages(open_home):
    page = open_home(CARD, FAILED)
    card = page.get_by_role("article", name="Gristmill")
    expect(card.get_by_role("listitem")).to_have_count(2)
    expect(card.get_by_role("listitem").first).to_have_text("crawl1,200 (80.0 %)")
    assert {link.inner_text(): link.get_attribute("href") for link in card.get_by_role("link").all()} == {
        "Funnel": "/airflow/gristmill/run/corpus/x",
        "Gate decision": "/airflow/gristmill/training/align/a/gate",
        "Log of corpus segment.filter 2": (
            "http://card.test/airflow/dags/corpus/runs/a%2Bb/tasks/segment.filter/mapped/2"
        ),
    }


def test_texts_are_shown_as_they_are(open_home):
    page = open_home(CARD, {"task_instances": []})
    expect(page.get_by_text(f"gate: open: {EVIL}")).to_be_visible()
    expect(page.get_by_text(EVIL)).to_have_count(4)
    assert page.locator("img").count() == 0
    assert page.get_by_label("Failed tasks").count() == 0


@pytest.mark.parametrize(
    ("card", "said"),
    [(None, "The figures cannot be read (403)."), ({"runs": {}}, "No run yet. Trigger the DAG corpus")],
)
def test_a_card_without_figures_says_why(open_home, card, said):
    page = open_home(card, None)
    expect(page.get_by_text(said)).to_be_visible()


def test_the_script_uses_no_markup_from_texts():
    text = SCRIPT.read_text()
    assert "dangerouslySetInnerHTML" not in text
    assert "innerHTML" not in text
