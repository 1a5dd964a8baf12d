"""The page "Training" shows a task's curves, follows one that runs, and says why the gate opened."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract import ablation
from contract.kinds import Kind
from contract.live import ALL_STEPS, LEFT_S, points_name
from contract.manifest import Attempt, File
from contract.metrics import Point, dump_points
from contract.plan import Run, vary
from contract.results import Ablate, Evaluate, Gate, Judge, Pretrain, Result, Reward
from contract.thinning import dump_curves, thin
from reports.cockpit.pages import training
from reports.cockpit.visitor import Listed, TaskState

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m'


def points(first: int, last: int, *names: str) -> list[Point]:
    return [Point(step, name, 4.0 - step / 10, 100.0 + step) for step in range(first, last) for name in names]


@pytest.fixture
def commit(judged: Run) -> Callable[..., None]:
    """Commits one file of a stage of the run `one`."""

    def made(stage: str, result: Result, kind: Kind, name: str, data: bytes) -> None:
        attempt = Attempt(judged, judged.task(stage))
        judged.store.write_bytes(attempt.path(name), data)
        attempt.commit([File(path=attempt.path(name), kind=kind, bytes=len(data))], result=result)

    return made


@pytest.fixture
def trained(commit: Callable[..., None]) -> None:
    curves = thin([*points(1, 21, "loss", "lr"), Point(5, "resumed", 1.0, 0.0)])
    commit("pretrain", Pretrain.model_construct(), Kind.CURVES, "curves.json", dump_curves(curves))


def test_a_finished_task_has_its_table_its_marks_and_its_charts(visit: Any, trained: None) -> None:
    page = visit.get("/training/runs/one/pretrain")
    assert page.status_code == 200
    for text in (">Training: pretrain<", ">3.9<", ">2<", "resumed at step 5", "Done. Finished 20", 'data-run="one"'):
        assert text in page.text
    assert 'data-points="/training/runs/one/pretrain/points"' in page.text
    found = visit.json("/training/runs/one/pretrain/points")
    assert found["curves"]["loss"] == [list(range(1, 21)), [4.0 - step / 10 for step in range(1, 21)]]
    assert [chart["names"] for chart in found["charts"]] == [["loss"], ["lr"]]
    assert found["marks"] == [{"step": 5, "kind": "resumed"}]
    assert (found["state"], found["whole"], found["next_s"]) == ("done", True, None)


def test_a_task_that_runs_is_followed_with_new_points_only_until_it_is_done(
    visit: Any, judged: Run, commit: Callable[..., None]
) -> None:
    assert visit.json("/training/runs/one/sft/points")["state"] == "waiting"
    folder = f"{judged.task('sft').prefix}/attempt-aa"
    judged.store.write_bytes(f"{folder}/{points_name(0)}", dump_points(points(1, 4, "loss")))
    page = visit.get("/training/runs/one")
    assert "Running. The charts show new points as they come. Step 3." in page.text
    assert f"{folder}/live" in page.text, "where TensorBoard finds its files"
    first = visit.json("/training/runs/one/sft/points")
    assert (first["state"], first["whole"], first["next_s"]) == ("running", True, 4)
    assert first["curves"]["loss"][0] == [1, 2, 3]
    seen = {"attempt": first["attempt"], "number": first["number"]}
    judged.store.write_bytes(f"{folder}/{points_name(1)}", dump_points(points(4, 6, "loss", "heldout_loss")))
    second = visit.json("/training/runs/one/sft/points", **seen)
    assert (second["whole"], second["curves"]["loss"][0], second["number"]) == (False, [4, 5], 1)
    assert second["charts"][0]["names"] == ["loss", "heldout_loss"]
    data = dump_curves(thin(points(1, 9, "loss")))
    commit("sft", training.curves.manifest.result_of("sft").model_construct(), Kind.CURVES, "curves.json", data)
    last = visit.json("/training/runs/one/sft/points", attempt="attempt-aa", number=1)
    assert (last["state"], last["whole"], last["next_s"]) == ("done", True, None)
    assert last["curves"]["loss"][0] == list(range(1, 9))


def test_the_newest_run_with_curves_is_shown_without_a_name(visit: Any, judged: Run, trained: None) -> None:
    assert visit.get("/training").text == visit.get("/training/runs/one/pretrain").text


def test_a_store_without_runs_says_so(visit: Any) -> None:
    empty = visit.get("/training")
    assert (empty.status_code, "There is no run yet." in empty.text) == (404, True)


def test_a_run_that_has_trained_nothing_says_so(visit: Any, judged: Run) -> None:
    page = visit.get("/training")
    assert (page.status_code, "No points yet." in page.text) == (200, True)


def test_the_newest_run_is_one_of_a_dag_that_trains(visit: Any, judged: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [Listed(dag, f"run of {dag}", "", None) for dag in ("corpus", "align", "pretrain")]
    monkeypatch.setattr(visit.visitor, "may_read", lambda dag: True)
    monkeypatch.setattr(visit.visitor, "runs", lambda limit: listed)
    monkeypatch.setattr(visit.visitor, "run", lambda dag, run: judged)
    assert "align run of align" in visit.get("/training").text
    listed[1:] = []
    assert "corpus run of corpus" in visit.get("/training").text


def test_other_runs_are_offered_for_comparison(visit: Any, trained: None, judged: Run) -> None:
    for name in ("recipe.yaml", "inputs.json"):
        judged.store.write_bytes(f"runs/two/{name}", judged.store.read_bytes(f"runs/one/{name}"))
    page = visit.get("/training/runs/one/pretrain").text
    assert '<option value="/training/runs/two/pretrain/points">runs two</option>' in page
    assert '<option value="/training/runs/one/' not in page


def test_the_models_of_an_ablation_have_curves_of_their_own(
    visit: Any, resolve_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.warc").write_bytes(b"")
    variants = {"ablate.variants": {"base": [], "strict": ["filter.min_words=99"]}, "ablate.tokens": 10**6}
    run = resolve_run(tmp_path / "pages", {**variants, "ablate.seeds": [5]}, "ablation")
    monkeypatch.setattr(visit.visitor, "may_read", lambda dag: True)
    monkeypatch.setattr(visit.visitor, "run", lambda dag, name: run)
    early = visit.get("/training/ablate/ablation")
    assert (early.status_code, "not there yet" in early.text) == (404, True)
    made = ablation.resolve(run)
    for (variant, _), one in made.runs.items():
        attempt = Attempt(one, one.task("pretrain"))
        data = dump_curves(thin(points(1, 8 if variant == "base" else 9, "loss")))
        one.store.write_bytes(attempt.path("curves.json"), data)
        file = File(path=attempt.path("curves.json"), kind=Kind.CURVES, bytes=len(data))
        attempt.commit([file], result=Pretrain.model_construct())
    at = "/training/ablate/ablation/pretrain/points"
    assert visit.json(at)["curves"]["loss"][0][-1] == 7, "the first model"
    assert visit.json(at, variant="strict.5")["curves"]["loss"][0][-1] == 8
    page = visit.get("/training/ablate/ablation/work.pretrain", variant="strict.5").text
    assert f'data-points="{at}?variant=strict.5"' in page
    assert f'<option value="{at}?variant=base.5">base.5</option>' in page
    assert visit.get(at, variant="other.5").status_code == 404
    assert visit.json("/training/pretrain/ablation/pretrain/points")["state"] == "waiting", "another DAG's own model"
    missing = visit.get("/training/ablate/ablation/ablate")
    assert (missing.status_code, "ablate all is not done" in missing.text) == (404, True)
    attempt = Attempt(made.comparison, made.comparison.task("ablate"))
    run.store.write_bytes(attempt.path("report.md"), HOSTILE.encode())
    file = File(path=attempt.path("report.md"), kind=Kind.COMPARISON, bytes=len(HOSTILE))
    attempt.commit([file], result=Ablate(models=2, tokens=1, verdict="nobody can tell"))
    told = visit.get("/training/ablate/ablation/ablate").text
    assert "&lt;script&gt;alert(1)" in told
    assert "<script>alert" not in told


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/training/runs/one/filter/points", 404),
        ("/training/runs/one/nothing/points", 404),
        ("/training/runs/one/gate/points", 404),
        ("/training/runs/two/pretrain", 404),
        ("/training/runs/one/pretrain/points?attempt=../../x", 422),
        ("/training/runs/one/pretrain/points?attempt=attempt-aa&number=-2", 422),
        ("/training/runs/one/pretrain/points?path=/etc/passwd", 422),
    ],
)
def test_what_is_no_task_of_training_is_refused(visit: Any, judged: Run, path: str, status: int) -> None:
    answer = visit.get(path)
    assert answer.status_code == status
    assert "Traceback" not in answer.text


def test_names_of_curves_are_escaped_in_page_and_data(visit: Any, commit: Callable[..., None]) -> None:
    data = dump_curves(thin([Point(1, f"heldout_loss/{HOSTILE}", 1.0, 0.0)]))
    commit("pretrain", Pretrain.model_construct(), Kind.CURVES, "curves.json", data)
    page = visit.get("/training/runs/one/pretrain").text
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "heldout_loss/&#34;&gt;&lt;script&gt;" in page
    answer = visit.client.get("/training/runs/one/pretrain/points")
    assert answer.headers["content-type"] == "application/json"
    assert f"heldout_loss/{HOSTILE}" in answer.json()["curves"]


def test_a_damaged_file_is_said_on_the_page(visit: Any, commit: Callable[..., None]) -> None:
    commit("pretrain", Pretrain.model_construct(), Kind.CURVES, "curves.json", b"{")
    page = visit.get("/training/runs/one/pretrain")
    assert (page.status_code, "these are no curves" in page.text) == (200, True)


REWARD = Reward.model_validate(
    {name: 1 for name, field in Reward.model_fields.items() if field.is_required()}
    | {"pairs": 640, "heldout_pairs": 160, "heldout_correct": 150.5, "ece": 0.031, "skipped_steps": ""}
)


@pytest.fixture
def decided(judged: Run, commit: Callable[..., None]) -> None:
    pair = {"row": 12, "margin": -2.5, "reward_chosen": -1.5, "reward_rejected": 1.0}
    texts = {"prompt": f"user: {HOSTILE}", "chosen": HOSTILE, "rejected": HOSTILE}
    bins = [{"low": 0.5, "high": 0.55, "pairs": 40, "confidence": 0.52, "right": 0.75}]
    data = json.dumps({"bins": bins, "worst": [pair | texts]}).encode()
    commit("reward", REWARD, Kind.CALIBRATION, "calibration.json", data)
    result = Gate(open=True, accuracy=0.94, low=0.89, high=0.97, threshold=0.55)
    Attempt(judged, judged.task("gate")).commit([], result=result)


def test_the_gate_says_why_it_opened_and_shows_its_worst_pairs(visit: Any, decided: None) -> None:
    page = visit.get("/training/runs/one/gate")
    assert page.status_code == 200
    for text in (
        "The gate is open: the lower end of the interval, 89.0%, reaches the threshold of 55.0%.",
        "PPO needs no approval",
        "150.5 of 160 held-out pairs are ranked right",
        "from 89.0\N{NO-BREAK SPACE}% to 97.0\N{NO-BREAK SPACE}%",
        "Expected calibration error 3.1\N{NO-BREAK SPACE}%",
        "<td>40</td><td>52.0\N{NO-BREAK SPACE}%</td><td>75.0\N{NO-BREAK SPACE}%</td>",
        "Pair 12: the rejected reply gets a reward 2.5 higher",
    ):
        assert text in page.text
    assert "<script>alert" not in page.text
    assert "<img" not in page.text
    assert page.text.count("&lt;script&gt;alert(1)") == 3


def test_the_task_that_asks_a_person_is_a_click_away(visit: Any, decided: None, judged: Run) -> None:
    asking = 'href="/dags/runs/runs/one/tasks/approval"'
    assert asking not in visit.get("/training/runs/one/gate").text
    vary(judged, "asks", ["gate.approval=true"])
    page = visit.get("/training/runs/asks/gate").text
    assert asking.replace("/one/", "/asks/") in page
    assert "PPO needs the approval of a person (gate.approval). Nobody has rejected it." in page


def test_the_pictures_of_the_gate_are_its_figures(visit: Any, decided: None, judged: Run) -> None:
    found = training.gate.view(judged)
    picture = training.interval(found)
    assert picture is not None
    bar, limit = picture["data"]
    assert (bar["x"], limit["x"]) == ([0.94], [0.55, 0.55])
    assert (bar["error_x"]["array"], bar["error_x"]["arrayminus"]) == (pytest.approx([0.03]), pytest.approx([0.05]))
    low, high = picture["layout"]["xaxis"]["range"]
    assert low < 0.55 < 0.97 < high
    diagram = training.reliability(found)
    assert diagram is not None
    assert (diagram["data"][0]["x"], diagram["data"][0]["y"]) == ([0.52], [0.75])


def test_the_gate_tells_of_short_replies_tasks_the_judge_and_both_win_rates(
    visit: Any, judged: Run, commit: Callable[..., None]
) -> None:
    drawn = {"edges": [0.0, 1.0, 3.0], "better": [1, 5], "worse": [4, 2]}
    data = json.dumps({"bins": [], "worst": [], "histograms": drawn}).encode()
    figures = {"pairs": 7, "accuracy": 0.25, "low": 0.1, "high": 0.5}
    short = {"shorter_accuracy": 0.625, "shorter_accuracy_low": 0.5, "shorter_accuracy_high": 0.75, "shorter_pairs": 48}
    scored = {"heldout_mse": 0.5, "heldout_correlation": 0.875}
    told = REWARD.model_copy(update={"tasks": {HOSTILE: figures, "poems": figures}, **short, **scored})
    commit("reward", told, Kind.CALIBRATION, "calibration.json", data)
    gate = Gate(
        open=False, accuracy=0.94, low=0.89, high=0.97, threshold=0.55,
        shorter_accuracy=0.6, shorter_low=0.4, shorter_high=0.8, shorter_threshold=0.5,
    )  # fmt: skip
    Attempt(judged, judged.task("gate")).commit([], result=gate)
    judge = Judge(pairs=30, accuracy=0.75, accuracy_low=0.7, accuracy_high=0.8, heldout_pairs=160)
    Attempt(judged, judged.task("judge")).commit([], result=judge)
    won = {"win_rate": 0.9, "win_rate_low": 0.8, "win_rate_high": 0.95}
    lost = {"judge_win_rate": 0.45, "judge_win_rate_low": 0.3, "judge_win_rate_high": 0.6}
    both = Evaluate(heldout_sequences=1, heldout_tokens=1, prompts=1, reward_sft=0.0, worse_sft=False, **won, **lost)
    Attempt(judged, judged.task("evaluate")).commit([], result=both)
    page = visit.get("/training/runs/one/gate")
    assert page.status_code == 200
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "<td>0.4</td><td>at least 0.5</td><td>no</td><td>whether PPO starts</td>",
        "Of the 48 pairs whose better reply is the shorter one, it ranks 62.5 % right (95 % interval 50.0 % to 75.0 %)",
        "have a correlation of 0.875; the mean squared error is 0.5.",
        '<th scope="row">poems</th><td>7</td><td>25.0 %</td><td>10.0 % to 50.0 %</td>',
        "It ranks 75.0 % of the same held-out pairs right (95 % interval 70.0 % to 80.0 %) and learned from 30 prompts.",
        "the reward model that PPO optimised</th><td>90.0 %</td><td>80.0 % to 95.0 %</td>",
        "the judge, which PPO never saw</th><td>45.0 %</td><td>30.0 % to 60.0 %</td>",
    ):
        assert words in text
    assert "<script>alert" not in page.text
    picture = training.rewards(training.gate.view(judged))
    assert picture is not None
    assert [(bars["x"], bars["y"]) for bars in picture["data"]] == [([0.5, 2.0], (1, 5)), ([0.5, 2.0], (4, 2))]
    odd = gate_view_with(training.gate.view(judged), better=(1,))
    assert training.rewards(odd) is None


def gate_view_with(view: Any, **changed: Any) -> Any:
    """The view with other counts in its histograms."""
    drawn = view.calibration.histograms.model_copy(update=changed)
    return replace(view, calibration=view.calibration.model_copy(update={"histograms": drawn}))


def test_a_gate_that_has_not_decided_says_what_is_missing(visit: Any, judged: Run) -> None:
    page = visit.get("/training/runs/one/gate")
    assert page.status_code == 200
    assert "The gate has not decided yet." in page.text
    assert "reward is not done yet." in page.text
    assert training.interval(training.gate.view(judged)) is None


def test_a_task_without_curves_names_the_stages_that_have_some(visit: Any, judged: Run, trained: None) -> None:
    for task in ("segment.filter", "resolve", "publish"):
        page = visit.get(f"/training/runs/one/{task}")
        assert page.status_code == 200
        assert f"The task {task} has no curves" in page.text
        assert '<a href="/training/runs/one/pretrain">pretrain <span class="faint">done</span></a>' in page.text
    assert visit.get("/training/runs/two/filter").status_code == 404


def test_a_running_task_says_how_far_it_is(visit: Any, judged: Run) -> None:
    folder = f"{judged.task('sft').prefix}/attempt-aa"
    far = [Point(3, ALL_STEPS, 1200.0, 0.0), Point(3, LEFT_S, 95.0, 0.0)]
    judged.store.write_bytes(f"{folder}/{points_name(0)}", dump_points([*points(1, 4, "loss"), *far]))
    page = visit.get("/training/runs/one/sft").text
    assert "Step 3 of 1,200, about 1 min 35 s left." in page
    found = visit.json("/training/runs/one/sft/points")
    assert found["far"] == "Step 3 of 1,200, about 1 min 35 s left."
    assert [*found["curves"]] == ["loss"], "how far it is stands in no chart"
    assert [chart["names"] for chart in found["charts"]] == [["loss"]]
    same = visit.json("/training/runs/one/sft/points", attempt="attempt-aa", number=0)
    assert (same["state"], same["far"]) == ("running", ""), "nothing new"


def test_a_task_that_waits_says_for_what(visit: Any, judged: Run) -> None:
    states = [TaskState("runs", "one", "sft", "running", 1, -1, "the cpu of its machine, in use by ppo all")]
    visit.visitor.tasks = lambda dag_id, run_id: states
    said = "No points yet. The task waits for the cpu of its machine, in use by ppo all."
    assert said in visit.get("/training/runs/one/sft").text
    assert visit.json("/training/runs/one/sft/points")["said"] == said
    states[0] = TaskState("runs", "one", "sft", "running", 1, -1)
    assert visit.json("/training/runs/one/sft/points")["said"] == "The task runs. It has shown no points yet."
    assert visit.json("/training/runs/one/ppo/points")["said"] == "No points yet."


def test_the_files_of_the_curves_can_be_downloaded(visit: Any, judged: Run) -> None:
    attempt = Attempt(judged, judged.task("pretrain"))
    files = {
        "curves.json": (Kind.CURVES, dump_curves(thin(points(1, 4, "loss")))),
        "events.out.tfevents.0000000000.gristmill": (Kind.EVENTS, b"events"),
        "metrics.jsonl": (Kind.METRICS, b"{}"),
        "model.safetensors": (Kind.MODEL, b"weights"),
    }
    for name, (_, data) in files.items():
        judged.store.write_bytes(attempt.path(name), data)
    listed = [File(path=attempt.path(name), kind=kind, bytes=len(data)) for name, (kind, data) in files.items()]
    attempt.commit(listed, result=Pretrain.model_construct())
    page = visit.get("/training/runs/one/pretrain").text
    for name, (kind, data) in files.items():
        at = f"/training/runs/one/pretrain/files/{name}"
        assert (f'href="{at}" download>' in page) == (kind != Kind.MODEL)
        answer = visit.client.get(at)
        if kind == Kind.MODEL:
            assert answer.status_code == 404, "models have their own page"
            continue
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert answer.headers["content-type"] == "application/octet-stream"
    for at in ("pretrain/files/other", "gate/files/curves.json", "filter/files/curves.json", "sft/files/curves.json"):
        assert visit.get(f"/training/runs/one/{at}").status_code == 404
    assert visit.get("/training/runs/one/pretrain/files/..%2Fmanifest.json").status_code in (404, 422)
    visit.visitor.reads = False
    assert visit.get("/training/runs/one/pretrain/files/curves.json").status_code == 403


def test_the_gate_says_who_has_approved(visit: Any, decided: None, judged: Run) -> None:
    visit.visitor.approval = lambda dag_id, run_id: "approved by <Ada>, 2026-11-22T15:00:00+00:00"
    assert "Ada" not in visit.get("/training/runs/one/gate").text, "this recipe asks nobody"
    vary(judged, "asks", ["gate.approval=true"])
    page = visit.get("/training/runs/asks/gate").text
    assert "PPO was approved by &lt;Ada&gt;, 2026-11-22T15:00:00+00:00." in page


def test_the_sides_of_a_pair_are_named_by_the_data(visit: Any, decided: None) -> None:
    page = visit.get("/training/runs/one/gate").text
    assert "Chosen in the data, reward by the model -1.5" in page
    assert "Rejected in the data, reward by the model 1" in page
    assert "people" not in page
