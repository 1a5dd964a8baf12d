"""What Spark needs of a machine is asked before Spark is: one line, in seconds, and the exit code that says whether a retry may help."""

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from contract.errors import GristmillError, RecipeError, SetupError
from contract.metrics import Progress
from contract.settings.spark import Spark
from pipelines.__main__ import main
from pipelines.spark.session import check_setup, masters, starting, watched


@pytest.fixture
def run(tmp_path: Path, resolve_run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`run({"spark.driver_memory": "2g"})`: the URI of a run in which nothing is done, where no Spark runs yet."""
    monkeypatch.setattr("pyspark.SparkContext._active_spark_context", None)
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    return lambda overrides: resolve_run(tmp_path / "crawl", overrides).uri


def fake_java(folder: Path, script: str) -> None:
    java = folder / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("stage", ["check", "crawl"])
def test_no_java(stage: str, run: Any, tmp_path: Path) -> None:
    """Without it the check and the stage end alike, and neither with a traceback."""
    clean = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"} | {"PATH": str(tmp_path)}
    command = [sys.executable, "-m", "pipelines", stage, "--recipe", run({})]
    done = subprocess.run(command, env=clean, capture_output=True, text=True)
    said = "error: Spark needs Java 17: java cannot be run (No such file or directory); install Java 17, or name its folder in JAVA_HOME\n"
    assert (done.returncode, done.stderr) == (78, said)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('echo "openjdk version \\"11.0.2\\" 2019" >&2', r"^Spark needs Java 17, and /.*/bin/java is Java 11; install Java 17"),
        ('echo "Error occurred during initialization of VM" >&2; exit 1', r"^spark\.driver_memory 600m: Java does not start with that \(Error occ"),
    ],
)  # fmt: skip
def test_a_java_that_will_not_do(script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path, script)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SetupError, match=message):
        check_setup(Spark(driver_memory="600m"))


def test_more_memory_than_the_machine_has(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    uri = run({"spark.driver_memory": "50t"})
    assert [main([stage, "--recipe", uri]) for stage in ("check", "crawl")] == [78, 78]
    lines = capsys.readouterr().err.splitlines()
    memory = psutil.virtual_memory().total / 2**30
    assert (
        lines
        == [f"error: spark.driver_memory 50t: this machine has {memory:.1f} GiB; set a smaller value, such as 2g"] * 2
    )


@pytest.mark.parametrize("master", ["spark://127.0.0.1:9", "k8s://https://127.0.0.1:9"])
def test_a_master_that_nobody_answers_at_is_worth_a_retry(
    master: str, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = run({"spark.master": master})
    assert [main([stage, "--recipe", uri]) for stage in ("check", "crawl")] == [1, 1]
    line = f"error: spark.master {master}: no server answers there; check that it runs, and the network (Connection refused)"
    assert capsys.readouterr().err.splitlines() == [line, line]


def test_a_master_that_answers_and_machines_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_setup(Spark(master=f"spark://127.0.0.1:9,127.0.0.1:{server.getsockname()[1]}"))
    check_setup(Spark(master="local[2]"))
    monkeypatch.setenv("HADOOP_CONF_DIR", "/etc/hadoop")
    check_setup(Spark(master="yarn"))
    monkeypatch.delenv("HADOOP_CONF_DIR")
    with pytest.raises(SetupError, match=r"^spark\.master yarn: set HADOOP_CONF_DIR"):
        check_setup(Spark(master="yarn"))


@pytest.mark.parametrize(
    ("master", "found"),
    [
        ("local[*]", []),
        ("yarn", []),
        ("spark://a:7077,b:7078", [("a", 7077), ("b", 7078)]),
        ("k8s://https://host:6443", [("host", 6443)]),
        ("k8s://host", [("host", 443)]),
        ("k8s://http://host/", [("host", 80)]),
    ],
)
def test_who_may_answer(master: str, found: list[tuple[str, int]]) -> None:
    assert masters(master) == found


def test_progress_is_what_spark_has_finished_since_the_last_look(capsys: pytest.CaptureFixture[str]) -> None:
    finished = iter([3, 5])
    tracker = SimpleNamespace(
        getJobIdsForGroup=lambda group: [1],
        getJobInfo=lambda job: SimpleNamespace(stageIds=[7, 8]),
        getStageInfo=lambda stage: SimpleNamespace(numCompletedTasks=next(finished)) if stage == 7 else None,
    )
    properties: dict[str, Any] = {}
    context = SimpleNamespace(
        statusTracker=lambda: tracker,
        setJobGroup=lambda group, said: properties.update({"spark.jobGroup.id": group, "said": said}),
        setLocalProperty=properties.__setitem__,
    )
    seen = []
    progress = Progress("crawl", "all", "parts", every_s=0.0)
    advance, progress.advance = progress.advance, lambda amount: (seen.append(amount), advance(amount))  # type: ignore[method-assign]
    with watched(context, progress):
        while not seen:
            time.sleep(0.05)
    assert seen == [3, 2]
    assert properties == {"spark.jobGroup.id": None, "said": "crawl all"}
    assert capsys.readouterr().out.splitlines()[-1].startswith("progress crawl all 5 parts ")


def test_a_port_that_cannot_be() -> None:
    with pytest.raises(RecipeError, match=r"^spark\.master spark://a:99999: Port out of range"):
        masters("spark://a:99999")


def test_what_spark_refuses_of_its_conf_is_one_line() -> None:
    class Thrown(Exception):
        class java_exception:
            @staticmethod
            def toString() -> str:
                return "java.lang.IllegalArgumentException: spark.memory.fraction\nshould be in (0, 1)"

    with pytest.raises(SetupError, match=r"^Spark does not start at local; check the section spark of the recipe, above all conf \(java[^\n]*\)$"), starting(Spark(master="local")):  # fmt: skip
        raise Thrown("An error occurred while calling None.org.apache.spark.api.java.JavaSparkContext.\n\tat ...")
    with pytest.raises(GristmillError, match=r"^Spark does not start") as caught, starting(Spark(master="local")):
        raise RuntimeError("[JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port number.")
    assert caught.value.exit_code == 1
