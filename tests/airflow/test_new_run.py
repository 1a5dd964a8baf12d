"""A run that the page "New run" starts on a live Airflow, and who may start one."""

import base64
import hmac
import json
import urllib.parse

import pytest
import requests

from contract.errors import GristmillError
from gristmill_airflow.environment import token

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def admin(live):
    return token(live.home, int(live.api.url.rpartition(":")[2]))


@pytest.fixture(scope="module")
def viewer(live, admin):
    """The token of a user who may look at everything and change nothing."""
    head, claims, _ = admin.split(".")
    known = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    signed = f"{head}.{plain64(json.dumps({**known, 'sub': 'guest', 'role': 'viewer'}).encode())}"
    secret = (live.home / "jwt_secret").read_bytes()
    return f"{signed}.{plain64(hmac.digest(secret, signed.encode(), 'sha512'))}"


def plain64(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.fixture(scope="module")
def form(live):
    lines = [f"store={live.folder}/store", f"crawl.source={live.folder}/crawl", "crawl.files_per_segment=1"]
    return {"start": "recipe", "recipe": "tiny", "crawl": "", "earlier": "", "overrides": "\r\n".join(lines)}


def ask(live, bearer, method, path, **given):
    headers = {"authorization": f"Bearer {bearer}", "origin": live.api.url, "accept": "text/html"}
    return requests.request(
        method, f"{live.api.url}/gristmill/{path}", headers=headers, allow_redirects=False, timeout=60, **given
    )


def test_the_plan_lists_the_crawl_and_writes_nothing(live, admin, form):
    before = sorted((live.folder / "store").glob("runs/*"))
    page = ask(live, admin, "POST", "new/plan/corpus", data=form)
    assert page.status_code == 200, page.text
    assert "2 crawl files of CRAWL-2024-10." in page.text
    assert sorted((live.folder / "store").glob("runs/*")) == before


def test_the_page_starts_a_run_whose_first_task_succeeds(live, admin, form):
    known = {one["dag_run_id"] for one in live.runs("corpus")}
    answer = ask(live, admin, "POST", "new/start/corpus", data={**form, "crawl": "CRAWL-2024-10"})
    assert answer.status_code == 303, answer.text
    values = urllib.parse.parse_qs(urllib.parse.urlsplit(answer.headers["location"]).query)
    assert values["dag"] == ["corpus"]
    [run] = values["started"]
    assert run not in known
    row = live.api.run("corpus", run)
    lines = form["overrides"].split("\r\n")
    assert row["conf"] == {"recipe": "tiny", "crawl": "CRAWL-2024-10", "overrides": lines}
    assert (row["partition_key"], row["run_type"]) == ("CRAWL-2024-10", "manual")
    live.wait("resolve is done", lambda: live.tasks("corpus", run)["resolve", -1]["state"] == "success", 300)
    again = ask(live, admin, "GET", "new", params={"from_dag": "corpus", "from_run": run})
    assert "\n".join(line for line in lines if not line.startswith("store=")) in again.text
    assert 'value="CRAWL-2024-10"' in again.text

    def marked() -> bool:
        """Airflow's database may be locked for a moment; marking a run twice does no harm."""
        try:
            live.api.call("PATCH", f"dags/corpus/dagRuns/{urllib.parse.quote(run)}", {"state": "failed"})
        except GristmillError:
            return False
        return True

    live.wait("the run is marked as failed", marked)
    events = live.api.call("GET", "eventLogs", dag_id="corpus", event="gristmill.new_run")["event_logs"]
    assert events[0]["owner"] == "admin"
    assert "crawl.files_per_segment=1" in events[0]["extra"]


def test_a_wrong_override_starts_nothing(live, admin, form):
    known = [one["dag_run_id"] for one in live.runs("corpus")]
    answer = ask(live, admin, "POST", "new/start/corpus", data={**form, "overrides": "\nfilter.min_word=3"})
    assert answer.status_code == 422
    assert "line 2, <code>filter.min_word</code>: unknown key" in answer.text
    assert [one["dag_run_id"] for one in live.runs("corpus")] == known


def test_who_may_only_look_starts_nothing(live, viewer, form):
    known = [one["dag_run_id"] for one in live.runs("corpus")]
    assert "You may not start runs of the DAG corpus." in ask(live, viewer, "GET", "new").text
    for path in ("check", "plan", "start"):
        assert ask(live, viewer, "POST", f"new/{path}/corpus", data=form).status_code == 403
    assert [one["dag_run_id"] for one in live.runs("corpus")] == known


def test_another_site_and_nobody_start_nothing(live, admin, form):
    known = [one["dag_run_id"] for one in live.runs("corpus")]
    address = f"{live.api.url}/gristmill/new/start/corpus"
    foreign = {"authorization": f"Bearer {admin}", "origin": "https://elsewhere.example"}
    assert requests.post(address, data=form, headers=foreign, timeout=60).status_code == 403
    assert requests.post(address, data=form, headers={"origin": live.api.url}, timeout=60).status_code == 401
    assert [one["dag_run_id"] for one in live.runs("corpus")] == known
