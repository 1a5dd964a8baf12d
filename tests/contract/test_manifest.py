"""One winner for every task, readers see only its files, and a manifest whose counts do not add up is never written."""

import datetime
import errno
import hashlib
import importlib.metadata
import json
import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from contract import gc, manifest
from contract.errors import DamagedError, GristmillError, NotReadyError, StoreError
from contract.kinds import Kind
from contract.manifest import Attempt, File, Input, Manifest, Rows, find, need, read, read_all
from contract.plan import Run
from contract.printable import printable
from contract.results import Crawl, Reward
from contract.stages import STAGES
from contract.store import Store

SEGMENT = "CRAWL-2024-10.00000"


def write(attempt: Attempt, rows: int) -> list[File]:
    """Write one file of `rows` bytes, as a stage would."""
    attempt.store.write_bytes(attempt.path("part.bin"), b"x" * rows)
    return [File(path=attempt.path("part.bin"), kind="documents", bytes=rows, rows=rows)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(sizes=st.lists(st.integers(0, 500), min_size=2, max_size=6, unique=True))
def test_racing_writers_give_one_winner_and_readers_see_only_its_files(
    make_run: Callable[..., Run], sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = _cached_run(make_run)
    run = Run(
        base.uri,
        base.recipe.model_copy(update={"store": Store(str(tmp_path_factory.mktemp("race"))).uri}),
        base.segments,
    )
    task = run.task("crawl", SEGMENT)
    barrier = threading.Barrier(len(sizes))
    seen: list[Manifest] = []

    def race(size: int) -> None:
        attempt = Attempt(run, task)
        files = write(attempt, size)
        barrier.wait()
        seen.append(attempt.commit(files, Rows(read=size, kept=size)))

    threads = [threading.Thread(target=race, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stands = need(run.store, task)
    assert [one.attempt for one in seen] == [stands.attempt] * len(sizes), "every writer learns who won"
    assert stands.rows.kept in sizes
    assert [len(run.store.read_bytes(file.path)) for file in stands.files] == [stands.rows.kept]
    assert {entry.path.split("/")[3] for entry in run.store.files("crawl")} == {stands.attempt, "manifest.json"}, (
        "duplicates clean up"
    )


_runs: list[Run] = []


def _cached_run(make_run: Callable[..., Run]) -> Run:
    """hypothesis calls the test many times with one fixture."""
    if not _runs:
        _runs.append(make_run())
    return _runs[0]


def test_a_file_says_whose_documents_it_holds(make_run: Callable[..., Run]) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    attempt.store.write_bytes(attempt.path("books.bin"), b"xx")
    books = File(path=attempt.path("books.bin"), kind="documents", bytes=2, rows=2, source="books")
    attempt.commit([*write(attempt, 1), books], Rows(read=3, kept=3))
    assert [file.source for file in need(run.store, attempt.task).files] == ["", "books"]


def test_a_manifest_without_sources_is_read_as_before() -> None:
    assert File.model_validate_json('{"path": "a/b", "kind": "documents", "bytes": 3}').source == ""


def test_a_zombie_that_wakes_after_the_winner_changes_nothing(make_run: Callable[..., Run]) -> None:
    run = make_run()
    task = run.task("crawl", SEGMENT)
    zombie, winner = Attempt(run, task), Attempt(run, task)
    half = write(zombie, 3)
    first = winner.commit(write(winner, 5), Rows(read=5, kept=5))
    late = zombie.commit(half, Rows(read=3, kept=3))
    assert late == first == need(run.store, task)
    assert sum(one.rows.kept for one in read_all(run.store)[0]) == 5
    write(zombie, 7)  # it may even go on writing
    assert [file.rows for one in read_all(run.store)[0] for file in one.files] == [5]


def test_a_winner_whose_answer_was_lost_keeps_its_files(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    files = write(attempt, 5)
    create = Store.create
    monkeypatch.setattr(Store, "create", lambda *given: create(*given) and False)
    made = attempt.commit(files, Rows(read=5, kept=5))
    assert made.attempt == attempt.id
    assert [len(run.store.read_bytes(file.path)) for file in need(run.store, attempt.task).files] == [5]


def test_a_task_killed_before_its_commit_left_nothing_to_read(make_run: Callable[..., Run]) -> None:
    run = make_run()
    task = run.task("crawl", SEGMENT)
    write(Attempt(run, task), 5)
    assert find(run.store, task) is None
    with pytest.raises(
        NotReadyError, match=rf"crawl {SEGMENT} is not done: .*/manifest.json does not exist; run crawl first"
    ):
        need(run.store, task)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (Rows(read=3, kept=1, dropped=1, reasons={"language": 1}), "3 rows read, but 1 kept [+] 1 dropped"),
        (Rows(read=3, kept=1, dropped=2, reasons={"language": 1}), "2 rows dropped, but the reasons add up to 1"),
    ],
)
def test_counts_that_do_not_add_up_are_never_committed(make_run: Callable[..., Run], rows: Rows, message: str) -> None:
    run = make_run()
    task = run.task("extract", SEGMENT)
    with pytest.raises(GristmillError, match=message):
        Attempt(run, task).commit([], rows)
    assert find(run.store, task) is None


def test_files_are_on_the_disk_before_the_manifest_that_names_them(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    files = write(attempt, 3)
    synced: list[str] = []
    fsync = os.fsync

    def recording(handle: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recording)
    attempt.commit(files, Rows(read=3, kept=3))
    data, folder, manifest = synced.index("part.bin"), synced.index(attempt.id), synced.index("manifest.json")
    assert max(data, folder) < manifest


def test_a_manifest_cannot_name_a_file_that_is_not_there(make_run: Callable[..., Run]) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    missing = File(path=attempt.path("part.bin"), kind="documents", bytes=3, rows=3)
    with pytest.raises(StoreError, match=r"part.bin: is gone, 3 were written; nothing was committed, run again$"):
        attempt.commit([missing], Rows(read=3, kept=3))
    assert find(run.store, attempt.task) is None


@pytest.mark.parametrize("size", [0, 2, 4])
def test_a_file_that_was_cut_or_replaced_is_never_committed(make_run: Callable[..., Run], size: int) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    files = write(attempt, 3)
    run.store.write_bytes(files[0].path, b"y" * size)
    with pytest.raises(StoreError, match=rf"part.bin: has {size} bytes, 3 were written; nothing was committed"):
        attempt.commit(files, Rows(read=3, kept=3))
    assert find(run.store, attempt.task) is None


def test_an_attempt_that_sleeps_while_gc_takes_its_files_commits_nothing(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    create = Store.create

    def sleeping(store: Store, path: str, data: bytes) -> bool:
        store.delete(attempt.path("part.bin"))
        return create(store, path, data)

    monkeypatch.setattr(Store, "create", sleeping)
    with pytest.raises(StoreError, match=r"part.bin: is gone, 3 were written; nothing was committed, run again"):
        attempt.commit(write(attempt, 3), Rows(read=3, kept=3))
    assert run.store.files("crawl") == []


def test_a_reader_opens_a_committed_file_only_as_it_was_committed(make_run: Callable[..., Run]) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    (file,) = attempt.commit(write(attempt, 3), Rows(read=3, kept=3)).files
    with file.open(run.store) as source:
        assert source.read() == b"xxx"
    run.store.write_bytes(file.path, b"xxxx")
    with pytest.raises(
        StoreError,
        match=r"part.bin: has 4 bytes, 3 bytes were committed; bring it back, or delete file:.*/manifest.json and run crawl again$",
    ):
        file.open(run.store)
    run.store.delete(file.path)
    with pytest.raises(StoreError, match=r"part.bin: is gone, 3 bytes were committed"):
        file.open(run.store)
    listed_by_others = file.model_copy(update={"part": 0})
    names_them = f"python -m contract lineage --store {run.store.uri} {file.path} names them"
    assert listed_by_others.cure(run.store) == (
        f"bring it back, or delete all manifests that list it and run crawl and the stages after it again; {names_them}"
    )


def test_a_running_attempt_writes_its_heartbeat_and_takes_it_away(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "BEAT_S", 0.01)
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    beat = attempt.path("heartbeat")
    with attempt.running():
        for _ in range(2):
            while not run.store.exists(beat):
                time.sleep(0.01)
            run.store.delete(beat)
        attempt.commit(write(attempt, 3), Rows(read=3, kept=3))
    time.sleep(0.05)
    assert [entry.path for entry in run.store.files(attempt.prefix)] == [
        attempt.path("part.bin"),
        need(run.store, attempt.task).path,
    ]


def test_gc_waits_for_six_heartbeats() -> None:
    assert manifest.BEAT_S * 6 <= gc.YOUNGEST_S


def test_an_attempt_that_never_beat_deletes_nothing_and_holds_nobody_up(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    deleted: list[str] = []
    monkeypatch.setattr(Store, "delete", lambda store, path: deleted.append(path))
    before = {*threading.enumerate()}
    with attempt.running():
        assert all(one.daemon for one in {*threading.enumerate()} - before)
        attempt.commit(write(attempt, 3), Rows(read=3, kept=3))
    assert deleted == [], "a request to the store is not free"


def test_a_heartbeat_that_fails_ends_no_attempt(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(manifest, "BEAT_S", 0.01)
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    tried = threading.Semaphore(0)

    def failing(*_: object) -> None:
        tried.release()
        raise StoreError("the store cannot be reached")

    with monkeypatch.context() as patch, attempt.running():
        patch.setattr(Store, "write_bytes", failing)
        assert tried.acquire(timeout=10)
        assert tried.acquire(timeout=10), "it goes on after the first"
        assert "warning: the store cannot be reached" in caplog.text
        patch.undo()
        attempt.commit(write(attempt, 3), Rows(read=3, kept=3))
    assert need(run.store, attempt.task).attempt == attempt.id


@pytest.mark.parametrize("error", [StoreError("full"), KeyboardInterrupt(), SystemExit(143), ZeroDivisionError()])
def test_what_a_failed_attempt_wrote_goes_with_its_exception(
    make_run: Callable[..., Run], error: BaseException
) -> None:
    run = make_run()
    attempt, other = (Attempt(run, run.task("crawl", SEGMENT)) for _ in range(2))
    write(other, 2)
    write(attempt, 3)
    with pytest.raises(type(error)), attempt.running():
        raise error
    assert [entry.path for entry in run.store.files("crawl")] == [other.path("part.bin")]


def test_a_failed_attempt_that_cannot_be_removed_fails_for_its_own_reason(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    write(attempt, 3)
    monkeypatch.setattr(Store, "delete", Mock(side_effect=StoreError("the store cannot be reached")))
    with pytest.raises(ZeroDivisionError), attempt.running():
        raise ZeroDivisionError
    assert "the store cannot be reached; gc removes it later" in caplog.text


def test_an_attempt_that_has_run_for_long_beats_before_it_looks_at_its_files(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    beats: list[str] = []
    monkeypatch.setattr(Attempt, "_beat", lambda self: beats.append(self.id))
    young, old = (Attempt(run, run.task("crawl", f"CRAWL-2024-10.0000{number}")) for number in range(2))
    old.started -= datetime.timedelta(seconds=manifest.BEAT_S + 1)
    for attempt in (young, old):
        attempt.commit(write(attempt, 1))
    assert beats == [old.id]


def test_what_fails_after_the_commit_takes_nothing_away(make_run: Callable[..., Run]) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    attempt.commit(write(attempt, 3), Rows(read=3, kept=3))
    with pytest.raises(ZeroDivisionError), attempt.running():
        raise ZeroDivisionError
    assert [len(run.store.read_bytes(file.path)) for file in need(run.store, attempt.task).files] == [3]


@pytest.mark.parametrize(
    ("code", "stands", "left"),
    [(errno.EIO, False, 1), (errno.EIO, True, 2), (errno.ENOSPC, False, 0), (errno.ENOSPC, True, 2)],
)
def test_files_stay_where_the_manifest_may_yet_stand(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, code: int, stands: bool, left: int
) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    create = Store.create

    def failing(store: Store, path: str, data: bytes) -> bool:
        if stands:
            create(store, path, data)
        raise StoreError("no answer") from OSError(code, "no answer")

    monkeypatch.setattr(Store, "create", failing)
    with pytest.raises(StoreError, match="no answer"), attempt.running():
        attempt.commit(write(attempt, 3), Rows(read=3, kept=3))
    assert len(run.store.files("crawl")) == left


def test_a_file_of_another_attempt_cannot_be_committed(make_run: Callable[..., Run]) -> None:
    run = make_run()
    task = run.task("crawl", SEGMENT)
    with pytest.raises(GristmillError, match="lies outside the attempt"):
        Attempt(run, task).commit(write(Attempt(run, task), 1))
    assert find(run.store, task) is None


def test_what_was_committed_is_read_back(make_run: Callable[..., Run]) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("filter", SEGMENT))
    assert attempt.prefix == attempt.task.prefix
    assert re.fullmatch(r"attempt-[0-9a-f]{32}", attempt.id)
    assert attempt.path("a/b") == f"{attempt.prefix}/{attempt.id}/a/b"
    rows = Rows(read=5, kept=3, dropped=2, reasons={"words": 1, "lines": 1}, losses={"cut": 7}, bytes_kept=4)
    [documents] = write(attempt, 3)
    run.store.write_bytes(attempt.path("log"), b"1")
    log = File(path=attempt.path("log"), kind="samples", bytes=1)
    made = attempt.commit([log, documents], rows)
    stands = need(run.store, attempt.task)
    assert stands == made == read(run.store, attempt.prefix)
    assert run.store.read_bytes(made.path).startswith(b'{\n "format": 2,\n "stage": "filter",\n'), (
        "a person can read it too"
    )
    assert (stands.stage, stands.identity.version, stands.partition) == ("filter", STAGES["filter"].version, SEGMENT)
    assert (stands.fingerprint, stands.attempt) == (attempt.task.fingerprint, attempt.id)
    assert (stands.files, stands.rows, stands.metrics) == ((log, documents), rows, {})
    [score] = attempt.task.inputs
    assert stands.inputs == (Input(stage="score", partition=SEGMENT, fingerprint=score.fingerprint),)
    assert stands.identity == attempt.task.identity
    assert stands.identity.fingerprint() == stands.fingerprint
    assert (stands.run, stands.code) == (run.uri, manifest.code_version())
    assert (stands.path, stands.prefix) == (f"{attempt.prefix}/manifest.json", attempt.prefix)
    assert stands.of(Kind.DOCUMENTS) == [documents]
    assert stands.of(Kind.SAMPLES, Kind.DOCUMENTS) == [log, documents]
    assert stands.of(Kind.METRICS) == []


def test_many_files_are_committed_in_time_that_grows_with_them(make_run: Callable[..., Run]) -> None:
    """A corpus stage lists the files of every part: a comparison of each with each would take hours."""
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    run.store.write_bytes(attempt.path("x"), b"x")
    files = [File(path=attempt.path("x"), kind="pages", bytes=1, part=number) for number in range(10_000)]
    began = time.monotonic()
    attempt.commit(files)
    assert time.monotonic() - began < 20


def test_what_nobody_counted_is_nothing() -> None:
    assert Rows().model_dump() == {
        "read": 0, "kept": 0, "dropped": 0, "bytes_read": 0, "bytes_kept": 0, "reasons": {}, "losses": {},
    }  # fmt: skip
    assert File(path="a", kind="drops", bytes=1).rows == 0


@pytest.mark.parametrize(
    "one", [Rows(), File(path="a", kind="drops", bytes=1), Input(stage="a", partition="b", fingerprint="c")]
)
def test_a_manifests_parts_are_fixed_and_have_no_others(one: BaseModel) -> None:
    name = next(iter(type(one).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(one, name, 1)
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(one).model_validate({**one.model_dump(), "other": 1})


def test_a_manifest_is_fixed(make_run: Callable[..., Run]) -> None:
    run = make_run()
    made = Attempt(run, run.task("crawl", SEGMENT)).commit([])
    with pytest.raises(ValidationError, match="frozen"):
        made.stage = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Manifest.model_validate({**made.model_dump(), "other": 1})


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two files, in the place of this one. No folder above it is git's."""
    for name, text in (("contract/b.py", "1"), ("contract/a.py", "2"), ("training/c/d.py", "3"), ("other/e.py", "4")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "contract" / "b.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def test_code_in_git_is_known_by_its_commit(code: Path) -> None:
    def git(*command: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *identity, *command], cwd=code, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")[:12]
    assert _version() == commit
    (code / "contract" / "a.py").write_text("changed")
    assert _version() == f"{commit}-dirty"


@pytest.mark.parametrize("error", [None, FileNotFoundError("git"), subprocess.TimeoutExpired("git", 10)])
def test_code_outside_git_is_known_by_its_sources(
    code: Path, error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if error:
        monkeypatch.setattr(subprocess, "run", Mock(side_effect=error))
    made = hashlib.sha256(b"213").hexdigest()[:12]
    assert _version() == f"{importlib.metadata.version('gristmill')}+sources.{made}"
    missing = importlib.metadata.PackageNotFoundError("gristmill")
    monkeypatch.setattr(importlib.metadata, "version", Mock(side_effect=missing))
    assert _version() == f"unknown+sources.{made}"


def test_code_installed_within_another_projects_checkout_is_not_that_projects(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (["init"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-m", "theirs"]):
        subprocess.run(["git", *command], cwd=code, check=True, capture_output=True)
    installed = code / ".venv" / "contract" / "b.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.setattr(manifest, "__file__", str(installed))
    assert "+sources." in _version()


def _version() -> str:
    """Asked anew: a process asks only once."""
    manifest.code_version.cache_clear()
    try:
        return manifest.code_version()
    finally:
        manifest.code_version.cache_clear()


def test_a_manifest_says_what_it_was_made_from(make_run: Callable[..., Run]) -> None:
    run = make_run("crawl.retries=3", "crawl.max_payload_bytes=9")
    made = Attempt(run, run.task("crawl", SEGMENT)).commit([], result=Crawl(files=3, parts=4))
    assert made.sources == (run.segments[0].files[0].uri,)
    assert made.metrics == {"files": 3, "parts": 4}
    assert made.identity.settings == {"crawl.max_payload_bytes": 9}, "run-time-only settings and defaults are left out"
    assert made.started <= made.finished
    extract = Attempt(run, run.task("extract", SEGMENT)).commit([])
    assert [(one.stage, one.fingerprint) for one in extract.inputs] == [("crawl", made.fingerprint)]
    assert extract.sources == ()


def test_any_setting_is_committed_as_it_stands(make_run: Callable[..., Run]) -> None:
    run = make_run("crawl.hard_words=['http://x?a\"b\"']")
    assert Attempt(run, run.task("crawl", SEGMENT)).commit([]).identity.settings["crawl.hard_words"] == [
        'http://x?a"b"'
    ]


def test_a_checkpoint_is_committed_like_any_result(make_run: Callable[..., Run]) -> None:
    run = make_run()
    task = run.task("pretrain")
    attempt = Attempt(run, task, "step-00000010")
    attempt.commit(write(attempt, 4))
    assert find(run.store, task) is None, "a checkpoint does not make the stage done"
    assert run.store.folders(f"pretrain/{task.fingerprint}") == ["step-00000010"]


def test_figures_that_are_not_finite_come_back(make_run: Callable[..., Run]) -> None:
    run = make_run()
    task = run.task("reward")
    figures = {"pairs": 3, "accuracy": math.nan, "heldout_loss": math.inf, "reward_mean": -math.inf}
    made = Attempt(run, task).commit([], result=Reward.model_construct(**figures))
    found = read(run.store, made.prefix)
    assert repr(found.metrics) == repr(figures)
    assert json.loads(run.store.read_bytes(made.path))["metrics"]["heldout_loss"] == "Infinity"


def test_a_damaged_manifest_says_what_to_do(make_run: Callable[..., Run]) -> None:
    run = make_run()
    task = run.task("crawl", SEGMENT)
    run.store.write_bytes(f"{task.prefix}/manifest.json", b'{"stage": "crawl"}')
    with pytest.raises(StoreError, match=r"is not a manifest; delete it to run the task again$"):
        find(run.store, task)


def test_a_manifest_of_another_version_is_no_damage(make_run: Callable[..., Run]) -> None:
    run = make_run()
    attempt = Attempt(run, run.task("crawl", SEGMENT))
    made = attempt.commit(write(attempt, 3), Rows(read=3, kept=3))
    later = {**made.model_dump(mode="json"), "learned_later": 1}
    run.store.write_bytes(made.path, json.dumps(later).encode())
    with pytest.raises(StoreError, match=r"was written by another version of Gristmill \(1 fields differ\)") as told:
        find(run.store, attempt.task)
    assert not isinstance(told.value, DamagedError), "what calls it damaged would take it away"
    run.store.write_bytes(made.path, json.dumps(later | {"partition": "elsewhere"}).encode())
    with pytest.raises(DamagedError, match="is not a manifest"):
        find(run.store, attempt.task)


def test_manifests_on_s3_have_one_winner_too(make_run: Callable[..., Run], s3_store: Store) -> None:
    base = make_run()
    run = Run(base.uri, base.recipe.model_copy(update={"store": s3_store.uri}), base.segments)
    task = run.task("crawl", SEGMENT)
    attempts = [Attempt(run, task) for _ in range(2)]
    results = [
        attempt.commit(write(attempt, index + 1), Rows(read=1, kept=1)) for index, attempt in enumerate(attempts)
    ]
    assert results[0] == results[1] == need(s3_store, task)
    assert [len(s3_store.read_bytes(file.path)) for file in results[1].files] == [1]


def forged(made: Manifest, **changed: object) -> Manifest:
    """A manifest with other content, as somebody who may write the store could put there."""
    return made.model_copy(update=changed)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"stage": "extract"}, "it is the manifest of extract/"),
        ({"fingerprint": "0" * 40}, f"it is the manifest of crawl/{'0' * 40}/"),
        ({"partition": "CRAWL-2024-10.00001"}, r"it is the manifest of crawl/\w+/CRAWL-2024-10\.00001,"),
        ({"attempt": "x"}, "its attempt is called 'x'"),
        ({"attempt": f"attempt-{'a' * 32}/.."}, "its attempt is called"),
    ],
)
def test_a_manifest_that_names_another_task_than_its_place_is_refused(
    make_run: Callable[..., Run], changed: dict[str, str], why: str
) -> None:
    run = make_run()
    task = run.task("crawl", SEGMENT)
    made = Attempt(run, task).commit([])
    run.store.write_bytes(made.path, forged(made, **changed).model_dump_json().encode())
    with pytest.raises(StoreError, match=rf"manifest\.json: {why}.*delete it to run the task again"):
        find(run.store, task)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../../../secret",
        "{own}/../../secret",
        "{own}/./x",
        "{own}//x",
        "{own}",
        "{own}/",
        "{own}x/part.bin",
        "{own}/part.bin.lock",
        "{own}/part.bin.part",
        "crawl/x",
    ],
)
def test_a_manifest_lists_only_files_of_its_own_attempt(make_run: Callable[..., Run], path: str) -> None:
    run = make_run()
    task = run.task("crawl", SEGMENT)
    attempt = Attempt(run, task)
    made = attempt.commit(write(attempt, 1))
    file = File(path=path.format(own=f"{made.prefix}/{made.attempt}"), kind="documents", bytes=1)
    another = file.model_copy(update={"path": "/etc/passwd"})
    run.store.write_bytes(made.path, forged(made, files=(*made.files, file, another)).model_dump_json().encode())
    with pytest.raises(
        StoreError, match=r"manifest\.json: it lists '.*', which is neither a file of its attempt"
    ) as told:
        need(run.store, task)
    assert printable(repr(file.path)) in str(told.value), "the first that is none"
    with pytest.raises(GristmillError, match="lies outside the attempt"):
        Attempt(run, run.task("crawl", "CRAWL-2024-10.00001")).commit([file])


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("extract/{f}/CRAWL-2024-10.00000/attempt-0a/x", True),
        ("crawl/{f}/CRAWL-2024-10.00000/attempt-0a/deep/x", True),
        ("filter/{f}/all/attempt-0a/x", False),  # stands after the stage
        ("langid/{f}/CRAWL-2024-10.00000/attempt-0a/x", False),  # the stage itself, another attempt
        ("extract/{f}/CRAWL-2024-10.00000/attempt-0a/../../x", False),
        ("extract/{f}/CRAWL-2024-10.00000/attempt-0a/x.lock", False),
        ("extract/{f}/CRAWL-2024-10.00000/x", False),
        ("extract/f/CRAWL-2024-10.00000/attempt-0a/x", False),
        ("/extract/{f}/CRAWL-2024-10.00000/attempt-0a/x", False),
    ],
)
def test_of_other_files_a_manifest_lists_only_those_of_stages_before_it(
    make_run: Callable[..., Run], path: str, allowed: bool
) -> None:
    run = make_run()
    task = run.task("langid", SEGMENT)
    made = Attempt(run, task).commit([])
    file = File(path=path.format(f="0" * 40), kind="documents", bytes=1)
    run.store.write_bytes(made.path, forged(made, files=(file,)).model_dump_json().encode())
    if allowed:
        assert need(run.store, task).files == (file,)
    else:
        with pytest.raises(StoreError, match="neither a file of its attempt nor of an earlier stage"):
            need(run.store, task)


def test_what_cannot_be_read_stops_nobody_who_looks_at_the_whole_store(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    good = Attempt(run, run.task("crawl", SEGMENT)).commit([])
    damaged, gone, foreign = "extract/a/b", "langid/a/b", "score/a/b"
    run.store.write_bytes(f"{damaged}/manifest.json", b"{")
    run.store.write_bytes(f"{gone}/manifest.json", b"{")
    run.store.write_bytes(f"{foreign}/manifest.json", good.model_dump_json().encode())
    read_bytes = Store.read_bytes

    def vanishing(store: Store, path: str) -> bytes:
        if path.startswith(gone):
            raise FileNotFoundError(path)
        return read_bytes(store, path)

    monkeypatch.setattr(Store, "read_bytes", vanishing)
    assert read_all(run.store) == ([good], [damaged, gone, foreign])
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(run.store.uri + "/")[2].split("/manifest.json")[0] for line in told] == [
        damaged,
        gone,
        foreign,
    ]
    assert all(line.startswith("warning: ") for line in told)
