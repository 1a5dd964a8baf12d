"""What the operator decides before it launches anything, what it launches, and what it makes of the child's end."""

import fcntl
import logging
import os
import shlex
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from contract import approval
from contract.errors import GristmillError, Interrupted, NotReadyError, RecipeError, StoreError
from contract.manifest import Attempt, find
from contract.results import result_of
from contract.stages import STAGES
from gristmill_airflow import launch, stage
from gristmill_airflow.assets import CORPUS
from gristmill_airflow.launch import (
    Child,
    accelerators,
    check,
    child_environment,
    command,
    device_locks,
    lock_path,
    verdict,
)
from gristmill_airflow.stage import StageOperator, publish, reported


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


@pytest.fixture
def xcoms():
    """What the task under test has published, by key."""
    return {}


@pytest.fixture
def pushed():
    """The same, as (key, value) in the order of publication."""
    return []


@pytest.fixture
def execute(run, monkeypatch, xcoms, pushed):
    """`execute("ppo", **options)`: run the operator as Airflow would; up to the launch, unless told `commands`, the children's arguments."""

    def call(name, commands=None, **options):
        def no_launch(*_):
            raise Launched

        if commands is None:
            monkeypatch.setattr(StageOperator, "_launch", no_launch)
        else:
            monkeypatch.setattr(stage, "command", lambda *_: commands)
        monkeypatch.setattr(StageOperator, "log", logging.getLogger("task"))  # Airflow's own goes past `caplog`
        monkeypatch.setattr(StageOperator, "dag_id", STAGES[name].dag)
        operator = StageOperator(stage=name, recipe=run.uri, **options)
        ti = SimpleNamespace(xcom_push=lambda key, value: (xcoms.update({key: value}), pushed.append((key, value))))
        return StageOperator.execute.__wrapped__(operator, {"task": operator, "ti": ti})

    return call


def commit(run, name, **metrics):
    task = run.task(name)
    Attempt(run, task).commit([], result=result_of(name).model_construct(**metrics))
    return f"{run.store.full(task.prefix)}/manifest.json"


def test_what_is_done_is_skipped_and_says_its_figures_again(run, execute, xcoms, caplog):
    uri = commit(run, "pretrain", heldout_perplexity_before=4138.2, heldout_perplexity_after=203.6)
    with caplog.at_level("INFO"):
        assert execute("pretrain") == uri
    assert caplog.messages[-1] == f"done already, skipped: held-out perplexity 4,138 -> 204 ({uri})"
    assert xcoms == {
        "summary": "held-out perplexity 4,138 -> 204",
        "figures": {"heldout_perplexity_before": 4138.2, "heldout_perplexity_after": 203.6},
    }


def test_what_is_done_warns_again(run, execute, caplog):
    commit(run, "evaluate", perplexity_pretrain=455.0, perplexity_sft=514.0, worse_sft=True)
    execute("evaluate")
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["warning: sft is worse than pretrain beyond noise: held-out perplexity 455 -> 514"]


def test_a_result_that_is_older_than_ppo_warns(run, execute, caplog):
    uri = commit(run, "evaluate", perplexity_pretrain=455.0)
    execute("evaluate")
    assert "PPO" not in caplog.text
    commit(run, "ppo", reward_first=0.0)
    assert execute("evaluate") == uri
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == [
        f"warning: made before PPO was done, so it lacks the PPO model; delete {uri} and clear this task to include it"
    ]


def test_what_is_not_done_is_launched(run, execute):
    commit(run, "pack")
    commit(run, "tokenizer")
    with pytest.raises(Launched):
        execute("pretrain")


def test_a_missing_input_names_the_dag_to_start(run, execute):
    commit(run, "tokenizer")
    with pytest.raises(AirflowFailException, match="pack all is not done; start the DAG corpus for this crawl first"):
        execute("pretrain")


@pytest.mark.parametrize(("open_", "outcome"), [(False, AirflowSkipException), (True, Launched)])
def test_the_gate_decides_about_ppo_alone(run, execute, xcoms, caplog, open_, outcome):
    for name in ("pack", "preferences", "prompts", "instructions", "tokenizer", "pretrain"):
        commit(run, name)
    commit(run, "gate", open=open_, accuracy=0.6, low=0.502, high=0.691, threshold=0.55)
    with pytest.raises(outcome) as ended, caplog.at_level("INFO"):
        execute("ppo", needs_open_gate=True)
    if not open_:
        figures = "held-out accuracy 0.6, confidence interval 0.502 to 0.691, whose lower end is under 0.55"
        assert str(ended.value) == f"PPO is left out, because the gate is closed: {figures}"
        assert caplog.messages[-1] == str(ended.value) == xcoms["summary"]
    with pytest.raises(Launched):
        execute("reward")


