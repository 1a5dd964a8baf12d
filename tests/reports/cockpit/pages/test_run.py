"""The page "Run" shows the numbers of the manifests."""

from contract import ablation
from reports.cockpit.visitor import TaskState


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


def test_another_run_stands_beside(visit, judged, resolve_run, tmp_path):
    resolve_run(tmp_path / "crawl", {"extract.min_chars": 99}, "two")
    page = visit.get("/run/runs/two", other="runs/one").text
    assert "What differs from one" in page
    assert '>extract.min_chars</th><td class="text">99</td><td class="text">25</td>' in page
    assert 'value="runs/one" selected' in page
    assert "made by an earlier run" in page, "crawl is shared"
    assert ">same</td>" in page
    for other in ("runs/none", "other/one"):
        assert visit.get("/run/runs/two", other=other).status_code in (403, 404)
    for other in ("runs", "a/b/c", "runs/../one"):
        assert visit.get("/run/runs/two", other=other).status_code in (404, 422)


def test_the_whole_recipe_has_a_page_of_its_own(visit, judged):
    page = visit.get("/run/runs/one/recipe").text
    assert '<th scope="row">filter.min_words</th><td class="text">50</td><td class="text faint"></td>' in page
    assert '<tr class="changed"><th scope="row">name</th><td class="text">&#34;test&#34;</td>' in page


def test_a_failed_task_has_a_link_to_its_log(visit, judged):
    partition = judged.segments[0].partition
    states = [
        TaskState("runs", "one", "segment.langid", "failed", 2, 4),
        TaskState("runs", "one", "segment.crawl", "success", 1, 0),
    ]
    visit.visitor.tasks = lambda dag_id, run_id: states
    page = visit.get("/run/runs/one").text
    assert '<a href="/dags/runs/runs/one/tasks/segment.langid" data-airflow class="gone">2 failed: log</a>' in page
    assert "1 success" not in page
    assert partition


def test_a_damaged_manifest_is_said_and_the_rest_is_shown(visit, judged):
    task = judged.task("langid", judged.segments[0].partition)
    judged.store.write_bytes(f"{task.prefix}/manifest.json", b"cut")
    page = visit.get("/run/runs/one")
    assert page.status_code == 200
    assert "is not a manifest; delete it to run the task again" in page.text
    assert "url_filter 3" in page.text


def test_a_variant_of_an_ablation_is_chosen_by_name(visit, judged, resolve_run, tmp_path):
    given = {"ablate.variants": {"base": [], "long": ["filter.min_words=99"]}, "ablate.seeds": [0]}
    base = resolve_run(tmp_path / "crawl", {**given, "pretrain.steps": 3}, "two")
    assert visit.get("/run/runs/two", variant="long, seed 0").status_code == 404, "it is not written yet"
    ablation.resolve(base)
    page = visit.get("/run/runs/two", variant="long, seed 0").text
    assert "<option selected>long, seed 0</option>" in page
    assert '>filter.min_words</th><td class="text">99</td>' in page
    assert visit.get("/run/runs/two", variant="../one").status_code == 404


def test_without_a_name_the_newest_run_is_shown(visit, judged):
    assert visit.get("/run").text == visit.get("/run/runs/one").text


def test_a_store_without_runs_says_so(visit):
    answer = visit.get("/run")
    assert answer.status_code == 404
    assert "There is no run yet." in answer.text
