"""What tests of several planes share: the folder of real pages, an empty store, runs of single stages on a real Spark, and a real S3 server.

The server is Ceph RGW where that is installed, moto's elsewhere.
"""

import fcntl
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler
from threading import Thread
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from contract.manifest import Attempt, Manifest, need
from contract.plan import WHOLE, Run, resolve
from contract.stages import STAGES
from contract.store import Store
from tests.declared import only_declared

# Airflow reads these when it is first imported, and makes files in its home: never in a developer's own.
AIRFLOW_HOME = tempfile.TemporaryDirectory(prefix="gristmill-airflow-")
os.environ |= {"AIRFLOW_HOME": AIRFLOW_HOME.name, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

# A deadline for one example would fail on a busy machine, or where a kernel is compiled first.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

TESTS = Path(__file__).parent
DATA = Path(os.environ.get("GRISTMILL_TEST_DATA") or TESTS.parents[1] / "shared" / "data")

SHARED = "GRISTMILL_TESTS_SHARED"
CEPH_SCRIPT = TESTS.parents[1] / "shared" / "tools" / "ceph_rgw.sh"


TOGETHER = {"demo": "airflow", "pipelines": "contract"}
"""Folder -> folder whose process also runs its tests: one Airflow at a time is enough for two cores, and
so is one Spark session beside it."""


LONGEST = ("airflow", "contract", "training", "perf", "reports", "plugins")
"""Processes that take longest, which begin first, so that no process waits long for the last."""


def scope(nodeid: str) -> str:
    """Tests with the same scope run in one process, because they share a live server, a store or a Spark session."""
    folder = nodeid.partition("::")[0].split("/")[1]
    return TOGETHER.get(folder, folder)


class ByFolder(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes are handed their scopes in the order of the tests."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(scope(item.nodeid), len(places)))


def pytest_sessionstart() -> None:
    """Collecting imports all that the tests need and makes thousands of items, none of which is garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What is there lives to the end. Unfrozen, each `gc.collect`, which DeepSpeed calls often, would take a second to look at it."""
    gc.freeze()
    gc.enable()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    return ByFolder(config, log)


def pytest_make_parametrize_id(val: Any, argname: str) -> str | None:
    """Bytes are named by their argument: packed ones may hold the time, and every process must find the same tests."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real captures and benchmark files, which are not part of the project."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; name its folder in GRISTMILL_TEST_DATA")
    return DATA


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[..., BaseRequestHandler]], str]]:
    """`serve(Handler)`: the URL of a server on loopback that answers with this handler until the test ends."""
    with ExitStack() as running:

        def start(handler: Callable[..., BaseRequestHandler]) -> str:
            server = running.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            server.daemon_threads = True  # what a client left hanging does not hold up the end
            thread = Thread(target=server.serve_forever)
            thread.start()
            running.callback(thread.join)
            running.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start


@pytest.fixture
def tmp_store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return Store(str(tmp_path / "store"))


@pytest.fixture
def resolve_run(tmp_path: Path) -> Callable[..., Run]:
    """`resolve_run(folder, {"filter.min_words": 3}, name="one")`: a run of two Spark cores over a folder of crawl files."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: test\nstore: {tmp_path}/store\nspark: {{master: 'local[2]', driver_memory: 1g, shuffle_partitions: 2}}\n"
    )

    def make(crawl: Path | str, overrides: Mapping[str, Any] | None = None, name: str = "one") -> Run:
        given = {"crawl.source": str(crawl), **(overrides or {})}
        return resolve(str(recipe), name, [f"{key}={json.dumps(value)}" for key, value in given.items()])

    return make


@pytest.fixture
def run_stage(spark_stops: None) -> Callable[..., list[Manifest]]:
    """`run_stage(run, "extract")` runs a stage of the Spark plane over all its partitions and returns their manifests."""
    from pipelines.spark.job import Job

    def execute(run: Run, stage: str) -> list[Manifest]:
        whole = STAGES[stage].scope == "corpus"
        tasks = [run.task(stage, name) for name in ([WHOLE] if whole else [one.partition for one in run.segments])]
        for task in tasks:
            importlib.import_module(f"pipelines.{stage}").run(Job(only_declared(run, stage), task, Attempt(run, task)))
        return [need(run.store, task) for task in tasks]

    return execute


@pytest.fixture(scope="session")
def spark_stops() -> Iterator[None]:
    """One Spark session serves all tests (a stage takes the running one); it ends with them."""
    yield
    if "pyspark" in sys.modules:
        from pyspark.sql import SparkSession

        active = SparkSession.getActiveSession()
        if active is not None:
            active.stop()


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def pytest_configure(config: pytest.Config) -> None:
    """Name a folder for what all processes of the tests share. The first process makes it, and the others inherit its name."""
    if not hasattr(config, "workerinput"):
        os.environ[SHARED] = tempfile.mkdtemp(prefix="gristmill-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End Ceph, if a test has started it, once all processes are done."""
    if not hasattr(config, "workerinput"):
        for file in Path(os.environ[SHARED]).glob("ceph/*.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)
        shutil.rmtree(os.environ[SHARED], ignore_errors=True)


def start_ceph() -> None:
    """Start the one Ceph of all processes, unless it is up: its ports are fixed."""
    shared = Path(os.environ[SHARED])
    with (shared / "ceph.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "ceph.up").exists():
            made = subprocess.run(["bash", str(CEPH_SCRIPT), str(shared / "ceph")], timeout=120, capture_output=True)
            assert made.returncode == 0, made.stderr.decode()
            (shared / "ceph.up").touch()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[tuple[str, str, str]]:
    """(endpoint, key, secret) of a server that lives as long as the tests."""
    if CEPH_SCRIPT.exists() and all(
        shutil.which(name) for name in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
    ):
        start_ceph()
        yield "http://127.0.0.1:7480", "AK", "SKSKSKSK"
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(200):
        if _taken(port):
            break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}", "AK", "SKSKSKSK"
    server.kill()
    server.wait()


@pytest.fixture
def s3_store(
    s3_endpoint: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Store:
    """An empty prefix in a bucket of the test server, with the environment that a user would set."""
    import boto3

    endpoint, key, secret = s3_endpoint
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="gristmill")
    return Store(f"s3://gristmill/{request.node.name.replace('[', '-').replace(']', '')}-{time.time_ns()}")
