"""A small run over made-up crawl files, and a real S3 server: Ceph RGW where it is installed, moto's elsewhere."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.plan import Run, resolve
from contract.store import Store

CEPH_PORTS = (3310, 6799, 7480)
CEPH_SCRIPT = Path(__file__).parents[3] / "shared" / "tools" / "ceph_rgw.sh"


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Resolve a run of two crawl files in two segments; overrides as on the command line."""
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    for index in range(2):
        (crawl / f"part-{index}.warc.gz").write_bytes(b"WARC" * (index + 1))
        os.utime(crawl / f"part-{index}.warc.gz", (1_710_000_000, 1_710_000_000))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: test\nstore: {tmp_path}/store\ncrawl:\n  source: {crawl}\n  files_per_segment: 1\n")

    def make(*overrides: str, run: str = "one") -> Run:
        return resolve(str(recipe), run, overrides)

    return make


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """(endpoint, key, secret) of a server that lives as long as the tests."""
    if CEPH_SCRIPT.exists() and all(
        shutil.which(name) for name in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
    ):
        folder = tmp_path_factory.mktemp("ceph")
        subprocess.run(["bash", str(CEPH_SCRIPT), str(folder)], check=True, timeout=120, capture_output=True)
        yield "http://127.0.0.1:7480", "AK", "SKSKSKSK"
        for file in folder.glob("*.pid"):
            os.kill(int(file.read_text()), signal.SIGKILL)
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
