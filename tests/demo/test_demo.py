"""The newcomer's two commands, for real: Airflow, every DAG, about 150 real pages, then once more, then stop."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from contract.headline import omitted
from contract.manifest import need
from contract.plan import open_run
from contract.stages import STAGES
from demo import server, summary

ROOT = Path(__file__).parents[2]
# As small as every stage still does its work; what the models learn is judged elsewhere.
SMALLER = (
    "tokenizer.vocab_size=1000 pretrain.steps=12 pretrain.eval_sequences=16 instructions.max_examples=48 preferences.max_examples=96 "
    "gate.min_accuracy=0.0 ppo.steps=2 ppo.rollout_batch=16 ppo.max_response_tokens=16 evaluate.sequences=16 evaluate.prompts=8 "
    "evaluate.max_response_tokens=16"
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def cut(source: Path, target: Path, pages: int) -> None:
    """The head of a WARC: each record is a gzip member, so the bytes before the next one are a whole file."""
    with source.open("rb") as stream:
        positions = [record.stream_pos for record in ArchiveIterator(stream, record_types=WarcRecordType.response)]
    end = positions[pages] if pages < len(positions) else None
    target.write_bytes(source.read_bytes()[:end])


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    data = Path(os.environ.get("GRISTMILL_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not data.is_dir():
        pytest.skip(f"no real data at {data}; name its folder in GRISTMILL_TEST_DATA")
    folder = tmp_path_factory.mktemp("crawl")
    cut(data / "html_gold" / "aeb.dev.warc.gz", folder / "a.warc.gz", 80)
    cut(data / "html_gold" / "trafilatura_eval.dev.warc.gz", folder / "b.warc.gz", 70)
    # A page that is cut off in mid-record, and a file that is no WARC in spite of its name.
    whole = (data / "html_gold" / "aeb.dev.warc.gz").read_bytes()
    (folder / "c.warc.gz").write_bytes(whole[:40_000])
    shutil.copy(data / "warc" / "oduwsdl+ipwb" / "broken.warc", folder / "d.warc")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "home"
    yield folder
    server.stop(folder)


@pytest.fixture(scope="module")
def start(home, crawl):
    """Runs `python -m demo start` as `make demo` does; fails the test with what it printed where it does not end well."""
    port = free_port()

    def run() -> str:
        command = [sys.executable, "-m", "demo", "start", "--where", home, "--crawl", crawl, "--port", str(port)]
        done = subprocess.run([*command, "--set", SMALLER], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def free_port() -> int:
    """Below the ports that the system hands out."""
    return next(port for port in range(18300, 19300) if server.is_free(port))


@pytest.fixture(scope="module")
def first(start):
    return start()


def run_of(printed: str):
    return open_run(re.search(r"^file://\S+/recipe\.yaml#sha256=[0-9a-f]{64}$", printed, re.MULTILINE)[0])


def chain(run):
    """The tasks from the crawl to the exported model: those of all stages that the recipe does not leave out."""
    asked = (task for task in run.tasks().values() if STAGES[task.stage].dag != "feedback")
    return [task for task in asked if not omitted(run.recipe, task.stage, True)]


def test_every_task_of_every_stage_is_done(first):
    run = run_of(first)
    manifests = [need(run.store, task) for task in chain(run)]
    left_out = {"dpo", "grpo", "benchmark", "sample", "probe", "ablate"}
    assert {one.stage for one in manifests} == {*STAGES} - left_out
    assert len(manifests) == len(STAGES) - len(left_out)


def test_funnel_is_told_and_adds_up(first):
    run = run_of(first)
    done = summary.finished(run)
    crawled = sum(one.rows.kept for one in done["crawl"])
    assert 140 <= crawled <= 160
    assert sum(one.rows.read for one in done["extract"]) == crawled
    mixed = done["decontaminate"][0].rows
    assert 0 < mixed.kept < crawled
    assert re.search(rf"^decontaminate +{mixed.kept:,} ", first, re.MULTILINE)
    assert sum(sum(one.rows.losses.values()) for one in done["crawl"]) > 0, "damage is counted, never in silence"


def test_training_is_told_in_one_line_each(first):
    assert re.search(r"^Pretraining +held-out perplexity [\d,.]+ -> [\d,.]+$", first, re.MULTILINE)
    interval = r"held-out accuracy [\d.]+, confidence interval [\d.]+ to [\d.]+"
    shorter = r"; [\d.]+ where the better reply is shorter"
    assert re.search(rf"^Reward model +{interval}({shorter})?$", first, re.MULTILINE)
    assert re.search(rf"^Gate +open: {interval}, whose lower end reaches 0$", first, re.MULTILINE)
    assert re.search(r"^PPO +reward -?[\d.]+ -> -?[\d.]+, KL -?[\d.e-]+ -> -?[\d.e-]+$", first, re.MULTILINE)
    assert len(re.findall(r"^prompt ", first, re.MULTILINE)) == 3
    assert len(re.findall(r"^after ", first, re.MULTILINE)) == 3


def test_pretraining_learned_something(first):
    metrics = summary.finished(run_of(first))["pretrain"][0].metrics
    assert metrics["heldout_perplexity_after"] < metrics["heldout_perplexity_before"]


def test_running_again_skips_everything_and_says_so(first, start):
    again = start()
    run = run_of(again)
    tasks = len(chain(run))
    assert run.uri != run_of(first).uri
    assert f"{tasks} of {tasks} tasks were done before with these settings and inputs, and were skipped." in again
    assert again.count("done before, skipped") == tasks


def test_lineage_leads_from_the_crawl_file_to_the_exported_model(first, crawl):
    run = run_of(first)
    traced = subprocess.run(
        [sys.executable, "-m", "contract", "lineage", "--store", run.recipe.store, f"file://{crawl}/a.warc.gz"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    # The demo names no curated source, none would come from a crawl file; it aligns by PPO, asks no benchmarks, has no
    # round of feedback, and compares no variants.
    not_crawled = ["curate", "dpo", "grpo", "benchmark", "sample", "probe", "ablate"]
    assert [name for name in STAGES if f"made {name} " not in traced.stdout] == not_crawled


def test_stop_leaves_nothing_running(first, home):
    assert server.processes(home)
    subprocess.run([sys.executable, "-m", "demo", "stop", "--where", home], cwd=ROOT, check=True, timeout=60)
    assert server.processes(home) == set()
