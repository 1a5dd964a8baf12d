"""Starts the Spark session of a stage, reports its progress, and turns its errors into messages for people."""

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from contract import errors
from contract.metrics import Progress
from contract.plan import Run, Task
from contract.settings.spark import Spark, memory_bytes
from contract.store import explain

LOG = Path(__file__).parent / "log4j2.properties"
LOCAL = {
    "spark.driver.host": "127.0.0.1",  # on a cluster, the driver must listen on the network
    "spark.shuffle.compress": "false",  # saves no network traffic here; enable it in `spark.conf` if the disk is small
    "spark.executorEnv.MALLOC_MMAP_MAX_": "0",  # a worker reuses the memory pages of freed arrays
    "spark.executorEnv.MALLOC_TRIM_THRESHOLD_": str(512 << 20),
}
JAVA = 17  # the oldest version that Spark 4 supports
INSTALL = f"install Java {JAVA}, or name its folder in JAVA_HOME"
JVM = "-XX:TieredStopAtLevel=1"  # the JVM only moves bytes: the optimizing compiler would take two cores and gain less


def start_context(run: Run, task: Task) -> Any:
    """Start a Spark context with the recipe's settings, or return the running one.

    Workers run this Python interpreter, so it and this code must be at the same paths on their machines.
    """
    from pyspark import SparkConf, SparkContext  # a JVM starts here: only stages that need Spark pay for it

    if SparkContext._active_spark_context is None:
        check_setup(run.recipe.spark)
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    conf = SparkConf().setAppName(f"gristmill {task.stage} {task.partition}").setMaster(run.recipe.spark.master)
    conf.setAll(list(_properties(run).items()))
    with starting(run.recipe.spark):
        context = SparkContext.getOrCreate(conf)
    context.setLogLevel("ERROR")
    return context


