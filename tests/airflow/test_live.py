"""The chain on a live Airflow, in the order in which a person would meet it. Each test goes on from the one before."""

import json
import os
import signal
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from contract.funnel import levels
from contract.headline import headline, number, omitted
from contract.manifest import find
from contract.plan import Run, open_run, resolve
from contract.results import Gate
from contract.sources import snapshot_date
from contract.stages import STAGES
from demo import server
from gristmill_airflow.environment import standalone_environment
from gristmill_airflow.supervisor import marked, ranks

pytestmark = pytest.mark.timeout(1500)  # a shared machine may be several times slower than a quiet one
CHAIN = ("corpus", "pretrain", "align", "evaluate")


def test_airflow_listens_on_one_port_of_loopback(live):
    processes = [psutil.Process(pid) for pid in server.processes(live.folder)]
    listening = [
        one.laddr for process in processes for one in process.net_connections("inet") if one.status == "LISTEN"
    ]
    assert {tuple(one) for one in listening} == {("127.0.0.1", server.find(live.folder).port)}


def test_a_bad_recipe_is_rejected_by_the_first_task_without_retries(live):
    run = live.trigger("corpus", {"overrides": ["filter.min_word=40"]})
    assert live.finished("corpus", run, 300) == "failed"
    tasks = live.tasks("corpus", run)
    assert tasks["resolve", -1]["state"] == "failed"
    assert tasks["resolve", -1]["try_number"] == 1
    assert {one["state"] for (name, _), one in tasks.items() if name != "resolve"} == {"upstream_failed"}
    reason = f"error: recipe {live.recipe}: filter.min_word: unknown key; did you mean min_words?"
    assert any(line.startswith(reason) for line in live.log("corpus", run, "resolve"))


def test_a_stage_whose_input_is_missing_says_what_to_run_first(live):
    run = live.trigger("pretrain", {})
    assert live.finished("pretrain", run, 300) == "failed"
    task = live.tasks("pretrain", run)["pretrain", -1]
    assert (task["state"], task["try_number"]) == ("failed", 1)
    reason = "error: pack all is not done; start the DAG corpus for this crawl first"
    assert reason in live.log("pretrain", run, "pretrain")


@pytest.fixture(scope="module")
def resolved(live) -> Run:
    """The run that the next tests share, resolved while the crawl was whole."""
    return resolve(live.recipe, "shared")


@pytest.fixture(scope="module")
def corpus_run(live, resolved) -> str:
    """A corpus run in which the crawl file of the second segment is missing at first."""
    (live.folder / "crawl" / "part-1.warc.gz").rename(live.folder / "part-1.warc.gz")
    return live.trigger("corpus", {"run": resolved.uri})


def test_a_failed_segment_is_cleared_alone(live, corpus_run):
    def states() -> dict[str, Any]:
        found = live.tasks("corpus", corpus_run)
        return {f"{name}[{index}]": one["state"] for (name, index), one in found.items()}

    live.wait(
        "segment 1 fails and segment 0 goes on",
        lambda: states().get("segment.crawl[1]") == "failed" and states().get("segment.extract[0]") == "success",
        400,
    )
    tasks = live.tasks("corpus", corpus_run)
    labels = {index: one["rendered_map_index"] for (name, index), one in tasks.items() if name == "segment.crawl"}
    crawl = open_run(live.xcom("corpus", corpus_run, "resolve")).recipe.snapshots[0]
    assert labels == {0: f"{crawl}.00000", 1: f"{crawl}.00001"}
    first_done = tasks["segment.crawl", 0]["end_date"]

    (live.folder / "part-1.warc.gz").rename(live.folder / "crawl" / "part-1.warc.gz")
    live.clear("corpus", corpus_run, only_failed=True)
    assert live.finished("corpus", corpus_run, 1400) == "success"
    tasks = live.tasks("corpus", corpus_run)
    assert {one["state"] for one in tasks.values()} == {"success"}
    assert tasks["segment.crawl", 0]["end_date"] == first_done, "the segment that was fine ran again"
    assert tasks["segment.crawl", 1]["try_number"] > tasks["segment.crawl", 0]["try_number"]


def rank_of(locks: Path) -> int:
    """The process that trains, among all that stages under these locks have started."""
    found = {pid: values for lock in locks.glob("pretrain-*.lock") for pid, values in marked(lock).items()}
    (rank,) = ranks(found)
    return rank


