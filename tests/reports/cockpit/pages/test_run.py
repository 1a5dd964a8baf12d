"""The page "Run" shows the numbers of the manifests."""

import json
from dataclasses import replace

import pytest

from contract import ablation
from contract.live import points_name
from contract.manifest import Attempt
from contract.metrics import Point, dump_points
from contract.results import Pretrain
from contract.stages import STAGES
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
    assert '<span class="gone">2 tasks failed</span>' in page
    assert '<a href="/dags/runs/runs/one/tasks/segment.langid" data-airflow>log of the first</a>' in page
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


def test_a_task_that_waits_says_for_what(visit, judged):
    states = [
        TaskState("runs", "one", "pretrain", "running", 1, -1, "the cpu of its machine, in use by ppo all"),
        TaskState("runs", "one", "sft", "scheduled", 1, -1, "a free slot of the pool gpu"),
    ]
    visit.visitor.tasks = lambda dag_id, run_id: states
    page = " ".join(visit.get("/run/runs/one").text.split())
    assert "<span>running, waits for the cpu of its machine, in use by ppo all</span>" in page
    assert "<span>scheduled, waits for a free slot of the pool gpu</span>" in page
    assert '<a href="/dags/runs/runs/one/tasks/pretrain" data-airflow>log</a>' in page
    rows = page.partition('<th scope="row">pretrain</th>')[2].partition("</tr>")[0]
    assert "not run" not in rows, "Airflow knows better"


def test_without_airflow_a_stage_that_shows_its_curves_is_running(visit, judged):
    for task in judged.tasks().values():
        if task.stage in [*STAGES][2 : [*STAGES].index("sft")]:
            Attempt(judged, task).commit([])
    folder = f"{judged.task('sft').prefix}/attempt-aa"
    judged.store.write_bytes(f"{folder}/{points_name(0)}", dump_points([Point(1, "loss", 2.0, 0.0)]))
    page = " ".join(visit.get("/run/runs/one").text.split())
    row = page.partition('<th scope="row">sft</th>')[2].partition("</tr>")[0]
    assert '<td class="text state">running' in row
    assert "log" not in row


def test_results_of_older_versions_are_told(visit, judged, monkeypatch):
    crawl = STAGES["crawl"].version
    newer = {**STAGES, "crawl": replace(STAGES["crawl"], version=crawl + 1)}
    for name in ("contract.plan.STAGES", "reports.older.STAGES"):
        monkeypatch.setattr(name, newer)
    page = visit.get("/run/runs/one").text
    assert f"made by older versions of the stages crawl (version {crawl}, now {crawl + 1})" in page
    assert f"a result of version {crawl} is there; this version is {crawl + 1}; run crawl again" in page
    assert 'href="/new?from_dag=runs&amp;from_run=one">Start it again</a>' in page
    assert "made by older versions of the stages crawl" in visit.get("/pages/runs/one").text
    assert "made by older versions of the stages crawl" in visit.get("/models/runs/one").text
    assert "made by older versions of the stages crawl" in visit.get(f"/pages/runs/one/document/{'a' * 32}").text


@pytest.mark.parametrize(
    ("name", "value"), [("skipped_updates", "many"), ("heldout_perplexity_after", "<b>low</b>"), ("tokens", "several")]
)
def test_a_text_where_a_figure_belongs_fails_no_page(visit, judged, name, value):
    for stage in ("filter", "minhash_sign", "curate", "dedup_url", "dedup_fuzzy", "dedup_substring", "decontaminate",
                  "mix", "tokenizer", "pack"):  # fmt: skip
        for task in [task for task in judged.tasks().values() if task.stage == stage]:
            Attempt(judged, task).commit([])
    Attempt(judged, judged.task("pretrain")).commit([], result=Pretrain.model_construct(heldout_perplexity_before=9.0))
    path = f"{judged.task('pretrain').prefix}/manifest.json"
    manifest = json.loads(judged.store.read_bytes(path))
    manifest["metrics"][name] = value
    judged.store.write_bytes(path, json.dumps(manifest).encode())
    page = visit.get("/run/runs/one")
    assert page.status_code == 200
    assert ("the manifest is damaged: skipped_updates is &#39;many&#39; and no number" in page.text) == (
        name == "skipped_updates"
    )
    for address in ("/models/runs/one", "/models/runs/one/pretrain", "/training/runs/one/pretrain", "/training/runs/one/gate",
                    "/models", "/pages/runs/one", "/manifest/runs/one/pretrain"):  # fmt: skip
        assert visit.get(address).status_code in (200, 422), address
