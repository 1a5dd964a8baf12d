"""What a stage gets, and what a commit leaves."""

from collections.abc import Callable

import pytest

from contract.errors import GristmillError, InputError
from contract.manifest import find
from contract.plan import Task
from training.engine.job import Job


@pytest.mark.parametrize(("rank", "left"), [(0, 0), (1, 1)])
def test_rank_0_takes_a_failed_attempts_files_away(make_job: Callable[..., Job], rank: int, left: int) -> None:
    job = make_job("pretrain")
    job.ranks.rank = rank
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
        job.commit(job.scratch.fresh("result"), {})
    assert find(job.store, job.task) is None


def test_a_stage_gets_what_its_row_declares_and_no_run(make_job: Callable[..., Job]) -> None:
    job = make_job("export", "name=millstone", "export.dtype=bf16")
    assert (job.settings.dtype, job.setting("name")) == ("bf16", "millstone")
    assert (job.run_uri, job.snapshots) == (job.attempt.run.uri, job.attempt.run.recipe.snapshots)
    assert len(job.snapshots) == 1
    with pytest.raises(KeyError, match=r"export reads pack.seq_len, which its row"):
        job.setting("pack.seq_len")


def test_an_attempt_at_a_part_of_the_task_is_the_same_on_every_rank(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    job.ranks.share = lambda value: "attempt-of-rank-0"  # type: ignore[method-assign,assignment,return-value]
    attempt = job.attempt_at("step-00000007")
    assert attempt.path("state.json") == f"pretrain/{job.task.fingerprint}/step-00000007/attempt-of-rank-0/state.json"