def test_a_killed_training_task_finishes_its_step_and_its_retry_waits_and_resumes(live, corpus_run, resolved):
    run = live.wait("pretrain starts by itself", lambda: live.runs("pretrain", run_type="asset_triggered"), 300)[0]
    assert run["partition_key"] == resolved.recipe.snapshots[0]
    name, locks = run["dag_run_id"], live.home / "locks"
    checkpoints = live.folder / "store" / "pretrain"
    live.wait("a checkpoint", lambda: list(checkpoints.glob("*/step-*/manifest.json")), 300, every_s=0.05)
    rank = rank_of(locks)
    os.kill(rank, signal.SIGSTOP)  # as if its step took minutes, so that the test depends on no machine's speed
    live.clear("pretrain", name, task_ids=["pretrain"], only_failed=False)  # Airflow kills the task and starts it again
    live.wait("the retry", lambda: live.tasks("pretrain", name)["pretrain", -1]["try_number"] == 2, 120)
    live.wait(
        "the retry waits",
        lambda: any("still runs this task" in line for line in live.log("pretrain", name, "pretrain", attempt=2)),
        120,
    )
    assert rank_of(locks) == rank, "the rank outlives its task, and the retry has not started another"
    os.kill(rank, signal.SIGCONT)

    assert live.finished("pretrain", name, 600) == "success"
    first, second = (live.log("pretrain", name, "pretrain", attempt) for attempt in (1, 2))
    assert any("asking 1 process(es) to stop" in line for line in first)
    resumed = next(line for line in second if line.startswith("resumed pretrain from step "))
    stopped_at = int(resumed.split("step ")[1].split(":")[0])
    assert any(f"stopped after step {stopped_at} of 250" in line for line in second), "the late line of the first try"
    assert find(resolved.store, resolved.task("pretrain")) is not None
    assert all(marked(lock) == {} for lock in locks.glob("pretrain-*.lock"))


def approve(live, align: str, place: str) -> None:
    """Answer the question, once the scheduler knows that the process which asked it has ended.

    If the answer comes before, which only a program is quick enough for, Airflow takes the end of that process for the end of
    the task, and asks again.
    """
    live.wait("the asking process has ended", lambda: live.ended("align", align, "approval"), 300, every_s=1)
    live.api.call("PATCH", place, {"chosen_options": ["Approve"], "params_input": {}})
    live.wait(
        "the answer is taken", lambda: live.tasks("align", align)["approval", -1]["state"] == "success", 300, every_s=1
    )


def test_the_whole_chain_ends_green_and_every_stage_left_its_manifest(live, resolved):
    align = live.wait("align starts by itself", lambda: live.runs("align"), 300)[0]["dag_run_id"]
    live.wait(
        "the question", lambda: live.tasks("align", align)["approval", -1]["state"] == "awaiting_input", 900, every_s=1
    )
    place = f"dags/align/dagRuns/{quote(align)}/taskInstances/approval/-1/hitlDetails"
    asked = live.api.call("GET", place)
    gate = Gate.of(find(resolved.store, resolved.task("gate")))
    assert f"| held-out accuracy of the reward model | {number(gate.accuracy)} |" in asked["body"]
    approve(live, align, place)
    assert live.finished("align", align, 900) == "success"
    evaluate = live.wait("evaluate starts by itself", lambda: live.runs("evaluate"), 300)[0]["dag_run_id"]
    assert live.finished("evaluate", evaluate, 600) == "success"
    for dag in CHAIN[1:]:
        run = live.runs(dag, run_type="asset_triggered")[0]
        assert (run["state"], run["partition_key"]) == ("success", resolved.recipe.snapshots[0])
        assert live.xcom(dag, run["dag_run_id"], "resolve") == resolved.uri
    of_chain = [task for task in resolved.tasks().values() if STAGES[task.stage].dag in CHAIN]
    tasks = [task for task in of_chain if not omitted(resolved.recipe, task.stage, True)]
    missing = [task.prefix for task in tasks if find(resolved.store, task) is None]
    assert missing == []
    states = {name: one["state"] for (name, _), one in live.tasks("align", align).items()}
    assert states.pop("dpo") == states.pop("grpo") == "skipped"
    assert {*states.values()} == {"success"}
    pretrain = live.runs("pretrain", run_type="asset_triggered")[0]["dag_run_id"]
    assert live.tasks("pretrain", pretrain)["benchmark", -1]["state"] == "skipped", "the base model is not asked"
    assert live.tasks("evaluate", evaluate)["benchmark", 0]["state"] == "success"
    events = live.api.call("GET", "assets/events", order_by="timestamp")["asset_events"]
    corpus = next(one for one in events if (one["source_dag_id"], one["source_task_id"]) == ("corpus", "publish"))
    assert corpus["extra"]["recipe"] == resolved.uri
    assert corpus["extra"]["manifest"] == f"{resolved.store.full(resolved.task('pack').prefix)}/manifest.json"
    assert corpus["partition_key"] == resolved.recipe.snapshots[0]
    assert corpus["extra"]["figures"]["tokens"] == find(resolved.store, resolved.task("pack")).metrics["tokens"]


