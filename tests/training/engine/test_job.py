"""Scratch folders of tasks that share a machine; who speaks when a rank fails."""

import getpass
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from contract.errors import DamagedError, GristmillError, InputError, SetupError, StoreError
from contract.manifest import find
from contract.plan import Run, Task
from contract.results import RESULTS, Evaluate, Export
from contract.store import Store
from training import __main__ as main
from training.engine.job import Job


def test_two_attempts_and_two_stores_keep_their_files_apart(make_job: Callable[..., Job]) -> None:
    one, again, elsewhere = make_job("pretrain"), make_job("pretrain"), make_job("pretrain", name="two")
    assert one.task.fingerprint == again.task.fingerprint == elsewhere.task.fingerprint
    with one.scratch():
        (one.fresh("checkpoint-0") / "weights").write_text("mine")
        for other in (again, elsewhere):
            with other.scratch():
                other.fresh("checkpoint-0")
            assert not other.workdir.exists()
        assert (one.workdir / "checkpoint-0" / "weights").read_text() == "mine"


def test_a_failed_attempt_leaves_nothing_and_a_killed_one_is_cleared_by_the_next(make_job: Callable[..., Job]) -> None:
    failed, killed, after = (make_job("pretrain") for _ in range(3))
    (failed.workdir / "result").write_text("a file in a folder's place")
    with pytest.raises(FileExistsError), failed.scratch():
        (failed.workdir / "result").mkdir()
    assert not failed.workdir.exists()
    (killed.fresh("checkpoint-0") / "weights").write_text("nobody's")
    killed.workdir.with_name(killed.workdir.name + ".held").touch()  # whose lock went with its process
    with after.scratch():
        assert not killed.workdir.exists()
    assert not [one for one in after.workdir.parent.iterdir() if not one.name.startswith("ranks-")]


