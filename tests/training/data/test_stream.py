"""Byte ranges through a bounded cache, and results made ahead of their use."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract.errors import DamagedError, StoreError
from contract.kinds import Kind
from contract.manifest import File
from contract.store import Store
from perf.slow_store import Asked, slow_store
from training.data.stream import Ranges, ahead
from training.engine.scratch import Scratch

BYTES = random.Random(0).randbytes(10_000)
FILE = File(path="a.bin", kind=Kind.TOKENS, bytes=len(BYTES))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """A store `s3://corpus` of one file."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("GRISTMILL_SCRATCH", str(tmp_path / "scratch"))
    Store(str(tmp_path / "served" / "corpus")).write_bytes("a.bin", BYTES)
    with slow_store(tmp_path / "served", 0.01) as (endpoint, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield asked


def ranges(limit: int = 4096, name: str = "one") -> Ranges:
    return Ranges(Scratch(Store("s3://corpus"), "pretrain", name), limit, chunk=1000)


def held(some: Ranges) -> int:
    return sum(path.stat().st_size for path in some._place(FILE, 0).parent.iterdir())


def test_any_range_is_read_and_the_cache_stays_below_its_bound(served: Asked) -> None:
    some = ranges()
    for start, stop in [(0, 1), (999, 1001), (0, 10_000), (9_999, 10_000), (2_500, 7_100), (300, 300)]:
        some.fetch([(FILE, start, stop)])
        assert held(some) <= 4096
        assert some.read(FILE, start, stop) == BYTES[start:stop]
        assert held(some) <= 4096


def test_what_is_held_is_not_fetched_again_and_the_oldest_goes_first(served: Asked) -> None:
    some = ranges()
    for at in range(4):
        some.read(FILE, at * 1000, at * 1000 + 10)
    assert served.sent[".bin"] == 4000
    some.read(FILE, 0, 4000)
    assert served.sent[".bin"] == 4000
    some.read(FILE, 4000, 4001)
    some.read(FILE, 1000, 5000)
    assert served.sent[".bin"] == 5000
    some.read(FILE, 0, 1)
    assert served.sent[".bin"] == 6000


def test_readers_of_one_machine_fetch_a_chunk_once(served: Asked) -> None:
    several = [ranges(limit=1 << 20) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: one.read(FILE, 0, 10_000), several))
    assert found == [BYTES] * 4
    assert served.sent[".bin"] == len(BYTES)


def test_readers_of_one_machine_stay_below_the_bound_together(served: Asked) -> None:
    several = [ranges(limit=2000) for _ in range(4)]
    stop, most = threading.Event(), [0]
    folder = several[0]._place(FILE, 0).parent

    def watch() -> None:
        while not stop.is_set():
            try:
                most[0] = max(most[0], sum(path.stat().st_size for path in folder.iterdir()))
            except FileNotFoundError:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(4) as pool:
        for one in pool.map(lambda one: one.read(FILE, 500, 9_500), several):
            assert one == BYTES[500:9_500]
    stop.set()
    watcher.join()
    assert 1000 <= most[0] <= 2000


def test_a_file_that_is_not_as_committed_is_damage(served: Asked) -> None:
    with pytest.raises(DamagedError, match=r"a.bin: has 10,000 bytes, 9,999 bytes were committed"):
        ranges().read(FILE.model_copy(update={"bytes": 9_999}), 0, 10)
    with pytest.raises(DamagedError, match=r"b.bin: is gone"):
        ranges().fetch([(FILE.model_copy(update={"path": "b.bin"}), 0, 10)])
    assert held(ranges()) == 0, "nothing is left of a fetch that failed"


def test_files_of_a_local_store_are_read_in_place(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.write_bytes("a.bin", BYTES)
    some = Ranges(Scratch(store, "pretrain", "local"))
    some.fetch([(FILE, 0, 10_000)])
    assert some.read(FILE, 900, 3_000) == BYTES[900:3_000]
    assert not some._place(FILE, 0).parent.exists()
    with pytest.raises(DamagedError, match="has 10,000 bytes, 9 bytes were committed"):
        Ranges(some._scratch).read(FILE.model_copy(update={"bytes": 9}), 0, 5)


def test_results_come_in_order_and_at_most_so_many_ahead() -> None:
    made: list[int] = []

    def make(step: int) -> int:
        made.append(step)
        return step * step

    with ahead(make, 3, 9, depth=2) as results:
        assert next(results) == 9
        assert set(made) <= {3, 4}
        assert list(results) == [16, 25, 36, 49, 64]
    assert made == [3, 4, 5, 6, 7, 8]


def test_an_error_is_raised_by_the_step_that_needs_the_result() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise StoreError("s3://corpus/a.bin: the store cannot be reached")
        return step

    with ahead(make, 0, 5, depth=4) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(StoreError, match="cannot be reached"):
            next(results)


def test_nothing_is_made_after_the_context() -> None:
    made: list[int] = []
    with ahead(made.append, 0, 1000, depth=3) as results:
        next(results)
    count = len(made)
    assert count <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