def test_the_notes_tell_results_and_the_links_of_tasks_lead_to_pages(live, corpus_run, resolved):
    read = sum(find(resolved.store, resolved.task("crawl", one.partition)).rows.read for one in resolved.segments)
    kept = find(resolved.store, resolved.task("mix")).rows.kept
    results = {dag: live.runs(dag, run_type="asset_triggered")[-1]["note"].splitlines()[1] for dag in CHAIN[1:]}
    note = live.api.call("GET", f"dags/corpus/dagRuns/{quote(corpus_run)}")["note"]
    assert note.splitlines()[1].startswith(f"result: kept {kept:,} of {read:,} documents (")
    assert results["pretrain"] == f"result: {headline(find(resolved.store, resolved.task('pretrain')))}"
    assert results["align"].startswith("result: gate open: ")
    assert "; PPO approved by admin, " in results["align"]
    assert results["evaluate"].startswith(
        f"result: {headline(find(resolved.store, resolved.task('evaluate')))}; exported "
    )

    links = f"dags/corpus/dagRuns/{quote(corpus_run)}/taskInstances/segment.filter/links"
    found = live.api.call("GET", links, map_index=1)["extra_links"]
    assert {name for name, at in found.items() if at} == {"Funnel and stages", "Dropped documents", "Manifest"}
    page = live.page(found["Manifest"])
    filtered = find(resolved.store, resolved.task("filter", resolved.segments[1].partition))
    assert f"<p>{escape(headline(filtered))}</p>" in page
    card = json.loads(live.page("/gristmill/card"))["runs"]
    assert card["corpus"]["steps"][-1]["kept"] == levels(resolved)[-1].kept
    assert card["align"]["stages"]["gate"]["figures"]["accuracy"] == pytest.approx(
        Gate.of(find(resolved.store, resolved.task("gate"))).accuracy, rel=1e-5
    )


def test_a_poll_publishes_the_new_crawl_once_and_what_is_done_is_skipped(live, resolved):
    key = resolved.recipe.snapshots[0]
    before = len(live.runs("corpus"))
    first = live.trigger("crawl_refresh", {"overrides": ["ppo.steps=2"]})
    live.api.call("PATCH", "dags/crawl_refresh", {"is_paused": False})
    assert live.finished("crawl_refresh", first, 300) == "success"
    live.wait("corpus starts by itself", lambda: len(live.runs("corpus")) > before, 300)
    run = live.runs("corpus")[0]
    assert (run["run_type"], run["partition_key"]) == ("asset_triggered", key)
    assert live.finished("corpus", run["dag_run_id"], 400) == "success"
    assert any(line.startswith("done already, skipped") for line in live.log("corpus", run["dag_run_id"], "pack"))
    assert (
        f", crawl {key} of {live.folder}/crawl, as crawl_refresh keeps it; with ppo.steps=2"
        in live.runs("corpus")[0]["note"]
    )

    second = live.trigger("crawl_refresh", {})
    assert live.finished("crawl_refresh", second, 300) == "success"
    assert live.tasks("crawl_refresh", second)["poll", -1]["state"] == "skipped"


def test_a_backfill_of_one_crawl(live, resolved):
    """From the command line, without a form, as the UI sends it: recipe and source are those that the poll kept."""
    key = resolved.recipe.snapshots[0]
    monday = snapshot_date(key).isoformat()
    dry = {
        "dag_id": "evaluate",
        "from_date": f"{monday}T00:00:00Z",
        "to_date": f"{monday}T00:00:00Z",
        "reprocess_behavior": "completed",
        "max_active_runs": 1,
        "run_backwards": False,
    }
    would = live.api.call("POST", "backfills/dry_run", dry)["backfills"]
    assert [one["partition_key"] for one in would] == [key]
    nothing = live.api.call("POST", "backfills/dry_run", {**dry, "reprocess_behavior": "none"})["backfills"]
    assert nothing == [], "the crawl has its run already"

    airflow = Path(sys.executable).with_name("airflow")
    command = (
        f"backfill create --dag-id pretrain --from-date {monday} --to-date {monday} --reprocess-behavior completed"
    )
    port = int(live.api.url.rpartition(":")[2])
    subprocess.run(
        [airflow, *command.split()],
        env=standalone_environment(live.home, port),
        check=True,
        capture_output=True,
        timeout=120,
    )
    made = live.wait("the backfill's run", lambda: live.runs("pretrain", run_type="backfill"), 300)
    assert [one["partition_key"] for one in made] == [key]
    run = made[0]["dag_run_id"]
    assert live.finished("pretrain", run, 300) == "success"
    assert any(line.startswith("done already, skipped") for line in live.log("pretrain", run, "pretrain"))
    said = f"uses recipe {live.recipe}, crawl {key} of {live.folder}/crawl, as crawl_refresh keeps it"
    assert next(line for line in live.log("pretrain", run, "resolve") if line.startswith("uses ")) == said
    noted = live.wait("the run's note", lambda: live.runs("pretrain", run_type="backfill")[0]["note"], 30)
    assert noted.splitlines()[0] == said


@pytest.mark.slow
def test_an_ablation_trains_only_what_differs_and_says_what_can_be_told(live):
    variants = "ablate.variants={base: [], slow: [pretrain.optim.lr=1.0e-5]}"
    run = live.trigger("ablate", {"overrides": [variants, "ablate.seeds=[0]", "ablate.tokens=3840"]})
    assert live.finished("ablate", run, 900) == "success"
    tasks = live.tasks("ablate", run)
    assert {name: sum(one == name for one, _ in tasks) for name in ("crawl", "pack", "pretrain", "probe")} == {
        "crawl": 2, "pack": 1, "pretrain": 2, "probe": 2,
    }  # fmt: skip
    said = live.log("ablate", run, "ablate")
    assert any("no difference can be told" in line for line in said), said
