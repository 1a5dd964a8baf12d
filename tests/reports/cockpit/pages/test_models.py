"""The page of models shows what manifests say, walks both ways, sends files as attachments and shows nothing hostile."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.kinds import Kind
from contract.manifest import Attempt, File, find, need
from contract.plan import Run
from reports import models as data
from reports.abilities import Ability, Row
from reports.cockpit import download
from reports.cockpit.app import PAGES
from reports.cockpit.pages import models
from reports.models import Figure
from tests.reports.trained import MODEL, SAMPLES, train

HOSTILE = '<script>window.hit=1</script><img src=x onerror="hit=1">"\'{{7*7}}\u202e\x1b[2J'


@pytest.fixture(autouse=True)
def forget() -> None:
    data._kept.cache_clear()
    data._table.cache_clear()


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    folder = tmp_path / "crawl"
    folder.mkdir()
    (folder / "a.warc.gz").write_bytes(b"WARC")
    return folder


@pytest.fixture
def run(resolve_run: Callable[..., Run], crawl: Path) -> Run:
    made = resolve_run(crawl, {}, "one")
    train(made)
    return made


def text_of(answer: Any) -> str:
    """What a page says, without its tags, on one line."""
    assert answer.status_code == 200, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def test_the_table_has_the_figures_of_the_manifests(visit: Any, run: Run) -> None:
    page = text_of(visit.get("/models"))
    made = need(run.store, run.task("ppo"))
    row = f"ppo {made.fingerprint[:8]} runs one {made.finished:%Y-%m-%d %H:%M} 1,315,968 - win rate by its own reward model 0.78 (0.61 to 0.89) 72 B yes"
    assert row in page
    assert "490,467 bits per byte 1.88" in page
    assert "held-out perplexity of replies 229" in page
    assert "Runs 1 to 1 of 1, the newest first." in page


def test_a_store_without_models_says_so(visit: Any, resolve_run: Callable[..., Run], crawl: Path) -> None:
    assert "No run." in text_of(visit.get("/models"))
    resolve_run(crawl, {}, "one")
    visit.visitor._listed = (-1e9, [])
    assert "None of these runs has trained a model yet" in text_of(visit.get("/models"))
    assert "This run has trained no model yet" in text_of(visit.get("/models/runs/one"))
    assert "ppo of this run has made nothing yet" in text_of(visit.get("/models/runs/one/ppo"))


def test_the_table_goes_on_over_pages_and_opens_each_run_once(
    visit: Any, run: Run, resolve_run: Callable[..., Run], crawl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "RUNS", 2)
    for name in ("two", "three"):
        resolve_run(crawl, {"sft.seed": 7}, name)
    opened: list[str] = []
    real = visit.visitor.run
    monkeypatch.setattr(visit.visitor, "run", lambda dag_id, run_id: opened.append(run_id) or real(dag_id, run_id))
    first = visit.get("/models")
    assert "Runs 1 to 2 of 3" in text_of(first)
    assert "/models?part=2" in first.text
    assert "1,315,968" in text_of(first), "the newer runs share the pretraining"
    second = visit.get("/models", part=2)
    assert "Runs 3 to 3 of 3" in text_of(second)
    assert "/models?part=1" in second.text
    visit.get("/models")
    assert sorted(opened) == ["one", "three", "two"]
    for part in (0, 101, "x"):
        assert visit.get("/models", part=part).status_code == 422


def test_a_run_that_cannot_be_read_is_left_out(visit: Any, run: Run) -> None:
    visit.store.write_bytes("runs/broken/recipe.yaml", b"name: [")
    assert "win rate" in text_of(visit.get("/models"))


def test_the_models_of_a_run_stand_beside_each_other_with_replies(visit: Any, run: Run) -> None:
    page = text_of(visit.get("/models/runs/one"))
    assert (
        "bits per byte lower 1.88 1.97 - 2.03 64 sequences, 16,371 tokens unknown: not every interval is known" in page
    )
    assert (
        "win rate over the SFT model, by the reward model that PPO optimised higher - - - 0.78 (0.61 to 0.89) 32 prompts"
        in page
    )
    assert "pretrain, sft, ppo: sft is worse than pretrain beyond noise" in page
    assert "Prompt 1 What is a list? sft reward -1.5 a thing ppo reward 0.5 a row of things" in page
    assert "sft reward 0 (empty) ppo reward 1 no order" in page


def test_chosen_models_stand_beside_each_other(
    visit: Any, run: Run, resolve_run: Callable[..., Run], crawl: Path
) -> None:
    other = resolve_run(crawl, {"sft.seed": 7}, "two")
    train(other, [SAMPLES[0] | {"before": "another thing"}])
    page = text_of(visit.get("/models/beside", model=["runs/one/sft", "runs/two/sft", "runs/one/reward"]))
    assert "A: sft of runs one B: sft of runs two C: reward of runs one" in page
    assert "A: sft reward -1.5 a thing B: sft reward -1.5 another thing" in page
    assert (
        "reward by the reward model of PPO higher -1.3 -1.3 - 32 prompts not comparable: measured on other data or with other settings"
        in page
    )


@pytest.mark.parametrize(
    ("names", "status"),
    [
        ([], 422),
        (["runs/one/sft"] * 5, 422),
        (["runs/one/gate"], 422),
        (["../../etc/sft"], 422),
        (["runs/none/sft"], 404),
        (["elsewhere/one/sft"], 403),
    ],
)
def test_what_cannot_be_put_beside_is_refused(visit: Any, run: Run, names: list[str], status: int) -> None:
    assert visit.get("/models/beside", model=names).status_code == status


def test_the_way_is_walked_from_the_crawl_files_to_the_export_and_back(visit: Any, run: Run) -> None:
    at = "/models/runs/one/files"
    for stage in ("crawl", "extract", "mix", "pretrain", "ppo", "export", "ppo", "sft", "files"):
        links = set(re.findall(r'href="([^"]+)"', visit.get(at).text))
        at = f"/models/runs/one/{stage}"
        assert at in links
    export = visit.get("/models/runs/one/export")
    assert 'aria-label="export: the ppo model, 1,315,968 parameters in fp32" aria-current="step"' in export.text
    assert "AutoModelForCausalLM" in text_of(export)


def test_a_step_says_what_it_made_and_what_is_missing(visit: Any, run: Run) -> None:
    page = text_of(visit.get("/models/runs/one/pretrain"))
    assert "bits per byte 1.88 parameters 1,315,968 trained on 490,467 tokens" in page
    assert re.search(r"step finished held-out loss size 5 \d{4}-\d\d-\d\d \d\d:\d\d 4.9 2 B", page)
    assert "Results What was made from this result" in page
    assert (
        "0 of 1 segments done CRAWL-" in page
        or re.search(r"0 of 1 segments done \S+: not done yet", page)
        or "not done yet" in page
    )
    run.store.write_bytes(f"{run.task('pretrain').prefix}/manifest.json", b"{")
    damaged = text_of(visit.get("/models/runs/one/pretrain"))
    assert "is not a manifest; delete it to run the task again" in damaged


@pytest.mark.parametrize("stage", ["nothing", "Sft", "..%2Fsft"])
def test_only_stages_have_a_page(visit: Any, run: Run, stage: str) -> None:
    assert visit.get(f"/models/runs/one/{stage}").status_code in (404, 422)


def test_a_file_is_sent_as_an_attachment(visit: Any, run: Run) -> None:
    answer = visit.get("/models/runs/one/ppo/model.safetensors")
    assert answer.content == MODEL["model.safetensors"]
    told = {
        name: answer.headers[name]
        for name in ("content-disposition", "content-length", "content-type", "x-content-type-options")
    }
    assert told == {
        "content-disposition": 'attachment; filename="model.safetensors"',
        "content-length": "70",
        "content-type": "application/octet-stream",
        "x-content-type-options": "nosniff",
    }
    head = visit.client.head("/models/runs/one/ppo/model.safetensors")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "70", b"")
    assert visit.get("/models/runs/one/export/config.json").content == b"{}"
    assert visit.get("/models/runs/one/pretrain/state.json", step=5).content == b"{}"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("ppo/manifest.json", 404),
        ("ppo/..%2Fmanifest.json", 404),
        ("ppo/.hidden", 422),
        ("pretrain/state.json", 404),
        ("pretrain/state.json?step=6", 404),
        ("pretrain/state.json?step=-1", 422),
        ("pretrain/state.json?path=/etc/passwd", 422),
        ("evaluate/samples.jsonl", 404),
        ("gate/x.json", 404),
        ("mix/x.parquet", 404),
    ],
)
def test_what_a_manifest_does_not_offer_is_not_sent(visit: Any, run: Run, path: str, status: int) -> None:
    assert visit.get(f"/models/runs/one/{path}").status_code == status


def test_a_damaged_file_is_not_sent(visit: Any, run: Run) -> None:
    file = next(one for one in find(run.store, run.task("sft")).files if one.path.endswith("config.json"))
    run.store.write_bytes(file.path, b"longer than it was")
    answer = visit.get("/models/runs/one/sft/config.json")
    assert answer.status_code == 422
    assert "has 18 bytes, 2 bytes were committed" in html.unescape(answer.text)


def test_few_files_are_sent_at_once_and_each_gives_its_place_back(visit: Any, run: Run) -> None:
    for _ in range(10):
        assert visit.get("/models/runs/one/sft/config.json").status_code == 200
    taken = [download.DOWNLOADS.acquire(blocking=False) for _ in range(4)]
    assert taken == [True] * 4
    try:
        answer = visit.get("/models/runs/one/sft/config.json")
        assert (answer.status_code, answer.text) == (
            503,
            "Too many files are being sent at this moment. Try again in a minute.\n",
        )
    finally:
        for _ in taken:
            download.DOWNLOADS.release()


@pytest.mark.parametrize(
    "path", ["", "/runs/one", "/runs/one/sft", "/beside?model=runs/one/sft", "/runs/one/sft/config.json"]
)
def test_nobody_sees_what_they_may_not(visit: Any, run: Run, path: str) -> None:
    assert visit.get(f"/models{path}").status_code == 200  # what one reader has seen is no other's
    visit.visitor.reads = False
    answer = visit.get(f"/models{path}")
    assert answer.status_code == (200 if path == "" else 403)
    assert "1,315,968" not in answer.text
    visit.visitor.session = False
    assert visit.get(f"/models{path}").status_code == 401


def test_what_models_say_and_are_called_is_never_markup(
    visit: Any, resolve_run: Callable[..., Run], crawl: Path
) -> None:
    run = resolve_run(crawl, {"name": HOSTILE.replace("\x1b", "").replace("\u202e", "")}, "one")
    train(run, [{"prompt": HOSTILE, "before": HOSTILE, "reward_before": 1, "after": HOSTILE, "reward_after": 1}])
    attempt = Attempt(run, run.task("gate"))
    name = 'x"><script>hit=1<.json'
    run.store.write_bytes(attempt.path(name), b"")
    attempt.commit([File(path=attempt.path(name), kind=Kind.MODEL, bytes=0)])
    for path in (
        "",
        "/runs/one",
        "/beside?model=runs/one/sft",
        "/runs/one/gate",
        "/runs/one/export",
        "/runs/one/files",
    ):
        answer = visit.get(f"/models{path}")
        assert answer.status_code == 200
        assert not re.search(r"<script(?! src=)|<img|\u202e|\x1b", answer.text), path
    shown = html.unescape(visit.get("/models/runs/one").text)
    assert HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b") in shown


def test_the_form_of_a_new_run_is_filled_in_where_there_is_one(visit: Any, run: Run) -> None:
    page = html.unescape(visit.get("/models/runs/one/sft").text)
    for dag in ("evaluate", "align"):
        assert (f"/new?dag={dag}&from_dag=runs&from_run=one" in page) is ("new" in PAGES)


def test_the_chart_has_a_panel_for_each_figure_with_its_interval() -> None:
    cells = (
        Ability("a", "higher", Figure("a", 0.5, 0.4, 0.7), "", ""),
        None,
        Ability("a", "higher", Figure("a", 2.0), "", ""),
    )
    other = Ability("<b>", "lower", Figure("<b>", 1.0), "", "")
    drawn = models.figure([Row("a", "higher", cells), Row("<b>", "lower", (None, other, None))], ["A", "B", "C"])
    first, second = drawn["data"]
    assert (first["x"], first["y"], first["xaxis"], first["yaxis"]) == ([0.5, 2.0], ["A", "C"], "x", "y")
    assert first["error_x"]["array"] == pytest.approx([0.2, 0])
    assert first["error_x"]["arrayminus"] == pytest.approx([0.1, 0])
    assert (second["x"], second["y"], second["xaxis"], second["yaxis"]) == ([1.0], ["B"], "x2", "y2")
    assert [one["text"] for one in drawn["layout"]["annotations"]] == [
        "a (higher is better)",
        "&lt;b&gt; (lower is better)",
    ]
    upper, lower = drawn["layout"]["yaxis"]["domain"], drawn["layout"]["yaxis2"]["domain"]
    assert 0 <= lower[0] < lower[1] < upper[0] < upper[1] < 1


def test_a_run_with_models_leads_to_the_filled_form_of_a_round(visit: Any, run: Run) -> None:
    page = visit.get("/models/runs/one")
    link = re.search(r'href="([^"]*)">Have people compare its replies<', page.text)
    assert link is not None
    assert html.unescape(link[1]).endswith("/new?dag=feedback&from_dag=runs&from_run=one")
