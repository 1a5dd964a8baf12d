"""The page "Run" shows the numbers of the manifests."""


def test_the_funnel_is_a_table_with_reasons(visit, judged):
    page = visit.get("/run/runs/one")
    assert page.status_code == 200
    for text in (
        "url_filter 3",
        "empty 1",
        "10.0",
        ">10<",
        ">7<",
        ">5<",
        "Of 10 documents, 5 are left (50.0\N{NO-BREAK SPACE}%).",
    ):
        assert text in page.text


def test_without_a_name_the_newest_run_is_shown(visit, judged):
    assert visit.get("/run").text == visit.get("/run/runs/one").text.replace("/run/runs/one", "/run/runs/one")


def test_a_store_without_runs_says_so(visit):
    answer = visit.get("/run")
    assert answer.status_code == 404
    assert "There is no run yet." in answer.text
