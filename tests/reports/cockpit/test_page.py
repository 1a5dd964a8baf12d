"""What the frame does for every page: rights, the audit log, errors as sentences, and validated values."""

import threading
from typing import Annotated

import pytest
from pydantic import Field

from contract.errors import DamagedError, NotReadyError, RecipeError, StoreError
from reports.cockpit.desk import Desk
from reports.cockpit.page import Answer, Ask, Asked, InForm, InQuery, Name, Page, status_of
from reports.cockpit.visitor import Refused

WRITTEN: list[str] = []


class Wanted(Asked):
    shown: int = Field(default=20, ge=1, le=100)


class Vote(Asked):
    text: str = Field(max_length=10)


@pytest.fixture
def trial(visit):
    """The cockpit with one more page."""
    page = Page("trial", "Trial")
    WRITTEN.clear()

    @page.get("/{dag_id}/{run_id}")
    def rows(ask: Ask, dag_id: Name, run_id: Name, wanted: Annotated[Wanted, InQuery()]) -> Answer:
        return {"dag": dag_id, "run": ask.run(dag_id, run_id).recipe.name, "shown": wanted.shown, "nan": float("nan")}

    @page.get("/fails/with/a/{how}")
    def fails(ask: Ask, how: Name) -> Answer:
        raise {
            "store": StoreError("the store is away"),
            "refused": Refused(409, "not now"),
            "bug": ZeroDivisionError("secret of the code"),
        }[how]

    @page.post("/{dag_id}/{run_id}/vote", "vote")
    def vote(ask: Ask, dag_id: Name, run_id: Name, form: Annotated[Vote, InForm()]) -> Answer:
        WRITTEN.append(form.text)
        return ask.go("trial", dag_id, run_id, shown=3)

    visit.client.app.include_router(page.router)
    return visit


def test_an_answer_as_json_with_values_that_were_checked(trial, judged):
    assert trial.json("/trial/runs/one") == {"dag": "runs", "run": "test", "shown": 20, "nan": None}
    assert trial.json("/trial/runs/one", shown=7)["shown"] == 7


@pytest.mark.parametrize("query", [{"shown": 101}, {"shown": "x"}, {"store": "s3://other"}])
def test_a_value_out_of_bounds_or_unknown_is_refused_with_its_name(trial, judged, query):
    answer = trial.get("/trial/runs/one", **query)
    assert answer.status_code == 422
    assert next(iter(query)) in answer.text
    assert "text/html" in answer.headers["content-type"]


@pytest.mark.parametrize(
    "path", ["/trial/runs/..%2f..", "/trial/runs/a%00b", f"/trial/runs/{'a' * 251}", "/trial/runs/%3Cb%3E"]
)
def test_a_name_is_a_name(trial, judged, path):
    answer = trial.get(path)
    assert answer.status_code in (404, 422)
    assert "<b>" not in answer.text


def test_a_run_that_does_not_exist(trial, judged):
    assert trial.get("/trial/runs/two").status_code == 404
    assert trial.get("/trial/other/one").status_code == 403


def test_a_write_is_recorded_and_leads_back(trial, judged):
    answer = trial.post("/trial/runs/one/vote", text="good")
    assert (answer.status_code, answer.headers["location"]) == (303, "/trial/runs/one?shown=3")
    assert WRITTEN == ["good"]
    assert trial.visitor.recorded == [("vote", "runs", "one", {"text": "good"})]


def test_a_write_needs_the_right_to_edit(trial, judged):
    trial.visitor.edits = False
    answer = trial.post("/trial/runs/one/vote", text="good")
    assert answer.status_code == 403
    assert (WRITTEN, trial.visitor.recorded) == ([], [])
    assert trial.json("/trial/runs/one")["run"] == "test"


def test_a_write_of_another_site_is_refused(trial, judged):
    for headers in ({}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = trial.client.post("/trial/runs/one/vote", data={"text": "good"}, headers=headers)
        assert answer.status_code == 403
    assert WRITTEN == []


def test_a_write_that_cannot_be_recorded_is_not_done(trial, judged):
    def fail(*_):
        raise OSError("the database is away")

    trial.visitor.record = fail
    assert trial.post("/trial/runs/one/vote", text="good").status_code == 500
    assert WRITTEN == []


def test_a_form_is_validated(trial, judged):
    for form in ({}, {"text": "x" * 11}, {"text": "a", "other": "b"}):
        assert trial.post("/trial/runs/one/vote", **form).status_code == 422
    assert WRITTEN == []


def test_every_write_names_its_dag():
    with pytest.raises(ValueError, match="a write names its DAG"):
        Page("x", "X").post("/{run_id}", "vote")


@pytest.mark.parametrize(("how", "status", "said"), [
    ("store", 503, "the store is away"), ("refused", 409, "not now"), ("bug", 500, "This page has failed."),
])  # fmt: skip
def test_an_error_is_a_sentence(trial, how, status, said):
    for headers in ({"accept": "text/html"}, {}):
        answer = trial.client.get(f"/trial/fails/with/a/{how}", headers=headers)
        assert answer.status_code == status
        assert said in answer.text
        assert "secret of the code" not in answer.text
        assert "content-security-policy" in answer.headers
    assert answer.json()["error"].startswith(said)


def test_the_status_of_an_error():
    errors = NotReadyError("a"), StoreError("a"), DamagedError("a"), RecipeError("a")
    assert [status_of(error) for error in errors] == [404, 503, 422, 422]


def test_an_address_is_quoted(trial):
    from fastapi import Request

    from reports.cockpit.page import Asking

    scope = {"type": "http", "root_path": "/air/gristmill", "state": {"visitor": trial.visitor}, "headers": []}
    ask = Asking(Request(scope))
    assert ask.link("run", "a/b", "x y", other="1&2", none=None) == "/air/gristmill/run/a%2Fb/x%20y?other=1%262"
    assert ask.link("run") == "/air/gristmill/run"


def test_a_refusal_may_show_a_log_and_lead_to_it(visit):
    page = Page("told", "Told")

    @page.get("/one")
    def told(ask: Ask) -> Answer:
        raise Refused(404, "It has failed.", "No recipe", ("The log", "/dags/a?b=<c>"), ["error: <b>", "and more"])

    visit.client.app.include_router(page.router)
    text = visit.get("/told/one").text
    assert "<h1>No recipe</h1>" in text
    assert 'It has failed. <a href="/dags/a?b=&lt;c&gt;" data-airflow>The log</a>' in text
    assert '<pre tabindex="0">error: &lt;b&gt;\nand more</pre>' in text
    assert visit.client.get("/told/one").json() == {"error": "It has failed."}


def test_a_write_that_is_late_says_that_it_goes_on_and_where_to_look(trial, judged):
    trial.client.app.state.desk = Desk(limit_s=0.05)
    going = threading.Event()
    trial.visitor.record = lambda *given: going.wait(5)
    answer = trial.client.post(
        "/trial/runs/one/vote", data={"text": "good"}, headers={**trial.same_origin, "accept": "text/html"}
    )
    going.set()
    assert answer.status_code == 503
    assert "This takes longer than 0.05 seconds and goes on. It may have been done already" in answer.text
    assert '<a href="/dags/runs/runs/" data-airflow>The runs of runs in Airflow</a>' in answer.text
