"""Only what no manifest lists goes, only when it is old enough, and only when it is asked for."""

import math
import os
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from contract import gc
from contract.errors import InputError
from contract.gc import Garbage, collect
from contract.manifest import HEARTBEAT, Attempt, File
from contract.plan import Run
from contract.store import Store

NOW, HOUR = 1_710_000_000, 3600


def write(store: Store, path: str, size: int, hours_ago: float) -> str:
    """A file of a given size and age."""
    store.write_bytes(path, b"x" * size)
    os.utime(f"{store.root}/{path}", (NOW - hours_ago * HOUR,) * 2)
    return path


def paths(store: Store) -> set[str]:
    return {entry.path for entry in store.files()}


@pytest.fixture
def attempt(make_run: Callable[..., Run]) -> Callable[..., Attempt]:
    """`attempt(3, 5)`: an attempt at packing with one file a given age in hours, of 1, 2, ... bytes."""
    run = make_run()

    def make(*hours_ago: float) -> Attempt:
        made = Attempt(run, run.task("pack"))
        for number, age in enumerate(hours_ago):
            write(made.store, made.path(f"deep/{number}"), number + 1, age)
        return made

    return make


def test_an_old_attempt_goes_with_all_its_files_and_a_young_one_stays(attempt: Callable[..., Attempt]) -> None:
    old, young = attempt(30, 25), attempt(2, 1)
    store = old.store
    before = paths(store)
    told = ([Garbage(f"{old.prefix}/{old.id}", 3)], [Garbage(f"{young.prefix}/{young.id}", 3)])
    assert collect(store, 24 * HOUR, NOW) == told
    assert paths(store) == before, "without `delete` nothing is"
    assert collect(store, 24 * HOUR, NOW, delete=True) == told
    assert before - paths(store) == {old.path("deep/0"), old.path("deep/1")}
    assert collect(store, 24 * HOUR, NOW, delete=True) == ([], told[1])
    with pytest.raises(FrozenInstanceError):
        told[0][0].bytes = 4  # type: ignore[misc]


def test_an_attempt_is_as_old_as_its_newest_file(attempt: Callable[..., Attempt]) -> None:
    store = attempt(100, 1, 100).store
    assert [len(one) for one in collect(store, 24 * HOUR, NOW)] == [0, 1]
    assert [len(one) for one in collect(store, HOUR, NOW + HOUR)] == [1, 0]


def test_only_what_is_older_than_the_limit_goes(attempt: Callable[..., Attempt]) -> None:
    store = attempt(24).store
    assert [len(one) for one in collect(store, 24 * HOUR, NOW)] == [0, 1], "exactly as old as the limit is not older"
    assert [len(one) for one in collect(store, 24 * HOUR, NOW + 1)] == [1, 0]
    assert [len(one) for one in collect(store, 24 * HOUR - 1, NOW)] == [1, 0]


@pytest.mark.parametrize("age", [0, -HOUR, HOUR - 1, math.nan])
def test_an_age_under_an_hour_is_refused(attempt: Callable[..., Attempt], age: float) -> None:
    one = attempt(1000)
    with pytest.raises(InputError, match="gc: an attempt younger than an hour may still be running; ask for 1 hour or"):
        collect(one.store, age, NOW, delete=True)
    assert paths(one.store) >= {one.path("deep/0")}


def test_a_heartbeat_keeps_an_attempt_whose_files_are_old(attempt: Callable[..., Attempt]) -> None:
    one = attempt(1000)
    write(one.store, one.path(HEARTBEAT), 5, 0.5)
    assert [len(found) for found in collect(one.store, HOUR, NOW, delete=True)] == [0, 1]
    assert one.path("deep/0") in paths(one.store)


@pytest.mark.parametrize("wakes", ["commits", "beats", "meets an unreadable manifest"])
def test_an_attempt_that_wakes_up_while_others_are_listed_stays(
    attempt: Callable[..., Attempt], monkeypatch: pytest.MonkeyPatch, wakes: str
) -> None:
    one = attempt(1000)
    listed = gc.read_all

    def waking(store: Store) -> object:
        found = listed(store)
        if wakes == "commits":
            one.commit([File(path=one.path("deep/0"), kind="documents", bytes=1)])
        elif wakes == "beats":
            write(store, one.path(HEARTBEAT), 5, 0)
        else:
            store.write_bytes(f"{one.prefix}/manifest.json", b"{")
        return found

    monkeypatch.setattr(gc, "read_all", waking)
    assert [len(found) for found in collect(one.store, HOUR, NOW, delete=True)] == [0, 1]
    assert one.path("deep/0") in paths(one.store)


def test_what_a_manifest_lists_stays_however_old(attempt: Callable[..., Attempt]) -> None:
    done, garbage = attempt(1000), attempt(1000)
    store = done.store
    done.commit([File(path=done.path("deep/0"), kind="documents", bytes=1)])
    checkpoint = Attempt(done.run, done.run.task("pretrain"), "step-00000010")
    write(store, checkpoint.path("x"), 1, 1000)
    checkpoint.commit([File(path=checkpoint.path("x"), kind="documents", bytes=1)])
    before = paths(store)
    assert collect(store, HOUR, NOW + HOUR, delete=True) == ([Garbage(f"{garbage.prefix}/{garbage.id}", 1)], [])
    assert before - paths(store) == {garbage.path("deep/0")}