CHILD = """
import sys
from contract.manifest import Attempt
from contract.plan import open_run
from contract.results import Pretrain
run = open_run({uri!r})
print("WARNING:root:careful")
print("progress pretrain all 1/2 steps 1.0/s")
Attempt(run, run.task("pretrain")).commit([], result=Pretrain.model_construct(heldout_perplexity_before=9.0, heldout_perplexity_after=8.0))
print("said after the commit")
"""


@pytest.fixture
def launched(run, execute, monkeypatch, tmp_path):
    """`launched(code)`: a pretraining task whose child runs this Python code."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("GRISTMILL_LOCKS", str(tmp_path))
    for name in ("pack", "tokenizer"):
        commit(run, name)
    return lambda code: execute("pretrain", [sys.executable, "-c", code])


def test_a_stage_ends_its_log_with_its_figures_and_keeps_its_childs_levels(run, launched, xcoms, caplog, tmp_path):
    with caplog.at_level("INFO"):
        uri = launched(CHILD.format(uri=run.uri))
    said = [(one.levelname, one.getMessage()) for one in caplog.records if one.name == "task"]
    assert said[-4:] == [
        ("WARNING", "WARNING:root:careful"),
        ("INFO", "progress pretrain all 1/2 steps 1.0/s"),
        ("INFO", "said after the commit"),
        ("INFO", "held-out perplexity 9 -> 8"),
    ]
    assert xcoms["summary"] == "held-out perplexity 9 -> 8"
    assert xcoms["figures"] == {"heldout_perplexity_before": 9.0, "heldout_perplexity_after": 8.0}
    assert uri.endswith("/all/manifest.json")
    assert (tmp_path / "gristmill-cpu.lock").exists()


def test_a_stage_that_waits_for_the_accelerator_says_for_whom(run, launched, caplog, tmp_path, pushed):
    with (tmp_path / "gristmill-cpu.lock").open("w") as held:
        held.write("ppo all of file:///runs/x/recipe.yaml, process 7")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        release = threading.Timer(1.5, held.close)
        release.start()
        with caplog.at_level("INFO"):
            launched(CHILD.format(uri=run.uri))
        release.join()
    waits = "supervisor: cpu of this machine is in use by ppo all of file:///runs/x/recipe.yaml, process 7; this task goes on when that has ended"
    assert caplog.messages.index(waits) < caplog.messages.index("said after the commit")
    assert [value for key, value in pushed if key == "waits"] == ["the cpu of its machine, in use by ppo all", ""]


@pytest.mark.parametrize(
    ("code", "outcome", "reason"),
    [
        (
            "import os; os.kill(os.getpid(), 9)",
            AirflowException,
            "pretrain was killed by signal 9 (SIGKILL), often out of memory",
        ),
        ("raise SystemExit(247)", AirflowException, "pretrain was killed by signal 9 (SIGKILL), often out of memory"),
        ("raise SystemExit(3)", AirflowException, "pretrain ended with exit code 3"),
        ("print('error: first'); print('error: no text'); raise SystemExit(65)", AirflowFailException, "no text"),
        ("raise SystemExit(75)", Interrupted, "pretrain ended with exit code 75"),
        ("pass", AirflowException, "pretrain ended without an error but left no manifest at "),
    ],
)
def test_what_a_childs_end_means_for_the_task(launched, xcoms, code, outcome, reason):
    with pytest.raises(outcome) as ended:
        launched(code)
    assert type(ended.value) is outcome
    assert str(ended.value).startswith(reason)
    assert xcoms == {}


def test_a_killed_task_stops_its_child(run, launched, monkeypatch):
    """Airflow calls `on_kill` from a signal handler while `execute` reads the child's lines."""
    made = []
    monkeypatch.setattr(stage, "Child", lambda *given: made.append(Child(*given)) or made[0])
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); print('up', flush=True); time.sleep(60)"
    stopper = threading.Timer(3, lambda: StageOperator.on_kill(SimpleNamespace(_child=made[0])))
    stopper.start()
    with pytest.raises(Interrupted):
        launched(code)
    made[0].stop()  # of one that has ended: nothing happens


def test_a_benchmark_is_launched_with_its_partition(tmp_path, run, resolve_run):
    (tmp_path / "items.jsonl").write_text("{}")
    given = {"benchmark.tasks": {"mmlu": {"items": f"{tmp_path}/items.jsonl"}}, "benchmark.engine.processes": 2}
    run = resolve_run(tmp_path / "crawl", given, "two")
    text = shlex.join(command(run, run.task("benchmark", "sft.mmlu")))
    assert text.endswith(f"training benchmark --recipe {shlex.quote(run.uri)} --partition sft.mmlu")
    assert "deepspeed --num_accelerators 2 " in text


