"""What the operator decides before it launches anything, what it launches, and what it makes of the child's end."""

import shlex
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from contract.errors import GristmillError, Interrupted, NotReadyError, RecipeError, StoreError
from contract.manifest import Attempt
from contract.stages import STAGES
from gristmill_airflow import stage
from gristmill_airflow.assets import CORPUS
from gristmill_airflow.launch import Child, check, child_environment, command, lock_path, verdict
from gristmill_airflow.stage import SLICES, StageOperator, publish, reported


@pytest.fixture
def run(tmp_path, resolve_run):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    return resolve_run(tmp_path / "crawl", {"pretrain.engine.processes": 2, "pretrain.batch": 16})


def test_what_the_check_reads_is_told(tmp_path, resolve_run):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    (tmp_path / "sums.jsonl").write_text('["Natalia sold clips to 48 of her friends in April"]\n')
    run = resolve_run(tmp_path / "crawl", {"decontaminate.benchmarks": {"sums": str(tmp_path / "sums.jsonl")}})
    assert check(run.uri)[:2] == [
        "benchmark sums: 1 items, 1 sought, 1 files read",
        "        1 items in sums.jsonl",
    ]
    (tmp_path / "sums.jsonl").write_text("")
    with pytest.raises(GristmillError, match=r"^decontaminate\.benchmarks\.sums: ") as refused:
        check(run.uri)
    assert refused.value.exit_code == 65


class Launched(Exception):
    pass


def execute(run, monkeypatch, name, **options):
    """Run the operator as Airflow would, up to the launch."""

    def launch(*_):
        raise Launched

    monkeypatch.setattr(StageOperator, "_launch", launch)
    monkeypatch.setattr(StageOperator, "dag_id", next(dag for dag, names in SLICES.items() if name in names))
    operator = StageOperator(stage=name, recipe=run.uri, **options)
    return StageOperator.execute.__wrapped__(operator, {"task": operator})


def commit(run, name, **metrics):
    task = run.task(name)
    Attempt(run, task).commit([], metrics=metrics)
    return f"{run.store.full(task.prefix)}/manifest.json"


def test_what_is_done_is_skipped(run, monkeypatch):
    uri = commit(run, "pretrain")
    assert execute(run, monkeypatch, "pretrain") == uri


def test_what_is_not_done_is_launched(run, monkeypatch):
    commit(run, "pack")
    commit(run, "tokenizer")
    with pytest.raises(Launched):
        execute(run, monkeypatch, "pretrain")


def test_a_missing_input_names_the_dag_to_start(run, monkeypatch):
    commit(run, "tokenizer")
    with pytest.raises(AirflowFailException, match="pack all is not done; start the DAG corpus for this crawl first"):
        execute(run, monkeypatch, "pretrain")


@pytest.mark.parametrize(("open_", "outcome"), [(False, AirflowSkipException), (True, Launched)])
def test_the_gate_decides_about_ppo_alone(run, monkeypatch, open_, outcome):
    for name in ("pack", "mix", "tokenizer", "pretrain"):
        commit(run, name)
    commit(run, "gate", open=open_, accuracy=0.5)
    with pytest.raises(outcome):
        execute(run, monkeypatch, "ppo", needs_open_gate=True)
    with pytest.raises(Launched):
        execute(run, monkeypatch, "reward")


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_its_command(run, name):
    task = next(task for task in run.tasks().values() if task.stage == name)
    text = shlex.join(command(run, task))
    if STAGES[name].plane == "spark":
        assert text.endswith(f"-m pipelines {name} --recipe {run.uri} --partition {task.partition}")
    else:
        assert text.endswith(f"training {name} --recipe {run.uri}")
    processes = {"pretrain": 2}.get(name, 1)
    assert ("deepspeed --num_accelerators" in text) == (STAGES[name].plane == "gpu")
    if STAGES[name].plane == "gpu":
        assert f"--num_accelerators {processes} " in text


def test_exit_codes():
    assert [verdict(code) for code in (0, 65, 78, 75, 1, 137)] == ["done", "fail", "fail", "resume", "retry", "retry"]


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (RecipeError("r"), AirflowFailException),
        (NotReadyError("n"), AirflowFailException),
        (StoreError("s"), AirflowException),
        (Interrupted("i"), Interrupted),
    ],
)
def test_errors_for_people_become_airflows(error, becomes):
    with pytest.raises(becomes) as caught, reported():
        raise error
    assert type(caught.value) is becomes
    assert str(caught.value) == str(error)


def test_locks_differ_between_tasks_and_stores(run, tmp_path, resolve_run):
    names = {lock_path(run, task) for task in run.tasks().values()}
    assert len(names) == len(run.tasks())
    elsewhere = stage.Run(run.uri, run.recipe.model_copy(update={"store": "/other"}), run.segments)
    assert lock_path(elsewhere, elsewhere.task("pack")) != lock_path(run, run.task("pack"))


def test_airflows_secrets_stay_with_airflow(monkeypatch):
    secrets = ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW_CONN_X", "AIRFLOW_VAR_X", "_AIRFLOW_WWW_USER_PASSWORD")
    for name in secrets:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    environment = child_environment()
    assert not set(secrets) & set(environment)
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"


def test_a_childs_output_and_error_line(tmp_path):
    child = Child(["sh", "-c", "echo one; echo; echo error: bad thing >&2; exit 65"], tmp_path / "a.lock", 5)
    assert list(child.lines()) == ["one", "error: bad thing"]
    assert (child.code, child.errors) == (65, ["bad thing"])


def test_publishing_carries_the_crawl_and_two_uris(run):
    keys = []
    event = SimpleNamespace(extra={}, add_partitions=keys.append)
    publish({"task": SimpleNamespace(outlets=[CORPUS]), "outlet_events": {CORPUS: event}}, run, "the-manifest")
    assert event.extra == {"recipe": run.uri, "manifest": "the-manifest"}
    assert keys == [run.segments[0].snapshot]


def test_an_operator_has_airflow_mask_the_secrets_of_its_source(run, monkeypatch):
    hidden = []
    monkeypatch.setattr(stage, "mask_secret", hidden.append)
    crawl = run.recipe.crawl.model_copy(update={"source": "https://me:geheim@host/x?sig=S3CRET"})
    secret = stage.Run(run.uri, run.recipe.model_copy(update={"crawl": crawl}), run.segments)
    monkeypatch.setattr(stage, "open_run", lambda uri: secret)
    commit(secret, "pretrain")
    execute(secret, monkeypatch, "pretrain")
    assert hidden == ["geheim", "sig=S3CRET", "S3CRET"]


def test_what_was_asked_for_as_long_as_a_person_waits_is_not_retried():
    with pytest.raises(AirflowFailException, match=r"^down$"), reported(again=False):
        raise StoreError("down")
