"""Scratch folders of tasks that share a machine, and what is fetched into them."""

import getpass
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from contract.errors import DamagedError, InputError, SetupError, StoreError
from contract.store import Entry, Store
from training.engine.job import Job
from training.engine.scratch import Scratch


def test_two_attempts_and_two_stores_keep_their_files_apart(make_job: Callable[..., Job]) -> None:
    one, again, elsewhere = make_job("pretrain"), make_job("pretrain"), make_job("pretrain", name="two")
    assert one.task.fingerprint == again.task.fingerprint == elsewhere.task.fingerprint
    with one.scratch.held():
        (one.scratch.fresh("checkpoint-0") / "weights").write_text("mine")
        for other in (again, elsewhere):
            with other.scratch.held():
                other.scratch.fresh("checkpoint-0")
            assert not other.scratch.folder.exists()
        assert (one.scratch.folder / "checkpoint-0" / "weights").read_text() == "mine"


def test_a_failed_attempt_leaves_nothing_and_a_killed_one_is_cleared_by_the_next(make_job: Callable[..., Job]) -> None:
    failed, killed, after = (make_job("pretrain") for _ in range(3))
    (failed.scratch.folder / "result").write_text("a file in a folder's place")
    with pytest.raises(FileExistsError), failed.scratch.held():
        (failed.scratch.folder / "result").mkdir()
    assert not failed.scratch.folder.exists()
    (killed.scratch.fresh("checkpoint-0") / "weights").write_text("nobody's")
    killed.scratch.folder.with_name(killed.scratch.folder.name + ".held").touch()  # whose lock went with its process
    with after.scratch.held():
        assert not killed.scratch.folder.exists()
    assert not [one for one in after.scratch.folder.parent.iterdir() if not one.name.startswith("ranks-")]


def test_another_users_mark_removes_no_folder(make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    killed, after = make_job("pretrain"), make_job("pretrain")
    (killed.scratch.fresh("checkpoint-0") / "weights").write_text("somebody's")
    held = killed.scratch.folder.with_name(killed.scratch.folder.name + ".held")
    held.touch()
    monkeypatch.setattr("contract.private.os.getuid", lambda: os.stat(held).st_uid + 1)
    monkeypatch.setattr("training.engine.scratch.private_folder", lambda path: path)
    with pytest.raises(PermissionError), after.scratch.held():  # its own lock is another user's, too, by then
        pass
    assert (killed.scratch.folder / "checkpoint-0" / "weights").read_text() == "somebody's"
    assert held.exists()


def test_a_scratch_folder_that_a_stranger_made_is_refused(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = make_job("pretrain")
    monkeypatch.delenv("GRISTMILL_SCRATCH")
    monkeypatch.setattr("training.engine.scratch.tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"gristmill-{getpass.getuser()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError, match="is no folder of its own"), job.scratch.held():
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_committed_file_of_another_size_is_not_used(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    (file, *_) = job.files("pack", "tokens")
    assert job.scratch.download(file).stat().st_size == file.bytes
    with pytest.raises(StoreError, match=f"has {file.bytes:,} bytes, {file.bytes + 1:,} bytes were committed"):
        job.scratch.download(file.model_copy(update={"bytes": file.bytes + 1}))


def test_a_committed_file_that_s3_has_lost_is_damage(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no want of a file that may pass: a checkpoint without it is set aside, and the one before it serves."""
    job = make_job("pretrain")
    (file, *_) = job.files("pack", "tokens")
    monkeypatch.setattr(Store, "is_s3", True)
    monkeypatch.setattr(Store, "download", Mock(side_effect=FileNotFoundError))
    with pytest.raises(DamagedError, match=f"is gone, {file.bytes:,} bytes were committed"):
        job.scratch.download(file)


def test_what_lies_outside_is_fetched_with_all_below_it(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set" / "test").mkdir(parents=True)
    (tmp_path / "set" / "test" / "law.csv").write_text("here")
    job = make_job("pretrain")
    assert job.scratch.fetch_all(f"{tmp_path}/set") == tmp_path / "set", "what is local is used in place"
    assert job.scratch.fetch_all(f"{tmp_path}/set/test/law.csv").read_text() == "here"
    with pytest.raises(InputError, match="nowhere: is not there"):
        job.scratch.fetch_all(f"{tmp_path}/nowhere")
    fetched = []

    def download(store: Store, path: str, target: Path) -> Path:
        fetched.append(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{store.uri} {path}")
        return target

    monkeypatch.setattr(Store, "entry", lambda store, path: None)
    monkeypatch.setattr(
        Store, "files", lambda store, path: [Entry(f"{path}/dev/a.csv", 1, 0), Entry(f"{path}/b", 1, 0)]
    )
    monkeypatch.setattr(Store, "download", download)
    for _ in range(2):
        folder = job.scratch.fetch_all("s3://bucket/sets/mmlu")
        assert (folder / "dev" / "a.csv").read_text() == "s3://bucket/sets mmlu/dev/a.csv"
        assert sorted(one.name for one in folder.rglob("*") if one.is_file()) == ["a.csv", "b"]
    assert fetched == ["mmlu/dev/a.csv", "mmlu/b"], "each once"
    monkeypatch.setattr(Store, "files", lambda store, path: [])
    with pytest.raises(InputError, match="s3://bucket/sets/none: is not there"):
        job.scratch.fetch_all("s3://bucket/sets/none")


def test_the_first_process_of_a_machine_holds_the_folder_of_all(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    second = Scratch(job.store, "pretrain", job.attempt.id, local_rank=1)
    with job.scratch.held():
        with second.held():
            (second.fresh("result-1") / "weights").write_text("the second's")
        assert (job.scratch.folder / "result-1" / "weights").read_text() == "the second's"
        assert not list(job.scratch.fresh("result-1").iterdir())
    assert not second.folder.exists()
