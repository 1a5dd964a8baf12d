"""The cockpit within Airflow: its session and its rights hold on every route, and runs are found by what `resolve` published."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from airflow.api_fastapi import app as airflow_app
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.exceptions import DagRunAlreadyExists
from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.models.log import Log
from airflow.models.pool import Pool
from airflow.models.revoked_token import RevokedToken
from airflow.models.taskinstance import TaskInstance
from airflow.models.tasklog import LogTemplate
from airflow.models.team import Team, dag_bundle_team_association_table
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.plugins_manager import get_plugin_info
from airflow.utils.log.file_task_handler import FileTaskHandler
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from contract.plan import resolve
from gristmill_airflow import cockpit
from gristmill_airflow.assets import CORPUS, RESOLVED

ROUTES = (
    "/", "/run", "/run/corpus/one", "/run/corpus/one?other=align/two", "/run/hidden/one", "/static/style.css",
    "/static/plotly.min.js", "/static/nothing", "/nothing", "/run/corpus/none", "/docs", "/openapi.json",
)  # fmt: skip
START = datetime(2026, 3, 4, tzinfo=UTC)


class Rights(SimpleAuthManager):
    """Airflow's simple auth manager; nobody may read the DAG `hidden`."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        assert access_entity is not None
        assert access_entity.value in ("RUN", "TASK_LOGS", "HITL_DETAIL")
        may = super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
        return may and details.id != "hidden"


@pytest.fixture
def database(tables, tmp_path):
    """Runs `one` and `three` of `corpus`, `one` of `align` on the recipe of corpus's `one`, and one of `hidden`."""
    session = tables(
        LogTemplate, DagRun, DagRunNote, AssetModel, AssetEvent, Log, TaskInstance, RevokedToken, DagModel,
        DagBundleModel, Team, Trigger, XComModel, Pool,
    )  # fmt: skip
    with session() as opened:
        dag_bundle_team_association_table.create(opened.connection())
        opened.add(AssetModel(id=7, name=RESOLVED.name, uri=RESOLVED.uri, group="gristmill"))
        opened.add(AssetModel(id=8, name=CORPUS.name, uri=CORPUS.uri, group="gristmill"))
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc.gz").write_bytes(b"WARC")
    (tmp_path / "recipe.yaml").write_text(f"name: test\nstore: {tmp_path}/store\ncrawl: {{source: {tmp_path}/crawl}}\n")
    uris = {name: resolve(str(tmp_path / "recipe.yaml"), name, []).uri for name in ("one", "three")}
    rows = [("corpus", "one", "one"), ("align", "two", "one"), ("hidden", "one", "one"), ("corpus", "three", "three")]
    with session() as opened:
        for number, (dag, run, recipe) in enumerate(rows):
            at = START + timedelta(minutes=number)
            opened.add(DagRun(dag_id=dag, run_id=run, run_type="manual", start_date=at, state="success"))
            for asset, extra in ((8, {"recipe": "s3://elsewhere/recipe.yaml"}), (7, {"recipe": uris[recipe]})):
                opened.add(AssetEvent(asset_id=asset, extra=extra, source_dag_id=dag, source_run_id=run, timestamp=at))
        opened.add(AssetEvent(asset_id=7, extra={"recipe": "s3://forged/recipe.yaml"}, timestamp=START))
    return session


@pytest.fixture
def client(database, monkeypatch):
    """Airflow's API server as far as the cockpit meets it: the mount, and an auth manager with real tokens."""
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a secret of this test alone, and long " * 2)
    monkeypatch.setattr(airflow_app._AuthManagerState, "instance", Rights())
    parent = FastAPI()
    parent.mount(cockpit.PREFIX, cockpit.Cockpit())
    return TestClient(parent, base_url="http://airflow.example", follow_redirects=False)


def log_in(client, role):
    token = airflow_app.get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=f"ann-{role}", role=role))
    client.cookies.set("_token", token)