def check_setup(settings: Spark) -> None:
    """Check within seconds that Spark can start; Spark itself would try for a minute and then print long traces.

    Raises SetupError if Java cannot start as the driver, GristmillError if no server answers at the master.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory_bytes(settings.driver_memory) > memory:  # Java would start, then die when it uses that much
        raise errors.SetupError(
            f"spark.driver_memory {settings.driver_memory}: "
            f"this machine has {memory / (1 << 30):.1f} GiB; set a smaller value, such as 2g"
        )
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else "java"
    try:
        java_says = subprocess.run([java, f"-Xmx{settings.driver_memory}", "-version"], capture_output=True, text=True)
    except OSError as error:
        raise errors.SetupError(
            f"Spark needs Java {JAVA}: {java} cannot be run ({error.strerror}); {INSTALL}"
        ) from None
    if java_says.returncode:
        why = next(filter(None, java_says.stderr.splitlines()), f"exit code {java_says.returncode}")
        raise errors.SetupError(
            f"spark.driver_memory {settings.driver_memory}: Java does not start with that ({why}); "
            "set a smaller value, such as 2g"
        )
    version = re.search(r'version "(\d+)', java_says.stderr)
    if version and int(version[1]) < JAVA:
        raise errors.SetupError(f"Spark needs Java {JAVA}, and {java} is Java {version[1]}; {INSTALL}")
    if not shutil.which("bash"):
        raise errors.SetupError("Spark is started by bash, which is not on the PATH; install it")
    if settings.master == "yarn" and not {"HADOOP_CONF_DIR", "YARN_CONF_DIR"} & os.environ.keys():
        raise errors.SetupError("spark.master yarn: set HADOOP_CONF_DIR to the folder of YARN's configuration")
    if hosts := masters(settings.master):
        _ask(settings.master, hosts)


def masters(master: str) -> list[tuple[str, int]]:
    """(host, port) of each server that a `spark.master` names.

    Empty if Spark needs no server or finds it by itself. Raises RecipeError for an invalid address.
    """
    scheme, _, rest = master.partition("://")
    if scheme == "spark":
        places = [urlsplit(f"//{address}") for address in rest.split(",")]
    elif scheme == "k8s":
        places = [urlsplit(rest if "://" in rest else f"https://{rest}")]
    else:
        return []
    try:
        return [
            (address.hostname or "", address.port or (80 if address.scheme == "http" else 443)) for address in places
        ]
    except ValueError as error:
        raise errors.RecipeError(f"spark.master {master}: {error}") from None


def _ask(master: str, hosts: list[tuple[str, int]]) -> None:
    why = ""
    for host in hosts:
        try:
            socket.create_connection(host, timeout=5).close()
            return
        except OSError as error:
            why = error.strerror or str(error)
    raise errors.GristmillError(
        f"spark.master {master}: no server answers there; check that it runs, and the network ({why})"
    )


@contextmanager
def starting(settings: Spark) -> Iterator[None]:
    """Turns any error at the start of a session into one line.

    Raises SetupError if Spark rejects its settings, and GristmillError for other failures, which a retry may fix.
    """
    try:
        yield
    except Exception as error:
        why = _java_message(error) or str(error)
        kind = errors.SetupError if "IllegalArgumentException" in why else errors.GristmillError
        raise kind(
            f"Spark does not start at {settings.master}; check the section spark of the recipe, above all conf ({why})"
        ) from None


def _java_message(error: Exception) -> str:
    """The message of a Java exception, without its stack trace; empty for other exceptions."""
    thrown = getattr(error, "java_exception", None)
    return str(thrown.toString()) if thrown is not None else ""


def start_spark(run: Run, task: Task) -> Any:
    """Start a session, for work on tables. It takes a second or two more than the context alone."""
    from pyspark.sql import SparkSession

    start_context(run, task)
    return SparkSession.builder.getOrCreate()


def is_local(master: str) -> bool:
    """Whether driver and workers share one machine and Spark does not retry failed tasks.

    False for `local-cluster`, which retries them.
    """
    return master == "local" or master.startswith("local[")


def _properties(run: Run) -> dict[str, str]:
    settings = run.recipe.spark
    local = is_local(settings.master)
    return {
        **(LOCAL if local else {}),
        "spark.driver.memory": settings.driver_memory,
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG.as_uri()} {JVM if local else ''}".rstrip(),
        "spark.driver.maxResultSize": "0",  # no limit (Spark's default: 1 GiB): each stage bounds what it collects
        "spark.executor.memory": settings.executor_memory,
        "spark.executorEnv.TOKENIZERS_PARALLELISM": "false",  # there is a worker for each core already
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        **settings.conf,
    }


@contextmanager
def watched(context: Any, progress: Progress) -> Iterator[None]:
    """Reports how many tasks of the jobs started inside the block Spark has finished.

    Polls Spark's status, so that no worker has to wait for the report.
    """
    group = uuid.uuid4().hex
    context.setJobGroup(group, f"{progress.stage} {progress.partition}")
    ended = threading.Event()

    def look() -> None:
        tracker = context.statusTracker()
        jobs = [job for number in tracker.getJobIdsForGroup(group) if (job := tracker.getJobInfo(number))]
        stages = [stage for job in jobs for number in job.stageIds if (stage := tracker.getStageInfo(number))]
        progress.advance(max(0, sum(stage.numCompletedTasks for stage in stages) - progress.done))

    def poll() -> None:
        while not ended.wait(0.5):
            look()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
        ended.set()
        thread.join()
        look()
        progress.done = progress.total or progress.done
    finally:
        ended.set()
        thread.join()
        context.setLocalProperty("spark.jobGroup.id", None)
        progress.finish()


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turns OSError and ArrowException from work on open files at or below `uri` into StoreError.

    Examples are a full disk and a lost connection to the store.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if not isinstance(error, OSError):  # may be a defect in this code: Arrow raises the same errors for it
            traceback.print_exc()
        raise errors.StoreError(explain(uri, error)) from error


@contextmanager
def worker_errors() -> Iterator[None]:
    """Unwraps the GristmillError of a worker from Spark's error; a full scratch disk becomes a StoreError."""
    try:
        yield
    except errors.GristmillError:
        raise
    except Exception as error:
        match = re.search(r"^contract\.errors\.(\w+): (.+)$", str(error), re.MULTILINE)
        if match:
            raise getattr(errors, match[1])(match[2]) from None
        if os.strerror(errno.ENOSPC) in str(error):  # on the disk of Spark's own scratch files
            raise errors.StoreError(explain("spark.local.dir", OSError(errno.ENOSPC, ""))) from error
        raise


@contextmanager
def computing(context: Any, task: Task) -> Iterator[None]:
    """For code that makes Spark compute a `Job.read_table`: reports progress in tasks and applies `worker_errors`."""
    with worker_errors(), watched(context, Progress(task.stage, task.partition, "tasks")):
        yield