def test_another_users_mark_removes_no_folder(make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    killed, after = make_job("pretrain"), make_job("pretrain")
    (killed.fresh("checkpoint-0") / "weights").write_text("somebody's")
    held = killed.workdir.with_name(killed.workdir.name + ".held")
    held.touch()
    monkeypatch.setattr("contract.private.os.getuid", lambda: os.stat(held).st_uid + 1)
    monkeypatch.setattr("training.engine.job.private_folder", lambda path: path)
    with pytest.raises(PermissionError), after.scratch():  # its own lock is another user's, too, by then
        pass
    assert (killed.workdir / "checkpoint-0" / "weights").read_text() == "somebody's"
    assert held.exists()


def test_every_rank_says_why_it_failed(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise GristmillError("the disk of machine b is damaged")

    monkeypatch.setattr(main, "_run", fail)
    monkeypatch.setattr(main.StopFlag, "install", lambda self: self)
    monkeypatch.setitem(os.environ, "RANK", "3")
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "1")
    assert main.main(["pretrain", "--recipe", make_run().uri]) == 1
    assert capsys.readouterr().err == "error: the disk of machine b is damaged (rank 3)\n"


def test_what_got_worse_is_a_warning_before_the_last_line(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()

    class Both(Evaluate, Export):
        """The figures of an evaluation, committed by a stage that needs no GPU."""

    monkeypatch.setitem(RESULTS, "export", Both)
    figures = {"perplexity_pretrain": 455.0, "perplexity_sft": 514.0, "worse_sft": True, "worse_ppo": False}
    figures |= {"stage": "sft", "parameters": 4000, "dtype": "fp32"}
    measuring = SimpleNamespace(run=lambda job: job.attempt.commit([], result=Both.model_construct(**figures)))
    monkeypatch.setattr(main.importlib, "import_module", lambda _: measuring)
    main._run(run, run.task("export"), main.StopFlag())
    assert capsys.readouterr().out.splitlines() == [
        "warning: sft is worse than pretrain beyond noise: held-out perplexity 455 -> 514",
        f"committed export all: the sft model, 4,000 parameters in fp32; {run.store.full(run.task('export').prefix)}/manifest.json",
    ]


def launch(script: str, scratch: Path, processes: int = 2) -> list[str]:
    """The sorted lines that the ranks of one machine print; each runs the script."""
    group = f"""
import os, subprocess, sys
ranks = [subprocess.Popen([sys.executable, '-c', {script!r}], env={{**os.environ, 'RANK': str(n), 'LOCAL_RANK': str(n)}}) for n in range({processes})]
sys.exit(max(one.wait() for one in ranks))
"""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MASTER_", "GLOO_", "NCCL_"))}
    clean |= {"WORLD_SIZE": str(processes), "LOCAL_SIZE": str(processes)}
    clean |= {"DS_ACCELERATOR": "cpu", "GRISTMILL_SCRATCH": str(scratch)}
    done = subprocess.run([sys.executable, "-c", group], env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


EXCHANGING = """
import os
from training.__main__ import join
from training.engine.job import Job
job = Job(None, None, None, *join())
said = [
    job.share(['step-2', 'Zürich'] if job.rank == 0 else []),
    job.share('' if job.rank == 0 else 'another'),
    job.gather(None if job.rank else 5),
    job.rows({1: ([7, 0], 1.5)} if job.rank == 0 else {0: ([], 0.1), 2: ([9], -2.0)}),
    job.rows({}),
    job.sum(0.5, job.rank),
]
os.write(1, f'{job.rank} {said}\\n'.encode())
job.barrier()
os._exit(0)
"""


def test_what_ranks_tell_each_other_arrives_whole_and_in_order(tmp_path: Path) -> None:
    expected = "[['step-2', 'Zürich'], '', [5, None], [([], 0.1), ([7, 0], 1.5), ([9], -2.0)], [], [1.0, 1.0]]"
    assert launch(EXCHANGING, tmp_path) == [f"{rank} {expected}" for rank in range(2)]


def test_one_process_hears_itself() -> None:
    job = Job(None, None, None)  # type: ignore[arg-type]
    assert (job.share("a"), job.gather(7)) == ("a", [7])
    assert job.rows({2: "c", 0: "a"}) == ["a", "c"]


LISTENING = """
import glob, os
from training.__main__ import join
import torch
rank, _, world = join()
total = torch.ones(1)
torch.distributed.all_reduce(total)
own = {os.readlink(path) for path in glob.glob('/proc/self/fd/*') if os.path.lexists(path)}
rows = [line.split() for name in ('tcp', 'tcp6') for line in open(f'/proc/net/{name}')]
held = [row[1].partition(':')[0] for row in rows if row[3] == '0A' and f'socket:[{row[9]}]' in own]
os.write(1, f'{rank} of {world}: {total.item():g} {sorted(set(held))}\\n'.encode())
torch.distributed.barrier()
torch.distributed.destroy_process_group()
os._exit(0)
"""


def test_the_ranks_of_one_machine_meet_in_a_file_and_listen_on_loopback_alone(tmp_path: Path) -> None:
    assert launch(LISTENING, tmp_path) == [f"{rank} of 2: 2 ['0100007F']" for rank in range(2)]
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_scratch_folder_that_a_stranger_made_is_refused(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = make_job("pretrain")
    monkeypatch.delenv("GRISTMILL_SCRATCH")
    monkeypatch.setattr("training.engine.job.tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"gristmill-{getpass.getuser()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError, match="is no folder of its own"), job.scratch():
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(("rank", "left"), [(0, 0), (1, 1)])
def test_rank_0_takes_a_failed_attempts_files_away(make_job: Callable[..., Job], rank: int, left: int) -> None:
    job = make_job("pretrain")
    job.rank = rank
    job.store.write_bytes(job.attempt.path("model.safetensors"), b"half")
    with pytest.raises(GristmillError, match="failed"), job.leading(job.attempt):
        raise GristmillError("failed")
    assert len(job.store.files(job.attempt.prefix)) == left


def test_inputs_are_checked_again_before_the_commit(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("sft")

    def changed(_: object, task: Task) -> None:
        assert task == job.task
        raise InputError("the file changed since the run was resolved")

    monkeypatch.setattr("contract.plan.Run.check_inputs", changed)
    with pytest.raises(InputError, match="the file changed"):
        job.commit(job.fresh("result"), {})
    assert find(job.store, job.task) is None


def test_a_committed_file_of_another_size_is_not_used(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    (file, *_) = job.files("pack", "tokens")
    assert job.download(file).stat().st_size == file.bytes
    with pytest.raises(StoreError, match=f"has {file.bytes:,} bytes, {file.bytes + 1:,} bytes were committed"):
        job.download(file.model_copy(update={"bytes": file.bytes + 1}))


def test_a_committed_file_that_s3_has_lost_is_damage(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no want of a file that may pass: a checkpoint without it is set aside, and the one before it serves."""
    job = make_job("pretrain")
    (file, *_) = job.files("pack", "tokens")
    monkeypatch.setattr(Store, "is_s3", True)
    monkeypatch.setattr(Store, "download", Mock(side_effect=FileNotFoundError))
    with pytest.raises(DamagedError, match=f"is gone, {file.bytes:,} bytes were committed"):
        job.download(file)