@pytest.mark.parametrize("path", ROUTES)
def test_nobody_without_a_session_gets_an_answer(client, path):
    for cookies in ({}, {"_token": "forged"}):
        client.cookies.update(cookies)
        answer = client.get(f"/gristmill{path}", headers={"accept": "text/html"})
        assert answer.status_code == 401
        assert answer.text.startswith("Log in to Airflow")
        assert client.post(f"/gristmill{path}", headers={"origin": "http://airflow.example"}).status_code == 401


def test_a_user_without_a_right_sees_no_run(client):
    log_in(client, None)
    for path in ("/run/corpus/one", "/run/corpus/none", "/run/hidden/one"):
        assert client.get(f"/gristmill{path}").status_code == 403
    assert client.get("/gristmill/run").status_code == 404


def test_a_viewer_sees_the_runs_of_the_dags_that_they_may_read(client):
    log_in(client, "VIEWER")
    page = client.get("/gristmill/run/corpus/one").text
    assert "Recipe test" in page
    assert 'value="corpus/three"' in page
    assert 'value="align/two"' in page
    assert "hidden" not in page
    assert client.get("/gristmill/run/hidden/one").status_code == 403
    assert client.get("/gristmill/run/corpus/one?other=hidden/one").status_code == 403
    assert client.get("/gristmill/run/corpus/four").status_code == 404
    newest = client.get("/gristmill/run", headers={"accept": "text/html"}).text
    assert "<title>Run three</title>" in newest


def test_links_lead_to_airflow_and_stay_below_its_prefix(client):
    log_in(client, "VIEWER")
    page = client.get("/gristmill/run/corpus/one").text
    assert 'href="/gristmill/run/corpus/one"' in page
    assert 'src="/gristmill/static/charts.js?v=' in page


def test_every_tab_of_airflow_has_its_page(client):
    log_in(client, None)
    filled = {"{DAG_ID}": "corpus", "{RUN_ID}": "one", "{TASK_ID}": "sft"}
    for view in cockpit.VIEWS:
        path = view["href"]
        for name, value in filled.items():
            path = path.replace(name, value)
        answer = client.get(path)
        assert "There is no such page." not in answer.text, path
        assert answer.status_code in (403, 404), path
        assert client.get(view["icon"]).headers["content-type"] == "image/svg+xml"


def user(role="ADMIN", root="/air"):
    return cockpit.User(SimpleAuthManagerUser(username="ann", role=role), root)


def test_a_dag_is_paused_as_airflow_says(client, database):
    with database() as opened:
        opened.add(DagModel(dag_id="feedback", bundle_name="b", is_paused=True))
        opened.add(DagModel(dag_id="corpus", bundle_name="b", is_paused=False))
    assert [user().is_paused(dag) for dag in ("feedback", "corpus", "none")] == [True, False, False]


def test_rights_are_those_of_the_auth_manager(client):
    assert [(user(role).may_read("corpus"), user(role).may_edit("corpus")) for role in ("ADMIN", "VIEWER", None)] == [
        (True, True),
        (True, False),
        (False, False),
    ]
    assert not user("USER").may_read("hidden")
    assert [user(role).may_vote("corpus") for role in ("USER", "VIEWER", None)] == [True, False, False]


def test_the_right_to_vote_is_that_to_answer_what_a_dag_asks_people(client, monkeypatch):
    may = Rights.is_authorized_dag

    def only_answers(self, *, access_entity=None, method, **asked):
        return (method, str(access_entity)) != ("PUT", "DagAccessEntity.RUN") and may(
            self, access_entity=access_entity, method=method, **asked
        )

    monkeypatch.setattr(Rights, "is_authorized_dag", only_answers)
    assert (user("USER").may_vote("corpus"), user("USER").may_edit("corpus")) == (True, False)


def test_no_two_views_have_the_same_address_in_airflow():
    routes = [view["url_route"] for view in cockpit.VIEWS]
    assert len(set(routes)) == len(routes)


def test_runs_are_listed_newest_first_and_bounded(client):
    assert [(run.dag_id, run.run_id) for run in user("VIEWER").runs(10)] == [
        ("corpus", "three"),
        ("align", "two"),
        ("corpus", "one"),
    ]
    assert [run.run_id for run in user("VIEWER").runs(1)] == ["three"]