@pytest.mark.parametrize("name", [name for name in STAGES if STAGES[name].scope != "model"])
def test_every_stage_has_its_command(run, name):
    task = next(task for task in run.tasks().values() if task.stage == name)
    text = shlex.join(command(run, task))
    if STAGES[name].plane == "spark":
        assert text.endswith(f"-m pipelines {name} --recipe {shlex.quote(run.uri)} --partition {task.partition}")
    else:
        assert text.endswith(f"training {name} --recipe {shlex.quote(run.uri)}")
    if STAGES[name].plane == "gpu":
        assert "--log_level error" in text
    processes = {"pretrain": 2}.get(name, 1)
    assert ("deepspeed --num_accelerators" in text) == (STAGES[name].plane == "gpu")
    if STAGES[name].plane == "gpu":
        assert f"--num_accelerators {processes} " in text
        assert " --hostfile /dev/null " in text, "what lies at /job/hostfile decides nothing"


@pytest.fixture
def gpus(monkeypatch):
    """`gpus(visible)`: a machine with an NVIDIA driver, and CUDA_VISIBLE_DEVICES, None to leave that unset."""

    def make(visible=None):
        monkeypatch.setattr(launch, "NVIDIA", Path("/dev/null"))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


@pytest.mark.parametrize(("visible", "used"), [(None, [0, 1]), ("0,1", [0, 1]), ("5, 3,2", [5, 3])])
def test_a_training_stage_takes_as_many_accelerators_as_it_has_processes(run, gpus, visible, used):
    gpus(visible)
    assert accelerators(2) == used
    task = run.task("pretrain")
    assert [path.name for path in device_locks(run, task)] == [f"gristmill-gpu-{number}.lock" for number in used]
    where = ["--num_accelerators", "2"] if used == [0, 1] else ["--include", "localhost:5,3"]
    assert command(run, task)[1:3] == where
    assert len(device_locks(run, run.task("sft"))) == 1
    assert all(device_locks(run, one) == [] for one in run.tasks().values() if STAGES[one.stage].plane != "gpu")


@pytest.mark.parametrize("visible", ["", "-1"])
def test_a_machine_whose_devices_are_hidden_trains_on_its_cpu(run, gpus, visible):
    gpus(visible)
    assert accelerators(2) == []
    assert [path.name for path in device_locks(run, run.task("pretrain"))] == ["gristmill-cpu.lock"]


@pytest.mark.parametrize(
    ("visible", "reason"),
    [
        ("3", r"^CUDA_VISIBLE_DEVICES=3 names 1 devices, engine.processes asks for 2; lower it or name more devices$"),
        ("GPU-8932f937,0", r"^CUDA_VISIBLE_DEVICES=GPU-8932f937,0: name the devices by number, for example 0,1$"),
    ],
)
def test_devices_that_cannot_be_used_are_refused(run, gpus, visible, reason):
    gpus(visible)
    for ask in (command, device_locks):
        with pytest.raises(RecipeError, match=reason):
            ask(run, run.task("pretrain"))


