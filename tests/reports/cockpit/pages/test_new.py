"""The page "New run": what it fills in, what it tells, and that it starts nothing that it should not."""

import html
import re
from threading import BoundedSemaphore

import pytest

from contract import offered


@pytest.fixture
def own(tmp_path, monkeypatch, judged):
    """An offered recipe of the same crawl as the run `one`."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "own.yaml").write_text(
        f"name: own\nstore: {tmp_path}/store\ncrawl: {{source: {tmp_path}/crawl}}\n"
        "spark: {master: 'local[2]', driver_memory: 1g, shuffle_partitions: 2}\n"
    )
    monkeypatch.setattr(offered, "RECIPES", tmp_path / "recipes")
    monkeypatch.setattr(offered, "DEFAULT_RECIPE", "own")
    monkeypatch.setattr("reports.cockpit.pages.new.DEFAULT_RECIPE", "own")
    return judged


def overrides_of(page):
    return html.unescape(re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page.text, re.DOTALL)[1])


def chosen(page, name):
    select = re.search(rf'<select name="{name}">(.*?)</select>', page.text, re.DOTALL)[1]
    found = re.search(r'value="([^"]*)" selected', select)
    return found and html.unescape(found[1])


def start_of(page):
    return re.search(r'name="start" value="(\w+)" checked', page.text)[1]


def test_an_empty_form_has_the_default_recipe_and_every_dag(visit, own):
    page = visit.get("/new")
    assert page.status_code == 200
    assert (chosen(page, "recipe"), chosen(page, "earlier"), overrides_of(page), start_of(page)) == (
        "own", None, "", "recipe",
    )  # fmt: skip
    for dag in ("corpus", "pretrain", "align", "evaluate", "feedback", "ablate"):
        assert f"<strong>{dag}</strong>" in page.text
    assert "runs/one" in page.text
    assert "Start the run" in page.text


def test_again_fills_in_a_runs_recipe_overrides_and_crawl(visit, own, resolve_run, tmp_path):
    run = resolve_run(tmp_path / "crawl", {"filter.min_words": 7}, "two")
    page = visit.get("/new", from_dag="runs", from_run="two")
    assert chosen(page, "recipe") == "own"
    assert overrides_of(page).splitlines() == ["name=test", "filter.min_words=7"]
    assert f'value="{run.recipe.snapshots[0]}"' in page.text
    assert start_of(page) == "recipe"
    more = visit.get("/new", from_dag="runs", from_run="two", overrides="ppo.steps=3")
    assert overrides_of(more).splitlines() == ["name=test", "filter.min_words=7", "ppo.steps=3"]


def test_a_run_with_too_many_overrides_for_the_form_is_the_earlier_run_itself(visit, own, resolve_run, tmp_path):
    resolve_run(tmp_path / "crawl", {"ablate.variants": {"a": ["name=x" + "y" * 20_000], "b": ["name=z"]}}, "two")
    page = visit.get("/new", from_dag="runs", from_run="two", overrides="ppo.steps=3")
    assert page.status_code == 200
    assert (start_of(page), chosen(page, "earlier"), overrides_of(page)) == ("run", "runs/two", "ppo.steps=3")


def test_only_two_forecasts_are_made_at_once(visit, own, monkeypatch):
    busy = BoundedSemaphore(1)
    monkeypatch.setattr("reports.cockpit.pages.new.FORECASTS", busy)
    with busy:
        page = visit.post("/new/plan/corpus", recipe="own", overrides="")
        assert page.status_code == 503
    assert visit.post("/new/plan/corpus", recipe="own", overrides="crawl.source=/nowhere").status_code == 422
    assert visit.post("/new/plan/corpus", recipe="own", overrides="").status_code == 200, "a mistake frees the place"


@pytest.mark.parametrize("dag", ["align", "feedback"])
def test_another_dag_from_a_run_continues_it(visit, own, dag):
    page = visit.get("/new", dag=dag, from_dag="runs", from_run="one")
    assert (start_of(page), chosen(page, "earlier"), overrides_of(page)) == ("run", "runs/one", "")
    assert '<input name="crawl" value=""' in page.text


def test_an_address_fills_in_what_it_says_and_nothing_else(visit, own):
    page = visit.get("/new", dag="pretrain", overrides="pretrain.steps=2\nppo.steps=3", crawl="A-2024-10")
    assert overrides_of(page) == "pretrain.steps=2\nppo.steps=3"
    assert 'value="A-2024-10"' in page.text
    assert visit.get("/new", dag="none").status_code == 422
    assert visit.get("/new", more="x").status_code == 422
    assert visit.get("/new", overrides="x" * 4001).status_code == 422
    assert visit.get("/new", from_dag="runs", from_run="none").status_code == 404
    assert visit.get("/new", from_dag="runs", from_run="../x").status_code == 422


def test_mistakes_are_told_as_json_with_their_lines(visit, own):
    answer = visit.post("/new/check/corpus", recipe="own", overrides="ppo.steps=3\r\n\r\nfilter.min_word=3", crawl="x")
    assert answer.status_code == 200
    rows = answer.json()["mistakes"]
    assert [(one["line"], one["key"]) for one in rows] == [(None, "crawl"), (2, "filter.min_word")]
    assert "did you mean min_words?" in rows[1]["message"]
    assert visit.post("/new/check/corpus", recipe="own", overrides="ppo.steps=3").json() == {"mistakes": []}
    assert visit.visitor.recorded == []


def test_the_plan_shows_what_runs_and_what_is_skipped(visit, own):
    page = visit.post("/new/plan/corpus", recipe="own", overrides="")
    assert page.status_code == 200
    assert "<strong>15 tasks run</strong>, 2 are skipped." in page.text
    assert f"1 crawl files of {own.recipe.snapshots[0]}." in page.text
    row = re.search(r'<th scope="row">extract</th>(.*?)</tr>', page.text, re.DOTALL)[1]
    assert row.split("<td")[1].strip().endswith(">skipped</td>")
    row = re.search(r'<th scope="row">langid</th>(.*?)</tr>', page.text, re.DOTALL)[1]
    assert "no earlier run to compare with" in row
    assert visit.visitor.triggered == []
    assert visit.store.folders("runs") == ["one"]


def test_a_plan_with_mistakes_shows_them_beside_what_was_typed(visit, own):
    page = visit.post("/new/plan/corpus", recipe="own", overrides="\r\nfilter.min_word=3")
    assert page.status_code == 422
    assert '<li data-line="1">line 2, <code>filter.min_word</code>: unknown key' in page.text
    assert overrides_of(page) == "\nfilter.min_word=3"


def test_a_crawl_that_is_not_there_is_told_and_not_a_failure(visit, own):
    page = visit.post("/new/plan/corpus", recipe="own", overrides="crawl.source=/nowhere/at/all")
    assert page.status_code == 422
    assert "/nowhere/at/all" in page.text
    assert "it is missing or empty" in page.text


def test_what_is_not_done_before_is_told(visit, own):
    page = visit.post("/new/plan/pretrain", start="run", earlier="runs/one")
    assert "Its tasks need the results of pack, tokenizer, which are not there yet." in page.text


def test_a_start_triggers_the_dag_with_the_forms_values_and_is_recorded(visit, own):
    crawl = own.recipe.snapshots[0]
    answer = visit.post("/new/start/corpus", recipe="own", overrides="ppo.steps=3\r\n", crawl=crawl)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/new?dag=corpus&started=manual__started"
    made = {"recipe": "own", "crawl": crawl, "overrides": ["ppo.steps=3"]}
    assert visit.visitor.triggered == [("corpus", made, crawl)]
    [(event, dag, _, what)] = visit.visitor.recorded
    assert (event, dag, what["overrides"], what["recipe"]) == ("new_run", "corpus", "ppo.steps=3\n", "own")
    page = visit.get("/new", dag="corpus", started="manual__started")
    assert '<a href="/dags/corpus/runs/manual__started" data-airflow>' in page.text


def test_a_run_of_a_dag_that_is_switched_off_is_said_to_wait(visit, own):
    visit.visitor.paused = {"feedback"}
    waits = visit.get("/new", dag="feedback", started="manual__started").text
    assert "waits, because the DAG feedback is switched off." in waits
    assert "has started" not in waits
    goes = visit.get("/new", dag="corpus", started="manual__started").text
    assert "has started." in goes
    assert "switched off" not in goes
    assert "switched off" not in visit.get("/new", dag="feedback").text


def test_a_continued_run_is_triggered_by_the_uri_that_the_server_knows(visit, own):
    visit.post("/new/start/align", start="run", earlier="runs/one", overrides="ppo.steps=3")
    [(dag, conf, key)] = visit.visitor.triggered
    assert dag == "align"
    assert conf["run"].startswith(f"{visit.store.uri}/runs/one/recipe.yaml#sha256=")
    assert conf["overrides"] == ["ppo.steps=3"]
    assert key == own.recipe.snapshots[0]


@pytest.mark.parametrize(
    "form",
    [
        {"overrides": "filter.min_word=3"},
        {"recipe": "/etc/passwd"},
        {"crawl": "x"},
        {"start": "run"},
        {"start": "run", "earlier": "runs/none"},
        {"start": "run", "earlier": "../../etc"},
        {"overrides": "a" * 30_000},
        {"overrides": "\n" * 300},
        {"run": "s3://elsewhere/runs/one/recipe.yaml"},
        {"start": "other"},
    ],
)
def test_what_is_wrong_starts_nothing(visit, own, form):
    answer = visit.post("/new/start/corpus", **{"recipe": "own", **form})
    assert answer.status_code == 422
    assert visit.visitor.triggered == []


def test_a_run_whose_crawl_cannot_be_listed_starts_only_if_the_person_insists(visit, own):
    form = {"recipe": "own", "overrides": "\ncrawl.source=/nowhere/at/all"}
    [mistake] = visit.post("/new/check/corpus", **form).json()["mistakes"]
    assert (mistake["line"], mistake["key"]) == (1, "crawl.source")
    refused = visit.post("/new/start/corpus", **form)
    assert refused.status_code == 422
    assert "Start the run anyway" in refused.text
    assert '<li data-line="1">line 2, <code>crawl.source</code>: /nowhere/at/all: it is missing' in refused.text
    assert visit.visitor.triggered == []
    assert visit.post("/new/start/corpus", **form, unlisted="true").status_code == 303
    assert [dag for dag, _, _ in visit.visitor.triggered] == ["corpus"]


def test_who_may_only_read_checks_plans_and_starts_nothing(visit, own):
    visit.visitor.edits = False
    for path in ("check", "plan", "start"):
        assert visit.post(f"/new/{path}/corpus", recipe="own").status_code == 403
    page = visit.get("/new")
    assert "You may not start runs of the DAG corpus." in page.text
    assert page.text.count("<fieldset disabled>") == 2
    assert visit.visitor.triggered == []
    assert visit.visitor.recorded == []


def test_other_dags_than_gristmills_cannot_be_started(visit, own, monkeypatch):
    monkeypatch.setattr(type(visit.visitor), "may_read", lambda self, dag: True)
    assert visit.post("/new/start/somebody_elses", recipe="own").status_code == 404
    assert visit.visitor.triggered == []


def test_another_sites_form_starts_nothing(visit, own):
    for headers in ({"origin": "https://elsewhere.example"}, {}, {"sec-fetch-site": "cross-site"}):
        answer = visit.client.post("/new/start/corpus", data={"recipe": "own"}, headers=headers)
        assert answer.status_code == 403
    assert visit.visitor.triggered == []


def test_secrets_in_addresses_do_not_reach_the_audit_log(visit, own):
    visit.post("/new/start/corpus", recipe="own", overrides="crawl.source=https://me:word@host/x")
    [(_, _, _, what)] = visit.visitor.recorded
    assert what["overrides"] == "crawl.source=https://***@host/x"


SCRIPT = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


@pytest.mark.parametrize("field", ["overrides", "recipe", "crawl"])
def test_scripts_are_shown_as_text(visit, own, field):
    form = {"recipe": "own", "overrides": f"{SCRIPT}\nname={SCRIPT}\nfilter.{SCRIPT}=1", "crawl": "", field: SCRIPT}
    told = visit.post("/new/plan/corpus", **form)
    assert "&lt;script&gt;" in told.text
    for answer in (told, visit.get("/new", **{field: SCRIPT})):
        assert "<script>alert" not in answer.text
        assert "<img" not in answer.text


def test_without_airflow_the_page_says_the_commands(visit, own, monkeypatch):
    monkeypatch.setattr(type(visit.visitor), "airflow", lambda *_: "")
    page = visit.post("/new/plan/corpus", recipe="own", overrides="ppo.steps=3")
    assert "python -m contract resolve --recipe" in page.text
    assert "--set ppo.steps=3" in page.text
    assert "Start the run" not in page.text


def test_every_key_is_explained(visit, own):
    rows = {one["name"]: one for one in visit.json("/new/keys")["keys"]}
    assert rows["filter.min_words"]["default"] == "50"
    page = visit.get("/new/keys")
    assert "<code>crawl.max_bytes_per_file</code>" in page.text


ONCE = "2026-11-22T19:45:03+00:00-1a2b3c4d"


def test_a_form_that_is_sent_twice_starts_one_run(visit, own):
    first = visit.post("/new/start/corpus", recipe="own", once=ONCE)
    second = visit.post("/new/start/corpus", recipe="own", once=ONCE)
    assert first.status_code == second.status_code == 303
    assert first.headers["location"] == second.headers["location"]
    assert re.search(r"started=manual__2026-11-22T19%3A45%3A03%2B00%3A00__[0-9a-f]{8}$", first.headers["location"])
    assert len(visit.visitor.triggered) == 1
    changed = visit.post("/new/start/corpus", recipe="own", once=ONCE, overrides="ppo.steps=3")
    assert changed.headers["location"] != first.headers["location"]
    named = visit.post("/new/start/corpus", recipe="own", once=ONCE, crawl="A-2024-10", unlisted="true")
    assert "started=manual__A-2024-10__" in named.headers["location"]
    assert len(visit.visitor.triggered) == 3


def test_each_form_has_a_number_of_its_own(visit, own):
    pages = [visit.get("/new").text for _ in range(2)]
    found = [re.search(r'name="once" value="([^"]+)"', page)[1] for page in pages]
    assert found[0] != found[1]
    again = visit.client.post(
        "/new/plan/corpus", data={"recipe": "own", "once": ONCE}, headers={**visit.same_origin, "accept": "text/html"}
    )
    assert f'name="once" value="{ONCE.replace("+", "&#43;")}"' in again.text or f'value="{ONCE}"' in again.text
    assert visit.post("/new/start/corpus", recipe="own", once="../x").status_code == 422