def test_a_run_that_published_twice_is_listed_once(client, database):
    with database() as opened:
        for minute in (8, 9):
            opened.add(
                AssetEvent(
                    asset_id=7, extra={"recipe": "x"}, source_dag_id="corpus", source_run_id="one",
                    timestamp=START + timedelta(minutes=minute),
                )
            )  # fmt: skip
    assert [run.run_id for run in user("VIEWER").runs(10)] == ["three", "two", "one"]


def add_tasks(opened, *rows, pool="default", **more):
    """Put tasks into the database, each as (DAG id, run id, task id, state, map index)."""
    opened.connection().exec_driver_sql("PRAGMA foreign_keys = OFF")
    for dag, run, task, state, index in rows:
        columns = {"dag_id": dag, "run_id": run, "task_id": task, "state": state, "map_index": index}
        needed = {"id": uuid4(), "pool": pool, "pool_slots": 1}
        opened.execute(TaskInstance.__table__.insert().values(**columns, **needed, **more))


def add_xcom(opened, dag, run, task, key, value, minute=0):
    """Put what a task has published into the database, as Airflow's task SDK does: JSON within JSON."""
    number = opened.scalar(select(DagRun.id).where(DagRun.dag_id == dag, DagRun.run_id == run))
    columns = {"dag_run_id": number, "dag_id": dag, "run_id": run, "task_id": task, "map_index": -1, "key": key}
    at = START + timedelta(minutes=minute)
    opened.execute(XComModel.__table__.insert().values(**columns, value=json.dumps(value), timestamp=at))


def test_the_tasks_of_all_runs_of_a_recipe_are_counted(client, database):
    with database() as opened:
        add_tasks(
            opened,
            ("corpus", "one", "segment.crawl", "failed", 3),
            ("corpus", "one", "segment.crawl", "failed", 2),
            ("corpus", "one", "resolve", "success", -1),
            ("align", "two", "sft", "running", -1),
            ("hidden", "one", "sft", "failed", -1),
            ("corpus", "three", "mix", "failed", -1),
        )
    found = user("VIEWER").tasks("corpus", "one")
    assert sorted((one.dag_id, one.stage, one.state, one.count, one.map_index) for one in found) == [
        ("align", "sft", "running", 1, -1),
        ("corpus", "crawl", "failed", 2, 2),
    ]


def test_what_a_task_waits_for_is_told(client, database):
    with database() as opened:
        opened.add(Pool(pool="gpu", slots=1, description="", include_deferred=False))
        opened.add(Pool(pool="spark", slots=8, description="", include_deferred=False))
        add_tasks(
            opened, ("align", "two", "sft", "running", -1), ("align", "two", "reward", "scheduled", -1), pool="gpu"
        )
        add_tasks(
            opened, ("corpus", "one", "mix", "scheduled", -1), ("corpus", "one", "pack", "running", -1), pool="spark"
        )
        add_xcom(opened, "align", "two", "sft", "waits", "the cpu of its machine, in use by ppo all")
        add_xcom(opened, "corpus", "one", "pack", "waits", "")
    found = {one.task_id: one.waits for one in user("VIEWER").tasks("corpus", "one")}
    assert found == {
        "sft": "the cpu of its machine, in use by ppo all",
        "reward": "a free slot of the pool gpu",
        "mix": "",
        "pack": "",
    }


def test_a_task_that_has_ended_waits_for_nothing(client, database):
    with database() as opened:
        add_tasks(opened, ("align", "two", "sft", "failed", -1), ("align", "two", "ppo", "running", -1))
        add_xcom(opened, "align", "two", "sft", "waits", "the cpu of its machine, in use by ppo all")
    assert {one.task_id: one.waits for one in user("VIEWER").tasks("align", "two")} == {"sft": "", "ppo": ""}


