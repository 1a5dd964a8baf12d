"""The frame: nobody without a session gets an answer, and every answer forbids foreign scripts."""

import pytest


@pytest.mark.parametrize(
    "path", ["/", "/run", "/run/runs/one", "/static/style.css", "/static/plotly.min.js", "/nothing"]
)
def test_without_a_session_there_is_no_answer(visit, judged, path):
    assert visit.get(path).status_code == (404 if path == "/nothing" else 200)
    visit.visitor.session = False
    answer = visit.get(path)
    assert (answer.status_code, answer.text) == (401, "Log in.\n")


def test_no_run_of_a_dag_that_the_visitor_may_not_read(visit, judged):
    visit.visitor.reads = False
    answer = visit.get("/run/runs/one")
    assert answer.status_code == 403
    assert "url_filter" not in answer.text


def test_browsers_load_nothing_from_elsewhere_and_no_inline_script(visit, judged):
    for path in ("/run/runs/one", "/static/style.css", "/nothing"):
        policy = visit.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
    assert "cdn" not in visit.get("/run/runs/one").text


def test_files_are_kept_by_the_browser_until_they_change(visit, judged):
    assert "immutable" in visit.get("/static/plotly.min.js").headers["cache-control"]
    assert visit.get("/run/runs/one").headers["cache-control"] == "no-store"