def test_a_machine_without_accelerators_has_one_lock_whatever_is_visible(run, monkeypatch):
    monkeypatch.setattr(launch, "NVIDIA", Path("/nowhere"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    locks = {path for name in ("pretrain", "sft", "evaluate") for path in device_locks(run, run.task(name))}
    assert locks == {Path(launch.DEVICE_LOCKS, "gristmill-cpu.lock")}
    assert command(run, run.task("pretrain"))[1:3] == ["--num_accelerators", "2"]


def test_device_locks_meet_whatever_a_tasks_home_and_temporary_folder(run, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert device_locks(run, run.task("sft")) == [Path("/tmp/gristmill-cpu.lock")]


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
    script = "echo one; echo; echo error: bad thing >&2; exit 65"
    child = Child(["sh", "-c", script], tmp_path / "a.lock", 5, "a", [tmp_path / "gpu-0", tmp_path / "gpu-1"])
    assert list(child.lines()) == ["one", "error: bad thing"]
    assert (child.code, child.errors) == (65, ["bad thing"])
    assert (tmp_path / "gpu-0").exists()
    assert (tmp_path / "gpu-1").exists()


def test_what_a_page_says_forges_no_line_of_a_childs_output(tmp_path):
    """Only a line feed ends a line: the `\\r` of a URL would else begin one that fails the task in other words."""
    said = "crawl http://a.test/\\rerror: forged\\x1b[2J\\u202e\\x85error: again\\n\\tindented\\r\\nerror: real\\n"
    script = f"import os; os.write(1, '{said}'.encode())"
    child = Child([sys.executable, "-c", script], tmp_path / "a.lock", 5, "a")
    assert list(child.lines()) == [
        r"crawl http://a.test/\rerror: forged\x1b[2J\u202e\x85error: again",
        "        indented",
        "error: real",
    ]
    assert child.errors == ["real"]


def test_what_the_check_says_is_split_at_line_feeds_alone(monkeypatch):
    ended = SimpleNamespace(returncode=0, stdout=b"a\rerror: b\n\xe2\x80\xa8c\n", stderr=b"")
    monkeypatch.setattr("gristmill_airflow.launch.subprocess.run", lambda *_, **__: ended)
    assert check("x") == [r"a\rerror: b", r"\u2028c"]
    ended.stdout = b""
    assert check("x") == []
    ended.returncode, ended.stderr = 65, b"noise\nerror: x\rerror: forged\n"
    with pytest.raises(GristmillError, match=r"^x\\rerror: forged$") as refused:
        check("x")
    assert refused.value.exit_code == 65


def test_a_child_has_a_session_of_its_own_none_of_airflows_secrets_and_may_print_anything(tmp_path, monkeypatch):
    """Airflow kills a task's whole session, and the child needs its grace period."""
    monkeypatch.setenv("AIRFLOW_CONN_X", "secret")
    script = "import os; print(os.getsid(0), os.environ.get('AIRFLOW_CONN_X')); os.write(1, bytes([0xff, 10]))"
    session, replaced = Child([sys.executable, "-c", script], tmp_path / "a.lock", 5, "a").lines()
    assert session.split()[0] != str(os.getsid(0))
    assert session.split()[1] == "None"
    assert replaced == "\N{REPLACEMENT CHARACTER}"


def test_two_runs_on_a_machine_meet_on_ports_of_their_own(run):
    task = run.task("pretrain")
    ports = [(words := command(run, task))[words.index("--master_port") + 1] for _ in range(3)]
    assert len(set(ports)) > 1


def test_publishing_carries_the_crawl_two_uris_and_at_most_six_figures(run):
    keys = []
    event = SimpleNamespace(extra={}, add_partitions=keys.append)
    context = {"task": SimpleNamespace(outlets=[CORPUS]), "outlet_events": {CORPUS: event}}
    uri = commit(run, "reward", accuracy=0.7, accuracy_low=0.6, accuracy_high=0.8, pairs=20)
    commit(run, "gate", open=True, accuracy=0.9, low=0.6, high=0.8, threshold=0.55)
    publish(context, run, *(find(run.store, run.task(name)) for name in ("reward", "gate")))
    assert event.extra == {
        "recipe": run.uri,
        "manifest": uri,
        "summary": "held-out accuracy 0.7, confidence interval 0.6 to 0.8",
        "figures": {"accuracy": 0.7, "accuracy_low": 0.6, "accuracy_high": 0.8, "pairs": 20, "open": True, "low": 0.6},
    }
    assert keys == [run.segments[0].snapshot]


def test_a_refused_ppo_is_skipped_and_says_who_refused_it(run, execute, xcoms):
    for name in ("pack", "preferences", "prompts", "instructions", "tokenizer", "pretrain"):
        commit(run, name)
    commit(run, "gate", open=True, accuracy=0.6, low=0.602, high=0.691, threshold=0.55)
    approval.refuse(run.store, run.task("ppo"), approval.Refusal("ann", "2026-11-22"))
    with pytest.raises(AirflowSkipException, match=r"^PPO is left out, because ann rejected it \(2026-11-22\)$"):
        execute("ppo", needs_open_gate=True)
    assert xcoms["summary"] == "PPO is left out, because ann rejected it (2026-11-22)"
    with pytest.raises(Launched):
        execute("ppo")


def test_an_operator_has_airflow_mask_the_secrets_of_its_source(run, monkeypatch, execute):
    hidden = []
    monkeypatch.setattr(stage, "mask_secret", hidden.append)
    crawl = run.recipe.crawl.model_copy(update={"source": "https://me:geheim@host/x?sig=S3CRET"})
    secret = stage.Run(run.uri, run.recipe.model_copy(update={"crawl": crawl}), run.segments)
    monkeypatch.setattr(stage, "open_run", lambda uri: secret)
    commit(secret, "pretrain")
    execute("pretrain")
    assert hidden == ["geheim", "sig=S3CRET", "S3CRET"]


def test_what_was_asked_for_as_long_as_a_person_waits_is_not_retried():
    with pytest.raises(AirflowFailException, match=r"^down$"), reported(again=False):
        raise StoreError("down")


def test_a_stage_in_whose_place_another_aligns_is_skipped(run, execute, xcoms):
    commit(run, "gate", open=True, accuracy=0.9, low=0.8, high=0.95, threshold=0.5)
    with pytest.raises(AirflowSkipException, match="the recipe aligns by ppo"):
        execute("dpo", needs_open_gate=True)
    assert xcoms == {"summary": "the recipe aligns by ppo"}