def test_what_a_later_stage_lists_stays_when_its_own_manifest_is_gone(attempt: Callable[..., Attempt]) -> None:
    """To run a task again a person deletes its manifest; a finished stage after it may still list the task's files."""
    first = attempt(1000)
    reader = next(task for task in first.run.tasks().values() if first.task in task.inputs)
    made = first.commit([File(path=first.path("deep/0"), kind="documents", bytes=1)])
    Attempt(first.run, reader).commit(made.files)
    first.store.delete(made.path)
    assert collect(first.store, HOUR, NOW + HOUR, delete=True) == ([], [])
    assert first.path("deep/0") in paths(first.store)


def test_what_tried_the_store_and_was_killed_goes(attempt: Callable[..., Attempt]) -> None:
    store = attempt().store
    old, young = (write(store, f".probe-{name * 32}", 4, age) for name, age in (("a", 25), ("b", 23)))
    kept = {write(store, name, 1, 1000) for name in (".probed", "probe-c", ".probe-config", ".probe-d/x")}
    assert collect(store, 24 * HOUR, NOW, delete=True) == ([Garbage(old, 4)], [Garbage(young, 4)])
    assert kept <= paths(store)
    assert old not in paths(store)


@pytest.mark.parametrize("name", ["0af1" * 8, f"attempt-{'0' * 32}"])
def test_what_lies_beside_a_damaged_checkpoint_stays_for_a_person(attempt: Callable[..., Attempt], name: str) -> None:
    one = attempt()
    damaged, elsewhere = (Attempt(one.run, one.run.task("pretrain"), f"step-0000001{number}") for number in range(2))
    for each in (damaged, elsewhere):
        write(one.store, each.path("x"), 1, 1000)
    write(one.store, f"{damaged.prefix}/damaged-{name}.json", 1, 1000)
    for name in (f"damaged-{'0' * 32}.json.part", f"adamaged-{'0' * 32}.json", "damaged-.json"):
        write(one.store, f"{elsewhere.prefix}/{name}", 1, 1000)
    removed, young = collect(one.store, HOUR, NOW, delete=True)
    assert (removed, young) == ([Garbage(f"{elsewhere.prefix}/{elsewhere.id}", 1)], [])


def test_a_manifest_that_was_never_finished_goes_alone(attempt: Callable[..., Attempt]) -> None:
    one = attempt(1)
    store, folder = one.store, one.prefix
    old, young = (write(store, f"{folder}/.create-{name * 32}", 4, age) for name, age in (("a", 25), ("b", 1)))
    kept = {
        write(store, f"{folder}/{name}", 1, 25)
        for name in ("manifest.json.create", "create-c", ".create-notes.txt", "attempt-d/x")
    }
    kept |= {write(store, f"runs/one/{name}", 1, 25) for name in (".create-e", "x")}
    removed, left = collect(store, 24 * HOUR, NOW, delete=True)
    assert (removed, left) == ([Garbage(old, 4)], [Garbage(young, 4), Garbage(f"{folder}/{one.id}", 1)])
    assert old not in paths(store)
    assert kept | {young, one.path("deep/0")} <= paths(store)


@pytest.mark.parametrize("content", [b"{", b"", b"another task's"])
def test_what_an_unreadable_manifest_might_list_stays(attempt: Callable[..., Attempt], content: bytes) -> None:
    kept, garbage = attempt(1000), attempt(1000)
    store = kept.store
    made = kept.commit([File(path=kept.path("deep/0"), kind="documents", bytes=1)])
    other = Attempt(kept.run, kept.run.task("tokenizer"))
    write(store, other.path("x"), 1, 1000)
    if content == b"another task's":
        content = made.model_copy(update={"partition": "other"}).model_dump_json().encode()
    store.write_bytes(made.path, content)
    assert collect(store, HOUR, NOW, delete=True) == ([Garbage(f"{other.prefix}/{other.id}", 1)], [])
    assert {kept.path("deep/0"), garbage.path("deep/0")} <= paths(store)


def test_no_link_leads_gc_out_of_the_store(
    attempt: Callable[..., Attempt], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = attempt(1000)
    store = made.store
    outside = tmp_path / "outside" / made.id
    outside.mkdir(parents=True)
    (outside / "file").write_text("mine")
    os.utime(outside / "file", (0, 0))
    (tmp_path / "store" / "crawl" / ("0" * 40)).mkdir(parents=True)
    (tmp_path / "store" / "crawl" / ("0" * 40) / "all").symlink_to(tmp_path / "outside")
    later = attempt(1000)
    removed, _ = collect(store, HOUR, NOW, delete=True)
    assert f"{later.prefix}/{later.id}" in {one.path for one in removed}, "the rest goes all the same"
    assert f"crawl/{'0' * 40}/all/{made.id}" not in {one.path for one in removed}, "what stays is not told as removed"
    assert "a link leads out of the store" in caplog.text
    assert (outside / "file").read_text() == "mine"