def test_the_newest_answer_to_the_approval_is_told(client, database):
    assert user("VIEWER").approval("corpus", "one") == ""
    with database() as opened:
        opened.connection().exec_driver_sql("PRAGMA foreign_keys = OFF")
        add_xcom(opened, "align", "two", "gate", "summary", "open: accuracy 0.9")
        add_xcom(opened, "align", "two", "approval", "summary", "approved by ann, 2026-03-04T00:00:00+00:00")
        add_xcom(opened, "hidden", "one", "approval", "summary", "rejected by eve, 2026-03-05", minute=9)
    assert user("VIEWER").approval("corpus", "one") == "approved by ann, 2026-03-04T00:00:00+00:00"
    assert user("VIEWER").approval("corpus", "three") == ""


@pytest.fixture
def unresolved(database, tmp_path, monkeypatch):
    """`unresolved(state)`: a run `new` of `corpus` without a recipe, whose task `resolve` is in a state and has a log."""

    def made(state):
        lines = [
            {"event": "uses recipe tiny", "level": "info", "timestamp": START.isoformat()},
            {"event": "error: crawl.source s3://key:secret@bucket/x: it is <missing>", "level": "error"},
            {"event": "Task failed with exception", "level": "error", "error_detail": [{"exc_type": "AirflowFailException", "exc_value": "it is <missing>"}]},
        ]  # fmt: skip
        folder = tmp_path / "logs" / "dag_id=corpus" / "run_id=new" / "task_id=resolve"
        folder.mkdir(parents=True)
        (folder / "attempt=1.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
        monkeypatch.setattr(
            "airflow.utils.log.file_task_handler.FileTaskHandler._render_filename",
            lambda self, ti, number: f"dag_id={ti.dag_id}/run_id={ti.run_id}/task_id={ti.task_id}/attempt={number}.log",
        )
        handler = FileTaskHandler(str(tmp_path / "logs"))
        monkeypatch.setattr("airflow.utils.log.log_reader.TaskLogReader.log_handler", handler)
        with database() as opened:
            opened.add(DagRun(dag_id="corpus", run_id="new", run_type="manual", start_date=START, state="failed"))
            add_tasks(opened, ("corpus", "new", "resolve", state, -1), try_number=1)

    return made


def test_a_run_whose_resolve_failed_says_so_with_its_log(client, unresolved):
    unresolved("failed")
    log_in(client, "VIEWER")
    answer = client.get("/gristmill/run/corpus/new", headers={"accept": "text/html"})
    assert answer.status_code == 404
    assert "<h1>The run has failed</h1>" in answer.text
    assert "has no recipe: its task resolve makes it, and it has failed." in answer.text
    assert 'href="/dags/corpus/runs/new/tasks/resolve" data-airflow>The log of resolve in Airflow</a>' in answer.text
    assert "error: crawl.source s3://***@bucket/x: it is &lt;missing&gt;" in answer.text
    assert "Task failed with exception" not in answer.text, "Airflow's lines say the same once more"
    assert "uses recipe tiny" not in answer.text
    assert "secret" not in answer.text


def test_who_may_not_read_logs_sees_none_of_them(client, unresolved, monkeypatch):
    unresolved("failed")
    log_in(client, "VIEWER")
    may = Rights.is_authorized_dag

    def without_logs(self, *, method, user, access_entity=None, details=None):
        if access_entity.value == "TASK_LOGS":
            return False
        return may(self, method=method, user=user, access_entity=access_entity, details=details)

    monkeypatch.setattr(Rights, "is_authorized_dag", without_logs)
    answer = client.get("/gristmill/run/corpus/new", headers={"accept": "text/html"})
    assert "it has failed" in answer.text
    assert "missing" not in answer.text


def test_without_a_line_of_ours_the_exception_is_told():
    detail = [{"exc_type": "ValueError", "exc_value": "odd s3://key:secret@b/x"}]
    messages = [
        SimpleNamespace(event="fine", level="info"),
        SimpleNamespace(event="no level"),
        SimpleNamespace(event="Task failed\x1b[31m", level="error", error_detail=detail),
    ]
    assert [*cockpit._told(messages)] == [r"Task failed\x1b[31m", "ValueError: odd s3://***@b/x"]


@pytest.mark.parametrize(
    ("state", "why"),
    [("running", "it is running now"), (None, "it has not run yet"), ("queued", "it waits for a worker")],
)
def test_a_run_whose_resolve_is_not_done_says_how_far_it_is(client, unresolved, state, why):
    unresolved(state)
    log_in(client, "VIEWER")
    answer = client.get("/gristmill/run/corpus/new", headers={"accept": "text/html"})
    assert "<h1>No recipe yet</h1>" in answer.text
    assert why in answer.text
    assert "What its log says" not in answer.text


def test_a_run_is_started_once_under_its_id(client, monkeypatch):
    asked = []

    def trigger(dag_id, run_id=None, **more):
        asked.append(run_id)
        if len(asked) == 2:
            raise DagRunAlreadyExists(SimpleNamespace(dag_id=dag_id, run_id=run_id))
        if len(asked) == 3:
            raise IntegrityError("insert", {}, ValueError("unique"))
        return SimpleNamespace(run_id=run_id or "made")

    monkeypatch.setattr("airflow.api.common.trigger_dag.trigger_dag", trigger)
    for _ in range(3):
        assert user("ADMIN").trigger("corpus", {}, None, "manual__x") == "manual__x"
    assert user("ADMIN").trigger("corpus", {}) == "made"
    assert asked == ["manual__x"] * 3 + [None]


def test_the_views_stand_below_airflows_path(monkeypatch):
    assert {view["href"].split("/")[1] for view in cockpit.VIEWS} == {"gristmill"}
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://host/team/airflow/")
    views = cockpit.views()
    assert [view["href"] for view in views] == [f"/team/airflow{view['href']}" for view in cockpit.VIEWS]
    assert {view["icon"] for view in views} == {"/team/airflow/gristmill/static/icon.svg"}
    assert user().airflow("corpus", "", "", -1) == "/air/dags/corpus/runs"


def test_a_write_is_in_airflows_audit_log(client, database):
    user("ADMIN").record("verdict", "corpus", "one", {"id": "a", "wrong": True})
    with database() as opened:
        (row,) = opened.query(Log).all()
    assert (row.event, row.owner, row.dag_id, row.run_id) == ("gristmill.verdict", "ann", "corpus", "one")
    assert json.loads(row.extra) == {"id": "a", "wrong": True}


@pytest.mark.parametrize(
    ("task", "index", "path"),
    [
        ("", -1, "/air/dags/corpus/runs/manual__2026%2B00%3A00"),
        ("sft", -1, "/air/dags/corpus/runs/manual__2026%2B00%3A00/tasks/sft"),
        ("segment.crawl", 2, "/air/dags/corpus/runs/manual__2026%2B00%3A00/tasks/segment.crawl/mapped/2"),
    ],
)
def test_addresses_of_airflows_pages(task, index, path):
    assert user().airflow("corpus", "manual__2026+00:00", task, index) == path


def test_airflow_mounts_the_application_and_its_views():
    (plugin,) = [one for one in get_plugin_info() if one["name"] == "gristmill"]
    assert [one["url_prefix"] for one in plugin["fastapi_apps"]] == ["/gristmill"]
    assert {view["destination"] for view in plugin["external_views"]} >= {"nav", "dag_run"}
    assert all(len(view["name"]) <= 12 for view in plugin["external_views"])
    assert {view["href"] for view in plugin["external_views"]} >= {
        "/gristmill/run",
        "/gristmill/run/{DAG_ID}/{RUN_ID}",
    }
    assert len({view["url_route"] for view in plugin["external_views"]}) == len(plugin["external_views"])


def test_the_plugin_loads_no_page_before_the_first_request():
    script = (
        "import sys, gristmill_airflow.cockpit as one; one.Cockpit();"
        "print(sorted({'reports.cockpit.app', 'fastapi', 'pyarrow', 'plotly'} & sys.modules.keys()))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
