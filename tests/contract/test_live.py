"""What a running task shows: which files are read, and what a reader gets that has read some of them before."""

import os
from pathlib import Path

import pytest

from contract.live import Live, Seen, curves_name, points_name, read_live, written
from contract.metrics import Point, dump_points
from contract.store import Store
from contract.thinning import dump_curves, thin

TASK = "pretrain/aa/all"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def point(step: int) -> Point:
    return Point(step, "loss", float(step), 100.0 + step)


def show(store: Store, step: int, attempt: str = "attempt-aa", modified: int = 1000) -> None:
    path = f"{TASK}/{attempt}/{points_name(step)}"
    store.write_bytes(path, dump_points([point(step)]))
    os.utime(store.local(path), (modified, modified))


def read(store: Store, seen: Seen | None = None) -> Live:
    found = read_live(store, TASK, seen)
    assert found is not None
    return found


def test_a_task_that_shows_nothing_has_no_curves(store: Store) -> None:
    assert read_live(store, TASK) is None
    store.write_bytes(f"{TASK}/attempt-aa/model.safetensors", b"")
    assert read_live(store, TASK) is None


def test_a_reader_gets_all_at_first_and_then_what_is_new(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(3):
        show(store, step)
    assert read(store) == Live(Seen("attempt-aa", 2), True, thin(map(point, range(3))), 1000.0)
    show(store, 3, modified=1003)
    opened: list[str] = []
    whole = Store.read_bytes
    monkeypatch.setattr(Store, "read_bytes", lambda self, path: (opened.append(path), whole(self, path))[1])
    assert read(store, Seen("attempt-aa", 2)) == Live(Seen("attempt-aa", 3), False, thin([point(3)]), 1003.0)
    assert opened == [f"{TASK}/attempt-aa/{points_name(3)}"]
    assert read(store, Seen("attempt-aa", 3)) == Live(Seen("attempt-aa", 3), False, {}, 1003.0)


def test_a_new_attempt_is_read_from_its_start(store: Store) -> None:
    for step in range(9):
        show(store, step)
    for step in range(12):
        show(store, step, "attempt-bb", 2000)
    found = read(store, Seen("attempt-aa", 8))
    assert (found.seen, found.whole, found.curves["loss"].steps) == (Seen("attempt-bb", 11), True, tuple(range(12)))


def test_the_file_that_sums_up_stands_for_those_before_it(store: Store) -> None:
    for step in range(4, 7):
        show(store, step)
    store.write_bytes(f"{TASK}/attempt-aa/{curves_name(4)}", dump_curves(thin(map(point, range(5)))))
    assert read(store).curves == thin(map(point, range(7)))
    later = read(store, Seen("attempt-aa", 3))
    assert (later.whole, later.curves["loss"].steps) == (True, tuple(range(7))), "fewer files than the points since"
    later = read(store, Seen("attempt-aa", 4))
    assert (later.whole, later.curves["loss"].steps) == (False, (5, 6))


@pytest.mark.parametrize("torn", [b"", b'{"step": 5, "na', b'{"step": 5}\n', b"\xff\xfe"])
def test_a_file_that_is_being_written_is_left_for_the_next_time(store: Store, torn: bytes) -> None:
    show(store, 0)
    store.write_bytes(f"{TASK}/attempt-aa/{points_name(1)}", torn)
    found = read(store)
    assert found.curves == thin([point(0)])
    assert found.seen.number == 0
    store.write_bytes(f"{TASK}/attempt-aa/{curves_name(1)}", torn)
    assert read(store).curves == thin([point(0)])


@pytest.mark.parametrize("method", ["files", "read_bytes"])
def test_an_attempt_that_commits_meanwhile_shows_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    show(store, 0)

    def gone(self: Store, path: str) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Store, method, gone)
    assert read_live(store, TASK) is None


def test_when_a_task_wrote_last_is_known_without_opening_a_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(store, TASK) is None
    store.write_bytes(f"{TASK}/attempt-aa/model.safetensors", b"")
    assert written(store, TASK) is None
    show(store, 0, "attempt-aa", 1000)
    show(store, 0, "attempt-bb", 1007)
    monkeypatch.setattr(Store, "read_bytes", None)
    assert written(store, TASK) == 1007.0
